//! What each limiter lets through over time, in a time of its own: the same for every run.
//!
//! All four rules let through 10 a second in the long run and 100 at once, or
//! hold 100 back. Each meets three schedules: two bursts, twice its rate
//! evenly, and a burst on either side of a tick of the windows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use terse_resilience::MonotonicClock;
use terse_resilience::limit::{Key, Rule, local};

/// Between two points of a curve.
const STEP_MS: u64 = 500;
/// How long a curve is.
const CURVE_MS: u64 = 30_000;
/// Units at once, and in a window.
const UNITS: u32 = 100;
/// Units a second.
const RATE: u32 = 10;
/// A window.
const WINDOW_MS: u64 = 10_000;

/// Every rule.
pub(crate) const RULES: [Rule; 4] = [
    Rule::TokenBucket { burst: UNITS, refill: RATE, per: Duration::from_secs(1) },
    Rule::SlidingWindow { limit: UNITS, window: Duration::from_millis(WINDOW_MS) },
    Rule::FixedWindow { limit: UNITS, window: Duration::from_millis(WINDOW_MS) },
    Rule::LeakyBucket { rate: RATE, per: Duration::from_secs(1), queue: UNITS - 1 },
];

/// A clock that stands where it is put.
#[derive(Default)]
struct SetClock(AtomicU64);

impl MonotonicClock for SetClock {
    fn monotonic_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// When units are asked for, each by itself, in milliseconds.
pub(crate) struct Schedule {
    name: &'static str,
    asked_ms: Vec<u64>,
}

/// The three.
pub(crate) fn schedules() -> [Schedule; 3] {
    let evenly = |from: u64, until: u64, gap: usize| (from..until).step_by(gap).collect::<Vec<_>>();
    let burst = |at: u64| [at; 2 * UNITS as usize];
    [
        Schedule { name: "burst", asked_ms: [burst(2_000), burst(17_000)].concat() },
        Schedule { name: "steady", asked_ms: evenly(0, CURVE_MS, 50) },
        Schedule { name: "window edge", asked_ms: [burst(9_500), burst(10_000)].concat() },
    ]
}

/// When each unit was let through, a paced one at its turn.
fn passed_ns(rule: Rule, schedule: &Schedule) -> Vec<u64> {
    let clock = Arc::new(SetClock::default());
    let limiter = local(rule, 8, clock.clone(), 0).unwrap();
    let mut passed = vec![];
    for asked_ms in &schedule.asked_ms {
        clock.0.store(*asked_ms, Ordering::Relaxed);
        let drawn = limiter.draw(&Key::ANYBODY, 1);
        let turn_ns = asked_ms * 1_000_000 + drawn.wait.as_nanos() as u64;
        passed.extend((drawn.granted > 0).then_some(turn_ns));
    }
    passed
}

/// The most that passed within `window_ms`, wherever that begins.
fn most_within(passed_ns: &[u64], window_ms: u64) -> usize {
    let until = |from: u64| passed_ns.partition_point(|at| *at < from + window_ms * 1_000_000);
    passed_ns.iter().enumerate().map(|(first, from)| until(*from) - first).max().unwrap_or(0)
}

/// What the rule promises of this schedule holds.
fn assert_promised(rule: Rule, schedule: &Schedule, passed_ns: &[u64]) {
    let what = format!("{}, {}", rule.name(), schedule.name);
    let (all, most, limit) = (passed_ns.len(), most_within(passed_ns, WINDOW_MS), UNITS as usize);
    match rule {
        Rule::TokenBucket { .. } => {
            for (first, from) in passed_ns.iter().enumerate() {
                for (last, at) in passed_ns.iter().enumerate().skip(first) {
                    let allowed = u64::from(UNITS) + (at - from) * u64::from(RATE) / 1_000_000_000;
                    assert!((last - first + 1) as u64 <= allowed, "{what}: more than its burst and rate");
                }
            }
        }
        Rule::SlidingWindow { .. } => assert!(most <= limit, "{what}: {most} in a window"),
        Rule::FixedWindow { .. } if schedule.name == "window edge" => {
            assert_eq!(most, 2 * limit, "{what}: twice its limit around a tick, by design");
        }
        Rule::FixedWindow { .. } => assert!(most <= 2 * limit, "{what}: {most} in a window"),
        Rule::LeakyBucket { .. } => {
            let gap_ns = 1_000_000_000 / u64::from(RATE);
            assert!(passed_ns.windows(2).all(|pair| pair[1] - pair[0] >= gap_ns), "{what}: a gap is too short");
        }
    }
    let expected = match (rule, schedule.name) {
        (_, "burst") => 2 * limit,
        (Rule::FixedWindow { .. }, "window edge") => 2 * limit,
        // Half a second brings five units back, and makes room for as many.
        (Rule::TokenBucket { .. } | Rule::LeakyBucket { .. }, "window edge") => limit + 5,
        (Rule::SlidingWindow { .. }, "window edge") => limit,
        // The burst, and 299 more: the last unit is asked for before the 30 seconds end.
        (Rule::TokenBucket { .. } | Rule::LeakyBucket { .. }, _) => limit + 299,
        // Of three windows; a sliding one gives units back a tenth of a window late, and half of its time is left.
        (Rule::FixedWindow { .. } | Rule::SlidingWindow { .. }, _) => 3 * limit,
    };
    assert_eq!(all, expected, "{what}: let through");
}

/// Prints `curve: RULE, SCHEDULE: MS OFFERED PASSED`, a line a step with the units of that step.
pub(crate) fn print() {
    for schedule in schedules() {
        for rule in RULES {
            let passed_ns = passed_ns(rule, &schedule);
            assert_promised(rule, &schedule, &passed_ns);
            let mut steps: BTreeMap<u64, [u32; 2]> = (0..CURVE_MS / STEP_MS).map(|step| (step, [0; 2])).collect();
            for asked_ms in &schedule.asked_ms {
                steps.entry(asked_ms / STEP_MS).or_default()[0] += 1;
            }
            // What is paced may have its turn after the curve.
            for at_ns in passed_ns.iter().filter(|at_ns| **at_ns < CURVE_MS * 1_000_000) {
                steps.entry(at_ns / 1_000_000 / STEP_MS).or_default()[1] += 1;
            }
            for (step, [offered, passed]) in steps {
                println!("curve: {}, {}: {} {offered} {passed}", rule.name(), schedule.name, step * STEP_MS);
            }
        }
    }
}
