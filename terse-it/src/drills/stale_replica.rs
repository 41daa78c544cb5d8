//! One replica sleeps through a create, an edit and a delete, for longer than
//! writes are held for it, and wakes up with the old state. Nobody may see that.

use std::time::Duration;

use serde_json::json;

use super::Stage;
use crate::cluster::{Cluster, Consistency, Keyspace, SERVE_LIMIT};
use crate::{Client, Server, code_path};

/// The replica that sleeps.
const SLEEPER: usize = 2;
/// How long nodes hold a write for one that says nothing is their write timeout
/// (1 s, 2 s by default); the sleeper drops older ones when it wakes.
const BEYOND_WRITES: Duration = Duration::from_secs(4);
/// How long the sleeper's own rows may take to be read from it alone.
const SHOWN_LIMIT: Duration = Duration::from_secs(5);
/// How often the replica is put to sleep until it wakes up old enough: what it
/// finds waiting for it is partly taken for fresh, more on a busy machine.
const NAPS: usize = 4;

/// The aliases of one set of links: one made, one edited, one deleted while the replica slept.
struct Links {
    made: String,
    edited: String,
    deleted: String,
}

impl Links {
    fn numbered(number: usize) -> Self {
        let alias = |what: &str| format!("{what}-{number}");
        Self { made: alias("made"), edited: alias("edited"), deleted: alias("deleted") }
    }

    fn prepare(&self, client: &Client) {
        client.create(&json!({ "url": "https://example.com/old", "alias": self.edited }));
        client.create(&json!({ "url": "https://example.com/old", "alias": self.deleted }));
    }

    fn change(&self, client: &Client) {
        client.create(&json!({ "url": "https://example.com/new", "alias": self.made }));
        let _ = client.patch(&self.edited, &json!({ "url": "https://example.com/new" })).expect(200);
        let _ = client.delete(&self.deleted).expect(204);
    }

    fn assert_seen_new(&self, client: &Client) {
        assert_eq!(client.target(&self.made), "https://example.com/new");
        assert_eq!(client.target(&self.edited), "https://example.com/new");
        assert_eq!(client.visit(&self.deleted).status, 410, "a deleted link came back");
        assert_eq!(client.link(&self.edited)["url"], "https://example.com/new");
        assert_eq!(client.link(&self.made)["url"], "https://example.com/new");
        assert_eq!(client.get(&code_path(&self.deleted)).status, 404);
    }
}

/// A replica that slept is resumed while it is shown to be old.
pub(super) fn stale_replica(stage: &mut Stage<'_>) {
    let (cluster, keyspace) = (stage.cluster(), stage.cluster().keyspace("stale"));
    let servers = [Stage::uncached(&keyspace).start(), Stage::cached(&keyspace).start()];
    let (links, enough) = (stage.form.pick(6, 18), stage.form.pick(1, 9));
    let mut slept = None;
    for nap in 0..NAPS {
        let sets: Vec<Links> = (nap * links..(nap + 1) * links).map(Links::numbered).collect();
        let shown = change_in_its_sleep(cluster, &keyspace, &servers, &sets);
        let old = shown.iter().all(|count| *count >= enough);
        slept = Some((sets, shown));
        if old {
            break;
        }
    }
    let (sets, shown) = slept.expect("it slept at least once");
    for (what, count) in ["made", "edited", "deleted"].iter().zip(shown) {
        stage.report.count(&format!("links {what} meanwhile that the replica has in their old state"), count);
        assert!(count >= enough, "the replica is not old: {count} of {} links {what}, {NAPS} times", sets.len());
    }

    let late = Stage::uncached(&keyspace).start();
    let readers: Vec<&Server> = servers.iter().chain([&late]).collect();
    for turn in 0..readers.len() {
        // Each set is read first through another server: the first read may mend the replica.
        for (number, links) in sets.iter().enumerate() {
            links.assert_seen_new(&readers[(number + turn) % readers.len()].client());
        }
    }
    stage.report.count("reads through servers, none of them old", sets.len() * readers.len() * 6);
}

/// Changes `sets` through the servers while the replica sleeps, and wakes it.
/// Returns of how many of those made, edited, deleted it has the old state.
fn change_in_its_sleep(cluster: &Cluster, keyspace: &Keyspace, servers: &[Server], sets: &[Links]) -> [usize; 3] {
    sets.iter().for_each(|links| links.prepare(&servers[0].client()));
    cluster.spread(keyspace, sets.iter().flat_map(|links| [&links.edited, &links.deleted]));
    let paused = cluster.pause(SLEEPER);
    for (links, server) in sets.iter().zip(servers.iter().cycle()) {
        links.change(&server.client());
    }
    std::thread::sleep(BEYOND_WRITES);
    paused.resume();
    cluster.await_serving(SLEEPER, SERVE_LIMIT);
    shown_old(cluster, keyspace, sets)
}

/// State and target that the sleeper alone knows for a code.
fn row(cluster: &Cluster, keyspace: &Keyspace, code: &str) -> Option<(String, String)> {
    let query = format!("SELECT state, target FROM {}.links WHERE code = '{code}'", keyspace.name());
    let rows = cluster.ask(SLEEPER, &query, Consistency::LocalOne);
    let rows = rows.unwrap_or_else(|error| panic!("{query}: {error}"));
    let text = |value: &Option<Vec<u8>>| String::from_utf8_lossy(value.as_deref().unwrap_or_default()).into_owned();
    rows.first().map(|row| (text(&row[0]), text(&row[1])))
}

/// How many links the sleeper, asked alone, tells in the old state: of those
/// made, edited, deleted. Right after it woke it may ask a neighbour instead of
/// itself, so it is asked until it has answered for itself. It may know some
/// already: the first messages it finds it takes for fresh, until its clock catches up.
fn shown_old(cluster: &Cluster, keyspace: &Keyspace, sets: &[Links]) -> [usize; 3] {
    let is_old = |row: Option<(String, String)>| row == Some(("active".into(), "https://example.com/old".into()));
    let began = std::time::Instant::now();
    let mut shown = vec![[false; 3]; sets.len()];
    while began.elapsed() < SHOWN_LIMIT && shown.contains(&[false; 3]) {
        for (links, old) in sets.iter().zip(&mut shown) {
            old[0] |= row(cluster, keyspace, &links.made).is_none();
            old[1] |= is_old(row(cluster, keyspace, &links.edited));
            old[2] |= is_old(row(cluster, keyspace, &links.deleted));
        }
    }
    [0, 1, 2].map(|kind| shown.iter().filter(|old| old[kind]).count())
}
