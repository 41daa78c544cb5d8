//! What health reports tell of overload.

use std::sync::Arc;

use async_trait::async_trait;
use terse_core::ports::{DependencyHealth, Observation};
use terse_resilience::ConcurrencyLimit;

/// What it is called there.
const NAME: &str = "overload";
/// For how long it is told that something was shed.
const TOLD_MS: u64 = 10_000;

/// What an operator is told then.
const DETAIL: &str = "a store takes longer than usual and more is asked of it than it can do; see terse_shed_total";

/// Tells whether requests are shed, by the limits of all shards.
pub struct OverloadHealth(pub Vec<Arc<ConcurrencyLimit>>);

#[async_trait]
impl DependencyHealth for OverloadHealth {
    fn name(&self) -> &'static str {
        NAME
    }

    /// It asks nobody: what it is about is told by [`observe`](DependencyHealth::observe).
    async fn check(&self) -> Result<(), String> {
        Ok(())
    }

    fn observe(&self) -> Vec<Observation> {
        let seen: Vec<_> = self.0.iter().map(|limit| limit.snapshot()).collect();
        let shedding = seen.iter().any(|seen| seen.calm_ms.is_some_and(|calm| calm < TOLD_MS));
        let value = |name, value, unit, trouble| Observation { name, value, unit, trouble, detail: None };
        vec![
            value("limit", seen.iter().map(|seen| seen.limit).sum(), "calls", None),
            value("running", seen.iter().map(|seen| seen.in_flight).sum(), "calls", None),
            Observation {
                detail: shedding.then(|| DETAIL.to_owned()),
                ..value("shed", seen.iter().map(|seen| seen.shed).sum(), "calls", shedding.then_some("shedding"))
            },
        ]
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use terse_resilience::ConcurrencySettings;

    use super::*;

    #[tokio::test]
    async fn what_is_shed_is_trouble_for_ten_seconds() {
        let now_ms = Arc::new(AtomicU64::new(5));
        let clock = Arc::clone(&now_ms);
        let settings = ConcurrencySettings { initial: 1, min: 1, max: 1, ..ConcurrencySettings::default() };
        let limit = ConcurrencyLimit::new(settings, Arc::new(move || clock.load(Ordering::SeqCst))).unwrap();
        let other = ConcurrencyLimit::new(ConcurrencySettings::default(), Arc::new(|| 0_u64)).unwrap();
        let health = OverloadHealth(vec![Arc::new(other), Arc::new(limit)]);
        let told = || {
            let values: Vec<_> = health.observe().into_iter().map(|o| (o.name, o.value, o.trouble)).collect();
            values
        };
        assert_eq!(told(), [("limit", 257, None), ("running", 0, None), ("shed", 0, None)]);
        let running = health.0[1].try_acquire().unwrap();
        health.0[1].try_acquire().unwrap_err();
        assert_eq!(told(), [("limit", 257, None), ("running", 1, None), ("shed", 1, Some("shedding"))]);
        drop(running);
        now_ms.store(5 + TOLD_MS, Ordering::SeqCst);
        assert_eq!(told(), [("limit", 257, None), ("running", 0, None), ("shed", 1, None)]);
        assert!(health.check().await.is_ok());
    }
}
