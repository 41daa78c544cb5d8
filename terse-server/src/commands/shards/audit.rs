//! The audit of leased ids: who leased what, which ids have become links, and
//! whether any id was handed out twice.
//!
//! It reads the records of leases in order, and the link of every id by a point
//! read. Bounds: the blocks and the ids of one audit, and the reads at once;
//! what is beyond them is told, never left out in silence.

use std::collections::HashMap;
use std::ops::Range;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use terse_core::ShortCode;
use terse_core::code::is_reserved;
use terse_core::codegen::{CodeSpace, IDS, MAX_BLOCKS};
use terse_core::ports::{Lease, LeaseStore, LinkCatalog, StoreError};

/// Records that are asked for at once.
const PAGE: usize = 500;
/// Links that are read at once: few enough to leave room for a running server.
const READS_AT_ONCE: usize = 16;
/// Clocks may differ by this much before a link counts as older than its lease.
const CLOCK_TOLERANCE_MS: i64 = 60_000;

/// What an audit covers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scope {
    /// Blocks that begin with this id or a later one.
    pub(super) from: u64,
    /// Blocks at most.
    pub(super) blocks: usize,
    /// Ids at most whose links are read; a block that goes beyond is not read.
    pub(super) ids: u64,
}

/// What an audit found.
#[derive(Debug, Default)]
pub(super) struct Audit {
    /// The blocks in the order of their first ids.
    pub(super) blocks: Vec<Block>,
    /// Ids between the blocks that no record covers.
    pub(super) unrecorded: Vec<Range<u64>>,
    /// Ids that were leased twice. There must never be any.
    pub(super) overlaps: Vec<Overlap>,
    /// Where the next audit goes on; `None` = there are no more blocks.
    pub(super) next: Option<u64>,
}

/// A block of ids, and what became of them.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) lease: Lease,
    /// `None` = its links were not read.
    pub(super) found: Option<Found>,
    /// Whether its holder may still hold it: it is among the newest that the audit saw of this holder.
    pub(super) newest: bool,
}

/// What was found of a block's ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Ids with a link, deleted ones included.
    pub(super) links: u64,
    /// Links among them that were made before the block was leased: an alias
    /// that happens to be the code, or a counter that went back.
    pub(super) older: u64,
    /// Ids that never get a link, because their code is a reserved word.
    pub(super) reserved: u64,
}

/// What to make of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Every id has its link.
    Full,
    /// Ids are unused, but the holder may still use them.
    MaybeOpen,
    /// Ids are unused and will stay so.
    Gap,
    /// The links were not read.
    NotRead,
}

/// Ids of two blocks.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Overlap {
    pub(super) ids: Range<u64>,
    /// The two blocks, by their place among [`Audit::blocks`].
    pub(super) of: [usize; 2],
}

/// Why an audit could not be finished.
#[derive(Debug)]
pub(super) enum AuditError {
    /// The records of leases could not be read.
    Leases(StoreError),
    /// The link of this code could not be read.
    Link(ShortCode, StoreError),
}

/// A sum over all blocks.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) ids: u64,
    pub(super) links: u64,
    pub(super) older: u64,
    pub(super) gap_ids: u64,
    pub(super) gap_blocks: usize,
    pub(super) open_ids: u64,
    pub(super) open_blocks: usize,
    pub(super) unread_blocks: usize,
}

impl Block {
    pub(super) fn size(&self) -> u64 {
        self.lease.ids.end.saturating_sub(self.lease.ids.start)
    }

    /// Ids without a link that could have one; `None` = not read.
    pub(super) fn unused(&self) -> Option<u64> {
        self.found.map(|found| self.size() - found.links - found.reserved)
    }

    pub(super) fn state(&self) -> State {
        match self.unused() {
            None => State::NotRead,
            Some(0) => State::Full,
            Some(_) if self.newest => State::MaybeOpen,
            Some(_) => State::Gap,
        }
    }
}

impl State {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::MaybeOpen => "open?",
            Self::Gap => "gap",
            Self::NotRead => "not read",
        }
    }
}

impl Audit {
    pub(super) fn summary(&self) -> Summary {
        let mut sum = Summary::default();
        for block in &self.blocks {
            let found = block.found.unwrap_or_default();
            sum.ids = sum.ids.saturating_add(block.size());
            sum.links += found.links;
            sum.older += found.older;
            match block.state() {
                State::Full => {}
                State::MaybeOpen => {
                    sum.open_blocks += 1;
                    sum.open_ids += block.unused().unwrap_or(0);
                }
                State::Gap => {
                    sum.gap_blocks += 1;
                    sum.gap_ids += block.unused().unwrap_or(0);
                }
                State::NotRead => sum.unread_blocks += 1,
            }
        }
        sum
    }
}

/// Audits the ids of links, whose codes are those of `space`.
pub(super) async fn audit(
    leases: &dyn LeaseStore,
    links: &dyn LinkCatalog,
    space: &CodeSpace,
    scope: Scope,
) -> Result<Audit, AuditError> {
    let (records, next) = records(leases, scope).await?;
    let (unrecorded, overlaps) = seams(&records, scope.from);
    let newest = newest(&records);
    let mut left = scope.ids;
    let mut blocks = Vec::with_capacity(records.len());
    for (lease, newest) in records.into_iter().zip(newest) {
        let mut block = Block { lease, found: None, newest };
        if let Some(rest) = left.checked_sub(block.size()) {
            left = rest;
            block.found = Some(find(links, space, &block.lease).await?);
        }
        blocks.push(block);
    }
    Ok(Audit { blocks, unrecorded, overlaps, next })
}

/// The records within `scope`, page by page, and where the next one begins.
async fn records(leases: &dyn LeaseStore, scope: Scope) -> Result<(Vec<Lease>, Option<u64>), AuditError> {
    let mut found: Vec<Lease> = Vec::new();
    let mut from = scope.from;
    // One more than wanted tells whether there are more.
    while found.len() <= scope.blocks {
        let wanted = PAGE.min(scope.blocks + 1 - found.len());
        let page = leases.leases(IDS, from, wanted).await.map_err(AuditError::Leases)?;
        let whole = page.len() == wanted;
        found.extend(page);
        match found.last().and_then(|lease| lease.ids.start.checked_add(1)) {
            Some(next) if whole => from = next,
            _ => break,
        }
    }
    let next = found.get(scope.blocks).map(|lease| lease.ids.start);
    found.truncate(scope.blocks);
    Ok((found, next))
}

/// What lies between the blocks, and where they lie upon each other. Blocks
/// that begin before `from` are not known, so nothing is said of ids before the
/// first block, unless that should be the first of all.
fn seams(records: &[Lease], from: u64) -> (Vec<Range<u64>>, Vec<Overlap>) {
    let (mut unrecorded, mut overlaps) = (Vec::new(), Vec::new());
    let mut covered = if from == 0 { 0 } else { records.first().map_or(0, |lease| lease.ids.start) };
    // The block that reaches furthest so far.
    let mut furthest = 0;
    for (number, Lease { ids, .. }) in records.iter().enumerate() {
        if ids.start > covered {
            unrecorded.push(covered..ids.start);
        } else if ids.start < covered {
            overlaps.push(Overlap { ids: ids.start..ids.end.min(covered), of: [furthest, number] });
        }
        if ids.end > covered {
            covered = ids.end;
            furthest = number;
        }
    }
    (unrecorded, overlaps)
}

/// For each record whether it is among the newest of its holder, who holds [`MAX_BLOCKS`] at most.
fn newest(records: &[Lease]) -> Vec<bool> {
    let mut seen: HashMap<&str, usize> = HashMap::new();
    let mut newest = vec![false; records.len()];
    for (number, lease) in records.iter().enumerate().rev() {
        let later = seen.entry(&lease.holder).or_default();
        newest[number] = *later < MAX_BLOCKS;
        *later += 1;
    }
    newest
}

/// Reads the link of each id of `lease`.
async fn find(links: &dyn LinkCatalog, space: &CodeSpace, lease: &Lease) -> Result<Found, AuditError> {
    let reads = stream::iter(lease.ids.clone()).map(|id| async move {
        match space.code(id).filter(|code| !is_reserved(code.as_str())) {
            None => Ok(Found { reserved: 1, ..Found::default() }),
            Some(code) => match links.get(&code).await {
                Ok(None) => Ok(Found::default()),
                Ok(Some(link)) => {
                    let older = link.created_at.plus_millis(CLOCK_TOLERANCE_MS) < lease.leased_at;
                    Ok(Found { links: 1, older: older.into(), reserved: 0 })
                }
                Err(error) => Err(AuditError::Link(code, error)),
            },
        }
    });
    let add = |sum: Found, one: Found| async move {
        Ok(Found { links: sum.links + one.links, older: sum.older + one.older, reserved: sum.reserved + one.reserved })
    };
    reads.buffer_unordered(READS_AT_ONCE).try_fold(Found::default(), add).await
}

#[cfg(test)]
mod tests;
