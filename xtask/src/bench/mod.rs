//! `cargo xtask bench`: the promised numbers, measured.
//!
//! Server and generator have a core each. Contenders are measured in turn,
//! round after round, so that a machine that slows down slows all of them.
//! Every answer is checked, status and target, not a sample of them.
//! A full run builds everything with the `bench` profile (this program too)
//! and writes `docs/measurements/NAME.json`; `--quick` uses the build of the
//! tests, checks that everything runs and answers right, and only prints.

pub mod clicks;
pub mod create;
pub mod draw;
pub mod floor;
pub mod generator;
pub mod ideal;
pub mod limits;
pub mod links;
pub mod machine;
pub mod peers;
pub mod pin;
pub mod recorded;
pub mod redirect;
pub mod report;
pub mod scale;
pub mod server;
pub mod stats;
pub mod store;
pub mod tiers;
pub mod usage;
pub mod wire;

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;

use self::generator::{Connections, Load, Pace, Workload, drive};
use self::pin::{Cores, on_core};
use self::report::{Reading, Report};
use self::server::Servers;
use self::usage::{CpuTime, this_thread};
use crate::process::Supervisor;
use crate::suite::BUILD_ALL;
use crate::workspace::Workspace;

/// Connections of the promised numbers.
const CONNECTIONS: usize = 64;
/// How long a whole benchmark may take.
const BENCH_LIMIT: Duration = Duration::from_secs(60 * 60);

/// Arguments of `cargo xtask bench`.
#[derive(clap::Args)]
pub struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Clicks: what recording one costs, how many a second are counted and how late, statistics of ten million
    Clicks(Run),
    /// Durable creates per second, 64 connections
    Create(Run),
    /// What each rate limiter lets through over time: writes docs/measurements/limits-curves.json and the chart of it
    Curves,
    /// Rate limits: a decision here and through Redis, a create with them and without, what passes over time
    Limits(Run),
    /// One code's redirects by nginx, actix-web, terse and other shorteners on this machine: writes docs/peers.md
    Peers(peers::Options),
    /// Redirects beside nginx `return 302` and others: CPU, rate, latency, memory, hit ratio
    Redirect(Run),
    /// A million links: start, memory, disk, latency of redirects that no cache knows
    Scale(Run),
    /// Creates and uncached redirects on memory, SQLite and Cassandra, one shard and two; what guards cost
    Store(Run),
}

/// How to measure.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Run {
    /// Only check that it runs and answers are right; a few seconds
    #[arg(long)]
    quick: bool,
    /// How often each contender is measured
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,
    /// How long each measurement takes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: Option<u64>,
    /// How many links there are, where that matters
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1_000..=10_000_000))]
    links: Option<u32>,
    /// Write docs/measurements/NAME.json also with --quick or --only
    #[arg(long)]
    write: bool,
    /// Measure this server program instead of building one
    #[arg(long, value_name = "PROGRAM")]
    server: Option<PathBuf>,
    /// Measure only contenders whose name contains this; may be repeated
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
}

impl Run {
    fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(if self.quick { 1 } else { 5 })
    }

    fn window(&self) -> Duration {
        let usual = if self.quick { Duration::from_millis(500) } else { Duration::from_secs(5) };
        self.seconds.map_or(usual, Duration::from_secs)
    }

    fn warm_up(&self) -> Duration {
        if self.quick { Duration::from_millis(100) } else { Duration::from_secs(1) }
    }

    fn links(&self, usual: usize, quick: usize) -> usize {
        self.links.map_or(if self.quick { quick } else { usual }, |links| links as usize)
    }

    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|wanted| name.contains(wanted.as_str()))
    }

    fn writes(&self) -> bool {
        self.write || (!self.quick && self.only.is_empty() && self.links.is_none())
    }
}

/// What all benchmarks have in common.
pub struct Bench<'a> {
    run: &'a Run,
    workspace: &'a Workspace,
    supervisor: &'a Supervisor,
    servers: Servers<'a>,
    cores: Cores,
    /// The server program.
    terse: PathBuf,
    /// Where data directories are made; emptied at the start and at the end.
    folder: PathBuf,
    /// Held for as long as it is measured.
    _lock: File,
}

/// Claims `folder` for one benchmark at a time, since two would measure each
/// other, and makes an empty folder in it. What a failed run left goes.
pub(crate) fn claim(folder: &Path) -> Result<(File, PathBuf)> {
    fs::create_dir_all(folder)?;
    let lock = File::create(folder.join("lock"))?;
    lock.try_lock().context("another benchmark is running")?;
    let run = folder.join("run");
    if run.exists() {
        fs::remove_dir_all(&run)?;
    }
    fs::create_dir(&run)?;
    Ok((lock, run))
}

/// Measures.
///
/// # Errors
/// When anything needed is missing, fails, or answers wrong. A number that misses its promise is no error.
pub fn run(workspace: &Workspace, supervisor: &Supervisor, options: &Options) -> Result<()> {
    let (run, measure): (_, fn(&Bench<'_>) -> Result<Report>) = match &options.what {
        What::Clicks(run) => (run, clicks::measure),
        What::Create(run) => (run, create::measure),
        What::Curves => return limits::curves::draw(workspace, supervisor),
        What::Limits(run) => (run, limits::measure),
        What::Peers(options) => return peers::run(workspace, supervisor, options),
        What::Redirect(run) => (run, redirect::measure),
        What::Scale(run) => (run, scale::measure),
        What::Store(run) => (run, store::measure),
    };
    measured(workspace, supervisor, run, run.writes(), &measure).map(|_| ())
}

/// Measures, tells what was measured, and if it is to be written returns the path of the file.
fn measured(
    workspace: &Workspace,
    supervisor: &Supervisor,
    run: &Run,
    writes: bool,
    measure: &dyn Fn(&Bench<'_>) -> Result<Report>,
) -> Result<Option<PathBuf>> {
    if !run.quick && cfg!(debug_assertions) {
        return run_optimised(workspace, supervisor).map(|()| None);
    }
    let bench = Bench::prepare(workspace, supervisor, run)?;
    if let Some(warning) = machine::busy_with_other_things() {
        println!("{warning}");
    }
    let report = measure(&bench)?;
    fs::remove_dir_all(&bench.folder)?;
    print!("\n{}\n{}{}", report.table(), report.promises(), report.notes());
    if run.quick {
        println!("a quick run of an unoptimised build: everything ran and answered right, the numbers say nothing");
    }
    if !writes {
        return Ok(None);
    }
    let path = report.write(&workspace.root.join("docs/measurements"), bench.about())?;
    println!("written to {}", path.strip_prefix(&workspace.root).unwrap_or(&path).display());
    Ok(Some(path))
}

/// Builds this program with optimisation and does the same with it: a slow generator would measure itself.
fn run_optimised(workspace: &Workspace, supervisor: &Supervisor) -> Result<()> {
    let program = workspace.build(supervisor, &["--profile", "bench", "--package", "xtask"], "xtask")?;
    let mut command = Command::new(program);
    command.args(std::env::args_os().skip(1));
    supervisor.run_ok(&mut command, BENCH_LIMIT)
}

impl<'a> Bench<'a> {
    fn prepare(workspace: &'a Workspace, supervisor: &'a Supervisor, run: &'a Run) -> Result<Self> {
        let cores = Cores::choose()?;
        let built = match &run.server {
            Some(program) => program.clone(),
            None if run.quick => workspace.build(supervisor, BUILD_ALL, "terse")?,
            None => workspace.build(supervisor, &["--profile", "bench", "--package", "terse-server"], "terse")?,
        };
        let (lock, folder) = claim(&workspace.target.join("bench"))?;
        // A copy, since another build may replace the file while it is measured.
        let terse = folder.join("terse");
        fs::copy(&built, &terse).with_context(|| built.display().to_string())?;
        let servers = Servers { supervisor, core: cores.server, folder: folder.clone() };
        Ok(Self { run, workspace, supervisor, servers, cores, terse, folder, _lock: lock })
    }

    fn about(&self) -> serde_json::Value {
        json!({
            "date": machine::date(),
            "command": machine::command_line(std::env::args()),
            "machine": machine::machine(self.cores),
            "versions": machine::versions(&self.workspace.root),
            "rounds": self.run.rounds(),
            "window_seconds": self.run.window().as_secs_f64(),
            "warm_up_seconds": self.run.warm_up().as_secs_f64(),
            "connections": CONNECTIONS,
            "request_bytes": wire::Get::default().bytes(),
            "answers_checked": "all",
        })
    }

    /// Builds the benchmark `name` of `package`: with the server's profile; in a
    /// quick run with the build of the tests and its features, so that little is built twice.
    fn build(&self, package: &str, name: &str) -> Result<PathBuf> {
        if self.run.quick {
            return self.workspace.build(self.supervisor, &["--workspace", "--bench", name], name);
        }
        let arguments = ["--profile", "bench", "--package", package, "--bench", name];
        self.workspace.build(self.supervisor, &arguments, name)
    }

    /// An empty data directory.
    fn data(&self, name: &str) -> Result<PathBuf> {
        let data = self.folder.join(name);
        if data.exists() {
            fs::remove_dir_all(&data)?;
        }
        fs::create_dir_all(&data)?;
        Ok(data)
    }

    /// Loads `server` over connections that are kept: see [`Bench::measure_over`].
    fn measure(&self, server: (u32, SocketAddr), pace: Pace, workload: &mut dyn Workload) -> Result<Vec<Reading>> {
        self.measure_over(Connections::Kept, server, pace, workload)
    }

    /// Loads the server `pid` at `address` from the generator's core and reads what it costs.
    fn measure_over(
        &self,
        kind: Connections,
        (pid, address): (u32, SocketAddr),
        pace: Pace,
        workload: &mut dyn Workload,
    ) -> Result<Vec<Reading>> {
        let (warm_up, window) = (self.run.warm_up(), self.run.window());
        let load = Load { connections: CONNECTIONS, kind, pace, warm_up, window };
        let mut edges: Vec<(CpuTime, Duration)> = Vec::new();
        let outcome = on_core(self.cores.generator, || {
            drive(address, &load, workload, &mut || {
                edges.push((CpuTime::of(pid)?, this_thread()?));
                Ok(())
            })
        })?;
        let [(server_before, ours_before), (server_after, ours_after)] = &edges[..] else {
            anyhow::bail!("the window has {} edges", edges.len());
        };
        // Each request of a churn has its own connection, but for those in flight at an edge.
        if kind == Connections::Renewed && outcome.connections.abs_diff(outcome.answers) > CONNECTIONS as u64 {
            anyhow::bail!("{} connections for {} answers", outcome.connections, outcome.answers);
        }
        let server = server_after.since(server_before).as_secs_f64();
        let ours = ours_after.saturating_sub(*ours_before).as_secs_f64();
        Ok(vec![
            ("per_second", outcome.per_second()),
            ("cpu_us", server * 1e6 / outcome.answers.max(1) as f64),
            ("server_busy_percent", server / outcome.seconds * 100.0),
            ("generator_busy_percent", ours / outcome.seconds * 100.0),
            ("p50_ms", outcome.latencies.percentile_ms(50.0)),
            ("p99_ms", outcome.latencies.percentile_ms(99.0)),
            ("p99.9_ms", outcome.latencies.percentile_ms(99.9)),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_run_repeats_five_times_and_a_quick_one_is_short() {
        let full = Run::default();
        assert_eq!((full.rounds(), full.window()), (5, Duration::from_secs(5)));
        let quick = Run { quick: true, ..Run::default() };
        assert_eq!(quick.rounds(), 1);
        assert!(quick.window() + quick.warm_up() < Duration::from_secs(1));
        assert_eq!((full.links(50, 5), quick.links(50, 5)), (50, 5));
        let set = Run { rounds: Some(2), seconds: Some(7), links: Some(9), ..Run::default() };
        assert_eq!((set.rounds(), set.window(), set.links(50, 5)), (2, Duration::from_secs(7), 9));
    }

    #[test]
    fn only_a_full_run_of_everything_writes_unless_told() {
        assert!(Run::default().writes());
        assert!(!Run { quick: true, ..Run::default() }.writes());
        assert!(!Run { only: vec!["nginx".into()], ..Run::default() }.writes());
        assert!(!Run { links: Some(1_000), ..Run::default() }.writes());
        assert!(Run { quick: true, write: true, ..Run::default() }.writes());
    }

    #[test]
    fn two_benchmarks_never_run_at_once_and_leftovers_go() {
        let folder = tempfile::tempdir().unwrap();
        let (lock, run) = claim(folder.path()).unwrap();
        fs::write(run.join("left"), "x").unwrap();
        assert_eq!(claim(folder.path()).unwrap_err().to_string(), "another benchmark is running");
        assert!(run.join("left").exists());
        drop(lock);
        let (_lock, run) = claim(folder.path()).unwrap();
        assert!(!run.join("left").exists());
    }

    #[test]
    fn contenders_are_chosen_by_a_part_of_their_name() {
        assert!(Run::default().wants("nginx"));
        let run = Run { only: vec!["zipf".into(), "floor".into()], ..Run::default() };
        assert!(run.wants("terse, 50000 codes, zipf") && run.wants("floor") && !run.wants("nginx"));
    }
}
