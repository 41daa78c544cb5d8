//! `cargo xtask load`: a load test from start to report.
//!
//! A server of its own (or `--url`), a generator (goose or k6) on another core, a look at both a second, and at the
//! end one HTML file with charts and the same numbers as JSON. Before the load the generator's own ceiling is measured
//! against a server that always says the same ([`crate::bench::floor`]), so that nobody takes its limits for terse's.
//!
//! Ctrl-C ends the load; the server outlives it, so that its last answers are right, and the report is written. It is
//! written, too, when the server died: the verdict is then that the run failed.
//!
//! `all` runs every scenario, each on a server of its own; what `--file` names gets the numbers that are kept.

pub mod chart;
pub mod compare;
pub mod filed;
pub mod k6;
pub mod page;
#[path = "../../../loadtests/src/progress.rs"]
pub mod progress;
pub mod sampler;
pub mod scrape;
pub mod sheet;
pub mod summary;
pub mod tool;

use std::fs;
use std::io::{IsTerminal as _, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use self::sampler::{Sampler, Watched};
use self::tool::{Driven, Generator, Job, Tool};
use crate::bench::pin::Cores;
use crate::bench::server::{Server, Servers};
use crate::bench::{claim, machine};
use crate::process::Supervisor;
use crate::services::cql::{Connection, Consistency};
use crate::services::{Compiler, Kind, Session, cassandra};
use crate::suite::BUILD_ALL;
use crate::workspace::Workspace;

/// What a run may take beyond its time: the making of a million links, and the last answers.
const EXTRA: Duration = Duration::from_secs(15 * 60);
/// How long the longest scenario takes, where no time is given.
const LONGEST: u32 = 1_800;
/// How long the ceiling is looked for.
const CEILING_SECONDS: u32 = 4;
/// The same in a quick run.
const CEILING_SECONDS_QUICK: u32 = 1;
/// Where the constant server redirects to.
const CONSTANT: &str = "https://example.com/constant";
/// In place of a scenario: all of them, one after the other.
const ALL: &str = "all";
/// The scenario that is about limits.
const LIMIT: &str = "limit";
/// The scenario that is about time.
const SOAK: &str = "soak";
/// The verdict of a run that was not left to its end.
const STOPPED: &str = "stopped before its end";
/// The keyspace of a run on Cassandra; it is gone afterwards.
const KEYSPACE: &str = "load";
/// How long a server that runs already may take to accept a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How long the cluster may take to drop it.
const DROP_LIMIT: Duration = Duration::from_secs(30);

/// Arguments of `cargo xtask load`.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Options {
    /// What to run; `list` lists the scenarios, `all` runs them one after the other
    #[arg(required_unless_present = "compare")]
    scenario: Option<String>,
    /// What makes the load
    #[arg(long, value_enum)]
    tool: Option<Tool>,
    /// Where the server keeps links: `sqlite`, `cassandra` (three nodes, brought up), or a value for `TERSE_STORE`
    #[arg(long, value_name = "STORE", conflicts_with = "url")]
    store: Option<String>,
    /// Load this server, rather than one of its own; `TERSE_KEY` may have a key for it
    #[arg(long, value_name = "URL", conflicts_with = "server")]
    url: Option<String>,
    /// The process of the server behind `--url`, to look at what it uses
    #[arg(long, value_name = "PID", requires = "url")]
    pid: Option<u32>,
    /// Run this server program instead of building one
    #[arg(long, value_name = "PROGRAM")]
    server: Option<PathBuf>,
    /// Run this program of the package `loadtests`, or this k6, instead of building one
    #[arg(long, value_name = "PROGRAM")]
    generator: Option<PathBuf>,
    /// Requests per second
    #[arg(long, value_name = "N")]
    rate: Option<u32>,
    /// How long
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: Option<u32>,
    /// How long the soak takes, where the others take as long as they do
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=86_400), conflicts_with = "seconds")]
    soak_seconds: Option<u32>,
    /// How many links are made before
    #[arg(long, value_name = "N")]
    links: Option<u32>,
    /// Requests under way at most
    #[arg(long, value_name = "N")]
    users: Option<u32>,
    /// The latency that 99 of 100 answers must not exceed
    #[arg(long, value_name = "MS")]
    p99_ms: Option<f64>,
    /// Use the build of the tests: answers are checked, the numbers say nothing
    #[arg(long)]
    quick: bool,
    /// Write the report here, its JSON beside it; target/load/SCENARIO-TOOL.html by default
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Besides, keep the numbers and their charts in this folder, and list there what it keeps
    #[arg(long, value_name = "FOLDER")]
    file: Option<PathBuf>,
    /// Compare the JSON of two runs instead
    #[arg(long, num_args = 2, value_names = ["A.json", "B.json"])]
    compare: Option<Vec<PathBuf>>,
}

/// Runs a load test, or compares two.
///
/// # Errors
/// When something needed is missing or fails, or when a threshold does not hold; then the report is there nevertheless.
pub fn run(workspace: &Workspace, supervisor: &Supervisor, options: &Options) -> Result<()> {
    if let Some([a, b]) = options.compare.as_deref() {
        print!("{}", compare::table(&compare::read(a)?, &compare::read(b)?));
        return Ok(());
    }
    let scenario = options.scenario.as_deref().unwrap_or_default();
    let names = scenarios(workspace)?;
    if scenario == "list" {
        names.iter().for_each(|name| println!("{name}"));
        return Ok(());
    }
    let chosen = chosen(names, scenario)?;
    options.check(chosen.len())?;
    let (_lock, folder) = claim(&workspace.target.join("bench"))?;
    let run = Run { workspace, supervisor, options, cores: Cores::choose()?, folder };
    let ready = run.prepare()?;
    let mut bad = Vec::new();
    for (at, scenario) in chosen.iter().enumerate() {
        if chosen.len() > 1 {
            println!("{scenario}, {} of {}", at + 1, chosen.len());
        }
        let verdict = run.once(&ready, scenario)?;
        if verdict != "passed" {
            bad.push(format!("{scenario}: {verdict}"));
        }
        // A signal ends the row, not just the run.
        if supervisor.is_interrupted() {
            break;
        }
    }
    if bad.is_empty() { Ok(()) } else { bail!("load {}", bad.join(", ")) }
}

impl Options {
    /// Fails for what can't be run, before anything is built for it.
    fn check(&self, scenarios: usize) -> Result<()> {
        if scenarios > 1 && self.report.is_some() {
            bail!("--report is for one scenario; the reports of all are in target/load");
        }
        if self.report.as_ref().is_some_and(|path| path.extension().is_some_and(|extension| extension == "json")) {
            bail!("--report names the page; its JSON is written beside it");
        }
        if let Some(url) = &self.url {
            let connected = TcpStream::connect_timeout(&address_of(url)?, CONNECT_LIMIT);
            connected.with_context(|| format!("{url}: no server there"))?;
        }
        Ok(())
    }
}

/// Which of the scenarios `names` are run; the soak last.
fn chosen(names: Vec<String>, scenario: &str) -> Result<Vec<String>> {
    if scenario == ALL {
        let (soak, mut others): (Vec<String>, Vec<String>) = names.into_iter().partition(|name| name == SOAK);
        others.extend(soak);
        return Ok(others);
    }
    if !names.iter().any(|name| name == scenario) {
        bail!("no scenario {scenario:?}; there are {}", names.join(", "));
    }
    Ok(vec![scenario.to_owned()])
}

/// The names of the scenarios, which are those of the scripts.
fn scenarios(workspace: &Workspace) -> Result<Vec<String>> {
    let folder = workspace.root.join("loadtests/k6");
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "js") {
            names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

/// Runs, one after the other.
struct Run<'a> {
    workspace: &'a Workspace,
    supervisor: &'a Supervisor,
    options: &'a Options,
    cores: Cores,
    /// Where it may write; emptied before.
    folder: PathBuf,
}

/// What all runs have in common.
struct Ready {
    tool: Tool,
    generator: Generator,
    /// The server's program, if one is to be started.
    program: Option<PathBuf>,
    /// How much the generator can ask for at all.
    ceiling: Value,
    /// What others took from the machine before the first load.
    busy: Option<String>,
}

/// What came of a load.
struct Loaded {
    driven: Driven,
    samples: Vec<Value>,
    command: String,
    /// Why the server, if it was ours, did not end as it should.
    lost: Option<String>,
}

/// What is loaded.
struct Target {
    url: String,
    address: SocketAddr,
    pid: Option<u32>,
    /// Ours, if it is.
    server: Option<Server>,
}

impl Run<'_> {
    fn prepare(&self) -> Result<Ready> {
        let tool = self.options.tool.unwrap_or(Tool::Goose);
        let generator = match &self.options.generator {
            Some(program) => Generator::new(self.workspace, tool, program, &self.folder),
            None => Generator::find(self.workspace, self.supervisor, tool, self.options.quick, &self.folder)?,
        };
        let program = self.program()?;
        let busy = machine::busy_with_other_things();
        let ceiling = self.ceiling(&generator)?;
        println!("the generator's ceiling: {:.0} a second", ceiling["per_second"].as_f64().unwrap_or_default());
        Ok(Ready { tool, generator, program, ceiling, busy })
    }

    /// Runs `scenario`, writes what came of it, and returns the verdict.
    fn once(&self, ready: &Ready, scenario: &str) -> Result<String> {
        let report = self.report(ready, scenario)?;
        let path = self.write(&report)?;
        print!("{}", summary::text(&report));
        println!("report: {}", path.display());
        let verdict = report["verdict"].as_str().unwrap_or_default().to_owned();
        match &self.options.file {
            Some(_) if verdict == STOPPED => println!("not filed: it was stopped"),
            Some(folder) => println!("filed: {}", filed::keep(folder, &report)?.display()),
            None => {}
        }
        Ok(verdict)
    }

    fn report(&self, ready: &Ready, scenario: &str) -> Result<Value> {
        let cluster = self.cluster()?;
        let job = self.job(scenario);
        let loaded = self.target(ready, scenario).and_then(|target| self.load(&ready.generator, target, &job));
        // Whatever became of it, nothing is left on a cluster that others use.
        let ended = cluster.map_or(Ok(()), |session| drop_keyspace().and_then(|()| session.end()));
        let Loaded { driven, samples, command, lost } = loaded?;
        ended?;
        let mut report = json!({
            "scenario": scenario,
            "tool": ready.tool.name(),
            "store": self.options.store.as_deref().unwrap_or(if self.options.url.is_some() { "unknown" } else { "sqlite" }),
            "date": machine::date(),
            "quick": self.options.quick,
            "interrupted": self.supervisor.is_interrupted(),
            "commands": [machine::command_line(std::env::args()), command],
            "asked": job.asked(),
            "machine": machine::machine(self.cores),
            "versions": machine::versions(&self.workspace.root),
            "ceiling": ready.ceiling,
        });
        summary::add(&mut report, driven, samples, ready.busy.iter().cloned().chain(lost).collect());
        Ok(report)
    }

    fn servers(&self) -> Servers<'_> {
        Servers { supervisor: self.supervisor, core: self.cores.server, folder: self.folder.clone() }
    }

    /// The server's program, if one is to be started: a copy, since a build may replace the file.
    fn program(&self) -> Result<Option<PathBuf>> {
        if self.options.url.is_some() {
            return Ok(None);
        }
        let built = match &self.options.server {
            Some(program) => program.clone(),
            None if self.options.quick => self.workspace.build(self.supervisor, BUILD_ALL, "terse")?,
            None => {
                self.workspace.build(self.supervisor, &["--profile", "bench", "--package", "terse-server"], "terse")?
            }
        };
        let program = self.folder.join("terse");
        fs::copy(&built, &program).with_context(|| built.display().to_string())?;
        Ok(Some(program))
    }

    /// The cluster, if the server is to be on one.
    fn cluster(&self) -> Result<Option<Session<'_>>> {
        if self.options.store.as_deref() != Some("cassandra") {
            return Ok(None);
        }
        let session = Session::start(self.workspace, self.supervisor, &[Kind::Cassandra], Compiler::Full)?;
        drop_keyspace()?;
        Ok(Some(session))
    }

    fn target(&self, ready: &Ready, scenario: &str) -> Result<Target> {
        let Some(program) = &ready.program else {
            let url = self.options.url.clone().unwrap_or_default().trim_end_matches('/').to_owned();
            let address = address_of(&url)?;
            return Ok(Target { url, address, pid: self.options.pid, server: None });
        };
        let data = self.folder.join("data").join(scenario);
        fs::create_dir_all(&data)?;
        let config = self.folder.join("terse.toml");
        fs::write(&config, format!("store = {}\n", json!(self.store())))?;
        // What is about limits needs them; everything else would be stopped by them.
        let servers = self.servers();
        let server = if scenario == LIMIT {
            servers.terse_limited(program, &data, &config)?
        } else {
            servers.terse_with(program, &data, Some(&config))?
        };
        server.spare();
        let address = server.address;
        Ok(Target { url: format!("http://{address}"), address, pid: Some(server.pid()), server: Some(server) })
    }

    /// The value of `TERSE_STORE`.
    fn store(&self) -> String {
        match self.options.store.as_deref() {
            Some("cassandra") => format!("{}/{KEYSPACE}?replication=3", cassandra::url()),
            Some(store) => store.to_owned(),
            None => "sqlite".to_owned(),
        }
    }

    /// What is asked of the generator; the server is not known yet.
    fn job(&self, scenario: &str) -> Job {
        let options = self.options;
        Job {
            scenario: scenario.to_owned(),
            rate: options.rate,
            seconds: options.seconds.or(options.soak_seconds.filter(|_| scenario == SOAK)),
            links: options.links,
            users: options.users,
            p99_ms: options.p99_ms,
            ..Job::default()
        }
    }

    /// How much the generator can ask for at all.
    fn ceiling(&self, generator: &Generator) -> Result<Value> {
        let floor = self.servers().floor(CONSTANT, false)?;
        let seconds = if self.options.quick { CEILING_SECONDS_QUICK } else { CEILING_SECONDS };
        let job = Job {
            scenario: "hot-link".into(),
            url: format!("http://{}", floor.address),
            rate: Some(0),
            seconds: Some(seconds),
            users: self.options.users,
            constant: Some(CONSTANT.into()),
            ..Job::default()
        };
        let limit = Duration::from_secs(seconds.into()) + EXTRA;
        let driven =
            generator.drive(self.supervisor, self.cores.generator, &job, limit, &mut |_| Ok(()), &mut |_| {})?;
        floor.stop()?;
        if driven.result["wrong"] != 0 || driven.result["refused"] != 0 {
            bail!("the constant server was not answered for: {}", driven.result);
        }
        let requests = driven.result["requests"].as_f64().unwrap_or_default();
        Ok(json!({
            "per_second": requests / f64::from(seconds),
            "p50_ms": driven.result["p50_ms"], "p99_ms": driven.result["p99_ms"], "seconds": seconds,
            "against": "a constant 302 from one epoll loop on the server's core, by as many users as the load has",
        }))
    }

    /// Loads `target` and ends it, if it is ours.
    fn load(&self, generator: &Generator, target: Target, job: &Job) -> Result<Loaded> {
        let job = Job { url: target.url.clone(), ..job.clone() };
        let command = format!("{:?}", generator.command(&job));
        let limit = Duration::from_secs(job.seconds.unwrap_or(LONGEST).into()) + EXTRA;
        let mut sampler = None;
        let mut on_start = |generator| {
            sampler = Some(Sampler::start(Watched { server: target.pid, address: target.address, generator })?);
            Ok(())
        };
        let mut on_second = |second: &Value| show(second);
        let core = self.cores.generator;
        let driven = generator.drive(self.supervisor, core, &job, limit, &mut on_start, &mut on_second);
        if std::io::stdout().is_terminal() {
            println!();
        }
        let samples = sampler.map_or(Ok(Vec::new()), Sampler::stop);
        let stopped = target.server.map_or(Ok(()), Server::stop);
        let (mut driven, samples) = (driven?, samples?);
        // A server that died is what the report is about, no reason to have none.
        let lost = stopped.err().map(|error| format!("{error:#}"));
        driven.passed &= lost.is_none();
        Ok(Loaded { driven, samples, command, lost })
    }

    /// Writes the page and the JSON, and tells where.
    fn write(&self, report: &Value) -> Result<PathBuf> {
        let usual = || self.workspace.target.join("load").join(filed::name(report)).with_extension("html");
        let path = self.options.report.clone().unwrap_or_else(usual);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        let write = |path: &Path, text: String| fs::write(path, text).with_context(|| path.display().to_string());
        write(&path, page::load_page(report))?;
        write(&path.with_extension("json"), format!("{report:#}\n"))?;
        Ok(path)
    }
}

/// One line a second; on a terminal it stays one.
fn show(second: &Value) {
    let line = progress::line(second);
    let mut output = std::io::stdout().lock();
    // Who closed the output wants no progress.
    let _ = if output.is_terminal() { write!(output, "\r{line}") } else { writeln!(output, "{line}") };
    let _ = output.flush();
}

fn drop_keyspace() -> Result<()> {
    let node = *cassandra::addresses().first().context("a cluster without nodes")?;
    let mut connection = Connection::open(node, DROP_LIMIT)?;
    connection.query(&format!("DROP KEYSPACE IF EXISTS {KEYSPACE}"), Consistency::Quorum)
}

/// Where the server `url` listens.
///
/// # Errors
/// When it is no URL of HTTP without TLS, or its host isn't known.
pub fn address_of(url: &str) -> Result<SocketAddr> {
    let Some(rest) = url.strip_prefix("http://") else { bail!("{url}: only http:// can be loaded") };
    let host = rest.split('/').next().unwrap_or_default();
    let host = if host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
        host.to_owned()
    } else {
        format!("{host}:80")
    };
    let mut found = host.to_socket_addrs().with_context(|| format!("looking up {host}"))?;
    found.next().with_context(|| format!("{host} has no address"))
}

#[cfg(test)]
mod tests;
