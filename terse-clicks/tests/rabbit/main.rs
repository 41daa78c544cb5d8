//! The click log over a real RabbitMQ: blocks of a journal, relayed to streams, read, projected, counted once.
//!
//! `TERSE_AMQP` names the broker (`amqp://user:password@host:port/vhost`). Each test has exchanges and queues of its
//! own, which are removed at its end. Outages are made by a proxy in between, so that tests can run side by side. A
//! broker that is killed, stopped or starved itself is a matter of the drills (`clicks-broker-…`, `clicks-stop-…`).
#![allow(missing_docs, clippy::unwrap_used)]

mod deployment;
mod events;
mod flow;
mod letters;
mod outages;
mod streams;
