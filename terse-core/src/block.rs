//! Hosts that no link may lead to.
//!
//! A host is a name or an address. A name covers itself and every name beneath
//! it: `example.com` covers `www.example.com`, not `notexample.com`. All
//! spellings of a host are one: upper and lower case, a trailing dot, IDNA as
//! Unicode and as punycode, `0x7f.1` and `127.0.0.1`, an IPv4 address that is
//! written as an IPv6 one. An address covers itself alone.
//!
//! A list is a text with a host on each line. What follows a `#` is a comment,
//! and empty lines mean nothing. One line that is no host refuses the whole text,
//! since half a list that looks whole would let through what was meant to be blocked.
//!
//! Bounds: [`BlockList::MAX_HOSTS`] hosts, `MAX_LINE` bytes a line. A look-up
//! hashes the name once for each of its labels. A full list of usual names (up to
//! 32 bytes) takes some 11 MB, and twice that for the moment in which another one takes its place.

mod current;

use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;

use url::Host;

pub use self::current::BlockedHosts;
use crate::TargetUrl;
use crate::target::host_named;

/// Most bytes of a line without its comment. No spelling of a host is longer.
const MAX_LINE: usize = 1_024;
/// Most characters of a faulty line that are told again.
const TOLD_CHARACTERS: usize = 60;

/// A host that may be blocked, in the one spelling in which hosts are compared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockedHost(Box<str>);

/// A text is neither a host's name nor its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is neither a host name such as example.com, which covers all beneath it, nor an address such as 192.0.2.7")]
pub struct NoHost;

impl BlockedHost {
    /// Reads a name or an address, in any spelling.
    ///
    /// # Errors
    /// [`NoHost`] for anything else, such as a URL, a port, a wildcard or a network.
    pub fn parse(text: &str) -> Result<Self, NoHost> {
        if text.len() > MAX_LINE {
            return Err(NoHost);
        }
        Ok(Self(match host_named(text).ok_or(NoHost)? {
            Host::Domain(name) => name.into(),
            Host::Ipv4(address) => address.to_string().into(),
            Host::Ipv6(address) => address.to_string().into(),
        }))
    }

    /// The host: a name in lower case and punycode without a trailing dot, or an address, an IPv6 one without brackets.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BlockedHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Hosts that are blocked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockList {
    names: HashSet<Box<str>>,
    addresses: HashSet<IpAddr>,
}

/// Why a text is no list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockListError {
    /// A line is no host.
    #[error("line {line}: '{text}' {}", NoHost)]
    Line {
        /// Which one; the first has the number 1.
        line: usize,
        /// The begin of it.
        text: String,
    },
    /// There are more than [`BlockList::MAX_HOSTS`].
    #[error("line {line}: more than {} hosts", BlockList::MAX_HOSTS)]
    TooMany {
        /// The line of the first that is one too many.
        line: usize,
    },
}

impl BlockList {
    /// Most hosts of a list.
    pub const MAX_HOSTS: usize = 200_000;

    /// Reads a list.
    ///
    /// # Errors
    /// [`BlockListError`], the first fault.
    pub fn parse(text: &str) -> Result<Self, BlockListError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut list = Self::default();
        for (number, line) in text.lines().enumerate() {
            let host = line.split('#').next().unwrap_or_default().trim();
            if host.is_empty() {
                continue;
            }
            let host = BlockedHost::parse(host).map_err(|NoHost| BlockListError::Line {
                line: number + 1,
                text: host.chars().take(TOLD_CHARACTERS).flat_map(char::escape_debug).collect(),
            })?;
            list.insert(host);
            if list.len() > Self::MAX_HOSTS {
                return Err(BlockListError::TooMany { line: number + 1 });
            }
        }
        Ok(list)
    }

    /// Adds `host`.
    fn insert(&mut self, BlockedHost(host): BlockedHost) {
        match host.parse() {
            Ok(address) => self.addresses.insert(address),
            Err(_) => self.names.insert(host),
        };
    }

    /// How many hosts it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len() + self.addresses.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether `target` leads to one of its hosts.
    #[must_use]
    pub fn blocks(&self, target: &TargetUrl) -> bool {
        !self.is_empty() && target.host().is_some_and(|host| self.holds(&host))
    }

    /// Whether `host`, in the spelling in which hosts are compared, is one of its hosts or beneath one.
    pub(crate) fn holds<S: AsRef<str>>(&self, host: &Host<S>) -> bool {
        match host {
            Host::Domain(name) => {
                let mut names =
                    std::iter::successors(Some(name.as_ref()), |name| name.split_once('.').map(|(_, above)| above));
                names.any(|name| self.names.contains(name))
            }
            Host::Ipv4(address) => self.addresses.contains(&IpAddr::V4(*address)),
            Host::Ipv6(address) => self.addresses.contains(&IpAddr::V6(*address)),
        }
    }
}

impl FromIterator<BlockedHost> for BlockList {
    fn from_iter<I: IntoIterator<Item = BlockedHost>>(hosts: I) -> Self {
        let mut list = Self::default();
        hosts.into_iter().for_each(|host| list.insert(host));
        list
    }
}

#[cfg(test)]
mod tests;
