//! A bounded queue of jobs, and the threads that work it off.

use std::io;
use std::thread::JoinHandle;

use parking_lot::{Mutex, RwLock};
use terse_core::ports::{StoreError, StoreErrorKind};

/// The threads end when the queue is closed and empty; closing (or dropping)
/// the lane waits for that.
pub(crate) struct Lane<J> {
    name: String,
    queue: RwLock<Option<flume::Sender<J>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl<J: Send + 'static> Lane<J> {
    /// A lane named `name` with a queue of `capacity` jobs and one thread for each of `workers`.
    ///
    /// # Errors
    /// When a thread can't be started; those already running end by themselves.
    pub(crate) fn start<W>(name: String, capacity: usize, workers: Vec<W>) -> io::Result<Self>
    where
        W: FnOnce(&flume::Receiver<J>) + Send + 'static,
    {
        let (sender, receiver) = flume::bounded(capacity);
        let mut threads = Vec::with_capacity(workers.len());
        for work in workers {
            let queue = receiver.clone();
            threads.push(std::thread::Builder::new().name(name.clone()).spawn(move || work(&queue))?);
        }
        Ok(Self { name, queue: RwLock::new(Some(sender)), threads: Mutex::new(threads) })
    }

    /// Queues `job`, or refuses it at once.
    ///
    /// # Errors
    /// [`StoreErrorKind::Overloaded`] when the queue is full, [`StoreErrorKind::Unavailable`] when the lane is closed.
    pub(crate) fn submit(&self, job: J) -> Result<(), StoreError> {
        let queue = self.queue.read();
        let queue = queue.as_ref().ok_or_else(|| self.closed())?;
        queue.try_send(job).map_err(|refused| match refused {
            flume::TrySendError::Full(_) => {
                StoreError::new(StoreErrorKind::Overloaded, format!("the queue of '{}' is full", self.name))
            }
            flume::TrySendError::Disconnected(_) => self.closed(),
        })
    }

    fn closed(&self) -> StoreError {
        StoreError::new(StoreErrorKind::Unavailable, format!("'{}' is closed", self.name))
    }

    /// Whether jobs are still worked off.
    pub(crate) fn is_open(&self) -> bool {
        self.queue.read().as_ref().is_some_and(|queue| !queue.is_disconnected())
    }

    /// Refuses further jobs, lets the queued ones be done, and waits for the threads.
    pub(crate) fn close(&self) {
        drop(self.queue.write().take());
        for thread in self.threads.lock().drain(..) {
            if thread.join().is_err() {
                tracing::error!(lane = self.name, "a store thread panicked");
            }
        }
    }
}

impl<J> Drop for Lane<J> {
    fn drop(&mut self) {
        drop(self.queue.write().take());
        for thread in self.threads.lock().drain(..) {
            // A panic was reported by its own message; there is nobody left to tell.
            drop(thread.join());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    type Worker = Box<dyn FnOnce(&flume::Receiver<usize>) + Send>;

    /// A lane whose thread does nothing until the returned sender says so.
    fn blocked_lane(capacity: usize) -> (Lane<usize>, flume::Sender<()>, Arc<AtomicUsize>) {
        let (go, gate) = flume::bounded::<()>(1);
        let sum = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&sum);
        let worker: Worker = Box::new(move |queue| {
            gate.recv().unwrap();
            while let Ok(job) = queue.recv() {
                seen.fetch_add(job, Ordering::SeqCst);
            }
        });
        (Lane::start("test".to_owned(), capacity, vec![worker]).unwrap(), go, sum)
    }

    #[test]
    fn a_full_queue_refuses_at_once() {
        let (lane, go, _) = blocked_lane(2);
        lane.submit(1).unwrap();
        lane.submit(1).unwrap();
        let refused = lane.submit(1).unwrap_err();
        assert_eq!(refused.kind, StoreErrorKind::Overloaded);
        assert!(refused.message.contains("'test'"), "{refused}");
        go.send(()).unwrap();
    }

    #[test]
    fn closing_does_what_is_queued_and_refuses_the_rest() {
        let (lane, go, sum) = blocked_lane(8);
        for job in 1..=8 {
            lane.submit(job).unwrap();
        }
        go.send(()).unwrap();
        lane.close();
        assert_eq!(sum.load(Ordering::SeqCst), 36);
        assert_eq!(lane.submit(1).unwrap_err().kind, StoreErrorKind::Unavailable);
        assert!(!lane.is_open());
    }

    #[test]
    fn dropping_ends_the_threads() {
        let (lane, go, sum) = blocked_lane(8);
        lane.submit(5).unwrap();
        go.send(()).unwrap();
        drop(lane);
        assert_eq!((sum.load(Ordering::SeqCst), Arc::strong_count(&sum)), (5, 1));
    }

    #[test]
    fn a_lane_whose_thread_died_says_so() {
        let worker: Worker = Box::new(|_| {});
        let lane = Lane::start("test".to_owned(), 8, vec![worker]).unwrap();
        for thread in lane.threads.lock().drain(..) {
            thread.join().unwrap();
        }
        assert!(!lane.is_open());
        assert_eq!(lane.submit(1).unwrap_err().kind, StoreErrorKind::Unavailable);
    }
}
