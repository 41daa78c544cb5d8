//! From the journals of a data directory into a file.
//!
//! On one machine rows don't say what they include. So the deployment's read model is copied at one moment, and the log
//! projected up to the blocks that this copy includes. That both include exactly the same blocks is checked afterwards, by
//! the sets that they keep of them; else nothing is compared, for every difference could be one of the log.
//!
//! Bound: pages of [`RETIRED_PAGE`] retired journals.

use std::collections::BTreeMap;

use terse_clicks::log::ClickLog as _;
use terse_clicks::log::local::LocalLog;
use terse_clicks::projector::{Included, PassedError};
use terse_core::click::JournalId;
use terse_core::ports::clicks::{Bus, ReadModel as _};
use terse_core::stats::Partition;
use terse_store::SqliteReadModel;

use super::compare::compare;
use super::model::{Copy, Opened, Target, open};
use super::until::Until;
use super::{check_bus, projector, run, say, unreadable, verdict};
use crate::clicks;
use crate::config::Config;
use crate::data_dir;
use crate::exit::{Exit, StartError};

/// Retired journals that are read at once.
const RETIRED_PAGE: usize = 256;

/// Builds a read model of all that is kept.
pub(super) async fn build(config: &Config, into: &Target) -> Result<(), StartError> {
    data_dir::refuse_absent(&config.data_dir)?;
    let ends = all_that_is_kept(config).await?;
    let (fresh, journals) = (into.open().await?, ends.len());
    let clicks = project(config, &fresh, ends).await?;
    fresh.close();
    say(&built(into, clicks, journals))
}

fn built(into: &Target, clicks: u64, journals: usize) -> String {
    format!("replayed into {into}: clicks {clicks}, journals {journals}")
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
async fn project(config: &Config, fresh: &Opened, ends: BTreeMap<Partition, u64>) -> Result<u64, StartError> {
    let log = Until::new(Box::new(log(config)), ends);
    let left = log.left();
    let mut projector = projector(config, Bus::Local, Box::new(log), fresh).await?;
    run(&mut projector, || left.is_empty()).await?;
    projector.finish().await.map_err(|error| StartError::new(Exit::Internal, error))?;
    if let Some((partition, end)) = left.first() {
        let text = format!(
            "the click log can't be read up to block {end} of {partition}: a block before it is gone, or still written, \
             or waits for a server to recover it"
        );
        return Err(StartError::new(Exit::Unavailable, text));
    }
    Ok(projector.progress().report().applied)
}

/// Builds it up to where the deployment's read model is, and compares the two row by row.
pub(super) async fn verify(config: &Config, into: &Target) -> Result<(), StartError> {
    let copy = Copy::of(config, into)?;
    let live = open(&copy.path)?;
    check_bus(&Opened::Sqlite(live.clone()), Bus::Local).await?;
    let included = included(&live).await?;
    check_beginnings(&log(config), &included)?;
    let ends: BTreeMap<_, _> = included.journals().map(|(id, _, last)| (Partition::Journal(id), last)).collect();
    let journals = ends.len();
    let file = open_file(into)?;
    let fresh = Opened::Sqlite(file.clone());
    let replayed = project(config, &fresh, ends).await?;
    if let Some(block) = included.first_difference(&self::included(&file).await?) {
        let text = format!("the click log does not hold block {block} as it was counted: nothing can be compared");
        return Err(StartError::new(Exit::Unavailable, text));
    }
    let compared = compare(live.as_ref(), file.as_ref()).await?;
    live.close();
    fresh.close();
    say(&built(into, replayed, journals))?;
    say(&compared.to_string())?;
    verdict(&compared)
}

fn open_file(into: &Target) -> Result<std::sync::Arc<SqliteReadModel>, StartError> {
    match into {
        Target::File(path) => open(path),
        Target::Keyspace(_) => Err(StartError::new(Exit::Internal, "journals go into a file")),
    }
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
