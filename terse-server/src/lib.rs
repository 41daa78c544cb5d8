//! The binary `terse`: configuration, wiring, roles, subcommands, telemetry, shutdown.
//!
//! This is the only crate that reads flags, environment and files. A start is
//! [`config`] (raw texts, then checked values), [`application`] (the parts, in
//! order), [`shutdown`] (the same, backwards). Everything that can go wrong on
//! the way is a [`StartError`]: one readable line and an exit code.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod application;
pub mod blocking;
pub mod broker;
pub mod cache_gauges;
pub mod cli;
pub mod clicks;
mod commands;
pub mod config;
pub mod data_dir;
pub mod dead_blocks;
pub mod events;
pub mod exit;
pub mod identity;
mod kept_file;
pub mod key_directory;
pub mod key_uses;
pub mod limits;
pub mod links;
pub mod overload;
pub mod shared_cache;
pub mod shutdown;
pub mod stores;
pub mod system;
pub mod tasks;
pub mod telemetry;
mod visitor_keys;
pub mod warm_start;
pub mod world;

pub use application::Application;
pub use commands::run;
pub use config::Config;
pub use exit::{Exit, StartError};
pub use key_directory::KeyDirectory;
