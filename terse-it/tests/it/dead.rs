//! `terse dead`: what could not be counted, with blocks that are really damaged, beside running servers.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use terse_it::{Client, Finished, Request, Setup, Stop, await_true, code_path, heavy_turn};

use crate::amqp::Amqp;

const PATIENCE: Duration = Duration::from_secs(30);
/// A gap of a living journal is told when it is as old as this.
const GAP_AGE: Duration = Duration::from_secs(16);
const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0";

/// The sealed blocks under `data` that are not aside, in their order.
fn blocks(data: &Path) -> Vec<PathBuf> {
    let journals = fs::read_dir(data.join("journal")).unwrap().map(|entry| entry.unwrap().path());
    let files = journals.filter(|path| path.is_dir()).flat_map(|journal| fs::read_dir(journal).unwrap());
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let mut blocks: Vec<PathBuf> = files.map(|entry| entry.unwrap().path()).collect();
    blocks.retain(|path| name(path).ends_with(".block") && !name(path).starts_with("open-"));
    blocks.sort();
    blocks
}

/// Records a block with so many clicks, and waits until it is sealed.
#[track_caller]
fn record(client: &Client, data: &Path, code: &str, clicks: usize) -> PathBuf {
    let before = blocks(data);
    let mut connection = client.connect();
    for _ in 0..clicks {
        let request = Request::new("GET", &format!("/{code}")).header("User-Agent", FIREFOX);
        assert_eq!(connection.call(&request).unwrap().status, 302);
    }
    await_true("the block to be sealed", PATIENCE, || blocks(data).len() > before.len());
    blocks(data).into_iter().find(|block| !before.contains(block)).unwrap()
}

fn total(client: &Client, code: &str) -> u64 {
    client.get(&format!("{}/stats", code_path(code))).expect(200).json()["total"].as_u64().unwrap()
}

#[track_caller]
fn await_total(client: &Client, code: &str, clicks: u64) {
    await_true(&format!("{clicks} clicks"), PATIENCE, || total(client, code) >= clicks);
    assert_eq!(total(client, code), clicks);
}

fn check(client: &Client, name: &str) -> Value {
    let health = client.get("/health").json();
    let checks = health["checks"].as_array().unwrap();
    checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no {name} in {health}")).clone()
}

fn listed(setup: &Setup) -> Vec<Value> {
    let listed = setup.run(&["dead", "list", "--json"]);
    assert_eq!(listed.code, Some(0), "{listed:?}");
    serde_json::from_str::<Value>(&listed.stdout).unwrap().as_array().unwrap().clone()
}

#[track_caller]
fn ended_with(ended: Finished, code: i32, told: &str) -> Finished {
    assert_eq!(ended.code, Some(code), "{ended:?}");
    assert!(format!("{}{}", ended.stdout, ended.stderr).contains(told), "{told} in {ended:?}");
    ended
}

/// The block's file while it is aside.
fn aside(block: &Path) -> PathBuf {
    block.parent().unwrap().join("quarantine").join(block.file_name().unwrap())
}

/// Damages the records of a block; returns what it was.
fn damage(block: &Path) -> Vec<u8> {
    let whole = fs::read(block).unwrap();
    let mut damaged = whole.clone();
    damaged[150] ^= 0x40;
    fs::write(block, damaged).unwrap();
    whole
}

#[test]
fn a_damaged_block_is_told_requeued_when_it_is_mended_and_counted_once() {
    let _turn = heavy_turn();
    let setup = Setup::new().kept_on_failure();
    let mut front = setup.clone().flag("--role=redirect").flag("--role=api").start();
    let client = front.client();
    let code = client.shorten("https://example.com/");
    let all: Vec<PathBuf> = [3, 5, 7].map(|clicks| record(&client, setup.data(), &code, clicks)).into();
    let whole = damage(&all[1]);
    assert!(listed(&setup).is_empty(), "nobody has read it");
    let counting = setup.clone().flag("--role=analytics").start();
    await_total(&client, &code, 10);
    let dead = listed(&setup);
    assert_eq!(dead.len(), 1, "{dead:?}");
    assert_eq!(
        (&dead[0]["kind"], &dead[0]["clicks"], &dead[0]["requeued"]),
        (&"block".into(), &5.into(), &false.into())
    );
    let id = dead[0]["id"].as_str().unwrap();
    ended_with(setup.run(&["dead", "list"]), 0, id);
    await_true("metrics to tell", PATIENCE, || {
        counting.client().get("/metrics").text().contains("terse_click_blocks_aside 1\n")
    });

    // As it is it can't be counted; mended, it is, beside the servers, once.
    ended_with(setup.run(&["dead", "requeue", id]), 69, "can't be decoded");
    fs::write(aside(&all[1]), &whole).unwrap();
    ended_with(setup.run(&["dead", "requeue", id]), 0, &format!("requeued {id}"));
    await_total(&client, &code, 15);
    await_true("nothing to be left", PATIENCE, || listed(&setup).is_empty());
    ended_with(setup.run(&["dead", "requeue", id]), 64, "there is no");
    assert!(all[1].exists(), "it is kept for replays");
    front.stop(Stop::Politely);
    drop(counting);
    let server = setup.start();
    record(&server.client(), setup.data(), &code, 1);
    await_total(&server.client(), &code, 16);
    ended_with(setup.run(&["replay", "--into", "fresh.sqlite", "--verify"]), 0, " 0 different");
}

#[test]
fn what_is_discarded_is_told_in_clicks_and_never_counted() {
    let _turn = heavy_turn();
    let setup = Setup::new().kept_on_failure();
    let mut front = setup.clone().flag("--role=redirect").flag("--role=api").start();
    let client = front.client();
    let code = client.shorten("https://example.com/");
    let all = [2, 4].map(|clicks| record(&client, setup.data(), &code, clicks));
    damage(&all[0]);
    front.stop(Stop::Politely);
    let mut server = setup.start();
    await_total(&server.client(), &code, 4);
    await_true("the block to be told", PATIENCE, || listed(&setup).len() == 1);
    // Whoever runs it from a script is not asked.
    let told = ended_with(setup.run(&["dead", "discard", "--all", "--json"]), 0, "discarded: 1 with 2 clicks");
    let told: Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!((told["discarded"].as_array().unwrap().len(), told["refused"].as_array().unwrap().len()), (1, 0));
    assert!(listed(&setup).is_empty() && !aside(&all[0]).exists());
    server.stop(Stop::Politely);
    server.restart();
    record(&server.client(), setup.data(), &code, 1);
    await_total(&server.client(), &code, 5);
}

#[test]
fn a_gap_that_stops_a_living_journal_is_told_and_accepted() {
    let _turn = heavy_turn();
    let setup = Setup::new().kept_on_failure();
    let front = setup.clone().flag("--role=redirect").flag("--role=api").start();
    let client = front.client();
    let code = client.shorten("https://example.com/");
    let all: Vec<PathBuf> = [1, 2, 4].map(|clicks| record(&client, setup.data(), &code, clicks)).into();
    fs::remove_file(&all[1]).unwrap();
    let counting = setup.clone().flag("--role=analytics").start();
    await_total(&client, &code, 1);
    File::open(&all[2]).unwrap().set_modified(SystemTime::now() - GAP_AGE).unwrap();
    await_true("the gap to be told", PATIENCE, || listed(&setup).len() == 1);
    let gap = listed(&setup).remove(0);
    assert_eq!((&gap["kind"], &gap["clicks"]), (&"gap".into(), &Value::Null), "{gap}");
    let id = gap["id"].as_str().unwrap();
    assert!(id.ends_with("/1-1"), "{id}");
    // Whoever looks at either process is told which journal stands still, since when, and what to do.
    let told = format!("blocks {id} are missing: see terse dead list");
    for told_by in [&client, &counting.client()] {
        let check = |name: &str| check(told_by, name);
        await_true("health to tell", PATIENCE, || check("clicks:stopped")["observedValue"] == 1);
        let stopped = check("clicks:stopped");
        assert_eq!((&stopped["status"], &stopped["output"]), (&"degraded".into(), &told.as_str().into()));
        assert!(check("clicks:lag")["observedValue"].as_u64() > Some(0), "two blocks wait");
        await_true("metrics to tell", PATIENCE, || {
            told_by.get("/metrics").text().contains("terse_clicks_stopped{at=\"gap\"} 1\n")
        });
    }
    ended_with(setup.run(&["dead", "requeue", id]), 69, "nothing to count");
    ended_with(setup.run(&["dead", "discard", id, "--yes"]), 0, &format!("discarded {id}"));
    await_total(&client, &code, 5);
    assert!(listed(&setup).is_empty());
    for told_by in [&client, &counting.client()] {
        await_true("health to be well again", PATIENCE, || {
            check(told_by, "clicks:stopped")["observedValue"] == 0 && check(told_by, "clicks:lag")["observedValue"] == 0
        });
    }
}

#[test]
fn messages_that_nobody_can_decode_are_told_requeued_and_discarded_at_the_broker() {
    let _turn = heavy_turn();
    let url = std::env::var("TERSE_AMQP").expect("TERSE_AMQP names a RabbitMQ");
    let setup = Setup::new().kept_on_failure().env("TERSE_BUS", &url);
    let migrated = setup.run(&["migrate"]);
    let deployment = migrated.stdout.lines().find_map(|line| line.strip_prefix("deployment ")).unwrap().to_owned();
    let server = setup.start();
    let client = server.client();
    let code = client.shorten("https://example.com/");
    record(&client, setup.data(), &code, 3);
    await_total(&client, &code, 3);
    let exchange = format!("terse.{}.clicks", &deployment[..16]);
    let mut amqp = Amqp::connect(&url);
    amqp.publish(&exchange, "0", b"no part");
    amqp.publish(&exchange, "7", b"no part either");
    drop(amqp);
    await_true("both to be put aside", PATIENCE, || listed(&setup).len() == 2);
    await_true("health to tell", PATIENCE, || check(&client, "bus:dead")["observedValue"] == 2);
    let dead = listed(&setup);
    let of = |bytes: u64| dead.iter().find(|entry| entry["bytes"] == bytes).unwrap_or_else(|| panic!("{dead:?}"));
    let (first, second) = (of(7)["id"].as_str().unwrap(), of(14)["id"].as_str().unwrap());
    assert!(first.starts_with("0@") && second.starts_with("7@"), "{dead:?}");
    assert_eq!(of(7)["kind"], "message");
    ended_with(setup.run(&["dead", "list"]), 0, second);

    // Nobody can decode it now either: it goes back to its stream, and comes aside again from another place.
    ended_with(setup.run(&["dead", "requeue", first]), 0, &format!("requeued {first}"));
    await_true("it to come back", PATIENCE, || {
        let dead = listed(&setup);
        dead.len() == 2 && dead.iter().all(|entry| entry["id"] != first)
    });
    ended_with(setup.run(&["dead", "requeue", first]), 64, "there is no");
    ended_with(setup.run(&["dead", "discard", second, "--yes"]), 0, &format!("discarded {second}"));
    assert_eq!(listed(&setup).len(), 1);
    ended_with(setup.run(&["dead", "discard", "--all", "--yes"]), 0, "discarded");
    assert!(listed(&setup).is_empty());
    let mut connection = client.connect();
    assert_eq!(connection.call(&Request::new("GET", &format!("/{code}"))).unwrap().status, 302);
    await_total(&client, &code, 4);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let setup = Setup::new();
    ended_with(setup.run(&["dead", "list"]), 64, "no data directory");
    assert_eq!(setup.run(&["migrate"]).code, Some(0));
    assert!(listed(&setup).is_empty());
    for arguments in [
        &["dead", "requeue"][..],
        &["dead", "discard"],
        &["dead", "discard", "x", "--all"],
        &["dead", "requeue", "nobody/7"],
        &["dead", "discard", "nobody/7", "--yes"],
    ] {
        assert_eq!(setup.run(arguments).code, Some(64), "{arguments:?}");
    }
    assert_eq!(setup.run(&["dead", "requeue", "--all"]).code, Some(0));
}
