//! What is told of the message broker. Nothing shows before it is told once: a server on the local bus has none of it.

use prometheus::core::Collector;
use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Registry};

use super::table::opts;
use super::{
    BUS_CONNECTED, BUS_COUNTED_UNTIL, BUS_DEAD_LETTERS, BUS_OFFSET, BUS_PARTITIONS_HELD, BUS_PARTS, BUS_PARTS_WAITING,
    BUS_RELAY_HELD, registered,
};
use crate::Timestamp;

/// Parts of blocks since the server's start, by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartsCounted {
    /// Published, those that were published again too.
    pub published: u64,
    /// Confirmed by the broker.
    pub confirmed: u64,
    /// Come back because no stream took them.
    pub returned: u64,
    /// Refused by the broker.
    pub refused: u64,
}

/// The metrics of the message broker.
#[derive(Clone)]
pub struct BusGauges {
    connected: IntGaugeVec,
    relay_held: IntGaugeVec,
    parts: IntCounterVec,
    parts_waiting: IntGaugeVec,
    partitions_held: IntGaugeVec,
    dead_letters: IntCounterVec,
    offset: IntGaugeVec,
    counted_until: GaugeVec,
}

impl BusGauges {
    pub(super) fn new(registry: &Registry) -> Self {
        fn gauge(registry: &Registry, name: &str, labels: &[&str]) -> IntGaugeVec {
            shown(registry, IntGaugeVec::new(opts(name), labels))
        }
        fn counter(registry: &Registry, name: &str, labels: &[&str]) -> IntCounterVec {
            shown(registry, IntCounterVec::new(opts(name), labels))
        }
        fn shown<C: Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<C>) -> C {
            registered(registry, made)
        }
        Self {
            connected: gauge(registry, BUS_CONNECTED, &["side"]),
            relay_held: gauge(registry, BUS_RELAY_HELD, &[]),
            parts: counter(registry, BUS_PARTS, &["outcome"]),
            parts_waiting: gauge(registry, BUS_PARTS_WAITING, &[]),
            partitions_held: gauge(registry, BUS_PARTITIONS_HELD, &[]),
            dead_letters: counter(registry, BUS_DEAD_LETTERS, &[]),
            offset: gauge(registry, BUS_OFFSET, &["partition"]),
            counted_until: shown(registry, GaugeVec::new(opts(BUS_COUNTED_UNTIL), &["partition"])),
        }
    }

    /// Whether the relay is connected.
    pub fn relay_connected(&self, is: bool) {
        self.connected.with_label_values(&["relay"]).set(i64::from(is));
    }

    /// Whether the reader of streams is connected; one that stands by is not.
    pub fn reader_connected(&self, is: bool) {
        self.connected.with_label_values(&["reader"]).set(i64::from(is));
    }

    /// Whether the relay publishes nothing because counting is too far behind, or nobody can tell.
    pub fn relay_held(&self, is: bool) {
        self.relay_held.with_label_values(NO_LABELS).set(i64::from(is));
    }

    /// What became of parts since the start.
    pub fn parts(&self, counted: &PartsCounted) {
        let PartsCounted { published, confirmed, returned, refused } = *counted;
        let outcomes =
            [("published", published), ("confirmed", confirmed), ("returned", returned), ("refused", refused)];
        for (outcome, total) in outcomes {
            let counter = self.parts.with_label_values(&[outcome]);
            counter.inc_by(total.saturating_sub(counter.get()));
        }
    }

    /// How many parts are published or about to be, and not confirmed.
    pub fn parts_waiting(&self, parts: u64) {
        self.parts_waiting.with_label_values(NO_LABELS).set(i64::try_from(parts).unwrap_or(i64::MAX));
    }

    /// How many partitions this server counts.
    pub fn partitions_held(&self, partitions: u64) {
        self.partitions_held.with_label_values(NO_LABELS).set(i64::try_from(partitions).unwrap_or(i64::MAX));
    }

    /// How many messages this server put aside since its start.
    pub fn dead_letters(&self, total: u64) {
        let counter = self.dead_letters.with_label_values(NO_LABELS);
        counter.inc_by(total.saturating_sub(counter.get()));
    }

    /// How far `partition` is counted, by whichever server: up to `offset`, the last block of which was sealed at `until`.
    pub fn counted(&self, partition: u16, offset: u64, until: Timestamp) {
        let partition = partition.to_string();
        self.offset.with_label_values(&[&partition]).set(i64::try_from(offset).unwrap_or(i64::MAX));
        self.counted_until.with_label_values(&[&partition]).set(until.as_millis() as f64 / 1_000.0);
    }
}

const NO_LABELS: &[&str] = &[];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn a_server_without_a_broker_shows_nothing_of_one() {
        assert!(!Metrics::new().encode().unwrap().contains("terse_bus_"));
    }

    #[test]
    fn what_is_told_of_the_broker_is_shown() {
        let metrics = Metrics::new();
        let bus = metrics.bus();
        bus.relay_connected(true);
        bus.reader_connected(false);
        bus.relay_held(true);
        for confirmed in [3, 5, 5] {
            bus.parts(&PartsCounted { published: 8, confirmed, returned: 1, refused: 0 });
        }
        bus.parts_waiting(3);
        bus.partitions_held(8);
        bus.dead_letters(2);
        bus.counted(7, 41, Timestamp::from_millis(1_500));
        let text = metrics.encode().unwrap();
        for line in [
            "terse_bus_connected{side=\"relay\"} 1",
            "terse_bus_connected{side=\"reader\"} 0",
            "terse_bus_relay_held 1",
            "terse_bus_parts_total{outcome=\"published\"} 8",
            "terse_bus_parts_total{outcome=\"confirmed\"} 5",
            "terse_bus_parts_total{outcome=\"returned\"} 1",
            "terse_bus_parts_total{outcome=\"refused\"} 0",
            "terse_bus_parts_waiting 3",
            "terse_bus_partitions_held 8",
            "terse_bus_dead_letters_total 2",
            "terse_bus_offset{partition=\"7\"} 41",
            "terse_bus_counted_until_seconds{partition=\"7\"} 1.5",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
