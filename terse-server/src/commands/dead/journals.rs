//! What could not be counted, or relayed, of the journals on this machine.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use terse_clicks::log::quarantine::{DeadBlock, DeadKind, Quarantine, RequeueError};
use terse_core::click::JournalId;
use terse_core::ports::StoreError;
use terse_core::ports::clicks::ReadModel;
use terse_core::stats::Partition;
use terse_store::{SqliteReadModel, SqliteReadModelConfig};

use super::{Desk, Entry, Outcome};
use crate::clicks;
use crate::commands::in_runtime;
use crate::config::Config;
use crate::config::clicks::BusConfig;
use crate::exit::{Exit, StartError};

/// Most blocks that are listed.
const MAX_LISTED: usize = 10_000;

/// The journals of a data directory.
pub(super) struct Journals {
    quarantine: Quarantine,
    /// The read model that is made of them; `None` = they are relayed.
    stats: Option<PathBuf>,
}

impl Journals {
    pub(super) fn new(config: &Config) -> Self {
        let stats = (config.clicks.bus == BusConfig::Local).then(|| clicks::stats_file(config));
        Self { quarantine: Quarantine::new(&clicks::journals(config)), stats }
    }

    fn blocks(&self) -> Result<Vec<DeadBlock>, StartError> {
        let mut blocks = self.quarantine.list(MAX_LISTED).map_err(|error| unreadable(&error))?;
        for (journal, next) in self.positions()? {
            blocks.extend(self.quarantine.gap(journal, next, SystemTime::now()).map_err(|error| unreadable(&error))?);
        }
        Ok(blocks)
    }

    /// The next block that is needed of each journal that is being counted.
    fn positions(&self) -> Result<BTreeMap<JournalId, u64>, StartError> {
        let journals = self.quarantine.journals().map_err(|error| unreadable(&error))?;
        let stats = self.stats.as_ref().filter(|stats| !journals.is_empty() && stats.exists());
        let Some(stats) = stats else {
            let noted = |journal| Ok((journal, self.quarantine.noted(journal)?));
            return journals.into_iter().map(noted).collect::<io::Result<_>>().map_err(|error| unreadable(&error));
        };
        in_runtime(async {
            let failed = |error: StoreError| clicks::failed(&error);
            let model = SqliteReadModel::open(SqliteReadModelConfig::new(stats)).map_err(failed)?;
            let positions = positions(&model, &journals).await;
            model.close();
            positions.map_err(failed)
        })
    }

    /// Does `act` with each block that has one of `ids`.
    fn each(
        &self,
        ids: &BTreeSet<String>,
        act: impl Fn(&DeadBlock) -> Result<Option<String>, StartError>,
    ) -> Result<Vec<Outcome>, StartError> {
        let blocks = self.blocks()?;
        let chosen = blocks.iter().filter(|block| ids.contains(&block.id()));
        chosen.map(|block| Ok(Outcome { id: block.id(), refused: act(block)? })).collect()
    }
}

async fn positions(
    model: &Arc<SqliteReadModel>,
    journals: &[JournalId],
) -> Result<BTreeMap<JournalId, u64>, StoreError> {
    let mut positions = BTreeMap::new();
    for journal in journals {
        let partition = Partition::Journal(*journal);
        match model.checkpoint(partition).await? {
            Some(checkpoint) => drop(positions.insert(*journal, checkpoint.at.offset + 1)),
            None if model.retired(partition, *journal).await?.is_none() => drop(positions.insert(*journal, 0)),
            None => {}
        }
    }
    Ok(positions)
}

impl Desk for Journals {
    fn list(&self) -> Result<Vec<Entry>, StartError> {
        Ok(self.blocks()?.iter().map(entry).collect())
    }

    fn requeue(&self, ids: &BTreeSet<String>) -> Result<Vec<Outcome>, StartError> {
        self.each(ids, |block| match self.quarantine.requeue(block) {
            Ok(()) => Ok(None),
            Err(RequeueError::Disk(error)) => Err(unwritable(&error)),
            Err(refused) => Ok(Some(refused.to_string())),
        })
    }

    fn discard(&self, ids: &BTreeSet<String>) -> Result<Vec<Outcome>, StartError> {
        self.each(ids, |block| {
            // A server may be counting it right now.
            if block.requeued {
                return Ok(Some("it is requeued, and counted by the next server that can".to_owned()));
            }
            self.quarantine.discard(block).map(|()| None).map_err(|error| unwritable(&error))
        })
    }
}

fn entry(block: &DeadBlock) -> Entry {
    Entry {
        id: block.id(),
        kind: match block.kind {
            DeadKind::Block(_) => "block",
            DeadKind::Remains(_) => "remains",
            DeadKind::Gap(..) => "gap",
        },
        reason: block.reason.clone(),
        bytes: block.bytes,
        clicks: block.clicks,
        since: block.since,
        requeued: block.requeued,
    }
}

fn unreadable(error: &io::Error) -> StartError {
    StartError::new(Exit::Io, format_args!("the journals can't be read: {error}"))
}

fn unwritable(error: &io::Error) -> StartError {
    StartError::new(Exit::Io, format_args!("the journals can't be written: {error}"))
}
