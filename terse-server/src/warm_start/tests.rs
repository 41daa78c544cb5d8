use async_trait::async_trait;
use terse_cache::CacheConfig;
use terse_core::ports::{AttemptId, LinkReader, LinkWriter, Lookup, Tier};
use terse_core::{ShortCode, Timestamp};
use terse_store::MemoryStore;
use terse_testkit::{Fault, FaultyStore, Operation, TestClock, When, links};

use super::*;

const DEPLOYMENT: &str = "00112233445566778899aabbccddeeff";

/// One data directory and one store, over several starts.
struct Place {
    directory: tempfile::TempDir,
    store: Arc<FaultyStore<MemoryStore>>,
    clock: Arc<TestClock>,
}

/// One run of a server, as far as its memory is concerned.
struct Run {
    cache: Arc<ReadThrough>,
    lifecycle: Arc<Lifecycle>,
    warm: Arc<WarmStart>,
}

impl Place {
    fn new() -> Self {
        let store = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())));
        Self { directory: tempfile::tempdir().unwrap(), store, clock: Arc::new(TestClock::default()) }
    }

    async fn with_links(codes: impl IntoIterator<Item = String>) -> Self {
        let place = Self::new();
        for code in codes {
            place.store.inner().insert_if_absent(&links::link(&code), AttemptId([1; 16])).await.unwrap();
        }
        place
    }

    /// A server that is ready.
    fn start(&self) -> Run {
        self.start_with(Arc::clone(&self.store) as _, CacheConfig::default())
    }

    fn start_with(&self, store: Arc<dyn LinkReader>, config: CacheConfig) -> Run {
        let config = CacheConfig { wait: Duration::from_secs(60), ..config };
        let cache = ReadThrough::new(store, Arc::clone(&self.clock) as _, config);
        let lifecycle = Lifecycle::starting();
        lifecycle.enter(Phase::Ready);
        let directory = self.directory.path().to_owned();
        let (clock, phase) = (Arc::clone(&self.clock) as Arc<dyn Clock>, Arc::clone(&lifecycle));
        let warm = WarmStart::new(Arc::clone(&cache), clock, phase, directory, DEPLOYMENT.into());
        Run { cache, lifecycle, warm }
    }

    fn save(&self, codes: impl IntoIterator<Item = (String, u32)>) {
        let codes = codes.into_iter().map(|(code, heat)| HotCode { heat, code: links::code(&code) }).collect();
        codes_file::write(self.directory.path(), DEPLOYMENT, &Saved { at: self.clock.now(), codes }).unwrap();
    }

    fn saved(&self) -> Vec<(String, u32)> {
        let saved = codes_file::read(self.directory.path(), DEPLOYMENT).unwrap().unwrap();
        saved.codes.into_iter().map(|hot| (hot.code.to_string(), hot.heat)).collect()
    }

    fn reads(&self) -> usize {
        self.store.faults.calls(Operation::Resolve)
    }

    fn refuse(&self, when: When, kind: StoreErrorKind) {
        self.store.faults.add(Operation::Resolve, when, Fault::Fail(kind));
    }
}

impl Run {
    /// Asks for `code`, then hits it in memory so often.
    async fn ask(&self, code: &str, hits: usize) {
        self.cache.resolve(&links::code(code)).await.unwrap();
        (0..hits).for_each(|_| assert!(self.knows(code)));
    }

    fn knows(&self, code: &str) -> bool {
        self.cache.peek(code).is_some_and(|found| found.tier == Tier::L1 && found.link.is_some())
    }

    /// Codes that were loaded, and that are gone.
    fn counted(&self) -> (usize, usize) {
        let progress = self.warm.progress.lock();
        (progress.loaded, progress.gone)
    }

    fn left(&self) -> usize {
        self.warm.progress.lock().left.len()
    }
}

fn codes(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|n| format!("code{n}"))
}

#[tokio::test]
async fn hot_links_are_in_memory_after_a_restart_and_cold_ones_are_not() {
    let place = Place::with_links(["hot", "warm", "cold"].map(String::from)).await;
    let first = place.start();
    first.warm.load_once().await.unwrap();
    first.ask("hot", 1_600).await;
    first.ask("warm", 160).await;
    first.warm.save_once().await.unwrap();
    let second = place.start();
    second.warm.load_once().await.unwrap();
    assert_eq!((second.knows("hot"), second.knows("warm"), second.knows("cold")), (true, true, false));
    assert_eq!((place.reads(), second.warm.stage()), (4, Stage::Ended));
    second.warm.load_once().await.unwrap();
    assert_eq!(place.reads(), 4, "nothing is left to do");
}

#[tokio::test]
async fn a_list_outlives_starts_in_which_nobody_asked() {
    let place = Place::with_links(codes(3)).await;
    place.save([("code2".into(), 30), ("code0".into(), 20), ("code1".into(), 10)]);
    for _ in 0..3 {
        let run = place.start();
        run.warm.load_once().await.unwrap();
        run.warm.save_once().await.unwrap();
        assert_eq!(place.saved(), [("code2".into(), 30), ("code0".into(), 20), ("code1".into(), 10)]);
    }
}

#[tokio::test]
async fn heat_fades_while_the_server_is_away_and_the_order_stays() {
    let place = Place::with_links(codes(3)).await;
    place.save([("code2".into(), 30), ("code0".into(), 20), ("code1".into(), 1)]);
    place.clock.advance(2 * AGE_EVERY);
    let run = place.start();
    run.warm.read_list();
    let left: Vec<_> = run.warm.progress.lock().left.iter().map(|hot| (hot.code.to_string(), hot.heat)).collect();
    assert_eq!(left, [("code2".into(), 7), ("code0".into(), 5), ("code1".into(), 0)]);
}

#[test]
fn no_clock_that_is_set_makes_heat_of_nothing() {
    let code = || vec![HotCode { heat: 64, code: links::code("abc") }];
    let heat =
        |saved_ms: i64, now_ms| aged(Saved { at: Timestamp::from_millis(saved_ms), codes: code() }, now_ms)[0].heat;
    assert_eq!(heat(AGE_EVERY_MS * 9, 0), 64);
    assert_eq!(heat(0, AGE_EVERY_MS * 3), 8);
    assert_eq!(heat(0, AGE_EVERY_MS * 32), 0);
    assert_eq!(heat(0, i64::MAX), 0);
}

#[tokio::test]
async fn a_list_that_is_not_read_yet_is_not_replaced() {
    let place = Place::with_links(codes(2)).await;
    place.save([("code0".into(), 5)]);
    let run = place.start();
    run.ask("code1", 160).await;
    run.warm.save_once().await.unwrap();
    assert_eq!(place.saved(), [("code0".into(), 5)]);
}

#[tokio::test]
async fn nothing_is_loaded_before_the_server_is_ready_or_once_it_drains() {
    let place = Place::with_links(codes(300)).await;
    place.save(codes(300).map(|code| (code, 5)));
    let run = place.start();
    run.lifecycle.enter(Phase::Draining);
    run.warm.load_once().await.unwrap();
    assert_eq!((place.reads(), run.warm.stage()), (0, Stage::Unread));
    let run = place.start();
    run.warm.load_once().await.unwrap();
    assert_eq!((place.reads(), run.left()), (STEP_CODES, 100));
    run.lifecycle.enter(Phase::Draining);
    run.warm.load_once().await.unwrap();
    assert_eq!(place.reads(), STEP_CODES);
    run.warm.save_once().await.unwrap();
    assert_eq!(place.saved().len(), 300, "what was not loaded is not forgotten");
}

#[tokio::test]
async fn the_hottest_are_loaded_first() {
    let place = Place::with_links(codes(300)).await;
    place.save(codes(300).enumerate().map(|(n, code)| (code, 1_000 - n as u32)));
    let run = place.start();
    run.warm.load_once().await.unwrap();
    assert!(codes(STEP_CODES).all(|code| run.knows(&code)));
    assert!(!codes(300).skip(STEP_CODES).any(|code| run.knows(&code)));
}

#[tokio::test]
async fn codes_that_are_gone_are_skipped_and_not_saved_again() {
    let place = Place::with_links(codes(1)).await;
    place.save([("gone".into(), 9), ("code0".into(), 5)]);
    let run = place.start();
    run.warm.load_once().await.unwrap();
    assert_eq!((run.counted(), run.left()), ((1, 1), 0));
    assert!(run.cache.peek("gone").is_none(), "it may come back any time");
    run.warm.save_once().await.unwrap();
    assert_eq!(place.saved(), [("code0".into(), 5)]);
}

#[tokio::test]
async fn a_store_that_refuses_makes_pauses_that_grow_and_then_all_is_loaded() {
    let place = Place::with_links(codes(8)).await;
    place.save(codes(8).map(|code| (code, 5)));
    place.refuse(When::Every, StoreErrorKind::Unavailable);
    let run = place.start();
    let mut tried = vec![];
    for tenth in 0..200 {
        let before = place.reads();
        run.warm.load_once().await.unwrap();
        if place.reads() > before {
            tried.push(tenth);
            assert_eq!(place.reads() - before, AT_ONCE);
        }
        place.clock.advance(LOAD_EVERY);
    }
    assert_eq!(tried, [0, 1, 3, 7, 15, 31, 63, 113, 163]);
    place.store.faults.heal();
    place.clock.advance(Duration::from_millis(MAX_PAUSE_MS));
    run.warm.load_once().await.unwrap();
    assert!(codes(8).all(|code| run.knows(&code)));
    assert_eq!(run.warm.stage(), Stage::Ended);
}

#[tokio::test]
async fn overload_pauses_even_if_only_one_is_refused() {
    let place = Place::with_links(codes(8)).await;
    place.save(codes(8).map(|code| (code, 5)));
    place.refuse(When::Nth(2), StoreErrorKind::Overloaded);
    let run = place.start();
    run.warm.load_once().await.unwrap();
    assert_eq!((place.reads(), run.left()), (AT_ONCE, 5));
    place.clock.advance(LOAD_EVERY);
    run.warm.load_once().await.unwrap();
    assert!(codes(8).all(|code| run.knows(&code)));
}

#[tokio::test]
async fn a_shard_that_is_away_does_not_hold_up_the_others() {
    let place = Place::with_links(codes(40)).await;
    place.save(codes(40).map(|code| (code, 5)));
    place.refuse(When::Nth(1), StoreErrorKind::Unavailable);
    let run = place.start();
    run.warm.load_once().await.unwrap();
    assert!(codes(40).all(|code| run.knows(&code)), "the refused one was asked for again at the end");
    assert_eq!(place.reads(), 41);
}

#[tokio::test]
async fn loading_is_given_up_in_the_end_and_the_list_kept_while_it_is_warm() {
    let place = Place::with_links(codes(4)).await;
    place.save(codes(4).map(|code| (code, 2)));
    place.refuse(When::Every, StoreErrorKind::Unavailable);
    let run = place.start();
    run.warm.load_once().await.unwrap();
    place.clock.advance(Duration::from_millis(LOAD_WITHIN_MS));
    run.warm.load_once().await.unwrap();
    assert_eq!((run.warm.stage(), place.reads()), (Stage::Ended, AT_ONCE));
    run.warm.age_once();
    run.warm.save_once().await.unwrap();
    assert_eq!(place.saved().len(), 4);
    run.warm.age_once();
    assert_eq!(run.left(), 0);
}

#[tokio::test]
async fn a_memory_with_no_room_ends_the_loading() {
    let place = Place::with_links(codes(300)).await;
    place.save(codes(300).map(|code| (code, 5)));
    let run = place.start_with(Arc::clone(&place.store) as _, CacheConfig { max_links: 100, ..CacheConfig::default() });
    run.warm.load_once().await.unwrap();
    assert_eq!(run.warm.stage(), Stage::Ended);
    // The cache's tables share the room, and one may be full while another is not: some more are read then.
    assert!((60..=150).contains(&place.reads()), "{} reads", place.reads());
}

/// Answers nobody.
struct Hanging;

#[async_trait]
impl LinkReader for Hanging {
    async fn resolve(&self, _code: &ShortCode) -> Result<Lookup, StoreError> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn nothing_is_loaded_while_many_look_ups_of_others_are_running() {
    let place = Place::new();
    place.save(codes(8).map(|code| (code, 5)));
    let run = place.start_with(Arc::new(Hanging), CacheConfig::default());
    for n in 0..=BUSY_FLIGHTS {
        let cache = Arc::clone(&run.cache);
        tokio::spawn(async move { cache.resolve(&links::code(&format!("live{n}"))).await });
    }
    while run.cache.stats().flights <= BUSY_FLIGHTS {
        tokio::task::yield_now().await;
    }
    // Would wait for ever if it asked for anything.
    run.warm.load_once().await.unwrap();
    assert_eq!((run.left(), run.cache.stats().flights), (8, BUSY_FLIGHTS + 1));
}

#[tokio::test]
async fn a_damaged_list_is_ignored_and_replaced_by_the_next() {
    let place = Place::with_links(codes(1)).await;
    std::fs::write(place.directory.path().join(FILE.name), "nonsense").unwrap();
    let run = place.start();
    run.warm.load_once().await.unwrap();
    assert_eq!((run.warm.stage(), place.reads()), (Stage::Ended, 0));
    run.ask("code0", 0).await;
    run.warm.save_once().await.unwrap();
    assert_eq!(place.saved(), [("code0".into(), 0)]);
}

#[tokio::test]
async fn a_memory_of_nothing_writes_no_file_and_a_write_that_fails_is_told() {
    let place = Place::with_links(codes(1)).await;
    let run = place.start();
    run.warm.load_once().await.unwrap();
    run.warm.save_once().await.unwrap();
    assert_eq!(std::fs::read_dir(place.directory.path()).unwrap().count(), 0);
    run.ask("code0", 0).await;
    std::fs::create_dir(place.directory.path().join(FILE.name)).unwrap();
    let error = run.warm.save_once().await.unwrap_err();
    assert!(error.source.is_some(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_tasks_load_and_save_by_themselves_and_end_when_told() {
    let place = Place::with_links(codes(2)).await;
    place.save([("code0".into(), 5)]);
    let run = place.start();
    let mut tasks = Tasks::new();
    run.warm.run(&mut tasks);
    let both = async {
        while !run.knows("code0") {
            tokio::time::sleep(LOAD_EVERY).await;
        }
        run.ask("code1", 160).await;
        while place.saved().len() < 2 {
            tokio::time::sleep(SAVE_EVERY).await;
        }
    };
    tokio::time::timeout(AGE_EVERY, both).await.unwrap();
    assert_eq!(tasks.join(Duration::from_secs(5)).await, Vec::<&str>::new());
}
