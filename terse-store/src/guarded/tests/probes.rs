//! The moment of half-open.

use super::*;

/// Callers that come at once.
const CALLERS: usize = 1_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_callers_at_half_open_send_no_more_than_the_permitted_probes() {
    let fixture = Fixture::new();
    fixture.to_half_open().await;
    let before = fixture.calls(Operation::Resolve);
    let gate = fixture.hangs(Operation::Resolve);
    let start = Gate::closed();
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (store, start) = (fixture.store.clone(), start.clone());
            tokio::spawn(async move {
                start.pass().await;
                store.resolve(&code("abc")).await.map(drop)
            })
        })
        .collect();
    arrived(&start, CALLERS).await;
    start.open();
    let probes = settings().read.breaker.probes;
    arrived(&gate, probes as usize).await;
    let rejected_so_far = || fixture.read().snapshot().counts.rejected;
    let others = async {
        while rejected_so_far() < (CALLERS - probes as usize) as u64 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, others).await.expect("the other callers are rejected");
    assert_eq!(fixture.calls(Operation::Resolve) - before, probes as usize);
    gate.open();
    let mut succeeded = 0;
    for caller in callers {
        match caller.await.unwrap() {
            Ok(()) => succeeded += 1,
            Err(error) => assert_eq!((error.kind, error.retry_after_ms), (StoreErrorKind::Unavailable, 500)),
        }
    }
    assert_eq!(succeeded, probes);
    assert_eq!(fixture.read().state(), State::Closed);
    fixture.assert_idle();
}

#[tokio::test]
async fn a_store_that_came_back_is_used_again_after_two_probes() {
    let fixture = Fixture::new();
    fixture.to_half_open().await;
    for _ in 0..2 {
        assert_eq!(fixture.resolve().await.unwrap(), None);
    }
    assert_eq!(fixture.read().state(), State::Closed);
    assert_eq!(fixture.metrics.breaker_state("main/read").get(), 0);
    for to in ["closed", "half_open", "open"] {
        assert_eq!(fixture.metrics.breaker_transitions("main/read", to).get(), 1, "{to}");
    }
}

#[tokio::test]
async fn a_store_that_stays_away_is_asked_ever_less_often() {
    let fixture = Fixture::new();
    fixture.fails(Operation::Resolve);
    for _ in 0..5 {
        fixture.resolve().await.unwrap_err();
    }
    for open_ms in [500, 1_000, 2_000, 4_000, 4_000] {
        let asked = fixture.calls(Operation::Resolve);
        assert_eq!(fixture.resolve().await.unwrap_err().retry_after_ms, open_ms);
        fixture.clock.advance(Duration::from_millis(open_ms - 1));
        fixture.resolve().await.unwrap_err();
        assert_eq!(fixture.calls(Operation::Resolve), asked, "open for {open_ms} ms");
        fixture.clock.advance(Duration::from_millis(1));
        fixture.resolve().await.unwrap_err();
        assert_eq!(fixture.calls(Operation::Resolve), asked + 1, "one probe, which failed");
    }
}

#[tokio::test(start_paused = true)]
async fn probes_that_hang_open_the_guard_again() {
    let fixture = Fixture::new();
    fixture.to_half_open().await;
    fixture.hangs(Operation::Resolve);
    let error = fixture.resolve().await.unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), (StoreErrorKind::Unavailable, "no answer within 700 ms"));
    assert_eq!(fixture.read().state(), State::Open);
    fixture.assert_idle();
}

#[tokio::test]
async fn a_probe_that_is_cancelled_gives_its_place_back() {
    let fixture = Fixture::new();
    fixture.to_half_open().await;
    let gate = fixture.hangs(Operation::Resolve);
    let callers: Vec<_> = (0..3)
        .map(|_| {
            let store = fixture.store.clone();
            tokio::spawn(async move { store.resolve(&code("abc")).await })
        })
        .collect();
    arrived(&gate, 3).await;
    assert_eq!(kind(fixture.resolve().await), StoreErrorKind::Unavailable, "all probes are taken");
    for caller in callers {
        caller.abort();
        assert!(caller.await.unwrap_err().is_cancelled());
    }
    gate.open();
    assert_eq!(fixture.resolve().await.unwrap(), None);
    assert_eq!(fixture.read().state(), State::HalfOpen);
}
