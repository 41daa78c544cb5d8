//! What is told of limits of calls at once, and of what was refused for them.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::table::opts;
use super::{CONCURRENCY_IN_FLIGHT, CONCURRENCY_LIMIT, CONNECTIONS_REFUSED, Metrics, SHED, registered};

/// What is shed when there is too much, the first to go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shed {
    /// Statistics and newest clicks.
    Stats,
    /// Creates, edits and deletions, and what API clients read of links.
    Create,
    /// Redirects that memory can't answer.
    Redirect,
}

impl Shed {
    /// All kinds, in the order in which they go.
    pub const ALL: [Self; 3] = [Self::Stats, Self::Create, Self::Redirect];

    /// The label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stats => "stats",
            Self::Create => "create",
            Self::Redirect => "redirect",
        }
    }
}

/// The count of connections that were refused because their address has too many.
#[derive(Clone, Debug)]
pub struct RefusedConnections(IntCounter);

impl RefusedConnections {
    /// Counts one.
    pub fn count(&self) {
        self.0.inc();
    }

    /// How many there were.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

/// The metrics of overload.
pub(super) struct OverloadGauges {
    shed: IntCounterVec,
    limit: IntGaugeVec,
    in_flight: IntGaugeVec,
    refused: IntCounter,
}

impl OverloadGauges {
    pub(super) fn new(registry: &Registry) -> Self {
        let shed = registered(registry, IntCounterVec::new(opts(SHED), &["kind"]));
        for kind in Shed::ALL {
            shed.with_label_values(&[kind.as_str()]);
        }
        Self {
            shed,
            limit: registered(registry, IntGaugeVec::new(opts(CONCURRENCY_LIMIT), &["name"])),
            in_flight: registered(registry, IntGaugeVec::new(opts(CONCURRENCY_IN_FLIGHT), &["name"])),
            refused: registered(registry, IntCounter::with_opts(opts(CONNECTIONS_REFUSED))),
        }
    }
}

impl Metrics {
    /// The calls of `kind` that were shed. Look it up once and keep it.
    #[must_use]
    pub fn shed(&self, kind: Shed) -> IntCounter {
        self.overload.shed.with_label_values(&[kind.as_str()])
    }

    /// How many calls may run at once in `name`, and how many do. Look them up once and keep them.
    #[must_use]
    pub fn concurrency(&self, name: &str) -> (IntGauge, IntGauge) {
        let OverloadGauges { limit, in_flight, .. } = &self.overload;
        (limit.with_label_values(&[name]), in_flight.with_label_values(&[name]))
    }

    /// The connections that were refused because their address has too many. Look it up once and keep it.
    #[must_use]
    pub fn connections_refused(&self) -> RefusedConnections {
        RefusedConnections(self.overload.refused.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shed_is_counted_by_kind_and_limits_by_name() {
        let metrics = Metrics::new();
        metrics.shed(Shed::Stats).inc_by(3);
        let (limit, in_flight) = metrics.concurrency("main/read");
        limit.set(256);
        in_flight.set(7);
        metrics.connections_refused().count();
        assert_eq!(metrics.connections_refused().get(), 1);
        let text = metrics.encode().unwrap();
        for line in [
            "terse_shed_total{kind=\"stats\"} 3",
            "terse_shed_total{kind=\"create\"} 0",
            "terse_shed_total{kind=\"redirect\"} 0",
            "terse_concurrency_limit{name=\"main/read\"} 256",
            "terse_concurrency_in_flight{name=\"main/read\"} 7",
            "terse_connections_refused_total 1",
        ] {
            assert!(text.lines().any(|told| told == line), "{line} is not in\n{text}");
        }
    }
}
