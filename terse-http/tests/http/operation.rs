//! Probes, metrics, what crawlers ask for, and the description of the API.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use terse_core::ports::{DependencyHealth, Observation, StoreErrorKind};
use terse_core::{Clock, Role};
use terse_http::Phase;
use terse_testkit::{Fault, Gate, Operation, When};

use crate::server::{Choices, Keys, Server};

#[test]
fn liveness_is_always_told() {
    let server = Server::start();
    server.lifecycle.enter(Phase::Draining);
    let answer = server.get("/livez");
    assert_eq!((answer.status, answer.body.as_str()), (200, "alive\n"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
}

#[test]
fn readiness_follows_the_phase() {
    let server = Server::start();
    let ready = server.get("/readyz");
    assert_eq!((ready.status, ready.header("retry-after")), (200, None));
    server.lifecycle.enter(Phase::Draining);
    let draining = server.get("/readyz");
    assert_eq!((draining.status, draining.header("retry-after")), (503, Some("1")));
}

#[test]
fn health_tells_what_works_and_since_when() {
    let server = Server::start();
    server.clock.advance(std::time::Duration::from_secs(90));
    let answer = server.get("/health");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/health+json")));
    let report = answer.value();
    assert_eq!(
        (&report["status"], &report["release"], &report["uptime_s"]),
        (&json!("ok"), &json!("1.2.3"), &json!(90))
    );
    assert_eq!(report["checks"].as_array().unwrap().len(), 1);
    assert_eq!((&report["checks"][0]["status"], &report["checks"][0]["reason"]), (&json!("ok"), &Value::Null));
}

#[test]
fn health_is_503_when_the_store_is_down() {
    let server = Server::start();
    server.store.faults.add(Operation::Check, When::Every, Fault::Fail(StoreErrorKind::Unavailable));
    let answer = server.get("/health");
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    assert_eq!(answer.header("content-type"), Some("application/health+json"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let report = answer.value();
    assert_eq!((&report["status"], &report["checks"][0]["reason"]), (&json!("down"), &json!("unavailable")));
    assert_eq!(server.get("/readyz").status, 200, "readiness does not depend on the store");
}

#[test]
fn a_store_that_takes_no_writes_is_degraded_and_its_links_redirect() {
    let server = Server::start();
    server.store.faults.add(Operation::CheckWrites, When::Every, Fault::Fail(StoreErrorKind::Unavailable));
    let answer = server.get("/health");
    assert_eq!((answer.status, answer.header("retry-after")), (200, None));
    let report = answer.value();
    assert_eq!(report["status"], "degraded");
    let check = &report["checks"][0];
    assert_eq!((&check["status"], &check["reason"]), (&json!("degraded"), &json!("writes")));
    server.store.faults.add(Operation::Check, When::Every, Fault::Fail(StoreErrorKind::Unavailable));
    assert_eq!(server.get("/health").status, 503, "down is more than degraded");
}

#[test]
fn a_store_that_does_not_answer_is_down_after_a_second() {
    let server = Server::start();
    let gate = Gate::closed();
    server.store.faults.add(Operation::Check, When::Every, Fault::HoldCall(gate.clone()));
    let answer = server.get("/health");
    gate.open();
    assert_eq!(answer.status, 503);
    assert_eq!(answer.value()["checks"][0]["reason"], "timeout");
}

/// A cache that works, or not, or hangs.
struct Cache(Option<Result<(), String>>);

#[async_trait]
impl DependencyHealth for Cache {
    fn name(&self) -> &'static str {
        "cache"
    }

    async fn check(&self) -> Result<(), String> {
        match &self.0 {
            Some(answer) => answer.clone(),
            None => std::future::pending().await,
        }
    }
}

#[test]
fn health_is_degraded_when_only_the_cache_is_down() {
    for (cache, status, reason) in [
        (Some(Ok(())), "ok", Value::Null),
        (Some(Err("no route to 10.1.2.3".to_owned())), "degraded", json!("unavailable")),
        (None, "degraded", json!("timeout")),
    ] {
        let server = Server::with(Choices { dependencies: vec![Arc::new(Cache(cache))], ..Choices::default() });
        let answer = server.get("/health");
        assert_eq!((answer.status, answer.value()["status"].as_str()), (200, Some(status)));
        assert_eq!(answer.value()["checks"][1]["name"], "cache");
        assert_eq!(answer.value()["checks"][1]["reason"], reason);
        assert!(!answer.body.contains("10.1.2.3"), "addresses are nobody's business");
        server.store.faults.add(Operation::Check, When::Every, Fault::Fail(StoreErrorKind::Unavailable));
        assert_eq!(server.get("/health").status, 503, "the store is what can't be done without");
    }
}

/// Something that works and measures itself.
struct Measured(Option<&'static str>);

#[async_trait]
impl DependencyHealth for Measured {
    fn name(&self) -> &'static str {
        "clicks"
    }

    async fn check(&self) -> Result<(), String> {
        Ok(())
    }

    fn observe(&self) -> Vec<Observation> {
        let of = |name, value, unit, trouble| Observation {
            name,
            value,
            unit,
            trouble,
            detail: trouble.map(|_| "see there".to_owned()),
        };
        vec![of("lag", 120, "ms", None), of("dropped", 7, "clicks", self.0)]
    }
}

#[test]
fn health_tells_what_a_dependency_measures_and_is_degraded_when_that_is_too_much() {
    for (trouble, status, reason) in [(None, "ok", Value::Null), (Some("dropping"), "degraded", json!("dropping"))] {
        let server = Server::with(Choices { dependencies: vec![Arc::new(Measured(trouble))], ..Choices::default() });
        let answer = server.get("/health");
        assert_eq!(answer.status, 200);
        let checks = answer.value();
        assert_eq!(checks["status"], status);
        let checks = checks["checks"].as_array().unwrap();
        assert_eq!(checks[1], json!({"name": "clicks", "status": status, "reason": reason}));
        let lag = json!({
            "name": "clicks:lag", "status": "ok", "reason": null, "observedValue": 120, "observedUnit": "ms"
        });
        assert_eq!(checks[2], lag);
        assert_eq!((&checks[3]["name"], &checks[3]["status"]), (&json!("clicks:dropped"), &json!(status)));
        assert_eq!((&checks[3]["observedValue"], &checks[3]["reason"]), (&json!(7), &reason));
        assert_eq!(checks[3].get("output"), trouble.map(|_| json!("see there")).as_ref());
    }
}

#[test]
fn metrics_are_what_prometheus_reads() {
    let server = Server::start();
    server.get("/none");
    let answer = server.get("/metrics");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/plain; version=0.0.4")));
    assert!(answer.body.contains("terse_redirects_total{outcome=\"missing\",tier=\"store\"} 1"), "{}", answer.body);
}

#[test]
fn crawlers_are_told_to_keep_to_the_page() {
    let server = Server::start();
    let robots = server.get("/robots.txt");
    assert_eq!((robots.status, robots.body.as_str()), (200, "User-agent: *\nAllow: /$\nDisallow: /\n"));
    let icon = server.get("/favicon.ico");
    assert_eq!((icon.status, icon.header("content-type")), (200, Some("image/svg+xml")));
    assert_eq!(icon.header("cache-control"), Some("public, max-age=86400"));
}

#[test]
fn swagger_ui_is_served_from_the_binary() {
    let server = Server::start();
    let slashless = server.get("/api/docs");
    assert_eq!((slashless.status, slashless.header("location")), (308, Some("/api/docs/")));
    let index = server.get("/api/docs/");
    assert_eq!((index.status, index.header("content-type")), (200, Some("text/html")));
    assert!(index.header("content-security-policy").unwrap().contains("script-src 'self'"));
    assert!(index.body.contains("swagger-ui-bundle.js"), "{}", index.body);
    let start = server.get("/api/docs/swagger-initializer.js");
    assert!(start.body.contains("/api/openapi.json"), "{}", start.body);
    assert!(!start.body.contains("petstore"), "{}", start.body);
    assert_eq!(server.get("/api/docs/swagger-ui.css").status, 200);
    for none in ["/api/docs/none.js", "/api/docs/../docs/", "/api/docs/%2e%2e/%2e%2e/etc/passwd"] {
        server.get(none).assert_problem(404, "not_found");
    }
}

fn description(server: &Server) -> Value {
    let answer = server.get("/api/openapi.json");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    answer.value()
}

#[test]
fn the_description_names_every_operation_and_its_statuses() {
    let document = description(&Server::start());
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["info"]["version"], "1.2.3");
    let statuses = |path: &str, method: &str| -> Vec<String> {
        let responses = &document["paths"][path][method]["responses"];
        responses.as_object().unwrap_or_else(|| panic!("{method} {path}")).keys().cloned().collect()
    };
    let expected = [
        ("/api/v1/links", "post", "201 400 401 403 408 409 413 414 415 421 422 503"),
        ("/api/v1/links", "get", "200 400 401 414 421 422 503"),
        ("/api/v1/links/batch", "post", "200 400 401 403 408 413 414 415 421 422 503"),
        ("/api/v1/links/{code}", "get", "200 304 400 401 404 414 421 503"),
        ("/api/v1/links/{code}", "patch", "200 400 401 403 404 408 412 413 414 415 421 422 503"),
        ("/api/v1/links/{code}", "delete", "204 400 401 403 404 412 414 421 503"),
        ("/api/v1/links/{code}/stats", "get", "200 401 404 414 421 422 503"),
        ("/api/v1/links/{code}/clicks", "get", "200 401 404 414 421 422 503"),
        ("/api/v1/admin/breakers", "get", "200 401 403 414 421 503"),
        ("/api/v1/admin/breakers/{name}", "get", "200 401 403 404 414 421 503"),
        ("/api/v1/admin/breakers/{name}", "put", "200 400 401 403 404 408 413 414 415 421 422 503"),
        ("/api/v1/admin/usage", "get", "200 401 403 414 421 422 503"),
        ("/api/v1/admin/block", "get", "200 401 403 414 421 503"),
        ("/api/v1/admin/block", "post", "200 400 401 403 408 413 414 415 421 422 503"),
        ("/{code}+", "get", "200 404 410 414 451 503"),
        ("/{code}+", "head", "200 404 410 414 451 503"),
        ("/{code}", "get", "302 404 410 414 451 503"),
        ("/{code}", "head", "302 404 410 414 451 503"),
        ("/livez", "get", "200"),
        ("/readyz", "get", "200 503"),
        ("/health", "get", "200 503"),
        ("/metrics", "get", "200"),
        ("/robots.txt", "get", "200"),
    ];
    for (path, method, list) in expected {
        assert_eq!(statuses(path, method).join(" "), list, "{method} {path}");
    }
    assert_eq!(document["paths"].as_object().unwrap().len(), 16);
    let parameters = document["paths"]["/api/v1/links/{code}"]["patch"]["parameters"].as_array().unwrap();
    assert!(parameters.iter().all(|parameter| parameter["schema"]["type"] == "string"), "{parameters:?}");
}

#[test]
fn every_reference_in_the_description_leads_somewhere() {
    let document = description(&Server::start());
    let mut references = Vec::new();
    collect(&document, &mut references);
    assert!(references.len() > 20);
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

fn collect(value: &Value, references: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            references.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
            members.values().for_each(|member| collect(member, references));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, references)),
        _ => {}
    }
}

#[test]
fn the_schemas_state_the_bounds_of_the_domain() {
    let document = description(&Server::start());
    let schema = |name: &str| document["components"]["schemas"][name].clone();
    for name in ["Create", "Edit"] {
        let schema = schema(name);
        assert_eq!(schema["additionalProperties"], false, "{name}");
        let fields = &schema["properties"];
        assert_eq!(fields["url"]["maxLength"], terse_core::TargetUrl::MAX_LEN);
        assert_eq!(fields["title"]["maxLength"], terse_core::Title::MAX_CHARS);
        assert_eq!(fields["tags"]["maxItems"], terse_core::Tags::MAX);
        assert_eq!(fields["expires_at"]["format"], "date-time");
    }
    assert_eq!(schema("Tag")["maxLength"], terse_core::Tags::MAX_CHARS);
    assert_eq!(schema("Create")["required"], json!(["url"]));
    assert_eq!(schema("Edit")["required"], Value::Null);
    assert_eq!(schema("Batch")["additionalProperties"], false);
    assert_eq!(schema("Batch")["properties"]["items"]["maxItems"], 1_000);
}

#[test]
fn a_link_as_it_is_sent_has_all_fields_of_its_schema() {
    let server = Server::start();
    let document = description(&server);
    let link = server.create(&json!({"url": "https://example.com/"}));
    let schema = &document["components"]["schemas"]["Link"];
    let known: Vec<_> = schema["properties"].as_object().unwrap().keys().collect();
    let sent: Vec<_> = link.as_object().unwrap().keys().collect();
    assert_eq!(known, sent);
    assert_eq!(schema["required"].as_array().unwrap().len(), known.len(), "{schema}");
}

#[test]
fn a_key_is_demanded_in_the_description_only_where_one_is_needed() {
    let security = |server: &Server, path: &str| description(server)["paths"][path]["get"]["security"].clone();
    assert_eq!(security(&Server::start(), "/api/v1/links"), Value::Null);
    let keys = std::sync::Arc::new(Keys::default());
    keys.issue("a", Role::Reader);
    let server = Server::with(Choices { keys: Some(keys), ..Choices::default() });
    assert_eq!(security(&server, "/api/v1/links"), json!([{"api_key": []}]));
    assert_eq!(security(&server, "/livez"), Value::Null);
    assert_eq!(security(&server, "/{code}"), Value::Null);
    assert_eq!(server.clock.monotonic_ms(), 0);
}
