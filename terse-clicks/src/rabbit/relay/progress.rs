//! What a relay tells of itself while it works, for metrics and health.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Counts of one relay. Written by it alone, read by anyone; each number is true by itself.
#[derive(Debug, Default)]
pub struct RelayProgress {
    published: AtomicU64,
    confirmed: AtomicU64,
    returned: AtomicU64,
    refused: AtomicU64,
    connections: AtomicU64,
    faults: AtomicU64,
    waiting: AtomicU64,
    stopped: AtomicU64,
    connected: AtomicBool,
    blocked: AtomicBool,
    held: AtomicBool,
}

/// A look at [`RelayProgress`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayReport {
    /// Parts published, those that were published again too.
    pub published: u64,
    /// Parts confirmed.
    pub confirmed: u64,
    /// Parts that came back because no stream took them.
    pub returned: u64,
    /// Parts that the broker refused.
    pub refused: u64,
    /// Connections that were made.
    pub connections: u64,
    /// How often it had to pause.
    pub faults: u64,
    /// Parts that are published or about to be, and not confirmed.
    pub waiting: u64,
    /// Journals that can't be relayed now: they were made for another number of partitions, or can't be read.
    pub stopped: u64,
    /// Whether a connection stands.
    pub connected: bool,
    /// Whether the broker asks to be spared.
    pub blocked: bool,
    /// Whether projectors are too far behind, or nobody can tell.
    pub held: bool,
}

impl RelayProgress {
    /// How it stands.
    #[must_use]
    pub fn report(&self) -> RelayReport {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let flag = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        RelayReport {
            published: count(&self.published),
            confirmed: count(&self.confirmed),
            returned: count(&self.returned),
            refused: count(&self.refused),
            connections: count(&self.connections),
            faults: count(&self.faults),
            waiting: count(&self.waiting),
            stopped: count(&self.stopped),
            connected: flag(&self.connected),
            blocked: flag(&self.blocked),
            held: flag(&self.held),
        }
    }

    pub(super) fn published(&self) {
        self.published.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn confirmed(&self) {
        self.confirmed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn returned(&self) {
        self.returned.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn connected(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn fault(&self) {
        self.faults.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn stands(&self, waiting: usize, connected: bool, blocked: bool, held: bool, stopped: usize) {
        self.waiting.store(waiting as u64, Ordering::Relaxed);
        self.stopped.store(stopped as u64, Ordering::Relaxed);
        self.connected.store(connected, Ordering::Relaxed);
        self.blocked.store(blocked, Ordering::Relaxed);
        self.held.store(held, Ordering::Relaxed);
    }
}
