//! Reads `application/x-www-form-urlencoded` pairs: query strings, and the page's form.

use percent_encoding::percent_decode_str;

/// Most pairs that are read; more are a fault of the last one.
pub(crate) const MAX_PAIRS: usize = 32;

/// A text is no list of encoded pairs in UTF-8, or has more than [`MAX_PAIRS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotPairs;

/// The names and values of `text` in their order, decoded. `+` stands for a space.
pub(crate) fn pairs(text: &str) -> Result<Vec<(String, String)>, NotPairs> {
    let mut pairs = Vec::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        if pairs.len() == MAX_PAIRS {
            return Err(NotPairs);
        }
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        pairs.push((decoded(name)?, decoded(value)?));
    }
    Ok(pairs)
}

fn decoded(text: &str) -> Result<String, NotPairs> {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().map(|text| text.into_owned()).map_err(|_| NotPairs)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Vec<(String, String)> {
        pairs(text).unwrap()
    }

    #[test]
    fn pairs_are_decoded_in_order() {
        let expected = [("a", "1 2"), ("b", "é&="), ("c", ""), ("", "x"), ("a", "+")];
        let expected: Vec<_> = expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        assert_eq!(read("a=1+2&b=%C3%A9%26%3D&&c&=x&a=%2B"), expected);
        assert_eq!(read(""), []);
    }

    #[test]
    fn what_is_not_utf_8_is_refused() {
        assert_eq!(pairs("a=%ff"), Err(NotPairs));
        assert_eq!(pairs("%c3=1"), Err(NotPairs));
        assert_eq!(read("a=%zz")[0].1, "%zz", "a lone percent sign stands for itself");
    }

    #[test]
    fn the_number_of_pairs_is_bounded() {
        assert!(pairs(&"a&".repeat(MAX_PAIRS)).is_ok());
        assert_eq!(pairs(&"a&".repeat(MAX_PAIRS + 1)), Err(NotPairs));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            let _ = pairs(&text);
        }
    }
}
