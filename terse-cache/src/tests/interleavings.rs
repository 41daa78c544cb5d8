//! Random interleavings of reads and writes against what was acknowledged.
//!
//! The store behind the cache behaves like a writer thread: a write goes on
//! when its caller goes away, and happens some time after. Everything runs on
//! one thread, and all choices come from one seed, so a failure repeats.

use futures_util::future::{Either, join_all, select};
use proptest::prelude::*;
use terse_testkit::SeededEntropy;

use super::*;

const CODES: [&str; 3] = ["one", "two", "three"];
const TASKS: usize = 6;
const STEPS: usize = 30;

struct Run {
    choices: SeededEntropy,
    store: TinyStore,
    acknowledged: Mutex<HashMap<&'static str, u64>>,
}

impl Run {
    fn choose(&self, below: u64) -> u64 {
        self.choices.next_u64() % below
    }

    fn code(&self) -> &'static str {
        CODES[self.choose(CODES.len() as u64) as usize]
    }

    fn acknowledged(&self, code: &'static str) -> u64 {
        self.acknowledged.lock().get(code).copied().unwrap_or(0)
    }

    fn acknowledge(&self, code: &'static str, version: u64) {
        let mut acknowledged = self.acknowledged.lock();
        let known = acknowledged.entry(code).or_default();
        *known = version.max(*known);
    }

    /// Lets others run, for up to seven turns.
    async fn pause(&self) {
        for _ in 0..self.choose(8) {
            tokio::task::yield_now().await;
        }
    }

    /// Fails one call in eight, before anything is done.
    fn maybe_refuse(&self) -> Result<(), StoreError> {
        if self.choose(8) > 0 {
            return Ok(());
        }
        let kind = [StoreErrorKind::Unavailable, StoreErrorKind::Overloaded][self.choose(2) as usize];
        Err(StoreError::new(kind, "refused by chance"))
    }
}

/// The store as the cache sees it.
struct Slow(Arc<Run>);

impl Slow {
    /// Runs `write` as the writer thread would: whatever becomes of the caller.
    async fn write<T: Send + 'static>(
        &self,
        write: impl FnOnce(&TinyStore) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        self.0.pause().await;
        self.0.maybe_refuse()?;
        let run = Arc::clone(&self.0);
        let written = tokio::spawn(async move {
            run.pause().await;
            let outcome = write(&run.store);
            run.pause().await;
            outcome
        });
        if self.0.choose(8) == 0 {
            return Err(StoreError::new(StoreErrorKind::UnknownOutcome, "lost by chance"));
        }
        Ok(written.await.unwrap())
    }
}

#[async_trait]
impl LinkReader for Slow {
    async fn resolve(&self, code: &ShortCode) -> Result<Lookup, StoreError> {
        self.0.pause().await;
        self.0.maybe_refuse()?;
        let found = self.0.store.resolve(code).await;
        self.0.pause().await;
        found
    }
}

#[async_trait]
impl LinkWriter for Slow {
    async fn insert_if_absent(&self, link: &Link, _attempt: AttemptId) -> Result<Insert, StoreError> {
        let link = link.clone();
        self.write(move |store| store.insert(&link)).await
    }

    async fn update(&self, code: &ShortCode, expected: Version, change: &LinkChange) -> Result<Update, StoreError> {
        let (code, change) = (code.clone(), change.clone());
        self.write(move |store| store.edit(&code, expected, &change)).await
    }
}

async fn read(run: &Run, cache: &ReadThrough, code: &'static str) {
    let least = run.acknowledged(code);
    // A failure is an answer too, but a served link, stale or not, is never older than what was acknowledged.
    if let Ok(found) = cache.resolve(&links::code(code)).await {
        let (version, tier) = version_and_tier(found);
        assert!(version >= least, "{code}: version {version} from {tier:?} after {least} was acknowledged");
    }
    // No await lies between these two, so whatever is acknowledged must be in memory, or nothing.
    let least = run.acknowledged(code);
    if let Some(found) = cache.peek(code) {
        let (version, _) = version_and_tier(found);
        assert!(version >= least, "{code}: version {version} in memory after {least} was acknowledged");
    }
}

async fn write(run: &Run, writer: &CachedWriter, code: &'static str) {
    let version = run.store.version(code);
    if version == 0 {
        if let Ok(Insert::Created) = writer.insert_if_absent(&links::link(code), links::attempt(1)).await {
            run.acknowledge(code, 1);
        }
        return;
    }
    let state = if run.choose(20) == 0 { LinkState::Deleted } else { LinkState::Active };
    let outcome = writer.update(&links::code(code), Version(version), &change_to(code, state)).await;
    if let Ok(Update::Updated(link)) = outcome {
        run.acknowledge(code, link.version.0);
    }
}

async fn client(run: Arc<Run>, clock: Arc<TestClock>, cache: Arc<ReadThrough>, writer: Arc<CachedWriter>) {
    for _ in 0..STEPS {
        let code = run.code();
        let patience = async {
            run.pause().await;
            run.pause().await;
        };
        match run.choose(8) {
            0 => clock.advance(Duration::from_millis(run.choose(40))),
            1 | 2 => write(&run, &writer, code).await,
            3 => match select(Box::pin(write(&run, &writer, code)), Box::pin(patience)).await {
                Either::Left(_) | Either::Right(_) => {}
            },
            4 => match select(Box::pin(read(&run, &cache, code)), Box::pin(patience)).await {
                Either::Left(_) | Either::Right(_) => {}
            },
            _ => read(&run, &cache, code).await,
        }
    }
}

/// Runs one interleaving and checks, when all is quiet, that memory holds what the store holds.
async fn interleave(seed: u64) {
    let run = Arc::new(Run {
        choices: SeededEntropy::new(seed),
        store: TinyStore::default(),
        acknowledged: Mutex::default(),
    });
    let clock = Arc::new(TestClock::default());
    // Short ages, so that links age out; long doubt, because turns don't move the clock.
    let config = CacheConfig {
        fresh_for: Duration::from_millis(100),
        negative_for: Duration::from_millis(30),
        doubt_for: Duration::from_secs(3_600),
        ..CacheConfig::default()
    };
    let slow = Arc::new(Slow(Arc::clone(&run)));
    let cache = ReadThrough::new(Arc::clone(&slow) as _, Arc::clone(&clock) as _, config);
    let writer = Arc::new(CachedWriter::new(slow, Arc::clone(&cache)));
    let clients = (0..TASKS)
        .map(|_| tokio::spawn(client(Arc::clone(&run), Arc::clone(&clock), Arc::clone(&cache), Arc::clone(&writer))));
    for client in join_all(clients.collect::<Vec<_>>()).await {
        client.unwrap();
    }
    while Arc::strong_count(&run) > 2 || cache.stats().flights > 0 {
        // Late writes and detached look-ups hold the run until they are done.
        tokio::task::yield_now().await;
    }
    for code in CODES {
        if let Some(found) = cache.peek(code) {
            let (version, _) = version_and_tier(found);
            let negative = version == 0;
            assert!(negative || version == run.store.version(code), "{code}: memory has {version} for good");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_read_is_older_than_a_write_acknowledged_before_it_began(seed in any::<u64>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(interleave(seed));
    }
}
