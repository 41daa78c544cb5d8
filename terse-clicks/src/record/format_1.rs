//! Records as format 1 had them, each with all of its texts. They are read, not written any more.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | flags, as they are now |
//! | 1 | length of the code |
//! | 1 | length of the language |
//! | 2 | length of the referrer |
//! | 2 | length of the user agent |
//! | 8 | the time in milliseconds since 1970 |
//! | 8 | the link's version |
//! | 0 or 8 | the visitor |
//! | 0, 3 or 6 | the network |
//! | | code, language, referrer, user agent |

use terse_core::{Timestamp, Version};

use super::{
    BOUNDS, Eye, MAX_LANGUAGE_BYTES, MAX_REFERRER_BYTES, MAX_USER_AGENT_BYTES, Record, TOO_LONG, UNKNOWN_FLAGS,
    VISITOR, are_known, signals_of,
};

/// Reads a record. All of `bytes` is the record. Nothing is allocated.
pub(super) fn decode(bytes: &[u8]) -> Result<Record<'_>, &'static str> {
    let mut eye = Eye { bytes };
    let [flags, code_len, language_len, r0, r1, u0, u1] = eye.array()?;
    if !are_known(flags) {
        return Err(UNKNOWN_FLAGS);
    }
    let referrer_len = usize::from(u16::from_le_bytes([r0, r1]));
    let user_agent_len = usize::from(u16::from_le_bytes([u0, u1]));
    let language_len = usize::from(language_len);
    if referrer_len > MAX_REFERRER_BYTES || user_agent_len > MAX_USER_AGENT_BYTES || language_len > MAX_LANGUAGE_BYTES {
        return Err(BOUNDS);
    }
    let at = Timestamp::from_millis(i64::from_le_bytes(eye.array()?));
    let version = Version(u64::from_le_bytes(eye.array()?));
    let visitor = if flags & VISITOR == 0 { None } else { Some(u64::from_le_bytes(eye.array()?)) };
    let network = eye.network(flags)?;
    let code = eye.code(usize::from(code_len))?;
    let language = eye.slice(language_len)?;
    let referrer = eye.slice(referrer_len)?;
    let user_agent = eye.slice(user_agent_len)?;
    if !eye.bytes.is_empty() {
        return Err(TOO_LONG);
    }
    Ok(Record { at, code, version, network, visitor, referrer, user_agent, language, signals: signals_of(flags) })
}

#[cfg(test)]
pub(crate) mod tests {
    use std::net::IpAddr;

    use terse_core::click::Signals;

    use super::*;
    use crate::frame::Format;

    /// The bytes of a record as they were written.
    pub(crate) fn encode(record: &Record<'_>) -> Vec<u8> {
        let mut bytes = vec![record.flags(), record.code.len() as u8, record.language.len() as u8];
        bytes.extend((record.referrer.len() as u16).to_le_bytes());
        bytes.extend((record.user_agent.len() as u16).to_le_bytes());
        bytes.extend(record.at.as_millis().to_le_bytes());
        bytes.extend(record.version.0.to_le_bytes());
        bytes.extend(record.visitor.iter().flat_map(|visitor| visitor.to_le_bytes()));
        match record.network {
            None => {}
            Some(IpAddr::V4(network)) => bytes.extend(&network.octets()[..3]),
            Some(IpAddr::V6(network)) => bytes.extend(&network.octets()[..6]),
        }
        for text in [record.code.as_bytes(), record.language, record.referrer, record.user_agent] {
            bytes.extend(text);
        }
        bytes
    }

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

    #[test]
    fn the_bytes_of_format_1_are_read_as_they_were_written() {
        let mut bytes = vec![0b10_1100, 7, 14, 19, 0, 31, 0];
        bytes.extend(1_767_323_045_678_i64.to_le_bytes());
        bytes.extend(7_u64.to_le_bytes());
        bytes.extend(0x0123_4567_89ab_cdef_u64.to_le_bytes());
        bytes.extend([203, 0, 113]);
        bytes.extend(b"aB3-_xYen-GB,en;q=0.5https://example.comMozilla/5.0 (X11; Linux x86_64)");
        assert_eq!(Record::decode(Format::One, &bytes, 0, b""), Ok(record()));
        assert_eq!(encode(&record()), bytes);
    }

    #[test]
    fn a_record_of_format_1_that_no_version_wrote_is_told() {
        let good = encode(&record());
        for len in 0..good.len() {
            assert!(decode(&good[..len]).is_err(), "{len} bytes");
        }
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            decode(&bytes).unwrap_err()
        };
        assert_eq!(decode(&[good.clone(), vec![0]].concat()), Err("a record longer than it says"));
        assert_eq!(with(0, 0xff), "a record with unknown flags");
        assert_eq!(with(2, 65), "a record with a text beyond its bound");
        assert_eq!(with(4, 3), "a record with a text beyond its bound");
        assert_eq!(with(1, 0), "a record with a bad code");
        assert_eq!(with(good.len() - 71, b'/'), "a record with a bad code");
    }
}
