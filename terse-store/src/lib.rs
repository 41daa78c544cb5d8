//! Links on memory, SQLite and CQL, sharding by slot, migrations, and the
//! conformance suite of every backend (in `tests/conformance`).
//!
//! [`SqliteStore`] is the embedded default, [`CqlStore`] a cluster of Cassandra
//! or ScyllaDB, [`MemoryStore`] is for tests and benchmarks, [`Sharded`] spreads links over several stores by the slot of
//! their code, [`Guarded`] keeps a shard's faults in that shard. All of them
//! implement the ports of [`terse_core::ports`]; no driver appears in a public
//! signature.
//!
//! [`SqliteReadModel`] and [`CqlReadModel`] keep what is known of clicks ([`terse_core::ports::clicks`]), each in a
//! store of its own; `tests/read_model` is the contract of both.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod core_clock;
mod cql;
mod guarded;
mod identity;
mod lenient;
mod memory;
mod operation;
mod shard_map;
mod sharded;
mod sqlite;
mod sqlite_file;
mod stats;

pub use core_clock::CoreClock;
pub use cql::{CqlConfig, CqlLimits, CqlReadModel, CqlReadModelConfig, CqlStore, ReadModelBounds};
pub use guarded::{
    CatalogSettings, GuardSettings, Guarded, GuardedStats, LaneSettings, MarksSettings, StatsGuardSettings,
    watched_breaker,
};
pub use identity::{DEPLOYMENT_SETTING, IdentityError, SLOTS_SETTING, Share};
pub use memory::MemoryStore;
pub use shard_map::{ShardMap, ShardMapError};
pub use sharded::Sharded;
pub use sqlite::{SqliteConfig, SqliteStore};
pub use stats::{MemoryReadModel, SqliteReadModel, SqliteReadModelConfig};
