//! How often which value was seen: bounded in number and length.

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use super::bytes::{Eye, Wrong, put_number, put_text};

/// Most different values that are counted by name in one row; more are counted together as [`Values::other`].
pub const MAX_VALUES: usize = 100;
/// Most bytes of a value; a longer one is cut between characters.
pub const MAX_VALUE_BYTES: usize = 100;

/// Counts of values, the first [`MAX_VALUES`] that came by name. Values are as enrichment tells them: whoever prints
/// them escapes them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Encoded")]
pub struct Values {
    /// In the order of their names.
    named: Vec<(CompactString, u64)>,
    /// Of those that found no room.
    other: u64,
}

/// What was read, before its bounds are checked.
#[derive(Deserialize)]
struct Encoded {
    named: Vec<(CompactString, u64)>,
    other: u64,
}

impl TryFrom<Encoded> for Values {
    type Error = &'static str;

    fn try_from(Encoded { named, other }: Encoded) -> Result<Self, Self::Error> {
        if named.len() > MAX_VALUES {
            return Err("too many values");
        }
        if named.iter().any(|(name, _)| name.len() > MAX_VALUE_BYTES) {
            return Err("a value that is too long");
        }
        if !named.is_sorted_by(|(a, _), (b, _)| a < b) {
            return Err("values out of order");
        }
        Ok(Self { named, other })
    }
}

/// The first [`MAX_VALUE_BYTES`] of `value`, cut between characters.
#[must_use]
pub(super) fn cut(value: &str) -> &str {
    &value[..value.floor_char_boundary(MAX_VALUE_BYTES)]
}

/// What the allocator takes besides each allocation, about.
pub(super) const ALLOCATION_BYTES: usize = 16;

/// What `text` takes of the heap, in bytes.
pub(super) fn text_bytes(text: &CompactString) -> usize {
    if text.is_heap_allocated() { text.capacity() + ALLOCATION_BYTES } else { 0 }
}

impl Values {
    /// What it takes of the heap, in bytes.
    pub(super) fn heap_bytes(&self) -> usize {
        let list = self.named.capacity() * size_of::<(CompactString, u64)>() + ALLOCATION_BYTES;
        let texts: usize = self.named.iter().map(|(name, _)| text_bytes(name)).sum();
        if self.named.capacity() == 0 { 0 } else { list + texts }
    }

    /// Appends them to a cell, as postcard would.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        put_number(out, self.named.len() as u64);
        for (name, times) in &self.named {
            put_text(out, name);
            put_number(out, *times);
        }
        put_number(out, self.other);
    }

    /// Becomes what [`Values::write`] wrote.
    pub(super) fn read(&mut self, eye: &mut Eye<'_>) -> Result<(), Wrong> {
        self.named.clear();
        for _ in 0..eye.count(MAX_VALUES)? {
            let name = eye.text(MAX_VALUE_BYTES)?;
            if self.named.last().is_some_and(|(before, _)| before.as_str() >= name) {
                return Err("values out of order");
            }
            let times = eye.number()?;
            self.named.push((name.into(), times));
        }
        self.other = eye.number()?;
        Ok(())
    }

    /// Counts `value` `times` more.
    pub fn add(&mut self, value: &str, times: u64) {
        let value = cut(value);
        match self.named.binary_search_by(|(name, _)| name.as_str().cmp(value)) {
            Ok(place) => self.named[place].1 = self.named[place].1.saturating_add(times),
            Err(place) if self.named.len() < MAX_VALUES => self.named.insert(place, (value.into(), times)),
            Err(_) => self.other = self.other.saturating_add(times),
        }
    }

    /// Counts all of `more`, too.
    pub fn merge(&mut self, more: &Self) {
        for (name, times) in &more.named {
            self.add(name, *times);
        }
        self.other = self.other.saturating_add(more.other);
    }

    /// The values with their counts, largest first, then by name.
    #[must_use]
    pub fn largest_first(&self) -> Vec<(&str, u64)> {
        let mut sorted: Vec<(&str, u64)> = self.named.iter().map(|(name, times)| (name.as_str(), *times)).collect();
        sorted.sort_by_key(|(_, times)| std::cmp::Reverse(*times));
        sorted
    }

    /// How often something came that found no room.
    #[must_use]
    pub fn other(&self) -> u64 {
        self.other
    }

    /// The sum of all counts.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.named.iter().fold(self.other, |sum, (_, times)| sum.saturating_add(*times))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values_of<'a>(names: impl IntoIterator<Item = &'a str>) -> Values {
        let mut values = Values::default();
        names.into_iter().for_each(|name| values.add(name, 1));
        values
    }

    fn read(bytes: &[u8]) -> Result<Values, postcard::Error> {
        postcard::from_bytes(bytes)
    }

    #[test]
    fn values_are_told_largest_first_then_by_name() {
        let values = values_of(["b", "a", "c", "c", "", "b", "a"]);
        assert_eq!(values.largest_first(), [("a", 2), ("b", 2), ("c", 2), ("", 1)]);
        assert_eq!((values.other(), values.total()), (0, 7));
    }

    #[test]
    fn more_values_than_there_is_room_for_are_counted_together() {
        let names: Vec<String> = (0..MAX_VALUES + 50).map(|number| format!("n{number:04}")).collect();
        let mut values = values_of(names.iter().map(String::as_str));
        assert_eq!(values.largest_first().len(), MAX_VALUES);
        assert_eq!((values.other(), values.total()), (50, MAX_VALUES as u64 + 50));
        values.add("n0000", 5);
        assert_eq!(values.largest_first()[0], ("n0000", 6), "one that has a name keeps it");
        values.add("aaaa", 1);
        assert_eq!(values.other(), 51);
    }

    #[test]
    fn long_values_are_cut_between_characters() {
        let long = "ä".repeat(MAX_VALUE_BYTES);
        let values = values_of([long.as_str(), &format!("x{long}")]);
        let lens: Vec<usize> = values.largest_first().iter().map(|(name, _)| name.len()).collect();
        assert_eq!(lens, [99, 100]);
    }

    #[test]
    fn counts_stop_at_the_largest_number() {
        let mut values = Values::default();
        values.add("a", u64::MAX);
        values.add("a", 1);
        values.merge(&values.clone());
        values.add("b", 1);
        assert_eq!(values.total(), u64::MAX);
    }

    #[test]
    fn bytes_beyond_the_bounds_are_refused() {
        let written = |named: Vec<(CompactString, u64)>| postcard::to_stdvec(&(named, 0_u64)).unwrap();
        let numbered = |count: usize| (0..count).map(|number| (format!("{number:09}").into(), 1)).collect();
        assert_eq!(read(&written(numbered(MAX_VALUES))).unwrap().total(), MAX_VALUES as u64);
        assert!(read(&written(numbered(MAX_VALUES + 1))).is_err());
        assert!(read(&written(vec![("x".repeat(MAX_VALUE_BYTES).into(), 1)])).is_ok());
        assert!(read(&written(vec![("x".repeat(MAX_VALUE_BYTES + 1).into(), 1)])).is_err());
        assert!(read(&written(vec![("b".into(), 1), ("a".into(), 1)])).is_err());
        assert!(read(&written(vec![("a".into(), 1), ("a".into(), 1)])).is_err());
        assert!(read(&[0xff, 0xff, 0xff, 0xff, 0x0f]).is_err(), "a length without content");
    }

    proptest! {
        #[test]
        fn order_does_not_matter_while_there_is_room(mut names in prop::collection::vec("[a-d]{0,2}", 0..80)) {
            let forwards = values_of(names.iter().map(String::as_str));
            let (first, last) = names.split_at(names.len() / 3);
            let mut merged = values_of(last.iter().map(String::as_str));
            merged.merge(&values_of(first.iter().map(String::as_str)));
            prop_assert_eq!(&merged, &forwards);
            names.sort();
            prop_assert_eq!(&values_of(names.iter().map(String::as_str)), &forwards);
            prop_assert_eq!(forwards.total(), names.len() as u64);
        }

        #[test]
        fn bounds_hold_for_any_text_and_what_was_written_is_read(names in prop::collection::vec(".{0,150}", 0..140)) {
            let values = values_of(names.iter().map(String::as_str));
            prop_assert!(values.largest_first().len() <= MAX_VALUES);
            prop_assert!(values.largest_first().iter().all(|(name, _)| name.len() <= MAX_VALUE_BYTES));
            prop_assert_eq!(values.total(), names.len() as u64);
            prop_assert_eq!(read(&postcard::to_stdvec(&values).unwrap()).unwrap(), values);
        }
    }
}
