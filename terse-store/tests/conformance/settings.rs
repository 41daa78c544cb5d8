//! `SettingsStore`.

use terse_core::ports::HomeStore;

use crate::backends::Held;
use crate::race::race;

type Store = Held<dyn HomeStore>;

pub(crate) async fn run(store: Store) {
    an_unknown_name_has_no_value(&store).await;
    the_first_value_stands(&store).await;
    any_bytes_come_back(&store).await;
    concurrent_callers_settle_on_one_value(&store).await;
    a_value_that_was_forgotten_is_gone_and_can_be_settled_anew(&store).await;
    names_are_found_by_how_they_begin(&store).await;
    names_are_found_among_many_others(&store).await;
}

async fn an_unknown_name_has_no_value(store: &Store) {
    assert_eq!(store.setting("unknown").await.unwrap(), None);
}

async fn the_first_value_stands(store: &Store) {
    assert_eq!(store.settle("first", b"one").await.unwrap(), b"one");
    assert_eq!(store.settle("first", b"two").await.unwrap(), b"one");
    assert_eq!(store.setting("first").await.unwrap().as_deref(), Some(&b"one"[..]));
    assert_eq!(store.setting("First").await.unwrap(), None);
}

async fn any_bytes_come_back(store: &Store) {
    let every: Vec<u8> = (0..=255).collect();
    for (name, value) in [("empty", &[][..]), ("every", &every), ("long", &[7; 20_000])] {
        assert_eq!(store.settle(name, value).await.unwrap(), value);
        assert_eq!(store.setting(name).await.unwrap().as_deref(), Some(value), "{name}");
    }
}

async fn a_value_that_was_forgotten_is_gone_and_can_be_settled_anew(store: &Store) {
    store.forget("never settled").await.unwrap();
    for (name, value) in [("old", b"one"), ("kept", b"two")] {
        store.settle(name, value).await.unwrap();
    }
    for _ in 0..2 {
        store.forget("old").await.unwrap();
        assert_eq!(store.setting("old").await.unwrap(), None);
    }
    assert_eq!(store.setting("kept").await.unwrap().as_deref(), Some(&b"two"[..]));
    assert_eq!(store.settle("old", b"three").await.unwrap(), b"three");
    assert_eq!(store.setting("old").await.unwrap().as_deref(), Some(&b"three"[..]));
}

async fn names_are_found_by_how_they_begin(store: &Store) {
    let found = async |prefix: &str, limit: usize| {
        let mut names = store.names(prefix, limit).await.unwrap();
        names.sort_unstable();
        names
    };
    assert_eq!(found("of-days/", 10).await, [""; 0]);
    for name in
        ["of-days/1", "of-days/10", "of-days/2", "of-days", "of-days%x", "Of-days/3", "x-of-days/4", "of\u{e4}/5"]
    {
        store.settle(name, b"any").await.unwrap();
    }
    assert_eq!(found("of-days/", 10).await, ["of-days/1", "of-days/10", "of-days/2"]);
    assert_eq!(found("of-days/1", 10).await, ["of-days/1", "of-days/10"]);
    assert_eq!(found("of-days%", 10).await, ["of-days%x"]);
    assert_eq!(found("of\u{e4}", 10).await, ["of\u{e4}/5"]);
    assert_eq!(found("of-day_/", 10).await, [""; 0]);
    assert_eq!((found("of-days/", 2).await.len(), found("of-days/", 0).await.len()), (2, 0));
    assert!(found("", 1_000).await.len() >= 8);
    store.forget("of-days/10").await.unwrap();
    assert_eq!(found("of-days/", 10).await, ["of-days/1", "of-days/2"]);
}

async fn names_are_found_among_many_others(store: &Store) {
    for number in 0..90 {
        store.settle(&format!("{}/{number}", if number % 3 == 0 { "third" } else { "rest" }), b"any").await.unwrap();
    }
    let mut thirds = store.names("third/", 1_000).await.unwrap();
    thirds.sort_unstable();
    let mut all: Vec<_> = (0..90).step_by(3).map(|number| format!("third/{number}")).collect();
    all.sort_unstable();
    assert_eq!(thirds, all);
    assert_eq!(store.names("third/", 29).await.unwrap().len(), 29);
    assert_eq!(store.names("rest/", 1_000).await.unwrap().len(), 60);
}

async fn concurrent_callers_settle_on_one_value(store: &Store) {
    for (writers, rounds) in [(2, 40), (50, 3)] {
        let writers = store.callers(writers);
        for round in 0..store.rounds(rounds) {
            let name = format!("race{writers}-{round}");
            let results = race(writers, |number| {
                let (store, name) = (store.clone(), name.clone());
                async move { store.settle(&name, &[number as u8]).await.unwrap() }
            })
            .await;
            assert!(results.iter().all(|value| *value == results[0]), "{results:?}");
            assert_eq!(results[0].len(), 1);
            assert_eq!(store.setting(&name).await.unwrap().as_ref(), Some(&results[0]));
        }
    }
}
