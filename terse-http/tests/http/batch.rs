//! Many creates in one request.

use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use terse_core::ports::StoreErrorKind;
use terse_http::Bounds;
use terse_testkit::{Fault, Gate, Operation, When};

use crate::server::{Answer, Choices, Server, faults};

const BATCH: &str = "/api/v1/links/batch";

fn send(server: &Server, body: &Value) -> Answer {
    server.json("POST", BATCH, body)
}

#[test]
fn each_item_succeeds_or_fails_alone_and_in_its_place() {
    let server = Server::start();
    let body = json!({"items": [
        {"url": "https://example.com/1", "alias": "one"},
        {"url": "nonsense", "alias": "no spaces", "more": 1},
        {"url": "https://example.com/2", "alias": "one"},
        7,
        {"url": "https://example.com/3"}
    ]});
    let answer = server.ask("POST", BATCH).header("X-Request-Id", "r7").json(&body.to_string()).send();
    assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")));
    let items = answer.value()["items"].clone();
    let statuses: Vec<_> = items.as_array().unwrap().iter().map(|item| item["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [201, 422, 409, 422, 201]);
    assert_eq!(items[0]["link"]["code"], "one");
    assert_eq!(items[0]["link"]["url"], "https://example.com/1");
    assert_eq!(items[2]["error"]["code"], "alias_taken");
    assert_eq!(items[2]["error"]["request_id"], "r7");
    assert_eq!(faults(&items[3]["error"]), ["item: wrong_type"]);
    let told = faults(&items[1]["error"]);
    assert_eq!(told.len(), 3, "{told:?}");
    assert_eq!(items[4]["link"]["url"], "https://example.com/3");
    assert_eq!(server.get("/one").header("location"), Some("https://example.com/1"));
}

#[test]
fn a_thousand_items_are_taken_in_order_and_not_one_more() {
    let server = Server::start();
    let items =
        |n: usize| -> Vec<Value> { (0..n).map(|i| json!({"url": format!("https://example.com/{i}")})).collect() };
    let answer = send(&server, &json!({"items": items(1_000)}));
    assert_eq!(answer.status, 200);
    let made = answer.value()["items"].clone();
    for (i, item) in made.as_array().unwrap().iter().enumerate() {
        assert_eq!(item["link"]["url"], format!("https://example.com/{i}"));
    }
    assert_eq!(made.as_array().unwrap().len(), 1_000);
    send(&server, &json!({"items": items(1_001)})).assert_faults(&["items: out_of_bounds"]);
    send(&server, &json!({"items": []})).assert_faults(&["items: out_of_bounds"]);
}

#[test]
fn a_batch_that_is_wrong_as_a_whole_is_refused_as_a_whole() {
    let server = Server::start();
    send(&server, &json!({})).assert_faults(&["items: required"]);
    send(&server, &json!({"items": {"url": 1}})).assert_faults(&["items: wrong_type"]);
    send(&server, &json!({"items": [{}], "mode": 1})).assert_faults(&["mode: unknown_field"]);
    send(&server, &json!([])).assert_faults(&["body: wrong_type"]);
    server.ask("POST", BATCH).json("{\"items\":[").send().assert_problem(400, "malformed_json");
    server.ask("POST", BATCH).body("{}").send().assert_problem(415, "unsupported_media_type");
    assert_eq!(server.store.faults.calls(Operation::InsertIfAbsent), 0);
}

#[test]
fn a_batch_takes_no_idempotency_key() {
    let server = Server::start();
    let body = json!({"items": [{"url": "https://example.com/"}]}).to_string();
    let answer = server.ask("POST", BATCH).header("Idempotency-Key", "k").json(&body).send();
    answer.assert_faults(&["Idempotency-Key: not_allowed"]);
    assert_eq!(server.store.faults.calls(Operation::InsertIfAbsent), 0);
}

#[test]
fn a_store_fault_hits_only_the_items_it_hits() {
    let server = Server::start();
    server.store.faults.add(Operation::InsertIfAbsent, When::Nth(2), Fault::Fail(StoreErrorKind::Unavailable));
    let item = json!({"url": "https://example.com/"});
    let items = send(&server, &json!({"items": [item, item, item]})).value()["items"].clone();
    let statuses: Vec<_> = items.as_array().unwrap().iter().map(|item| item["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [201, 503, 201]);
    assert_eq!(items[1]["error"]["code"], "store_unavailable");
}

/// Batches of so many items at once, each over a connection of its own, to a store that takes none until `then` was
/// done. What became of each item.
fn at_once(server: &Server, batches: usize, items: usize, then: impl FnOnce()) -> Vec<u64> {
    let gate = Gate::closed();
    server.store.faults.add(Operation::InsertIfAbsent, When::Every, Fault::HoldCall(gate.clone()));
    let body = json!({"items": vec![json!({"url": "https://example.com/"}); items]});
    std::thread::scope(|scope| {
        let sent: Vec<_> = (0..batches).map(|_| scope.spawn(|| send(server, &body).value()["items"].clone())).collect();
        then();
        gate.open();
        let answers: Vec<_> = sent.into_iter().map(|answer| answer.join().unwrap()).collect();
        let statuses = answers.iter().flat_map(|items| items.as_array().unwrap().iter());
        statuses.map(|item| item["status"].as_u64().unwrap()).collect()
    })
}

fn await_true(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn batches_together_ask_the_store_for_as_much_at_once_as_one() {
    let server = Server::start();
    let inserts = || server.store.faults.calls(Operation::InsertIfAbsent);
    let statuses = at_once(&server, 5, 100, || {
        await_true("64 creates", || inserts() == 64);
        // What needs no store waits for nobody.
        let refused = send(&server, &json!({"items": [{"url": "nonsense"}]})).value()["items"][0]["status"].clone();
        assert_eq!((refused, inserts()), (422.into(), 64));
    });
    assert_eq!((statuses.len(), statuses.iter().all(|status| *status == 201)), (500, true));
    assert_eq!((inserts(), server.metric("terse_shed_total{kind=\"create\"}")), (500, 0.0));
}

#[test]
fn items_of_more_than_64_batches_at_once_are_refused_in_their_place() {
    let server = Server::start();
    let shed = || server.metric("terse_shed_total{kind=\"create\"}");
    let statuses = at_once(&server, 65, 64, || await_true("64 items to be refused", || shed() == 64.0));
    let of = |wanted: u64| statuses.iter().filter(|status| **status == wanted).count();
    assert_eq!((of(201), of(503)), (64 * 64, 64));
}

#[test]
fn bodies_of_batches_take_only_so_much_memory_together() {
    let bounds = Bounds { batch_bytes: 1_000, ..Bounds::default() };
    let server = Server::with(Choices { bounds, ..Choices::default() });
    let small = json!({"items": [{"url": format!("https://example.com/{}", "x".repeat(100))}]});
    let head = format!("POST {BATCH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n");
    let mut slow: Vec<_> = (0..64).map(|_| server.connect()).collect();
    for stream in &mut slow {
        write!(stream, "{head}Content-Length: 1000\r\n\r\n{:999}", "[").unwrap();
    }
    await_true("what is there to be read", || send(&server, &small).status == 503);
    let refused = send(&server, &small);
    refused.assert_problem(503, "overloaded");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(server.metric("terse_shed_total{kind=\"create\"}"), 2.0);
    assert_eq!(server.json("POST", "/api/v1/links", &small["items"][0]).status, 201, "others are read as ever");
    // One that is whole gives its room back.
    write!(slow[0], "]").unwrap();
    await_true("room again", || send(&server, &small).status == 200);
}

#[test]
fn a_body_of_too_many_values_is_413() {
    let server = Server::start();
    let body = format!("{{\"items\":[{}0]}}", "0,".repeat(200_000));
    server.ask("POST", BATCH).json(&body).send().assert_problem(413, "body_too_large");
}
