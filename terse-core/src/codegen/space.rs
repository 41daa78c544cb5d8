//! From ids to codes, length by length.

use super::permutation::{BASE, Permutation};
use crate::ShortCode;
use crate::code::LETTERS;

/// Letters of the first codes.
pub(super) const FIRST_LENGTH: u8 = 7;
/// Letters of the last codes. All ids up to them fit 64 bits, and so do the permuted numbers.
const LAST_LENGTH: u8 = 10;

/// The deployment's permutation of the code space.
#[derive(Clone)]
pub struct CodeSpace {
    key: [u8; 16],
    first_length: u8,
}

impl CodeSpace {
    /// The space of 7 letters and more under `key`.
    #[must_use]
    pub fn new(key: [u8; 16]) -> Self {
        Self::with_first_length(key, FIRST_LENGTH)
    }

    /// The space of `first_length` letters and more under `key`, for tests of
    /// the roll-over to a longer code. It is clamped to 1 to 10 letters.
    #[must_use]
    pub fn with_first_length(key: [u8; 16], first_length: u8) -> Self {
        Self { key, first_length: first_length.clamp(1, LAST_LENGTH) }
    }

    /// The code of `id`: the first 62⁷ ids have 7 letters, the next 62⁸ have 8,
    /// and so on. `None` when the codes of 10 letters are used up, too.
    #[must_use]
    pub fn code(&self, id: u64) -> Option<ShortCode> {
        let mut rest = id;
        for length in self.first_length..=LAST_LENGTH {
            let size = Permutation::size(length);
            if rest < size {
                return base62(Permutation::new(&self.key, length).apply(rest), length);
            }
            rest -= size;
        }
        None
    }
}

/// `number` in base62, most significant letter first, exactly `length` letters.
pub(super) fn base62(number: u64, length: u8) -> Option<ShortCode> {
    let mut letters = [0; LAST_LENGTH as usize];
    let letters = &mut letters[..usize::from(length)];
    let mut rest = number;
    for letter in letters.iter_mut().rev() {
        *letter = LETTERS[(rest % BASE) as usize];
        rest /= BASE;
    }
    ShortCode::parse(std::str::from_utf8(letters).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::Slot;

    const KEY: [u8; 16] = *b"terse test key 1";
    const SEVEN: u64 = 3_521_614_606_208;
    const EIGHT: u64 = 218_340_105_584_896;

    fn text(space: &CodeSpace, id: u64) -> String {
        space.code(id).unwrap().as_str().to_owned()
    }

    /// Frozen. If one of these changes, running deployments would hand out
    /// codes again that they have handed out before: never adapt them, repair
    /// what changed.
    #[test]
    fn codes_are_what_they_always_were() {
        let vectors: [([u8; 16], u64, &str); 12] = [
            ([0; 16], 0, "tLjc1x1"),
            ([0; 16], 1, "SWf3WX5"),
            (KEY, 0, "WUpGgGM"),
            (KEY, 1, "1MrZAKw"),
            (KEY, 2, "v0RKE6j"),
            (KEY, 1_000_000, "nc2LlV7"),
            (KEY, SEVEN - 1, "gOSBbkU"),
            (KEY, SEVEN, "62qjxTpt"),
            (KEY, SEVEN + 1, "3pR5uWBX"),
            (KEY, SEVEN + EIGHT, "1Ge8cfkzY"),
            (KEY, u64::MAX >> 7, "xoJ26WdOCI"),
            ([0xff; 16], 123_456_789, "G3ZFKlo"),
        ];
        let found = vectors.map(|(key, id, _)| text(&CodeSpace::new(key), id));
        assert_eq!(found, vectors.map(|(.., code)| code.to_owned()));
    }

    #[test]
    fn codes_grow_by_a_letter_when_a_length_is_used_up() {
        let space = CodeSpace::new(KEY);
        let lengths = [0, SEVEN - 1, SEVEN, SEVEN + EIGHT - 1, SEVEN + EIGHT].map(|id| text(&space, id).len());
        assert_eq!(lengths, [7, 7, 8, 8, 9]);
    }

    #[test]
    fn a_tiny_space_rolls_over_without_a_repeat() {
        let space = CodeSpace::with_first_length(KEY, 1);
        let codes: Vec<String> = (0..62 + 3_844 + 100).map(|id| text(&space, id)).collect();
        assert!(codes[..62].iter().all(|code| code.len() == 1));
        assert!(codes[62..62 + 3_844].iter().all(|code| code.len() == 2));
        assert!(codes[62 + 3_844..].iter().all(|code| code.len() == 3));
        assert_eq!(codes.iter().collect::<HashSet<_>>().len(), codes.len());
    }

    #[test]
    fn after_ten_letters_there_is_no_code() {
        let last = (7..=10).map(Permutation::size).sum::<u64>() - 1;
        let space = CodeSpace::new(KEY);
        assert_eq!(text(&space, last).len(), 10);
        assert_eq!(space.code(last + 1), None);
        assert_eq!(space.code(u64::MAX), None);
    }

    #[test]
    fn the_first_length_is_kept_within_bounds() {
        assert_eq!(text(&CodeSpace::with_first_length(KEY, 0), 0).len(), 1);
        assert_eq!(text(&CodeSpace::with_first_length(KEY, 200), 0).len(), 10);
    }

    #[test]
    fn base62_writes_the_most_significant_letter_first() {
        let written = [0, 61, 62, 62 * 62 + 2 * 62 + 3].map(|n| base62(n, 4).unwrap().as_str().to_owned());
        assert_eq!(written, ["0000", "000z", "0010", "0123"]);
    }

    #[test]
    fn neighbouring_ids_spread_over_all_shards() {
        const IDS: u64 = 200_000;
        let space = CodeSpace::new(KEY);
        let mut counts = [0_u64; 16];
        for id in 0..IDS {
            counts[usize::from(space.code(id).unwrap().slot().number() / (Slot::COUNT / 16))] += 1;
        }
        // Slots count 64 letters, but generated codes begin with 62 of them: a
        // range of 256 slots is four first letters, the last one just two.
        for (shard, count) in counts.iter().enumerate() {
            let letters = if shard == 15 { 2 } else { 4 };
            let expected = IDS * letters / 62;
            let off = count.abs_diff(expected) as f64 / expected as f64;
            assert!(off < 0.03, "shard {shard} has {count} of {expected}");
        }
    }
}
