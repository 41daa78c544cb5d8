//! From a click to what is told of it: what counts, what is kept of whom, and how it comes out.

use std::time::Duration;

use serde_json::{Value, json};
use terse_it::{
    API_LINKS, Client, Request, Response, Server, Setup, Stop, await_some, await_true, code_path, heavy_turn, run,
};

/// Within this time a click shows in the statistics.
const SHOWN_WITHIN: Duration = Duration::from_secs(2);
/// How long a test waits for what has no promised time.
const PATIENCE: Duration = Duration::from_secs(60);

const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0";
const CRAWLER: &str = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";

/// A click as a browser's, which may be changed before it is sent.
fn click(code: &str) -> Request {
    Request::new("GET", &format!("/{code}"))
        .header("User-Agent", FIREFOX)
        .header("Accept-Language", "de-DE,de;q=0.9,en;q=0.5")
        .header("Referer", "https://example.org/a/page?with=query")
}

/// Sends a click, which must be redirected.
#[track_caller]
fn follow(client: &Client, click: Request) {
    assert_eq!(client.send(click).status, 302);
}

fn stats(client: &Client, code: &str) -> Value {
    client.get(&format!("{}/stats", code_path(code))).expect(200).json()
}

fn total(client: &Client, code: &str) -> u64 {
    stats(client, code)["total"].as_u64().unwrap()
}

/// Waits until so many clicks of `code` are counted, and returns what is told then.
#[track_caller]
fn await_total(client: &Client, code: &str, clicks: u64, limit: Duration) -> Value {
    await_true(&format!("{clicks} clicks of {code}"), limit, || total(client, code) >= clicks);
    let stats = stats(client, code);
    assert_eq!(stats["total"], clicks, "{stats}");
    stats
}

fn clicks(client: &Client, code: &str) -> Vec<Value> {
    match client.get(&format!("{}/clicks", code_path(code))).expect(200).json()["items"].take() {
        Value::Array(items) => items,
        other => panic!("no items but {other}"),
    }
}

fn value(name: &str, clicks: u64) -> Value {
    json!({ "value": name, "clicks": clicks })
}

#[test]
fn a_click_shows_in_the_statistics_within_two_seconds() {
    let _turn = heavy_turn();
    let server = Setup::new().start();
    let client = server.client();
    let code = client.shorten("https://example.com/");
    for _ in 0..3 {
        follow(&client, click(&code));
    }
    let told = await_total(&client, &code, 3, SHOWN_WITHIN);
    assert_eq!((&told["clicks"], &told["bots"], &told["visitors"]), (&json!(3), &json!(0), &json!(1)), "{told}");
    assert_eq!(told["referrers"], json!([value("example.org", 3)]));
    assert_eq!(told["browsers"], json!([value("Firefox", 3)]));
    assert_eq!(told["systems"], json!([value("Linux", 3)]));
    assert_eq!(told["languages"], json!([value("de", 3)]));
    assert!(told["as_of"].is_string(), "{told}");
    let newest = clicks(&client, &code);
    assert_eq!(newest.len(), 3);
    assert_eq!((&newest[0]["referrer"], &newest[0]["bot"]), (&json!("example.org"), &json!(false)));
    assert!(!client.get(&format!("{}/clicks", code_path(&code))).text().contains("query"), "only hosts are kept");
}

/// Follows the last click of `code` by what `server` logs of its block, which is to pass these steps.
#[track_caller]
pub(crate) fn assert_followed(server: &Server, code: &str, steps: &[&str]) {
    let find = |message: &str, fits: &dyn Fn(&Value) -> bool| {
        await_some(message, PATIENCE, || {
            let output = server.output();
            let mut logged = output.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            logged.rfind(|entry| entry["message"] == message && fits(entry))
        })
    };
    let recorded = find("click recorded", &|entry| entry["code"] == code);
    for step in steps {
        find(step, &|entry| entry["block"] == recorded["block"]);
    }
    let added = find("clicks added to their rows", &|entry| entry["block"] == recorded["block"]);
    let counted = |entry: &Value| entry["at"].as_u64() >= added["offset"].as_u64();
    find("counted", &|entry| entry["partition"] == added["partition"] && counted(entry));
}

#[test]
fn a_click_is_followed_by_its_block_from_the_redirect_to_its_rows() {
    let server = Setup::new().env("TERSE_LOG", "info,terse_clicks=debug").start();
    let client = server.client();
    let code = client.shorten("https://example.com/");
    follow(&client, click(&code));
    assert_followed(&server, &code, &["block sealed"]);
}

#[test]
fn only_answers_that_lead_somewhere_are_counted() {
    let server = Setup::new().start();
    let client = server.client();
    let (gone, off, live) = (
        client.shorten("https://a.example/"),
        client.shorten("https://b.example/"),
        client.shorten("https://c.example/"),
    );
    assert_eq!(client.delete(&gone).status, 204);
    assert_eq!(client.patch(&off, &json!({"state": "disabled"})).status, 200);
    for (code, status) in [(gone.as_str(), 410), (&off, 410), ("none-such", 404), ("api", 404)] {
        assert_eq!(client.send(click(code)).status, status, "{code}");
    }
    follow(&client, Request { method: "HEAD".to_owned(), ..click(&live) });
    // What came before it has been counted when this is.
    follow(&client, click(&live));
    await_total(&client, &live, 1, PATIENCE);
    assert_eq!(total(&client, &off), 0);
    assert!(server.client().get("/metrics").text().contains("\nterse_clicks_recorded_total 1\n"));
}

#[test]
fn programs_are_counted_apart() {
    let server = Setup::new().start();
    let client = server.client();
    let code = client.shorten("https://example.com/");
    follow(&client, click(&code));
    follow(&client, Request::new("GET", &format!("/{code}")).header("User-Agent", CRAWLER));
    follow(&client, click(&code).header("Sec-Purpose", "prefetch;prerender"));
    let told = await_total(&client, &code, 3, PATIENCE);
    assert_eq!((&told["clicks"], &told["bots"], &told["visitors"]), (&json!(1), &json!(2), &json!(1)), "{told}");
    assert_eq!(told["browsers"], json!([value("Firefox", 1)]), "what people use");
    assert_eq!(clicks(&client, &code).iter().filter(|click| click["bot"] == true).count(), 2);
}

/// An mmdb file (format 2.0) that says of every address that it is in `country`: a tree of one node, both of whose sides
/// lead to the same entry.
fn all_in(country: &str) -> Vec<u8> {
    fn text(text: &str) -> Vec<u8> {
        [&[2 << 5 | u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
    }
    fn map(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let bytes: Vec<u8> = entries.iter().flat_map(|(key, value)| [text(key), value.clone()].concat()).collect();
        [vec![7 << 5 | u8::try_from(entries.len()).unwrap()], bytes].concat()
    }
    // Of 16 bits (type 5), 32 bits (type 6), and 64 bits (type 9, an extended one).
    let number = |kind: u8, number: u8| if kind < 8 { vec![kind << 5 | 1, number] } else { vec![1, kind - 7, number] };
    let metadata = map(&[
        ("binary_format_major_version", number(5, 2)),
        ("binary_format_minor_version", number(5, 0)),
        ("build_epoch", number(9, 1)),
        ("database_type", text("Test-Country")),
        ("description", map(&[])),
        ("ip_version", number(5, 6)),
        ("languages", vec![0, 4]),
        ("node_count", number(6, 1)),
        ("record_size", number(5, 24)),
    ]);
    let entry = map(&[("country", map(&[("iso_code", text(country))]))]);
    [vec![0, 0, 17, 0, 0, 17], vec![0; 16], entry, b"\xab\xcd\xefMaxMind.com".to_vec(), metadata].concat()
}

/// A server that knows countries.
fn with_countries(setup: Setup) -> Server {
    let file = setup.place().join("all.mmdb");
    std::fs::write(&file, all_in("DE")).unwrap();
    setup.env("TERSE_COUNTRIES", file.to_str().unwrap()).start()
}

#[test]
fn whoever_does_not_want_to_be_watched_is_counted_without_visitor_or_network() {
    let unknown = |clicks: u64| json!({ "value": null, "clicks": clicks });
    for (signals, countries) in [("obey", json!([value("DE", 1), unknown(2)])), ("ignore", json!([value("DE", 3)]))] {
        let server = with_countries(Setup::new().env("TERSE_PRIVACY_SIGNALS", signals));
        let client = server.client();
        let code = client.shorten("https://example.com/");
        follow(&client, click(&code).header("DNT", "1"));
        follow(&client, click(&code).header("Sec-GPC", "1"));
        if signals == "obey" {
            let told = await_total(&client, &code, 2, PATIENCE);
            assert_eq!((&told["visitors"], &told["countries"]), (&json!(0), &json!([unknown(2)])), "{told}");
            assert!(clicks(&client, &code).iter().all(|click| click["country"].is_null()));
        }
        follow(&client, click(&code).header("DNT", "0"));
        let told = await_total(&client, &code, 3, PATIENCE);
        assert_eq!(told["visitors"], 1, "{signals}: {told}");
        assert_eq!(told["countries"], countries, "{signals}: {told}");
    }
}

#[test]
fn a_file_of_countries_that_is_replaced_is_taken_and_a_broken_one_is_not() {
    let server = with_countries(Setup::new());
    let client = server.client();
    let code = client.shorten("https://example.com/");
    let replace = |bytes: &[u8]| {
        let (file, new) = (server.setup().place().join("all.mmdb"), server.setup().place().join("new.mmdb"));
        std::fs::write(&new, bytes).unwrap();
        std::fs::rename(new, file).unwrap();
    };
    replace(b"no countries at all");
    await_true("the server to refuse the file", PATIENCE, || server.output().contains("stays in use"));
    follow(&client, click(&code));
    assert_eq!(await_total(&client, &code, 1, PATIENCE)["countries"], json!([value("DE", 1)]));
    replace(&all_in("FR"));
    await_true("the server to take the file", PATIENCE, || server.output().contains("another file of countries"));
    follow(&client, click(&code));
    assert_eq!(await_total(&client, &code, 2, PATIENCE)["countries"], json!([value("DE", 1), value("FR", 1)]));
}

#[test]
fn a_server_that_is_ended_and_started_again_has_lost_no_click() {
    let mut server = Setup::new().start();
    let code = server.client().shorten("https://example.com/");
    for round in 1..=3 {
        for _ in 0..20 {
            follow(&server.client(), click(&code));
        }
        let stop = if round == 2 { Stop::AtOnce } else { Stop::Politely };
        server.stop(stop);
        server.restart();
        let told = await_total(&server.client(), &code, 20 * round, PATIENCE);
        assert_eq!(told["visitors"], 1, "the key of the day outlives the server");
    }
}

/// Sends a click whose headers are `headers`, which may be any bytes.
fn raw_click(client: &Client, code: &str, headers: &[(&str, &[u8])]) -> Response {
    let mut connection = client.connect();
    let mut bytes = format!("GET /{code} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", client.address()).into_bytes();
    for (name, value) in headers {
        bytes.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
    }
    bytes.extend(b"\r\n");
    connection.write(&bytes).unwrap();
    connection.receive(false).unwrap()
}

#[test]
fn hostile_texts_are_kept_within_bounds_and_come_out_harmless() {
    let server = Setup::new().start();
    let client = server.client();
    let code = client.shorten("https://example.com/");
    let long = "x".repeat(10_000);
    let texts: [&[u8]; 8] = [
        long.as_bytes(),
        b"\xff\xfe\x80 \xc3\x28",
        b"<script>alert(1)</script>",
        b"=HYPERLINK(\"http://evil.example\",\"x\")",
        b"@SUM(1+1)*cmd|' /C calc'!A0",
        b"\"; DROP TABLE clicks; --",
        b"+1+1, -2",
        "\u{202e}gpj.exe\u{2028}".as_bytes(),
    ];
    for text in texts {
        for name in ["Referer", "User-Agent", "Accept-Language"] {
            assert_eq!(raw_click(&client, &code, &[(name, text)]).status, 302, "{name}: {text:?}");
        }
        let host = [b"https://-", text, b".example/"].concat();
        let all: [(&str, &[u8]); 3] = [("Referer", &host), ("User-Agent", text), ("Accept-Language", text)];
        assert_eq!(raw_click(&client, &code, &all).status, 302);
    }
    await_total(&client, &code, 4 * texts.len() as u64, PATIENCE);
    for path in ["stats", "clicks?limit=100"] {
        let answer = client.get(&format!("{}/{path}", code_path(&code))).expect(200);
        assert_eq!(answer.header("content-type").map(|kind| kind.split(';').next()), Some(Some("application/json")));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert!(!answer.text().contains("<script"), "{}", answer.text());
        check_texts(&answer.json());
        let table =
            client.send(Request::new("GET", &format!("{}/{path}", code_path(&code))).header("Accept", "text/csv"));
        check_table(&table.expect(200));
    }
}

/// No text is long, and none has control characters.
fn check_texts(value: &Value) {
    match value {
        Value::String(text) => assert!(text.len() <= 100 && !text.contains(char::is_control), "{text:?}"),
        Value::Array(items) => items.iter().for_each(check_texts),
        Value::Object(fields) => fields.values().for_each(check_texts),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// No cell is a formula to a spreadsheet.
fn check_table(answer: &Response) {
    assert_eq!(answer.header("content-type").map(|kind| kind.split(';').next()), Some(Some("text/csv")));
    assert!(answer.header("content-disposition").is_some_and(|disposition| disposition.starts_with("attachment")));
    let text = answer.text();
    for cell in text.lines().flat_map(|line| line.split(',')).map(|cell| cell.trim_start_matches('"')) {
        assert!(!cell.starts_with(['=', '+', '-', '@', '\t']) && cell.len() <= 110, "{cell:?}");
    }
}

fn lag_ms(client: &Client) -> u64 {
    let health = client.get("/health").expect(200).json();
    let lag = health["checks"].as_array().unwrap().iter().find(|check| check["name"] == "clicks:lag").unwrap();
    lag["observedValue"].as_u64().unwrap()
}

#[test]
fn one_process_may_record_and_another_count() {
    let mut front = Setup::new().flag("--role=redirect").flag("--role=api").start();
    let client = front.client();
    let code = client.shorten("https://example.com/");
    follow(&client, click(&code));
    let health = client.get("/health").expect(200).json();
    let names: Vec<&str> = health["checks"].as_array().unwrap().iter().filter_map(|c| c["name"].as_str()).collect();
    assert!(names.contains(&"clicks:pending") && names.contains(&"clicks:lag"), "{health}");
    assert_eq!(total(&client, &code), 0, "nobody counts yet");
    await_true("the click's age to be told", PATIENCE, || lag_ms(&client) >= 1_000);
    let counting = Setup::new().data_in(front.setup().data()).flag("--role=analytics");
    let mut counting = counting.start();
    await_total(&client, &code, 1, PATIENCE);
    await_true("nothing to wait", PATIENCE, || lag_ms(&client) == 0);
    for path in [format!("/{code}"), API_LINKS.to_owned()] {
        assert_eq!(counting.client().get(&path).status, 404, "{path}");
    }
    // What is recorded while nobody counts is counted later, whoever was ended in between.
    counting.stop(Stop::Politely);
    for _ in 0..5 {
        follow(&client, click(&code));
    }
    front.stop(Stop::Politely);
    front.restart();
    counting.restart();
    await_total(&front.client(), &code, 6, PATIENCE);
}

#[test]
fn clicks_of_a_server_that_was_killed_are_counted_by_a_process_that_only_counts() {
    let mut front = Setup::new().flag("--role=redirect").flag("--role=api").start();
    let client = front.client();
    let code = client.shorten("https://example.com/");
    for _ in 0..7 {
        follow(&client, click(&code));
    }
    // Nobody sealed its block, and nobody redirects here any more.
    front.stop(Stop::AtOnce);
    let api = Setup::new().data_in(front.setup().data()).flag("--role=api").start();
    let _counting = Setup::new().data_in(front.setup().data()).flag("--role=analytics").start();
    await_total(&api.client(), &code, 7, PATIENCE);
}

#[test]
fn health_tells_how_far_counting_is() {
    let server = Setup::new().start();
    let client = server.client();
    let code = client.shorten("https://example.com/");
    follow(&client, click(&code));
    await_total(&client, &code, 1, PATIENCE);
    let health = client.get("/health").expect(200).json();
    let check = |name: &str| {
        let checks = health["checks"].as_array().unwrap();
        checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no {name} in {health}")).clone()
    };
    assert_eq!(check("clicks"), json!({"name": "clicks", "status": "ok", "reason": null}));
    for (name, unit) in [
        ("clicks:lag", "ms"),
        ("clicks:stopped", "partitions"),
        ("clicks:pending", "blocks"),
        ("clicks:dropped", "clicks"),
    ] {
        let found = check(name);
        assert_eq!((&found["status"], &found["observedUnit"]), (&json!("ok"), &json!(unit)), "{found}");
        assert!(found["observedValue"].is_u64(), "{found}");
    }
}

#[test]
fn dropped_clicks_degrade_health_and_harm_nobody() {
    let server = Setup::new().flag("--role=redirect").flag("--role=api").env("TERSE_JOURNAL_BYTES", "16MiB").start();
    let client = server.client();
    let code = client.shorten("https://example.com/");
    let mut connection = client.connect();
    let mut number = 0;
    // Each click with an agent of its own: one that a block has already takes hardly any room.
    let mut request = || {
        number += 1;
        Request::new("GET", &format!("/{code}")).header("User-Agent", &format!("{number:x>2000}"))
    };
    let health = || client.get("/health").expect(200).json();
    let dropped = |health: &Value| {
        let checks = health["checks"].as_array().unwrap();
        checks.iter().any(|check| check["name"] == "clicks:dropped" && check["observedValue"] != 0)
    };
    // Nobody counts, so 16 MiB are full some time.
    await_true("a click that is dropped", Duration::from_secs(240), || {
        for _ in 0..2_000 {
            assert_eq!(connection.call(&request()).unwrap().status, 302);
        }
        dropped(&health())
    });
    let health = health();
    assert_eq!(health["status"], "degraded", "{health}");
    follow(&client, click(&code));
    follow(&client, click(&client.shorten("https://example.com/meanwhile")));
}

#[test]
fn a_read_model_on_a_cluster_needs_a_broker() {
    for arguments in [["serve"], ["check-config"]] {
        let ended = run(&arguments, &[("TERSE_STATS", "cql://127.0.0.1:9042/stats")]);
        assert_eq!(ended.code, Some(64), "{ended:?}");
        assert!(ended.stderr.contains("TERSE_BUS") && ended.stderr.lines().count() == 1, "{ended:?}");
    }
}
