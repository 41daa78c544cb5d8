//! Places for so many requests at once, for which others wait a bounded time.

use std::time::Duration;

use terse_core::ports::{StoreError, StoreErrorKind};
use tokio::sync::{Semaphore, SemaphorePermit};

/// So many places, all alike.
pub(super) struct Places {
    what: &'static str,
    free: Semaphore,
    wait: Duration,
}

impl Places {
    /// `count` places (at least one) for `what`; whoever finds none free waits for up to `wait_ms` milliseconds.
    pub(super) fn new(what: &'static str, count: usize, wait_ms: u64) -> Self {
        Self { what, free: Semaphore::new(count.max(1)), wait: Duration::from_millis(wait_ms) }
    }

    /// A place, free again when dropped.
    ///
    /// # Errors
    /// [`StoreErrorKind::Overloaded`] when none became free in time.
    pub(super) async fn take(&self) -> Result<SemaphorePermit<'_>, StoreError> {
        if let Ok(place) = self.free.try_acquire() {
            return Ok(place);
        }
        match tokio::time::timeout(self.wait, self.free.acquire()).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) | Err(_) => Err(StoreError::new(
                StoreErrorKind::Overloaded,
                format!("no place among the {} in {} ms", self.what, self.wait.as_millis()),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn whoever_finds_no_place_waits_so_long_and_is_refused() {
        let places = Places::new("tests", 2, 300);
        let (_first, second) = (places.take().await.unwrap(), places.take().await.unwrap());
        let began = Instant::now();
        let refused = places.take().await.unwrap_err();
        assert_eq!((refused.kind, began.elapsed()), (StoreErrorKind::Overloaded, Duration::from_millis(300)));
        assert!(refused.message.contains("the tests in 300 ms"), "{refused}");
        drop(second);
        assert!(places.take().await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_that_becomes_free_goes_to_who_waits() {
        let places = Places::new("tests", 0, 300);
        let only = places.take().await.unwrap();
        let (taken, ()) = tokio::join!(places.take(), async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            drop(only);
        });
        assert!(taken.is_ok());
    }
}
