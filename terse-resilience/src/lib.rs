//! Guards for calls to something that may fail: [`Breaker`], [`Bulkhead`],
//! [`Backoff`], [`RetryBudget`]; and [`Breakers`], a process's breakers by name.
//! And against callers that ask for too much: the rate limiters of [`limit`],
//! and [`ConcurrencyLimit`], which follows how long calls take.
//!
//! Nothing here knows what is called, waits, spawns, or does I/O. Time comes
//! from an injected [`MonotonicClock`], randomness from an injected seed, so
//! every rule is tested without waiting and repeated from a seed. No lock is
//! held while a call runs; the locks inside are held for tens of nanoseconds
//! and never while foreign code (a clock, an observer) runs.
//!
//! Every guard is bounded and says what happens at its bound: a breaker
//! rejects with a time to obey, a bulkhead rejects at once (it has no queue),
//! a backoff ends after its attempts, a budget refuses the retry.
//!
//! The order around a call is bulkhead → breaker → timeout → call. The timeout
//! belongs inside the breaker, so that its expiry is reported by
//! [`Permit::timeout`].

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod backoff;
pub mod breaker;
pub mod bulkhead;
mod clock;
pub mod concurrency;
pub mod limit;
mod random;
mod registry;
pub mod retry_budget;
mod settings;
mod sync;
#[cfg(test)]
mod test_clock;

pub use backoff::{Backoff, BackoffSettings, Jitter};
pub use breaker::{
    Breaker, BreakerSettings, Cause, Counts, Forced, Permit, Policy, RatePolicy, RejectReason, Rejected, SlowCalls,
    Snapshot, State, Tally, Transition, TransitionObserver,
};
pub use bulkhead::{Bulkhead, BulkheadFull, BulkheadSnapshot, Slot};
pub use clock::MonotonicClock;
pub use concurrency::{ConcurrencyLimit, ConcurrencySettings, ConcurrencySnapshot, LimitReached, Running};
pub use registry::{Breakers, NameTaken};
pub use retry_budget::{RetryBudget, RetryBudgetSettings, RetryBudgetSnapshot};
pub use settings::SettingsError;
