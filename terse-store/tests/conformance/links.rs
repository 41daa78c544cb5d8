//! `LinkReader` and `LinkWriter`.

use terse_core::ports::{Insert, LinkChange, Tier, Update};
use terse_core::{Link, LinkState, Owner, Tags, Timestamp, Title, Version};
use terse_testkit::links::{attempt, code, link, target};

use crate::backends::{Held, LinkPorts};
use crate::race::race;

type Store = Held<dyn LinkPorts>;

pub(crate) async fn run(store: Store) {
    a_code_without_a_link_is_missing(&store).await;
    a_created_link_resolves(&store).await;
    every_part_of_a_link_comes_back(&store).await;
    the_bounds_of_each_part_come_back(&store).await;
    codes_differ_by_case_and_length(&store).await;
    every_state_is_told(&store).await;
    peeking_is_right_or_silent(&store).await;
    a_taken_code_stays_as_it_is(&store).await;
    a_deleted_code_is_never_given_again(&store).await;
    an_edit_changes_all_it_may_and_nothing_else(&store).await;
    an_edit_can_clear(&store).await;
    an_edit_of_another_version_conflicts(&store).await;
    a_deleted_link_cannot_be_edited(&store).await;
    an_edit_of_nothing_makes_nothing(&store).await;
    of_concurrent_inserts_one_wins(&store).await;
    different_codes_never_hinder_each_other(&store).await;
    of_concurrent_edits_one_wins(&store).await;
    a_delete_and_an_edit_exclude_each_other(&store).await;
    an_edit_beside_an_insert_sees_it_whole_or_not(&store).await;
    versions_never_go_back_for_a_reader(&store).await;
}

/// A link with all its parts.
fn full(text: &str) -> Link {
    Link {
        title: Some(Title::parse("Ein Titel – 'quoted' \"twice\" 🦀").unwrap()),
        tags: Tags::parse(&["one", "zwei, drei", "ü;|\"'"]).unwrap(),
        owner: Owner::parse("owner_of-full").unwrap(),
        updated_at: Timestamp::from_millis(1_767_323_099_001),
        expires_at: Some(Timestamp::from_millis(1_800_000_000_123)),
        valid_from: Some(Timestamp::from_millis(1_700_000_000_456)),
        state: LinkState::Disabled,
        ..link(text)
    }
}

/// A change of everything.
fn new_change() -> LinkChange {
    LinkChange {
        target: target("https://changed.example/?a=b#c%2f"),
        title: Some(Title::parse("changed").unwrap()),
        tags: Tags::parse(&["changed"]).unwrap(),
        state: LinkState::Blocked,
        expires_at: Some(Timestamp::from_millis(1_900_000_000_000)),
        valid_from: Some(Timestamp::from_millis(1_600_000_000_000)),
        updated_at: Timestamp::from_millis(1_767_400_000_000),
    }
}

fn deletion(of: &Link) -> LinkChange {
    LinkChange { state: LinkState::Deleted, ..LinkChange::of(of) }
}

async fn created(store: &Store, link: &Link) {
    assert_eq!(store.insert_if_absent(link, attempt(1)).await.unwrap(), Insert::Created, "{}", link.code);
}

async fn a_code_without_a_link_is_missing(store: &Store) {
    let lookup = store.resolve(&code("missing")).await.unwrap();
    assert_eq!(lookup.link, None);
    assert_eq!(lookup.tier, Tier::Store);
    assert_eq!(store.get(&code("missing")).await.unwrap(), None);
}

async fn a_created_link_resolves(store: &Store) {
    let link = full("resolves");
    created(store, &link).await;
    let lookup = store.resolve(&link.code).await.unwrap();
    assert_eq!(lookup.link.as_ref(), Some(&link.resolution()));
    assert_eq!(lookup.tier, Tier::Store);
}

async fn every_part_of_a_link_comes_back(store: &Store) {
    for link in [full("comesback1"), link("comesback2")] {
        created(store, &link).await;
        assert_eq!(store.get(&link.code).await.unwrap(), Some(link));
    }
}

async fn the_bounds_of_each_part_come_back(store: &Store) {
    let longest = |letter: &str, count: usize| letter.repeat(count);
    let tags: Vec<String> = (0..Tags::MAX).map(|n| format!("{n:02}{}", longest("🦀", Tags::MAX_CHARS - 2))).collect();
    let link = Link {
        target: target(&format!("https://e.example/{}", longest("x", 8_192 - 18))),
        title: Some(Title::parse(&longest("🦀", Title::MAX_CHARS)).unwrap()),
        tags: Tags::parse(&tags).unwrap(),
        owner: Owner::parse(&longest("o", 64)).unwrap(),
        created_at: Timestamp::from_millis(0),
        updated_at: Timestamp::from_millis(i64::MAX),
        expires_at: Some(Timestamp::from_millis(i64::MAX)),
        valid_from: Some(Timestamp::from_millis(0)),
        ..link(&longest("Z", 64))
    };
    created(store, &link).await;
    assert_eq!(store.get(&link.code).await.unwrap().as_ref(), Some(&link));
    assert_eq!(store.resolve(&link.code).await.unwrap().link.as_ref(), Some(&link.resolution()));
}

async fn codes_differ_by_case_and_length(store: &Store) {
    let codes = ["case", "Case", "CASE", "cas", "c", "C", "_", "-", "0", "cas-", "cas_"];
    for text in codes {
        created(store, &link(text)).await;
    }
    for text in codes {
        assert_eq!(store.get(&code(text)).await.unwrap(), Some(link(text)));
    }
}

async fn every_state_is_told(store: &Store) {
    for state in [LinkState::Active, LinkState::Disabled, LinkState::Blocked, LinkState::Deleted] {
        let first = link(&format!("state-{}", state.as_str()));
        created(store, &first).await;
        let change = LinkChange { state, ..LinkChange::of(&first) };
        store.update(&first.code, Version::FIRST, &change).await.unwrap();
        assert_eq!(store.resolve(&first.code).await.unwrap().link.unwrap().state, state);
        assert_eq!(store.get(&first.code).await.unwrap().unwrap().state, state);
    }
}

async fn peeking_is_right_or_silent(store: &Store) {
    created(store, &link("peeked")).await;
    for text in ["peeked", "never", "", "p", "é", "a/b", "a\0", &"x".repeat(1_000), &"y".repeat(64)] {
        if let Some(lookup) = store.peek(text) {
            let known = (text == "peeked").then(|| link("peeked").resolution());
            assert_eq!(lookup.link.as_ref(), known.as_ref(), "{text}");
        }
    }
}

async fn a_taken_code_stays_as_it_is(store: &Store) {
    let first = full("taken");
    created(store, &first).await;
    for number in [1, 2] {
        let answer = store.insert_if_absent(&link("taken"), attempt(number)).await.unwrap();
        assert_eq!(answer, Insert::Taken { attempt: attempt(1) });
    }
    assert_eq!(store.get(&first.code).await.unwrap(), Some(first));
}

async fn a_deleted_code_is_never_given_again(store: &Store) {
    let first = link("deleted");
    created(store, &first).await;
    let Update::Updated(deleted) = store.update(&first.code, Version::FIRST, &deletion(&first)).await.unwrap() else {
        panic!("the delete did not succeed");
    };
    let answer = store.insert_if_absent(&full("deleted"), attempt(2)).await.unwrap();
    assert_eq!(answer, Insert::Taken { attempt: attempt(1) });
    assert_eq!(store.get(&first.code).await.unwrap(), Some(*deleted));
}

async fn an_edit_changes_all_it_may_and_nothing_else(store: &Store) {
    let first = full("edited");
    created(store, &first).await;
    let change = new_change();
    let expected = Link {
        target: change.target.clone(),
        title: change.title.clone(),
        tags: change.tags.clone(),
        state: change.state,
        expires_at: change.expires_at,
        valid_from: change.valid_from,
        updated_at: change.updated_at,
        version: Version(2),
        ..first.clone()
    };
    let answer = store.update(&first.code, Version::FIRST, &change).await.unwrap();
    assert_eq!(answer, Update::Updated(Box::new(expected.clone())));
    assert_eq!(store.resolve(&first.code).await.unwrap().link.as_ref(), Some(&expected.resolution()));
    assert_eq!(store.get(&first.code).await.unwrap(), Some(expected));
}

async fn an_edit_can_clear(store: &Store) {
    let first = full("cleared");
    created(store, &first).await;
    let change =
        LinkChange { title: None, tags: Tags::default(), expires_at: None, valid_from: None, ..LinkChange::of(&first) };
    store.update(&first.code, Version::FIRST, &change).await.unwrap();
    let stored = store.get(&first.code).await.unwrap().unwrap();
    assert_eq!(LinkChange::of(&stored), change);
}

async fn an_edit_of_another_version_conflicts(store: &Store) {
    let first = link("conflict");
    created(store, &first).await;
    store.update(&first.code, Version(1), &new_change()).await.unwrap();
    store.update(&first.code, Version(2), &LinkChange::of(&first)).await.unwrap();
    let before = store.get(&first.code).await.unwrap();
    for expected in [0, 1, 2, 4, u64::MAX] {
        let answer = store.update(&first.code, Version(expected), &new_change()).await.unwrap();
        assert_eq!(answer, Update::Conflict { current: Version(3) }, "{expected}");
    }
    assert_eq!(store.get(&first.code).await.unwrap(), before);
}

async fn a_deleted_link_cannot_be_edited(store: &Store) {
    let first = link("undelete");
    created(store, &first).await;
    store.update(&first.code, Version::FIRST, &deletion(&first)).await.unwrap();
    let before = store.get(&first.code).await.unwrap();
    for expected in [1, 2, 3] {
        let answer = store.update(&first.code, Version(expected), &LinkChange::of(&first)).await.unwrap();
        assert_eq!(answer, Update::Conflict { current: Version(2) });
    }
    assert_eq!(store.get(&first.code).await.unwrap(), before);
}

async fn an_edit_of_nothing_makes_nothing(store: &Store) {
    let answer = store.update(&code("nothing"), Version::FIRST, &new_change()).await.unwrap();
    assert_eq!(answer, Update::NotFound);
    assert_eq!(store.get(&code("nothing")).await.unwrap(), None);
}

async fn of_concurrent_inserts_one_wins(store: &Store) {
    for (writers, rounds) in [(2, 40), (200, 3)] {
        let writers = store.callers(writers);
        for round in 0..store.rounds(rounds) {
            let text = format!("race{writers}-{round}");
            let contender =
                |number: usize| Link { target: target(&format!("https://t.example/{number}")), ..link(&text) };
            let results = race(writers, |number| {
                let (store, link) = (store.clone(), contender(number));
                async move { store.insert_if_absent(&link, attempt(number as u128)).await.unwrap() }
            })
            .await;
            let winners: Vec<_> = (0..writers).filter(|number| results[*number] == Insert::Created).collect();
            assert_eq!(winners.len(), 1, "{results:?}");
            let lost = Insert::Taken { attempt: attempt(winners[0] as u128) };
            assert!(results.iter().all(|result| *result == Insert::Created || *result == lost), "{results:?}");
            assert_eq!(store.get(&code(&text)).await.unwrap(), Some(contender(winners[0])));
        }
    }
}

async fn different_codes_never_hinder_each_other(store: &Store) {
    let callers = store.callers(300);
    let results = race(callers, |number| {
        let (store, link) = (store.clone(), link(&format!("{number:03}many")));
        async move { store.insert_if_absent(&link, attempt(number as u128)).await.unwrap() }
    })
    .await;
    assert!(results.iter().all(|result| *result == Insert::Created));
    for number in 0..callers {
        let link = link(&format!("{number:03}many"));
        assert_eq!(store.get(&link.code).await.unwrap(), Some(link));
    }
}

async fn of_concurrent_edits_one_wins(store: &Store) {
    for (writers, rounds) in [(2, 40), (50, 3)] {
        let writers = store.callers(writers);
        for round in 0..store.rounds(rounds) {
            let first = link(&format!("{round}edits{writers}"));
            created(store, &first).await;
            let change = |number: usize| LinkChange {
                target: target(&format!("https://t.example/{number}")),
                ..LinkChange::of(&first)
            };
            let results = race(writers, |number| {
                let (store, code, change) = (store.clone(), first.code.clone(), change(number));
                async move { store.update(&code, Version::FIRST, &change).await.unwrap() }
            })
            .await;
            let stored = store.get(&first.code).await.unwrap().unwrap();
            let updated = Update::Updated(Box::new(stored.clone()));
            let conflict = Update::Conflict { current: Version(2) };
            assert_eq!(results.iter().filter(|result| **result == updated).count(), 1, "{results:?}");
            assert_eq!(results.iter().filter(|result| **result == conflict).count(), writers - 1, "{results:?}");
            assert_eq!(stored.version, Version(2));
        }
    }
}

async fn a_delete_and_an_edit_exclude_each_other(store: &Store) {
    for round in 0..store.rounds(40) {
        let first = link(&format!("{round}delvsedit"));
        created(store, &first).await;
        let results = race(2, |number| {
            let change = if number == 0 { deletion(&first) } else { new_change() };
            let (store, code) = (store.clone(), first.code.clone());
            async move { store.update(&code, Version::FIRST, &change).await.unwrap() }
        })
        .await;
        let stored = store.get(&first.code).await.unwrap().unwrap();
        let winner = usize::from(stored.state != LinkState::Deleted);
        assert_eq!(results[winner], Update::Updated(Box::new(stored)), "{results:?}");
        assert_eq!(results[1 - winner], Update::Conflict { current: Version(2) });
    }
}

async fn an_edit_beside_an_insert_sees_it_whole_or_not(store: &Store) {
    for round in 0..store.rounds(40) {
        let first = full(&format!("{round}insvsedit"));
        let results = race(2, |number| {
            let (store, first) = (store.clone(), first.clone());
            async move {
                if number == 0 {
                    assert_eq!(store.insert_if_absent(&first, attempt(1)).await.unwrap(), Insert::Created);
                    return None;
                }
                Some(store.update(&first.code, Version::FIRST, &new_change()).await.unwrap())
            }
        })
        .await;
        let stored = store.get(&first.code).await.unwrap().unwrap();
        match results[1].as_ref().unwrap() {
            Update::NotFound => assert_eq!(stored, first),
            Update::Updated(link) => assert_eq!((&stored, &stored.owner), (&**link, &first.owner)),
            Update::Conflict { .. } => panic!("nobody else edits"),
        }
    }
}

/// Every read sees what was acknowledged before, so a reader sees versions rise only.
async fn versions_never_go_back_for_a_reader(store: &Store) {
    let first = link("rising");
    let last = Version(store.rounds(60) as u64);
    created(store, &first).await;
    race(4, |number| {
        let (store, first) = (store.clone(), first.clone());
        async move {
            let mut seen = Version::FIRST;
            while seen < last {
                let now = store.resolve(&first.code).await.unwrap().link.unwrap().version;
                assert!(now >= seen, "{now:?} after {seen:?}");
                seen = now;
                if number == 0 {
                    let answer = store.update(&first.code, now, &LinkChange::of(&first)).await.unwrap();
                    assert!(matches!(answer, Update::Updated(_)));
                    let after = store.get(&first.code).await.unwrap().unwrap().version;
                    assert_eq!(after, now.next(), "an acknowledged edit was not seen");
                }
                // A store in memory never waits; without this, readers could keep every thread from the writer.
                tokio::task::yield_now().await;
            }
        }
    })
    .await;
}
