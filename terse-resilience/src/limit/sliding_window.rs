//! The sliding window: the units of the last so many seconds, whenever one looks.
//!
//! Units are counted in tenths of the window. Eleven of them, the newest begun
//! and the others whole, cover any window that ends now, and their sum is what
//! counts: so no window ever holds more than the limit, and what was used comes
//! back a tenth of a window late at most. A list of all times would be exact
//! there too, and take eight bytes a unit.

use std::time::Duration;

use super::rule::nanos;
use super::{Algorithm, Draw, Rule, not_before};

/// Parts of a window that are counted apart.
pub const PARTS: usize = 10;

/// A sliding window; see [`Rule::SlidingWindow`].
pub(super) struct SlidingWindow {
    limit: u32,
    window: Duration,
    part_ns: u64,
}

/// What a key used in the part with that number, and in those before it.
#[derive(Clone, Copy, Default)]
pub(super) struct Used {
    newest: u64,
    units: [u32; PARTS + 1],
}

impl Used {
    /// Makes the part `now` the newest one.
    fn advance(&mut self, now: u64) {
        let by = usize::try_from(now.saturating_sub(self.newest)).unwrap_or(usize::MAX).min(self.units.len());
        if by > 0 {
            self.units.copy_within(..PARTS + 1 - by, by);
            self.units[..by].fill(0);
        }
        // Also to an older one: what was used then counts now.
        self.newest = now;
    }

    /// When the oldest units come back, in parts; `None` if there are none.
    fn next_back(&self) -> Option<u64> {
        let age = self.units.iter().rposition(|units| *units > 0)?;
        Some(self.newest + (PARTS + 1 - age) as u64)
    }
}

impl SlidingWindow {
    pub(super) fn new(limit: u32, window: Duration) -> Self {
        Self { limit, window, part_ns: nanos(window).div_ceil(PARTS as u64) }
    }
}

impl Algorithm for SlidingWindow {
    type State = Used;

    fn rule(&self) -> Rule {
        Rule::SlidingWindow { limit: self.limit, window: self.window }
    }

    fn draw(&self, used: &mut Used, now_ns: u64, wanted: u32) -> Draw {
        let now_ns = not_before(used.newest.saturating_mul(self.part_ns), now_ns);
        used.advance(now_ns / self.part_ns);
        let left = self.limit - used.units.iter().sum::<u32>();
        let granted = wanted.min(left);
        used.units[0] += granted;
        let back_ns = used.next_back().map_or(now_ns, |part| part.saturating_mul(self.part_ns));
        Draw {
            granted,
            remaining: left - granted,
            more_in: Duration::from_nanos(back_ns.saturating_sub(now_ns)),
            wait: Duration::ZERO,
        }
    }

    fn idle_at_ns(&self, used: &Used) -> u64 {
        let newest_used = used.units.iter().position(|units| *units > 0);
        newest_used.map_or(0, |age| (used.newest + (PARTS + 1 - age) as u64).saturating_mul(self.part_ns))
    }
}
