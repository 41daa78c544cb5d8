//! The leaky bucket: units leave one by one, evenly, and wait for that in a queue.

use std::time::Duration;

use super::{Algorithm, Draw, Rule, ahead};

/// A leaky bucket; see [`Rule::LeakyBucket`].
pub(super) struct LeakyBucket {
    rule: Rule,
    period_ns: u64,
    /// The longest that a unit waits.
    queue_ns: u64,
}

/// When the next unit may leave.
#[derive(Clone, Copy, Default)]
pub(super) struct NextTurn(u64);

impl LeakyBucket {
    pub(super) fn new(rule: Rule, period_ns: u64, queue: u32) -> Self {
        Self { rule, period_ns, queue_ns: period_ns.saturating_mul(u64::from(queue)) }
    }

    /// How many units that have to wait for `wait_ns` from now find room.
    fn room(&self, wait_ns: u64) -> u64 {
        self.queue_ns.checked_sub(wait_ns).map_or(0, |left_ns| left_ns / self.period_ns + 1)
    }
}

impl Algorithm for LeakyBucket {
    type State = NextTurn;

    fn rule(&self) -> Rule {
        self.rule
    }

    fn draw(&self, next: &mut NextTurn, now_ns: u64, wanted: u32) -> Draw {
        let wait_ns = ahead(next.0, now_ns, self.queue_ns.saturating_add(self.period_ns));
        let room = u32::try_from(self.room(wait_ns)).unwrap_or(u32::MAX);
        let granted = wanted.min(room);
        let taken_ns = wait_ns + u64::from(granted) * self.period_ns;
        next.0 = now_ns.saturating_add(taken_ns);
        let remaining = room - granted;
        // The room for one more opens when the last in the queue has moved up by one.
        let more_in_ns = if taken_ns == 0 { 0 } else { (taken_ns - 1) % self.period_ns + 1 };
        let wait = if granted > 0 { Duration::from_nanos(wait_ns) } else { Duration::ZERO };
        Draw { granted, remaining, more_in: Duration::from_nanos(more_in_ns), wait }
    }

    fn idle_at_ns(&self, next: &NextTurn) -> u64 {
        next.0
    }
}
