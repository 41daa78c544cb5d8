use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use terse_core::click::JournalId;
use terse_testkit::TestClock;

use super::*;

const PATIENCE: Duration = Duration::from_secs(30);

fn block(seq: u64) -> BlockId {
    BlockId { journal: JournalId([7; 16]), seq }
}

async fn soon(what: &str, mut is_so: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "never: {what}");
}

/// A life that waits until it is told to stop.
fn sound(mut stopped: watch::Receiver<bool>) -> Life {
    let run = async move { stopped.wait_for(|stop| *stop).await.map(drop).map_err(|error| error.to_string()) };
    Life { progress: Arc::default(), run: Box::pin(run) }
}

#[tokio::test]
async fn a_projector_that_panics_is_followed_by_another_and_health_says_so_until_that_one_is_sound() {
    let (clock, births) = (Arc::new(TestClock::default()), Arc::new(AtomicUsize::new(0)));
    let born = Arc::clone(&births);
    let begin = move |stopped| match born.fetch_add(1, Ordering::SeqCst) {
        0 => Ok(Life { progress: Arc::default(), run: Box::pin(async { panic!("on purpose") }) }),
        _ => Ok(sound(stopped)),
    };
    let projection = Projection::start(begin, Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
    let supervised = projection.supervised();
    soon("it has stopped", || supervised.has_stopped(clock.monotonic_ms())).await;
    soon("another is born", || births.load(Ordering::SeqCst) == 2).await;
    soon("it lives", || supervised.0.lock().lives_since_ms.is_some()).await;
    assert!(supervised.has_stopped(clock.monotonic_ms()));
    clock.advance(Duration::from_millis(SOUND_MS));
    assert!(!supervised.has_stopped(clock.monotonic_ms()));
    projection.end(PATIENCE).await;
    assert_eq!(births.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_projector_that_gives_up_or_can_not_be_made_is_followed_too() {
    let (clock, births) = (Arc::new(TestClock::default()), Arc::new(AtomicUsize::new(0)));
    let born = Arc::clone(&births);
    let begin = move |stopped| match born.fetch_add(1, Ordering::SeqCst) {
        0 => Ok(Life { progress: Arc::default(), run: Box::pin(async { Err("another bus".to_owned()) }) }),
        1 => Err("no data".to_owned()),
        _ => Ok(sound(stopped)),
    };
    let projection = Projection::start(begin, clock as Arc<dyn Clock>).unwrap();
    soon("a third is born", || births.load(Ordering::SeqCst) == 3).await;
    projection.end(PATIENCE).await;
}

#[tokio::test]
async fn the_end_does_not_wait_for_the_next_projector() {
    let clock = Arc::new(TestClock::default());
    let births = Arc::new(AtomicU64::new(0));
    let born = Arc::clone(&births);
    let begin = move |_| {
        born.fetch_add(1, Ordering::SeqCst);
        Err("never".to_owned())
    };
    let projection = Projection::start(begin, clock as Arc<dyn Clock>).unwrap();
    let supervised = projection.supervised();
    soon("it has stopped", || supervised.has_stopped(0)).await;
    projection.end(PATIENCE).await;
    assert_eq!(births.load(Ordering::SeqCst), 1);
}

#[test]
fn waits_double_up_to_a_minute_and_begin_anew_after_a_sound_projector() {
    let supervised = Supervised::default();
    let mut now_ms = 0;
    let mut die_after = |lived_ms: u64| {
        supervised.born(&Arc::default(), now_ms);
        now_ms += lived_ms;
        supervised.died("on purpose", now_ms).as_secs()
    };
    let waits: Vec<_> = (0..9).map(|_| die_after(10)).collect();
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    assert_eq!((die_after(SOUND_MS), die_after(10)), (1, 2));
    assert_eq!((0..100).map(|_| die_after(10)).max(), Some(60));
}

#[test]
fn a_block_is_blamed_after_three_deaths_in_a_row_at_it() {
    let mut state = State::default();
    let mut blamed_after = |block| {
        state.note_block(block);
        state.blamed()
    };
    let (one, other) = (Some(block(1)), Some(block(2)));
    for (at, blamed) in [
        (one, None),
        (one, None),
        (one, one),
        (one, one),
        (other, None),
        (one, None),
        (one, None),
        (None, None),
        (one, None),
        (one, None),
        (one, one),
    ] {
        assert_eq!(blamed_after(at), blamed);
    }
}

#[test]
fn deaths_elsewhere_blame_nobody() {
    let supervised = Supervised::default();
    for _ in 0..5 {
        supervised.born(&Arc::default(), 0);
        supervised.died("on purpose", 1);
    }
    let state = supervised.0.lock();
    assert_eq!((state.deaths, state.deaths_at_block, state.blamed()), (5, 0, None));
}
