//! Blocks of the local bus that can't be counted, and what an operator decides about them.
//!
//! A block that nobody can decode lies in its journal's `quarantine/`; readers go past it, and no checkpoint says that
//! it was passed. Beside it lie the decisions, empty files that any process may make while others read the journal:
//!
//! | file | what it says | who takes it away |
//! |---|---|---|
//! | `<seq>.requeued` | count the block now, if it can be decoded by now | the reader, once it is counted or can't be |
//! | `<seq>.void` | don't wait for this block: it never comes | `Quarantine::tidy`, when readers are past it |
//!
//! So a block is counted at most once, whoever decides what and when: what is counted is in the set of blocks passed,
//! in the transaction that counts it. A file beside the journals, `REQUESTS`, changes with each decision; that is how
//! readers notice.
//!
//! What is aside takes at most [`MAX_ASIDE_BYTES`] and an eighth of the disk budget: beyond, the oldest is discarded.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use terse_core::Timestamp;
use terse_core::click::{BlockId, JournalId};

use crate::journal::directory::{JournalDir, Name, remove_if_there};
use crate::journal::{self, BlockError};

/// Most bytes of blocks that are aside, in all journals of a data directory.
pub const MAX_ASIDE_BYTES: u64 = 64 << 20;
/// The part of the disk budget that they may take.
pub const ASIDE_SHARE: u64 = 8;
/// How long a block of a living journal may be missing, though a later one is there, before that is called a gap.
pub const GAP_AGE: Duration = Duration::from_secs(15);
/// Most blocks of a gap that are told as one.
pub const MAX_GAP: u64 = 1_024;
/// Most blocks in a row that a gap is looked for in: as many as may wait.
const MAX_LOOKED_AT: usize = 65_536;
/// The file that changes with each decision.
pub(super) const REQUESTS: &str = "requests";
const REQUEUED: &str = "requeued";
const VOID: &str = "void";

/// What it is that can't be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeadKind {
    /// A block that was put aside.
    Block(u64),
    /// A file that was put aside by a recovery; what was whole of it is counted.
    Remains(u64),
    /// Blocks that readers wait for and that are not there: from, included, to, excluded.
    Gap(u64, u64),
}

/// Something that can't be counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadBlock {
    /// The journal that it belongs to.
    pub journal: JournalId,
    /// What it is.
    pub kind: DeadKind,
    /// Why it can't be counted, as far as this version can tell.
    pub reason: String,
    /// Bytes on disk.
    pub bytes: u64,
    /// Clicks in it; `None` = nobody knows.
    pub clicks: Option<u64>,
    /// When it was written last.
    pub since: Option<Timestamp>,
    /// Whether it is to be counted again already.
    pub requeued: bool,
}

impl DeadBlock {
    /// Names it: `<journal>/<seq>`, `<journal>/open-<n>`, or `<journal>/<first>-<last>` for a gap.
    #[must_use]
    pub fn id(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for DeadBlock {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            DeadKind::Block(seq) => write!(out, "{}/{seq}", self.journal),
            DeadKind::Remains(number) => write!(out, "{}/open-{number}", self.journal),
            DeadKind::Gap(from, to) => write!(out, "{}/{from}-{}", self.journal, to - 1),
        }
    }
}

/// Why a block can't be requeued.
#[derive(Debug, thiserror::Error)]
pub enum RequeueError {
    /// There is nothing that could be counted.
    #[error("{0}")]
    Nothing(&'static str),
    /// Nobody can decode it by now either.
    #[error("it can't be decoded by this version: {0}")]
    Undecodable(String),
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] io::Error),
}

/// What [`Quarantine::keep_within`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Aside {
    /// Blocks that are aside.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blocks that were discarded in this call.
    pub discarded: u64,
}

/// Of all journals of a data directory, what can't be counted. All its methods block on the disk; none needs a
/// journal's
/// lock, so they work beside running servers.
#[derive(Clone, Debug)]
pub struct Quarantine {
    root: PathBuf,
}

impl Quarantine {
    /// Of the journals in `root`.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The journals that there are.
    ///
    /// # Errors
    /// Why the directory could not be read.
    pub fn journals(&self) -> io::Result<Vec<JournalId>> {
        Ok(JournalDir::all(&self.root)?.iter().map(JournalDir::id).collect())
    }

    /// The next block that is needed of `journal`, as its readers noted last.
    ///
    /// # Errors
    /// Why it could not be read.
    pub fn noted(&self, journal: JournalId) -> io::Result<u64> {
        JournalDir::of(&self.root, journal).passed()
    }

    /// Lists what is aside, journal by journal, at most `limit`.
    ///
    /// # Errors
    /// Why a directory could not be read.
    pub fn list(&self, limit: usize) -> io::Result<Vec<DeadBlock>> {
        let mut all = Vec::new();
        for directory in JournalDir::all(&self.root)? {
            for (name, bytes) in directory.quarantined_blocks()? {
                if all.len() >= limit {
                    return Ok(all);
                }
                all.push(look_at(&directory, name, bytes));
            }
        }
        Ok(all)
    }

    /// The gap that stops the readers of `journal`, if there is one: `next` is the block that they need, as its
    /// checkpoint tells. In a journal that has ended there is none, for what is missing there is void.
    ///
    /// # Errors
    /// Why the directory could not be read.
    pub fn gap(&self, journal: JournalId, next: u64, now: SystemTime) -> io::Result<Option<DeadBlock>> {
        let directory = JournalDir::of(&self.root, journal);
        if directory.ended()?.is_some() {
            return Ok(None);
        }
        let blocks: BTreeSet<u64> = directory.blocks()?.into_iter().filter_map(|(name, _)| seq_of(name)).collect();
        let aside = directory.quarantined_blocks()?;
        let aside: BTreeSet<u64> = aside.into_iter().filter_map(|(name, _)| seq_of(name)).collect();
        let missing = |seq: &u64| !blocks.contains(seq) && !aside.contains(seq) && !is_given_up(&directory, *seq);
        let Some(last) = blocks.last().copied() else { return Ok(None) };
        let Some(from) = (next..last).take(MAX_LOOKED_AT).find(missing) else { return Ok(None) };
        let Some(later) = blocks.range(from..).next().copied() else { return Ok(None) };
        let to = (from..later).take(MAX_GAP as usize).take_while(missing).last().unwrap_or(from) + 1;
        let written = fs::metadata(directory.file(Name::Block(later)))?.modified()?;
        let passed = from < directory.passed()?;
        if !passed && !now.duration_since(written).is_ok_and(|age| age >= GAP_AGE) {
            return Ok(None);
        }
        let reason = if passed { "passed by somebody else, and gone" } else { "not there, though later blocks are" };
        Ok(Some(DeadBlock {
            journal,
            kind: DeadKind::Gap(from, to),
            reason: reason.to_owned(),
            bytes: 0,
            clicks: None,
            since: timestamp(written),
            requeued: false,
        }))
    }

    /// Asks for `dead` to be counted: by a server that counts, within a second, or by the next one.
    ///
    /// # Errors
    /// [`RequeueError`]; then nothing has changed.
    pub fn requeue(&self, dead: &DeadBlock) -> Result<(), RequeueError> {
        let DeadKind::Block(seq) = dead.kind else {
            return Err(RequeueError::Nothing(match dead.kind {
                DeadKind::Gap(..) => "there is nothing to count in a gap",
                _ => "what was whole of it is counted already",
            }));
        };
        let directory = JournalDir::of(&self.root, dead.journal);
        let bytes = journal::read_bounded(&directory.quarantined(Name::Block(seq)))?;
        let id = BlockId { journal: dead.journal, seq };
        journal::read(&bytes.into(), id).map_err(|error| RequeueError::Undecodable(error.to_string()))?;
        mark(&directory, seq, REQUEUED)?;
        Ok(self.request()?)
    }

    /// Gives `dead` up for ever: its clicks are not counted, and readers that wait for it go on.
    ///
    /// # Errors
    /// The disk failed. Doing it again does no harm.
    pub fn discard(&self, dead: &DeadBlock) -> io::Result<()> {
        let directory = JournalDir::of(&self.root, dead.journal);
        match dead.kind {
            DeadKind::Block(seq) => {
                // A reader that is not past it would wait for it.
                if directory.passed()? <= seq {
                    mark(&directory, seq, VOID)?;
                }
                remove_if_there(&directory.quarantined(Name::Block(seq)))?;
                remove_if_there(&marker(&directory, seq, REQUEUED))?;
            }
            DeadKind::Remains(number) => remove_if_there(&directory.quarantined(Name::Open(number)))?,
            DeadKind::Gap(from, to) => {
                (from..to.min(from + MAX_GAP)).try_for_each(|seq| mark(&directory, seq, VOID))?
            }
        }
        self.request()
    }

    /// Discards the oldest of what is aside until it takes at most [`MAX_ASIDE_BYTES`] and its share of a disk budget
    /// of
    /// `budget_bytes`, loudly. Tidies up behind readers, too.
    ///
    /// # Errors
    /// The disk failed.
    pub fn keep_within(&self, budget_bytes: u64) -> io::Result<Aside> {
        let most = MAX_ASIDE_BYTES.min(budget_bytes / ASIDE_SHARE);
        self.tidy()?;
        let mut all = Vec::new();
        for directory in JournalDir::all(&self.root)? {
            for (name, bytes) in directory.quarantined_blocks()? {
                let written = fs::metadata(directory.quarantined(name)).and_then(|found| found.modified());
                match written {
                    Ok(written) => all.push((written, directory.clone(), name, bytes)),
                    // Gone since it was listed.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        all.sort_by_key(|(written, ..)| *written);
        let mut aside =
            Aside { blocks: all.len() as u64, bytes: all.iter().map(|(.., bytes)| bytes).sum(), discarded: 0 };
        for (_, directory, name, bytes) in all {
            if aside.bytes <= most {
                break;
            }
            let dead = look_at(&directory, name, bytes);
            let (clicks, reason) = (dead.clicks, &dead.reason);
            tracing::error!(block = %dead, clicks, reason, most, "too much is put aside: the oldest is discarded");
            self.discard(&dead)?;
            aside.bytes -= bytes;
            aside.blocks -= 1;
            aside.discarded += 1;
        }
        Ok(aside)
    }

    /// Removes the marks of void blocks that no reader waits for any more.
    fn tidy(&self) -> io::Result<()> {
        for directory in JournalDir::all(&self.root)? {
            for seq in marked(&directory, VOID)? {
                if seq < directory.passed()? {
                    remove_if_there(&marker(&directory, seq, VOID))?;
                }
            }
        }
        Ok(())
    }

    /// Lets readers notice that something was decided.
    fn request(&self) -> io::Result<()> {
        let number = self.requests()?.wrapping_add(1);
        let (path, new) = (self.root.join(REQUESTS), self.root.join(format!("{REQUESTS}.{}", std::process::id())));
        fs::write(&new, number.to_le_bytes())?;
        fs::rename(new, path)
    }

    /// How often something was decided, as far as known.
    pub(super) fn requests(&self) -> io::Result<u64> {
        match fs::read(self.root.join(REQUESTS)) {
            Ok(bytes) => Ok(bytes.try_into().map_or(0, u64::from_le_bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// The blocks that are to be counted again, at most `limit`.
    pub(super) fn requeued(&self, limit: usize) -> io::Result<BTreeMap<JournalId, BTreeSet<u64>>> {
        let (mut all, mut left) = (BTreeMap::new(), limit);
        for directory in JournalDir::all(&self.root)? {
            let seqs: BTreeSet<u64> = marked(&directory, REQUEUED)?.into_iter().take(left).collect();
            left -= seqs.len();
            if !seqs.is_empty() {
                all.insert(directory.id(), seqs);
            }
        }
        Ok(all)
    }
}

/// Whether readers are not to wait for the block `seq`.
pub(super) fn is_given_up(directory: &JournalDir, seq: u64) -> bool {
    marker(directory, seq, VOID).exists()
}

/// Puts a requeued block that is counted back among the others, so that a replay finds it. Returns its bytes; `None` =
/// it
/// is not there any more.
pub(super) fn put_back(directory: &JournalDir, seq: u64) -> io::Result<Option<u64>> {
    let (from, to) = (directory.quarantined(Name::Block(seq)), directory.file(Name::Block(seq)));
    // Another one of its seq is kept already; this one is only dropped by an operator.
    let moved = match fs::metadata(&from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        found if !to.try_exists()? => {
            fs::rename(&from, &to)?;
            Some(found?.len())
        }
        _ => None,
    };
    remove_if_there(&marker(directory, seq, REQUEUED))?;
    Ok(moved)
}

/// Leaves a requeued block aside that can't be decoded.
pub(super) fn leave_aside(directory: &JournalDir, seq: u64) -> io::Result<()> {
    remove_if_there(&marker(directory, seq, REQUEUED))
}

fn marker(directory: &JournalDir, seq: u64, what: &str) -> PathBuf {
    directory.quarantined(Name::Block(seq)).with_extension(what)
}

fn mark(directory: &JournalDir, seq: u64, what: &str) -> io::Result<()> {
    let path = marker(directory, seq, what);
    if let Some(aside) = path.parent() {
        match fs::create_dir(aside) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        File::create(&path)?;
        File::open(aside)?.sync_all()?;
    }
    Ok(())
}

/// The blocks that are marked as `what`, in no particular order.
fn marked(directory: &JournalDir, what: &str) -> io::Result<Vec<u64>> {
    let aside = directory.quarantined(Name::Block(0));
    let Some(aside) = aside.parent() else { return Ok(Vec::new()) };
    let entries = match fs::read_dir(aside) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut seqs = Vec::new();
    for entry in entries {
        let path = PathBuf::from(entry?.file_name());
        if path.extension().is_some_and(|extension| extension == what) {
            seqs.extend(path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<u64>().ok()));
        }
    }
    Ok(seqs)
}

/// What is known of a file that was put aside.
fn look_at(directory: &JournalDir, name: Name, bytes: u64) -> DeadBlock {
    let journal = directory.id();
    let path = directory.quarantined(name);
    let (kind, reason, clicks) = match name {
        Name::Open(number) => {
            (DeadKind::Remains(number), "cut by a recovery; what was whole of it is counted".to_owned(), None)
        }
        Name::Block(seq) => {
            let (reason, clicks) = judge(&path, BlockId { journal, seq });
            (DeadKind::Block(seq), reason, clicks)
        }
    };
    let requeued = matches!(kind, DeadKind::Block(seq) if marker(directory, seq, REQUEUED).exists());
    let written = fs::metadata(&path).and_then(|found| found.modified());
    let since = written.ok().and_then(timestamp);
    DeadBlock { journal, kind, reason, bytes, clicks, since, requeued }
}

/// Why a block can't be counted, and how many clicks it holds or held.
fn judge(path: &Path, id: BlockId) -> (String, Option<u64>) {
    let bytes = match journal::read_bounded(path) {
        Ok(bytes) => bytes,
        Err(error) => return (error.to_string(), None),
    };
    let sealed = journal::sealed_records(&bytes, id);
    match journal::read(&bytes.into(), id) {
        Ok(_) => ("can be decoded by this version: requeue it".to_owned(), sealed),
        Err(error @ BlockError::Newer(_)) => (error.to_string(), None),
        Err(error) => (error.to_string(), sealed),
    }
}

fn seq_of(name: Name) -> Option<u64> {
    match name {
        Name::Block(seq) => Some(seq),
        Name::Open(_) => None,
    }
}

pub(super) fn timestamp(time: SystemTime) -> Option<Timestamp> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok().map(Timestamp::from_millis)
}
