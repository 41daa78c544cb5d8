//! What was answered once must not outlive a change: deletes, edits, new links,
//! expiry, each against a hot cache and under load.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use terse_it::{Client, Connection, Request, Response, Setup, await_true, code_of, now_ms, rfc3339};

/// How many visitors hammer a code.
const VISITORS: usize = 6;
/// How long a visitor rests between two visits. Without any rest the debug build keeps
/// both cores of a small machine busy, and the kernel then finishes an fsync only after seconds.
const REST: Duration = Duration::from_micros(300);
/// Most visits of one visitor to one code.
const VISITS: u64 = 200_000;

/// Hammers `/{code}` while `change` is made; every visit that began after the
/// change was answered must satisfy `after`.
fn under_load(client: &Client, code: &str, change: impl FnOnce(), after: impl Fn(&Response) -> bool + Sync) {
    let (changed, ended) = (AtomicBool::new(false), AtomicBool::new(false));
    let (before, seen) = (AtomicU64::new(0), AtomicU64::new(0));
    let visit = |connection: &mut Connection| {
        let is_after = changed.load(Ordering::SeqCst);
        let answer = connection.call(&Request::new("GET", &format!("/{code}"))).unwrap();
        if is_after {
            assert!(after(&answer), "/{code} after the change: {answer:?}");
            seen.fetch_add(1, Ordering::Relaxed);
        } else {
            before.fetch_add(1, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..VISITORS {
            scope.spawn(|| {
                let mut connection = client.connect();
                for _ in 0..VISITS {
                    visit(&mut connection);
                    std::thread::sleep(REST);
                    if ended.load(Ordering::Relaxed) {
                        return;
                    }
                }
            });
        }
        let limit = Duration::from_secs(10);
        await_true("visits before the change", limit, || before.load(Ordering::Relaxed) > 50);
        change();
        changed.store(true, Ordering::SeqCst);
        // The very next request, too, on a connection of its own.
        let next = client.visit(code);
        assert!(after(&next), "/{code} right after the change: {next:?}");
        await_true("visits after the change", limit, || seen.load(Ordering::Relaxed) > 50);
        ended.store(true, Ordering::Relaxed);
    });
}

#[test]
fn deleting_answers_410_on_the_very_next_request_under_load() {
    let server = Setup::new().start();
    let client = server.client();
    for n in 0..10 {
        let code = client.shorten(&format!("https://example.com/{n}"));
        under_load(&client, &code, || drop(client.delete(&code).expect(204)), |answer| answer.status == 410);
    }
}

#[test]
fn an_edit_leads_to_the_new_target_at_once_under_load() {
    let server = Setup::new().start();
    let client = server.client();
    let code = client.shorten("https://example.com/0");
    for n in 1..10 {
        let target = format!("https://example.com/{n}");
        let change = || drop(client.patch(&code, &json!({ "url": target })).expect(200));
        under_load(&client, &code, change, |answer| {
            answer.status == 302 && answer.header("location") == Some(target.as_str())
        });
    }
}

#[test]
fn switching_off_and_on_takes_effect_at_once_under_load() {
    let server = Setup::new().start();
    let client = server.client();
    let code = client.shorten("https://example.com/");
    for (state, status) in [("disabled", 410), ("active", 302), ("blocked", 451), ("active", 302), ("disabled", 410)] {
        let change = || drop(client.patch(&code, &json!({ "state": state })).expect(200));
        under_load(&client, &code, change, |answer| answer.status == status);
    }
}

#[test]
fn a_code_that_was_just_unknown_redirects_once_it_is_created_under_load() {
    let server = Setup::new().start();
    let client = server.client();
    for n in 0..10 {
        let alias = format!("soon-{n}");
        assert_eq!(client.visit(&alias).status, 404);
        let create = || drop(client.create(&json!({ "url": "https://example.com/", "alias": alias })));
        under_load(&client, &alias, create, |answer| answer.status == 302);
    }
}

#[test]
fn a_code_seen_unknown_redirects_right_after_its_creation() {
    let server = Setup::new().start();
    let client = server.client();
    for n in 0..50 {
        let alias = format!("new-{n}");
        assert_eq!(client.visit(&alias).status, 404);
        client.create(&json!({ "url": format!("https://example.com/{n}"), "alias": alias }));
        assert_eq!(client.target(&alias), format!("https://example.com/{n}"));
        let _ = client.delete(&alias).expect(204);
        assert_eq!(client.visit(&alias).status, 410);
    }
}

/// Visits until a while after `instant`; each visit that ended before it must
/// have got `before`, each that began after it `after`. Both must have happened.
fn assert_turns(client: &Client, code: &str, instant: i64, before: u16, after: u16) {
    let mut connection = client.connect();
    let (mut early, mut late) = (0, 0);
    while now_ms() < instant + 300 {
        let began = now_ms();
        let answer = connection.call(&Request::new("GET", &format!("/{code}"))).unwrap();
        if now_ms() < instant {
            assert_eq!(answer.status, before, "{} ms before the instant", instant - began);
            early += 1;
        } else if began >= instant {
            assert_eq!(answer.status, after, "{} ms after the instant", began - instant);
            late += 1;
        }
    }
    assert!(early > 0 && late > 0, "{early} visits before, {late} after");
}

/// Waits for an instant of the wall clock.
fn await_instant(instant: i64) {
    await_true("the instant", Duration::from_secs(10), || now_ms() >= instant);
}

#[test]
fn a_link_expires_at_the_exact_instant_cached_or_not() {
    let server = Setup::new().start();
    let client = server.client();
    let instant = now_ms() + 1_500;
    let make = || code_of(&client.create(&json!({ "url": "https://example.com/", "expires_at": rfc3339(instant) })));
    let (hot, once, never) = (make(), make(), make());
    assert_eq!(client.visit(&once).status, 302);
    assert_turns(&client, &hot, instant, 302, 410);
    assert_eq!(client.visit(&once).status, 410, "cached by one visit");
    assert_eq!(client.visit(&never).status, 410, "never visited before");
    let expired = client.link(&hot);
    assert_eq!((&expired["state"], &expired["expires_at"]), (&json!("active"), &json!(rfc3339(instant))));
    let later = rfc3339(now_ms() + 3_600_000);
    for change in [json!({ "expires_at": later }), json!({ "expires_at": null })] {
        let _ = client.patch(&hot, &change).expect(200);
        assert_eq!(client.visit(&hot).status, 302, "an expiry moved on revives the link");
    }
}

#[test]
fn a_link_begins_at_the_exact_instant_cached_or_not() {
    let server = Setup::new().start();
    let client = server.client();
    let instant = now_ms() + 1_500;
    let make = || code_of(&client.create(&json!({ "url": "https://example.com/", "valid_from": rfc3339(instant) })));
    let (hot, once, never) = (make(), make(), make());
    assert_eq!(client.visit(&once).status, 404);
    assert_turns(&client, &hot, instant, 404, 302);
    assert_eq!(client.visit(&once).status, 302);
    assert_eq!(client.visit(&never).status, 302);
}

#[test]
fn a_link_may_be_valid_for_a_moment_only() {
    let server = Setup::new().start();
    let client = server.client();
    let begin = now_ms() + 700;
    let end = begin + 700;
    let body = json!({ "url": "https://example.com/", "valid_from": rfc3339(begin), "expires_at": rfc3339(end) });
    let code = code_of(&client.create(&body));
    assert_turns(&client, &code, begin, 404, 302);
    assert_turns(&client, &code, end, 302, 410);
}

#[test]
fn an_expiry_set_by_an_edit_cuts_a_hot_link() {
    let server = Setup::new().start();
    let client = server.client();
    let code = client.shorten("https://example.com/");
    assert_eq!(client.visit(&code).status, 302);
    let instant = now_ms() + 700;
    let link: Value = client.patch(&code, &json!({ "expires_at": rfc3339(instant) })).expect(200).json();
    assert_eq!(link["expires_at"], rfc3339(instant));
    assert_turns(&client, &code, instant, 302, 410);
    await_instant(instant);
    let _ = client.delete(&code).expect(204);
    assert_eq!(client.visit(&code).status, 410);
}
