//! The model checker tries every interleaving (and every order that the memory
//! model allows) of a few threads. Run by `RUSTFLAGS="--cfg loom" cargo test
//! --lib model_check`.
//!
//! Time stands still within a run: races over time are races over who looks
//! first, which the interleavings cover.

use loom::model::Builder;
use loom::sync::atomic::{AtomicU32 as LoomU32, Ordering::SeqCst};
use loom::thread;

use super::*;
use crate::test_clock::TestClock;
use crate::{Bulkhead, RetryBudget, RetryBudgetSettings};

/// Tries the interleavings of `work`, with at most so many preemptions: what
/// goes wrong goes wrong with few.
fn check(preemptions: usize, work: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(work);
}

fn settings() -> BreakerSettings {
    BreakerSettings { policy: Policy::Consecutive { failures: 1 }, call_limit_ms: 1_000_000, ..Default::default() }
}

/// A closed breaker that one failure trips.
fn closed(settings: BreakerSettings) -> (Arc<Breaker>, Arc<TestClock>) {
    let clock = TestClock::at(0);
    (Arc::new(Breaker::new(settings, clock.clone(), 1).unwrap()), clock)
}

/// An open breaker whose open time is over.
fn at_half_open(settings: BreakerSettings) -> Arc<Breaker> {
    let (breaker, clock) = closed(settings);
    breaker.try_acquire().unwrap().failure();
    clock.advance(settings.max_open_ms);
    breaker
}

/// Runs `work` on `threads` threads, this one among them.
fn together(threads: usize, breaker: &Arc<Breaker>, work: impl Fn(&Breaker) + Send + Sync + 'static) {
    let work = Arc::new(work);
    let others: Vec<_> = (1..threads)
        .map(|_| {
            let (breaker, work) = (breaker.clone(), work.clone());
            thread::spawn(move || work(&breaker))
        })
        .collect();
    work(breaker);
    others.into_iter().for_each(|other| other.join().unwrap());
}

#[test]
fn racing_callers_never_hold_more_probes_than_permitted() {
    for probes in [1, 2] {
        check(2, move || {
            let breaker = at_half_open(BreakerSettings { probes, ..settings() });
            let held = Arc::new(LoomU32::new(0));
            let reached = Arc::new(LoomU32::new(0));
            let (holding, reaching) = (held.clone(), reached.clone());
            together(3, &breaker, move |breaker| {
                if let Ok(permit) = breaker.try_acquire() {
                    reaching.fetch_add(1, SeqCst);
                    assert!(holding.fetch_add(1, SeqCst) < probes);
                    holding.fetch_sub(1, SeqCst);
                    permit.ignore();
                }
            });
            assert!(reached.load(SeqCst) >= 1, "somebody probes");
            let seen = breaker.snapshot();
            assert_eq!((seen.state, seen.generation, seen.probes_in_flight), (State::HalfOpen, 2, 0));
        });
    }
}

#[test]
fn exactly_the_permitted_probes_start_while_none_ends() {
    check(3, || {
        let breaker = at_half_open(BreakerSettings { probes: 2, ..settings() });
        let reached = Arc::new(LoomU32::new(0));
        let reaching = reached.clone();
        together(3, &breaker, move |breaker| {
            if let Ok(permit) = breaker.try_acquire() {
                reaching.fetch_add(1, SeqCst);
                // Never ends: the call is still under way when the test is over.
                std::mem::forget(permit);
            }
        });
        assert_eq!((reached.load(SeqCst), breaker.snapshot().probes_in_flight), (2, 2));
    });
}

#[test]
fn a_failing_probe_and_racing_callers_leave_it_open() {
    check(3, || {
        let breaker = at_half_open(settings());
        let reached = Arc::new(LoomU32::new(0));
        let reaching = reached.clone();
        together(3, &breaker, move |breaker| {
            if let Ok(permit) = breaker.try_acquire() {
                reaching.fetch_add(1, SeqCst);
                permit.failure();
            }
        });
        assert_eq!((reached.load(SeqCst), breaker.state(), breaker.snapshot().generation), (1, State::Open, 3));
    });
}

#[test]
fn a_late_success_never_closes_what_racing_failures_opened() {
    check(3, || {
        let (breaker, _) = closed(settings());
        together(3, &breaker, |breaker| {
            let Ok(early) = breaker.try_acquire() else { return };
            if let Ok(failing) = breaker.try_acquire() {
                failing.failure();
            }
            early.success();
        });
        assert_eq!((breaker.state(), breaker.snapshot().generation), (State::Open, 1));
    });
}

#[test]
fn late_verdicts_neither_end_nor_free_the_probe_of_a_later_generation() {
    check(3, || {
        let (breaker, clock) = closed(settings());
        // Leaked, so that permits can move into threads.
        let forever: &'static Breaker = leak(&breaker);
        let (old_failure, old_drop) = (forever.try_acquire().unwrap(), forever.try_acquire().unwrap());
        forever.try_acquire().unwrap().failure();
        clock.advance(30_000);
        let others = [thread::spawn(move || old_failure.failure()), thread::spawn(move || drop(old_drop))];
        let probe = forever.try_acquire().unwrap();
        assert!(forever.try_acquire().is_err());
        others.into_iter().for_each(|other| other.join().unwrap());
        let seen = forever.snapshot();
        assert_eq!((seen.state, seen.generation, seen.probes_in_flight), (State::HalfOpen, 2, 1));
        probe.success();
        assert_eq!((forever.state(), forever.snapshot().counts.late), (State::Closed, 1));
    });
}

/// A reference that lasts as long as the run of the model.
fn leak(breaker: &Arc<Breaker>) -> &'static Breaker {
    let kept: &'static Arc<Breaker> = Box::leak(Box::new(breaker.clone()));
    kept
}

#[test]
fn a_success_that_races_a_failure_of_its_generation_is_before_or_after_it() {
    check(3, || {
        let (breaker, _) = closed(BreakerSettings { policy: Policy::Consecutive { failures: 2 }, ..settings() });
        breaker.try_acquire().unwrap().failure();
        let other = breaker.clone();
        let success = thread::spawn(move || {
            if let Ok(permit) = other.try_acquire() {
                permit.success();
            }
        });
        breaker.try_acquire().unwrap().failure();
        success.join().unwrap();
        let seen = breaker.snapshot();
        // The success first: it forgets the failure before it, one remains. The failure first: that was the second.
        match seen.state {
            State::Closed => assert_eq!(seen.consecutive_failures, 1),
            State::Open => assert_eq!(seen.generation, 1),
            State::HalfOpen => panic!("nobody probed"),
        }
    });
}

#[test]
fn probes_that_end_in_every_way_leak_nothing() {
    check(3, || {
        let breaker = at_half_open(BreakerSettings { probes: 2, probe_successes: 2, ..settings() });
        let turn = LoomU32::new(0);
        together(3, &breaker, move |breaker| {
            if let Ok(permit) = breaker.try_acquire() {
                match turn.fetch_add(1, SeqCst) {
                    0 => permit.success(),
                    1 => permit.ignore(),
                    _ => drop(permit),
                }
            }
        });
        let seen = breaker.snapshot();
        assert_eq!((seen.state, seen.probes_in_flight, seen.probes_succeeded), (State::HalfOpen, 0, 1));
        breaker.try_acquire().unwrap().success();
        assert_eq!(breaker.state(), State::Closed);
    });
}

#[test]
fn an_operator_races_callers_and_wins() {
    check(3, || {
        let breaker = at_half_open(settings());
        let operator = breaker.clone();
        let forcing = thread::spawn(move || operator.force(Some(Forced::Open)));
        if let Ok(permit) = breaker.try_acquire() {
            permit.success();
        }
        forcing.join().unwrap();
        assert_eq!(breaker.snapshot().forced, Some(Forced::Open));
        assert!(breaker.try_acquire().is_err());
    });
}

#[test]
fn the_window_counts_every_verdict_of_racing_threads() {
    check(2, || {
        let rate = RatePolicy { min_calls: 3, failure_percent: 60, ..RatePolicy::default() };
        let (breaker, _) = closed(BreakerSettings { policy: Policy::Rate(rate), ..settings() });
        breaker.try_acquire().unwrap().success();
        together(2, &breaker, |breaker| {
            if let Ok(permit) = breaker.try_acquire() {
                permit.failure();
            }
        });
        assert_eq!((breaker.state(), breaker.snapshot().generation), (State::Open, 1));
    });
}

#[test]
fn racing_callers_of_a_bulkhead_keep_to_its_limit_and_give_all_back() {
    check(3, || {
        let bulkhead = Arc::new(Bulkhead::new(1).unwrap());
        let held = Arc::new(LoomU32::new(0));
        let others: Vec<_> = (0..2)
            .map(|_| {
                let (bulkhead, held) = (bulkhead.clone(), held.clone());
                thread::spawn(move || {
                    if let Ok(_slot) = bulkhead.try_acquire() {
                        assert_eq!(held.fetch_add(1, SeqCst), 0);
                        held.fetch_sub(1, SeqCst);
                    }
                })
            })
            .collect();
        others.into_iter().for_each(|other| other.join().unwrap());
        let seen = bulkhead.snapshot();
        assert_eq!((seen.in_use, seen.admitted + seen.rejected), (0, 2));
    });
}

#[test]
fn two_racing_retries_do_not_spend_one_saved_retry_twice() {
    check(3, || {
        let settings = RetryBudgetSettings { percent: 50, floor_per_second: 0, max_saved: 5 };
        let budget = Arc::new(RetryBudget::new(settings, TestClock::at(0)).unwrap());
        (0..3).for_each(|_| budget.record_call());
        let granted = Arc::new(LoomU32::new(0));
        let others: Vec<_> = (0..2)
            .map(|_| {
                let (budget, granted) = (budget.clone(), granted.clone());
                thread::spawn(move || {
                    granted.fetch_add(u32::from(budget.try_retry()), SeqCst);
                })
            })
            .collect();
        for other in others {
            other.join().unwrap();
        }
        assert_eq!((granted.load(SeqCst), budget.snapshot().granted), (1, 1));
    });
}
