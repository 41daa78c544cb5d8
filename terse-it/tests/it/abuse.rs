//! Blocked hosts and previews, on the real program: the file, SIGHUP, what admins block, and that all of it lasts.

use std::time::Duration;

use serde_json::{Value, json};
use terse_it::{Client, Request, Server, Setup, Stop, await_true};

const BLOCK: &str = "/api/v1/admin/block";
const LINKS: &str = "/api/v1/links";
/// How soon a server has read its file again.
const RELOADED: Duration = Duration::from_secs(10);

/// A server with this file of blocked hosts.
fn blocking(list: &str) -> (Setup, Server) {
    let setup = Setup::new();
    let path = setup.place().join("blocked.txt");
    std::fs::write(&path, list).unwrap();
    let setup = setup.env("TERSE_BLOCKLIST", path.to_str().unwrap());
    let server = setup.start();
    (setup, server)
}

/// Replaces the file, and has the server read it.
fn reload(setup: &Setup, server: &Server, list: &str) {
    std::fs::write(setup.place().join("blocked.txt"), list).unwrap();
    server.hang_up();
}

fn block(client: &Client, host: &str, action: &str) -> Value {
    client.post(BLOCK, &json!({"host": host, "action": action})).expect(200).json()
}

fn status(client: &Client, code: &str) -> u16 {
    client.get(&format!("/{code}")).status
}

#[track_caller]
fn await_status(client: &Client, code: &str, expected: u16) {
    await_true(&format!("/{code} to answer {expected}"), RELOADED, || status(client, code) == expected);
}

#[track_caller]
fn assert_refused(client: &Client, url: &str) {
    let answer = client.post(LINKS, &json!({ "url": url }));
    assert_eq!(answer.status, 422, "{}", answer.text());
    assert_eq!(answer.json()["errors"][0]["code"], "blocked_host");
}

#[test]
fn a_cached_link_answers_451_after_a_reload_and_redirects_again_after_the_next() {
    let (setup, server) = blocking("# nothing yet\n");
    let client = server.client();
    let [evil, beneath, good] =
        ["https://evil.example/x", "https://www.evil.example/", "https://good.example/"].map(|url| client.shorten(url));
    for code in [&evil, &beneath, &good, &evil] {
        assert_eq!(status(&client, code), 302);
    }
    reload(&setup, &server, "EVIL.example. # phishing\n");
    await_status(&client, &evil, 451);
    assert_eq!([&beneath, &good].map(|code| status(&client, code)), [451, 302]);
    let told = client.get(&format!("/{evil}"));
    assert_eq!((told.json()["code"].as_str(), told.header("Cache-Control")), (Some("blocked"), Some("no-store")));
    let page = client.send(Request::new("GET", &format!("/{evil}+")).header("Accept", "text/html"));
    assert!(page.status == 451 && !page.text().contains("evil.example"), "{}", page.text());
    assert_eq!(client.head(&format!("/{evil}")).status, 451);
    assert_refused(&client, "https://evil.example/new");
    assert_eq!(client.link(&evil)["state"], "active");
    let metrics = client.get("/metrics").text();
    assert!(metrics.contains("\nterse_blocked_hosts 1\n"), "{metrics}");
    reload(&setup, &server, "other.example\n");
    await_status(&client, &evil, 302);
    client.shorten("https://evil.example/new");
}

#[test]
fn a_bad_file_keeps_the_old_list_and_the_log_says_which_line() {
    let (setup, server) = blocking("evil.example\n");
    let client = server.client();
    assert_refused(&client, "https://evil.example/");
    reload(&setup, &server, "# changed\nother.example\nhttps://third.example/\n");
    await_true("the log to tell", RELOADED, || server.output().contains("line 3"));
    assert!(server.output().contains("the list before it stays in use"), "{}", server.output());
    assert_refused(&client, "https://evil.example/");
    client.shorten("https://other.example/");
    std::fs::remove_file(setup.place().join("blocked.txt")).unwrap();
    server.hang_up();
    await_true("the log to tell", RELOADED, || server.output().contains("cannot read"));
    assert_refused(&client, "https://evil.example/");
    reload(&setup, &server, "third.example\n");
    await_true("the new list", RELOADED, || {
        client.post(LINKS, &json!({"url": "https://third.example/"})).status == 422
    });
    client.shorten("https://evil.example/");
}

#[test]
fn a_bad_file_keeps_a_server_from_starting_and_is_told_by_check_config() {
    let setup = Setup::new();
    let path = setup.place().join("blocked.txt");
    std::fs::write(&path, "a.example\n*.evil.example\n").unwrap();
    let setup = setup.file(&format!("[abuse]\nblock_list = '{}'\n", path.display()));
    for command in ["serve", "check-config"] {
        let ended = setup.run(&[command]);
        assert_eq!(ended.code, Some(64), "{command}: {ended:?}");
        assert!(ended.stderr.contains("line 2: '*.evil.example'"), "{command}: {ended:?}");
        assert_eq!(ended.stderr.trim_end().lines().count(), 1, "{ended:?}");
    }
    std::fs::write(&path, "a.example\n").unwrap();
    assert!(setup.run(&["check-config"]).stdout.contains("blocklist = "));
}

#[test]
fn sighup_without_a_file_ends_nothing() {
    let mut server = Setup::new().start();
    server.hang_up();
    await_true("the log to tell", RELOADED, || server.output().contains("SIGHUP"));
    assert_eq!(server.client().get("/livez").status, 200);
    assert_eq!(server.stop(Stop::Politely).code, Some(0));
}

#[test]
fn what_an_admin_blocks_counts_at_once_survives_kill_9_and_is_let_go() {
    let mut server = Setup::new().start();
    let client = server.client();
    let code = client.shorten("https://b\u{fc}cher.example/");
    assert_eq!(status(&client, &code), 302);
    let told = block(&client, "www.B\u{dc}CHER.example", "block");
    assert_eq!(told, json!({"host": "www.xn--bcher-kva.example", "listed": true, "blocked": true}));
    assert_eq!(status(&client, &code), 302, "what is above is not blocked");
    block(&client, "xn--bcher-kva.example", "block");
    assert_eq!(status(&client, &code), 451);
    server.stop(Stop::AtOnce);
    server.restart();
    let client = server.client();
    // Until the first shard has answered, a server that starts knows what was blocked some moments before the kill.
    await_status(&client, &code, 451);
    let hosts = json!(["www.xn--bcher-kva.example", "xn--bcher-kva.example"]);
    let listed = json!({"items": hosts, "of_file": 0});
    await_true("the list to be told", RELOADED, || client.get(BLOCK).json() == listed);
    assert_eq!(block(&client, "B\u{fc}cher.example.", "unblock")["blocked"], false);
    assert_eq!(status(&client, &code), 302);
}

#[test]
fn who_blocked_what_is_in_the_log() {
    let setup = Setup::new().env("TERSE_AUTH", "keys");
    let (key, id) = setup.create_key("admin", &[]);
    let server = setup.start();
    let client = server.client().with_key(&key);
    await_true("the key to count", RELOADED, || client.get(BLOCK).status == 200);
    block(&client, "evil.example", "block");
    let audit = |log: &str| {
        log.lines().any(|line| line.contains("an admin blocked") && line.contains("evil.example") && line.contains(&id))
    };
    await_true("the log to tell", RELOADED, || audit(&server.output()));
}

#[test]
fn addresses_are_blocked_in_every_spelling() {
    let setup = Setup::new().env("TERSE_ALLOW_PRIVATE_TARGETS", "true");
    let server = setup.start();
    let client = server.client();
    let codes =
        ["http://192.0.2.7/", "http://0xc0.0.2.7:8080/", "http://[::ffff:192.0.2.7]/"].map(|url| client.shorten(url));
    let other = client.shorten("http://192.0.2.8/");
    block(&client, "192.0.2.7", "block");
    for code in &codes {
        assert_eq!(status(&client, code), 451);
    }
    assert_eq!(status(&client, &other), 302);
}

#[test]
fn a_preview_shows_a_hostile_target_and_counts_no_click() {
    let server = Setup::new().start();
    let client = server.client();
    let url = format!("https://example.com/\"><script>alert(1)</script>\u{202e}{}", "x".repeat(2_048));
    let code = client.shorten(&url);
    let told = client.get(&format!("/{code}+")).expect(200).json();
    assert_eq!(told["url"], client.link(&code)["url"]);
    assert_eq!(told["code"], code);
    let page = client.send(Request::new("GET", &format!("/{code}%2B")).header("Accept", "text/html")).expect(200);
    let text = page.text();
    assert!(text.contains("&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;%E2%80%AE"), "{text}");
    assert!(!text.contains("<script") && !text.contains('\u{202e}') && text.contains(&"x".repeat(2_048)));
    assert_eq!(page.header("X-Robots-Tag"), Some("noindex"));
    assert_eq!(client.get(&format!("/{code}")).status, 302);
    await_true("the click of the redirect", RELOADED, || {
        client.get(&format!("{LINKS}/{code}/stats")).json()["total"] == 1
    });
}
