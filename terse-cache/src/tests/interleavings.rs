//! Random interleavings of reads and writes against what was acknowledged and served.
//!
//! The store behind the cache behaves like a writer thread: a write goes on
//! when its caller goes away, and happens some time after. Some look-ups reach
//! a single replica only, which may lag behind by any number of versions.
//! Everything runs on one thread, and all choices come from one seed, so a
//! failure repeats.

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
    /// The newest version that was acknowledged or served.
    shown: Mutex<HashMap<&'static str, u64>>,
}

impl Run {
    fn choose(&self, below: u64) -> u64 {
        self.choices.next_u64() % below
    }

    fn code(&self) -> &'static str {
        CODES[self.choose(CODES.len() as u64) as usize]
    }

    fn shown(&self, code: &'static str) -> u64 {
        self.shown.lock().get(code).copied().unwrap_or(0)
    }

    fn show(&self, code: &'static str, version: u64) {
        let mut shown = self.shown.lock();
        let known = shown.entry(code).or_default();
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

/// What a replica that lags by chance answers instead of `found`.
fn lagging(run: &Run, found: Lookup) -> Lookup {
    let Some(link) = found.link else { return found };
    let version = Version(1 + run.choose(link.version.0));
    Lookup { link: Some(Resolution { version, ..link }), tier: Tier::Stale }
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
        let found = self.0.store.resolve(code).await?;
        self.0.pause().await;
        Ok(if self.0.choose(3) == 0 { lagging(&self.0, found) } else { found })
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
    let least = run.shown(code);
    // A failure is an answer too, but a served link, stale or not, is never older than what was acknowledged or served.
    match cache.resolve(&links::code(code)).await {
        Ok(found) => {
            let (version, tier) = version_and_tier(found);
            assert!(version >= least, "{code}: version {version} from {tier:?} after {least} was shown");
            run.show(code, version);
        }
        Err(error) => assert!(!error.to_string().contains("less than it acknowledged"), "{code}: it never does"),
    }
    // No await lies between these two, so whatever was shown must be in memory, or nothing.
    let least = run.shown(code);
    if let Some(found) = cache.peek(code) {
        let (version, tier) = version_and_tier(found);
        assert!(version >= least, "{code}: version {version} ({tier:?}) in memory after {least} was shown");
        run.show(code, version);
    }
}

async fn write(run: &Run, writer: &CachedWriter, code: &'static str) {
    let version = run.store.version(code);
    if version == 0 {
        if let Ok(Insert::Created) = writer.insert_if_absent(&links::link(code), links::attempt(1)).await {
            run.show(code, 1);
        }
        return;
    }
    let state = if run.choose(20) == 0 { LinkState::Deleted } else { LinkState::Active };
    let outcome = writer.update(&links::code(code), Version(version), &change_to(code, state)).await;
    if let Ok(Update::Updated(link)) = outcome {
        run.show(code, link.version.0);
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
    let run = Arc::new(Run { choices: SeededEntropy::new(seed), store: TinyStore::default(), shown: Mutex::default() });
    let clock = Arc::new(TestClock::default());
    // Short ages, so that links age out; long doubt, because turns don't move the clock.
    let config = CacheConfig {
        fresh_for: Duration::from_millis(100),
        negative_for: Duration::from_millis(30),
        outdated_for: Duration::from_millis(30),
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
            let (version, tier) = version_and_tier(found);
            let passing = version == 0 || tier == Tier::Stale;
            assert!(passing || version == run.store.version(code), "{code}: memory has {version} for good");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_read_is_older_than_what_was_acknowledged_or_served_before_it_began(seed in any::<u64>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(interleave(seed));
    }
}
