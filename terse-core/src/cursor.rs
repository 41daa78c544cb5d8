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
