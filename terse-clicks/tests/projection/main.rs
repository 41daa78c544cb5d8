//! What the projector makes of a log, whatever happens: scenarios, and random logs with deaths at every await against
//! the model of `terse-testkit`.

#![allow(clippy::unwrap_used)]

mod lines;
mod log;
mod properties;
mod scenarios;
mod world;
