//! What other nodes changed: the marks in the store, polled.
//!
//! Every edit leaves a mark in the store of its shard before and after itself.
//! [`MarkPoller::poll_once`], called four times a second for each shard, reads
//! them and has the cache drop what they outdate:
//!
//! - A poll reads the marks of the last 15 seconds and of the next 15 by this
//!   node's clock, for writers' clocks differ and a mark may show late, and acts
//!   on those that it has not seen yet.
//! - The first poll reads the last half hour before, in slices of ten seconds; one
//!   after a gap of more than [`MAX_GAP_MS`] so reads what lies between the last
//!   window and its own. A slice is read page by page, however much is in it.
//!   If it is interrupted, the next goes on from there.
//! - A mark is noted and memory drops what it outdates at sight; then the poll
//!   counts; the shared cache is told beside and after that.
//! - What a mark outdates is dropped at sight and once more when the edit can't
//!   happen any more ([`CacheConfig::doubt_for`](crate::CacheConfig::doubt_for)).
//! - What is remembered of a shard is fresh only while the last successful poll
//!   of it *began* at most half a second ago, by the monotonic clock.
//!
//! Nothing is ever served below a mark's version because a drop came late: from
//! the moment the mark is noted ([`marked`]), which is before the poll counts,
//! no older version is taken from memory or the shared cache. That the shared
//! cache is told to drop it as well spares other nodes a look; so those drops
//! are bounded in number and time, and one that is missed does no harm.

mod marked;
mod poller;
mod shards;

pub(crate) use marked::{Keep, MarkedCodes};
pub use poller::MarkPoller;
pub use shards::Shards;
pub(crate) use shards::{NO_SHARD, ShardNumber};

/// How long after the begin of a successful poll what is remembered counts as fresh.
pub(crate) const FRESH_FOR_MS: u64 = 500;

/// How long a link is fresh of which a newer version was announced that did not show in time: as
/// long as an edit may take to show. Then it is read again, so it costs a look-up a second.
pub(crate) const UNMET_FRESH_MS: u64 = 1_000;

/// How far back and ahead of now a poll reads.
const WINDOW_MS: i64 = 15_000;

/// The longest time between two successful polls that windows cover: a mark of
/// a writer whose clock is five seconds behind, that took five to show, still
/// lies within the next window.
const MAX_GAP_MS: u64 = 5_000;

/// How long a change is remembered, and how far back the first poll reads: half
/// an hour, which is the longest that anything lives in memory or in the shared
/// cache, and a minute for look-ups under way and clocks that differ.
const REMEMBERED_MS: u64 = 31 * 60_000;
