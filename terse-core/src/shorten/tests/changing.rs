use super::*;
use crate::ports::LinkChange;

const V1: Version = Version(1);
const V2: Version = Version(2);

fn titled(text: &str) -> Patch {
    Patch { title: Some(Some(Title::parse(text).unwrap())), ..Patch::default() }
}

fn state(state: LinkState) -> Patch {
    Patch { state: Some(state), ..Patch::default() }
}

/// A bench with the link `code1`, an hour old.
fn with_link() -> Bench {
    let bench = Bench::new();
    bench.create(&draft()).unwrap();
    bench.clock.set(after_noon(3_600));
    bench
}

/// Somebody else's edit of `code1`.
fn other_edit() -> Cue {
    Cue::Race(Box::new(|rows| rows.edit(&code("code1"), |link| link.tags = Tags::parse(&["theirs"]).unwrap())))
}

#[test]
fn an_edit_changes_what_it_names_and_keeps_the_rest() {
    let bench = with_link();
    let before = bench.row("code1").unwrap();
    let after = bench.edit("code1", &titled("new")).unwrap();
    let expected =
        Link { title: Some(Title::parse("new").unwrap()), updated_at: after_noon(3_600), version: V2, ..before };
    assert_eq!(after, expected);
    assert_eq!(bench.row("code1").unwrap(), expected);
}

#[test]
fn an_edit_can_set_and_clear_everything() {
    let bench = with_link();
    let set = Patch {
        target: Some(target("https://example.org/")),
        title: Some(Some(Title::parse("t").unwrap())),
        tags: Some(Tags::parse(&["a"]).unwrap()),
        state: Some(LinkState::Disabled),
        expires_at: Some(Some(after_noon(9_000))),
        valid_from: Some(Some(after_noon(8_000))),
    };
    let link = bench.edit("code1", &set).unwrap();
    assert_eq!(link.target.as_str(), "https://example.org/");
    assert_eq!(
        (link.state, link.expires_at, link.valid_from),
        (LinkState::Disabled, Some(after_noon(9_000)), Some(after_noon(8_000)))
    );
    assert_eq!(link.tags.as_slice(), ["a"]);

    let clear = Patch {
        title: Some(None),
        tags: Some(Tags::default()),
        expires_at: Some(None),
        valid_from: Some(None),
        ..Patch::default()
    };
    let link = bench.edit("code1", &clear).unwrap();
    assert_eq!((link.title, link.tags, link.expires_at, link.valid_from), (None, Tags::default(), None, None));
    assert_eq!(link.state, LinkState::Disabled);
}

#[test]
fn a_links_history_does_not_step_back_with_the_clock() {
    let bench = with_link();
    bench.edit("code1", &titled("a")).unwrap();
    bench.clock.set(NOON);
    assert_eq!(bench.edit("code1", &titled("b")).unwrap().updated_at, after_noon(3_600));
    bench.delete("code1").unwrap();
    assert_eq!(bench.row("code1").unwrap().updated_at, after_noon(3_600));
}

#[test]
fn expected_versions_guard_an_edit() {
    let bench = with_link();
    assert_fails!(bench.edit_at("code1", Some(&[V2]), &titled("x")), ServiceError::VersionConflict { current: V1 });
    assert_fails!(bench.edit_at("code1", Some(&[]), &titled("x")), ServiceError::VersionConflict { current: V1 });
    assert_eq!(bench.edit_at("code1", Some(&[V2, V1]), &titled("x")).unwrap().version, V2);
    let ann = writer("ann");
    let stale = block_on(bench.shortener.delete(&ann, &code("code1"), Some(&[V1])));
    assert_fails!(stale, ServiceError::VersionConflict { current: V2 });
    block_on(bench.shortener.delete(&ann, &code("code1"), Some(&[V2]))).unwrap();
}

#[test]
fn foreign_and_deleted_links_are_not_found() {
    let bench = with_link();
    bench.occupy("foreign");
    for name in ["foreign", "nothing"] {
        assert_fails!(bench.edit(name, &titled("x")), ServiceError::NotFound);
        assert_fails!(bench.delete(name), ServiceError::NotFound);
    }
    bench.delete("code1").unwrap();
    assert_fails!(bench.edit("code1", &titled("x")), ServiceError::NotFound);
    assert_fails!(bench.delete("code1"), ServiceError::NotFound);
    assert_fails!(bench.edit_at("code1", Some(&[V1]), &titled("x")), ServiceError::NotFound);
    let admin = caller("root", Role::Admin);
    assert_eq!(block_on(bench.shortener.edit(&admin, &code("foreign"), None, &titled("x"))).unwrap().version, V2);
}

#[test]
fn only_an_admin_blocks_a_link_or_lifts_that() {
    let bench = with_link();
    let admin = caller("root", Role::Admin);
    let by_admin = |patch: &Patch| block_on(bench.shortener.edit(&admin, &code("code1"), None, patch));
    assert_fails!(bench.edit("code1", &state(LinkState::Blocked)), ServiceError::Forbidden);
    assert_eq!(by_admin(&state(LinkState::Blocked)).unwrap().state, LinkState::Blocked);
    assert_fails!(bench.edit("code1", &state(LinkState::Active)), ServiceError::Forbidden);
    assert_eq!(bench.edit("code1", &titled("x")).unwrap().state, LinkState::Blocked, "the rest is still the owner's");
    assert_eq!(by_admin(&state(LinkState::Active)).unwrap().state, LinkState::Active);
    assert_eq!(bench.edit("code1", &state(LinkState::Disabled)).unwrap().state, LinkState::Disabled);
}

#[test]
fn an_edit_never_deletes() {
    let bench = with_link();
    assert_eq!(faults(bench.edit("code1", &state(LinkState::Deleted))), [("state", "unknown_state")]);
    assert_eq!(bench.row("code1").unwrap().state, LinkState::Active);
}

#[test]
fn times_are_checked_only_as_far_as_an_edit_sets_them() {
    let bench = Bench::new();
    bench.create(&Draft { valid_from: Some(after_noon(5)), expires_at: Some(after_noon(10)), ..draft() }).unwrap();
    bench.clock.set(after_noon(20));
    let times = |valid_from, expires_at| {
        let at = |time: Option<i64>| time.map(|seconds| Some(after_noon(seconds)));
        bench.edit("code1", &Patch { valid_from: at(valid_from), expires_at: at(expires_at), ..Patch::default() })
    };
    bench.edit("code1", &titled("an expired link can be named")).unwrap();
    times(Some(7), None).unwrap();
    assert_eq!(faults(times(None, Some(15))), [("expires_at", "in_the_past")]);
    assert_eq!(faults(times(Some(10), None)), [("valid_from", "not_before_expiry")], "against the expiry that it has");
    assert_eq!(faults(times(Some(30), Some(30))), [("valid_from", "not_before_expiry")]);
    assert_eq!(faults(times(None, Some(5))), [("expires_at", "in_the_past"), ("valid_from", "not_before_expiry")]);
    times(None, Some(21)).unwrap();
}

#[test]
fn an_edit_that_lost_a_race_is_applied_to_the_newer_link() {
    let bench = with_link();
    bench.store.cue(Op::Update, other_edit());
    let link = bench.edit("code1", &titled("mine")).unwrap();
    assert_eq!((link.version, link.title.unwrap().as_str()), (Version(3), "mine"));
    assert_eq!(link.tags.as_slice(), ["theirs"], "the other edit is kept");
}

#[test]
fn a_guarded_edit_that_lost_a_race_is_a_conflict() {
    let bench = with_link();
    bench.store.cue(Op::Update, other_edit());
    let result = bench.edit_at("code1", Some(&[V1]), &titled("mine"));
    assert_fails!(result, ServiceError::VersionConflict { current: V2 });
    assert_eq!(bench.row("code1").unwrap().title, None);
}

#[test]
fn an_edit_that_lost_to_a_deletion_finds_nothing() {
    for expected in [None, Some(&[V1][..])] {
        let bench = with_link();
        let delete = |rows: &mut crate::fakes::Rows| rows.edit(&code("code1"), |link| link.state = LinkState::Deleted);
        bench.store.cue(Op::Update, Cue::Race(Box::new(delete)));
        assert_fails!(bench.edit_at("code1", expected, &titled("mine")), ServiceError::NotFound);
        assert_eq!(bench.row("code1").unwrap().state, LinkState::Deleted);
    }
}

#[test]
fn an_edit_that_always_loses_ends_in_overload() {
    let bench = with_link();
    (0..20).for_each(|_| bench.store.cue(Op::Update, other_edit()));
    assert_eq!(store_kind(bench.edit("code1", &titled("mine"))), Overloaded);
    assert_eq!(bench.store.calls(Op::Update), 8);
}

#[test]
fn an_update_of_unknown_outcome_that_was_made_is_a_success() {
    let bench = with_link();
    bench.store.cue(Op::Update, Cue::FailAfter(UnknownOutcome));
    let link = bench.edit_at("code1", Some(&[V1]), &titled("mine")).unwrap();
    assert_eq!((link.version, link.title.unwrap().as_str()), (V2, "mine"));
    assert_eq!(bench.store.calls(Op::Update), 1);
}

#[test]
fn an_update_of_unknown_outcome_that_was_not_made_is_tried_again() {
    let bench = with_link();
    bench.store.cue(Op::Update, Cue::FailBefore(UnknownOutcome));
    assert_eq!(bench.edit_at("code1", Some(&[V1]), &titled("mine")).unwrap().version, V2);
    assert_eq!(bench.store.calls(Op::Update), 2);
}

#[test]
fn an_update_that_takes_effect_late_is_recognised() {
    let bench = with_link();
    bench.store.cue(Op::Update, Cue::FailBefore(UnknownOutcome));
    // The first try is made after all, just before the second one.
    bench.store.cue(
        Op::Update,
        Cue::Race(Box::new(|rows| {
            rows.edit(&code("code1"), |link| {
                link.title = Some(Title::parse("mine").unwrap());
                link.updated_at = after_noon(3_600);
            });
        })),
    );
    assert_eq!(bench.edit_at("code1", Some(&[V1]), &titled("mine")).unwrap().version, V2);
}

#[test]
fn an_update_of_unknown_outcome_is_not_taken_for_somebody_elses() {
    let bench = with_link();
    bench.store.cue(Op::Update, Cue::FailBefore(UnknownOutcome));
    bench.store.cue(Op::Get, Cue::Race(Box::new(|_| {})));
    bench.store.cue(Op::Get, other_edit());
    let result = bench.edit_at("code1", Some(&[V1]), &titled("mine"));
    assert_fails!(result, ServiceError::VersionConflict { current: V2 });
}

#[test]
fn an_update_whose_outcome_stays_unknown_is_given_up() {
    let bench = with_link();
    (0..20).for_each(|_| bench.store.cue(Op::Update, Cue::FailBefore(UnknownOutcome)));
    assert_eq!(store_kind(bench.edit("code1", &titled("mine"))), UnknownOutcome);
    assert_eq!(bench.store.calls(Op::Update), 8);
}

#[test]
fn an_update_of_unknown_outcome_stays_one_when_the_next_round_is_refused() {
    let bench = with_link();
    bench.store.cue(Op::Update, Cue::FailBefore(UnknownOutcome));
    bench.store.cue(Op::Update, Cue::FailBefore(Overloaded));
    assert_eq!(store_kind(bench.edit("code1", &titled("mine"))), UnknownOutcome);
    assert_eq!(bench.store.calls(Op::Update), 2);

    let bench = with_link();
    bench.store.cue(Op::Update, Cue::FailAfter(UnknownOutcome));
    bench.store.cue(Op::Get, Cue::Race(Box::new(|_| {})));
    bench.store.cue(Op::Get, Cue::FailBefore(Overloaded));
    assert_eq!(store_kind(bench.delete("code1")), UnknownOutcome);
    assert_eq!(bench.row("code1").unwrap().state, LinkState::Deleted, "it was made");
}

#[test]
fn an_unreachable_store_ends_an_edit_at_once() {
    for op in [Op::Get, Op::Update] {
        let bench = with_link();
        bench.store.cue(op, Cue::FailBefore(Unavailable));
        assert_eq!(store_kind(bench.edit("code1", &titled("mine"))), Unavailable);
        assert_eq!(bench.row("code1").unwrap().version, V1);
    }
}

#[test]
fn a_deletion_keeps_the_row_and_all_but_its_state() {
    let bench = with_link();
    let before = LinkChange::of(&bench.row("code1").unwrap());
    bench.delete("code1").unwrap();
    let row = bench.row("code1").unwrap();
    assert_eq!(row.version, V2);
    assert_eq!(LinkChange::of(&row), LinkChange { state: LinkState::Deleted, updated_at: after_noon(3_600), ..before });
}

#[test]
fn a_deletion_of_unknown_outcome_is_found_out() {
    for cue in [Cue::FailAfter(UnknownOutcome), Cue::FailBefore(UnknownOutcome)] {
        let bench = with_link();
        bench.store.cue(Op::Update, cue);
        bench.delete("code1").unwrap();
        assert_eq!(bench.row("code1").unwrap().state, LinkState::Deleted);
    }
}

#[test]
fn an_owner_may_delete_a_blocked_link() {
    let bench = with_link();
    let admin = caller("root", Role::Admin);
    block_on(bench.shortener.edit(&admin, &code("code1"), None, &state(LinkState::Blocked))).unwrap();
    bench.delete("code1").unwrap();
}

#[test]
fn an_edit_that_changes_nothing_makes_no_new_version() {
    let bench = with_link();
    let before = bench.edit("code1", &titled("same")).unwrap();
    bench.clock.set(after_noon(7_200));
    assert_eq!(bench.edit("code1", &Patch::default()).unwrap(), before);
    assert_eq!(bench.edit("code1", &titled("same")).unwrap(), before);
    assert_eq!(bench.row("code1").unwrap(), before);
    let conflict = bench.edit_at("code1", Some(&[V1]), &Patch::default());
    assert!(matches!(conflict, Err(ServiceError::VersionConflict { current: V2 })), "{conflict:?}");
}
