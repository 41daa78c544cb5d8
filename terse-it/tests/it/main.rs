//! The binary from outside: each module takes one promise of the contract.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod abuse;
mod access;
mod amqp;
mod book;
mod broker;
mod clicks;
mod cluster;
mod command;
mod contract;
mod counting;
mod crash;
mod dead;
mod drills;
mod events;
mod faults;
mod fresh;
mod hostile;
mod idempotency;
mod listing;
mod operation;
mod page;
mod races;
mod reference;
mod schema;
mod validation;
