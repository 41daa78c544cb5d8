//! `/api/v1/admin/block`: who may block hosts, how that is told, and what it does to creates and edits.

use std::sync::Arc;

use serde_json::{Value, json};
use terse_core::ports::StoreErrorKind;
use terse_core::{BlockList, Role};
use terse_http::Surfaces;

use crate::server::{Answer, Choices, Keys, Server};

const BLOCK: &str = "/api/v1/admin/block";
const LINKS: &str = "/api/v1/links";

fn change(server: &Server, body: &Value) -> Answer {
    server.json("POST", BLOCK, body)
}

fn block(server: &Server, host: &str) -> Answer {
    change(server, &json!({ "host": host }))
}

fn unblock(server: &Server, host: &str) -> Answer {
    change(server, &json!({ "host": host, "action": "unblock" }))
}

#[test]
fn a_host_is_blocked_listed_and_let_go() {
    let server = Server::start();
    assert_eq!(server.get(BLOCK).value(), json!({"items": [], "of_file": 0}));
    let answer = block(&server, "B\u{fc}cher.Example.");
    assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")), "{answer:?}");
    let punycode = "xn--bcher-kva.example";
    assert_eq!(answer.value(), json!({"host": punycode, "listed": true, "blocked": true}));
    assert_eq!(block(&server, punycode).value()["listed"], true, "once more is fine");
    assert_eq!(server.get(BLOCK).value(), json!({"items": [punycode], "of_file": 0}));
    assert_eq!(unblock(&server, punycode).value(), json!({"host": punycode, "listed": false, "blocked": false}));
    assert_eq!(unblock(&server, punycode).status, 200);
    assert_eq!(server.ask("HEAD", BLOCK).send().body, "");
}

#[test]
fn a_host_that_the_file_or_a_domain_above_blocks_stays_blocked() {
    let server = Server::start();
    server.blocks.blocked.set_file(BlockList::parse("evil.example").unwrap());
    assert_eq!(server.get(BLOCK).value()["of_file"], 1);
    let told = unblock(&server, "www.evil.example").value();
    assert_eq!((&told["listed"], &told["blocked"]), (&json!(false), &json!(true)));
}

#[test]
fn a_blocked_host_is_refused_as_a_target_wherever_one_is_given() {
    let server = Server::start();
    let link = server.create(&json!({"url": "https://good.example/"}));
    let path = format!("{LINKS}/{}", link["code"].as_str().unwrap());
    block(&server, "evil.example");
    for url in ["https://evil.example/", "http://www.EVIL.example.:8080/x", "https://a.b.evil.example"] {
        let body = json!({ "url": url });
        server.json("POST", LINKS, &body).assert_faults(&["url: blocked_host"]);
        server.json("PATCH", &path, &body).assert_faults(&["url: blocked_host"]);
        let batch = server.json("POST", "/api/v1/links/batch", &json!({ "items": [body] })).value();
        assert_eq!(batch["items"][0]["error"]["errors"][0]["code"], "blocked_host");
        let form = server.ask("POST", "/").header("Sec-Fetch-Site", "same-origin").form(&format!("url={url}")).send();
        assert!(form.status == 422 && form.body.contains("blocked"), "{form:?}");
    }
    server.create(&json!({"url": "https://notevil.example/"}));
    unblock(&server, "evil.example");
    server.create(&json!({"url": "https://evil.example/"}));
}

#[test]
fn an_edit_that_leaves_the_target_alone_is_none_of_the_list() {
    let server = Server::start();
    let link = server.create(&json!({"url": "https://evil.example/"}));
    block(&server, "evil.example");
    let path = format!("{LINKS}/{}", link["code"].as_str().unwrap());
    assert_eq!(server.json("PATCH", &path, &json!({"title": "known"})).status, 200);
    assert_eq!(server.get(&path).value()["state"], "active", "the host is blocked, not the link");
}

#[test]
fn faults_of_the_body_and_a_full_list_are_told() {
    let server = Server::start();
    change(&server, &json!({})).assert_faults(&["host: required"]);
    change(&server, &json!({"host": "https://a.example/", "action": "x"}))
        .assert_faults(&["host: invalid_host", "action: bad_value"]);
    server.ask("POST", BLOCK).json("{").send().assert_problem(400, "malformed_json");
    server.ask("POST", BLOCK).body("host=a").send().assert_problem(415, "unsupported_media_type");
    assert_eq!(server.ask("PUT", BLOCK).send().header("allow"), Some("GET, HEAD, POST"));
    for n in 0..crate::server::blocking::MOST {
        assert_eq!(block(&server, &format!("h{n}.example")).status, 200);
    }
    block(&server, "more.example").assert_faults(&["host: too_many"]);
}

#[test]
fn a_store_that_is_away_is_503() {
    let server = Server::start();
    *server.blocks.fault.lock() = Some(StoreErrorKind::Unavailable);
    let answer = block(&server, "evil.example");
    answer.assert_problem(503, "store_unavailable");
    assert_eq!(answer.header("retry-after"), Some("1"));
}

#[test]
fn only_admins_see_and_change_the_list() {
    let keys = Arc::new(Keys::default());
    let server = Server::with(Choices { keys: Some(keys.clone()), ..Choices::default() });
    for method in ["GET", "POST"] {
        let ask = || server.ask(method, BLOCK).json("{\"host\":\"evil.example\"}");
        ask().send().assert_problem(401, "unauthorized");
        for (role, status) in [(Role::Reader, 403), (Role::Writer, 403), (Role::Admin, 200)] {
            let key = keys.issue("k", role).reveal().to_owned();
            let answer = ask().header("Authorization", &format!("Bearer {key}")).send();
            assert_eq!(answer.status, status, "{method} as {role:?}");
        }
    }
}

#[test]
fn the_list_is_refused_to_foreign_hosts_and_absent_without_the_api() {
    let server = Server::start();
    let foreign = server.ask("POST", BLOCK).header("Host", "evil.example").json("{\"host\":\"a.example\"}").send();
    foreign.assert_problem(421, "misdirected_request");
    let surfaces = Surfaces { redirect: true, api: false };
    Server::with(Choices { surfaces, ..Choices::default() }).get(BLOCK).assert_problem(404, "not_found");
}
