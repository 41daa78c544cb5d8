//! The bytes of one recorded click.
//!
//! A record keeps what the click's [`Click`](terse_core::click::Click) told, cut to bounds, with the client's address
//! truncated to its network. Its bytes, format 1, numbers in little endian:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | flags: do not track, global privacy control, prefetch, IPv4 network, IPv6 network, visitor |
//! | 1 | length of the code |
//! | 1 | length of the language |
//! | 2 | length of the referrer |
//! | 2 | length of the user agent |
//! | 8 | the time in milliseconds since 1970 |
//! | 8 | the link's version |
//! | 0 or 8 | the visitor |
//! | 0, 3 or 6 | the network |
//! | | code, language, referrer, user agent |
//!
//! They hold no checksum: the [frame](crate::frame) around them does.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use terse_core::click::Signals;
use terse_core::{ShortCode, Timestamp, Version};

/// Most bytes that are kept of a referrer.
pub const MAX_REFERRER_BYTES: usize = 512;
/// Most bytes that are kept of a user agent.
pub const MAX_USER_AGENT_BYTES: usize = 512;
/// Most bytes that are kept of a language list.
pub const MAX_LANGUAGE_BYTES: usize = 64;
/// Most bytes that a record can take.
pub const MAX_RECORD_BYTES: usize = FIXED_BYTES
    + VISITOR_BYTES
    + V6_BYTES
    + ShortCode::MAX_LEN
    + MAX_LANGUAGE_BYTES
    + MAX_REFERRER_BYTES
    + MAX_USER_AGENT_BYTES;

/// Flags, lengths, time and version.
const FIXED_BYTES: usize = 1 + 1 + 1 + 2 + 2 + 8 + 8;
const VISITOR_BYTES: usize = 8;
/// An IPv4 network is /24.
const V4_BYTES: usize = 3;
/// An IPv6 network is /48.
const V6_BYTES: usize = 6;

const DO_NOT_TRACK: u8 = 1;
const GLOBAL_PRIVACY_CONTROL: u8 = 1 << 1;
const PREFETCH: u8 = 1 << 2;
const NETWORK_V4: u8 = 1 << 3;
const NETWORK_V6: u8 = 1 << 4;
const VISITOR: u8 = 1 << 5;
const KNOWN_FLAGS: u8 = (1 << 6) - 1;

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

/// The network of `address`: /24 of IPv4 (also where it comes as IPv6), /48 of IPv6.
#[must_use]
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            IpAddr::V4(Ipv4Addr::new(a, b, c, 0))
        }
        IpAddr::V6(v6) => {
            let [a, b, c, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0))
        }
    }
}

/// The first `most` bytes of `text`.
#[must_use]
pub fn cut(text: &[u8], most: usize) -> &[u8] {
    &text[..text.len().min(most)]
}

impl<'a> Record<'a> {
    /// The same record with its texts within their bounds. Writing a record needs that.
    #[must_use]
    pub fn bounded(self) -> Self {
        Self {
            referrer: cut(self.referrer, MAX_REFERRER_BYTES),
            user_agent: cut(self.user_agent, MAX_USER_AGENT_BYTES),
            language: cut(self.language, MAX_LANGUAGE_BYTES),
            ..self
        }
    }

    /// How many bytes [`Record::write`] writes; at most [`MAX_RECORD_BYTES`] of a bounded record.
    #[must_use]
    pub fn size(&self) -> usize {
        let network = match self.network {
            None => 0,
            Some(IpAddr::V4(_)) => V4_BYTES,
            Some(IpAddr::V6(_)) => V6_BYTES,
        };
        let visitor = if self.visitor.is_some() { VISITOR_BYTES } else { 0 };
        let texts = self.code.len() + self.language.len() + self.referrer.len() + self.user_agent.len();
        FIXED_BYTES + visitor + network + texts
    }

    /// Writes a [bounded](Record::bounded) record to the beginning of `out`; returns how many bytes it took.
    /// Nothing is allocated.
    ///
    /// # Panics
    /// If `out` is shorter than [`Record::size`].
    pub fn write(&self, out: &mut [u8]) -> usize {
        let mut pen = Pen { out, at: 0 };
        let lengths = [self.code.len() as u8, self.language.len() as u8];
        let [r0, r1] = (self.referrer.len() as u16).to_le_bytes();
        let [u0, u1] = (self.user_agent.len() as u16).to_le_bytes();
        pen.array([self.flags(), lengths[0], lengths[1], r0, r1, u0, u1]);
        pen.array(self.at.as_millis().to_le_bytes());
        pen.array(self.version.0.to_le_bytes());
        if let Some(visitor) = self.visitor {
            pen.array(visitor.to_le_bytes());
        }
        match self.network {
            None => {}
            Some(IpAddr::V4(network)) => {
                let [a, b, c, _] = network.octets();
                pen.array([a, b, c]);
            }
            Some(IpAddr::V6(network)) => {
                let [a, b, c, d, e, f, ..] = network.octets();
                pen.array([a, b, c, d, e, f]);
            }
        }
        for text in [self.code.as_bytes(), self.language, self.referrer, self.user_agent] {
            pen.slice(text);
        }
        pen.at
    }

    /// Appends the record to `out`, its texts cut to their bounds.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let bounded = self.bounded();
        let before = out.len();
        out.resize(before + bounded.size(), 0);
        bounded.write(&mut out[before..]);
    }

    fn flags(&self) -> u8 {
        let mut flags = 0;
        let mut set = |condition: bool, flag: u8| flags |= if condition { flag } else { 0 };
        set(self.signals.do_not_track, DO_NOT_TRACK);
        set(self.signals.global_privacy_control, GLOBAL_PRIVACY_CONTROL);
        set(self.signals.prefetch, PREFETCH);
        set(matches!(self.network, Some(IpAddr::V4(_))), NETWORK_V4);
        set(matches!(self.network, Some(IpAddr::V6(_))), NETWORK_V6);
        set(self.visitor.is_some(), VISITOR);
        flags
    }

    /// Reads what [`Record::write`] wrote. All of `bytes` is the record. Nothing is allocated.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, &'static str> {
        let mut eye = Eye { bytes };
        let [flags, code_len, language_len, r0, r1, u0, u1] = eye.array()?;
        if flags & !KNOWN_FLAGS != 0 || flags & NETWORK_V4 != 0 && flags & NETWORK_V6 != 0 {
            return Err("a record with unknown flags");
        }
        let referrer_len = usize::from(u16::from_le_bytes([r0, r1]));
        let user_agent_len = usize::from(u16::from_le_bytes([u0, u1]));
        let language_len = usize::from(language_len);
        if referrer_len > MAX_REFERRER_BYTES
            || user_agent_len > MAX_USER_AGENT_BYTES
            || language_len > MAX_LANGUAGE_BYTES
        {
            return Err("a record with a text beyond its bound");
        }
        let at = Timestamp::from_millis(i64::from_le_bytes(eye.array()?));
        let version = Version(u64::from_le_bytes(eye.array()?));
        let visitor = if flags & VISITOR == 0 { None } else { Some(u64::from_le_bytes(eye.array()?)) };
        let network = eye.network(flags)?;
        let code = std::str::from_utf8(eye.slice(usize::from(code_len))?).map_err(|_| "a record with a bad code")?;
        if !ShortCode::is_valid(code) {
            return Err("a record with a bad code");
        }
        let language = eye.slice(language_len)?;
        let referrer = eye.slice(referrer_len)?;
        let user_agent = eye.slice(user_agent_len)?;
        if !eye.bytes.is_empty() {
            return Err("a record longer than it says");
        }
        let signals = Signals {
            do_not_track: flags & DO_NOT_TRACK != 0,
            global_privacy_control: flags & GLOBAL_PRIVACY_CONTROL != 0,
            prefetch: flags & PREFETCH != 0,
        };
        Ok(Self { at, code, version, network, visitor, referrer, user_agent, language, signals })
    }
}

/// Writes on.
struct Pen<'o> {
    out: &'o mut [u8],
    at: usize,
}

impl Pen<'_> {
    fn array<const N: usize>(&mut self, bytes: [u8; N]) {
        self.out[self.at..self.at + N].copy_from_slice(&bytes);
        self.at += N;
    }

    fn slice(&mut self, bytes: &[u8]) {
        self.out[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }
}

/// Reads on.
struct Eye<'a> {
    bytes: &'a [u8],
}

impl<'a> Eye<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        let (array, rest) = self.bytes.split_first_chunk().ok_or(SHORT)?;
        self.bytes = rest;
        Ok(*array)
    }

    fn slice(&mut self, len: usize) -> Result<&'a [u8], &'static str> {
        let (slice, rest) = self.bytes.split_at_checked(len).ok_or(SHORT)?;
        self.bytes = rest;
        Ok(slice)
    }

    fn network(&mut self, flags: u8) -> Result<Option<IpAddr>, &'static str> {
        if flags & NETWORK_V4 != 0 {
            let [a, b, c]: [u8; V4_BYTES] = self.array()?;
            return Ok(Some(IpAddr::V4(Ipv4Addr::new(a, b, c, 0))));
        }
        if flags & NETWORK_V6 == 0 {
            return Ok(None);
        }
        let prefix: [u8; V6_BYTES] = self.array()?;
        let mut octets = [0; 16];
        octets[..V6_BYTES].copy_from_slice(&prefix);
        Ok(Some(IpAddr::V6(Ipv6Addr::from(octets))))
    }
}

const SHORT: &str = "a record shorter than it says";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record() -> Record<'static> {
        Record {
            at: Timestamp::from_millis(1_767_323_045_678),
            code: "aB3-_xY",
            version: Version(7),
            network: Some("203.0.113.0".parse().unwrap()),
            visitor: Some(0x0123_4567_89ab_cdef),
            referrer: b"https://example.com",
            user_agent: b"Mozilla/5.0 (X11; Linux x86_64)",
            language: b"en-GB,en;q=0.5",
            signals: Signals { prefetch: true, ..Signals::default() },
        }
    }

    fn bytes_of(record: &Record<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        bytes
    }

    #[test]
    fn a_record_comes_back_as_it_was_written() {
        for network in [None, Some("203.0.113.0".parse().unwrap()), Some("2001:db8:7::".parse().unwrap())] {
            for visitor in [None, Some(0), Some(u64::MAX)] {
                let record = Record { network, visitor, ..record() };
                let bytes = bytes_of(&record);
                assert_eq!(bytes.len(), record.size());
                assert_eq!(Record::decode(&bytes), Ok(record));
            }
        }
    }

    #[test]
    fn the_bytes_of_format_1_stay_as_they_are() {
        let mut expected = vec![0b10_1100, 7, 14, 19, 0, 31, 0];
        expected.extend(1_767_323_045_678_i64.to_le_bytes());
        expected.extend(7_u64.to_le_bytes());
        expected.extend(0x0123_4567_89ab_cdef_u64.to_le_bytes());
        expected.extend([203, 0, 113]);
        expected.extend(b"aB3-_xYen-GB,en;q=0.5https://example.comMozilla/5.0 (X11; Linux x86_64)");
        assert_eq!(bytes_of(&record()), expected);
    }

    #[test]
    fn hostile_texts_are_cut_to_their_bounds() {
        let hostile = [0xff; 10_240];
        let record = Record {
            code: "a234567890123456789012345678901234567890123456789012345678901234",
            network: Some("2001:db8:7::".parse().unwrap()),
            referrer: &hostile,
            user_agent: &hostile,
            language: &hostile,
            ..record()
        };
        let bytes = bytes_of(&record);
        assert_eq!(bytes.len(), MAX_RECORD_BYTES);
        let read = Record::decode(&bytes).unwrap();
        assert_eq!(read.referrer, &hostile[..MAX_REFERRER_BYTES]);
        assert_eq!(read.user_agent, &hostile[..MAX_USER_AGENT_BYTES]);
        assert_eq!(read.language, &hostile[..MAX_LANGUAGE_BYTES]);
        assert_eq!(read, record.bounded());
    }

    #[test]
    fn an_address_is_truncated_to_its_network() {
        for (address, network) in [
            ("203.0.113.77", "203.0.113.0"),
            ("2001:db8:7:8:9::1", "2001:db8:7::"),
            ("::ffff:203.0.113.77", "203.0.113.0"),
            ("255.255.255.255", "255.255.255.0"),
            ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff:ffff:ffff::"),
        ] {
            assert_eq!(network_of(address.parse().unwrap()), network.parse::<IpAddr>().unwrap(), "{address}");
        }
    }

    #[test]
    fn a_record_that_no_version_wrote_is_told() {
        let good = bytes_of(&record());
        for len in 0..good.len() {
            assert!(Record::decode(&good[..len]).is_err(), "{len} bytes");
        }
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            bytes
        };
        assert!(Record::decode(&[good.clone(), vec![0]].concat()).is_err());
        assert_eq!(Record::decode(&with(0, 0xff)), Err("a record with unknown flags"));
        assert_eq!(Record::decode(&with(0, NETWORK_V4 | NETWORK_V6)), Err("a record with unknown flags"));
        assert_eq!(Record::decode(&with(2, 65)), Err("a record with a text beyond its bound"));
        assert_eq!(Record::decode(&with(4, 3)), Err("a record with a text beyond its bound"));
        let code_at = FIXED_BYTES + VISITOR_BYTES + V4_BYTES;
        assert_eq!(Record::decode(&with(code_at, b'/')), Err("a record with a bad code"));
        assert_eq!(Record::decode(&with(code_at, 0xff)), Err("a record with a bad code"));
        assert_eq!(Record::decode(&with(1, 0)), Err("a record with a bad code"));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

        #[test]
        fn any_bytes_are_a_record_or_not_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(record) = Record::decode(&bytes) {
                prop_assert_eq!(bytes_of(&record), bytes);
            }
        }

        #[test]
        fn any_texts_come_back_cut(
            code in "[A-Za-z0-9_-]{1,64}",
            at in 0_i64..4_000_000_000_000,
            version in any::<u64>(),
            visitor in any::<Option<u64>>(),
            address in any::<Option<IpAddr>>(),
            texts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..700), 3),
            signals in any::<[bool; 3]>(),
        ) {
            let record = Record {
                at: Timestamp::from_millis(at),
                code: &code,
                version: Version(version),
                network: address.map(network_of),
                visitor,
                referrer: &texts[0],
                user_agent: &texts[1],
                language: &texts[2],
                signals: Signals {
                    do_not_track: signals[0],
                    global_privacy_control: signals[1],
                    prefetch: signals[2],
                },
            };
            let bytes = bytes_of(&record);
            prop_assert!(bytes.len() <= MAX_RECORD_BYTES);
            prop_assert_eq!(Record::decode(&bytes), Ok(record.bounded()));
        }
    }
}
