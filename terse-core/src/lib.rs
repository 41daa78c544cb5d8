//! The domain of terse: what a short code, a target and a link are, which URLs
//! are acceptable, how codes are made, and the ports through which the rest of
//! the program reaches storage.
//!
//! Nothing here does I/O, knows a runtime or imports a driver. Time and
//! randomness are arguments ([`Clock`], [`Entropy`]), so every rule can be
//! tested without waiting and repeated from a seed.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod access;
pub mod block;
pub mod click;
pub mod code;
pub mod codegen;
pub mod cursor;
#[cfg(test)]
mod fakes;
pub mod link;
pub mod metrics;
pub mod ports;
pub mod report;
pub mod shorten;
pub mod stats;
pub mod target;
pub mod time;

pub use access::{ApiKey, KeyId, Owner, Role};
pub use block::{BlockList, BlockedHost, BlockedHosts};
pub use code::{Alias, CodeError, ShortCode, Slot};
pub use link::{Link, LinkState, Resolution, Tags, Title, Verdict, Version};
pub use target::{TargetUrl, UrlPolicy};
pub use time::{Clock, Entropy, Timestamp};
