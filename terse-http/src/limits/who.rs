//! Who is limited.

use std::net::IpAddr;

use actix_web::HttpRequest;
use terse_core::KeyId;
use terse_core::access::Caller;
use terse_resilience::limit::Key;

use crate::State;

/// What tells apart those who have a limit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitBy {
    /// The API key; without one, as while access is open, the address.
    Key,
    /// The client's address; of IPv6 the /64, which is what one household has, and besides the /48 around it, which
    /// anybody can have ([`Limit::with_networks`](super::Limit::with_networks)).
    Address,
    /// Both together: a key at an address.
    Both,
}

impl LimitBy {
    pub(super) const fn needs_key(self) -> bool {
        matches!(self, Self::Key | Self::Both)
    }
}

/// Who asks.
#[derive(Debug, Default)]
pub(crate) struct Who {
    pub(crate) key: Option<KeyId>,
    pub(crate) address: Option<IpAddr>,
}

/// The address as a limit takes it, with what family it is of.
struct Place {
    bytes: [u8; 9],
    len: usize,
}

impl Place {
    fn of(address: Option<IpAddr>) -> Self {
        let (mut bytes, mut len) = ([0; 9], 1);
        match address.map(|address| address.to_canonical()) {
            Some(IpAddr::V4(v4)) => {
                bytes[0] = b'4';
                bytes[1..5].copy_from_slice(&v4.octets());
                len = 5;
            }
            Some(IpAddr::V6(v6)) => {
                bytes[0] = b'6';
                bytes[1..].copy_from_slice(&v6.octets()[..8]);
                len = 9;
            }
            // A peer without an address shares its limit with all of them.
            None => bytes[0] = b'-',
        }
        Self { bytes, len }
    }

    /// The /48 around it; `None` unless it is of IPv6.
    fn network(self) -> Option<Self> {
        let Self { mut bytes, len } = self;
        if len < bytes.len() {
            return None;
        }
        // What a /64 has of its own.
        bytes[7..].fill(0);
        Some(Self { bytes, len: 7 })
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Who {
    /// Who sent `request`.
    pub(crate) fn of(request: &HttpRequest, state: &State, caller: Option<&Caller>) -> Self {
        let address = state.settings.trusted_proxies.client(request.peer_addr(), request.headers());
        Self { key: caller.and_then(|caller| caller.key.clone()), address }
    }

    /// The key under which a limit `by` knows them.
    pub(super) fn key(&self, by: LimitBy) -> Key {
        self.key_at(by, &Place::of(self.address))
    }

    /// The key under which a limit `by` knows all those together that are in their /48 of IPv6; `None` if they are in
    /// none, or their address is nothing to that limit.
    pub(super) fn network(&self, by: LimitBy) -> Option<Key> {
        let place = Place::of(self.address).network()?;
        (by != LimitBy::Key || self.key.is_none()).then(|| self.key_at(by, &place))
    }

    /// The key under which a limit `by` knows them at `place`.
    fn key_at(&self, by: LimitBy, place: &Place) -> Key {
        let id = self.key.as_ref().filter(|_| by.needs_key()).map(KeyId::as_str);
        let made = match (id, by) {
            (Some(id), LimitBy::Key) => Key::of(&[b"k", id.as_bytes()]),
            (Some(id), _) => Key::of(&[b"b", id.as_bytes(), place.as_bytes()]),
            (None, _) => None,
        };
        // An id has 10 letters, so there is always room; an address alone is a key in any case.
        made.or_else(|| Key::of(&[place.as_bytes()])).unwrap_or(Key::ANYBODY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(key: Option<&str>, address: &str) -> Who {
        Who { key: key.map(|id| KeyId::parse(id).unwrap()), address: address.parse().ok() }
    }

    const ID: Option<&str> = Some("0123456789");

    #[test]
    fn of_an_ipv6_address_the_network_counts_and_of_an_ipv4_address_all() {
        let key = |address| who(None, address).key(LimitBy::Address);
        assert_eq!(key("2001:db8:1:2::1"), key("2001:db8:1:2:ffff::9"));
        assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
        assert_ne!(key("203.0.113.7"), key("203.0.113.8"));
        assert_eq!(key("203.0.113.7"), key("::ffff:203.0.113.7"));
        assert_ne!(key("203.0.113.7"), key("none"));
    }

    #[test]
    fn a_limit_by_key_follows_the_key_and_one_by_address_the_address() {
        let (here, there) = (who(ID, "203.0.113.7"), who(ID, "203.0.113.8"));
        assert_eq!(here.key(LimitBy::Key), there.key(LimitBy::Key));
        assert_ne!(here.key(LimitBy::Address), there.key(LimitBy::Address));
        assert_ne!(here.key(LimitBy::Both), there.key(LimitBy::Both));
        assert_ne!(here.key(LimitBy::Both), who(Some("9876543210"), "203.0.113.7").key(LimitBy::Both));
    }

    #[test]
    fn who_has_no_key_is_known_by_address() {
        let nobody = who(None, "203.0.113.7");
        for by in [LimitBy::Key, LimitBy::Both, LimitBy::Address] {
            assert_eq!(nobody.key(by), who(ID, "203.0.113.7").key(LimitBy::Address), "{by:?}");
        }
    }

    #[test]
    fn the_longest_of_both_has_room() {
        assert_eq!(who(ID, "2001:db8::1").key(LimitBy::Both).as_bytes().len(), 20);
    }

    #[test]
    fn of_an_ipv6_address_the_48_counts_too_and_no_other_has_one() {
        let network = |address| who(None, address).network(LimitBy::Address);
        assert!(network("2001:db8:1:2::1").is_some());
        assert_eq!(network("2001:db8:1:2::1"), network("2001:db8:1:ffff::1"));
        assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:2:2::1"));
        for none in ["203.0.113.7", "::ffff:203.0.113.7", "none"] {
            assert_eq!(network(none), None, "{none}");
        }
        assert_ne!(network("2001:db8:1::1"), Some(who(None, "2001:db8:1::1").key(LimitBy::Address)));
    }

    #[test]
    fn where_the_address_is_nothing_to_a_limit_its_network_is_not_either() {
        let (with, without) = (who(ID, "2001:db8:1:2::1"), who(None, "2001:db8:1:2::1"));
        assert_eq!(with.network(LimitBy::Key), None);
        assert_eq!(with.network(LimitBy::Address), without.network(LimitBy::Address));
        assert_eq!(without.network(LimitBy::Key), without.network(LimitBy::Address), "it is known by its address");
        assert_ne!(with.network(LimitBy::Both), without.network(LimitBy::Both));
        assert_eq!(with.network(LimitBy::Both), who(ID, "2001:db8:1:3::1").network(LimitBy::Both));
    }
}
