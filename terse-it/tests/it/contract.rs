//! A tour of the HTTP contract: every route once, with its headers.

use serde_json::{Value, json};
use terse_it::{API_LINKS, Client, Request, Response, Setup, code_of, code_path, millis, now_ms, rfc3339};

const FIELDS: [&str; 11] = [
    "code",
    "created_at",
    "expires_at",
    "short_url",
    "state",
    "tags",
    "title",
    "updated_at",
    "url",
    "valid_from",
    "version",
];

fn assert_link_shape(link: &Value) {
    let mut names: Vec<&str> = link.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, FIELDS, "{link}");
}

/// Asserts that `answer` is the problem `code` with `status`, in the form of every error.
#[track_caller]
pub(crate) fn assert_problem(answer: &Response, status: u16, code: Option<&str>) -> Value {
    assert_eq!(answer.status, status, "{:?}\n{}", answer.headers, answer.text());
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{answer:?}");
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer:?}");
    let problem = answer.json();
    for field in ["type", "title", "detail", "code", "request_id"] {
        assert!(problem[field].as_str().is_some_and(|text| !text.is_empty()), "{field} in {problem}");
    }
    assert_eq!(problem["status"], status, "{problem}");
    assert_eq!(problem["request_id"].as_str(), answer.header("x-request-id"), "{answer:?}");
    if let Some(code) = code {
        assert_eq!(problem["code"], code, "{problem}");
    }
    problem
}

/// The path in the API that a `Location` header names, relative or absolute.
fn location_path(answer: &Response) -> String {
    let location = answer.header("location").unwrap_or_else(|| panic!("no location in {answer:?}"));
    location[location.find("/api/").unwrap_or_else(|| panic!("no path in {location}"))..].to_owned()
}

#[test]
fn a_create_answers_the_whole_link_with_location_and_etag() {
    let server = Setup::new().start();
    let client = server.client();
    let before = now_ms();
    let answer = client.post(API_LINKS, &json!({ "url": "https://example.com/a?b=%2f#c" })).expect(201);
    let link = answer.json();
    assert_link_shape(&link);
    let code = code_of(&link);
    assert!(code.len() == 7 && code.bytes().all(|b| b.is_ascii_alphanumeric()), "{code}");
    assert_eq!(link["short_url"], format!("http://localhost:8080/{code}"));
    assert_eq!(link["url"], "https://example.com/a?b=%2f#c");
    assert_eq!((&link["title"], &link["tags"], &link["state"]), (&Value::Null, &json!([]), &json!("active")));
    assert_eq!((&link["expires_at"], &link["valid_from"]), (&Value::Null, &Value::Null));
    assert_eq!(link["version"], 1);
    assert_eq!(link["created_at"], link["updated_at"]);
    let created = link["created_at"].as_str().unwrap();
    assert!(created.ends_with('Z') && (before..=now_ms()).contains(&millis(created)), "{created}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(location_path(&answer), code_path(&code));
    let read = client.get(&location_path(&answer)).expect(200);
    assert_eq!(read.json(), link);
    let etag = answer.header("etag").unwrap();
    assert!(etag.len() > 2 && etag.starts_with('"') && etag.ends_with('"'), "{etag}");
    assert_eq!(read.header("etag"), Some(etag));
}

#[test]
fn a_create_keeps_every_field_that_was_given() {
    let server = Setup::new().env("TERSE_PUBLIC_URL", "https://go.example.net/").start();
    let client = server.client();
    let body = json!({
        "url": "http://example.com", "alias": "Full-Link_1", "title": "Ein Título 标题", "tags": ["one", "two"],
        "expires_at": "2099-01-02T05:04:05+02:00", "valid_from": "2020-01-02T03:04:05.678Z",
    });
    let link = client.create(&body);
    assert_link_shape(&link);
    assert_eq!(link["code"], "Full-Link_1");
    assert_eq!(link["short_url"], "https://go.example.net/Full-Link_1");
    assert_eq!(link["title"], "Ein Título 标题");
    assert_eq!(link["tags"], json!(["one", "two"]));
    assert_eq!(link["expires_at"], "2099-01-02T03:04:05Z");
    assert_eq!(link["valid_from"], "2020-01-02T03:04:05.678Z");
    assert_eq!(client.target("Full-Link_1"), link["url"].as_str().unwrap());
}

#[test]
fn a_redirect_carries_the_target_byte_for_byte_and_is_never_cached() {
    let server = Setup::new().start();
    let client = server.client();
    let targets = [
        "https://example.com/?q=a%2Fb&c=%2f&empty=",
        "https://example.com/path?",
        "http://example.com:8081/a//b/../c;d=e",
        "https://example.com/#fragment?not=query",
        "https://example.com/aGVsbG8rLz0=+/==",
        "https://example.com/'()*!$&,;=:@~[]",
        "HTTPS://EXAMPLE.com/Case",
    ];
    for target in targets {
        let code = client.shorten(target);
        for answer in [client.visit(&code).expect(302), client.head(&format!("/{code}")).expect(302)] {
            let location = answer.header("location").unwrap();
            assert_eq!(location, target);
            assert_eq!(answer.header("cache-control"), Some("no-store"));
        }
        assert!(client.head(&format!("/{code}")).body.is_empty());
    }
    let wide = client.shorten("https://bücher.example/straße?ö=ü");
    assert_eq!(client.target(&wide), "https://xn--bcher-kva.example/stra%C3%9Fe?%C3%B6=%C3%BC");
}

#[test]
fn head_has_the_headers_of_get() {
    let server = Setup::new().start();
    let client = server.client();
    let code = client.shorten("https://example.com/");
    for path in [format!("/{code}"), "/unknown-code".to_owned()] {
        let names = |answer: &Response| {
            let varying = ["date", "connection"];
            let kept = answer.headers.iter().filter(|(n, _)| !varying.contains(&n.to_lowercase().as_str()));
            let mut kept: Vec<_> = kept.map(|(n, v)| (n.to_lowercase(), v.clone())).collect();
            kept.sort();
            kept
        };
        let (got, headed) = (client.get(&path), client.head(&path));
        assert_eq!(got.status, headed.status);
        let comparable =
            |all: Vec<(String, String)>| all.into_iter().filter(|(n, _)| n != "x-request-id").collect::<Vec<_>>();
        assert_eq!(comparable(names(&got)), comparable(names(&headed)), "{path}");
    }
}

#[test]
fn the_status_of_redirects_is_the_operators_choice() {
    for (status, cacheable) in [(301, true), (307, false), (308, true)] {
        let server = Setup::new().env("TERSE_REDIRECT_STATUS", &status.to_string()).start();
        let client = server.client();
        let code = client.shorten("https://example.com/");
        let answer = client.visit(&code).expect(status);
        assert_eq!(answer.header("location"), Some("https://example.com/"));
        let caching = answer.header("cache-control").unwrap();
        if cacheable {
            let age = caching.strip_prefix("private, max-age=").unwrap_or_else(|| panic!("{caching}"));
            assert!(age.parse::<u32>().unwrap() > 0);
        } else {
            assert_eq!(caching, "no-store");
        }
    }
}

#[test]
fn every_field_is_changed_by_patch_and_null_clears() {
    let server = Setup::new().start();
    let client = server.client();
    let later = rfc3339(now_ms() / 1_000 * 1_000 + 3_600_000);
    let code = client.shorten("https://example.com/old");
    let changes = [
        ("url", json!("https://example.org/new")),
        ("title", json!("a title")),
        ("tags", json!(["x", "y"])),
        ("expires_at", json!(later)),
        ("valid_from", json!("2020-01-01T00:00:00Z")),
        ("state", json!("disabled")),
        ("state", json!("active")),
    ];
    for (version, (field, value)) in (2..).zip(&changes) {
        let answer = client.patch(&code, &json!({ *field: value })).expect(200);
        let link = answer.json();
        assert_link_shape(&link);
        assert_eq!(&link[field], value);
        assert_eq!(link["version"], version);
        assert_eq!(client.link(&code), link, "what is kept is what was answered");
        assert_eq!(client.get(&code_path(&code)).header("etag"), answer.header("etag"));
    }
    let link = client.link(&code);
    assert_eq!((&link["title"], &link["url"]), (&json!("a title"), &json!("https://example.org/new")), "kept");
    assert_eq!(client.target(&code), "https://example.org/new");
    let cleared = client.patch(&code, &json!({ "title": null, "tags": null, "expires_at": null, "valid_from": null }));
    let cleared = cleared.expect(200).json();
    assert_eq!((&cleared["title"], &cleared["tags"]), (&Value::Null, &json!([])));
    assert_eq!((&cleared["expires_at"], &cleared["valid_from"]), (&Value::Null, &Value::Null));
    for field in ["url", "state"] {
        let answer = client.patch(&code, &json!({ field: null }));
        let problem = assert_problem(&answer, 422, None);
        assert_eq!(problem["errors"][0]["field"], field, "{problem}");
    }
    assert_eq!(client.link(&code), cleared, "a refused change changes nothing");
}

#[test]
fn an_edit_guarded_by_an_old_version_is_refused() {
    let server = Setup::new().start();
    let client = server.client();
    let created = client.post(API_LINKS, &json!({ "url": "https://example.com/1" })).expect(201);
    let code = code_of(&created.json());
    let first = created.header("etag").unwrap().to_owned();
    let guarded = |method: &str, etag: &str, change: &Value| {
        client.send(Request::new(method, &code_path(&code)).header("If-Match", etag).json(change))
    };
    let to = |n: u8| json!({ "url": format!("https://example.com/{n}") });
    let second = guarded("PATCH", &first, &to(2)).expect(200).header("etag").unwrap().to_owned();
    assert_ne!(first, second);
    assert_problem(&guarded("PATCH", &first, &to(3)), 412, Some("version_conflict"));
    assert_problem(&guarded("DELETE", &first, &json!({})), 412, Some("version_conflict"));
    assert_eq!(client.target(&code), "https://example.com/2");
    guarded("PATCH", &format!("{first}, {second}"), &to(4)).expect(200).header("etag").unwrap();
    guarded("PATCH", "*", &to(5)).expect(200).header("etag").unwrap();
    assert_eq!(client.target(&code), "https://example.com/5");
    let last = client.get(&code_path(&code)).header("etag").unwrap().to_owned();
    let weak = guarded("PATCH", &format!("W/{last}"), &to(6));
    assert_problem(&weak, 412, Some("version_conflict"));
    let gone = client.send(Request::new("DELETE", &code_path(&code)).header("If-Match", &last)).expect(204);
    assert!(gone.body.is_empty());
}

#[test]
fn a_deleted_link_is_gone_for_visitors_and_unknown_to_the_api() {
    let server = Setup::new().start();
    let client = server.client();
    client.create(&json!({ "url": "https://example.com/", "alias": "going" }));
    assert_eq!(client.target("going"), "https://example.com/");
    assert!(client.delete("going").expect(204).body.is_empty());
    let gone = client.visit("going").expect(410);
    assert_eq!(gone.header("cache-control"), Some("no-store"));
    assert_eq!(gone.header("location"), None);
    assert_eq!(client.head("/going").status, 410);
    assert_problem(&client.get(&code_path("going")), 404, None);
    assert_problem(&client.patch("going", &json!({ "title": "x" })), 404, None);
    assert_problem(&client.delete("going"), 404, None);
    assert!(client.all_links(50).is_empty());
    let again = client.post(API_LINKS, &json!({ "url": "https://example.org/", "alias": "going" }));
    assert_problem(&again, 409, Some("alias_taken"));
    assert_eq!(client.visit("going").status, 410, "a deleted alias is never reused");
}

#[test]
fn aliases_are_case_sensitive_and_reserved_words_are_not_in_any_case() {
    let server = Setup::new().start();
    let client = server.client();
    for (alias, n) in [("Mixed", 1), ("mixed", 2), ("MIXED", 3), ("_", 4), ("-", 5), ("a", 6)] {
        client.create(&json!({ "url": format!("https://example.com/{n}"), "alias": alias }));
    }
    assert_eq!(client.target("Mixed"), "https://example.com/1");
    assert_eq!(client.target("mixed"), "https://example.com/2");
    assert_eq!(client.target("MIXED"), "https://example.com/3");
    assert_eq!(client.visit("mIXED").status, 404);
    let longest = "L".repeat(64);
    client.create(&json!({ "url": "https://example.com/", "alias": longest }));
    assert_eq!(client.target(&longest), "https://example.com/");
    for word in [
        "api",
        "docs",
        "admin",
        "app",
        "assets",
        "static",
        "health",
        "livez",
        "readyz",
        "metrics",
        "login",
        "robots.txt",
        "favicon.ico",
    ] {
        let mut title = word.to_owned();
        title[..1].make_ascii_uppercase();
        for alias in [word.to_owned(), word.to_uppercase(), title] {
            let answer = client.post(API_LINKS, &json!({ "url": "https://example.com/", "alias": alias }));
            let problem = assert_problem(&answer, 422, None);
            assert_eq!(problem["errors"][0]["field"], "alias", "{problem}");
        }
    }
}

#[test]
fn a_batch_answers_each_item_in_its_place() {
    let server = Setup::new().start();
    let client = server.client();
    client.create(&json!({ "url": "https://example.com/", "alias": "taken" }));
    let items = json!({ "items": [
        { "url": "https://example.com/0" },
        { "url": "ftp://example.com/1" },
        { "url": "https://example.com/2", "alias": "taken" },
        { "url": "https://example.com/3", "alias": "twice" },
        { "url": "https://example.com/4", "alias": "twice" },
        { "url": "https://example.com/5", "alias": "not an alias" },
        { "url": "https://example.com/6", "title": "last", "tags": ["t"] },
    ]});
    let answer = client.post(&format!("{API_LINKS}/batch"), &items).expect(200).json();
    let items = answer["items"].as_array().unwrap();
    let statuses: Vec<u64> = items.iter().map(|item| item["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [201, 422, 409, 201, 409, 422, 201]);
    for (n, item) in items.iter().enumerate() {
        if item["status"] == 201 {
            assert_link_shape(&item["link"]);
            assert_eq!(item["link"]["url"], format!("https://example.com/{n}"));
            assert_eq!(client.target(&code_of(&item["link"])), format!("https://example.com/{n}"));
            assert!(item.get("error").is_none(), "{item}");
        } else {
            assert_eq!(item["error"]["status"], item["status"]);
            assert!(item.get("link").is_none(), "{item}");
        }
    }
    assert_eq!(items[1]["error"]["errors"][0]["field"], "url");
    assert_eq!(items[2]["error"]["code"], "alias_taken");
    assert_eq!(items[5]["error"]["errors"][0]["field"], "alias");
    assert_eq!(items[6]["link"]["title"], "last");
}

#[test]
fn a_batch_holds_one_to_a_thousand_items() {
    let server = Setup::new().start();
    let client = server.client();
    let batch = |count: usize| {
        let items: Vec<Value> = (0..count).map(|n| json!({ "url": format!("https://example.com/{n}") })).collect();
        client.post(&format!("{API_LINKS}/batch"), &json!({ "items": items }))
    };
    for count in [0, 1_001] {
        let problem = assert_problem(&batch(count), 422, None);
        assert_eq!(problem["errors"][0]["field"], "items", "{problem}");
    }
    assert!(client.all_links(200).is_empty());
    let answer = batch(1_000).expect(200).json();
    let codes: std::collections::HashSet<String> =
        answer["items"].as_array().unwrap().iter().map(|item| code_of(&item["link"])).collect();
    assert_eq!(codes.len(), 1_000);
    assert_eq!(client.all_links(200).len(), 1_000);
}

#[test]
fn request_ids_are_made_or_echoed_and_bounded() {
    let server = Setup::new().start();
    let client = server.client();
    let with_id = |path: &str, id: &str| client.send(Request::new("GET", path).header("X-Request-Id", id));
    let api = format!("{API_LINKS}?limit=1");
    assert_eq!(with_id(&api, "my-id.1").header("x-request-id"), Some("my-id.1"));
    let made = client.get(&api).header("x-request-id").unwrap().to_owned();
    assert!(!made.is_empty() && made.is_ascii());
    assert_ne!(client.get(&api).header("x-request-id"), Some(made.as_str()));
    for bad in ["x".repeat(10_000), "with\ttab".to_owned(), "caf\u{e9}".to_owned()] {
        let answer = with_id(&api, &bad);
        let echoed = answer.header("x-request-id").unwrap_or_default();
        assert!(echoed.len() <= 256 && echoed.bytes().all(|b| (0x20..0x7f).contains(&b)), "{echoed}");
        assert_ne!(echoed, bad);
    }
    let code = client.shorten("https://example.com/");
    assert_eq!(with_id(&format!("/{code}"), "my-id.2").header("x-request-id"), Some("my-id.2"));
    assert_eq!(client.visit(&code).header("x-request-id"), None, "a redirect makes none");
}

#[test]
fn wrong_methods_are_answered_with_those_allowed() {
    let server = Setup::new().start();
    let client = server.client();
    let code = client.shorten("https://example.com/");
    let table = [
        ("PUT", API_LINKS.to_owned(), vec!["GET", "POST"]),
        ("DELETE", API_LINKS.to_owned(), vec!["GET", "POST"]),
        ("GET", format!("{API_LINKS}/batch/"), vec![]),
        ("PUT", code_path(&code), vec!["GET", "PATCH", "DELETE"]),
        ("POST", code_path(&code), vec!["GET", "PATCH", "DELETE"]),
        ("POST", format!("/{code}"), vec!["GET", "HEAD"]),
        ("DELETE", format!("/{code}"), vec!["GET", "HEAD"]),
        ("POST", "/livez".to_owned(), vec!["GET"]),
        ("DELETE", "/metrics".to_owned(), vec!["GET"]),
        ("POST", "/api/openapi.json".to_owned(), vec!["GET"]),
        ("DELETE", "/".to_owned(), vec!["GET", "POST"]),
    ];
    for (method, path, allowed) in table {
        let answer = client.send(Request::new(method, &path));
        if allowed.is_empty() {
            assert_eq!(answer.status, 404, "{method} {path}");
            continue;
        }
        assert_eq!(answer.status, 405, "{method} {path}: {answer:?}");
        let told: Vec<&str> = answer.header("allow").unwrap_or_default().split(',').map(str::trim).collect();
        for method in allowed {
            assert!(told.contains(&method), "{path} allows {method}, told {told:?}");
        }
    }
    assert_eq!(client.target(&code), "https://example.com/");
}

#[test]
fn unknown_api_paths_are_problems_and_unknown_codes_are_404() {
    let server = Setup::new().start();
    let client = server.client();
    for path in ["/api/v1/nothing", "/api/v2/links", "/api/v1/links/a/b"] {
        assert_problem(&client.get(path), 404, None);
    }
    assert_problem(&client.get(&code_path("missing")), 404, None);
    assert_problem(&client.get(&code_path("not.a.code")), 404, None);
    for path in ["/missing", "/not.a.code", "/missing/", "/admin", "/ApI"] {
        let answer = client.get(path);
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
    }
}

#[test]
fn the_health_family_answers_without_ado() {
    let server = Setup::new().start();
    let client = server.client();
    for path in ["/livez", "/readyz"] {
        let answer = client.get(path).expect(200);
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
        assert_eq!(client.head(path).status, 200, "{path}");
    }
    let health = client.get("/health").expect(200);
    assert_eq!(health.header("content-type"), Some("application/health+json"));
    let status = health.json()["status"].as_str().unwrap().to_owned();
    assert!(matches!(status.as_str(), "pass" | "ok" | "up"), "{status}");
}

/// The sum of all samples of a metric whose line holds `part`.
fn metric(client: &Client, name: &str, part: &str) -> f64 {
    let text = client.get("/metrics").expect(200).text();
    let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(part));
    lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

#[test]
fn metrics_have_their_names_and_move() {
    let server = Setup::new().start();
    let client = server.client();
    let answer = client.get("/metrics").expect(200);
    assert!(answer.header("content-type").unwrap().starts_with("text/plain"), "{answer:?}");
    let code = client.shorten("https://example.com/");
    let gone = client.shorten("https://example.com/");
    client.delete(&gone);
    for _ in 0..3 {
        assert_eq!(client.visit(&code).status, 302);
    }
    assert_eq!(client.visit("missing").status, 404);
    assert_eq!(client.visit(&gone).status, 410);
    assert_eq!(metric(&client, "terse_links_created_total", ""), 2.0);
    assert_eq!(metric(&client, "terse_redirects_total{", "outcome=\"found\""), 3.0);
    assert_eq!(metric(&client, "terse_redirects_total{", "outcome=\"missing\""), 1.0);
    assert_eq!(metric(&client, "terse_redirects_total{", "outcome=\"gone\""), 1.0);
    assert!(metric(&client, "terse_redirects_total{", "tier=\"l1\"") >= 2.0);
    assert_eq!(metric(&client, "terse_redirect_seconds_count", ""), 5.0);
    assert!(metric(&client, "terse_store_request_seconds_count", "operation=") > 0.0);
    assert!(metric(&client, "terse_store_request_seconds_count", "shard=") > 0.0);
}

#[test]
fn robots_are_told_where_not_to_go() {
    let server = Setup::new().start();
    let answer = server.client().get("/robots.txt").expect(200);
    assert!(answer.header("content-type").unwrap().starts_with("text/plain"), "{answer:?}");
    assert!(answer.text().to_lowercase().contains("user-agent:"), "{}", answer.text());
}

#[test]
fn the_openapi_document_describes_every_route() {
    let server = Setup::new().start();
    let answer = server.client().get("/api/openapi.json").expect(200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let document = answer.json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3."), "{}", document["openapi"]);
    let routes = [
        ("/api/v1/links", vec!["get", "post"]),
        ("/api/v1/links/batch", vec!["post"]),
        ("/api/v1/links/{code}", vec!["get", "patch", "delete"]),
        ("/api/v1/links/{code}/stats", vec!["get"]),
        ("/api/v1/links/{code}/clicks", vec!["get"]),
        ("/{code}", vec!["get", "head"]),
        ("/livez", vec!["get"]),
        ("/readyz", vec!["get"]),
        ("/health", vec!["get"]),
        ("/metrics", vec!["get"]),
        ("/robots.txt", vec!["get"]),
    ];
    for (path, methods) in routes {
        for method in methods {
            assert!(document["paths"][path][method].is_object(), "{method} {path} is not described");
        }
    }
}

/// The values of `src` and `href` in a page.
fn references(html: &str) -> Vec<String> {
    ["src=\"", "href=\"", "src='", "href='", "action=\""]
        .iter()
        .flat_map(|start| html.split(start).skip(1))
        .filter_map(|rest| rest.split(['"', '\'']).next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_api_documentation_loads_nothing_from_elsewhere() {
    let server = Setup::new().start();
    let client = server.client();
    let mut base = "/api/docs".to_owned();
    let mut page = client.get(&base);
    for _ in 0..3 {
        if !(300..400).contains(&page.status) {
            break;
        }
        base = page.header("location").unwrap().to_owned();
        page = client.get(&base);
    }
    let page = page.expect(200);
    assert!(page.header("content-type").unwrap().starts_with("text/html"));
    let folder = &base[..=base.rfind('/').unwrap()];
    let mut scripts = 0;
    for reference in references(&page.text()).iter().filter(|r| !r.starts_with(['#']) && !r.starts_with("data:")) {
        assert!(!reference.contains("//"), "{reference} is loaded from elsewhere");
        let relative = reference.trim_start_matches("./");
        let path = if relative.starts_with('/') { relative.to_owned() } else { format!("{folder}{relative}") };
        let part = client.get(&path).expect(200);
        if path.ends_with(".js") {
            scripts += 1;
            let text = part.text();
            assert!(!text.contains("petstore.swagger.io/v2/swagger.json"), "{path} is not set up");
        }
    }
    assert!(scripts > 0, "the page has no scripts: {}", page.text());
}
