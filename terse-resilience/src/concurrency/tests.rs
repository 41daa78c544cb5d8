//! The limit against a plain model, and on stores of which it is known what they can do.

use std::collections::VecDeque;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::test_clock::TestClock;

/// A store's calls, one after the other, on a clock that the test moves.
struct Bench {
    clock: Arc<TestClock>,
    limit: ConcurrencyLimit,
}

impl Bench {
    fn new(settings: ConcurrencySettings) -> Self {
        let clock = TestClock::at(1_000);
        let limit = ConcurrencyLimit::new(settings, clock.clone()).unwrap();
        Self { clock, limit }
    }

    /// A window of `at_once` calls that take `ms` each.
    fn window(&self, at_once: usize, ms: u64) -> u64 {
        let mut began = false;
        // The first calls to end begin the window, those that end when it is over make it whole.
        for wait in [0, 100] {
            self.clock.advance(wait);
            let running: Vec<_> = (0..at_once).map_while(|_| self.limit.try_acquire().ok()).collect();
            self.clock.advance(ms);
            began |= !running.is_empty();
            running.into_iter().for_each(Running::answered);
        }
        assert!(began);
        self.limit.snapshot().limit
    }
}

impl Bench {
    /// The limits after `count` such windows.
    fn windows(&self, count: usize, at_once: usize, ms: u64) -> Vec<u64> {
        (0..count).map(|_| self.window(at_once, ms)).collect()
    }
}

/// The rule alone, without patience.
fn settings(initial: u32, min: u32, max: u32) -> ConcurrencySettings {
    ConcurrencySettings { initial, min, max, patience_ms: 0, ..ConcurrencySettings::default() }
}

#[test]
fn as_many_run_as_may_and_the_next_is_refused() {
    let Bench { limit, clock } = Bench::new(settings(2, 1, 9));
    let first = limit.try_acquire().unwrap();
    let _second = limit.try_acquire().unwrap();
    assert_eq!(limit.try_acquire().unwrap_err().to_string(), "all of 2 calls at once are under way");
    drop(first);
    clock.advance(7);
    let _third = limit.try_acquire().unwrap();
    let expected = ConcurrencySnapshot { limit: 2, in_flight: 2, shed: 1, calm_ms: Some(7) };
    assert_eq!(limit.snapshot(), expected);
}

#[test]
fn a_limit_tells_how_full_it_is() {
    let Bench { limit, .. } = Bench::new(settings(4, 1, 9));
    assert!(limit.is_filled(0) && !limit.is_filled(1));
    let _running = [limit.try_acquire().unwrap(), limit.try_acquire().unwrap()];
    assert!(limit.is_filled(50) && !limit.is_filled(51));
}

#[test]
fn calls_that_take_as_long_as_ever_let_the_limit_grow_to_its_most() {
    let bench = Bench::new(settings(20, 10, 40));
    let limits = bench.windows(60, 40, 5);
    assert!(limits.is_sorted(), "{limits:?}");
    assert_eq!(limits.last(), Some(&40));
}

#[test]
fn calls_that_take_longer_shrink_it_and_never_below_its_least() {
    let bench = Bench::new(settings(100, 10, 200));
    bench.windows(5, 20, 5);
    let limits = bench.windows(60, 200, 100);
    assert!(limits[0] < 100 && limits[0] >= 80, "a fifth of a step: {limits:?}");
    assert!(limits.iter().all(|limit| *limit >= 10));
    assert!(limits.contains(&10), "{limits:?}");
}

#[test]
fn it_never_shrinks_while_calls_take_far_less_than_callers_wait() {
    let bench = Bench::new(ConcurrencySettings { patience_ms: 70, ..settings(100, 10, 200) });
    bench.windows(5, 20, 1);
    let limits = bench.windows(60, 200, 70);
    assert!(limits.is_sorted() && limits.last() == Some(&200), "seventy times as long, and in time: {limits:?}");
    assert!(bench.window(200, 140) < 200, "beyond that it shrinks");
    let impatient = Bench::new(settings(100, 10, 200));
    impatient.windows(5, 20, 1);
    assert!(impatient.windows(60, 200, 70).contains(&10), "without patience it does at once");
}

#[test]
fn what_is_usual_is_tolerated_beyond_patience() {
    let bench = Bench::new(ConcurrencySettings { patience_ms: 70, ..settings(100, 10, 200) });
    bench.windows(5, 20, 200);
    let limits = bench.windows(60, 200, 300);
    assert!(limits.is_sorted() && limits.last() == Some(&200), "{limits:?}");
}

#[test]
fn a_limit_that_is_not_half_used_stays() {
    let bench = Bench::new(settings(100, 10, 200));
    for ms in [5, 5, 5, 50, 500, 1] {
        assert_eq!(bench.window(49, ms), 100, "{ms}");
    }
}

#[test]
fn what_a_window_with_a_call_given_up_shrinks_is_the_most() {
    let bench = Bench::new(settings(100, 10, 200));
    bench.windows(5, 20, 5);
    let running: Vec<_> = (0..60).map(|_| bench.limit.try_acquire().unwrap()).collect();
    bench.clock.advance(5);
    running.into_iter().for_each(Running::given_up);
    bench.clock.advance(100);
    (0..LEAST_CALLS).for_each(|_| bench.limit.try_acquire().unwrap().answered());
    // A fifth of the way to the half, with the room of ten.
    assert_eq!(bench.limit.snapshot().limit, 92);
}

/// With Gradient2 as it is the longer an overload lasts, the more usual it becomes.
#[test]
fn an_overload_that_lasts_does_not_become_usual() {
    let bench = Bench::new(settings(100, 50, 1_000));
    bench.windows(20, 20, 5);
    let mut most = 0;
    for window in 0..3_000 {
        // Each call takes as long as all that run at once take together.
        let limit = bench.limit.snapshot().limit;
        let now = bench.window(limit as usize, limit / 2);
        if window > 100 {
            most = most.max(now);
        }
    }
    assert!(most <= 150, "{most} at once");
}

#[test]
fn a_store_that_is_slower_for_good_gets_its_room_back() {
    let bench = Bench::new(settings(100, 50, 400));
    bench.windows(20, 20, 5);
    let slow = bench.windows(20, 400, 80);
    assert!(slow.contains(&50), "{slow:?}");
    let later = bench.windows(3_000, 400, 80);
    assert_eq!(later.last(), Some(&400), "{:?}", &later[2_900..]);
}

#[test]
fn a_dropped_call_gives_its_place_back_and_teaches_nothing() {
    let bench = Bench::new(settings(10, 5, 20));
    for _ in 0..100 {
        let running: Vec<_> = (0..10).map(|_| bench.limit.try_acquire().unwrap()).collect();
        bench.clock.advance(1_000);
        drop(running);
    }
    let expected = ConcurrencySnapshot { limit: 10, in_flight: 0, shed: 0, calm_ms: None };
    assert_eq!(bench.limit.snapshot(), expected);
}

#[test]
fn a_failure_counts_only_if_it_took_longer_than_usual() {
    let fail = |ms: u64| {
        let bench = Bench::new(settings(100, 10, 200));
        bench.windows(5, 20, 50);
        for wait in [0, 100, 100] {
            bench.clock.advance(wait);
            let running: Vec<_> = (0..60).map(|_| bench.limit.try_acquire().unwrap()).collect();
            bench.clock.advance(ms);
            running.into_iter().for_each(Running::failed);
        }
        bench.limit.snapshot().limit
    };
    assert_eq!(fail(50), 100, "a store that refuses at once is not a quick one");
    assert!(fail(500) < 100, "one that fails late is slow");
}

#[test]
fn a_call_that_panics_gives_its_place_back() {
    let Bench { limit, .. } = Bench::new(settings(1, 1, 1));
    let call = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _running = limit.try_acquire().unwrap();
        std::panic::resume_unwind(Box::new("the call broke"));
    }));
    assert!(call.is_err());
    assert!(limit.try_acquire().is_ok());
}

#[test]
fn a_clock_that_steps_back_harms_nothing() {
    let bench = Bench::new(settings(20, 10, 40));
    bench.windows(5, 20, 5);
    let running: Vec<_> = (0..20).map(|_| bench.limit.try_acquire().unwrap()).collect();
    bench.clock.set(1);
    running.into_iter().for_each(Running::answered);
    bench.windows(60, 40, 5);
    assert_eq!(bench.limit.snapshot().limit, 40);
}

#[test]
fn racing_threads_never_exceed_the_limit_and_leak_nothing() {
    let limit = ConcurrencyLimit::new(settings(3, 3, 3), Arc::new(|| 0_u64)).unwrap();
    let held = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..2_000 {
                    if let Ok(running) = limit.try_acquire() {
                        assert!(held.fetch_add(1, Ordering::SeqCst) < 3);
                        held.fetch_sub(1, Ordering::SeqCst);
                        running.answered();
                    }
                }
            });
        }
    });
    assert_eq!(limit.snapshot().in_flight, 0);
}

#[test]
fn each_setting_has_its_limits() {
    let refused = |change: fn(&mut ConcurrencySettings)| {
        let mut settings = ConcurrencySettings::default();
        change(&mut settings);
        settings.check().unwrap_err().setting
    };
    assert_eq!(refused(|s| s.min = 0), "min");
    assert_eq!(refused(|s| s.max = s.min - 1), "max");
    assert_eq!(refused(|s| s.max = MOST + 1), "max");
    assert_eq!(refused(|s| s.initial = s.max + 1), "initial");
    assert_eq!(refused(|s| s.initial = s.min - 1), "initial");
    assert_eq!(refused(|s| s.window_ms = 0), "window_ms");
    assert_eq!(refused(|s| s.tolerance_percent = 99), "tolerance_percent");
    let default = ConcurrencySettings::default();
    default.check().unwrap();
    assert!(default.min >= 2 * 64, "64 callers at a time are no more than half of it");
}

/// A store with so many workers, each of which takes so long for a call; whatever comes meanwhile waits in line.
/// All times are in tenths of a millisecond.
struct Store {
    workers: usize,
    service: u64,
    line: VecDeque<(u64, Option<usize>)>,
    busy: Vec<u64>,
}

/// What came of offering a store more than it can do: calls answered in time, later, refused.
#[derive(Debug, Default)]
struct Outcome {
    in_time: usize,
    late: usize,
    refused: usize,
}

impl Store {
    fn new(workers: usize, service: u64) -> Self {
        Self { workers, service, line: VecDeque::new(), busy: Vec::new() }
    }

    /// Offers `rate` calls per tick (in thousandths) for `ticks`; `patience` is when callers give up.
    fn run(&mut self, bench: &Fine, rate: u64, ticks: u64, patience: u64) -> Outcome {
        let (mut outcome, mut owed) = (Outcome::default(), 0);
        let mut running: VecDeque<Option<Running<'_>>> = VecDeque::new();
        let mut first = 0;
        for _ in 0..ticks {
            let now = bench.clock.tick();
            owed += rate;
            while owed >= 1_000 {
                owed -= 1_000;
                match bench.limit.as_ref().map(ConcurrencyLimit::try_acquire) {
                    Some(Err(_)) => outcome.refused += 1,
                    Some(Ok(call)) => {
                        running.push_back(Some(call));
                        self.line.push_back((now, Some(first + running.len() - 1)));
                    }
                    None => self.line.push_back((now, None)),
                }
            }
            self.busy.retain(|until| *until > now);
            while self.busy.len() < self.workers
                && let Some((came, number)) = self.line.pop_front()
            {
                let ends = now + self.service;
                self.busy.push(ends);
                // Whoever gave up had the store work for nobody.
                let late = ends - came > patience;
                if late {
                    outcome.late += 1
                } else {
                    outcome.in_time += 1
                }
                if let Some(call) = number.and_then(|number| running.get_mut(number - first)).and_then(Option::take) {
                    if late { call.given_up() } else { call.answered() }
                }
                while running.front().is_some_and(Option::is_none) {
                    running.pop_front();
                    first += 1;
                }
            }
        }
        outcome
    }
}

/// A clock in tenths of a millisecond, and perhaps a limit on it.
struct Fine {
    clock: Arc<Ticks>,
    limit: Option<ConcurrencyLimit>,
}

#[derive(Default)]
struct Ticks(std::sync::atomic::AtomicU64);

impl Ticks {
    fn tick(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }
}

impl MonotonicClock for Ticks {
    fn monotonic_ms(&self) -> u64 {
        self.monotonic_ns() / 1_000_000
    }

    fn monotonic_ns(&self) -> u64 {
        self.0.load(Ordering::SeqCst) * 100_000
    }
}

/// Four workers that take 5 ms are offered three times what they can do, for a minute; callers wait for 700 ms.
fn overloaded(limited: bool) -> Outcome {
    let clock = Arc::new(Ticks::default());
    let limit = limited.then(|| ConcurrencyLimit::new(ConcurrencySettings::default(), clock.clone()).unwrap());
    let fine = Fine { clock, limit };
    // Before that, it is as quick as ever and asked for little.
    Store::new(4, 2).run(&fine, 20, 50_000, 7_000);
    Store::new(4, 50).run(&fine, 240, 600_000, 7_000)
}

#[test]
fn a_store_that_is_asked_for_three_times_what_it_can_do_does_what_it_can() {
    const CAPACITY: usize = 4 * 200 * 60;
    let with = overloaded(true);
    assert!(with.in_time * 100 >= CAPACITY * 95, "{with:?}");
    let without = overloaded(false);
    assert!(without.in_time * 100 <= CAPACITY * 5, "there is nothing to limit: {without:?}");
}

/// The plain model: all that ended is kept, and the limit is worked out from the beginning.
#[derive(Clone, Debug)]
struct Model {
    settings: ConcurrencySettings,
    /// When each call ended and began, how many ran at once, whether it was given up; in milliseconds.
    ended: Vec<(u64, u64, u64, bool)>,
}

impl Model {
    fn limit(&self) -> u64 {
        let (min, max) = (f64::from(self.settings.min), f64::from(self.settings.max));
        let mut limit = f64::from(self.settings.initial);
        let mut means: Vec<f64> = Vec::new();
        let (mut held_down, mut probe) = (0, None);
        let (mut usual, mut window): (f64, Vec<(u64, u64, u64, bool)>) = (0.0, Vec::new());
        for call in &self.ended {
            window.push(*call);
            if window.len() < 10 || call.0 - window[0].0 < self.settings.window_ms {
                continue;
            }
            let sum: f64 = window.iter().map(|(end, begin, ..)| (end - begin) as f64 * 1e6).sum();
            let mean = (sum / window.len() as f64).max(1.0);
            let most = window.iter().map(|(_, _, at_once, _)| *at_once as f64).fold(0.0, f64::max);
            let half_used = most >= limit / 2.0;
            if means.is_empty() || !half_used || most <= min {
                means.push(mean);
                let later = if half_used && means.len() > 1 { 0.1 } else { 2.0 / 601.0 };
                let weight = if means.len() <= 10 { 1.0 / means.len() as f64 } else { later };
                usual += (mean - usual) * weight;
            }
            usual *= if usual > 2.0 * mean { 0.95 } else { 1.0 };
            if let Some(before) = probe {
                (limit, probe) = if most <= min { (before, None) } else { (limit, probe) };
            } else if half_used {
                let tolerated = usual * f64::from(self.settings.tolerance_percent) / 100.0;
                let tolerated = tolerated.max(self.settings.patience_ms as f64 * 1e6);
                let given_up = window.iter().any(|(_, _, _, given_up)| *given_up);
                let gradient = if given_up { 0.5 } else { (tolerated / mean).clamp(0.5, 1.0) };
                let wanted = limit * gradient + limit.sqrt().max(4.0);
                limit = (limit * (1.0 - 0.2) + wanted * 0.2).clamp(min, max);
                held_down = if gradient < 1.0 { held_down + 1 } else { 0 };
                if held_down > 50 && limit > min {
                    (probe, limit, held_down) = (Some(limit), min, 0);
                }
            }
            window.clear();
        }
        limit as u64
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Begin,
    Answer(usize),
    GiveUp(usize),
    Forget(usize),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => Just(Step::Begin),
        5 => any::<usize>().prop_map(Step::Answer),
        1 => any::<usize>().prop_map(Step::GiveUp),
        1 => any::<usize>().prop_map(Step::Forget),
        4 => (0_u64..60).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 0..800)
}

proptest! {
    #[test]
    fn the_limit_is_what_the_plain_model_says(
        steps in steps(), initial in 2_u32..30, min in 1_u32..3, window_ms in 1_u64..200,
        patience_ms in prop_oneof![Just(0), 1_u64..100],
    ) {
        let settings = ConcurrencySettings { initial, min, max: 40, window_ms, tolerance_percent: 150, patience_ms };
        let clock = TestClock::at(0);
        let limit = ConcurrencyLimit::new(settings, clock.clone()).unwrap();
        let mut model = Model { settings, ended: Vec::new() };
        let mut running: Vec<(Running<'_>, u64, u64)> = Vec::new();
        let mut shed = 0;
        for step in steps {
            let now = clock.monotonic_ms();
            let chosen = |at: usize, running: &mut Vec<_>| (!running.is_empty()).then(|| running.remove(at % running.len()));
            match step {
                Step::Begin => {
                    let fits = (running.len() as u64) < model.limit();
                    let begun = limit.try_acquire();
                    prop_assert_eq!(begun.is_ok(), fits);
                    shed += u64::from(!fits);
                    let at_once = running.len() as u64 + 1;
                    running.extend(begun.ok().map(|call| (call, now, at_once)));
                }
                Step::Answer(at) => if let Some((call, began, at_once)) = chosen(at, &mut running) {
                    call.answered();
                    model.ended.push((now, began, at_once, false));
                },
                Step::GiveUp(at) => if let Some((call, began, at_once)) = chosen(at, &mut running) {
                    call.given_up();
                    model.ended.push((now, began, at_once, true));
                },
                Step::Forget(at) => drop(chosen(at, &mut running)),
                Step::Wait(ms) => clock.advance(ms),
            }
            let seen = limit.snapshot();
            prop_assert_eq!((seen.limit, seen.in_flight, seen.shed), (model.limit(), running.len() as u64, shed));
            prop_assert!((u64::from(min)..=40).contains(&seen.limit));
        }
    }
}

#[test]
fn a_window_takes_its_time_from_the_clock_in_nanoseconds() {
    let clock = Arc::new(Ticks::default());
    let limit = ConcurrencyLimit::new(settings(20, 10, 40), clock.clone()).unwrap();
    let running = limit.try_acquire().unwrap();
    clock.tick();
    running.answered();
    assert_eq!(lock(&limit.course).window.sum_ns, Duration::from_micros(100).as_nanos() as f64);
}
