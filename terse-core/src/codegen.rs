//! How codes are made: ids from a counter leased in blocks, a keyed
//! permutation of the id, base62 of that.
//!
//! The permutation makes codes unique by construction (two ids never share a
//! code) without giving away their order or their number, and spreads
//! neighbouring ids over all slots. Bounds: 7 to 10 letters, about 8.5 × 10¹⁷
//! codes; at most two blocks of ids are held by a node.

mod leases;
mod permutation;
mod scheme;
mod space;

use async_trait::async_trait;

use crate::ShortCode;
use crate::ports::StoreError;

pub use leases::{IDS, LeasedCodes, MAX_BLOCKS};
pub use scheme::Scheme;
pub use space::CodeSpace;

/// Makes codes that no link has yet (but for a counter that lost its tail, which insert-if-absent catches).
#[async_trait]
pub trait CodeSource: Send + Sync + 'static {
    /// A code that was never returned before, by any node.
    ///
    /// # Errors
    /// [`StoreError`] when ids have run out and no block can be leased.
    async fn next_code(&self) -> Result<ShortCode, StoreError>;
}
