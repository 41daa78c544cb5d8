//! The thread that recovers journals whose process is gone.
//!
//! It is one of its own, for it may wait for the disk for long: nothing else waits for it. A process that has no
//! journal but reads those of others has such a thread too: what a killed process left open is counted all the same.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;

use super::recovery::{Recovered, Recovery};
use super::supervision::Supervised;

/// How often journals without a process are looked for. A step that had more to do than it may is followed by the next
/// at once.
const RECOVER_EVERY: Duration = Duration::from_secs(1);

/// Recovers journals, every second, until it is dropped, which waits for the step that goes on.
pub struct RecoveryThread {
    stop: Arc<AtomicBool>,
    thread: Option<Supervised<()>>,
}

impl RecoveryThread {
    /// Starts it.
    ///
    /// # Errors
    /// Why the thread could not be started.
    pub fn start(recovery: Recovery) -> io::Result<Self> {
        Self::of(Arc::new(Mutex::new(recovery)), |_| ())
    }

    /// Starts it; what a step did, if anything, is `told`.
    pub(super) fn of(recovery: Arc<Mutex<Recovery>>, told: impl Fn(Recovered) + Send + 'static) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (clock, stopped) = (recovery.lock().clock(), Arc::clone(&stop));
        let is_ending = move || stopped.load(Ordering::SeqCst);
        let stopped = Arc::clone(&stop);
        let run = move || {
            while !stopped.load(Ordering::SeqCst) {
                let recovered = recovery.lock().recover_once();
                match recovered {
                    Ok(recovered) if recovered.any() => {
                        told(recovered);
                        if recovered.is_full() {
                            continue;
                        }
                    }
                    Ok(_) => {}
                    Err(error) => tracing::warn!(%error, "journals without a process can't be recovered"),
                }
                thread::park_timeout(RECOVER_EVERY);
            }
        };
        let thread = Supervised::start("terse-recover", clock, is_ending, run)?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Whether it does its work, and has not panicked within the last minute.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.thread.as_ref().is_some_and(Supervised::is_alive)
    }
}

impl Drop for RecoveryThread {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // If it panics on the way, that is told.
        self.thread.take().map(Supervised::join);
    }
}
