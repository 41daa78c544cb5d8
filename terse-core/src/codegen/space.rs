//! From ids to codes, length by length.

use super::permutation::{BASE, Permutation};
use crate::ShortCode;
use crate::code::LETTERS;

/// Letters of the first codes.
const FIRST_LENGTH: u8 = 7;
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
fn base62(number: u64, length: u8) -> Option<ShortCode> {
    let mut letters = [0; LAST_LENGTH as usize];
    let letters = &mut letters[..usize::from(length)];
    let mut rest = number;
    for letter in letters.iter_mut().rev() {
        *letter = LETTERS[(rest % BASE) as usize];
        rest /= BASE;
    }
    ShortCode::parse(std::str::from_utf8(letters).ok()?).ok()
}
