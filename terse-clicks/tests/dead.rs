//! Blocks that can't be counted, and what becomes of them when an operator has decided.

#![allow(missing_docs, clippy::unwrap_used)]

mod journals;

use std::fs::{self, File};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use terse_clicks::enrich::Enrichment;
use terse_clicks::log::local::LocalLog;
use terse_clicks::log::quarantine::{ASIDE_SHARE, Aside, DeadBlock, DeadKind, GAP_AGE, Quarantine, RequeueError};
use terse_clicks::projector::{Projector, ProjectorConfig};
use terse_core::click::{ClickRecording, JournalId};
use terse_core::ports::clicks::Bus;
use terse_core::stats::{RowKey, Span};
use terse_core::{Clock, ShortCode};
use terse_testkit::clicks::{ClickStore, ClickStoreKind};
use terse_testkit::{SeededEntropy, TestClock};
use tokio::runtime::Runtime;

use journals::Journals;

const CODES: [&str; 3] = ["one", "two", "three"];

/// A directory of journals, and a read model.
struct World {
    journals: Journals,
    store: Arc<ClickStore>,
}

impl Deref for World {
    type Target = Journals;

    fn deref(&self) -> &Journals {
        &self.journals
    }
}

impl World {
    fn new() -> Self {
        Self { journals: Journals::new(), store: ClickStore::new(ClickStoreKind::Transactions, 1) }
    }

    fn quarantine(&self) -> Quarantine {
        Quarantine::new(self.root.path())
    }

    fn block(&self, journal: JournalId, seq: u64) -> PathBuf {
        self.directory(journal).join(format!("{seq:020}.block"))
    }

    fn aside(&self, journal: JournalId, seq: u64) -> PathBuf {
        self.directory(journal).join("quarantine").join(format!("{seq:020}.block"))
    }

    fn counting(&self, log: LocalLog) -> Counting {
        let config = ProjectorConfig::new(Bus::Local, "process");
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let (enrichment, entropy) = (Enrichment::new([], None), SeededEntropy::new(5));
        let writer = self.store.writer();
        let projector = Projector::new(config, Box::new(log), writer, enrichment, clock, &entropy).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        Counting { runtime, projector, clock: Arc::clone(&self.clock) }
    }

    /// A process that counts what it finds, and ends.
    fn project(&self) {
        let mut counting = self.counting(LocalLog::new(self.root.path(), None));
        counting.run();
        counting.end();
    }

    fn counted(&self) -> [u64; 3] {
        counted(&self.store)
    }

    /// The first thing that is aside.
    fn first(&self) -> DeadBlock {
        self.quarantine().list(9).unwrap().remove(0)
    }
}

fn counted(store: &ClickStore) -> [u64; 3] {
    CODES.map(|code| {
        let key = RowKey { code: ShortCode::parse(code).unwrap(), span: Span::All };
        store.rows().get(&key).map_or(0, |row| row.clicks)
    })
}

/// A process that counts.
struct Counting {
    runtime: Runtime,
    projector: Projector,
    clock: Arc<TestClock>,
}

impl Counting {
    /// Steps until nothing more happens.
    fn run(&mut self) {
        let mut quiet = 0;
        while quiet < 12 {
            self.clock.advance(Duration::from_millis(200));
            let step = self.runtime.block_on(self.projector.run_once(0)).unwrap();
            quiet = if step.taken == 0 && !step.wrote { quiet + 1 } else { 0 };
        }
    }

    fn stopped(&self) -> u64 {
        self.projector.progress().report().stopped
    }

    fn end(mut self) {
        self.runtime.block_on(self.projector.finish()).unwrap();
    }
}

/// Damages the records of a block; returns what it was.
fn damage(path: &Path) -> Vec<u8> {
    let whole = fs::read(path).unwrap();
    let mut damaged = whole.clone();
    // Behind the header, which has 128 bytes.
    damaged[150] ^= 0x40;
    fs::write(path, damaged).unwrap();
    whole
}

#[test]
fn a_requeued_block_of_a_journal_that_is_done_with_counts_once() {
    let world = World::new();
    let journal = world.record(&CODES);
    let whole = damage(&world.block(journal, 1));
    world.project();
    assert_eq!(world.counted(), [1, 0, 1]);
    let dead = world.first();
    assert_eq!((dead.id(), dead.clicks, dead.requeued), (format!("{journal}/1"), Some(1), false));
    assert!(matches!(world.quarantine().requeue(&dead), Err(RequeueError::Undecodable(_))), "{dead:?}");
    // A newer version can decode it.
    fs::write(world.aside(journal, 1), &whole).unwrap();
    assert!(world.first().reason.contains("requeue"), "{:?}", world.first());
    world.quarantine().requeue(&dead).unwrap();
    world.quarantine().requeue(&dead).unwrap();
    assert!(world.first().requeued);
    for _ in 0..3 {
        world.project();
        assert_eq!(world.counted(), [1, 1, 1]);
    }
    assert!(world.quarantine().list(9).unwrap().is_empty() && world.block(journal, 1).exists());
    // A replay finds the same.
    let fresh = World { store: ClickStore::new(ClickStoreKind::Transactions, 2), ..world };
    let mut replay = fresh.counting(LocalLog::for_replay(fresh.root.path()));
    replay.run();
    replay.end();
    assert_eq!(fresh.counted(), [1, 1, 1]);
}

#[test]
fn a_requeued_block_that_was_counted_before_a_crash_is_not_counted_again() {
    let world = World::new();
    let journal = world.record(&CODES);
    let whole = damage(&world.block(journal, 1));
    world.project();
    fs::write(world.aside(journal, 1), &whole).unwrap();
    let dead = world.first();
    world.quarantine().requeue(&dead).unwrap();
    world.project();
    // As if its process had ended before it could put the block back.
    fs::rename(world.block(journal, 1), world.aside(journal, 1)).unwrap();
    world.quarantine().requeue(&dead).unwrap();
    world.project();
    assert_eq!(world.counted(), [1, 1, 1]);
    assert!(world.quarantine().list(9).unwrap().is_empty() && world.block(journal, 1).exists());
}

#[test]
fn a_running_server_counts_a_requeued_block_of_its_own_journal() {
    let world = World::new();
    let journal = world.journal();
    let mut recorder = journal.of_a_worker();
    let mut counting = world.counting(LocalLog::new(world.root.path(), Some(Arc::clone(&journal))));
    world.click(&mut *recorder, "one");
    wait_for(&world.block(journal.id(), 0));
    counting.run();
    world.click(&mut *recorder, "two");
    wait_for(&world.block(journal.id(), 1));
    let whole = damage(&world.block(journal.id(), 1));
    world.click(&mut *recorder, "three");
    wait_for(&world.block(journal.id(), 2));
    counting.run();
    assert_eq!(world.counted(), [1, 0, 1]);
    fs::write(world.aside(journal.id(), 1), &whole).unwrap();
    world.quarantine().requeue(&world.first()).unwrap();
    counting.run();
    assert_eq!((world.counted(), counting.stopped()), ([1, 1, 1], 0));
    assert!(world.block(journal.id(), 1).exists());
    // It goes on, and the end of the journal takes all of it.
    world.click(&mut *recorder, "one");
    drop(recorder);
    journal.end().unwrap();
    counting.run();
    counting.end();
    world.project();
    assert_eq!(world.counted(), [2, 1, 1]);
}

#[test]
fn a_requeued_block_that_still_can_not_be_decoded_stays_aside_and_holds_up_nobody() {
    let world = World::new();
    let journal = world.record(&CODES);
    let whole = damage(&world.block(journal, 1));
    world.project();
    let damaged = fs::read(world.aside(journal, 1)).unwrap();
    // It is damaged, or of a newer format, after it was asked for.
    let mut newer = whole.clone();
    newer[8] = 0xee;
    for bytes in [&damaged, &newer] {
        fs::write(world.aside(journal, 1), &whole).unwrap();
        world.quarantine().requeue(&world.first()).unwrap();
        fs::write(world.aside(journal, 1), bytes).unwrap();
        world.record(&["one"]);
        world.project();
        assert!(!world.first().requeued);
        assert_eq!(fs::read(world.aside(journal, 1)).unwrap(), **bytes);
    }
    assert_eq!(world.counted(), [3, 0, 1]);
}

#[test]
fn a_discarded_block_is_gone_for_ever() {
    let world = World::new();
    let journal = world.record(&CODES);
    damage(&world.block(journal, 1));
    world.project();
    world.quarantine().discard(&world.first()).unwrap();
    assert!(world.quarantine().list(9).unwrap().is_empty());
    world.project();
    assert_eq!(world.counted(), [1, 0, 1]);
}

#[test]
fn a_block_that_is_discarded_before_its_reader_is_past_it_is_not_waited_for() {
    let world = World::new();
    let journal = world.journal();
    let mut recorder = journal.of_a_worker();
    for (seq, code) in (0..).zip(CODES) {
        world.click(&mut *recorder, code);
        wait_for(&world.block(journal.id(), seq));
    }
    // As a reader leaves it that died before it could write how far it is.
    fs::create_dir(world.aside(journal.id(), 0).parent().unwrap()).unwrap();
    damage(&world.block(journal.id(), 1));
    fs::rename(world.block(journal.id(), 1), world.aside(journal.id(), 1)).unwrap();
    world.quarantine().discard(&world.first()).unwrap();
    world.project();
    assert_eq!(world.counted(), [1, 0, 1]);
    let marks = || fs::read_dir(world.aside(journal.id(), 0).parent().unwrap()).unwrap().count();
    assert_eq!(marks(), 1);
    world.quarantine().keep_within(1 << 30).unwrap();
    assert_eq!(marks(), 0, "nobody waits for it any more");
}

#[test]
fn a_gap_in_a_living_journal_is_told_and_passed_when_it_is_accepted() {
    let world = World::new();
    let journal = world.journal();
    let mut recorder = journal.of_a_worker();
    for seq in 0..5 {
        world.click(&mut *recorder, CODES[seq as usize % 3]);
        wait_for(&world.block(journal.id(), seq));
    }
    for seq in [1, 2] {
        fs::remove_file(world.block(journal.id(), seq)).unwrap();
    }
    let mut counting = world.counting(LocalLog::new(world.root.path(), Some(Arc::clone(&journal))));
    counting.run();
    assert_eq!(world.counted(), [1, 0, 0], "its reader waits");
    let gap = |next| world.quarantine().gap(journal.id(), next, SystemTime::now()).unwrap();
    assert_eq!(gap(1), None, "it may be written still");
    let later = File::open(world.block(journal.id(), 3)).unwrap();
    later.set_modified(SystemTime::now() - GAP_AGE).unwrap();
    assert_eq!(gap(0), gap(1), "whoever asks a little late finds the same");
    let found = gap(1).unwrap();
    assert_eq!((found.kind, found.id()), (DeadKind::Gap(1, 3), format!("{}/1-2", journal.id())));
    assert!(matches!(world.quarantine().requeue(&found), Err(RequeueError::Nothing(_))));
    world.quarantine().discard(&found).unwrap();
    assert_eq!(gap(1), None);
    counting.run();
    assert_eq!((world.counted(), counting.stopped()), ([2, 1, 0], 0));
    drop(recorder);
    journal.end().unwrap();
    counting.run();
    counting.end();
    assert_eq!(world.quarantine().gap(journal.id(), 0, SystemTime::now()).unwrap(), None, "what ended has no gap");
}

#[test]
fn what_is_aside_is_kept_within_its_bound_oldest_first() {
    let world = World::new();
    let journal = world.record(&CODES);
    (0..3).for_each(|seq| drop(damage(&world.block(journal, seq))));
    world.project();
    assert_eq!(world.counted(), [0, 0, 0]);
    let bytes = |seq| fs::metadata(world.aside(journal, seq)).unwrap().len();
    let old = SystemTime::now() - Duration::from_secs(3_600);
    File::open(world.aside(journal, 1)).unwrap().set_modified(old).unwrap();
    let all: u64 = (0..3).map(bytes).sum();
    let quarantine = world.quarantine();
    assert_eq!(quarantine.keep_within(all * ASIDE_SHARE).unwrap(), Aside { blocks: 3, bytes: all, discarded: 0 });
    let left = Aside { blocks: 2, bytes: all - bytes(1), discarded: 1 };
    assert_eq!(quarantine.keep_within((all - 1) * ASIDE_SHARE).unwrap(), left);
    let ids: Vec<DeadKind> = quarantine.list(9).unwrap().iter().map(|dead| dead.kind).collect();
    assert_eq!(ids, [DeadKind::Block(0), DeadKind::Block(2)]);
    assert_eq!(quarantine.list(1).unwrap().len(), 1);
}

fn wait_for(path: &Path) {
    for _ in 0..3_000 {
        if path.exists() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{} was not sealed", path.display());
}
