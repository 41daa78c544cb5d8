//! The guards together, as a caller wires them, through outages that are
//! simulated millisecond by millisecond: what reaches a service that fails, and
//! how soon it is used again.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use terse_resilience::{
    Backoff, BackoffSettings, Breaker, BreakerSettings, Bulkhead, Jitter, Permit, Policy, RatePolicy, RetryBudget,
    RetryBudgetSettings, Slot, SlowCalls, State,
};

/// The caller's timeout around each call.
const TIMEOUT_MS: u64 = 100;

/// A clock for the guards, moved by the simulation.
fn clock() -> (Arc<AtomicU64>, Arc<impl Fn() -> u64 + Send + Sync>) {
    let now_ms = Arc::new(AtomicU64::new(0));
    let reading = now_ms.clone();
    (now_ms, Arc::new(move || reading.load(Ordering::SeqCst)))
}

/// The store's open times, with the textbook's policy and its one probe for tests to put others in their place.
fn store_settings() -> BreakerSettings {
    let BreakerSettings { policy, probes, probe_successes, .. } = BreakerSettings::default();
    BreakerSettings { policy, probes, probe_successes, ..BreakerSettings::cheap_to_probe(TIMEOUT_MS) }
}

/// How the service does at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    /// Answers after so many milliseconds.
    Answers(u64),
    /// Fails so many of five calls, after 5 ms.
    Fails(u64),
    /// Never answers.
    Hangs,
}

/// What came of the calls of a run.
#[derive(Debug, Default)]
struct Tally {
    /// Calls that reached the service while it was ill.
    reached_ill: u64,
    /// Calls refused while it was well.
    refused_well: u64,
    /// The most calls that were under way at once.
    most_under_way: usize,
    /// When the breaker was closed for good.
    closed_at_ms: u64,
}

struct Call<'a> {
    _slot: Slot<'a>,
    permit: Permit<'a>,
    ends_ms: u64,
    fails: bool,
}

impl Call<'_> {
    fn end(self, now_ms: u64) {
        match (now_ms >= self.ends_ms, self.fails) {
            (false, _) => self.permit.timeout(),
            (true, true) => self.permit.failure(),
            (true, false) => self.permit.success(),
        }
    }
}

/// A call every 5 ms for `run_ms` to a service that is ill as `illness` says from 10 s to 40 s.
fn run(settings: BreakerSettings, run_ms: u64, illness: Health) -> Tally {
    let (time, clock) = clock();
    let bulkhead = Bulkhead::new(64).unwrap();
    let breaker = Breaker::new(settings, clock, 42).unwrap();
    let mut calls: Vec<(u64, Call<'_>)> = Vec::new();
    let mut tally = Tally::default();
    for now_ms in 0..run_ms {
        time.store(now_ms, Ordering::SeqCst);
        let ends = |(began_ms, call): &mut (u64, Call<'_>)| now_ms >= call.ends_ms || now_ms - *began_ms >= TIMEOUT_MS;
        calls.extract_if(.., ends).for_each(|(_, call)| call.end(now_ms));
        if breaker.state() != State::Closed {
            tally.closed_at_ms = now_ms + 1;
        }
        if now_ms % 5 != 0 {
            continue;
        }
        let ill = (10_000..40_000).contains(&now_ms);
        let health = if ill { illness } else { Health::Answers(5) };
        let Some((slot, permit)) = bulkhead.try_acquire().ok().zip(breaker.try_acquire().ok()) else {
            tally.refused_well += u64::from(!ill);
            continue;
        };
        tally.reached_ill += u64::from(ill);
        let (takes_ms, fails) = match health {
            Health::Answers(takes_ms) => (takes_ms, false),
            Health::Fails(of_five) => (5, now_ms / 5 % 5 < of_five),
            Health::Hangs => (u64::MAX, true),
        };
        let ends_ms = now_ms.saturating_add(takes_ms);
        calls.push((now_ms, Call { _slot: slot, permit, ends_ms, fails }));
        tally.most_under_way = tally.most_under_way.max(calls.len());
    }
    tally
}

fn rate() -> RatePolicy {
    RatePolicy { slow: Some(SlowCalls { after_ms: 50, percent: 50 }), min_calls: 20, ..Default::default() }
}

fn rate_settings() -> BreakerSettings {
    BreakerSettings { policy: Policy::Rate(rate()), ..store_settings() }
}

fn either_settings() -> BreakerSettings {
    BreakerSettings { policy: Policy::Either { failures: 5, rate: rate() }, ..store_settings() }
}

#[test]
fn a_service_that_is_well_never_notices_the_guards() {
    for settings in [store_settings(), rate_settings(), either_settings()] {
        let tally = run(settings, 20_000, Health::Answers(5));
        assert_eq!((tally.reached_ill, tally.refused_well, tally.closed_at_ms), (2_000, 0, 0));
    }
}

#[test]
fn of_6000_calls_in_an_outage_only_the_trip_and_a_few_probes_reach_the_service() {
    let tally = run(store_settings(), 60_000, Health::Hangs);
    // The fifth timeout comes 120 ms after the first call: 25 calls. Then a probe after 0.5, 1, 2 and each 4 s or less.
    assert!((25..=25 + 14).contains(&tally.reached_ill), "{tally:?}");
    assert!(tally.most_under_way <= 26, "{tally:?}");
    assert!((40_000..44_200).contains(&tally.closed_at_ms), "within one open time of its return: {tally:?}");
}

#[test]
fn the_rate_policy_is_slow_to_believe_an_outage_and_either_policy_is_not() {
    let by_rate = run(rate_settings(), 60_000, Health::Hangs);
    assert!((900..3_000).contains(&by_rate.reached_ill), "half of 10 s of calls have to fail first: {by_rate:?}");
    let either = run(either_settings(), 60_000, Health::Hangs);
    assert!(either.reached_ill <= 25 + 14, "{either:?}");
    for tally in [by_rate, either] {
        assert!((40_000..44_200).contains(&tally.closed_at_ms), "{tally:?}");
    }
}

#[test]
fn a_service_that_fails_four_of_five_is_left_alone_by_the_rate_policy_alone() {
    let by_count = run(store_settings(), 60_000, Health::Fails(4));
    assert_eq!((by_count.reached_ill, by_count.closed_at_ms), (6_000, 0));
    for settings in [rate_settings(), either_settings()] {
        let by_rate = run(settings, 60_000, Health::Fails(4));
        assert!(by_rate.reached_ill < 3_000, "{by_rate:?}");
    }
}

#[test]
fn a_service_that_answers_slowly_is_left_alone_though_nothing_fails() {
    let by_count = run(store_settings(), 60_000, Health::Answers(80));
    assert_eq!((by_count.reached_ill, by_count.refused_well), (6_000, 0));
    let by_rate = run(rate_settings(), 60_000, Health::Answers(80));
    assert!(by_rate.reached_ill < 3_000 && by_rate.closed_at_ms < 44_200, "{by_rate:?}");
}

#[test]
fn hung_calls_without_a_timeout_take_the_slots_of_the_bulkhead_and_no_more() {
    let (_, clock) = clock();
    let (bulkhead, breaker) = (Bulkhead::new(64).unwrap(), Breaker::new(store_settings(), clock, 1).unwrap());
    let hung: Vec<_> = (0..1_000).filter_map(|_| Some((bulkhead.try_acquire().ok()?, breaker.try_acquire()))).collect();
    assert_eq!((hung.len(), bulkhead.snapshot().rejected), (64, 936));
    assert_eq!(breaker.snapshot().counts.in_flight(), 64);
    drop(hung);
    assert_eq!((bulkhead.snapshot().in_use, breaker.snapshot().counts.in_flight()), (0, 0));
}

/// How many attempts 10,000 failing calls make in 100 s, each trying up to three times more.
fn attempts(budget: Option<RetryBudgetSettings>) -> u64 {
    let (time, clock) = clock();
    let budget = budget.map(|settings| RetryBudget::new(settings, clock).unwrap());
    let backoff = BackoffSettings { base_ms: 10, max_ms: 100, jitter: Jitter::Full, max_attempts: Some(3) };
    let mut attempts = 0;
    for call in 0..10_000_u64 {
        time.store(call * 10, Ordering::SeqCst);
        if let Some(budget) = &budget {
            budget.record_call();
        }
        attempts += 1;
        let mut waits = Backoff::new(backoff, call).unwrap();
        while waits.next_wait_ms().is_some() && budget.as_ref().is_none_or(RetryBudget::try_retry) {
            attempts += 1;
        }
    }
    attempts
}

#[test]
fn a_retry_budget_keeps_an_outage_from_multiplying_the_load() {
    assert_eq!(attempts(None), 40_000);
    let with_budget = attempts(Some(RetryBudgetSettings::default()));
    assert!((11_000..=11_101).contains(&with_budget), "a tenth more and one a second: {with_budget}");
}
