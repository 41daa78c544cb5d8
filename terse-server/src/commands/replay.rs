//! `terse replay`: a read model built anew from what the click log retains, and compared with the deployment's.
//!
//! It works beside running servers and touches nothing of theirs: journals are only read, the read model is only
//! copied. To compare two read models they must include the same clicks, and the deployment's never stands still. So
//! the comparison is with a *copy* of one moment, and the log is projected up to the blocks that this copy includes and
//! no further ([`until`]). That both include exactly the same blocks is checked afterwards, by the sets that they keep
//! of them; else nothing is compared, for every difference could be one of the log.
//!
//! Bounds: [`MAX_IDLE_STEPS`] and [`MAX_FAULTS`] of the projection, pages of [`RETIRED_PAGE`] retired journals, and those
//! of [`compare`].

mod compare;
mod until;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use terse_clicks::log::local::LocalLog;
use terse_clicks::log::{ClickLog, LogError};
use terse_clicks::projector::{Included, PassedError, Projector, ProjectorConfig, ProjectorError, Step};
use terse_core::click::JournalId;
use terse_core::ports::clicks::{Bus, ReadModel};
use terse_core::stats::Partition;
use terse_store::{SqliteReadModel, SqliteReadModelConfig};

use self::compare::Comparison;
use self::until::{Left, Until};
use super::{in_runtime, say};
use crate::cli::ReplayOrder;
use crate::clicks;
use crate::config::Config;
use crate::config::address::CqlAddress;
use crate::config::clicks::BusConfig;
use crate::exit::{Exit, StartError};
use crate::telemetry;
use crate::world::World;

/// How long one step waits for the log, in milliseconds.
const WAIT_MS: u64 = 500;
/// After so many steps in a row that found nothing, what is left is not there.
const MAX_IDLE_STEPS: u32 = 4;
/// So many steps may fail, all in all.
const MAX_FAULTS: u32 = 20;
/// Retired journals that are read at once.
const RETIRED_PAGE: usize = 256;
/// What follows the name of the fresh read model in that of the copy of the deployment's.
const COPY_SUFFIX: &str = ".compared";

/// Builds the read model, and compares it if that is wanted.
pub(super) fn replay(config: &Config, order: &ReplayOrder) -> Result<(), StartError> {
    let into = target(config, &order.into)?;
    telemetry::start(&config.log.filter, config.log.format)?;
    in_runtime(async {
        if order.verify {
            verify(config, &into).await
        } else {
            let ends = all_that_is_kept(config).await?;
            let fresh = open(&into)?;
            let clicks = project(config, &fresh, ends.clone()).await?;
            fresh.close();
            say(&built(&into, clicks, ends.len()))
        }
    })
}

/// Where the read model is to be built: a file that isn't there, or is empty.
fn target(config: &Config, into: &str) -> Result<PathBuf, StartError> {
    if let BusConfig::Amqp(_) = config.clicks.bus {
        let version = env!("CARGO_PKG_VERSION");
        let text = format!("replay from a message broker: not in this version ({version}) yet");
        return Err(StartError::new(Exit::Unavailable, text));
    }
    if into.starts_with("cql:") {
        CqlAddress::parse(into).map_err(|fault| StartError::config(format_args!("--into: {fault}")))?;
        return Err(StartError::config(
            "--into: a keyspace needs a message broker (TERSE_BUS): journals on this machine go into a SQLite file",
        ));
    }
    let path = PathBuf::from(into);
    match std::fs::metadata(&path) {
        Ok(found) if found.is_file() && found.len() == 0 => Ok(path),
        Ok(_) => Err(StartError::config(format_args!("--into: {into} is there already, and replay builds only anew"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(path),
        Err(error) => Err(StartError::new(Exit::CannotCreate, format_args!("--into: {into}: {error}"))),
    }
}

fn open(path: &Path) -> Result<Arc<SqliteReadModel>, StartError> {
    SqliteReadModel::open(SqliteReadModelConfig::new(path)).map_err(|error| clicks::failed(&error))
}

fn built(into: &Path, clicks: u64, journals: usize) -> String {
    format!("replayed into {}: clicks {clicks}, journals {journals}", into.display())
}

/// The journals with the last block that is sealed now.
async fn all_that_is_kept(config: &Config) -> Result<BTreeMap<Partition, u64>, StartError> {
    let mut log = log(config);
    let mut ends = BTreeMap::new();
    for partition in log.partitions().await.map_err(|error| unreadable(&error))? {
        if let Some(end) = log.ends_at(partition).map_err(|error| unreadable(&error))? {
            ends.insert(partition, end);
        }
    }
    Ok(ends)
}

fn log(config: &Config) -> LocalLog {
    LocalLog::for_replay(&clicks::journals(config))
}

/// Projects the log up to `ends` onto `fresh`; how many clicks that were.
async fn project(
    config: &Config,
    fresh: &Arc<SqliteReadModel>,
    ends: BTreeMap<Partition, u64>,
) -> Result<u64, StartError> {
    let world = World::real();
    let log = Until::new(Box::new(log(config)), ends);
    let left = log.left();
    let projector = Projector::new(
        ProjectorConfig::new(Bus::Local, format!("replay {}", std::process::id())),
        Box::new(log),
        Arc::clone(fresh) as Arc<dyn ReadModel>,
        clicks::enrichment(config)?,
        Arc::clone(&world.clock),
        world.entropy.as_ref(),
    );
    let mut projector = projector.map_err(|error| StartError::new(Exit::Internal, error))?;
    run(&mut projector, &left).await.map_err(|error| StartError::new(Exit::Internal, error))?;
    let report = projector.progress().report();
    if report.superseded > 0 {
        return Err(StartError::config("--into: somebody else writes there"));
    }
    if let Some((partition, end)) = left.first() {
        let text = format!(
            "the click log can't be read up to block {end} of {partition}: a block before it is gone, or still written, \
             or waits for a server to recover it"
        );
        return Err(StartError::new(Exit::Unavailable, text));
    }
    Ok(report.applied)
}

/// Runs `projector` until nothing is `left`, or nothing comes any more.
async fn run(projector: &mut Projector, left: &Left) -> Result<(), ProjectorError> {
    let (mut idle, mut faults) = (0, 0);
    while !left.is_empty() && idle < MAX_IDLE_STEPS && faults < MAX_FAULTS {
        let step = projector.run_once(WAIT_MS).await?;
        idle = if step.taken == 0 && !step.wrote { idle + 1 } else { 0 };
        faults += pause(step).await;
    }
    loop {
        let failed = pause(projector.write_now().await?).await;
        faults += failed;
        if failed == 0 || faults >= MAX_FAULTS {
            return projector.finish().await;
        }
    }
}

/// Waits as `step` asks to; 1 after a fault.
async fn pause(step: Step) -> u32 {
    if step.pause_ms == 0 {
        return 0;
    }
    tokio::time::sleep(Duration::from_millis(step.pause_ms)).await;
    1
}

/// Builds it up to where the deployment's read model is, and compares the two row by row.
async fn verify(config: &Config, into: &Path) -> Result<(), StartError> {
    let copy = Copy::of(config, into)?;
    let live = open(&copy.path)?;
    check_bus(&live).await?;
    let included = included(&live).await?;
    check_beginnings(&log(config), &included)?;
    let ends: BTreeMap<_, _> = included.journals().map(|(id, _, last)| (Partition::Journal(id), last)).collect();
    let journals = ends.len();
    let fresh = open(into)?;
    let replayed = project(config, &fresh, ends).await?;
    if let Some(block) = included.first_difference(&self::included(&fresh).await?) {
        let text = format!("the click log does not hold block {block} as it was counted: nothing can be compared");
        return Err(StartError::new(Exit::Unavailable, text));
    }
    let compared = compare::compare(live.as_ref(), fresh.as_ref()).await.map_err(|error| clicks::failed(&error))?;
    live.close();
    fresh.close();
    say(&built(into, replayed, journals))?;
    say(&compared.to_string())?;
    verdict(&compared)
}

fn verdict(compared: &Comparison) -> Result<(), StartError> {
    match compared.different() {
        0 => Ok(()),
        rows => {
            let text = format!("rows of the read model that are not what the click log says: {rows}");
            Err(StartError::new(Exit::Different, text))
        }
    }
}

async fn check_bus(live: &SqliteReadModel) -> Result<(), StartError> {
    let stands = live.settle_bus(Bus::Local).await.map_err(|error| clicks::failed(&error))?;
    let other = ProjectorError::OtherBus { stands, asked: Bus::Local };
    if stands == Bus::Local { Ok(()) } else { Err(StartError::config(other)) }
}

/// The blocks that `model` includes.
async fn included(model: &SqliteReadModel) -> Result<Included, StartError> {
    let unread = |error: PassedError| StartError::new(Exit::Io, error);
    let mut included = Included::default();
    let mut after: Option<JournalId> = None;
    loop {
        let page = model.retired_journals(after, RETIRED_PAGE).await.map_err(|error| clicks::failed(&error))?;
        for (journal, retired) in &page {
            included.add_retired(*journal, &retired.passed).map_err(unread)?;
        }
        after = page.last().map(|(journal, _)| *journal);
        if page.len() < RETIRED_PAGE {
            break;
        }
    }
    for (_, checkpoint) in model.checkpoints().await.map_err(|error| clicks::failed(&error))? {
        included.add_checkpoint(&checkpoint.passed).map_err(unread)?;
    }
    Ok(included)
}

/// Fails if the log no longer begins where it once did.
fn check_beginnings(log: &LocalLog, included: &Included) -> Result<(), StartError> {
    for (journal, first, _) in included.journals() {
        let begins = log.begins_at(Partition::Journal(journal)).map_err(|error| unreadable(&error))?;
        if begins.is_none_or(|begins| begins > first) {
            let text = format!(
                "the click log no longer begins at its first block, {journal}/{first}: what was counted can't be \
                 verified any more, only built anew without --verify from what is left"
            );
            return Err(StartError::new(Exit::Unavailable, text));
        }
    }
    Ok(())
}

fn unreadable(error: &LogError) -> StartError {
    StartError::new(Exit::Io, error)
}

/// A copy of the deployment's read model, as it was at one moment; it is gone when this is dropped.
struct Copy {
    path: PathBuf,
}

impl Copy {
    fn of(config: &Config, into: &Path) -> Result<Self, StartError> {
        let from = clicks::stats_file(config);
        if !from.exists() {
            let text = format!("there is no read model to compare with: {} is missing", from.display());
            return Err(StartError::config(text));
        }
        let mut path = into.as_os_str().to_owned();
        path.push(COPY_SUFFIX);
        let path = PathBuf::from(path);
        if path.exists() {
            return Err(StartError::config(format_args!("{} is in the way; remove it", path.display())));
        }
        let copy = Self { path };
        SqliteReadModel::copy(&from, &copy.path).map_err(|error| clicks::failed(&error))?;
        Ok(copy)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        for suffix in ["", "-wal", "-shm"] {
            let mut path = self.path.as_os_str().to_owned();
            path.push(suffix);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(path = %Path::new(&path).display(), %error, "a copy was not removed");
                }
                _ => {}
            }
        }
    }
}
