//! The projector over journals on disk, when read model and journals don't agree, or a file can't be read.

#![allow(missing_docs, clippy::unwrap_used)]

mod journals;

use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use terse_clicks::enrich::Enrichment;
use terse_clicks::log::local::LocalLog;
use terse_clicks::projector::{Projector, ProjectorConfig};
use terse_core::ports::clicks::Bus;
use terse_core::stats::{RowKey, Span};
use terse_core::{Clock, ShortCode};
use terse_testkit::SeededEntropy;
use terse_testkit::clicks::{ClickStore, ClickStoreKind};

use journals::Journals;

/// A directory of journals whose processes have ended.
struct World(Journals);

impl Deref for World {
    type Target = Journals;

    fn deref(&self) -> &Journals {
        &self.0
    }
}

impl World {
    fn new() -> Self {
        Self(Journals::new())
    }

    /// A new process counts what it finds; returns how many deliveries it took, and how many partitions are stopped.
    fn project(&self, store: &Arc<ClickStore>) -> (usize, u64) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let config = ProjectorConfig::new(Bus::Local, "process");
            let log = Box::new(LocalLog::new(self.root.path(), None));
            let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
            let enrichment = Enrichment::new([], None);
            let entropy = SeededEntropy::new(5);
            let mut projector = Projector::new(config, log, store.writer(), enrichment, clock, &entropy).unwrap();
            let (mut taken, mut quiet) = (0, 0);
            while quiet < 12 {
                self.clock.advance(Duration::from_millis(200));
                let step = projector.run_once(0).await.unwrap();
                taken += step.taken;
                quiet = if step.taken == 0 && !step.wrote { quiet + 1 } else { 0 };
            }
            let report = projector.progress().report();
            projector.finish().await.unwrap();
            (taken, report.stopped)
        })
    }
}

fn store() -> Arc<ClickStore> {
    ClickStore::new(ClickStoreKind::Transactions, 1)
}

fn counted(store: &ClickStore, codes: &[&str]) -> Vec<u64> {
    let of = |code: &&str| {
        let key = RowKey { code: ShortCode::parse(code).unwrap(), span: Span::All };
        store.rows().get(&key).map_or(0, |row| row.clicks)
    };
    codes.iter().map(of).collect()
}

fn block(directory: &Path, seq: u64) -> PathBuf {
    directory.join(format!("{seq:020}.block"))
}

const CODES: [&str; 3] = ["one", "two", "three"];

#[test]
fn a_read_model_that_was_put_back_counts_again_what_is_kept() {
    let world = World::new();
    world.record(&CODES);
    world.record(&["one"]);
    let first = store();
    assert_eq!(world.project(&first), (4 + 2, 0));
    assert_eq!(counted(&first, &CODES), [2, 1, 1]);
    // An older copy of the read model knows nothing of it, though all was passed.
    let older = store();
    assert_eq!(world.project(&older), (4 + 2, 0));
    assert_eq!(counted(&older, &CODES), [2, 1, 1]);
}

#[test]
fn a_restart_reads_nothing_again_that_read_model_and_journals_agree_on() {
    let world = World::new();
    world.record(&CODES);
    let store = store();
    world.project(&store);
    for _ in 0..2 {
        assert_eq!(world.project(&store), (0, 0));
    }
    assert_eq!(counted(&store, &CODES), [1, 1, 1]);
}

#[test]
fn what_is_kept_no_more_is_given_up_and_the_rest_is_counted() {
    let world = World::new();
    let journal = world.record(&CODES);
    world.project(&store());
    fs::remove_file(block(&world.directory(journal), 0)).unwrap();
    let older = store();
    assert_eq!(world.project(&older), (3, 0));
    assert_eq!(counted(&older, &CODES), [0, 1, 1]);
    assert_eq!(world.project(&older), (0, 0));
    assert_eq!(counted(&older, &CODES), [0, 1, 1]);
}

#[test]
fn a_journal_that_can_not_be_read_stops_alone_and_goes_on_when_it_can() {
    let world = World::new();
    let bad = world.record(&["bad", "bad"]);
    world.record(&CODES);
    let unreadable = block(&world.directory(bad), 1);
    let aside = world.root.path().join("aside");
    fs::rename(&unreadable, &aside).unwrap();
    fs::create_dir(&unreadable).unwrap();
    let store = store();
    let (_, stopped) = world.project(&store);
    assert_eq!(stopped, 1);
    assert_eq!(counted(&store, &["one", "two", "three", "bad"]), [1, 1, 1, 1]);
    fs::remove_dir(&unreadable).unwrap();
    fs::rename(&aside, &unreadable).unwrap();
    world.project(&store);
    assert_eq!(counted(&store, &["one", "two", "three", "bad"]), [1, 1, 1, 2]);
}
