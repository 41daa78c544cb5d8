//! Where time comes from.

/// Time that never steps back.
///
/// Any `Fn() -> u64` is such a clock, so another crate's clock is handed in as
/// `Arc::new(move || clock.monotonic_ms())`.
///
/// Threads may race between reading the clock and acting on it; a time older
/// than one that was seen before is therefore expected everywhere and harmless.
pub trait MonotonicClock: Send + Sync + 'static {
    /// Milliseconds since an arbitrary start. Must not block.
    fn monotonic_ms(&self) -> u64;

    /// The same in nanoseconds, for those who pace what is faster than a
    /// millisecond. As fine as `monotonic_ms` where nobody says otherwise.
    fn monotonic_ns(&self) -> u64 {
        self.monotonic_ms().saturating_mul(1_000_000)
    }
}

impl<F: Fn() -> u64 + Send + Sync + 'static> MonotonicClock for F {
    fn monotonic_ms(&self) -> u64 {
        self()
    }
}
