//! What rate limits have refused.

use prometheus::IntCounter;

/// The counts of one rate limit.
#[derive(Clone, Debug)]
pub struct LimitCounts {
    pub(super) refused: IntCounter,
    pub(super) alone: IntCounter,
}

impl LimitCounts {
    /// Counts units that were refused.
    pub fn refused(&self, units: u32) {
        if units > 0 {
            self.refused.inc_by(u64::from(units));
        }
    }

    /// Counts a decision about a shared limit that this process made alone.
    pub fn decided_alone(&self) {
        self.alone.inc();
    }
}
