//! The project's own commands. Each command is a file (or folder) with its
//! logic in plain functions, so that what a command promises can be tested.
//!
//! `xtask` may print: its output is what it is for. It is compiled before
//! anything else happens, so its dependencies stay few and small.

#![allow(clippy::print_stdout, reason = "a command line's output is its result")]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod bench;
pub mod book;
pub mod claims;
pub mod drill;
pub mod lint;
pub mod load;
pub mod process;
pub mod services;
pub mod suite;
pub mod tools;
pub mod workspace;
