//! `StoreHealth`.

use std::collections::HashSet;

use crate::backends::{Held, LinkPorts};

pub(crate) async fn run(store: Held<dyn LinkPorts>) {
    every_shard_answers_under_its_name(&store).await;
}

async fn every_shard_answers_under_its_name(store: &Held<dyn LinkPorts>) {
    let checks = store.check().await;
    assert!(!checks.is_empty());
    assert!(checks.iter().all(|(name, health)| !name.is_empty() && health.is_ok()), "{checks:?}");
    for doubts in [false, true] {
        assert!(store.check_writes(doubts).await.is_empty(), "writes succeed");
    }
    let again: HashSet<_> = store.check().await.into_iter().map(|(name, _)| name).collect();
    assert_eq!(again, checks.into_iter().map(|(name, _)| name).collect());
}
