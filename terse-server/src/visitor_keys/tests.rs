use std::collections::BTreeSet;

use terse_core::ports::SettingsStore;
use terse_store::MemoryStore;
use terse_testkit::{Fault, FaultyStore, Operation, SeededEntropy, TestClock, When};

use super::*;

const DAY: Duration = Duration::from_secs(86_400);
const MINUTE: Duration = Duration::from_secs(60);

struct Scene {
    home: Arc<MemoryStore>,
    clock: Arc<TestClock>,
}

impl Scene {
    fn new() -> Self {
        Self { home: Arc::new(MemoryStore::new()), clock: Arc::new(TestClock::default()) }
    }

    fn keeper(&self, seed: u64) -> Keeper {
        Keeper {
            home: Arc::clone(&self.home) as Arc<dyn HomeStore>,
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            entropy: Arc::new(SeededEntropy::new(seed)),
        }
    }

    fn sweeper(&self) -> Sweeper {
        Sweeper::new(Arc::clone(&self.home) as Arc<dyn HomeStore>, Arc::clone(&self.clock) as Arc<dyn Clock>)
    }

    fn today(&self) -> u32 {
        day_of(self.clock.now())
    }

    async fn settle(&self, days: impl IntoIterator<Item = u32>) {
        for day in days {
            self.home.settle(&name_of(day), &[7; 16]).await.unwrap();
        }
    }

    /// The days whose keys stand.
    async fn days(&self) -> BTreeSet<u32> {
        self.home.names(PREFIX, usize::MAX).await.unwrap().iter().filter_map(|name| day_in(name)).collect()
    }
}

#[tokio::test]
async fn all_servers_hash_visitors_of_a_day_under_one_key_and_of_another_day_under_another() {
    let scene = Scene::new();
    let (one, other) = (scene.keeper(1), scene.keeper(2));
    let (key, same) = (one.settle(20_000).await.unwrap(), other.settle(20_000).await.unwrap());
    assert_eq!((key.day, key.key), (20_000, same.key));
    assert_ne!(other.settle(20_001).await.unwrap().key, key.key);
}

#[tokio::test]
async fn a_key_is_destroyed_two_days_after_its_own() {
    let scene = Scene::new();
    let (keeper, sweeper, keys) = (scene.keeper(1), scene.sweeper(), VisitorKeys::new());
    let first = scene.today();
    for day in 0..5 {
        let today = first + day;
        keeper.set_once(&keys).await.unwrap();
        sweeper.sweep_once().await.unwrap();
        let kept = today.saturating_sub(1).max(first)..=today;
        assert_eq!(scene.days().await, kept.collect(), "on day {day}");
        scene.clock.advance(DAY);
    }
}

#[tokio::test]
async fn keys_of_an_absence_of_any_length_are_destroyed_whatever_their_number() {
    let scene = Scene::new();
    let today = scene.today();
    scene.settle((1..=3_000).map(|ago| today - ago)).await;
    scene.settle([today, today + 1]).await;
    scene.home.settle("visitor-key/of nobody", b"other").await.unwrap();
    let sweeper = scene.sweeper();
    // Of so many names the first look may miss yesterday's.
    sweeper.sweep_once().await.unwrap();
    scene.clock.advance(Duration::from_millis(BELIEVED_MS));
    for _ in 0..3_000 / STEP_KEYS + 2 {
        sweeper.sweep_once().await.unwrap();
    }
    assert_eq!(scene.days().await, [today - 1, today, today + 1].into());
    assert!(scene.home.setting("visitor-key/of nobody").await.unwrap().is_some());
}

#[tokio::test]
async fn keys_that_nobody_swept_for_months_go_an_hour_after_the_start() {
    let scene = Scene::new();
    let today = scene.today();
    scene.settle([today - 100, today - 99]).await;
    let sweeper = scene.sweeper();
    for _ in 0..60 {
        // What a recorder in this process settles doesn't make its clock right.
        scene.settle([today]).await;
        sweeper.sweep_once().await.unwrap();
        scene.clock.advance(MINUTE);
    }
    assert!(scene.days().await.contains(&(today - 99)), "too early");
    sweeper.sweep_once().await.unwrap();
    assert_eq!(scene.days().await, [today].into());
}

#[tokio::test]
async fn a_clock_that_jumps_ahead_for_less_than_an_hour_destroys_nothing() {
    for ahead in [2, 3, 34, 4_000] {
        let scene = Scene::new();
        let (today, now) = (scene.today(), scene.clock.now());
        let (keeper, sweeper, keys) = (scene.keeper(1), scene.sweeper(), VisitorKeys::new());
        scene.settle([today - 1]).await;
        keeper.set_once(&keys).await.unwrap();
        sweeper.sweep_once().await.unwrap();
        let stood = scene.days().await;
        assert_eq!(stood, [today - 1, today].into());
        scene.clock.set_wall(now.plus_millis(i64::from(ahead) * 86_400_000));
        for _ in 0..59 {
            keeper.set_once(&keys).await.unwrap();
            sweeper.sweep_once().await.unwrap();
            scene.clock.advance(MINUTE);
        }
        assert!(scene.days().await.is_superset(&stood), "{ahead} days ahead");
        scene.clock.set_wall(now);
        for _ in 0..70 {
            sweeper.sweep_once().await.unwrap();
            scene.clock.advance(MINUTE);
        }
        assert!(scene.days().await.is_superset(&stood), "back from {ahead} days ahead");
    }
}

#[tokio::test]
async fn a_day_ahead_for_a_minute_costs_no_key_of_today() {
    let scene = Scene::new();
    let (today, now, sweeper) = (scene.today(), scene.clock.now(), scene.sweeper());
    scene.settle([today - 1, today]).await;
    for wall in [now, now.plus_millis(86_400_000), now] {
        scene.clock.set_wall(wall);
        sweeper.sweep_once().await.unwrap();
    }
    assert_eq!(scene.days().await, [today].into());
}

#[tokio::test]
async fn a_clock_that_was_wrong_at_the_start_destroys_nothing_that_the_right_one_needs() {
    let scene = Scene::new();
    let (today, now) = (scene.today(), scene.clock.now());
    scene.settle([today - 1, today]).await;
    scene.clock.set_wall(now.plus_millis(400 * 86_400_000));
    let sweeper = scene.sweeper();
    sweeper.sweep_once().await.unwrap();
    scene.clock.set_wall(now);
    sweeper.sweep_once().await.unwrap();
    assert_eq!(scene.days().await, [today - 1, today].into());
}

#[tokio::test]
async fn a_sweep_that_failed_is_made_again_within_the_day() {
    let scene = Scene::new();
    let today = scene.today();
    for operation in [Operation::Names, Operation::Forget] {
        scene.settle([today - 5, today - 2, today - 1, today]).await;
        let faulty = Arc::new(FaultyStore::new(Arc::clone(&scene.home) as Arc<dyn HomeStore>));
        faulty.faults.add(operation, When::Nth(1), Fault::Fail(StoreErrorKind::Overloaded));
        let sweeper = Sweeper::new(faulty, Arc::clone(&scene.clock) as Arc<dyn Clock>);
        assert_eq!(sweeper.sweep_once().await.unwrap_err().kind, StoreErrorKind::Overloaded);
        scene.clock.advance(MINUTE);
        sweeper.sweep_once().await.unwrap();
        assert_eq!(scene.days().await, [today - 1, today].into(), "{operation:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn keys_are_destroyed_where_nothing_is_recorded_and_where_no_key_can_be_settled() {
    let scene = Scene::new();
    let today = scene.today();
    scene.settle([today - 9, today - 1, today]).await;
    let faulty = Arc::new(FaultyStore::new(Arc::clone(&scene.home) as Arc<dyn HomeStore>));
    faulty.faults.add(Operation::Settle, When::Every, Fault::Fail(StoreErrorKind::Unavailable));
    let world = World { clock: Arc::clone(&scene.clock) as Arc<dyn Clock>, ..World::real() };
    let mut tasks = Tasks::new();
    set(&mut tasks, || Some(VisitorKeys::new()), Arc::clone(&faulty) as Arc<dyn HomeStore>, &world);
    sweep(&mut tasks, faulty, Arc::clone(&scene.clock) as Arc<dyn Clock>);
    tokio::time::sleep(MINUTE / 2).await;
    assert_eq!(scene.days().await, [today - 1, today].into());
    assert!(tasks.join(MINUTE).await.is_empty());
}

#[tokio::test]
async fn a_damaged_key_is_told_and_nothing_is_hashed_under_it() {
    let scene = Scene::new();
    scene.home.settle(&name_of(scene.today()), b"short").await.unwrap();
    let error = scene.keeper(1).set_once(&VisitorKeys::new()).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Corrupt);
}
