//! The read model of clicks in one place, as one process or a few beside each
//! other on one machine use it: [`SqliteReadModel`] in a file, and
//! [`MemoryReadModel`], which says in few words what both mean. On a cluster it
//! is [`CqlReadModel`](crate::CqlReadModel).
//!
//! Both write a batch as one transaction, and know their writers: of two
//! instances that were attached at the same time, one writes, and the other
//! hears that it is superseded.
//!
//! Bounds: [`MAX_SPANS`] of a range, [`MAX_PARTITIONS`] of a bus,
//! [`LEASE_MOST_MS`] of a lease.

mod memory;
mod sqlite;

use terse_core::Timestamp;
use terse_core::ports::clicks::Bus;
use terse_core::ports::{StoreError, StoreErrorKind};
use terse_core::stats::Span;

pub use memory::MemoryReadModel;
pub use sqlite::{SqliteReadModel, SqliteReadModelConfig};

/// Most spans of a range; a longer one is refused as overloaded. Ten years have 3,653 days, a year 8,784 hours.
const MAX_SPANS: u32 = 10_000;

/// Most streams of a bus; more are refused.
const MAX_PARTITIONS: u16 = 256;

/// The longest lease, in milliseconds; a longer one is cut.
const LEASE_MOST_MS: i64 = 600_000;

/// A lease that ends later than so many of the asker's own would was made by a clock that was ahead, or before the
/// asker's went back. It is not believed: it would keep everybody from projecting until then. All projectors lease for
/// equally long; two of them that count at once do no harm.
const LEASE_BELIEVED_TIMES: i64 = 3;

/// Fails unless the spans from `first` to `last` may be read at once.
fn check_range(first: Span, last: Span) -> Result<(), StoreError> {
    let between = match (first, last) {
        (Span::All, Span::All) => 0,
        (Span::Day(first), Span::Day(last)) | (Span::Hour(first), Span::Hour(last)) => last.saturating_sub(first),
        _ => {
            let text = format!("a range from {first:?} to {last:?}");
            return Err(StoreError::new(StoreErrorKind::Corrupt, text));
        }
    };
    if between >= MAX_SPANS {
        return Err(StoreError::new(StoreErrorKind::Overloaded, format!("a range of more than {MAX_SPANS} spans")));
    }
    Ok(())
}

/// Fails unless `bus` is one that a read model can be made for.
fn check_bus(bus: Bus) -> Result<(), StoreError> {
    match bus {
        Bus::Streams { partitions } if !(1..=MAX_PARTITIONS).contains(&partitions) => {
            let text = format!("{partitions} streams, where there can be 1 to {MAX_PARTITIONS}");
            Err(StoreError::new(StoreErrorKind::Unavailable, text).although_answered())
        }
        _ => Ok(()),
    }
}

/// Whether the lease that `holder` has until `until` keeps `asker` from it, who would have one for `ttl_ms`.
pub(crate) fn is_leased_away(holder: &str, until: Timestamp, asker: &str, now: Timestamp, ttl_ms: u64) -> bool {
    let believed_ms = match i64::try_from(ttl_ms) {
        // Whoever gives a lease back wants none.
        Ok(0) | Err(_) => LEASE_MOST_MS,
        Ok(ttl_ms) => ttl_ms.saturating_mul(LEASE_BELIEVED_TIMES).min(LEASE_MOST_MS),
    };
    holder != asker && until > now && until <= now.plus_millis(believed_ms)
}

/// When a lease of `ttl_ms` that is taken at `now` ends.
fn lease_end(now: Timestamp, ttl_ms: u64) -> Timestamp {
    now.plus_millis(i64::try_from(ttl_ms).unwrap_or(LEASE_MOST_MS).min(LEASE_MOST_MS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_have_a_greatest_length_and_one_kind() {
        for range in [(Span::All, Span::All), (Span::Day(9), Span::Day(3)), (Span::Hour(0), Span::Hour(MAX_SPANS - 1))]
        {
            check_range(range.0, range.1).unwrap();
        }
        let kind = |first, last| check_range(first, last).unwrap_err().kind;
        assert_eq!(kind(Span::Day(0), Span::Day(MAX_SPANS)), StoreErrorKind::Overloaded);
        assert_eq!(kind(Span::Hour(0), Span::Hour(u32::MAX)), StoreErrorKind::Overloaded);
        assert_eq!(kind(Span::Day(1), Span::Hour(2)), StoreErrorKind::Corrupt);
        assert_eq!(kind(Span::All, Span::Day(2)), StoreErrorKind::Corrupt);
    }

    #[test]
    fn a_bus_has_one_to_256_streams() {
        check_bus(Bus::Local).unwrap();
        for (partitions, fits) in [(0, false), (1, true), (256, true), (257, false), (u16::MAX, false)] {
            assert_eq!(check_bus(Bus::Streams { partitions }).is_ok(), fits, "{partitions}");
        }
    }

    #[test]
    fn a_lease_that_no_right_clock_made_is_not_believed() {
        let now = Timestamp::from_millis(1_000_000);
        let away = |ms, ttl_ms| is_leased_away("other", now.plus_millis(ms), "me", now, ttl_ms);
        assert!(!away(-1, 10_000) && !away(0, 10_000) && away(1, 10_000));
        assert!(away(30_000, 10_000) && !away(30_001, 10_000), "the clock went back since");
        for ttl_ms in [0, LEASE_MOST_MS as u64, u64::MAX] {
            assert!(away(LEASE_MOST_MS, ttl_ms) && !away(LEASE_MOST_MS + 1, ttl_ms));
        }
        assert!(!is_leased_away("me", now.plus_millis(1), "me", now, 10_000));
        for ttl_ms in [LEASE_MOST_MS as u64, LEASE_MOST_MS as u64 + 1, u64::MAX] {
            assert_eq!(lease_end(now, ttl_ms), now.plus_millis(LEASE_MOST_MS));
        }
        assert_eq!(lease_end(now, 5), now.plus_millis(5));
    }
}
