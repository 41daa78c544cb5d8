#![allow(clippy::unwrap_used)]

use super::*;
use std::io::{Read, Write};
use std::net::TcpListener;

fn plan(servers: Vec<SocketAddr>) -> Plan {
    let link = |n: usize| KnownLink { code: format!("c{n}"), target: format!("https://example.com/c{n}") };
    Plan { servers, links: (0..3).map(link).collect(), redirects: 60, creates: 30, unknown: 10 }
}

/// A server that answers each request by `answer`, given its first line; it ends with the test process.
fn server(answer: fn(&str) -> String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream, answer));
        }
    });
    address
}

fn serve(mut stream: std::net::TcpStream, answer: fn(&str) -> String) {
    let mut chunk = [0; 4_096];
    while let Ok(read) = stream.read(&mut chunk) {
        let text = String::from_utf8_lossy(&chunk[..read]).into_owned();
        if read == 0 || stream.write_all(answer(&text).as_bytes()).is_err() {
            return;
        }
    }
}

fn with_body(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn honest(request: &str) -> String {
    let path = request.split(' ').nth(1).unwrap();
    if request.starts_with("POST") {
        let body = request.split("\r\n\r\n").nth(1).unwrap();
        let url: serde_json::Value = serde_json::from_str(body).unwrap();
        let number = url["url"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        return with_body("201 Created", &json!({ "code": format!("n{number}"), "url": url["url"] }).to_string());
    }
    if path.contains("unknown") {
        return with_body("404 Not Found", "");
    }
    let target = match path.strip_prefix("/n") {
        Some(number) => format!("https://example.com/made/{number}"),
        None => format!("https://example.com{path}"),
    };
    format!("HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n")
}

fn ledger_of(answer: fn(&str) -> String) -> (Ledger, SocketAddr) {
    let address = server(answer);
    let load = Load::start(plan(vec![address]));
    load.run_for(Duration::from_millis(500));
    (load.stop(), address)
}

#[test]
fn each_second_has_all_kinds_at_their_rates() {
    let plan = plan(vec![]);
    let count = |kind: Kind| (0..100).filter(|n| plan.kind(*n) == kind).count();
    assert_eq!((count(Kind::Redirect), count(Kind::Create), count(Kind::Unknown)), (60, 30, 10));
    assert_eq!(plan.due(250), Duration::from_millis(2_500));
}

/// How many were answered, refused and failed, by the timeline.
fn sums(timeline: &Timeline, lane: &str) -> [usize; 3] {
    let picture = timeline.picture().unwrap();
    let sum = |count: fn(&Bucket) -> usize| picture.lane(lane).iter().map(count).sum();
    [sum(|bucket| bucket.answered), sum(|bucket| bucket.refused), sum(|bucket| bucket.failed)]
}

#[test]
fn a_noted_load_has_every_answer_in_the_timeline() {
    let refusing = |request: &str| {
        if request.starts_with("POST") {
            return "HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n".to_owned();
        }
        honest(&request.replace("/c1 ", "/c2 "))
    };
    let timeline = Timeline::start();
    let load = Load::start_noted(plan(vec![server(refusing)]), &timeline, |kind, code| match kind {
        Kind::Redirect if code == "c1" => "redirect, lost",
        kind => kind.name(),
    });
    load.run_for(Duration::from_millis(500));
    let ledger = load.stop();
    let count = |kind: Kind| ledger.records.iter().filter(|record| record.kind == kind).count();
    assert_eq!(sums(&timeline, "create"), [0, count(Kind::Create), 0]);
    assert_eq!(sums(&timeline, "unknown code"), [count(Kind::Unknown), 0, 0]);
    let [others, lost] = ["redirect", "redirect, lost"].map(|lane| sums(&timeline, lane));
    assert!(lost[0] == 0 && lost[2] > 0 && others[0] > 0 && others[2] == 0, "{others:?}, {lost:?}");
    assert_eq!(others[0] + lost[2], count(Kind::Redirect));
    let loaded: Duration = timeline.picture().unwrap().loaded().iter().sum();
    assert!(loaded >= Duration::from_millis(500), "the load ran for {loaded:?}");
}

#[test]
fn an_honest_server_passes_all_checks() {
    let (ledger, address) = ledger_of(honest);
    ledger.assert_truthful();
    ledger.assert_nothing_lost(&[address]);
    for kind in [Kind::Redirect, Kind::Create, Kind::Unknown] {
        ledger.assert_all_good(kind, &ledger.whole());
    }
    assert!(ledger.records.len() >= 40, "{}", ledger.records.len());
    let early = ledger.window(Kind::Redirect, &(Duration::ZERO..Duration::from_millis(100)));
    assert_eq!((early.good, early.availability()), (early.requests, 100.0));
    assert!(ledger.faults().is_empty());
}

#[test]
#[should_panic(expected = "answers were wrong or missing")]
fn a_redirect_to_another_target_is_found() {
    ledger_of(|request| honest(&request.replace("/c1 ", "/c2 "))).0.assert_truthful();
}

#[test]
#[should_panic(expected = "was given to")]
fn a_code_given_twice_is_found() {
    let twice = |request: &str| match request.starts_with("POST") {
        true => {
            let body: serde_json::Value = serde_json::from_str(request.split("\r\n\r\n").nth(1).unwrap()).unwrap();
            with_body("201 Created", &json!({ "code": "same", "url": body["url"] }).to_string())
        }
        false => honest(request),
    };
    ledger_of(twice).0.assert_truthful();
}

#[test]
#[should_panic(expected = "assertion `left == right` failed")]
fn a_lost_link_is_found() {
    let forgets = |request: &str| match request.starts_with("GET /n") {
        true => with_body("404 Not Found", ""),
        false => honest(request),
    };
    let (ledger, address) = ledger_of(forgets);
    ledger.assert_nothing_lost(&[address]);
}

#[test]
fn a_refusal_counts_as_one_only_with_retry_after() {
    let refuses = |_: &str| "HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n".to_owned();
    let (ledger, _) = ledger_of(refuses);
    ledger.assert_truthful();
    ledger.assert_all_refused(Kind::Create, &ledger.whole());
    assert_eq!(ledger.window(Kind::Redirect, &ledger.whole()).availability(), 0.0);
    let careless = |_: &str| with_body("503 Busy", "");
    let (ledger, _) = ledger_of(careless);
    assert!(ledger.records.iter().all(|record| matches!(record.outcome, Outcome::Wrong(_))));
    assert_eq!(ledger.faults().len(), 3);
}

#[test]
fn one_request_in_a_hundred_may_be_refused_and_none_may_be_wrong() {
    let ledger_with = |asked: u32, bad: u32, outcome: &Outcome| {
        let (server, code) = (SocketAddr::from(([127, 0, 0, 1], 1)), String::new());
        let record = |number| Record {
            at: Duration::from_millis(u64::from(number)),
            kind: Kind::Redirect,
            server,
            code: code.clone(),
            latency: Duration::ZERO,
            outcome: if number < bad { outcome.clone() } else { Outcome::Good },
        };
        Ledger::new(plan(vec![server]), (0..asked).map(record).collect())
    };
    let hardly = |ledger: &Ledger| {
        std::panic::catch_unwind(|| ledger.assert_hardly_refused(Kind::Redirect, &ledger.whole())).is_ok()
    };
    let refused = Outcome::Refused(String::new());
    for (asked, bad, passes) in [(20, 0, true), (20, 1, true), (20, 2, false), (300, 3, true), (300, 4, false)] {
        assert_eq!(hardly(&ledger_with(asked, bad, &refused)), passes, "{bad} of {asked}");
    }
    assert!(!hardly(&ledger_with(300, 1, &Outcome::Wrong(String::new()))));
    assert!(!hardly(&ledger_with(0, 0, &refused)), "nothing was asked");
}

#[test]
fn a_server_that_is_away_is_told_as_no_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let load = Load::start(plan(vec![address]));
    load.run_for(Duration::from_millis(200));
    let ledger = load.stop();
    assert!(ledger.records.iter().all(|record| matches!(record.outcome, Outcome::NoAnswer(_))));
}

#[test]
fn percentiles_are_of_the_nearest_rank() {
    let times: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
    assert_eq!(percentile(&times, 50), Duration::from_millis(100));
    assert_eq!(percentile(&times, 99), Duration::from_millis(198));
    assert_eq!(percentile(&times[..1], 99), Duration::from_millis(1));
    assert_eq!(percentile(&[], 99), Duration::ZERO);
}

#[test]
fn a_report_is_told_in_lines_and_in_json() {
    let mut report = Report::default();
    let (p50, p99, max) = (Duration::from_millis(1), Duration::from_millis(2), Duration::from_millis(3));
    report.window("before", &Window { requests: 4, good: 3, refused: 1, p50, p99, max });
    report.time("healed after", Duration::from_millis(1_500));
    report.count("links", 7);
    let text = report.to_string();
    assert!(text.contains("before") && text.contains("75.000 % good") && text.contains("1500.0 ms"), "{text}");
    assert_eq!(report.json()["before"]["p99_ms"], 2.0);
    assert_eq!(report.json()["links"]["count"], 7);
}
