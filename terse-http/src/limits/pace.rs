//! Waiting for one's turn in a leaky bucket.
//!
//! Turns are times on the limiter's clock, each a period after the one before,
//! so that whoever is late makes nobody after it late: errors don't add up. What
//! is left is how exactly one wakes. The runtime's timer counts milliseconds, and
//! rounds twice: a turn would be up to 2 ms late, which is more than 5 % of the
//! gap from 25 turns a second on. So each who waits has a timer of the kernel
//! (`timerfd`), which is late by some tens of microseconds on a machine that has
//! a core to spare: up to 200 turns a second that leaves gaps within 5 % of their
//! length, which is 250 µs there. The drill `limits-paced` asserts it.
//!
//! Bounds: one timer for each request that waits, so there are no more than
//! connections, and each waits for [`MAX_PACE`](terse_resilience::limit::MAX_PACE)
//! at most. Without a descriptor to spare, or off Linux, the runtime's timer does.

use std::time::{Duration, Instant};

/// Waits until `turn`, and never less.
pub(super) async fn until(turn: Instant) {
    if let Err(error) = exactly(turn.saturating_duration_since(Instant::now())).await {
        tracing::debug!(%error, "waiting for a turn by the runtime's timer");
    }
    // The runtime's timer would wait for its next millisecond even where the turn has come.
    if turn > Instant::now() {
        tokio::time::sleep_until(turn.into()).await;
    }
}

/// Waits for `time` by a timer of the kernel.
#[cfg(target_os = "linux")]
async fn exactly(time: Duration) -> std::io::Result<()> {
    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
    };
    use tokio::io::{Interest, unix::AsyncFd};

    let Ok(at) = Timespec::try_from(time) else { return Ok(()) };
    if time.is_zero() {
        // A timer that is set to nothing never rings.
        return Ok(());
    }
    let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
    let never_again = Timespec { tv_sec: 0, tv_nsec: 0 };
    timerfd_settime(&timer, TimerfdTimerFlags::empty(), &Itimerspec { it_interval: never_again, it_value: at })?;
    #[allow(deprecated, reason = "its successor is unsafe; what that asks for, a descriptor owned here is")]
    let timer = AsyncFd::with_interest(timer, Interest::READABLE)?;
    timer.readable().await.map(drop)
}

#[cfg(not(target_os = "linux"))]
async fn exactly(_time: Duration) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Turns a second, and how many are waited for.
    const RATE: u32 = 200;
    const TURNS: u32 = 600;

    /// Taken by the tests that have descriptors or count them.
    static DESCRIPTORS: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

    /// When those were let through who waited together for the turns that follow `began`.
    async fn passed(began: Instant) -> Vec<Instant> {
        let turn = |n: u32| async move {
            until(began + n * Duration::from_secs(1) / RATE).await;
            Instant::now()
        };
        futures_util::future::join_all((1..=TURNS).map(turn)).await
    }

    #[tokio::test]
    async fn nobody_passes_before_the_turn_and_lateness_does_not_add_up() {
        let _alone = DESCRIPTORS.lock().await;
        let began = Instant::now();
        let passed = passed(began).await;
        let gap = Duration::from_secs(1) / RATE;
        let late: Vec<Duration> =
            passed.iter().zip(1..).map(|(at, n)| at.checked_duration_since(began + n * gap).unwrap()).collect();
        // A machine with much to do is late now and then; it is not later with each turn.
        let (first, last) = late.split_at(late.len() / 2);
        let least = |late: &[Duration]| *late.iter().min().unwrap();
        assert!(least(last) < least(first) + gap * 400, "{late:?}");
    }

    #[tokio::test]
    async fn a_turn_that_has_come_is_not_waited_for() {
        use futures_util::FutureExt as _;

        for _ in 0..100 {
            let now = Instant::now();
            for turn in [now, now - Duration::from_micros(100), now - Duration::from_millis(5)] {
                assert!(until(turn).now_or_never().is_some(), "{:?} after it", turn.elapsed());
            }
        }
    }

    #[tokio::test]
    async fn a_wait_that_is_given_up_leaves_nothing() {
        let _alone = DESCRIPTORS.lock().await;
        let open = || std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        let before = open();
        for _ in 0..200 {
            let waiting = until(Instant::now() + Duration::from_secs(3_600));
            assert!(tokio::time::timeout(Duration::from_micros(1), waiting).await.is_err());
        }
        assert!(open() < before + 100, "{} descriptors, {before} before", open());
    }
}
