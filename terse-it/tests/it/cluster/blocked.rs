//! What an admin blocks through one server shows on the others within a second.

use std::time::{Duration, Instant};

use serde_json::json;
use terse_it::cluster::Cluster;
use terse_it::{Client, Setup, await_true, heavy_turn};

/// A first start on a keyspace makes its tables.
const KEYSPACE_LIMIT: Duration = Duration::from_secs(120);
/// By when a change shows on another server.
const SHOWN: Duration = Duration::from_secs(1);
/// By when it does at last on a machine that has other things to do.
const AT_LAST: Duration = Duration::from_secs(20);
/// Changes of which the quickest must have shown in time.
const CHANGES: usize = 4;

fn change(client: &Client, action: &str) {
    let answer = client.post("/api/v1/admin/block", &json!({"host": "evil.example", "action": action}));
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[test]
fn what_is_blocked_through_one_server_is_451_on_the_other_within_a_second() {
    let _turn = heavy_turn();
    let keyspace = Cluster::from_env().keyspace("blocked");
    let start = || Setup::new().env("TERSE_STORE", &keyspace.store()).ready_within(KEYSPACE_LIMIT).start();
    let servers = [start(), start()];
    let [here, there] = [&servers[0], &servers[1]].map(|server| server.client());
    let code = here.shorten("https://www.evil.example/");
    let path = format!("/{code}");
    for client in [&here, &there, &there] {
        assert_eq!(client.get(&path).status, 302);
    }
    let mut took = Vec::new();
    for number in 0..CHANGES {
        let (action, status) = if number % 2 == 0 { ("block", 451) } else { ("unblock", 302) };
        let (by, other) = if number < CHANGES / 2 { (&here, &there) } else { (&there, &here) };
        change(by, action);
        let began = Instant::now();
        assert_eq!(by.get(&path).status, status, "here at once");
        await_true("the other server to follow", AT_LAST, || other.get(&path).status == status);
        took.push(began.elapsed());
    }
    took.sort();
    assert!(took[0] < SHOWN, "{took:?}");
    println!("shown after {took:?}");
}
