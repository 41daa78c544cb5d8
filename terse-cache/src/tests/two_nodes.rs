//! A second node's edits, the shared cache, and the marks that tell of both.
//! Each scenario of change marks is a test here, by its own name.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::FutureExt;
use terse_core::ports::{ChangeFeed, ChangeMark, ChangeMarks};
use terse_core::{Clock, Timestamp};
use terse_testkit::Gate;

use super::*;
use crate::{MarkPoller, Neighbours, Shards, SharedCache};

/// How a shared cache behaves at the moment.
#[derive(Clone, Default)]
pub(super) enum Mood {
    /// It answers.
    #[default]
    Well,
    /// It neither answers nor changes.
    Away,
    /// A change waits at the gate before it is made.
    SlowToChange(Arc<Gate>),
    /// A look-up waits at the gate with its answer.
    SlowToAnswer(Arc<Gate>),
}

/// A shared cache in a map.
#[derive(Default)]
pub(super) struct TinyShared {
    pub links: Mutex<HashMap<ShortCode, Resolution>>,
    pub mood: Mutex<Mood>,
    pub asked: AtomicUsize,
    pub changed: AtomicUsize,
}

impl TinyShared {
    fn holds(&self, code: &str) -> u64 {
        self.links.lock().get(code).map_or(0, |link| link.version.0)
    }

    fn set(&self, code: &str, version: u64) {
        self.links.lock().insert(links::code(code), links::resolution(code, version));
    }

    fn be(&self, mood: Mood) {
        *self.mood.lock() = mood;
    }

    async fn may_change(&self) -> bool {
        let mood = self.mood.lock().clone();
        if let Mood::SlowToChange(gate) = &mood {
            gate.pass().await;
        }
        self.changed.fetch_add(1, Ordering::SeqCst);
        !matches!(mood, Mood::Away)
    }
}

#[async_trait]
impl SharedCache for TinyShared {
    async fn get(&self, code: &ShortCode) -> Option<Resolution> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let (mood, link) = (self.mood.lock().clone(), self.links.lock().get(code).cloned());
        match mood {
            Mood::Away => return None,
            Mood::SlowToAnswer(gate) => gate.pass().await,
            Mood::Well | Mood::SlowToChange(_) => {}
        }
        link
    }

    async fn put(&self, code: &ShortCode, link: &Resolution) {
        if !self.may_change().await {
            return;
        }
        let mut links = self.links.lock();
        if links.get(code).is_none_or(|known| known.version <= link.version) {
            links.insert(code.clone(), link.clone());
        }
    }

    async fn drop_older(&self, code: &ShortCode, least: Version) {
        if !self.may_change().await {
            return;
        }
        let mut links = self.links.lock();
        if links.get(code).is_some_and(|known| known.version < least) {
            links.remove(code);
        }
    }
}

/// Marks in a list, in the order in which they show.
#[derive(Default)]
pub(super) struct TinyFeed {
    pub marks: Mutex<Vec<ChangeMark>>,
    /// The ranges that were asked for.
    pub asked: Mutex<Vec<(Timestamp, Timestamp)>>,
    pub broken: AtomicBool,
    pub held: Mutex<Option<Arc<Gate>>>,
}

impl TinyFeed {
    pub(super) fn mark(&self, code: &str, version: u64, at: Timestamp) {
        let mut marks = self.marks.lock();
        let id = (marks.len() as u128).to_be_bytes();
        marks.push(ChangeMark { id, code: links::code(code), version: Version(version), at });
    }
}

#[async_trait]
impl ChangeFeed for TinyFeed {
    async fn marks(&self, from: Timestamp, until: Timestamp, limit: usize) -> Result<ChangeMarks, StoreError> {
        self.asked.lock().push((from, until));
        let held = self.held.lock().clone();
        if let Some(gate) = held {
            gate.pass().await;
        }
        if self.broken.load(Ordering::SeqCst) {
            return Err(StoreError::new(StoreErrorKind::Unavailable, "the feed is broken"));
        }
        let within = |mark: &&ChangeMark| (from..=until).contains(&mark.at);
        let mut marks: Vec<_> = self.marks.lock().iter().filter(within).cloned().collect();
        let complete = marks.len() <= limit;
        marks.truncate(limit);
        Ok(ChangeMarks { marks, complete })
    }
}

/// What two nodes have in common, and the first of them.
struct Nodes {
    store: Arc<FaultyStore<TinyStore>>,
    clock: Arc<TestClock>,
    feed: Arc<TinyFeed>,
    shared: Arc<TinyShared>,
    cache: Arc<ReadThrough>,
    poller: MarkPoller,
    config: CacheConfig,
}

impl Nodes {
    /// A node that has not polled yet, with `abc` in the store.
    fn new() -> Self {
        Self::with(CacheConfig { wait: Duration::from_secs(60), ..CacheConfig::default() })
    }

    fn with(config: CacheConfig) -> Self {
        let store = Arc::new(FaultyStore::new(Arc::new(TinyStore::default())));
        store.inner().insert(&links::link("abc"));
        let (clock, feed, shared) = (Arc::default(), Arc::default(), Arc::default());
        let (cache, poller) = node(&store, &clock, &feed, &shared, &config);
        Self { store, clock, feed, shared, cache, poller, config }
    }

    /// A node that polls, and has `abc` in memory and in the shared cache.
    async fn warm() -> Self {
        let nodes = Self::new();
        nodes.poll().await;
        assert_eq!(nodes.answer("abc").await, (1, Tier::Store));
        nodes.settle_down().await;
        assert_eq!((nodes.peek("abc"), nodes.shared.holds("abc")), (Some((1, Tier::L1)), 1));
        nodes
    }

    /// Another server on the same store and shared cache, which has not polled yet.
    fn start_another(&self) -> Self {
        let (cache, poller) = node(&self.store, &self.clock, &self.feed, &self.shared, &self.config);
        Self {
            store: Arc::clone(&self.store),
            clock: Arc::clone(&self.clock),
            feed: Arc::clone(&self.feed),
            shared: Arc::clone(&self.shared),
            cache,
            poller,
            config: self.config.clone(),
        }
    }

    async fn poll(&self) {
        self.poller.poll_once().await.unwrap();
    }

    /// Lets time pass, polling four times a second.
    async fn pass(&self, time: Duration) {
        for _ in 0..time.as_millis() / 250 {
            self.clock.advance(Duration::from_millis(250));
            self.poll().await;
        }
    }

    /// Lets flights end, and what they share arrive.
    async fn settle_down(&self) {
        while self.cache.stats().flights > 0 {
            tokio::task::yield_now().await;
        }
    }

    /// Another node announces an edit of `abc` that makes `version`.
    fn announce(&self, version: u64) {
        self.feed.mark("abc", version, self.clock.now());
    }

    /// Another node's announced edit of `abc` happens.
    fn happen(&self) {
        let (store, code) = (self.store.inner(), links::code("abc"));
        let change = change_to("abc", LinkState::Disabled);
        assert!(matches!(store.edit(&code, Version(store.version("abc")), &change), Update::Updated(_)));
    }

    /// Another node edits `abc` to `version`.
    fn edit_elsewhere(&self, version: u64) {
        self.announce(version);
        self.happen();
        self.announce(version);
    }

    fn writer(&self) -> CachedWriter {
        CachedWriter::new(Arc::clone(&self.store) as _, Arc::clone(&self.cache))
    }

    async fn edit(&self, expected: u64) -> Result<Update, StoreErrorKind> {
        let change = change_to("abc", LinkState::Disabled);
        let outcome = self.writer().update(&links::code("abc"), Version(expected), &change).await;
        outcome.map_err(|error| error.kind)
    }

    fn fail(&self, operation: Operation, kind: StoreErrorKind) {
        self.store.faults.add(operation, When::Every, Fault::Fail(kind));
    }

    fn reads(&self) -> usize {
        self.store.faults.calls(Operation::Resolve)
    }

    async fn resolve(&self, code: &str) -> Result<(u64, Tier), StoreErrorKind> {
        self.cache.resolve(&links::code(code)).await.map(version_and_tier).map_err(|error| error.kind)
    }

    async fn answer(&self, code: &str) -> (u64, Tier) {
        self.resolve(code).await.unwrap()
    }

    fn peek(&self, code: &str) -> Option<(u64, Tier)> {
        self.cache.peek(code).map(version_and_tier)
    }
}

fn node(
    store: &Arc<FaultyStore<TinyStore>>,
    clock: &Arc<TestClock>,
    feed: &Arc<TinyFeed>,
    shared: &Arc<TinyShared>,
    config: &CacheConfig,
) -> (Arc<ReadThrough>, MarkPoller) {
    let shards = Shards::new(vec![true], Arc::new(|_| 0));
    let neighbours = Neighbours { shared: Some(Arc::clone(shared) as _), shards };
    let cache = ReadThrough::with(Arc::clone(store) as _, Arc::clone(clock) as _, config.clone(), neighbours);
    let poller = MarkPoller::new(&cache, 0, Arc::clone(feed) as _);
    (cache, poller)
}

const UNAVAILABLE: Result<(u64, Tier), StoreErrorKind> = Err(StoreErrorKind::Unavailable);

// --- What an edit elsewhere does at all.

#[tokio::test]
async fn an_edit_elsewhere_shows_after_the_next_poll_and_its_version_is_kept_and_shared() {
    let nodes = Nodes::warm().await;
    nodes.edit_elsewhere(2);
    assert_eq!(nodes.peek("abc"), Some((1, Tier::L1)), "within the half second that an edit may take to show");
    nodes.poll().await;
    assert_eq!((nodes.peek("abc"), nodes.shared.holds("abc")), (None, 0));
    assert_eq!(nodes.answer("abc").await, (2, Tier::Store));
    nodes.settle_down().await;
    assert_eq!((nodes.peek("abc"), nodes.shared.holds("abc")), (Some((2, Tier::L1)), 2));
}

#[tokio::test]
async fn what_one_node_reads_another_takes_from_the_shared_cache() {
    let nodes = Nodes::warm().await;
    let other = nodes.start_another();
    other.poll().await;
    assert_eq!((other.answer("abc").await, other.peek("abc")), ((1, Tier::L2), Some((1, Tier::L1))));
    assert_eq!(nodes.reads(), 1);
}

#[tokio::test]
async fn a_mark_ends_a_negative_entry() {
    let nodes = Nodes::new();
    nodes.poll().await;
    assert_eq!(nodes.answer("new").await, (0, Tier::Store));
    nodes.feed.mark("new", 1, nodes.clock.now());
    nodes.store.inner().insert(&links::link("new"));
    nodes.poll().await;
    assert_eq!(nodes.answer("new").await, (1, Tier::Store));
}

#[tokio::test]
async fn a_mark_ends_what_was_repeated_as_stale() {
    let nodes = Nodes::new();
    nodes.poll().await;
    nodes.store.inner().lag(links::resolution("abc", 1));
    assert_eq!((nodes.answer("abc").await, nodes.peek("abc")), ((1, Tier::Stale), Some((1, Tier::Stale))));
    nodes.announce(2);
    nodes.poll().await;
    assert_eq!((nodes.peek("abc"), nodes.resolve("abc").await), (None, UNAVAILABLE));
    nodes.settle_down().await;
    assert_eq!(nodes.shared.holds("abc"), 0, "what is outdated is not shared");
}

// --- B1: the shared cache comes back with the old value.

#[tokio::test]
async fn b1_a_shared_cache_that_comes_back_with_the_old_value_is_not_believed() {
    let nodes = Nodes::warm().await;
    nodes.shared.be(Mood::Away);
    nodes.edit_elsewhere(2);
    nodes.pass(Duration::from_secs(10)).await;
    nodes.shared.be(Mood::Well);
    assert_eq!(nodes.shared.holds("abc"), 1, "it missed the drops");
    assert_eq!(nodes.answer("abc").await, (2, Tier::Store));
    nodes.settle_down().await;
    assert_eq!(nodes.shared.holds("abc"), 2);
}

#[tokio::test]
async fn b1_nor_by_a_server_that_is_started_half_an_hour_later() {
    let nodes = Nodes::warm().await;
    nodes.shared.be(Mood::Away);
    nodes.edit_elsewhere(2);
    nodes.clock.advance(Duration::from_secs(30 * 60));
    nodes.shared.be(Mood::Well);
    let late = nodes.start_another();
    assert_eq!(late.answer("abc").await.1, Tier::Store, "before it has polled it trusts nothing");
    let asked = late.shared.asked.load(Ordering::SeqCst);
    late.shared.set("abc", 1);
    let later = nodes.start_another();
    later.poll().await;
    assert_eq!(later.answer("abc").await, (2, Tier::Store));
    assert!(later.shared.asked.load(Ordering::SeqCst) > asked, "it was asked, and refused");
}

#[tokio::test]
async fn b1_this_process_never_takes_what_its_own_edit_outdated_without_any_marks() {
    for seen in [Ok(()), Err(StoreErrorKind::UnknownOutcome)] {
        let mut nodes = Nodes::new();
        nodes.cache = ReadThrough::with(
            Arc::clone(&nodes.store) as _,
            Arc::clone(&nodes.clock) as _,
            nodes.config.clone(),
            Neighbours { shared: Some(Arc::clone(&nodes.shared) as _), shards: Shards::in_step() },
        );
        nodes.shared.set("abc", 1);
        assert_eq!(nodes.answer("abc").await, (1, Tier::L2));
        nodes.shared.be(Mood::Away);
        if seen.is_err() {
            nodes.store.faults.add(Operation::Update, When::Nth(1), Fault::LoseAnswer);
        }
        assert_eq!(nodes.edit(1).await.map(drop), seen);
        nodes.shared.be(Mood::Well);
        nodes.clock.advance(Duration::from_secs(29 * 60));
        nodes.fail(Operation::Update, StoreErrorKind::Corrupt);
        nodes.edit(2).await.unwrap_err();
        assert_eq!(nodes.peek("abc"), None);
        nodes.shared.set("abc", 1);
        assert_eq!(nodes.answer("abc").await, (2, Tier::Store), "{seen:?}");
    }
}

#[tokio::test]
async fn an_edit_goes_to_the_shared_cache_before_memory_and_its_answer() {
    let nodes = Nodes::warm().await;
    let gate = Gate::closed();
    nodes.shared.be(Mood::SlowToChange(Arc::clone(&gate)));
    let mut edit = Box::pin(nodes.edit(1));
    assert!((&mut edit).now_or_never().is_none());
    gate.arrived(1).await;
    assert_eq!(nodes.peek("abc"), Some((1, Tier::L1)), "nobody was told of the edit yet");
    gate.open();
    edit.await.unwrap();
    assert_eq!((nodes.peek("abc"), nodes.shared.holds("abc")), (Some((2, Tier::L1)), 2));
}

#[tokio::test]
async fn a_caller_that_goes_away_while_the_shared_cache_hangs_leaves_memory_in_step() {
    let nodes = Nodes::warm().await;
    nodes.shared.be(Mood::SlowToChange(Gate::closed()));
    assert!(nodes.edit(1).now_or_never().is_none());
    nodes.shared.be(Mood::Well);
    assert_eq!(nodes.peek("abc"), Some((2, Tier::L1)));
    assert_eq!(nodes.shared.holds("abc"), 1, "which nobody here takes");
    nodes.clock.advance(Duration::from_secs(30 * 60));
    nodes.poll().await;
    assert_eq!(nodes.answer("abc").await, (2, Tier::Store));
}

#[tokio::test(start_paused = true)]
async fn an_edit_waits_for_a_shared_cache_that_hangs_no_longer_than_for_a_look_up() {
    let nodes = Nodes::with(CacheConfig::default());
    nodes.shared.be(Mood::SlowToChange(Gate::closed()));
    let began = tokio::time::Instant::now();
    nodes.edit(1).await.unwrap();
    assert_eq!(began.elapsed().as_millis() / 100, 10);
}

#[tokio::test]
async fn an_edit_that_may_have_happened_goes_from_the_shared_cache() {
    for kind in [StoreErrorKind::UnknownOutcome, StoreErrorKind::Corrupt] {
        let nodes = Nodes::warm().await;
        nodes.fail(Operation::Update, kind);
        nodes.edit(1).await.unwrap_err();
        assert_eq!(nodes.shared.holds("abc"), 0, "{kind:?}");
    }
    let nodes = Nodes::warm().await;
    nodes.happen();
    assert_eq!(nodes.edit(1).await, Ok(Update::Conflict { current: Version(2) }));
    assert_eq!(nodes.shared.holds("abc"), 0, "a conflict");
    let nodes = Nodes::warm().await;
    nodes.fail(Operation::Update, StoreErrorKind::Unavailable);
    nodes.edit(1).await.unwrap_err();
    assert_eq!(nodes.shared.holds("abc"), 1, "certainly nothing happened");
}
