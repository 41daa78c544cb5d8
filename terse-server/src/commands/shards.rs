//! `terse shards`: where codes belong, how evenly they fall on shards, and what became of leased ids.

mod audit;
mod leases;
mod skew;

use terse_core::ShortCode;

use super::{note, say};
use crate::cli::ShardsAction;
use crate::config::Config;
use crate::exit::StartError;

pub(super) use self::leases::with_deployment;

/// Does what was asked for.
pub(super) fn shards(config: &Config, action: &ShardsAction) -> Result<(), StartError> {
    match action {
        ShardsAction::Show { codes } => show(config, codes),
        ShardsAction::Skew(order) => skew::skew(config, order),
        ShardsAction::Leases(order) => leases::leases(config, order),
    }
}

/// Prints slot, shard and store of each code, whether it has a link or not. It needs the map alone, no store.
fn show(config: &Config, codes: &[String]) -> Result<(), StartError> {
    let mut lines = vec![];
    for text in codes {
        let code = ShortCode::parse(text)
            .map_err(|error| StartError::config(format_args!("'{}' {error}", text.escape_debug())))?;
        let number = config.store.map.shard_of(code.slot());
        let shard = &config.store.shards[number];
        lines.push(format!("{code} slot {} shard {} on {}", code.slot().number(), shard.name, shard.backend));
    }
    say(&lines.join("\n"))?;
    if let [word @ ("skew" | "leases")] = codes.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        note(&format!("note: this is the code '{word}'; there is a command terse shards {word}, too"));
    }
    Ok(())
}
