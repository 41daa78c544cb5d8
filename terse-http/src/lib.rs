//! The HTTP face of terse: routes, extractors, problem bodies, OpenAPI, and
//! the redirect that is answered in front of them all. It talks to ports only.

mod lifecycle;
mod state;

pub use lifecycle::{InFlight, Lifecycle, Phase};
pub use state::{Access, Bounds, RedirectStatus, Settings, State, Surfaces};

/// Starts serving `state` on `listener` with `workers` web workers. The
/// returned server runs when awaited (inside a tokio runtime) and is stopped
/// through its handle; it installs no signal handlers.
///
/// # Errors
/// When the listener can't be used.
pub fn serve(listener: std::net::TcpListener, workers: usize, state: State) -> std::io::Result<actix_web::dev::Server> {
    let _ = (listener, workers, state);
    Err(std::io::Error::other("to be written"))
}
