//! Starting, ending, restarting, and two servers on one directory.

use std::time::Duration;

use serde_json::json;
use terse_it::{API_LINKS, Connection, Request, Server, Setup, Stop, await_some, await_true};

/// How long an idle server may take to exit.
const IDLE_EXIT: Duration = Duration::from_secs(5);

#[test]
fn an_idle_server_exits_0_within_five_seconds_of_sigterm() {
    let mut server = Setup::new().start();
    server.client().shorten("https://example.com/");
    let ended = server.stop(Stop::Politely);
    assert_eq!(ended.code, Some(0), "{}", ended.stdout);
    assert!(ended.took <= IDLE_EXIT, "{:?}", ended.took);
}

#[test]
fn idle_connections_do_not_hold_up_an_exit() {
    let mut server = Setup::new().start();
    let client = server.client();
    let code = client.shorten("https://example.com/");
    let mut kept: Vec<Connection> = (0..20).map(|_| client.connect()).collect();
    for connection in &mut kept[..10] {
        assert_eq!(connection.call(&Request::new("GET", &format!("/{code}"))).unwrap().status, 302);
        assert_eq!(connection.call(&Request::new("GET", API_LINKS)).unwrap().status, 200);
    }
    let ended = server.stop(Stop::Politely);
    assert_eq!(ended.code, Some(0), "{}", ended.stdout);
    assert!(ended.took <= IDLE_EXIT, "{:?} with idle connections", ended.took);
}

/// Whether `/readyz` says 503 on a connection of its own.
fn is_draining(server: &Server) -> bool {
    let connection = Connection::open(server.address());
    let answer = connection.and_then(|mut connection| connection.call(&Request::new("GET", "/readyz")));
    answer.is_ok_and(|answer| answer.status == 503)
}

#[test]
fn a_draining_server_says_so_and_answers_what_is_in_flight() {
    let mut server = Setup::new().start();
    let client = server.client();
    let whole = Request::new("POST", API_LINKS).json(&json!({ "url": "https://example.com/slow" })).bytes("localhost");
    let (first, rest) = whole.split_at(whole.len() - 10);
    let mut slow = client.connect();
    slow.write(first).unwrap();
    // The server has read the head by the time it answers a later request on another connection.
    assert_eq!(client.get("/readyz").status, 200);
    server.signal(Stop::Politely);
    await_true("/readyz to say 503", Duration::from_secs(5), || is_draining(&server));
    assert_eq!(client.get("/livez").status, 200, "alive while draining");
    assert!(server.finished().is_none(), "it ended with a request in flight");
    slow.write(rest).unwrap();
    let answer = slow.receive(false).unwrap().expect(201);
    let code = terse_it::code_of(&answer.json());
    let ended = await_some("the exit", IDLE_EXIT, || server.finished());
    assert_eq!(ended.code, Some(0), "{}", ended.stdout);
    server.restart();
    assert_eq!(server.client().target(&code), "https://example.com/slow");
}

#[test]
fn a_request_in_flight_is_cut_when_the_grace_period_ends() {
    let mut server = Setup::new().env("TERSE_GRACE_PERIOD", "2s").start();
    let whole = Request::new("POST", API_LINKS).json(&json!({ "url": "https://example.com/" })).bytes("localhost");
    let mut slow = server.client().connect();
    slow.write(&whole[..whole.len() - 10]).unwrap();
    assert_eq!(server.client().get("/readyz").status, 200);
    let ended = server.stop(Stop::Politely);
    assert!(ended.took < Duration::from_secs(8), "{:?}", ended.took);
    assert!(ended.code.is_some(), "{}", ended.stdout);
}

#[test]
fn requests_under_load_are_answered_until_the_listener_closes() {
    let mut server = Setup::new().start();
    let client = server.client();
    let code = client.shorten("https://example.com/");
    let address = server.address();
    std::thread::scope(|scope| {
        let visit = || {
            let mut answered = 0;
            // Every connection that the server accepts gets its answer; a refused one ends the visit.
            while let Ok(mut connection) = Connection::open(address) {
                let request = Request::new("GET", &format!("/{code}")).header("Connection", "close");
                match connection.call(&request) {
                    Ok(answer) => assert_eq!(answer.status, 302),
                    // The kernel accepts for a listener that is closed before the server has.
                    Err(e) => {
                        assert!(
                            matches!(e.kind(), std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::UnexpectedEof),
                            "{e}"
                        );
                        break;
                    }
                }
                answered += 1;
            }
            answered
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(visit)).collect();
        await_true("the load", Duration::from_secs(10), || {
            let text = client.get("/metrics").text();
            text.lines().any(|l| l.starts_with("terse_redirect_seconds_count") && !l.ends_with(" 0"))
        });
        let ended = server.stop(Stop::Politely);
        assert_eq!(ended.code, Some(0), "{}", ended.stdout);
        for thread in threads {
            assert!(thread.join().unwrap() > 0);
        }
    });
}

#[test]
fn a_second_start_keeps_every_link_and_goes_on_with_new_codes() {
    let mut server = Setup::new().start();
    let mut codes = std::collections::HashMap::new();
    for start in 0..4 {
        for n in 0..20 {
            let target = format!("https://example.com/{start}/{n}");
            let code = server.client().shorten(&target);
            assert!(codes.insert(code, target).is_none(), "a code was given twice");
        }
        server.stop(if start % 2 == 0 { Stop::Politely } else { Stop::AtOnce });
        server.restart();
        for (code, target) in &codes {
            assert_eq!(server.client().target(code), *target);
        }
    }
    assert_eq!(server.client().all_links(200).len(), 80);
}

#[test]
fn a_second_server_on_the_directory_is_refused_and_disturbs_nothing() {
    let server = Setup::new().start();
    let code = server.client().shorten("https://example.com/");
    let second = server.setup().run(&["serve"]);
    assert!(!matches!(second.code, Some(0 | 101) | None), "{second:?}");
    let told = format!("{}{}", second.stdout, second.stderr).to_lowercase();
    assert!(told.contains("in use") || told.contains("lock") || told.contains("another"), "{second:?}");
    assert_eq!(server.client().target(&code), "https://example.com/");
    server.client().shorten("https://example.com/more");
}

#[test]
fn of_two_starts_at_once_on_a_fresh_directory_one_serves() {
    for _ in 0..5 {
        let setup = Setup::new();
        let mut both = [setup.launch(), setup.launch()];
        let loser = await_some("one of two to give way", Duration::from_secs(20), || {
            both.iter_mut().position(|server| server.finished().is_some())
        });
        let ended = both[loser].finished().unwrap();
        assert!(!matches!(ended.code, Some(0 | 101) | None), "{ended:?}");
        let winner = &mut both[1 - loser];
        winner.await_ready();
        let code = winner.client().shorten("https://example.com/");
        assert_eq!(winner.client().target(&code), "https://example.com/");
    }
}

#[test]
fn the_directory_is_free_again_after_kill_9() {
    let mut server = Setup::new().start();
    for _ in 0..3 {
        server.stop(Stop::AtOnce);
        server.restart();
        assert_eq!(server.client().get("/livez").status, 200);
    }
}

#[test]
fn each_role_serves_its_part() {
    let mut server = Setup::new().start();
    let code = server.client().shorten("https://example.com/");
    server.stop(Stop::Politely);
    let with_role = |role: &str| server.setup().clone().flag("--role").flag(role).start();
    {
        let redirect = with_role("redirect");
        assert_eq!(redirect.client().visit(&code).status, 302);
        assert_eq!(redirect.client().get(API_LINKS).status, 404);
        assert_eq!(redirect.client().get("/").status, 404);
        assert_eq!(redirect.client().get("/health").status, 200);
        assert_eq!(redirect.client().get("/metrics").status, 200);
    }
    let api = with_role("api");
    assert_eq!(api.client().get(API_LINKS).status, 200);
    assert_eq!(api.client().get("/").status, 200);
    assert_eq!(api.client().visit(&code).status, 404);
    assert_eq!(api.client().get("/livez").status, 200);
}

#[test]
fn logs_are_json_when_nobody_watches() {
    let mut server = Setup::new().start();
    server.client().shorten("https://example.com/");
    let output = server.stop(Stop::Politely).stdout;
    let logged: Vec<&str> = output.lines().filter(|line| line.starts_with('{')).collect();
    assert!(!logged.is_empty(), "{output}");
    for line in logged {
        let entry: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert!(entry["level"].is_string() && entry["timestamp"].is_string(), "{line}");
    }
}
