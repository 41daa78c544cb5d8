//! A gate that holds callers until a test opens it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use event_listener::Event;

/// Holds whoever comes to it until it is opened, and tells how many have come.
/// Starts closed. It waits on conditions only, never on time.
#[derive(Debug, Default)]
pub struct Gate {
    open: AtomicBool,
    arrived: AtomicUsize,
    changed: Event,
}

impl Gate {
    /// A closed gate.
    #[must_use]
    pub fn closed() -> Arc<Self> {
        Arc::default()
    }

    /// Comes to the gate and waits until it is open.
    pub async fn pass(&self) {
        self.arrived.fetch_add(1, Ordering::SeqCst);
        self.changed.notify(usize::MAX);
        self.until(|| self.open.load(Ordering::SeqCst)).await;
    }

    /// Opens the gate for all who wait and all who come.
    pub fn open(&self) {
        self.open.store(true, Ordering::SeqCst);
        self.changed.notify(usize::MAX);
    }

    /// Waits until `count` callers have come to the gate, those let through included.
    pub async fn arrived(&self, count: usize) {
        self.until(|| self.arrived.load(Ordering::SeqCst) >= count).await;
    }

    async fn until(&self, condition: impl Fn() -> bool) {
        while !condition() {
            let changed = self.changed.listen();
            // Asked again, now that a change can't be missed any more.
            if condition() {
                return;
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn a_closed_gate_holds_and_an_open_one_lets_through() {
        let gate = Gate::closed();
        let mut pass = Box::pin(gate.pass());
        assert!((&mut pass).now_or_never().is_none());
        gate.open();
        assert!(pass.now_or_never().is_some());
        assert!(gate.pass().now_or_never().is_some(), "later callers need not wait");
    }

    #[test]
    fn arrivals_are_counted_before_the_gate_opens() {
        let gate = Gate::closed();
        assert!(gate.arrived(0).now_or_never().is_some());
        let mut first = Box::pin(gate.pass());
        assert!((&mut first).now_or_never().is_none());
        assert!(gate.arrived(1).now_or_never().is_some());
        let mut two = Box::pin(gate.arrived(2));
        assert!((&mut two).now_or_never().is_none());
        let mut second = Box::pin(gate.pass());
        assert!((&mut second).now_or_never().is_none());
        assert!(two.now_or_never().is_some());
    }
}
