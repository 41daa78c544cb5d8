//! What a breaker does, rule by rule, under a clock that is moved by hand.

use std::sync::Mutex as StdMutex;

use super::*;
use crate::test_clock::TestClock;

fn breaker(settings: BreakerSettings) -> (Breaker, Arc<TestClock>) {
    let clock = TestClock::at(1_000);
    (Breaker::new(settings, clock.clone(), 1).unwrap(), clock)
}

/// Three failures open it for 500 ms doubling to 4 s, as the store's does.
fn store_settings() -> BreakerSettings {
    BreakerSettings {
        policy: Policy::Consecutive { failures: 3 },
        open_ms: 500,
        open_factor: 2,
        max_open_ms: 4_000,
        calm_ms: 10_000,
        call_limit_ms: 1_000,
        ..Default::default()
    }
}

fn rate_settings(rate: RatePolicy) -> BreakerSettings {
    BreakerSettings { policy: Policy::Rate(rate), ..store_settings() }
}

fn fail(breaker: &Breaker, times: usize) {
    (0..times).for_each(|_| breaker.try_acquire().unwrap().failure());
}

fn succeed(breaker: &Breaker, times: usize) {
    (0..times).for_each(|_| breaker.try_acquire().unwrap().success());
}

/// For how long the next call is rejected.
fn rejected_ms(breaker: &Breaker) -> u64 {
    breaker.try_acquire().unwrap_err().retry_after_ms
}

#[test]
fn settings_outside_their_limits_make_no_breaker() {
    let settings = BreakerSettings { open_ms: 0, ..Default::default() };
    assert_eq!(Breaker::new(settings, TestClock::at(0), 1).unwrap_err().setting, "open_ms");
}

#[test]
fn a_closed_breaker_lets_everyone_through() {
    let (breaker, _) = breaker(store_settings());
    let permits: Vec<_> = (0..100).map(|_| breaker.try_acquire().unwrap()).collect();
    assert_eq!(breaker.snapshot().counts.in_flight(), 100);
    permits.into_iter().for_each(Permit::success);
    let seen = breaker.snapshot();
    assert_eq!((seen.state, seen.generation, seen.counts.in_flight()), (State::Closed, 0, 0));
    assert_eq!((seen.counts.permitted, seen.counts.successes), (100, 100));
}

#[test]
fn consecutive_failures_trip_it_and_it_says_for_how_long() {
    let (breaker, clock) = breaker(store_settings());
    fail(&breaker, 2);
    assert_eq!((breaker.state(), breaker.snapshot().consecutive_failures), (State::Closed, 2));
    fail(&breaker, 1);
    assert_eq!(breaker.state(), State::Open);
    let rejected = breaker.try_acquire().unwrap_err();
    assert_eq!(rejected, Rejected { reason: RejectReason::Open, retry_after_ms: 500 });
    clock.advance(499);
    assert_eq!(rejected_ms(&breaker), 1);
    clock.advance(1);
    assert!(breaker.try_acquire().is_ok());
}

#[test]
fn a_success_forgets_the_failures_before_it() {
    let (breaker, _) = breaker(store_settings());
    fail(&breaker, 2);
    succeed(&breaker, 1);
    fail(&breaker, 2);
    assert_eq!((breaker.state(), breaker.snapshot().consecutive_failures), (State::Closed, 2));
}

#[test]
fn a_timeout_is_a_failure() {
    let (breaker, _) = breaker(store_settings());
    fail(&breaker, 2);
    breaker.try_acquire().unwrap().timeout();
    assert_eq!(breaker.state(), State::Open);
    let counts = breaker.snapshot().counts;
    assert_eq!((counts.failures, counts.timeouts), (2, 1));
}

#[test]
fn what_says_nothing_about_the_service_changes_nothing() {
    let (breaker, _) = breaker(store_settings());
    fail(&breaker, 2);
    breaker.try_acquire().unwrap().ignore();
    drop(breaker.try_acquire().unwrap());
    assert_eq!(breaker.snapshot().consecutive_failures, 2, "neither forgotten nor added to");
    let counts = breaker.snapshot().counts;
    assert_eq!((counts.ignored, counts.abandoned, counts.in_flight()), (1, 1, 0));
    fail(&breaker, 1);
    assert_eq!(breaker.state(), State::Open);
}

#[test]
fn a_call_dropped_before_its_limit_is_abandoned_and_from_then_on_has_failed() {
    let (breaker, clock) = breaker(store_settings());
    let (early, exact) = (breaker.try_acquire().unwrap(), breaker.try_acquire().unwrap());
    clock.advance(999);
    drop(early);
    clock.advance(1);
    drop(exact);
    let seen = breaker.snapshot();
    assert_eq!((seen.counts.abandoned, seen.counts.timeouts, seen.consecutive_failures), (1, 1, 1));
}

#[test]
fn a_call_that_is_ignored_after_its_limit_is_still_ignored() {
    let (breaker, clock) = breaker(store_settings());
    let permit = breaker.try_acquire().unwrap();
    clock.advance(60_000);
    permit.ignore();
    assert_eq!(breaker.snapshot().consecutive_failures, 0);
}

#[test]
fn a_panic_in_the_call_gives_the_permit_back() {
    let (breaker, clock) = breaker(store_settings());
    fail(&breaker, 3);
    clock.advance(500);
    let call = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _probe = breaker.try_acquire().unwrap();
        std::panic::resume_unwind(Box::new("the call broke"));
    }));
    assert!(call.is_err());
    assert_eq!(breaker.snapshot().probes_in_flight, 0);
    assert!(breaker.try_acquire().is_ok());
}

#[test]
fn a_probe_that_succeeds_closes_it() {
    let (breaker, clock) = breaker(store_settings());
    fail(&breaker, 3);
    clock.advance(500);
    let probe = breaker.try_acquire().unwrap();
    assert_eq!((breaker.state(), breaker.snapshot().probes_in_flight), (State::HalfOpen, 1));
    let rejected = breaker.try_acquire().unwrap_err();
    assert_eq!(rejected, Rejected { reason: RejectReason::ProbesTaken, retry_after_ms: 500 });
    probe.success();
    assert_eq!((breaker.state(), breaker.snapshot().consecutive_failures), (State::Closed, 0));
    fail(&breaker, 2);
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn a_probe_that_fails_opens_it_for_longer_up_to_the_maximum() {
    let (breaker, clock) = breaker(store_settings());
    fail(&breaker, 3);
    for expected_ms in [500, 1_000, 2_000, 4_000, 4_000] {
        assert_eq!(rejected_ms(&breaker), expected_ms);
        clock.advance(expected_ms);
        fail(&breaker, 1);
    }
}

#[test]
fn an_ignored_or_abandoned_probe_makes_room_for_another() {
    let (breaker, clock) = breaker(store_settings());
    fail(&breaker, 3);
    clock.advance(500);
    breaker.try_acquire().unwrap().ignore();
    drop(breaker.try_acquire().unwrap());
    assert_eq!((breaker.state(), breaker.snapshot().probes_in_flight), (State::HalfOpen, 0));
    breaker.try_acquire().unwrap().success();
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn several_probes_run_at_once_and_several_must_succeed() {
    let (breaker, clock) = breaker(BreakerSettings { probes: 2, probe_successes: 3, ..store_settings() });
    fail(&breaker, 3);
    clock.advance(500);
    let (first, second) = (breaker.try_acquire().unwrap(), breaker.try_acquire().unwrap());
    assert!(breaker.try_acquire().is_err());
    first.success();
    let third = breaker.try_acquire().unwrap();
    second.success();
    let seen = breaker.snapshot();
    assert_eq!((seen.state, seen.probes_in_flight, seen.probes_succeeded), (State::HalfOpen, 1, 2));
    third.success();
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn one_failing_probe_outweighs_those_that_succeeded() {
    let (breaker, clock) = breaker(BreakerSettings { probes: 2, probe_successes: 2, ..store_settings() });
    fail(&breaker, 3);
    clock.advance(500);
    let (good, bad) = (breaker.try_acquire().unwrap(), breaker.try_acquire().unwrap());
    good.success();
    bad.failure();
    assert_eq!((breaker.state(), rejected_ms(&breaker)), (State::Open, 1_000));
}

#[test]
fn a_probe_that_hangs_does_not_hold_the_breaker_half_open_for_ever() {
    let (breaker, clock) = breaker(store_settings());
    fail(&breaker, 3);
    clock.advance(500);
    let hung = breaker.try_acquire().unwrap();
    clock.advance(999);
    assert_eq!(breaker.try_acquire().unwrap_err().reason, RejectReason::ProbesTaken);
    clock.advance(1);
    let rejected = breaker.try_acquire().unwrap_err();
    assert_eq!(rejected, Rejected { reason: RejectReason::Open, retry_after_ms: 1_000 });
    clock.advance(1_000);
    let probe = breaker.try_acquire().unwrap();
    hung.success();
    assert_eq!((breaker.state(), breaker.snapshot().probes_in_flight), (State::HalfOpen, 1));
    probe.success();
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn the_limit_of_probes_is_measured_from_the_newest() {
    let (breaker, clock) = breaker(BreakerSettings { probes: 2, ..store_settings() });
    fail(&breaker, 3);
    clock.advance(500);
    let _hung = breaker.try_acquire().unwrap();
    clock.advance(900);
    let _newest = breaker.try_acquire().unwrap();
    clock.advance(999);
    assert_eq!(breaker.try_acquire().unwrap_err().reason, RejectReason::ProbesTaken);
    clock.advance(1);
    assert_eq!(breaker.try_acquire().unwrap_err().reason, RejectReason::Open);
}

#[test]
fn a_place_free_beside_a_hung_probe_is_used() {
    let (breaker, clock) = breaker(BreakerSettings { probes: 2, ..store_settings() });
    fail(&breaker, 3);
    clock.advance(500);
    let _hung = breaker.try_acquire().unwrap();
    clock.advance(60_000);
    breaker.try_acquire().unwrap().success();
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn verdicts_of_an_earlier_generation_change_nothing() {
    let verdicts: [fn(Permit<'_>); 5] = [
        |permit| permit.success(),
        |permit| permit.failure(),
        |permit| permit.timeout(),
        |permit| permit.ignore(),
        |permit| drop(permit),
    ];
    for verdict in verdicts {
        let (breaker, clock) = breaker(BreakerSettings { probes: 2, ..store_settings() });
        let mut old = (0..4).map(|_| breaker.try_acquire().unwrap()).collect::<Vec<_>>().into_iter();
        fail(&breaker, 3);
        let word = breaker.word();
        verdict(old.next().unwrap());
        assert_eq!(breaker.word(), word, "while open");
        clock.advance(500);
        let probe = breaker.try_acquire().unwrap();
        let word = breaker.word();
        verdict(old.next().unwrap());
        assert_eq!(breaker.word(), word, "while half-open");
        probe.success();
        fail(&breaker, 2);
        let word = breaker.word();
        verdict(old.next().unwrap());
        assert_eq!(breaker.word(), word, "while closed again");
        fail(&breaker, 1);
        clock.advance(1_000);
        drop(breaker.try_acquire().unwrap());
        let word = breaker.word();
        verdict(old.next().unwrap());
        assert_eq!((breaker.word(), word.probes()), (word, 0), "no probe to give back");
    }
}

#[test]
fn late_verdicts_are_counted_as_late() {
    let (breaker, _) = breaker(store_settings());
    let old: Vec<_> = (0..3).map(|_| breaker.try_acquire().unwrap()).collect();
    fail(&breaker, 3);
    let mut old = old.into_iter();
    old.next().unwrap().success();
    old.next().unwrap().failure();
    old.next().unwrap().ignore();
    let counts = breaker.snapshot().counts;
    assert_eq!((counts.late, counts.successes, counts.failures, counts.ignored), (2, 1, 4, 1));
    assert_eq!(counts.in_flight(), 0);
}

#[test]
fn a_success_that_outlives_a_whole_outage_is_late_too() {
    let (breaker, clock) = breaker(store_settings());
    let old = breaker.try_acquire().unwrap();
    fail(&breaker, 3);
    clock.advance(500);
    succeed(&breaker, 1);
    old.success();
    let seen = breaker.snapshot();
    assert_eq!((seen.state, seen.generation, seen.counts.late, seen.counts.successes), (State::Closed, 3, 1, 2));
}

#[test]
fn the_open_time_shrinks_back_by_a_step_for_each_calm_time() {
    let (breaker, clock) = breaker(store_settings());
    let open_again_after = |closed_ms: u64| {
        clock.advance(4_000);
        succeed(&breaker, 1);
        clock.advance(closed_ms);
        fail(&breaker, 3);
        rejected_ms(&breaker)
    };
    fail(&breaker, 3);
    for expected_ms in [1_000, 2_000, 4_000] {
        assert_eq!(open_again_after(9_999), expected_ms, "trips that follow each other grow it");
    }
    assert_eq!(open_again_after(10_000), 2_000, "4,000 ms would be next, less one step");
    assert_eq!(open_again_after(25_000), 1_000, "4,000 less two steps");
    assert_eq!(open_again_after(10_000_000), 500);
}

#[test]
fn jitter_shortens_the_open_time_within_its_share_and_differs_between_seeds() {
    let settings = BreakerSettings { jitter_percent: 20, ..store_settings() };
    let open_times = |seed| {
        let clock = TestClock::at(0);
        let breaker = Breaker::new(settings, clock.clone(), seed).unwrap();
        fail(&breaker, 3);
        [500, 1_000, 2_000, 4_000, 4_000].map(|longest_ms| {
            let open_ms = rejected_ms(&breaker);
            assert!((longest_ms * 8 / 10..=longest_ms).contains(&open_ms), "{open_ms} of {longest_ms}");
            clock.advance(open_ms);
            fail(&breaker, 1);
            open_ms
        })
    };
    let seen: std::collections::BTreeSet<_> = (0..50).map(open_times).collect();
    assert!(seen.len() > 45, "{} different of 50", seen.len());
    assert_eq!(open_times(7), open_times(7));
}

#[test]
fn the_rate_policy_trips_at_its_share_of_enough_calls() {
    let rate = RatePolicy { min_calls: 10, failure_percent: 50, ..RatePolicy::default() };
    let (breaker, _) = breaker(rate_settings(rate));
    succeed(&breaker, 5);
    fail(&breaker, 4);
    assert_eq!(breaker.state(), State::Closed);
    assert_eq!(breaker.snapshot().window, Some(Tally { calls: 9, failures: 4, slow: 0 }));
    fail(&breaker, 1);
    assert_eq!(breaker.state(), State::Open);
}

#[test]
fn the_rate_policy_does_not_judge_by_few_calls() {
    let (breaker, _) = breaker(rate_settings(RatePolicy { min_calls: 10, ..RatePolicy::default() }));
    fail(&breaker, 9);
    assert_eq!(breaker.state(), State::Closed);
    succeed(&breaker, 1);
    assert_eq!(breaker.state(), State::Open, "ten calls, 90 % failed, whatever the last one was");
}

#[test]
fn failures_that_left_the_window_no_longer_count() {
    let (breaker, clock) = breaker(rate_settings(RatePolicy { min_calls: 10, ..RatePolicy::default() }));
    fail(&breaker, 9);
    clock.advance(10_000);
    fail(&breaker, 9);
    assert_eq!(breaker.state(), State::Closed);
    assert_eq!(breaker.snapshot().window.unwrap().calls, 9);
}

#[test]
fn calls_that_say_nothing_do_not_dilute_the_rate() {
    let (breaker, _) = breaker(rate_settings(RatePolicy { min_calls: 4, ..RatePolicy::default() }));
    (0..100).for_each(|_| breaker.try_acquire().unwrap().ignore());
    assert_eq!(breaker.snapshot().window, Some(Tally::default()));
    fail(&breaker, 4);
    assert_eq!(breaker.state(), State::Open);
}

fn slow_settings() -> BreakerSettings {
    let slow = Some(SlowCalls { after_ms: 200, percent: 50 });
    rate_settings(RatePolicy { min_calls: 4, failure_percent: 100, slow, ..RatePolicy::default() })
}

fn succeed_in(breaker: &Breaker, clock: &TestClock, took_ms: u64) {
    let permit = breaker.try_acquire().unwrap();
    clock.advance(took_ms);
    permit.success();
}

#[test]
fn slow_calls_trip_it_though_all_succeed() {
    let (breaker, clock) = breaker(slow_settings());
    for took_ms in [199, 199, 200] {
        succeed_in(&breaker, &clock, took_ms);
    }
    assert_eq!(breaker.snapshot().window, Some(Tally { calls: 3, failures: 0, slow: 1 }));
    succeed_in(&breaker, &clock, 300);
    assert_eq!(breaker.state(), State::Open);
}

#[test]
fn a_slow_probe_does_not_close_it() {
    let (breaker, clock) = breaker(slow_settings());
    fail(&breaker, 4);
    clock.advance(500);
    succeed_in(&breaker, &clock, 200);
    assert_eq!((breaker.state(), rejected_ms(&breaker)), (State::Open, 1_000));
    clock.advance(1_000);
    succeed_in(&breaker, &clock, 199);
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn either_policy_trips_by_whichever_comes_first() {
    let rate = RatePolicy { min_calls: 10, ..RatePolicy::default() };
    let settings = BreakerSettings { policy: Policy::Either { failures: 3, rate }, ..store_settings() };
    let causes = |run: fn(&Breaker)| {
        let log = Arc::new(Log::default());
        let breaker = breaker(settings).0.observed_by(log.clone());
        run(&breaker);
        (breaker.state(), log.0.lock().unwrap().first().map(|transition| transition.cause))
    };
    let all_fail = causes(|breaker| {
        succeed(breaker, 100);
        fail(breaker, 3);
    });
    assert_eq!(all_fail, (State::Open, Some(Cause::ConsecutiveFailures)));
    let two_of_three_fail = causes(|breaker| {
        for _ in 0..3 {
            fail(breaker, 2);
            succeed(breaker, 1);
        }
        assert_eq!((breaker.state(), breaker.snapshot().window.unwrap().calls), (State::Closed, 9));
        fail(breaker, 1);
    });
    assert_eq!(two_of_three_fail, (State::Open, Some(Cause::FailureRate)));
    let two_of_five_fail = causes(|breaker| {
        for _ in 0..50 {
            succeed(breaker, 3);
            fail(breaker, 2);
        }
    });
    assert_eq!(two_of_five_fail, (State::Closed, None));
}

#[test]
fn the_window_begins_anew_when_it_closes() {
    let (breaker, clock) = breaker(rate_settings(RatePolicy { min_calls: 4, ..RatePolicy::default() }));
    fail(&breaker, 4);
    clock.advance(500);
    succeed(&breaker, 1);
    assert_eq!(breaker.snapshot().window, Some(Tally::default()));
    fail(&breaker, 3);
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn forced_open_rejects_all_and_lets_go_into_half_open() {
    let (breaker, clock) = breaker(store_settings());
    let before = breaker.try_acquire().unwrap();
    breaker.force(Some(Forced::Open));
    before.success();
    assert_eq!((breaker.state(), breaker.snapshot().forced), (State::Open, Some(Forced::Open)));
    clock.advance(3_600_000);
    let rejected = breaker.try_acquire().unwrap_err();
    assert_eq!(rejected, Rejected { reason: RejectReason::ForcedOpen, retry_after_ms: 4_000 });
    breaker.force(None);
    assert_eq!((breaker.state(), breaker.snapshot().forced), (State::HalfOpen, None));
    let probe = breaker.try_acquire().unwrap();
    assert!(breaker.try_acquire().is_err());
    probe.success();
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn forced_closed_passes_all_whatever_fails_and_lets_go_into_closed() {
    let (breaker, _) = breaker(store_settings());
    fail(&breaker, 3);
    breaker.force(Some(Forced::Closed));
    fail(&breaker, 50);
    succeed(&breaker, 1);
    drop(breaker.try_acquire().unwrap());
    assert_eq!((breaker.state(), breaker.snapshot().forced), (State::Closed, Some(Forced::Closed)));
    let during = breaker.try_acquire().unwrap();
    breaker.force(None);
    during.failure();
    let seen = breaker.snapshot();
    assert_eq!((seen.state, seen.forced, seen.consecutive_failures), (State::Closed, None, 0));
    fail(&breaker, 3);
    assert_eq!(breaker.state(), State::Open);
}

#[test]
fn forcing_what_is_forced_or_free_already_is_no_transition() {
    let (breaker, clock) = breaker(store_settings());
    breaker.force(None);
    assert_eq!(breaker.snapshot().generation, 0);
    breaker.force(Some(Forced::Open));
    breaker.force(Some(Forced::Open));
    assert_eq!(breaker.snapshot().generation, 1);
    breaker.force(None);
    breaker.force(None);
    assert_eq!(breaker.snapshot().generation, 2);
    fail(&breaker, 1);
    breaker.force(None);
    assert_eq!((breaker.state(), rejected_ms(&breaker)), (State::Open, 500), "letting go does not open by itself");
    clock.advance(500);
    breaker.force(Some(Forced::Closed));
    breaker.force(Some(Forced::Open));
    assert_eq!(breaker.snapshot().forced, Some(Forced::Open));
}

/// Keeps what it is told.
#[derive(Default)]
struct Log(StdMutex<Vec<Transition>>);

impl TransitionObserver for Log {
    fn on_transition(&self, transition: &Transition) {
        self.0.lock().unwrap().push(*transition);
    }
}

#[test]
fn every_transition_is_told_with_cause_time_and_generation() {
    let log = Arc::new(Log::default());
    let (breaker, clock) = breaker(store_settings());
    let breaker = breaker.observed_by(log.clone());
    fail(&breaker, 3);
    clock.advance(500);
    fail(&breaker, 1);
    clock.advance(1_000);
    let _hung = breaker.try_acquire().unwrap();
    clock.advance(1_000);
    assert!(breaker.try_acquire().is_err());
    clock.advance(2_000);
    succeed(&breaker, 1);
    breaker.force(Some(Forced::Closed));
    breaker.force(None);
    let told = log.0.lock().unwrap().clone();
    let told: Vec<_> = told.iter().map(|t| (t.generation, t.at_ms, t.from, t.to, t.cause, t.open_ms)).collect();
    let (closed, half, open) = (State::Closed, State::HalfOpen, State::Open);
    let expected = [
        (1, 1_000, closed, open, Cause::ConsecutiveFailures, Some(500)),
        (2, 1_500, open, half, Cause::OpenTimeOver, None),
        (3, 1_500, half, open, Cause::ProbeFailed, Some(1_000)),
        (4, 2_500, open, half, Cause::OpenTimeOver, None),
        (5, 3_500, half, open, Cause::ProbeOverdue, Some(2_000)),
        (6, 5_500, open, half, Cause::OpenTimeOver, None),
        (7, 5_500, half, closed, Cause::ProbesSucceeded, None),
        (8, 5_500, closed, closed, Cause::Operator, None),
        (9, 5_500, closed, closed, Cause::Operator, None),
    ];
    assert_eq!(told, expected);
    assert_eq!(breaker.snapshot().transitions_to, [1, 3, 3], "a hold that keeps the state is not counted as one");
}

#[test]
fn the_causes_of_the_rate_policy_tell_failures_from_slowness() {
    let causes = |run: fn(&Breaker, &TestClock)| {
        let log = Arc::new(Log::default());
        let (breaker, clock) = breaker(slow_settings());
        let breaker = breaker.observed_by(log.clone());
        run(&breaker, &clock);
        log.0.lock().unwrap().iter().map(|transition| transition.cause).collect::<Vec<_>>()
    };
    assert_eq!(causes(|breaker, _| fail(breaker, 4)), [Cause::FailureRate]);
    assert_eq!(causes(|breaker, clock| (0..4).for_each(|_| succeed_in(breaker, clock, 500))), [Cause::SlowCallRate]);
}

#[test]
fn an_observer_may_ask_the_breaker_that_tells_it() {
    let seen: Arc<StdMutex<Vec<State>>> = Arc::default();
    let breaker = Arc::new_cyclic(|weak: &std::sync::Weak<Breaker>| {
        let (weak, seen) = (weak.clone(), seen.clone());
        let observer = move |_: &Transition| {
            let breaker = weak.upgrade().unwrap();
            seen.lock().unwrap().push(breaker.snapshot().state);
            breaker.force(Some(Forced::Closed));
        };
        Breaker::new(store_settings(), TestClock::at(0), 1).unwrap().observed_by(Arc::new(observer))
    });
    fail(&breaker, 3);
    assert_eq!(*seen.lock().unwrap(), [State::Open, State::Closed]);
    assert_eq!(breaker.snapshot().forced, Some(Forced::Closed));
}

#[test]
fn an_older_time_is_harmless_in_every_state() {
    let (breaker, clock) = breaker(store_settings());
    clock.set(10_000);
    fail(&breaker, 3);
    clock.set(9_000);
    assert_eq!(rejected_ms(&breaker), 1_500, "the rest as that thread sees it");
    clock.set(0);
    assert_eq!(rejected_ms(&breaker), 4_000, "but never more than the longest open time");
    clock.set(10_500);
    let probe = breaker.try_acquire().unwrap();
    clock.set(9_000);
    assert_eq!(breaker.try_acquire().unwrap_err().reason, RejectReason::ProbesTaken);
    probe.success();
    assert_eq!((breaker.state(), breaker.snapshot().since_ms), (State::Closed, 10_500));
    let began_later = {
        clock.set(12_000);
        breaker.try_acquire().unwrap()
    };
    clock.set(11_000);
    drop(began_later);
    assert_eq!(breaker.snapshot().counts.abandoned, 1);
    clock.set(0);
    fail(&breaker, 3);
    clock.set(10_500);
    assert_eq!(rejected_ms(&breaker), 1_000, "opened not before it closed");
}

#[test]
fn an_older_time_does_not_empty_the_window_or_slow_a_call() {
    let (breaker, clock) = breaker(slow_settings());
    clock.set(50_000);
    fail(&breaker, 2);
    clock.set(20_000);
    fail(&breaker, 1);
    assert_eq!(breaker.snapshot().window, Some(Tally { calls: 3, failures: 3, slow: 0 }));
    clock.set(50_000);
    fail(&breaker, 1);
    assert_eq!(breaker.state(), State::Open);
}

#[test]
fn the_end_of_time_overflows_nothing() {
    let (breaker, clock) = breaker(store_settings());
    clock.set(u64::MAX);
    fail(&breaker, 3);
    assert!(breaker.try_acquire().is_ok(), "no later time can come: its open time is over at once");
    assert_eq!(breaker.state(), State::HalfOpen);
}

#[test]
fn the_snapshot_tells_the_rest_of_the_open_time() {
    let (breaker, clock) = breaker(store_settings());
    assert_eq!(breaker.snapshot().open_for_ms, 0);
    fail(&breaker, 3);
    clock.advance(200);
    assert_eq!((breaker.snapshot().open_for_ms, breaker.snapshot().since_ms), (300, 1_000));
    clock.advance(300);
    assert_eq!((breaker.snapshot().open_for_ms, breaker.state()), (0, State::Open), "until a call comes");
}

#[test]
fn states_causes_and_rejections_have_the_words_of_the_house() {
    assert_eq!([State::Closed, State::HalfOpen, State::Open].map(State::as_str), ["closed", "half-open", "open"]);
    let causes = [
        (Cause::ConsecutiveFailures, "consecutive failures"),
        (Cause::FailureRate, "failure rate"),
        (Cause::SlowCallRate, "slow-call rate"),
        (Cause::OpenTimeOver, "open time over"),
        (Cause::ProbeFailed, "probe failed"),
        (Cause::ProbeOverdue, "probe overdue"),
        (Cause::ProbesSucceeded, "probes succeeded"),
        (Cause::Operator, "operator"),
    ];
    assert!(causes.iter().all(|(cause, text)| cause.as_str() == *text));
    let text = |reason| Rejected { reason, retry_after_ms: 7 }.to_string();
    assert_eq!(text(RejectReason::Open), "breaker is open, try again in 7 ms");
    assert_eq!(text(RejectReason::ProbesTaken), "breaker is half-open and its probes are under way, try again in 7 ms");
    assert_eq!(text(RejectReason::ForcedOpen), "breaker is held open, try again in 7 ms");
}

#[test]
fn a_breaker_can_be_shared_and_shows_itself() {
    fn shared<T: Send + Sync>() {}
    shared::<Breaker>();
    shared::<Permit<'_>>();
    let (breaker, _) = breaker(store_settings());
    assert!(format!("{breaker:?}").starts_with("Breaker { state: Closed, settings: BreakerSettings"));
    let from_closure = Breaker::new(store_settings(), Arc::new(|| 42_u64), 1).unwrap();
    assert_eq!(from_closure.snapshot().since_ms, 42);
}
