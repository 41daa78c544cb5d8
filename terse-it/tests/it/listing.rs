//! The list of links: order, pages, cursors.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use terse_it::{API_LINKS, Setup, code_of, millis};

use crate::contract::assert_problem;

#[test]
fn a_list_is_newest_first_over_all_its_pages() {
    let server = Setup::new().start();
    let client = server.client();
    let mut made: Vec<String> = (0..25).map(|n| client.shorten(&format!("https://example.com/{n}"))).collect();
    made.reverse();
    let by_time = |links: &[serde_json::Value]| {
        let keys: Vec<_> = links.iter().map(|l| (millis(l["created_at"].as_str().unwrap()), code_of(l))).collect();
        keys.windows(2).all(|pair| pair[0] > pair[1])
    };
    for page in [1, 7, 25, 200] {
        let links = client.all_links(page);
        assert!(by_time(&links), "pages of {page}: {links:?}");
        let codes: HashSet<String> = links.iter().map(code_of).collect();
        assert_eq!(codes.len(), 25, "pages of {page}");
        assert_eq!(codes, made.iter().cloned().collect());
        assert_eq!(client.link(&made[3]), *links.iter().find(|l| code_of(l) == made[3]).unwrap());
    }
    let first = client.get(&format!("{API_LINKS}?limit=25")).expect(200).json();
    assert_eq!(first["items"].as_array().unwrap().len(), 25);
    let names: Vec<&String> = first.as_object().unwrap().keys().collect();
    assert_eq!(names, ["items", "next_cursor"]);
}

#[test]
fn a_list_has_fifty_links_a_page_unless_asked_otherwise() {
    let server = Setup::new().start();
    let client = server.client();
    let items: Vec<_> = (0..60).map(|n| json!({ "url": format!("https://example.com/{n}") })).collect();
    let _ = client.post(&format!("{API_LINKS}/batch"), &json!({ "items": items })).expect(200);
    let page = client.get(API_LINKS).expect(200).json();
    assert_eq!(page["items"].as_array().unwrap().len(), 50);
    assert!(page["next_cursor"].is_string());
    let all = client.all_links(200);
    assert_eq!(all.len(), 60);
    // Links of a batch are of one millisecond, so pages end between links of the same age.
    assert_eq!(client.all_links(7), all);
    let fresh = client.get(&format!("{API_LINKS}?limit=60")).expect(200).json();
    assert_eq!(fresh["items"].as_array().unwrap().len(), 60);
}

#[test]
fn an_empty_list_is_one_empty_page() {
    let server = Setup::new().start();
    let page = server.client().get(API_LINKS).expect(200).json();
    assert_eq!(page, json!({ "items": [], "next_cursor": null }));
}

#[test]
fn paging_neither_repeats_nor_omits_while_links_are_created() {
    let server = Setup::new().start();
    let client = server.client();
    let old: HashSet<String> = (0..120).map(|n| client.shorten(&format!("https://example.com/old/{n}"))).collect();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let creating = scope.spawn(|| {
            let mut count = 0;
            while !done.load(Ordering::Relaxed) && count < 2_000 {
                client.shorten(&format!("https://example.com/new/{count}"));
                count += 1;
            }
            count
        });
        for page in [3, 11, 40] {
            let codes: Vec<String> = client.all_links(page).iter().map(code_of).collect();
            let distinct: HashSet<&String> = codes.iter().collect();
            assert_eq!(distinct.len(), codes.len(), "a link was told twice");
            assert!(old.iter().all(|code| distinct.contains(code)), "a link was left out");
        }
        done.store(true, Ordering::Relaxed);
        assert!(creating.join().unwrap() > 0, "nothing was created meanwhile");
    });
}

#[test]
fn a_cursor_outlives_its_link_and_a_restart() {
    let mut server = Setup::new().start();
    let codes: Vec<String> = (0..6).map(|n| server.client().shorten(&format!("https://example.com/{n}"))).collect();
    let page = server.client().get(&format!("{API_LINKS}?limit=2")).expect(200).json();
    let cursor = page["next_cursor"].as_str().unwrap().to_owned();
    let last = code_of(&page["items"][1]);
    let told: HashSet<String> = page["items"].as_array().unwrap().iter().map(code_of).collect();
    let _ = server.client().delete(&last).expect(204);
    server.stop(terse_it::Stop::Politely);
    server.restart();
    let rest = server.client().get(&format!("{API_LINKS}?limit=50&cursor={cursor}")).expect(200).json();
    let rest: HashSet<String> = rest["items"].as_array().unwrap().iter().map(code_of).collect();
    assert_eq!(rest, codes.into_iter().filter(|code| !told.contains(code)).collect());
}

#[test]
fn bad_limits_and_cursors_get_their_status() {
    let server = Setup::new().start();
    let client = server.client();
    client.shorten("https://example.com/");
    for limit in ["0", "201", "-1", "abc", "", "1e2", "99999999999999999999"] {
        let problem = assert_problem(&client.get(&format!("{API_LINKS}?limit={limit}")), 422, None);
        assert_eq!(problem["errors"][0]["field"], "limit", "{limit}: {problem}");
    }
    for limit in [1, 200] {
        let _ = client.get(&format!("{API_LINKS}?limit={limit}")).expect(200);
    }
    for cursor in ["x", "zz.abc", "1.", ".abc", "-1.abc", "00.abc", "%00", "1.a%2fb", &"9".repeat(3_000)] {
        assert_problem(&client.get(&format!("{API_LINKS}?cursor={cursor}")), 400, None);
    }
    let undecodable = client.get(&format!("{API_LINKS}?cursor=%ff"));
    assert!(matches!(undecodable.status, 400 | 422), "{undecodable:?}");
}
