//! `terse replay`: a read model built anew from the journals, and compared with the one that a server keeps.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use terse_core::ShortCode;
use terse_core::ports::clicks::{Batch, ClickStats, ReadModel, Written};
use terse_core::stats::{RowKey, Span};
use terse_store::{SqliteReadModel, SqliteReadModelConfig};

use crate::program::{PATIENCE, Place, Server};

const VERIFY: [&str; 4] = ["replay", "--into", "fresh.sqlite", "--verify"];

/// Clicks on `code`, as a browser would.
fn click(server: &Server, code: &str, times: usize) {
    for _ in 0..times {
        let agent = "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0";
        let headers = [agent, "Accept-Language: de,en;q=0.5", "Referer: https://example.org/page"];
        assert_eq!(server.request("GET", &format!("/{code}"), &headers, "").0, 302);
    }
}

fn total(server: &Server, code: &str) -> u64 {
    let (status, answer) = server.get(&format!("/api/v1/links/{code}/stats"));
    assert_eq!(status, 200, "{answer}");
    let body: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    body["total"].as_u64().unwrap()
}

/// Waits until so many clicks of `code` are counted.
fn await_total(server: &Server, code: &str, clicks: u64) {
    let deadline = Instant::now() + PATIENCE;
    while total(server, code) != clicks {
        assert!(Instant::now() < deadline, "{} of {clicks} clicks are counted", total(server, code));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A server that has counted seven clicks on `one` and two on `other`.
fn counted(place: &Place) -> Server {
    let server = place.serve(&[]);
    for (code, times) in [("one", 7), ("other", 2)] {
        assert_eq!(server.create(code, None), 201);
        click(&server, code, times);
        await_total(&server, code, times as u64);
    }
    server
}

fn end(server: Server) {
    server.signal("TERM");
    assert!(server.end(PATIENCE).0.success());
}

fn read_model(path: &Path) -> Arc<SqliteReadModel> {
    SqliteReadModel::open(SqliteReadModelConfig::new(path)).unwrap()
}

fn key(code: &str, span: Span) -> RowKey {
    RowKey { code: ShortCode::parse(code).unwrap(), span }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// The sealed blocks of all journals, in order of their names.
fn blocks(place: &Place) -> Vec<PathBuf> {
    let journals = fs::read_dir(place.path().join("data/journal")).unwrap();
    let files = journals.flat_map(|journal| fs::read_dir(journal.unwrap().path()).unwrap());
    let mut blocks: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    blocks.retain(|path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.ends_with(".block") && !name.starts_with("open-")
    });
    blocks.sort();
    blocks
}

fn no_copy_is_left(place: &Place) {
    for suffix in ["", "-wal", "-shm"] {
        let copy = place.path().join(format!("fresh.sqlite.compared{suffix}"));
        assert!(!copy.exists(), "{}", copy.display());
    }
}

#[test]
fn a_replay_beside_a_running_server_differs_in_nothing_and_disturbs_nothing() {
    let place = Place::new();
    let server = counted(&place);
    let said = place.run(&VERIFY);
    let text = said.success();
    assert!(text.contains("replayed into fresh.sqlite: clicks 9, journals 1"), "{text}");
    assert!(text.contains("compared 6 rows: 0 different"), "{text}");
    assert!(text.contains("6 equal, 0 equal in their sums"), "{text}");
    no_copy_is_left(&place);
    // Its lease and what it passed are its own still.
    click(&server, "one", 3);
    await_total(&server, "one", 10);
    fs::remove_file(place.path().join("fresh.sqlite")).unwrap();
    assert!(place.run(&VERIFY).success().contains(": clicks 12, journals 1"));
    end(server);
}

#[test]
fn a_replay_while_clicks_go_on_ends_where_the_read_model_was() {
    let place = Place::new();
    let server = counted(&place);
    std::thread::scope(|scope| {
        let place = &place;
        let replays = scope.spawn(move || {
            for number in 0..3 {
                let into = format!("fresh{number}.sqlite");
                let said = place.run(&["replay", "--into", &into, "--verify"]);
                assert!(said.success().contains(" 0 different"), "{}", said.out);
            }
        });
        let mut clicks = 2;
        while !replays.is_finished() {
            click(&server, "other", 5);
            clicks += 5;
        }
        replays.join().unwrap();
        await_total(&server, "other", clicks);
    });
    end(server);
}

#[test]
fn a_row_that_was_changed_by_hand_is_named() {
    let place = Place::new();
    end(counted(&place));
    let model = read_model(&place.path().join("data/stats.sqlite"));
    block_on(async {
        let key = key("one", Span::All);
        let mut rows = vec![(key.clone(), model.load(&[key]).await.unwrap().remove(0).unwrap())];
        rows[0].1.row.clicks += 1;
        model.attach().await.unwrap();
        let rows = rows.into_iter().map(|(key, row)| (key, row.into())).collect();
        assert_eq!(model.write(&Batch { rows, ..Batch::default() }).await.unwrap(), Written::Stands);
    });
    model.close();
    let said = place.run(&VERIFY);
    assert_eq!(said.code, Some(1), "{}{}", said.out, said.err);
    assert!(said.out.contains("compared 6 rows: 1 different"), "{}", said.out);
    assert!(said.out.contains("\n  one, all time: 8 clicks, 7 by the log"), "{}", said.out);
    assert!(said.err.contains("not what the click log says: 1"), "{}", said.err);
    no_copy_is_left(&place);
}

#[test]
fn a_replay_builds_what_the_server_had_and_leaves_the_journals_as_they_are() {
    let place = Place::new();
    let server = counted(&place);
    server.signal("KILL");
    server.end(PATIENCE);
    // What a kill left open is recovered by the next start, and is no part of the log before.
    end(place.serve(&[]));
    let before = blocks(&place);
    place.run(&["replay", "--into", "fresh.sqlite"]).success();
    assert_eq!(blocks(&place), before);
    let fresh = read_model(&place.path().join("fresh.sqlite"));
    block_on(async {
        for (code, clicks) in [("one", 7), ("other", 2)] {
            let row = fresh.overall(&ShortCode::parse(code).unwrap()).await.unwrap().unwrap();
            assert_eq!((row.clicks, row.bots), (clicks, 0), "{code}");
        }
    });
}

#[test]
fn a_log_that_lost_its_beginning_is_not_verified_but_replayed() {
    let place = Place::new();
    end(counted(&place));
    fs::remove_file(&blocks(&place)[0]).unwrap();
    let said = place.run(&VERIFY);
    assert!(said.refusal(69).contains("no longer begins at its first block"), "{}", said.err);
    no_copy_is_left(&place);
    let said = place.run(&["replay", "--into", "fresh.sqlite"]);
    assert!(said.success().contains("replayed "), "{}", said.out);
}

#[test]
fn a_log_with_a_hole_is_not_verified() {
    let place = Place::new();
    end(counted(&place));
    let all = blocks(&place);
    assert!(all.len() >= 3, "the last one ends the journal: {all:?}");
    fs::remove_file(&all[1]).unwrap();
    let said = place.run(&VERIFY);
    assert!(
        said.refusal(69).contains("does not hold block") && said.err.contains("/1 as it was counted"),
        "{}",
        said.err
    );
}

#[test]
fn a_journal_that_waits_for_its_recovery_is_named() {
    let place = Place::new();
    let server = counted(&place);
    // A block that is still written, in front of one that is sealed.
    server.signal("KILL");
    server.end(PATIENCE);
    let all = blocks(&place);
    let (sealed, last) = (all.len() - 1, all.last().unwrap());
    fs::rename(last, last.with_file_name(format!("{:020}.block", sealed + 1))).unwrap();
    let said = place.run(&["replay", "--into", "fresh.sqlite"]);
    assert!(said.refusal(69).contains("waits for a server to recover it"), "{}", said.err);
}

#[test]
fn only_a_fresh_file_is_built_into() {
    let place = Place::new();
    let refused = |arguments: &[&str], told: &str| {
        let said = place.run(arguments);
        assert!(said.refusal(64).contains(told), "{arguments:?}: {}", said.err);
    };
    refused(&["replay"], "--into");
    place.write("used.sqlite", "something");
    refused(&["replay", "--into", "used.sqlite"], "used.sqlite is there already");
    refused(&["replay", "--into", "."], "is there already");
    refused(&["replay", "--into", "cql://127.0.0.1/fresh"], "TERSE_BUS");
    refused(&["replay", "--into", "cql://127.0.0.1/"], "keyspace");
    refused(&VERIFY, "there is no read model to compare with");
    assert!(!place.path().join("data").exists() && !place.path().join("fresh.sqlite").exists());
    let broker = Place::new().with("TERSE_BUS", "amqp://me:s3cret@127.0.0.1/v");
    let said = broker.run(&["replay", "--into", "fresh.sqlite"]);
    assert!(said.refusal(64).contains("no server was started on") && !said.err.contains("s3cret"), "{}", said.err);
    end(broker.serve(&[]));
    let said = broker.run(&["replay", "--into", "fresh.sqlite"]);
    assert!(said.refusal(69).contains("message broker") && !said.err.contains("s3cret"), "{}", said.err);
}

#[test]
fn a_deployment_without_clicks_is_replayed_into_an_empty_read_model() {
    let place = Place::new();
    end(place.serve(&[]));
    let said = place.run(&VERIFY);
    assert!(said.success().contains(": clicks 0, journals 0"), "{}", said.out);
    assert!(said.out.contains("compared 0 rows: 0 different"), "{}", said.out);
}
