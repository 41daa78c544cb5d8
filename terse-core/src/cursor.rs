//! The position in a list of links, as clients carry it from page to page.

use crate::{ShortCode, Timestamp};

/// After which link a page begins, in the order (`created_at`, `code`) descending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// When that link was created.
    pub created_at: Timestamp,
    /// Its code.
    pub code: ShortCode,
}

/// A text is no cursor that terse has made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a cursor of this list")]
pub struct CursorError;

impl Cursor {
    /// Reads what [`Cursor`]'s `Display` wrote: `<milliseconds in hexadecimal>.<code>`.
    ///
    /// # Errors
    /// [`CursorError`] for anything else.
    pub fn parse(text: &str) -> Result<Self, CursorError> {
        let (ms, code) = text.split_once('.').ok_or(CursorError)?;
        let cursor = Self {
            created_at: Timestamp::from_millis(i64::from_str_radix(ms, 16).map_err(|_| CursorError)?),
            code: ShortCode::parse(code).map_err(|_| CursorError)?,
        };
        // Signs, leading zeros and out-of-range times read, but were never written.
        if cursor.to_string() == text { Ok(cursor) } else { Err(CursorError) }
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:x}.{}", self.created_at.as_millis(), self.code)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written() {
        let cursor =
            Cursor { created_at: Timestamp::from_millis(1_800_000_000_000), code: ShortCode::parse("aB_9").unwrap() };
        assert_eq!(cursor.to_string(), "1a3185c5000.aB_9");
        assert_eq!(Cursor::parse("1a3185c5000.aB_9"), Ok(cursor));
    }

    #[test]
    fn what_was_never_written_is_no_cursor() {
        for text in [
            "",
            ".",
            "0.",
            ".a",
            "a",
            "0",
            "00.a",
            "+1.a",
            "-1.a",
            "1A.a",
            "0x1.a",
            "1.a.b",
            "1.a b",
            " 1.a",
            "1.é",
            "g.a",
            "ffffffffffffffff.a",
            "7fffffffffffffff.a",
            "80000000000000000.a",
            "1.\0",
        ] {
            assert_eq!(Cursor::parse(text), Err(CursorError), "{text:?}");
        }
        assert_eq!(Cursor::parse(&format!("1.{}", "a".repeat(65))), Err(CursorError));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

        #[test]
        fn every_cursor_comes_back(ms in 0_i64..=253_402_300_799_999, code in "[A-Za-z0-9_-]{1,64}") {
            let code = ShortCode::parse(&code).unwrap();
            let cursor = Cursor { created_at: Timestamp::from_millis(ms), code };
            prop_assert_eq!(Cursor::parse(&cursor.to_string()), Ok(cursor));
        }

        #[test]
        fn any_text_that_is_a_cursor_is_written_the_same(text in "[0-9a-fA-F+-]{0,17}\\.?[a-z.]{0,3}|\\PC*") {
            if let Ok(cursor) = Cursor::parse(&text) {
                prop_assert_eq!(cursor.to_string(), text);
            }
        }
    }
}
