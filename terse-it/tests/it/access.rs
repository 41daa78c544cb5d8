//! Who may do what: keys, roles, owners, the `Host` check of open mode, and
//! what never shows in a log.

use std::time::Duration;

use serde_json::{Value, json};
use terse_it::{API_LINKS, Client, Request, Response, Server, Setup, await_true, code_of, code_path, now_ms, rfc3339};

use crate::contract::assert_problem;

/// How long a change of the keys may take to be effective: a second, and what a busy machine adds.
const EFFECTIVE: Duration = Duration::from_secs(20);

fn keyed_setup() -> Setup {
    Setup::new().env("TERSE_AUTH", "keys")
}

/// A server with a key of each role.
struct Guarded {
    server: Server,
    admin: Client,
    writer: Client,
    other: Client,
    reader: Client,
}

fn guarded() -> Guarded {
    let setup = keyed_setup();
    let keys = ["admin", "writer", "writer", "reader"].map(|role| setup.create_key(role, &[]).0);
    let server = setup.start();
    let [admin, writer, other, reader] = keys.map(|key| server.client().with_key(&key));
    Guarded { server, admin, writer, other, reader }
}

#[track_caller]
fn assert_unauthorised(answer: &Response) {
    assert_problem(answer, 401, None);
    let challenge = answer.header("www-authenticate").unwrap_or_else(|| panic!("no challenge in {answer:?}"));
    assert!(challenge.to_lowercase().starts_with("bearer"), "{challenge}");
}

/// Every route of the API as one request each.
fn api_requests(code: &str) -> Vec<(&'static str, Request)> {
    let url = json!({ "url": "https://example.com/" });
    vec![
        ("create", Request::new("POST", API_LINKS).json(&url)),
        ("batch", Request::new("POST", &format!("{API_LINKS}/batch")).json(&json!({ "items": [url] }))),
        ("list", Request::new("GET", API_LINKS)),
        ("read", Request::new("GET", &code_path(code))),
        ("edit", Request::new("PATCH", &code_path(code)).json(&json!({ "title": "t" }))),
        ("block", Request::new("PATCH", &code_path(code)).json(&json!({ "state": "blocked" }))),
        ("delete", Request::new("DELETE", &code_path(code))),
    ]
}

#[test]
fn without_a_valid_key_the_api_is_401_and_redirects_go_on() {
    let it = guarded();
    let code = it.writer.shorten("https://example.com/");
    let (sound, _) = it.server.setup().create_key("writer", &[]);
    let known = it.server.client().with_key(&sound);
    await_true("the new key to work", EFFECTIVE, || known.get(API_LINKS).status == 200);
    let mistyped = format!("{}{}", &sound[..sound.len() - 1], if sound.ends_with('a') { 'b' } else { 'a' });
    let nobody = it.server.client();
    let mut denied = vec![None, Some(String::new()), Some("Bearer".to_owned()), Some("Bearer ".to_owned())];
    denied.extend(
        ["trs_", "nonsense", "trs_0123456789_abc", &mistyped, &"x".repeat(5_000)].map(|k| Some(format!("Bearer {k}"))),
    );
    denied.push(Some(format!("Basic {sound}")));
    denied.push(Some(sound.clone()));
    denied.push(Some(format!("Bearer {sound} {sound}")));
    for authorization in denied {
        for (what, mut request) in api_requests(&code) {
            if let Some(value) = &authorization {
                request = request.header("Authorization", value);
            }
            let answer = nobody.send(request);
            assert_eq!(answer.status, 401, "{what} with {authorization:?}");
            assert_unauthorised(&answer);
        }
    }
    assert_eq!(nobody.target(&code), "https://example.com/");
    for path in ["/livez", "/readyz", "/health", "/robots.txt", "/api/openapi.json"] {
        assert_eq!(nobody.get(path).status, 200, "{path}");
    }
    let lower = nobody.send(Request::new("GET", API_LINKS).header("authorization", &format!("bearer {sound}")));
    assert_eq!(lower.status, 200, "the scheme is read in any case: {lower:?}");
}

#[test]
fn each_role_may_do_what_the_table_says() {
    let it = guarded();
    // For each caller: create, batch, list, read, edit, block, delete; of a link that belongs to `writer`.
    let table: [(&str, &Client, [u16; 7]); 4] = [
        ("reader", &it.reader, [403, 403, 200, 404, 403, 403, 403]),
        ("another writer", &it.other, [201, 200, 200, 404, 404, 404, 404]),
        ("its writer", &it.writer, [201, 200, 200, 200, 200, 403, 204]),
        ("admin", &it.admin, [201, 200, 200, 200, 200, 200, 204]),
    ];
    for (who, client, expected) in table {
        let code = it.writer.shorten("https://example.com/");
        for ((what, request), status) in api_requests(&code).into_iter().zip(expected) {
            let answer = client.send(request);
            // Who may not write at all may learn it before whether the link is his.
            assert_eq!(answer.status, status, "{who}: {what}: {}", answer.text());
            if status >= 400 {
                assert_problem(&answer, status, None);
            }
        }
    }
}

#[test]
fn a_foreign_link_answers_exactly_as_a_missing_one() {
    let it = guarded();
    let code = it.writer.shorten("https://example.com/");
    let told = |code: &str, request: Request| {
        let answer = it.other.send(request);
        let mut problem = answer.json();
        problem["request_id"] = Value::Null;
        (answer.status, problem.to_string().replace(code, "CODE"))
    };
    let requests = |code: &str| api_requests(code).split_off(3);
    for ((what, foreign), (_, missing)) in requests(&code).into_iter().zip(requests("missing")) {
        assert_eq!(told(&code, foreign), told("missing", missing), "{what}");
    }
    assert_eq!(it.writer.link(&code)["version"], 1);
    let taken = it.other.post(API_LINKS, &json!({ "url": "https://example.com/", "alias": code }));
    assert_problem(&taken, 409, Some("alias_taken"));
}

#[test]
fn lists_and_idempotency_keys_are_each_owners_own() {
    let it = guarded();
    let code = it.writer.shorten("https://example.com/mine");
    assert_eq!(it.writer.all_links(50).len(), 1);
    assert!(it.other.all_links(50).is_empty());
    assert!(it.reader.all_links(50).is_empty());
    let request = |url: &str| crate::idempotency::keyed("same-key", &json!({ "url": url }));
    let one = code_of(&it.writer.send(request("https://example.com/1")).expect(201).json());
    let two = code_of(&it.other.send(request("https://example.com/2")).expect(201).json());
    assert_ne!(one, two);
    let codes: Vec<String> = it.other.all_links(50).iter().map(code_of).collect();
    assert_eq!(codes, [two]);
    assert!(it.writer.all_links(50).iter().any(|link| code_of(link) == code));
}

#[test]
fn a_key_made_for_an_owner_works_on_that_owners_links() {
    let setup = keyed_setup();
    let (first, owner) = setup.create_key("writer", &[]);
    let [reader, successor] = ["reader", "writer"].map(|role| setup.create_key(role, &["--owner", &owner]).0);
    let server = setup.start();
    let [first, reader, successor] = [first, reader, successor].map(|key| server.client().with_key(&key));
    let code = first.shorten("https://example.com/");
    assert_eq!(reader.link(&code)["url"], "https://example.com/");
    assert_eq!(reader.all_links(50).len(), 1);
    assert_problem(&reader.patch(&code, &json!({ "title": "mine" })), 403, None);
    assert_eq!(successor.patch(&code, &json!({ "title": "handed over" })).expect(200).json()["version"], 2);
}

#[test]
fn a_blocked_link_is_451_and_only_an_admin_unblocks_it() {
    let it = guarded();
    let code = it.writer.shorten("https://example.com/");
    let blocked = it.admin.patch(&code, &json!({ "state": "blocked" })).expect(200).json();
    assert_eq!(blocked["state"], "blocked");
    let answer = it.writer.visit(&code).expect(451);
    assert_eq!((answer.header("location"), answer.header("cache-control")), (None, Some("no-store")));
    assert_eq!(it.writer.link(&code)["state"], "blocked", "its owner sees that");
    for state in ["active", "disabled"] {
        assert_problem(&it.writer.patch(&code, &json!({ "state": state })), 403, None);
    }
    assert_eq!(it.writer.visit(&code).status, 451);
    let _ = it.admin.patch(&code, &json!({ "state": "active" })).expect(200);
    assert_eq!(it.writer.visit(&code).status, 302);
}

#[test]
fn a_key_made_beside_a_running_server_works_until_revoked() {
    let server = keyed_setup().start();
    for _ in 0..3 {
        let (key, id) = server.setup().create_key("writer", &[]);
        let client = server.client().with_key(&key);
        await_true("the new key to work", EFFECTIVE, || client.get(API_LINKS).status == 200);
        client.shorten("https://example.com/");
        let revoked = server.setup().run(&["keys", "revoke", &id]);
        assert_eq!(revoked.code, Some(0), "{revoked:?}");
        await_true("the revoked key to be refused", EFFECTIVE, || client.get(API_LINKS).status == 401);
        assert_unauthorised(&client.get(API_LINKS));
        assert_eq!(client.post(API_LINKS, &json!({ "url": "https://example.com/" })).status, 401);
    }
}

#[test]
fn a_key_expires_by_itself() {
    let setup = keyed_setup();
    let instant = now_ms() + 2_500;
    let (dated, _) = setup.create_key("writer", &["--expires", &rfc3339(instant)]);
    let (lasting, _) = setup.create_key("writer", &["--expires", "30d"]);
    let server = setup.start();
    let client = server.client().with_key(&dated);
    assert_eq!(client.get(API_LINKS).status, 200);
    await_true("the key to expire", Duration::from_secs(5), || client.get(API_LINKS).status == 401);
    let over = now_ms();
    assert!((instant..instant + 500).contains(&over), "{} ms after its time", over - instant);
    assert_eq!(server.client().with_key(&lasting).get(API_LINKS).status, 200);
}

#[test]
fn keys_are_listed_without_their_secrets_and_stored_hashed() {
    let setup = keyed_setup();
    let made: Vec<(String, String)> = ["admin", "writer", "reader"].map(|role| setup.create_key(role, &[])).to_vec();
    assert_eq!(setup.run(&["keys", "revoke", &made[2].1]).code, Some(0));
    let listed = setup.run(&["keys", "list"]);
    assert_eq!(listed.code, Some(0), "{listed:?}");
    for (key, id) in &made {
        let secret = key.rsplit('_').next().unwrap();
        assert!(listed.stdout.contains(id.as_str()), "{listed:?}");
        assert!(!listed.stdout.contains(&secret[..12]), "a secret is listed");
        for entry in std::fs::read_dir(setup.data()).unwrap().map(Result::unwrap).filter(|e| e.path().is_file()) {
            let bytes = std::fs::read(entry.path()).unwrap();
            let found = bytes.windows(12).any(|window| window == &secret.as_bytes()[..12]);
            assert!(!found, "a secret is kept in {}", entry.path().display());
        }
    }
    for role in ["admin", "writer", "reader"] {
        assert!(listed.stdout.contains(role), "{listed:?}");
    }
    let unknown = setup.run(&["keys", "revoke", "0123456789"]);
    assert_ne!(unknown.code, Some(0), "{unknown:?}");
}

#[test]
fn no_log_shows_a_secret_or_a_whole_client_address() {
    let mut server = keyed_setup().env("TERSE_LOG", "trace").env("TERSE_TRUSTED_PROXIES", "127.0.0.0/8").start();
    let (key, id) = server.setup().create_key("writer", &[]);
    let client = server.client().with_key(&key);
    await_true("the new key to work", EFFECTIVE, || client.get(API_LINKS).status == 200);
    let forwarded = |request: Request| request.header("X-Forwarded-For", "203.0.113.77");
    let (four, six) = ("203.0.113.77", "2001:db8:1:2:3:4:5:6");
    let code = code_of(
        &client
            .send(forwarded(Request::new("POST", API_LINKS).json(&json!({ "url": "https://example.com/" }))))
            .expect(201)
            .json(),
    );
    for request in
        [Request::new("GET", &format!("/{code}")), Request::new("GET", "/missing"), Request::new("GET", API_LINKS)]
    {
        client.send(forwarded(request.clone()));
        client.send(request.header("X-Forwarded-For", six).header("Forwarded", &format!("for=\"[{six}]\"")));
    }
    let mut wrong = key.clone();
    wrong.replace_range(key.len() - 8..key.len() - 6, "zz");
    server.client().with_key(&wrong).get(API_LINKS);
    client.send(Request::new("POST", API_LINKS).body("application/json", "{broken"));
    assert_eq!(server.setup().run(&["keys", "revoke", &id]).code, Some(0));
    await_true("the revoked key to be refused", EFFECTIVE, || client.get(API_LINKS).status == 401);
    let ended = server.stop(terse_it::Stop::Politely);
    let secret = key.rsplit('_').next().unwrap();
    assert!(!ended.stdout.is_empty());
    for hidden in [secret, &secret[..12], wrong.rsplit('_').next().unwrap(), four, six] {
        let line = ended.stdout.lines().find(|line| line.contains(hidden));
        assert_eq!(line, None, "the log shows {hidden}");
    }
}

#[test]
fn open_mode_refuses_foreign_hosts_but_redirects_for_any() {
    let server = Setup::new().env("TERSE_PUBLIC_URL", "https://go.example.net").start();
    let client = server.client();
    let port = client.address().port();
    let code = client.shorten("https://example.com/");
    let with_host = |path: &str, host: &str| client.send(Request::new("GET", path).header("Host", host));
    let own = [
        format!("127.0.0.1:{port}"),
        format!("localhost:{port}"),
        format!("[::1]:{port}"),
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        "LocalHost".to_owned(),
        "go.example.net".to_owned(),
        "GO.example.net".to_owned(),
        "go.example.net:443".to_owned(),
    ];
    for host in own {
        assert_eq!(with_host(API_LINKS, &host).status, 200, "{host}");
    }
    let foreign = [
        "evil.example",
        "evil.example:80",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil-localhost",
        "xgo.example.net",
        "go.example.net.evil.example",
        "10.0.0.1",
        "go.example.net@evil.example",
        "0.0.0.0",
    ];
    for host in foreign {
        let answer = with_host(API_LINKS, host);
        assert_problem(&answer, 421, None);
        for (what, request) in api_requests(&code) {
            assert_eq!(client.send(request.header("Host", host)).status, 421, "{what} for {host}");
        }
        let form = Request::new("POST", "/").header("Host", host).header("Origin", &format!("http://{host}"));
        let form = form.body("application/x-www-form-urlencoded", "url=https://example.com/");
        assert_eq!(client.send(form).status, 421, "the form for {host}");
        assert_eq!(with_host(&format!("/{code}"), host).status, 302, "{host}");
        assert_eq!(with_host("/livez", host).status, 200, "{host}");
    }
    assert_eq!(client.all_links(50).len(), 1);
}

#[test]
fn keys_mode_serves_any_host() {
    let it = guarded();
    let answer = it.admin.send(Request::new("GET", API_LINKS).header("Host", "any.example"));
    assert_eq!(answer.status, 200);
}

#[test]
fn the_form_takes_posts_of_its_own_page_only() {
    let server = Setup::new().start();
    let client = server.client();
    let own = format!("http://{}", client.address());
    let post = |headers: &[(&str, &str)]| {
        let request =
            Request::new("POST", "/").body("application/x-www-form-urlencoded", "url=https://example.com/form");
        client.send(headers.iter().fold(request, |request, (name, value)| request.header(name, value)))
    };
    let foreign: [&[(&str, &str)]; 6] = [
        &[("Origin", "http://evil.example")],
        &[("Origin", "null")],
        &[("Origin", "http://127.0.0.1:1")],
        &[("Origin", &own), ("Sec-Fetch-Site", "cross-site")],
        &[("Sec-Fetch-Site", "cross-site")],
        &[("Sec-Fetch-Site", "same-site"), ("Origin", "http://evil.example")],
    ];
    for headers in foreign {
        let answer = post(headers);
        assert!(matches!(answer.status, 403 | 421), "{headers:?}: {answer:?}");
    }
    assert!(client.all_links(50).is_empty(), "a foreign page made a link");
    let made = post(&[("Origin", &own), ("Sec-Fetch-Site", "same-origin")]);
    assert!(matches!(made.status, 200 | 201), "{made:?}");
    let code = code_of(&client.all_links(50)[0]);
    assert!(made.text().contains(&format!("http://localhost:8080/{code}")), "{}", made.text());
    assert_eq!(client.target(&code), "https://example.com/form");
}
