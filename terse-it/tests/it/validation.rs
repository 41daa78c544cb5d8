//! Bodies that are wrong in every way: each gets its documented status and
//! names the field that is at fault.

use serde_json::{Value, json};
use terse_it::{API_LINKS, Client, Request, Response, Setup, code_path, now_ms, rfc3339};

use crate::contract::assert_problem;

fn post_raw(client: &Client, body: &[u8]) -> Response {
    client.send(Request::new("POST", API_LINKS).body("application/json", body))
}

/// Asserts a 422 whose errors name all of `fields` and nothing else.
#[track_caller]
fn assert_names(answer: &Response, fields: &[&str]) {
    let problem = assert_problem(answer, 422, None);
    let errors = problem["errors"].as_array().unwrap_or_else(|| panic!("no errors in {problem}"));
    for error in errors {
        for part in ["field", "code", "detail"] {
            assert!(error[part].as_str().is_some_and(|text| !text.is_empty()), "{part} in {error}");
        }
    }
    let mut named: Vec<&str> = errors.iter().filter_map(|error| error["field"].as_str()).collect();
    named.sort_unstable();
    named.dedup();
    let mut expected = fields.to_vec();
    expected.sort_unstable();
    assert_eq!(named, expected, "{problem}");
}

#[test]
fn what_is_no_json_is_400() {
    let server = Setup::new().start();
    let client = server.client();
    let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    let bodies: [&[u8]; 17] = [
        b"",
        b" ",
        b"{",
        b"{\"url\":",
        b"{\"url\":\"https://example.com/\"",
        b"{\"url\":\"https://example.com/\"}}",
        b"{\"url\":\"https://example.com/\"} {}",
        b"{'url':'https://example.com/'}",
        b"{\"url\":\"https://example.com/\",}",
        b"{\"url\":\"https://example.com/\"}\0",
        b"{\"url\":\"https://\0example.com/\"}",
        b"{\"url\":\"\xff\xfe\"}",
        b"{\"url\":\"\\ud800\"}",
        b"{\"url\":\"https://example.com/\",\"title\":\"\\udc00\\ud800\"}",
        b"{\"url\":NaN}",
        b"\xef\xbb\xbf{\"url\":\"https://example.com/\"}",
        b"url=https://example.com/",
    ];
    for body in bodies {
        let answer = post_raw(&client, body);
        assert_problem(&answer, 400, None);
    }
    let answer = post_raw(&client, deep.as_bytes());
    assert!(matches!(answer.status, 400 | 422), "{}", answer.status);
    assert!(client.all_links(50).is_empty());
}

#[test]
fn wrong_types_are_422_and_name_the_field() {
    let server = Setup::new().start();
    let client = server.client();
    let url = "https://example.com/";
    let table = [
        (json!({ "url": 5 }), "url"),
        (json!({ "url": null }), "url"),
        (json!({ "url": ["https://example.com/"] }), "url"),
        (json!({}), "url"),
        (json!({ "url": url, "alias": 7 }), "alias"),
        (json!({ "url": url, "title": {} }), "title"),
        (json!({ "url": url, "tags": "one" }), "tags"),
        (json!({ "url": url, "tags": [1, 2] }), "tags"),
        (json!({ "url": url, "tags": [null] }), "tags"),
        (json!({ "url": url, "expires_at": 1_900_000_000 }), "expires_at"),
        (json!({ "url": url, "expires_at": true }), "expires_at"),
        (json!({ "url": url, "valid_from": [] }), "valid_from"),
    ];
    for (body, field) in table {
        assert_names(&client.post(API_LINKS, &body), &[field]);
    }
    for body in [json!([]), json!("text"), json!(5), json!(null), json!([{ "url": url }])] {
        let answer = client.post(API_LINKS, &body);
        assert!(matches!(answer.status, 400 | 422), "{body}: {answer:?}");
    }
    assert!(client.all_links(50).is_empty());
}

#[test]
fn unknown_fields_are_refused_by_name() {
    let server = Setup::new().start();
    let client = server.client();
    let url = "https://example.com/";
    assert_names(&client.post(API_LINKS, &json!({ "url": url, "colour": "red" })), &["colour"]);
    assert_names(&client.post(API_LINKS, &json!({ "url": url, "state": "disabled" })), &["state"]);
    assert_names(&client.post(API_LINKS, &json!({ "url": url, "URL": url })), &["URL"]);
    assert_names(&client.post(API_LINKS, &json!({ "url": url, "code": "mine" })), &["code"]);
    let code = client.shorten(url);
    for field in ["code", "alias", "version", "created_at", "short_url", "owner"] {
        assert_names(&client.patch(&code, &json!({ field: "x" })), &[field]);
    }
    let batch = client.post(&format!("{API_LINKS}/batch"), &json!({ "items": [{ "url": url }], "more": 1 }));
    assert_names(&batch, &["more"]);
    assert_eq!(client.all_links(50).len(), 1);
}

#[test]
fn a_key_given_twice_is_refused_by_name() {
    let server = Setup::new().start();
    let client = server.client();
    let answer = post_raw(&client, br#"{"url":"https://example.com/1","url":"https://example.com/2"}"#);
    assert!(matches!(answer.status, 400 | 422), "{answer:?}");
    assert!(answer.text().contains("url"), "{}", answer.text());
    let answer = post_raw(&client, br#"{"url":"https://example.com/1","title":"a","title":"a"}"#);
    assert!(matches!(answer.status, 400 | 422), "{answer:?}");
    assert!(answer.text().contains("title"), "{}", answer.text());
    assert!(client.all_links(50).is_empty());
}

#[test]
fn faulty_values_are_422_and_all_are_named_at_once() {
    let server = Setup::new().start();
    let client = server.client();
    let url = "https://example.com/";
    let table = [
        (json!({ "url": url, "alias": "" }), "alias"),
        (json!({ "url": url, "alias": "a".repeat(65) }), "alias"),
        (json!({ "url": url, "alias": "a b" }), "alias"),
        (json!({ "url": url, "alias": "a/b" }), "alias"),
        (json!({ "url": url, "alias": "a.b" }), "alias"),
        (json!({ "url": url, "alias": "é" }), "alias"),
        (json!({ "url": url, "alias": "a\u{0}" }), "alias"),
        (json!({ "url": url, "title": "" }), "title"),
        (json!({ "url": url, "title": "t".repeat(201) }), "title"),
        (json!({ "url": url, "title": "a\nb" }), "title"),
        (json!({ "url": url, "title": "a\u{0}b" }), "title"),
        (json!({ "url": url, "tags": [""] }), "tags"),
        (json!({ "url": url, "tags": ["t".repeat(51)] }), "tags"),
        (json!({ "url": url, "tags": (0..21).map(|n| n.to_string()).collect::<Vec<_>>() }), "tags"),
        (json!({ "url": url, "tags": ["a\u{7}"] }), "tags"),
    ];
    for (body, field) in table {
        assert_names(&client.post(API_LINKS, &body), &[field]);
    }
    let many = json!({ "url": "ftp://x", "alias": "a b", "title": "", "tags": [""], "expires_at": "soon" });
    assert_names(&client.post(API_LINKS, &many), &["url", "alias", "title", "tags", "expires_at"]);
    client.create(&json!({ "url": url, "title": "é".repeat(200), "tags": vec!["t".repeat(50)] }));
    assert_eq!(client.all_links(50).len(), 1);
}

#[test]
fn dates_in_the_past_or_absurd_are_422() {
    let server = Setup::new().start();
    let client = server.client();
    let create =
        |field: &str, value: &str| client.post(API_LINKS, &json!({ "url": "https://example.com/", field: value }));
    for value in [
        "",
        "soon",
        "2020-01-01",
        "2099-01-01T00:00:00",
        "2099-13-01T00:00:00Z",
        "2099-02-30T00:00:00Z",
        "2099-01-01T25:00:00Z",
        "99999-01-01T00:00:00Z",
        "-2099-01-01T00:00:00Z",
        "0000-00-00T00:00:00Z",
        "2099-01-01T00:00:00Z[UTC]",
        "2099-01-01T00:00:00+99:00",
        "２０９９-01-01T00:00:00Z",
        "9999999999999999999",
        "2099-01-01T00:00:00Z\u{0}",
    ] {
        assert_names(&create("expires_at", value), &["expires_at"]);
        assert_names(&create("valid_from", value), &["valid_from"]);
    }
    for past in [0, now_ms() - 1_000, now_ms() - 86_400_000] {
        assert_names(&create("expires_at", &rfc3339(past)), &["expires_at"]);
    }
    let hour = |n: i64| rfc3339(now_ms() + n * 3_600_000);
    let body = json!({ "url": "https://example.com/", "valid_from": hour(2), "expires_at": hour(1) });
    let problem = assert_problem(&client.post(API_LINKS, &body), 422, None);
    let field = problem["errors"][0]["field"].as_str().unwrap();
    assert!(matches!(field, "expires_at" | "valid_from"), "{problem}");
    assert!(client.all_links(50).is_empty());
    let code = client.shorten("https://example.com/");
    assert_names(&client.patch(&code, &json!({ "expires_at": rfc3339(now_ms() - 1_000) })), &["expires_at"]);
    let link = client.create(&json!({ "url": "https://example.com/", "expires_at": "9999-12-31T23:59:59Z" }));
    assert_eq!(link["expires_at"], "9999-12-31T23:59:59Z");
}

/// Targets that no deployment on go.example.net accepts.
const REFUSED: &[&str] = &[
    "",
    " ",
    "example.com",
    "//example.com",
    "ftp://example.com/",
    "javascript:alert(1)",
    "data:text/html,x",
    "file:///etc/passwd",
    "http:/example.com",
    "http:///example.com",
    "http:\\\\example.com",
    "https://",
    "https://user@example.com/",
    "https://user:pw@example.com/",
    "https://exa mple.com/",
    " https://example.com/",
    "https://example.com/\u{0}",
    "https://example.com/a\nb",
    "https://example.com/\u{7f}",
    "https://.example.com/",
    "https://example..com/",
    "https://-example.com/",
    "https://example-.com/",
    "https://example.com:99999/",
    "https://example.com:x/",
    "http://localhost/",
    "http://a.localhost/",
    "http://LOCALHOST:80/",
    "http://127.0.0.1/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0177.0.0.1/",
    "http://127.1/",
    "http://１２７.0.0.1/",
    "http://[::1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[2002:7f00:1::]/",
    "http://10.0.0.1/",
    "http://192.168.1.1/",
    "http://172.16.0.1/",
    "http://169.254.169.254/latest/meta-data",
    "http://100.64.0.1/",
    "http://0.0.0.0/",
    "http://224.0.0.1/",
    "http://255.255.255.255/",
    "http://[fe80::1]/",
    "http://[fc00::1]/",
    "http://[ff02::1]/",
    "http://192.0.2.1/",
    "https://go.example.net/x",
    "http://GO.example.net:8443/",
    "https://go.example.net./",
    "https://ｇo.example.net/",
];

#[test]
fn targets_that_the_policy_refuses_are_422() {
    let server = Setup::new().env("TERSE_PUBLIC_URL", "https://go.example.net").start();
    let client = server.client();
    for url in REFUSED {
        let answer = client.post(API_LINKS, &json!({ "url": url }));
        assert_eq!(answer.status, 422, "{url:?} → {}", answer.text());
        assert_names(&answer, &["url"]);
    }
    let longest = format!("https://example.com/{}", "x".repeat(8_192 - 20));
    let code = client.shorten(&longest);
    assert_eq!(client.target(&code), longest);
    assert_names(&client.post(API_LINKS, &json!({ "url": format!("{longest}x") })), &["url"]);
    assert_names(&client.patch(&code, &json!({ "url": "http://127.0.0.1/" })), &["url"]);
    assert_eq!(client.all_links(50).len(), 1);
}

#[test]
fn intranets_may_allow_private_targets_but_no_loops() {
    let server = Setup::new()
        .env("TERSE_ALLOW_PRIVATE_TARGETS", "true")
        .env("TERSE_PUBLIC_URL", "http://go.example.net")
        .start();
    let client = server.client();
    for url in ["http://10.0.0.1/", "http://192.168.1.1:8080/x", "http://intranet/", "http://[fc00::1]/"] {
        assert_eq!(client.target(&client.shorten(url)), url);
    }
    assert_names(&client.post(API_LINKS, &json!({ "url": "http://go.example.net/a" })), &["url"]);
}

#[test]
fn other_media_types_are_415() {
    let server = Setup::new().start();
    let client = server.client();
    let body = json!({ "url": "https://example.com/" }).to_string();
    for media in
        ["text/plain", "application/xml", "application/x-www-form-urlencoded", "multipart/form-data", "nonsense", ""]
    {
        let answer = client.send(Request::new("POST", API_LINKS).body(media, body.clone()));
        assert_problem(&answer, 415, None);
    }
    let mut bare = Request::new("POST", API_LINKS);
    bare.body = Some(body.clone().into_bytes());
    assert_problem(&client.send(bare), 415, None);
    assert!(client.all_links(50).is_empty());
    for media in ["application/json", "application/json; charset=utf-8", "Application/JSON"] {
        let _ = client.send(Request::new("POST", API_LINKS).body(media, body.clone())).expect(201);
    }
}

#[test]
fn bodies_over_the_bound_are_413() {
    let server = Setup::new().start();
    let client = server.client();
    let body = json!({ "url": "https://example.com/", "title": "t".repeat(70_000) });
    assert_problem(&client.post(API_LINKS, &body), 413, None);
    assert!(client.all_links(50).is_empty());
}

#[test]
fn a_wrong_patch_names_the_field_and_changes_nothing() {
    let server = Setup::new().start();
    let client = server.client();
    let code = client.shorten("https://example.com/");
    let before = client.link(&code);
    for (change, field) in [
        (json!({ "state": "deleted" }), "state"),
        (json!({ "state": "paused" }), "state"),
        (json!({ "state": 1 }), "state"),
        (json!({ "url": "nonsense" }), "url"),
        (json!({ "url": "https://example.org/", "title": "x".repeat(201) }), "title"),
    ] {
        assert_names(&client.patch(&code, &change), &[field]);
    }
    for body in ["", "{", "[]", "null"] {
        let request = Request::new("PATCH", &code_path(&code)).body("application/json", body);
        let status = client.send(request).status;
        assert!(matches!(status, 400 | 422), "{body:?}: {status}");
    }
    assert_eq!(client.link(&code), before);
    let kept: Value = client.patch(&code, &json!({})).expect(200).json();
    assert_eq!(kept["url"], before["url"], "an empty change keeps all");
}

#[test]
fn what_clients_send_comes_back_escaped_and_never_as_markup() {
    let server = Setup::new().start();
    let client = server.client();
    let title = "<script>alert(1)</script>\"'&";
    let link = client.create(&json!({ "url": "https://example.com/\"<>'", "title": title, "tags": [title] }));
    assert_eq!(link["title"], title);
    let target = client.target(link["code"].as_str().unwrap());
    assert!(!target.contains(['\r', '\n', ' ']), "{target}");
    for (path, body) in
        [("/", "url=%3Cscript%3Ealert(1)%3C/script%3E"), ("/", "url=https://example.com/%22%3E%3Cscript%3E")]
    {
        let host = client.address().to_string();
        let request = Request::new("POST", path).header("Origin", &format!("http://{host}"));
        let page = client.send(request.body("application/x-www-form-urlencoded", body));
        assert!(!page.text().contains("<script>alert(1)"), "{}", page.text());
        assert!(!page.text().contains("\"><script>"), "{}", page.text());
    }
}
