//! Tests of the program `terse` itself: its command line, configuration, keys,
//! start and end. One binary, modules inside.
#![allow(clippy::unwrap_used)]

mod blocked;
mod config;
mod end;
mod keys;
mod limits;
mod program;
mod replay;
mod shards;
mod start;
mod warm;
