//! A clock that only moves when a test moves it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::MonotonicClock;

/// Plain std atomics on purpose: the model checker need not explore time.
#[derive(Debug, Default)]
pub(crate) struct TestClock(AtomicU64);

impl TestClock {
    pub(crate) fn at(now_ms: u64) -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(now_ms)))
    }

    pub(crate) fn advance(&self, by_ms: u64) {
        self.0.fetch_add(by_ms, Ordering::SeqCst);
    }

    /// Also to an older time, as a thread sees it that was held up.
    #[cfg(not(loom))]
    pub(crate) fn set(&self, now_ms: u64) {
        self.0.store(now_ms, Ordering::SeqCst);
    }
}

impl MonotonicClock for TestClock {
    fn monotonic_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}
