//! What the cache in front of the store holds, read anew at each scrape: there
//! is nothing to keep in step, and nobody counts while nobody looks.

use std::fmt;
use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, Gauge, Metric, MetricFamily, MetricType};

use super::families::{describe, family, label};
use super::{
    BLOCKED_HOSTS, CACHE_BYPASSED, CACHE_BYPASSES, CACHE_BYTES, CACHE_LINKS, CACHE_MARKED_CODES, CACHE_OVERFLOWS,
    MARKS_FRESH,
};

/// The cache at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheReading {
    /// Links in memory, fresh or not.
    pub links: u64,
    /// Bytes that they take, by estimate.
    pub bytes: u64,
    /// Codes that changed lately whose least version is remembered.
    pub marked_codes: u64,
    /// Whether nothing is taken from the shared cache now.
    pub bypassed: bool,
    /// Reads of change marks that there were too many of, since the start.
    pub overflows: u64,
    /// How often the shared cache began to be bypassed, since the start.
    pub bypasses: u64,
    /// Hosts that no link may lead to, of the operator's file and of admins.
    pub blocked_hosts: u64,
    /// Each shard that other servers change, and whether what is remembered of it is in step with its marks.
    pub marks_fresh: Vec<(String, bool)>,
}

type Read = dyn Fn() -> Option<CacheReading> + Send + Sync;

/// Reads the cache when Prometheus asks.
#[derive(Clone)]
pub(super) struct CacheGauges {
    read: Arc<Read>,
    descriptions: Vec<Desc>,
}

impl fmt::Debug for CacheGauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheGauges").finish_non_exhaustive()
    }
}

/// A number of the cache as a whole: its name, its kind, where it stands.
type Total = (&'static str, MetricType, fn(&CacheReading) -> u64);

const TOTALS: [Total; 7] = [
    (CACHE_LINKS, MetricType::GAUGE, |seen| seen.links),
    (CACHE_BYTES, MetricType::GAUGE, |seen| seen.bytes),
    (CACHE_MARKED_CODES, MetricType::GAUGE, |seen| seen.marked_codes),
    (CACHE_BYPASSED, MetricType::GAUGE, |seen| seen.bypassed.into()),
    (CACHE_OVERFLOWS, MetricType::COUNTER, |seen| seen.overflows),
    (CACHE_BYPASSES, MetricType::COUNTER, |seen| seen.bypasses),
    (BLOCKED_HOSTS, MetricType::GAUGE, |seen| seen.blocked_hosts),
];

impl CacheGauges {
    /// # Errors
    /// When a name is not valid.
    pub(super) fn new(read: Arc<Read>) -> prometheus::Result<Self> {
        let totals = TOTALS.iter().map(|(name, ..)| describe(name, &[]));
        let descriptions = totals.chain([describe(MARKS_FRESH, &["shard"])]).collect::<Result<_, _>>()?;
        Ok(Self { read, descriptions })
    }
}

impl Collector for CacheGauges {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Some(seen) = (self.read)() else { return Vec::new() };
        let mut families: Vec<_> = TOTALS.iter().map(|total| total_of(&seen, total)).collect();
        if !seen.marks_fresh.is_empty() {
            let fresh = seen.marks_fresh.iter().map(|(shard, fresh)| {
                let mut metric = Metric::from_label(vec![label("shard", shard)]);
                metric.set_gauge(gauge(u64::from(*fresh)));
                metric
            });
            families.push(family(MARKS_FRESH, MetricType::GAUGE, fresh.collect()));
        }
        families
    }
}

fn total_of(seen: &CacheReading, (name, kind, value): &Total) -> MetricFamily {
    let mut metric = Metric::default();
    match kind {
        MetricType::COUNTER => {
            let mut counter = Counter::default();
            counter.set_value(value(seen) as f64);
            metric.set_counter(counter);
        }
        _ => metric.set_gauge(gauge(value(seen))),
    }
    family(name, *kind, vec![metric])
}

fn gauge(value: u64) -> Gauge {
    let mut gauge = Gauge::default();
    gauge.set_value(value as f64);
    gauge
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn a_scrape_tells_what_the_cache_holds_then() {
        let seen = Arc::new(Mutex::new(Some(CacheReading::default())));
        let (metrics, shown) = (Metrics::new(), Arc::clone(&seen));
        metrics.show_cache(Arc::new(move || shown.lock().unwrap().clone())).unwrap();
        let lines = || metrics.encode().unwrap().lines().map(str::to_owned).collect::<Vec<_>>();
        let empty = lines();
        for name in [CACHE_LINKS, CACHE_BYTES, CACHE_MARKED_CODES, CACHE_BYPASSED, CACHE_OVERFLOWS, CACHE_BYPASSES] {
            assert!(empty.contains(&format!("{name} 0")), "{name} in {empty:?}");
        }
        assert!(!empty.iter().any(|line| line.contains(MARKS_FRESH)), "no shard is polled");
        *seen.lock().unwrap() = Some(CacheReading {
            links: 1,
            bytes: 2,
            marked_codes: 3,
            bypassed: true,
            overflows: 4,
            bypasses: 5,
            blocked_hosts: 6,
            marks_fresh: vec![("a".to_owned(), true), ("b".to_owned(), false)],
        });
        let now = lines();
        for line in [
            "terse_cache_links 1",
            "terse_cache_bytes 2",
            "terse_cache_marked_codes 3",
            "terse_cache_bypassed 1",
            "terse_cache_overflows_total 4",
            "terse_cache_bypasses_total 5",
            "terse_blocked_hosts 6",
            "terse_marks_fresh{shard=\"a\"} 1",
            "terse_marks_fresh{shard=\"b\"} 0",
            "# TYPE terse_cache_links gauge",
            "# TYPE terse_cache_overflows_total counter",
            "# TYPE terse_marks_fresh gauge",
        ] {
            assert!(now.iter().any(|told| told == line), "{line} is not in {now:?}");
        }
    }

    #[test]
    fn a_cache_that_is_gone_is_no_number() {
        let metrics = Metrics::new();
        metrics.show_cache(Arc::new(|| None)).unwrap();
        assert!(!metrics.encode().unwrap().contains("terse_cache_links"));
    }

    #[test]
    fn a_second_cache_is_refused() {
        let metrics = Metrics::new();
        metrics.show_cache(Arc::new(|| None)).unwrap();
        assert!(metrics.show_cache(Arc::new(|| None)).is_err(), "its numbers would hide the first one's");
    }
}
