//! Every damage to a block is told for what it is.

use proptest::prelude::*;
use terse_core::Version;
use terse_core::click::Signals;

use super::*;
use crate::frame::tests::row_of;
use crate::record::Record;

const ID: BlockId = BlockId { journal: JournalId([7; 16]), seq: 5 };
const NOW: Timestamp = Timestamp::from_millis(1_767_323_045_000);
/// Bytes of the files here, whose blocks use half of them.
const FILE_BYTES: usize = 2_048;

fn record(code: &str) -> Record<'_> {
    Record {
        at: NOW,
        code,
        version: Version::FIRST,
        network: Some("203.0.113.0".parse().unwrap()),
        visitor: Some(1),
        referrer: b"https://news.example",
        user_agent: b"curl/8.10.1",
        language: b"en",
        signals: Signals::default(),
    }
}

const CODES: [&str; 8] = ["zero", "one", "two", "three", "four", "five", "six", "seven"];

/// A block as a worker leaves it that is killed after this many of [`CODES`].
fn open_block(id: BlockId, records: usize) -> Vec<u8> {
    open_block_of(Format::CURRENT, id, records)
}

fn open_block_of(format: Format, id: BlockId, records: usize) -> Vec<u8> {
    let mut bytes = vec![0; FILE_BYTES];
    bytes[..COMMITTED_AT].copy_from_slice(&Header { format, ..Header::new(id, 3, NOW) }.bytes());
    let records: Vec<Record<'_>> = CODES[..records].iter().map(|code| record(code)).collect();
    let row = row_of(format, &records, frame::seed(id));
    bytes[HEADER_BYTES..][..row.len()].copy_from_slice(&row);
    commit(&mut bytes, row.len());
    bytes
}

fn commit(block: &mut [u8], length: usize) {
    block[COMMITTED_AT..COMMITTED_AT + 8].copy_from_slice(&(length as u64).to_le_bytes());
}

fn committed(block: &[u8]) -> usize {
    u64::from_le_bytes(array(block, COMMITTED_AT)) as usize
}

fn seal_of(block: &[u8], id: BlockId) -> Seal {
    let format = Header::read(block).unwrap().unwrap().format;
    let whole = whole_frames(format, &block[HEADER_BYTES..][..committed(block)], frame::seed(id));
    let (records, length, folded) = (whole.records, whole.length as u64, whole.folded);
    Seal { records, length, folded, at: NOW, recovered: false, end: false }
}

fn sealed_block(id: BlockId, records: usize) -> Vec<u8> {
    sealed_block_of(Format::CURRENT, id, records)
}

fn sealed_block_of(format: Format, id: BlockId, records: usize) -> Vec<u8> {
    let mut bytes = open_block_of(format, id, records);
    let seal = seal_of(&bytes, id);
    bytes[COMMITTED_AT..SEAL_END].copy_from_slice(&seal.bytes(frame::seed(id)));
    bytes
}

fn codes(part: &Part) -> Vec<&str> {
    part.records().map(|(_, record)| record.code).collect()
}

fn read_id(bytes: Vec<u8>) -> Result<Part, BlockError> {
    read(&bytes.into(), ID)
}

#[test]
fn a_sealed_block_is_read_whole() {
    for records in [0, 1, 8] {
        let part = read_id(sealed_block(ID, records)).unwrap();
        assert_eq!(codes(&part), CODES[..records]);
        assert_eq!((part.header.block, part.header.partitions), (ID, 3));
        assert_eq!((part.header.block_records, part.header.sealed_at), (records as u32, NOW));
    }
}

#[test]
fn what_is_behind_a_blocks_records_does_not_matter() {
    let bytes = sealed_block(ID, 8);
    let used = HEADER_BYTES + committed(&bytes);
    assert_eq!(codes(&read_id(bytes[..used].to_vec()).unwrap()), CODES);
    let mut longer = bytes;
    longer[used..].fill(0xff);
    assert_eq!(codes(&read_id(longer).unwrap()), CODES);
}

#[test]
fn each_damage_has_its_name() {
    let sealed = sealed_block(ID, 8);
    let with = |at: usize, byte: u8| {
        let mut bytes = sealed.clone();
        bytes[at] ^= byte;
        read_id(bytes)
    };
    assert_eq!(read_id(sealed[..100].to_vec()), Err(BlockError::NoBlock("shorter than a header")));
    assert_eq!(with(0, 1), Err(BlockError::NoBlock("it doesn't begin as blocks do")));
    assert_eq!(with(33, 1), Err(BlockError::NoBlock("its header is damaged")));
    assert_eq!(with(8, 1), Err(BlockError::NoBlock("its header is damaged")), "a damaged format is no newer one");
    assert_eq!(with(SEAL_AT, 1), Err(BlockError::Torn));
    assert_eq!(with(COMMITTED_AT, 1), Err(BlockError::Corrupt("its count of bytes is another")));
    assert_eq!(with(HEADER_BYTES + 40, 1), Err(BlockError::Corrupt("its records are not what was sealed")));
    assert_eq!(read_id(sealed[..300].to_vec()), Err(BlockError::Corrupt("it is shorter than it was")));
    assert_eq!(read_id(open_block(ID, 8)), Err(BlockError::Torn));
    assert_eq!(read_id(vec![0; FILE_BYTES]), Err(BlockError::Torn));
}

#[test]
fn a_block_under_anothers_name_is_told() {
    let later = BlockId { seq: 6, ..ID };
    assert_eq!(read_id(sealed_block(later, 2)), Err(BlockError::Recycled(later)));
    let foreign = BlockId { journal: JournalId([8; 16]), ..ID };
    assert_eq!(read_id(sealed_block(foreign, 2)), Err(BlockError::Foreign(foreign)));
}

#[test]
fn a_newer_format_is_told_from_damage() {
    let mut bytes = sealed_block(ID, 2);
    bytes[8..10].copy_from_slice(&(FORMAT + 1).to_le_bytes());
    let checksum = crc32fast::hash(&bytes[..CHECKED_BYTES]);
    bytes[48..52].copy_from_slice(&checksum.to_le_bytes());
    assert_eq!(read_id(bytes.clone()), Err(BlockError::Newer(FORMAT + 1)));
    assert_eq!(recover(&bytes, ID.journal, NOW), Err(BlockError::Newer(FORMAT + 1)));
}

#[test]
fn records_that_are_swapped_or_missing_are_told() {
    let sealed = sealed_block(ID, 3);
    let frames = &sealed[HEADER_BYTES..][..committed(&sealed)];
    let first = Frame::at(Format::CURRENT, frames, 0).unwrap();
    let second = Frame::at(Format::CURRENT, frames, first.end()).unwrap();
    let swapped = [second.bytes, first.bytes, &frames[second.end()..]].concat();
    let mut bytes = sealed.clone();
    bytes[HEADER_BYTES..][..swapped.len()].copy_from_slice(&swapped);
    assert_eq!(read_id(bytes), Err(BlockError::Corrupt("its records are not what was sealed")));
}

#[test]
fn an_open_block_is_cut_behind_its_last_whole_record() {
    let mut bytes = open_block(ID, 8);
    let whole = open_block(ID, 5);
    // The sixth record lost its end: a power cut, for the count had reached the disk.
    let torn_at = HEADER_BYTES + committed(&whole) + 20;
    bytes[torn_at..].fill(0);
    let Ok(Left::Open { id, seal, torn }) = recover(&bytes, ID.journal, NOW) else { panic!("not open") };
    assert_eq!((id, seal.records, seal.length), (ID, 5, committed(&whole) as u64));
    assert_eq!(torn, (committed(&open_block(ID, 8)) - committed(&whole)) as u64);
    bytes[COMMITTED_AT..SEAL_END].copy_from_slice(&seal.bytes(frame::seed(ID)));
    let part = read_id(bytes).unwrap();
    assert_eq!(codes(&part), CODES[..5]);
    assert!(part.header.recovered);
}

#[test]
fn a_record_that_was_not_committed_is_not_recovered() {
    let mut bytes = open_block(ID, 3);
    commit(&mut bytes, committed(&open_block(ID, 2)));
    let Ok(Left::Open { seal, torn, .. }) = recover(&bytes, ID.journal, NOW) else { panic!("not open") };
    assert_eq!((seal.records, torn), (2, 0));
}

#[test]
fn a_recycled_file_never_revives_old_records() {
    let old = BlockId { seq: 4, ..ID };
    let mut bytes = sealed_block(old, 8);
    bytes[..COMMITTED_AT].copy_from_slice(&Header::new(ID, 3, NOW).bytes());
    let new = row_of(Format::CURRENT, &[record("new")], frame::seed(ID));
    let len = new.len();
    bytes[HEADER_BYTES..][..len].copy_from_slice(&new);
    // The count is the old block's, the worst that it could be.
    let Ok(Left::Open { seal, .. }) = recover(&bytes, ID.journal, NOW) else { panic!("not open") };
    assert_eq!((seal.records, seal.length), (1, len as u64));
    bytes[HEADER_BYTES] ^= 1;
    assert_eq!(recover(&bytes, ID.journal, NOW), Err(BlockError::Torn));
    assert_eq!(read_id(bytes), Err(BlockError::Torn), "the old seal seals nothing");
}

#[test]
fn what_is_left_of_a_block_is_told() {
    assert_eq!(recover(&[0; FILE_BYTES], ID.journal, NOW), Ok(Left::Free));
    assert_eq!(recover(&[], ID.journal, NOW), Ok(Left::Free), "a file that was just made");
    assert_eq!(recover(&open_block(ID, 0), ID.journal, NOW), Ok(Left::Empty(ID)));
    assert_eq!(recover(&sealed_block(ID, 2), ID.journal, NOW), Ok(Left::Sealed(ID)));
    assert_eq!(recover(&sealed_block(ID, 2), JournalId([8; 16]), NOW), Err(BlockError::Foreign(ID)));
    assert_eq!(recover(&[0; 100], ID.journal, NOW), Err(BlockError::NoBlock("shorter than a header")));
    let mut lost = open_block(ID, 2);
    lost[..8].fill(0);
    assert!(recover(&lost, ID.journal, NOW).is_err(), "what was committed is not taken for nothing");
}

#[test]
fn the_last_block_of_a_journal_has_no_records() {
    for recovered in [false, true] {
        let bytes = end_block(ID, 3, NOW, recovered);
        let part = read_id(bytes.to_vec()).unwrap();
        assert_eq!((part.header.end, part.header.recovered, part.header.block_records), (true, recovered, 0));
        assert_eq!(sealed_at(&bytes, ID), Ok(NOW));
        assert_eq!(partitions(&bytes, ID), Some(3));
    }
    assert_eq!(sealed_at(&open_block(ID, 1), ID), Err(BlockError::Torn));
}

#[test]
fn the_bytes_of_both_formats_stay_as_they_are() {
    assert_eq!(FORMAT, 2, "write a test of the new format, and keep these");
    for (format, checksum) in [(Format::One, 738_877_262), (Format::Two, 1_318_025_897)] {
        let bytes = sealed_block_of(format, ID, 1);
        let mut expected = b"terseblk\x01\x00\x03\x00\x00\x00\x00\x00".to_vec();
        expected[8] = format.number() as u8;
        expected.extend([7; 16]);
        expected.extend(5_u64.to_le_bytes());
        expected.extend(1_767_323_045_000_i64.to_le_bytes());
        assert_eq!(bytes[..CHECKED_BYTES], expected);
        assert_eq!(crc32fast::hash(&bytes), checksum, "the whole block of {format:?}");
    }
}

#[test]
fn a_block_of_the_format_before_is_read_recovered_and_split() {
    let old = Format::One;
    let part = read_id(sealed_block_of(old, ID, 8)).unwrap();
    assert_eq!(codes(&part), CODES);
    let part = Part::decode(&part.encode()).unwrap();
    assert_eq!(codes(&part), CODES);
    for part in part.split(3) {
        assert!(part.records().all(|(index, read)| read == record(CODES[index as usize])));
        assert_eq!(Part::decode(&part.encode()), Ok(part));
    }
    let mut bytes = open_block_of(old, ID, 8);
    let torn_at = HEADER_BYTES + committed(&open_block_of(old, ID, 5)) + 20;
    bytes[torn_at..].fill(0);
    let Ok(Left::Open { seal, .. }) = recover(&bytes, ID.journal, NOW) else { panic!("not open") };
    bytes[COMMITTED_AT..SEAL_END].copy_from_slice(&seal.bytes(frame::seed(ID)));
    assert_eq!(codes(&read_id(bytes).unwrap()), CODES[..5]);
}

#[test]
fn a_format_that_never_was_is_no_newer_one() {
    let mut bytes = sealed_block(ID, 2);
    bytes[8..10].fill(0);
    let checksum = crc32fast::hash(&bytes[..CHECKED_BYTES]);
    bytes[48..52].copy_from_slice(&checksum.to_le_bytes());
    assert_eq!(read_id(bytes), Err(BlockError::NoBlock("its format never was")));
}

#[test]
fn texts_that_records_share_are_lost_with_none_but_their_own() {
    for records in 1..=8 {
        let mut bytes = open_block(ID, 8);
        let end = HEADER_BYTES + committed(&open_block(ID, records));
        bytes[end..].fill(0);
        let Ok(Left::Open { seal, .. }) = recover(&bytes, ID.journal, NOW) else { panic!("not open") };
        bytes[COMMITTED_AT..SEAL_END].copy_from_slice(&seal.bytes(frame::seed(ID)));
        let part = read_id(bytes).unwrap();
        let read: Vec<_> = part.records().map(|(_, record)| record).collect();
        assert_eq!(read, CODES[..records].iter().map(|code| record(code)).collect::<Vec<_>>());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn damage_to_a_sealed_block_yields_all_records_or_none(
        damage in prop::collection::vec((0..FILE_BYTES, 1_u8..), 1..8),
        len in prop::option::of(0..FILE_BYTES),
    ) {
        let mut bytes = sealed_block(ID, 8);
        for (at, bits) in damage {
            bytes[at] ^= bits;
        }
        bytes.truncate(len.unwrap_or(FILE_BYTES));
        if let Ok(part) = read_id(bytes) {
            prop_assert_eq!(codes(&part), CODES);
        }
    }

    #[test]
    fn damage_to_an_open_block_yields_whole_records_from_the_first_on(
        records in 0..=CODES.len(),
        damage in prop::collection::vec((0..FILE_BYTES, 1_u8..), 0..8),
        len in prop::option::of(0..FILE_BYTES),
    ) {
        let mut bytes = open_block(ID, records);
        for (at, bits) in damage {
            bytes[at] ^= bits;
        }
        bytes.truncate(len.unwrap_or(FILE_BYTES));
        match recover(&bytes, ID.journal, NOW) {
            Ok(Left::Open { id, seal, .. }) => {
                prop_assert_eq!(id, ID);
                prop_assert!(seal.records as usize <= records);
                bytes[COMMITTED_AT..SEAL_END].copy_from_slice(&seal.bytes(frame::seed(ID)));
                let part = read_id(bytes).unwrap();
                prop_assert_eq!(codes(&part), &CODES[..seal.records as usize]);
            }
            Ok(Left::Sealed(_)) => prop_assert!(false, "nobody has sealed it"),
            // Only what committed nothing may be removed, or has no bytes at all.
            Ok(Left::Free) if bytes.is_empty() => {}
            Ok(Left::Free | Left::Empty(_)) => prop_assert_eq!(committed(&bytes), 0),
            Err(_) => {}
        }
    }

    #[test]
    fn any_bytes_are_a_block_or_not_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(read_id(bytes.clone()).is_err());
        let _ = recover(&bytes, ID.journal, NOW);
    }
}
