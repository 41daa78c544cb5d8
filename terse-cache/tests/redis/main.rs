//! The shared cache on a real Redis.
//!
//! `TERSE_REDIS` names one that is shared with whoever else tests, so each
//! check has a namespace of its own. A Redis that is to be stopped, killed or
//! filled is started by the test that does so, on a port of its own.
#![allow(missing_docs, clippy::unwrap_used)]

mod limits;
mod outages;
mod refusals;
mod service;
mod setup;
mod values;
mod versions;
mod wire;
