//! `/api/v1/admin/breakers`: who may see and force breakers, and how they show.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use terse_core::Role;
use terse_http::Surfaces;
use terse_resilience::{Forced, State};

use crate::server::{Answer, Choices, Keys, Server};

const ALL: &str = "/api/v1/admin/breakers";
const READ: &str = "/api/v1/admin/breakers/main/read";

fn force(server: &Server, path: &str, body: &str) -> Answer {
    server.ask("PUT", path).json(body).send()
}

fn trip(server: &Server, name: &str) {
    let breaker = server.breakers.get(name).unwrap();
    (0..5).for_each(|_| breaker.try_acquire().unwrap().failure());
}

#[test]
fn all_breakers_are_listed_in_order_and_never_cached() {
    let server = Server::start();
    let answer = server.get(ALL);
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let list = answer.value();
    let names: Vec<_> = list["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["main/read", "main/write"]);
    assert_eq!(list["items"][0], server.get(READ).value());
    assert_eq!(server.ask("HEAD", ALL).send().body, "");
}

#[test]
fn a_fresh_breaker_is_closed_and_has_counted_nothing() {
    let server = Server::start();
    let none = json!({"permitted": 0, "rejected": 0, "successes": 0, "failures": 0, "timeouts": 0, "ignored": 0,
        "abandoned": 0, "late": 0, "in_flight": 0});
    let expected = json!({"name": "main/read", "state": "closed", "forced": null, "since": "2026-01-02T03:04:05Z",
        "open_for_ms": 0, "consecutive_failures": 0, "probes": {"in_flight": 0, "succeeded": 0}, "window": null,
        "counts": none, "transitions": {"closed": 0, "half_open": 0, "open": 0}});
    assert_eq!(server.get(READ).value(), expected);
}

#[test]
fn an_open_breaker_tells_since_when_and_for_how_long() {
    let server = Server::start();
    server.clock.advance(Duration::from_secs(5));
    trip(&server, "main/read");
    server.clock.advance(Duration::from_secs(10));
    server.breakers.get("main/read").unwrap().try_acquire().unwrap_err();
    let seen = server.get(READ).value();
    assert_eq!((&seen["state"], &seen["forced"]), (&json!("open"), &Value::Null));
    assert_eq!((&seen["since"], &seen["open_for_ms"]), (&json!("2026-01-02T03:04:10Z"), &json!(20_000)));
    assert_eq!((&seen["counts"]["failures"], &seen["counts"]["rejected"]), (&json!(5), &json!(1)));
    assert_eq!(seen["transitions"], json!({"closed": 0, "half_open": 0, "open": 1}));
    assert_eq!(server.get("/api/v1/admin/breakers/main/write").value()["state"], "closed");
}

#[test]
fn a_half_open_breaker_tells_its_probes() {
    let server = Server::start();
    trip(&server, "main/read");
    server.clock.advance(Duration::from_secs(30));
    let breaker = server.breakers.get("main/read").unwrap().clone();
    let probe = breaker.try_acquire().unwrap();
    let seen = server.get(READ).value();
    assert_eq!((&seen["state"], &seen["probes"]["in_flight"]), (&json!("half_open"), &json!(1)));
    assert_eq!(seen["counts"]["in_flight"], 1);
    probe.ignore();
}

#[test]
fn a_breaker_is_held_open_held_closed_and_let_go() {
    let server = Server::start();
    let breaker = server.breakers.get("main/read").unwrap().clone();
    let held = force(&server, READ, "{\"force\":\"open\"}");
    assert_eq!((held.status, held.header("cache-control")), (200, Some("no-store")));
    assert_eq!((&held.value()["state"], &held.value()["forced"]), (&json!("open"), &json!("open")));
    assert_eq!(breaker.snapshot().forced, Some(Forced::Open));
    assert!(breaker.try_acquire().is_err());
    let held = force(&server, READ, "{\"force\":\"closed\"}").value();
    assert_eq!((&held["state"], &held["forced"]), (&json!("closed"), &json!("closed")));
    (0..9).for_each(|_| breaker.try_acquire().unwrap().failure());
    assert_eq!(breaker.state(), State::Closed, "held closed, whatever fails");
    force(&server, READ, "{\"force\":\"open\"}");
    let free = force(&server, READ, "{\"force\":null}").value();
    assert_eq!((&free["state"], &free["forced"]), (&json!("half_open"), &Value::Null));
    assert_eq!(server.breakers.get("main/write").unwrap().state(), State::Closed, "the other one is left alone");
}

#[test]
fn the_slash_of_a_name_may_be_encoded() {
    let server = Server::start();
    for path in ["main/read", "main%2Fread", "main%2fread", "m%61in/read"] {
        assert_eq!(server.get(&format!("{ALL}/{path}")).value()["name"], "main/read", "{path}");
    }
    assert_eq!(force(&server, &format!("{ALL}/main%2Fread"), "{\"force\":\"open\"}").status, 200);
    assert_eq!(server.breakers.get("main/read").unwrap().state(), State::Open);
}

#[test]
fn an_unknown_breaker_is_404() {
    let server = Server::start();
    for path in ["", "main", "main/", "main/read/", "MAIN/READ", "main%252Fread", "%ff", "main%00", "..%2Fread"] {
        server.get(&format!("{ALL}/{path}")).assert_problem(404, "not_found");
        force(&server, &format!("{ALL}/{path}"), "{\"force\":\"open\"}").assert_problem(404, "not_found");
    }
}

#[test]
fn every_fault_of_the_body_is_told_and_nothing_is_forced() {
    let server = Server::start();
    for (body, faults) in [
        ("{}", ["force: required"].as_slice()),
        ("{\"force\":\"half_open\"}", &["force: bad_value"]),
        ("{\"force\":1}", &["force: wrong_type"]),
        ("{\"force\":\"open\",\"for_ms\":5}", &["for_ms: unknown_field"]),
        ("{\"force\":\"open\",\"force\":null}", &["force: duplicate_field"]),
        ("[\"open\"]", &["body: wrong_type"]),
    ] {
        force(&server, READ, body).assert_faults(faults);
    }
    force(&server, READ, "{\"force\"").assert_problem(400, "malformed_json");
    force(&server, READ, "").assert_problem(400, "malformed_json");
    let text = server.ask("PUT", READ).header("Content-Type", "text/plain").body("{\"force\":\"open\"}").send();
    text.assert_problem(415, "unsupported_media_type");
    let large = format!("{{\"force\":\"{}\"}}", "x".repeat(64 * 1024));
    force(&server, READ, &large).assert_problem(413, "body_too_large");
    assert_eq!(server.breakers.get("main/read").unwrap().snapshot().generation, 0);
}

#[test]
fn breakers_are_for_admins_alone() {
    let keys = Arc::new(Keys::default());
    let [admin, writer, reader] =
        [Role::Admin, Role::Writer, Role::Reader].map(|role| keys.issue("k", role).reveal().to_owned());
    let server = Server::with(Choices { keys: Some(keys), ..Choices::default() });
    let asked = |method: &str, path: &str, key: &str| {
        let request = server.ask(method, path).header("Authorization", &format!("Bearer {key}"));
        request.json("{\"force\":\"open\"}").send()
    };
    for (method, path) in [("GET", ALL), ("GET", READ), ("PUT", READ), ("PUT", "/api/v1/admin/breakers/none")] {
        for (key, role) in [(&writer, "writer"), (&reader, "reader")] {
            let problem = asked(method, path, key).assert_problem(403, "forbidden");
            assert_eq!(problem["detail"], format!("the key's role is {role}, and this needs admin"));
        }
        asked(method, path, "trs_none").assert_problem(401, "unauthorized");
    }
    assert_eq!(server.breakers.get("main/read").unwrap().state(), State::Closed);
    assert_eq!(asked("GET", ALL, &admin).status, 200);
    assert_eq!(asked("PUT", READ, &admin).value()["forced"], "open");
}

#[test]
fn other_methods_are_refused_and_foreign_hosts_too() {
    let server = Server::start();
    for (method, path, allow) in
        [("PUT", ALL, "GET, HEAD"), ("POST", READ, "GET, HEAD, PUT"), ("DELETE", READ, "GET, HEAD, PUT")]
    {
        let answer = server.ask(method, path).json("{\"force\":\"open\"}").send();
        answer.assert_problem(405, "method_not_allowed");
        assert_eq!(answer.header("allow"), Some(allow));
    }
    let foreign = server.ask("PUT", READ).header("Host", "evil.example").json("{\"force\":\"open\"}").send();
    foreign.assert_problem(421, "misdirected_request");
    assert_eq!(server.breakers.get("main/read").unwrap().state(), State::Closed);
}

#[test]
fn breakers_belong_to_the_api_role() {
    let surfaces = Surfaces { redirect: true, api: false };
    let server = Server::with(Choices { surfaces, ..Choices::default() });
    server.get(ALL).assert_problem(404, "not_found");
    force(&server, READ, "{\"force\":\"open\"}").assert_problem(404, "not_found");
    assert_eq!(server.breakers.get("main/read").unwrap().state(), State::Closed);
}

#[test]
fn a_breaker_as_it_is_sent_has_all_fields_of_its_schema() {
    let server = Server::start();
    let schemas = server.get("/api/openapi.json").value()["components"]["schemas"].clone();
    let breaker = server.get(READ).value();
    for (schema, sent) in [
        ("Breaker", &breaker),
        ("BreakerCounts", &breaker["counts"]),
        ("BreakerProbes", &breaker["probes"]),
        ("BreakerTransitions", &breaker["transitions"]),
    ] {
        let known: Vec<_> = schemas[schema]["properties"].as_object().unwrap().keys().collect();
        assert_eq!(known, sent.as_object().unwrap().keys().collect::<Vec<_>>(), "{schema}");
        assert_eq!(schemas[schema]["required"].as_array().unwrap().len(), known.len(), "{schema}");
    }
    assert_eq!(schemas["Force"]["additionalProperties"], false);
    assert_eq!(schemas["Force"]["required"], json!(["force"]));
    assert_eq!(schemas["BreakerState"]["enum"], json!(["closed", "half_open", "open"]));
}
