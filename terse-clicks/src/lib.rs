//! The click log: clicks are recorded in blocks before the redirect's answer
//! leaves, blocks reach a log, and a projector makes the read model out of it.
//!
//! | module | what it owns |
//! |---|---|
//! | [`record`] | the bytes of one click |
//! | [`frame`] | records one behind the other, each with its checksum: what blocks and parts are made of |
//! | [`part`] | the bytes of a message: the clicks of one block that belong to one partition |
//! | [`journal`] | blocks on disk: recording, sealing, recovery, the disk budget |
//! | [`log`] | what the projector reads from, and the local bus |
//! | [`rabbit`] | RabbitMQ as the log: the relay to its streams, and reading them |
//! | [`enrich`] | what a click's texts mean: browser, country, bot |
//! | [`projector`] | the log's parts, applied to the rows of the read model |

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod enrich;
pub mod frame;
pub mod journal;
pub mod log;
mod outage;
pub mod part;
pub mod projector;
pub mod rabbit;
pub mod record;
