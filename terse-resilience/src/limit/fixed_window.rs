//! The fixed window: a count that begins anew at each tick of the clock.

use std::time::Duration;

use super::rule::nanos;
use super::{Algorithm, Draw, Rule, not_before};

/// A fixed window; see [`Rule::FixedWindow`].
pub(super) struct FixedWindow {
    limit: u32,
    window: Duration,
    window_ns: u64,
}

/// What a key used in the window with that number.
#[derive(Clone, Copy, Default)]
pub(super) struct Used {
    window: u64,
    units: u32,
}

impl FixedWindow {
    pub(super) fn new(limit: u32, window: Duration) -> Self {
        Self { limit, window, window_ns: nanos(window) }
    }
}

impl Algorithm for FixedWindow {
    type State = Used;

    fn rule(&self) -> Rule {
        Rule::FixedWindow { limit: self.limit, window: self.window }
    }

    fn draw(&self, used: &mut Used, now_ns: u64, wanted: u32) -> Draw {
        let now_ns = not_before(used.window.saturating_mul(self.window_ns), now_ns);
        let window = now_ns / self.window_ns;
        if window > used.window {
            used.units = 0;
        }
        // Also to an older one: what was used then counts now.
        used.window = window;
        let granted = wanted.min(self.limit - used.units);
        used.units += granted;
        let more_in_ns = if used.units == 0 { 0 } else { self.window_ns - now_ns % self.window_ns };
        Draw {
            granted,
            remaining: self.limit - used.units,
            more_in: Duration::from_nanos(more_in_ns),
            wait: Duration::ZERO,
        }
    }

    fn idle_at_ns(&self, used: &Used) -> u64 {
        if used.units == 0 { 0 } else { (used.window + 1).saturating_mul(self.window_ns) }
    }
}
