//! What the machine itself adds to latencies at a fixed rate: while nobody serves, a thread on the server's core and
//! one on the generator's do nothing but look at the clock. Time that one of them doesn't get (another process, the
//! kernel's own work, the host) is a pause, and whoever is due in it waits for its end. The percentiles are so those
//! of a server that takes no time at all, which no other can be below.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use super::super::Bench;
use super::super::pin::{Cores, on_core};
use super::super::report::{Reading, Series};

/// The series.
pub const MACHINE: &str = "machine alone, half of peak";
/// A shorter gap between two looks at the clock is no pause: looking takes some of it.
const PAUSE: Duration = Duration::from_micros(20);
/// Steps in which a percentile is looked for: each halves what is unknown of it.
const HALVINGS: u32 = 50;

/// From when to when a core was away, since the window began.
type Pause = (Duration, Duration);

/// Looks at the clock for one window a round.
///
/// # Errors
/// When a core can't be had.
pub fn measure(bench: &Bench<'_>) -> Result<Series> {
    let mut series = Series::new(MACHINE);
    for _ in 0..bench.run.rounds() {
        series.add(round(bench.cores, bench.run.window())?);
    }
    Ok(series)
}

fn round(cores: Cores, window: Duration) -> Result<Vec<Reading>> {
    let begun = Instant::now();
    let both = thread::scope(|scope| {
        let server = scope.spawn(|| on_core(cores.server, || Ok(pauses(begun, window))));
        let generator = on_core(cores.generator, || Ok(pauses(begun, window)));
        let server = server.join().map_err(|_| anyhow!("the thread on the server's core panicked"))?;
        Ok::<_, anyhow::Error>([server?, generator?].concat())
    })?;
    let together = merged(both);
    let away: Duration = together.iter().map(|(from, to)| *to - *from).sum();
    let ms = |share| waits_at_most(&together, window, share).as_secs_f64() * 1e3;
    let away_percent = away.as_secs_f64() / window.as_secs_f64() * 100.0;
    Ok(vec![("p50_ms", ms(0.5)), ("p99_ms", ms(0.99)), ("p99.9_ms", ms(0.999)), ("away_percent", away_percent)])
}

/// The pauses of this thread until the window ends.
fn pauses(begun: Instant, window: Duration) -> Vec<Pause> {
    let mut pauses = Vec::new();
    let mut last = begun.elapsed();
    while last < window {
        let now = begun.elapsed().min(window);
        if now - last >= PAUSE {
            pauses.push((last, now));
        }
        last = now;
    }
    pauses
}

/// The same time, where those that overlap are one.
fn merged(mut pauses: Vec<Pause>) -> Vec<Pause> {
    pauses.sort_unstable();
    let mut merged: Vec<Pause> = Vec::new();
    for (from, to) in pauses {
        match merged.last_mut() {
            Some(last) if from <= last.1 => last.1 = last.1.max(to),
            _ => merged.push((from, to)),
        }
    }
    merged
}

/// How long at most this `share` of those waits that are due evenly over the window: one who is due in a pause waits
/// until its end.
fn waits_at_most(pauses: &[Pause], window: Duration, share: f64) -> Duration {
    let late_for = |wait: f64| -> f64 {
        pauses.iter().map(|(from, to)| ((*to - *from).as_secs_f64() - wait).max(0.0)).sum::<f64>()
    };
    let allowed = window.as_secs_f64() * (1.0 - share);
    let (mut short, mut long) = (0.0, window.as_secs_f64());
    if late_for(short) <= allowed {
        return Duration::ZERO;
    }
    for _ in 0..HALVINGS {
        let middle = (short + long) / 2.0;
        if late_for(middle) <= allowed {
            long = middle;
        } else {
            short = middle;
        }
    }
    Duration::from_secs_f64(long)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(from: u64, to: u64) -> Pause {
        (Duration::from_millis(from), Duration::from_millis(to))
    }

    #[test]
    fn who_is_due_in_a_pause_waits_until_its_end() {
        let window = Duration::from_secs(1);
        // Of a thousand, one a millisecond, those due in the first 10 ms of the pause wait longer than 20 ms.
        let waits = waits_at_most(&[ms(500, 530)], window, 0.99);
        assert!((waits.as_secs_f64() - 0.020).abs() < 1e-6, "{waits:?}");
        assert_eq!(waits_at_most(&[ms(500, 530)], window, 0.95), Duration::ZERO, "97 of a hundred don't wait");
        assert_eq!(waits_at_most(&[], window, 0.999), Duration::ZERO);
    }

    #[test]
    fn two_pauses_count_as_both_and_those_of_both_cores_at_once_as_one() {
        let window = Duration::from_secs(1);
        let apart = merged(vec![ms(600, 615), ms(100, 115)]);
        let waits = waits_at_most(&apart, window, 0.99);
        assert!((waits.as_secs_f64() - 0.010).abs() < 1e-6, "5 ms of each wait longer: {waits:?}");
        assert_eq!(merged(vec![ms(100, 120), ms(110, 115), ms(120, 130), ms(140, 150)]), [ms(100, 130), ms(140, 150)]);
    }

    #[test]
    fn a_thread_that_gets_no_time_has_a_pause() {
        let begun = Instant::now();
        thread::sleep(Duration::from_millis(5));
        assert!(pauses(begun, Duration::from_millis(2)).is_empty(), "the window is over");
        let Ok(cores) = Cores::choose() else { return };
        let readings = round(cores, Duration::from_millis(20)).unwrap();
        assert_eq!(
            readings.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
            ["p50_ms", "p99_ms", "p99.9_ms", "away_percent"]
        );
        assert!(readings.iter().all(|(_, value)| (0.0..=100.0).contains(value)), "{readings:?}");
    }
}
