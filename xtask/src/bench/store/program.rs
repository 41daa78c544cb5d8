//! The rings on each kind of store, without HTTP: the benchmark `store` of
//! `terse-store`, on the server's core, read.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::Value;

use super::super::pin::{on_core, while_confined};
use super::super::report::{Reading, Series};
use super::super::{Bench, CONNECTIONS, Run};
use super::Cluster;
use crate::process::Supervisor;

/// How many links are resolved on each store.
const LINKS: usize = 2_000;
/// How many in a quick run.
const QUICK_LINKS: usize = 100;
/// How many links a measurement creates at most.
const MOST_CREATES: u32 = 100_000;
/// How many in a quick run, where making them takes the time.
const QUICK_MOST_CREATES: u32 = 2_000;
/// How long the program may take.
const LIMIT: Duration = Duration::from_secs(40 * 60);
/// All that it reads.
const READINGS: [&str; 7] = ["per_second", "cpu_us", "cpu_ratio_to_driver", "p50_ms", "p99_ms", "stale", "refused"];

/// What `command` prints, line by line.
///
/// # Errors
/// When it fails or takes longer than `limit`.
pub fn output_of(bench: &Bench<'_>, command: &mut Command, limit: Duration) -> Result<Vec<String>> {
    lines_of(bench.supervisor, command, limit)
}

/// The same outside of a measurement.
///
/// # Errors
/// As [`output_of`].
pub fn lines_of(supervisor: &Supervisor, command: &mut Command, limit: Duration) -> Result<Vec<String>> {
    let mut group = supervisor.spawn(command.stdout(Stdio::piped()))?;
    let output = group.take_stdout().context("no output")?;
    // Its own thread, so that a program that hangs can't outlast the limit.
    let reader = std::thread::spawn(move || BufReader::new(output).lines().collect::<Result<Vec<_>, _>>());
    let status = group.wait(limit)?;
    let lines = reader.join().map_err(|_| anyhow!("reading a program's output panicked"))??;
    if !status.success() {
        bail!("{}: {status}", command.get_program().to_string_lossy());
    }
    Ok(lines)
}

/// Measures memory, SQLite and `clusters`; then, on the clusters, the rings
/// beside the driver. During that the nodes keep off the measured process's
/// core: what they push out of its caches would be charged to both, and most to
/// the one with more to keep there. So they have the other core to themselves,
/// which is enough for one node; a cluster of several is not compared then.
///
/// # Errors
/// When the program can't be built, or fails: also when an answer is wrong.
pub fn measure(bench: &Bench<'_>, clusters: &[Cluster]) -> Result<Vec<Series>> {
    let program = bench.build("terse-store", "store")?;
    println!("stores without HTTP: {} rounds", bench.run.rounds());
    let part = |part: &str, clusters: &[&Cluster]| {
        let mut command = command(bench, &program, clusters)?;
        on_core(bench.cores.server, || output_of(bench, command.arg(part), LIMIT))
    };
    let all: Vec<&Cluster> = clusters.iter().collect();
    let mut lines = part("--only-rates", &all)?;
    // Nodes that have just started need both cores to answer at all.
    let quick = bench.run.quick;
    let compared: Vec<&Cluster> = all.iter().copied().filter(|cluster| quick || cluster.hosts.len() == 1).collect();
    let confined = if quick { &[] } else { clusters };
    let pids: Vec<u32> = confined.iter().flat_map(|cluster| cluster.pids.iter().copied()).collect();
    lines.extend(while_confined(&pids, bench.cores.generator, || part("--only-comparison", &compared))?);
    let series = collect(&lines)?;
    Ok(series.into_iter().filter(|series| bench.run.wants(&series.name)).collect())
}

/// How many of a window's operations may be refused, in percent. In a quick run a window has few, on a machine that
/// may be busy, and a breaker that opened refuses some at once.
pub(super) fn max_refused_percent(run: &Run) -> u64 {
    if run.quick { 50 } else { 1 }
}

fn command(bench: &Bench<'_>, program: &Path, clusters: &[&Cluster]) -> Result<Command> {
    let run = bench.run;
    let folder = bench.data("store")?;
    let mut command = Command::new(program);
    let most = if run.quick { QUICK_MOST_CREATES } else { MOST_CREATES };
    // A JVM compiles what it runs often, after a while; a cluster that was just started refuses some creates until then.
    let first = run.warm_up() * 30;
    for (flag, value) in [
        ("--rounds", run.rounds().to_string()),
        ("--window-ms", run.window().as_millis().to_string()),
        ("--warm-up-ms", run.warm_up().as_millis().to_string()),
        ("--first-warm-up-ms", first.as_millis().to_string()),
        ("--links", run.links(LINKS, QUICK_LINKS).to_string()),
        ("--most-creates", most.to_string()),
        ("--max-refused-percent", max_refused_percent(run).to_string()),
        ("--concurrency", CONNECTIONS.to_string()),
        ("--folder", folder.display().to_string()),
    ] {
        command.args([flag, &value]);
    }
    for Cluster { name, hosts, replication, .. } in clusters {
        command.arg("--cluster").arg(format!("{name}={replication}={}", hosts.join(",")));
    }
    Ok(command)
}

/// The series that `lines` are the rounds of, in the order of their names' first appearance.
fn collect(lines: &[String]) -> Result<Vec<Series>> {
    let mut all: Vec<Series> = Vec::new();
    for line in lines {
        let value: Value = serde_json::from_str(line).with_context(|| format!("not a measurement: {line}"))?;
        let name = value["series"].as_str().with_context(|| format!("a measurement of nothing: {line}"))?;
        let reading = |key: &&'static str| Some((*key, value["readings"][*key].as_f64()?));
        let readings: Vec<Reading> = READINGS.iter().filter_map(reading).collect();
        if readings.is_empty() {
            bail!("a measurement without a number: {line}");
        }
        match all.iter_mut().find(|series| series.name == name) {
            Some(series) => series.add(readings),
            None => {
                let mut series = Series::new(name);
                series.add(readings);
                all.push(series);
            }
        }
    }
    if all.is_empty() {
        bail!("nothing was measured");
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_one_name_are_rounds_of_one_series() {
        let line = |name: &str, rate: f64| {
            serde_json::json!({"series": name, "readings": {"per_second": rate, "p99_ms": 1.5, "else": 3}}).to_string()
        };
        let series = collect(&[line("b", 1.0), line("a", 2.0), line("b", 3.0)]).unwrap();
        assert_eq!(series.iter().map(|series| series.name.as_str()).collect::<Vec<_>>(), ["b", "a"]);
        assert_eq!(series[0].values("per_second"), [1.0, 3.0]);
        assert_eq!(series[1].values("p99_ms"), [1.5]);
        assert!(series[1].values("cpu_us").is_empty());
    }

    #[test]
    fn what_is_no_measurement_is_an_error() {
        for line in ["", "{}", r#"{"series": "a", "readings": {}}"#, r#"{"readings": {"cpu_us": 1}}"#] {
            assert!(collect(&[line.to_owned()]).is_err(), "{line}");
        }
        assert_eq!(collect(&[]).err().unwrap().to_string(), "nothing was measured");
    }
}
