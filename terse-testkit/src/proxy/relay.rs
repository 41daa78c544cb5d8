//! One connection: two directions, each a reader and a writer with a bounded queue between them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::{CHUNK_BYTES, CONNECT_LIMIT, DRAIN_LIMIT, Mode, QUEUE_CHUNKS, Shared, State, add, reset};

/// Why a connection ended other than by both sides closing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// One side broke off.
    Broken,
    /// It was cut on command.
    Cut,
    /// The chosen request has gone out.
    Sprung,
}

/// Bytes on their way, and when they may go on at the earliest.
struct Chunk {
    due: Instant,
    bytes: Vec<u8>,
    last: bool,
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Request,
    Answer,
}

/// What both directions of a connection share.
struct Connection<'a> {
    shared: &'a Shared,
    state: watch::Receiver<State>,
    /// The chosen request has been read: no answer goes back from now on.
    sprung: AtomicBool,
}

pub(super) async fn relay(mut client: TcpStream, shared: Arc<Shared>) {
    let mut state = shared.state.subscribe();
    let severed = state.borrow_and_update().severed;
    let connecting = timeout(CONNECT_LIMIT, TcpStream::connect(shared.upstream));
    let connected = tokio::select! {
        connected = connecting => connected,
        () = cut(state.clone(), severed) => return end(client, None, Stop::Cut, &shared).await,
    };
    let Ok(Ok(mut server)) = connected else {
        add(&shared.counters.unreachable, 1);
        return reset(&client);
    };
    for stream in [&client, &server] {
        // Speed only; a socket that refuses it is broken and will say so.
        let _ = stream.set_nodelay(true);
    }
    let connection = Connection { shared: &shared, state: state.clone(), sprung: AtomicBool::new(false) };
    let ended = tokio::select! {
        ended = both_ways(&connection, &mut client, &mut server) => ended,
        () = cut(state, severed) => Err(Stop::Cut),
    };
    if let Err(stop) = ended {
        end(client, Some(server), stop, &shared).await;
    }
}

/// Resolves when all connections that are as old as this one are to be cut.
async fn cut(mut state: watch::Receiver<State>, severed: u64) {
    // Fails only when the proxy is gone; its connections are ended then anyway.
    let _ = state.wait_for(|now| now.severed != severed).await;
}

/// Ends both sides. A chosen request is seen through first: a reset could take
/// it out of the service's hands again.
async fn end(client: TcpStream, server: Option<TcpStream>, stop: Stop, shared: &Shared) {
    reset(&client);
    drop(client);
    if stop != Stop::Broken {
        add(&shared.counters.cuts, 1);
    }
    let Some(mut server) = server else { return };
    if stop == Stop::Sprung {
        // Whatever fails here, the connection ends now.
        let _ = timeout(DRAIN_LIMIT, drain(&mut server, &shared.counters.lost_bytes)).await;
    }
    reset(&server);
}

async fn drain(server: &mut TcpStream, lost: &AtomicU64) -> std::io::Result<()> {
    server.shutdown().await?;
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match server.read(&mut chunk).await? {
            0 => return Ok(()),
            read => add(lost, read),
        }
    }
}

async fn both_ways(connection: &Connection<'_>, client: &mut TcpStream, server: &mut TcpStream) -> Result<(), Stop> {
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    tokio::try_join!(
        one_way(connection, from_client, to_server, Way::Request),
        one_way(connection, from_server, to_client, Way::Answer),
    )?;
    Ok(())
}

async fn one_way(connection: &Connection<'_>, from: ReadHalf<'_>, to: WriteHalf<'_>, way: Way) -> Result<(), Stop> {
    let (sender, receiver) = mpsc::channel(QUEUE_CHUNKS);
    tokio::try_join!(connection.read(from, sender, way), connection.write(receiver, to, way))?;
    Ok(())
}

impl Connection<'_> {
    /// Reads until the side closes, or until the chosen request.
    async fn read(&self, mut from: ReadHalf<'_>, queue: Sender<Chunk>, way: Way) -> Result<(), Stop> {
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let read = from.read(&mut buffer).await.map_err(|_| Stop::Broken)?;
            if read == 0 {
                return Ok(());
            }
            let bytes = buffer[..read].to_vec();
            let last = way == Way::Request && self.shared.spring(&bytes);
            if last {
                self.sprung.store(true, Ordering::SeqCst);
            }
            let delay = match self.state.borrow().mode {
                Mode::Delay(delay) => delay,
                _ => std::time::Duration::ZERO,
            };
            let chunk = Chunk { due: Instant::now() + delay, bytes, last };
            queue.send(chunk).await.map_err(|_| Stop::Broken)?;
            if last {
                return Ok(());
            }
        }
    }

    /// Writes what was read, as the mode says, until there is no more.
    async fn write(&self, mut queue: Receiver<Chunk>, mut to: WriteHalf<'_>, way: Way) -> Result<(), Stop> {
        let mut state = self.state.clone();
        while let Some(chunk) = queue.recv().await {
            sleep_until(chunk.due).await;
            let mode = self.gate(&mut state).await?;
            if way == Way::Answer && self.sprung.load(Ordering::SeqCst) {
                add(&self.shared.counters.lost_bytes, chunk.bytes.len());
                continue;
            }
            if way == Way::Answer && mode == Mode::LoseAnswers {
                add(&self.shared.counters.lost_bytes, chunk.bytes.len());
                return self.lose(queue, &mut state).await;
            }
            to.write_all(&chunk.bytes).await.map_err(|_| Stop::Broken)?;
            let counters = &self.shared.counters;
            let counter = if way == Way::Request { &counters.requested_bytes } else { &counters.answered_bytes };
            add(counter, chunk.bytes.len());
            if chunk.last {
                return Err(Stop::Sprung);
            }
        }
        self.gate(&mut state).await?;
        to.shutdown().await.map_err(|_| Stop::Broken)
    }

    /// Waits while bytes are held.
    async fn gate(&self, state: &mut watch::Receiver<State>) -> Result<Mode, Stop> {
        let open = state.wait_for(|state| state.mode != Mode::Pause).await;
        open.map(|state| state.mode).map_err(|_| Stop::Broken)
    }

    /// Throws answers away. What comes after them would be read as their rest, so the connection is cut in the end.
    async fn lose(&self, mut queue: Receiver<Chunk>, state: &mut watch::Receiver<State>) -> Result<(), Stop> {
        loop {
            tokio::select! {
                // Fails only when the proxy is gone.
                _ = state.wait_for(|state| state.mode != Mode::LoseAnswers) => return Err(Stop::Cut),
                chunk = queue.recv() => match chunk {
                    Some(chunk) => add(&self.shared.counters.lost_bytes, chunk.bytes.len()),
                    None => return Err(Stop::Broken),
                },
            }
        }
    }
}
