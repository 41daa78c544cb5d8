//! Where a cluster is, and every bound of talking to it.

use std::fmt;

/// What a [`CqlStore`](super::CqlStore) is made from.
#[derive(Clone)]
pub struct CqlConfig {
    /// The name of the shard, for errors and health.
    pub shard: String,
    /// Nodes to ask first, each `host:port`; one that answers is enough.
    pub hosts: Vec<String>,
    /// User and password, if the cluster asks for them.
    pub credentials: Option<(String, String)>,
    /// The keyspace; made when there is none.
    pub keyspace: String,
    /// Replicas of each row, if this store makes the keyspace.
    pub replication: u8,
    /// Addresses (`ip:port`) that the cluster tells, each with the one (`host:port`) to
    /// use instead: for NAT and proxies. Applies to `hosts` too.
    pub translate: Vec<(String, String)>,
    /// Timeouts and sizes.
    pub limits: CqlLimits,
}

impl CqlConfig {
    /// The store of `shard` in `keyspace` on `hosts`, three replicas, with default limits.
    #[must_use]
    pub fn new(shard: impl Into<String>, hosts: Vec<String>, keyspace: impl Into<String>) -> Self {
        Self {
            shard: shard.into(),
            hosts,
            credentials: None,
            keyspace: keyspace.into(),
            replication: 3,
            translate: Vec::new(),
            limits: CqlLimits::default(),
        }
    }
}

/// Without the password.
impl fmt::Debug for CqlConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CqlConfig")
            .field("shard", &self.shard)
            .field("hosts", &self.hosts)
            .field("credentials", &self.credentials.as_ref().map(|_| "[redacted]"))
            .field("keyspace", &self.keyspace)
            .field("replication", &self.replication)
            .field("translate", &self.translate)
            .field("limits", &self.limits)
            .finish()
    }
}

/// The bounds of talking to a cluster. What happens at one is said with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CqlLimits {
    /// Longest set-up of one connection, in milliseconds; then that node counts as away.
    pub connect_timeout_ms: u64,
    /// Longest [`connect_once`](super::CqlStore::connect_once) where the schema is in place, in milliseconds; then
    /// it fails, to be called again.
    pub startup_timeout_ms: u64,
    /// What it may take longer where the schema is made or changed, in milliseconds; what was changed by then stays.
    pub migration_timeout_ms: u64,
    /// Longest point read at one consistency, in milliseconds; then the next lower one is tried, or the read fails.
    pub read_timeout_ms: u64,
    /// Longest read of several rows, or for the API, in milliseconds; then it fails.
    pub list_timeout_ms: u64,
    /// Longest read of ten seconds of marks, in milliseconds; then their poll fails, and the next one asks again.
    pub mark_timeout_ms: u64,
    /// Longest wait for the time that a node has, in milliseconds; then that node counts as away.
    pub clock_timeout_ms: u64,
    /// Longest single write or conditional write, in milliseconds; then its outcome is unknown.
    pub write_timeout_ms: u64,
    /// Longest write from its call on, with its turn, its reads, its retries and read-backs, in milliseconds; then
    /// its outcome is told as unknown, or that it did not begin. The mark after it may take `write_timeout_ms` more.
    pub write_deadline_ms: u64,
    /// Longest change of the schema, and wait for all nodes to have it, in milliseconds; then connecting fails, to
    /// be tried again.
    pub schema_timeout_ms: u64,
    /// When a read that has no answer yet is sent to one more replica, in milliseconds.
    pub speculative_delay_ms: u64,
    /// How often it is.
    pub speculative_reads: usize,
    /// Writes of links that still owe the mark after them; the next write is refused as overloaded. At least as many
    /// as the guard lets write at once.
    pub owed_writes: u32,
    /// Connections to each node, on ScyllaDB to each of its cores; requests share them.
    pub connections_per_node: usize,
    /// Pause between signs of life on an idle connection, in milliseconds.
    pub keepalive_ms: u64,
    /// Longest wait for such a sign, in milliseconds; then the connection is closed.
    pub keepalive_timeout_ms: u64,
    /// Links read at once for one page of a list; the others wait.
    pub list_reads: usize,
    /// Links read at once for all lists of this store, and entries removed for them; one that waited for
    /// `list_timeout_ms` fails its list as overloaded.
    pub list_reads_in_all: usize,
    /// Pairs of owner and month whose row is remembered as written; when full, they are forgotten and written again.
    pub known_months: usize,
}

impl Default for CqlLimits {
    fn default() -> Self {
        Self {
            connect_timeout_ms: 1_000,
            startup_timeout_ms: 10_000,
            migration_timeout_ms: 60_000,
            read_timeout_ms: 250,
            list_timeout_ms: 800,
            mark_timeout_ms: 180,
            clock_timeout_ms: 500,
            write_timeout_ms: 800,
            write_deadline_ms: 2_000,
            schema_timeout_ms: 10_000,
            speculative_delay_ms: 40,
            speculative_reads: 2,
            owed_writes: 1_024,
            connections_per_node: 2,
            keepalive_ms: 1_000,
            keepalive_timeout_ms: 1_000,
            list_reads: 32,
            list_reads_in_all: 128,
            known_months: 4_096,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::GuardSettings;

    #[test]
    fn the_password_is_never_shown() {
        let config = CqlConfig {
            credentials: Some(("alice".into(), "hunter2".into())),
            ..CqlConfig::new("main", vec!["127.0.0.1:9042".into()], "links")
        };
        let shown = format!("{config:?}");
        assert!(!shown.contains("hunter2") && !shown.contains("alice"), "{shown}");
        assert!(shown.contains("redacted"), "{shown}");
    }

    #[test]
    fn a_guard_waits_until_a_write_has_ended_and_paid_what_it_owes() {
        let (limits, guard) = (CqlLimits::default(), GuardSettings::default().write);
        assert!(limits.write_deadline_ms + limits.write_timeout_ms < guard.timeout_ms);
        assert!(limits.owed_writes > guard.permits);
        assert!(limits.mark_timeout_ms < GuardSettings::default().marks.timeout_ms);
    }

    #[test]
    fn a_write_fits_twice_into_its_deadline() {
        let limits = CqlLimits::default();
        assert!(limits.write_timeout_ms * 2 <= limits.write_deadline_ms);
        assert!(limits.speculative_delay_ms * limits.speculative_reads as u64 * 2 < limits.read_timeout_ms);
    }
}
