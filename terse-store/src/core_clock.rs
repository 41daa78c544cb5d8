//! The domain's clock as the guards read it.

use std::sync::Arc;

use terse_core::Clock;
use terse_resilience::MonotonicClock;

/// Hands the monotonic time of a [`Clock`] to breakers and bulkheads, so that
/// a process has one source of time.
pub struct CoreClock(pub Arc<dyn Clock>);

impl MonotonicClock for CoreClock {
    fn monotonic_ms(&self) -> u64 {
        self.0.monotonic_ms()
    }

    fn monotonic_ns(&self) -> u64 {
        self.0.monotonic_ns()
    }
}

#[cfg(test)]
mod tests {
    use terse_core::Timestamp;

    use super::*;

    struct At(u64);

    impl Clock for At {
        fn now(&self) -> Timestamp {
            Timestamp::from_millis(0)
        }

        fn monotonic_ms(&self) -> u64 {
            self.0
        }
    }

    #[test]
    fn guards_see_the_monotonic_time() {
        assert_eq!(CoreClock(Arc::new(At(42))).monotonic_ms(), 42);
    }
}
