//! Request ids: echoed when a client sends a usable one, else made.

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use terse_core::Entropy;
use terse_core::time::random_bytes;

/// The header that carries the id both ways.
pub(crate) const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// Longest id that is echoed, in bytes. A longer one is ignored.
pub(crate) const MAX_LEN: usize = 128;

/// The id that the client sent, if it is 1 to [`MAX_LEN`] visible ASCII characters.
pub(crate) fn sent(headers: &HeaderMap) -> Option<&HeaderValue> {
    headers.get(HEADER).filter(|value| is_usable(value.as_bytes()))
}

/// Whether `id` is echoed.
pub(crate) fn is_usable(id: &[u8]) -> bool {
    (1..=MAX_LEN).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

/// A new id: 16 random bytes in hexadecimal.
pub(crate) fn made(entropy: &dyn Entropy) -> String {
    hex(random_bytes::<16>(entropy))
}

/// `bytes` in lower-case hexadecimal.
pub(crate) fn hex<const N: usize>(bytes: [u8; N]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|b| [DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]]);
    digits.map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use terse_testkit::SeededEntropy;

    use super::*;

    #[test]
    fn only_short_visible_ids_are_echoed() {
        let echoed = |bytes: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(HEADER, HeaderValue::from_bytes(bytes).unwrap());
            sent(&headers).is_some()
        };
        assert!(echoed(b"a") && echoed(&[b'~'; MAX_LEN]));
        for bytes in [b"".as_slice(), b"a b", b"a\tb", b"caf\xe9", &[b'a'; MAX_LEN + 1]] {
            assert!(!echoed(bytes), "{bytes:?}");
        }
        assert!(sent(&HeaderMap::new()).is_none());
    }

    #[test]
    fn made_ids_are_hexadecimal_and_differ() {
        let entropy = SeededEntropy::new(7);
        let (first, second) = (made(&entropy), made(&entropy));
        assert_eq!(first.len(), 32);
        assert!(first.bytes().all(|b| b.is_ascii_hexdigit()));
        assert_ne!(first, second);
        assert_eq!(hex([0x00, 0x0f, 0xa5]), "000fa5");
    }
}
