//! Creates and uncached redirects on every kind of store, with one shard and
//! with two; what the rings around the driver cost, and the guards alone.
//!
//! Three parts, one report: the guards by themselves ([`guards`]), the rings
//! on a store without HTTP ([`program`]), and the server over HTTP
//! ([`served`]). Cassandra is brought up for it unless it runs, and then taken
//! down again; a full run also starts a node that is a cluster by itself ([`single`]).

pub mod guards;
pub mod program;
pub mod served;
pub mod single;

use anyhow::Result;

use super::Bench;
use super::report::{Promise, Report, Series};
use crate::services::{Compiler, Kind, Session, cassandra};

/// The nodes that `cargo xtask up` starts, in the results.
const THREE_NODES: &str = "CQL 3 nodes";
/// What CPU the rings may need, times that of the driver alone.
const RING_LIMIT: f64 = 1.15;
/// What a closed breaker may cost a call, in nanoseconds.
const BREAKER_LIMIT_NS: f64 = 200.0;

/// A cluster that is measured on.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Its name in the results.
    pub name: &'static str,
    /// Its nodes, each `host:port`.
    pub hosts: Vec<String>,
    /// Replicas of each row.
    pub replication: u8,
    /// The processes of its nodes.
    pub pids: Vec<u32>,
}

impl Cluster {
    /// The three nodes that `cargo xtask up` starts.
    ///
    /// # Errors
    /// When the id of a node's process can't be understood.
    pub(super) fn three(session: &Session) -> Result<Self> {
        let hosts = cassandra::addresses().iter().map(ToString::to_string).collect();
        let ids = session.variables().into_iter().filter(|(name, _)| name.starts_with("CASSANDRA_"));
        let pids = ids.map(|(_, id)| id.parse()).collect::<Result<_, _>>()?;
        Ok(Self { name: THREE_NODES, hosts, replication: 3, pids })
    }
}

/// Measures stores.
///
/// # Errors
/// When a cluster can't be had, a program or a server fails, or an answer is wrong.
pub fn measure(bench: &Bench<'_>) -> Result<Report> {
    let mut series = guards::measure(bench)?;
    let session = Session::start(bench.workspace, bench.supervisor, &[Kind::Cassandra], Compiler::Full)?;
    let done = on_clusters(bench, &session, &mut series);
    let ended = session.end();
    done.and(ended)?;
    Ok(report(series))
}

fn on_clusters(bench: &Bench<'_>, session: &Session, series: &mut Vec<Series>) -> Result<()> {
    let mut clusters = vec![Cluster::three(session)?];
    // Its start takes longer than the rest of a quick run.
    let named = bench.run.only.iter().any(|name| name.contains(single::NAME));
    let single = if bench.run.quick && !named { None } else { Some(single::start(bench)?) };
    clusters.extend(single.as_ref().map(|single| single.cluster()));
    let done = program::measure(bench, &clusters).and_then(|measured| {
        series.extend(measured);
        series.extend(served::measure(bench, &clusters)?);
        Ok(())
    });
    let ended = single.map_or(Ok(()), single::Single::stop);
    done.and(ended)
}

fn report(series: Vec<Series>) -> Report {
    let median = |name: &str, reading: &str| {
        let found = series.iter().find(|series| series.name == name)?;
        found.spread(reading).map(|spread| spread.median)
    };
    // One node has a core to itself while the rings are compared with the driver.
    let compared = format!("{}, 1 shard, beside the driver", single::NAME);
    let promise = |what, limit, measured| Promise { what, limit, at_least: false, measured };
    let promises = vec![
        promise(
            "resolve through the rings on CQL, CPU, times the driver's",
            RING_LIMIT,
            median(&compared, "cpu_ratio_to_driver"),
        ),
        promise("a closed breaker around a call, nanoseconds", BREAKER_LIMIT_NS, median(guards::CLOSED_BREAKER, "ns")),
    ];
    Report { name: "store", series, promises, notes: notes() }
}

fn notes() -> Vec<String> {
    let text = [
        "the CQL engine is Apache Cassandra of the version in deploy/cassandra/pom.xml",
        "Cassandra's JVMs share these cores with server and generator: CQL rates and latencies are those of such a \
         machine, not of a cluster with machines of its own; CPU per operation is that of the measured process alone",
        "'creates' and 'resolves' go through Sharded and Guarded without HTTP, all on one core; 'served' is over HTTP \
         with a cache of one entry, and uncached_percent says how many redirects asked the store",
        "beside the driver: the nodes have the generator's core to themselves, the measured process the server's",
        "creates on memory and SQLite end early when a window has made its most links",
    ];
    text.map(str::to_owned).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_promises_are_about_the_rings_beside_the_driver_and_a_closed_breaker() {
        let mut compared = Series::new("CQL 1 node, 1 shard, beside the driver");
        for ratio in [1.05, 1.2, 1.1] {
            compared.add(vec![("cpu_ratio_to_driver", ratio)]);
        }
        let mut breaker = Series::new(guards::CLOSED_BREAKER);
        breaker.add(vec![("ns", 30.0)]);
        let report = report(vec![breaker, compared]);
        let measured: Vec<_> = report.promises.iter().map(|promise| promise.measured).collect();
        assert_eq!(measured, [Some(1.1), Some(30.0)]);
        assert!(report.notes.iter().any(|note| note.contains("share these cores")));
    }

    #[test]
    fn what_was_not_measured_keeps_no_promise() {
        assert!(report(vec![]).promises.iter().all(|promise| promise.measured.is_none()));
    }
}
