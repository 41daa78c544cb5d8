//! What the program takes from outside itself: time, randomness, and the metrics it shows.

use std::sync::Arc;

use terse_core::metrics::Metrics;
use terse_core::{Clock, Entropy};

use crate::system::{OsEntropy, SystemClock};

/// What every part may need of the world. Cloning shares it.
#[derive(Clone)]
pub struct World {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
}

impl World {
    /// The system's clock and randomness, and metrics at zero.
    #[must_use]
    pub fn real() -> Self {
        Self { clock: Arc::new(SystemClock::new()), entropy: Arc::new(OsEntropy), metrics: Arc::new(Metrics::new()) }
    }
}
