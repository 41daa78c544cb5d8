//! What lies where in the directory of journals.
//!
//! `<journal id>/` holds one journal: `lock`, `open-<n>.block`, `<seq>.block`, `passed`, `ended`, and `quarantine/`. A
//! directory comes into being under a name that is no journal's, with its lock held, and is renamed then: so whoever
//! finds a journal whose lock is free knows that its process has ended.

use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use terse_core::click::JournalId;

const LOCK: &str = "lock";
const PASSED: &str = "passed";
const ENDED: &str = "ended";
const UNFINISHED: &str = "end.new";
const QUARANTINE: &str = "quarantine";
const OPEN_PREFIX: &str = "open-";
const BLOCK_SUFFIX: &str = ".block";
const NEW_PREFIX: &str = "new-";
const SEQ_DIGITS: usize = 20;

/// A file of a journal, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Name {
    /// `open-<n>.block`.
    Open(u64),
    /// `<seq>.block`.
    Block(u64),
}

impl Name {
    fn parse(name: &OsStr) -> Option<Self> {
        let stem = name.to_str()?.strip_suffix(BLOCK_SUFFIX)?;
        let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        match stem.strip_prefix(OPEN_PREFIX) {
            Some(number) => digits(number).map(Self::Open),
            None if stem.len() == SEQ_DIGITS => digits(stem).map(Self::Block),
            None => None,
        }
    }
}

/// The directory of one journal.
#[derive(Clone, Debug)]
pub(crate) struct JournalDir {
    path: PathBuf,
    id: JournalId,
}

/// The lock of a journal, held until this is dropped, or the process ends.
pub(crate) struct Lock {
    _file: File,
}

impl JournalDir {
    /// Where the journal `id` lies, or would, among the journals in `root`.
    pub(crate) fn of(root: &Path, id: JournalId) -> Self {
        Self { path: root.join(id.to_string()), id }
    }

    /// Makes the directory of a new journal, its lock held from the first moment.
    pub(crate) fn create(root: &Path, id: JournalId) -> io::Result<(Self, Lock)> {
        fs::create_dir_all(root)?;
        let new = root.join(format!("{NEW_PREFIX}{id}"));
        fs::create_dir(&new)?;
        let file = File::create_new(new.join(LOCK))?;
        file.try_lock()?;
        let directory = Self::of(root, id);
        fs::rename(&new, &directory.path)?;
        File::open(root)?.sync_all()?;
        Ok((directory, Lock { _file: file }))
    }

    /// All journals in `root`, which may not exist yet, in the order of their ids.
    pub(crate) fn all(root: &Path) -> io::Result<Vec<Self>> {
        let entries = match fs::read_dir(root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut all = Vec::new();
        for entry in entries {
            if let Some(id) = entry?.file_name().to_str().and_then(JournalId::parse) {
                all.push(Self::of(root, id));
            }
        }
        all.sort_by_key(|directory| directory.id);
        Ok(all)
    }

    /// Directories in `root` that were to become journals when their process ended, as their names tell.
    pub(crate) fn unborn(root: &Path) -> io::Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut unborn = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            if name.to_str().and_then(|name| name.strip_prefix(NEW_PREFIX)).and_then(JournalId::parse).is_some() {
                unborn.push(root.join(name));
            }
        }
        Ok(unborn)
    }

    /// Removes the directory at `path` that never became a journal, unless its process lives, or it is younger than
    /// `age`, or has something in it that is not a journal's. Whether it is gone.
    pub(crate) fn remove_unborn(path: &Path, now: SystemTime, age: Duration) -> io::Result<bool> {
        let metadata = match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            metadata => metadata?,
        };
        if now.duration_since(metadata.modified()?).is_ok_and(|old| old >= age) {
            let lock = path.join(LOCK);
            let is_free = match File::open(&lock) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => true,
                file => file?.try_lock().is_ok(),
            };
            if is_free {
                remove_if_there(&lock)?;
                return match fs::remove_dir(path) {
                    Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(false),
                    removed => removed.map(|()| true),
                };
            }
        }
        Ok(false)
    }

    /// The journal.
    pub(crate) const fn id(&self) -> JournalId {
        self.id
    }

    /// Takes the journal's lock. `None` = its process lives, or somebody else recovers it, or it is gone.
    pub(crate) fn try_lock(&self) -> io::Result<Option<Lock>> {
        let file = match File::options().read(true).write(true).open(self.path.join(LOCK)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return self.lock_again(),
            file => file?,
        };
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// A journal without a lock file was restored from a copy that left it out, or is being removed.
    fn lock_again(&self) -> io::Result<Option<Lock>> {
        match File::create_new(self.path.join(LOCK)) {
            Ok(file) => Ok(file.try_lock().is_ok().then_some(Lock { _file: file })),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Where a block lies.
    pub(crate) fn file(&self, name: Name) -> PathBuf {
        self.path.join(file_name(name))
    }

    /// Where a block lies that was put aside.
    pub(crate) fn quarantined(&self, name: Name) -> PathBuf {
        self.path.join(QUARANTINE).join(file_name(name))
    }

    /// The blocks, with the bytes of their files, in the order of their names; of a journal that is gone, none.
    pub(crate) fn blocks(&self) -> io::Result<Vec<(Name, u64)>> {
        list(&self.path)
    }

    /// The blocks that were put aside, likewise.
    pub(crate) fn quarantined_blocks(&self) -> io::Result<Vec<(Name, u64)>> {
        list(&self.path.join(QUARANTINE))
    }

    /// When a file of it was last added, renamed or removed; `None` = the journal is gone.
    pub(crate) fn changed_at(&self) -> io::Result<Option<SystemTime>> {
        match fs::metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            metadata => metadata?.modified().map(Some),
        }
    }

    /// When it was made, as its lock file tells; long ago if it has none.
    pub(crate) fn began_at(&self) -> io::Result<SystemTime> {
        match fs::metadata(self.path.join(LOCK)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(SystemTime::UNIX_EPOCH),
            metadata => metadata?.modified(),
        }
    }

    /// Bytes that are put aside.
    pub(crate) fn quarantined_bytes(&self) -> io::Result<u64> {
        let entries = match fs::read_dir(self.path.join(QUARANTINE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            entries => entries?,
        };
        let bytes_of = |entry: io::Result<fs::DirEntry>| match entry?.metadata() {
            // Gone since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            metadata => Ok(metadata?.len()),
        };
        entries.map(bytes_of).sum()
    }

    /// Puts the block `name` aside, for an operator to look at. One that is aside already stays so.
    pub(crate) fn quarantine(&self, name: Name) -> io::Result<()> {
        let aside = self.path.join(QUARANTINE);
        fs::create_dir_all(&aside)?;
        match fs::rename(self.file(name), self.quarantined(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.quarantined(name).exists() => {}
            renamed => renamed?,
        }
        File::open(&aside)?.sync_all()
    }

    /// Puts the file at `path`, which is in the journal, aside as the block `name`: its readers go past it.
    pub(crate) fn put_aside(&self, path: &Path, name: Name) -> io::Result<()> {
        let aside = self.path.join(QUARANTINE);
        fs::create_dir_all(&aside)?;
        fs::rename(path, self.quarantined(name))?;
        File::open(&aside)?.sync_all()
    }

    /// Puts a copy of the block `name` aside.
    pub(crate) fn copy_aside(&self, name: Name) -> io::Result<()> {
        let copy = self.quarantined(name);
        fs::create_dir_all(self.path.join(QUARANTINE))?;
        fs::copy(self.file(name), &copy)?;
        File::open(&copy)?.sync_all()
    }

    /// How many leading blocks the journal's reader needs no more.
    pub(crate) fn passed(&self) -> io::Result<u64> {
        Ok(self.read_number(PASSED)?.unwrap_or(0))
    }

    /// Notes that the journal's reader needs the first `blocks` blocks no more. Of a journal that is gone nothing is
    /// noted.
    pub(crate) fn set_passed(&self, blocks: u64) -> io::Result<()> {
        match self.write_number(PASSED, blocks) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            written => written,
        }
    }

    /// The seq of the journal's last block, if it has ended.
    pub(crate) fn ended(&self) -> io::Result<Option<u64>> {
        self.read_number(ENDED)
    }

    /// Writes the journal's last block, which is `bytes`, durably and after all that was renamed before.
    pub(crate) fn end(&self, seq: u64, bytes: &[u8]) -> io::Result<()> {
        self.sync()?;
        self.put(&self.file(Name::Block(seq)), bytes)?;
        self.note_end(seq)
    }

    /// Notes durably that the block `seq`, which stands, is the journal's last.
    pub(crate) fn note_end(&self, seq: u64) -> io::Result<()> {
        self.put(&self.path.join(ENDED), &seq.to_le_bytes())
    }

    /// Makes the file at `path`, or puts another one in its place: whenever the power is cut, it is there with all
    /// `bytes`, or as it was. One at a time: whoever calls it has the lock, and is the only one of its process.
    pub(crate) fn put(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let unfinished = self.path.join(UNFINISHED);
        fs::write(&unfinished, bytes)?;
        File::open(&unfinished)?.sync_all()?;
        fs::rename(&unfinished, path)?;
        self.sync()
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    /// A number that is shorter than it should be was never written whole, and is none.
    fn read_number(&self, name: &str) -> io::Result<Option<u64>> {
        match fs::read(self.path.join(name)) {
            Ok(bytes) => Ok(bytes.try_into().ok().map(u64::from_le_bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write_number(&self, name: &str, number: u64) -> io::Result<()> {
        let file = File::options().write(true).create(true).truncate(false).open(self.path.join(name))?;
        file.write_all_at(&number.to_le_bytes(), 0)
    }

    /// Removes what was noted of blocks that are not there: files without bytes beside what was put aside.
    fn remove_marks(&self) -> io::Result<()> {
        let entries = match fs::read_dir(self.path.join(QUARANTINE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            if entry.metadata().is_ok_and(|found| found.is_file() && found.len() == 0) {
                remove_if_there(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Removes the journal with all its blocks, but neither what was put aside nor what is not the journal's: then the
    /// directory stays. Whoever calls it has the lock.
    pub(crate) fn remove(&self) -> io::Result<bool> {
        for (name, _) in self.blocks()? {
            remove_if_there(&self.file(name))?;
        }
        self.remove_marks()?;
        match fs::remove_dir(self.path.join(QUARANTINE)) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => return Ok(false),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        const NAMES: [&str; 4] = [UNFINISHED, PASSED, ENDED, LOCK];
        let entries = fs::read_dir(&self.path)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
        if !entries.iter().all(|entry| NAMES.iter().any(|name| entry.to_str() == Some(name))) {
            return Ok(false);
        }
        for name in NAMES {
            remove_if_there(&self.path.join(name))?;
        }
        fs::remove_dir(&self.path).map(|()| true)
    }
}

fn list(directory: &Path) -> io::Result<Vec<(Name, u64)>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut blocks = Vec::new();
    for entry in entries {
        let entry = entry?;
        let Some(name) = Name::parse(&entry.file_name()) else { continue };
        match entry.metadata() {
            Ok(metadata) => blocks.push((name, metadata.len())),
            // Renamed or removed since it was listed; the next look finds it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    blocks.sort_unstable();
    Ok(blocks)
}

fn file_name(name: Name) -> String {
    match name {
        Name::Open(number) => format!("{OPEN_PREFIX}{number}{BLOCK_SUFFIX}"),
        Name::Block(seq) => format!("{seq:0SEQ_DIGITS$}{BLOCK_SUFFIX}"),
    }
}

/// Removes a file unless it is gone already.
pub(crate) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: JournalId = JournalId([0xab; 16]);

    fn journal() -> (tempfile::TempDir, JournalDir, Lock) {
        let root = tempfile::tempdir().unwrap();
        let (directory, lock) = JournalDir::create(root.path(), ID).unwrap();
        (root, directory, lock)
    }

    #[test]
    fn a_files_name_is_read_as_it_was_written() {
        for name in [Name::Open(0), Name::Open(77), Name::Block(0), Name::Block(u64::MAX)] {
            assert_eq!(Name::parse(OsStr::new(&file_name(name))), Some(name));
        }
        for other in ["lock", "7.block", "open-.block", "open-x.block", "+0000000000000000007.block", ".block"] {
            assert_eq!(Name::parse(OsStr::new(other)), None, "{other}");
        }
        assert_eq!(file_name(Name::Block(7)), "00000000000000000007.block");
    }

    #[test]
    fn a_journals_lock_is_free_once_its_holder_is_gone() {
        let (_root, directory, lock) = journal();
        assert!(directory.try_lock().unwrap().is_none());
        drop(lock);
        let second = directory.try_lock().unwrap();
        assert!(second.is_some());
        assert!(directory.try_lock().unwrap().is_none());
    }

    #[test]
    fn a_journal_without_a_lock_file_gets_one() {
        let (_root, directory, lock) = journal();
        drop(lock);
        fs::remove_file(directory.path.join(LOCK)).unwrap();
        assert!(directory.try_lock().unwrap().is_some());
        assert!(directory.try_lock().unwrap().is_some());
    }

    #[test]
    fn journals_are_found_and_other_things_are_not() {
        let (root, directory, _lock) = journal();
        fs::create_dir(root.path().join("new-00000000000000000000000000000000")).unwrap();
        fs::write(root.path().join("notes"), "").unwrap();
        let all = JournalDir::all(root.path()).unwrap();
        assert_eq!(all.iter().map(JournalDir::id).collect::<Vec<_>>(), [directory.id()]);
        assert!(JournalDir::all(&root.path().join("absent")).unwrap().is_empty());
    }

    #[test]
    fn numbers_are_kept() {
        let (_root, directory, _lock) = journal();
        assert_eq!((directory.passed().unwrap(), directory.ended().unwrap()), (0, None));
        directory.set_passed(300).unwrap();
        directory.set_passed(7).unwrap();
        directory.end(9, b"the end").unwrap();
        assert_eq!((directory.passed().unwrap(), directory.ended().unwrap()), (7, Some(9)));
        assert_eq!(directory.blocks().unwrap(), [(Name::Block(9), 7)]);
        fs::write(directory.path.join(PASSED), [1, 2, 3]).unwrap();
        assert_eq!(directory.passed().unwrap(), 0, "half a number is none");
    }

    #[test]
    fn a_power_cut_leaves_no_half_an_end() {
        let (_root, directory, _lock) = journal();
        // What is left of one that was cut off is no end, and is written over.
        fs::write(directory.path.join(UNFINISHED), [1, 2, 3]).unwrap();
        assert_eq!(directory.ended().unwrap(), None);
        // Somebody else's file of that name is no longer written to once it is renamed.
        directory.end(9, b"the end").unwrap();
        let before = File::open(directory.path.join(ENDED)).unwrap();
        directory.note_end(10).unwrap();
        let mut was = [0; 8];
        before.read_exact_at(&mut was, 0).unwrap();
        assert_eq!((u64::from_le_bytes(was), directory.ended().unwrap()), (9, Some(10)), "it is replaced as a whole");
        assert!(!directory.path.join(UNFINISHED).exists());
    }

    #[test]
    fn a_journal_with_somebody_elses_file_stays_what_it_is() {
        let (_root, directory, _lock) = journal();
        directory.end(0, b"the end").unwrap();
        fs::write(directory.path.join("notes"), "why").unwrap();
        assert!(!directory.remove().unwrap());
        assert_eq!(directory.ended().unwrap(), Some(0));
        fs::remove_file(directory.path.join("notes")).unwrap();
        assert!(directory.remove().unwrap());
    }

    #[test]
    fn a_removed_journal_leaves_nothing_but_what_was_put_aside() {
        let (root, directory, _lock) = journal();
        fs::write(directory.file(Name::Block(1)), "damaged").unwrap();
        fs::write(directory.file(Name::Block(2)), "good").unwrap();
        directory.quarantine(Name::Block(1)).unwrap();
        directory.quarantine(Name::Block(1)).unwrap();
        assert_eq!(directory.quarantined_bytes().unwrap(), 7);
        assert!(directory.quarantine(Name::Block(5)).is_err(), "there is no such block");
        assert!(!directory.remove().unwrap());
        assert_eq!(fs::read(directory.quarantined(Name::Block(1))).unwrap(), b"damaged");
        fs::remove_file(directory.quarantined(Name::Block(1))).unwrap();
        assert!(directory.remove().unwrap());
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
        assert!(directory.blocks().unwrap().is_empty());
        directory.set_passed(1).unwrap();
    }
}
