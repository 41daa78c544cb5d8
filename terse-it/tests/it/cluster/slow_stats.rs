//! A read model that is slow or away: who asks for statistics hears so soon, and nobody else notices.

use std::time::{Duration, Instant};

use serde_json::Value;
use terse_it::cluster::Cluster;
use terse_it::{Client, Request, Setup, await_true, code_path, heavy_turn};

/// A first start on a keyspace makes its tables.
const KEYSPACE_LIMIT: Duration = Duration::from_secs(120);
/// How long a report may take that a read model holds up: three seconds, the step that goes on then, and what a busy
/// machine adds.
const REPORT_LIMIT: Duration = Duration::from_secs(20);
/// Within this time whoever needs no read model is answered, on a machine that has other things to do; whoever waits
/// for one hears after three seconds.
const PROMPTLY: Duration = Duration::from_millis(2_500);
/// How many ask for statistics at once: more than may.
const ASKERS: usize = 100;

/// Nobody listens there: blocks stay on disk.
const NO_BROKER: &str = "amqp://127.0.0.1:9/%2f";

/// An answer to a question for statistics, and how long it took.
fn ask(client: &Client, code: &str) -> (u16, Option<String>, Duration) {
    let began = Instant::now();
    let answer = client.send(Request::new("GET", &format!("{}/stats?interval=hour", code_path(code))));
    (answer.status, answer.header("Retry-After").map(str::to_owned), began.elapsed())
}

/// Asserts that a redirect and a create are answered as ever.
#[track_caller]
fn assert_unharmed(client: &Client, code: &str) {
    let began = Instant::now();
    assert_eq!(client.get(&format!("/{code}")).status, 302);
    assert!(began.elapsed() < PROMPTLY, "a redirect took {:?}", began.elapsed());
    let began = Instant::now();
    client.shorten("https://example.com/another");
    assert!(began.elapsed() < PROMPTLY, "a create took {:?}", began.elapsed());
}

fn breaker(client: &Client) -> Value {
    let breakers = client.get("/api/v1/admin/breakers").expect(200).json();
    let named = |of: &&Value| of["name"] == "stats";
    breakers["items"].as_array().unwrap().iter().find(named).unwrap_or_else(|| panic!("{breakers}"))["state"].clone()
}

#[test]
fn a_read_model_that_hangs_is_told_of_soon_and_harms_no_redirect_and_no_create() {
    let _turn = heavy_turn();
    let cluster = Cluster::from_env();
    let keyspace = cluster.keyspace("slow_stats");
    let setup = Setup::new().env("TERSE_BUS", NO_BROKER).env("TERSE_STATS", &keyspace.store());
    let server = setup.ready_within(KEYSPACE_LIMIT).start();
    let client = server.client();
    let code = client.shorten("https://example.com/");
    await_true("statistics", KEYSPACE_LIMIT, || ask(&client, &code).0 == 200);
    assert_eq!(breaker(&client), "closed");

    let paused: Vec<_> = (0..cluster.len()).map(|number| cluster.pause(number)).collect();
    std::thread::scope(|scope| {
        let askers: Vec<_> = (0..ASKERS).map(|_| scope.spawn(|| ask(&server.client(), &code))).collect();
        while !askers.iter().all(|asker| asker.is_finished()) {
            assert_unharmed(&client, &code);
        }
        for asker in askers {
            let (status, retry_after, took) = asker.join().unwrap();
            assert_eq!(status, 503);
            assert!(retry_after.is_some_and(|seconds| seconds.parse::<u32>().is_ok_and(|seconds| seconds > 0)));
            assert!(took < REPORT_LIMIT, "{took:?}");
        }
    });
    // By now nobody waits any more, but for a few probes.
    assert_ne!(breaker(&client), "closed");
    let mut quick = 0;
    for _ in 0..20 {
        let (status, retry_after, took) = ask(&client, &code);
        assert!(status == 503 && retry_after.is_some() && took < REPORT_LIMIT, "{status} {took:?}");
        quick += usize::from(took < PROMPTLY);
        assert_unharmed(&client, &code);
    }
    assert!(quick >= 14, "{quick} of 20 were told at once");
    assert_eq!(client.get("/health").status, 200, "degraded, and no more than that");
    drop(paused);
    await_true("statistics again", KEYSPACE_LIMIT, || ask(&client, &code).0 == 200);
}
