//! A second node's edits, the shared cache, and the marks that tell of both.
//! Each scenario of change marks is a test here, by its own name.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::FutureExt;
use terse_core::ports::{ChangeFeed, ChangeMark, ChangeMarks, MarkPlace};
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
    /// Of a place after so many marks nothing is told; 0 = of all.
    pub breaks_after: AtomicUsize,
    pub held: Mutex<Option<Arc<Gate>>>,
}

impl TinyFeed {
    pub(super) fn mark(&self, code: &str, version: u64, at: Timestamp) {
        let mut marks = self.marks.lock();
        let id = (marks.len() as u128 + 1).to_be_bytes();
        marks.push(ChangeMark { id, code: links::code(code), version: Version(version), at });
    }
}

#[async_trait]
impl ChangeFeed for TinyFeed {
    async fn marks(
        &self,
        from: Timestamp,
        until: Timestamp,
        after: Option<MarkPlace>,
        limit: usize,
    ) -> Result<ChangeMarks, StoreError> {
        self.asked.lock().push((from, until));
        let held = self.held.lock().clone();
        if let Some(gate) = held {
            gate.pass().await;
        }
        let breaks_after = self.breaks_after.load(Ordering::SeqCst) as u128;
        let is_beyond = |after: MarkPlace| breaks_after > 0 && u128::from_be_bytes(after.id) >= breaks_after;
        if self.broken.load(Ordering::SeqCst) || after.is_some_and(is_beyond) {
            return Err(StoreError::new(StoreErrorKind::Unavailable, "the feed is broken"));
        }
        // All marks are in one bucket, so their ids alone order them.
        let is_after = |mark: &ChangeMark| after.is_none_or(|after| mark.id > after.id);
        let within = |mark: &&ChangeMark| (from..=until).contains(&mark.at) && is_after(mark);
        let mut marks: Vec<_> = self.marks.lock().iter().filter(within).cloned().collect();
        let next = (marks.len() > limit).then(|| MarkPlace { bucket: 0, id: marks[limit - 1].id });
        marks.truncate(limit);
        Ok(ChangeMarks { marks, next })
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

// --- B2: clocks differ, and marks show late.

#[tokio::test]
async fn b2_a_mark_is_acted_on_whose_writer_is_seconds_off_or_that_shows_late() {
    for offset_ms in [-14_000, -5_000, 5_000, 14_000] {
        let nodes = Nodes::warm().await;
        nodes.pass(Duration::from_secs(1)).await;
        nodes.happen();
        nodes.feed.mark("abc", 2, nodes.clock.now().plus_millis(offset_ms));
        nodes.pass(Duration::from_millis(250)).await;
        assert_eq!(nodes.answer("abc").await, (2, Tier::Store), "{offset_ms} ms off");
    }
}

#[tokio::test]
async fn b2_a_mark_is_acted_on_once_and_its_id_forgotten_in_time() {
    let nodes = Nodes::warm().await;
    nodes.edit_elsewhere(2);
    nodes.poll().await;
    assert_eq!(nodes.answer("abc").await, (2, Tier::Store));
    nodes.settle_down().await;
    // A mark that was acted on again would be seen at the shared cache.
    let changed = nodes.shared.changed.load(Ordering::SeqCst);
    nodes.pass(Duration::from_secs(4)).await;
    assert_eq!(nodes.shared.changed.load(Ordering::SeqCst), changed);
    assert_eq!(nodes.poller.remembered(), (2, 2), "ids, and drops to come");
    nodes.pass(Duration::from_secs(90)).await;
    assert_eq!(nodes.shared.changed.load(Ordering::SeqCst), changed + 2, "dropped once more each");
    assert_eq!(nodes.poller.remembered(), (0, 0));
    assert_eq!(nodes.peek("abc"), Some((2, Tier::L1)), "which took nothing from memory");
}

// --- B3: the poll hangs, or the process was stopped and resumed.

#[tokio::test]
async fn b3_nothing_is_fresh_nor_shared_before_the_first_poll() {
    let nodes = Nodes::new();
    nodes.shared.set("abc", 1);
    assert_eq!((nodes.answer("abc").await, nodes.answer("abc").await), ((1, Tier::Store), (1, Tier::Store)));
    assert_eq!((nodes.peek("abc"), nodes.shared.asked.load(Ordering::SeqCst)), (None, 0));
    nodes.poll().await;
    assert_eq!(nodes.peek("abc"), Some((1, Tier::L1)));
}

#[tokio::test]
async fn b3_a_process_that_was_stopped_reads_again_what_it_remembers() {
    let nodes = Nodes::warm().await;
    nodes.clock.advance(Duration::from_millis(500));
    assert_eq!((nodes.peek("abc"), nodes.cache.is_fresh(0)), (Some((1, Tier::L1)), true));
    nodes.clock.advance(Duration::from_millis(1));
    assert_eq!((nodes.peek("abc"), nodes.cache.is_fresh(0)), (None, false));
    nodes.happen();
    let asked = nodes.shared.asked.load(Ordering::SeqCst);
    assert_eq!(nodes.answer("abc").await, (2, Tier::Store), "no mark was read, and yet it shows");
    assert_eq!(nodes.shared.asked.load(Ordering::SeqCst), asked);
}

#[tokio::test]
async fn b3_a_poll_that_hangs_or_fails_lets_freshness_end() {
    let nodes = Nodes::warm().await;
    let gate = Gate::closed();
    *nodes.feed.held.lock() = Some(Arc::clone(&gate));
    nodes.clock.advance(Duration::from_millis(250));
    let mut poll = Box::pin(nodes.poll());
    assert!((&mut poll).now_or_never().is_none());
    nodes.clock.advance(Duration::from_millis(251));
    assert_eq!(nodes.peek("abc"), None);
    gate.open();
    poll.await;
    assert_eq!(nodes.peek("abc"), Some((1, Tier::L1)), "that poll began 251 ms ago");
    nodes.clock.advance(Duration::from_millis(250));
    assert_eq!(nodes.peek("abc"), None, "and now 501");
    nodes.feed.broken.store(true, Ordering::SeqCst);
    nodes.poller.poll_once().await.unwrap_err();
    assert_eq!(nodes.peek("abc"), None);
}

#[tokio::test]
async fn b3_what_is_not_fresh_is_read_by_one_flight_and_served_stale_if_there_is_no_room_for_it() {
    let nodes = Nodes::with(CacheConfig { max_flights: 1, wait: Duration::from_secs(60), ..CacheConfig::default() });
    nodes.store.inner().insert(&links::link("other"));
    nodes.poll().await;
    for code in ["abc", "other"] {
        nodes.answer(code).await;
        nodes.settle_down().await;
    }
    nodes.clock.advance(Duration::from_secs(1));
    let (gate, reads) = (Gate::closed(), nodes.reads());
    nodes.store.faults.add(Operation::Resolve, When::Every, Fault::HoldAnswer(Arc::clone(&gate)));
    let code = links::code("abc");
    let mut waiting: Vec<_> = (0..1_000).map(|_| nodes.cache.resolve(&code)).collect();
    assert!(waiting.iter_mut().all(|waiter| waiter.now_or_never().is_none()));
    gate.arrived(1).await;
    assert_eq!(nodes.answer("other").await, (1, Tier::Stale));
    gate.open();
    for answer in futures_util::future::join_all(waiting).await {
        assert_eq!(version_and_tier(answer.unwrap()), (1, Tier::Store));
    }
    assert_eq!(nodes.reads(), reads + 1);
}

#[tokio::test]
async fn b3_what_was_fresh_lately_gives_way_to_what_is_not_known_at_all() {
    let nodes = Nodes::new();
    let refreshes = || nodes.store.inner().refreshes.load(Ordering::SeqCst);
    nodes.poll().await;
    assert_eq!((nodes.answer("abc").await, refreshes()), ((1, Tier::Store), 0), "it was not known");
    nodes.settle_down().await;
    nodes.clock.advance(Duration::from_secs(1));
    assert_eq!((nodes.answer("abc").await, refreshes()), ((1, Tier::Store), 1));
    nodes.settle_down().await;
    nodes.fail(Operation::Resolve, StoreErrorKind::Overloaded);
    nodes.clock.advance(Duration::from_secs(1));
    assert_eq!((nodes.answer("abc").await, refreshes()), ((1, Tier::Stale), 1), "refused before it was asked");
    nodes.store.faults.heal();
    nodes.clock.advance(Duration::from_secs(5));
    assert_eq!((nodes.answer("abc").await, refreshes()), ((1, Tier::Store), 1), "too long ago");
    nodes.poll().await;
    nodes.settle_down().await;
    nodes.shared.be(Mood::Away);
    nodes.pass(CacheConfig::default().fresh_for).await;
    assert_eq!((nodes.answer("abc").await, refreshes()), ((1, Tier::Store), 1), "too old");
}

#[tokio::test]
async fn b3_a_look_up_that_began_half_a_second_ago_is_joined_only_while_polls_tell_of_changes() {
    for polled in [true, false] {
        let nodes = Nodes::new();
        nodes.poll().await;
        let gate = Gate::closed();
        nodes.store.faults.add(Operation::Resolve, When::Nth(1), Fault::HoldAnswer(Arc::clone(&gate)));
        let mut reader = Box::pin(nodes.answer("abc"));
        assert!((&mut reader).now_or_never().is_none());
        gate.arrived(1).await;
        nodes.clock.advance(Duration::from_millis(501));
        if polled {
            nodes.poll().await;
        }
        let mut late = Box::pin(nodes.answer("abc"));
        assert!((&mut late).now_or_never().is_none());
        gate.open();
        assert_eq!((late.await, reader.await), ((1, Tier::Store), (1, Tier::Store)));
        assert_eq!(nodes.reads(), if polled { 1 } else { 2 });
    }
}

#[tokio::test]
async fn b3_after_a_gap_all_since_the_last_poll_is_read_before_anything_is_fresh() {
    let nodes = Nodes::warm().await;
    nodes.edit_elsewhere(2);
    nodes.clock.advance(Duration::from_secs(20 * 60));
    nodes.feed.asked.lock().clear();
    nodes.poll().await;
    let asked = nodes.feed.asked.lock().clone();
    let (first, last) = (asked[0], asked[asked.len() - 1]);
    assert_eq!(first.0, nodes.clock.now().plus_millis(-20 * 60_000 - 15_000), "from where the last window began");
    assert!(asked.windows(2).all(|reads| reads[0].1 == reads[1].0), "no moment is left out");
    assert_eq!(last.1, nodes.clock.now().plus_millis(15_000));
    assert_eq!((nodes.peek("abc"), nodes.answer("abc").await), (None, (2, Tier::Store)));
    let reads = nodes.feed.asked.lock().len();
    nodes.pass(Duration::from_secs(1)).await;
    assert_eq!(nodes.feed.asked.lock().len(), reads + 4, "from then on a poll is one read");
}

#[tokio::test]
async fn b3_a_gap_that_only_the_wall_clock_shows_is_one_too() {
    let nodes = Nodes::warm().await;
    nodes.edit_elsewhere(2);
    nodes.clock.set_wall(nodes.clock.now().plus_millis(600_000));
    nodes.feed.asked.lock().clear();
    nodes.poll().await;
    let first = nodes.feed.asked.lock()[0];
    assert_eq!(first.0, nodes.clock.now().plus_millis(-31 * 60_000), "who knows what the last window covered");
    assert_eq!((nodes.peek("abc"), nodes.answer("abc").await), (None, (2, Tier::Store)));
}

#[tokio::test]
async fn b3_a_poll_that_is_given_up_goes_on_where_it_was() {
    let nodes = Nodes::new();
    let (_held, gate) = (nodes.answer("abc").await, Gate::closed());
    *nodes.feed.held.lock() = Some(Arc::clone(&gate));
    assert!(nodes.poller.poll_once().now_or_never().is_none());
    assert_eq!(nodes.peek("abc"), None);
    *nodes.feed.held.lock() = None;
    nodes.feed.broken.store(true, Ordering::SeqCst);
    nodes.poller.poll_once().await.unwrap_err();
    nodes.feed.broken.store(false, Ordering::SeqCst);
    nodes.feed.asked.lock().clear();
    nodes.poll().await;
    let asked = nodes.feed.asked.lock().clone();
    assert_eq!((asked.len(), asked[0].0), (186, nodes.clock.now().plus_millis(-31 * 60_000)));
    assert!(asked.windows(2).all(|reads| reads[0].1 == reads[1].0), "no moment is left out");
}

// --- B4: a mark before an edit that never happens, or happens late.

#[tokio::test]
async fn b4_an_announced_edit_that_never_happens_keeps_its_code_from_memory_for_five_seconds() {
    let nodes = Nodes::warm().await;
    nodes.announce(2);
    nodes.pass(Duration::from_millis(250)).await;
    assert_eq!((nodes.answer("abc").await, nodes.peek("abc")), ((1, Tier::Store), None));
    nodes.settle_down().await;
    assert_eq!(nodes.shared.holds("abc"), 0, "used, not kept");
    nodes.pass(Duration::from_millis(4_750)).await;
    assert_eq!((nodes.answer("abc").await, nodes.peek("abc")), ((1, Tier::Store), None));
    nodes.pass(Duration::from_millis(250)).await;
    assert_eq!((nodes.answer("abc").await, nodes.peek("abc")), ((1, Tier::Store), Some((1, Tier::L1))));
    nodes.settle_down().await;
    assert_eq!(nodes.shared.holds("abc"), 0, "for a moment, and for this node");
    let other = nodes.start_another();
    other.pass(Duration::from_secs(5)).await;
    assert_eq!(other.answer("abc").await, (1, Tier::Store), "what it saw marked it reads for itself");
}

#[tokio::test]
async fn b4_an_announced_edit_that_a_stopped_node_makes_after_all_shows_within_a_second() {
    let nodes = Nodes::warm().await;
    nodes.announce(2);
    nodes.pass(Duration::from_millis(5_500)).await;
    assert_eq!((nodes.answer("abc").await, nodes.peek("abc")), ((1, Tier::Store), Some((1, Tier::L1))));
    // Who announced it is dead, and leaves no mark after it.
    nodes.happen();
    nodes.pass(Duration::from_secs(1)).await;
    assert_eq!((nodes.answer("abc").await, nodes.peek("abc")), ((2, Tier::Store), Some((2, Tier::L1))));
    nodes.settle_down().await;
    assert_eq!(nodes.shared.holds("abc"), 2);
}

#[tokio::test]
async fn b4_what_an_announced_edit_would_outdate_is_neither_taken_from_the_shared_cache_nor_refused_in_need() {
    let nodes = Nodes::warm().await;
    nodes.announce(2);
    nodes.pass(Duration::from_millis(5_500)).await;
    nodes.shared.set("abc", 1);
    assert_eq!(nodes.answer("abc").await, (1, Tier::Store));
    nodes.pass(Duration::from_secs(1)).await;
    nodes.fail(Operation::Resolve, StoreErrorKind::Unavailable);
    assert_eq!(nodes.answer("abc").await, (1, Tier::Stale));
}

#[tokio::test]
async fn b4_a_read_that_began_before_an_edit_could_no_longer_happen_settles_nothing() {
    let nodes = Nodes::warm().await;
    nodes.announce(2);
    nodes.poll().await;
    nodes.pass(Duration::from_millis(4_750)).await;
    let gate = Gate::closed();
    nodes.store.faults.add(Operation::Resolve, When::Every, Fault::HoldAnswer(Arc::clone(&gate)));
    let mut reader = Box::pin(nodes.answer("abc"));
    assert!((&mut reader).now_or_never().is_none());
    gate.arrived(1).await;
    nodes.happen();
    nodes.clock.advance(Duration::from_millis(300));
    gate.open();
    assert_eq!((reader.await, nodes.peek("abc")), ((1, Tier::Store), None));
}

#[tokio::test]
async fn b4_an_announced_version_is_never_undercut_when_the_store_is_out_of_reach() {
    let nodes = Nodes::warm().await;
    nodes.announce(2);
    nodes.poll().await;
    nodes.fail(Operation::Resolve, StoreErrorKind::Unavailable);
    assert_eq!(nodes.resolve("abc").await, UNAVAILABLE);
    nodes.clock.advance(Duration::from_secs(40 * 60));
    nodes.poll().await;
    assert_eq!(nodes.resolve("abc").await, UNAVAILABLE, "nor when the mark is forgotten");
}

#[tokio::test]
async fn b4_an_edit_that_happens_after_its_mark_was_seen_is_dropped_the_second_time() {
    let nodes = Nodes::warm().await;
    nodes.announce(2);
    nodes.poll().await;
    assert_eq!(nodes.shared.holds("abc"), 0);
    // A node that has not seen the mark yet shares what it read.
    nodes.shared.set("abc", 1);
    nodes.happen();
    nodes.pass(Duration::from_secs(4)).await;
    assert_eq!((nodes.answer("abc").await, nodes.peek("abc")), ((2, Tier::Store), Some((2, Tier::L1))));
    nodes.settle_down().await;
    nodes.shared.set("abc", 1);
    nodes.feed.broken.store(true, Ordering::SeqCst);
    nodes.clock.advance(Duration::from_secs(1));
    nodes.poller.poll_once().await.unwrap_err();
    assert_eq!(nodes.shared.holds("abc"), 0, "though that poll failed");
    nodes.feed.broken.store(false, Ordering::SeqCst);
    nodes.poll().await;
    assert_eq!(nodes.peek("abc"), Some((2, Tier::L1)));
}

#[tokio::test]
async fn b4_a_mark_of_the_first_version_leaves_nothing_trusted_until_the_code_was_read_late_enough() {
    let nodes = Nodes::warm().await;
    nodes.happen();
    nodes.shared.be(Mood::Away);
    nodes.announce(1);
    nodes.pass(Duration::from_millis(250)).await;
    nodes.shared.be(Mood::Well);
    assert_eq!((nodes.answer("abc").await, nodes.peek("abc")), ((2, Tier::Store), None), "but not kept");
    nodes.pass(Duration::from_secs(5)).await;
    nodes.shared.set("abc", 1);
    assert_eq!((nodes.answer("abc").await, nodes.peek("abc")), ((2, Tier::Store), Some((2, Tier::L1))));
}

#[tokio::test]
async fn b4_a_link_with_a_mark_of_the_first_version_is_still_there_in_need_when_it_is_dropped_once_more() {
    let nodes = Nodes::warm().await;
    nodes.announce(1);
    nodes.pass(Duration::from_millis(250)).await;
    assert_eq!((nodes.peek("abc"), nodes.shared.holds("abc")), (None, 0));
    nodes.shared.set("abc", 1);
    nodes.pass(Duration::from_millis(5_250)).await;
    assert_eq!(nodes.shared.holds("abc"), 0, "the shared cache may keep nothing");
    nodes.fail(Operation::Resolve, StoreErrorKind::Unavailable);
    assert_eq!(nodes.answer("abc").await, (1, Tier::Stale));
}

// --- B5: a fill races a mark.

#[tokio::test]
async fn b5_a_reader_that_loaded_the_old_version_before_the_mark_stores_it_nowhere() {
    let nodes = Nodes::new();
    nodes.poll().await;
    let gate = Gate::closed();
    nodes.store.faults.add(Operation::Resolve, When::Nth(1), Fault::HoldAnswer(Arc::clone(&gate)));
    let mut reader = Box::pin(nodes.answer("abc"));
    assert!((&mut reader).now_or_never().is_none());
    gate.arrived(1).await;
    nodes.edit_elsewhere(2);
    nodes.poll().await;
    assert_eq!(nodes.answer("abc").await, (2, Tier::Store), "who comes later doesn't join it");
    gate.open();
    assert_eq!(reader.await.0, 2);
    nodes.settle_down().await;
    assert_eq!((nodes.peek("abc"), nodes.shared.holds("abc")), (Some((2, Tier::L1)), 2));
}

#[tokio::test]
async fn b5_the_old_value_of_the_shared_cache_that_arrives_after_the_mark_is_not_taken() {
    let nodes = Nodes::new();
    nodes.poll().await;
    nodes.shared.set("abc", 1);
    let gate = Gate::closed();
    nodes.shared.be(Mood::SlowToAnswer(Arc::clone(&gate)));
    let mut reader = Box::pin(nodes.answer("abc"));
    assert!((&mut reader).now_or_never().is_none());
    gate.arrived(1).await;
    nodes.edit_elsewhere(2);
    nodes.poll().await;
    gate.open();
    assert_eq!(reader.await, (2, Tier::Store));
    assert_eq!(nodes.answer("abc").await.0, 2);
}

#[tokio::test]
async fn b5_what_arrives_from_the_shared_cache_when_polling_has_lapsed_is_not_taken() {
    let nodes = Nodes::new();
    nodes.poll().await;
    nodes.shared.set("abc", 1);
    nodes.happen();
    let gate = Gate::closed();
    nodes.shared.be(Mood::SlowToAnswer(Arc::clone(&gate)));
    let mut reader = Box::pin(nodes.answer("abc"));
    assert!((&mut reader).now_or_never().is_none());
    gate.arrived(1).await;
    nodes.clock.advance(Duration::from_millis(501));
    gate.open();
    assert_eq!(reader.await, (2, Tier::Store));
}

#[tokio::test]
async fn b5_a_late_share_of_the_old_version_is_taken_by_nobody_and_dropped_in_time() {
    let nodes = Nodes::new();
    nodes.poll().await;
    let gate = Gate::closed();
    nodes.shared.be(Mood::SlowToChange(Arc::clone(&gate)));
    assert_eq!(nodes.answer("abc").await, (1, Tier::Store), "who asked doesn't wait for it");
    gate.arrived(1).await;
    nodes.shared.be(Mood::Well);
    nodes.edit_elsewhere(2);
    nodes.poll().await;
    gate.open();
    nodes.settle_down().await;
    assert_eq!(nodes.shared.holds("abc"), 1, "the drop came before it");
    assert_eq!(nodes.answer("abc").await, (2, Tier::Store));
    nodes.shared.set("abc", 1);
    nodes.pass(Duration::from_millis(5_250)).await;
    assert_eq!(nodes.shared.holds("abc"), 0);
}

#[tokio::test]
async fn b5_what_a_stopped_process_read_long_ago_is_not_shared() {
    for (age_ms, shared) in [(5_000, 1), (5_001, 0)] {
        let nodes = Nodes::new();
        nodes.poll().await;
        let gate = Gate::closed();
        nodes.store.faults.add(Operation::Resolve, When::Nth(1), Fault::HoldAnswer(Arc::clone(&gate)));
        let mut reader = Box::pin(nodes.answer("abc"));
        assert!((&mut reader).now_or_never().is_none());
        gate.arrived(1).await;
        nodes.clock.advance(Duration::from_millis(age_ms));
        nodes.poll().await;
        gate.open();
        assert_eq!(reader.await, (1, Tier::Store));
        nodes.settle_down().await;
        assert_eq!(nodes.shared.holds("abc"), shared, "{age_ms} ms");
    }
}

#[tokio::test]
async fn b5_what_a_stopped_process_wrote_long_ago_is_not_shared_but_takes_the_place_of_what_it_outdates() {
    for (age_ms, shared) in [(5_000, 2), (5_001, 0)] {
        let nodes = Nodes::warm().await;
        let gate = Gate::closed();
        nodes.store.faults.add(Operation::Update, When::Nth(1), Fault::HoldAnswer(Arc::clone(&gate)));
        let mut edit = Box::pin(nodes.edit(1));
        assert!((&mut edit).now_or_never().is_none());
        gate.arrived(1).await;
        nodes.clock.advance(Duration::from_millis(age_ms));
        gate.open();
        edit.await.unwrap();
        assert_eq!(nodes.shared.holds("abc"), shared, "{age_ms} ms");
    }
}

#[tokio::test]
async fn an_own_edit_is_not_undone_by_the_marks_that_it_left() {
    let nodes = Nodes::warm().await;
    nodes.announce(2);
    nodes.edit(1).await.unwrap();
    nodes.announce(2);
    nodes.pass(Duration::from_secs(6)).await;
    assert_eq!((nodes.peek("abc"), nodes.shared.holds("abc")), (Some((2, Tier::L1)), 2));
    assert_eq!(nodes.reads(), 1);
}

// --- Bounds.

#[tokio::test]
async fn more_marks_than_can_be_read_end_freshness_until_they_can() {
    let nodes = Nodes::with(CacheConfig { max_marks: 10, wait: Duration::from_secs(60), ..CacheConfig::default() });
    nodes.poll().await;
    nodes.answer("abc").await;
    nodes.settle_down().await;
    for n in 0..10 {
        nodes.feed.mark(&format!("code{n}"), 2, nodes.clock.now());
    }
    nodes.edit_elsewhere(2);
    let error = nodes.poller.poll_once().await.unwrap_err();
    assert_eq!((error.kind, nodes.cache.stats().overflows), (StoreErrorKind::Overloaded, 1));
    let asked = nodes.shared.asked.load(Ordering::SeqCst);
    assert_eq!((nodes.peek("abc"), nodes.answer("abc").await), (None, (2, Tier::Store)));
    assert_eq!(nodes.shared.asked.load(Ordering::SeqCst), asked, "the shared cache is bypassed");
    // What a window no longer reaches was read in slices, each of which has room.
    nodes.feed.marks.lock().truncate(10);
    nodes.poll().await;
    assert_eq!(nodes.peek("abc"), Some((2, Tier::L1)));
}

#[tokio::test]
async fn a_change_that_is_forgotten_too_early_bypasses_the_shared_cache_for_half_an_hour() {
    let nodes = Nodes::with(CacheConfig { max_marked: 10, wait: Duration::from_secs(60), ..CacheConfig::default() });
    nodes.poll().await;
    nodes.edit_elsewhere(2);
    for n in 0..10 {
        nodes.feed.mark(&format!("code{n}"), 2, nodes.clock.now());
    }
    nodes.poll().await;
    nodes.shared.set("abc", 1);
    let stats = nodes.cache.stats();
    assert_eq!((stats.marked, stats.bypasses, stats.bypassed), (10, 1, true));
    assert_eq!(nodes.answer("abc").await, (2, Tier::Store), "nobody remembers that 1 is outdated");
    nodes.settle_down().await;
    assert_eq!((nodes.peek("abc"), nodes.shared.holds("abc")), (Some((2, Tier::L1)), 1));
    nodes.clock.advance(Duration::from_secs(31 * 60));
    assert!(!nodes.cache.stats().bypassed);
}

#[tokio::test]
async fn a_shared_cache_that_hangs_holds_up_neither_polls_nor_what_they_find() {
    let nodes = Nodes::warm().await;
    let gate = Gate::closed();
    nodes.shared.be(Mood::SlowToChange(Arc::clone(&gate)));
    nodes.edit_elsewhere(2);
    let mut poll = Box::pin(nodes.poll());
    assert!((&mut poll).now_or_never().is_none());
    gate.arrived(1).await;
    nodes.clock.advance(Duration::from_millis(500));
    nodes.shared.be(Mood::Well);
    assert_eq!(nodes.answer("abc").await, (2, Tier::Store));
    assert_eq!(nodes.peek("abc"), Some((2, Tier::L1)), "the poll counts, though it waits for the shared cache");
}

#[tokio::test]
async fn a_poll_counts_before_the_shared_cache_has_dropped_anything() {
    let nodes = Nodes::warm().await;
    nodes.clock.advance(Duration::from_millis(600));
    assert_eq!(nodes.peek("abc"), None);
    nodes.shared.be(Mood::SlowToChange(Gate::closed()));
    nodes.feed.mark("other", 2, nodes.clock.now());
    let mut poll = Box::pin(nodes.poll());
    assert!((&mut poll).now_or_never().is_none(), "it waits for the shared cache");
    assert_eq!(nodes.peek("abc"), Some((1, Tier::L1)));
}

#[tokio::test]
async fn a_dense_minute_is_read_in_slices_that_have_room() {
    let nodes = Nodes::with(CacheConfig { max_marks: 20, wait: Duration::from_secs(60), ..CacheConfig::default() });
    let start = nodes.clock.now();
    for n in 0..60 {
        nodes.feed.mark(&format!("code{n}"), 2, start.plus_millis(n * 1_000));
    }
    nodes.clock.advance(Duration::from_secs(10 * 60));
    nodes.poll().await;
    assert_eq!((nodes.cache.stats().overflows, nodes.cache.stats().marked), (0, 60));
}

#[tokio::test]
async fn a_slice_with_more_marks_than_one_read_may_bring_is_read_page_by_page() {
    let nodes = Nodes::with(CacheConfig { max_marks: 10, wait: Duration::from_secs(60), ..CacheConfig::default() });
    for n in 0..95 {
        nodes.feed.mark(&format!("code{n}"), 2, nodes.clock.now());
    }
    nodes.clock.advance(Duration::from_secs(10 * 60));
    nodes.poll().await;
    assert_eq!((nodes.cache.stats().marked, nodes.cache.stats().overflows), (95, 0));
    assert_eq!((nodes.poller.remembered(), nodes.cache.is_fresh(0)), ((0, 0), true));
}

#[tokio::test]
async fn pages_of_a_slice_that_were_read_are_not_read_again_after_a_failure() {
    let nodes = Nodes::with(CacheConfig { max_marks: 10, wait: Duration::from_secs(60), ..CacheConfig::default() });
    for n in 0..30 {
        nodes.feed.mark(&format!("code{n}"), 2, nodes.clock.now());
    }
    nodes.clock.advance(Duration::from_secs(10 * 60));
    nodes.feed.breaks_after.store(10, Ordering::SeqCst);
    nodes.poller.poll_once().await.unwrap_err();
    assert_eq!((nodes.cache.stats().marked, nodes.cache.is_fresh(0)), (10, false));
    nodes.feed.breaks_after.store(20, Ordering::SeqCst);
    nodes.poller.poll_once().await.unwrap_err();
    assert_eq!((nodes.cache.stats().marked, nodes.cache.is_fresh(0)), (20, false), "it went on where it was");
    nodes.feed.breaks_after.store(0, Ordering::SeqCst);
    nodes.poll().await;
    assert_eq!((nodes.cache.stats().marked, nodes.cache.is_fresh(0)), (30, true));
    assert_eq!(nodes.shared.changed.load(Ordering::SeqCst), 30, "and each mark is acted on once");
}

#[tokio::test]
async fn after_a_crowd_of_edits_the_shard_is_fresh_again_while_edits_go_on() {
    let nodes = Nodes::with(CacheConfig { max_marks: 10, wait: Duration::from_secs(60), ..CacheConfig::default() });
    nodes.poll().await;
    // Far more than are remembered, within less than they are remembered for.
    for n in 0..200 {
        nodes.feed.mark(&format!("code{n}"), 2, nodes.clock.now());
        nodes.clock.advance(Duration::from_millis(250));
        let _ = nodes.poller.poll_once().await;
    }
    assert!(!nodes.cache.is_fresh(0) && nodes.cache.stats().overflows > 0);
    for n in 0..100 {
        nodes.feed.mark(&format!("later{n}"), 2, nodes.clock.now());
        for _ in 0..20 {
            nodes.clock.advance(Duration::from_millis(250));
            let _ = nodes.poller.poll_once().await;
        }
        if nodes.cache.is_fresh(0) {
            return;
        }
    }
    panic!("not fresh {:?} after the crowd has gone", Duration::from_secs(500));
}

#[tokio::test]
async fn a_clock_that_is_set_while_marks_are_still_to_be_read_has_all_of_them_read() {
    let nodes = Nodes::new();
    nodes.feed.mark("abc", 2, nodes.clock.now());
    let right = nodes.clock.now();
    nodes.clock.set_wall(right.plus_millis(60 * 60_000));
    nodes.feed.broken.store(true, Ordering::SeqCst);
    nodes.poller.poll_once().await.unwrap_err();
    nodes.clock.set_wall(right);
    nodes.clock.advance(Duration::from_secs(60));
    nodes.feed.broken.store(false, Ordering::SeqCst);
    nodes.poll().await;
    assert_eq!(nodes.cache.stats().marked, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ten_thousand_first_requests_and_an_expiry_under_load_cost_a_read_each() {
    let nodes = Arc::new(Nodes::new());
    nodes.poll().await;
    for (round, hot_for) in [(1, 1_800), (2, 1_800)] {
        let crowd = (0..10_000).map(|_| {
            let nodes = Arc::clone(&nodes);
            tokio::spawn(async move { nodes.answer("abc").await })
        });
        for answer in futures_util::future::join_all(crowd.collect::<Vec<_>>()).await {
            assert_eq!(answer.unwrap().0, 1);
        }
        nodes.settle_down().await;
        assert_eq!((nodes.reads(), nodes.shared.asked.load(Ordering::SeqCst)), (round, round));
        // As long as in memory it lives in the shared cache.
        nodes.clock.advance(Duration::from_secs(hot_for));
        nodes.shared.links.lock().clear();
        nodes.poll().await;
    }
}

#[tokio::test]
async fn an_unreachable_shared_cache_is_a_miss_and_what_it_has_is_not_asked_of_the_store() {
    let nodes = Nodes::new();
    nodes.poll().await;
    nodes.shared.be(Mood::Away);
    assert_eq!((nodes.answer("abc").await, nodes.answer("none").await), ((1, Tier::Store), (0, Tier::Store)));
    nodes.settle_down().await;
    nodes.shared.be(Mood::Well);
    nodes.shared.set("only-there", 3);
    assert_eq!(nodes.answer("only-there").await, (3, Tier::L2));
    assert_eq!(nodes.reads(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_shared_cache_that_hangs_and_the_store_behind_it_share_one_wait() {
    let nodes = Nodes::with(CacheConfig::default());
    nodes.poll().await;
    nodes.shared.be(Mood::SlowToAnswer(Gate::closed()));
    let began = tokio::time::Instant::now();
    assert_eq!(nodes.resolve("abc").await, UNAVAILABLE);
    assert_eq!(began.elapsed().as_millis() / 100, 10);
}

// --- Answers without the store.

impl Nodes {
    async fn near(&self, code: &str) -> Option<(u64, Tier)> {
        self.cache.resolve_near(&links::code(code)).await.map(version_and_tier)
    }
}

#[tokio::test]
async fn near_is_memory_and_the_shared_cache_and_never_the_store() {
    let nodes = Nodes::warm().await;
    let reads = nodes.reads();
    nodes.shared.set("there", 3);
    assert_eq!(nodes.near("abc").await, Some((1, Tier::L1)));
    assert_eq!(nodes.near("there").await, Some((3, Tier::L2)));
    assert_eq!((nodes.near("nowhere").await, nodes.peek("there")), (None, None));
    nodes.shared.be(Mood::Away);
    nodes.pass(Duration::from_secs(1_800)).await;
    assert_eq!(nodes.peek("abc"), None, "it is too old to be fresh");
    assert_eq!(nodes.near("abc").await, Some((1, Tier::Stale)));
    assert_eq!(nodes.reads(), reads);
}

#[tokio::test]
async fn near_takes_nothing_outdated_from_the_shared_cache() {
    let nodes = Nodes::new();
    nodes.shared.set("abc", 1);
    assert_eq!(nodes.near("abc").await, None, "no change is known before the first poll");
    nodes.poll().await;
    assert_eq!(nodes.near("abc").await, Some((1, Tier::L2)));
    let gate = Gate::closed();
    nodes.shared.be(Mood::SlowToAnswer(Arc::clone(&gate)));
    let mut reader = Box::pin(nodes.near("abc"));
    assert!((&mut reader).now_or_never().is_none());
    gate.arrived(1).await;
    nodes.edit_elsewhere(2);
    nodes.poll().await;
    gate.open();
    assert_eq!(reader.await, None, "the mark came while it was asked");
    nodes.shared.be(Mood::Well);
    nodes.shared.set("abc", 1);
    assert_eq!(nodes.near("abc").await, None);
    nodes.pass(Duration::from_secs(6)).await;
    nodes.shared.set("abc", 2);
    assert_eq!(nodes.near("abc").await, Some((2, Tier::L2)));
}
