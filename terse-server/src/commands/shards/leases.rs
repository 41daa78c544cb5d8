//! `terse shards leases`: the audit of leased ids, for people and for programs.

use serde_json::{Value, json};
use terse_core::codegen::{CodeSpace, IDS};
use terse_store::DEPLOYMENT_SETTING;

use super::audit::{Audit, AuditError, Block, Scope, audit};
use crate::cli::LeasesOrder;
use crate::commands::{in_runtime, say, table};
use crate::config::Config;
use crate::exit::{Exit, StartError};
use crate::identity::{self, Identity};
use crate::stores::{Patience, Stores, store_failure};
use crate::system::OsEntropy;
use crate::world::World;

/// Ids at most whose links one audit reads.
const MAX_IDS_READ: u64 = 10_000_000;

/// Prints the audit. Ids that were leased twice end it with [`Exit::Internal`].
pub(super) fn leases(config: &Config, order: &LeasesOrder) -> Result<(), StartError> {
    let scope = Scope { from: order.from, blocks: order.limit, ids: MAX_IDS_READ };
    let audit = with_deployment(config, async |stores, identity| {
        let Some(identity) = identity else { return Ok(Audit::default()) };
        let space = CodeSpace::new(identity.permutation_key);
        let found = audit(stores.home().as_ref(), stores.links.as_ref(), &space, scope).await;
        found.map_err(|error| failure(config, &error))
    })?;
    say(&if order.json { format!("{:#}", in_json(&audit)) } else { in_words(&audit) })?;
    verdict(&audit)
}

/// Ids that were leased twice are a fault of terse: whoever runs this from a script shall notice.
fn verdict(audit: &Audit) -> Result<(), StartError> {
    match audit.overlaps.len() {
        0 => Ok(()),
        number => Err(StartError::new(
            Exit::Internal,
            format_args!("ids were leased twice (overlaps: {number}): stop the servers and restore the counter"),
        )),
    }
}

/// Opens the stores and does `work` with them and the deployment's identity; there is none before the first start.
pub(in crate::commands) fn with_deployment<T>(
    config: &Config,
    work: impl AsyncFnOnce(&Stores, Option<Identity>) -> Result<T, StartError>,
) -> Result<T, StartError> {
    in_runtime(async {
        let stores = Stores::open(config, &World::real())?;
        let outcome = match deployment(config, &stores).await {
            Ok(identity) => work(&stores, identity).await,
            Err(error) => Err(error),
        };
        stores.close();
        outcome
    })
}

/// The identity, if there is one; looking makes none.
async fn deployment(config: &Config, stores: &Stores) -> Result<Option<Identity>, StartError> {
    let away = stores.connect(Patience::One).await?;
    if let Some(away) = away.first() {
        return Err(store_failure(&config.store.shards[away.shard].name, &away.error));
    }
    let known = stores.shards()[0].settings().setting(DEPLOYMENT_SETTING).await;
    match known.map_err(|error| store_failure(&config.store.shards[0].name, &error))? {
        None => Ok(None),
        Some(_) => identity::settle(config, stores, &OsEntropy).await.map(Some),
    }
}

fn failure(config: &Config, error: &AuditError) -> StartError {
    let (shard, error) = match error {
        AuditError::Leases(error) => (0, error),
        AuditError::Link(code, error) => (config.store.map.shard_of(code.slot()), error),
    };
    store_failure(&config.store.shards[shard].name, error)
}

/// The ids of a block or a range, the last one included.
fn span(ids: &std::ops::Range<u64>) -> String {
    format!("{}-{}", ids.start, ids.end.saturating_sub(1))
}

/// A holder's name comes from another host: nothing in it may steer a terminal.
fn printable(holder: &str) -> String {
    holder.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn in_words(audit: &Audit) -> String {
    if audit.blocks.is_empty() {
        return "no ids were leased here yet".to_owned();
    }
    let mut lines = vec![table(&rows(&audit.blocks))];
    for ids in &audit.unrecorded {
        lines.push(format!("no record: ids {} ({}) are below leased ids", span(ids), ids.end - ids.start));
    }
    for overlap in &audit.overlaps {
        let [one, other] = overlap.of.map(|number| {
            let lease = &audit.blocks[number].lease;
            format!("{} by {} at {}", span(&lease.ids), printable(&lease.holder), lease.leased_at)
        });
        lines.push(format!("OVERLAP! IDS {} WERE LEASED TWICE: {one}, and {other}", span(&overlap.ids)));
    }
    lines.extend(remarks(audit));
    lines.join("\n")
}

fn rows(blocks: &[Block]) -> Vec<[String; 6]> {
    let head = ["IDS", "HOLDER", "LEASED", "LINKS", "UNUSED", "STATE"].map(str::to_owned);
    let count = |number: Option<u64>| number.map_or("-".to_owned(), |number| number.to_string());
    let row = |block: &Block| {
        [
            span(&block.lease.ids),
            printable(&block.lease.holder),
            block.lease.leased_at.to_string(),
            count(block.found.map(|found| found.links)),
            count(block.unused()),
            block.state().as_str().to_owned(),
        ]
    };
    std::iter::once(head).chain(blocks.iter().map(row)).collect()
}

/// The summary, and what else there is to say.
fn remarks(audit: &Audit) -> Vec<String> {
    let sum = audit.summary();
    let mut lines = vec![format!(
        "blocks: {}, ids leased: {}, links found: {}, gaps: {} ids (blocks: {}), open?: {} ids (blocks: {}), overlaps: {}",
        audit.blocks.len(),
        sum.ids,
        sum.links,
        sum.gap_ids,
        sum.gap_blocks,
        sum.open_ids,
        sum.open_blocks,
        audit.overlaps.len()
    )];
    if sum.older > 0 {
        lines.push(format!(
            "links older than the lease of their id: {}; aliases that happen to be its code, or a counter that went back",
            sum.older
        ));
    }
    if let Some(unread) = audit.blocks.iter().find(|block| block.found.is_none()) {
        lines.push(format!(
            "blocks whose links were not read: {}; one run reads {MAX_IDS_READ} ids at most, see --from {}",
            sum.unread_blocks, unread.lease.ids.start
        ));
    }
    lines.extend(audit.next.map(|next| format!("more blocks follow: see --from {next}")));
    lines
}

fn in_json(audit: &Audit) -> Value {
    let ids = |ids: &std::ops::Range<u64>| json!({"first": ids.start, "last": ids.end.saturating_sub(1)});
    let block = |block: &Block| {
        json!({
            "first": block.lease.ids.start,
            "last": block.lease.ids.end.saturating_sub(1),
            "holder": block.lease.holder,
            "leased_at": block.lease.leased_at.to_string(),
            "links": block.found.map(|found| found.links),
            "older_links": block.found.map(|found| found.older),
            "reserved": block.found.map(|found| found.reserved),
            "unused": block.unused(),
            "state": block.state().as_str(),
        })
    };
    let overlaps = audit.overlaps.iter().map(|overlap| {
        let mut told = ids(&overlap.ids);
        told["blocks"] = overlap.of.iter().map(|number| audit.blocks[*number].lease.ids.start).collect();
        told
    });
    let sum = audit.summary();
    json!({
        "counter": IDS,
        "blocks": audit.blocks.iter().map(block).collect::<Vec<_>>(),
        "unrecorded": audit.unrecorded.iter().map(ids).collect::<Vec<_>>(),
        "overlaps": overlaps.collect::<Vec<_>>(),
        "summary": {
            "blocks": audit.blocks.len(),
            "ids": sum.ids,
            "links": sum.links,
            "older_links": sum.older,
            "gap_ids": sum.gap_ids,
            "gap_blocks": sum.gap_blocks,
            "open_ids": sum.open_ids,
            "open_blocks": sum.open_blocks,
            "unread_blocks": sum.unread_blocks,
        },
        "next_from": audit.next,
    })
}

#[cfg(test)]
mod tests;
