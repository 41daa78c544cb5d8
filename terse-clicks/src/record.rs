//! The bytes of one recorded click.
//!
//! A record keeps what the click's [`Click`](terse_core::click::Click) told, cut to bounds, with the client's address
//! truncated to its network. Its bytes, format 2, numbers in little endian:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | flags: do not track, global privacy control, prefetch, IPv4 network, IPv6 network, visitor |
//! | 1 | length of the code |
//! | 4, 4, 4 | the [places](texts) of language, referrer and user agent in the row of frames that the record is in |
//! | 6 | the time in milliseconds since 1970 |
//! | 1 to 10 | the link's version, seven bits a byte, the lowest first, the eighth bit set in all but the last |
//! | 0 or 8 | the visitor |
//! | 0, 3 or 6 | the network |
//! | | the code, then those of the three texts whose places are here |
//!
//! A text whose place is elsewhere stands in an earlier record of the same row: so a record is read with the row before
//! it, and moved to another row by being written anew. The row may end behind any record. There is no checksum here:
//! the [frame](crate::frame) around the record has it. Records of format 1 are read, too.

pub(crate) mod format_1;
pub mod texts;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use terse_core::click::Signals;
use terse_core::{ShortCode, Timestamp, Version};

use self::texts::{Place, Texts};
use crate::frame::Format;

/// Most bytes that are kept of a referrer.
pub const MAX_REFERRER_BYTES: usize = 512;
/// Most bytes that are kept of a user agent.
pub const MAX_USER_AGENT_BYTES: usize = 512;
/// Most bytes that are kept of a language list.
pub const MAX_LANGUAGE_BYTES: usize = 64;
/// Most bytes that a record can take.
pub const MAX_RECORD_BYTES: usize = FIXED_BYTES
    + MAX_VERSION_BYTES
    + VISITOR_BYTES
    + V6_BYTES
    + ShortCode::MAX_LEN
    + MAX_LANGUAGE_BYTES
    + MAX_REFERRER_BYTES
    + MAX_USER_AGENT_BYTES;

/// Flags, length of the code, places of the texts, time.
const FIXED_BYTES: usize = 1 + 1 + 3 * 4 + TIME_BYTES;
/// The 48 bits reach 4,000 years in both directions.
const TIME_BYTES: usize = 6;
const TIME_BITS: u32 = 8 * TIME_BYTES as u32;
/// Seven bits a byte.
const MAX_VERSION_BYTES: usize = u64::BITS.div_ceil(7) as usize;
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

    /// Bytes of the record besides its texts.
    fn bare_size(&self) -> usize {
        let network = match self.network {
            None => 0,
            Some(IpAddr::V4(_)) => V4_BYTES,
            Some(IpAddr::V6(_)) => V6_BYTES,
        };
        let visitor = if self.visitor.is_some() { VISITOR_BYTES } else { 0 };
        FIXED_BYTES + version_size(self.version) + visitor + network + self.code.len()
    }

    /// Writes a [bounded](Record::bounded) record to the beginning of `out`, which has the offset `out_at` in a row that
    /// begins with `before`. Texts that stand in `before`, as far as `texts` remembers, are named by their places. Returns
    /// how many bytes it took, at most [`MAX_RECORD_BYTES`]; `None` = `out` has too few, or `out_at` is beyond what a row
    /// can have. Nothing is allocated.
    pub fn write(&self, out: &mut [u8], out_at: usize, before: &[u8], texts: &mut Texts) -> Option<usize> {
        let bare = self.bare_size();
        let mut end = bare;
        let mut places = [Place::default(); 3];
        let mut new = [None; 3];
        let wanted = [self.language, self.referrer, self.user_agent];
        for ((text, place), new) in wanted.iter().zip(&mut places).zip(&mut new) {
            if text.is_empty() {
                continue;
            }
            match texts.find(text, before) {
                Ok(found) => *place = found,
                Err(slot) => {
                    *place = Place::of(out_at + end, text.len())?;
                    *new = Some(slot);
                    end += text.len();
                }
            }
        }
        let mut pen = Pen { out: out.get_mut(..end)?, at: 0 };
        self.write_bare(places, &mut pen);
        for ((text, place), new) in wanted.iter().zip(places).zip(new) {
            if let Some(slot) = new {
                pen.slice(text);
                texts.remember(slot, place);
            }
        }
        Some(end)
    }

    fn write_bare(&self, places: [Place; 3], pen: &mut Pen<'_>) {
        pen.array([self.flags(), self.code.len() as u8]);
        for place in places {
            pen.array(place.to_le_bytes());
        }
        const { assert!(TIME_BYTES == 6) };
        let [a, b, c, d, e, f, ..] = time_in_bounds(self.at).as_millis().to_le_bytes();
        pen.array([a, b, c, d, e, f]);
        let mut version = self.version.0;
        while version >= 1 << 7 {
            pen.array([version as u8 | 1 << 7]);
            version >>= 7;
        }
        pen.array([version as u8]);
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
        pen.slice(self.code.as_bytes());
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

    /// Reads what [`Record::write`] wrote. All of `bytes` is the record; it has the offset `at` in a row that begins with
    /// `before`. Nothing is allocated.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(format: Format, bytes: &'a [u8], at: usize, before: &'a [u8]) -> Result<Self, &'static str> {
        match format {
            Format::One => format_1::decode(bytes),
            Format::Two => Self::decode_current(bytes, at, before),
        }
    }

    fn decode_current(bytes: &'a [u8], at: usize, before: &'a [u8]) -> Result<Self, &'static str> {
        let mut eye = Eye { bytes };
        let [flags, code_len] = eye.array()?;
        if !are_known(flags) {
            return Err(UNKNOWN_FLAGS);
        }
        let [language, referrer, user_agent] = [eye.place()?, eye.place()?, eye.place()?];
        let time = eye.time()?;
        let version = eye.version()?;
        let visitor = if flags & VISITOR == 0 { None } else { Some(u64::from_le_bytes(eye.array()?)) };
        let network = eye.network(flags)?;
        let code = eye.code(usize::from(code_len))?;
        let mut text = |place: Place, most: usize| {
            if place == Place::default() {
                return Ok(&[][..]);
            }
            if !(1..=most).contains(&place.len()) {
                return Err(BOUNDS);
            }
            // New texts stand one behind the other where the eye is; others lie in what was read before.
            if place.offset() == at + (bytes.len() - eye.bytes.len()) {
                return eye.slice(place.len());
            }
            place.within(before).ok_or("a record with a text that is nowhere")
        };
        let language = text(language, MAX_LANGUAGE_BYTES)?;
        let referrer = text(referrer, MAX_REFERRER_BYTES)?;
        let user_agent = text(user_agent, MAX_USER_AGENT_BYTES)?;
        if !eye.bytes.is_empty() {
            return Err(TOO_LONG);
        }
        let signals = signals_of(flags);
        Ok(Self { at: time, code, version, network, visitor, referrer, user_agent, language, signals })
    }
}

/// Whether a record may have these flags.
const fn are_known(flags: u8) -> bool {
    flags & !KNOWN_FLAGS == 0 && !(flags & NETWORK_V4 != 0 && flags & NETWORK_V6 != 0)
}

const fn signals_of(flags: u8) -> Signals {
    Signals {
        do_not_track: flags & DO_NOT_TRACK != 0,
        global_privacy_control: flags & GLOBAL_PRIVACY_CONTROL != 0,
        prefetch: flags & PREFETCH != 0,
    }
}

/// `at`, or the nearest time that fits in a record.
fn time_in_bounds(at: Timestamp) -> Timestamp {
    const MOST: i64 = (1 << (TIME_BITS - 1)) - 1;
    Timestamp::from_millis(at.as_millis().clamp(-MOST - 1, MOST))
}

/// Bytes that a version takes: one for each seven bits of it.
const fn version_size(version: Version) -> usize {
    (u64::BITS - (version.0 | 1).leading_zeros()).div_ceil(7) as usize
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

    fn place(&mut self) -> Result<Place, &'static str> {
        self.array().map(Place::from_le_bytes)
    }

    fn time(&mut self) -> Result<Timestamp, &'static str> {
        let [a, b, c, d, e, f]: [u8; TIME_BYTES] = self.array()?;
        let unsigned = i64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
        let unused = i64::BITS - TIME_BITS;
        Ok(Timestamp::from_millis(unsigned << unused >> unused))
    }

    fn version(&mut self) -> Result<Version, &'static str> {
        let mut version = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let [byte] = self.array()?;
            let bits = u64::from(byte & !(1 << 7));
            if bits << shift >> shift != bits || byte == 0 && shift > 0 {
                return Err(BAD_VERSION);
            }
            version |= bits << shift;
            if byte & 1 << 7 == 0 {
                return Ok(Version(version));
            }
        }
        Err(BAD_VERSION)
    }

    fn code(&mut self, len: usize) -> Result<&'a str, &'static str> {
        let code = std::str::from_utf8(self.slice(len)?).map_err(|_| BAD_CODE)?;
        if ShortCode::is_valid(code) { Ok(code) } else { Err(BAD_CODE) }
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
const TOO_LONG: &str = "a record longer than it says";
const UNKNOWN_FLAGS: &str = "a record with unknown flags";
const BOUNDS: &str = "a record with a text beyond its bound";
const BAD_VERSION: &str = "a record with a bad version";
const BAD_CODE: &str = "a record with a bad code";

#[cfg(test)]
mod tests;
