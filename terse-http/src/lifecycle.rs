//! Whether the server is starting, ready or draining, and how many requests are in flight.
//!
//! Each web worker counts its own requests, in a line of memory that it alone
//! writes, and whoever asks adds them up. So a request costs two plain
//! increments, where a count that workers share costs two locked ones on memory
//! that moves between cores.
//!
//! A sum may miss a request that began within the last nanoseconds, as one sum
//! does that was made just before. Draining needs no more: what it misses is
//! answered all the same, since a worker that is told to finish ends with its connections.

use std::rc::Rc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A phase of the server's life; they only ever go forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Not ready yet: `/readyz` is 503.
    Starting,
    /// Serving.
    Ready,
    /// Shutting down: `/readyz` is 503, connections are closed after their answer, requests are still answered.
    Draining,
}

/// The server's phase and its requests in flight, shared by everyone who asks.
#[derive(Debug, Default)]
pub struct Lifecycle {
    phase: AtomicU8,
    /// One for each who counts: as many as there are workers.
    counts: Mutex<Vec<Arc<Count>>>,
}

/// 64-byte alignment keeps the counts of two workers in lines of their own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Count(AtomicUsize);

/// The requests of one web worker, for the thread that made it alone.
#[derive(Debug)]
pub(crate) struct Requests {
    count: Arc<Count>,
    lifecycle: Arc<Lifecycle>,
}

/// One request in flight; dropping it ends it. It stays on its thread.
#[derive(Debug)]
pub struct InFlight(Rc<Requests>);

impl Lifecycle {
    /// A server that is starting.
    #[must_use]
    pub fn starting() -> Arc<Self> {
        Arc::default()
    }

    /// Goes on to `phase`; going back is ignored.
    pub fn enter(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::SeqCst);
    }

    /// The current phase.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Starting,
            1 => Phase::Ready,
            _ => Phase::Draining,
        }
    }

    /// The requests of another worker; none yet.
    pub(crate) fn requests(self: &Arc<Self>) -> Rc<Requests> {
        let count = Arc::<Count>::default();
        self.counts().push(Arc::clone(&count));
        Rc::new(Requests { count, lifecycle: Arc::clone(self) })
    }

    /// Counts a request as in flight until the guard is dropped.
    #[must_use]
    pub fn begin(self: &Arc<Self>) -> InFlight {
        self.requests().begin()
    }

    /// How many requests are in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.counts().iter().map(|count| count.0.load(Ordering::SeqCst)).sum()
    }

    /// Nothing panics while it is held.
    fn counts(&self) -> MutexGuard<'_, Vec<Arc<Count>>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Requests {
    /// Counts a request as in flight until the guard is dropped.
    pub(crate) fn begin(self: &Rc<Self>) -> InFlight {
        self.count.set(self.count.get() + 1);
        InFlight(Rc::clone(self))
    }
}

impl Count {
    /// What this thread, which alone changes it, left it at.
    fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Release: who sees that a request has ended sees what it did.
    fn set(&self, count: usize) {
        self.0.store(count, Ordering::Release);
    }
}

impl InFlight {
    /// The phase of the server that the request is in.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.0.lifecycle.phase()
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.count.set(self.0.count.get() - 1);
    }
}

impl Drop for Requests {
    /// Nothing of it is in flight any more: each request holds it.
    fn drop(&mut self) {
        self.lifecycle.counts().retain(|count| !Arc::ptr_eq(count, &self.count));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_only_go_forward() {
        let lifecycle = Lifecycle::starting();
        assert_eq!(lifecycle.phase(), Phase::Starting);
        lifecycle.enter(Phase::Draining);
        lifecycle.enter(Phase::Ready);
        assert_eq!(lifecycle.phase(), Phase::Draining);
    }

    #[test]
    fn a_request_is_in_flight_while_its_guard_lives() {
        let lifecycle = Lifecycle::starting();
        let (first, second) = (lifecycle.begin(), lifecycle.begin());
        assert_eq!(lifecycle.in_flight(), 2);
        drop(first);
        assert_eq!(lifecycle.in_flight(), 1);
        assert_eq!(second.phase(), Phase::Starting);
        drop(second);
        assert_eq!(lifecycle.in_flight(), 0);
    }

    #[test]
    fn the_requests_of_all_workers_are_added_up() {
        let lifecycle = Lifecycle::starting();
        let (began, ends) = (std::sync::Barrier::new(4), std::sync::Barrier::new(4));
        std::thread::scope(|scope| {
            for requests in 1..=3 {
                let (lifecycle, began, ends) = (&lifecycle, &began, &ends);
                scope.spawn(move || {
                    let worker = lifecycle.requests();
                    let mut guards: Vec<InFlight> = (0..requests).map(|_| worker.begin()).collect();
                    began.wait();
                    ends.wait();
                    guards.pop();
                    began.wait();
                    ends.wait();
                });
            }
            for expected in [6, 3] {
                began.wait();
                assert_eq!(lifecycle.in_flight(), expected);
                ends.wait();
            }
        });
        assert_eq!(lifecycle.in_flight(), 0);
    }

    #[test]
    fn a_worker_that_has_ended_takes_no_room_and_its_last_request_keeps_it() {
        let lifecycle = Lifecycle::starting();
        let request = lifecycle.requests().begin();
        assert_eq!((lifecycle.in_flight(), lifecycle.counts().len()), (1, 1));
        drop(request);
        assert_eq!((lifecycle.in_flight(), lifecycle.counts().len()), (0, 0));
    }

    #[test]
    fn a_sum_beside_a_worker_is_one_of_its_counts() {
        let lifecycle = Lifecycle::starting();
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let worker = lifecycle.requests();
                (0..100_000).for_each(|_| drop((worker.begin(), worker.begin())));
                done.store(true, Ordering::Release);
            });
            while !done.load(Ordering::Acquire) {
                assert!(lifecycle.in_flight() <= 2);
            }
        });
        assert_eq!(lifecycle.in_flight(), 0);
    }
}
