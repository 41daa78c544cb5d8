//! What is told of a link's clicks in total and over time.

use std::sync::Arc;

use serde_json::{Value, json};
use terse_core::ports::StoreErrorKind;
use terse_core::{Link, LinkState, Role};
use terse_http::Surfaces;
use terse_testkit::links::link;
use terse_testkit::{Fault, Operation, When};

use crate::server::counts::Seen;
use crate::server::{Answer, Choices, Keys, Server};

const STATS: &str = "/api/v1/links/abc/stats";

/// A click that nothing is known of but its time and who made it.
fn seen(at: &str, visitor: u64) -> Seen<'_> {
    Seen { at, visitor, bot: false, values: [""; 6] }
}

/// A server with the link `abc`, made 2026-01-01T12:00:00Z, and some clicks; it is 2026-01-02T03:04:05Z.
fn server() -> Server {
    let server = Server::start();
    let created_at = terse_core::Timestamp::parse("2026-01-01T12:00:00Z").unwrap();
    server.put(&Link { created_at, ..link("abc") });
    let values = ["news.example", "DE", "Firefox", "Linux", "desktop", "de"];
    server.counted.count("abc", Seen { values, ..seen("2026-01-01T12:30:00Z", 1) });
    server.counted.count("abc", Seen { values, ..seen("2026-01-01T23:59:59.999Z", 1) });
    let values = ["", "FR", "Firefox", "Windows", "mobile", ""];
    server.counted.count("abc", Seen { values, ..seen("2026-01-02T01:00:00Z", 2) });
    server.counted.count("abc", Seen { bot: true, ..seen("2026-01-02T01:30:00Z", 3) });
    server.counted.count("other", seen("2026-01-02T02:00:00Z", 4));
    server
}

fn csv(server: &Server, path: &str) -> Answer {
    server.ask("GET", path).header("Accept", "text/csv").send()
}

#[test]
fn all_time_is_told_whole() {
    let answer = server().get(STATS);
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("vary"), Some("Accept"));
    let expected = json!({"code": "abc", "total": 4, "clicks": 3, "bots": 1, "visitors": 2,
        "series": [{"at": "2026-01-01T00:00:00Z", "clicks": 2, "bots": 0, "visitors": 1},
            {"at": "2026-01-02T00:00:00Z", "clicks": 1, "bots": 1, "visitors": 1}],
        "referrers": [{"value": "news.example", "clicks": 2}, {"value": null, "clicks": 1}],
        "countries": [{"value": "DE", "clicks": 2}, {"value": "FR", "clicks": 1}],
        "browsers": [{"value": "Firefox", "clicks": 3}],
        "systems": [{"value": "Linux", "clicks": 2}, {"value": "Windows", "clicks": 1}],
        "devices": [{"value": "desktop", "clicks": 2}, {"value": "mobile", "clicks": 1}],
        "languages": [{"value": "de", "clicks": 2}, {"value": null, "clicks": 1}],
        "as_of": "2026-01-02T02:00:00Z"});
    assert_eq!(answer.value(), expected);
}

#[test]
fn a_range_is_rounded_to_the_interval() {
    let server = server();
    let day = server.get(&format!("{STATS}?from=2026-01-02T01:30:00Z&to=2026-01-02T01:31:00Z")).value();
    assert_eq!(
        (&day["total"], &day["clicks"], &day["bots"], &day["visitors"]),
        (&json!(2), &json!(1), &json!(1), &json!(1))
    );
    assert_eq!(day["countries"], json!([{"value": "FR", "clicks": 1}]));
    let from = "2026-01-02T02:30:00%2B01:00";
    let hour = server.get(&format!("{STATS}?from={from}&to=2026-01-02T03:00:00Z&interval=hour")).value();
    let expected = json!([{"at": "2026-01-02T01:00:00Z", "clicks": 1, "bots": 1, "visitors": null},
        {"at": "2026-01-02T02:00:00Z", "clicks": 0, "bots": 0, "visitors": null}]);
    assert_eq!((&hour["series"], &hour["visitors"], &hour["total"]), (&expected, &Value::Null, &json!(2)));
    let whole = "from=2026-01-01T00:00:00Z&to=2026-01-03T00:00:00Z&interval=hour";
    assert_eq!(server.get(&format!("{STATS}?{whole}")).value()["visitors"], 2, "whole days have visitors");
}

#[test]
fn a_link_without_clicks_has_zeros() {
    let server = Server::start();
    server.put(&link("abc"));
    let stats = server.get(STATS).value();
    assert_eq!(stats["series"], json!([{"at": "2026-01-02T00:00:00Z", "clicks": 0, "bots": 0, "visitors": 0}]));
    assert_eq!((&stats["total"], &stats["referrers"], &stats["as_of"]), (&json!(0), &json!([]), &Value::Null));
}

#[test]
fn every_fault_of_the_query_is_told_at_once() {
    let server = server();
    let asked = |query: &str| server.get(&format!("{STATS}?{query}"));
    asked("from=x&to=y&interval=week&page=2").assert_faults(&[
        "page: unknown_field",
        "from: bad_time",
        "to: bad_time",
        "interval: bad_value",
    ]);
    asked("interval=day&interval=day").assert_faults(&["interval: duplicate_field"]);
    asked("from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z").assert_faults(&["from: out_of_order"]);
    asked("from=2026-01-01T00:00:00Z&to=2026-03-01T00:00:00Z&interval=hour").assert_faults(&["from: out_of_bounds"]);
    asked("to=2026-03-01T00:00:00Z&interval=hour").assert_faults(&["from: out_of_bounds"]);
    asked("from=2000-01-01T00:00:00Z").assert_faults(&["from: out_of_bounds"]);
    asked("from=2026-01-01").assert_faults(&["from: bad_time"]);
    asked("%ff").assert_faults(&["query: malformed"]);
    assert_eq!(server.counted.asked(), 0, "nothing is read for a question that can't be answered");
    assert_eq!(asked("from=2016-01-01T00:00:00Z").status, 200);
    assert_eq!(asked("from=2025-12-02T04:00:00Z&interval=hour").status, 200, "31 days and the hour that has begun");
}

#[test]
fn clicks_are_told_to_those_who_may_see_the_link() {
    let keys = Arc::new(Keys::default());
    let server = Server::with(Choices { keys: Some(keys.clone()), ..Choices::default() });
    let [mine, other, admin] =
        [Role::Writer, Role::Writer, Role::Admin].map(|role| keys.issue("k", role).reveal().to_owned());
    let asked = |method: &str, path: &str, key: &str| {
        server
            .ask(method, path)
            .header("Authorization", &format!("Bearer {key}"))
            .json("{\"url\":\"https://example.com/\"}")
            .send()
    };
    assert_eq!(asked("POST", "/api/v1/links", &mine).status, 201);
    for what in ["stats", "clicks"] {
        let path = format!("/api/v1/links/c1/{what}");
        assert_eq!((asked("GET", &path, &mine).status, asked("GET", &path, &admin).status), (200, 200));
        let before = server.counted.asked();
        let foreign = asked("GET", &path, &other).assert_problem(404, "not_found");
        let missing = asked("GET", &format!("/api/v1/links/none/{what}"), &other).assert_problem(404, "not_found");
        assert_eq!(foreign["detail"], missing["detail"]);
        assert_eq!(server.counted.asked(), before);
        asked("GET", &path, "trs_none").assert_problem(401, "unauthorized");
    }
    assert_eq!(asked("DELETE", "/api/v1/links/c1", &mine).status, 204);
    for what in ["stats", "clicks"] {
        asked("GET", &format!("/api/v1/links/c1/{what}"), &mine).assert_problem(404, "not_found");
    }
}

#[test]
fn a_link_that_does_not_redirect_still_has_its_clicks() {
    let server = server();
    for (code, state) in [("off", LinkState::Disabled), ("bad", LinkState::Blocked)] {
        server.put(&Link { state, ..link(code) });
        assert_eq!(server.get(&format!("/api/v1/links/{code}/stats")).status, 200, "{code}");
        assert_eq!(server.get(&format!("/api/v1/links/{code}/clicks")).status, 200, "{code}");
    }
    for path in ["/api/v1/links/none/stats", "/api/v1/links/no%20code/stats", "/api/v1/links/a.b/clicks"] {
        server.get(path).assert_problem(404, "not_found");
    }
    server.put(&link("batch"));
    assert_eq!(server.get("/api/v1/links/batch/stats").value()["code"], "batch");
}

#[test]
fn a_store_that_is_away_is_503_and_never_zero() {
    for kind in [StoreErrorKind::Unavailable, StoreErrorKind::Overloaded, StoreErrorKind::Corrupt] {
        let server = server();
        server.counted.fail(kind);
        for path in [STATS, "/api/v1/links/abc/clicks"] {
            for answer in [server.get(path), csv(&server, path)] {
                let overloaded = kind == StoreErrorKind::Overloaded;
                answer.assert_problem(503, if overloaded { "overloaded" } else { "store_unavailable" });
                assert_eq!(answer.header("retry-after"), Some("1"));
            }
        }
    }
    let server = server();
    server.store.faults.add(Operation::Get, When::Every, Fault::Fail(StoreErrorKind::Unavailable));
    server.get(STATS).assert_problem(503, "store_unavailable");
    assert_eq!(server.counted.asked(), 0);
}

#[test]
fn a_series_comes_as_a_table_to_who_asks_for_one() {
    let server = server();
    let answer = csv(&server, STATS);
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/csv; charset=utf-8")));
    assert_eq!(answer.header("content-disposition"), Some("attachment; filename=\"abc-stats.csv\""));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert_eq!((answer.header("cache-control"), answer.header("vary")), (Some("no-store"), Some("Accept")));
    let expected = "at,clicks,bots,visitors\r\n2026-01-01T00:00:00Z,2,0,1\r\n2026-01-02T00:00:00Z,1,1,1\r\n";
    assert_eq!(answer.body, expected);
    let hours = csv(&server, &format!("{STATS}?from=2026-01-02T01:00:00Z&to=2026-01-02T02:00:00Z&interval=hour"));
    assert_eq!(hours.body, "at,clicks,bots,visitors\r\n2026-01-02T01:00:00Z,1,1,\r\n");
    for accept in ["*/*", "application/json, text/csv;q=0.5", "text/html", "text/csv;q=0"] {
        let answer = server.ask("GET", STATS).header("Accept", accept).send();
        assert_eq!(answer.header("content-type"), Some("application/json"), "{accept}");
    }
    csv(&server, &format!("{STATS}?interval=week")).assert_faults(&["interval: bad_value"]);
}

#[test]
fn head_tells_what_get_would() {
    let server = server();
    for (path, accept) in [(STATS, "*/*"), (STATS, "text/csv"), ("/api/v1/links/abc/clicks", "text/csv")] {
        let ask = |method| server.ask(method, path).header("Accept", accept).send();
        let (head, get) = (ask("HEAD"), ask("GET"));
        assert_eq!((head.status, head.body.as_str()), (200, ""));
        for name in ["content-type", "content-length", "content-disposition"] {
            assert_eq!(head.header(name), get.header(name), "{name}");
        }
    }
    for path in [STATS, "/api/v1/links/abc/clicks"] {
        let refused = server.ask("DELETE", path).send();
        refused.assert_problem(405, "method_not_allowed");
        assert_eq!(refused.header("allow"), Some("GET, HEAD"));
        server.ask("GET", path).header("Host", "evil.example").send().assert_problem(421, "misdirected_request");
    }
}

#[test]
fn clicks_are_told_by_the_role_api_alone() {
    let surfaces = Surfaces { redirect: true, api: false };
    let server = Server::with(Choices { surfaces, ..Choices::default() });
    server.put(&link("abc"));
    server.get(STATS).assert_problem(404, "not_found");
    server.get("/api/v1/links/abc/clicks").assert_problem(404, "not_found");
}

#[test]
fn statistics_as_they_are_sent_have_all_fields_of_their_schema() {
    let server = server();
    let schemas = server.get("/api/openapi.json").value()["components"]["schemas"].clone();
    let (stats, clicks) = (server.get(STATS).value(), server.get("/api/v1/links/abc/clicks").value());
    for (schema, sent) in [
        ("Stats", &stats),
        ("StatsPoint", &stats["series"][0]),
        ("StatsShare", &stats["referrers"][0]),
        ("Clicks", &clicks),
        ("Click", &clicks["items"][0]),
    ] {
        let known: Vec<_> = schemas[schema]["properties"].as_object().unwrap().keys().collect();
        assert_eq!(known, sent.as_object().unwrap().keys().collect::<Vec<_>>(), "{schema}");
        assert_eq!(schemas[schema]["required"].as_array().unwrap().len(), known.len(), "{schema}");
    }
    assert_eq!(schemas["Interval"]["enum"], json!(["hour", "day"]));
    assert_eq!(schemas["Stats"]["properties"]["series"]["maxItems"], terse_core::report::MAX_DAYS);
}

#[test]
fn the_description_tells_parameters_and_both_forms() {
    let paths = Server::start().get("/api/openapi.json").value()["paths"].clone();
    let parameter = |path: &str, name: &str| {
        let parameters = paths[path]["get"]["parameters"].as_array().unwrap();
        parameters.iter().find(|parameter| parameter["name"] == name).unwrap()["schema"].clone()
    };
    let (stats, clicks) = ("/api/v1/links/{code}/stats", "/api/v1/links/{code}/clicks");
    for name in ["from", "to"] {
        assert_eq!(parameter(stats, name), json!({"type": "string", "format": "date-time"}));
    }
    assert_eq!(parameter(stats, "interval")["$ref"], "#/components/schemas/Interval");
    let limit = parameter(clicks, "limit");
    assert_eq!((&limit["minimum"], &limit["maximum"]), (&json!(1), &json!(100)));
    for (path, schema) in [(stats, "Stats"), (clicks, "Clicks")] {
        let content = &paths[path]["get"]["responses"]["200"]["content"];
        let reference = format!("#/components/schemas/{schema}");
        assert_eq!(content["application/json"]["schema"]["$ref"], reference, "{content}");
        assert_eq!(content["text/csv"]["schema"]["type"], "string");
    }
}
