//! What the tests of terse share: a clock that stands still, repeatable
//! randomness, valid links in one line, faults on schedule, a proxy that cuts
//! the wire, an allocator that counts, and invariants as plain functions.
//!
//! A fake is only here for what the real part can't be made to show: a store
//! that loses one answer, or a read that stays open until the test says so.
//! Nothing here sleeps or needs a runtime, so it serves tests under any; the
//! proxy brings its own.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod allocations;
pub mod clicks;
mod clock;
mod entropy;
mod faults;
mod faulty_store;
mod gate;
pub mod invariants;
pub mod links;
pub mod proxy;

pub use allocations::CountingAllocator;
pub use clock::TestClock;
pub use entropy::SeededEntropy;
pub use faults::{Fault, Faults, Operation, When};
pub use faulty_store::FaultyStore;
pub use gate::Gate;
pub use proxy::{Mode, Proxy};
