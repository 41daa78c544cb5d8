//! The driver alone, for comparison: the select that a redirect needs, with
//! the settings that the store gives it, and nothing of terse around it.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use scylla::client::PoolSize;
use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::frame::types::{Consistency, SerialConsistency};
use scylla::policies::retry::DefaultRetryPolicy;
use scylla::policies::speculative_execution::SimpleSpeculativeExecutionPolicy;
use scylla::statement::prepared::PreparedStatement;
use scylla::value::CqlTimestamp;
use terse_core::Link;
use terse_store::CqlLimits;

use crate::backend::keyspace;
use crate::links::check_target;
use crate::load::{Answer, Fault, Operation};
use crate::options::Cluster;

/// What a redirect needs of a row.
#[derive(scylla::DeserializeRow)]
#[scylla(flavor = "enforce_order", skip_name_checks)]
struct Row<'frame> {
    target: Option<&'frame str>,
    state: Option<&'frame str>,
    expires_at: Option<CqlTimestamp>,
    valid_from: Option<CqlTimestamp>,
    version: Option<i64>,
}

/// Selects the rows of existing links in turn.
pub(crate) struct Select {
    session: Session,
    statement: PreparedStatement,
    links: Arc<[Link]>,
}

impl Select {
    /// Connects to `cluster` and prepares the select in the first shard's keyspace.
    pub(crate) async fn prepare(cluster: &Cluster, links: Arc<[Link]>) -> Result<Self, String> {
        let limits = CqlLimits::default();
        let per_node = NonZeroUsize::new(limits.connections_per_node).unwrap_or(NonZeroUsize::MIN);
        let session = SessionBuilder::new()
            .known_nodes(&cluster.hosts)
            .connection_timeout(Duration::from_millis(limits.connect_timeout_ms))
            .keepalive_interval(Duration::from_millis(limits.keepalive_ms))
            .keepalive_timeout(Duration::from_millis(limits.keepalive_timeout_ms))
            .tcp_nodelay(true)
            .pool_size(PoolSize::PerShard(per_node))
            .keyspaces_to_fetch([keyspace(0)])
            .build()
            .await
            .map_err(|error| error.to_string())?;
        let text =
            format!("SELECT target, state, expires_at, valid_from, version FROM {}.links WHERE code = ?", keyspace(0));
        let mut statement = session.prepare(text).await.map_err(|error| error.to_string())?;
        let speculative = SimpleSpeculativeExecutionPolicy {
            max_retry_count: limits.speculative_reads,
            retry_interval: Duration::from_millis(limits.speculative_delay_ms),
        };
        let profile = ExecutionProfile::builder()
            .consistency(Consistency::LocalQuorum)
            .serial_consistency(Some(SerialConsistency::Serial))
            .request_timeout(Some(Duration::from_millis(limits.read_timeout_ms)))
            .speculative_execution_policy(Some(Arc::new(speculative)))
            .retry_policy(Arc::new(DefaultRetryPolicy::new()))
            .build();
        statement.set_execution_profile_handle(Some(profile.into_handle()));
        statement.set_is_idempotent(true);
        statement.set_use_cached_result_metadata(true);
        Ok(Self { session, statement, links })
    }
}

impl Operation for Select {
    async fn run(&self, call: u64) -> Result<Answer, Fault> {
        let link = &self.links[call as usize % self.links.len()];
        let answer = self.session.execute_unpaged(&self.statement, (link.code.as_str(),)).await;
        let rows = answer.map_err(|error| Fault::Refused(error.to_string()))?;
        let rows = rows.into_rows_result().map_err(|error| Fault::Wrong(error.to_string()))?;
        let row = rows.maybe_first_row::<Row<'_>>().map_err(|error| Fault::Wrong(error.to_string()))?;
        let Some(Row { target, state, expires_at, valid_from, version }) = row else {
            return Err(Fault::Wrong(format!("/{} is not there", link.code.as_str())));
        };
        std::hint::black_box((state, expires_at, valid_from, version));
        check_target(link, target).map(|()| Answer::Full)
    }
}
