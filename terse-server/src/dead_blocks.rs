//! Keeps what was put aside of the journals within its bound, and tells of it in the metrics.
//!
//! Every process that records or counts on a data directory does so: one that counts puts blocks aside, one that
//! recovers does too, and either may be away.

use std::sync::Arc;
use std::time::Duration;

use terse_clicks::log::quarantine::Quarantine;
use terse_core::ports::{StoreError, StoreErrorKind};

use crate::clicks;
use crate::config::Config;
use crate::tasks::Tasks;
use crate::world::World;

/// How often it is looked at.
const EVERY: Duration = Duration::from_secs(5);
/// How long a look may take: it reads a directory per journal.
const WITHIN: Duration = Duration::from_secs(30);

/// Starts the task, where the roles of `config` have journals.
pub fn run(tasks: &mut Tasks, config: &Config, world: &World) {
    if !config.http.surfaces.redirect && !config.analytics {
        return;
    }
    let (quarantine, budget) = (Quarantine::new(&clicks::journals(config)), config.clicks.journal_bytes);
    let metrics = Arc::clone(&world.metrics);
    tasks.every_within("blocks put aside", EVERY, WITHIN, move || {
        let (quarantine, metrics) = (quarantine.clone(), Arc::clone(&metrics));
        async move {
            let kept = tokio::task::spawn_blocking(move || quarantine.keep_within(budget)).await;
            let aside = kept.map_err(std::io::Error::other).flatten().map_err(|error| {
                StoreError::new(StoreErrorKind::Unavailable, format!("blocks put aside can't be looked at: {error}"))
            })?;
            metrics.click_blocks_aside(aside.blocks, aside.bytes, aside.discarded);
            Ok(())
        }
    });
}
