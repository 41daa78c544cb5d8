//! Whom a limit is for.

use std::fmt;

/// Most bytes of a [`Key`].
pub const MAX_KEY_BYTES: usize = 31;

/// Whom a limit is for: a few bytes, kept in place.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    bytes: [u8; MAX_KEY_BYTES],
    /// 0 only where there is no key.
    len: u8,
}

impl Key {
    /// No key at all: a free place.
    pub(super) const NONE: Self = Self { bytes: [0; MAX_KEY_BYTES], len: 0 };

    /// All those together who can't be told apart.
    pub const ANYBODY: Self = Self { bytes: [0; MAX_KEY_BYTES], len: 1 };

    /// The key that `parts` make one after the other; `None` unless they have 1 to [`MAX_KEY_BYTES`] bytes together.
    #[must_use]
    pub fn of(parts: &[&[u8]]) -> Option<Self> {
        let mut key = Self::NONE;
        let mut end = 0;
        for part in parts {
            key.bytes.get_mut(end..end + part.len())?.copy_from_slice(part);
            end += part.len();
        }
        key.len = u8::try_from(end).ok()?;
        (end > 0).then_some(key)
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// A key may hold a client's address, which is nobody's business: only its length is printed.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} bytes)", self.len)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_its_bytes() {
        let key = Key::of(&[b"ab", b"", b"c"]).unwrap();
        assert_eq!(key.as_bytes(), b"abc");
        assert_eq!(Some(key), Key::of(&[b"abc"]));
        assert_ne!(Some(key), Key::of(&[b"ab"]));
        assert_ne!(Some(key), Key::of(&[b"abc\0"]));
        assert_eq!(Some(Key::ANYBODY), Key::of(&[b"\0"]));
    }

    #[test]
    fn a_key_has_1_to_31_bytes() {
        assert_eq!(Key::of(&[]), None);
        assert_eq!(Key::of(&[b"", b""]), None);
        assert_eq!(Key::of(&[&[1; 31]]).unwrap().as_bytes(), [1; 31]);
        assert_eq!(Key::of(&[&[1; 31], b"x"]), None);
        assert_eq!(Key::of(&[&[1; 32]]), None);
    }

    #[test]
    fn no_print_shows_a_key() {
        assert_eq!(format!("{:?}", Key::of(&[b"203.0.113.7"]).unwrap()), "Key(11 bytes)");
    }
}
