//! Limits that several processes share.

use std::future::Future;
use std::pin::Pin;

use super::{Draw, Key};

/// What a shared limiter says, once it does.
pub type SharedDraw<'a> = Pin<Box<dyn Future<Output = Option<Draw>> + Send + 'a>>;

/// A limit that several processes share, kept somewhere else.
///
/// It may be slow or out of reach, and a limit must be neither then: each call
/// is bounded in time, and `None` sends the caller to a
/// [`RateLimiter`](super::RateLimiter) of its own with the same rule. That one
/// is to be asked along with the shared one all the time, so that it knows what
/// was used here when it takes over. Until then it says nothing: what this
/// process let through is part of what all did. Afterwards each process lets
/// through what the rule says, so `n` of them up to `n` times that.
pub trait SharedLimiter: Send + Sync + 'static {
    /// Takes up to `wanted` units for `key`; `None` when nobody can tell in time.
    fn draw<'a>(&'a self, key: &'a Key, wanted: u32) -> SharedDraw<'a>;
}
