//! The read model of clicks: a file of the data directory, or a keyspace.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use terse_clicks::projector::ProjectorError;
use terse_core::ports::clicks::{Bus, ClickStats, ReadModel};
use terse_core::ports::{DependencyHealth, StoreError, StoreErrorKind};
use terse_core::stats::{Row, Span};
use terse_core::{ShortCode, Timestamp};
use terse_store::{CqlReadModel, CqlReadModelConfig};

use super::read_model::LateReadModel;
use super::{OPEN_EVERY, OPEN_WITHIN};
use crate::config::Config;
use crate::config::address::CqlAddress;
use crate::config::clicks::StatsConfig;
use crate::exit::StartError;
use crate::shutdown::Grace;
use crate::tasks::Tasks;
use crate::world::World;

/// The read model of a data directory.
const STATS_FILE: &str = "stats.sqlite";
/// How often a read model that is away is tried.
const CONNECT_EVERY: Duration = Duration::from_secs(1);
/// How long one try may take: it may have to make all tables.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(80);

/// Where clicks are counted. Cloning shares it.
#[derive(Clone)]
pub(super) enum Model {
    /// A file that may not be open yet.
    Sqlite(Arc<LateReadModel>),
    /// A keyspace that may be out of reach.
    Cql(Arc<CqlReadModel>),
}

impl Model {
    /// The one that `config` names. Nothing is opened or connected yet.
    pub(super) fn new(config: &Config, world: &World) -> Self {
        match &config.clicks.stats {
            StatsConfig::Sqlite => Self::Sqlite(Arc::new(LateReadModel::new(stats_file(config)))),
            StatsConfig::Cql(address) => {
                let (clock, entropy) = (Arc::clone(&world.clock), Arc::clone(&world.entropy));
                Self::Cql(CqlReadModel::new(cql_config(address), clock, entropy))
            }
        }
    }

    /// Opens it, if it is a file. If it is there to be written for `asked`, it must be made for that.
    ///
    /// # Errors
    /// [`StartError`] when it is another bus's. One that can't be opened or asked is tried again later.
    pub(super) async fn open(&self, asked: Option<Bus>) -> Result<(), StartError> {
        let Self::Sqlite(model) = self else { return Ok(()) };
        match (model.0.open_once(OPEN_WITHIN).await, asked) {
            (Ok(()), Some(asked)) => settle_bus(model.as_ref(), asked).await,
            (Ok(()), None) => Ok(()),
            (Err(error), _) => {
                tracing::error!(%error, "starting without statistics; opening them is tried again");
                Ok(())
            }
        }
    }

    /// For the projector, and for whoever must know how far it is.
    pub(super) fn read_model(&self) -> Arc<dyn ReadModel> {
        match self {
            Self::Sqlite(model) => Arc::clone(model) as Arc<dyn ReadModel>,
            Self::Cql(model) => Arc::clone(model) as Arc<dyn ReadModel>,
        }
    }

    /// For the API.
    pub(super) fn stats(&self) -> Arc<dyn ClickStats> {
        match self {
            Self::Sqlite(model) => Arc::clone(model) as Arc<dyn ClickStats>,
            Self::Cql(model) => Arc::clone(model) as Arc<dyn ClickStats>,
        }
    }

    /// For health reports.
    pub(super) fn dependency(&self) -> Arc<dyn DependencyHealth> {
        match self {
            Self::Sqlite(model) => Arc::clone(model) as Arc<dyn DependencyHealth>,
            Self::Cql(model) => Arc::clone(model) as Arc<dyn DependencyHealth>,
        }
    }

    /// Starts the task that opens or connects it.
    pub(super) fn run(&self, tasks: &mut Tasks) {
        match self.clone() {
            Self::Sqlite(model) => {
                tasks.every_within("read model", OPEN_EVERY, 2 * OPEN_WITHIN, move || {
                    let model = Arc::clone(&model.0);
                    async move { model.open_once(OPEN_WITHIN).await }
                });
            }
            Self::Cql(model) => {
                tasks.every_within("read model connection", CONNECT_EVERY, CONNECT_TIMEOUT, move || {
                    let model = Arc::clone(&model);
                    async move { model.connect_once().await.map(drop) }
                });
            }
        }
    }

    /// Closes it, if it is a file.
    pub(super) async fn close(self, grace: Grace, least: Duration) {
        if let Self::Sqlite(model) = self
            && let Some(model) = model.0.end()
        {
            let closed = tokio::task::spawn_blocking(move || model.close());
            if tokio::time::timeout(grace.left(least), closed).await.is_err() {
                tracing::warn!("the read model did not close in time");
            }
        }
    }
}

/// Ends the start if `model` is another bus's. One that can't be asked now the projector asks again.
async fn settle_bus(model: &dyn ReadModel, asked: Bus) -> Result<(), StartError> {
    let stands = match model.settle_bus(asked).await {
        Ok(stands) => stands,
        Err(error) => {
            tracing::error!(%error, "what the read model is made for can't be asked; starting all the same");
            return Ok(());
        }
    };
    if stands == asked {
        return Ok(());
    }
    let other = ProjectorError::OtherBus { stands, asked };
    Err(StartError::config(format_args!("{other}; moving takes drained journals and a fresh read model (TERSE_STATS)")))
}

/// The read model of a data directory, where it is a file.
pub(crate) fn stats_file(config: &Config) -> PathBuf {
    config.data_dir.join(STATS_FILE)
}

/// The settings of a read model in a keyspace.
pub(crate) fn cql_config(address: &CqlAddress) -> CqlReadModelConfig {
    let mut config = CqlReadModelConfig::new(address.hosts(), &address.keyspace);
    config.cluster.replication = address.replication;
    config.cluster.credentials = address.credentials();
    config
}

/// For a process that neither counts nor serves statistics.
pub(super) struct NoReadModel;

fn no_read_model() -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable, "this process has no read model of clicks")
}

#[async_trait]
impl ClickStats for NoReadModel {
    async fn overall(&self, _: &ShortCode) -> Result<Option<Row>, StoreError> {
        Err(no_read_model())
    }

    async fn spans(&self, _: &ShortCode, _: Span, _: Span) -> Result<Vec<(Span, Row)>, StoreError> {
        Err(no_read_model())
    }

    async fn as_of(&self, _: &ShortCode) -> Result<Option<Timestamp>, StoreError> {
        Err(no_read_model())
    }
}
