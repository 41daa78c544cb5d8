use futures_util::future::join_all;

use super::*;

#[test]
fn a_link_is_created_as_drafted() {
    let bench = Bench::new();
    let draft = Draft {
        title: Some(Title::parse("a title").unwrap()),
        tags: Tags::parse(&["x", "y"]).unwrap(),
        expires_at: Some(after_noon(100)),
        valid_from: Some(after_noon(50)),
        ..draft()
    };
    let link = bench.create(&draft).unwrap();
    let expected = Link {
        code: code("code1"),
        target: draft.target,
        title: draft.title,
        tags: draft.tags,
        state: LinkState::Active,
        owner: Owner::parse("ann").unwrap(),
        created_at: NOON,
        updated_at: NOON,
        expires_at: draft.expires_at,
        valid_from: draft.valid_from,
        version: Version::FIRST,
    };
    assert_eq!(link, expected);
    assert_eq!(bench.row("code1").unwrap(), expected);
}

#[test]
fn an_alias_is_the_code() {
    let bench = Bench::new();
    assert_eq!(bench.create(&draft().alias("My-link_1")).unwrap().code, code("My-link_1"));
}

#[test]
fn an_expiry_must_be_in_the_future_and_after_the_begin() {
    let bench = Bench::new();
    let with = |valid_from: Option<i64>, expires_at: Option<i64>| {
        let (valid_from, expires_at) = (valid_from.map(after_noon), expires_at.map(after_noon));
        bench.create(&Draft { valid_from, expires_at, ..draft() })
    };
    let past = ("expires_at", "in_the_past");
    let order = ("valid_from", "not_before_expiry");
    assert_eq!(faults(with(None, Some(0))), [past], "now is not later than now");
    assert_eq!(faults(with(None, Some(-1))), [past]);
    assert_eq!(faults(with(Some(5), Some(5))), [order]);
    assert_eq!(faults(with(Some(6), Some(5))), [order]);
    assert_eq!(faults(with(Some(0), Some(-5))), [past, order], "all faults are told");
    assert_eq!(bench.rows(), 0);
    with(Some(-5), Some(1)).unwrap();
    with(Some(4), Some(5)).unwrap();
    with(Some(4), None).unwrap();
}

#[test]
fn a_taken_alias_is_refused_and_its_link_untouched() {
    let bench = Bench::new();
    let foreign = bench.occupy("taken");
    assert_fails!(bench.create(&draft().alias("taken")), ServiceError::AliasTaken);
    assert_eq!(bench.row("taken").unwrap(), foreign);
    assert_eq!(bench.store.calls(Op::Insert), 1);
}

#[test]
fn the_alias_of_a_deleted_link_stays_taken() {
    let bench = Bench::new();
    bench.create(&draft().alias("once")).unwrap();
    bench.delete("once").unwrap();
    assert_fails!(bench.create(&draft().alias("once")), ServiceError::AliasTaken);
}

#[test]
fn each_link_is_counted_once_however_often_it_was_asked_for() {
    let bench = Bench::new();
    let key = Idempotency { key: "key".to_owned(), body_hash: [1; 32] };
    bench.create_with_key(&draft(), &key).unwrap();
    bench.create_with_key(&draft(), &key).unwrap();
    assert_eq!(bench.counted(), 1, "a retry creates nothing");
    bench.store.cue(Op::Insert, Cue::FailAfter(UnknownOutcome));
    bench.create(&draft().alias("mine")).unwrap();
    assert_eq!(bench.counted(), 2, "an answer that was lost is found out");
    assert_fails!(bench.create(&draft().alias("mine")), ServiceError::AliasTaken);
    assert_eq!(bench.counted(), 2, "a taken alias creates nothing");
}

#[test]
fn a_generated_code_that_is_taken_is_followed_by_the_next() {
    let bench = Bench::new();
    bench.occupy("code1");
    bench.occupy("code2");
    assert_eq!(bench.create(&draft()).unwrap().code, code("code3"));
}

#[test]
fn codes_that_are_always_taken_end_in_overload() {
    let bench = Bench::with_codes(&["same"]);
    let foreign = bench.occupy("same");
    assert_eq!(store_kind(bench.create(&draft())), Overloaded);
    assert_eq!(bench.store.calls(Op::Insert), 8);
    assert_eq!(bench.row("same").unwrap(), foreign);
}

#[test]
fn an_insert_of_unknown_outcome_that_was_made_is_a_success() {
    let bench = Bench::new();
    bench.store.cue(Op::Insert, Cue::FailAfter(UnknownOutcome));
    assert_eq!(bench.create(&draft().alias("mine")).unwrap().code, code("mine"));
    assert_eq!((bench.rows(), bench.store.calls(Op::Insert)), (1, 2));
}

#[test]
fn an_insert_of_unknown_outcome_that_was_not_made_is_tried_again() {
    let bench = Bench::new();
    bench.store.cue(Op::Insert, Cue::FailBefore(UnknownOutcome));
    bench.store.cue(Op::Insert, Cue::FailBefore(UnknownOutcome));
    assert_eq!(bench.create(&draft()).unwrap().code, code("code1"));
    assert_eq!(bench.rows(), 1);
}

#[test]
fn an_insert_whose_outcome_stays_unknown_is_given_up() {
    let bench = Bench::new();
    (0..10).for_each(|_| bench.store.cue(Op::Insert, Cue::FailBefore(UnknownOutcome)));
    assert_eq!(store_kind(bench.create(&draft())), UnknownOutcome);
    assert_eq!(bench.store.calls(Op::Insert), 3);
}

#[test]
fn an_insert_of_unknown_outcome_stays_one_when_the_next_try_is_refused() {
    for refusal in [Overloaded, Unavailable] {
        let bench = Bench::new();
        bench.store.cue(Op::Insert, Cue::FailAfter(UnknownOutcome));
        bench.store.cue(Op::Insert, Cue::FailBefore(refusal));
        assert_eq!(store_kind(bench.create(&draft().alias("mine"))), UnknownOutcome);
        assert_eq!((bench.rows(), bench.store.calls(Op::Insert)), (1, 2), "the link stands");
    }
}

#[test]
fn an_unreachable_store_is_told_at_once() {
    let bench = Bench::new();
    bench.store.cue(Op::Insert, Cue::FailBefore(Unavailable));
    assert_eq!(store_kind(bench.create(&draft())), Unavailable);
    assert_eq!((bench.rows(), bench.store.calls(Op::Insert)), (0, 1));
}

#[test]
fn two_hundred_creates_of_one_alias_make_one_link() {
    let bench = Bench::new();
    let callers: Vec<Caller> = (0..200).map(|n| writer(&format!("owner{n}"))).collect();
    let draft = draft().alias("wanted");
    let results = block_on(join_all(callers.iter().map(|caller| bench.shortener.create(caller, &draft, None))));
    let (won, lost): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!((won.len(), lost.len()), (1, 199));
    assert!(lost.iter().all(|result| matches!(result, Err(ServiceError::AliasTaken))));
    assert_eq!(bench.row("wanted").unwrap(), *won[0].as_ref().unwrap());
}
