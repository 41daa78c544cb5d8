//! Ids from leased blocks, a block ahead of need.
//!
//! A node holds at most two blocks: the one in use and one leased ahead by a
//! background task, so that creates don't wait for a lease and go on for a
//! while without the counter's store. When both are used up, one caller leases
//! and the others wait for its result, good or bad: a dead store costs them
//! one timeout, not one each.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{CodeSource, CodeSpace};
use crate::ShortCode;
use crate::code::is_reserved;
use crate::ports::{LeaseStore, StoreError, StoreErrorKind};

/// The counter that ids of links are leased from.
pub const IDS: &str = "ids";
/// Blocks that a node holds at most: one in use, one ahead.
const MAX_BLOCKS: usize = 2;

/// Ids from leased blocks, turned into codes.
pub struct LeasedCodes {
    space: CodeSpace,
    leases: Arc<dyn LeaseStore>,
    block: u64,
    held: Mutex<Held>,
    /// Whoever leases holds this, so that one lease is asked for at a time.
    leasing: async_lock::Mutex<()>,
}

/// What a node holds. Its lock is never held across an await.
#[derive(Default)]
struct Held {
    blocks: VecDeque<Range<u64>>,
    /// How many leases failed; tells waiters whether the one they waited for did.
    failures: u64,
    last_failure: Option<StoreError>,
}

impl Held {
    fn take(&mut self) -> Option<u64> {
        while let Some(block) = self.blocks.front_mut() {
            if let Some(id) = block.next() {
                return Some(id);
            }
            self.blocks.pop_front();
        }
        None
    }

    fn left(&self) -> u64 {
        self.blocks.iter().map(|block| block.end - block.start).sum()
    }
}

impl LeasedCodes {
    /// Codes of `space`, from blocks of `block` ids (at least 1) leased at `leases`.
    #[must_use]
    pub fn new(space: CodeSpace, leases: Arc<dyn LeaseStore>, block: u64) -> Self {
        Self { space, leases, block: block.max(1), held: Mutex::default(), leasing: async_lock::Mutex::new(()) }
    }

    /// Leases the next block if less than half of a block is left; returns whether it did.
    ///
    /// # Errors
    /// [`StoreError`] when no block can be leased now.
    pub async fn top_up_once(&self) -> Result<bool, StoreError> {
        if !self.runs_low() {
            return Ok(false);
        }
        let _leasing = self.leasing.lock().await;
        // Somebody else may have leased while this call waited.
        if !self.runs_low() {
            return Ok(false);
        }
        self.lease().await?;
        Ok(true)
    }

    /// The next id. One caller leases when there is none; all who waited for it share its failure.
    async fn next_id(&self) -> Result<u64, StoreError> {
        loop {
            let failures_before = {
                let mut held = self.held();
                if let Some(id) = held.take() {
                    return Ok(id);
                }
                held.failures
            };
            let _leasing = self.leasing.lock().await;
            {
                let mut held = self.held();
                if let Some(id) = held.take() {
                    return Ok(id);
                }
                if let (true, Some(failure)) = (held.failures != failures_before, &held.last_failure) {
                    return Err(failure.clone());
                }
            }
            self.lease().await?;
        }
    }

    /// Leases one block. Called only while `leasing` is held.
    async fn lease(&self) -> Result<(), StoreError> {
        let leased = match self.leases.lease(IDS, self.block).await {
            Ok(range) if range.is_empty() => Err(StoreError::new(StoreErrorKind::Corrupt, "an empty block was leased")),
            leased => leased,
        };
        let mut held = self.held();
        match leased {
            Ok(range) => {
                held.blocks.retain(|block| !block.is_empty());
                debug_assert!(held.blocks.len() < MAX_BLOCKS, "leased although two blocks are held");
                held.blocks.push_back(range);
                Ok(())
            }
            Err(failure) => {
                held.failures += 1;
                held.last_failure = Some(failure.clone());
                Err(failure)
            }
        }
    }

    fn runs_low(&self) -> bool {
        self.held().left() < self.block.div_ceil(2)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // Nothing panics while it is held; the state is sound at every step.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl CodeSource for LeasedCodes {
    async fn next_code(&self) -> Result<ShortCode, StoreError> {
        // Ends: each turn uses up an id, and few codes are reserved words (128 of them, `metrics` in every case).
        loop {
            let id = self.next_id().await?;
            let code = self.space.code(id).ok_or_else(|| {
                StoreError::new(StoreErrorKind::Unavailable, format!("no code is left for id {id}: all are used up"))
            })?;
            if !is_reserved(code.as_str()) {
                return Ok(code);
            }
        }
    }
}
