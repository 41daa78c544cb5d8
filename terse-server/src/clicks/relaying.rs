//! The relay's thread: it publishes blocks of clicks to the broker as long as the server lives, and what is left at its
//! end as far as there is time.
//!
//! Redirects wait for none of it: the journal is the buffer, and the broker may be away at the start and at any time.
//! The relay connects again by itself. One that panics is followed by another after a wait that doubles from
//! [`FIRST_WAIT`] to [`MAX_WAIT`]; what was not confirmed is still on disk. A journal that opens late gets a new relay,
//! which takes it along. A process that counts and records nothing relays what servers that are gone left in its data
//! directory ([`RelayOf::Remains`]).

use std::fs::{File, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use terse_clicks::journal::Journal;
use terse_clicks::rabbit::{Relay, RelayProgress, RelayReport};
use tokio::runtime::Runtime;
use tokio::sync::{oneshot, watch};

use super::late::Late;
use super::projection::text_of;
use super::recording::Recording;
use crate::exit::{Exit, StartError};

/// How long it takes to start another relay after the first death.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// How often it is looked whether the other process that relays has ended.
const STAND_BY: Duration = Duration::from_secs(5);
/// The file of a data directory whose lock says who relays what others left there.
const LOCK: &str = "relay.lock";
/// How often a relay without a journal of its own process looks whether there is one.
const JOURNAL_EVERY: Duration = Duration::from_millis(250);
/// What a relay gets to finish without a connection: a try to make one; and what one of remains gets. What is left
/// stays on disk in any case.
const UNCONNECTED: Duration = Duration::from_millis(1_000);

/// What is known of the relays of a process, one after the other.
#[derive(Default)]
pub(super) struct Relayed(Mutex<State>);

#[derive(Default)]
struct State {
    progress: Arc<RelayProgress>,
    /// Parts that earlier ones published and had confirmed.
    before: (u64, u64),
    deaths: u32,
    lives: bool,
    /// Whether another process relays, and this one would if that ended.
    stands_by: bool,
}

impl Relayed {
    /// What the current relay tells of itself, and what all of them have published.
    pub(super) fn report(&self) -> RelayReport {
        let state = self.0.lock();
        let report = state.progress.report();
        let (published, confirmed) = state.before;
        RelayReport { published: published + report.published, confirmed: confirmed + report.confirmed, ..report }
    }

    /// Whether there is a relay now.
    pub(super) fn lives(&self) -> bool {
        self.0.lock().lives
    }

    /// Whether there is none for another process has one, and needs none.
    pub(super) fn stands_by(&self) -> bool {
        self.0.lock().stands_by
    }

    fn stand_by(&self, is: bool) {
        self.0.lock().stands_by = is;
    }

    fn born(&self, progress: Arc<RelayProgress>) {
        let mut state = self.0.lock();
        let report = state.progress.report();
        state.before.0 += report.published;
        state.before.1 += report.confirmed;
        (state.progress, state.lives) = (progress, true);
    }

    /// Notes a death; returns how long to wait for the next birth.
    fn died(&self, why: &str) -> Duration {
        let mut state = self.0.lock();
        state.lives = false;
        state.deaths = state.deaths.saturating_add(1);
        let wait = FIRST_WAIT.saturating_mul(1 << (state.deaths - 1).min(16)).min(MAX_WAIT);
        tracing::error!(why, deaths = state.deaths, wait_s = wait.as_secs(), "the relay has died; another follows");
        wait
    }
}

/// What relays publish.
pub(super) enum RelayOf {
    /// The journal of this process, once there is one, and those in its directory that have ended.
    Recording(Recording),
    /// Those that have ended in this data directory, where this process records nothing: a server that is there no more
    /// left them. Of several such processes one does so, whoever has the directory's lock for it. A server that records
    /// there publishes them too; each click is counted once all the same.
    Remains(PathBuf),
}

impl RelayOf {
    fn journal(&self) -> Option<&Late<Journal>> {
        match self {
            Self::Recording(recording) => Some(&recording.journal),
            Self::Remains(_) => None,
        }
    }

    /// How long a relay may publish what is left when the server has `within` for its end. What others left is the next
    /// one's as well, so the end of this process waits for none of it.
    fn drains_for(&self, within: Duration, connected: bool) -> Duration {
        match self {
            Self::Recording(_) if connected => within,
            Self::Recording(_) | Self::Remains(_) => within.min(UNCONNECTED),
        }
    }

    /// What a relay has to hold while it lives; `None` = another process has it.
    fn admit(&self) -> std::io::Result<Option<Admitted>> {
        let Self::Remains(data_dir) = self else { return Ok(Some(Admitted { _lock: None })) };
        let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(data_dir.join(LOCK))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Admitted { _lock: Some(file) })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// Proof that a relay may live.
struct Admitted {
    _lock: Option<File>,
}

/// The thread on which relays live.
pub(super) struct Relaying {
    relayed: Arc<Relayed>,
    stop: watch::Sender<bool>,
    within: Arc<OnceLock<Duration>>,
    ended: oneshot::Receiver<()>,
    thread: JoinHandle<()>,
}

impl Relaying {
    /// Starts the thread, which lives by the relays that `make` makes, of the journal that `of` names and all others.
    ///
    /// # Errors
    /// [`StartError`] when the thread can't be started.
    pub(super) fn start(
        make: impl FnMut(Option<Arc<Journal>>) -> Result<Relay, String> + Send + 'static,
        of: RelayOf,
    ) -> Result<Self, StartError> {
        let failed = |error: std::io::Error| {
            StartError::new(Exit::Internal, format_args!("the relay can't be started: {error}"))
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let (relayed, within) = (Arc::<Relayed>::default(), Arc::<OnceLock<Duration>>::default());
        let ((stop, stopped), (told, ended)) = (watch::channel(false), oneshot::channel());
        let (shared, time) = (Arc::clone(&relayed), Arc::clone(&within));
        let thread = std::thread::Builder::new().name("relay".to_owned()).spawn(move || {
            supervise(&runtime, make, &of, stopped, &shared, &time);
            // Nobody listens once the server has given up waiting.
            let _ = told.send(());
        });
        Ok(Self { relayed, stop, within, ended, thread: thread.map_err(failed)? })
    }

    /// What is known of its relays.
    pub(super) fn relayed(&self) -> Arc<Relayed> {
        Arc::clone(&self.relayed)
    }

    /// Tells the relay to publish what is left, at most `within`, and waits for it. The journal has ended before.
    pub(super) async fn end(self, within: Duration) {
        // It was never set before: whoever ends it does so once.
        let _ = self.within.set(within);
        self.stop.send_replace(true);
        // One answer of the broker may be waited for besides.
        match tokio::time::timeout(within + UNCONNECTED, self.ended).await {
            Ok(_) => {
                if self.thread.join().is_err() {
                    tracing::error!("the relay's thread has panicked");
                }
            }
            Err(_) => tracing::warn!("no time is left for publishing clicks; they stay on disk"),
        }
    }
}

/// How a relay's life ended.
enum Ended {
    /// It was told to.
    Stopped,
    /// There is a journal now, which it doesn't know.
    Outdated,
}

fn supervise(
    runtime: &Runtime,
    mut make: impl FnMut(Option<Arc<Journal>>) -> Result<Relay, String>,
    of: &RelayOf,
    mut stopped: watch::Receiver<bool>,
    relayed: &Relayed,
    within: &OnceLock<Duration>,
) {
    // A sender that is gone says stop, too.
    while !*stopped.borrow() && stopped.has_changed().is_ok() {
        let admitted = of.admit();
        relayed.stand_by(matches!(admitted, Ok(None)));
        if let Ok(None) = admitted {
            wait(runtime, &mut stopped, STAND_BY);
            continue;
        }
        let mut stop = stopped.clone();
        // What a panic leaves half done goes with the relay.
        let lived = catch_unwind(AssertUnwindSafe(|| {
            let _admitted = admitted.map_err(|error| format!("the lock of relays can't be had: {error}"))?;
            let journal = of.journal().and_then(|journal| journal.get().cloned());
            let is_late = journal.is_none();
            let relay = make(journal)?;
            relayed.born(relay.progress());
            Ok(runtime.block_on(live(relay, of, is_late, &mut stop, within)))
        }));
        let why = match lived {
            Ok(Ok(Ended::Stopped)) => return,
            Ok(Ok(Ended::Outdated)) => continue,
            Ok(Err(why)) => why,
            Err(panic) => format!("it has panicked: {}", text_of(panic.as_ref())),
        };
        wait(runtime, &mut stopped, relayed.died(&why));
    }
}

/// Waits, unless it is told to stop.
fn wait(runtime: &Runtime, stopped: &mut watch::Receiver<bool>, most: Duration) {
    // Either way the loop looks what it was.
    let _ = runtime.block_on(async { tokio::time::timeout(most, stopped.wait_for(|stop| *stop)).await.is_ok() });
}

/// Lets `relay` work until it is told to stop, or, where that `is_late`, there is a journal of `of`.
async fn live(
    mut relay: Relay,
    of: &RelayOf,
    is_late: bool,
    stop: &mut watch::Receiver<bool>,
    within: &OnceLock<Duration>,
) -> Ended {
    let opened = async {
        let Some(late) = of.journal().filter(|_| is_late) else { return std::future::pending().await };
        while late.get().is_none() {
            tokio::time::sleep(JOURNAL_EVERY).await;
        }
    };
    tokio::select! {
        () = relay.run(stop) => {}
        () = opened => return Ended::Outdated,
    }
    let within = within.get().copied().unwrap_or_default();
    let drains_for = of.drains_for(within, relay.progress().report().connected);
    if !relay.finish(drains_for).await {
        tracing::warn!("not all clicks were published; they stay on disk for the next start");
    }
    Ended::Stopped
}

#[cfg(test)]
mod tests;
