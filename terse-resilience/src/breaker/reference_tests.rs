//! The breaker against a plain model of it: one thread, no packing, every call
//! of the window in a list. Random calls, verdicts, waits and holds must give
//! the same answers and show the same state.

use proptest::prelude::*;

use super::*;
use crate::test_clock::TestClock;

/// The model's state.
#[derive(Clone, Debug)]
enum Plain {
    /// How each call ended: when, failed, slow.
    Closed(Vec<(u64, bool, bool)>),
    Open {
        until_ms: u64,
    },
    HalfOpen {
        probes: u32,
        newest_ms: u64,
        succeeded: u32,
    },
    Held(Forced),
}

struct Model {
    settings: BreakerSettings,
    now_ms: u64,
    plain: Plain,
    generation: u64,
    since_ms: u64,
    growths: u32,
}

/// A call that the model let through.
#[derive(Clone, Copy, Debug)]
struct PlainCall {
    generation: u64,
    began_ms: u64,
}

impl Model {
    fn enter(&mut self, plain: Plain) {
        self.plain = plain;
        self.generation += 1;
        self.since_ms = self.now_ms;
    }

    fn open(&mut self) {
        if matches!(self.plain, Plain::Closed(_)) {
            let calm = (self.now_ms - self.since_ms) / self.settings.calm_ms;
            self.growths -= self.growths.min(calm as u32);
        }
        let BreakerSettings { open_ms, open_factor, max_open_ms, .. } = self.settings;
        let open_ms = max_open_ms.min(open_ms * u64::from(open_factor).pow(self.growths));
        self.growths += u32::from(open_ms < max_open_ms);
        self.enter(Plain::Open { until_ms: self.now_ms + open_ms });
    }

    fn acquire(&mut self) -> Result<PlainCall, Rejected> {
        let reject = |reason, retry_after_ms| Err(Rejected { reason, retry_after_ms });
        if let Plain::Open { until_ms } = self.plain {
            if self.now_ms < until_ms {
                return reject(RejectReason::Open, until_ms - self.now_ms);
            }
            self.enter(Plain::HalfOpen { probes: 0, newest_ms: 0, succeeded: 0 });
        }
        match &mut self.plain {
            Plain::HalfOpen { probes, newest_ms, .. } if *probes < self.settings.probes => {
                *probes += 1;
                *newest_ms = self.now_ms;
            }
            Plain::HalfOpen { newest_ms, .. } if self.now_ms - *newest_ms >= self.settings.call_limit_ms => {
                self.open();
                let Plain::Open { until_ms } = self.plain else { panic!("it has just opened") };
                return reject(RejectReason::Open, until_ms - self.now_ms);
            }
            Plain::HalfOpen { .. } => return reject(RejectReason::ProbesTaken, self.settings.open_ms),
            Plain::Held(Forced::Open) => return reject(RejectReason::ForcedOpen, self.settings.max_open_ms),
            Plain::Closed(_) | Plain::Held(Forced::Closed) | Plain::Open { .. } => {}
        }
        Ok(PlainCall { generation: self.generation, began_ms: self.now_ms })
    }

    fn end(&mut self, call: PlainCall, verdict: Verdict) {
        let age_ms = self.now_ms - call.began_ms;
        let slow = match self.settings.policy {
            Policy::Consecutive { .. } => None,
            Policy::Rate(rate) | Policy::Either { rate, .. } => rate.slow,
        };
        let slow = slow.is_some_and(|slow| age_ms >= slow.after_ms);
        let failed = match verdict {
            Verdict::Success => Some(false),
            Verdict::Failure | Verdict::Timeout => Some(true),
            Verdict::Ignored => None,
            Verdict::Dropped => (age_ms >= self.settings.call_limit_ms).then_some(true),
        };
        if call.generation != self.generation {
            return;
        }
        match (&mut self.plain, failed) {
            (Plain::HalfOpen { probes, .. }, None) => *probes -= 1,
            (Plain::HalfOpen { probes, succeeded, .. }, Some(false)) if !slow => {
                *probes -= 1;
                *succeeded += 1;
                if *succeeded == self.settings.probe_successes {
                    self.enter(Plain::Closed(Vec::new()));
                }
            }
            (Plain::HalfOpen { .. }, Some(_)) => self.open(),
            (Plain::Closed(ended), Some(failed)) => {
                ended.push((self.now_ms, failed, slow));
                if self.must_trip() {
                    self.open();
                }
            }
            _ => {}
        }
    }

    fn must_trip(&self) -> bool {
        match self.settings.policy {
            Policy::Consecutive { failures } => self.consecutive_failures() >= failures,
            Policy::Rate(rate) => self.must_trip_by(&rate),
            Policy::Either { failures, rate } => self.consecutive_failures() >= failures || self.must_trip_by(&rate),
        }
    }

    fn must_trip_by(&self, rate: &RatePolicy) -> bool {
        let Tally { calls, failures, slow } = self.tally().unwrap();
        let share = |part: u32, percent: u8| 100 * part >= u32::from(percent) * calls;
        let too_slow = rate.slow.is_some_and(|limit| share(slow, limit.percent));
        calls >= rate.min_calls && (share(failures, rate.failure_percent) || too_slow)
    }

    fn consecutive_failures(&self) -> u32 {
        match (&self.plain, self.settings.policy) {
            (Plain::Closed(ended), Policy::Consecutive { .. } | Policy::Either { .. }) => {
                ended.iter().rev().take_while(|(_, failed, _)| *failed).count() as u32
            }
            _ => 0,
        }
    }

    /// What the window holds while closed.
    fn tally(&self) -> Option<Tally> {
        let Plain::Closed(ended) = &self.plain else { return None };
        let (Policy::Rate(rate) | Policy::Either { rate, .. }) = self.settings.policy else { return None };
        let bucket = |at_ms: u64| at_ms / (rate.window_ms / u64::from(rate.buckets));
        let inside = |at_ms: u64| bucket(at_ms) + u64::from(rate.buckets) > bucket(self.now_ms);
        let mut tally = Tally::default();
        for (_, failed, slow) in ended.iter().filter(|(at_ms, ..)| inside(*at_ms)) {
            tally.calls += 1;
            tally.failures += u32::from(*failed);
            tally.slow += u32::from(*slow);
        }
        Some(tally)
    }

    fn force(&mut self, forced: Option<Forced>) {
        match (&self.plain, forced) {
            (Plain::Held(held), Some(forced)) if *held == forced => {}
            (_, Some(forced)) => self.enter(Plain::Held(forced)),
            (Plain::Held(Forced::Open), None) => {
                self.enter(Plain::HalfOpen { probes: 0, newest_ms: 0, succeeded: 0 });
            }
            (Plain::Held(Forced::Closed), None) => self.enter(Plain::Closed(Vec::new())),
            (_, None) => {}
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Acquire,
    /// Ends the call at this place among those under way.
    End(usize, Verdict),
    Wait(u64),
    Force(Option<Forced>),
}

fn any_verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        3 => Just(Verdict::Success),
        4 => Just(Verdict::Failure),
        1 => Just(Verdict::Timeout),
        1 => Just(Verdict::Ignored),
        1 => Just(Verdict::Dropped),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        40 => Just(Step::Acquire),
        40 => (any::<usize>(), any_verdict()).prop_map(|(place, verdict)| Step::End(place, verdict)),
        20 => (0_u64..30).prop_map(Step::Wait),
        1 => prop_oneof![Just(None), Just(Some(Forced::Open)), Just(Some(Forced::Closed))].prop_map(Step::Force),
    ]
}

fn any_policy() -> impl Strategy<Value = Policy> {
    let slow = proptest::option::of((1_u64..40, 1_u8..=100));
    let rate = (1_u64..20, 1_u8..6, 1_u32..6, 1_u8..=100, slow);
    let rate = rate.prop_map(|(bucket_ms, buckets, min_calls, failure_percent, slow)| RatePolicy {
        window_ms: bucket_ms * u64::from(buckets),
        buckets,
        min_calls,
        failure_percent,
        slow: slow.map(|(after_ms, percent)| SlowCalls { after_ms, percent }),
    });
    (0..3, 1_u32..5, rate).prop_map(|(which, failures, rate)| match which {
        0 => Policy::Consecutive { failures },
        1 => Policy::Rate(rate),
        _ => Policy::Either { failures, rate },
    })
}

fn any_settings() -> impl Strategy<Value = BreakerSettings> {
    let times = (1_u64..40, 1_u32..4, 0_u64..200, 1_u64..100, 1_u64..60);
    (any_policy(), times, 1_u32..4, 1_u32..4).prop_map(|(policy, times, probes, probe_successes)| {
        let (open_ms, open_factor, longer_ms, calm_ms, call_limit_ms) = times;
        let max_open_ms = open_ms + longer_ms;
        let jitter_percent = 0;
        BreakerSettings {
            policy,
            open_ms,
            open_factor,
            max_open_ms,
            jitter_percent,
            calm_ms,
            probes,
            probe_successes,
            call_limit_ms,
        }
    })
}

fn end(permit: Permit<'_>, verdict: Verdict) {
    match verdict {
        Verdict::Success => permit.success(),
        Verdict::Failure => permit.failure(),
        Verdict::Timeout => permit.timeout(),
        Verdict::Ignored => permit.ignore(),
        Verdict::Dropped => drop(permit),
    }
}

/// Whether `seen` is what the model says.
fn compare(model: &Model, seen: &Snapshot, under_way: usize) -> Result<(), TestCaseError> {
    let (state, forced, open_for_ms, probes, succeeded) = match &model.plain {
        Plain::Closed(_) => (State::Closed, None, 0, 0, 0),
        Plain::Open { until_ms } => (State::Open, None, until_ms.saturating_sub(model.now_ms), 0, 0),
        Plain::HalfOpen { probes, succeeded, .. } => (State::HalfOpen, None, 0, *probes, *succeeded),
        Plain::Held(forced @ Forced::Open) => (State::Open, Some(*forced), 0, 0, 0),
        Plain::Held(forced @ Forced::Closed) => (State::Closed, Some(*forced), 0, 0, 0),
    };
    prop_assert_eq!((seen.state, seen.forced, seen.open_for_ms), (state, forced, open_for_ms));
    prop_assert_eq!((seen.generation, seen.since_ms), (model.generation, model.since_ms));
    prop_assert_eq!((seen.probes_in_flight, seen.probes_succeeded), (probes, succeeded));
    prop_assert_eq!(seen.consecutive_failures, model.consecutive_failures());
    if let Some(tally) = model.tally() {
        prop_assert_eq!(seen.window, Some(tally));
    }
    prop_assert_eq!(seen.counts.in_flight(), under_way as u64);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_breaker_does_what_its_plain_model_does(
        settings in any_settings(), steps in proptest::collection::vec(any_step(), 1..150),
    ) {
        let clock = TestClock::at(7);
        let breaker = Breaker::new(settings, clock.clone(), 1).unwrap();
        let plain = Plain::Closed(Vec::new());
        let mut model = Model { settings, now_ms: 7, plain, generation: 0, since_ms: 7, growths: 0 };
        let mut calls: Vec<(Permit<'_>, PlainCall)> = Vec::new();
        for step in steps {
            match step {
                Step::Acquire => match (breaker.try_acquire(), model.acquire()) {
                    (Ok(permit), Ok(call)) => calls.push((permit, call)),
                    (ours, models) => prop_assert_eq!(ours.map(|_| ()), models.map(|_| ())),
                },
                Step::End(place, verdict) if !calls.is_empty() => {
                    let (permit, call) = calls.swap_remove(place % calls.len());
                    end(permit, verdict);
                    model.end(call, verdict);
                }
                Step::End(..) => {}
                Step::Wait(ms) => {
                    clock.advance(ms);
                    model.now_ms += ms;
                }
                Step::Force(forced) => {
                    breaker.force(forced);
                    model.force(forced);
                }
            }
            compare(&model, &breaker.snapshot(), calls.len())?;
        }
    }

    #[test]
    fn no_order_of_times_breaks_what_must_always_hold(
        mut settings in any_settings(), jitter_percent in 0_u8..100, seed in any::<u64>(),
        steps in proptest::collection::vec((any_step(), 0_u64..300), 1..150),
    ) {
        settings.jitter_percent = jitter_percent;
        let clock = TestClock::at(150);
        let breaker = Breaker::new(settings, clock.clone(), seed).unwrap();
        let mut permits: Vec<Permit<'_>> = Vec::new();
        let mut before = breaker.snapshot();
        for (step, now_ms) in steps {
            clock.set(now_ms);
            match step {
                Step::Acquire => match breaker.try_acquire() {
                    Ok(permit) => permits.push(permit),
                    Err(rejected) => prop_assert!((1..=settings.max_open_ms).contains(&rejected.retry_after_ms)),
                },
                Step::End(place, verdict) if !permits.is_empty() => {
                    end(permits.swap_remove(place % permits.len()), verdict);
                }
                Step::End(..) | Step::Wait(_) => {}
                Step::Force(forced) => breaker.force(forced),
            }
            let now = breaker.snapshot();
            prop_assert!(now.probes_in_flight <= settings.probes);
            if now.state == State::HalfOpen {
                let held = permits.iter().filter(|permit| permit.generation == now.generation).count();
                prop_assert_eq!(now.probes_in_flight as usize, held, "a probe leaked or was given back twice");
            }
            prop_assert!(now.since_ms >= before.since_ms && now.generation >= before.generation);
            prop_assert!(now.generation <= before.generation + 1);
            prop_assert_eq!(now.counts.in_flight(), permits.len() as u64);
            before = now;
        }
    }
}
