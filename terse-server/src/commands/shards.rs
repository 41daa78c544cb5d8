//! `terse shards show`: where codes belong.

use terse_core::ShortCode;

use super::{later, say};
use crate::config::Config;
use crate::exit::StartError;

/// Prints slot, shard and store of each code. It needs the map alone, no store.
pub(super) fn show(config: &Config, what: &[String]) -> Result<(), StartError> {
    if let [word] = what
        && (word == "skew" || word == "leases")
    {
        return Err(later(&format!("shards show {word}")));
    }
    let mut lines = vec![];
    for text in what {
        let code = ShortCode::parse(text)
            .map_err(|error| StartError::config(format_args!("'{}' {error}", text.escape_debug())))?;
        let number = config.store.map.shard_of(code.slot());
        let shard = &config.store.shards[number];
        lines.push(format!("{code} slot {} shard {} on {}", code.slot().number(), shard.name, shard.backend));
    }
    say(&lines.join("\n"))
}
