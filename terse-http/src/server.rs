//! The HTTP server itself: its bounds, and the layers in their order.
//!
//! What actix answers on its own, before any of our code runs, has no body:
//! 400 when a request's head can't be parsed (also for a URI beyond 64 KiB),
//! 431 when it has more than 96 headers or 128 KiB, 408 when it doesn't arrive
//! in time. The connection is closed after each of these.

use std::io;
use std::net::TcpListener;

use actix_service::IntoServiceFactory;
use actix_web::dev::Server;
use actix_web::middleware::from_fn;
use actix_web::{App, HttpServer, web};
use bytes::Bytes;

use crate::docs::Description;
use crate::front::FrontFactory;
use crate::health::StartedMs;
use crate::{State, layer, openapi, routes};

/// What is left for connections to end once the server is told to stop, in
/// seconds. The caller drains before that.
const STOP_TIMEOUT_S: u64 = 2;

/// Starts serving `state` on `listener` with `workers` web workers. The
/// returned server runs when awaited (inside a tokio runtime) and is stopped
/// through its handle; it installs no signal handlers.
///
/// # Errors
/// When the listener can't be used.
pub fn serve(listener: TcpListener, workers: usize, state: State) -> io::Result<Server> {
    let bounds = state.settings.bounds;
    let started = StartedMs(state.clock.monotonic_ms());
    let description = Bytes::from(serde_json::to_vec(&openapi::describe(&state))?);
    let factory = move || {
        let routes = App::new()
            .app_data(web::Data::new(state.clone()))
            .app_data(web::Data::new(started))
            .app_data(web::Data::new(Description(description.clone())))
            .configure(|config| routes::register(config, &state))
            .wrap(from_fn(layer::around));
        FrontFactory::new(routes.into_factory(), state.clone())
    };
    let server = HttpServer::new(factory)
        .workers(workers)
        .max_connections(bounds.connections_per_worker)
        .client_request_timeout(bounds.head_timeout)
        .keep_alive(bounds.keep_alive)
        .shutdown_timeout(STOP_TIMEOUT_S)
        .disable_signals()
        .listen(listener)?;
    Ok(server.run())
}
