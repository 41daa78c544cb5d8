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

const _: () = {
    assert!(MAX_LANGUAGE_BYTES <= LENGTH_MASK as usize);
    assert!(MAX_REFERRER_BYTES <= LENGTH_MASK as usize);
    assert!(MAX_USER_AGENT_BYTES <= LENGTH_MASK as usize);
};

/// Where a text stands in a row: its length in the lower 10 bits, its offset in the others. Zero = no text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place(u32);

impl Place {
    /// The place of `len` bytes at `offset`; `None` = beyond what a place can tell.
    pub(super) fn of(offset: usize, len: usize) -> Option<Self> {
        let fits = offset < MAX_ROW_BYTES && len <= LENGTH_MASK as usize;
        fits.then_some(Self((offset as u32) << LENGTH_BITS | len as u32))
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
const SLOT_BITS: u32 = 12;
const SLOTS: usize = 1 << SLOT_BITS;

/// The places that a writer of a row remembers: the last text of each slot, so never more than 4,096.
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

fn slot_of(text: &[u8]) -> usize {
    (digest(text) >> (u64::BITS - SLOT_BITS)) as usize
}

/// A number for `text`: pairs of words multiplied, each for itself, so that a processor takes several at a time. It has no
/// key, so who wants two texts with one number finds them; it must not matter.
pub(crate) fn digest(text: &[u8]) -> u64 {
    const KEYS: [u64; 3] = [0x9e37_79b9_7f4a_7c15, 0xd6e8_feb8_6659_fd93, 0xa076_1d64_78bd_642f];
    let fold = |position: usize, words: [u8; 16]| {
        let words = u128::from_le_bytes(words);
        let (low, high) = (words as u64, (words >> 64) as u64);
        let moved = (position as u64 + 1).wrapping_mul(KEYS[2]);
        let product = u128::from(low ^ KEYS[0] ^ moved) * u128::from(high ^ KEYS[1]);
        (product >> 64) as u64 ^ product as u64
    };
    let (pairs, tail) = text.as_chunks::<16>();
    let mut last = [0; 16];
    last[..tail.len()].copy_from_slice(tail);
    let whole = pairs.iter().enumerate().map(|(position, pair)| fold(position, *pair));
    let sum = whole.fold(fold(pairs.len(), last), u64::wrapping_add);
    let product = u128::from(sum ^ KEYS[1]) * u128::from(text.len() as u64 ^ KEYS[0]);
    (product >> 64) as u64 ^ product as u64
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
        // 500 thrown into 4,096 slots at random take 470 of them, more or less.
        assert!(slots.len() > 450, "{} slots", slots.len());
        let swapped = ("12345678abcdefgh+23456789bcdefghi", "+23456789bcdefghi12345678abcdefgh");
        for (one, other) in [("", "\0"), ("a", "a\0"), ("12345678abcdefgh", "abcdefgh12345678"), swapped] {
            assert_ne!(digest(one.as_bytes()), digest(other.as_bytes()), "{one} {other}");
        }
    }

    #[test]
    fn a_digest_depends_on_every_bit() {
        for len in [1, 7, 8, 15, 16, 17, 32, 111, 512] {
            let mut text = vec![b'x'; len];
            let mut seen = HashSet::from([digest(&text)]);
            for bit in 0..len * 8 {
                text[bit / 8] ^= 1 << (bit % 8);
                assert!(seen.insert(digest(&text)), "bit {bit} of {len} bytes");
                text[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }
}
