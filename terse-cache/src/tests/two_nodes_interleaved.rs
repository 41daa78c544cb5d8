//! Random interleavings of two nodes' reads, edits and polls, with marks whose
//! clocks are off, polls that fail or hang, edits that are lost or never made,
//! and a shared cache that answers with anything that ever was put into it.
//!
//! What must hold on each node: a read that begins more than half a second after
//! an edit was acknowledged shows it, or is told as stale; nothing at all, stale
//! or not, is older than what a poll that ended told of, nor than what this node
//! served before. Everything runs on one thread, and all choices come from one seed.

use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::{join_all, select};
use proptest::prelude::*;
use terse_core::Clock;
use terse_core::ports::{ChangeFeed, ChangeMarks, MarkPlace};
use terse_testkit::SeededEntropy;

use super::two_nodes::TinyFeed;
use super::*;
use crate::{MarkPoller, Neighbours, Shards, SharedCache};

const CODES: [&str; 2] = ["one", "two"];
const CLIENTS: usize = 3;
const STEPS: usize = 30;
/// An edit that was not made this long after its mark is not made any more.
const EDIT_MS: u64 = 4_000;

struct World {
    choices: SeededEntropy,
    store: TinyStore,
    feed: TinyFeed,
    clock: Arc<TestClock>,
    /// All that was ever put into the shared cache.
    ever: Mutex<Vec<(ShortCode, Resolution)>>,
    /// Versions by code, and when they were acknowledged.
    acknowledged: Mutex<Vec<(ShortCode, u64, u64)>>,
    quiet: AtomicBool,
}

impl World {
    fn choose(&self, below: u64) -> u64 {
        self.choices.next_u64() % below
    }

    async fn pause(&self) {
        for _ in 0..self.choose(6) {
            tokio::task::yield_now().await;
        }
    }

    fn fails(&self) -> Result<(), StoreError> {
        if self.quiet.load(Ordering::SeqCst) || self.choose(8) > 0 {
            return Ok(());
        }
        Err(StoreError::new(StoreErrorKind::Unavailable, "refused by chance"))
    }

    /// The newest version of `code` that was acknowledged by `at_ms`.
    fn acknowledged_by(&self, code: &ShortCode, at_ms: u64) -> u64 {
        let all = self.acknowledged.lock();
        all.iter().filter(|(of, _, ms)| of == code && *ms <= at_ms).map(|(_, version, _)| *version).max().unwrap_or(0)
    }

    fn mark(&self, code: &ShortCode, version: Version) {
        let skew_ms = self.choose(10_001) as i64 - 5_000;
        self.feed.mark(code.as_str(), version.0, self.clock.now().plus_millis(skew_ms));
    }

    /// An edit as a store on CQL makes it: a mark, the edit, a mark.
    async fn edit(&self, code: &ShortCode, expected: Version, change: &LinkChange) -> Result<Update, StoreError> {
        self.mark(code, expected.next());
        let marked_ms = self.clock.monotonic_ms();
        self.pause().await;
        let late = self.clock.monotonic_ms() > marked_ms + EDIT_MS;
        if late || self.choose(6) == 0 {
            return Err(StoreError::new(StoreErrorKind::UnknownOutcome, "died between mark and edit"));
        }
        let outcome = self.store.edit(code, expected, change);
        self.pause().await;
        let version = match &outcome {
            Update::Updated(link) => link.version,
            Update::Conflict { current } => *current,
            Update::NotFound => Version::FIRST,
        };
        self.mark(code, version);
        Ok(outcome)
    }
}

struct Behind(Arc<World>);

#[async_trait]
impl LinkReader for Behind {
    async fn resolve(&self, code: &ShortCode) -> Result<Lookup, StoreError> {
        self.0.pause().await;
        self.0.fails()?;
        let found = self.0.store.resolve(code).await;
        self.0.pause().await;
        found
    }
}

#[async_trait]
impl LinkWriter for Behind {
    async fn insert_if_absent(&self, link: &Link, _attempt: AttemptId) -> Result<Insert, StoreError> {
        Ok(self.0.store.insert(link))
    }

    async fn update(&self, code: &ShortCode, expected: Version, change: &LinkChange) -> Result<Update, StoreError> {
        self.0.fails()?;
        let (world, code, change) = (Arc::clone(&self.0), code.clone(), change.clone());
        tokio::spawn(async move { world.edit(&code, expected, &change).await }).await.unwrap()
    }
}

#[async_trait]
impl ChangeFeed for Behind {
    async fn marks(
        &self,
        from: terse_core::Timestamp,
        until: terse_core::Timestamp,
        after: Option<MarkPlace>,
        limit: usize,
    ) -> Result<ChangeMarks, StoreError> {
        self.0.pause().await;
        self.0.fails()?;
        let mut found = self.0.feed.marks(from, until, after, limit).await?;
        // Or there are more, which are those that were told.
        found.next = self.0.fails().err().map(|_| after.unwrap_or(MarkPlace { bucket: 0, id: [0; 16] }));
        self.0.pause().await;
        Ok(found)
    }
}

/// Neither keeps the newest nor drops the oldest.
#[async_trait]
impl SharedCache for Behind {
    async fn get(&self, code: &ShortCode) -> Option<Resolution> {
        self.0.pause().await;
        let ever = self.0.ever.lock();
        let of_code: Vec<_> = ever.iter().filter(|(of, _)| of == code).collect();
        let (_, link) = of_code.get(self.0.choose(of_code.len() as u64 + 1) as usize)?;
        Some(link.clone())
    }

    async fn put(&self, code: &ShortCode, link: &Resolution) {
        self.0.pause().await;
        self.0.ever.lock().push((code.clone(), link.clone()));
    }

    async fn drop_older(&self, _code: &ShortCode, _least: Version) {
        self.0.pause().await;
    }
}

struct Node {
    cache: Arc<ReadThrough>,
    writer: CachedWriter,
    poller: MarkPoller,
    /// What polls that ended told of, and what was served, by code.
    told: Mutex<HashMap<ShortCode, u64>>,
    served: Mutex<HashMap<ShortCode, u64>>,
}

fn start(world: &Arc<World>) -> Arc<Node> {
    let behind = Arc::new(Behind(Arc::clone(world)));
    let config = CacheConfig { fresh_for: Duration::from_secs(2), ..CacheConfig::default() };
    let shards = Shards::new(vec![true], Arc::new(|_| 0));
    let neighbours = Neighbours { shared: Some(Arc::clone(&behind) as _), shards };
    let cache = ReadThrough::with(Arc::clone(&behind) as _, Arc::clone(&world.clock) as _, config, neighbours);
    let writer = CachedWriter::new(Arc::clone(&behind) as _, Arc::clone(&cache));
    let poller = MarkPoller::new(&cache, 0, behind);
    Arc::new(Node { cache, writer, poller, told: Mutex::default(), served: Mutex::default() })
}

fn noted(notes: &Mutex<HashMap<ShortCode, u64>>, code: &ShortCode) -> u64 {
    notes.lock().get(code).copied().unwrap_or(0)
}

fn raise(notes: &Mutex<HashMap<ShortCode, u64>>, code: &ShortCode, version: u64) {
    let mut notes = notes.lock();
    let known = notes.entry(code.clone()).or_default();
    *known = version.max(*known);
}

async fn read(world: &World, node: &Node, code: &ShortCode) {
    let began_ms = world.clock.monotonic_ms();
    // In the first half second nothing is due yet, not even what was acknowledged at time zero.
    let due = began_ms.checked_sub(501).map_or(0, |at_ms| world.acknowledged_by(code, at_ms));
    let never_below = noted(&node.told, code).max(noted(&node.served, code));
    let Ok(found) = node.cache.resolve(code).await else { return };
    let (version, tier) = version_and_tier(found);
    assert!(version >= never_below, "{code}: {version} from {tier:?}, below {never_below}");
    assert!(version >= due || tier == Tier::Stale, "{code}: {version} from {tier:?}, but {due} is due");
    raise(&node.served, code, version);
}

async fn edit(world: &World, node: &Node, code: &ShortCode) {
    let version = world.store.version(code.as_str());
    let change = change_to(code.as_str(), LinkState::Active);
    if let Ok(Update::Updated(link)) = node.writer.update(code, Version(version), &change).await {
        world.acknowledged.lock().push((code.clone(), link.version.0, world.clock.monotonic_ms()));
        raise(&node.told, code, link.version.0);
    }
}

async fn client(world: Arc<World>, node: Arc<Node>) {
    for _ in 0..STEPS {
        let code = links::code(CODES[world.choose(2) as usize]);
        match world.choose(8) {
            0 => world.clock.advance(Duration::from_millis(world.choose(900))),
            1 => edit(&world, &node, &code).await,
            2 => drop(select(Box::pin(edit(&world, &node, &code)), Box::pin(world.pause())).await),
            _ => read(&world, &node, &code).await,
        }
    }
}

async fn poll(world: &World, node: &Node) {
    let now_ms = world.clock.monotonic_ms();
    let acknowledged = CODES.map(|code| (links::code(code), world.acknowledged_by(&links::code(code), now_ms)));
    if node.poller.poll_once().await.is_ok() {
        acknowledged.iter().for_each(|(code, version)| raise(&node.told, code, *version));
    }
}

async fn interleave(seed: u64) {
    let world = Arc::new(World {
        choices: SeededEntropy::new(seed),
        store: TinyStore::default(),
        feed: TinyFeed::default(),
        clock: Arc::default(),
        ever: Mutex::default(),
        acknowledged: Mutex::default(),
        quiet: AtomicBool::new(false),
    });
    for code in CODES {
        world.store.insert(&links::link(code));
    }
    let nodes = [start(&world), start(&world)];
    let polls = nodes.clone().map(|node| {
        let world = Arc::clone(&world);
        tokio::spawn(async move {
            while !world.quiet.load(Ordering::SeqCst) {
                poll(&world, &node).await;
                world.clock.advance(Duration::from_millis(world.choose(20)));
                tokio::task::yield_now().await;
            }
        })
    });
    let clients = nodes.iter().flat_map(|node| (0..CLIENTS).map(|_| client(Arc::clone(&world), Arc::clone(node))));
    for client in join_all(clients.map(tokio::spawn).collect::<Vec<_>>()).await {
        client.unwrap();
    }
    world.quiet.store(true, Ordering::SeqCst);
    for poll in polls {
        poll.await.unwrap();
    }
    world.clock.advance(Duration::from_millis(2_000 + EDIT_MS));
    for node in &nodes {
        poll(&world, node).await;
        world.clock.advance(Duration::from_secs(5));
        poll(&world, node).await;
        for code in CODES {
            node.cache.resolve(&links::code(code)).await.unwrap();
            let kept = node.cache.peek(code).map(|found| version_and_tier(found).0);
            assert_eq!(kept, Some(world.store.version(code)), "{code} when all is quiet");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_edit_shows_on_the_other_node_in_time_and_no_older_version_comes_back(seed in any::<u64>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(interleave(seed));
    }
}
