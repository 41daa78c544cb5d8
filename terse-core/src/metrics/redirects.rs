//! The counts of redirects: each web worker writes its own, so that a redirect
//! costs three plain increments.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Counter, Histogram, Metric, MetricFamily, MetricType};

use super::families::{describe, family, label};
use super::workers::{self, OfAWorker, Sums, increase};
use super::{BUCKETS, Outcome, REDIRECT_SECONDS, REDIRECTS};
use crate::ports::Tier;

const NS_PER_SECOND: f64 = 1e9;

/// The counts of one web worker, for the thread that made it alone. When it is
/// dropped, what it counted stays in the sum.
pub struct RedirectCounts(OfAWorker<Cells>);

/// Read by scrapes. 64-byte alignment keeps the cells of two workers in lines of their own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Cells {
    redirects: [[AtomicU64; Outcome::ALL.len()]; Tier::ALL.len()],
    /// Redirects by latency: as long as the bound of [`BUCKETS`] or less, and the rest.
    buckets: [AtomicU64; BUCKETS.len() + 1],
    sum_ns: AtomicU64,
}

/// The counts as Prometheus reads them.
#[derive(Clone, Debug)]
pub(super) struct RedirectSums {
    sums: Arc<Sums<Cells>>,
    descriptions: [Desc; 2],
}

impl RedirectCounts {
    /// Counts a redirect that took `took`.
    pub fn count(&self, tier: Tier, outcome: Outcome, took: Duration) {
        let took_ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.0.cells().add(tier, outcome, took_ns);
    }
}

impl Cells {
    fn add(&self, tier: Tier, outcome: Outcome, took_ns: u64) {
        increase(&self.redirects[tier as usize][outcome as usize], 1);
        increase(&self.buckets[bucket(took_ns)], 1);
        increase(&self.sum_ns, took_ns);
    }
}

impl workers::Cells for Cells {
    fn all(&self) -> impl Iterator<Item = &AtomicU64> {
        self.redirects.iter().flatten().chain(&self.buckets).chain([&self.sum_ns])
    }
}

/// The first bucket that holds `took_ns`.
fn bucket(took_ns: u64) -> usize {
    const BOUNDS_NS: [u64; BUCKETS.len()] = {
        let mut bounds = [0; BUCKETS.len()];
        let mut position = 0;
        while position < bounds.len() {
            // Half a nanosecond more, since 0.000_05 is not exactly 50 µs.
            bounds[position] = (BUCKETS[position] * NS_PER_SECOND + 0.5) as u64;
            position += 1;
        }
        bounds
    };
    BOUNDS_NS.iter().position(|bound| took_ns <= *bound).unwrap_or(BUCKETS.len())
}

impl RedirectSums {
    /// # Errors
    /// When a name is not valid.
    pub(super) fn new() -> prometheus::Result<Self> {
        let descriptions = [describe(REDIRECTS, &["tier", "outcome"])?, describe(REDIRECT_SECONDS, &[])?];
        Ok(Self { sums: Arc::default(), descriptions })
    }

    /// The counts of another worker.
    pub(super) fn of_a_worker(&self) -> RedirectCounts {
        RedirectCounts(self.sums.of_a_worker())
    }
}

impl Collector for RedirectSums {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let total = self.sums.total();
        let counts = Tier::ALL.into_iter().flat_map(|tier| Outcome::ALL.map(|outcome| (tier, outcome)));
        let counts = counts.map(|(tier, outcome)| {
            let mut counter = Counter::default();
            counter.set_value(total.redirects[tier as usize][outcome as usize].load(Ordering::Relaxed) as f64);
            let labels = vec![label("outcome", outcome.as_str()), label("tier", tier.as_str())];
            let mut metric = Metric::from_label(labels);
            metric.set_counter(counter);
            metric
        });
        let mut seconds = Metric::default();
        seconds.set_histogram(histogram(&total));
        vec![
            family(REDIRECTS, MetricType::COUNTER, counts.collect()),
            family(REDIRECT_SECONDS, MetricType::HISTOGRAM, vec![seconds]),
        ]
    }
}

fn histogram(total: &Cells) -> Histogram {
    let mut seen = 0;
    let mut counts = total.buckets.iter().map(|cell| {
        seen += cell.load(Ordering::Relaxed);
        seen
    });
    let buckets = BUCKETS.iter().zip(counts.by_ref()).map(|(bound, count)| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(count);
        bucket
    });
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(counts.last().unwrap_or_default());
    histogram.set_sample_sum(total.sum_ns.load(Ordering::Relaxed) as f64 / NS_PER_SECOND);
    histogram
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    fn assert_line(metrics: &Metrics, line: &str) {
        let text = metrics.encode().unwrap();
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }

    #[test]
    fn the_counts_of_all_workers_are_added_up() {
        let metrics = Metrics::new();
        let worker = |redirects| {
            let counts = metrics.redirect_counts();
            (0..redirects).for_each(|_| counts.count(Tier::L1, Outcome::Found, Duration::from_millis(1)));
        };
        std::thread::scope(|scope| {
            for redirects in 1..=3 {
                scope.spawn(move || worker(redirects));
            }
        });
        let counts = metrics.redirect_counts();
        counts.count(Tier::L1, Outcome::Found, Duration::from_millis(4));
        assert_line(&metrics, "terse_redirects_total{outcome=\"found\",tier=\"l1\"} 7");
        assert_line(&metrics, "terse_redirect_seconds_count 7");
        assert_line(&metrics, "terse_redirect_seconds_sum 0.01");
    }

    #[test]
    fn what_a_worker_counted_outlives_it() {
        let metrics = Metrics::new();
        for _ in 0..100 {
            metrics.redirect_counts().count(Tier::Store, Outcome::Gone, Duration::from_secs(1));
        }
        assert_line(&metrics, "terse_redirects_total{outcome=\"gone\",tier=\"store\"} 100");
        assert_eq!(metrics.redirects.sums.workers(), 0);
    }

    #[test]
    fn a_scrape_beside_a_worker_sees_counts_that_agree() {
        let metrics = Metrics::new();
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let counts = metrics.redirect_counts();
                (0..100_000).for_each(|_| counts.count(Tier::L1, Outcome::Found, Duration::from_micros(7)));
                done.store(true, Ordering::Release);
            });
            let mut last = 0;
            while !done.load(Ordering::Acquire) {
                let total = histogram(&metrics.redirects.sums.total());
                let count = total.get_sample_count();
                assert!(count >= last && total.get_bucket().iter().all(|bucket| bucket.cumulative_count() == count));
                last = count;
            }
        });
        assert_line(&metrics, "terse_redirect_seconds_bucket{le=\"0.00005\"} 100000");
    }

    #[test]
    fn a_redirect_is_in_the_first_bucket_that_holds_it() {
        for (took_ns, expected) in [(0, 0), (50_000, 0), (50_001, 1), (100_000, 1), (10_000_000_000, 15)] {
            assert_eq!(bucket(took_ns), expected, "{took_ns}");
        }
        assert_eq!((bucket(10_000_000_001), bucket(u64::MAX)), (16, 16));
        for (position, bound) in BUCKETS.into_iter().enumerate() {
            assert_eq!(bucket(Duration::from_secs_f64(bound).as_nanos() as u64), position);
        }
    }

    #[test]
    fn buckets_are_cumulative_and_end_with_all() {
        let metrics = Metrics::new();
        let counts = metrics.redirect_counts();
        for took in [Duration::from_micros(20), Duration::from_micros(60), Duration::from_secs(99)] {
            counts.count(Tier::None, Outcome::Missing, took);
        }
        for line in [
            "terse_redirect_seconds_bucket{le=\"0.00005\"} 1",
            "terse_redirect_seconds_bucket{le=\"0.0001\"} 2",
            "terse_redirect_seconds_bucket{le=\"10\"} 2",
            "terse_redirect_seconds_bucket{le=\"+Inf\"} 3",
        ] {
            assert_line(&metrics, line);
        }
    }
}
