//! Clicks: recorded in a journal by redirects, counted by a projector, told by the read model.
//!
//! What of these a process has follows from its roles. The projector runs on a thread of its own: it takes a core while
//! it catches up, and redirects await nothing of it. With a message broker the way is longer: a relay, on another thread,
//! publishes the journal's blocks to streams, and the projector reads those, in this process or in any other.
//!
//! A read model or a journal that can't be opened keeps no redirect from being answered: the start goes on without, a
//! task tries again, and health tells. Statistics are unavailable meanwhile, or clicks dropped and counted. So with a file
//! of countries: clicks are counted without theirs meanwhile. Only a read model or a journal that was made for another bus
//! ends the start: that is a setting to be mended.

mod bus_health;
mod countries;
mod health;
mod late;
mod model;
mod projection;
mod read_model;
mod recording;
mod relaying;
mod waiting;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use terse_clicks::enrich::{Countries, CurrentCountries, Enrichment};
use terse_clicks::journal::{self, Journal, JournalConfig, Recovery, RecoveryThread, SyncPolicy};
use terse_clicks::log::ClickLog;
use terse_clicks::log::local::LocalLog;
use terse_clicks::projector::{Projector, ProjectorConfig};
use terse_clicks::rabbit::{BrokerConfig, CheckpointNeeds, Relay, RelayConfig, StreamLog};
use terse_core::Clock;
use terse_core::click::ClickRecording;
use terse_core::metrics::{Metrics, StoppedAt};
use terse_core::ports::clicks::{Bus, ClickStats, ReadModel};
use terse_core::ports::{DependencyHealth, HomeStore, StoreError, StoreErrorKind};
use terse_core::stats::Partition;
use tokio::sync::watch;

use self::bus_health::{BusHealth, Reader};
use self::countries::CountryFile;
use self::health::{ClickHealth, Recorded};
use self::model::{Model, NoReadModel};
use self::projection::{Life, Projection, Supervised};
use self::recording::Recording;
use self::relaying::{RelayOf, Relaying};
use self::waiting::Watch;
use crate::config::Config;
use crate::config::clicks::{BusConfig, StatsConfig};
use crate::exit::{Exit, StartError};
use crate::shutdown::Grace;
use crate::stores::store_failure;
use crate::tasks::Tasks;
use crate::visitor_keys;
use crate::world::World;

pub(crate) use self::late::Late;
pub(crate) use self::model::{cql_config, stats_file};

/// The journals of a data directory.
const JOURNALS: &str = "journal";
/// How the read model is called in messages.
const STATS: &str = "stats";
/// How often gauges are brought up to date.
const GAUGES_EVERY: Duration = Duration::from_millis(500);
/// How often it is looked how far streams are counted.
const POSITIONS_EVERY: Duration = Duration::from_secs(5);

/// How often a file that can't be opened is tried, and how long a try is waited for; a start waits as long. Another
/// process' lock on the file is waited for that long, too.
const OPEN_EVERY: Duration = Duration::from_secs(5);
/// See [`OPEN_EVERY`].
const OPEN_WITHIN: Duration = Duration::from_secs(10);

/// What a process does with clicks.
pub struct Clicks {
    /// Where blocks are published; `None` = the bus is local.
    broker: Option<BrokerConfig>,
    recording: Option<Recording>,
    model: Option<Model>,
    projection: Option<Projection>,
    relaying: Option<Relaying>,
    /// Whether the projector reads streams.
    reader: Arc<Reader>,
    /// What the journal counted, as it was seen last.
    recorded: Arc<Recorded>,
    /// What waits in the journals of the data directory, where this process has to do with them.
    watch: Option<Watch>,
    /// Recovers journals of servers that are gone, where no journal of this process does.
    recovery: Option<RecoveryThread>,
    /// The file that knows countries, where this process counts.
    countries: Option<Arc<CountryFile>>,
}

impl Clicks {
    /// Opens the journal and the read model that the roles of `config` need, if they can be opened. Nothing is projected,
    /// published or connected yet. Without a `broker` the bus is local.
    ///
    /// # Errors
    /// [`StartError`] when read model or journals are another bus's.
    pub async fn open(config: &Config, broker: Option<BrokerConfig>, world: &World) -> Result<Self, StartError> {
        let surfaces = config.http.surfaces;
        let records = surfaces.redirect;
        // Whoever publishes has to know how far clicks are counted. Who counts publishes what others left behind.
        let (bus, publishes) = (bus(broker.as_ref()), (records || config.analytics) && broker.is_some());
        if records || config.analytics {
            refuse_other_kind(&journals(config), bus)?;
        }
        let model = (surfaces.api || config.analytics || publishes).then(|| Model::new(config, world));
        if let Some(model) = &model {
            model.open((config.analytics || publishes).then_some(bus)).await?;
        }
        let recording = records
            .then(|| Recording::new(journal_config(config, bus), Arc::clone(&world.clock), Arc::clone(&world.entropy)));
        if let Some(recording) = &recording
            && let Err(error) = recording.journal.open_once(OPEN_WITHIN).await
        {
            tracing::error!(%error, "starting without a click journal: clicks are dropped until it can be opened");
        }
        let recovers = config.analytics && recording.is_none();
        let recovery = recovers.then(|| recovery(config, bus, world)).transpose()?;
        let countries = config.clicks.countries.as_deref().filter(|_| config.analytics);
        let countries = countries.map(CountryFile::open);
        let (projection, relaying, reader, recorded) = (None, None, Arc::default(), Arc::default());
        let watch = (records || config.analytics).then(|| Watch::new(&journals(config)));
        Ok(Self { broker, recording, model, projection, relaying, reader, recorded, watch, recovery, countries })
    }

    /// Where redirects note their clicks.
    #[must_use]
    pub fn recording(&self) -> Option<Arc<dyn ClickRecording>> {
        self.recording.clone().map(|recording| Arc::new(recording) as Arc<dyn ClickRecording>)
    }

    /// What is known of clicks.
    #[must_use]
    pub fn stats(&self) -> Arc<dyn ClickStats> {
        self.model.as_ref().map_or_else(|| Arc::new(NoReadModel) as Arc<dyn ClickStats>, Model::stats)
    }

    /// What health reports tell of them.
    #[must_use]
    pub fn dependencies(&self, clock: &Arc<dyn Clock>) -> Vec<Arc<dyn DependencyHealth>> {
        let model = self.model.iter().map(Model::dependency);
        let counting = self.projection.as_ref().map(Projection::supervised);
        let works = (self.recording.is_some() || counting.is_some()).then(|| {
            let recording = self.recording.clone().map(|recording| (recording, Arc::clone(&self.recorded)));
            let (watch, clock) = (self.watch.clone(), Arc::clone(clock));
            Arc::new(ClickHealth { recording, counting, watch, clock }) as Arc<dyn DependencyHealth>
        });
        let bus = self.bus_health().map(|bus| Arc::new(bus) as Arc<dyn DependencyHealth>);
        let countries = self.countries.clone().map(|file| file as Arc<dyn DependencyHealth>);
        model.chain(works).chain(bus).chain(countries).collect()
    }

    /// What is known of the broker, if this process has anything to do with it.
    fn bus_health(&self) -> Option<BusHealth> {
        self.broker.as_ref()?;
        let relayed = self.relaying.as_ref().map(Relaying::relayed);
        let counting = self.projection.as_ref().map(Projection::supervised);
        let reader = counting.map(|counting| (Arc::clone(&self.reader), counting));
        (relayed.is_some() || reader.is_some()).then_some(BusHealth { relayed, reader })
    }

    /// Starts to publish what is recorded and to count, as far as that is this process's role.
    ///
    /// # Errors
    /// [`StartError`] when a thread can't be started.
    pub fn start(&mut self, config: &Config, holder: String, world: &World) -> Result<(), StartError> {
        let Some(model) = self.model.clone() else { return Ok(()) };
        if let Some(broker) = self.broker.as_ref().filter(|_| self.recording.is_some() || config.analytics) {
            let relay = RelayConfig::new(broker.clone(), journals(config));
            let of = match &self.recording {
                Some(recording) => RelayOf::Recording(recording.clone()),
                None => RelayOf::Remains(config.data_dir.clone()),
            };
            self.relaying = Some(Relaying::start(relays(relay, &model, world), of)?);
        }
        if config.analytics {
            self.project(config, &model, holder, world)?;
        }
        Ok(())
    }

    fn project(&mut self, config: &Config, model: &Model, holder: String, world: &World) -> Result<(), StartError> {
        let (read_model, countries) = (model.read_model(), self.countries.as_ref().map(|file| file.current()));
        let (config, clock, entropy) = (config.clone(), Arc::clone(&world.clock), Arc::clone(&world.entropy));
        // Its writes are transactions.
        let one_lease = matches!(model, Model::Sqlite(_));
        let (broker, recording, reader) = (self.broker.clone(), self.recording.clone(), Arc::clone(&self.reader));
        let begin = move |stopped: watch::Receiver<bool>| {
            let log: Box<dyn ClickLog> = match &broker {
                Some(broker) => {
                    let log = StreamLog::new(broker.clone(), entropy.as_ref()).map_err(|error| error.to_string())?;
                    reader.is(log.reading());
                    Box::new(log)
                }
                None => {
                    let journal = recording.as_ref().and_then(|recording| recording.journal.get().cloned());
                    Box::new(LocalLog::new(&journals(&config), journal))
                }
            };
            let settings = ProjectorConfig { one_lease, ..ProjectorConfig::new(bus(broker.as_ref()), holder.clone()) };
            let projector = Projector::new(
                settings,
                log,
                Arc::clone(&read_model),
                counting_by(&config, countries.clone()),
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
        if let Some(model) = &self.model {
            model.run(tasks);
        }
        self.countries.iter().for_each(|file| file.run(tasks));
        self.run_gauges(tasks, world);
    }

    fn run_gauges(&self, tasks: &mut Tasks, world: &World) {
        let (counting, bus) = (self.projection.as_ref().map(Projection::supervised), self.bus_health());
        let (recording, recorded, seen) = (self.recording.clone(), Arc::clone(&self.recorded), world.clone());
        let watch = self.watch.clone();
        tasks.every("click gauges", GAUGES_EVERY, move || {
            let (recording, counting, bus) = (recording.clone(), counting.clone(), bus.clone());
            let (recorded, watch, world) = (Arc::clone(&recorded), watch.clone(), seen.clone());
            async move {
                if let Some(bus) = bus {
                    bus.show(&world.metrics);
                }
                show_recorded(recording, &recorded, &world)
                    .await
                    .and(show_waiting(watch, counting.as_deref(), &world).await)
            }
        });
        if let (Some(model), Some(_)) = (&self.model, &self.broker) {
            let (model, metrics) = (model.read_model(), Arc::clone(&world.metrics));
            tasks.every("click positions", POSITIONS_EVERY, move || {
                let (model, metrics) = (Arc::clone(&model), Arc::clone(&metrics));
                async move { show_positions(model.as_ref(), &metrics).await }
            });
        }
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
        if let Some(relaying) = self.relaying {
            relaying.end(grace.left(least)).await;
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
        if let Some(model) = self.model {
            model.close(grace, least).await;
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

/// What makes relays of the journal that it gets and of all others in the data directory.
fn relays(
    config: RelayConfig,
    model: &Model,
    world: &World,
) -> impl FnMut(Option<Arc<Journal>>) -> Result<Relay, String> + Send + use<> {
    let (model, world) = (model.read_model(), world.clone());
    move |journal| {
        let needs = Arc::new(CheckpointNeeds(Arc::clone(&model)));
        let relay = Relay::new(config.clone(), journal, needs, Arc::clone(&world.clock), world.entropy.as_ref());
        relay.map_err(|error| error.to_string())
    }
}

/// What the read model is made for.
fn bus(broker: Option<&BrokerConfig>) -> Bus {
    broker.map_or(Bus::Local, |broker| Bus::Streams { partitions: broker.partitions() })
}

/// Over how many partitions the clicks of a block are spread.
fn partitions_of(bus: Bus) -> u16 {
    match bus {
        Bus::Local => LOCAL_PARTITIONS,
        Bus::Streams { partitions } => partitions,
    }
}

/// Blocks of the local bus are not split.
const LOCAL_PARTITIONS: u16 = 1;

/// Ends the start of a server that could not see how far clicks are counted, or what was counted: with links that several
/// servers share, a file in this data directory is read by this server alone, and so it has to count itself.
///
/// # Errors
/// [`StartError`].
pub(crate) fn refuse_lone_stats(config: &Config) -> Result<(), StartError> {
    let clicks = &config.clicks;
    let (shared, surfaces) = (config.store.is_marked(), config.http.surfaces);
    let lone = matches!(clicks.bus, BusConfig::Amqp(_)) && clicks.stats == StatsConfig::Sqlite && shared;
    if lone && !config.analytics && (surfaces.redirect || surfaces.api) {
        return Err(StartError::config(
            "stats=sqlite is a file that this server alone reads, and it does not count clicks (no role analytics): give \
             all servers one keyspace (TERSE_STATS=cql://...), or this one the role analytics too",
        ));
    }
    Ok(())
}

/// Ends the start if there are journals in `directory` that were made for another bus and are not drained.
fn refuse_other_kind(directory: &Path, bus: Bus) -> Result<(), StartError> {
    let told = |partitions| match partitions {
        LOCAL_PARTITIONS => "the local bus".to_owned(),
        streams => format!("{streams} streams of a message broker"),
    };
    match journal::other_kind(directory, partitions_of(bus)) {
        Ok(None) => Ok(()),
        Ok(Some(other)) => Err(StartError::config(format_args!(
            "journal {} was made for {}, not for {}, and is not drained: start with the TERSE_BUS it was made for until \
             its clicks are counted, then change the bus with a fresh read model (TERSE_STATS)",
            other.journal,
            told(other.partitions),
            told(partitions_of(bus)),
        ))),
        // Recording says more about it.
        Err(error) => {
            tracing::error!(%error, "what the journals were made for can't be read; starting all the same");
            Ok(())
        }
    }
}

fn recovery(config: &Config, bus: Bus, world: &World) -> Result<RecoveryThread, StartError> {
    let recovery = Recovery::new(&journals(config), partitions_of(bus), Arc::clone(&world.clock));
    let failed = |error| StartError::new(Exit::Internal, format_args!("cannot recover click journals: {error}"));
    RecoveryThread::start(recovery).map_err(failed)
}

fn journal_config(config: &Config, bus: Bus) -> JournalConfig {
    let clicks = &config.clicks;
    JournalConfig {
        budget_bytes: clicks.journal_bytes,
        sync: if clicks.journal_sync { SyncPolicy::Sealed } else { SyncPolicy::None },
        partitions: partitions_of(bus),
        obey_signals: clicks.obey_signals,
        ..JournalConfig::new(journals(config))
    }
}

/// Where the journals of a data directory are.
pub(crate) fn journals(config: &Config) -> PathBuf {
    config.data_dir.join(JOURNALS)
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

/// By what clicks are told apart that are counted as they come.
fn counting_by(config: &Config, countries: Option<Arc<CurrentCountries>>) -> Enrichment {
    let enrichment = enrichment_by(config, None);
    match countries {
        Some(current) => enrichment.following(current),
        None => enrichment,
    }
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

/// Brings the gauges of what is recorded up to date. Counting blocks reads directories, so not here.
async fn show_recorded(recording: Option<Recording>, recorded: &Recorded, world: &World) -> Result<(), StoreError> {
    let Some(recording) = recording else { return Ok(()) };
    let counts = on_disk("blocks of clicks can't be counted", move || recording.counts()).await?;
    recorded.note(&counts, world.clock.monotonic_ms());
    world.metrics.click_blocks_pending().set(i64::try_from(counts.pending).unwrap_or(i64::MAX));
    Ok(())
}

/// Brings the gauges of what waits, and of what is counted, up to date.
async fn show_waiting(watch: Option<Watch>, counting: Option<&Supervised>, world: &World) -> Result<(), StoreError> {
    let Some(watch) = watch else { return Ok(()) };
    let (looking, clock) = (watch.clone(), Arc::clone(&world.clock));
    let looked = on_disk("what waits in journals can't be looked at", move || looking.look_once(clock.as_ref())).await;
    let (metrics, now) = (&world.metrics, world.clock.now());
    let mut lag_ms = watch.lag_ms(now);
    if let Some(counting) = counting {
        let report = counting.report();
        let applied = metrics.clicks_applied();
        applied.inc_by(report.applied.saturating_sub(applied.get()));
        metrics.clicks_stopped(StoppedAt::Projector, report.stopped);
        lag_ms = lag_ms.max(report.lag_ms(now));
    }
    metrics.clicks_stopped(StoppedAt::Gap, watch.gaps());
    metrics.click_lag_seconds().set(lag_ms as f64 / 1_000.0);
    looked
}

/// Does what blocks on the disk.
async fn on_disk<T: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, StoreError> {
    let done = tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other).flatten();
    done.map_err(|error| StoreError::new(StoreErrorKind::Unavailable, format!("{what}: {error}")))
}

/// Brings up to date how far each stream is counted: by whoever does it, so that each server tells.
async fn show_positions(model: &dyn ReadModel, metrics: &Metrics) -> Result<(), StoreError> {
    for (partition, checkpoint) in model.checkpoints().await? {
        if let Partition::Stream(number) = partition {
            metrics.bus().counted(number, checkpoint.at.offset, checkpoint.until);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
