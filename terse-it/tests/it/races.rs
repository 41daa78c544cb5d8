//! Many writers at once.

use std::collections::HashSet;
use std::sync::Barrier;

use serde_json::json;
use terse_it::{API_LINKS, Request, Response, Setup, code_of, code_path, heavy_turn};

use crate::contract::assert_problem;

#[test]
fn two_hundred_creates_of_one_alias_make_one_link() {
    const RACERS: usize = 200;
    let _turn = heavy_turn();
    let server = Setup::new().start();
    let client = server.client();
    for round in 0..3 {
        let alias = format!("wanted-{round}");
        let line = Barrier::new(RACERS);
        let race = |n: usize| {
            let mut connection = client.connect();
            let body = json!({ "url": format!("https://example.com/{round}/{n}"), "alias": alias });
            line.wait();
            connection.call(&Request::new("POST", API_LINKS).json(&body)).unwrap()
        };
        let answers: Vec<Response> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..RACERS).map(|n| scope.spawn(move || race(n))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let (won, lost): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 201);
        assert_eq!(won.len(), 1, "{won:?}");
        for answer in lost {
            assert_problem(answer, 409, Some("alias_taken"));
        }
        assert_eq!(client.target(&alias), won[0].json()["url"].as_str().unwrap());
    }
    assert_eq!(client.all_links(200).len(), 3);
}

#[test]
fn ten_thousand_creates_at_once_make_ten_thousand_codes_that_all_redirect() {
    const WRITERS: usize = 80;
    const EACH: usize = 125;
    let _turn = heavy_turn();
    let server = Setup::new().start();
    let client = server.client();
    let line = Barrier::new(WRITERS);
    let write = |writer: usize| {
        let mut connection = client.connect();
        line.wait();
        let create = |n: usize| {
            let target = format!("https://example.com/{writer}/{n}");
            let request = Request::new("POST", API_LINKS).json(&json!({ "url": target }));
            let answer = connection.call(&request).unwrap().expect(201);
            (code_of(&answer.json()), target)
        };
        let made: Vec<(String, String)> = (0..EACH).map(create).collect();
        line.wait();
        for (code, target) in &made {
            let answer = connection.call(&Request::new("GET", &format!("/{code}"))).unwrap().expect(302);
            assert_eq!(answer.header("location"), Some(target.as_str()));
        }
        made
    };
    let made: Vec<(String, String)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..WRITERS).map(|writer| scope.spawn(move || write(writer))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let codes: HashSet<&String> = made.iter().map(|(code, _)| code).collect();
    assert_eq!(codes.len(), WRITERS * EACH, "a code was given twice");
    let listed: HashSet<String> = client.all_links(200).iter().map(code_of).collect();
    assert_eq!(listed.len(), WRITERS * EACH);
    assert!(codes.iter().all(|code| listed.contains(*code)));
}

#[test]
fn of_edits_guarded_by_one_version_exactly_one_succeeds() {
    const EDITORS: usize = 32;
    let server = Setup::new().start();
    let client = server.client();
    let code = client.shorten("https://example.com/start");
    for round in 1..=10 {
        let etag = client.get(&code_path(&code)).header("etag").unwrap().to_owned();
        let line = Barrier::new(EDITORS);
        let edit = |n: usize| {
            let body = json!({ "url": format!("https://example.com/{round}/{n}") });
            line.wait();
            client.send(Request::new("PATCH", &code_path(&code)).header("If-Match", &etag).json(&body))
        };
        let answers: Vec<Response> = std::thread::scope(|scope| {
            let edit = &edit;
            let threads: Vec<_> = (0..EDITORS).map(|n| scope.spawn(move || edit(n))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let won: Vec<_> = answers.iter().filter(|answer| answer.status == 200).collect();
        assert_eq!(won.len(), 1, "{won:?}");
        assert_eq!(answers.iter().filter(|answer| answer.status == 412).count(), EDITORS - 1, "{answers:?}");
        assert_eq!(client.target(&code), won[0].json()["url"].as_str().unwrap());
        assert_eq!(client.link(&code)["version"], round + 1);
    }
}

#[test]
fn unguarded_edits_at_once_are_all_made_or_refused_openly() {
    const EDITORS: usize = 16;
    let server = Setup::new().start();
    let client = server.client();
    let code = client.shorten("https://example.com/");
    let line = Barrier::new(EDITORS);
    let edit = |n: usize| {
        line.wait();
        client.patch(&code, &json!({ "title": format!("by {n}") })).status
    };
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let edit = &edit;
        let threads: Vec<_> = (0..EDITORS).map(|n| scope.spawn(move || edit(n))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(statuses.iter().all(|status| matches!(status, 200 | 412 | 503)), "{statuses:?}");
    let made = statuses.iter().filter(|status| **status == 200).count();
    assert_eq!(client.link(&code)["version"].as_u64().unwrap(), made as u64 + 1, "{statuses:?}");
}

#[test]
fn a_delete_racing_edits_stays_a_delete() {
    let server = Setup::new().start();
    let client = server.client();
    for _ in 0..20 {
        let code = client.shorten("https://example.com/");
        let line = Barrier::new(4);
        std::thread::scope(|scope| {
            for n in 0..3 {
                let (line, client, code) = (&line, &client, &code);
                scope.spawn(move || {
                    line.wait();
                    let status = client.patch(code, &json!({ "url": format!("https://example.com/{n}") })).status;
                    assert!(matches!(status, 200 | 404 | 412), "{status}");
                });
            }
            line.wait();
            let _ = client.delete(&code).expect(204);
        });
        assert_eq!(client.visit(&code).status, 410);
        assert_eq!(client.get(&code_path(&code)).status, 404);
    }
}
