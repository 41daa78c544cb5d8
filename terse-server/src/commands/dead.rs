//! `terse dead`: what could not be counted, and what an operator decides about it, beside running servers.
//!
//! That is what lies in the `quarantine/` of the journals on this machine, and gaps that stop a journal; with a broker,
//! what is in its dead-letter queue, too. Nothing is decided here about what is counted: a requeued block or message
//! is counted by
//! the servers, once, whatever becomes of this command.

mod journals;
mod letters;

use std::collections::BTreeSet;
use std::io::{BufRead as _, IsTerminal as _, Write as _};

use serde_json::{Value, json};
use terse_core::{Clock, Timestamp};

use super::{note, say, table};
use crate::cli::{DeadAction, DeadOrder};
use crate::config::Config;
use crate::config::clicks::BusConfig;
use crate::data_dir;
use crate::exit::{Exit, StartError};
use crate::system::SystemClock;

/// Most characters of a reason in the table.
const MAX_SHOWN: usize = 100;

/// Something that could not be counted.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    id: String,
    /// `block`, `remains`, `gap` or `message`.
    kind: &'static str,
    reason: String,
    bytes: u64,
    clicks: Option<u64>,
    since: Option<Timestamp>,
    requeued: bool,
}

/// What became of an entry that was to be requeued or discarded.
struct Outcome {
    id: String,
    /// Why it was not.
    refused: Option<String>,
}

/// Where dead letters lie.
trait Desk {
    /// All of them.
    fn list(&self) -> Result<Vec<Entry>, StartError>;

    /// Has these counted. One that is gone by then is left out of the answer.
    fn requeue(&self, ids: &BTreeSet<String>) -> Result<Vec<Outcome>, StartError>;

    /// Gives these up. One that is gone by then is left out of the answer.
    fn discard(&self, ids: &BTreeSet<String>) -> Result<Vec<Outcome>, StartError>;
}

/// The journals of this machine, and the broker's letters. Only the ids of what is in a journal have a slash.
struct Both<'a> {
    journals: &'a dyn Desk,
    letters: &'a dyn Desk,
}

impl Both<'_> {
    fn each(
        &self,
        ids: &BTreeSet<String>,
        act: impl Fn(&dyn Desk, &BTreeSet<String>) -> Result<Vec<Outcome>, StartError>,
    ) -> Result<Vec<Outcome>, StartError> {
        let (journals, letters): (BTreeSet<String>, _) = ids.iter().cloned().partition(|id| id.contains('/'));
        let mut outcomes = Vec::new();
        for (desk, ids) in [(self.journals, &journals), (self.letters, &letters)] {
            if !ids.is_empty() {
                outcomes.extend(act(desk, ids)?);
            }
        }
        Ok(outcomes)
    }
}

impl Desk for Both<'_> {
    fn list(&self) -> Result<Vec<Entry>, StartError> {
        let (mut entries, letters) = (self.journals.list()?, self.letters.list()?);
        entries.extend(letters);
        Ok(entries)
    }

    fn requeue(&self, ids: &BTreeSet<String>) -> Result<Vec<Outcome>, StartError> {
        self.each(ids, |desk, ids| desk.requeue(ids))
    }

    fn discard(&self, ids: &BTreeSet<String>) -> Result<Vec<Outcome>, StartError> {
        self.each(ids, |desk, ids| desk.discard(ids))
    }
}

/// Does what was asked for.
pub(super) fn dead(config: &Config, action: &DeadAction) -> Result<(), StartError> {
    if config.clicks.bus == BusConfig::Local {
        data_dir::refuse_absent(&config.data_dir)?;
    }
    let journals = journals::Journals::new(config);
    let letters = letters::Letters::new(config);
    let both = Both { journals: &journals, letters: &letters };
    let desk: &dyn Desk = match config.clicks.bus {
        BusConfig::Local => &journals,
        BusConfig::Amqp(_) => &both,
    };
    match action {
        DeadAction::List { json } => list(desk, *json),
        DeadAction::Requeue(order) => {
            let chosen = chosen(desk, order)?;
            decided(desk.requeue(&ids(&chosen))?, order, "requeued")
        }
        DeadAction::Discard { order, yes } => {
            let chosen = chosen(desk, order)?;
            if !*yes && !chosen.is_empty() && !agreed(&chosen)? {
                note("nothing was discarded");
                return Ok(());
            }
            let outcomes = desk.discard(&ids(&chosen))?;
            note(&lost(&chosen, &outcomes));
            decided(outcomes, order, "discarded")
        }
    }
}

fn list(desk: &dyn Desk, as_json: bool) -> Result<(), StartError> {
    let entries = desk.list()?;
    if as_json {
        let all: Vec<Value> = entries.iter().map(in_json).collect();
        return say(&format!("{:#}", Value::Array(all)));
    }
    if entries.is_empty() {
        note("there is nothing that could not be counted");
        return Ok(());
    }
    say(&in_words(&entries, SystemClock::new().now()))
}

fn in_json(entry: &Entry) -> Value {
    json!({
        "id": entry.id,
        "kind": entry.kind,
        "reason": entry.reason,
        "bytes": entry.bytes,
        "clicks": entry.clicks,
        "since": entry.since.map(|at| at.to_string()),
        "requeued": entry.requeued,
    })
}

fn in_words(entries: &[Entry], now: Timestamp) -> String {
    const HEAD: [&str; 6] = ["ID", "KIND", "BYTES", "CLICKS", "AGE", "WHY"];
    let rows = entries.iter().map(|entry| {
        let why = if entry.requeued { "requeued: it is counted by the next server that can" } else { &entry.reason };
        [
            printable(&entry.id),
            entry.kind.to_owned(),
            entry.bytes.to_string(),
            entry.clicks.map_or("?".to_owned(), |clicks| clicks.to_string()),
            entry.since.map_or("?".to_owned(), |since| age(now.as_millis() - since.as_millis())),
            printable(why).chars().take(MAX_SHOWN).collect(),
        ]
    });
    let rows: Vec<[String; 6]> = std::iter::once(HEAD.map(str::to_owned)).chain(rows).collect();
    table(&rows)
}

/// What others wrote may not steer a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Milliseconds as people say them.
fn age(ms: i64) -> String {
    match ms.max(0) / 1_000 {
        seconds @ ..120 => format!("{seconds}s"),
        seconds @ ..7_200 => format!("{}m", seconds / 60),
        seconds @ ..172_800 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// What `order` names.
fn chosen(desk: &dyn Desk, order: &DeadOrder) -> Result<Vec<Entry>, StartError> {
    let entries = desk.list()?;
    if order.all {
        return Ok(entries);
    }
    if let Some(unknown) = order.ids.iter().find(|id| !entries.iter().any(|entry| entry.id == **id)) {
        let unknown = unknown.escape_debug();
        return Err(StartError::config(format_args!("there is no '{unknown}' (see terse dead list)")));
    }
    Ok(entries.into_iter().filter(|entry| order.ids.contains(&entry.id)).collect())
}

fn ids(entries: &[Entry]) -> BTreeSet<String> {
    entries.iter().map(|entry| entry.id.clone()).collect()
}

/// Asks whoever sits at the terminal. Without one nobody can be asked, and the command stands as it was given.
fn agreed(chosen: &[Entry]) -> Result<bool, StartError> {
    let input = std::io::stdin();
    if !input.is_terminal() {
        return Ok(true);
    }
    let failed = |error| StartError::new(Exit::Io, format_args!("cannot ask: {error}"));
    let mut out = std::io::stderr().lock();
    write!(out, "discard {} for ever? Type yes: ", told(chosen)).and_then(|()| out.flush()).map_err(failed)?;
    let mut answer = String::new();
    input.lock().read_line(&mut answer).map_err(failed)?;
    Ok(answer.trim() == "yes")
}

/// How much that is.
fn told(entries: &[Entry]) -> String {
    let clicks: u64 = entries.iter().filter_map(|entry| entry.clicks).sum();
    let unknown = entries.iter().filter(|entry| entry.clicks.is_none()).count();
    match unknown {
        0 => format!("{} with {clicks} clicks", entries.len()),
        _ => format!("{} with {clicks} clicks and those of {unknown} that nobody can count", entries.len()),
    }
}

fn lost(chosen: &[Entry], outcomes: &[Outcome]) -> String {
    let done: Vec<Entry> = chosen
        .iter()
        .filter(|entry| outcomes.iter().any(|outcome| outcome.id == entry.id && outcome.refused.is_none()))
        .cloned()
        .collect();
    format!("discarded: {}", told(&done))
}

/// Tells what was done. What was refused, named or one of all, ends the command with [`Exit::Unavailable`].
fn decided(outcomes: Vec<Outcome>, order: &DeadOrder, done: &str) -> Result<(), StartError> {
    let (kept, gone): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(|outcome| outcome.refused.is_some());
    if order.json {
        let refused: Vec<Value> =
            kept.iter().map(|outcome| json!({ "id": outcome.id, "reason": outcome.refused })).collect();
        let ids: Vec<&str> = gone.iter().map(|outcome| outcome.id.as_str()).collect();
        say(&format!("{:#}", json!({ done: ids, "refused": refused })))?;
    } else {
        for outcome in &gone {
            say(&format!("{done} {}", printable(&outcome.id)))?;
        }
    }
    let refused = |outcome: &Outcome| {
        let reason = outcome.refused.as_deref().unwrap_or_default();
        format!("{} was not {done}: {}", printable(&outcome.id), printable(reason))
    };
    match &kept[..] {
        [] => Ok(()),
        [only] if !order.all => Err(StartError::new(Exit::Unavailable, refused(only))),
        _ => {
            kept.iter().for_each(|outcome| note(&refused(outcome)));
            let text = format!("{} of {} were not {done}", kept.len(), kept.len() + gone.len());
            Err(StartError::new(Exit::Unavailable, text))
        }
    }
}

#[cfg(test)]
mod tests;
