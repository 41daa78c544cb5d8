use futures_util::future::join_all;

use super::*;
use crate::ports::{AttemptId, IdempotencyRecord};

fn key() -> Idempotency {
    body(1)
}

/// The same key with the body `hash`.
fn body(hash: u8) -> Idempotency {
    Idempotency { key: "key".to_owned(), body_hash: [hash; 32] }
}

fn place() -> (Owner, String) {
    (Owner::parse("ann").unwrap(), "key".to_owned())
}

fn record(bench: &Bench) -> Option<IdempotencyRecord> {
    bench.store.with(|rows| rows.keys.get(&place()).cloned())
}

/// A twin's record for `name`, made at noon.
fn twin(name: &str, hash: u8) -> IdempotencyRecord {
    IdempotencyRecord { body_hash: [hash; 32], code: code(name), attempt: AttemptId([5; 16]), created_at: NOON }
}

#[test]
fn the_same_key_and_body_get_the_same_link() {
    let bench = Bench::new();
    let first = bench.create_with_key(&draft(), &key()).unwrap();
    bench.clock.set(after_noon(60));
    assert_eq!(bench.create_with_key(&draft(), &key()).unwrap(), first);
    assert_eq!(bench.rows(), 1);
    assert_eq!(bench.create(&draft()).unwrap().code, code("code2"), "without the key it is another");
}

#[test]
fn a_retry_gets_the_link_as_it_was_created_whatever_became_of_it() {
    let bench = Bench::new();
    let draft = Draft { expires_at: Some(after_noon(10)), ..draft() };
    let first = bench.create_with_key(&draft, &key()).unwrap();
    bench.edit("code1", &Patch { state: Some(LinkState::Disabled), ..Patch::default() }).unwrap();
    assert_eq!(bench.create_with_key(&draft, &key()).unwrap(), first);
    bench.delete("code1").unwrap();
    bench.clock.set(after_noon(60));
    assert_eq!(bench.create_with_key(&draft, &key()).unwrap(), first, "an expiry that has passed since is no fault");
    assert_eq!(bench.row("code1").unwrap().state, LinkState::Deleted);
}

#[test]
fn the_same_key_with_another_body_is_refused() {
    let bench = Bench::new();
    bench.create_with_key(&draft(), &body(1)).unwrap();
    assert_fails!(bench.create_with_key(&draft(), &body(2)), ServiceError::KeyReused);
    assert_eq!(bench.rows(), 1);
}

#[test]
fn owners_do_not_share_keys() {
    let bench = Bench::new();
    bench.create_with_key(&draft(), &body(1)).unwrap();
    let other = block_on(bench.shortener.create(&writer("bob"), &draft(), Some(&body(2)))).unwrap();
    assert_eq!(other.code, code("code2"));
}

#[test]
fn a_key_is_honoured_for_a_day() {
    let bench = Bench::new();
    bench.create_with_key(&draft(), &key()).unwrap();
    bench.clock.set(NOON.plus_millis(IDEMPOTENCY_MS));
    assert_eq!(bench.create_with_key(&draft(), &key()).unwrap().code, code("code1"));
    bench.clock.set(NOON.plus_millis(IDEMPOTENCY_MS + 1));
    assert_eq!(bench.create_with_key(&draft(), &key()).unwrap().code, code("code2"));
}

#[test]
fn a_crash_between_record_and_link_is_finished_by_the_retry() {
    let bench = Bench::new();
    bench.store.cue(Op::Insert, Cue::FailBefore(Unavailable));
    assert_eq!(store_kind(bench.create_with_key(&draft(), &key())), Unavailable);
    assert_eq!(bench.rows(), 0);

    bench.clock.set(after_noon(30));
    let link = bench.create_with_key(&draft(), &key()).unwrap();
    assert_eq!((link.code.as_str(), link.created_at, link.updated_at), ("code1", NOON, NOON));
}

#[test]
fn a_crash_between_link_and_answer_is_finished_by_the_retry() {
    let bench = Bench::new();
    bench.store.cue(Op::Insert, Cue::FailAfter(Unavailable));
    assert_eq!(store_kind(bench.create_with_key(&draft().alias("mine"), &key())), Unavailable);
    assert_eq!(bench.create_with_key(&draft().alias("mine"), &key()).unwrap(), bench.row("mine").unwrap());
}

#[test]
fn an_invalid_request_leaves_no_record() {
    let bench = Bench::new();
    let draft = Draft { expires_at: Some(NOON), ..draft() };
    assert_eq!(faults(bench.create_with_key(&draft, &key())), [("expires_at", "in_the_past")]);
    assert_eq!(record(&bench), None);
}

#[test]
fn a_claim_of_unknown_outcome_is_tried_again_with_the_same_record() {
    for cue in [Cue::FailBefore(UnknownOutcome), Cue::FailAfter(UnknownOutcome)] {
        let bench = Bench::new();
        bench.store.cue(Op::Claim, cue);
        assert_eq!(bench.create_with_key(&draft(), &key()).unwrap().code, code("code1"));
        assert_eq!(bench.store.calls(Op::Claim), 2);
        assert_eq!(record(&bench).unwrap().code, code("code1"));
    }
}

#[test]
fn a_claim_whose_outcome_stays_unknown_is_given_up() {
    let bench = Bench::new();
    (0..10).for_each(|_| bench.store.cue(Op::Claim, Cue::FailBefore(UnknownOutcome)));
    assert_eq!(store_kind(bench.create_with_key(&draft(), &key())), UnknownOutcome);
    assert_eq!((bench.store.calls(Op::Claim), bench.rows()), (3, 0));
}

#[test]
fn a_twin_that_claims_first_decides_the_code() {
    let bench = Bench::new();
    let record = twin("theirs", 1);
    bench.store.cue(Op::Claim, Cue::Race(Box::new(|rows| drop(rows.keys.insert(place(), record)))));
    assert_eq!(bench.create_with_key(&draft(), &key()).unwrap().code, code("theirs"));
    assert_eq!(bench.rows(), 1);
}

#[test]
fn a_twin_that_claims_first_with_another_body_wins() {
    let bench = Bench::new();
    let record = twin("theirs", 2);
    bench.store.cue(Op::Claim, Cue::Race(Box::new(|rows| drop(rows.keys.insert(place(), record)))));
    assert_fails!(bench.create_with_key(&draft(), &key()), ServiceError::KeyReused);
    assert_eq!(bench.rows(), 0);
}

#[test]
fn a_code_that_is_taken_is_replaced_in_the_record() {
    let bench = Bench::new();
    bench.occupy("code1");
    let link = bench.create_with_key(&draft(), &key()).unwrap();
    assert_eq!((link.code.as_str(), record(&bench).unwrap().code.as_str()), ("code2", "code2"));
    bench.clock.set(after_noon(30));
    assert_eq!(bench.create_with_key(&draft(), &key()).unwrap(), link);
}

#[test]
fn a_twin_that_replaces_first_decides_the_code() {
    let bench = Bench::new();
    bench.occupy("code1");
    let record = twin("theirs", 1);
    bench.store.cue(Op::Replace, Cue::Race(Box::new(|rows| drop(rows.keys.insert(place(), record)))));
    assert_eq!(bench.create_with_key(&draft(), &key()).unwrap().code, code("theirs"));
}

#[test]
fn a_replacement_of_unknown_outcome_is_found_out() {
    for (cue, expected) in [(Cue::FailAfter(UnknownOutcome), "code2"), (Cue::FailBefore(UnknownOutcome), "code3")] {
        let bench = Bench::new();
        bench.occupy("code1");
        bench.store.cue(Op::Replace, cue);
        assert_eq!(bench.create_with_key(&draft(), &key()).unwrap().code, code(expected));
        assert_eq!(record(&bench).unwrap().code, code(expected));
    }
}

#[test]
fn codes_that_are_always_taken_end_in_overload_also_with_a_key() {
    let bench = Bench::with_codes(&["same"]);
    bench.occupy("same");
    assert_eq!(store_kind(bench.create_with_key(&draft(), &key())), Overloaded);
    assert_eq!(bench.store.calls(Op::Insert), 8);
}

#[test]
fn a_taken_alias_is_the_same_answer_twice() {
    let bench = Bench::new();
    bench.occupy("taken");
    for _ in 0..2 {
        assert_fails!(bench.create_with_key(&draft().alias("taken"), &key()), ServiceError::AliasTaken);
    }
}

#[test]
fn fifty_twins_at_once_make_one_link() {
    let bench = Bench::new();
    bench.occupy("code1");
    let (ann, draft, key) = (writer("ann"), draft(), key());
    let results = block_on(join_all((0..50).map(|_| bench.shortener.create(&ann, &draft, Some(&key)))));
    let links: Vec<Link> = results.into_iter().map(Result::unwrap).collect();
    assert!(links.iter().all(|link| *link == links[0]));
    assert_eq!(bench.rows(), 2, "the occupied one and theirs");
}

#[test]
fn a_claim_of_unknown_outcome_stays_one_when_the_next_try_is_refused() {
    let bench = Bench::new();
    bench.store.cue(Op::Claim, Cue::FailAfter(UnknownOutcome));
    bench.store.cue(Op::Claim, Cue::FailBefore(Overloaded));
    assert_eq!(store_kind(bench.create_with_key(&draft(), &key())), UnknownOutcome);
    assert!(record(&bench).is_some(), "the record stands");
    assert_eq!(bench.create_with_key(&draft(), &key()).unwrap().code, code("code1"), "a retry finishes it");
}
