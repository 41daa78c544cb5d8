//! Rate limits, over real sockets: who is refused what, and what they are told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::json;
use terse_core::metrics::Metrics;
use terse_core::{Clock, KeyId, Role};
use terse_http::{Limit, LimitBy, Limits, Month, Network, Quotas, TrustedProxies};
use terse_resilience::limit::{
    Draw, Key, QuotaQuestion, RateLimiter, Rule, SharedDraw, SharedLimiter, SharedQuota, SharedQuotaDraw, Uses, local,
};
use terse_testkit::links::link;
use terse_testkit::{Operation, TestClock};

use crate::server::{Answer, Choices, Keys, Server};

const LINKS: &str = "/api/v1/links";
const BODY: &str = "{\"url\":\"https://example.com/\"}";
const SECOND: Duration = Duration::from_secs(1);

fn here(rule: Rule, clock: &Arc<TestClock>) -> Arc<dyn RateLimiter> {
    let clock = clock.clone();
    local(rule, 1_024, Arc::new(move || clock.monotonic_ms()), 5).unwrap()
}

fn limit(name: &'static str, by: LimitBy, rule: Rule, clock: &Arc<TestClock>, metrics: &Metrics) -> Option<Limit> {
    Some(Limit::new(name, by, here(rule, clock), None, metrics))
}

fn bucket(burst: u32) -> Rule {
    Rule::TokenBucket { burst, refill: 1, per: 10 * SECOND }
}

/// Creates are limited to `burst`.
fn creates(burst: u32, by: LimitBy) -> Choices {
    let limits = move |clock: &Arc<TestClock>, metrics: &Metrics| Limits {
        create: limit("create", by, bucket(burst), clock, metrics),
        ..Limits::default()
    };
    Choices { limits: Box::new(limits), ..Choices::default() }
}

/// Five unknown codes a minute for each address.
fn unknown_codes() -> Choices {
    let rule = Rule::SlidingWindow { limit: 5, window: 60 * SECOND };
    let limits = move |clock: &Arc<TestClock>, metrics: &Metrics| Limits {
        not_found: limit("not_found", LimitBy::Address, rule, clock, metrics),
        ..Limits::default()
    };
    Choices { limits: Box::new(limits), ..Choices::default() }
}

/// Requests come through a proxy on this machine.
fn behind_a_proxy(choices: Choices) -> Choices {
    let network = Network { address: "127.0.0.0".parse().unwrap(), prefix: 8 };
    Choices { trusted_proxies: TrustedProxies::from_iter([network]), ..choices }
}

fn create(server: &Server) -> Answer {
    server.ask("POST", LINKS).json(BODY).send()
}

fn told(answer: &Answer) -> [Option<&str>; 3] {
    ["ratelimit-policy", "ratelimit", "retry-after"].map(|name| answer.header(name))
}

#[test]
fn a_create_beyond_the_limit_is_told_when_to_come_back() {
    let server = Server::with(creates(2, LimitBy::Address));
    let policy = Some("\"create\";q=2;w=20");
    let first = create(&server);
    assert_eq!((first.status, told(&first)), (201, [policy, Some("\"create\";r=1;t=10"), None]));
    assert_eq!(create(&server).status, 201);
    let refused = create(&server);
    refused.assert_problem(429, "rate_limited");
    assert_eq!(told(&refused), [policy, Some("\"create\";r=0;t=10"), Some("10")]);
    assert_eq!(server.store.faults.calls(Operation::InsertIfAbsent), 2);
    assert_eq!(server.metric("terse_rate_limited_total{limit=\"create\"}"), 1.0);
    server.clock.advance(Duration::from_millis(9_999));
    assert_eq!(told(&create(&server)), [policy, Some("\"create\";r=0;t=1"), Some("1")]);
    server.clock.advance(Duration::from_millis(1));
    assert_eq!(create(&server).status, 201);
}

#[test]
fn another_spelling_of_the_path_is_no_way_around_the_limit() {
    let server = Server::with(creates(1, LimitBy::Address));
    let spelled = |path: &str| server.ask("POST", path).json(BODY).send().status;
    assert_eq!(create(&server).status, 201);
    for path in ["/api/v1/links?x=1", "/api/v1/link%73", "/%61pi/v1/links", "/api/v1/links/", "/api//v1/links"] {
        let status = spelled(path);
        assert!(status == 429 || status == 404 || status == 405, "{path}: {status}");
    }
    assert_eq!(server.store.faults.calls(Operation::InsertIfAbsent), 1);
}

#[test]
fn a_create_that_fails_tells_what_is_left_too() {
    let server = Server::with(creates(2, LimitBy::Address));
    let answer = server.ask("POST", LINKS).json("{broken").send();
    answer.assert_problem(400, "malformed_json");
    assert_eq!(answer.header("ratelimit"), Some("\"create\";r=1;t=10"));
}

#[test]
fn nothing_but_creates_draws_from_their_limit() {
    let server = Server::with(creates(1, LimitBy::Address));
    assert_eq!(create(&server).status, 201);
    for path in [LINKS, "/api/v1/links/c1", "/c1", "/", "/livez", "/health", "/metrics", "/none"] {
        let answer = server.get(path);
        assert!(answer.status != 429 && told(&answer) == [None, None, None], "{path}: {answer:?}");
    }
    assert_eq!(server.ask("DELETE", "/api/v1/links/c1").send().status, 204);
    create(&server).assert_problem(429, "rate_limited");
}

#[test]
fn keys_have_a_limit_each_and_who_has_none_that_of_the_address() {
    let keys = Arc::new(Keys::default());
    let [one, other] = ["one", "other"].map(|name| keys.issue(name, Role::Writer).reveal().to_owned());
    let server = Server::with(Choices { keys: Some(keys), ..creates(1, LimitBy::Key) });
    let with =
        |key: &str| server.ask("POST", LINKS).header("Authorization", &format!("Bearer {key}")).json(BODY).send();
    assert_eq!((with(&one).status, with(&one).status), (201, 429));
    assert_eq!((with(&other).status, with(&other).status), (201, 429));
    let forged = format!("{}{}", &one[..one.len() - 7], "AAAAAAA");
    assert_eq!((with(&forged).status, with("x").status), (401, 429), "without a key the address counts");
    assert_eq!(create(&server).status, 429);
}

#[test]
fn a_batch_draws_for_each_item_and_those_beyond_fail_alone() {
    let server = Server::with(creates(3, LimitBy::Address));
    let items: Vec<_> = (0..5).map(|n| json!({ "url": format!("https://example.com/{n}") })).collect();
    let answer = server.json("POST", "/api/v1/links/batch", &json!({ "items": items }));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("ratelimit"), Some("\"create\";r=0;t=10"));
    let results = answer.value()["items"].clone();
    let statuses: Vec<_> = (0..5).map(|n| results[n]["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [201, 201, 201, 429, 429]);
    assert_eq!(results[4]["error"]["code"], "rate_limited");
    assert_eq!(server.store.faults.calls(Operation::InsertIfAbsent), 3);
    assert_eq!(server.metric("terse_rate_limited_total{limit=\"create\"}"), 2.0);
}

#[test]
fn the_form_is_limited_like_the_api() {
    let server = Server::with(creates(1, LimitBy::Address));
    let post = |token: &str| {
        let form = format!("token={token}&url=https%3A%2F%2Fexample.com%2F");
        server.ask("POST", "/").header("Sec-Fetch-Site", "same-origin").form(&form).send()
    };
    assert_eq!(post("a").status, 201);
    let refused = post("b");
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("10")));
    assert_eq!(refused.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(refused.body.contains("Too many requests") || refused.body.contains("is used up"), "{}", refused.body);
}

#[test]
fn who_tries_keys_has_the_limit_of_the_address_by_api_and_by_form() {
    let keys = Arc::new(Keys::default());
    let key = keys.issue("one", Role::Writer).reveal().to_owned();
    let server = Server::with(Choices { keys: Some(keys), ..creates(2, LimitBy::Key) });
    let form = |key: &str| {
        let form = format!("key={key}&url=https%3A%2F%2Fexample.com%2F");
        server.ask("POST", "/").header("Sec-Fetch-Site", "same-origin").form(&form).send().status
    };
    let wrong = format!("{}AAAAAAA", &key[..key.len() - 7]);
    assert_eq!([form(&wrong), form("x"), form(&wrong), form("")], [401, 401, 429, 429]);
    assert_eq!(create_with(&server, &wrong).status, 429, "both are one limit");
    assert_eq!(form(&key), 201, "the key has its own");
}

#[test]
fn the_api_has_a_limit_of_its_own() {
    let limits = |clock: &Arc<TestClock>, metrics: &Metrics| Limits {
        api: limit("api", LimitBy::Key, bucket(2), clock, metrics),
        ..Limits::default()
    };
    let server = Server::with(Choices { limits: Box::new(limits), ..Choices::default() });
    assert_eq!(told(&server.get(LINKS)), [Some("\"api\";q=2;w=20"), Some("\"api\";r=1;t=10"), None]);
    assert_eq!(server.json("POST", "/api/v1/links/batch", &json!({ "items": [{}] })).status, 200);
    server.get("/api/v1/links/none").assert_problem(429, "rate_limited");
    assert_eq!(create(&server).status, 201, "creates have another one");
    for path in ["/", "/api/docs/", "/api/openapi.json", "/livez", "/readyz", "/health", "/metrics", "/c1"] {
        assert_ne!(server.get(path).status, 429, "{path}");
    }
    let described = server.get("/api/openapi.json").value();
    let responses = |path: &str, method: &str| described["paths"][path][method]["responses"].clone();
    assert!(responses(LINKS, "get")["429"].is_object() && responses("/{code}", "get")["429"].is_null());
}

#[test]
fn who_tries_codes_at_random_is_stopped_at_the_store_and_nowhere_else() {
    let server = Server::with(unknown_codes());
    server.put(&link("stored"));
    server.reader.known.lock().insert("hot".into(), link("hot").resolution());
    for n in 0..5 {
        assert_eq!(server.get("/stored").status, 302, "what is there doesn't count");
        let missing = server.get(&format!("/none{n}"));
        missing.assert_problem(404, "not_found");
        assert_eq!(
            missing.header("ratelimit").map(|left| left.split(';').nth(1)),
            Some(Some(&*format!("r={}", 4 - n)))
        );
    }
    let resolved = server.store.faults.calls(Operation::Resolve);
    let refused = server.get("/none9");
    refused.assert_problem(429, "rate_limited");
    let after: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((60..=66).contains(&after), "{after}");
    let left = refused.header("ratelimit").unwrap();
    assert!(left.ends_with(";t=60"), "no more than the window: {left}");
    server.get("/stored").assert_problem(429, "rate_limited");
    assert_eq!(server.get("/hot").status, 302, "what memory knows is served");
    server.get("/not/a/code").assert_problem(404, "not_found");
    assert_eq!(server.store.faults.calls(Operation::Resolve), resolved, "the store is spared");
    assert_eq!(server.metric("terse_rate_limited_total{limit=\"not_found\"}"), 2.0);
    let page = server.ask("GET", "/none9").header("Accept", "text/html").send();
    assert_eq!((page.status, page.header("content-type")), (429, Some("text/html; charset=utf-8")));
    assert_eq!(page.header("cache-control"), Some("no-store"));
    server.clock.advance(Duration::from_secs(after));
    assert_eq!(server.get("/stored").status, 302, "who obeys gets through");
}

#[test]
fn what_the_shared_cache_knows_is_served_over_the_limit() {
    let server = Server::with(unknown_codes());
    server.reader.near.lock().insert("warm".into(), link("warm").resolution());
    (0..5).for_each(|n| assert_eq!(server.get(&format!("/none{n}")).status, 404));
    assert_eq!(server.get("/none").status, 429);
    assert_eq!(server.get("/warm").status, 302);
}

#[test]
fn a_store_out_of_reach_counts_against_nobody() {
    let server = Server::with(unknown_codes());
    let kind = terse_core::ports::StoreErrorKind::Unavailable;
    server.store.faults.add(Operation::Resolve, terse_testkit::When::Every, terse_testkit::Fault::Fail(kind));
    (0..20).for_each(|n| assert_eq!(server.get(&format!("/none{n}")).status, 503));
}

#[test]
fn behind_a_proxy_each_client_has_a_limit_and_forging_gains_nothing() {
    let server = Server::with(behind_a_proxy(unknown_codes()));
    let asked = |forwarded: &str| server.ask("GET", "/none").header("X-Forwarded-For", forwarded).send().status;
    (0..5).for_each(|n| assert_eq!(asked(&format!("192.0.2.{n}, 203.0.113.7")), 404));
    assert_eq!(asked("198.51.100.1, 203.0.113.7"), 429, "what the client writes stands left");
    assert_eq!(asked("203.0.113.8"), 404, "its neighbour is another client");
    (0..5).for_each(|n| assert_eq!(asked(&format!("2001:db8:0:1::{n}")), 404));
    assert_eq!(asked("2001:db8:0:1:ffff::1"), 429, "a /64 is one client");
    assert_eq!(asked("2001:db8:0:2::1"), 404);
}

#[test]
fn whoever_has_a_48_does_not_get_past_the_limit_with_fresh_64s() {
    let rule = Rule::SlidingWindow { limit: 5, window: 60 * SECOND };
    let limits = move |clock: &Arc<TestClock>, metrics: &Metrics| Limits {
        not_found: limit("not_found", LimitBy::Address, rule, clock, metrics)
            .map(|limit| limit.with_networks(here(rule.times(3), clock))),
        ..Limits::default()
    };
    let server = Server::with(behind_a_proxy(Choices { limits: Box::new(limits), ..Choices::default() }));
    server.reader.known.lock().insert("hot".into(), link("hot").resolution());
    let asked = |code: &str, from: &str| server.ask("GET", code).header("X-Forwarded-For", from).send();
    for n in 0..15 {
        assert_eq!(asked(&format!("/none{n}"), &format!("2001:db8:7:{n:x}::1")).status, 404, "{n}");
    }
    let looked = server.store.faults.calls(Operation::Resolve);
    for n in 15..30 {
        let refused = asked(&format!("/none{n}"), &format!("2001:db8:7:{n:x}::1"));
        refused.assert_problem(429, "rate_limited");
        let after: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!((60..=66).contains(&after), "{after}");
    }
    assert_eq!(server.store.faults.calls(Operation::Resolve), looked, "the store is spared");
    assert_eq!(asked("/hot", "2001:db8:7:1::1").status, 302, "what memory knows is served");
    assert_eq!(asked("/none", "2001:db8:8::1").status, 404, "another network has a quota of its own");
    assert_eq!(asked("/none", "203.0.113.7").status, 404);
}

#[test]
fn from_elsewhere_no_header_makes_another_client() {
    let server = Server::with(unknown_codes());
    let asked = |n: usize| {
        let request = server.ask("GET", "/none").header("X-Forwarded-For", &format!("203.0.113.{n}"));
        request.header("Forwarded", &format!("for=203.0.113.{n}")).send().status
    };
    (0..5).for_each(|n| assert_eq!(asked(n), 404));
    assert_eq!(asked(9), 429);
}

#[test]
fn clicks_and_the_log_know_the_client_behind_the_proxy() {
    let server = Server::with(behind_a_proxy(Choices::default()));
    server.put(&link("abc"));
    assert_eq!(server.ask("GET", "/abc").header("X-Forwarded-For", "203.0.113.7").send().status, 302);
    assert_eq!(server.recorded.take(), ["abc v1 203.0.113.7 [] [] [] "]);
    assert_eq!(server.ask("GET", "/abc").header("Forwarded", "for=\"[2001:db8::7]\"").send().status, 302);
    assert_eq!(server.recorded.take(), ["abc v1 2001:db8::7 [] [] [] "]);
    let direct = Server::start();
    direct.put(&link("abc"));
    direct.ask("GET", "/abc").header("X-Forwarded-For", "203.0.113.7").send();
    assert_eq!(direct.recorded.take(), ["abc v1 127.0.0.1 [] [] [] "]);
}

#[test]
fn redirects_can_be_limited_too() {
    let limits = |clock: &Arc<TestClock>, metrics: &Metrics| Limits {
        redirect: limit("redirect", LimitBy::Address, bucket(3), clock, metrics),
        ..Limits::default()
    };
    let server = Server::with(Choices { limits: Box::new(limits), ..Choices::default() });
    server.put(&link("stored"));
    server.reader.known.lock().insert("hot".into(), link("hot").resolution());
    for (path, status, left) in [("/hot", 302, 2), ("/stored+", 200, 1), ("/none", 404, 0)] {
        let answer = server.get(path);
        let left = format!("\"redirect\";r={left};t=10");
        assert_eq!((answer.status, told(&answer)), (status, [Some("\"redirect\";q=3;w=30"), Some(&*left), None]));
    }
    for path in ["/hot", "/stored", "/stored+", "/none"] {
        let refused = server.get(path);
        refused.assert_problem(429, "rate_limited");
        assert_eq!(refused.header("retry-after"), Some("10"));
    }
    assert_eq!(server.get(LINKS).status, 200);
}

#[test]
fn a_leaky_bucket_lets_creates_wait_their_turn() {
    let rule = Rule::LeakyBucket { rate: 20, per: SECOND, queue: 5 };
    let limits = move |clock: &Arc<TestClock>, metrics: &Metrics| Limits {
        create: limit("create", LimitBy::Address, rule, clock, metrics),
        ..Limits::default()
    };
    let server = Server::with(Choices { limits: Box::new(limits), ..Choices::default() });
    let began = std::time::Instant::now();
    let statuses: Vec<_> = (0..7).map(|_| create(&server).status).collect();
    // The clock stands still, so each waits longer: 0, 50, 100 … 250 ms.
    assert_eq!(statuses, [201, 201, 201, 201, 201, 201, 429]);
    assert!(began.elapsed() >= Duration::from_millis(750), "{:?}", began.elapsed());
}

#[test]
fn a_leaky_bucket_paces_the_items_of_a_batch_too() {
    let rule = Rule::LeakyBucket { rate: 20, per: SECOND, queue: 5 };
    let limits = move |clock: &Arc<TestClock>, metrics: &Metrics| Limits {
        create: limit("create", LimitBy::Address, rule, clock, metrics),
        ..Limits::default()
    };
    let server = Server::with(Choices { limits: Box::new(limits), ..Choices::default() });
    let began = std::time::Instant::now();
    let items = vec![json!({ "url": "https://example.com/" }); 7];
    let results = server.json("POST", "/api/v1/links/batch", &json!({ "items": items })).value()["items"].clone();
    let statuses: Vec<_> = (0..7).map(|n| results[n]["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [201, 201, 201, 201, 201, 201, 429]);
    assert!(began.elapsed() >= Duration::from_millis(250), "the last has the sixth turn: {:?}", began.elapsed());
}

/// A shared limit that grants so many units, or can't tell.
#[derive(Default)]
struct Elsewhere {
    left: AtomicU32,
    away: std::sync::atomic::AtomicBool,
}

impl SharedLimiter for Elsewhere {
    fn draw<'a>(&'a self, _: &'a Key, wanted: u32) -> SharedDraw<'a> {
        Box::pin(async move {
            if self.away.load(Ordering::SeqCst) {
                return None;
            }
            let left = self.left.load(Ordering::SeqCst);
            let granted = wanted.min(left);
            self.left.store(left - granted, Ordering::SeqCst);
            Some(Draw { granted, remaining: left - granted, more_in: 7 * SECOND, wait: Duration::ZERO })
        })
    }
}

/// A server whose creates draw from a shared limit of 10, which is one of 3 here.
fn shared(left: u32) -> (Server, Arc<Elsewhere>) {
    let elsewhere = Arc::new(Elsewhere { left: AtomicU32::new(left), ..Elsewhere::default() });
    let there = Arc::clone(&elsewhere);
    let limits = move |clock: &Arc<TestClock>, metrics: &Metrics| Limits {
        create: Some(Limit::new(
            "create",
            LimitBy::Address,
            here(bucket(10), clock),
            Some(there.clone() as Arc<dyn SharedLimiter>),
            metrics,
        )),
        ..Limits::default()
    };
    (Server::with(Choices { limits: Box::new(limits), ..Choices::default() }), elsewhere)
}

#[test]
fn a_shared_limit_decides_and_the_process_alone_while_that_is_away() {
    let (server, elsewhere) = shared(100);
    (0..6).for_each(|_| assert_eq!(create(&server).status, 201));
    assert_eq!(create(&server).header("ratelimit"), Some("\"create\";r=93;t=7"));
    elsewhere.away.store(true, Ordering::SeqCst);
    let statuses: Vec<_> = (0..5).map(|_| create(&server).status).collect();
    assert_eq!(statuses, [201, 201, 201, 429, 429], "what was used before counts here");
    assert_eq!(server.metric("terse_limits_alone_total{limit=\"create\"}"), 5.0);
    elsewhere.away.store(false, Ordering::SeqCst);
    assert_eq!(create(&server).status, 201);
}

#[test]
fn what_others_have_used_up_is_used_up_here_when_the_shared_limit_goes_away() {
    let (server, elsewhere) = shared(1);
    assert_eq!((create(&server).status, create(&server).status), (201, 429));
    elsewhere.away.store(true, Ordering::SeqCst);
    assert_eq!(create(&server).status, 429, "no burst for the fault");
}

/// Keys may create two links a month, the one called `large` five.
fn quotas(keys: Arc<Keys>, large: Option<KeyId>, shared: Option<Arc<dyn SharedQuota>>) -> Choices {
    let limits = move |_: &Arc<TestClock>, metrics: &Metrics| {
        let own = large.clone().map(|id| (id, Some(5))).into_iter().collect();
        let uses = Arc::new(Uses::new(16).unwrap());
        Limits { quotas: Some(Quotas::new(Some(2), own, uses, shared.clone(), metrics)), ..Limits::default() }
    };
    Choices { keys: Some(keys), limits: Box::new(limits), ..Choices::default() }
}

fn create_with(server: &Server, key: &str) -> Answer {
    server.ask("POST", LINKS).header("Authorization", &format!("Bearer {key}")).json(BODY).send()
}

fn id_of(key: &str) -> KeyId {
    KeyId::parse(&key[4..14]).unwrap()
}

/// Seconds until the month ends in which `server` is.
fn left_of_month(server: &Server) -> u64 {
    let now = server.clock.now();
    (Month::of(now).ends().as_millis() - now.as_millis()).unsigned_abs().div_ceil(1_000)
}

#[test]
fn a_key_creates_as_many_links_a_month_as_its_quota_says() {
    let keys = Arc::new(Keys::default());
    let [one, other, large] = ["a", "b", "c"].map(|name| keys.issue(name, Role::Writer).reveal().to_owned());
    let server = Server::with(quotas(keys, Some(id_of(&large)), None));
    let made = |key: &str| (0..9).take_while(|_| create_with(&server, key).status == 201).count();
    assert_eq!([made(&one), made(&other), made(&large)], [2, 2, 5]);
    let refused = create_with(&server, &one);
    refused.assert_problem(429, "rate_limited");
    let ends = left_of_month(&server);
    assert_eq!(refused.header("retry-after"), Some(ends.to_string().as_str()));
    assert_eq!(refused.header("ratelimit"), Some(format!("\"quota\";r=0;t={ends}").as_str()));
    assert_eq!(server.store.faults.calls(Operation::InsertIfAbsent), 9);
    assert_eq!(server.metric("terse_rate_limited_total{limit=\"quota\"}"), 4.0);
    server.clock.advance(Duration::from_secs(ends));
    let first = create_with(&server, &one);
    let policy = first.header("ratelimit-policy").unwrap();
    assert!(first.status == 201 && policy.starts_with("\"quota\";q=2;w="), "{first:?}");
    assert!(first.header("ratelimit").unwrap().starts_with("\"quota\";r=1;t="), "{first:?}");
}

#[test]
fn a_batch_draws_from_the_quota_for_each_item() {
    let keys = Arc::new(Keys::default());
    let key = keys.issue("a", Role::Writer).reveal().to_owned();
    let server = Server::with(quotas(keys, None, None));
    let items: Vec<_> = (0..4).map(|n| json!({ "url": format!("https://example.com/{n}") })).collect();
    let ask = server.ask("POST", "/api/v1/links/batch").header("Authorization", &format!("Bearer {key}"));
    let answer = ask.json(&json!({ "items": items }).to_string()).send();
    let results = answer.value()["items"].clone();
    let statuses: Vec<_> = (0..4).map(|n| results[n]["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [201, 201, 429, 429], "{answer:?}");
    assert_eq!(create_with(&server, &key).status, 429);
}

#[test]
fn who_may_not_create_uses_up_nobodys_quota() {
    let keys = Arc::new(Keys::default());
    let reader = keys.issue("a", Role::Reader).reveal().to_owned();
    let admin = keys.issue("b", Role::Admin).reveal().to_owned();
    let server = Server::with(quotas(keys, None, None));
    for _ in 0..4 {
        assert_eq!(create_with(&server, &reader).status, 403);
        assert_eq!(create_with(&server, "trs_none").status, 401);
    }
    let bearer = format!("Bearer {admin}");
    let usage = server.ask("GET", USAGE).header("Authorization", &bearer).send();
    assert_eq!(usage.value()["items"], json!([]));
}

const USAGE: &str = "/api/v1/admin/usage";

#[test]
fn an_admin_sees_who_creates_most() {
    let keys = Arc::new(Keys::default());
    let [one, other, admin] = [("a", Role::Writer), ("b", Role::Writer), ("c", Role::Admin)]
        .map(|(name, role)| keys.issue(name, role).reveal().to_owned());
    let server = Server::with(quotas(keys, Some(id_of(&other)), None));
    (0..3).for_each(|_| drop(create_with(&server, &one)));
    (0..4).for_each(|_| drop(create_with(&server, &other)));
    let ask = |path: &str, key: &str| server.ask("GET", path).header("Authorization", &format!("Bearer {key}")).send();
    let told = ask(USAGE, &admin);
    assert_eq!(told.status, 200, "{told:?}");
    let month = Month::of(server.clock.now());
    let told = told.value();
    assert_eq!(
        (told["month"].as_str(), told["until"].as_str()),
        (Some(month.to_string().as_str()), Some(month.ends().to_string().as_str()),)
    );
    let item = |key: &str, links, quota, refused| json!({ "key": id_of(key).as_str(), "links": links, "quota": quota, "refused": refused });
    assert_eq!(told["items"], json!([item(&other, 4, 5, 0), item(&one, 2, 2, 1)]));
    let heaviest = ask(&format!("{USAGE}?limit=1"), &admin).value();
    assert_eq!(heaviest["items"].as_array().unwrap().len(), 1);
    for path in ["?limit=0", "?limit=201", "?limit=x", "?most=1"] {
        ask(&format!("{USAGE}{path}"), &admin).assert_problem(422, "validation_failed");
    }
    ask(USAGE, &one).assert_problem(403, "forbidden");
    server.get(USAGE).assert_problem(401, "unauthorized");
}

/// A quota that nobody can be asked about.
struct Away;

impl SharedQuota for Away {
    fn draw<'a>(&'a self, _: &'a Key, _: QuotaQuestion) -> SharedQuotaDraw<'a> {
        Box::pin(async { None })
    }
}

#[test]
fn a_shared_quota_out_of_reach_is_bridged_and_counted() {
    let keys = Arc::new(Keys::default());
    let key = keys.issue("a", Role::Writer).reveal().to_owned();
    let server = Server::with(quotas(keys, None, Some(Arc::new(Away))));
    let statuses: Vec<_> = (0..3).map(|_| create_with(&server, &key).status).collect();
    assert_eq!(statuses, [201, 201, 429]);
    assert_eq!(server.metric("terse_limits_alone_total{limit=\"quota\"}"), 3.0);
}

#[test]
fn while_access_is_open_there_is_nobody_to_have_a_quota() {
    let server = Server::with(Choices { keys: None, ..quotas(Arc::default(), None, None) });
    (0..4).for_each(|_| assert_eq!(create(&server).status, 201));
    assert_eq!(server.get(USAGE).value()["items"], json!([]));
}
