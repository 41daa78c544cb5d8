//! What is told of blocks of clicks that nobody can decode.

use prometheus::{IntCounter, IntGauge, Registry};

use super::{CLICK_BLOCKS_ASIDE, CLICK_BLOCKS_DISCARDED, CLICK_BYTES_ASIDE, Metrics, registered};

/// The metrics of such blocks.
pub(super) struct DeadGauges {
    blocks: IntGauge,
    bytes: IntGauge,
    discarded: IntCounter,
}

impl DeadGauges {
    pub(super) fn new(registry: &Registry) -> Self {
        let discarded = IntCounter::new(CLICK_BLOCKS_DISCARDED, "blocks put aside and discarded");
        Self {
            blocks: registered(registry, IntGauge::new(CLICK_BLOCKS_ASIDE, "blocks put aside")),
            bytes: registered(registry, IntGauge::new(CLICK_BYTES_ASIDE, "bytes of blocks put aside")),
            discarded: registered(registry, discarded),
        }
    }
}

impl Metrics {
    /// Tells how many blocks are aside with how many bytes, and that so many more were discarded.
    pub fn click_blocks_aside(&self, blocks: u64, bytes: u64, discarded: u64) {
        self.dead.blocks.set(i64::try_from(blocks).unwrap_or(i64::MAX));
        self.dead.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.dead.discarded.inc_by(discarded);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_aside_is_a_gauge_and_what_was_discarded_adds_up() {
        let metrics = Metrics::new();
        metrics.click_blocks_aside(5, 900, 1);
        metrics.click_blocks_aside(4, 800, 2);
        let text = metrics.encode().unwrap();
        for line in
            ["terse_click_blocks_aside 4", "terse_click_bytes_aside 800", "terse_click_blocks_discarded_total 3"]
        {
            assert!(text.lines().any(|told| told == line), "{line} is not in\n{text}");
        }
    }
}
