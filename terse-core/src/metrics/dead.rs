//! What is told of blocks of clicks that nobody can decode.

use prometheus::{IntCounter, IntGauge, IntGaugeVec, Registry};

use super::table::opts;
use super::{CLICK_BLOCKS_ASIDE, CLICK_BLOCKS_DISCARDED, CLICK_BYTES_ASIDE, CLICKS_STOPPED, Metrics, registered};

/// Who can't go on with the clicks of a journal or a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoppedAt {
    /// Whoever reads a journal, for blocks of it are gone.
    Gap,
    /// The projector, which counts.
    Projector,
    /// The relay, which publishes.
    Relay,
}

impl StoppedAt {
    /// All places, in the order in which a click passes them.
    const ALL: [Self; 3] = [Self::Gap, Self::Relay, Self::Projector];

    /// The label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gap => "gap",
            Self::Projector => "projector",
            Self::Relay => "relay",
        }
    }
}

/// The metrics of such blocks.
pub(super) struct DeadGauges {
    blocks: IntGauge,
    bytes: IntGauge,
    discarded: IntCounter,
    stopped: IntGaugeVec,
}

impl DeadGauges {
    pub(super) fn new(registry: &Registry) -> Self {
        let gauges = Self {
            blocks: registered(registry, IntGauge::with_opts(opts(CLICK_BLOCKS_ASIDE))),
            bytes: registered(registry, IntGauge::with_opts(opts(CLICK_BYTES_ASIDE))),
            discarded: registered(registry, IntCounter::with_opts(opts(CLICK_BLOCKS_DISCARDED))),
            stopped: registered(registry, IntGaugeVec::new(opts(CLICKS_STOPPED), &["at"])),
        };
        // Where nothing is relayed nothing stands still, and that is told, too.
        StoppedAt::ALL.iter().for_each(|at| gauges.stopped.with_label_values(&[at.as_str()]).set(0));
        gauges
    }
}

impl Metrics {
    /// Tells how many blocks are aside with how many bytes, and that so many more were discarded.
    pub fn click_blocks_aside(&self, blocks: u64, bytes: u64, discarded: u64) {
        self.dead.blocks.set(i64::try_from(blocks).unwrap_or(i64::MAX));
        self.dead.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.dead.discarded.inc_by(discarded);
    }

    /// Tells how many journals or streams stand still at `at`.
    pub fn clicks_stopped(&self, at: StoppedAt, partitions: u64) {
        let stopped = self.dead.stopped.with_label_values(&[at.as_str()]);
        stopped.set(i64::try_from(partitions).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_places_are_there_with_zero_before_anything_stands_still() {
        let text = Metrics::new().encode().unwrap();
        for at in ["gap", "relay", "projector"] {
            assert!(text.contains(&format!("{CLICKS_STOPPED}{{at=\"{at}\"}} 0\n")), "{at}: {text}");
        }
    }

    #[test]
    fn what_is_aside_is_a_gauge_and_what_was_discarded_adds_up() {
        let metrics = Metrics::new();
        metrics.click_blocks_aside(5, 900, 1);
        metrics.click_blocks_aside(4, 800, 2);
        metrics.clicks_stopped(StoppedAt::Gap, 1);
        metrics.clicks_stopped(StoppedAt::Relay, 0);
        let text = metrics.encode().unwrap();
        for line in [
            "terse_click_blocks_aside 4",
            "terse_click_bytes_aside 800",
            "terse_click_blocks_discarded_total 3",
            "terse_clicks_stopped{at=\"gap\"} 1",
            "terse_clicks_stopped{at=\"relay\"} 0",
        ] {
            assert!(text.lines().any(|told| told == line), "{line} is not in\n{text}");
        }
    }
}
