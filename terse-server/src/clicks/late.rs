//! What is opened when it can be: a read model or a journal that a start can do without.
//!
//! Redirects need neither, so a file that can't be opened keeps nobody from starting. Opening is tried at the start and
//! then again by a task; each try is one blocking call on a thread of its own, and there is at most one at a time.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use terse_core::ports::{StoreError, StoreErrorKind};

type Open<T> = Box<dyn Fn() -> Result<Arc<T>, StoreError> + Send + Sync>;

/// Something that is there once it could be opened.
pub(crate) struct Late<T> {
    what: &'static str,
    open: Open<T>,
    opened: OnceLock<Arc<T>>,
    /// Held by the try that goes on.
    turn: Mutex<()>,
    /// Whether nobody needs it any more; locked while what was opened is handed over.
    ended: Mutex<bool>,
}

impl<T: Send + Sync + 'static> Late<T> {
    /// Will be what `open` opens; `what` is how it is called in messages.
    pub(crate) fn new(
        what: &'static str,
        open: impl Fn() -> Result<Arc<T>, StoreError> + Send + Sync + 'static,
    ) -> Arc<Self> {
        let (turn, ended) = (Mutex::default(), Mutex::new(false));
        Arc::new(Self { what, open: Box::new(open), opened: OnceLock::new(), turn, ended })
    }

    /// What was opened.
    pub(crate) fn get(&self) -> Option<&Arc<T>> {
        self.opened.get()
    }

    /// What was opened.
    ///
    /// # Errors
    /// [`StoreErrorKind::Unavailable`] as long as it could not be. The text names no file.
    pub(crate) fn must(&self) -> Result<&Arc<T>, StoreError> {
        self.get().ok_or_else(|| self.unavailable("could not be opened yet"))
    }

    /// Opens it, unless that was done. It goes on when `within` is over, and is there for the next call then.
    ///
    /// # Errors
    /// Why it can't be opened, or is not open yet.
    pub(crate) async fn open_once(self: &Arc<Self>, within: Duration) -> Result<(), StoreError> {
        if self.get().is_some() {
            return Ok(());
        }
        let this = Arc::clone(self);
        match tokio::time::timeout(within, tokio::task::spawn_blocking(move || this.try_open())).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => Err(self.unavailable("could not be opened: opening it has panicked").caused_by(error)),
            Err(_) => Err(self.unavailable("is still being opened")),
        }
    }

    /// Opens it, unless that was done. It blocks.
    ///
    /// # Errors
    /// Why it can't be opened, or that somebody else is opening it.
    pub(crate) fn try_open(&self) -> Result<(), StoreError> {
        let Some(_turn) = self.turn.try_lock() else { return Err(self.unavailable("is still being opened")) };
        if self.get().is_some() || *self.ended.lock() {
            return Ok(());
        }
        let opened = (self.open)()?;
        let ended = self.ended.lock();
        // What comes too late is dropped, and so closed.
        if !*ended {
            let _ = self.opened.set(opened);
        }
        Ok(())
    }

    /// Opens nothing any more; what was opened is the caller's to close.
    pub(crate) fn end(&self) -> Option<Arc<T>> {
        *self.ended.lock() = true;
        self.get().cloned()
    }

    fn unavailable(&self, how: &str) -> StoreError {
        StoreError::new(StoreErrorKind::Unavailable, format!("{} {how}", self.what))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn what_can_not_be_opened_is_tried_again_until_it_can() {
        let (tries, fails) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(true)));
        let (counted, asked) = (Arc::clone(&tries), Arc::clone(&fails));
        let late = Late::new("the thing", move || {
            counted.fetch_add(1, Ordering::SeqCst);
            if asked.load(Ordering::SeqCst) {
                return Err(StoreError::new(StoreErrorKind::Corrupt, "damaged"));
            }
            Ok(Arc::new(7))
        });
        for _ in 0..2 {
            assert_eq!(late.open_once(PATIENCE).await.unwrap_err().kind, StoreErrorKind::Corrupt);
            let missing = late.must().unwrap_err();
            assert_eq!(
                (missing.kind, missing.message.as_str()),
                (StoreErrorKind::Unavailable, "the thing could not be opened yet")
            );
        }
        fails.store(false, Ordering::SeqCst);
        late.open_once(PATIENCE).await.unwrap();
        late.open_once(PATIENCE).await.unwrap();
        assert_eq!((late.get().map(|thing| **thing), tries.load(Ordering::SeqCst)), (Some(7), 3));
    }

    #[tokio::test]
    async fn a_try_that_takes_long_is_left_alone_and_succeeds_later() {
        let (go, gone) = mpsc::channel::<()>();
        let gone = Mutex::new(gone);
        let late = Late::new("the thing", move || {
            gone.lock().recv_timeout(PATIENCE).unwrap();
            Ok(Arc::new(7))
        });
        for _ in 0..2 {
            let error = late.open_once(Duration::from_millis(20)).await.unwrap_err();
            assert_eq!(error.message, "the thing is still being opened");
        }
        go.send(()).unwrap();
        tokio::time::timeout(PATIENCE, async {
            while late.open_once(PATIENCE).await.is_err() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
        assert!(late.get().is_some());
    }

    #[tokio::test]
    async fn what_opens_after_the_end_is_closed_again() {
        let (go, gone) = mpsc::channel::<()>();
        let (gone, thing) = (Mutex::new(gone), Arc::new(7));
        let made = Arc::clone(&thing);
        let late = Late::new("the thing", move || {
            gone.lock().recv_timeout(PATIENCE).unwrap();
            Ok(Arc::clone(&made))
        });
        assert!(late.open_once(Duration::from_millis(20)).await.is_err());
        assert!(late.end().is_none());
        go.send(()).unwrap();
        while late.open_once(PATIENCE).await.is_err() {
            tokio::task::yield_now().await;
        }
        assert!(late.get().is_none());
    }

    #[tokio::test]
    async fn a_panic_while_opening_is_a_failure_like_others() {
        let late = Late::<u8>::new("the thing", || panic!("on purpose"));
        for _ in 0..2 {
            assert_eq!(late.open_once(PATIENCE).await.unwrap_err().kind, StoreErrorKind::Unavailable);
        }
    }
}
