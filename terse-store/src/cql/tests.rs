//! What the store does without a cluster, and what the unit tests share.

use std::sync::Arc;

use terse_core::ports::{AttemptId, ChangeFeed, LinkReader, LinkWriter, StoreErrorKind};
use terse_core::{Clock, Timestamp};
use terse_resilience::{Breaker, BreakerSettings};
use terse_testkit::SeededEntropy;
use terse_testkit::links::{code, link};

use super::*;
use crate::CoreClock;

/// A clock that stands still.
struct Still;

impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_767_323_045_000)
    }

    fn monotonic_ms(&self) -> u64 {
        0
    }
}

/// A store of `config`, its breaker closed.
pub(super) fn store(config: CqlConfig) -> Arc<CqlStore> {
    let clock: Arc<dyn Clock> = Arc::new(Still);
    let breaker = Breaker::new(BreakerSettings::default(), Arc::new(CoreClock(Arc::clone(&clock))), 1).unwrap();
    CqlStore::new(config, Arc::new(breaker), clock, Arc::new(SeededEntropy::new(7)))
}

/// A cluster that nobody connects to.
pub(super) fn unconnected() -> CqlConfig {
    CqlConfig::new("main", vec!["127.0.0.1:1".into()], "nowhere")
}

#[tokio::test]
async fn a_store_without_a_cluster_answers_unavailable_at_once() {
    let store = store(unconnected());
    store.admit();
    let resolved = store.resolve(&code("abc")).await.map(drop);
    let inserted = store.insert_if_absent(&link("abc"), AttemptId([1; 16])).await.map(drop);
    let marks = store.marks(Timestamp::from_millis(0), Timestamp::from_millis(1), None, 1).await.map(drop);
    for answer in [resolved, inserted, marks] {
        let error = answer.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Unavailable);
        assert!(error.message.contains("'main'"), "{error}");
    }
}

#[tokio::test]
async fn connecting_to_nobody_fails_and_shows_no_secret() {
    let config = CqlConfig { credentials: Some(("alice".into(), "hunter2".into())), ..unconnected() };
    let error = store(config).connect_once().await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Unavailable);
    let shown = format!("{error} {error:?}");
    assert!(shown.contains("127.0.0.1:1"), "{shown}");
    assert!(!shown.contains("hunter2") && !shown.contains("alice"), "{shown}");
}

#[tokio::test]
async fn connecting_to_a_silent_host_ends_in_time() {
    // It takes connections and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = CqlConfig::new("main", vec![silent.local_addr().unwrap().to_string()], "nowhere");
    config.limits.connect_timeout_ms = 200;
    config.limits.startup_timeout_ms = 500;
    let began = std::time::Instant::now();
    let error = store(config).connect_once().await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Unavailable);
    assert!(began.elapsed() < std::time::Duration::from_secs(8), "{:?}", began.elapsed());
}
