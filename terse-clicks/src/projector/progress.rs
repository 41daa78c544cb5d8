//! What a projector tells of itself while it works, for metrics and health.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use parking_lot::Mutex;
use terse_core::Timestamp;
use terse_core::click::BlockId;

/// No time.
const NONE: i64 = i64::MIN;

/// Counts of one projector. Written by it alone, read by anyone; each number is true by itself.
#[derive(Debug)]
pub struct Progress {
    applied: AtomicU64,
    rows_written: AtomicU64,
    writes: AtomicU64,
    dead_letters: AtomicU64,
    epochs: AtomicU64,
    superseded: AtomicU64,
    faults: AtomicU64,
    held: AtomicU64,
    stopped: AtomicU64,
    row_bytes: AtomicU64,
    newest_applied_ms: AtomicI64,
    oldest_waiting_ms: AtomicI64,
    in_hand: Mutex<Option<BlockId>>,
}

/// A look at [`Progress`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgressReport {
    /// Clicks in those writes of this projector that are known to stand. It tells how busy the projector is; what was
    /// counted is what the rows say.
    pub applied: u64,
    /// Rows written.
    pub rows_written: u64,
    /// Writes that stood.
    pub writes: u64,
    /// Messages put aside.
    pub dead_letters: u64,
    /// How often a log had begun anew.
    pub epochs: u64,
    /// How often somebody else had written.
    pub superseded: u64,
    /// How often it had to pause.
    pub faults: u64,
    /// Partitions that it projects now.
    pub held: u64,
    /// Partitions that it would project if it could: their log has a gap, can't be read, or needs a newer build, or there
    /// are more than [`MAX_PARTITIONS`](super::MAX_PARTITIONS).
    pub stopped: u64,
    /// About how many bytes the rows in play take.
    pub row_bytes: u64,
    /// When the newest block was sealed of those that stand in the read model.
    pub newest_applied: Option<Timestamp>,
    /// When the oldest block was sealed of those that don't; `None` = all do, as far as known.
    pub oldest_waiting: Option<Timestamp>,
}

impl ProgressReport {
    /// For how long the oldest click has waited that isn't counted yet, in milliseconds; 0 = none waits.
    #[must_use]
    pub fn lag_ms(&self, now: Timestamp) -> u64 {
        let waited_ms = self.oldest_waiting.map_or(0, |sealed| now.as_millis() - sealed.as_millis());
        u64::try_from(waited_ms).unwrap_or(0)
    }
}

impl Default for Progress {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            applied: zero(),
            rows_written: zero(),
            writes: zero(),
            dead_letters: zero(),
            epochs: zero(),
            superseded: zero(),
            faults: zero(),
            held: zero(),
            stopped: zero(),
            row_bytes: zero(),
            newest_applied_ms: AtomicI64::new(NONE),
            oldest_waiting_ms: AtomicI64::new(NONE),
            in_hand: Mutex::new(None),
        }
    }
}

impl Progress {
    /// How it stands.
    #[must_use]
    pub fn report(&self) -> ProgressReport {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let time = |time: &AtomicI64| match time.load(Ordering::Relaxed) {
            NONE => None,
            ms => Some(Timestamp::from_millis(ms)),
        };
        ProgressReport {
            applied: count(&self.applied),
            rows_written: count(&self.rows_written),
            writes: count(&self.writes),
            dead_letters: count(&self.dead_letters),
            epochs: count(&self.epochs),
            superseded: count(&self.superseded),
            faults: count(&self.faults),
            held: count(&self.held),
            stopped: count(&self.stopped),
            row_bytes: count(&self.row_bytes),
            newest_applied: time(&self.newest_applied_ms),
            oldest_waiting: time(&self.oldest_waiting_ms),
        }
    }

    /// The block whose records are being added; of a projector that has died, the one at which it died. `None` = it does
    /// something else, or did.
    #[must_use]
    pub fn in_hand(&self) -> Option<BlockId> {
        *self.in_hand.lock()
    }

    pub(super) fn takes(&self, block: Option<BlockId>) {
        *self.in_hand.lock() = block;
    }

    pub(super) fn wrote(&self, clicks: u64, rows: u64) {
        self.applied.fetch_add(clicks, Ordering::Relaxed);
        self.rows_written.fetch_add(rows, Ordering::Relaxed);
        self.writes.fetch_add(1, Ordering::Relaxed);
    }

    /// Forgets what a clock told that was ahead of `now`. Only the projector itself writes.
    pub(super) fn newest_applied(&self, sealed: Timestamp, now: Timestamp) {
        let newest_ms = self.newest_applied_ms.load(Ordering::Relaxed).max(sealed.as_millis());
        self.newest_applied_ms.store(newest_ms.min(now.as_millis()), Ordering::Relaxed);
    }

    pub(super) fn dead_letter(&self) {
        self.dead_letters.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn epoch(&self) {
        self.epochs.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn superseded(&self) {
        self.superseded.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn fault(&self) {
        self.faults.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn keeps(&self, row_bytes: usize) {
        self.row_bytes.store(row_bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn holds(&self, held: usize, stopped: usize, oldest_waiting: Option<Timestamp>) {
        self.held.store(held as u64, Ordering::Relaxed);
        self.stopped.store(stopped as u64, Ordering::Relaxed);
        self.oldest_waiting_ms.store(oldest_waiting.map_or(NONE, Timestamp::as_millis), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_known_before_anything_was_done() {
        let report = Progress::default().report();
        assert_eq!((report.applied, report.newest_applied, report.oldest_waiting), (0, None, None));
        assert_eq!(report.lag_ms(Timestamp::from_millis(5)), 0);
    }

    #[test]
    fn the_lag_is_how_long_the_oldest_click_waits() {
        let progress = Progress::default();
        progress.holds(2, 1, Some(Timestamp::from_millis(1_000)));
        let report = progress.report();
        assert_eq!((report.held, report.stopped), (2, 1));
        assert_eq!(report.lag_ms(Timestamp::from_millis(1_700)), 700);
        assert_eq!(report.lag_ms(Timestamp::from_millis(900)), 0, "a clock that stepped back is no lag");
        progress.holds(2, 1, None);
        assert_eq!(progress.report().lag_ms(Timestamp::from_millis(1_700)), 0);
    }

    #[test]
    fn what_is_done_is_counted() {
        let progress = Progress::default();
        progress.wrote(10, 3);
        progress.wrote(5, 2);
        let newest = |sealed, now| progress.newest_applied(Timestamp::from_millis(sealed), Timestamp::from_millis(now));
        newest(9_999, 9_999);
        newest(9, 10);
        assert_eq!(progress.report().newest_applied, Some(Timestamp::from_millis(10)), "the clock was ahead");
        newest(9, 9);
        newest(4, 100);
        progress.dead_letter();
        progress.epoch();
        progress.superseded();
        progress.fault();
        assert_eq!(progress.in_hand(), None);
        let block = BlockId { journal: terse_core::click::JournalId([1; 16]), seq: 7 };
        progress.takes(Some(block));
        assert_eq!(progress.in_hand(), Some(block));
        let report = progress.report();
        assert_eq!((report.applied, report.rows_written, report.writes), (15, 5, 2));
        assert_eq!((report.dead_letters, report.epochs, report.superseded, report.faults), (1, 1, 1, 1));
        assert_eq!(report.newest_applied, Some(Timestamp::from_millis(9)));
    }
}
