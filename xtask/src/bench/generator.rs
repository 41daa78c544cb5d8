//! Load: one thread, one epoll, a fixed number of connections, one request in
//! flight on each. Every answer is parsed whole and checked.
//!
//! Connections are kept, or kept for as long as the server likes, or renewed for
//! each request (churn): then a latency
//! runs from before the connection is made, and the next one is made when the
//! server has closed this one, so that the waiting of ended connections is the
//! server's, as with browsers, and no port runs out here.
//!
//! Closed loop: an answer makes the next request leave at once; the rate is
//! what the server manages. Open loop: requests are due at a fixed rate, and a
//! latency runs from when its request was *due*, not from when a connection
//! was free to send it. So a server that stalls can't hide the requests that
//! its stall kept from being sent (coordinated omission).

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;

use super::stats::Latencies;
use super::wire::{Answer, parse};

/// What an answer may have at most, head and body.
const ANSWER_BYTES: usize = 4 * 1024 * 1024;
/// How long the server may take to answer what is in flight.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Room for an answer at first; it grows as needed.
const BUFFER_BYTES: usize = 4 * 1024;
/// How many events are taken from the kernel at once.
const EVENTS: usize = 256;

/// Makes requests and checks their answers.
pub trait Workload {
    /// Appends the next request to `out` and returns what identifies it;
    /// `None` = there are no more.
    fn request(&mut self, out: &mut Vec<u8>) -> Option<u64>;

    /// Checks the answer to the request `id`.
    ///
    /// # Errors
    /// When the answer is wrong; the run ends with it.
    fn check(&mut self, id: u64, answer: &Answer<'_>) -> Result<()>;
}

/// When requests leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As soon as a connection is free.
    Closed,
    /// So many per second, evenly.
    Open {
        /// Requests per second; not 0.
        per_second: u32,
    },
}

/// What becomes of a connection after its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connections {
    /// It takes the next request.
    Kept,
    /// The same, but the server may close it: with the answer that says so, or while nothing is asked on it. Then the
    /// next request has a new one.
    Offered,
    /// The server closes it, as it was asked to; the next request has one of its own.
    Renewed,
}

/// How much load for how long.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// How many connections at once.
    pub connections: usize,
    /// What becomes of them.
    pub kind: Connections,
    /// When requests leave.
    pub pace: Pace,
    /// Load before the window, which isn't counted.
    pub warm_up: Duration,
    /// Load that is counted.
    pub window: Duration,
}

/// What was measured in the window.
pub struct Outcome {
    /// How many answers came.
    pub answers: u64,
    /// How many connections were made.
    pub connections: u64,
    /// How long the window was, in seconds.
    pub seconds: f64,
    /// From when a request left (closed loop) or was due (open loop) to its whole answer.
    pub latencies: Latencies,
}

impl Outcome {
    /// Answers per second.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        self.answers as f64 / self.seconds
    }
}

/// Puts `load` on the server at `address`. `on_edge` is called when the window
/// begins and when it ends. All requests that left are answered and checked
/// when this returns.
///
/// # Errors
/// When a connection fails, an answer is wrong or missing, or an open loop can't keep its rate.
pub fn drive(
    address: SocketAddr,
    load: &Load,
    workload: &mut dyn Workload,
    on_edge: &mut dyn FnMut() -> Result<()>,
) -> Result<Outcome> {
    let mut generator = Generator::connect(address, load, workload)?;
    generator.run(load, on_edge)
}

/// When the requests of an open loop are due.
#[derive(Clone, Copy, Debug)]
struct Schedule {
    start: Instant,
    per_second: u32,
    total: u64,
    sent: u64,
}

impl Schedule {
    fn due(&self, index: u64) -> Instant {
        self.start + Duration::from_nanos((u128::from(index) * 1_000_000_000 / u128::from(self.per_second)) as u64)
    }

    /// When the next request was due, if it is due by `now`.
    fn take(&mut self, now: Instant) -> Option<Instant> {
        let due = self.due(self.sent);
        if self.sent >= self.total || due > now {
            return None;
        }
        self.sent += 1;
        Some(due)
    }
}

struct Connection {
    /// `None` = the next request makes one.
    stream: Option<TcpStream>,
    out: Vec<u8>,
    written: usize,
    input: Vec<u8>,
    filled: usize,
    /// The request in flight and when its latency begins.
    waiting: Option<(u64, Instant)>,
    wants_write: bool,
}

struct Generator<'a> {
    address: SocketAddr,
    kind: Connections,
    epoll: OwnedFd,
    connections: Vec<Connection>,
    free: VecDeque<usize>,
    workload: &'a mut dyn Workload,
    exhausted: bool,
    latencies: Latencies,
    answers: u64,
    made: u64,
}

impl<'a> Generator<'a> {
    fn connect(address: SocketAddr, load: &Load, workload: &'a mut dyn Workload) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut generator = Self {
            address,
            kind: load.kind,
            epoll,
            free: (0..load.connections).collect(),
            connections: (0..load.connections).map(|_| Connection::new()).collect(),
            workload,
            exhausted: false,
            latencies: Latencies::new()?,
            answers: 0,
            made: 0,
        };
        if load.kind != Connections::Renewed {
            (0..load.connections).try_for_each(|index| generator.open(index))?;
        }
        Ok(generator)
    }

    fn open(&mut self, index: usize) -> Result<()> {
        let stream = TcpStream::connect(self.address).with_context(|| format!("connecting to {}", self.address))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        epoll::add(&self.epoll, &stream, epoll::EventData::new_u64(index as u64), epoll::EventFlags::IN)?;
        let connection = &mut self.connections[index];
        connection.stream = Some(stream);
        connection.wants_write = false;
        self.made += 1;
        Ok(())
    }

    fn run(&mut self, load: &Load, on_edge: &mut dyn FnMut() -> Result<()>) -> Result<Outcome> {
        let start = Instant::now();
        let window_start = start + load.warm_up;
        let mut end = window_start + load.window;
        let mut schedule = match load.pace {
            Pace::Closed => None,
            Pace::Open { per_second } => {
                let total = (end - start).as_secs_f64() * f64::from(per_second);
                Some(Schedule { start, per_second, total: total as u64, sent: 0 })
            }
        };
        let mut opened = None;
        let mut now = start;
        // However late this thread gets to run, there is a window.
        while (opened.is_none() || now < end) && !self.is_done() {
            if opened.is_none() && now >= window_start {
                on_edge()?;
                self.reset()?;
                let begun = Instant::now();
                // The window is whole however late it begins; a schedule stays as it is.
                end = if schedule.is_some() { end } else { begun + load.window };
                opened = Some(begun);
            }
            self.send_due(schedule.as_mut(), now)?;
            now = self.turn(schedule.as_ref(), end)?;
        }
        let (answers, connections) = (self.answers, self.made);
        let closed = Instant::now();
        on_edge()?;
        self.drain(schedule.as_mut())?;
        let opened = opened.context("the load ended before its window began")?;
        // Of an open loop every request counts, also those that a stall made late.
        let answers = if schedule.is_some() { self.answers } else { answers };
        let seconds = if schedule.is_some() { load.window } else { closed - opened }.as_secs_f64();
        Ok(Outcome { answers, connections, seconds, latencies: self.latencies.clone() })
    }

    /// Forgets what the warm-up counted.
    fn reset(&mut self) -> Result<()> {
        self.latencies = Latencies::new()?;
        self.answers = 0;
        self.made = 0;
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.exhausted && self.free.len() == self.connections.len()
    }

    /// Sends on free connections whatever may be sent now.
    fn send_due(&mut self, mut schedule: Option<&mut Schedule>, now: Instant) -> Result<()> {
        while !self.exhausted && !self.free.is_empty() {
            let begins = match schedule.as_deref_mut() {
                None => now,
                Some(schedule) => match schedule.take(now) {
                    Some(due) => due,
                    None => break,
                },
            };
            let Some(index) = self.free.pop_front() else { break };
            self.send(index, begins)?;
        }
        Ok(())
    }

    fn send(&mut self, index: usize, begins: Instant) -> Result<()> {
        let connection = &mut self.connections[index];
        connection.out.clear();
        connection.written = 0;
        let Some(id) = self.workload.request(&mut connection.out) else {
            self.exhausted = true;
            self.free.push_back(index);
            return Ok(());
        };
        connection.waiting = Some((id, begins));
        if connection.stream.is_none() {
            self.open(index)?;
        }
        self.connections[index].write()?;
        self.watch(index)
    }

    /// Asks to be told when the connection can be written to, for as long as something is left to write.
    fn watch(&mut self, index: usize) -> Result<()> {
        let connection = &mut self.connections[index];
        let wants_write = connection.written < connection.out.len();
        let Some(stream) = &connection.stream else { return Ok(()) };
        if wants_write != connection.wants_write {
            connection.wants_write = wants_write;
            let flags =
                if wants_write { epoll::EventFlags::IN | epoll::EventFlags::OUT } else { epoll::EventFlags::IN };
            epoll::modify(&self.epoll, stream, epoll::EventData::new_u64(index as u64), flags)?;
        }
        Ok(())
    }

    /// Waits for answers and takes them. An open loop that has something due
    /// soon looks without waiting, since the kernel's timers are too coarse.
    fn turn(&mut self, schedule: Option<&Schedule>, deadline: Instant) -> Result<Instant> {
        let mut events: [epoll::Event; EVENTS] =
            [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }; EVENTS];
        let spins = schedule.is_some_and(|schedule| schedule.sent < schedule.total && !self.free.is_empty());
        let patience = if spins { Duration::ZERO } else { deadline.saturating_duration_since(Instant::now()) };
        let timeout = Timespec::try_from(patience.min(Duration::from_millis(10)))?;
        let ready = match epoll::wait(&self.epoll, &mut events[..], Some(&timeout)) {
            Ok(ready) => ready,
            Err(rustix::io::Errno::INTR) => 0,
            Err(error) => return Err(error.into()),
        };
        let now = Instant::now();
        for event in &events[..ready] {
            let index = event.data.u64() as usize;
            if self.connections[index].wants_write {
                self.connections[index].write()?;
                self.watch(index)?;
            }
            self.receive(index, now)?;
        }
        Ok(if ready == 0 { Instant::now() } else { now })
    }

    fn receive(&mut self, index: usize, now: Instant) -> Result<()> {
        let connection = &mut self.connections[index];
        let ended = connection.read()?;
        if let Some(answer) = parse(&connection.input[..connection.filled])? {
            let Some((id, begins)) = connection.waiting.take() else { bail!("an answer that nobody asked for") };
            self.workload.check(id, &answer)?;
            let stays = match (self.kind, answer.keep_alive) {
                (Connections::Kept, false) => bail!("the server closes connections"),
                (Connections::Renewed, true) => bail!("the server keeps connections that it was asked to close"),
                (_, stays) => stays,
            };
            if answer.bytes != connection.filled {
                bail!("bytes after the answer");
            }
            connection.filled = 0;
            self.answers += 1;
            self.latencies.record(now.saturating_duration_since(begins));
            if stays {
                self.free.push_back(index);
            }
        }
        if ended { self.ended(index) } else { Ok(()) }
    }

    /// Takes note that the server has closed a connection.
    fn ended(&mut self, index: usize) -> Result<()> {
        let connection = &mut self.connections[index];
        if self.kind == Connections::Kept || connection.waiting.is_some() || connection.filled > 0 {
            bail!("the server closed a connection");
        }
        connection.stream = None;
        // Of those that may be closed at any time it may wait for a request already.
        if self.kind == Connections::Renewed || !self.free.contains(&index) {
            self.free.push_back(index);
        }
        Ok(())
    }

    /// Waits for what is in flight, and lets an open loop send what is still due.
    fn drain(&mut self, mut schedule: Option<&mut Schedule>) -> Result<()> {
        let deadline = Instant::now() + ANSWER_LIMIT;
        loop {
            let behind = schedule.as_ref().map_or(0, |schedule| schedule.total - schedule.sent);
            let behind = if self.exhausted { 0 } else { behind };
            let waiting = self.connections.len() - self.free.len();
            if waiting == 0 && behind == 0 {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!(
                    "{waiting} connections unanswered or unclosed and {behind} requests unsent after {} s",
                    ANSWER_LIMIT.as_secs()
                );
            }
            if schedule.is_some() {
                self.send_due(schedule.as_deref_mut(), Instant::now())?;
            }
            self.turn(schedule.as_deref(), deadline)?;
        }
    }
}

impl Connection {
    fn new() -> Self {
        Self {
            stream: None,
            out: Vec::new(),
            written: 0,
            input: vec![0; BUFFER_BYTES],
            filled: 0,
            waiting: None,
            wants_write: false,
        }
    }

    fn write(&mut self) -> Result<()> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        while self.written < self.out.len() {
            match stream.write(&self.out[self.written..]) {
                Ok(written) => self.written += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("writing a request"),
            }
        }
        Ok(())
    }

    /// Reads what has come; `true` = the server has closed the connection.
    fn read(&mut self) -> Result<bool> {
        let Some(stream) = &mut self.stream else { return Ok(false) };
        loop {
            if self.filled == self.input.len() {
                if self.filled >= ANSWER_BYTES {
                    bail!("an answer of more than {ANSWER_BYTES} bytes");
                }
                self.input.resize(self.filled * 2, 0);
            }
            match stream.read(&mut self.input[self.filled..]) {
                Ok(0) => return Ok(true),
                Ok(read) => {
                    self.filled += read;
                    // A full buffer may mean that there is more; else one read has got it all.
                    if self.filled < self.input.len() {
                        return Ok(false);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("reading an answer"),
            }
        }
    }
}

#[cfg(test)]
mod tests;
