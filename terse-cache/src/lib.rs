//! The read-through cache in front of the store: answers redirects from
//! memory, and lets one look-up serve all who ask for the same code at once.
//!
//! [`ReadThrough`] is a ring around a [`LinkReader`](terse_core::ports::LinkReader),
//! [`CachedWriter`] the ring around the [`LinkWriter`](terse_core::ports::LinkWriter)
//! of the same store. All writes of this process go through the second, which
//! brings the first in step before the writer gets its answer. What other
//! processes write is told by marks in the store, which a [`MarkPoller`] for
//! each shard reads. Between memory (L1) and the store there may be a cache that
//! nodes share (L2, [`SharedCache`]): a miss of the one asks the other, within one flight.
//!
//! - **fresh** entries are answered from memory, for at most 30 minutes, and
//!   only while their shard's marks are polled, or nobody else writes it;
//! - **negative** entries ("no such link") for at most a second, and apart from
//!   the links, so that a scan of unknown codes evicts none;
//! - **single flight**: concurrent misses of a code share one look-up and its answer;
//! - **stale-if-error**: if that look-up fails, an entry past its age is served
//!   for up to an hour more, as [`Tier::Stale`](terse_core::ports::Tier::Stale).
//!
//! # Why nothing outdated is served after a write
//!
//! 1. Whatever changes the memory of a code does so under the lock of its stripe.
//! 2. A flight may store its answer only while it is the current flight of its
//!    code. A write ends that before it is acknowledged, so a look-up that began
//!    earlier is neither stored nor joined by anyone who comes later.
//! 3. A lower version never replaces a higher one, and a write's own outcome is
//!    stored only if no other write of its code ended since it began: else a
//!    later version may have been acknowledged, and forgotten again, already.
//! 4. After a write whose outcome is unknown (its answer was lost, or its caller
//!    went away) nothing is stored for the code until the write is not to be
//!    expected any more, and what it would outdate for a second only for half an
//!    hour after that: a disk may hang in the middle of a commit for as long as it likes.
//! 5. The newest version that was acknowledged or served is noted apart from the
//!    link, so that memory may forget the link: an answer that may be outdated is
//!    refused below that (see `least`).
//!
//! # Why nothing outdated is served after another node's write
//!
//! 1. A mark stands before the write is acknowledged. Once it is seen, no flight
//!    that began before is stored or joined, and what is older is neither served
//!    from memory nor taken from the shared cache (see `marks`).
//! 2. What is in memory counts as fresh for half a second from the begin of the
//!    last poll that succeeded, checked at each hit. Else it is read again by one
//!    flight, and served as stale if that fails or finds no room. Nor is a flight
//!    joined then that began earlier than that.
//! 3. An announced write may never happen: what a quorum shows meanwhile is
//!    answered, but kept only if it is as new as the mark, or for a second if it was
//!    asked for when the write was not to be expected any more.
//! 4. The shared cache may hold anything that ever was true: nothing is taken
//!    from it unless the shard is polled, the least version of every change of
//!    the last half hour (its longest memory) is known, and the flight is still current.
//!
//! # Blocked hosts
//!
//! Whether a link leads to a blocked host is decided when it comes into memory,
//! and for all that is there when the blocked hosts change (see `blocked`). A hit
//! doesn't look at hosts: a link that may not be followed stands there as a blocked one. Flights and the shared cache
//! have links as they are, since hosts are blocked by server.
//!
//! # Bounds
//!
//! All of them are fields of [`CacheConfig`] with the answer when they are hit.
//! Expiry and `valid_from` are not the cache's matter: a
//! [`Resolution`](terse_core::Resolution) carries them, and they are judged at
//! the redirect, on stale entries too.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod blocked;
mod config;
mod flight;
mod key;
mod landing;
mod least;
mod marks;
mod memory;
mod near;
mod read_through;
mod redis;
mod shared;
mod warm;
mod writer;

#[cfg(test)]
mod tests;

pub use self::redis::{CacheDown, Credentials, MAX_SHARED_TTL, Namespace, RedisCache, RedisConfig};
pub use config::{CacheConfig, Stats};
pub use marks::{MarkPoller, Shards};
pub use read_through::{Neighbours, ReadThrough};
pub use shared::SharedCache;
pub use warm::{HotCode, Warmed};
pub use writer::CachedWriter;
