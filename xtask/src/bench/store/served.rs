//! The server over HTTP on each kind of store: creates one by one, and
//! redirects that its cache doesn't know.
//!
//! All servers run at once and are measured in turn. Their cache holds one
//! entry, and the server's own count of who answered says whether it was the store.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::super::Bench;
use super::super::draw::Draw;
use super::super::generator::{Pace, Workload};
use super::super::links::{Creates, Redirects, assert_distinct};
use super::super::report::{Reading, Series};
use super::super::server::Server;
use super::super::tiers::Tiers;
use super::super::wire::Answer;
use super::Cluster;
use super::program::max_refused_percent;
use crate::services::cql::{Connection, Consistency};

/// How many draws are made for a window; they repeat after that.
const DRAWS: usize = 1 << 16;
/// Where all draws begin.
const SEED: u64 = 0x0005_704e;
/// Of the redirects, how many the store must have answered, in percent.
const MIN_UNCACHED_PERCENT: f64 = 90.0;
/// How long the cluster may take to drop a keyspace.
const DROP_LIMIT: Duration = Duration::from_secs(30);
/// The names and slots of two shards.
const SHARDS: [(&str, &str); 2] = [("a", "0-2047"), ("b", "2048-4095")];

/// A kind of store behind a server.
struct Setting {
    name: String,
    /// What the server's configuration file says.
    config: String,
}

/// A server and what was created on it.
struct Contender {
    server: Server,
    creates: Creates,
    created: Series,
    redirected: Series,
}

/// Measures SQLite and `clusters`, each with one shard and with two.
///
/// # Errors
/// When a server fails or answers wrong, or its cache answers instead of the store.
pub fn measure(bench: &Bench<'_>, clusters: &[Cluster]) -> Result<Vec<Series>> {
    for cluster in clusters {
        drop_keyspaces(cluster)?;
    }
    let measured = on_servers(bench, clusters);
    // Whatever became of it, nothing is left on a cluster that others use.
    let dropped = clusters.iter().try_for_each(drop_keyspaces);
    let measured = measured?;
    dropped?;
    Ok(measured)
}

fn on_servers(bench: &Bench<'_>, clusters: &[Cluster]) -> Result<Vec<Series>> {
    let settings: Vec<Setting> =
        settings(clusters).into_iter().filter(|setting| bench.run.wants(&setting.name)).collect();
    let mut contenders = settings.iter().map(|setting| start(bench, setting)).collect::<Result<Vec<_>>>()?;
    for round in 0..bench.run.rounds() as usize {
        for step in 0..contenders.len() {
            // Each round begins with another one, so that none always follows the same.
            let at = (round + step) % contenders.len();
            contenders[at].measure(bench, round as u64)?;
        }
        println!("served: round {} of {}", round + 1, bench.run.rounds());
    }
    let mut series = Vec::new();
    for contender in contenders {
        contender.server.stop()?;
        assert_distinct(&contender.creates.links)?;
        series.extend([contender.created, contender.redirected]);
    }
    Ok(series)
}

fn start(bench: &Bench<'_>, setting: &Setting) -> Result<Contender> {
    let folder = setting.name.replace([' ', ','], "-");
    let data = bench.data(&folder)?;
    let config = bench.folder.join(folder).with_extension("toml");
    fs::write(&config, &setting.config)?;
    let server = bench.servers.terse_with(&bench.terse, &data, Some(&config));
    let server = server.with_context(|| setting.name.clone())?;
    let creates = Creates::new(server.address);
    let series = |what: &str| Series::new(&format!("served: {}, {what}", setting.name));
    Ok(Contender { server, creates, created: series("creates"), redirected: series("uncached redirects") })
}

impl Contender {
    fn measure(&mut self, bench: &Bench<'_>, round: u64) -> Result<()> {
        let server = (self.server.pid(), self.server.address);
        let mut creates = Tolerant::new(&mut self.creates);
        let readings = bench.measure(server, Pace::Closed, &mut creates)?;
        let refused = creates.check(&self.created.name, max_refused_percent(bench.run))?;
        self.created.add(with(readings, [("refused", refused)]));
        let links = &self.creates.links;
        let mut draw = Draw::seeded(SEED + round);
        let order = (0..DRAWS).map(|_| draw.below(links.len()) as u32).collect();
        let mut redirects = Redirects::repeated(links, order);
        let mut redirects = Tolerant::new(&mut redirects);
        let before = Tiers::read(self.server.address)?;
        let readings = bench.measure(server, Pace::Closed, &mut redirects)?;
        let refused = redirects.check(&self.redirected.name, max_refused_percent(bench.run))?;
        let after = Tiers::read(self.server.address)?;
        let between = after.since(&before);
        let (uncached, stale) = (between.uncached_percent(), between.stale);
        if uncached < MIN_UNCACHED_PERCENT {
            bail!("{}: only {uncached:.1} % of the redirects asked the store", self.redirected.name);
        }
        self.redirected.add(with(readings, [("stale", stale), ("refused", refused), ("uncached_percent", uncached)]));
        Ok(())
    }
}

fn with<const N: usize>(mut readings: Vec<Reading>, more: [Reading; N]) -> Vec<Reading> {
    readings.extend(more);
    readings
}

/// A workload some of whose answers may be 503: the store may refuse for a moment.
struct Tolerant<'a> {
    inner: &'a mut dyn Workload,
    answers: u64,
    refused: u64,
}

impl<'a> Tolerant<'a> {
    fn new(inner: &'a mut dyn Workload) -> Self {
        Self { inner, answers: 0, refused: 0 }
    }

    /// How many were refused, if at most so many percent of all answers.
    fn check(&self, name: &str, max_percent: u64) -> Result<f64> {
        if self.refused == self.answers || self.refused * 100 > self.answers * max_percent {
            bail!("{name}: {} of {} answers were 503", self.refused, self.answers);
        }
        Ok(self.refused as f64)
    }
}

impl Workload for Tolerant<'_> {
    fn request(&mut self, out: &mut Vec<u8>) -> Option<u64> {
        self.inner.request(out)
    }

    fn check(&mut self, id: u64, answer: &Answer<'_>) -> Result<()> {
        self.answers += 1;
        if answer.status == 503 {
            self.refused += 1;
            return Ok(());
        }
        self.inner.check(id, answer)
    }
}

/// Every store that is served, with its configuration.
fn settings(clusters: &[Cluster]) -> Vec<Setting> {
    let mut settings = vec![
        Setting { name: "SQLite, 1 shard".into(), config: config(&["sqlite".to_owned()]) },
        Setting { name: "SQLite, 2 shards".into(), config: config(&["sqlite".to_owned(), "sqlite".to_owned()]) },
    ];
    for cluster in clusters {
        let one = config(&[url(cluster, KEYSPACES[0])]);
        settings.push(Setting { name: format!("{}, 1 shard", cluster.name), config: one });
        let two = config(&[url(cluster, KEYSPACES[1]), url(cluster, KEYSPACES[2])]);
        settings.push(Setting { name: format!("{}, 2 shards", cluster.name), config: two });
    }
    settings
}

/// The keyspace of the one shard, and those of the two.
const KEYSPACES: [&str; 3] = ["terse_bench_served_only", "terse_bench_served_a", "terse_bench_served_b"];

fn url(cluster: &Cluster, keyspace: &str) -> String {
    format!("cql://{}/{keyspace}?replication={}", cluster.hosts.join(","), cluster.replication)
}

/// A configuration file with a cache of one entry, and one shard or two on `stores`.
fn config(stores: &[String]) -> String {
    let mut text = "cache_entries = 1\n".to_owned();
    if let [store] = stores {
        return text + &format!("store = \"{store}\"\n");
    }
    for ((name, slots), store) in SHARDS.iter().zip(stores) {
        text += &format!("\n[[shard]]\nname = \"{name}\"\nslots = \"{slots}\"\nstore = \"{store}\"\n");
    }
    text
}

fn drop_keyspaces(cluster: &Cluster) -> Result<()> {
    let host = cluster.hosts.first().context("a cluster without nodes")?;
    let mut connection = Connection::open(host.parse()?, DROP_LIMIT)?;
    for keyspace in KEYSPACES {
        connection.query(&format!("DROP KEYSPACE IF EXISTS {keyspace}"), Consistency::Quorum)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster() -> Cluster {
        Cluster {
            name: "CQL 3 nodes",
            hosts: vec!["127.0.0.11:9042".into(), "127.0.0.12:9042".into()],
            replication: 3,
            pids: vec![],
        }
    }

    #[test]
    fn each_store_is_served_with_one_shard_and_with_two() {
        let names: Vec<_> = settings(&[cluster()]).into_iter().map(|setting| setting.name).collect();
        assert_eq!(names, ["SQLite, 1 shard", "SQLite, 2 shards", "CQL 3 nodes, 1 shard", "CQL 3 nodes, 2 shards"]);
    }

    #[test]
    fn two_shards_have_all_slots_and_keyspaces_of_their_own() {
        let two = &settings(&[cluster()])[3].config;
        let hosts = "127.0.0.11:9042,127.0.0.12:9042";
        for line in [
            "cache_entries = 1".to_owned(),
            "slots = \"0-2047\"".to_owned(),
            "slots = \"2048-4095\"".to_owned(),
            format!("store = \"cql://{hosts}/terse_bench_served_a?replication=3\""),
            format!("store = \"cql://{hosts}/terse_bench_served_b?replication=3\""),
        ] {
            assert!(two.lines().any(|found| found == line), "{line} is not in\n{two}");
        }
    }

    struct Always;

    impl Workload for Always {
        fn request(&mut self, _: &mut Vec<u8>) -> Option<u64> {
            Some(0)
        }

        fn check(&mut self, _: u64, answer: &Answer<'_>) -> Result<()> {
            if answer.status == 302 { Ok(()) } else { bail!("wrong") }
        }
    }

    fn answer(status: u16) -> Answer<'static> {
        Answer { status, location: None, body: b"", keep_alive: true, bytes: 0 }
    }

    #[test]
    fn a_few_refusals_are_counted_many_are_an_error_and_a_wrong_answer_is_one_at_once() {
        let mut inner = Always;
        let mut workload = Tolerant::new(&mut inner);
        (0..99).for_each(|_| Workload::check(&mut workload, 0, &answer(302)).unwrap());
        Workload::check(&mut workload, 0, &answer(503)).unwrap();
        assert_eq!(workload.check("x", 1).unwrap(), 1.0);
        Workload::check(&mut workload, 0, &answer(503)).unwrap();
        assert_eq!(workload.check("x", 1).unwrap_err().to_string(), "x: 2 of 101 answers were 503");
        assert_eq!(workload.check("x", 50).unwrap(), 2.0, "a quick run has few");
        assert!(Workload::check(&mut workload, 0, &answer(404)).is_err());
        assert!(Tolerant::new(&mut Always).check("x", 50).is_err(), "nothing was answered");
    }
}
