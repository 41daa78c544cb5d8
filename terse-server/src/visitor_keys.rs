//! The keys under which visitors are hashed: one a day in UTC, random, shared by all servers through the first shard,
//! and destroyed two days after its own. Without its key no hash can be led back to an address.
//!
//! Every process with the first shard destroys keys, whatever its roles; those that record clicks settle them as well.
//! The two go on apart from each other. While the first shard is away a server goes on with the keys it has, and
//! records clicks without visitors for days whose key it hasn't.
//!
//! **A clock that jumps ahead destroys nothing at once.** Keys are destroyed by a day that follows the clock by one day
//! at a time ([`Reckoning`]); a clock that is further ahead of it is believed after it has been so for an hour
//! ([`BELIEVED_MS`]). A process that starts begins with the newest earlier day of which a key stands, so what a
//! wrong clock finds at a start is safe for an hour, too. A clock that goes back is believed at once: it destroys less. Keys of days
//! to come, which a clock made that was ahead, stay until their day is over.
//!
//! Bounds: a step destroys at most [`STEP_KEYS`] keys of the [`MAX_NAMES`] that it looks at; the next one goes on.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use terse_clicks::journal::{DayKey, VisitorKeys};
use terse_core::ports::{HomeStore, StoreError, StoreErrorKind};
use terse_core::stats::Span;
use terse_core::time::random_bytes;
use terse_core::{Clock, Entropy, Timestamp};

use crate::tasks::Tasks;
use crate::world::World;

/// How long a start waits for the first keys.
const FIRST_WITHIN: Duration = Duration::from_millis(500);
/// How often it is looked whether a new day's key is needed, and whether one is to be destroyed.
const EVERY: Duration = Duration::from_secs(60);
/// After so many days, its own included, a key is destroyed.
const KEPT_DAYS: u32 = 2;
/// For how long a clock must have been more than a day ahead before keys are destroyed by it, in milliseconds.
const BELIEVED_MS: u64 = 3_600_000;
/// How the names of keys begin; the number of the day follows.
const PREFIX: &str = "visitor-key/";
/// Most names that a step looks at. There are a few; with more, the others wait until these are destroyed.
const MAX_NAMES: usize = 1_024;
/// Most keys that a step destroys, each by a write of its own.
const STEP_KEYS: usize = 64;

/// Sets the keys of the day, so that the first clicks have visitors too. A shard that is away is hardly waited for: the
/// task asks again.
pub(crate) async fn set_first(keys: VisitorKeys, home: Arc<dyn HomeStore>, world: &World) {
    let keeper = Keeper { home, clock: Arc::clone(&world.clock), entropy: Arc::clone(&world.entropy) };
    let set = tokio::time::timeout(FIRST_WITHIN, keeper.set_once(&keys)).await;
    if !matches!(set, Ok(Ok(()))) {
        tracing::debug!(?set, "clicks are recorded without visitors until the first shard answers");
    }
}

/// Starts the task that keeps the keys of `recorder`, once there is one, those of the day.
pub(crate) fn set(
    tasks: &mut Tasks,
    recorder: impl Fn() -> Option<VisitorKeys> + Send + 'static,
    home: Arc<dyn HomeStore>,
    world: &World,
) {
    let keeper = Arc::new(Keeper { home, clock: Arc::clone(&world.clock), entropy: Arc::clone(&world.entropy) });
    tasks.every("visitor keys", EVERY, move || {
        let (keeper, keys) = (Arc::clone(&keeper), recorder());
        async move {
            match keys {
                Some(keys) => keeper.set_once(&keys).await,
                None => Ok(()),
            }
        }
    });
}

/// Starts the task that destroys the keys of days that are over.
pub(crate) fn sweep(tasks: &mut Tasks, home: Arc<dyn HomeStore>, clock: Arc<dyn Clock>) {
    let sweeper = Arc::new(Sweeper::new(home, clock));
    tasks.every("visitor key sweep", EVERY, move || {
        let sweeper = Arc::clone(&sweeper);
        async move { sweeper.sweep_once().await }
    });
}

fn day_of(now: Timestamp) -> u32 {
    match Span::day_of(now) {
        Span::Day(day) => day,
        Span::All | Span::Hour(_) => 0,
    }
}

fn name_of(day: u32) -> String {
    format!("{PREFIX}{day}")
}

/// The day that a key's name tells; `None` = it is no key's name.
fn day_in(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.parse().ok()
}

/// Settles keys.
struct Keeper {
    home: Arc<dyn HomeStore>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

impl Keeper {
    /// Sets the keys of today and of the day after, for the minutes before and after midnight.
    async fn set_once(&self, keys: &VisitorKeys) -> Result<(), StoreError> {
        let now = self.clock.now();
        let today = day_of(now);
        let key = self.settle(today).await?;
        // Half a day ahead is soon enough, and keeps a day's key from living longer than it must.
        let tomorrow = day_of(now.plus_millis(12 * 3_600_000));
        let next = if tomorrow == today { None } else { Some(self.settle(tomorrow).await?) };
        keys.set([Some(key), next]);
        Ok(())
    }

    async fn settle(&self, day: u32) -> Result<DayKey, StoreError> {
        let proposed: [u8; 16] = random_bytes(self.entropy.as_ref());
        let standing = self.home.settle(&name_of(day), &proposed).await?;
        let key =
            standing.try_into().map_err(|_| StoreError::new(StoreErrorKind::Corrupt, "a visitor key is damaged"))?;
        Ok(DayKey { day, key })
    }
}

/// By which day keys are destroyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reckoning {
    day: u32,
    /// Since when the clock is more than a day ahead of it, in monotonic milliseconds.
    ahead_since_ms: Option<u64>,
}

impl Reckoning {
    /// At a start: `newest` is the newest day before `today` of which a key stands.
    fn begin(today: u32, newest: Option<u32>, now_ms: u64) -> Self {
        Self { day: newest.unwrap_or(today), ahead_since_ms: None }.follow(today, now_ms)
    }

    /// Follows a clock that says `today`.
    fn follow(self, today: u32, now_ms: u64) -> Self {
        let since_ms = self.ahead_since_ms.unwrap_or(now_ms);
        if today <= self.day.saturating_add(1) || now_ms.saturating_sub(since_ms) >= BELIEVED_MS {
            Self { day: today, ahead_since_ms: None }
        } else {
            Self { ahead_since_ms: Some(since_ms), ..self }
        }
    }

    /// The last day whose key is to be destroyed.
    fn last(self) -> Option<u32> {
        self.day.checked_sub(KEPT_DAYS)
    }
}

/// Destroys keys.
struct Sweeper {
    home: Arc<dyn HomeStore>,
    clock: Arc<dyn Clock>,
    state: Mutex<Swept>,
}

/// How far keys are destroyed.
#[derive(Clone, Copy, Default)]
struct Swept {
    reckoning: Option<Reckoning>,
    /// The reckoned day of the last sweep that destroyed all it had to.
    done: Option<u32>,
}

impl Sweeper {
    fn new(home: Arc<dyn HomeStore>, clock: Arc<dyn Clock>) -> Self {
        Self { home, clock, state: Mutex::default() }
    }

    /// Destroys the keys of days that are over for good, once for each day.
    async fn sweep_once(&self) -> Result<(), StoreError> {
        let (today, now_ms) = (day_of(self.clock.now()), self.clock.monotonic_ms());
        let Swept { reckoning, done } = *self.state.lock();
        let (reckoning, mut names) = match reckoning {
            Some(reckoning) => (reckoning.follow(today, now_ms), None),
            None => {
                let names = self.names().await?;
                let newest = names.iter().filter_map(|name| day_in(name)).filter(|day| *day < today).max();
                (Reckoning::begin(today, newest, now_ms), Some(names))
            }
        };
        self.state.lock().reckoning = Some(reckoning);
        if done == Some(reckoning.day) {
            return Ok(());
        }
        if names.is_none() {
            names = Some(self.names().await?);
        }
        if self.destroy(&names.unwrap_or_default(), reckoning.last()).await? {
            self.state.lock().done = Some(reckoning.day);
        }
        Ok(())
    }

    async fn names(&self) -> Result<Vec<String>, StoreError> {
        self.home.names(PREFIX, MAX_NAMES).await
    }

    /// Destroys those of `names` that are the keys of days up to `last`; whether these were all there are.
    async fn destroy(&self, names: &[String], last: Option<u32>) -> Result<bool, StoreError> {
        let over = |name: &&String| day_in(name).zip(last).is_some_and(|(day, last)| day <= last);
        let mut destroyed = 0;
        for name in names.iter().filter(over).take(STEP_KEYS) {
            self.home.forget(name).await?;
            destroyed += 1;
        }
        // What isn't destroyed fills no list of names: then there is nothing more to do.
        Ok(destroyed < STEP_KEYS && (names.len() < MAX_NAMES || destroyed == 0))
    }
}

#[cfg(test)]
mod tests;
