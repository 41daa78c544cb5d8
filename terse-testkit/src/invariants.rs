//! What must hold, as plain functions that panic with the counter-example.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;
use std::ops::Range;

/// No two of `ranges` share a number. Empty ranges share nothing.
///
/// # Panics
/// When two of them overlap.
#[track_caller]
pub fn assert_disjoint(ranges: &[Range<u64>]) {
    let mut sorted: Vec<_> = ranges.iter().filter(|range| !range.is_empty()).collect();
    sorted.sort_by_key(|range| range.start);
    for pair in sorted.windows(2) {
        assert!(pair[0].end <= pair[1].start, "{:?} and {:?} overlap", pair[0], pair[1]);
    }
}

/// No two of `items` are equal.
///
/// # Panics
/// When two of them are.
#[track_caller]
pub fn assert_distinct<T: Eq + Hash + Debug>(items: impl IntoIterator<Item = T>) {
    let mut seen = HashSet::new();
    for item in items {
        if let Some(twice) = seen.replace(item) {
            panic!("{twice:?} is there twice");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adjoining_and_empty_ranges_are_disjoint() {
        assert_disjoint(&[10..20, 0..10, 20..21, 5..5]);
    }

    #[test]
    #[should_panic(expected = "0..11 and 10..20 overlap")]
    fn overlapping_ranges_are_found() {
        assert_disjoint(&[10..20, 0..11]);
    }

    #[test]
    fn distinct_items_pass() {
        assert_distinct(["a", "b", "c"]);
    }

    #[test]
    #[should_panic(expected = "\"a\" is there twice")]
    fn equal_items_are_found() {
        assert_distinct(["a", "b", "a"]);
    }
}
