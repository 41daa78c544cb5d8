//! Clicks on a cluster of three nodes: how many a second are counted, and how
//! fast the statistics of a link are told that was clicked ten million times.
//!
//! Either takes minutes in full and needs Cassandra, so a quick run does only
//! what is named: the nodes are brought up for it unless they run, and then
//! taken down again. Each has a keyspace of its own, which is dropped in the end.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::super::pin::{on_core, while_confined};
use super::super::report::Series;
use super::super::server::{Server, ask};
use super::super::store::Cluster;
use super::super::{Bench, Run};
use super::told::{self, Telling, joined};
use super::{Program, readings};
use crate::services::cql::{Connection, Consistency};
use crate::services::{Compiler, Kind, Session};

/// Counting.
pub const COUNTING: &str = "counting, CQL 3 nodes";
/// The statistics of a year, day by day.
pub const YEAR: &str = "statistics, CQL 3 nodes, a year of days";
/// Those of a month, hour by hour.
const MONTH: &str = "statistics, CQL 3 nodes, a month of hours";

/// Clicks that are counted in a round.
pub const CLICKS: u64 = 100_000;
/// The same in a quick run.
const QUICK_CLICKS: u64 = 5_000;
/// Calls for the statistics of each range that come before all others, while the nodes have both cores: a JVM that has just
/// started compiles for some hundred calls what it runs often.
pub const REHEARSED_CALLS: usize = 400;
/// Those that come before the measured ones of each round.
pub const WARM_UP_CALLS: usize = 50;
/// How often is asked in a quick run, for one link.
const QUICK_CALLS: usize = 5;
/// Rounds at most.
const ROUNDS: u32 = 2;
/// Where it is counted.
const COUNTED: &str = "terse_bench_clicks";
/// Where the rows are of which statistics are told.
const TOLD: &str = "terse_bench_clicks_told";
/// How long the cluster may take to drop a keyspace.
const DROP_LIMIT: Duration = Duration::from_secs(30);
/// A broker that is away: statistics on a keyspace need one to be set, and telling them needs none. Nothing of this
/// server's is left on one that others use.
const NO_BROKER: &str = "amqp://127.0.0.1:1";
/// How long a server may take to reach its read model, and how often it is looked whether it has.
const CONNECT_LIMIT: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Measures what the run wants of both.
///
/// # Errors
/// When there is no cluster, a program or a server fails, or a total is wrong.
pub fn measure(bench: &Bench<'_>, program: &Program<'_>) -> Result<Vec<Series>> {
    if !wants(bench.run, &[COUNTING]) && !wants(bench.run, &[YEAR, MONTH]) {
        return Ok(Vec::new());
    }
    let session = Session::start(bench.workspace, bench.supervisor, &[Kind::Cassandra], Compiler::Full)?;
    let measured = Cluster::three(&session).and_then(|cluster| {
        drop_keyspaces(&cluster)?;
        let measured = on_nodes(bench, program, &cluster);
        // Whatever became of it, nothing is left on a cluster that others use.
        let dropped = drop_keyspaces(&cluster);
        measured.and_then(|measured| dropped.map(|()| measured))
    });
    let ended = session.end();
    measured.and_then(|measured| ended.map(|()| measured))
}

/// Whether one of `names` is measured: bringing the nodes up takes longer than the rest of a quick run.
fn wants(run: &Run, names: &[&str]) -> bool {
    let named = run.only.iter().any(|part| names.iter().any(|name| name.contains(part.as_str())));
    named || (run.only.is_empty() && !run.quick)
}

fn on_nodes(bench: &Bench<'_>, program: &Program<'_>, cluster: &Cluster) -> Result<Vec<Series>> {
    let mut all = Vec::new();
    // First, for nodes that have counted work on what was written for minutes: neither is measured during the other.
    if wants(bench.run, &[YEAR, MONTH]) {
        all.extend(telling(bench, program, cluster)?);
    }
    if wants(bench.run, &[COUNTING]) {
        all.push(counting(bench, program, cluster)?);
    }
    Ok(all)
}

fn counting(bench: &Bench<'_>, program: &Program<'_>, cluster: &Cluster) -> Result<Series> {
    let (hosts, replicas) = (cluster.hosts.join(","), cluster.replication.to_string());
    let clicks = if bench.run.quick { QUICK_CLICKS } else { CLICKS }.to_string();
    let (mut series, rounds) = (Series::new(COUNTING), bench.run.rounds().min(ROUNDS));
    for round in 1..=rounds {
        drop_keyspaces(cluster)?;
        let arguments = ["cluster", &hosts, &replicas, COUNTED, &clicks];
        let told = on_core(bench.cores.server, || program.run(&arguments))?;
        series.add(readings(&told, &["per_second", "cpu_us", "rows_per_click", "writes", "faults"])?);
        println!("{COUNTING}: round {round} of {rounds}");
    }
    Ok(series)
}

fn telling(bench: &Bench<'_>, program: &Program<'_>, cluster: &Cluster) -> Result<Vec<Series>> {
    let quick = bench.run.quick;
    let data = bench.data("clicks-told-cluster")?;
    let links = told::links(bench, &data, if quick { 1 } else { told::LINKS })?;
    let (hosts, replicas) = (cluster.hosts.join(","), cluster.replication.to_string());
    let arguments = ["cluster-rows", &hosts, &replicas, TOLD, &joined(&links)];
    let written = on_core(bench.cores.server, || program.run(&arguments))?;
    println!("the rows of {} links are written to the cluster", links.len());
    let rounds = bench.run.rounds().min(ROUNDS);
    let (warm_up, calls) = if quick { (0, QUICK_CALLS) } else { (WARM_UP_CALLS, told::CALLS) };
    let telling = Telling { names: [YEAR, MONTH], rounds, warm_up, calls, links: &links, written: &written };
    let start = || start(bench, &data, cluster, links.code(0));
    if quick {
        // Nodes that have just started need both cores to answer at all.
        return telling.measure(bench, &start);
    }
    telling.rehearse(bench, &start, REHEARSED_CALLS)?;
    while_confined(&cluster.pids, bench.cores.generator, || telling.measure(bench, &start))
}

/// A server of the API, its links in `data`, that has reached the read model of `cluster` and tells of `code`.
fn start(bench: &Bench<'_>, data: &Path, cluster: &Cluster, code: &str) -> Result<Server> {
    let stats = format!("cql://{}/{TOLD}?replication={}", cluster.hosts.join(","), cluster.replication);
    let settings = [("TERSE_BUS", NO_BROKER.to_owned()), ("TERSE_STATS", stats)];
    let server = bench.servers.terse_set(&bench.terse, data, &["api"], &settings)?;
    await_told(server.address, code)?;
    Ok(server)
}

/// Waits until the server at `address` tells the statistics of `code`.
fn await_told(address: SocketAddr, code: &str) -> Result<()> {
    let (path, begun) = (format!("/api/v1/links/{code}/stats"), Instant::now());
    loop {
        match ask(address, &path)?.status {
            200 => return Ok(()),
            503 if begun.elapsed() <= CONNECT_LIMIT => std::thread::sleep(LOOK_EVERY),
            status => bail!("statistics are answered {status} after {} s", begun.elapsed().as_secs()),
        }
    }
}

fn drop_keyspaces(cluster: &Cluster) -> Result<()> {
    let host = cluster.hosts.first().context("a cluster without nodes")?;
    let mut connection = Connection::open(host.parse()?, DROP_LIMIT)?;
    for keyspace in [COUNTED, TOLD] {
        connection.query(&format!("DROP KEYSPACE IF EXISTS {keyspace}"), Consistency::Quorum)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

    fn run(quick: bool, only: &[&str]) -> Run {
        Run { quick, only: only.iter().map(|name| (*name).into()).collect(), ..Run::default() }
    }

    #[test]
    fn a_quick_run_needs_the_cluster_only_when_that_is_named() {
        let told = [YEAR, MONTH];
        assert!(wants(&run(false, &[]), &[COUNTING]) && wants(&run(false, &[]), &told));
        assert!(!wants(&run(true, &[]), &[COUNTING]) && !wants(&run(true, &[]), &told));
        assert!(wants(&run(true, &["CQL"]), &[COUNTING]) && wants(&run(true, &["CQL"]), &told));
        assert!(!wants(&run(true, &["statistics"]), &[COUNTING]) && wants(&run(true, &["statistics"]), &told));
        assert!(wants(&run(false, &["counting"]), &[COUNTING]) && !wants(&run(false, &["counting"]), &told));
    }

    #[test]
    fn statistics_in_sqlite_can_be_named_without_those_of_the_cluster() {
        assert!(!wants(&run(false, &[told::YEAR]), &[COUNTING, YEAR, MONTH]));
        assert!(run(false, &[told::YEAR]).wants(told::YEAR));
    }

    /// The answer of a server that answers `statuses`, one after the other.
    fn awaited(statuses: &'static [u16]) -> Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            for status in statuses {
                let mut stream = listener.accept().unwrap().0;
                let read = stream.read(&mut [0; 1024]).unwrap();
                assert!(read > 0);
                write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
            }
        });
        let awaited = await_told(address, "abc");
        server.join().unwrap();
        awaited
    }

    #[test]
    fn a_server_that_has_not_reached_its_read_model_is_waited_for_and_any_other_refusal_is_an_error() {
        awaited(&[503, 503, 200]).unwrap();
        let error = awaited(&[503, 404]).unwrap_err().to_string();
        assert_eq!(error, "statistics are answered 404 after 0 s");
    }
}
