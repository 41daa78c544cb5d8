//! `kill -9` while links are created, again and again on one directory.
//!
//! Every target is used in one request only, so the link that answers with it
//! tells which request made it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use terse_it::{API_LINKS, Client, Connection, Dice, Request, Server, Setup, Stop, await_true, code_of, heavy_turn};

use crate::idempotency::keyed;

/// How many rounds there are unless `TERSE_IT_ROUNDS` says otherwise.
const ROUNDS: usize = 20;
const WRITERS: usize = 16;

/// A request whose answer did not come.
struct Open {
    target: String,
    request: Request,
    /// What a retry of it may be answered.
    alias: Option<String>,
    keyed: bool,
}

#[derive(Default)]
struct Ledger {
    /// Target → code, for every 201.
    acknowledged: HashMap<String, String>,
    open: Vec<Open>,
}

/// Creates links of three kinds until the connection breaks.
fn write_until_killed(client: &Client, round: usize, writer: usize, ended: &AtomicBool, count: &AtomicUsize) -> Ledger {
    let mut ledger = Ledger::default();
    let Ok(mut connection) = Connection::open(client.address()) else { return ledger };
    for n in 0.. {
        let target = format!("https://example.com/{round}/{writer}/{n}");
        let alias = (n % 3 == 1).then(|| format!("a-{round}-{writer}-{n}"));
        let is_keyed = n % 3 == 2;
        let mut body = json!({ "url": target });
        if let Some(alias) = &alias {
            body["alias"] = json!(alias);
        }
        let request = match is_keyed {
            true => keyed(&format!("k-{round}-{writer}-{n}"), &body),
            false => Request::new("POST", API_LINKS).json(&body),
        };
        match connection.call(&request) {
            Ok(answer) => {
                let answer = answer.expect(201);
                ledger.acknowledged.insert(target, code_of(&answer.json()));
                count.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => {
                ledger.open.push(Open { target, request, alias, keyed: is_keyed });
                break;
            }
        }
        if ended.load(Ordering::Relaxed) {
            break;
        }
    }
    ledger
}

/// Runs one round's load and kills the server in the middle of it.
fn kill_during_creates(server: &mut Server, round: usize, dice: &mut Dice) -> Ledger {
    let client = server.client();
    let (ended, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    let enough = 50 + usize::try_from(dice.below(500)).unwrap();
    std::thread::scope(|scope| {
        let write = |writer| {
            let (client, ended, count) = (&client, &ended, &count);
            scope.spawn(move || write_until_killed(client, round, writer, ended, count))
        };
        let threads: Vec<_> = (0..WRITERS).map(write).collect();
        await_true("the load", Duration::from_secs(60), || count.load(Ordering::Relaxed) >= enough);
        server.stop(Stop::AtOnce);
        ended.store(true, Ordering::Relaxed);
        let mut whole = Ledger::default();
        for thread in threads {
            let part = thread.join().unwrap();
            whole.acknowledged.extend(part.acknowledged);
            whole.open.extend(part.open);
        }
        whole
    })
}

/// Retries what was not answered; each must end as exactly one link.
fn settle(client: &Client, ledger: &mut Ledger) {
    for open in std::mem::take(&mut ledger.open) {
        let first = client.send(open.request.clone());
        if let Some(alias) = &open.alias {
            assert!(matches!(first.status, 201 | 409), "{first:?}");
            assert_eq!(client.target(alias), open.target, "the alias was only ever asked for with this target");
            ledger.acknowledged.insert(open.target, alias.clone());
        } else if open.keyed {
            let first = first.expect(201);
            let again = client.send(open.request.clone()).expect(201);
            assert_eq!(first.body, again.body, "one key, one answer");
            ledger.acknowledged.insert(open.target, code_of(&first.json()));
        }
    }
}

fn assert_all_redirect(client: &Client, ledger: &HashMap<String, String>) {
    let mut connection = client.connect();
    for (target, code) in ledger {
        let answer = connection.call(&Request::new("GET", &format!("/{code}"))).unwrap();
        assert_eq!(answer.status, 302, "{code} was acknowledged for {target}: {answer:?}");
        assert_eq!(answer.header("location"), Some(target.as_str()), "{code} answers another link's target");
    }
}

/// Compares the whole list with what was acknowledged: no code and no target
/// twice, except targets that were sent twice without a key (the last ones of a round, generated).
fn assert_list(client: &Client, ledger: &HashMap<String, String>) {
    let links = client.all_links(200);
    let mut by_code: HashMap<String, &Value> = HashMap::new();
    for link in &links {
        assert!(by_code.insert(code_of(link), link).is_none(), "{link} is listed twice");
    }
    let mut by_target: HashMap<&str, usize> = HashMap::new();
    for link in &links {
        *by_target.entry(link["url"].as_str().unwrap()).or_default() += 1;
    }
    for (target, code) in ledger {
        let link = by_code.get(code).unwrap_or_else(|| panic!("{code} was acknowledged and is not listed"));
        assert_eq!(link["url"], *target);
        assert_eq!(by_target[target.as_str()], 1, "{target} has more than one link");
    }
}

#[test]
fn every_acknowledged_link_survives_kill_9_during_creates() {
    let rounds = std::env::var("TERSE_IT_ROUNDS").map_or(ROUNDS, |text| text.parse().unwrap());
    let _turn = heavy_turn();
    let mut dice = Dice::seeded(3);
    let mut server = Setup::new().start();
    let (mut all, mut slowest) = (HashMap::new(), Duration::ZERO);
    for round in 0..rounds {
        let mut ledger = kill_during_creates(&mut server, round, &mut dice);
        assert!(!ledger.acknowledged.is_empty() && !ledger.open.is_empty(), "round {round} killed nothing");
        slowest = slowest.max(server.restart());
        settle(&server.client(), &mut ledger);
        assert_all_redirect(&server.client(), &ledger.acknowledged);
        all.extend(ledger.acknowledged);
    }
    assert_all_redirect(&server.client(), &all);
    assert_list(&server.client(), &all);
    println!("{rounds} rounds, {} acknowledged links, all found; ready within {slowest:?}", all.len());
}

#[test]
fn edits_and_deletes_that_were_acknowledged_survive_kill_9() {
    let mut server = Setup::new().start();
    for round in 0..5 {
        let client = server.client();
        let codes: Vec<String> = (0..3).map(|n| client.shorten(&format!("https://example.com/{round}/{n}"))).collect();
        let _ = client.patch(&codes[0], &json!({ "url": "https://example.org/edited", "title": "t" })).expect(200);
        let _ = client.delete(&codes[1]).expect(204);
        let _ = client.patch(&codes[2], &json!({ "state": "disabled" })).expect(200);
        server.stop(Stop::AtOnce);
        server.restart();
        let client = server.client();
        assert_eq!(client.target(&codes[0]), "https://example.org/edited");
        assert_eq!(client.link(&codes[0])["version"], 2);
        assert_eq!(client.visit(&codes[1]).status, 410);
        assert_eq!(client.visit(&codes[2]).status, 410);
    }
}
