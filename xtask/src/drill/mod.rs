//! `cargo xtask drill`: breaks one thing of the cluster, of Redis or of
//! RabbitMQ, or asks for too much at once, and checks what was promised for that case. The drills are in
//! `terse-it/src/drills`, where the catalogue says of each what it breaks and what is expected; this builds what they
//! need, runs them and draws what they met. Redis and RabbitMQ are the drills' own.
//!
//! The full form measures, so it runs the release build of the server and one drill after the other; the
//! quick form runs the build that the tests use, and drills without the cluster beside those with it.
//!
//! What was measured is kept whatever comes: of a drill that did not hold, and of those before Ctrl-C.

mod catalogue;
mod draw;
mod evidence;
mod lanes;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use self::catalogue::Entry;
use self::lanes::Lane;
use crate::bench::machine;
use crate::bench::store::program::lines_of;
use crate::process::Supervisor;
use crate::services::record::State;
use crate::services::{Compiler, Kind, Session, cassandra};
use crate::workspace::{Workspace, cargo};

/// How long all drills together may take.
const DRILLS_LIMIT: Duration = Duration::from_secs(90 * 60);
/// How long the list or the page may take.
const TOLD_LIMIT: Duration = Duration::from_secs(10);
/// The seed of what happens by chance, to the drills.
const SEED: &str = "TERSE_DRILL_SEED";
/// Where charts are kept of what is committed, and the page that shows them.
const KEPT: &str = "docs/measurements";
const PAGE: &str = "docs/drills.md";

/// Arguments of `cargo xtask drill`.
#[derive(clap::Args)]
pub struct Options {
    /// What to drill: names, `clicks` for all of the counting, or `all`; `list` tells what there is, `page` writes the
    /// book's page of it
    #[arg(required = true, value_name = "NAME")]
    drills: Vec<String>,
    /// A few seconds each; answers are checked, latencies only reported
    #[arg(long)]
    quick: bool,
    /// What happens by chance happens as in the run that printed this seed
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Also write what was measured to this file, in place of what it holds of the same drills, and the charts beside it
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Runs drills. The cluster that some need is the one that `cargo xtask up cassandra` has started; where none is up,
/// one is started for them and ended after them.
///
/// # Errors
/// When the cluster can't be had, a build fails, or something that must hold does not.
pub fn run(workspace: &Workspace, supervisor: &Supervisor, options: &Options) -> Result<()> {
    let program = workspace.build(supervisor, &["--package", "terse-it", "--bin", "drill"], "drill")?;
    match options.drills[0].as_str() {
        "list" => supervisor.run_ok(Command::new(&program).args(&options.drills), TOLD_LIMIT),
        "page" => write_page(workspace, supervisor, &program),
        _ => drill(workspace, supervisor, options, &program),
    }
}

fn drill(workspace: &Workspace, supervisor: &Supervisor, options: &Options, program: &Path) -> Result<()> {
    let entries = catalogue::read(supervisor, program, &options.drills)?;
    if !entries.iter().any(|entry| entry.needs.cluster) {
        return run_all(workspace, supervisor, options, program, &entries);
    }
    let session = Session::start(workspace, supervisor, &[Kind::Cassandra], Compiler::Full)?;
    let ran = run_all(workspace, supervisor, options, program, &entries);
    let ended = session.end();
    ran.and(ended)
}

fn run_all(
    workspace: &Workspace,
    supervisor: &Supervisor,
    options: &Options,
    program: &Path,
    entries: &[Entry],
) -> Result<()> {
    let server = workspace.build(supervisor, options.server(), "terse")?;
    let folder = workspace.target.join("drills");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let lanes = lanes::of(entries, options.quick);
    let measured: Vec<PathBuf> = lanes.iter().map(|lane| folder.join(format!("{}.json", lane.name))).collect();
    measured.iter().try_for_each(|path| remove(path))?;
    entries.iter().try_for_each(|entry| remove(&folder.join(format!("{}.svg", entry.name))))?;
    println!("{}", catalogue::told(entries, options.quick, lanes.len()));
    let command = |lane: &Lane, measured: &Path| {
        let mut command = options.command(program, lane, &workspace.program, measured);
        command.env("TERSE_BIN", &server);
        command
    };
    let ended = lanes::run(supervisor, &lanes, &measured, DRILLS_LIMIT, &command);
    if supervisor.is_interrupted() {
        let_nodes_go_on(workspace);
    }
    let kept = keep(workspace, options, &measured, &folder).and_then(|kept| {
        println!("{} charts in {}", kept.charts, folder.display());
        // Nothing is started any more after Ctrl-C.
        let shows = kept.in_the_book && !supervisor.is_interrupted();
        if shows { write_page(workspace, supervisor, program) } else { Ok(()) }
    });
    ended.and(kept)?;
    if options.compares_guards(entries) {
        println!("\nthe same with the stores alone, a guard for each shard and one guard for all:");
        supervisor.run_ok(&mut guard_comparison(workspace), DRILLS_LIMIT)?;
    }
    Ok(())
}

/// What was put where.
struct Kept {
    charts: usize,
    /// Whether the page of the book may show other charts now.
    in_the_book: bool,
}

/// Draws what was measured into `folder`; files it, too, if that is asked for.
fn keep(workspace: &Workspace, options: &Options, measured: &[PathBuf], folder: &Path) -> Result<Kept> {
    let mut kept = Kept { charts: 0, in_the_book: false };
    // An interrupted run has none before its first drill has ended.
    for path in measured.iter().filter(|path| path.exists()) {
        let measured = evidence::read(path)?;
        kept.charts += evidence::draw(folder, &measured)?;
        if let Some(file) = &options.json {
            evidence::file(file, &measured, &about(workspace))?;
            evidence::draw(&evidence::beside(file), &measured)?;
            let of_the_book = workspace.root.join(KEPT).canonicalize();
            let its_folder = file.canonicalize().ok().and_then(|file| Some(file.parent()?.to_owned()));
            kept.in_the_book = of_the_book.is_ok_and(|kept| its_folder == Some(kept));
        }
    }
    Ok(kept)
}

/// Writes the page of the book from the catalogue.
fn write_page(workspace: &Workspace, supervisor: &Supervisor, program: &Path) -> Result<()> {
    let charts = evidence::beside(&workspace.root.join(KEPT).join("drills.json"));
    let lines = lines_of(supervisor, Command::new(program).arg("page").arg(charts), TOLD_LIMIT)?;
    let page = workspace.root.join(PAGE);
    fs::write(&page, lines.join("\n") + "\n").with_context(|| page.display().to_string())?;
    println!("ok    {PAGE}");
    Ok(())
}

/// Where, when and with what drills were run.
fn about(workspace: &Workspace) -> Value {
    json!({
        "date": machine::date(),
        "command": machine::command_line(std::env::args()),
        "machine": machine::unpinned(),
        "versions": machine::versions(&workspace.root),
    })
}

/// Whoever is ended in the middle of a drill may have stopped nodes: they go on. Those that he killed come back with
/// `cargo xtask up cassandra`, or with the next drill.
fn let_nodes_go_on(workspace: &Workspace) {
    for node in cassandra::services(&workspace.target.join("services")) {
        if let State::Paused(record) = node.state() {
            record.resume();
        }
    }
}

/// What an earlier run left there is gone.
fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).with_context(|| path.display().to_string()),
        _ => Ok(()),
    }
}

/// The test that puts one guard around all shards, which no server does, beside a guard for each.
fn guard_comparison(workspace: &Workspace) -> Command {
    let mut command = cargo(&["test", "--quiet", "--package", "terse-store", "--test", "cql", "one_guard"]);
    command.args(["--", "--nocapture"]).env("TERSE_CQL", cassandra::url()).current_dir(&workspace.root);
    command
}

impl Options {
    /// A comparison that no drill asserts: only the full form, which measures, has the time.
    fn compares_guards(&self, entries: &[Entry]) -> bool {
        !self.quick && entries.iter().any(|entry| entry.name == "shard-cut")
    }

    /// How the server is built.
    fn server(&self) -> &'static [&'static str] {
        if self.quick { &["--package", "terse-server"] } else { &["--package", "terse-server", "--release"] }
    }

    fn command(&self, program: &Path, lane: &Lane, xtask: &Path, measured: &Path) -> Command {
        let mut command = Command::new(program);
        command.args(&lane.drills).args(self.quick.then_some("--quick")).arg("--json").arg(measured);
        // With it the drills bring back nodes that they killed.
        command.env("TERSE_XTASK", xtask);
        if let Some(seed) = self.seed {
            command.env(SEED, seed.to_string());
        }
        command
    }
}

#[cfg(test)]
mod tests;
