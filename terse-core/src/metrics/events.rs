//! What is counted of link events.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Registry};

use super::table::opts;
use super::{LINK_EVENT_BYTES, LINK_EVENTS, Metrics, registered};

/// The metrics of link events.
pub(super) struct EventGauges {
    events: IntCounterVec,
    bytes: IntGauge,
}

impl EventGauges {
    pub(super) fn new(registry: &Registry) -> Self {
        let events = IntCounterVec::new(opts(LINK_EVENTS), &["outcome"]);
        let bytes = IntGauge::with_opts(opts(LINK_EVENT_BYTES));
        Self { events: registered(registry, events), bytes: registered(registry, bytes) }
    }
}

impl Metrics {
    /// The link events that ended as `outcome` (`told`, `dropped`). Look it up once and keep it.
    #[must_use]
    pub fn link_events(&self, outcome: &str) -> IntCounter {
        self.events.events.with_label_values(&[outcome])
    }

    /// The bytes of link events that wait to be published. Look it up once and keep it.
    #[must_use]
    pub fn link_event_bytes(&self) -> IntGauge {
        self.events.bytes.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_events_are_counted_by_outcome() {
        let metrics = Metrics::new();
        metrics.link_events("told").inc_by(3);
        metrics.link_events("dropped").inc();
        metrics.link_event_bytes().set(77);
        let text = metrics.encode().unwrap();
        for line in [
            "terse_link_events_total{outcome=\"told\"} 3",
            "terse_link_events_total{outcome=\"dropped\"} 1",
            "terse_link_event_bytes 77",
        ] {
            assert!(text.lines().any(|told| told == line), "{line} is not in\n{text}");
        }
    }
}
