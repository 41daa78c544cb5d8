//! Clicks: recorded in a journal by redirects, counted by a projector, told by the read model.
//!
//! What of these a process has follows from its roles. The projector runs on a thread of its own: it takes a core while
//! it catches up, and redirects await nothing of it.

mod health;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use terse_clicks::enrich::{Countries, Enrichment};
use terse_clicks::journal::{Journal, JournalConfig, SyncPolicy};
use terse_clicks::log::local::LocalLog;
use terse_clicks::projector::{Progress, Projector, ProjectorConfig, ProjectorError};
use terse_core::click::ClickRecording;
use terse_core::ports::clicks::{Bus, ClickStats, ReadModel};
use terse_core::ports::{DependencyHealth, HomeStore, StoreError, StoreErrorKind};
use terse_core::stats::{Row, Span};
use terse_core::{Clock, ShortCode, Timestamp};
use terse_store::{CqlReadModel, CqlReadModelConfig, SqliteReadModel, SqliteReadModelConfig};
use tokio::sync::{oneshot, watch};

use self::health::{ClickHealth, Recorded};
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

/// What a process does with clicks.
pub struct Clicks {
    journal: Option<Arc<Journal>>,
    model: Option<Model>,
    projection: Option<Projection>,
    /// What the journal counted, as it was seen last.
    recorded: Arc<Recorded>,
}

/// Where clicks are counted.
#[derive(Clone)]
enum Model {
    Sqlite(Arc<SqliteReadModel>),
    Cql(Arc<CqlReadModel>),
}

/// The projector's thread.
struct Projection {
    progress: Arc<Progress>,
    stop: watch::Sender<bool>,
    ended: oneshot::Receiver<Result<(), ProjectorError>>,
    thread: JoinHandle<()>,
}

impl Clicks {
    /// Opens the journal and the read model that the roles of `config` need. Nothing is projected or connected yet.
    ///
    /// # Errors
    /// [`StartError`] when a file can't be opened, or the read model is another bus's.
    pub async fn open(config: &Config, world: &World) -> Result<Self, StartError> {
        let surfaces = config.http.surfaces;
        let records = surfaces.redirect && config.clicks.bus == BusConfig::Local;
        let model = if surfaces.api || config.analytics { Some(Model::open(config, world)?) } else { None };
        if let (Some(Model::Sqlite(model)), true) = (&model, config.analytics) {
            settle_bus(model.as_ref(), bus(config)).await?;
        }
        let journal = if records { Some(journal(config, world)?) } else { None };
        Ok(Self { journal, model, projection: None, recorded: Arc::default() })
    }

    /// Where redirects note their clicks.
    #[must_use]
    pub fn recording(&self) -> Option<Arc<dyn ClickRecording>> {
        self.journal.clone().map(|journal| journal as Arc<dyn ClickRecording>)
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
        let progress = self.projection.as_ref().map(|projection| Arc::clone(&projection.progress));
        let works = (self.journal.is_some() || progress.is_some()).then(|| {
            let recorded = self.journal.is_some().then(|| Arc::clone(&self.recorded));
            Arc::new(ClickHealth { recorded, progress, clock: Arc::clone(clock) }) as Arc<dyn DependencyHealth>
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
        let log = LocalLog::new(&journals(config), self.journal.clone());
        let enrichment = enrichment(config)?;
        let projector = Projector::new(
            ProjectorConfig::new(bus(config), holder),
            Box::new(log),
            model.read_model(),
            enrichment,
            Arc::clone(&world.clock),
            world.entropy.as_ref(),
        );
        let projector = projector.map_err(|error| StartError::new(Exit::Internal, error))?;
        self.projection = Some(Projection::start(projector)?);
        Ok(())
    }

    /// Gets ready what the first click needs, which can take half a second.
    pub async fn prepare(&self, home: &Arc<dyn HomeStore>, world: &World) {
        if let Some(journal) = &self.journal {
            visitor_keys::set_first(journal.visitor_keys().clone(), Arc::clone(home), world).await;
        }
    }

    /// Starts the tasks that journal and read model need.
    pub fn run(&self, tasks: &mut Tasks, home: &Arc<dyn HomeStore>, world: &World) {
        visitor_keys::sweep(tasks, Arc::clone(home), Arc::clone(&world.clock));
        if let Some(journal) = &self.journal {
            let keys = journal.visitor_keys().clone();
            visitor_keys::set(tasks, move || Some(keys.clone()), Arc::clone(home), world);
        }
        if let Some(Model::Cql(model)) = &self.model {
            let model = Arc::clone(model);
            tasks.every_within("read model connection", CONNECT_EVERY, CONNECT_TIMEOUT, move || {
                let model = Arc::clone(&model);
                async move { model.connect_once().await.map(drop) }
            });
        }
        let progress = self.projection.as_ref().map(|projection| Arc::clone(&projection.progress));
        let (journal, recorded, world) = (self.journal.clone(), Arc::clone(&self.recorded), world.clone());
        tasks.every("click gauges", GAUGES_EVERY, move || {
            let (journal, progress) = (journal.clone(), progress.clone());
            let (recorded, world) = (Arc::clone(&recorded), world.clone());
            async move { show(journal, progress.as_deref(), &recorded, &world).await }
        });
    }

    /// Resolves when the projector ends by itself, with why; never where there is none.
    pub async fn failed(&mut self) -> String {
        match &mut self.projection {
            Some(projection) => match (&mut projection.ended).await {
                Ok(Err(error)) => format!("clicks can't be counted: {error}"),
                Ok(Ok(())) | Err(_) => "the projector has ended by itself".to_owned(),
            },
            None => std::future::pending().await,
        }
    }

    /// Ends all of it; web workers have ended before. What isn't counted by then is counted after the next start.
    pub async fn end(self, grace: Grace, least: Duration) {
        if let Some(journal) = self.journal {
            let ended = tokio::task::spawn_blocking(move || journal.end());
            match tokio::time::timeout(grace.left(least), ended).await {
                Ok(Ok(Ok(()))) => {}
                Ok(Ok(Err(error))) => tracing::warn!(%error, "the click journal is recovered at the next start"),
                Ok(Err(error)) => tracing::error!(%error, "ending the click journal has panicked"),
                Err(_) => tracing::warn!("no time is left for the click journal; it is recovered at the next start"),
            }
        }
        if let Some(projection) = self.projection {
            projection.end(grace.left(least)).await;
        }
        if let Some(Model::Sqlite(model)) = self.model {
            let closed = tokio::task::spawn_blocking(move || model.close());
            if tokio::time::timeout(grace.left(least), closed).await.is_err() {
                tracing::warn!("the read model did not close in time");
            }
        }
    }
}

impl Model {
    fn open(config: &Config, world: &World) -> Result<Self, StartError> {
        match &config.clicks.stats {
            StatsConfig::Sqlite => {
                let opened = SqliteReadModel::open(SqliteReadModelConfig::new(stats_file(config)));
                Ok(Self::Sqlite(opened.map_err(|error| failed(&error))?))
            }
            StatsConfig::Cql(address) => {
                let (clock, entropy) = (Arc::clone(&world.clock), Arc::clone(&world.entropy));
                Ok(Self::Cql(CqlReadModel::new(cql_config(address), clock, entropy)))
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

impl Projection {
    fn start(projector: Projector) -> Result<Self, StartError> {
        let failed = |error: std::io::Error| {
            StartError::new(Exit::Internal, format_args!("the projector can't be started: {error}"))
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let (progress, (stop, stopped), (told, ended)) =
            (projector.progress(), watch::channel(false), oneshot::channel());
        let thread = std::thread::Builder::new().name("projector".to_owned()).spawn(move || {
            // Nobody listens once the server has given up waiting.
            let _ = told.send(runtime.block_on(projector.run(stopped)));
        });
        Ok(Self { progress, stop, ended, thread: thread.map_err(failed)? })
    }

    async fn end(self, within: Duration) {
        self.stop.send_replace(true);
        match tokio::time::timeout(within, self.ended).await {
            Ok(Ok(Ok(()))) => {
                if self.thread.join().is_err() {
                    tracing::error!("the projector has panicked");
                }
            }
            Ok(Ok(Err(error))) => tracing::error!(%error, "clicks were not counted"),
            Ok(Err(_)) => tracing::error!("the projector has panicked"),
            Err(_) => tracing::warn!("no time is left for counting clicks; the next start goes on"),
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

async fn settle_bus(model: &dyn ReadModel, asked: Bus) -> Result<(), StartError> {
    let stands = model.settle_bus(asked).await.map_err(|error| failed(&error))?;
    if stands == asked {
        return Ok(());
    }
    let other = ProjectorError::OtherBus { stands, asked };
    Err(StartError::config(format_args!("{other}; moving takes drained journals and a fresh read model (TERSE_STATS)")))
}

fn journal(config: &Config, world: &World) -> Result<Arc<Journal>, StartError> {
    let clicks = &config.clicks;
    let settings = JournalConfig {
        budget_bytes: clicks.journal_bytes,
        sync: if clicks.journal_sync { SyncPolicy::Sealed } else { SyncPolicy::None },
        obey_signals: clicks.obey_signals,
        ..JournalConfig::new(journals(config))
    };
    let opened = Journal::open(&settings, Arc::clone(&world.clock), world.entropy.as_ref());
    opened.map_err(|error| {
        let directory = settings.directory.display();
        StartError::new(Exit::CannotCreate, format_args!("cannot open a click journal in {directory}: {error}"))
    })
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
    Ok(Enrichment::new([config.http.public_url.host.as_str()], countries(config)?))
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
    journal: Option<Arc<Journal>>,
    progress: Option<&Progress>,
    recorded: &Recorded,
    world: &World,
) -> Result<(), StoreError> {
    let unreadable = |error: &dyn std::fmt::Display| {
        StoreError::new(StoreErrorKind::Unavailable, format!("blocks of clicks can't be counted: {error}"))
    };
    if let Some(progress) = progress {
        let report = progress.report();
        let applied = world.metrics.clicks_applied();
        applied.inc_by(report.applied.saturating_sub(applied.get()));
        world.metrics.click_lag_seconds().set(report.lag_ms(world.clock.now()) as f64 / 1_000.0);
    }
    if let Some(journal) = journal {
        let counted =
            tokio::task::spawn_blocking(move || journal.counts()).await.map_err(|error| unreadable(&error))?;
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
