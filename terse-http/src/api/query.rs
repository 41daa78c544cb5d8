//! Reads `application/x-www-form-urlencoded` pairs: query strings, and the page's form.

use std::collections::HashMap;

use percent_encoding::percent_decode_str;

use crate::problem::{FieldFault, Problem};

/// Most pairs that are read; more are a fault of the last one.
pub(crate) const MAX_PAIRS: usize = 32;

/// Most characters of an unknown name that are told back.
const MAX_NAME_CHARS: usize = 64;

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

/// The parameters of a query string, and all that is wrong with them.
#[derive(Debug)]
pub(crate) struct Parameters {
    values: HashMap<&'static str, String>,
    faults: Vec<FieldFault>,
}

impl Parameters {
    /// Reads `query_string`; others than `known`, and repeated ones, are faults.
    ///
    /// # Errors
    /// 422 when it is no list of encoded parameters.
    pub(crate) fn read(query_string: &str, known: &[&'static str]) -> Result<Self, Problem> {
        let pairs = pairs(query_string)
            .map_err(|NotPairs| Problem::invalid_field("query", "malformed", "is no list of encoded parameters"))?;
        let mut read = Self { values: HashMap::new(), faults: Vec::new() };
        for (name, value) in pairs {
            match known.iter().find(|known| **known == name) {
                Some(name) => {
                    if read.values.insert(name, value).is_some() {
                        read.fault(name, "duplicate_field", "is given more than once");
                    }
                }
                None => {
                    let name: String = name.chars().take(MAX_NAME_CHARS).collect();
                    read.faults.push(FieldFault::new(name, "unknown_field", "is not known here"));
                }
            }
        }
        Ok(read)
    }

    /// The value of `name`, if it was given.
    pub(crate) fn take(&mut self, name: &'static str) -> Option<String> {
        self.values.remove(name)
    }

    /// The value of `limit`: a number from 1 to `most`, `default` unless given.
    pub(crate) fn limit(&mut self, default: usize, most: usize) -> usize {
        let Some(text) = self.take("limit") else { return default };
        let digits = (1..=3).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        match text.parse() {
            Ok(limit) if digits && (1..=most).contains(&limit) => limit,
            _ => {
                self.fault("limit", "out_of_bounds", format!("must be a number from 1 to {most}"));
                default
            }
        }
    }

    /// Notes that `field` is wrong.
    pub(crate) fn fault(&mut self, field: &'static str, code: &'static str, detail: impl Into<String>) {
        self.faults.push(FieldFault::new(field, code, detail));
    }

    /// Goes on if nothing was wrong.
    ///
    /// # Errors
    /// 422 with all faults.
    pub(crate) fn finish(self) -> Result<(), Problem> {
        if self.faults.is_empty() { Ok(()) } else { Err(Problem::invalid(self.faults)) }
    }
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

    #[test]
    fn parameters_are_taken_by_name() {
        let mut read = Parameters::read("b=2&a=%31", &["a", "b", "c"]).unwrap();
        assert_eq!((read.take("a"), read.take("b"), read.take("c")), (Some("1".into()), Some("2".into()), None));
        assert!(read.finish().is_ok());
    }

    #[test]
    fn every_fault_of_parameters_is_told() {
        let long = "n".repeat(200);
        let mut read = Parameters::read(&format!("limit=0&x=1&limit=7&limit=101&{long}=2"), &["limit"]).unwrap();
        assert_eq!(read.limit(50, 100), 50);
        let faults = read.finish().unwrap_err().errors;
        let faults: Vec<_> = faults.iter().map(|fault| (&*fault.field, fault.code)).collect();
        let long = &long[..MAX_NAME_CHARS];
        let twice = ("limit", "duplicate_field");
        assert_eq!(faults, [("x", "unknown_field"), twice, twice, (long, "unknown_field"), ("limit", "out_of_bounds")]);
        assert_eq!(Parameters::read("%ff", &[]).unwrap_err().errors[0].code, "malformed");
    }

    #[test]
    fn a_limit_is_digits_within_bounds() {
        let limit = |text: &str| {
            let mut read = Parameters::read(text, &["limit"]).unwrap();
            let limit = read.limit(50, 100);
            read.finish().ok().map(|()| limit)
        };
        assert_eq!(
            (limit(""), limit("limit=1"), limit("limit=100"), limit("limit=007")),
            (Some(50), Some(1), Some(100), Some(7))
        );
        for text in ["limit", "limit=", "limit=0", "limit=101", "limit=%2B5", "limit=-1", "limit=0050", "limit=x"] {
            assert_eq!(limit(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            let _ = pairs(&text);
        }
    }
}
