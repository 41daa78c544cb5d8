//! The projector's thread, and who starts a new projector when one dies.
//!
//! A projector is stateless beyond the read model, so another one goes on where it wrote last. One that dies, by a panic
//! or an error that it can't go on with, is followed by another after a wait that doubles from [`FIRST_WAIT`] to
//! [`MAX_WAIT`]; meanwhile health says that counting has stopped, and redirects go on. After [`BLAMED_DEATHS`] deaths
//! in a row while the records of the same block were added, the log says which block that is.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use terse_clicks::projector::{Progress, ProgressReport};
use terse_core::Clock;
use terse_core::click::BlockId;
use tokio::runtime::Runtime;
use tokio::sync::{oneshot, watch};

use crate::exit::{Exit, StartError};

/// How long it takes to start another projector after the first death.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// A projector that lived so long is sound: waits begin anew, and health says nothing of earlier deaths.
const SOUND_MS: u64 = 60_000;
/// So many deaths in a row at one block are that block's fault.
const BLAMED_DEATHS: u32 = 3;

/// A projector that is about to run.
pub(super) struct Life {
    /// What it tells of itself.
    pub(super) progress: Arc<Progress>,
    /// Ends when it is told to stop, or with why it can't go on.
    pub(super) run: Pin<Box<dyn Future<Output = Result<(), String>>>>,
}

/// What is known of the projectors of a process, one after the other.
#[derive(Default)]
pub(super) struct Supervised(Mutex<State>);

#[derive(Default)]
struct State {
    progress: Arc<Progress>,
    /// Clicks that earlier ones counted.
    applied_before: u64,
    /// Since when one lives, in monotonic milliseconds.
    lives_since_ms: Option<u64>,
    /// Deaths since the last sound one.
    deaths: u32,
    last_block: Option<BlockId>,
    deaths_at_block: u32,
}

impl Supervised {
    /// What the current projector tells of itself, and what all of them have counted.
    pub(super) fn report(&self) -> ProgressReport {
        let state = self.0.lock();
        let report = state.progress.report();
        ProgressReport { applied: state.applied_before + report.applied, ..report }
    }

    /// Whether projectors die.
    pub(super) fn has_stopped(&self, now_ms: u64) -> bool {
        let state = self.0.lock();
        state.deaths > 0 && state.lives_since_ms.is_none_or(|since| now_ms.saturating_sub(since) < SOUND_MS)
    }

    fn born(&self, progress: &Arc<Progress>, now_ms: u64) {
        let mut state = self.0.lock();
        state.applied_before += state.progress.report().applied;
        state.progress = Arc::clone(progress);
        state.lives_since_ms = Some(now_ms);
    }

    /// Notes a death; returns how long to wait for the next birth.
    pub(super) fn died(&self, why: &str, now_ms: u64) -> Duration {
        let mut state = self.0.lock();
        let lived_ms = state.lives_since_ms.take().map(|since| now_ms.saturating_sub(since));
        if lived_ms.is_some_and(|lived_ms| lived_ms >= SOUND_MS) {
            state.deaths = 0;
        }
        state.deaths = state.deaths.saturating_add(1);
        let block = lived_ms.and_then(|_| state.progress.in_hand());
        state.note_block(block);
        let wait = FIRST_WAIT.saturating_mul(1 << (state.deaths - 1).min(16)).min(MAX_WAIT);
        tracing::error!(why, deaths = state.deaths, wait_s = wait.as_secs(), "the projector has died; another follows");
        if let Some(block) = state.blamed() {
            let deaths = state.deaths_at_block;
            tracing::error!(%block, deaths, "clicks are not counted: the projector dies at this block each time");
        }
        wait
    }
}

impl State {
    /// Notes at which block a projector died.
    fn note_block(&mut self, block: Option<BlockId>) {
        let same = block.is_some() && block == self.last_block;
        self.deaths_at_block = if same { self.deaths_at_block.saturating_add(1) } else { u32::from(block.is_some()) };
        self.last_block = block;
    }

    /// The block at which projectors die.
    fn blamed(&self) -> Option<BlockId> {
        self.last_block.filter(|_| self.deaths_at_block >= BLAMED_DEATHS)
    }
}

/// The thread on which projectors live.
pub(super) struct Projection {
    supervised: Arc<Supervised>,
    stop: watch::Sender<bool>,
    ended: oneshot::Receiver<()>,
    thread: JoinHandle<()>,
}

impl Projection {
    /// Starts the thread, which lives by what `begin` makes.
    ///
    /// # Errors
    /// [`StartError`] when the thread can't be started.
    pub(super) fn start(
        begin: impl FnMut(watch::Receiver<bool>) -> Result<Life, String> + Send + 'static,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StartError> {
        let failed = |error: std::io::Error| {
            StartError::new(Exit::Internal, format_args!("the projector can't be started: {error}"))
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let supervised = Arc::new(Supervised::default());
        let ((stop, stopped), (told, ended)) = (watch::channel(false), oneshot::channel());
        let shared = Arc::clone(&supervised);
        let thread = std::thread::Builder::new().name("projector".to_owned()).spawn(move || {
            supervise(&runtime, begin, stopped, &shared, clock.as_ref());
            // Nobody listens once the server has given up waiting.
            let _ = told.send(());
        });
        Ok(Self { supervised, stop, ended, thread: thread.map_err(failed)? })
    }

    /// What is known of its projectors.
    pub(super) fn supervised(&self) -> Arc<Supervised> {
        Arc::clone(&self.supervised)
    }

    /// Tells the projector to stop, and waits for it.
    pub(super) async fn end(self, within: Duration) {
        self.stop.send_replace(true);
        match tokio::time::timeout(within, self.ended).await {
            Ok(_) => {
                if self.thread.join().is_err() {
                    tracing::error!("the projector's thread has panicked");
                }
            }
            Err(_) => tracing::warn!("no time is left for counting clicks; the next start goes on"),
        }
    }
}

fn supervise(
    runtime: &Runtime,
    mut begin: impl FnMut(watch::Receiver<bool>) -> Result<Life, String>,
    mut stopped: watch::Receiver<bool>,
    supervised: &Supervised,
    clock: &dyn Clock,
) {
    // A sender that is gone says stop, too.
    while !*stopped.borrow() && stopped.has_changed().is_ok() {
        // What a panic leaves half done goes with the projector.
        let lived = catch_unwind(AssertUnwindSafe(|| {
            let life = begin(stopped.clone())?;
            supervised.born(&life.progress, clock.monotonic_ms());
            runtime.block_on(life.run)
        }));
        let why = match lived {
            Ok(Ok(())) => return,
            Ok(Err(why)) => why,
            Err(panic) => format!("it has panicked: {}", text_of(panic.as_ref())),
        };
        let wait = supervised.died(&why, clock.monotonic_ms());
        // Either way the loop looks what it was.
        let _ = runtime.block_on(async { tokio::time::timeout(wait, stopped.wait_for(|stop| *stop)).await.is_ok() });
    }
}

pub(super) fn text_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a text")
}

#[cfg(test)]
mod tests;
