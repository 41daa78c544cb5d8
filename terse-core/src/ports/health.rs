//! The ports that tell whether something works.

use async_trait::async_trait;

use super::StoreError;

/// Tells whether a store works.
#[async_trait]
pub trait StoreHealth: Send + Sync + 'static {
    /// One entry per shard: its name, and the failure if it doesn't answer. Costs one cheap read per shard.
    async fn check(&self) -> Vec<(String, Result<(), StoreError>)>;

    /// The shards that take no writes now, whether or not they answer reads, with the failure of the last write. Costs
    /// nothing while writes succeed; where they were seen to fail, or if the caller `doubts` them, a write that changes
    /// nothing is tried, so that a shard without clients is well again by itself.
    async fn check_writes(&self, doubts: bool) -> Vec<(String, StoreError)>;
}

/// Something that a dependency measures of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// What is measured: one word, which `/health` puts behind the dependency's name.
    pub name: &'static str,
    /// How much.
    pub value: u64,
    /// Of what.
    pub unit: &'static str,
    /// Why this is too much, in one word; `None` = it isn't.
    pub trouble: Option<&'static str>,
    /// What an operator is to know of the trouble: what it is about, and what to do. Without addresses or credentials.
    pub detail: Option<String>,
}

/// Tells whether something works that terse can do without.
#[async_trait]
pub trait DependencyHealth: Send + Sync + 'static {
    /// What it is, as `/health` names it.
    fn name(&self) -> &'static str;

    /// Asks it, at the cost of one cheap request.
    ///
    /// # Errors
    /// Why it doesn't work, without addresses or credentials.
    async fn check(&self) -> Result<(), String>;

    /// What it measures of itself, always in the same order. It costs no request.
    fn observe(&self) -> Vec<Observation> {
        Vec::new()
    }
}
