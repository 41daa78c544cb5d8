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
