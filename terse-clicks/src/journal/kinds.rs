//! Which kind of log journals were made for: each block says over how many partitions its clicks are spread.

use std::io;
use std::path::Path;

use terse_core::click::JournalId;

use super::block;
use super::directory::JournalDir;
use super::recovery::read_head;

/// A journal that was made for another log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OtherKind {
    /// Which one.
    pub journal: JournalId,
    /// For how many partitions it was made; 1 = for the local bus.
    pub partitions: u16,
}

/// The first journal in `root` that was made for another number of partitions than `partitions` and that its reader is
/// not done with. A journal that can't be looked at is left out, and logged. It blocks on the disk.
///
/// # Errors
/// When the directory can't be listed.
pub fn other_kind(root: &Path, partitions: u16) -> io::Result<Option<OtherKind>> {
    for directory in JournalDir::all(root)? {
        let journal = directory.id();
        match undrained(&directory) {
            Ok(Some(found)) if found != partitions => return Ok(Some(OtherKind { journal, partitions: found })),
            Ok(_) => {}
            Err(error) => tracing::warn!(%journal, %error, "what a journal was made for can't be read"),
        }
    }
    Ok(None)
}

/// How many partitions an undrained journal was made for; `None` = it is drained, or no block of it tells.
fn undrained(directory: &JournalDir) -> io::Result<Option<u16>> {
    if let Some(end) = directory.ended()?
        && directory.passed()? > end
    {
        return Ok(None);
    }
    for (name, _) in directory.blocks()? {
        let head = match read_head(&directory.file(name)) {
            // Renamed or removed since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            head => head?,
        };
        if let Some(found) = block::partitions_of(&head, directory.id()) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use terse_core::click::{ClickRecording, Signals};
    use terse_core::{Timestamp, Version};
    use terse_testkit::{SeededEntropy, TestClock};

    use super::super::directory::Name;
    use super::super::{Journal, JournalConfig, MIN_BLOCK_BYTES};
    use super::*;

    const CLICK: terse_core::click::Click<'static> = terse_core::click::Click {
        at: Timestamp::from_millis(1),
        code: "abc",
        version: Version(1),
        client: None,
        referrer: b"",
        user_agent: b"",
        language: b"",
        signals: Signals { do_not_track: false, global_privacy_control: false, prefetch: false },
    };

    #[test]
    fn a_journal_of_another_bus_is_found_until_its_reader_is_done_with_it() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("journal");
        assert_eq!(other_kind(&root, 1).unwrap(), None, "there is none");
        let config = JournalConfig { block_bytes: MIN_BLOCK_BYTES, partitions: 8, ..JournalConfig::new(root.clone()) };
        let journal = Journal::open(&config, Arc::new(TestClock::default()), &SeededEntropy::new(1)).unwrap();
        let of_streams = Some(OtherKind { journal: journal.id(), partitions: 8 });
        let mut worker = journal.of_a_worker();
        worker.record(&CLICK).unwrap();
        assert_eq!(other_kind(&root, 1).unwrap(), of_streams, "it is being written");
        assert_eq!(other_kind(&root, 8).unwrap(), None, "it is no other kind");
        drop(worker);
        journal.end().unwrap();
        assert_eq!(other_kind(&root, 1).unwrap(), of_streams);
        let directory = JournalDir::of(&root, journal.id());
        let end = directory.ended().unwrap().unwrap();
        directory.set_passed(end).unwrap();
        assert_eq!(other_kind(&root, 1).unwrap(), of_streams, "but its last block");
        directory.set_passed(end + 1).unwrap();
        assert_eq!(other_kind(&root, 1).unwrap(), None);
    }

    #[test]
    fn a_journal_that_tells_nothing_of_its_kind_hinders_nobody() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("journal");
        let (directory, _lock) = JournalDir::create(&root, JournalId([7; 16])).unwrap();
        std::fs::write(directory.file(Name::Block(0)), b"damaged").unwrap();
        std::fs::write(directory.file(Name::Open(0)), [0; 4_096]).unwrap();
        assert_eq!(other_kind(&root, 1).unwrap(), None);
    }
}
