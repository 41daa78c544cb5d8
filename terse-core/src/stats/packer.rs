//! Counting clicks in a cell without decoding it.
//!
//! Most of what a row holds stays as it was when some clicks are added. So values that are not among theirs are copied
//! as they stand, in one go; only visitors and newest clicks are read and written anew, where there are some. What comes
//! out is byte for byte what decoding the row, adding to it and encoding it would make; a test says so.

use super::bytes::{Eye, Wrong, put_number, put_text};
use super::newest::Newest;
use super::row::{Cell, FORMAT, told_by};
use super::values::MAX_VALUES;
use super::{MAX_VALUE_BYTES, RowError, SeenClick, Sketch, Values};
use crate::Timestamp;
use crate::click::BlockId;

/// Clicks, summed up to be counted in rows.
#[derive(Debug, Default)]
pub struct Tallied<'t> {
    /// The versions of the rules by which they were told apart, in the order in which they came.
    pub rules: Vec<u16>,
    /// Clicks of people.
    pub clicks: u64,
    /// Clicks of programs.
    pub bots: u64,
    /// What people's clicks were like, in the order of [`Dimension::ALL`](super::Dimension::ALL): each value once, in
    /// the order of their texts.
    pub values: [Vec<TalliedValue<'t>>; 6],
}

/// A value and how often it came.
#[derive(Clone, Copy, Debug)]
pub struct TalliedValue<'t> {
    /// The value, of at most [`MAX_VALUE_BYTES`] bytes.
    pub text: &'t str,
    /// How often.
    pub times: u64,
    /// Which of the values of its dimension it was when it came first.
    pub came: u32,
}

/// What else clicks add to a row.
pub enum Extra<'e> {
    /// Nothing: the row is of an hour.
    Nothing,
    /// The hashes of those who clicked: the row is of a day.
    Visitors(&'e mut dyn Iterator<Item = u64>),
    /// Whatever this does: the row is of all time.
    Newest(&'e mut dyn FnMut(&mut NewestClicks)),
}

/// The newest clicks of a row that is being written.
#[derive(Debug, Default)]
pub struct NewestClicks(Newest);

impl NewestClicks {
    /// As [`Row::would_keep`](super::Row::would_keep).
    #[must_use]
    pub fn would_keep(&self, at: Timestamp, block: BlockId, index: u32) -> bool {
        self.0.would_keep((at.as_millis(), block, index))
    }

    /// As [`Row::keep_newest_of`](super::Row::keep_newest_of).
    pub fn keep(&mut self, clicks: Vec<SeenClick<'_>>) {
        self.0.keep(clicks);
    }

    /// As [`Row::drop_newest_after`](super::Row::drop_newest_after).
    pub fn drop_after(&mut self, latest: Timestamp) {
        self.0.drop_after(latest);
    }
}

/// Makes cells. It keeps the room that this takes, of a row or two.
#[derive(Debug, Default)]
pub struct Packer {
    out: Vec<u8>,
    newest: NewestClicks,
}

impl Packer {
    /// The cell that comes of `before` when clicks are counted in it; `None` = there was no row.
    ///
    /// # Errors
    /// [`RowError`] when `before` is none.
    pub fn count(&mut self, before: Option<&Cell>, tallied: &Tallied<'_>, extra: Extra<'_>) -> Result<Cell, RowError> {
        const NO_ROW: [u8; 18] = [FORMAT, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let older;
        let bytes = match before.map(Cell::bytes) {
            None => &NO_ROW[..],
            Some(bytes) if bytes.first() == Some(&FORMAT) => bytes,
            Some(bytes) => {
                older = super::Row::decode(bytes)?.encode();
                &older
            }
        };
        self.out.clear();
        self.out.push(FORMAT);
        self.merge(&mut Eye { rest: &bytes[1..] }, tallied, extra).map_err(|wrong| RowError::Damaged(wrong.into()))?;
        Ok(Cell::from_bytes(&self.out))
    }

    fn merge(&mut self, eye: &mut Eye<'_>, tallied: &Tallied<'_>, extra: Extra<'_>) -> Result<(), Wrong> {
        let enrichment = u16::try_from(eye.number()?).map_err(|_| "rules beyond all bounds")?;
        let (clicks, bots) = (eye.number()?, eye.number()?);
        let mut any = clicks != 0 || bots != 0;
        let enrichment = tallied.rules.iter().fold(enrichment, |enrichment, rules| {
            let told = told_by(enrichment, any, *rules);
            any = true;
            told
        });
        let sums = [u64::from(enrichment), clicks.saturating_add(tallied.clicks), bots.saturating_add(tallied.bots)];
        sums.into_iter().for_each(|sum| put_number(&mut self.out, sum));
        for added in &tallied.values {
            self.merge_values(eye, added)?;
        }
        let mut visitors = match eye.byte()? {
            0 => None,
            1 => Some(Sketch::read(eye)?),
            _ => return Err("neither visitors nor none"),
        };
        if let Extra::Visitors(hashes) = extra {
            hashes.for_each(|hash| visitors.get_or_insert_default().add(hash));
            self.put_visitors(visitors.as_ref());
            self.out.extend_from_slice(eye.rest);
            return Ok(());
        }
        self.put_visitors(visitors.as_ref());
        match extra {
            Extra::Newest(change) => {
                self.newest.0.read(eye)?;
                change(&mut self.newest);
                self.newest.0.write(&mut self.out);
            }
            _ => self.out.extend_from_slice(eye.rest),
        }
        Ok(())
    }

    fn put_visitors(&mut self, visitors: Option<&Sketch>) {
        match visitors {
            None => self.out.push(0),
            Some(visitors) => {
                self.out.push(1);
                visitors.write(&mut self.out);
            }
        }
    }

    fn merge_values(&mut self, eye: &mut Eye<'_>, added: &[TalliedValue<'_>]) -> Result<(), Wrong> {
        debug_assert!(added.is_sorted_by(|a, b| a.text < b.text), "each value once, in their order");
        let begin = self.out.len();
        let (out, whole) = (&mut self.out, eye.rest);
        let before = eye.count(MAX_VALUES)?;
        let mut named = before;
        // Below 128, so it has one byte whatever it will be.
        out.push(0);
        let (mut left, mut copied) = (added, eye.rest);
        for _ in 0..before {
            let entry = eye.rest;
            let len = eye.count(MAX_VALUE_BYTES)?;
            let name = eye.bytes(len)?;
            let times_at = eye.rest;
            let times = eye.number()?;
            while let Some((first, rest)) = left.split_first() {
                if first.text.as_bytes() > name {
                    break;
                }
                left = rest;
                if first.text.as_bytes() < name {
                    out.extend_from_slice(&copied[..copied.len() - entry.len()]);
                    copied = entry;
                    put_value(out, first);
                    named += 1;
                } else {
                    out.extend_from_slice(&copied[..copied.len() - times_at.len()]);
                    copied = eye.rest;
                    put_number(out, times.saturating_add(first.times));
                }
            }
        }
        out.extend_from_slice(&copied[..copied.len() - eye.rest.len()]);
        left.iter().for_each(|value| put_value(out, value));
        named += left.len();
        if named <= MAX_VALUES {
            out[begin] = named as u8;
            put_number(out, eye.number()?);
            return Ok(());
        }
        // There is no room for all: those that came first get a name.
        out.truncate(begin);
        eye.rest = whole;
        let mut values = Values::default();
        values.read(eye)?;
        let mut by_coming = added.to_vec();
        by_coming.sort_unstable_by_key(|value| value.came);
        by_coming.iter().for_each(|value| values.add(value.text, value.times));
        values.write(out);
        Ok(())
    }
}

fn put_value(out: &mut Vec<u8>, value: &TalliedValue<'_>) {
    put_text(out, value.text);
    put_number(out, value.times);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::row::tests::{click, full_row};
    use super::super::{Dimension, Row, format_one};
    use super::*;

    /// Clicks of which this is known: the rules, whether a program, and a number that its values are made of.
    type Some = Vec<(u16, bool, u32)>;

    fn text(number: u32, dimension: usize) -> String {
        // Some are not known.
        if number.is_multiple_of(5) {
            String::new()
        } else {
            format!("{dimension}-{}", number % (60 + 30 * dimension as u32))
        }
    }

    fn add_one_by_one(row: &mut Row, clicks: &Some) {
        for (rules, bot, number) in clicks {
            row.told_by(*rules);
            if *bot {
                row.bots += 1;
                continue;
            }
            row.clicks += 1;
            for (place, dimension) in Dimension::ALL.into_iter().enumerate() {
                let text = text(*number, place);
                if !text.is_empty() {
                    row.values_mut(dimension).add(&text, 1);
                }
            }
        }
    }

    fn add_tallied(packer: &mut Packer, before: Option<&Cell>, clicks: &Some, extra: Extra<'_>) -> Cell {
        let texts: Vec<[String; 6]> =
            clicks.iter().map(|(_, _, number)| std::array::from_fn(|place| text(*number, place))).collect();
        let mut tallied = Tallied::default();
        for ((rules, bot, _), texts) in clicks.iter().zip(&texts) {
            tallied.rules.push(*rules);
            tallied.bots += u64::from(*bot);
            tallied.clicks += u64::from(!bot);
            for (values, text) in tallied.values.iter_mut().zip(texts).filter(|(_, text)| !bot && !text.is_empty()) {
                match values.iter_mut().find(|value| value.text == text) {
                    Some(value) => value.times += 1,
                    None => values.push(TalliedValue { text, times: 1, came: values.len() as u32 }),
                }
            }
        }
        tallied.values.iter_mut().for_each(|values| values.sort_by_key(|value| value.text));
        packer.count(before, &tallied, extra).unwrap()
    }

    #[test]
    fn a_cell_of_the_format_before_becomes_one_of_today() {
        let before = Cell::from_bytes(&format_one::encode(&full_row()));
        let mut row = full_row();
        add_one_by_one(&mut row, &vec![(1, false, 3)]);
        assert_eq!(
            add_tallied(&mut Packer::default(), Some(&before), &vec![(1, false, 3)], Extra::Nothing),
            Cell::of(&row)
        );
    }

    #[test]
    fn what_is_no_cell_is_refused() {
        let sound = Cell::of(&full_row());
        for len in 0..sound.bytes().len() {
            let cut = Cell::from_bytes(&sound.bytes()[..len]);
            let counted = Packer::default().count(Some(&cut), &Tallied::default(), Extra::Newest(&mut |_| ()));
            assert!(counted.is_err(), "cut to {len} bytes");
        }
    }

    proptest! {
        #[test]
        fn counting_in_a_cell_is_counting_in_its_row(
            steps in prop::collection::vec(prop::collection::vec((1_u16..3, prop::bool::weighted(0.2), 0_u32..300), 0..80), 1..5),
        ) {
            let (mut packer, mut rows, mut cells) = (Packer::default(), [const { None }; 3], [const { None }; 3]);
            for (number, clicks) in steps.iter().enumerate() {
                let hashes: Vec<u64> = clicks.iter().map(|(_, _, number)| u64::from(*number) << 32).collect();
                let newest: Vec<_> = (0..clicks.len()).map(|n| click(n as i64, 1, number as u64, n as u32)).collect();
                for kind in 0..3 {
                    let row: &mut Row = rows[kind].get_or_insert_default();
                    add_one_by_one(row, clicks);
                    let mut hashes = hashes.iter().copied();
                    let mut keep = |kept: &mut NewestClicks| {
                        kept.drop_after(Timestamp::from_millis(50));
                        kept.keep(newest.iter().map(super::super::NewestClick::seen).collect());
                    };
                    let extra = match kind {
                        0 => Extra::Nothing,
                        1 => {
                            hashes.clone().for_each(|hash| row.visitors.get_or_insert_default().add(hash));
                            Extra::Visitors(&mut hashes)
                        }
                        _ => {
                            row.drop_newest_after(Timestamp::from_millis(50));
                            row.keep_newest_of(newest.iter().map(super::super::NewestClick::seen).collect());
                            Extra::Newest(&mut keep)
                        }
                    };
                    let cell = add_tallied(&mut packer, cells[kind].as_ref(), clicks, extra);
                    prop_assert_eq!(&cell, &Cell::of(row));
                    cells[kind] = Some(cell);
                }
            }
        }

        #[test]
        fn any_bytes_are_counted_in_or_refused(bytes in prop::collection::vec(0_u8..7, 0..120)) {
            let cell = Cell::from_bytes(&[&[FORMAT][..], &bytes].concat());
            let mut packer = Packer::default();
            if cell.row().is_ok() {
                let counted = packer.count(Some(&cell), &Tallied::default(), Extra::Newest(&mut |_| ())).unwrap();
                prop_assert_eq!(counted.row().unwrap(), cell.row().unwrap());
            } else {
                drop(packer.count(Some(&cell), &Tallied::default(), Extra::Newest(&mut |_| ())));
            }
        }
    }
}
