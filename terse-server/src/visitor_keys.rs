//! The keys under which visitors are hashed: one a day in UTC, random, shared by all servers through the first shard,
//! and destroyed two days after its own. Without its key no hash can be led back to an address.
//!
//! While the first shard is away a server goes on with the keys it has, and records clicks without visitors for days
//! whose key it hasn't.

use std::sync::Arc;
use std::time::Duration;

use terse_clicks::journal::{DayKey, VisitorKeys};
use terse_core::ports::{HomeStore, StoreError, StoreErrorKind};
use terse_core::stats::Span;
use terse_core::time::random_bytes;
use terse_core::{Clock, Entropy, Timestamp};

use crate::tasks::Tasks;
use crate::world::World;

/// How often it is looked whether a new day's key is needed.
const EVERY: Duration = Duration::from_secs(60);
/// After so many days, its own included, a key is destroyed.
const KEPT_DAYS: u32 = 2;
/// How many days back keys are looked for that nobody destroyed in time.
const SWEPT_DAYS: u32 = 30;

/// How long a start waits for the first keys.
const FIRST_WITHIN: Duration = Duration::from_millis(500);

/// Sets the keys of the day, so that the first clicks have visitors too. A shard that is away is hardly waited for: the
/// task asks again.
pub(crate) async fn set_first(keys: VisitorKeys, home: Arc<dyn HomeStore>, world: &World) {
    let turn = Turn { keys, home, clock: Arc::clone(&world.clock), entropy: Arc::clone(&world.entropy) };
    let set = tokio::time::timeout(FIRST_WITHIN, turn.set_once(day_of(turn.clock.now()))).await;
    if !matches!(set, Ok(Ok(()))) {
        tracing::debug!(?set, "clicks are recorded without visitors until the first shard answers");
    }
}

/// Starts the task that keeps `keys` those of the day.
pub(crate) fn run(tasks: &mut Tasks, keys: VisitorKeys, home: Arc<dyn HomeStore>, world: &World) {
    let turn = Arc::new(Turn { keys, home, clock: Arc::clone(&world.clock), entropy: Arc::clone(&world.entropy) });
    let mut swept = None;
    tasks.every("visitor keys", EVERY, move || {
        let turn = Arc::clone(&turn);
        let today = day_of(turn.clock.now());
        let sweep = swept.replace(today) != Some(today);
        async move {
            turn.set_once(today).await?;
            if sweep { turn.destroy_once(today).await } else { Ok(()) }
        }
    });
}

fn day_of(now: Timestamp) -> u32 {
    match Span::day_of(now) {
        Span::Day(day) => day,
        Span::All | Span::Hour(_) => 0,
    }
}

fn name_of(day: u32) -> String {
    format!("visitor-key/{day}")
}

struct Turn {
    keys: VisitorKeys,
    home: Arc<dyn HomeStore>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

impl Turn {
    /// Sets the keys of `today` and of the day after, for the minutes before and after midnight.
    async fn set_once(&self, today: u32) -> Result<(), StoreError> {
        let key = self.settle(today).await?;
        // Half a day ahead is soon enough, and keeps a day's key from living longer than it must.
        let tomorrow = day_of(self.clock.now().plus_millis(12 * 3_600_000));
        let next = if tomorrow == today { None } else { Some(self.settle(tomorrow).await?) };
        self.keys.set([Some(key), next]);
        Ok(())
    }

    async fn settle(&self, day: u32) -> Result<DayKey, StoreError> {
        let proposed: [u8; 16] = random_bytes(self.entropy.as_ref());
        let standing = self.home.settle(&name_of(day), &proposed).await?;
        let key =
            standing.try_into().map_err(|_| StoreError::new(StoreErrorKind::Corrupt, "a visitor key is damaged"))?;
        Ok(DayKey { day, key })
    }

    /// Destroys the keys of days that are over for good.
    async fn destroy_once(&self, today: u32) -> Result<(), StoreError> {
        let last = today.saturating_sub(KEPT_DAYS);
        for day in last.saturating_sub(SWEPT_DAYS)..=last {
            if self.home.setting(&name_of(day)).await?.is_some() {
                self.home.forget(&name_of(day)).await?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use terse_core::ports::SettingsStore;
    use terse_store::MemoryStore;
    use terse_testkit::{SeededEntropy, TestClock};

    use super::*;

    const DAY_MS: u64 = 86_400_000;

    fn turn(home: &Arc<MemoryStore>, clock: &Arc<TestClock>, seed: u64) -> Turn {
        Turn {
            keys: VisitorKeys::new(),
            home: Arc::clone(home) as Arc<dyn HomeStore>,
            clock: Arc::clone(clock) as Arc<dyn Clock>,
            entropy: Arc::new(SeededEntropy::new(seed)),
        }
    }

    #[tokio::test]
    async fn all_servers_hash_visitors_of_a_day_under_one_key_and_of_another_day_under_another() {
        let (home, clock) = (Arc::new(MemoryStore::new()), Arc::new(TestClock::default()));
        let (one, other) = (turn(&home, &clock, 1), turn(&home, &clock, 2));
        let (key, same) = (one.settle(20_000).await.unwrap(), other.settle(20_000).await.unwrap());
        assert_eq!((key.day, key.key), (20_000, same.key));
        assert_ne!(other.settle(20_001).await.unwrap().key, key.key);
    }

    #[tokio::test]
    async fn a_key_is_destroyed_two_days_after_its_own() {
        let (home, clock) = (Arc::new(MemoryStore::new()), Arc::new(TestClock::default()));
        let turn = turn(&home, &clock, 1);
        let first = day_of(clock.now());
        for day in 0..4 {
            let today = first + day;
            turn.set_once(today).await.unwrap();
            turn.destroy_once(today).await.unwrap();
            for (old, kept) in [(today, true), (today - 1, day > 0), (today.saturating_sub(2), false)] {
                let found = home.setting(&name_of(old)).await.unwrap();
                assert_eq!(found.is_some(), kept, "day {old} on {today}");
            }
            clock.advance(Duration::from_millis(DAY_MS));
        }
    }

    #[tokio::test]
    async fn a_damaged_key_is_told_and_nothing_is_hashed_under_it() {
        let (home, clock) = (Arc::new(MemoryStore::new()), Arc::new(TestClock::default()));
        let turn = turn(&home, &clock, 1);
        let today = day_of(clock.now());
        home.settle(&name_of(today), b"short").await.unwrap();
        assert_eq!(turn.set_once(today).await.unwrap_err().kind, StoreErrorKind::Corrupt);
    }
}
