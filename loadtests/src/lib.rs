//! Load tests of a terse server, on goose: the scenarios by name, what each
//! asks and how often, what a right answer is, and what makes a run fail.
//!
//! Requests are due by a plan (open loop), whatever the server does; a request
//! that leaves late, because all users still wait for answers, is counted as
//! late and its latency runs from when it was due. What has not left
//! [`attack::ANSWER_LIMIT`] after the end of the plan never does, and counts as
//! late, so that a server that answers nothing can't prolong a run. Redirects
//! are not followed. Every answer is checked: status, and where it leads.
//!
//! `k6/` has the same scenarios under the same names for k6.
//!
//! Bounds: users ([`attack::Size`]) are requests under way at most; an answer
//! may take [`attack::ANSWER_LIMIT`]; of wrong answers [`ledger::SAMPLES`] are told in full.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod attack;
pub mod draw;
pub mod judge;
pub mod ledger;
pub mod plan;
pub mod progress;
pub mod scenario;
pub mod seed;
pub mod verdict;
