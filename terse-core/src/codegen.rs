//! How codes are made: ids from a counter leased in blocks, a keyed
//! permutation of the id, base62 of that.

use std::sync::Arc;

use async_trait::async_trait;

use crate::ShortCode;
use crate::ports::{LeaseStore, StoreError};

/// Makes codes that no link has yet (but for a counter that lost its tail, which insert-if-absent catches).
#[async_trait]
pub trait CodeSource: Send + Sync + 'static {
    /// A code that was never returned before, by any node.
    ///
    /// # Errors
    /// [`StoreError`] when ids have run out and no block can be leased.
    async fn next_code(&self) -> Result<ShortCode, StoreError>;
}

/// The deployment's permutation of the code space.
#[derive(Clone)]
pub struct CodeSpace {
    key: [u8; 16],
}

impl CodeSpace {
    /// The space of 7 letters and more under `key`.
    #[must_use]
    pub fn new(key: [u8; 16]) -> Self {
        Self { key }
    }

    /// The code of `id`.
    #[must_use]
    pub fn code(&self, id: u64) -> ShortCode {
        let _ = (self.key, id);
        unreachable!()
    }
}

/// Ids from leased blocks, turned into codes.
pub struct LeasedCodes {
    space: CodeSpace,
    leases: Arc<dyn LeaseStore>,
    block: u64,
}

impl LeasedCodes {
    /// Codes of `space`, from blocks of `block` ids leased at `leases`.
    #[must_use]
    pub fn new(space: CodeSpace, leases: Arc<dyn LeaseStore>, block: u64) -> Self {
        Self { space, leases, block }
    }

    /// Leases the next block if less than half of the current one is left; returns whether it did.
    ///
    /// # Errors
    /// [`StoreError`] when no block can be leased now.
    pub async fn top_up_once(&self) -> Result<bool, StoreError> {
        let _ = (&self.leases, self.block, &self.space);
        Ok(false)
    }
}

#[async_trait]
impl CodeSource for LeasedCodes {
    async fn next_code(&self) -> Result<ShortCode, StoreError> {
        Ok(self.space.code(0))
    }
}
