//! The HTTP server itself: its sockets, its workers, and how they end.
//!
//! Each worker accepts on a socket of its own; the kernel spreads new
//! connections over them (`SO_REUSEPORT`).
//!
//! What actix answers on its own, before any of our code runs, has no body:
//! 400 when a request's head can't be parsed (also for a URI beyond 64 KiB),
//! 431 when it has more than 96 headers or 128 KiB, and, as the lane does before it, 408 when it doesn't arrive
//! in time. The connection is closed after each of these.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::JoinHandle;

use bytes::Bytes;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};
use tokio::sync::{oneshot, watch};

use crate::api::places::Places;
use crate::health::StartedMs;
use crate::worker::{self, Order, Site};
use crate::{State, openapi};

/// Connections that the kernel queues for each worker until it takes them.
const BACKLOG: i32 = 4_096;

/// Listens on `address` with one socket for each of `workers` workers, all on
/// one port. No connection is refused from then on.
///
/// # Errors
/// When `address` can't be listened on, above all because somebody does already.
pub fn listen(address: SocketAddr, workers: usize) -> io::Result<Vec<TcpListener>> {
    // Sockets that share a port share it with other processes of the same user, too. One that doesn't finds them.
    let alone = socket(address, false)?;
    if workers <= 1 {
        return Ok(vec![alone]);
    }
    let mut address = alone.local_addr()?;
    drop(alone);
    let mut listeners = Vec::with_capacity(workers);
    for _ in 0..workers {
        let listener = socket(address, true)?;
        address = listener.local_addr()?;
        listeners.push(listener);
    }
    Ok(listeners)
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    // A restarted server need not wait for the connections of the one before it.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sockopt::set_socket_reuseport(&socket, shared)?;
    // Accepted connections inherit it: an answer to a pipelined request leaves without waiting for an acknowledgement.
    sockopt::set_tcp_nodelay(&socket, true)?;
    bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

/// Starts serving `state`, with one worker for each of `listeners` (see [`listen`]).
///
/// # Errors
/// When a listener can't be used or a thread can't be started.
pub fn serve(listeners: Vec<TcpListener>, state: State) -> io::Result<Server> {
    start(listeners, state, true)
}

/// The same with every redirect answered in front of the router, none beneath the HTTP server: to compare with.
///
/// # Errors
/// As [`serve`].
pub fn serve_without_lane(listeners: Vec<TcpListener>, state: State) -> io::Result<Server> {
    start(listeners, state, false)
}

fn start(listeners: Vec<TcpListener>, state: State, lane: bool) -> io::Result<Server> {
    let started = StartedMs(state.clock.monotonic_ms());
    let description = Bytes::from(serde_json::to_vec(&openapi::describe(&state))?);
    let places = Places::new(state.settings.bounds.batch_bytes);
    let site = Site { state, started, description, places, lane };
    let mut server = Server { orders: Arc::new(watch::Sender::new(Order::Serve)), workers: Vec::new() };
    for (number, listener) in listeners.into_iter().enumerate() {
        listener.set_nonblocking(true)?;
        let (site, mut orders) = (site.clone(), server.orders.subscribe());
        server.workers.push(Worker::start(number, move || worker::run(listener, site, &mut orders))?);
    }
    Ok(server)
}

/// A running server. Awaited, it tells how it ended; dropped before that, it
/// cuts all connections. It installs no signal handlers.
pub struct Server {
    orders: Arc<watch::Sender<Order>>,
    workers: Vec<Worker>,
}

/// Stops a server.
#[derive(Clone)]
pub struct ServerHandle(Arc<watch::Sender<Order>>);

struct Worker {
    thread: JoinHandle<io::Result<()>>,
    /// Closed when the thread ends, however it does.
    ended: oneshot::Receiver<()>,
}

impl Worker {
    fn start(number: usize, work: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<Self> {
        let (alive, ended) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name(format!("web/{number}")).spawn(move || {
            let _alive = alive;
            work()
        })?;
        Ok(Self { thread, ended })
    }
}

impl Server {
    /// What stops this server.
    #[must_use]
    pub fn handle(&self) -> ServerHandle {
        ServerHandle(Arc::clone(&self.orders))
    }
}

impl Future for Server {
    type Output = io::Result<()>;

    /// Ready when all workers have ended, or at once when one did without being told to; the others are cut then.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let server = self.get_mut();
        let mut position = 0;
        while position < server.workers.len() {
            if Pin::new(&mut server.workers[position].ended).poll(cx).is_pending() {
                position += 1;
                continue;
            }
            // It has nothing left to do, so this doesn't wait.
            let result = server.workers.swap_remove(position).thread.join();
            if let Err(error) = result.unwrap_or_else(|_| Err(io::Error::other("a web worker has died"))) {
                give(&server.orders, Order::Cut);
                return Poll::Ready(Err(error));
            }
        }
        if server.workers.is_empty() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        give(&self.orders, Order::Cut);
    }
}

impl ServerHandle {
    /// Tells the server to end: `graceful` = connections get a moment to end
    /// by themselves, else they are cut. The order is given by the call; the
    /// future waits until all workers have ended.
    pub fn stop(&self, graceful: bool) -> impl Future<Output = ()> + Send + use<> {
        give(&self.0, if graceful { Order::Finish } else { Order::Cut });
        let orders = Arc::clone(&self.0);
        async move { orders.closed().await }
    }
}

fn give(orders: &watch::Sender<Order>, order: Order) {
    orders.send_if_modified(|current| {
        let further = order > *current;
        *current = order.max(*current);
        further
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server of one worker that does `work`, and one that waits to be cut.
    fn server(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> (Server, ServerHandle) {
        let orders = Arc::new(watch::Sender::new(Order::Serve));
        let mut waiting = orders.subscribe();
        let wait = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build()?;
            runtime.block_on(waiting.wait_for(|order| *order == Order::Cut)).map_err(io::Error::other)?;
            Ok(())
        };
        let workers = vec![Worker::start(0, work).unwrap(), Worker::start(1, wait).unwrap()];
        let server = Server { orders, workers };
        let handle = server.handle();
        (server, handle)
    }

    #[tokio::test]
    async fn a_worker_that_dies_ends_the_server_and_the_others() {
        let (server, handle) = server(|| panic!("on purpose"));
        assert_eq!(server.await.unwrap_err().to_string(), "a web worker has died");
        handle.0.closed().await;
    }

    #[tokio::test]
    async fn a_worker_that_fails_says_why() {
        let (server, handle) = server(|| Err(io::Error::other("no runtime")));
        assert_eq!(server.await.unwrap_err().to_string(), "no runtime");
        handle.0.closed().await;
    }

    #[tokio::test]
    async fn orders_never_go_back() {
        let (server, handle) = server(|| Ok(()));
        drop(handle.stop(false));
        handle.stop(true).await;
        assert_eq!(*handle.0.borrow(), Order::Cut);
        server.await.unwrap();
    }
}
