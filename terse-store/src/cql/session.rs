//! The driver's session: how it connects, and how each statement runs.
//!
//! The driver's own defaults wait 30 s for an answer and notice a paused node
//! after a minute, so everything is set here, per use, from [`CqlLimits`].

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use scylla::client::PoolSize;
use scylla::client::execution_profile::{ExecutionProfile, ExecutionProfileHandle};
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::errors::TranslationError;
use scylla::frame::types::{Consistency, SerialConsistency};
use scylla::policies::address_translator::{AddressTranslator, UntranslatedPeer};
use scylla::policies::retry::{DefaultRetryPolicy, FallthroughRetryPolicy, RetryPolicy};
use scylla::policies::speculative_execution::SimpleSpeculativeExecutionPolicy;
use scylla::statement::prepared::PreparedStatement;
use scylla::statement::unprepared::Statement;
use terse_core::ports::StoreError;

use super::config::{CqlConfig, CqlLimits};
use super::fault;

/// Stands for the keyspace in the text of a statement.
pub(super) const KEYSPACE: &str = "{keyspace}";

/// Pause between two looks at whether all nodes have one schema.
const SCHEMA_AGREEMENT_PAUSE: Duration = Duration::from_millis(50);

/// What a statement is for; decides consistency, timeout and retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// One row at LOCAL_QUORUM, within the time of a redirect.
    PointRead,
    /// One row at LOCAL_ONE, within the time of a redirect.
    SingleReplica,
    /// Rows at LOCAL_QUORUM, for the API.
    ListRead,
    /// A bucket of marks at LOCAL_QUORUM, as they are written, within the time of a poll.
    MarkRead,
    /// What one node knows of itself, asked of that node alone.
    NodeRead,
    /// A write without a condition, at LOCAL_QUORUM. Repeating it changes nothing.
    Write,
    /// A conditional write (LWT): SERIAL, committed at LOCAL_QUORUM; never repeated by the driver.
    Conditional,
    /// A read at SERIAL, which completes what conditional writes left half done.
    SerialRead,
    /// A change of the schema, or a look at it.
    Schema,
}

/// One execution profile per [`Use`].
pub(super) struct Profiles {
    point_read: ExecutionProfileHandle,
    single_replica: ExecutionProfileHandle,
    list_read: ExecutionProfileHandle,
    mark_read: ExecutionProfileHandle,
    node_read: ExecutionProfileHandle,
    write: ExecutionProfileHandle,
    conditional: ExecutionProfileHandle,
    serial_read: ExecutionProfileHandle,
    schema: ExecutionProfileHandle,
}

impl Profiles {
    pub(super) fn new(limits: &CqlLimits) -> Self {
        let (read_ms, list_ms, write_ms) = (limits.read_timeout_ms, limits.list_timeout_ms, limits.write_timeout_ms);
        let delay = Duration::from_millis(limits.speculative_delay_ms);
        let speculative = Some((limits.speculative_reads, delay));
        Self {
            point_read: profile(Consistency::LocalQuorum, read_ms, speculative),
            single_replica: profile(Consistency::LocalOne, read_ms, speculative),
            list_read: profile(Consistency::LocalQuorum, list_ms, speculative),
            mark_read: profile(Consistency::LocalQuorum, limits.mark_timeout_ms, speculative),
            node_read: once(Consistency::LocalOne, limits.clock_timeout_ms),
            write: profile(Consistency::LocalQuorum, write_ms, speculative),
            conditional: once(Consistency::LocalQuorum, write_ms),
            serial_read: once(Consistency::Serial, write_ms),
            schema: once(Consistency::LocalQuorum, limits.schema_timeout_ms),
        }
    }

    fn of(&self, usage: Use) -> &ExecutionProfileHandle {
        match usage {
            Use::PointRead => &self.point_read,
            Use::SingleReplica => &self.single_replica,
            Use::ListRead => &self.list_read,
            Use::MarkRead => &self.mark_read,
            Use::NodeRead => &self.node_read,
            Use::Write => &self.write,
            Use::Conditional => &self.conditional,
            Use::SerialRead => &self.serial_read,
            Use::Schema => &self.schema,
        }
    }

    /// Whether repeating a request changes nothing.
    const fn repeatable(usage: Use) -> bool {
        !matches!(usage, Use::Conditional)
    }
}

fn profile(
    consistency: Consistency,
    timeout_ms: u64,
    speculative: Option<(usize, Duration)>,
) -> ExecutionProfileHandle {
    let policy = speculative.map(|(max_retry_count, retry_interval)| {
        Arc::new(SimpleSpeculativeExecutionPolicy { max_retry_count, retry_interval }) as Arc<_>
    });
    let retry: Arc<dyn RetryPolicy> = match policy {
        Some(_) => Arc::new(DefaultRetryPolicy::new()),
        None => Arc::new(FallthroughRetryPolicy::new()),
    };
    ExecutionProfile::builder()
        .consistency(consistency)
        .serial_consistency(Some(SerialConsistency::Serial))
        .request_timeout(Some(Duration::from_millis(timeout_ms)))
        .speculative_execution_policy(policy)
        .retry_policy(retry)
        .build()
        .into_handle()
}

/// A profile whose requests go to one node and are never repeated.
fn once(consistency: Consistency, timeout_ms: u64) -> ExecutionProfileHandle {
    profile(consistency, timeout_ms, None)
}

/// Prepares statements in a keyspace.
pub(super) struct Preparer<'a> {
    pub(super) session: &'a Session,
    pub(super) profiles: &'a Profiles,
    /// Quoted, as it stands in statements.
    pub(super) keyspace: &'a str,
}

impl Preparer<'_> {
    /// `text` with [`KEYSPACE`] filled in, prepared to run as `usage` says.
    pub(super) async fn statement(&self, usage: Use, text: &str) -> Result<PreparedStatement, StoreError> {
        let text = text.replace(KEYSPACE, self.keyspace);
        let prepared = self.session.prepare(text).await;
        let mut prepared =
            prepared.map_err(|error| fault::unavailable("preparing a statement failed").caused_by(error))?;
        prepared.set_execution_profile_handle(Some(self.profiles.of(usage).clone()));
        prepared.set_is_idempotent(Profiles::repeatable(usage));
        // Columns are named in every statement, so their types stay what they were; a condition's answer varies.
        let reads = matches!(usage, Use::PointRead | Use::SingleReplica | Use::ListRead | Use::MarkRead);
        prepared.set_use_cached_result_metadata(reads);
        Ok(prepared)
    }
}

/// `text` as it is, to run once as `usage` says.
pub(super) fn plain(profiles: &Profiles, usage: Use, text: impl Into<String>) -> Statement {
    let mut statement = Statement::new(text);
    statement.set_execution_profile_handle(Some(profiles.of(usage).clone()));
    statement.set_is_idempotent(Profiles::repeatable(usage));
    statement
}

/// Connects to the cluster of `config`; one node that answers is enough.
pub(super) async fn connect(config: &CqlConfig, profiles: &Profiles) -> Result<Session, StoreError> {
    let limits = &config.limits;
    let connect_timeout = Duration::from_millis(limits.connect_timeout_ms);
    let per_node = NonZeroUsize::new(limits.connections_per_node).unwrap_or(NonZeroUsize::MIN);
    let translator = Translator::resolve(&config.translate).await?;
    let hosts = config.hosts.iter().map(|host| instead_of(host, &config.translate));
    let mut builder = SessionBuilder::new()
        .known_nodes(hosts)
        .connection_timeout(connect_timeout)
        .hostname_resolution_timeout(Some(connect_timeout))
        .metadata_request_clientside_timeout(connect_timeout)
        .schema_agreement_timeout(Duration::from_millis(limits.schema_timeout_ms))
        // Migrating waits by itself, less often.
        .auto_await_schema_agreement(false)
        .schema_agreement_interval(SCHEMA_AGREEMENT_PAUSE)
        .keepalive_interval(Duration::from_millis(limits.keepalive_ms))
        .keepalive_timeout(Duration::from_millis(limits.keepalive_timeout_ms))
        .tcp_nodelay(true)
        .pool_size(PoolSize::PerShard(per_node))
        .keyspaces_to_fetch([config.keyspace.as_str()])
        .default_execution_profile_handle(profiles.of(Use::Schema).clone());
    if !config.translate.is_empty() {
        // A second port by which ScyllaDB's cores are chosen would bypass the translation.
        builder = builder.disallow_shard_aware_port(true).address_translator(Arc::new(translator));
    }
    if let Some((user, password)) = &config.credentials {
        builder = builder.user(user, password);
    }
    builder.build().await.map_err(|error| {
        fault::unavailable(format!("shard '{}': connecting to {} failed", config.shard, config.hosts.join(", ")))
            .caused_by(error)
    })
}

/// The address to use for `host`.
fn instead_of<'a>(host: &'a str, translate: &'a [(String, String)]) -> &'a str {
    translate.iter().find(|(told, _)| told == host).map_or(host, |(_, instead)| instead.as_str())
}

/// Puts other addresses in the place of those that the cluster tells.
///
/// A cluster tells its nodes' addresses without ports, so the driver takes the
/// port of the node that it asked; if that one was reached by another address,
/// the port is wrong for all others. So a rule is found by the address alone
/// too, and a port that only rules lead to is put right.
struct Translator(HashMap<SocketAddr, SocketAddr>);

impl Translator {
    /// Looks up the names in `translate` once, for the life of a session.
    async fn resolve(translate: &[(String, String)]) -> Result<Self, StoreError> {
        let mut map = HashMap::with_capacity(translate.len());
        for (told, instead) in translate {
            map.insert(address_of(told).await?, address_of(instead).await?);
        }
        Ok(Self(map))
    }

    fn instead_of(&self, told: SocketAddr) -> SocketAddr {
        let by_address = || self.0.iter().find(|(rule, _)| rule.ip() == told.ip()).map(|(_, instead)| instead);
        if let Some(instead) = self.0.get(&told).or_else(by_address) {
            return *instead;
        }
        let led_here = self.0.iter().find(|(_, instead)| instead.port() == told.port());
        SocketAddr::new(told.ip(), led_here.map_or(told.port(), |(rule, _)| rule.port()))
    }
}

async fn address_of(text: &str) -> Result<SocketAddr, StoreError> {
    let failed = || fault::unavailable(format!("'{text}' in translate has no address"));
    let mut found = tokio::net::lookup_host(text).await.map_err(|error| failed().caused_by(error))?;
    found.next().ok_or_else(failed)
}

#[async_trait]
impl AddressTranslator for Translator {
    async fn translate_address(&self, peer: &UntranslatedPeer) -> Result<SocketAddr, TranslationError> {
        Ok(self.instead_of(peer.untranslated_address()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn translator(rules: &[(&str, &str)]) -> Translator {
        let rules: Vec<_> = rules.iter().map(|(told, instead)| ((*told).to_owned(), (*instead).to_owned())).collect();
        Translator::resolve(&rules).await.unwrap()
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn a_told_address_is_replaced_by_its_rule() {
        let rules = translator(&[("10.0.0.1:9042", "127.0.0.1:4001"), ("10.0.0.2:9042", "127.0.0.1:4002")]).await;
        assert_eq!(rules.instead_of(address("10.0.0.1:9042")), address("127.0.0.1:4001"));
        assert_eq!(rules.instead_of(address("10.0.0.2:9042")), address("127.0.0.1:4002"));
        assert_eq!(rules.instead_of(address("10.0.0.3:9042")), address("10.0.0.3:9042"));
    }

    #[tokio::test]
    async fn the_port_of_a_proxy_is_not_taken_for_the_clusters() {
        let rules = translator(&[("10.0.0.1:9042", "127.0.0.1:4001"), ("10.0.0.2:9042", "127.0.0.1:4002")]).await;
        // The cluster was asked by way of the first proxy.
        assert_eq!(rules.instead_of(address("10.0.0.1:4001")), address("127.0.0.1:4001"));
        assert_eq!(rules.instead_of(address("10.0.0.2:4001")), address("127.0.0.1:4002"));
        assert_eq!(rules.instead_of(address("10.0.0.3:4001")), address("10.0.0.3:9042"));
    }

    #[tokio::test]
    async fn hosts_of_the_configuration_are_translated_as_well() {
        let rules = [("a.example:9042".to_owned(), "127.0.0.1:4001".to_owned())];
        assert_eq!(instead_of("a.example:9042", &rules), "127.0.0.1:4001");
        assert_eq!(instead_of("b.example:9042", &rules), "b.example:9042");
    }

    #[tokio::test]
    async fn a_rule_without_an_address_is_named() {
        let rules = [("10.0.0.1:9042".to_owned(), "no port".to_owned())];
        let error = Translator::resolve(&rules).await.err().unwrap();
        assert!(error.message.contains("'no port'"), "{error}");
    }

    #[test]
    fn only_conditional_writes_are_never_repeated() {
        use Use::{Conditional, ListRead, MarkRead, NodeRead, PointRead, Schema, SerialRead, SingleReplica, Write};
        for usage in [PointRead, SingleReplica, ListRead, MarkRead, NodeRead, Write, SerialRead, Schema] {
            assert!(Profiles::repeatable(usage), "{usage:?}");
        }
        assert!(!Profiles::repeatable(Conditional));
        let profiles = Profiles::new(&CqlLimits::default());
        let conditional = profiles.of(Conditional).to_profile();
        assert!(conditional.get_speculative_execution_policy().is_none());
        assert_eq!(conditional.get_serial_consistency(), Some(SerialConsistency::Serial));
        assert_eq!(conditional.get_consistency(), Consistency::LocalQuorum);
    }

    #[test]
    fn each_use_has_its_consistency_and_time() {
        let limits = CqlLimits {
            read_timeout_ms: 1,
            list_timeout_ms: 2,
            write_timeout_ms: 3,
            mark_timeout_ms: 4,
            clock_timeout_ms: 5,
            ..CqlLimits::default()
        };
        let profiles = Profiles::new(&limits);
        for (usage, consistency, timeout_ms) in [
            (Use::PointRead, Consistency::LocalQuorum, 1),
            (Use::SingleReplica, Consistency::LocalOne, 1),
            (Use::ListRead, Consistency::LocalQuorum, 2),
            (Use::MarkRead, Consistency::LocalQuorum, 4),
            (Use::NodeRead, Consistency::LocalOne, 5),
            (Use::Write, Consistency::LocalQuorum, 3),
            (Use::Conditional, Consistency::LocalQuorum, 3),
            (Use::SerialRead, Consistency::Serial, 3),
        ] {
            let profile = profiles.of(usage).to_profile();
            assert_eq!(profile.get_consistency(), consistency, "{usage:?}");
            assert_eq!(profile.get_request_timeout(), Some(Duration::from_millis(timeout_ms)), "{usage:?}");
        }
    }
}
