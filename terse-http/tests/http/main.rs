//! The HTTP contract, checked over real sockets: statuses, headers, bodies.

#![allow(missing_docs, clippy::unwrap_used)]

mod access;
mod batch;
mod block;
mod book;
mod bounds;
mod breakers;
mod clicks;
mod ending;
mod lane;
mod lane_ends;
mod limits;
mod links;
mod log;
mod operation;
mod page;
mod preview;
mod protection;
mod recording;
mod redirects;
mod server;
mod stats;
mod wire;
