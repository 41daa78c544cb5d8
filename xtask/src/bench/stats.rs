//! Numbers about numbers: spread over rounds, latencies within one.

use std::time::Duration;

use anyhow::{Result, anyhow};
use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// The middle of repeated measurements and how far they lie apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The middle value; the mean of the two middle ones if their number is even.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// The spread of `values`; `None` if there are none.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median =
            if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) };
        Some(Self { median, min, max })
    }

    /// As `median (min–max)`, with as many decimals as fit the size.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{} ({}–{})", number(self.median), number(self.min), number(self.max))
    }

    /// For the measurement file.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({"median": rounded(self.median), "min": rounded(self.min), "max": rounded(self.max)})
    }
}

/// A number with four significant digits or so.
#[must_use]
pub fn number(value: f64) -> String {
    let decimals = match value.abs() {
        large if large >= 1_000.0 => 0,
        large if large >= 100.0 => 1,
        large if large >= 10.0 => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}

/// A number for the measurement file: no digits that mean nothing.
#[must_use]
pub fn rounded(value: f64) -> f64 {
    (value * 10_000.0).round() / 10_000.0
}

/// Latencies of one window.
#[derive(Clone)]
pub struct Latencies {
    histogram: Histogram<u64>,
}

/// What the histogram tells apart at least.
const FINEST: Duration = Duration::from_nanos(100);
/// What the histogram holds at most; longer ones count as this.
const LONGEST: Duration = Duration::from_mins(1);

impl Latencies {
    /// None yet.
    ///
    /// # Errors
    /// Never, with the fixed bounds.
    pub fn new() -> Result<Self> {
        let (low, high) = (nanoseconds(FINEST), nanoseconds(LONGEST));
        let histogram = Histogram::new_with_bounds(low, high, 3).map_err(|error| anyhow!("histogram: {error}"))?;
        Ok(Self { histogram })
    }

    /// Adds one.
    pub fn record(&mut self, latency: Duration) {
        self.histogram.saturating_record(nanoseconds(latency));
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.histogram.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.histogram.is_empty()
    }

    /// The latency that `percent` of all don't exceed, in milliseconds.
    #[must_use]
    pub fn percentile_ms(&self, percent: f64) -> f64 {
        self.histogram.value_at_percentile(percent) as f64 / 1e6
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_value_or_the_mean_of_two() {
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Spread::of(&[4.0, 1.0, 2.0, 3.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
        assert_eq!(Spread::of(&[7.0]), Some(Spread { median: 7.0, min: 7.0, max: 7.0 }));
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn numbers_are_as_long_as_they_need_to_be() {
        assert_eq!(number(123_456.7), "123457");
        assert_eq!(number(123.456), "123.5");
        assert_eq!(number(12.3456), "12.35");
        assert_eq!(number(1.23456), "1.235");
        let spread = Spread { median: 2.0, min: 1.0, max: 1_000.0 };
        assert_eq!(spread.text(), "2.000 (1.000–1000)");
        assert_eq!(spread.json(), json!({"median": 2.0, "min": 1.0, "max": 1000.0}));
        assert_eq!(rounded(1.234_56), 1.2346);
    }

    #[test]
    fn percentiles_are_exact_to_three_digits() {
        let mut latencies = Latencies::new().unwrap();
        assert!(latencies.is_empty());
        for micros in 1..=1_000 {
            latencies.record(Duration::from_micros(micros));
        }
        assert_eq!(latencies.len(), 1_000);
        assert!((latencies.percentile_ms(50.0) - 0.5).abs() < 0.001);
        assert!((latencies.percentile_ms(99.0) - 0.99).abs() < 0.001);
        assert!((latencies.percentile_ms(100.0) - 1.0).abs() < 0.001);
    }

    #[test]
    fn a_latency_beyond_the_histogram_counts_as_its_longest() {
        let mut latencies = Latencies::new().unwrap();
        latencies.record(Duration::from_hours(1));
        assert!((latencies.percentile_ms(50.0) / 60_000.0 - 1.0).abs() < 0.001);
    }
}
