//! Whether the server is starting, ready or draining, and how many requests are in flight.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

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
    in_flight: AtomicUsize,
}

/// One request in flight; dropping it ends it.
#[derive(Debug)]
pub struct InFlight(Arc<Lifecycle>);

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

    /// Counts a request as in flight until the guard is dropped.
    #[must_use]
    pub fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        InFlight(Arc::clone(self))
    }

    /// How many requests are in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::SeqCst)
    }
}

impl InFlight {
    /// The phase of the server that the request is in.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.0.phase()
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
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
}
