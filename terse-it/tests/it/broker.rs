//! Clicks over a real RabbitMQ: published by whoever redirects, counted by whoever is to, exactly once.
//!
//! `TERSE_AMQP` names the broker that tests share; each deployment has exchanges and streams of its own there. What
//! needs the broker to die has one of its own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use terse_it::broker::Broker;
use terse_it::metrics::{CLICK_BLOCKS_PENDING, Scrape};
use terse_it::{Client, Request, Server, Setup, Stop, await_some, await_true, code_path, heavy_turn};

use crate::counting::assert_followed;

/// How long a test waits for what has no promised time; a killed projector has its leases for 10 s more.
const PATIENCE: Duration = Duration::from_secs(60);
/// An idle server ends within this time, with a broker or without.
const END_LIMIT: Duration = Duration::from_secs(5);

const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0";

/// Ends a loop beside a test, also when the test fails: nobody would be told otherwise.
pub(crate) struct Ends<'a>(pub(crate) &'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

pub(crate) fn shared_broker() -> String {
    std::env::var("TERSE_AMQP").expect("TERSE_AMQP names a RabbitMQ, such as amqp://guest:guest@127.0.0.1:5672/%2f")
}

pub(crate) fn with_broker(url: &str) -> Setup {
    Setup::new().kept_on_failure().env("TERSE_BUS", url)
}

#[track_caller]
pub(crate) fn click(client: &Client, code: &str, times: u64) {
    let mut connection = client.connect();
    let request = Request::new("GET", &format!("/{code}")).header("User-Agent", FIREFOX);
    for _ in 0..times {
        assert_eq!(connection.call(&request).unwrap().status, 302);
    }
}

pub(crate) fn total(client: &Client, code: &str) -> u64 {
    client.get(&format!("{}/stats", code_path(code))).expect(200).json()["total"].as_u64().unwrap()
}

/// Waits until so many clicks of `code` are counted, and no more.
#[track_caller]
pub(crate) fn await_total(client: &Client, code: &str, clicks: u64) {
    let told = await_some(&format!("{clicks} clicks of {code}"), PATIENCE, || {
        let answer = client.get(&format!("{}/stats", code_path(code)));
        // A server that has just begun may not have found its read model yet.
        if answer.status == 503 {
            return None;
        }
        answer.expect(200).json()["total"].as_u64().filter(|total| *total >= clicks)
    });
    assert_eq!(told, clicks);
}

pub(crate) fn check(client: &Client, name: &str) -> Value {
    let health = client.get("/health").json();
    let checks = health["checks"].as_array().unwrap();
    checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no {name} in {health}")).clone()
}

/// Whether a replay of the streams agrees with what is counted.
#[track_caller]
pub(crate) fn verify(setup: &Setup, into: &str) -> String {
    let said = setup.run(&["replay", "--into", into, "--verify"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stdout.contains(" 0 different"), "{said:?}");
    said.stdout
}

#[test]
fn one_process_publishes_and_counts() {
    let _turn = heavy_turn();
    let mut server = with_broker(&shared_broker()).env("TERSE_LOG", "info,terse_clicks=debug").start();
    let client = server.client();
    let code = client.shorten("https://example.com/");
    click(&client, &code, 30);
    await_total(&client, &code, 30);
    assert_followed(&server, &code, &["block sealed", "block confirmed by the broker"]);
    for name in ["clicks", "bus", "bus:held", "bus:blocked", "bus:stopped"] {
        assert_eq!(check(&client, name)["status"], "ok", "{name}");
    }
    assert_eq!(check(&client, "bus:partitions")["observedValue"], 8);
    await_true("all to be confirmed", PATIENCE, || check(&client, "bus:waiting")["observedValue"] == 0);
    for shown in ["connected{side=\"relay\"} 1\n", "connected{side=\"reader\"} 1\n", "offset{partition=\"7\"} "] {
        let shown = format!("terse_bus_{shown}");
        await_true(&shown, PATIENCE, || client.get("/metrics").text().contains(&shown));
    }
    // What a stop publishes last is counted by the next start; what a kill leaves, too.
    for (round, stop) in [(1, Stop::Politely), (2, Stop::AtOnce), (3, Stop::Politely)] {
        click(&server.client(), &code, 25);
        let ended = server.stop(stop);
        assert!(ended.took < END_LIMIT, "{ended:?}");
        server.restart();
        await_total(&server.client(), &code, 30 + 25 * round);
    }
    let said = verify(server.setup(), "fresh.sqlite");
    assert!(said.contains("replayed into fresh.sqlite: clicks 105, streams 8"), "{said}");
}

#[test]
fn one_process_publishes_and_another_counts() {
    let _turn = heavy_turn();
    let setup = with_broker(&shared_broker());
    let front = setup.clone().flag("--role=redirect").flag("--role=api").start();
    let client = front.client();
    let code = client.shorten("https://example.com/");
    click(&client, &code, 10);
    await_true("all to be confirmed", PATIENCE, || {
        Scrape::of(&client).sum(CLICK_BLOCKS_PENDING, &[]) == 0 && check(&client, "bus:waiting")["observedValue"] == 0
    });
    assert_eq!(total(&client, &code), 0, "nobody counts yet");
    let counts = setup.clone().flag("--role=analytics");
    let (mut one, other) = (counts.start(), counts.start());
    await_total(&client, &code, 10);
    // Whoever has the lease counts, and the other one after it.
    one.stop(Stop::AtOnce);
    click(&client, &code, 10);
    await_total(&client, &code, 20);
    let held = |server: &Server| check(&server.client(), "bus:partitions")["observedValue"].clone();
    assert_eq!((held(&other), check(&other.client(), "bus")["status"].clone()), (json!(8), json!("ok")));
    verify(&setup, "fresh.sqlite");
}

#[test]
fn redirects_go_on_without_the_broker_and_all_are_counted_when_it_is_back() {
    let _turn = heavy_turn();
    let mut broker = Broker::start();
    let mut server = with_broker(&broker.url()).start();
    let client = server.client();
    let code = client.shorten("https://example.com/");
    click(&client, &code, 50);
    await_total(&client, &code, 50);
    broker.await_declared();
    broker.kill();
    click(&client, &code, 500);
    await_true("health to tell", PATIENCE, || check(&client, "bus")["status"] == "down");
    let health = client.get("/health").expect(200).json();
    assert_eq!(health["status"], "degraded", "{health}");
    await_true("blocks to wait", PATIENCE, || check(&client, "clicks:pending")["observedValue"] != 0);
    // They get older, and that is told, however little the projector hears of it.
    await_true("their age to be told", PATIENCE, || {
        check(&client, "clicks:lag")["observedValue"].as_u64() >= Some(2_000)
    });
    // It ends, and starts, without the broker as well.
    let ended = server.stop(Stop::Politely);
    assert!(ended.code == Some(0) && ended.took < END_LIMIT, "{ended:?}");
    server.restart();
    let client = server.client();
    click(&client, &code, 50);
    broker.restart();
    await_total(&client, &code, 600);
    await_true("health to be well", PATIENCE, || check(&client, "bus")["status"] == "ok");
    verify(server.setup(), "fresh.sqlite");
}

#[test]
fn whoever_counts_publishes_what_a_server_that_is_gone_left_in_its_directory() {
    let _turn = heavy_turn();
    let mut broker = Broker::start();
    let setup = with_broker(&broker.url());
    let mut front = setup.clone().flag("--role=redirect").flag("--role=api").start();
    let code = front.client().shorten("https://example.com/");
    click(&front.client(), &code, 20);
    broker.await_declared();
    broker.kill();
    click(&front.client(), &code, 30);
    front.stop(Stop::AtOnce);
    broker.restart();
    let api = setup.clone().flag("--role=api").start();
    let counts = setup.clone().flag("--role=analytics");
    let (_one, other) = (counts.start(), counts.start());
    await_total(&api.client(), &code, 50);
    await_true("nothing to wait", PATIENCE, || check(&other.client(), "clicks:lag")["observedValue"] == 0);
    assert_eq!(check(&other.client(), "bus")["status"], "ok", "one stands by, and is well");
    verify(&setup, "fresh.sqlite");
}

#[test]
fn clicks_go_on_while_the_broker_is_killed_and_started_again_under_them() {
    let _turn = heavy_turn();
    let mut broker = Broker::start();
    let server = with_broker(&broker.url()).start();
    let client = server.client();
    let code = client.shorten("https://example.com/");
    let ended = AtomicBool::new(false);
    let answered = std::thread::scope(|scope| {
        let visitor = scope.spawn(|| {
            let mut answered = 0;
            while !ended.load(Ordering::SeqCst) {
                click(&client, &code, 20);
                answered += 20;
                std::thread::sleep(Duration::from_millis(10));
            }
            answered
        });
        let ends = Ends(&ended);
        for _ in 0..2 {
            await_true("clicks to be counted", PATIENCE, || total(&client, &code) > 0);
            broker.await_declared();
            broker.kill();
            broker.restart();
        }
        drop(ends);
        visitor.join().unwrap()
    });
    await_total(&client, &code, answered);
    assert_eq!(broker.dead_letters(), 0);
    verify(server.setup(), "fresh.sqlite");
}

#[test]
fn a_journal_of_another_bus_ends_the_start_until_it_is_drained() {
    let setup = Setup::new();
    let mut server = setup.clone().flag("--role=redirect").flag("--role=api").start();
    let client = server.client();
    let code = client.shorten("https://example.com/");
    click(&client, &code, 3);
    server.stop(Stop::Politely);
    let refused = setup.clone().env("TERSE_BUS", &shared_broker()).run(&["serve"]);
    assert_eq!(refused.code, Some(64), "{refused:?}");
    assert!(refused.stderr.contains("was made for the local bus, not for 8 streams"), "{refused:?}");
    // Counted, it is in nobody's way, but the read model is another bus's.
    let mut counting = setup.clone().start();
    await_total(&counting.client(), &code, 3);
    counting.stop(Stop::Politely);
    let refused = setup.clone().env("TERSE_BUS", &shared_broker()).run(&["serve"]);
    assert!(refused.code == Some(64) && refused.stderr.contains("fresh read model"), "{refused:?}");
    std::fs::remove_file(setup.data().join("stats.sqlite")).unwrap();
    let moved = setup.env("TERSE_BUS", &shared_broker()).start();
    click(&moved.client(), &code, 4);
    await_total(&moved.client(), &code, 4);
}

#[test]
fn a_server_that_can_not_see_how_far_clicks_are_counted_does_not_start() {
    let links = "cql://127.0.0.1:1/links";
    for role in ["redirect", "api"] {
        let setup = with_broker("amqp://127.0.0.1:1/v").env("TERSE_STORE", links).env("TERSE_STATS", "sqlite");
        let refused = setup.run(&["serve", "--role", role]);
        assert!(refused.code == Some(64) && refused.stderr.contains("TERSE_STATS=cql"), "{role}: {refused:?}");
    }
}
