//! Full bulkheads, cancelled callers, panics, health, and two shards side by side.

use terse_core::Timestamp;
use terse_core::ports::ShardStore;

use super::*;
use crate::{ShardMap, Sharded};

#[tokio::test]
async fn a_full_bulkhead_refuses_at_once_and_the_other_guard_has_places() {
    let mut small = settings();
    (small.write.permits, small.creates) = (2, always(1));
    let fixture = Fixture::with(small);
    let gate = fixture.hangs(Operation::Forget);
    let held: Vec<_> = (0..2)
        .map(|_| {
            let store = fixture.store.clone();
            tokio::spawn(async move { store.forget("name").await })
        })
        .collect();
    arrived(&gate, 2).await;
    assert_eq!(fixture.metrics.bulkhead_in_use("main/write").get(), 2);
    let refused = fixture.store.forget("name").await.unwrap_err();
    assert_eq!(
        (refused.kind, refused.message.as_str()),
        (StoreErrorKind::Overloaded, "main/write: all 2 slots are taken")
    );
    assert_eq!(kind(fixture.insert("abc").await), StoreErrorKind::Overloaded, "a create needs a place among them too");
    assert_eq!(fixture.metrics.bulkhead_rejected("main/write").get(), 2);
    assert_eq!((fixture.calls(Operation::Forget), fixture.calls(Operation::InsertIfAbsent)), (2, 0));
    assert_eq!(fixture.resolve().await.unwrap(), None);
    gate.open();
    for call in held {
        call.await.unwrap().unwrap();
    }
    assert_eq!(fixture.write().state(), State::Closed, "what the bulkhead refuses is no failure");
    fixture.assert_idle();
}

#[tokio::test(start_paused = true)]
async fn whom_the_limits_let_in_finds_a_place_and_so_does_a_lease() {
    let usual = settings();
    let [redirects, creates] = [usual.redirects.max, usual.creates.max].map(always);
    let fixture = Fixture::with(GuardSettings { redirects, creates, ..usual });
    let gates = [Operation::InsertIfAbsent, Operation::Resolve, Operation::Keys].map(|of| fixture.hangs(of));
    let mut held = Vec::new();
    // Creates come first, since they give way to redirects.
    let counts = [creates.max, redirects.max, usual.catalog.permits].map(|count| count as usize);
    for (kind, (gate, count)) in gates.iter().zip(counts).enumerate() {
        held.extend((0..count).map(|_| {
            let store = fixture.store.clone();
            tokio::spawn(async move {
                match kind {
                    0 => store.insert_if_absent(&link("new"), attempt(1)).await.map(drop),
                    1 => store.resolve(&code("abc")).await.map(drop),
                    _ => store.keys().await.map(drop),
                }
            })
        }));
        arrived(gate, count).await;
    }
    fixture.store.lease("ids", 5, "here", Timestamp::from_millis(0)).await.unwrap();
    let rejected =
        ["main/read", "main/catalog", "main/write"].map(|name| fixture.metrics.bulkhead_rejected(name).get());
    assert_eq!(rejected, [0; 3]);
    for call in held {
        call.abort();
        assert!(call.await.unwrap_err().is_cancelled());
    }
    fixture.assert_idle();
}

#[tokio::test]
async fn cancelled_callers_give_everything_back() {
    let fixture = Fixture::new();
    let operations = [Operation::Resolve, Operation::InsertIfAbsent, Operation::List];
    let gates = operations.map(|operation| fixture.hangs(operation));
    let mut callers = Vec::new();
    for _ in 0..10 {
        let [reader, writer, lister] = [(); 3].map(|()| fixture.store.clone());
        callers.push(tokio::spawn(async move { reader.resolve(&code("abc")).await.map(drop) }));
        callers.push(tokio::spawn(async move { writer.insert_if_absent(&link("x"), attempt(1)).await.map(drop) }));
        callers.push(tokio::spawn(async move { lister.list(&Owner::open(), None, 10).await.map(drop) }));
    }
    for gate in &gates {
        arrived(gate, 10).await;
    }
    assert_eq!(fixture.metrics.bulkhead_in_use("main/read").get(), 20);
    for caller in callers {
        caller.abort();
        assert!(caller.await.unwrap_err().is_cancelled());
    }
    fixture.assert_idle();
    let counts = fixture.read().snapshot().counts;
    assert_eq!((counts.abandoned, counts.ignored, counts.failures + counts.timeouts), (10, 10, 0));
    assert_eq!((fixture.read().state(), fixture.write().state()), (State::Closed, State::Closed));
}

#[tokio::test]
async fn redirects_cancelled_after_their_time_are_timeouts() {
    let fixture = Fixture::new();
    let gate = fixture.hangs(Operation::Resolve);
    let callers: Vec<_> = (0..5)
        .map(|_| {
            let store = fixture.store.clone();
            tokio::spawn(async move { store.resolve(&code("abc")).await })
        })
        .collect();
    arrived(&gate, 5).await;
    fixture.clock.advance(Duration::from_millis(700));
    for caller in callers {
        caller.abort();
        assert!(caller.await.unwrap_err().is_cancelled());
    }
    assert_eq!((fixture.read().state(), fixture.read().snapshot().counts.timeouts), (State::Open, 5));
    fixture.assert_idle();
}

#[tokio::test]
async fn a_store_that_panics_holds_no_place() {
    let fixture = Fixture::new();
    fixture.every(Operation::Resolve, Fault::Panic);
    let store = fixture.store.clone();
    assert!(tokio::spawn(async move { store.resolve(&code("abc")).await }).await.unwrap_err().is_panic());
    fixture.assert_idle();
}

#[tokio::test(start_paused = true)]
async fn a_shard_whose_check_hangs_is_told_by_name_within_its_time() {
    let fixture = Fixture::new();
    fixture.hangs(Operation::Check);
    let began = tokio::time::Instant::now();
    let health = fixture.store.check().await;
    assert_eq!(began.elapsed(), Duration::from_millis(800));
    assert_eq!((health.len(), health[0].0.as_str()), (1, "main"));
    assert_eq!(health[0].1.as_ref().unwrap_err().kind, StoreErrorKind::Unavailable);
}

#[tokio::test]
async fn health_takes_no_permit_while_the_guards_are_closed() {
    let fixture = Fixture::new();
    assert!(fixture.store.check().await[0].1.is_ok() && fixture.store.check_writes(false).await.is_empty());
    assert_eq!(fixture.read().snapshot().counts, Counts::default());
    assert_eq!(fixture.write().snapshot().counts, Counts::default());
}

#[tokio::test]
async fn a_shard_whose_reads_are_rejected_is_down_until_a_look_at_health_finds_it_well() {
    let fixture = Fixture::new();
    fixture.fails(Operation::Resolve);
    for _ in 0..5 {
        fixture.resolve().await.unwrap_err();
    }
    fixture.heal();
    let (shard, health) = fixture.store.check().await.remove(0);
    assert_eq!((shard.as_str(), health.unwrap_err().kind), ("main", StoreErrorKind::Unavailable));
    assert_eq!(fixture.calls(Operation::Check), 0, "nobody asks it");
    fixture.clock.advance(Duration::from_millis(500));
    for _ in 0..2 {
        assert!(fixture.store.check().await[0].1.is_ok());
    }
    assert_eq!(fixture.read().state(), State::Closed, "nobody else has asked");
    fixture.read().force(Some(Forced::Open));
    assert!(fixture.store.check().await[0].1.is_err());
}

#[tokio::test]
async fn a_shard_that_rejects_writes_is_told_until_one_that_is_tried_succeeds() {
    let fixture = Fixture::new();
    fixture.fails(Operation::InsertIfAbsent);
    fixture.fails(Operation::CheckWrites);
    for number in 0..5 {
        fixture.insert(&format!("code{number}")).await.unwrap_err();
    }
    assert!(fixture.store.check().await[0].1.is_ok(), "reads go on");
    let refused = fixture.store.check_writes(false).await.remove(0);
    assert_eq!((refused.0.as_str(), refused.1.kind), ("main", StoreErrorKind::Unavailable));
    assert_eq!(fixture.calls(Operation::CheckWrites), 0, "nothing is tried while the guard is open");
    fixture.clock.advance(Duration::from_millis(500));
    assert_eq!(fixture.store.check_writes(false).await.len(), 1);
    assert_eq!((fixture.calls(Operation::CheckWrites), fixture.write().state()), (1, State::HalfOpen));
    fixture.heal();
    for _ in 0..2 {
        assert!(fixture.store.check_writes(false).await.is_empty());
    }
    assert_eq!(fixture.write().state(), State::Closed, "without a client");
    fixture.assert_idle();
}

#[tokio::test(start_paused = true)]
async fn looks_at_writes_that_hang_leave_the_probes_to_clients_and_speak_against_nobody() {
    let fixture = Fixture::new();
    fixture.fails(Operation::InsertIfAbsent);
    for number in 0..5 {
        fixture.insert(&format!("code{number}")).await.unwrap_err();
    }
    fixture.heal();
    fixture.clock.advance(Duration::from_millis(500));
    let gate = fixture.hangs(Operation::CheckWrites);
    let store = fixture.store.clone();
    let look = tokio::spawn(async move { store.check_writes(true).await });
    arrived(&gate, 1).await;
    let refused = fixture.store.check_writes(true).await.remove(0).1;
    assert_eq!((refused.kind, fixture.calls(Operation::CheckWrites)), (StoreErrorKind::Unavailable, 1));
    assert_eq!(fixture.insert("first").await.unwrap(), Insert::Created);
    assert_eq!(look.await.unwrap().remove(0).1.kind, StoreErrorKind::UnknownOutcome, "it took too long");
    assert_eq!(fixture.write().state(), State::HalfOpen);
    assert_eq!(fixture.insert("second").await.unwrap(), Insert::Created);
    assert_eq!(fixture.write().state(), State::Closed);
    fixture.assert_idle();
}

#[tokio::test(start_paused = true)]
async fn a_write_that_is_tried_and_hangs_is_told_within_the_time_of_a_check() {
    let fixture = Fixture::new();
    fixture.hangs(Operation::CheckWrites);
    let began = tokio::time::Instant::now();
    let failed = fixture.store.check_writes(true).await.remove(0);
    assert_eq!(began.elapsed(), Duration::from_millis(800));
    assert_eq!(failed.1.kind, StoreErrorKind::UnknownOutcome);
}

#[tokio::test]
async fn the_guards_of_one_shard_leave_the_other_alone() {
    let shards = [Fixture::new(), Fixture::new()];
    let map = ShardMap::parse(&[("digits", "0-639"), ("letters", "640-4095")]).unwrap();
    let ports = shards.iter().map(|shard| shard.store.clone() as Arc<dyn ShardStore>).collect();
    let ring = Sharded::new(map, ports).unwrap();
    for text in ["0mine", "other"] {
        ring.insert_if_absent(&link(text), attempt(1)).await.unwrap();
    }
    shards[0].fails(Operation::Resolve);
    shards[0].fails(Operation::InsertIfAbsent);
    for _ in 0..20 {
        assert_eq!(kind(ring.resolve(&code("0mine")).await.map(drop)), StoreErrorKind::Unavailable);
        assert!(ring.resolve(&code("other")).await.unwrap().link.is_some());
        ring.insert_if_absent(&link("0new"), attempt(1)).await.unwrap_err();
        ring.insert_if_absent(&link("new"), attempt(1)).await.unwrap();
    }
    assert_eq!(shards[0].calls(Operation::Resolve), 5);
    assert_eq!((shards[0].read().state(), shards[0].write().state()), (State::Open, State::Open));
    assert_eq!((shards[1].read().state(), shards[1].write().state()), (State::Closed, State::Closed));
    assert_eq!(shards[1].read().snapshot().counts.successes, 20);
}
