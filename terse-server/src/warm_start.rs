//! Warm start: the codes that were asked for most are saved, and their links
//! are read into memory after the next start, before anybody asks.
//!
//! **Saved** are codes, never targets: what is loaded is read from the store,
//! so a start can't bring anything outdated back. That happens after draining,
//! and every `SAVE_EVERY`, so that a server which is killed loses few
//! minutes' worth of a list whose heat halves every `AGE_EVERY`.
//!
//! **Loaded** is in the background once the server is ready, hottest first,
//! and below live traffic: `AT_ONCE` look-ups at a time, at most
//! `STEP_CODES` each `LOAD_EVERY`, none while `BUSY_FLIGHTS` others are
//! running, a pause when the store refuses (up to `MAX_PAUSE_MS`), and an end
//! when memory is nine tenths full or `LOAD_WITHIN_MS` are over. These
//! look-ups are no redirects and are not counted as such.
//!
//! What could not be loaded stays on the list, with heat that fades: a server
//! that is stopped early, or starts while its store is away, forgets nothing.

mod codes_file;

use std::collections::{HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use terse_cache::{HotCode, ReadThrough, Warmed};
use terse_core::Clock;
use terse_core::ports::{StoreError, StoreErrorKind};
use terse_http::{Lifecycle, Phase};
use tokio::task::spawn_blocking;

use self::codes_file::{FILE, MAX_CODES, Saved};
use crate::tasks::Tasks;

/// How often the list is saved, besides the end.
pub const SAVE_EVERY: Duration = Duration::from_secs(5 * 60);
/// How often heat halves.
pub const AGE_EVERY: Duration = Duration::from_secs(AGE_EVERY_MS as u64 / 1_000);
const AGE_EVERY_MS: i64 = 30 * 60 * 1_000;
/// How often a step of loading is made.
pub const LOAD_EVERY: Duration = Duration::from_millis(100);
/// Codes in one step at most: 2,000 a second.
pub const STEP_CODES: usize = 200;
/// A step begins no look-up after this time.
const STEP_MS: u64 = 100;
/// Look-ups that run at the same time.
const AT_ONCE: usize = 4;
/// With more look-ups of others than this running, a step ends.
const BUSY_FLIGHTS: usize = 16;
/// The first pause after a refusal; it doubles with each.
const MIN_PAUSE_MS: u64 = 100;
/// The longest pause.
const MAX_PAUSE_MS: u64 = 5_000;
/// When loading is given up: by then traffic itself has warmed what matters.
const LOAD_WITHIN_MS: u64 = 10 * 60 * 1_000;

/// Saves and loads the hottest codes of one cache.
pub struct WarmStart {
    cache: Arc<ReadThrough>,
    clock: Arc<dyn Clock>,
    lifecycle: Arc<Lifecycle>,
    data_dir: PathBuf,
    deployment: String,
    progress: Mutex<Progress>,
    /// Two writers would share one draft.
    writing: Mutex<()>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The file may hold a list that is not known yet, so it must not be replaced.
    Unread,
    Loading,
    Ended,
}

struct Progress {
    stage: Stage,
    /// Saved codes that are not loaded, the next one first.
    left: VecDeque<HotCode>,
    loaded: usize,
    gone: usize,
    began_ms: u64,
    /// The pause after the next refusal.
    pause_ms: u64,
    paused_until_ms: u64,
}

impl Progress {
    fn new() -> Self {
        let (left, pause_ms) = (VecDeque::new(), MIN_PAUSE_MS);
        Self { stage: Stage::Unread, left, loaded: 0, gone: 0, began_ms: 0, pause_ms, paused_until_ms: 0 }
    }

    /// Takes what became of the first codes that are left. Returns whether memory is full.
    fn take(&mut self, outcomes: Vec<Result<Warmed, StoreError>>, now_ms: u64) -> bool {
        let (mut refused, asked, mut overloaded) = (0, outcomes.len(), false);
        for outcome in outcomes {
            let Some(hot) = self.left.pop_front() else { break };
            match outcome {
                Ok(Warmed::Read | Warmed::Known) => self.loaded += 1,
                Ok(Warmed::Gone) => self.gone += 1,
                Ok(Warmed::Full) => {
                    self.left.push_front(hot);
                    return true;
                }
                Err(error) => {
                    tracing::debug!(code = %hot.code, %error, "not loaded yet");
                    overloaded |= error.kind == StoreErrorKind::Overloaded;
                    refused += 1;
                    // Later again; a shard that is away must not hold up the others.
                    self.left.push_back(hot);
                }
            }
        }
        if overloaded || refused == asked {
            self.paused_until_ms = now_ms.saturating_add(self.pause_ms);
            self.pause_ms = (self.pause_ms * 2).min(MAX_PAUSE_MS);
        } else if refused == 0 {
            self.pause_ms = MIN_PAUSE_MS;
        }
        false
    }
}

impl WarmStart {
    /// Nothing is read or written yet. Only a process that holds the data
    /// directory's lock may have one, and only one. `deployment` is its id as a text without blanks.
    #[must_use]
    pub fn new(
        cache: Arc<ReadThrough>,
        clock: Arc<dyn Clock>,
        lifecycle: Arc<Lifecycle>,
        data_dir: PathBuf,
        deployment: String,
    ) -> Arc<Self> {
        let (progress, writing) = (Mutex::new(Progress::new()), Mutex::new(()));
        Arc::new(Self { cache, clock, lifecycle, data_dir, deployment, progress, writing })
    }

    /// Adds the tasks: loading, saving, aging.
    pub fn run(self: &Arc<Self>, tasks: &mut Tasks) {
        let (load, save, age) = (Arc::clone(self), Arc::clone(self), Arc::clone(self));
        tasks.every("warm start", LOAD_EVERY, move || {
            let warm = Arc::clone(&load);
            async move { warm.load_once().await }
        });
        tasks.every("warm codes", SAVE_EVERY, move || {
            let warm = Arc::clone(&save);
            async move { warm.save_once().await }
        });
        tasks.every("heat aging", AGE_EVERY, move || {
            age.age_once();
            async { Ok(()) }
        });
    }

    /// One step of loading: reads the list if that is still to be done, then at
    /// most [`STEP_CODES`] links. Does nothing before the server is ready,
    /// when it drains, and once loading has ended. Calls must not overlap.
    ///
    /// # Errors
    /// None that a later step could mend are told: a list that can't be read
    /// is logged, a store that refuses makes a pause.
    pub async fn load_once(self: &Arc<Self>) -> Result<(), StoreError> {
        if self.lifecycle.phase() != Phase::Ready {
            return Ok(());
        }
        if self.stage() == Stage::Unread {
            let this = Arc::clone(self);
            spawn_blocking(move || this.read_list()).await.map_err(|_| failed("the list was not read"))?;
        }
        let began_ms = self.clock.monotonic_ms();
        for _ in 0..STEP_CODES / AT_ONCE {
            let batch = self.next_batch(began_ms);
            if batch.is_empty() {
                break;
            }
            let outcomes = join_all(batch.iter().map(|hot| self.cache.warm(hot))).await;
            let full = self.progress.lock().take(outcomes, self.clock.monotonic_ms());
            if full {
                self.end("memory is full enough");
            }
        }
        Ok(())
    }

    /// Saves the list. Also to be called once after draining, when the tasks have ended.
    ///
    /// # Errors
    /// [`StoreErrorKind::Unavailable`] when the file can't be written; the one before is still there.
    pub async fn save_once(self: &Arc<Self>) -> Result<(), StoreError> {
        let this = Arc::clone(self);
        let saved = spawn_blocking(move || this.save()).await.map_err(|_| failed("the list was not saved"))?;
        saved.map_err(|error| StoreError { source: Some(Arc::new(error)), ..failed("the warm codes can't be saved") })
    }

    /// Halves all heat.
    pub fn age_once(&self) {
        self.cache.age_heat();
        let mut progress = self.progress.lock();
        progress.left.iter_mut().for_each(|hot| hot.heat /= 2);
        if progress.stage == Stage::Ended {
            // Nobody asked for these, and nobody will ask the store for them any more.
            progress.left.retain(|hot| hot.heat > 0);
        }
    }

    fn stage(&self) -> Stage {
        self.progress.lock().stage
    }

    fn read_list(&self) {
        let list = codes_file::read(&self.data_dir, &self.deployment);
        let mut progress = self.progress.lock();
        progress.stage = Stage::Loading;
        progress.began_ms = self.clock.monotonic_ms();
        match list {
            Ok(Some(saved)) => progress.left = aged(saved, self.clock.now().as_millis()),
            Ok(None) => tracing::info!(file = FILE.name, "no list of warm codes; starting cold"),
            Err(unfit) => tracing::warn!(file = FILE.name, %unfit, "the list of warm codes is ignored; starting cold"),
        }
        if progress.left.is_empty() {
            progress.stage = Stage::Ended;
        }
    }

    /// The codes to ask for now; none if it is time for others, or for nothing more.
    fn next_batch(&self, step_began_ms: u64) -> Vec<HotCode> {
        let now_ms = self.clock.monotonic_ms();
        let progress = self.progress.lock();
        if progress.stage != Stage::Loading {
            return vec![];
        }
        let reason = if progress.left.is_empty() {
            "all codes were asked for"
        } else if now_ms >= progress.began_ms.saturating_add(LOAD_WITHIN_MS) {
            "it took too long"
        } else {
            let over = now_ms >= step_began_ms.saturating_add(STEP_MS) || now_ms < progress.paused_until_ms;
            let yields = self.cache.stats().flights > BUSY_FLIGHTS || self.lifecycle.phase() != Phase::Ready;
            let count = if over || yields { 0 } else { AT_ONCE };
            return progress.left.iter().take(count).cloned().collect();
        };
        drop(progress);
        self.end(reason);
        vec![]
    }

    fn end(&self, reason: &str) {
        let mut progress = self.progress.lock();
        progress.stage = Stage::Ended;
        let Progress { loaded, gone, ref left, began_ms, .. } = *progress;
        let (left, took_ms) = (left.len(), self.clock.monotonic_ms().saturating_sub(began_ms));
        tracing::info!(loaded, gone, left, took_ms, reason, "warm start ended");
    }

    fn save(&self) -> std::io::Result<()> {
        let _one = self.writing.lock();
        if self.stage() == Stage::Unread {
            return Ok(());
        }
        let mut codes = self.cache.hottest(MAX_CODES);
        let left: Vec<HotCode> = self.progress.lock().left.iter().cloned().collect();
        let known: HashSet<_> = codes.iter().map(|hot| hot.code.clone()).collect();
        codes.extend(left.into_iter().filter(|hot| !known.contains(&hot.code)));
        codes.sort_unstable_by(|one, other| other.cmp(one));
        codes.truncate(MAX_CODES);
        if codes.is_empty() {
            return Ok(());
        }
        let saved = Saved { at: self.clock.now(), codes };
        codes_file::write(&self.data_dir, &self.deployment, &saved)?;
        tracing::debug!(codes = saved.codes.len(), "warm codes saved");
        Ok(())
    }
}

/// The codes with the heat that is left of them at `now_ms` of the wall clock.
fn aged(saved: Saved, now_ms: i64) -> VecDeque<HotCode> {
    let age_ms = now_ms.saturating_sub(saved.at.as_millis()).max(0);
    let halvings = u32::try_from(age_ms / AGE_EVERY_MS).unwrap_or(u32::MAX);
    let left_of = |heat: u32| heat.checked_shr(halvings).unwrap_or(0);
    saved.codes.into_iter().map(|hot| HotCode { heat: left_of(hot.heat), ..hot }).collect()
}

fn failed(message: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable, message)
}

#[cfg(test)]
mod tests;
