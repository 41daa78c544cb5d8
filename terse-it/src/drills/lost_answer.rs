//! A write is done, and its answer is lost on the wire. Whoever asked for it
//! must not be told that somebody else did it, or that it failed.
//!
//! The drill does not know which message of a request is the conditional write:
//! it loses the answer to the first one, then to the second, and so on, until a
//! request gets through without any loss.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::{FIRST_START_LIMIT, Stage, Wires, shards_file};
use crate::{API_LINKS, Client, Request, Response, Setup, code_of, code_path};

/// More messages than any request takes.
const MOST_MESSAGES: usize = 40;

/// A kind of write. Each gets a word that is part of its target, and of its alias if it has one.
struct Write {
    name: &'static str,
    prepare: fn(&Client, &str),
    request: fn(&str) -> Request,
    check: fn(&Client, &str, &Response),
}

const WRITES: [Write; 5] = [
    Write { name: "alias", prepare: nothing, request: create_alias, check: is_made },
    Write { name: "generated", prepare: nothing, request: create, check: is_made },
    Write { name: "keyed", prepare: nothing, request: create_keyed, check: is_made_once },
    Write { name: "edit", prepare: make, request: edit, check: is_edited },
    Write { name: "delete", prepare: make, request: delete, check: is_deleted },
];

/// The answers to creates, edits and deletes are lost, each message in turn.
pub(super) fn lost_answer(stage: &mut Stage<'_>) {
    let (wires, keyspace) = (Wires::to(stage.cluster()), stage.cluster().keyspace("lost"));
    let file = shards_file(&[wires.shard("main", "0-4095", &keyspace)]);
    let server = Setup::new().ready_within(FIRST_START_LIMIT).env("TERSE_CACHE_ENTRIES", "1").file(&file).start();
    let client = server.client();
    for round in 0..stage.form.pick(1, 5) {
        for write in &WRITES {
            let lost = at_every_message(write, &wires, &client, round);
            stage.report.count(&format!("{} {round}: messages whose answer was lost", write.name), lost);
            assert!(lost > 0, "nothing of '{}' went over the wires", write.name);
        }
    }
    assert_each_made_once(&client);
}

/// Repeats `write` while its 1st, 2nd, … message loses its answer; returns how many it had.
fn at_every_message(write: &Write, wires: &Wires, client: &Client, round: usize) -> usize {
    for message in 1..=MOST_MESSAGES {
        let word = format!("{}-{round}-{message}", write.name);
        (write.prepare)(client, &word);
        let before = sprung(wires);
        lose_answer(wires, &word, message);
        let answer = client.send((write.request)(&word));
        wires.restore();
        (write.check)(client, &word, &answer);
        if sprung(wires) == before {
            return message - 1;
        }
    }
    panic!("'{}' took more than {MOST_MESSAGES} messages", write.name);
}

/// Cuts the connection after the `message`-th message with `word`, whichever node it goes to.
fn lose_answer(wires: &Wires, word: &str, message: usize) {
    let seen = Arc::new(AtomicUsize::new(0));
    for proxy in wires.proxies() {
        let (seen, word) = (Arc::clone(&seen), word.as_bytes().to_vec());
        proxy.cut_after(move |chunk| {
            chunk.windows(word.len()).any(|part| part == word) && seen.fetch_add(1, Ordering::SeqCst) + 1 == message
        });
    }
}

fn sprung(wires: &Wires) -> u64 {
    wires.proxies().iter().map(|proxy| proxy.counts().sprung).sum()
}

fn target(word: &str) -> String {
    format!("https://example.com/lost/{word}")
}

fn nothing(_: &Client, _: &str) {}

fn make(client: &Client, word: &str) {
    client.create(&json!({ "url": "https://example.com/before", "alias": word }));
}

fn create_alias(word: &str) -> Request {
    Request::new("POST", API_LINKS).json(&json!({ "url": target(word), "alias": word }))
}

fn create(word: &str) -> Request {
    Request::new("POST", API_LINKS).json(&json!({ "url": target(word) }))
}

fn create_keyed(word: &str) -> Request {
    create(word).header("Idempotency-Key", word)
}

fn edit(word: &str) -> Request {
    Request::new("PATCH", &code_path(word)).json(&json!({ "url": target(word) })).header("If-Match", "\"1\"")
}

fn delete(word: &str) -> Request {
    Request::new("DELETE", &code_path(word))
}

fn is_made(client: &Client, word: &str, answer: &Response) {
    assert_eq!(answer.status, 201, "{word}: {answer:?}\n{}", answer.text());
    let made: Value = answer.json();
    assert_eq!(made["url"], target(word));
    assert_eq!(client.target(&code_of(&made)), target(word));
}

fn is_made_once(client: &Client, word: &str, answer: &Response) {
    is_made(client, word, answer);
    let again = client.send(create_keyed(word)).expect(201);
    assert_eq!(again.body, answer.body, "one key, one answer");
}

fn is_edited(client: &Client, word: &str, answer: &Response) {
    assert_eq!(answer.status, 200, "{word}: {answer:?}\n{}", answer.text());
    assert_eq!(client.target(word), target(word));
    let link = client.link(word);
    assert_eq!((&link["version"], &link["url"]), (&answer.json()["version"], &json!(target(word))));
}

fn is_deleted(client: &Client, word: &str, answer: &Response) {
    assert_eq!(answer.status, 204, "{word}: {answer:?}\n{}", answer.text());
    assert_eq!(client.visit(word).status, 410);
}

/// No link was made a second time under another code.
fn assert_each_made_once(client: &Client) {
    let links = client.all_links(200);
    let mut targets: Vec<&str> = links.iter().filter_map(|link| link["url"].as_str()).collect();
    let all = targets.len();
    targets.sort_unstable();
    targets.dedup();
    assert_eq!(targets.len(), all, "a target has two links");
}
