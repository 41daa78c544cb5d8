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
use crate::code::is_reserved;
use crate::ports::{LeaseStore, StoreError, StoreErrorKind};
use crate::{Clock, ShortCode};

/// The counter that ids of links are leased from.
pub const IDS: &str = "ids";
/// Blocks that a node holds at most: one in use, one ahead.
pub const MAX_BLOCKS: usize = 2;

/// Ids from leased blocks, turned into codes.
pub struct LeasedCodes {
    space: CodeSpace,
    leases: Arc<dyn LeaseStore>,
    block: u64,
    holder: String,
    clock: Arc<dyn Clock>,
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
    /// Codes of `space`, from blocks of `block` ids (at least 1) leased at
    /// `leases`, where `holder` and the time by `clock` are recorded for each.
    #[must_use]
    pub fn new(
        space: CodeSpace,
        leases: Arc<dyn LeaseStore>,
        block: u64,
        holder: impl Into<String>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            space,
            leases,
            block: block.max(1),
            holder: holder.into(),
            clock,
            held: Mutex::default(),
            leasing: async_lock::Mutex::new(()),
        }
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
        let leased = match self.leases.lease(IDS, self.block, &self.holder, self.clock.now()).await {
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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::atomic::Ordering;

    use futures_util::future::join_all;

    use super::*;
    use crate::Timestamp;
    use crate::fakes::{FakeClock, FakeLeases, block_on};

    const KEY: [u8; 16] = *b"terse test key 1";

    fn leased(space: CodeSpace, block: u64) -> (LeasedCodes, Arc<FakeLeases>) {
        let leases = Arc::new(FakeLeases::default());
        (node(space, leases.clone(), block, "one"), leases)
    }

    fn node(space: CodeSpace, leases: Arc<FakeLeases>, block: u64, holder: &str) -> LeasedCodes {
        LeasedCodes::new(space, leases, block, holder, Arc::new(FakeClock::at(Timestamp::from_millis(7_000))))
    }

    fn take(codes: &LeasedCodes, count: usize) -> Vec<String> {
        (0..count).map(|_| block_on(codes.next_code()).unwrap().as_str().to_owned()).collect()
    }

    #[test]
    fn ten_thousand_callers_at_once_get_distinct_codes() {
        let (codes, leases) = leased(CodeSpace::new(KEY), 1_000);
        let all = block_on(join_all((0..10_000).map(|_| codes.next_code())));
        let distinct: HashSet<String> = all.into_iter().map(|code| code.unwrap().as_str().to_owned()).collect();
        assert_eq!(distinct.len(), 10_000);
        assert_eq!(leases.asked.load(Ordering::SeqCst), 10);
    }

    #[test]
    fn threads_get_distinct_codes() {
        let (codes, leases) = leased(CodeSpace::new(KEY), 64);
        let all: Vec<String> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| take(&codes, 500))).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), 4_000);
        assert_eq!(leases.next.load(Ordering::SeqCst), 4_032, "no block beyond the 63 that were needed");
    }

    #[test]
    fn two_nodes_never_make_the_same_code() {
        let (one, leases) = leased(CodeSpace::new(KEY), 10);
        let other = node(CodeSpace::new(KEY), leases, 7, "other");
        let mut all = Vec::new();
        for _ in 0..50 {
            all.extend(take(&one, 3));
            all.extend(take(&other, 2));
        }
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), 250);
    }

    #[test]
    fn each_lease_names_its_holder_and_its_time() {
        let (one, leases) = leased(CodeSpace::new(KEY), 10);
        let other = node(CodeSpace::new(KEY), leases.clone(), 7, "other");
        take(&one, 1);
        take(&other, 1);
        take(&one, 10);
        let log = block_on(leases.leases(IDS, 0, 10)).unwrap();
        assert!(log.iter().all(|lease| lease.leased_at == Timestamp::from_millis(7_000)));
        let told: Vec<_> = log.into_iter().map(|lease| (lease.holder, lease.ids)).collect();
        assert_eq!(told, [("one".to_owned(), 0..10), ("other".to_owned(), 10..17), ("one".to_owned(), 17..27)]);
    }

    #[test]
    fn a_thousand_callers_lease_one_block() {
        let (codes, leases) = leased(CodeSpace::new(KEY), 1_000);
        for result in block_on(join_all((0..1_000).map(|_| codes.next_code()))) {
            result.unwrap();
        }
        assert_eq!(leases.asked.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn callers_who_wait_for_one_lease_share_its_failure() {
        let (codes, leases) = leased(CodeSpace::new(KEY), 10);
        leases.failing.store(true, Ordering::SeqCst);
        for result in block_on(join_all((0..100).map(|_| codes.next_code()))) {
            assert_eq!(result.unwrap_err().kind, StoreErrorKind::Unavailable);
        }
        assert_eq!(leases.asked.load(Ordering::SeqCst), 1);

        leases.failing.store(false, Ordering::SeqCst);
        assert_eq!(take(&codes, 1).len(), 1, "whoever comes later asks anew");
    }

    #[test]
    fn the_next_block_is_leased_when_half_is_used() {
        let (codes, leases) = leased(CodeSpace::new(KEY), 10);
        let top_up = || block_on(codes.top_up_once()).unwrap();
        assert!(top_up(), "the first block");
        assert!(!top_up());
        take(&codes, 5);
        assert!(!top_up(), "half is still left");
        take(&codes, 1);
        assert!(top_up());
        assert!(!top_up(), "one block ahead is enough");
        take(&codes, 14);
        assert_eq!(leases.asked.load(Ordering::SeqCst), 2, "nobody had to wait for a lease");
        assert!(top_up());
    }

    #[test]
    fn a_top_up_beside_waiting_callers_leases_once() {
        let (codes, leases) = leased(CodeSpace::new(KEY), 10);
        let top_ups = join_all((0..5).map(|_| codes.top_up_once()));
        let (leased, _) = block_on(futures_util::future::join(top_ups, join_all((0..3).map(|_| codes.next_code()))));
        assert_eq!(leased.into_iter().filter(|result| *result.as_ref().unwrap()).count(), 1);
        assert_eq!(leases.asked.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn leased_ids_last_while_the_counter_is_away() {
        let (codes, leases) = leased(CodeSpace::new(KEY), 10);
        assert!(block_on(codes.top_up_once()).unwrap());
        leases.failing.store(true, Ordering::SeqCst);
        take(&codes, 10);
        assert_eq!(block_on(codes.top_up_once()).unwrap_err().kind, StoreErrorKind::Unavailable);
        assert_eq!(block_on(codes.next_code()).unwrap_err().kind, StoreErrorKind::Unavailable);
    }

    #[test]
    fn a_caller_who_gives_up_leasing_hinders_nobody() {
        let (codes, _) = leased(CodeSpace::new(KEY), 10);
        let mut abandoned = Box::pin(codes.next_code());
        let waker = std::task::Waker::noop();
        assert!(abandoned.as_mut().poll(&mut std::task::Context::from_waker(waker)).is_pending());
        drop(abandoned);
        assert_eq!(take(&codes, 1).len(), 1);
    }

    #[test]
    fn an_empty_block_is_an_error_not_a_loop() {
        let (codes, leases) = leased(CodeSpace::new(KEY), 10);
        leases.empty.store(true, Ordering::SeqCst);
        assert_eq!(block_on(codes.next_code()).unwrap_err().kind, StoreErrorKind::Corrupt);
    }

    #[test]
    fn reserved_words_are_skipped() {
        let space = CodeSpace::with_first_length(KEY, 3);
        let reserved = (0..238_328).filter(|id| is_reserved(space.code(*id).unwrap().as_str())).count();
        assert_eq!(reserved, 16, "`api` and `app` in every case");

        let (codes, leases) = leased(space, 238_328);
        let made = take(&codes, 238_328 - 16);
        assert!(made.iter().all(|code| !is_reserved(code)));
        assert_eq!(made.iter().collect::<HashSet<_>>().len(), made.len());
        assert_eq!(leases.asked.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_used_up_space_is_an_error() {
        let (codes, leases) = leased(CodeSpace::new(KEY), 10);
        leases.next.store(u64::MAX - 20, Ordering::SeqCst);
        let error = block_on(codes.next_code()).unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Unavailable);
        assert!(error.message.contains("used up"), "{error}");
    }

    #[test]
    fn a_block_has_at_least_one_id() {
        let (codes, leases) = leased(CodeSpace::new(KEY), 0);
        take(&codes, 3);
        assert_eq!(leases.asked.load(Ordering::SeqCst), 3);
    }
}
