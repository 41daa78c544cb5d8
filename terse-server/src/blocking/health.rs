//! What health reports tell of blocked hosts.

use async_trait::async_trait;
use terse_core::ports::{DependencyHealth, Observation};

use super::Blocking;

/// What it is called there.
const NAME: &str = "blocked_hosts";

/// What an operator is told while the shared list was not read yet.
const DETAIL: &str = "the hosts that admins block were not read since the start: those count that this data directory \
                      knew last, until the first shard answers";

#[async_trait]
impl DependencyHealth for Blocking {
    fn name(&self) -> &'static str {
        NAME
    }

    /// It asks nobody: what it is about is told by [`observe`](DependencyHealth::observe).
    async fn check(&self) -> Result<(), String> {
        Ok(())
    }

    fn observe(&self) -> Vec<Observation> {
        let unread = !self.is_known();
        vec![Observation {
            name: "admins",
            value: self.hosts.load().len() as u64,
            unit: "hosts",
            trouble: unread.then_some("unread"),
            detail: unread.then(|| DETAIL.to_owned()),
        }]
    }
}
