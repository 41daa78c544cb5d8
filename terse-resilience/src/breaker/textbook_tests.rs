//! The textbook's breaker has four faults. Each scenario below runs twice:
//! against a straight port of the textbook's code, to show the fault, and
//! against ours, to show that it is gone.
//!
//! The scenarios run on one thread, the calls being futures that are polled by
//! hand: nothing waits, and every interleaving is chosen.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::*;
use crate::test_clock::TestClock;

/// The textbook's states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TextbookState {
    Closed,
    Open,
    HalfOpen,
}

/// The textbook's breaker, line by line: what is wrong with it is meant to be.
struct Textbook {
    failures: Cell<u32>,
    state: Cell<TextbookState>,
    last_failure_time: Cell<u64>,
    threshold: u32,
    timeout: u64,
    clock: Arc<TestClock>,
}

impl Textbook {
    fn new(clock: Arc<TestClock>) -> Self {
        Self {
            failures: Cell::new(0),
            state: Cell::new(TextbookState::Closed),
            last_failure_time: Cell::new(0),
            threshold: 5,
            timeout: 30_000,
            clock,
        }
    }

    fn on_success(&self) {
        self.failures.set(0);
        self.state.set(TextbookState::Closed);
    }

    fn on_failure(&self) {
        self.failures.set(self.failures.get() + 1);
        self.last_failure_time.set(self.clock.monotonic_ms());
        if self.failures.get() >= self.threshold {
            self.state.set(TextbookState::Open);
        }
    }
}

/// How a guarded call failed.
#[derive(Debug, PartialEq, Eq)]
enum Failed {
    /// The guard refused it; the service never saw it.
    Rejected,
    /// The service did.
    Service,
}

/// A breaker around a service, whoever wrote it.
trait Guard {
    async fn call(&self, work: impl AsyncFnOnce() -> Result<(), ()>) -> Result<(), Failed>;
}

impl Guard for Textbook {
    async fn call(&self, work: impl AsyncFnOnce() -> Result<(), ()>) -> Result<(), Failed> {
        if self.state.get() == TextbookState::Open {
            if self.clock.monotonic_ms() - self.last_failure_time.get() > self.timeout {
                self.state.set(TextbookState::HalfOpen);
            } else {
                return Err(Failed::Rejected);
            }
        }
        match work().await {
            Ok(()) => {
                self.on_success();
                Ok(())
            }
            Err(()) => {
                self.on_failure();
                Err(Failed::Service)
            }
        }
    }
}

impl Guard for Breaker {
    async fn call(&self, work: impl AsyncFnOnce() -> Result<(), ()>) -> Result<(), Failed> {
        let permit = self.try_acquire().map_err(|_| Failed::Rejected)?;
        match work().await {
            Ok(()) => {
                permit.success();
                Ok(())
            }
            Err(()) => {
                permit.failure();
                Err(Failed::Service)
            }
        }
    }
}

/// A service that counts the calls that reach it and answers when told to.
#[derive(Default)]
struct Service {
    reached: Cell<u32>,
    answer: Cell<Option<Result<(), ()>>>,
}

impl Service {
    fn answering(answer: Result<(), ()>) -> Self {
        Self { reached: Cell::new(0), answer: Cell::new(Some(answer)) }
    }

    /// A service that hangs until `answer` is set.
    fn hanging() -> Self {
        Self::default()
    }

    async fn serve(&self) -> Result<(), ()> {
        self.reached.set(self.reached.get() + 1);
        poll_fn(|_| self.answer.get().map_or(Poll::Pending, Poll::Ready)).await
    }
}

fn poll<F: Future + ?Sized>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// A call of `guard` to `service` that ends at once.
fn call(guard: &impl Guard, service: &Service) -> Result<(), Failed> {
    match poll(&mut Box::pin(guard.call(async || service.serve().await))) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => panic!("the service hangs"),
    }
}

/// Five failures in a row: both breakers are open then.
fn trip(guard: &impl Guard) {
    let failing = Service::answering(Err(()));
    for _ in 0..5 {
        assert_eq!(call(guard, &failing), Err(Failed::Service));
    }
    assert_eq!(call(guard, &failing), Err(Failed::Rejected));
}

fn ours(settings: BreakerSettings) -> (Breaker, Arc<TestClock>) {
    let clock = TestClock::at(1_000_000);
    (Breaker::new(settings, clock.clone(), 1).unwrap(), clock)
}

fn textbook() -> (Textbook, Arc<TestClock>) {
    let clock = TestClock::at(1_000_000);
    (Textbook::new(clock.clone()), clock)
}

/// How many of 1,000 callers reach a service that hangs, at the moment of half-open.
fn reach_at_half_open(guard: &impl Guard, clock: &TestClock) -> u32 {
    trip(guard);
    clock.advance(30_001);
    let service = Service::hanging();
    let mut calls: Vec<_> = (0..1_000).map(|_| Box::pin(guard.call(async || service.serve().await))).collect();
    for call in &mut calls {
        let _ = poll(call);
    }
    service.reached.get()
}

#[test]
fn half_open_lets_its_probes_through_and_not_every_caller() {
    let (theirs, clock) = textbook();
    assert_eq!(reach_at_half_open(&theirs, &clock), 1_000, "the textbook's fault");
    for probes in [1, 3] {
        let (ours, clock) = ours(BreakerSettings { probes, ..Default::default() });
        assert_eq!(reach_at_half_open(&ours, &clock), probes);
    }
}

/// How many of 1,000 calls reach a service that fails four of five, a call every 10 ms.
fn reach_at_80_percent_failures(guard: &impl Guard, clock: &TestClock) -> u32 {
    let (failing, working) = (Service::answering(Err(())), Service::answering(Ok(())));
    for _ in 0..200 {
        for service in [&failing, &failing, &failing, &failing, &working] {
            let _ = call(guard, service);
            clock.advance(10);
        }
    }
    failing.reached.get() + working.reached.get()
}

#[test]
fn a_success_between_failures_does_not_hide_that_80_percent_fail() {
    let (theirs, clock) = textbook();
    assert_eq!(reach_at_80_percent_failures(&theirs, &clock), 1_000, "the textbook's fault");
    let policy = Policy::Rate(RatePolicy { min_calls: 20, ..RatePolicy::default() });
    let (by_rate, clock) = ours(BreakerSettings { policy, ..Default::default() });
    assert_eq!(reach_at_80_percent_failures(&by_rate, &clock), 20);
    assert_eq!(by_rate.state(), State::Open);
    // Not a matter of code but of the rule: ours is as blind with the textbook's policy.
    let (by_count, clock) = ours(BreakerSettings::default());
    assert_eq!(reach_at_80_percent_failures(&by_count, &clock), 1_000);
}

/// How many of 1,000 calls reach a service that hangs, when five at a time are
/// made and each is given up by its caller after a second.
fn reach_when_hung(guard: &impl Guard, clock: &TestClock) -> u32 {
    let service = Service::hanging();
    for _ in 0..200 {
        let mut calls: Vec<_> = (0..5).map(|_| Box::pin(guard.call(async || service.serve().await))).collect();
        for call in &mut calls {
            let _ = poll(call);
        }
        clock.advance(1_000);
        drop(calls);
    }
    service.reached.get()
}

#[test]
fn a_hung_call_counts_as_soon_as_its_caller_gives_up() {
    let (theirs, clock) = textbook();
    assert_eq!(reach_when_hung(&theirs, &clock), 1_000, "the textbook's fault");
    assert_eq!(theirs.state.get(), TextbookState::Closed);
    // Open for 30 s of each 31: five calls trip it, then one probe a time, each of them hung too.
    let (ours, clock) = ours(BreakerSettings { call_limit_ms: 1_000, ..Default::default() });
    assert_eq!(reach_when_hung(&ours, &clock), 5 + 6);
    assert_ne!(ours.state(), State::Closed);
    assert_eq!(ours.snapshot().counts.timeouts, 5 + 6);
}

/// Whether a service that fails is called again, after a call that began before the trip has succeeded.
fn reached_after_a_late_success(guard: &impl Guard) -> bool {
    let early = Service::hanging();
    let mut early_call = Box::pin(guard.call(async || early.serve().await));
    assert!(poll(&mut early_call).is_pending());
    trip(guard);
    early.answer.set(Some(Ok(())));
    assert_eq!(poll(&mut early_call), Poll::Ready(Ok(())));
    let failing = Service::answering(Err(()));
    call(guard, &failing) != Err(Failed::Rejected)
}

#[test]
fn a_call_that_began_before_the_trip_does_not_close_the_breaker_when_it_ends_late() {
    let (theirs, _) = textbook();
    assert!(reached_after_a_late_success(&theirs), "the textbook's fault");
    let (ours, _) = ours(BreakerSettings::default());
    assert!(!reached_after_a_late_success(&ours));
    assert_eq!((ours.state(), ours.snapshot().counts.late), (State::Open, 1));
}

#[test]
fn where_the_textbook_is_right_both_do_the_same() {
    fn run(guard: &impl Guard, clock: &TestClock) -> Vec<bool> {
        let (failing, working) = (Service::answering(Err(())), Service::answering(Ok(())));
        trip(guard);
        clock.advance(29_999);
        let mut reached = vec![call(guard, &working) != Err(Failed::Rejected)];
        clock.advance(2);
        for service in [&working, &failing, &failing, &failing, &failing, &working, &working] {
            reached.push(call(guard, service) != Err(Failed::Rejected));
        }
        reached
    }
    let (theirs, clock) = textbook();
    let expected = run(&theirs, &clock);
    let (ours, clock) = ours(BreakerSettings::default());
    assert_eq!(run(&ours, &clock), expected);
    assert_eq!(expected, [false, true, true, true, true, true, true, true]);
}
