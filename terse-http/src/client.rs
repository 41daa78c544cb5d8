//! Where a request comes from: the peer, or whom trusted proxies name.
//!
//! Everybody can send `X-Forwarded-For` and `Forwarded`, so they are read only
//! from peers in the operator's networks, and from the right: what stands there
//! the last proxy has written. Each address that is a trusted proxy itself
//! vouches for the one left of it; the first that isn't is the client. What
//! stands further left is the client's own invention.
//!
//! A proxy that writes one of the two headers may well pass on the other as the
//! client sent it. Where both are there and name different clients, neither is
//! believed, and the request counts as the proxy's own.
//!
//! Bounds: of a header at most [`MAX_HOPS`] addresses are looked at; behind more
//! proxies the last one counts as the client.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use crate::headers::Headers;

/// Most proxies in a row.
const MAX_HOPS: usize = 32;

const X_FORWARDED_FOR: &str = "x-forwarded-for";
const FORWARDED: &str = "forwarded";

/// A network: all addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// One of its addresses.
    pub address: IpAddr,
    /// How many leading bits its addresses share: up to 32, or 128 for IPv6. More count as all.
    pub prefix: u8,
}

impl Network {
    /// Whether `address` is in it. An IPv4 address written as an IPv6 one counts as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let differ = match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => u128::from(own.to_bits() ^ other.to_bits()) << 96,
            (IpAddr::V6(own), IpAddr::V6(other)) => own.to_bits() ^ other.to_bits(),
            _ => return false,
        };
        differ.leading_zeros() >= u32::from(self.prefix) || differ == 0
    }
}

/// The proxies whose word is taken.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies(Arc<[Network]>);

impl FromIterator<Network> for TrustedProxies {
    fn from_iter<I: IntoIterator<Item = Network>>(networks: I) -> Self {
        Self(networks.into_iter().collect())
    }
}

impl TrustedProxies {
    /// Whether `address` is one of them.
    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }

    /// Where a request with `headers` comes from that `peer` sent.
    pub(crate) fn client(&self, peer: Option<SocketAddr>, headers: &(impl Headers + ?Sized)) -> Option<IpAddr> {
        let peer = peer?.ip();
        if self.0.is_empty() || !self.trusts(peer) {
            return Some(peer);
        }
        let listed = Last::of(lines(headers, X_FORWARDED_FOR));
        let listed = listed.any().then(|| self.walk(peer, x_forwarded_for(&listed)));
        let forwarded = Last::of(lines(headers, FORWARDED).flat_map(elements));
        let forwarded = forwarded.any().then(|| self.walk(peer, named_hops(&forwarded)));
        match (listed, forwarded) {
            (Some(one), Some(other)) if one != other => Some(peer),
            (one, other) => one.or(other).or(Some(peer)),
        }
    }

    /// The first of `hops` that is no trusted proxy. `None` among them hides all that follow.
    fn walk(&self, peer: IpAddr, hops: impl Iterator<Item = Option<IpAddr>>) -> IpAddr {
        let mut nearest = peer;
        for hop in hops.take(MAX_HOPS) {
            match hop {
                Some(proxy) if self.trusts(proxy) => nearest = proxy,
                Some(client) => return client,
                None => return nearest,
            }
        }
        nearest
    }
}

/// The last [`MAX_HOPS`] of what came, kept in place: redirects allocate nothing.
struct Last<T> {
    kept: [Option<T>; MAX_HOPS],
    came: usize,
}

impl<T: Copy> Last<T> {
    fn of(all: impl Iterator<Item = T>) -> Self {
        let mut last = Self { kept: [None; MAX_HOPS], came: 0 };
        for one in all {
            last.kept[last.came % MAX_HOPS] = Some(one);
            last.came += 1;
        }
        last
    }

    fn any(&self) -> bool {
        self.came > 0
    }

    /// What came last comes first.
    fn rightmost_first(&self) -> impl Iterator<Item = T> {
        let begin = self.came.saturating_sub(MAX_HOPS);
        (begin..self.came).rev().filter_map(|at| self.kept[at % MAX_HOPS])
    }
}

/// What each header called `name` says; `None` = something that is no visible ASCII.
fn lines<'h>(headers: &'h (impl Headers + ?Sized), name: &str) -> impl Iterator<Item = Option<&'h str>> {
    let of_it = headers.each().filter(move |(other, _)| other.eq_ignore_ascii_case(name));
    of_it.map(|(_, value)| visible(value))
}

fn visible(value: &[u8]) -> Option<&str> {
    let visible = value.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~'));
    visible.then(|| std::str::from_utf8(value).ok()).flatten()
}

/// The addresses of `X-Forwarded-For`, from the right. Each line has at least one.
fn x_forwarded_for(lines: &Last<Option<&str>>) -> impl Iterator<Item = Option<IpAddr>> {
    let lines = lines.rightmost_first().map(|line| line.unwrap_or("?"));
    lines.flat_map(|line| line.rsplit(',')).map(|hop| address(hop.trim()))
}

/// The addresses of `Forwarded` (RFC 7239), from the right.
fn named_hops(elements: &Last<Option<&str>>) -> impl Iterator<Item = Option<IpAddr>> {
    elements.rightmost_first().map(|element| element.and_then(named))
}

/// The elements of a `Forwarded` line; a single `None` when it can't be read or a quote is not closed.
fn elements(line: Option<&str>) -> impl Iterator<Item = Option<&str>> {
    let line = line.filter(|line| {
        let mut quotes = Quotes::default();
        line.bytes().for_each(|byte| {
            quotes.outside(byte);
        });
        !quotes.open
    });
    let hidden = line.is_none().then_some(None);
    hidden.into_iter().chain(line.into_iter().flat_map(|line| Parts::of(line, b',').map(Some)))
}

/// The address that an element names.
fn named(element: &str) -> Option<IpAddr> {
    let pairs = Parts::of(element, b';').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.filter(|(name, _)| name.trim().eq_ignore_ascii_case("for")).last()?;
    address(unquoted(value.trim()))
}

/// Follows a text byte by byte through its quotes.
#[derive(Default)]
struct Quotes {
    open: bool,
    escaped: bool,
}

impl Quotes {
    /// Whether `byte`, the next one, stands outside of quotes and is none.
    fn outside(&mut self, byte: u8) -> bool {
        if std::mem::take(&mut self.escaped) {
            return false;
        }
        match byte {
            b'\\' if self.open => self.escaped = true,
            b'"' => self.open = !self.open,
            _ => return !self.open,
        }
        false
    }
}

/// The parts of a text between separators that are outside of quotes.
struct Parts<'h> {
    rest: Option<&'h str>,
    separator: u8,
}

impl<'h> Parts<'h> {
    fn of(text: &'h str, separator: u8) -> Self {
        Self { rest: Some(text), separator }
    }
}

impl<'h> Iterator for Parts<'h> {
    type Item = &'h str;

    fn next(&mut self) -> Option<&'h str> {
        let text = self.rest.take()?;
        let mut quotes = Quotes::default();
        let end = text.bytes().position(|byte| quotes.outside(byte) && byte == self.separator);
        let Some((part, rest)) = end.and_then(|end| Some((text.get(..end)?, text.get(end + 1..)?))) else {
            return Some(text);
        };
        self.rest = Some(rest);
        Some(part)
    }
}

fn unquoted(text: &str) -> &str {
    text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text)
}

/// An address, perhaps in brackets, perhaps with a port.
fn address(text: &str) -> Option<IpAddr> {
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let plain = text.parse().ok();
    plain.or_else(bracketed).or_else(with_port).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    fn trusting(networks: &[&str]) -> TrustedProxies {
        let network = |text: &&str| {
            let (address, prefix) = text.split_once('/').unwrap();
            Network { address: address.parse().unwrap(), prefix: prefix.parse().unwrap() }
        };
        networks.iter().map(network).collect()
    }

    fn client(trusted: &TrustedProxies, peer: &str, lines: &[(&'static str, &str)]) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        trusted.client(Some(SocketAddr::new(peer.parse().unwrap(), 4_711)), &headers).unwrap().to_string()
    }

    const XFF: &str = "x-forwarded-for";
    const FWD: &str = "forwarded";

    #[test]
    fn a_network_holds_the_addresses_that_begin_alike() {
        let network = |address: &str, prefix| Network { address: address.parse().unwrap(), prefix };
        let holds = |network: Network, address: &str| network.contains(address.parse().unwrap());
        assert!(holds(network("10.0.0.0", 8), "10.255.1.2") && !holds(network("10.0.0.0", 8), "11.0.0.0"));
        assert!(holds(network("10.0.0.0", 8), "::ffff:10.1.2.3"), "a socket for both families shows them so");
        assert!(holds(network("192.0.2.1", 32), "192.0.2.1") && !holds(network("192.0.2.1", 32), "192.0.2.0"));
        assert!(holds(network("0.0.0.0", 0), "203.0.113.9") && !holds(network("0.0.0.0", 0), "2001:db8::1"));
        assert!(holds(network("::", 0), "2001:db8::1") && !holds(network("::", 0), "203.0.113.9"));
        assert!(holds(network("fd00::", 8), "fdff::1") && !holds(network("fd00::", 8), "fe00::1"));
        assert!(holds(network("::1", 128), "::1") && !holds(network("::1", 128), "::2"));
    }

    #[test]
    fn a_forged_header_changes_nothing() {
        let lines = [(XFF, "198.51.100.1"), (FWD, "for=198.51.100.1")];
        assert_eq!(client(&trusting(&[]), "203.0.113.7", &lines), "203.0.113.7");
        assert_eq!(client(&trusting(&["10.0.0.0/8"]), "203.0.113.7", &lines), "203.0.113.7");
    }

    #[test]
    fn a_trusted_proxy_is_believed_rightmost_first() {
        let trusted = trusting(&["10.0.0.0/8", "fd00::/8"]);
        let named = |lines: &[_]| client(&trusted, "10.0.0.1", lines);
        assert_eq!(named(&[]), "10.0.0.1");
        assert_eq!(named(&[(XFF, "203.0.113.7")]), "203.0.113.7");
        assert_eq!(named(&[(XFF, "1.1.1.1, 203.0.113.7")]), "203.0.113.7", "what the client wrote stands left");
        assert_eq!(named(&[(XFF, "1.1.1.1, 203.0.113.7 ,10.0.0.2,fd00::3")]), "203.0.113.7");
        assert_eq!(named(&[(XFF, "1.1.1.1"), (XFF, "203.0.113.7"), (XFF, "10.9.9.9")]), "203.0.113.7");
        assert_eq!(named(&[(XFF, "10.0.0.3, 10.0.0.2")]), "10.0.0.3", "a client in the operator's own network");
        assert_eq!(named(&[(XFF, "203.0.113.7:80")]), "203.0.113.7");
        assert_eq!(named(&[(XFF, "[2001:db8::1]:80")]), "2001:db8::1");
        assert_eq!(named(&[(XFF, "::ffff:203.0.113.7")]), "203.0.113.7");
    }

    #[test]
    fn what_can_not_be_read_hides_all_that_is_left_of_it() {
        let trusted = trusting(&["10.0.0.0/8"]);
        let named = |value: &str| client(&trusted, "10.0.0.1", &[(XFF, value)]);
        assert_eq!(named("1.1.1.1, unknown, 10.0.0.2"), "10.0.0.2");
        for value in ["", ",", "1.1.1.1,", "1.1.1.1, x", "1.1.1.1 2.2.2.2", "caf\u{e9}", "1.1.1.1, [::1", "300.1.1.1"] {
            assert_eq!(named(value), "10.0.0.1", "{value}");
        }
        let many = ["10.0.0.2"; MAX_HOPS + 5].join(",");
        assert_eq!(named(&format!("203.0.113.7,{many}")), "10.0.0.2");
    }

    #[test]
    fn forwarded_is_read_like_the_other_header() {
        let trusted = trusting(&["10.0.0.0/8"]);
        let named = |value: &str| client(&trusted, "10.0.0.1", &[(FWD, value)]);
        for value in [
            "for=203.0.113.7",
            "FOR=\"203.0.113.7:47011\";proto=https;by=10.0.0.1",
            "for=1.1.1.1, proto=http;for=203.0.113.7",
            "for=1.1.1.1,for=203.0.113.7, for=10.0.0.2",
            "for=\"a,b;for=1.1.1.1\", for=203.0.113.7;host=\"a,b;c\"",
        ] {
            assert_eq!(named(value), "203.0.113.7", "{value}");
        }
        assert_eq!(named("for=\"[2001:db8:cafe::17]:4711\""), "2001:db8:cafe::17");
        for value in ["for=unknown", "for=_hidden", "proto=http", "for=1.1.1.1, for=\"", "", "for=1.1.1.1;for=x"] {
            assert_eq!(named(value), "10.0.0.1", "{value}");
        }
        let closed = client(&trusted, "10.0.0.1", &[(FWD, "for=\""), (FWD, "for=203.0.113.7")]);
        assert_eq!(closed, "203.0.113.7", "an open quote ends with its line");
    }

    #[test]
    fn two_headers_that_name_different_clients_are_not_believed() {
        let trusted = trusting(&["10.0.0.0/8"]);
        let both = |listed, other| client(&trusted, "10.0.0.1", &[(XFF, listed), (FWD, other)]);
        assert_eq!(both("203.0.113.7", "for=203.0.113.7"), "203.0.113.7");
        assert_eq!(both("203.0.113.7", "for=1.1.1.1"), "10.0.0.1", "one of them is passed on unread");
    }

    proptest! {
        #[test]
        fn whatever_a_client_sends_it_never_passes_for_another(
            own in "[ -~]{0,40}", forged in "([0-9]{1,3}\\.){3}[0-9]{1,3}", commas in 0..3_usize,
        ) {
            let trusted = trusting(&["10.0.0.0/8"]);
            // The proxy appends whom it sees to what the client sent.
            let line = format!("{own}{}{forged}, 203.0.113.7", ",".repeat(commas));
            prop_assert_eq!(client(&trusted, "10.0.0.1", &[(XFF, &line)]), "203.0.113.7");
            let line = format!("for={own},for={forged}, for=203.0.113.7");
            let seen = client(&trusted, "10.0.0.1", &[(FWD, &line)]);
            prop_assert!(seen == "203.0.113.7" || seen == "10.0.0.1", "{line:?} {seen}");
        }
    }
}
