//! The bytes of one recorded click.
//!
//! A record keeps what the click's [`Click`](terse_core::click::Click) told, cut to bounds, with the client's address
//! truncated to its network.

use std::net::IpAddr;

use terse_core::click::Signals;
use terse_core::{Timestamp, Version};

/// Most bytes that are kept of a referrer.
pub const MAX_REFERRER_BYTES: usize = 512;
/// Most bytes that are kept of a user agent.
pub const MAX_USER_AGENT_BYTES: usize = 512;
/// Most bytes that are kept of a language list.
pub const MAX_LANGUAGE_BYTES: usize = 64;

/// A click as it was recorded. Texts are what the client sent, cut; any bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// When, by the server's clock.
    pub at: Timestamp,
    /// The link's code; always a valid one.
    pub code: &'a str,
    /// The version of the link whose target was told.
    pub version: Version,
    /// The network of the client: its address with all but the first 24 bits (IPv6: 48) zero. `None` = not kept.
    pub network: Option<IpAddr>,
    /// The visitor under the day's key; `None` = not kept.
    pub visitor: Option<u64>,
    /// `Referer`; empty without one.
    pub referrer: &'a [u8],
    /// `User-Agent`; empty without one.
    pub user_agent: &'a [u8],
    /// `Accept-Language`; empty without one.
    pub language: &'a [u8],
    /// What else the client said.
    pub signals: Signals,
}
