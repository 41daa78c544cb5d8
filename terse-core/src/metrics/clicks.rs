//! The counts of clicks written down or dropped: each web worker writes its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, Metric, MetricFamily, MetricType};

use super::families::{describe, family, label};
use super::workers::{self, OfAWorker, Sums, increase};
use super::{CLICKS_DROPPED, CLICKS_RECORDED};
use crate::click::Dropped;

/// The counts of one web worker, for the thread that made it alone. When it is
/// dropped, what it counted stays in the sum.
pub struct ClickCounts(OfAWorker<Cells>);

/// Read by scrapes. 64-byte alignment keeps the cells of two workers in lines of their own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Cells {
    recorded: AtomicU64,
    dropped: [AtomicU64; Dropped::ALL.len()],
}

impl workers::Cells for Cells {
    fn all(&self) -> impl Iterator<Item = &AtomicU64> {
        self.dropped.iter().chain([&self.recorded])
    }
}

impl ClickCounts {
    /// Counts a click that was written down.
    pub fn recorded(&self) {
        increase(&self.0.cells().recorded, 1);
    }

    /// Counts a click that was dropped.
    pub fn dropped(&self, reason: Dropped) {
        increase(&self.0.cells().dropped[reason as usize], 1);
    }
}

/// The counts as Prometheus reads them.
#[derive(Clone, Debug)]
pub(super) struct ClickSums {
    sums: Arc<Sums<Cells>>,
    descriptions: [Desc; 2],
}

impl ClickSums {
    /// # Errors
    /// When a name is not valid.
    pub(super) fn new() -> prometheus::Result<Self> {
        let descriptions = [describe(CLICKS_RECORDED, &[])?, describe(CLICKS_DROPPED, &["reason"])?];
        Ok(Self { sums: Arc::default(), descriptions })
    }

    /// The counts of another worker.
    pub(super) fn of_a_worker(&self) -> ClickCounts {
        ClickCounts(self.sums.of_a_worker())
    }
}

impl Collector for ClickSums {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let total = self.sums.total();
        let recorded = counted(Metric::default(), &total.recorded);
        let dropped = Dropped::ALL.into_iter().map(|reason| {
            let metric = Metric::from_label(vec![label("reason", reason.as_str())]);
            counted(metric, &total.dropped[reason as usize])
        });
        vec![
            family(CLICKS_RECORDED, MetricType::COUNTER, vec![recorded]),
            family(CLICKS_DROPPED, MetricType::COUNTER, dropped.collect()),
        ]
    }
}

fn counted(mut metric: Metric, cell: &AtomicU64) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(cell.load(Ordering::Relaxed) as f64);
    metric.set_counter(counter);
    metric
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn reasons_stand_in_the_order_of_their_enum() {
        for (position, reason) in Dropped::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, position);
        }
    }

    #[test]
    fn every_click_counts_as_recorded_or_under_why_it_was_dropped() {
        let metrics = Metrics::new();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let counts = metrics.click_counts();
                (0..5).for_each(|_| counts.recorded());
                counts.dropped(Dropped::Fault);
            });
        });
        let counts = metrics.click_counts();
        counts.recorded();
        (0..2).for_each(|_| counts.dropped(Dropped::NoBlock));
        let text = metrics.encode().unwrap();
        for line in [
            "# TYPE terse_clicks_recorded_total counter",
            "terse_clicks_recorded_total 6",
            "# TYPE terse_clicks_dropped_total counter",
            "terse_clicks_dropped_total{reason=\"budget\"} 0",
            "terse_clicks_dropped_total{reason=\"no_block\"} 2",
            "terse_clicks_dropped_total{reason=\"fault\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
