//! `LinkCatalog`.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use terse_core::cursor::Cursor;
use terse_core::ports::{Insert, LinkChange};
use terse_core::{Link, LinkState, Owner, ShortCode, Timestamp, Version};
use terse_testkit::links::{attempt, code, link};

use crate::backends::{Held, LinkPorts};
use crate::race::race;

type Store = Held<dyn LinkPorts>;

pub(crate) async fn run(store: Store) {
    an_owner_without_links_has_an_empty_list(&store).await;
    the_newest_come_first_and_ties_go_by_code(&store).await;
    pages_hold_every_link_once(&store).await;
    a_cursor_need_not_name_a_link(&store).await;
    owners_see_their_own_links_only(&store).await;
    only_deleted_links_are_left_out(&store).await;
    a_list_sees_what_was_acknowledged(&store).await;
    lists_beside_inserts_are_whole(&store).await;
    paging_beside_inserts_skips_and_repeats_nothing(&store).await;
}

fn owned(owner: &str, text: &str, created_ms: i64) -> Link {
    let at = Timestamp::from_millis(created_ms);
    Link { owner: Owner::parse(owner).unwrap(), created_at: at, updated_at: at, ..link(text) }
}

async fn create(store: &Store, link: &Link) {
    assert_eq!(store.insert_if_absent(link, attempt(1)).await.unwrap(), Insert::Created);
}

fn cursor_of(link: &Link) -> Cursor {
    Cursor { created_at: link.created_at, code: link.code.clone() }
}

fn codes(links: &[Link]) -> Vec<&str> {
    links.iter().map(|link| link.code.as_str()).collect()
}

async fn list(store: &Store, owner: &str, after: Option<&Cursor>, limit: usize) -> Vec<Link> {
    store.list(&Owner::parse(owner).unwrap(), after, limit).await.unwrap()
}

/// All links of `owner` by pages of `limit`.
async fn by_pages(store: &Store, owner: &str, limit: usize) -> Vec<Link> {
    let mut all: Vec<Link> = Vec::new();
    loop {
        let after = all.last().map(cursor_of);
        let page = list(store, owner, after.as_ref(), limit).await;
        assert!(page.len() <= limit);
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

async fn an_owner_without_links_has_an_empty_list(store: &Store) {
    assert_eq!(list(store, "nobody", None, 10).await, []);
}

async fn the_newest_come_first_and_ties_go_by_code(store: &Store) {
    for (text, at) in [("t1", 1_000), ("Zt", 2_000), ("at", 2_000), ("_t", 2_000), ("9t", 2_000), ("t3", 3_000)] {
        create(store, &owned("ties", text, at)).await;
    }
    let all = list(store, "ties", None, 10).await;
    // Descending by bytes: lower case, then '_', upper case, digits.
    assert_eq!(codes(&all), ["t3", "at", "_t", "Zt", "9t", "t1"]);
    assert_eq!(all[1], owned("ties", "at", 2_000));
    assert_eq!(codes(&list(store, "ties", None, 2).await), ["t3", "at"]);
    assert_eq!(codes(&list(store, "ties", None, 0).await), [""; 0]);
    assert_eq!(codes(&list(store, "ties", Some(&cursor_of(&all[2])), 2).await), ["Zt", "9t"]);
}

async fn pages_hold_every_link_once(store: &Store) {
    // Spread over all slots, three links to a moment.
    let letters = b"09AZaz-_5m";
    let mut expected: Vec<Link> = (0..30)
        .map(|n: usize| {
            let text = format!("{}{}pages{n}", letters[n % 10] as char, letters[n / 3] as char);
            owned("pages", &text, 5_000 + n as i64 / 3)
        })
        .collect();
    for link in &expected {
        create(store, link).await;
    }
    expected.sort_by(|a, b| (b.created_at, &b.code).cmp(&(a.created_at, &a.code)));
    for limit in [1, 2, 3, 7, 29, 30, 31] {
        assert_eq!(codes(&by_pages(store, "pages", limit).await), codes(&expected), "{limit}");
    }
}

async fn a_cursor_need_not_name_a_link(store: &Store) {
    for (text, at) in [("n1", 10), ("n2", 20), ("n3", 30)] {
        create(store, &owned("cursors", text, at)).await;
    }
    for (at, text, expected) in [
        (25, "x", vec!["n2", "n1"]),
        (20, "n1z", vec!["n1"]),
        (20, "n3", vec!["n2", "n1"]),
        (0, "0", vec![]),
        (i64::MAX, "0", vec!["n3", "n2", "n1"]),
    ] {
        let cursor = Cursor { created_at: Timestamp::from_millis(at), code: code(text) };
        assert_eq!(codes(&list(store, "cursors", Some(&cursor), 10).await), expected, "{at} {text}");
    }
}

async fn owners_see_their_own_links_only(store: &Store) {
    for (owner, text) in [("own", "o1"), ("Own", "o2"), ("own_", "o3"), ("ow", "o4")] {
        create(store, &owned(owner, text, 1)).await;
    }
    for (owner, text) in [("own", "o1"), ("Own", "o2"), ("own_", "o3"), ("ow", "o4")] {
        assert_eq!(codes(&list(store, owner, None, 10).await), [text]);
    }
}

async fn only_deleted_links_are_left_out(store: &Store) {
    for (text, state) in
        [("s1", LinkState::Active), ("s2", LinkState::Disabled), ("s3", LinkState::Blocked), ("s4", LinkState::Deleted)]
    {
        let first = owned("states", text, 1);
        create(store, &first).await;
        let change = LinkChange { state, ..LinkChange::of(&first) };
        store.update(&first.code, Version::FIRST, &change).await.unwrap();
    }
    assert_eq!(codes(&list(store, "states", None, 10).await), ["s3", "s2", "s1"]);
    // A deleted link's place still parts the list.
    let deleted = store.get(&code("s4")).await.unwrap().unwrap();
    assert_eq!(codes(&list(store, "states", Some(&cursor_of(&deleted)), 10).await), ["s3", "s2", "s1"]);
}

async fn a_list_sees_what_was_acknowledged(store: &Store) {
    for number in 0..20 {
        let first = owned("acked", &format!("{number}ack"), number);
        create(store, &first).await;
        assert_eq!(list(store, "acked", None, 1).await, std::slice::from_ref(&first));
        let change = LinkChange { state: LinkState::Disabled, ..LinkChange::of(&first) };
        store.update(&first.code, Version(1), &change).await.unwrap();
        assert_eq!(list(store, "acked", None, 1).await[0].state, LinkState::Disabled);
        if number % 2 == 0 {
            let change = LinkChange { state: LinkState::Deleted, ..LinkChange::of(&first) };
            store.update(&first.code, Version(2), &change).await.unwrap();
            assert!(!list(store, "acked", None, 1).await.contains(&first));
        }
    }
    assert_eq!(by_pages(store, "acked", 3).await.len(), 10);
}

/// Inserts against lists: a list is in order and holds all that was acknowledged before it began.
async fn lists_beside_inserts_are_whole(store: &Store) {
    let each = store.rounds(40) as i64;
    let acknowledged: Arc<Mutex<HashSet<ShortCode>>> = Arc::default();
    race(8, |number| {
        let (store, acknowledged) = (store.clone(), Arc::clone(&acknowledged));
        async move {
            for step in 0..each {
                if number % 2 == 0 {
                    let link = owned("beside", &format!("{number}{}beside{step}", step % 7), step);
                    create(&store, &link).await;
                    acknowledged.lock().insert(link.code);
                } else {
                    let before = acknowledged.lock().clone();
                    let all = list(&store, "beside", None, 1_000).await;
                    let in_order =
                        all.windows(2).all(|two| (two[0].created_at, &two[0].code) > (two[1].created_at, &two[1].code));
                    assert!(in_order, "{:?}", codes(&all));
                    let listed: HashSet<_> = all.into_iter().map(|link| link.code).collect();
                    assert!(before.is_subset(&listed), "an acknowledged link is not listed");
                }
            }
        }
    })
    .await;
    assert_eq!(list(store, "beside", None, 1_000).await.len(), 4 * each as usize);
}

async fn paging_beside_inserts_skips_and_repeats_nothing(store: &Store) {
    for number in 0..30 {
        create(store, &owned("paging", &format!("{number}old"), 1_000 + number)).await;
    }
    race(2, |racer| {
        let store = store.clone();
        async move {
            if racer == 0 {
                for number in 0..30 {
                    create(&store, &owned("paging", &format!("{number}new"), 2_000 + number)).await;
                }
                return;
            }
            let all = by_pages(&store, "paging", 4).await;
            let distinct: HashSet<_> = codes(&all).into_iter().map(str::to_owned).collect();
            assert_eq!(distinct.len(), all.len(), "a link came twice");
            assert!((0..30).all(|number| distinct.contains(&format!("{number}old"))), "a link was skipped");
        }
    })
    .await;
}
