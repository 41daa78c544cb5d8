//! Short codes, aliases, slots.

use std::borrow::Borrow;
use std::fmt;

use compact_str::CompactString;

/// The key of a link: 1 to 64 of `[A-Za-z0-9_-]`, case-sensitive.
///
/// Generated codes and aliases are one name space. Up to 24 letters are kept
/// without a heap allocation.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ShortCode(CompactString);

/// A code chosen by a user: a [`ShortCode`] that is not a reserved word in any case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alias(ShortCode);

/// Why a text is no code or alias.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// It is empty.
    #[error("must have at least one character")]
    Empty,
    /// It is longer than [`ShortCode::MAX_LEN`].
    #[error("is longer than 64 characters")]
    TooLong,
    /// It holds something else than `A-Z a-z 0-9 _ -`.
    #[error("may only hold A-Z, a-z, 0-9, '_' and '-'")]
    BadCharacter,
    /// It is a word that terse keeps for itself.
    #[error("is a reserved word")]
    Reserved,
}

/// Words that are never codes, in any case.
pub const RESERVED: [&str; 13] = [
    "api",
    "docs",
    "admin",
    "app",
    "assets",
    "static",
    "health",
    "livez",
    "readyz",
    "metrics",
    "login",
    "robots.txt",
    "favicon.ico",
];

/// Whether `text` is a reserved word in any case.
#[must_use]
pub fn is_reserved(text: &str) -> bool {
    RESERVED.iter().any(|word| word.eq_ignore_ascii_case(text))
}

impl ShortCode {
    /// Most letters of a code.
    pub const MAX_LEN: usize = 64;

    /// Whether `text` has the form of a code, without building one.
    #[must_use]
    pub fn is_valid(text: &str) -> bool {
        (1..=Self::MAX_LEN).contains(&text.len()) && text.bytes().all(|b| LETTER_INDEX[b as usize] != NO_LETTER)
    }

    /// Reads `text` as a code.
    ///
    /// # Errors
    /// [`CodeError`], never [`CodeError::Reserved`].
    pub fn parse(text: &str) -> Result<Self, CodeError> {
        if text.is_empty() {
            return Err(CodeError::Empty);
        }
        if text.len() > Self::MAX_LEN {
            return Err(CodeError::TooLong);
        }
        if !Self::is_valid(text) {
            return Err(CodeError::BadCharacter);
        }
        Ok(Self(CompactString::new(text)))
    }

    /// The code as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The slot that the code belongs to.
    #[must_use]
    pub fn slot(&self) -> Slot {
        let bytes = self.0.as_bytes();
        let first = LETTER_INDEX[bytes[0] as usize];
        let second = bytes.get(1).map_or(0, |b| LETTER_INDEX[*b as usize]);
        Slot(u16::from(first) * 64 + u16::from(second))
    }
}

impl Alias {
    /// Reads `text` as an alias.
    ///
    /// # Errors
    /// [`CodeError`] when it is no code, or reserved.
    pub fn parse(text: &str) -> Result<Self, CodeError> {
        // Reserved words may hold a dot, which no code does; naming the real reason helps more.
        if is_reserved(text) {
            return Err(CodeError::Reserved);
        }
        ShortCode::parse(text).map(Self)
    }

    /// The code that the alias is.
    #[must_use]
    pub fn as_code(&self) -> &ShortCode {
        &self.0
    }
}

/// The 64 letters in slot order: base62 (`0-9A-Za-z`), then `-` and `_`.
pub(crate) const LETTERS: &[u8; 64] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_";
const NO_LETTER: u8 = 0xff;
const LETTER_INDEX: [u8; 256] = {
    let mut table = [NO_LETTER; 256];
    let mut i = 0;
    while i < LETTERS.len() {
        table[LETTERS[i] as usize] = i as u8;
        i += 1;
    }
    table
};

/// One of 4,096 equal parts of the code space: the first two letters of a
/// code as 12 bits; a missing second letter counts as 0. A shard owns ranges of slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u16);

impl Slot {
    /// How many slots there are.
    pub const COUNT: u16 = 4_096;

    /// The slot with this number.
    #[must_use]
    pub const fn new(number: u16) -> Option<Self> {
        if number < Self::COUNT { Some(Self(number)) } else { None }
    }

    /// The slot's number, 0 to 4,095.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }
}

impl fmt::Display for ShortCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ShortCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ShortCode({})", self.0)
    }
}

/// Look-ups by `&str` need the hash of a code to be the hash of its text.
impl std::hash::Hash for ShortCode {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl Borrow<str> for ShortCode {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::hash::{BuildHasher, RandomState};

    use proptest::prelude::*;

    use super::*;

    fn code(text: &str) -> ShortCode {
        ShortCode::parse(text).unwrap()
    }

    #[test]
    fn codes_are_letters_digits_hyphens_and_underscores() {
        let longest = "a".repeat(64);
        for text in ["a", "0", "-", "_", "Ab9-_", "metrics", longest.as_str()] {
            assert_eq!(code(text).as_str(), text);
            assert!(ShortCode::is_valid(text));
        }
        assert_eq!(ShortCode::parse(""), Err(CodeError::Empty));
        assert_eq!(ShortCode::parse(&"a".repeat(65)), Err(CodeError::TooLong));
        for text in ["a b", "a.b", "a/b", "é", "a\0", "%41", "a+", "а", "ａ", "\u{ad}"] {
            assert_eq!(ShortCode::parse(text), Err(CodeError::BadCharacter), "{text:?}");
            assert!(!ShortCode::is_valid(text));
        }
    }

    #[test]
    fn reserved_words_are_no_aliases_in_any_case() {
        for word in RESERVED {
            for text in [word.to_owned(), word.to_uppercase(), format!("{}{}", word[..1].to_uppercase(), &word[1..])] {
                assert_eq!(Alias::parse(&text), Err(CodeError::Reserved), "{text}");
            }
        }
        for text in ["api2", "ap", "healthy", "robots"] {
            assert_eq!(Alias::parse(text).unwrap().as_code(), &code(text));
        }
        assert_eq!(Alias::parse("favicon_ico").unwrap().as_code(), &code("favicon_ico"));
        assert_eq!(Alias::parse("sitemap.xml"), Err(CodeError::BadCharacter));
        assert_eq!(Alias::parse(""), Err(CodeError::Empty));
    }

    #[test]
    fn codes_differ_by_case() {
        assert_ne!(code("abc"), code("aBc"));
    }

    /// Frozen: a slot decides on which shard a link lies.
    #[test]
    fn slots_are_the_first_two_letters() {
        for (text, slot) in [
            ("00", 0),
            ("0", 0),
            ("01xyz", 1),
            ("0_", 63),
            ("10", 64),
            ("A", 640),
            ("Z9", 35 * 64 + 9),
            ("a0", 36 * 64),
            ("z_", 61 * 64 + 63),
            ("-0", 62 * 64),
            ("-", 62 * 64),
            ("__", 4_095),
        ] {
            assert_eq!(code(text).slot().number(), slot, "{text}");
        }
        assert_eq!(Slot::new(4_095).map(Slot::number), Some(4_095));
        assert_eq!(Slot::new(4_096), None);
    }

    #[test]
    fn every_slot_has_codes() {
        let mut seen = [false; Slot::COUNT as usize];
        for first in LETTERS {
            for second in LETTERS {
                let text = [*first, *second];
                seen[usize::from(code(std::str::from_utf8(&text).unwrap()).slot().number())] = true;
            }
        }
        assert!(seen.iter().all(|slot| *slot));
    }

    #[test]
    fn a_map_of_codes_is_searched_by_text() {
        let map = HashMap::from([(code("abc"), 1)]);
        assert_eq!(map.get("abc"), Some(&1));
        let state = RandomState::new();
        assert_eq!(state.hash_one(code("abc")), state.hash_one("abc"));
        assert_eq!((code("x").to_string(), format!("{:?}", code("x"))), ("x".to_owned(), "ShortCode(x)".to_owned()));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

        #[test]
        fn any_text_is_a_code_exactly_if_its_letters_and_length_are_right(text in "\\PC{0,70}|[\\x00-\\x7f]{0,8}") {
            let sound = (1..=64).contains(&text.len())
                && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
            prop_assert_eq!(ShortCode::parse(&text).is_ok(), sound);
            prop_assert_eq!(ShortCode::is_valid(&text), sound);
            prop_assert_eq!(Alias::parse(&text).is_ok(), sound && !is_reserved(&text));
        }

        #[test]
        fn every_code_is_its_text_and_has_a_slot(text in "[A-Za-z0-9_-]{1,64}") {
            let code = ShortCode::parse(&text).unwrap();
            prop_assert!(code.slot().number() < Slot::COUNT);
            prop_assert_eq!(code.as_str(), text);
        }
    }
}
