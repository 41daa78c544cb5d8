//! Capacity estimates of a URL shortener, and the questions of the quiz.
//!
//! Everything here is arithmetic: inputs with names and units go in, results
//! with names, units and formulas come out, and nothing is read, written or
//! measured. `terse estimate`, the book, its claims and the quiz all take their
//! numbers from [`Inputs::results`], so they can't differ from one another.
//!
//! Bounds: each input has a least and a greatest value ([`FIELDS`]); within
//! them every result is finite. A quiz has at most [`quiz::MAX_QUESTIONS`]
//! questions.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod inputs;
mod number;
mod presets;
pub mod quiz;
mod render;
mod results;
mod zipf;

pub use inputs::{FIELDS, Field, InputError, Inputs, Period};
pub use number::{NumberError, Unit, parse_number};
pub use presets::{PRESETS, Preset, Quote, Verdict};
pub use render::{Form, render};
pub use results::{Outcome, Results};
pub use zipf::head_share;
