//! The operations, as metrics and errors name them.

use prometheus::{Histogram, HistogramTimer};
use terse_core::metrics::Metrics;

/// An operation on a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Resolve,
    Insert,
    Update,
    Get,
    List,
    FindKey,
    ClaimKey,
    ReplaceKey,
    PurgeKeys,
    Setting,
    Settle,
    Forget,
    Names,
    Lease,
    Leases,
    AddKey,
    Keys,
    RevokeKey,
    KeysRevision,
    Marks,
    Check,
}

impl Operation {
    /// All operations, in the order of their numbers.
    const ALL: [Self; 21] = [
        Self::Resolve,
        Self::Insert,
        Self::Update,
        Self::Get,
        Self::List,
        Self::FindKey,
        Self::ClaimKey,
        Self::ReplaceKey,
        Self::PurgeKeys,
        Self::Setting,
        Self::Settle,
        Self::Forget,
        Self::Names,
        Self::Lease,
        Self::Leases,
        Self::AddKey,
        Self::Keys,
        Self::RevokeKey,
        Self::KeysRevision,
        Self::Marks,
        Self::Check,
    ];

    /// The label value.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Get => "get",
            Self::List => "list",
            Self::FindKey => "find_key",
            Self::ClaimKey => "claim_key",
            Self::ReplaceKey => "replace_key",
            Self::PurgeKeys => "purge_keys",
            Self::Setting => "setting",
            Self::Settle => "settle",
            Self::Forget => "forget",
            Self::Names => "names",
            Self::Lease => "lease",
            Self::Leases => "leases",
            Self::AddKey => "add_key",
            Self::Keys => "keys",
            Self::RevokeKey => "revoke_key",
            Self::KeysRevision => "keys_revision",
            Self::Marks => "marks",
            Self::Check => "check",
        }
    }
}

/// One latency histogram per operation, looked up once.
pub(crate) struct Timings([Histogram; Operation::ALL.len()]);

impl Timings {
    pub(crate) fn new(metrics: &Metrics, shard: &str) -> Self {
        Self(Operation::ALL.map(|operation| metrics.store_requests(shard, operation.as_str())))
    }

    /// Times an operation, waiting included, until the timer is dropped.
    pub(crate) fn start(&self, operation: Operation) -> HistogramTimer {
        self.0[operation as usize].start_timer()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_operation_has_its_own_histogram() {
        let metrics = Metrics::new();
        let timings = Timings::new(&metrics, "main");
        for (number, operation) in Operation::ALL.into_iter().enumerate() {
            assert_eq!(operation as usize, number);
            for _ in 0..=number {
                drop(timings.start(operation));
            }
        }
        for (number, operation) in Operation::ALL.into_iter().enumerate() {
            let counted = metrics.store_requests("main", operation.as_str()).get_sample_count();
            assert_eq!(counted, number as u64 + 1, "{operation:?}");
        }
    }
}
