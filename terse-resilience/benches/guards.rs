//! What the guards cost around a call that costs nothing. Prints nanoseconds,
//! the best of five rounds; `cargo bench -p terse-resilience`. A number on the
//! command line = so many calls a round.
#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used)]

use std::hint::black_box;
use std::sync::Arc;
use std::sync::Barrier;
use std::time::Instant;

use terse_resilience::{
    Breaker, BreakerSettings, Bulkhead, MonotonicClock, Policy, RatePolicy, RetryBudget, RetryBudgetSettings, SlowCalls,
};

const CALLS: u32 = 2_000_000;
const ROUNDS: usize = 5;

/// Nanoseconds for one `work`, on each of `threads` threads at once.
fn measure(name: &str, threads: usize, work: impl Fn() + Sync) {
    let calls = std::env::args().find_map(|word| word.parse().ok()).unwrap_or(CALLS).max(2) / threads as u32;
    let round = || {
        let start = Barrier::new(threads);
        let run = || {
            start.wait();
            let began = Instant::now();
            (0..calls).for_each(|_| work());
            began.elapsed().as_secs_f64() * 1e9 / f64::from(calls)
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).fold(0.0, f64::max)
        })
    };
    let best = (0..ROUNDS).map(|_| round()).fold(f64::INFINITY, f64::min);
    println!("{name:<58}{threads:>2} threads {best:>8.1} ns");
}

fn system_clock() -> Arc<dyn MonotonicClock> {
    let started = Instant::now();
    Arc::new(move || started.elapsed().as_millis() as u64)
}

fn breaker(policy: Policy) -> Breaker {
    Breaker::new(BreakerSettings { policy, ..Default::default() }, system_clock(), 1).unwrap()
}

fn main() {
    let clock = system_clock();
    let by_count = breaker(Policy::Consecutive { failures: 5 });
    let slow = Some(SlowCalls { after_ms: 100, percent: 50 });
    let by_rate = breaker(Policy::Rate(RatePolicy { slow, ..RatePolicy::default() }));
    let open = breaker(Policy::Consecutive { failures: 1 });
    open.try_acquire().unwrap().failure();
    let bulkhead = Bulkhead::new(64).unwrap();
    let budget = RetryBudget::new(RetryBudgetSettings::default(), system_clock()).unwrap();
    (0..2_000).for_each(|_| budget.record_call());
    for threads in [1, 2] {
        measure("reading the clock once", threads, || {
            black_box(clock.monotonic_ms());
        });
        measure("breaker, consecutive: acquire + success, closed", threads, || {
            black_box(by_count.try_acquire()).unwrap().success();
        });
        measure("breaker, rate and slow calls: acquire + success, closed", threads, || {
            black_box(by_rate.try_acquire()).unwrap().success();
        });
        measure("breaker: rejection, open", threads, || drop(black_box(open.try_acquire())));
        measure("bulkhead: acquire + release", threads, || drop(black_box(bulkhead.try_acquire())));
        measure("bulkhead + breaker, consecutive", threads, || {
            let slot = bulkhead.try_acquire();
            black_box(by_count.try_acquire()).unwrap().success();
            drop(slot);
        });
        measure("retry budget: record a call, savings full", threads, || black_box(&budget).record_call());
    }
}
