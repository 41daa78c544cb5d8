//! The read-through cache in front of the store: answers redirects from
//! memory, and lets one look-up serve all who ask for the same code at once.
//!
//! [`ReadThrough`] is a ring around a [`LinkReader`](terse_core::ports::LinkReader),
//! [`CachedWriter`] the ring around the [`LinkWriter`](terse_core::ports::LinkWriter)
//! of the same store. All writes of this process go through the second, which
//! brings the first in step before the writer gets its answer:
//!
//! - **fresh** entries are answered from memory, for at most 30 minutes;
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
//!    went away) nothing is stored for the code until the write can't happen any more.
//! 5. The newest version that was acknowledged or served is noted apart from the
//!    link, so that memory may forget the link: an answer that may be outdated is
//!    refused below that (see `least`).
//!
//! # Bounds
//!
//! All of them are fields of [`CacheConfig`] with the answer when they are hit.
//! Expiry and `valid_from` are not the cache's matter: a
//! [`Resolution`](terse_core::Resolution) carries them, and they are judged at
//! the redirect, on stale entries too.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod config;
mod flight;
mod landing;
mod least;
mod marks;
mod memory;
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
