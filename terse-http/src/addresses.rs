//! How many connections one address has open on a web worker.
//!
//! Beyond [`connections_per_address`](crate::Bounds::connections_per_address) a
//! further one is closed as soon as it is accepted, without an answer: whoever
//! floods with connections gets no other bytes of this server's for them. So one
//! address never takes all the connections that a worker has.
//!
//! An IPv6 address counts as its /64. A trusted proxy has no such bound, since
//! its connections are those of many; nor has a peer without an address.
//! There are at most as many entries here as connections.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use terse_core::metrics::RefusedConnections;

use crate::TrustedProxies;

/// The connections of a worker by their addresses.
pub(crate) struct Addresses {
    most: usize,
    proxies: TrustedProxies,
    open: RefCell<HashMap<Home, usize>>,
    refused: RefusedConnections,
}

/// Who has connections together: an IPv4 address, or a /64 of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Home {
    V4(u32),
    V6(u64),
}

/// One connection of an address; dropping it says that it has ended.
pub(crate) struct Counted(Option<(Rc<Addresses>, Home)>);

impl Home {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self::V4(v4.to_bits()),
            IpAddr::V6(v6) => Self::V6((v6.to_bits() >> 64) as u64),
        }
    }
}

impl Addresses {
    /// None yet, at most `most` each.
    pub(crate) fn new(most: usize, proxies: TrustedProxies, refused: RefusedConnections) -> Rc<Self> {
        Rc::new(Self { most, proxies, open: RefCell::default(), refused })
    }

    /// Counts a connection of `peer`. `None` = it has as many as it may.
    pub(crate) fn enter(self: &Rc<Self>, peer: Option<SocketAddr>) -> Option<Counted> {
        let Some(address) = peer.map(|peer| peer.ip()).filter(|address| !self.proxies.trusts(*address)) else {
            return Some(Counted(None));
        };
        let home = Home::of(address);
        let mut open = self.open.borrow_mut();
        let count = open.entry(home).or_default();
        if *count >= self.most {
            self.refused.count();
            return None;
        }
        *count += 1;
        Some(Counted(Some((Rc::clone(self), home))))
    }

    fn leave(&self, home: Home) {
        let mut open = self.open.borrow_mut();
        if let Some(count) = open.get_mut(&home) {
            *count -= 1;
            if *count == 0 {
                open.remove(&home);
            }
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some((addresses, home)) = self.0.take() {
            addresses.leave(home);
        }
    }
}

#[cfg(test)]
mod tests {
    use terse_core::metrics::Metrics;

    use super::*;
    use crate::Network;

    fn addresses(most: usize) -> (Rc<Addresses>, RefusedConnections) {
        let refused = Metrics::new().connections_refused();
        let proxies = [Network { address: "10.0.0.0".parse().unwrap(), prefix: 8 }].into_iter().collect();
        (Addresses::new(most, proxies, refused.clone()), refused)
    }

    fn at(address: &str) -> Option<SocketAddr> {
        Some(SocketAddr::new(address.parse().unwrap(), 4_711))
    }

    #[test]
    fn an_address_has_its_connections_and_not_one_more() {
        let (addresses, refused) = addresses(2);
        let first = addresses.enter(at("203.0.113.7")).unwrap();
        let _second = addresses.enter(at("::ffff:203.0.113.7")).unwrap();
        assert!(addresses.enter(at("203.0.113.7")).is_none());
        assert_eq!(refused.get(), 1);
        let _other = addresses.enter(at("203.0.113.8")).unwrap();
        drop(first);
        assert!(addresses.enter(at("203.0.113.7")).is_some());
    }

    #[test]
    fn of_ipv6_the_64_counts() {
        let (addresses, _) = addresses(1);
        let _first = addresses.enter(at("2001:db8:1:2::1")).unwrap();
        assert!(addresses.enter(at("2001:db8:1:2:ffff::9")).is_none());
        assert!(addresses.enter(at("2001:db8:1:3::1")).is_some());
    }

    #[test]
    fn a_trusted_proxy_and_who_has_no_address_are_not_counted() {
        let (addresses, _) = addresses(1);
        let many: Vec<_> = (0..9).map(|_| (addresses.enter(at("10.1.2.3")), addresses.enter(None))).collect();
        assert!(many.iter().all(|(proxy, nobody)| proxy.is_some() && nobody.is_some()));
        assert!(addresses.open.borrow().is_empty());
    }

    #[test]
    fn an_address_without_connections_takes_no_room() {
        let (addresses, _) = addresses(9);
        let all: Vec<_> = (0..100).map(|n| addresses.enter(at(&format!("203.0.113.{n}")))).collect();
        assert_eq!(addresses.open.borrow().len(), 100);
        drop(all);
        assert!(addresses.open.borrow().is_empty());
    }
}
