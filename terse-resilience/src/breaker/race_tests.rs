//! Real threads: 1,000 callers at the moment of half-open, and a storm in
//! which nothing may leak. What threads can't show for sure, the model checker
//! does (`RUSTFLAGS="--cfg loom" cargo test`).

use std::sync::Barrier;
use std::sync::atomic::AtomicUsize;
use std::thread;

use super::*;
use crate::test_clock::TestClock;

const CALLERS: usize = 1_000;

/// Runs `work` on `threads` threads that begin together.
fn together(threads: usize, work: impl Fn(usize) + Sync) {
    let start = Barrier::new(threads);
    thread::scope(|scope| {
        let (start, work) = (&start, &work);
        for number in 0..threads {
            let run = move || {
                start.wait();
                work(number);
            };
            thread::Builder::new().stack_size(64 * 1_024).spawn_scoped(scope, run).unwrap();
        }
    });
}

fn add_one(counter: &AtomicUsize) {
    counter.fetch_add(1, Ordering::SeqCst);
}

/// An open breaker whose open time is over.
fn at_half_open(probes: u32) -> Breaker {
    let clock = TestClock::at(0);
    let settings = BreakerSettings { probes, ..Default::default() };
    let breaker = Breaker::new(settings, clock.clone(), 1).unwrap();
    (0..5).for_each(|_| breaker.try_acquire().unwrap().failure());
    clock.advance(30_000);
    breaker
}

#[test]
fn of_1000_callers_at_half_open_only_the_probes_reach_the_service() {
    for probes in [1, 3] {
        let breaker = at_half_open(probes);
        let (reached, rejected) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let all_asked = Barrier::new(CALLERS);
        together(CALLERS, |_| {
            let permit = breaker.try_acquire();
            let counter = if permit.is_ok() { &reached } else { &rejected };
            add_one(counter);
            // No probe ends before everyone has asked.
            all_asked.wait();
            drop(permit);
        });
        assert_eq!(reached.into_inner(), probes as usize);
        assert_eq!(rejected.into_inner(), CALLERS - probes as usize);
        let seen = breaker.snapshot();
        assert_eq!((seen.state, seen.probes_in_flight, seen.generation), (State::HalfOpen, 0, 2));
    }
}

#[test]
fn of_1000_callers_whose_probes_fail_at_once_still_only_the_probes_reach_the_service() {
    let breaker = at_half_open(2);
    let reached = AtomicUsize::new(0);
    together(CALLERS, |_| {
        if let Ok(permit) = breaker.try_acquire() {
            add_one(&reached);
            permit.failure();
        }
    });
    assert!((1..=2).contains(&reached.into_inner()));
    assert_eq!(breaker.state(), State::Open);
}

#[test]
fn the_failure_that_trips_it_is_found_once_by_racing_threads() {
    let transitions = Arc::new(AtomicUsize::new(0));
    let told = transitions.clone();
    let breaker = Breaker::new(BreakerSettings::default(), TestClock::at(0), 1)
        .unwrap()
        .observed_by(Arc::new(move |_: &Transition| add_one(&told)));
    together(50, |_| {
        if let Ok(permit) = breaker.try_acquire() {
            permit.failure();
        }
    });
    assert_eq!((breaker.state(), transitions.load(Ordering::SeqCst)), (State::Open, 1));
    let counts = breaker.snapshot().counts;
    assert_eq!((counts.permitted + counts.rejected, counts.failures - counts.late), (50, 5));
}

/// Acquires and ends calls in every way until `steps` are done.
fn storm(breaker: &Breaker, clock: &TestClock, number: usize, steps: usize) {
    let mut random = SplitMix64::new(number as u64);
    for step in 0..steps {
        clock.advance(u64::from(step % 7 == 0));
        let Ok(permit) = breaker.try_acquire() else {
            clock.advance(1);
            continue;
        };
        match random.between(0, 10) {
            0..=3 => permit.failure(),
            4..=7 => permit.success(),
            8 => permit.timeout(),
            9 => permit.ignore(),
            _ => drop(permit),
        }
    }
}

#[test]
fn a_storm_of_threads_leaks_no_permit_and_loses_no_count() {
    let policies = [
        Policy::Consecutive { failures: 3 },
        Policy::Rate(RatePolicy { window_ms: 100, min_calls: 5, ..RatePolicy::default() }),
    ];
    for policy in policies {
        let clock = TestClock::at(0);
        let settings =
            BreakerSettings { policy, open_ms: 5, max_open_ms: 5, probes: 2, probe_successes: 2, ..Default::default() };
        let told = Arc::new(AtomicUsize::new(0));
        let counter = told.clone();
        let breaker = Breaker::new(settings, clock.clone(), 1)
            .unwrap()
            .observed_by(Arc::new(move |_: &Transition| add_one(&counter)));
        together(4, |number| storm(&breaker, &clock, number, 5_000));
        let seen = breaker.snapshot();
        assert_eq!((seen.counts.in_flight(), seen.probes_in_flight), (0, 0));
        assert_eq!(seen.counts.permitted + seen.counts.rejected, 20_000);
        assert_eq!(seen.generation, told.load(Ordering::SeqCst) as u64);
        assert_eq!(seen.transitions_to.iter().sum::<u64>(), seen.generation);
        assert!(seen.generation > 10, "it has been through all states: {seen:?}");
    }
}
