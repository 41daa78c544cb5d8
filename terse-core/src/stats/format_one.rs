//! Cells of format 1, which releases before this one wrote: the postcard encoding of a row, each of its newest clicks
//! with all its texts.

use compact_str::CompactString;
use serde::Deserialize;

use super::{MAX_VALUE_BYTES, NEWEST_CLICKS, NewestClick, Row, RowError, Sketch, Values};
use crate::Timestamp;
use crate::click::BlockId;

pub(super) const FORMAT: u8 = 1;

#[derive(Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
struct EncodedRow {
    enrichment: u16,
    clicks: u64,
    bots: u64,
    values: [Values; 6],
    visitors: Option<Sketch>,
    newest: Vec<EncodedClick>,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
struct EncodedClick {
    at_ms: i64,
    block: BlockId,
    index: u32,
    values: [CompactString; 6],
    bot: bool,
}

/// The row of which `bytes` are what follows the letter of format.
pub(super) fn decode(bytes: &[u8]) -> Result<Row, RowError> {
    let damaged = |wrong: &str| RowError::Damaged(wrong.to_owned());
    let (read, more): (EncodedRow, _) =
        postcard::take_from_bytes(bytes).map_err(|error| damaged(&error.to_string()))?;
    if !more.is_empty() {
        return Err(damaged("bytes behind its end"));
    }
    if read.newest.len() > NEWEST_CLICKS {
        return Err(damaged("too many newest clicks"));
    }
    if !read.newest.is_sorted_by(|newer, older| order(newer) > order(older)) {
        return Err(damaged("newest clicks out of order"));
    }
    let mut row = Row::default();
    (row.enrichment, row.clicks, row.bots) = (read.enrichment, read.clicks, read.bots);
    (row.values, row.visitors) = (read.values, read.visitors);
    let newest: Result<Vec<NewestClick>, RowError> = read.newest.into_iter().map(click).collect();
    row.keep_newest_of(newest?.iter().map(NewestClick::seen).collect());
    Ok(row)
}

fn order(click: &EncodedClick) -> (i64, BlockId, u32) {
    (click.at_ms, click.block, click.index)
}

fn click(read: EncodedClick) -> Result<NewestClick, RowError> {
    let EncodedClick { at_ms, block, index, values, bot } = read;
    let at = Timestamp::from_millis(at_ms);
    if at.as_millis() != at_ms {
        return Err(RowError::Damaged("a click of no time that can be told".to_owned()));
    }
    if values.iter().any(|value| value.len() > MAX_VALUE_BYTES) {
        return Err(RowError::Damaged("a value that is too long".to_owned()));
    }
    Ok(NewestClick::new(at, block, index, values, bot))
}

/// What format 1 has for `row`.
#[cfg(test)]
pub(super) fn encode(row: &Row) -> Vec<u8> {
    use super::Dimension;
    let click = |click: NewestClick| EncodedClick {
        at_ms: click.at().as_millis(),
        block: click.block,
        index: click.index,
        values: Dimension::ALL.map(|dimension| click.value(dimension).unwrap_or_default().into()),
        bot: click.bot,
    };
    let read = EncodedRow {
        enrichment: row.enrichment,
        clicks: row.clicks,
        bots: row.bots,
        values: row.values.clone(),
        visitors: row.visitors.clone(),
        newest: row.newest().into_iter().map(click).collect(),
    };
    postcard::to_extend(&read, vec![FORMAT]).unwrap()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::row::tests::{click, full_row};
    use super::*;

    #[test]
    fn what_releases_before_wrote_is_read() {
        let bytes = encode(&full_row());
        assert_eq!((bytes.len(), crc32fast::hash(&bytes)), (292, 0x39fd_4972), "the bytes of format 1");
        assert_eq!(Row::decode(&bytes).unwrap(), full_row());
        assert_eq!(Row::decode(&[&[FORMAT][..], &[0; 17]].concat()).unwrap(), Row::default());
        assert_ne!(Row::decode(&bytes).unwrap().encode(), bytes, "it is written in the format of today");
    }

    #[test]
    fn what_is_beyond_the_bounds_is_refused() {
        let bytes = encode(&full_row());
        for len in 1..bytes.len() {
            assert!(matches!(Row::decode(&bytes[..len]), Err(RowError::Damaged(_))), "cut to {len} bytes");
        }
        assert!(matches!(Row::decode(&[&bytes[..], &[0]].concat()), Err(RowError::Damaged(_))));
        let newest = |orders: &[u32], at_ms: i64, value: &str| {
            let click = |index: &u32| EncodedClick {
                at_ms,
                block: click(0, 1, 1, 1).block,
                index: *index,
                values: [const { CompactString::const_new("") }; 6].map(|_| value.into()),
                bot: false,
            };
            let row = EncodedRow {
                enrichment: 1,
                clicks: 0,
                bots: 0,
                values: Default::default(),
                visitors: None,
                newest: orders.iter().map(click).collect(),
            };
            Row::decode(&postcard::to_extend(&row, vec![FORMAT]).unwrap()).map(|row| row.newest().len())
        };
        let all: Vec<u32> = (0..=NEWEST_CLICKS as u32).rev().collect();
        assert_eq!(newest(&all[1..], 5, "x"), Ok(NEWEST_CLICKS));
        assert!(newest(&all, 5, "x").is_err(), "one too many");
        assert!(newest(&[1, 1], 5, "x").is_err(), "the same click twice");
        assert!(newest(&[1, 2], 5, "x").is_err(), "the older first");
        assert!(newest(&[1], i64::MAX, "x").is_err(), "a time beyond all");
        assert!(newest(&[1], 5, &"x".repeat(MAX_VALUE_BYTES + 1)).is_err(), "a value that is too long");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 1..600), small: bool) {
            bytes[0] = FORMAT;
            if small {
                bytes.iter_mut().skip(1).for_each(|byte| *byte %= 4);
            }
            if let Ok(row) = Row::decode(&bytes) {
                prop_assert!(row.newest().len() <= NEWEST_CLICKS);
                prop_assert_eq!(Row::decode(&row.encode()).unwrap(), row);
            }
        }
    }
}
