//! What the cache holds, as `/metrics` tells it: read at the scrape, from
//! counts that the cache keeps anyway. Nothing runs while nobody asks.

use std::sync::Arc;

use terse_cache::ReadThrough;
use terse_core::metrics::{CacheReading, Metrics};

use crate::exit::{Exit, StartError};

/// A shard whose change marks are polled: its number and its name.
pub type Polled = (usize, String);

/// Shows in `metrics`, from now on, what `cache` holds, and whether it is in step with the marks of `polled`.
///
/// # Errors
/// [`StartError`] when another cache is shown there already.
pub fn show(metrics: &Metrics, cache: &Arc<ReadThrough>, polled: Vec<Polled>) -> Result<(), StartError> {
    // Weak, for the cache may one day know the metrics that know it.
    let cache = Arc::downgrade(cache);
    let shown = metrics.show_cache(Arc::new(move || cache.upgrade().map(|cache| reading(&cache, &polled))));
    shown.map_err(|error| StartError::new(Exit::Internal, error))
}

fn reading(cache: &ReadThrough, polled: &[Polled]) -> CacheReading {
    let stats = cache.stats();
    let (of_file, shared) = cache.blocked().len();
    CacheReading {
        links: stats.links as u64,
        bytes: stats.bytes,
        marked_codes: stats.marked as u64,
        bypassed: stats.bypassed,
        overflows: stats.overflows,
        bypasses: stats.bypasses,
        blocked_hosts: (of_file + shared) as u64,
        marks_fresh: polled.iter().map(|(number, name)| (name.clone(), cache.is_fresh(*number))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use async_trait::async_trait;
    use parking_lot::Mutex;
    use terse_cache::{CacheConfig, MarkPoller, Neighbours, Shards};
    use terse_core::ports::{
        ChangeFeed, ChangeMark, ChangeMarks, LinkReader, LinkWriter, MarkPlace, StoreError, StoreErrorKind,
    };
    use terse_core::{Clock, Timestamp, Version};
    use terse_store::MemoryStore;
    use terse_testkit::TestClock;
    use terse_testkit::links::{attempt, code, link};

    use super::*;

    /// Marks in a list; `None` = they can't be read.
    struct Feed(Mutex<Option<Vec<ChangeMark>>>);

    #[async_trait]
    impl ChangeFeed for Feed {
        async fn marks(
            &self,
            _: Timestamp,
            _: Timestamp,
            _: Option<MarkPlace>,
            limit: usize,
        ) -> Result<ChangeMarks, StoreError> {
            let away = || StoreError::new(StoreErrorKind::Unavailable, "the shard is away");
            let mut marks = self.0.lock().clone().ok_or_else(away)?;
            let next = (marks.len() > limit).then(|| MarkPlace { bucket: 0, id: marks[limit - 1].id });
            marks.truncate(limit);
            Ok(ChangeMarks { marks, next })
        }
    }

    /// A real cache before a store, and a real poller of its only shard's marks.
    struct Fixture {
        store: Arc<MemoryStore>,
        clock: Arc<TestClock>,
        feed: Arc<Feed>,
        cache: Arc<ReadThrough>,
        poller: MarkPoller,
        metrics: Metrics,
    }

    impl Fixture {
        /// A cache that remembers at most `max_marked` codes that changed, and bears 3 marks a poll.
        fn new(max_marked: usize) -> Self {
            let (store, clock) = (Arc::new(MemoryStore::new()), Arc::new(TestClock::default()));
            let feed = Arc::new(Feed(Mutex::new(Some(Vec::new()))));
            let config =
                CacheConfig { max_marks: 3, max_marked, wait: Duration::from_secs(60), ..CacheConfig::default() };
            let neighbours = Neighbours { shared: None, shards: Shards::new(vec![true], Arc::new(|_| 0)) };
            let cache = ReadThrough::with(store.clone(), clock.clone(), config, neighbours);
            let poller = MarkPoller::new(&cache, 0, feed.clone());
            let metrics = Metrics::new();
            show(&metrics, &cache, vec![(0, "main".to_owned())]).unwrap();
            Self { store, clock, feed, cache, poller, metrics }
        }

        /// Another server changes so many links, of which each is `text` and a number.
        fn mark(&self, text: &str, changes: u128) {
            let at = self.clock.now();
            let mark = |number: u128| {
                let code = code(&format!("{text}{number}"));
                ChangeMark { id: number.to_be_bytes(), code, version: Version(2), at }
            };
            *self.feed.0.lock() = Some((1..=changes).map(mark).collect());
        }

        fn shown(&self, name: &str) -> f64 {
            let text = self.metrics.encode().unwrap();
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
            value.unwrap_or_else(|| panic!("{name} is not in\n{text}"))
        }
    }

    const FRESH: &str = "terse_marks_fresh{shard=\"main\"}";

    #[tokio::test]
    async fn links_in_memory_are_counted_with_their_bytes() {
        let fixture = Fixture::new(10);
        assert_eq!((fixture.shown("terse_cache_links"), fixture.shown("terse_cache_bytes")), (0.0, 0.0));
        for text in ["one", "two"] {
            fixture.store.insert_if_absent(&link(text), attempt(1)).await.unwrap();
            fixture.cache.resolve(&code(text)).await.unwrap();
        }
        assert_eq!(fixture.shown("terse_cache_links"), 2.0);
        let bytes = fixture.shown("terse_cache_bytes");
        assert!((40.0..4_096.0).contains(&bytes), "{bytes}");
    }

    #[tokio::test]
    async fn a_shard_is_fresh_while_its_marks_can_be_read() {
        let fixture = Fixture::new(10);
        assert_eq!(fixture.shown(FRESH), 0.0, "before the first poll");
        fixture.poller.poll_once().await.unwrap();
        assert_eq!(fixture.shown(FRESH), 1.0);
        *fixture.feed.0.lock() = None;
        fixture.poller.poll_once().await.unwrap_err();
        fixture.clock.advance(Duration::from_millis(501));
        assert_eq!(fixture.shown(FRESH), 0.0, "the last poll that succeeded began half a second ago");
        fixture.mark("back", 0);
        fixture.poller.poll_once().await.unwrap();
        assert_eq!(fixture.shown(FRESH), 1.0);
    }

    #[tokio::test]
    async fn a_mark_is_a_code_remembered() {
        let fixture = Fixture::new(10);
        assert_eq!(fixture.shown("terse_cache_marked_codes"), 0.0);
        fixture.mark("changed", 2);
        fixture.poller.poll_once().await.unwrap();
        assert_eq!(fixture.shown("terse_cache_marked_codes"), 2.0);
        assert_eq!((fixture.shown("terse_cache_bypassed"), fixture.shown("terse_cache_bypasses_total")), (0.0, 0.0));
    }

    #[tokio::test]
    async fn more_marks_than_can_be_read_are_an_overflow_and_end_freshness() {
        let fixture = Fixture::new(10);
        fixture.poller.poll_once().await.unwrap();
        assert_eq!((fixture.shown("terse_cache_overflows_total"), fixture.shown(FRESH)), (0.0, 1.0));
        fixture.mark("crowd", 4);
        assert_eq!(fixture.poller.poll_once().await.unwrap_err().kind, StoreErrorKind::Overloaded);
        assert_eq!((fixture.shown("terse_cache_overflows_total"), fixture.shown(FRESH)), (1.0, 0.0));
    }

    #[tokio::test]
    async fn more_changed_codes_than_are_remembered_bypass_the_shared_cache_for_half_an_hour() {
        let fixture = Fixture::new(2);
        fixture.mark("many", 3);
        fixture.poller.poll_once().await.unwrap();
        assert_eq!((fixture.shown("terse_cache_bypassed"), fixture.shown("terse_cache_bypasses_total")), (1.0, 1.0));
        fixture.clock.advance(Duration::from_secs(3_600));
        assert_eq!((fixture.shown("terse_cache_bypassed"), fixture.shown("terse_cache_bypasses_total")), (0.0, 1.0));
    }

    #[tokio::test]
    async fn a_second_cache_is_not_shown_in_place_of_the_first() {
        let fixture = Fixture::new(2);
        let refused = show(&fixture.metrics, &fixture.cache, Vec::new()).unwrap_err();
        assert_eq!(refused.exit, Exit::Internal);
    }
}
