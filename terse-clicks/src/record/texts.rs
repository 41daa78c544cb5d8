//! Texts that are written once: where they stand in a row of frames, and which of them a writer remembers.
//!
//! Few browsers, languages and referrers make up most clicks, and they are most of a record's bytes. So a record names
//! its texts by their places in the row: its own bytes for one that is new, those of an earlier record for one that
//! stands there already. A row that is cut behind any record loses no text of those before.

use super::{MAX_LANGUAGE_BYTES, MAX_REFERRER_BYTES, MAX_USER_AGENT_BYTES};

/// Bits of a place that tell the length.
const LENGTH_BITS: u32 = 10;
const LENGTH_MASK: u32 = (1 << LENGTH_BITS) - 1;
/// No row of frames is longer, for places tell no more.
pub const MAX_ROW_BYTES: usize = 1 << (u32::BITS - LENGTH_BITS);

const _: () = assert!(
    MAX_LANGUAGE_BYTES <= LENGTH_MASK as usize
        && MAX_REFERRER_BYTES <= LENGTH_MASK as usize
        && MAX_USER_AGENT_BYTES <= LENGTH_MASK as usize
);

/// Where a text stands in a row: its length in the lower 10 bits, its offset in the others. Zero = no text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place(u32);

impl Place {
    /// The place of `len` bytes at `offset`; `None` = beyond what a place can tell.
    pub(super) fn of(offset: usize, len: usize) -> Option<Self> {
        let fits = offset < MAX_ROW_BYTES && len <= LENGTH_MASK as usize;
        fits.then(|| Self((offset as u32) << LENGTH_BITS | len as u32))
    }

    pub(super) const fn from_le_bytes(bytes: [u8; 4]) -> Self {
        Self(u32::from_le_bytes(bytes))
    }

    pub(super) const fn to_le_bytes(self) -> [u8; 4] {
        self.0.to_le_bytes()
    }

    pub(super) const fn offset(self) -> usize {
        (self.0 >> LENGTH_BITS) as usize
    }

    pub(super) const fn len(self) -> usize {
        (self.0 & LENGTH_MASK) as usize
    }

    /// What stands there; `None` = it isn't within `row`.
    pub(super) fn within(self, row: &[u8]) -> Option<&[u8]> {
        row.get(self.offset()..self.offset() + self.len())
    }
}

/// Bits of a slot's number.
const SLOT_BITS: u32 = 10;
const SLOTS: usize = 1 << SLOT_BITS;

/// The places that a writer of a row remembers: the last text of each slot, so never more than 1,024.
///
/// A place is believed only when the text is found there, so what is remembered of another row, or of nothing, costs
/// space and nothing else.
#[derive(Clone, Debug)]
pub struct Texts {
    places: Box<[Place]>,
}

impl Default for Texts {
    fn default() -> Self {
        Self { places: vec![Place::default(); SLOTS].into() }
    }
}

impl Texts {
    /// Where `text` stands in the row that begins with `before`; else the slot for it.
    pub(super) fn find(&self, text: &[u8], before: &[u8]) -> Result<Place, usize> {
        let slot = slot_of(text);
        let place = self.places[slot];
        if place.within(before) == Some(text) { Ok(place) } else { Err(slot) }
    }

    /// From now on the text of this slot is that at `place`.
    pub(super) fn remember(&mut self, slot: usize, place: Place) {
        self.places[slot] = place;
    }
}

/// Words that are summed up each for itself, so that a processor takes several at a time. Who aims at one slot makes
/// the row longer, no more.
fn slot_of(text: &[u8]) -> usize {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let word_sum = |sum: u64, at: usize, word: [u8; 8]| {
        let position = (at as u64).wrapping_mul(0xd6e8_feb8_6659_fd93);
        let mixed = (u64::from_le_bytes(word) ^ position).wrapping_mul(ODD);
        sum.wrapping_add(mixed ^ mixed >> 32)
    };
    let (words, tail) = text.as_chunks::<8>();
    let mut sum = text.len() as u64;
    for (at, word) in words.iter().enumerate() {
        sum = word_sum(sum, at, *word);
    }
    let mut last = [0; 8];
    last[..tail.len()].copy_from_slice(tail);
    sum = word_sum(sum, words.len(), last);
    (sum.wrapping_mul(ODD) >> (u64::BITS - SLOT_BITS)) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_place_tells_offset_and_length() {
        for (offset, len) in [(0, 1), (0, 512), (MAX_ROW_BYTES - 1, 1_023), (4_711, 64)] {
            let place = Place::of(offset, len).unwrap();
            assert_eq!((place.offset(), place.len()), (offset, len));
            assert_eq!(Place::from_le_bytes(place.to_le_bytes()), place);
        }
        assert_eq!(Place::of(MAX_ROW_BYTES, 1), None);
        assert_eq!(Place::of(0, 1_024), None);
    }

    #[test]
    fn a_place_beyond_its_row_holds_nothing() {
        let place = Place::of(2, 3).unwrap();
        assert_eq!(place.within(b"abcde"), Some(&b"cde"[..]));
        assert_eq!(place.within(b"abcd"), None);
        assert_eq!(Place::of(MAX_ROW_BYTES - 1, 1_023).unwrap().within(b"abcd"), None);
    }

    #[test]
    fn a_text_is_found_where_it_stands_and_nowhere_else() {
        let mut texts = Texts::default();
        let slot = texts.find(b"text", b"a text").unwrap_err();
        let place = Place::of(2, 4).unwrap();
        texts.remember(slot, place);
        assert_eq!(texts.find(b"text", b"a text"), Ok(place));
        assert_eq!(texts.find(b"text", b"a tex"), Err(slot), "the row ends before it does");
        assert_eq!(texts.find(b"text", b"no text here"), Err(slot), "another row");
    }

    #[test]
    fn texts_that_differ_little_are_told_apart() {
        let agents = (0..500).map(|n| format!("Mozilla/5.0 (X11; Linux x86_64) Chrome/{n}.0.0.0 Safari/537.36"));
        let slots: HashSet<usize> = agents.map(|agent| slot_of(agent.as_bytes())).collect();
        // 500 thrown into 1,024 slots at random take 396 of them, more or less.
        assert!(slots.len() > 350, "{} slots", slots.len());
        for (one, other) in [("", "\0"), ("a", "a\0"), ("12345678abcdefgh", "abcdefgh12345678")] {
            assert_ne!(slot_of(one.as_bytes()), slot_of(other.as_bytes()), "{one} {other}");
        }
    }
}
