//! What the reader of streams tells of itself, for health and metrics.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Whether streams are read. Written by one reader alone, read by anyone.
#[derive(Debug, Default)]
pub struct StreamReading {
    connected: AtomicBool,
    connections: AtomicU64,
    faults: AtomicU64,
}

/// A look at [`StreamReading`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadingReport {
    /// Whether a connection stands, as far as known.
    pub connected: bool,
    /// Connections that were made.
    pub connections: u64,
    /// How often a connection was given up, or not had.
    pub faults: u64,
}

impl StreamReading {
    /// How it stands.
    #[must_use]
    pub fn report(&self) -> ReadingReport {
        ReadingReport {
            connected: self.connected.load(Ordering::Relaxed),
            connections: self.connections.load(Ordering::Relaxed),
            faults: self.faults.load(Ordering::Relaxed),
        }
    }

    pub(super) fn connected(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.connected.store(true, Ordering::Relaxed);
    }

    pub(super) fn lost(&self) {
        self.faults.fetch_add(1, Ordering::Relaxed);
        self.connected.store(false, Ordering::Relaxed);
    }
}
