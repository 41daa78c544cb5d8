//! The HTTP face of terse: routes, extractors, problem bodies, OpenAPI, and
//! the redirect that is answered in front of them all. It talks to ports only.
//!
//! A request passes, in this order: the `lane`, which answers
//! redirects from memory beneath the HTTP server; the `front`, which counts
//! it, bounds its URI and answers redirects; the `layer`, which
//! gives it an id and renders its problems; the `routes`.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod accept;
mod addresses;
mod api;
mod auth;
mod body;
mod book;
mod clicks;
mod client;
mod connection;
mod docs;
mod front;
mod headers;
mod health;
mod host;
mod html;
mod json;
mod lane;
mod layer;
mod lifecycle;
mod limits;
mod look;
mod metrics;
mod open;
mod openapi;
mod page;
mod preview;
mod problem;
mod redirect;
pub mod reference;
mod request_id;
mod routes;
mod server;
mod site;
mod state;
mod worker;

pub use client::{Network, TrustedProxies};
pub use lifecycle::{InFlight, Lifecycle, Phase};
pub use limits::{Limit, LimitBy, Limits, Month, Quotas};
pub use server::{Server, ServerHandle, listen, serve, serve_without_lane};
pub use state::{Access, Bounds, RedirectStatus, Settings, State, Surfaces};
