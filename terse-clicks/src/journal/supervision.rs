//! Threads that are started again when they panic.
//!
//! What a thread works on is shared, or is still there when it unwinds, so it goes on where it was. It waits before it
//! does, for [`FIRST_WAIT`] and then twice as long each time, up to [`MAX_WAIT`]: what panics at once each time costs
//! little. Each panic is told in the log. A thread that panicked within the last minute ([`SOUND_MS`]) does not count as
//! alive: health tells, though it may work.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use terse_core::Clock;

/// How long a thread waits after its first panic.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// The longest wait.
const MAX_WAIT: Duration = Duration::from_secs(10);
/// After so many milliseconds without a panic a thread is sound again: it counts as alive, and its next wait is short.
pub(super) const SOUND_MS: u64 = 60_000;
/// Stands for a thread that has not panicked.
const NEVER: u64 = u64::MAX;

/// A thread and who starts it again.
pub(super) struct Supervised<T> {
    handle: JoinHandle<Option<T>>,
    /// When it panicked last, in monotonic milliseconds.
    fell_ms: Arc<AtomicU64>,
    clock: Arc<dyn Clock>,
}

impl<T: Send + 'static> Supervised<T> {
    /// Starts the thread `name`, which does `work` until that returns. Once it `is_ending`, a panic is not followed by
    /// another try.
    ///
    /// # Errors
    /// Why the thread could not be started.
    pub(super) fn start(
        name: &'static str,
        clock: Arc<dyn Clock>,
        is_ending: impl Fn() -> bool + Send + 'static,
        mut work: impl FnMut() -> T + Send + 'static,
    ) -> io::Result<Self> {
        let fell_ms = Arc::new(AtomicU64::new(NEVER));
        let (fell, time) = (Arc::clone(&fell_ms), Arc::clone(&clock));
        let run = move || {
            let mut wait = FIRST_WAIT;
            loop {
                // Whatever is half done is put in order by the next try, as after the end of a process.
                if let Ok(done) = catch_unwind(AssertUnwindSafe(&mut work)) {
                    return Some(done);
                }
                let now_ms = time.monotonic_ms();
                let before_ms = fell.swap(now_ms, Ordering::Relaxed);
                if before_ms == NEVER || now_ms.saturating_sub(before_ms) >= SOUND_MS {
                    wait = FIRST_WAIT;
                }
                tracing::error!(
                    thread = name,
                    wait_ms = wait.as_millis() as u64,
                    "a thread of the journal has panicked"
                );
                if rest(wait, &is_ending) {
                    return None;
                }
                wait = (2 * wait).min(MAX_WAIT);
            }
        };
        let handle = thread::Builder::new().name(name.to_owned()).spawn(run)?;
        Ok(Self { handle, fell_ms, clock })
    }

    /// Whether it does its work.
    pub(super) fn is_alive(&self) -> bool {
        let fell_ms = self.fell_ms.load(Ordering::Relaxed);
        let is_sound = fell_ms == NEVER || self.clock.monotonic_ms().saturating_sub(fell_ms) >= SOUND_MS;
        is_sound && !self.handle.is_finished()
    }

    /// Ends its rest, if it rests.
    pub(super) fn wake(&self) {
        self.handle.thread().unpark();
    }

    /// Waits for its end, which somebody has told it. `None` = it panicked on the way.
    pub(super) fn join(self) -> Option<T> {
        self.wake();
        self.handle.join().ok().flatten()
    }
}

/// Waits for `wait`, or until it `is_ending`; whether it is.
fn rest(wait: Duration, is_ending: &impl Fn() -> bool) -> bool {
    let until = Instant::now() + wait;
    while !is_ending() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        thread::park_timeout(left);
    }
    true
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize};

    use terse_testkit::TestClock;

    use super::*;

    /// A thread that panics as often as told, then goes on until its end.
    struct Falling {
        thread: Supervised<()>,
        ending: Arc<AtomicBool>,
        begun: Arc<AtomicUsize>,
    }

    fn falls(times: usize, clock: &Arc<TestClock>) -> Falling {
        let (ending, begun) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, count) = (Arc::clone(&ending), Arc::clone(&begun));
        let work = move || {
            if count.fetch_add(1, Ordering::SeqCst) < times {
                // Without the hook's output.
                std::panic::resume_unwind(Box::new("on purpose"));
            }
            while !stopped.load(Ordering::SeqCst) {
                thread::park();
            }
        };
        let (stopped, clock) = (Arc::clone(&ending), Arc::clone(clock) as Arc<dyn Clock>);
        let thread = Supervised::start("test", clock, move || stopped.load(Ordering::SeqCst), work).unwrap();
        Falling { thread, ending, begun }
    }

    impl Falling {
        fn end(self) -> Option<()> {
            self.ending.store(true, Ordering::SeqCst);
            self.thread.join()
        }
    }

    fn eventually(mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !holds() {
            assert!(Instant::now() < deadline, "in time");
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_thread_that_panics_goes_on() {
        let falling = falls(2, &Arc::default());
        eventually(|| falling.begun.load(Ordering::SeqCst) == 3);
        assert_eq!(falling.end(), Some(()));
    }

    #[test]
    fn a_thread_counts_as_alive_a_minute_after_it_panicked() {
        let clock = Arc::<TestClock>::default();
        let falling = falls(1, &clock);
        eventually(|| falling.begun.load(Ordering::SeqCst) == 2);
        clock.advance(Duration::from_millis(SOUND_MS - 1));
        assert!(!falling.thread.is_alive());
        clock.advance(Duration::from_millis(1));
        assert!(falling.thread.is_alive());
        assert_eq!(falling.end(), Some(()));
    }

    #[test]
    fn a_thread_that_never_panicked_is_alive_until_it_ends() {
        let Falling { thread, ending, .. } = falls(0, &Arc::default());
        assert!(thread.is_alive());
        ending.store(true, Ordering::SeqCst);
        thread.wake();
        eventually(|| !thread.is_alive());
        assert_eq!(thread.join(), Some(()));
    }

    #[test]
    fn a_thread_that_panics_while_all_ends_is_not_started_again() {
        let falling = falls(usize::MAX, &Arc::default());
        assert_eq!(falling.end(), None);
    }
}
