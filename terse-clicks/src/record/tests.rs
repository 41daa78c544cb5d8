//! Records as they are written, in a row and alone.

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

/// The record behind `before`, with what `texts` remembers of it.
fn written(record: &Record<'_>, before: &[u8], texts: &mut Texts) -> Vec<u8> {
    let mut out = vec![0; MAX_RECORD_BYTES];
    let len = record.bounded().write(&mut out, before.len(), before, texts).unwrap();
    out.truncate(len);
    out
}

/// The record at the beginning of a row.
fn bytes_of(record: &Record<'_>) -> Vec<u8> {
    written(record, b"", &mut Texts::default())
}

fn read(bytes: &[u8]) -> Result<Record<'_>, &'static str> {
    Record::decode(Format::Two, bytes, 0, b"")
}

/// Bytes before the texts of a record with a code of seven letters and a small version.
const BARE_BYTES: usize = FIXED_BYTES + 1 + VISITOR_BYTES + V4_BYTES + 7;

#[test]
fn a_record_comes_back_as_it_was_written() {
    for network in [None, Some("203.0.113.0".parse().unwrap()), Some("2001:db8:7::".parse().unwrap())] {
        for visitor in [None, Some(0), Some(u64::MAX)] {
            let record = Record { network, visitor, ..record() };
            assert_eq!(read(&bytes_of(&record)), Ok(record));
        }
    }
}

#[test]
fn the_bytes_of_format_2_stay_as_they_are() {
    let mut expected = vec![0b10_1100, 7];
    for (offset, len) in [(39_u32, 14), (53, 19), (72, 31)] {
        expected.extend((offset << 10 | len).to_le_bytes());
    }
    expected.extend(&1_767_323_045_678_i64.to_le_bytes()[..6]);
    expected.push(7);
    expected.extend(0x0123_4567_89ab_cdef_u64.to_le_bytes());
    expected.extend([203, 0, 113]);
    expected.extend(b"aB3-_xYen-GB,en;q=0.5https://example.comMozilla/5.0 (X11; Linux x86_64)");
    assert_eq!(bytes_of(&record()), expected);
}

#[test]
fn a_text_that_stands_before_a_record_is_not_written_again() {
    let mut texts = Texts::default();
    let mut row = written(&record(), b"", &mut texts);
    let again = Record { code: "other-1", ..record() };
    let bytes = written(&again, &row, &mut texts);
    assert_eq!(bytes.len(), BARE_BYTES);
    assert_eq!(Record::decode(Format::Two, &bytes, row.len(), &row), Ok(again));
    row.extend(&bytes);
    let other = Record { referrer: b"https://other.example", language: b"", ..again };
    let bytes = written(&other, &row, &mut texts);
    assert_eq!(bytes.len(), BARE_BYTES + other.referrer.len());
    assert_eq!(Record::decode(Format::Two, &bytes, row.len(), &row), Ok(other));
    assert!(Record::decode(Format::Two, &bytes, row.len(), &row[..40]).is_err(), "its texts aren't there");
}

#[test]
fn what_is_remembered_of_another_row_is_not_believed() {
    let mut texts = Texts::default();
    let _ = bytes_of(&record());
    let mut elsewhere = written(&record(), b"", &mut texts);
    elsewhere.fill(b'x');
    let bytes = written(&record(), &elsewhere, &mut texts);
    assert_eq!(Record::decode(Format::Two, &bytes, elsewhere.len(), &elsewhere), Ok(record()));
    let bytes = written(&record(), b"", &mut texts);
    assert_eq!(read(&bytes), Ok(record()));
}

#[test]
fn a_record_without_room_is_not_written() {
    let needed = bytes_of(&record()).len();
    let mut texts = Texts::default();
    for room in 0..needed {
        assert_eq!(record().write(&mut vec![0; room], 0, b"", &mut texts), None, "{room} bytes");
    }
    let mut out = vec![0; needed];
    assert_eq!(record().write(&mut out, 0, b"", &mut texts), Some(needed));
    assert_eq!(read(&out), Ok(record()));
    let behind = texts::MAX_ROW_BYTES - BARE_BYTES;
    assert_eq!(record().write(&mut out, behind, b"", &mut Texts::default()), None, "no place tells so far");
}

#[test]
fn hostile_texts_are_cut_to_their_bounds() {
    let hostile = [0xff; 10_240];
    let record = Record {
        code: "a234567890123456789012345678901234567890123456789012345678901234",
        version: Version(u64::MAX),
        network: Some("2001:db8:7::".parse().unwrap()),
        referrer: &hostile,
        user_agent: &hostile,
        language: &hostile,
        ..record()
    };
    let bytes = bytes_of(&record);
    assert_eq!(bytes.len(), MAX_RECORD_BYTES);
    let read = read(&bytes).unwrap();
    assert_eq!(read.referrer, &hostile[..MAX_REFERRER_BYTES]);
    assert_eq!(read.user_agent, &hostile[..MAX_USER_AGENT_BYTES]);
    assert_eq!(read.language, &hostile[..MAX_LANGUAGE_BYTES]);
    assert_eq!(read, record.bounded());
}

#[test]
fn numbers_at_their_ends_come_back() {
    for version in [0, 1, 127, 128, 16_383, 16_384, u64::MAX >> 1, u64::MAX] {
        let record = Record { version: Version(version), ..record() };
        let bytes = bytes_of(&record);
        assert_eq!(read(&bytes), Ok(record));
        let texts = record.language.len() + record.referrer.len() + record.user_agent.len();
        assert_eq!(bytes.len(), BARE_BYTES - 1 + version_size(record.version) + texts, "{version}");
    }
    let most = 1_i64 << 47;
    for (at, kept) in [(0, 0), (-1, -1), (most - 1, most - 1), (-most, -most), (i64::MAX, most - 1), (i64::MIN, -most)]
    {
        let bytes = bytes_of(&Record { at: Timestamp::from_millis(at), ..record() });
        assert_eq!(read(&bytes).unwrap().at, Timestamp::from_millis(kept), "{at}");
    }
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
        assert!(read(&good[..len]).is_err(), "{len} bytes");
    }
    let with = |at: usize, bytes: &[u8]| {
        let mut damaged = good.clone();
        damaged[at..at + bytes.len()].copy_from_slice(bytes);
        read(&damaged).unwrap_err()
    };
    let place = |offset: u32, len: u32| (offset << 10 | len).to_le_bytes();
    assert_eq!(read(&[good.clone(), vec![0]].concat()), Err("a record longer than it says"));
    assert_eq!(with(0, &[0xff]), "a record with unknown flags");
    assert_eq!(with(0, &[NETWORK_V4 | NETWORK_V6]), "a record with unknown flags");
    assert_eq!(with(2, &place(39, 65)), "a record with a text beyond its bound");
    assert_eq!(with(6, &place(53, 513)), "a record with a text beyond its bound");
    assert_eq!(with(6, &place(53, 0)), "a record with a text beyond its bound");
    assert_eq!(with(6, &place(54, 19)), "a record with a text that is nowhere");
    assert_eq!(with(6, &place(0, 19)), "a record with a text that is nowhere");
    assert_eq!(with(6, &place((1 << 22) - 1, 512)), "a record with a text that is nowhere");
    assert_eq!(with(10, &place(72, 30)), "a record longer than it says");
    assert_eq!(with(10, &place(72, 32)), "a record shorter than it says");
    let version_at = FIXED_BYTES;
    assert_eq!(with(version_at, &[0x80, 0]), "a record with a bad version");
    assert_eq!(with(version_at, &[0xff; 10]), "a record with a bad version");
    let code_at = BARE_BYTES - 7;
    assert_eq!(with(code_at, b"/"), "a record with a bad code");
    assert_eq!(with(code_at, &[0xff]), "a record with a bad code");
    assert_eq!(with(1, &[0]), "a record with a bad code");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn any_bytes_are_a_record_or_not_without_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        before in prop::collection::vec(any::<u8>(), 0..99),
        flags in prop::option::of(0..64_u8),
    ) {
        let mut bytes = bytes;
        if let (Some(flags), [first, code_len, ..]) = (flags, &mut bytes[..]) {
            (*first, *code_len) = (flags, 3);
        }
        for format in [Format::One, Format::Two] {
            if let Ok(record) = Record::decode(format, &bytes, before.len(), &before) {
                let again = bytes_of(&record);
                prop_assert_eq!(read(&again), Ok(record));
            }
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
            signals: Signals { do_not_track: signals[0], global_privacy_control: signals[1], prefetch: signals[2] },
        };
        let bytes = bytes_of(&record);
        prop_assert!(bytes.len() <= MAX_RECORD_BYTES);
        prop_assert_eq!(read(&bytes), Ok(record.bounded()));
    }
}
