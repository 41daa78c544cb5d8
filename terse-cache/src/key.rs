//! A code as the key of the links in memory: 16 bytes, where a [`ShortCode`]
//! takes 24, for there are as many of them as links.
//!
//! It is the whole code: one of more than [`INLINE_LETTERS`] letters stands in an allocation of its own.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};

use terse_core::ShortCode;

/// Letters that are kept without an allocation: twice those of a generated code.
const INLINE_LETTERS: usize = 14;

/// Letters that a [`ShortCode`] keeps without a further allocation.
const BOXED_LETTERS: usize = 24;

/// What a boxed code takes of the heap, in bytes; a longer one takes its letters besides.
const BOXED_BYTES: usize = 32;

/// A whole code.
#[derive(Clone)]
pub(crate) enum CodeKey {
    Inline { length: u8, letters: [u8; INLINE_LETTERS] },
    Boxed(Box<ShortCode>),
}

impl CodeKey {
    pub(crate) fn of(code: &ShortCode) -> Self {
        let text = code.as_str().as_bytes();
        let mut letters = [0; INLINE_LETTERS];
        match letters.get_mut(..text.len()) {
            Some(room) => {
                room.copy_from_slice(text);
                Self::Inline { length: text.len() as u8, letters }
            }
            None => Self::Boxed(Box::new(code.clone())),
        }
    }

    /// The code again; always `Some`, since it was made of one.
    pub(crate) fn code(&self) -> Option<ShortCode> {
        ShortCode::parse(std::str::from_utf8(self.letters()).ok()?).ok()
    }

    /// What this takes of the heap, in bytes.
    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            Self::Inline { .. } => 0,
            Self::Boxed(code) if code.as_str().len() <= BOXED_LETTERS => BOXED_BYTES,
            Self::Boxed(code) => BOXED_BYTES + code.as_str().len(),
        }
    }

    fn letters(&self) -> &[u8] {
        match self {
            Self::Inline { length, letters } => &letters[..usize::from(*length)],
            Self::Boxed(code) => code.as_str().as_bytes(),
        }
    }
}

impl PartialEq for CodeKey {
    fn eq(&self, other: &Self) -> bool {
        self.letters() == other.letters()
    }
}

impl Eq for CodeKey {}

/// Look-ups by letters need the hash of a key to be the hash of its letters.
impl Hash for CodeKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.letters().hash(state);
    }
}

impl Borrow<[u8]> for CodeKey {
    fn borrow(&self) -> &[u8] {
        self.letters()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use terse_testkit::links::code;

    use super::*;

    #[test]
    fn a_key_is_the_whole_code() {
        for length in 1..=ShortCode::MAX_LEN {
            let text: String = ('a'..='z').cycle().take(length).collect();
            let key = CodeKey::of(&code(&text));
            assert_eq!(key.code(), Some(code(&text)));
            for (position, _) in text.char_indices() {
                let mut other = text.clone();
                other.replace_range(position..=position, "-");
                assert!(key != CodeKey::of(&code(&other)), "{text} {other}");
            }
            let longer = format!("{text}a");
            assert!(longer.len() > ShortCode::MAX_LEN || key != CodeKey::of(&code(&longer)));
        }
    }

    #[test]
    fn a_map_of_keys_is_searched_by_letters() {
        for text in ["a", "exactly-14-let", "a-code-of-some-more-letters-than-fit"] {
            let map = HashMap::from([(CodeKey::of(&code(text)), 1)]);
            assert_eq!(map.get(text.as_bytes()), Some(&1));
            assert_eq!(map.get(&text.as_bytes()[1..]), None);
        }
    }

    #[test]
    fn a_key_takes_sixteen_bytes() {
        assert_eq!(size_of::<CodeKey>(), 16);
    }
}
