//! Points in time, and where time and randomness come from.

use std::fmt;

/// A point in time: milliseconds since 1970-01-01T00:00:00Z.
///
/// Millisecond precision is what every store keeps, so a value read back
/// equals the value written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// A text is not an RFC 3339 time with an offset, or lies outside the years 1970 to 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an RFC 3339 time between the years 1970 and 9999")]
pub struct TimeError;

/// 9999-12-31T23:59:59.999Z, the last time that RFC 3339 can write.
const LAST_MS: i64 = 253_402_300_799_999;

impl Timestamp {
    /// The time `ms` milliseconds after the Unix epoch, clamped to the years 1970 to 9999.
    #[must_use]
    pub const fn from_millis(ms: i64) -> Self {
        if ms < 0 {
            Self(0)
        } else if ms > LAST_MS {
            Self(LAST_MS)
        } else {
            Self(ms)
        }
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Reads an RFC 3339 time, with `Z` or a numeric offset; anything finer
    /// than a millisecond is cut off.
    ///
    /// # Errors
    /// [`TimeError`] when `text` is not such a time or lies outside 1970 to 9999.
    pub fn parse(text: &str) -> Result<Self, TimeError> {
        // jiff also reads ISO 8601 forms that RFC 3339 does not know, such as `20260102T030405Z`.
        let bytes = text.as_bytes();
        let shaped = bytes.len() >= 20
            && bytes[4] == b'-'
            && bytes[7] == b'-'
            && matches!(bytes[10], b'T' | b't' | b' ')
            && bytes[13] == b':'
            && bytes[16] == b':'
            && !text.contains(['[', ','])
            && (matches!(bytes[bytes.len() - 1], b'Z' | b'z')
                || (matches!(bytes[bytes.len() - 6], b'+' | b'-') && bytes[bytes.len() - 3] == b':'));
        if !shaped {
            return Err(TimeError);
        }
        let parsed: jiff::Timestamp = text.parse().map_err(|_| TimeError)?;
        let ms = parsed.as_millisecond();
        if (0..=LAST_MS).contains(&ms) { Ok(Self(ms)) } else { Err(TimeError) }
    }

    /// This time plus `ms` milliseconds (which may be negative), clamped like [`Timestamp::from_millis`].
    #[must_use]
    pub const fn plus_millis(self, ms: i64) -> Self {
        Self::from_millis(self.0.saturating_add(ms))
    }
}

/// RFC 3339 in UTC, with milliseconds only when there are any.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(time) => time.fmt(f),
            Err(_) => Err(fmt::Error),
        }
    }
}

/// Where the time comes from. The server hands in the system's clock, a test its own.
pub trait Clock: Send + Sync + 'static {
    /// Wall-clock time. It may step backwards; nothing may rely on its order.
    fn now(&self) -> Timestamp;

    /// Monotonic milliseconds since an arbitrary start; never steps backwards.
    fn monotonic_ms(&self) -> u64;

    /// Monotonic nanoseconds since the same start, to measure what takes less than a millisecond.
    fn monotonic_ns(&self) -> u64 {
        self.monotonic_ms().saturating_mul(1_000_000)
    }
}

/// Where randomness comes from. The server hands in the operating system's
/// generator, a test a seeded one.
pub trait Entropy: Send + Sync + 'static {
    /// Fills `buffer` with random bytes fit for keys.
    fn fill(&self, buffer: &mut [u8]);
}

/// `N` random bytes from `entropy`.
pub fn random_bytes<const N: usize>(entropy: &dyn Entropy) -> [u8; N] {
    let mut bytes = [0; N];
    entropy.fill(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_as_it_was_read() {
        for text in ["2026-01-02T03:04:05Z", "1970-01-01T00:00:00Z", "2026-01-02T03:04:05.678Z"] {
            assert_eq!(Timestamp::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Timestamp::parse("2026-01-02T05:04:05+02:00").unwrap().to_string(), "2026-01-02T03:04:05Z");
    }

    #[test]
    fn what_rfc_3339_does_not_know_is_no_time() {
        for text in [
            "",
            "now",
            "2026-01-02",
            "2026-01-02T03:04:05",
            "20260102T030405Z",
            "2026-13-02T03:04:05Z",
            "2026-02-30T03:04:05Z",
            "1969-12-31T23:59:59Z",
            "2026-01-02T03:04:05Z[UTC]",
            "+002026-01-02T03:04:05Z",
            "2026-01-02T03:04:05+0200",
            "2026-01-02T03:04:05é",
        ] {
            assert_eq!(Timestamp::parse(text), Err(TimeError), "{text}");
        }
    }
}
