//! Clicks: recorded in a journal by redirects, counted by a projector, told by the read model.
//!
//! What of these a process has follows from its roles. The projector runs on a thread of its own: it takes a core while
//! it catches up, and redirects await nothing of it.
//!
//! A read model or a journal that can't be opened keeps no redirect from being answered: the start goes on without, a
//! task tries again, and health tells. Statistics are unavailable meanwhile, or clicks dropped and counted. Only a read
//! model that was made for another bus ends the start: that is a setting to be mended.

mod health;
mod late;
mod projection;
mod read_model;
mod recording;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use terse_clicks::enrich::{Countries, Enrichment};
use terse_clicks::journal::{Journal, JournalConfig, Recovery, RecoveryThread, SyncPolicy};
use terse_clicks::log::local::LocalLog;
use terse_clicks::projector::{Projector, ProjectorConfig, ProjectorError};
use terse_core::click::ClickRecording;
use terse_core::ports::clicks::{Bus, ClickStats, ReadModel};
use terse_core::ports::{DependencyHealth, HomeStore, StoreError, StoreErrorKind};
use terse_core::stats::{Row, Span};
use terse_core::{Clock, ShortCode, Timestamp};
use terse_store::{CqlReadModel, CqlReadModelConfig};
use tokio::sync::watch;

use self::health::{ClickHealth, Recorded};
use self::projection::{Life, Projection, Supervised};
use self::read_model::LateReadModel;
use self::recording::Recording;
use crate::config::Config;
use crate::config::address::CqlAddress;
use crate::config::clicks::{BusConfig, StatsConfig};
use crate::exit::{Exit, StartError};
use crate::shutdown::Grace;
use crate::stores::store_failure;
use crate::tasks::Tasks;
use crate::visitor_keys;
use crate::world::World;

/// The journals of a data directory.
const JOURNALS: &str = "journal";
/// The read model of a data directory.
const STATS_FILE: &str = "stats.sqlite";
/// How the read model is called in messages.
const STATS: &str = "stats";
/// How often gauges are brought up to date.
const GAUGES_EVERY: Duration = Duration::from_millis(500);
/// How often a read model that is away is tried.
const CONNECT_EVERY: Duration = Duration::from_secs(1);
/// How long one try may take: it may have to make all tables.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(80);

/// How often a file that can't be opened is tried, and how long a try is waited for; a start waits as long. Another
/// process' lock on the file is waited for that long, too.
const OPEN_EVERY: Duration = Duration::from_secs(5);
/// See [`OPEN_EVERY`].
const OPEN_WITHIN: Duration = Duration::from_secs(10);

/// What a process does with clicks.
pub struct Clicks {
    recording: Option<Recording>,
    model: Option<Model>,
    projection: Option<Projection>,
    /// What the journal counted, as it was seen last.
    recorded: Arc<Recorded>,
    /// Recovers journals of servers that are gone, where no journal of this process does.
    recovery: Option<RecoveryThread>,
}

/// Where clicks are counted.
#[derive(Clone)]
enum Model {
    Sqlite(Arc<LateReadModel>),
    Cql(Arc<CqlReadModel>),
}

impl Clicks {
    /// Opens the journal and the read model that the roles of `config` need, if they can be opened. Nothing is projected
    /// or connected yet.
    ///
    /// # Errors
    /// [`StartError`] when the read model is another bus's.
    pub async fn open(config: &Config, world: &World) -> Result<Self, StartError> {
        let surfaces = config.http.surfaces;
        let records = surfaces.redirect && config.clicks.bus == BusConfig::Local;
        let model = (surfaces.api || config.analytics).then(|| Model::new(config, world));
        if let Some(Model::Sqlite(model)) = &model {
            match model.0.open_once(OPEN_WITHIN).await {
                Ok(()) if config.analytics => settle_bus(model.as_ref(), bus(config)).await?,
                Ok(()) => {}
                Err(error) => tracing::error!(%error, "starting without statistics; opening them is tried again"),
            }
        }
        let recording = records
            .then(|| Recording::new(journal_config(config), Arc::clone(&world.clock), Arc::clone(&world.entropy)));
        if let Some(recording) = &recording
            && let Err(error) = recording.journal.open_once(OPEN_WITHIN).await
        {
            tracing::error!(%error, "starting without a click journal: clicks are dropped until it can be opened");
        }
        let recovery = (config.analytics && recording.is_none() && config.clicks.bus == BusConfig::Local)
            .then(|| recovery(config, world))
            .transpose()?;
        Ok(Self { recording, model, projection: None, recorded: Arc::default(), recovery })
    }

    /// Where redirects note their clicks.
    #[must_use]
    pub fn recording(&self) -> Option<Arc<dyn ClickRecording>> {
        self.recording.clone().map(|recording| Arc::new(recording) as Arc<dyn ClickRecording>)
    }

    /// What is known of clicks.
    #[must_use]
    pub fn stats(&self) -> Arc<dyn ClickStats> {
        match &self.model {
            Some(Model::Sqlite(model)) => Arc::clone(model) as Arc<dyn ClickStats>,
            Some(Model::Cql(model)) => Arc::clone(model) as Arc<dyn ClickStats>,
            None => Arc::new(NoReadModel),
        }
    }

    /// What health reports tell of them.
    #[must_use]
    pub fn dependencies(&self, clock: &Arc<dyn Clock>) -> Vec<Arc<dyn DependencyHealth>> {
        let model = self.model.iter().map(|model| match model {
            Model::Sqlite(model) => Arc::clone(model) as Arc<dyn DependencyHealth>,
            Model::Cql(model) => Arc::clone(model) as Arc<dyn DependencyHealth>,
        });
        let counting = self.projection.as_ref().map(Projection::supervised);
        let works = (self.recording.is_some() || counting.is_some()).then(|| {
            let recording = self.recording.clone().map(|recording| (recording, Arc::clone(&self.recorded)));
            Arc::new(ClickHealth { recording, counting, clock: Arc::clone(clock) }) as Arc<dyn DependencyHealth>
        });
        model.chain(works).collect()
    }

    /// Starts to count, if that is this process's role.
    ///
    /// # Errors
    /// [`StartError`] when the country data can't be read or the thread can't be started.
    pub fn project(&mut self, config: &Config, holder: String, world: &World) -> Result<(), StartError> {
        let (Some(model), true, BusConfig::Local) = (&self.model, config.analytics, &config.clicks.bus) else {
            return Ok(());
        };
        let (read_model, countries) = (model.read_model(), countries(config)?);
        let (config, clock, entropy) = (config.clone(), Arc::clone(&world.clock), Arc::clone(&world.entropy));
        let recording = self.recording.clone();
        let begin = move |stopped: watch::Receiver<bool>| {
            let journal = recording.as_ref().and_then(|recording| recording.journal.get().cloned());
            let projector = Projector::new(
                ProjectorConfig::new(bus(&config), holder.clone()),
                Box::new(LocalLog::new(&journals(&config), journal)),
                Arc::clone(&read_model),
                enrichment_by(&config, countries.clone()),
                Arc::clone(&clock),
                entropy.as_ref(),
            );
            let projector = projector.map_err(|error| error.to_string())?;
            let progress = projector.progress();
            let run = async move { projector.run(stopped).await.map_err(|error| error.to_string()) };
            Ok(Life { progress, run: Box::pin(run) })
        };
        self.projection = Some(Projection::start(begin, Arc::clone(&world.clock))?);
        Ok(())
    }

    /// Gets ready what the first click needs, which can take half a second.
    pub async fn prepare(&self, home: &Arc<dyn HomeStore>, world: &World) {
        if let Some(keys) = self.recording.as_ref().and_then(Recording::visitor_keys) {
            visitor_keys::set_first(keys, Arc::clone(home), world).await;
        }
    }

    /// Starts the tasks that journal and read model need.
    pub fn run(&self, tasks: &mut Tasks, home: &Arc<dyn HomeStore>, world: &World) {
        visitor_keys::sweep(tasks, Arc::clone(home), Arc::clone(&world.clock));
        if let Some(recording) = self.recording.clone() {
            let keys = recording.clone();
            visitor_keys::set(tasks, move || keys.visitor_keys(), Arc::clone(home), world);
            tasks.every_within("click journal", OPEN_EVERY, 2 * OPEN_WITHIN, move || {
                let journal = Arc::clone(&recording.journal);
                async move { journal.open_once(OPEN_WITHIN).await }
            });
        }
        if let Some(Model::Sqlite(model)) = &self.model {
            let model = Arc::clone(model);
            tasks.every_within("read model", OPEN_EVERY, 2 * OPEN_WITHIN, move || {
                let model = Arc::clone(&model.0);
                async move { model.open_once(OPEN_WITHIN).await }
            });
        }
        if let Some(Model::Cql(model)) = &self.model {
            let model = Arc::clone(model);
            tasks.every_within("read model connection", CONNECT_EVERY, CONNECT_TIMEOUT, move || {
                let model = Arc::clone(&model);
                async move { model.connect_once().await.map(drop) }
            });
        }
        let counting = self.projection.as_ref().map(Projection::supervised);
        let (recording, recorded, world) = (self.recording.clone(), Arc::clone(&self.recorded), world.clone());
        tasks.every("click gauges", GAUGES_EVERY, move || {
            let (recording, counting) = (recording.clone(), counting.clone());
            let (recorded, world) = (Arc::clone(&recorded), world.clone());
            async move { show(recording, counting.as_deref(), &recorded, &world).await }
        });
    }

    /// Ends all of it. What isn't counted by then is counted after the next start. With `workers` that have not ended,
    /// the journal is not ended either: they go on recording as long as the process lives, and what they recorded is
    /// recovered like that of a killed process.
    pub async fn end(self, workers: Workers, grace: Grace, least: Duration) {
        if let Some(journal) = self.recording.and_then(|recording| recording.journal.end()) {
            match workers {
                Workers::Ended => end_journal(journal, grace.left(least)).await,
                Workers::Running => {
                    tracing::warn!("web workers have not ended; the click journal is recovered at the next start");
                    // Dropping the last handle would take the workers' blocks away.
                    std::mem::forget(journal);
                }
            }
        }
        // It may be syncing a block that it found.
        if let Some(recovery) = self.recovery {
            let ended = tokio::task::spawn_blocking(move || drop(recovery));
            if tokio::time::timeout(grace.left(least), ended).await.is_err() {
                tracing::warn!("recovering click journals did not end in time");
            }
        }
        if let Some(projection) = self.projection {
            projection.end(grace.left(least)).await;
        }
        if let Some(Model::Sqlite(model)) = self.model
            && let Some(model) = model.0.end()
        {
            let closed = tokio::task::spawn_blocking(move || model.close());
            if tokio::time::timeout(grace.left(least), closed).await.is_err() {
                tracing::warn!("the read model did not close in time");
            }
        }
    }
}

/// Whether the web workers have ended, and given back the blocks that they wrote to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workers {
    /// All of them.
    Ended,
    /// At least one may still answer.
    Running,
}

async fn end_journal(journal: Arc<Journal>, within: Duration) {
    let ended = tokio::task::spawn_blocking(move || journal.end());
    match tokio::time::timeout(within, ended).await {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(error))) => tracing::warn!(%error, "the click journal is recovered at the next start"),
        Ok(Err(error)) => tracing::error!(%error, "ending the click journal has panicked"),
        Err(_) => tracing::warn!("no time is left for the click journal; it is recovered at the next start"),
    }
}

impl Model {
    fn new(config: &Config, world: &World) -> Self {
        match &config.clicks.stats {
            StatsConfig::Sqlite => Self::Sqlite(Arc::new(LateReadModel::new(stats_file(config)))),
            StatsConfig::Cql(address) => {
                let (clock, entropy) = (Arc::clone(&world.clock), Arc::clone(&world.entropy));
                Self::Cql(CqlReadModel::new(cql_config(address), clock, entropy))
            }
        }
    }

    fn read_model(&self) -> Arc<dyn ReadModel> {
        match self {
            Self::Sqlite(model) => Arc::clone(model) as Arc<dyn ReadModel>,
            Self::Cql(model) => Arc::clone(model) as Arc<dyn ReadModel>,
        }
    }
}

/// What the read model is made for.
fn bus(config: &Config) -> Bus {
    match config.clicks.bus {
        BusConfig::Local => Bus::Local,
        BusConfig::Amqp(_) => Bus::Streams { partitions: PARTITIONS },
    }
}

/// How many streams the clicks of a deployment are spread over.
const PARTITIONS: u16 = 8;

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

fn recovery(config: &Config, world: &World) -> Result<RecoveryThread, StartError> {
    let recovery =
        Recovery::new(&journals(config), JournalConfig::new(journals(config)).partitions, Arc::clone(&world.clock));
    let failed = |error| StartError::new(Exit::Internal, format_args!("cannot recover click journals: {error}"));
    RecoveryThread::start(recovery).map_err(failed)
}

fn journal_config(config: &Config) -> JournalConfig {
    let clicks = &config.clicks;
    JournalConfig {
        budget_bytes: clicks.journal_bytes,
        sync: if clicks.journal_sync { SyncPolicy::Sealed } else { SyncPolicy::None },
        obey_signals: clicks.obey_signals,
        ..JournalConfig::new(journals(config))
    }
}

/// Where the journals of a data directory are.
pub(crate) fn journals(config: &Config) -> PathBuf {
    config.data_dir.join(JOURNALS)
}

/// The read model of a data directory, where it is a file.
pub(crate) fn stats_file(config: &Config) -> PathBuf {
    config.data_dir.join(STATS_FILE)
}

/// What a fault of a read model ends the program with.
pub(crate) fn failed(error: &StoreError) -> StartError {
    store_failure(STATS, error)
}

/// By what the deployment tells clicks apart.
///
/// # Errors
/// [`StartError`] when the country data can't be read.
pub(crate) fn enrichment(config: &Config) -> Result<Enrichment, StartError> {
    Ok(enrichment_by(config, countries(config)?))
}

fn enrichment_by(config: &Config, countries: Option<Arc<Countries>>) -> Enrichment {
    Enrichment::new([config.http.public_url.host.as_str()], countries)
}

fn countries(config: &Config) -> Result<Option<Arc<Countries>>, StartError> {
    let open = |path: &Path| {
        let failed = |error| StartError::config(format_args!("countries: {}: {error}", path.display()));
        Countries::load(path).map(Arc::new).map_err(failed)
    };
    config.clicks.countries.as_deref().map(open).transpose()
}

fn cql_config(address: &CqlAddress) -> CqlReadModelConfig {
    let mut config = CqlReadModelConfig::new(address.hosts(), &address.keyspace);
    config.cluster.replication = address.replication;
    config.cluster.credentials = address.credentials();
    config
}

/// Brings the gauges up to date. Counting blocks reads directories, so not here.
async fn show(
    recording: Option<Recording>,
    counting: Option<&Supervised>,
    recorded: &Recorded,
    world: &World,
) -> Result<(), StoreError> {
    let unreadable = |error: &dyn std::fmt::Display| {
        StoreError::new(StoreErrorKind::Unavailable, format!("blocks of clicks can't be counted: {error}"))
    };
    if let Some(counting) = counting {
        let report = counting.report();
        let applied = world.metrics.clicks_applied();
        applied.inc_by(report.applied.saturating_sub(applied.get()));
        world.metrics.click_lag_seconds().set(report.lag_ms(world.clock.now()) as f64 / 1_000.0);
    }
    if let Some(recording) = recording {
        let counted =
            tokio::task::spawn_blocking(move || recording.counts()).await.map_err(|error| unreadable(&error))?;
        let counts = counted.map_err(|error| unreadable(&error))?;
        recorded.note(&counts, world.clock.monotonic_ms());
        world.metrics.click_blocks_pending().set(i64::try_from(counts.pending).unwrap_or(i64::MAX));
    }
    Ok(())
}

/// For a process that neither counts nor serves statistics.
struct NoReadModel;

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

#[cfg(test)]
mod tests;
