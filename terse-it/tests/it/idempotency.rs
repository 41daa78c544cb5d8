//! Idempotency keys: one key and body, one link, one answer.

use std::sync::Barrier;

use serde_json::{Value, json};
use terse_it::{API_LINKS, Client, Request, Response, Setup, Stop, code_of};

use crate::contract::assert_problem;

/// A create under an idempotency key.
pub(crate) fn keyed(key: &str, body: &Value) -> Request {
    Request::new("POST", API_LINKS).header("Idempotency-Key", key).json(body)
}

fn essence(answer: &Response) -> (u16, Vec<u8>, Option<String>, Option<String>) {
    let header = |name| answer.header(name).map(str::to_owned);
    (answer.status, answer.body.clone(), header("location"), header("etag"))
}

#[track_caller]
fn assert_same(client: &Client, request: &Request, first: &Response) {
    assert_eq!(essence(&client.send(request.clone())), essence(first));
}

#[test]
fn a_retry_gets_the_same_answer_byte_for_byte_through_restarts_and_kills() {
    let mut server = Setup::new().start();
    let client = server.client();
    let generated = keyed("key-1", &json!({ "url": "https://example.com/1", "title": "x" }));
    let named = keyed("key-2", &json!({ "url": "https://example.com/2", "alias": "named" }));
    let firsts = [client.send(generated.clone()).expect(201), client.send(named.clone()).expect(201)];
    for stop in [None, Some(Stop::Politely), Some(Stop::AtOnce)] {
        if let Some(stop) = stop {
            server.stop(stop);
            server.restart();
        }
        for (request, first) in [&generated, &named].into_iter().zip(&firsts) {
            assert_same(&server.client(), request, first);
        }
        assert_eq!(server.client().all_links(50).len(), 2);
    }
}

#[test]
fn a_retry_gets_the_link_as_it_was_created_even_after_an_edit() {
    let server = Setup::new().start();
    let client = server.client();
    let request = keyed("key", &json!({ "url": "https://example.com/1" }));
    let first = client.send(request.clone()).expect(201);
    let code = code_of(&first.json());
    let _ = client.patch(&code, &json!({ "url": "https://example.com/2", "title": "edited" })).expect(200);
    assert_same(&client, &request, &first);
    assert_eq!(client.target(&code), "https://example.com/2", "the retry changed nothing");
}

#[test]
fn a_key_with_another_body_is_refused() {
    let server = Setup::new().start();
    let client = server.client();
    let _ = client.send(keyed("key", &json!({ "url": "https://example.com/1" }))).expect(201);
    let other = client.send(keyed("key", &json!({ "url": "https://example.com/2" })));
    assert_problem(&other, 422, None);
    assert_eq!(client.all_links(50).len(), 1);
}

#[test]
fn a_key_of_a_refused_request_is_free_for_a_better_one() {
    let server = Setup::new().start();
    let client = server.client();
    assert_problem(&client.send(keyed("key", &json!({ "url": "nonsense" }))), 422, None);
    let _ = client.send(keyed("key", &json!({ "url": "https://example.com/" }))).expect(201);
}

#[test]
fn a_taken_alias_stays_taken_for_every_retry() {
    let server = Setup::new().start();
    let client = server.client();
    client.create(&json!({ "url": "https://example.com/1", "alias": "mine" }));
    let request = keyed("key", &json!({ "url": "https://example.com/2", "alias": "mine" }));
    for _ in 0..3 {
        assert_problem(&client.send(request.clone()), 409, Some("alias_taken"));
    }
    assert_eq!(client.target("mine"), "https://example.com/1");
}

#[test]
fn a_batch_refuses_an_idempotency_key() {
    let server = Setup::new().start();
    let client = server.client();
    let body = json!({ "items": [{ "url": "https://example.com/" }] });
    let request = Request::new("POST", &format!("{API_LINKS}/batch")).header("Idempotency-Key", "key").json(&body);
    let answer = client.send(request);
    assert!(matches!(answer.status, 400 | 422), "{answer:?}");
    assert_problem(&answer, answer.status, None);
    assert!(client.all_links(50).is_empty());
}

#[test]
fn malformed_keys_are_refused() {
    let server = Setup::new().start();
    let client = server.client();
    for key in ["", &"k".repeat(256), "caf\u{e9}", "a\tb"] {
        let answer = client.send(keyed(key, &json!({ "url": "https://example.com/" })));
        assert!(matches!(answer.status, 400 | 422), "{key:?}: {answer:?}");
    }
    assert!(client.all_links(50).is_empty());
    let _ = client.send(keyed(&"k".repeat(255), &json!({ "url": "https://example.com/" }))).expect(201);
}

#[test]
fn forty_retries_at_once_make_one_link() {
    let server = Setup::new().start();
    let client = server.client();
    for round in 0..5 {
        let request = keyed(&format!("key-{round}"), &json!({ "url": format!("https://example.com/{round}") }));
        let line = Barrier::new(40);
        let answers: Vec<Response> = std::thread::scope(|scope| {
            let send = || {
                line.wait();
                client.send(request.clone())
            };
            let threads: Vec<_> = (0..40).map(|_| scope.spawn(send)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for answer in &answers {
            assert_eq!(essence(answer), essence(&answers[0]));
            assert_eq!(answer.status, 201, "{answer:?}");
        }
        assert_eq!(client.all_links(200).len(), round + 1);
    }
}
