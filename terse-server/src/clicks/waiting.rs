//! What waits in the journals of this server's data directory, as it was seen last, whoever is to count or relay it.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use terse_clicks::log::backlog::{Backlog, Waiting};
use terse_core::{Clock, Timestamp};

/// Looks at the journals, and remembers what it saw. Cloning shares it.
#[derive(Clone)]
pub(super) struct Watch {
    backlog: Arc<Mutex<Backlog>>,
    seen: Arc<Mutex<Waiting>>,
}

impl Watch {
    /// Of the journals in `directory`. Nothing is looked at yet.
    pub(super) fn new(directory: &Path) -> Self {
        Self { backlog: Arc::new(Mutex::new(Backlog::new(directory))), seen: Arc::default() }
    }

    /// Looks once. It blocks on the disk; while another look does, it does nothing.
    pub(super) fn look_once(&self, clock: &dyn Clock) -> io::Result<()> {
        let Some(mut backlog) = self.backlog.try_lock() else { return Ok(()) };
        let since_epoch = Duration::from_millis(u64::try_from(clock.now().as_millis()).unwrap_or(0));
        let looked = backlog.look_once(SystemTime::UNIX_EPOCH + since_epoch, clock.monotonic_ms());
        *self.seen.lock() = backlog.waiting();
        looked
    }

    /// For how long the oldest sealed block has waited, in milliseconds; 0 = none waits.
    pub(super) fn lag_ms(&self, now: Timestamp) -> u64 {
        let oldest = self.seen.lock().oldest;
        oldest.map_or(0, |sealed| u64::try_from(now.as_millis().saturating_sub(sealed.as_millis())).unwrap_or(0))
    }

    /// Journals whose readers wait for blocks that are gone.
    pub(super) fn gaps(&self) -> u64 {
        self.seen.lock().gaps.len() as u64
    }

    /// The same in words; `None` = there are none. The first is named: it is enough to know where to look.
    pub(super) fn gaps_in_words(&self) -> Option<String> {
        let seen = self.seen.lock();
        let first = seen.gaps.first()?;
        let others = match seen.gaps.len() - 1 {
            0 => String::new(),
            others => format!(", and {others} more"),
        };
        Some(format!("blocks {first} are missing{others}: see terse dead list"))
    }
}

#[cfg(test)]
mod tests {
    use terse_testkit::TestClock;

    use super::*;

    const JOURNAL: &str = "07070707070707070707070707070707";

    #[test]
    fn a_block_that_is_missing_is_told_with_its_journal_and_the_age_of_what_waits_behind_it() {
        let place = tempfile::tempdir().unwrap();
        let (watch, clock) = (Watch::new(place.path()), TestClock::default());
        watch.look_once(&clock).unwrap();
        assert_eq!((watch.lag_ms(clock.now()), watch.gaps(), watch.gaps_in_words()), (0, 0, None));
        let block = place.path().join(JOURNAL).join(format!("{:020}.block", 2));
        std::fs::create_dir(place.path().join(JOURNAL)).unwrap();
        std::fs::write(&block, b"of another format").unwrap();
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(clock.now().as_millis() as u64);
        std::fs::File::open(&block).unwrap().set_modified(now - Duration::from_secs(20)).unwrap();
        clock.advance(Duration::from_secs(10));
        watch.look_once(&clock).unwrap();
        assert_eq!((watch.lag_ms(clock.now()), watch.gaps()), (30_000, 1));
        let told = watch.gaps_in_words().unwrap();
        assert_eq!(told, format!("blocks {JOURNAL}/0-1 are missing: see terse dead list"));
    }
}
