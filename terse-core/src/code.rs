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
    pub fn into_code(self) -> ShortCode {
        self.0
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
