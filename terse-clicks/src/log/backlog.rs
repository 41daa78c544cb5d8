//! What waits in the journals of a data directory, and which of them stand still: for whoever tells operators.
//!
//! It is seen from outside, by the files alone, so it is told whoever reads the journals, in whatever process, and also
//! when nobody does: while a message broker is away, or a projector. A look reads two small files of each journal that
//! something waits in, and lists the directory of one whose next block isn't there, at most every `LIST_MS`.
//!
//! Where a full disk keeps the file `passed` back, more is told to wait than does.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use terse_core::Timestamp;
use terse_core::click::{BlockId, JournalId};

use super::local::seq_of;
use super::quarantine::{DeadBlock, Quarantine};
use crate::journal;
use crate::journal::directory::{JournalDir, Name};

/// How often the directory of one journal is listed at most, in milliseconds.
const LIST_MS: u64 = 5_000;
/// A directory's time of change may stand still for so long after it was seen to change.
const SETTLED: Duration = Duration::from_secs(1);

/// What a look at the journals found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// When the oldest block was sealed that nobody has counted, or relayed; `None` = none waits.
    pub oldest: Option<Timestamp>,
    /// Journals whose readers wait for blocks that are gone, each with the blocks that are missing.
    pub gaps: Vec<DeadBlock>,
}

/// The journals of a data directory, as they were seen last.
pub struct Backlog {
    root: PathBuf,
    /// No more than there are directories.
    journals: BTreeMap<JournalId, Seen>,
}

/// A journal, as it was seen last.
#[derive(Default)]
struct Seen {
    /// When its directory had last changed when nothing waited in it: as long as it doesn't, nothing does.
    quiet: Option<SystemTime>,
    /// The block that its readers need first, and when the first one was sealed that is there.
    oldest: Option<(u64, Timestamp)>,
    gap: Option<DeadBlock>,
    listed_ms: Option<u64>,
}

impl Backlog {
    /// Of the journals in `root`. Nothing is looked at yet.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), journals: BTreeMap::new() }
    }

    /// Looks at all journals. `now_ms` is monotonic. That one stands still is logged when it begins and when it ends.
    /// It blocks on the disk.
    ///
    /// # Errors
    /// Why the directory, or the last of the journals that can't be looked at, can't be. The others are looked at all
    /// the same, and [`Backlog::waiting`] tells of them.
    pub fn look_once(&mut self, now: SystemTime, now_ms: u64) -> io::Result<()> {
        // Where they can't be listed, what is known of them stays known.
        let directories = JournalDir::all(&self.root)?;
        let mut before = std::mem::take(&mut self.journals);
        let mut looked = Ok(());
        for directory in directories {
            let mut seen = before.remove(&directory.id()).unwrap_or_default();
            let stood = seen.gap.is_some();
            if let Err(error) = seen.look(&self.root, &directory, now, now_ms) {
                looked = Err(error);
            }
            seen.tell(directory.id(), stood);
            self.journals.insert(directory.id(), seen);
        }
        looked
    }

    /// What the last look found.
    #[must_use]
    pub fn waiting(&self) -> Waiting {
        let oldest = self.journals.values().filter_map(|seen| seen.oldest.map(|(_, sealed)| sealed)).min();
        Waiting { oldest, gaps: self.journals.values().filter_map(|seen| seen.gap.clone()).collect() }
    }
}

impl Seen {
    fn look(&mut self, root: &Path, directory: &JournalDir, now: SystemTime, now_ms: u64) -> io::Result<()> {
        let changed = directory.changed_at()?;
        if changed.is_some() && self.quiet == changed {
            return Ok(());
        }
        let passed = directory.passed()?;
        if directory.ended()?.is_some_and(|end| passed > end) {
            self.rests(changed, now);
            return Ok(());
        }
        if let Some(sealed) = sealed_at(directory, passed)? {
            (self.oldest, self.gap) = (Some((passed, sealed)), None);
            return Ok(());
        }
        let due = self.listed_ms.is_none_or(|at| now_ms.saturating_sub(at) >= LIST_MS);
        if self.oldest.is_some_and(|(next, _)| next != passed) {
            (self.oldest, self.gap) = (None, None);
        } else if !due {
            return Ok(());
        }
        if due {
            self.listed_ms = Some(now_ms);
            let stands = self.list(root, directory, passed, now)?;
            if stands && self.oldest.is_none() {
                self.rests(changed, now);
            }
        }
        Ok(())
    }

    /// Looks for blocks behind `passed`, which is not there. Whether that is so still: if its readers went on meanwhile,
    /// blocks that they are done with may be gone since, and nothing is known.
    fn list(&mut self, root: &Path, directory: &JournalDir, passed: u64, now: SystemTime) -> io::Result<bool> {
        let blocks = directory.blocks()?;
        let later = blocks.into_iter().filter_map(|(name, _)| seq_of(name)).find(|seq| *seq >= passed);
        let sealed = later.map(|seq| sealed_at(directory, seq)).transpose()?.flatten();
        let gap = Quarantine::new(root).gap(directory.id(), passed, now)?;
        let stands = directory.passed()? == passed;
        let oldest = sealed.map(|sealed| (passed, sealed));
        (self.oldest, self.gap) = if stands { (oldest, gap) } else { (None, None) };
        Ok(stands)
    }

    /// Nothing waits.
    fn rests(&mut self, changed: Option<SystemTime>, now: SystemTime) {
        let is_settled = |at: &SystemTime| now.duration_since(*at).is_ok_and(|age| age >= SETTLED);
        (self.oldest, self.gap, self.quiet) = (None, None, changed.filter(is_settled));
    }

    /// Logs that the journal stands still, or no more.
    fn tell(&self, journal: JournalId, stood: bool) {
        match &self.gap {
            Some(gap) if !stood => tracing::error!(
                %journal, gap = %gap, reason = gap.reason,
                "clicks of a journal are not counted: blocks of it are missing, and its readers wait for them; put them \
                 back from a copy, or give them up by terse dead discard",
            ),
            None if stood => {
                tracing::info!(%journal, "the journal is read again: its readers wait for no missing block")
            }
            _ => {}
        }
    }
}

/// When the block `seq` was sealed; of one that can't be decoded, when its file was written. `None` = it isn't there.
fn sealed_at(directory: &JournalDir, seq: u64) -> io::Result<Option<Timestamp>> {
    let path = directory.file(Name::Block(seq));
    let head = match journal::read_head(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        head => head?,
    };
    if let Ok(sealed) = journal::sealed_at(&head, BlockId { journal: directory.id(), seq }) {
        return Ok(Some(sealed));
    }
    match fs::metadata(&path).and_then(|found| found.modified()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        written => Ok(super::quarantine::timestamp(written?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::end_block_of;

    const ID: JournalId = JournalId([7; 16]);
    const LONG: Duration = Duration::from_secs(20);

    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> (Self, JournalDir) {
            let place = tempfile::tempdir().unwrap();
            let (directory, lock) = JournalDir::create(place.path(), ID).unwrap();
            drop(lock);
            (Self(place), directory)
        }

        fn look(&self, backlog: &mut Backlog, now_ms: u64) -> Waiting {
            backlog.look_once(SystemTime::now() + LONG, now_ms).unwrap();
            backlog.waiting()
        }
    }

    /// A sealed block, of a time that all such blocks have.
    fn seal(directory: &JournalDir, seq: u64) {
        fs::write(directory.file(Name::Block(seq)), end_block_of(BlockId { journal: ID, seq }, 1)).unwrap();
    }

    fn at(ms: i64) -> Option<Timestamp> {
        Some(Timestamp::from_millis(ms))
    }

    #[test]
    fn a_block_waits_until_it_is_passed() {
        let (place, directory) = Place::new();
        let mut backlog = Backlog::new(place.0.path());
        assert_eq!(place.look(&mut backlog, 0), Waiting::default());
        seal(&directory, 0);
        assert_eq!(place.look(&mut backlog, 1), Waiting { oldest: at(1), gaps: Vec::new() });
        directory.set_passed(1).unwrap();
        assert_eq!(place.look(&mut backlog, 2), Waiting::default(), "at once, whenever the directory was listed");
    }

    #[test]
    fn a_block_that_nobody_can_decode_waits_too() {
        let (place, directory) = Place::new();
        let mut backlog = Backlog::new(place.0.path());
        fs::write(directory.file(Name::Block(0)), b"no block").unwrap();
        let oldest = place.look(&mut backlog, 0).oldest.unwrap();
        assert!(oldest > Timestamp::from_millis(1_000_000_000_000), "{oldest}");
    }

    #[test]
    fn a_journal_of_which_a_block_is_gone_is_told_with_its_age_until_the_block_is_given_up() {
        let (place, directory) = Place::new();
        let mut backlog = Backlog::new(place.0.path());
        directory.set_passed(3).unwrap();
        seal(&directory, 5);
        let found = place.look(&mut backlog, 0);
        let gaps: Vec<String> = found.gaps.iter().map(DeadBlock::id).collect();
        assert_eq!((found.oldest, gaps), (at(1), vec![format!("{ID}/3-4")]));
        Quarantine::new(place.0.path()).discard(&found.gaps[0]).unwrap();
        let found = place.look(&mut backlog, LIST_MS);
        assert_eq!((found.oldest, found.gaps.len()), (at(1), 0), "5 waits still");
        directory.set_passed(6).unwrap();
        assert_eq!(place.look(&mut backlog, LIST_MS + 1), Waiting::default());
    }

    #[test]
    fn nothing_is_told_of_a_journal_whose_readers_go_on_during_the_look() {
        let (place, directory) = Place::new();
        let (root, late) = (place.0.path(), SystemTime::now() + LONG);
        seal(&directory, 6);
        // A look read 2; since then the readers passed 2 to 5, which are gone.
        directory.set_passed(6).unwrap();
        let mut seen = Seen::default();
        assert!(!seen.list(root, &directory, 2, late).unwrap(), "it stands no more");
        assert_eq!((seen.oldest, seen.gap), (None, None));
        // One that had stood still goes on.
        let mut seen = Seen::default();
        directory.set_passed(2).unwrap();
        assert!(seen.list(root, &directory, 2, late).unwrap() && seen.gap.is_some());
        directory.set_passed(6).unwrap();
        assert!(!seen.list(root, &directory, 2, late).unwrap() && seen.gap.is_none());
        assert_eq!(place.look(&mut Backlog::new(root), 0), Waiting { oldest: at(1), gaps: Vec::new() });
    }

    #[test]
    fn what_is_known_of_journals_stays_known_while_they_cannot_be_listed() {
        let place = tempfile::tempdir().unwrap();
        let (root, away) = (place.path().join("journal"), place.path().join("away"));
        let (directory, lock) = JournalDir::create(&root, ID).unwrap();
        drop(lock);
        directory.set_passed(3).unwrap();
        seal(&directory, 5);
        let mut backlog = Backlog::new(&root);
        backlog.look_once(SystemTime::now() + LONG, 0).unwrap();
        let found = backlog.waiting();
        assert_eq!((found.oldest, found.gaps.len()), (at(1), 1));
        fs::rename(&root, &away).unwrap();
        fs::write(&root, b"no directory").unwrap();
        backlog.look_once(SystemTime::now() + LONG, LIST_MS).unwrap_err();
        assert_eq!(backlog.waiting(), found);
    }

    #[test]
    fn a_block_that_is_still_being_written_is_no_gap() {
        let (place, directory) = Place::new();
        let mut backlog = Backlog::new(place.0.path());
        seal(&directory, 1);
        backlog.look_once(SystemTime::now(), 0).unwrap();
        assert_eq!(backlog.waiting(), Waiting { oldest: at(1), gaps: Vec::new() });
    }

    #[test]
    fn a_journal_that_ended_and_is_passed_is_not_looked_at_again_until_it_changes() {
        let (place, directory) = Place::new();
        let mut backlog = Backlog::new(place.0.path());
        seal(&directory, 0);
        directory.note_end(0).unwrap();
        directory.set_passed(1).unwrap();
        assert_eq!(place.look(&mut backlog, 0), Waiting::default());
        assert!(backlog.journals[&ID].quiet.is_some());
        // It is the directory that tells, not the file.
        directory.set_passed(0).unwrap();
        assert_eq!(place.look(&mut backlog, 1), Waiting::default());
        seal(&directory, 1);
        assert_eq!(place.look(&mut backlog, 2).oldest, at(1));
        fs::remove_dir_all(place.0.path().join(ID.to_string())).unwrap();
        assert_eq!(place.look(&mut backlog, 3), Waiting::default());
        assert!(backlog.journals.is_empty(), "a journal that is gone is forgotten");
    }
}
