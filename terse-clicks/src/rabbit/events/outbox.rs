//! The outbox of a process: a file of what it is about to do to links and of what it did, until that is published.
//!
//! One thread writes the file, in groups, and another one syncs it beside the writing: intents are on the disk before
//! whoever noted them goes on, so they survive a power cut like the changes themselves. What became of them is written
//! without waiting, for it can be read back. When much of it was published the file is made anew from the rest. Only
//! these three wait for the disk: a report and the end of a change never do.
//!
//! | bound | when it is hit |
//! |---|---|
//! | [`MAX_OUTBOX_BYTES`] of a process's events | the newest is dropped and counted; links are unharmed |
//! | [`MAX_OPEN`] intents that are not settled | others wait, at most [`INTEND_MS`], and are dropped then |
//! | [`INTEND_MS`] for the disk | the change is made; its event is told unless the power is cut before the disk has it, or the process ends while the disk doesn't even take writes |

mod anew;
mod sync;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use terse_core::click::JournalId;
use terse_core::ports::events::{Intent, IntentId, LinkEvents, Settled};
use terse_core::{Clock, Entropy, time};
use tokio::sync::{Notify, Semaphore, oneshot};

use self::sync::Unsynced;
use super::file::{EventFile, FRAME_BYTES, Frames, HEAD_BYTES, Kind, MAX_BODY_BYTES, NewFile, frame};
use super::told::{Noted, Told};

/// Most bytes of events of one process that wait to be published.
pub const MAX_OUTBOX_BYTES: u64 = 64 << 20;
/// Most intents of one process that are not settled. Batches make many at a time.
pub const MAX_OPEN: usize = 4_096;
/// How long a change waits until its intent is on the disk, in milliseconds.
pub const INTEND_MS: u64 = 2_000;
/// Of [`MAX_OUTBOX_BYTES`], what only serves to settle intents.
const SETTLING_BYTES: u64 = 4 << 20;
/// Most orders to the writer for an intent at a time: what is intended, what became of it, what the store tells of it.
const ORDERS_PER_PLACE: usize = 3;
/// Most intents and outcomes that are written at once.
const MAX_GROUP: usize = 512;

/// What an outbox tells of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutboxReport {
    /// Bytes that were written and not published.
    pub waiting_bytes: u64,
    /// Changes that were begun and not settled.
    pub open: u64,
    /// Events that were dropped.
    pub dropped: u64,
    /// Events that the broker has confirmed, those of dead processes among them.
    pub told: u64,
}

/// The outbox of this process.
pub struct Outbox {
    shared: Arc<Shared>,
    /// `None` = it ends.
    orders: Option<SyncSender<Order>>,
    writer: Option<JoinHandle<()>>,
    syncer: Option<JoinHandle<()>>,
}

struct Shared {
    directory: PathBuf,
    id: JournalId,
    clock: Arc<dyn Clock>,
    /// Held over the disk. Only the writer and the relay wait for it.
    state: Mutex<State>,
    /// What a report tells of the state, so that it waits for no disk.
    waiting_bytes: AtomicU64,
    open: AtomicU64,
    /// A place for each intent that is not settled.
    places: Semaphore,
    next: AtomicU64,
    appended: Notify,
    unsynced: Unsynced,
    dropped: AtomicU64,
    told: AtomicU64,
}

struct State {
    file: Arc<EventFile>,
    /// The offset behind the last frame.
    len: u64,
    /// The offset up to which all events are published.
    published: u64,
    open: BTreeMap<u64, Open>,
    /// Whether the last write failed.
    failing: bool,
}

/// An intent that is not settled.
struct Open {
    offset: u64,
    body: Vec<u8>,
    /// Since when it is known that only the store can tell what became of it.
    doubted_ms: Option<u64>,
    /// Whether the writer was told what the store said, and has not taken it in yet. Then the store isn't asked.
    asked: bool,
}

enum Order {
    Intend { number: u64, body: Vec<u8>, noted: oneshot::Sender<bool> },
    Settle { number: u64, told: Option<Told> },
    Doubt { number: u64 },
}

impl Outbox {
    /// Makes an outbox for this process in `directory`, which is made if absent. It blocks on the disk.
    ///
    /// # Errors
    /// Why its file or its thread could not be made.
    pub fn open(directory: &Path, clock: Arc<dyn Clock>, entropy: &dyn Entropy) -> io::Result<Arc<Self>> {
        let (mut outbox, received) = Self::without_writer(directory, clock, entropy)?;
        let shared = Arc::clone(&outbox.shared);
        outbox.syncer = Some(thread::Builder::new().name("terse-syncs".into()).spawn(move || shared.sync_until_end())?);
        let shared = Arc::clone(&outbox.shared);
        outbox.writer = Some(thread::Builder::new().name("terse-events".into()).spawn(move || shared.run(&received))?);
        Ok(Arc::new(outbox))
    }

    /// One, and the orders to the writer that it has yet to get. Nor has it a thread that syncs.
    fn without_writer(
        directory: &Path,
        clock: Arc<dyn Clock>,
        entropy: &dyn Entropy,
    ) -> io::Result<(Self, Receiver<Order>)> {
        fs::create_dir_all(directory)?;
        let id = JournalId(time::random_bytes(entropy));
        let file = Arc::new(NewFile::create(directory, &id.to_string(), &[])?.place()?);
        let state = State { file, len: HEAD_BYTES, published: HEAD_BYTES, open: BTreeMap::new(), failing: false };
        let shared = Arc::new(Shared {
            directory: directory.to_owned(),
            id,
            clock,
            state: Mutex::new(state),
            waiting_bytes: AtomicU64::new(0),
            open: AtomicU64::new(0),
            places: Semaphore::new(MAX_OPEN),
            next: AtomicU64::new(0),
            appended: Notify::new(),
            unsynced: Unsynced::default(),
            dropped: AtomicU64::new(0),
            told: AtomicU64::new(0),
        });
        let (orders, received) = mpsc::sync_channel(ORDERS_PER_PLACE * MAX_OPEN);
        Ok((Self { shared, orders: Some(orders), writer: None, syncer: None }, received))
    }

    /// What it tells of itself. It waits for nothing.
    #[must_use]
    pub fn report(&self) -> OutboxReport {
        OutboxReport {
            waiting_bytes: self.shared.waiting_bytes.load(Ordering::Relaxed),
            open: self.shared.open.load(Ordering::Relaxed),
            dropped: self.shared.dropped.load(Ordering::Relaxed),
            told: self.shared.told.load(Ordering::Relaxed),
        }
    }

    /// Notes that so many events were published.
    pub(super) fn count_told(&self, events: usize) {
        self.shared.told.fetch_add(events as u64, Ordering::Relaxed);
    }

    /// Waits until an event is written, or was since the last wait.
    pub(super) async fn appended(&self) {
        self.shared.appended.notified().await;
    }

    /// Up to `most` frames that are not published. It reads the disk.
    pub(super) fn pending(&self, most: usize) -> io::Result<Frames> {
        let (file, published, len) = {
            let state = self.shared.state.lock();
            (Arc::clone(&state.file), state.published, state.len)
        };
        // What lies there is not written to any more.
        file.frames(published, len, most)
    }

    /// Notes that all events in `frames` are published. It writes to the disk. One thread calls it at a time.
    pub(super) fn published(&self, frames: &Frames) -> io::Result<()> {
        let (file, needed) = {
            let mut state = self.shared.state.lock();
            state.published = frames.until;
            self.shared.note(&state);
            (Arc::clone(&state.file), state.first_needed())
        };
        file.note_told(needed)?;
        match self.shared.kept_anew() {
            Some(kept) => self.shared.begin_anew(&kept),
            None => Ok(()),
        }
    }

    /// Up to `most` intents of which only the store can tell what became of them, for `age_ms` at least.
    pub(super) fn doubts(&self, age_ms: u64, most: usize) -> Vec<(u64, Vec<u8>)> {
        let now_ms = self.shared.clock.monotonic_ms();
        let is_old = |since_ms| now_ms.saturating_sub(since_ms) >= age_ms;
        let due = |open: &Open| !open.asked && open.doubted_ms.is_some_and(is_old);
        let state = self.shared.state.lock();
        let doubts = state.open.iter().filter(|(_, open)| due(open));
        doubts.take(most).map(|(number, open)| (*number, open.body.clone())).collect()
    }

    /// Asks the store about the intent `number` again, later.
    pub(super) fn doubt_again(&self, number: u64) {
        self.order_asked(number, Order::Doubt { number });
    }

    /// Settles the intent `number` by what the store tells.
    pub(super) fn settle_by_store(&self, number: u64, told: Option<Told>) {
        self.order_asked(number, Order::Settle { number, told });
    }

    /// Tells the writer what the store said of the intent `number`, and no more of it until that is taken in: a disk
    /// that stalls would have the orders of requests crowded out.
    fn order_asked(&self, number: u64, order: Order) {
        match self.shared.state.lock().open.get_mut(&number) {
            Some(open) if !open.asked => open.asked = true,
            _ => return,
        }
        self.order(order);
    }

    /// What the event of the intent `number` is called.
    pub(super) fn event_id(&self, number: u64) -> String {
        format!("{}-{number}", self.shared.id)
    }

    fn order(&self, order: Order) {
        let sent = self.orders.as_ref().is_some_and(|orders| orders.try_send(order).is_ok());
        if !sent {
            // Only when the writer is gone: there is room for all orders of all places. Then what is in the file is told
            // by the next process.
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn try_intend(&self, intent: Intent<'_>) -> Option<IntentId> {
        let within = Duration::from_millis(INTEND_MS);
        let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let noted = Noted::of(intent, &self.event_id(number)).and_then(|noted| noted.encode());
        let body = noted.inspect_err(|error| tracing::error!(%error, "a link event is dropped")).ok()?;
        let place = tokio::time::timeout(within, self.shared.places.acquire()).await.ok()?.ok()?;
        let (answer, noted) = oneshot::channel();
        self.orders.as_ref()?.try_send(Order::Intend { number, body, noted: answer }).ok()?;
        // The writer gives it back.
        place.forget();
        let going = Going { outbox: self, number: Some(number) };
        let noted = tokio::time::timeout(within, noted).await;
        going.stays();
        match noted {
            Ok(Ok(true)) => Some(IntentId(number)),
            Ok(Ok(false) | Err(_)) => None,
            Err(_) => {
                tracing::warn!("the disk is slow: a link is changed before it is durable that it will be");
                Some(IntentId(number))
            }
        }
    }
}

/// An intent that is being noted. If whoever waits for that goes away, nothing was tried.
struct Going<'a> {
    outbox: &'a Outbox,
    number: Option<u64>,
}

impl Going<'_> {
    fn stays(mut self) {
        self.number = None;
    }
}

impl Drop for Going<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.outbox.order(Order::Settle { number, told: None });
        }
    }
}

#[async_trait]
impl LinkEvents for Outbox {
    async fn intend(&self, intent: Intent<'_>) -> Option<IntentId> {
        let intended = self.try_intend(intent).await;
        if intended.is_none() {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
        intended
    }

    fn settle(&self, IntentId(number): IntentId, outcome: Settled<'_>) {
        self.order(match outcome {
            Settled::Happened(event) => match Told::of(event, &self.event_id(number)) {
                Ok(told) => Order::Settle { number, told: Some(told) },
                Err(_) => Order::Doubt { number },
            },
            Settled::Nothing => Order::Settle { number, told: None },
            Settled::Unknown => Order::Doubt { number },
        });
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.orders = None;
        let wrote = self.writer.take().is_none_or(|writer| writer.join().is_ok());
        self.shared.unsynced.end();
        let synced = self.syncer.take().is_none_or(|syncer| syncer.join().is_ok());
        if !(wrote && synced) {
            tracing::error!("a thread that writes link events has panicked");
        }
    }
}

impl Shared {
    /// Brings up to date what a report tells. Called before `state`, which was changed, is unlocked.
    fn note(&self, state: &State) {
        self.waiting_bytes.store(state.len - state.published, Ordering::Relaxed);
        self.open.store(state.open.len() as u64, Ordering::Relaxed);
    }

    fn run(&self, orders: &Receiver<Order>) {
        while let Ok(first) = orders.recv() {
            let group = std::iter::once(first).chain(orders.try_iter().take(MAX_GROUP - 1)).collect();
            self.write(group);
        }
    }

    /// Writes a group, and hands those who wait for its intents over to the syncing.
    fn write(&self, group: Vec<Order>) {
        let mut state = self.state.lock();
        let mut writing = Writing::default();
        for order in group {
            match order {
                Order::Intend { number, body, noted } => writing.intend(&mut state, number, body, noted),
                Order::Settle { number, told } => writing.settle(&mut state, number, told),
                Order::Doubt { number } => {
                    if let Some(open) = state.open.get_mut(&number) {
                        (open.doubted_ms, open.asked) = (Some(self.clock.monotonic_ms()), false);
                    }
                }
            }
        }
        let wrote = state.file.file.write_all_at(&writing.bytes, state.len);
        state.note_outcome(wrote.as_ref().err());
        match wrote {
            Ok(()) => state.len += writing.bytes.len() as u64,
            Err(_) => writing.undo(&mut state, self.clock.monotonic_ms()),
        }
        self.note(&state);
        drop(state);
        self.answer(writing);
    }

    fn answer(&self, writing: Writing) {
        self.places.add_permits(writing.settled.len() + writing.refused.len());
        self.dropped.fetch_add(writing.lost, Ordering::Relaxed);
        self.unsynced.add(writing.intended.into_iter().map(|(_, noted)| noted));
        for noted in writing.refused {
            // Who waited may be gone; then it is settled all the same.
            let _ = noted.send(false);
        }
        if writing.has_events {
            self.appended.notify_one();
        }
    }
}

/// A group that is being written.
#[derive(Default)]
struct Writing {
    bytes: Vec<u8>,
    intended: Vec<(u64, oneshot::Sender<bool>)>,
    refused: Vec<oneshot::Sender<bool>>,
    settled: Vec<(u64, Open)>,
    /// Events for which there was no room.
    lost: u64,
    has_events: bool,
}

impl Writing {
    fn intend(&mut self, state: &mut State, number: u64, body: Vec<u8>, noted: oneshot::Sender<bool>) {
        let offset = state.len + self.bytes.len() as u64;
        let end = offset + (FRAME_BYTES + body.len()) as u64;
        if end > MAX_OUTBOX_BYTES - SETTLING_BYTES || body.len() > MAX_BODY_BYTES {
            return self.refused.push(noted);
        }
        frame(&mut self.bytes, Kind::Intent, number, &body);
        state.open.insert(number, Open { offset, body, doubted_ms: None, asked: false });
        self.intended.push((number, noted));
    }

    fn settle(&mut self, state: &mut State, number: u64, told: Option<Told>) {
        // One that was refused, by someone who went away before that was known.
        let Some(open) = state.open.remove(&number) else { return };
        let room = MAX_OUTBOX_BYTES.saturating_sub(state.len + self.bytes.len() as u64);
        match told {
            Some(told) if told.json.len() <= MAX_BODY_BYTES && (FRAME_BYTES + told.json.len()) as u64 <= room => {
                frame(&mut self.bytes, told.kind, number, &told.json);
                self.has_events = true;
            }
            told => {
                self.lost += u64::from(told.is_some());
                frame(&mut self.bytes, Kind::Nothing, number, &[]);
            }
        }
        self.settled.push((number, open));
    }

    /// Nothing of it was written: intents are refused, and what became of others is to be read back.
    fn undo(&mut self, state: &mut State, now_ms: u64) {
        for (number, open) in self.settled.drain(..) {
            state.open.insert(number, Open { doubted_ms: Some(now_ms), asked: false, ..open });
        }
        for (number, noted) in self.intended.drain(..) {
            state.open.remove(&number);
            self.refused.push(noted);
        }
        self.has_events = false;
    }
}

impl State {
    /// The offset before which nothing is needed any more, whoever reads the file.
    fn first_needed(&self) -> u64 {
        let open = self.open.values().map(|open| open.offset);
        open.fold(self.published, u64::min)
    }

    /// Logs the begin and the end of a fault.
    fn note_outcome(&mut self, error: Option<&io::Error>) {
        match error {
            Some(error) if !self.failing => tracing::error!(%error, "link events can't be written, and are dropped"),
            None if self.failing => tracing::info!("link events are written again"),
            _ => {}
        }
        self.failing = error.is_some();
    }
}

#[cfg(test)]
mod tests;
