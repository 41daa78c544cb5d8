//! Points in time, and where time and randomness come from.

use std::fmt;

use jiff::SignedDuration;
use jiff::civil::DateTime;

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

/// Civil time, not `jiff::Timestamp`: that ends a day before the year 9999 does,
/// and `9999-12-31T23:59:59Z` is what many clients send for "never".
const EPOCH: DateTime = jiff::civil::datetime(1970, 1, 1, 0, 0, 0, 0);

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
        let offset_len = if text.ends_with(['Z', 'z']) { 1 } else { "+00:00".len() };
        let (local, offset) = text.split_at_checked(text.len().wrapping_sub(offset_len)).ok_or(TimeError)?;
        if !is_local_time(local) {
            return Err(TimeError);
        }
        let local: DateTime = local.parse().map_err(|_| TimeError)?;
        let since_epoch = local.duration_since(EPOCH) - parse_offset(offset)?;
        // Tells the last nanosecond of 1969 from the first of 1970, which are both 0 ms.
        if since_epoch.is_negative() {
            return Err(TimeError);
        }
        let ms = i64::try_from(since_epoch.as_millis()).map_err(|_| TimeError)?;
        if ms <= LAST_MS { Ok(Self(ms)) } else { Err(TimeError) }
    }

    /// This time plus `ms` milliseconds (which may be negative), clamped like [`Timestamp::from_millis`].
    #[must_use]
    pub const fn plus_millis(self, ms: i64) -> Self {
        Self::from_millis(self.0.saturating_add(ms))
    }
}

/// Whether `text` has the form `2026-01-02T03:04:05.678`. jiff reads other
/// forms of ISO 8601 as well, and ignores what may follow.
fn is_local_time(text: &str) -> bool {
    let fits = |(letter, form): (u8, u8)| match form {
        b'0' => letter.is_ascii_digit(),
        b'T' => matches!(letter, b'T' | b't' | b' '),
        _ => letter == form,
    };
    let form = b"0000-00-00T00:00:00";
    let Some((time, fraction)) = text.as_bytes().split_at_checked(form.len()) else { return false };
    let digits = fraction.strip_prefix(b".");
    time.iter().copied().zip(form.iter().copied()).all(fits)
        && (fraction.is_empty() || digits.is_some_and(|d| !d.is_empty() && d.iter().all(u8::is_ascii_digit)))
}

/// `Z`, `+hh:mm` or `-hh:mm`.
fn parse_offset(text: &str) -> Result<SignedDuration, TimeError> {
    let bytes = text.as_bytes();
    let [sign, h1, h2, b':', m1, m2] = bytes else {
        return if matches!(bytes, b"Z" | b"z") { Ok(SignedDuration::ZERO) } else { Err(TimeError) };
    };
    let two_digits = |tens: &u8, ones: &u8| match (tens, ones) {
        (b'0'..=b'9', b'0'..=b'9') => Ok(i64::from(tens - b'0') * 10 + i64::from(ones - b'0')),
        _ => Err(TimeError),
    };
    let (hours, minutes) = (two_digits(h1, h2)?, two_digits(m1, m2)?);
    let offset = SignedDuration::from_mins(hours * 60 + minutes);
    match sign {
        _ if hours > 23 || minutes > 59 => Err(TimeError),
        b'+' => Ok(offset),
        b'-' => Ok(-offset),
        _ => Err(TimeError),
    }
}

/// RFC 3339 in UTC, with milliseconds only when there are any.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = EPOCH.checked_add(SignedDuration::from_millis(self.0)).map_err(|_| fmt::Error)?;
        write!(f, "{time}Z")
    }
}

/// Where the time comes from. The server hands in the system's clock, a test its own.
pub trait Clock: Send + Sync + 'static {
    /// Wall-clock time. It may step backwards; nothing may rely on its order.
    fn now(&self) -> Timestamp;

    /// Monotonic milliseconds since an arbitrary start; never steps backwards.
    /// Goes on while the machine is suspended.
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
    use proptest::prelude::*;

    use super::*;
    use crate::fakes::FakeEntropy;

    #[test]
    fn a_time_is_written_as_it_was_read() {
        for text in ["2026-01-02T03:04:05Z", "1970-01-01T00:00:00Z", "2026-01-02T03:04:05.678Z"] {
            assert_eq!(Timestamp::parse(text).unwrap().to_string(), text);
        }
        for text in [
            "2026-01-02T05:04:05+02:00",
            "2026-01-01T21:34:05-05:30",
            "2026-01-02T03:04:05-00:00",
            "2026-01-02 03:04:05Z",
            "2026-01-02T03:04:05.000000000z",
        ] {
            assert_eq!(Timestamp::parse(text).unwrap().to_string(), "2026-01-02T03:04:05Z", "{text}");
        }
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
            "2026-01-02T03:04:05.é00:00",
            "1970-01-01T00:59:59+01:00",
            "1969-12-31T23:59:59.9999Z",
            "2026-01-02T03:04:05+24:00",
            "2026-01-02T03:04:05+02:60",
            "2026-01-02T03:04:05*02:00",
            "2026-01-02T03:04:05+02:0",
            "2026-01-02T03:04:05+2:00",
            "2026-01-02T03:04:05+0a:00",
            "2026-01-02T03:04:05ZZ",
            "2026-01-02T03:04:05+01:00Z",
            "2026-01-02T03:04:05,5Z",
            "2026-01-02T24:00:00Z",
            "2026-01-02T03:60:05Z",
            "2026-01-02_03:04:05Z",
            "2026-01-02T03:04:05.Z",
            " 2026-01-02T03:04:05Z",
        ] {
            assert_eq!(Timestamp::parse(text), Err(TimeError), "{text}");
        }
    }

    #[test]
    fn a_time_is_cut_to_milliseconds() {
        assert_eq!(Timestamp::parse("2026-01-02T03:04:05.6789Z").unwrap().to_string(), "2026-01-02T03:04:05.678Z");
        assert_eq!(Timestamp::parse("1970-01-01T00:00:00.001Z").unwrap().as_millis(), 1);
        assert_eq!(Timestamp::parse("1970-01-01t00:00:01z").unwrap().as_millis(), 1_000);
    }

    #[test]
    fn times_end_with_the_year_9999() {
        let last = Timestamp::parse("9999-12-31T23:59:59.999Z").unwrap();
        assert_eq!(last, Timestamp::from_millis(i64::MAX));
        assert_eq!(last.to_string(), "9999-12-31T23:59:59.999Z");
        assert_eq!(Timestamp::parse("9999-12-31T23:59:59-01:00"), Err(TimeError));
        assert_eq!(Timestamp::parse("9999-12-31T23:59:59+01:00").unwrap().to_string(), "9999-12-31T22:59:59Z");
        assert_eq!(Timestamp::parse("10000-01-01T00:00:00Z"), Err(TimeError));
    }

    #[test]
    fn sums_are_clamped() {
        let time = Timestamp::from_millis(1_000);
        assert_eq!(time.plus_millis(5).as_millis(), 1_005);
        assert_eq!(time.plus_millis(-1_001).as_millis(), 0);
        assert_eq!(time.plus_millis(i64::MIN).as_millis(), 0);
        assert_eq!(time.plus_millis(i64::MAX), Timestamp::from_millis(i64::MAX));
    }

    #[test]
    fn random_bytes_come_from_the_source_that_is_given() {
        let bytes: [u8; 16] = random_bytes(&FakeEntropy::seeded(1));
        assert_eq!(bytes, random_bytes(&FakeEntropy::seeded(1)));
        assert_ne!(bytes, random_bytes(&FakeEntropy::seeded(2)));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

        #[test]
        fn every_time_comes_back(ms in 0..=LAST_MS) {
            let time = Timestamp::from_millis(ms);
            prop_assert_eq!(Timestamp::parse(&time.to_string()), Ok(time));
        }

        #[test]
        fn any_text_is_a_time_or_not_without_panic(
            text in "\\PC*",
            date in "[0-9]{3,5}-[01][0-9é]-[0-3][0-9]",
            time in "[Tt _][0-2][0-9]:[0-5][0-9]:[0-5][0-9](\\.[0-9]{0,10})?(Z|[+-][0-9:é]{5,6})?",
        ) {
            let _ = Timestamp::parse(&text);
            let like = format!("{date}{time}");
            if let Ok(time) = Timestamp::parse(&like) {
                prop_assert_eq!(Timestamp::parse(&time.to_string()), Ok(time));
            }
        }
    }
}
