//! A TCP proxy that breaks the wire on command and restores it.
//!
//! It stands between a program and a service that can't be told to fail: it
//! passes bytes, cuts connections, holds bytes back as a stopped process would,
//! loses answers, delays them, or cuts one connection right after a chosen
//! request has gone out. It knows no protocol.
//!
//! A proxy owns one thread with one runtime of its own; everything it started
//! ends when it is dropped. Its methods never wait, so plain and async tests
//! use it alike.
//!
//! Bounds: [`MAX_CONNECTIONS`], further ones are reset; [`QUEUE_CHUNKS`] chunks
//! of [`CHUNK_BYTES`] held per direction, then the sender is made to wait by
//! TCP; [`CONNECT_LIMIT`] to reach the service; [`DRAIN_LIMIT`] to see a
//! chosen request through.

mod relay;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

/// Most connections at a time; a further one is reset and counted as refused.
pub const MAX_CONNECTIONS: usize = 1_024;
/// Most bytes read at once.
pub const CHUNK_BYTES: usize = 16 * 1024;
/// Most chunks held back per direction of a connection.
pub const QUEUE_CHUNKS: usize = 64;
/// How long connecting to the service may take; then the client is reset.
pub const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How long the service may take over a request after which its connection was cut.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(2);
/// Rest after a failed accept: it may be for want of descriptors, which nothing announces.
const ACCEPT_REST: Duration = Duration::from_millis(10);

/// What the proxy does with bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// They pass.
    Pass,
    /// Connections are reset, new ones too.
    Cut,
    /// They are held both ways while connections stay open and new ones are taken, as with a stopped process.
    Pause,
    /// Requests pass, answers are thrown away. A connection that lost any is reset when this mode ends.
    LoseAnswers,
    /// They pass this much later, both ways, without a loss of throughput.
    Delay(Duration),
}

/// What a proxy has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections taken from clients.
    pub connections: u64,
    /// Connections reset as they came: mode [`Mode::Cut`], or too many.
    pub refused: u64,
    /// Connections reset because the service could not be reached.
    pub unreachable: u64,
    /// Established connections that were cut on command.
    pub cuts: u64,
    /// Connections that [`Proxy::cut_after`] has cut.
    pub sprung: u64,
    /// Bytes that went to the service.
    pub requested_bytes: u64,
    /// Bytes that went to clients.
    pub answered_bytes: u64,
    /// Bytes from the service that were thrown away.
    pub lost_bytes: u64,
}

#[derive(Debug, Default)]
struct Counters {
    connections: AtomicU64,
    refused: AtomicU64,
    unreachable: AtomicU64,
    cuts: AtomicU64,
    sprung: AtomicU64,
    requested_bytes: AtomicU64,
    answered_bytes: AtomicU64,
    lost_bytes: AtomicU64,
}

impl Counters {
    fn read(&self) -> Counts {
        let of = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        Counts {
            connections: of(&self.connections),
            refused: of(&self.refused),
            unreachable: of(&self.unreachable),
            cuts: of(&self.cuts),
            sprung: of(&self.sprung),
            requested_bytes: of(&self.requested_bytes),
            answered_bytes: of(&self.answered_bytes),
            lost_bytes: of(&self.lost_bytes),
        }
    }
}

fn add(counter: &AtomicU64, amount: usize) {
    counter.fetch_add(amount as u64, Ordering::SeqCst);
}

/// The mode, and how often all connections were cut: a cut that was restored at once still cuts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    mode: Mode,
    severed: u64,
}

type Trap = Box<dyn FnMut(&[u8]) -> bool + Send>;

struct Shared {
    upstream: SocketAddr,
    most_connections: usize,
    state: watch::Sender<State>,
    trap: Mutex<Option<Trap>>,
    counters: Counters,
}

impl Shared {
    /// Whether this chunk is the one that was waited for; only one ever is.
    fn spring(&self, chunk: &[u8]) -> bool {
        let mut trap = self.trap.lock();
        let sprung = trap.as_mut().is_some_and(|matches| matches(chunk));
        if sprung {
            *trap = None;
            add(&self.counters.sprung, 1);
        }
        sprung
    }
}

/// A running proxy; it and all its connections end when it is dropped.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({} to {}, {:?})", self.address, self.shared.upstream, self.mode())
    }
}

impl Proxy {
    /// Listens on `listen` (port 0: any free one) and passes everything to `upstream`, which need not run yet.
    ///
    /// # Errors
    /// When the address is taken, or the system has no thread or descriptor left.
    pub fn start(upstream: SocketAddr, listen: SocketAddr) -> io::Result<Self> {
        Self::bounded(upstream, listen, MAX_CONNECTIONS)
    }

    fn bounded(upstream: SocketAddr, listen: SocketAddr, most_connections: usize) -> io::Result<Self> {
        let listener = StdListener::bind(listen)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
        let state = watch::Sender::new(State { mode: Mode::Pass, severed: 0 });
        let (trap, counters) = (Mutex::default(), Counters::default());
        let shared = Arc::new(Shared { upstream, most_connections, state, trap, counters });
        let (end, ended) = oneshot::channel();
        let served = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name(format!("proxy-{}", address.port()))
            .spawn(move || run(&runtime, listener, served, ended))?;
        Ok(Self { address, shared, end: Some(end), thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it passes bytes to.
    #[must_use]
    pub fn upstream(&self) -> SocketAddr {
        self.shared.upstream
    }

    /// What it does with bytes now.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.shared.state.borrow().mode
    }

    /// Does this from now on, on all connections.
    pub fn set(&self, mode: Mode) {
        self.shared.state.send_modify(|state| {
            state.mode = mode;
            state.severed += u64::from(mode == Mode::Cut);
        });
    }

    /// Lets everything pass again, and forgets a chosen request that has not come.
    pub fn restore(&self) {
        *self.shared.trap.lock() = None;
        self.set(Mode::Pass);
    }

    /// Resets all connections there are, once; new ones are taken as the mode says.
    pub fn sever(&self) {
        self.shared.state.send_modify(|state| state.severed += 1);
    }

    /// Waits for the first chunk from any client for which `matches` is true,
    /// passes it on whole, and cuts that connection before any further byte of
    /// an answer comes back: the service has the request, nobody hears of it.
    /// Replaces an earlier choice that has not come.
    ///
    /// A chunk is what one read gave, at most [`CHUNK_BYTES`]: one request, several, or part of one.
    pub fn cut_after(&self, matches: impl FnMut(&[u8]) -> bool + Send + 'static) {
        *self.shared.trap.lock() = Some(Box::new(matches));
    }

    /// What it has done so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.shared.counters.read()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // The thread ends by this or has panicked; the panic is reported below.
        let _ = self.end.take().map(|end| end.send(()));
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(thread::panicking() || !matches!(ended, Some(Err(_))), "the proxy on {} panicked", self.address);
    }
}

fn run(runtime: &Runtime, listener: StdListener, shared: Arc<Shared>, ended: oneshot::Receiver<()>) {
    runtime.block_on(async move {
        let listener = TcpListener::from_std(listener).unwrap_or_else(|error| panic!("no listener: {error}"));
        let mut connections = JoinSet::new();
        tokio::select! {
            // Fails only when the proxy was dropped, which is the end too.
            _ = ended => {}
            () = accept(&listener, &shared, &mut connections) => {}
        }
        connections.shutdown().await;
    });
}

async fn accept(listener: &TcpListener, shared: &Arc<Shared>, connections: &mut JoinSet<()>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(ended) = connections.join_next(), if !connections.is_empty() => {
                ended.unwrap_or_else(|error| panic!("a connection's task: {error}"));
                continue;
            }
        };
        let Ok((client, _)) = accepted else {
            tokio::time::sleep(ACCEPT_REST).await;
            continue;
        };
        if connections.len() >= shared.most_connections || shared.state.borrow().mode == Mode::Cut {
            add(&shared.counters.refused, 1);
            reset(&client);
            continue;
        }
        add(&shared.counters.connections, 1);
        connections.spawn(relay::relay(client, Arc::clone(shared)));
    }
}

/// Makes the end of `stream` a reset instead of a polite close.
fn reset(stream: &TcpStream) {
    // Fails only on a socket that is broken already.
    let _ = stream.set_zero_linger();
}
