//! The click log over a real RabbitMQ: blocks of a journal, relayed to streams, read, projected, counted once.
//!
//! `TERSE_AMQP` names the broker (`amqp://user:password@host:port/vhost`). Each test has exchanges and queues of its
//! own, which are removed at its end. Outages are made by a proxy in between, so that tests can run side by side.
//!
//! Tests marked as ignored kill, stop or starve the broker itself. They run alone, with commands of the shell besides:
//! `TERSE_AMQP_PID` prints the process id of the broker, `TERSE_AMQP_UP` starts it again, `TERSE_AMQP_CTL` controls it.
#![allow(missing_docs, clippy::unwrap_used)]

mod broker;
mod deployment;
mod events;
mod flow;
mod letters;
mod outages;
mod streams;
