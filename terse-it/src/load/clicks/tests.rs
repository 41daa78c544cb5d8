#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use super::*;
use crate::load::Bucket;

fn links(count: usize) -> Vec<KnownLink> {
    let link = |n| KnownLink { code: format!("c{n}"), target: format!("https://example.com/c{n}") };
    (0..count).map(link).collect()
}

fn plan(server: SocketAddr) -> ClickPlan {
    ClickPlan { server, links: links(5), per_second: 400, visitors: 4, wordy: false, seed: 7 }
}

/// A server that answers each request by `answer`, given its head; "" closes. It ends with the test process.
fn server(answer: fn(&str) -> String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut chunk = [0; 8_192];
                while let Ok(read) = stream.read(&mut chunk) {
                    let text = answer(&String::from_utf8_lossy(&chunk[..read]));
                    if read == 0 || text.is_empty() || stream.write_all(text.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

fn redirect(head: &str) -> String {
    let path = head.split(' ').nth(1).unwrap_or_default();
    format!("HTTP/1.1 302 Found\r\nLocation: https://example.com{path}\r\nContent-Length: 0\r\n\r\n")
}

fn ledger_of(answer: fn(&str) -> String) -> ClickLedger {
    let load = ClickLoad::start(plan(server(answer)));
    std::thread::sleep(Duration::from_millis(400));
    load.stop()
}

#[test]
fn every_answered_click_is_in_the_ledger_and_no_head_request() {
    let load = ClickLoad::start(plan(server(redirect)));
    load.await_more(150, Duration::from_secs(10));
    let ledger = load.stop();
    ledger.assert_all_answered();
    let sum = ledger.sum();
    assert!(sum.received >= 150 && sum.sent == sum.received, "{sum:?}");
    assert!(ledger.latency(50) <= ledger.latency(99));
    let most: Vec<u64> = ledger.tallies().map(|(_, tally)| tally.sent).collect();
    assert!(most[0] > most[4], "the first link is clicked on most: {most:?}");
}

#[test]
fn a_noted_load_has_every_click_in_the_timeline() {
    let timeline = Timeline::start();
    let answer = |head: &str| match head {
        head if head.contains("/c1 ") => "HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n".to_owned(),
        head if head.contains("/c2 ") => redirect(&head.replace("/c2", "/d")),
        head => redirect(head),
    };
    let load = ClickLoad::start_noted(plan(server(answer)), &timeline);
    load.await_more(100, Duration::from_secs(10));
    let ledger = load.stop();
    let picture = timeline.picture().unwrap();
    let sum = |count: fn(&Bucket) -> usize| picture.lane("redirect").iter().map(count).sum::<usize>() as u64;
    let (all, refused) = (ledger.sum(), ledger.refused());
    assert_eq!(sum(|bucket| bucket.answered), all.received);
    assert_eq!(sum(|bucket| bucket.refused), refused);
    assert_eq!(sum(|bucket| bucket.failed), all.sent - all.received - refused);
    assert!(refused > 0 && all.sent > all.received + refused, "{all:?}");
}

#[test]
fn a_request_that_gets_no_answer_is_sent_but_not_received() {
    let ledger = ledger_of(|_| String::new());
    let sum = ledger.sum();
    assert!(sum.sent > 0 && sum.received == 0 && ledger.unanswered() == sum.sent, "{sum:?}");
    ledger.assert_truthful();
    assert!(std::panic::catch_unwind(|| ledger.assert_all_answered()).is_err());
}

#[test]
fn a_request_without_a_connection_was_not_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let load = ClickLoad::start(plan(address));
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(load.stop().sum(), Tally::default());
}

#[test]
fn an_answer_that_closes_is_an_answer_and_the_next_request_has_a_new_connection() {
    let closing = |head: &str| redirect(head).replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    ledger_of(closing).assert_all_answered();
}

#[test]
fn refusals_and_wrong_targets_are_told_apart() {
    let refused = ledger_of(|_| "HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n".to_owned());
    refused.assert_truthful();
    assert!(refused.refused() > 0 && refused.sum().received == 0);
    let wrong = ledger_of(|head| redirect(&head.replace("/c", "/d")));
    assert!(std::panic::catch_unwind(|| wrong.assert_truthful()).is_err());
}

#[test]
fn ledgers_of_two_loads_add_up_and_are_told_code_by_code() {
    let mut ledger = ledger_of(redirect);
    let before = ledger.sum();
    let other = ledger_of(|_| String::new());
    let sent = other.sum().sent;
    ledger.add(other);
    assert_eq!(ledger.sum(), Tally { sent: before.sent + sent, received: before.received });
    let told = ledger.json(&BTreeMap::from([("c1".to_owned(), 4)]));
    assert_eq!((&told["codes"][1]["code"], &told["codes"][1]["counted"]), (&"c1".into(), &4.into()));
    assert!(told["codes"][0]["counted"].is_null() && told["unanswered"].as_u64() > Some(0));
}

#[test]
fn weights_are_those_of_zipf() {
    assert_eq!(zipf(4), [1_000_000, 1_500_000, 1_833_333, 2_083_333]);
}

#[test]
fn a_wordy_visitor_tells_more_than_is_recorded() {
    let mut dice = Dice::seeded(1);
    let [one, other] = [(); 2].map(|()| Visitor::numbered(0, true).request("GET", "a", &mut dice));
    for name in ["User-Agent", "Referer"] {
        let [one, other] = [&one, &other].map(|request| &request.headers.iter().find(|(n, _)| n == name).unwrap().1);
        assert!(one.len() >= 590, "{name}: {one}");
        assert_ne!(one[..50], other[..50], "{name}");
    }
    let plain = Visitor::numbered(7, false).request("HEAD", "a", &mut Dice::seeded(1));
    assert!(plain.headers.iter().any(|(name, value)| name == "DNT" && value == "1"), "{plain:?}");
}
