//! `cargo xtask drill`: breaks one thing of the running cluster, of Redis or of
//! RabbitMQ, or asks for too much at once, and checks what was promised for that case. The drills are in
//! `terse-it/src/drills`; this builds what they need and runs them. Redis and RabbitMQ are the drills' own.
//!
//! The full form measures, so it runs the release build of the server; the
//! quick form runs the build that the tests use.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::bench::machine;
use crate::process::Supervisor;
use crate::services::cassandra;
use crate::workspace::{Workspace, cargo};

/// How long all drills together may take.
const DRILLS_LIMIT: Duration = Duration::from_secs(90 * 60);

/// Drills of a server with a SQLite file, which need no cluster.
const ALONE: &[&str] = &["stampede", "scan", "celebrity"];
/// What the names of the drills of the counting begin with.
const CLICKS: &str = "clicks-";
/// What the names of those end with that need the cluster.
const ON_CQL: &str = "-cql";
/// The seed of what happens by chance, to the drills.
const SEED: &str = "TERSE_DRILL_SEED";

/// Arguments of `cargo xtask drill`.
#[derive(clap::Args)]
pub struct Options {
    /// What to drill: names, `clicks` for all of the counting, `all`, or `list`
    #[arg(required = true, value_name = "NAME")]
    drills: Vec<String>,
    /// A few seconds each; answers are checked, latencies only reported
    #[arg(long)]
    quick: bool,
    /// What happens by chance happens as in the run that printed this seed
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Also write what was measured to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Runs drills, on the cluster that `cargo xtask up cassandra` has started if they need one.
///
/// # Errors
/// When there is no cluster, a build fails, or something that must hold does not.
pub fn run(workspace: &Workspace, supervisor: &Supervisor, options: &Options) -> Result<()> {
    let program = workspace.build(supervisor, &["--package", "terse-it", "--bin", "drill"], "drill")?;
    let mut command = options.command(&program, &workspace.program);
    if !options.lists() {
        let environment = workspace.target.join("services.env");
        if options.needs_cluster() && !environment.exists() {
            bail!("no cluster is up: run `cargo xtask up cassandra` first");
        }
        command.env("TERSE_BIN", workspace.build(supervisor, options.server(), "terse")?);
    }
    let status = supervisor.run(&mut command, DRILLS_LIMIT)?;
    if !status.success() {
        bail!("drill {}: {status}", options.drills.join(" "));
    }
    if let Some(path) = &options.json {
        describe(path, workspace)?;
    }
    if options.compares_guards() {
        println!("\nthe same with the stores alone, a guard for each shard and one guard for all:");
        supervisor.run_ok(&mut guard_comparison(workspace), DRILLS_LIMIT)?;
    }
    Ok(())
}

/// Adds to what the drills wrote where, when and with what they were run.
fn describe(path: &Path, workspace: &Workspace) -> Result<()> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let mut measured: Value = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
    measured["about"] = json!({
        "date": machine::date(),
        "command": machine::command_line(std::env::args()),
        "machine": machine::unpinned(),
        "versions": machine::versions(&workspace.root),
        "engine": "Apache Cassandra 5.0.8, three nodes, replication factor 3, and a Redis of the drill's own, \
                   on the cores of the server and the load; SQLite where a drill needs no cluster. Clicks go through \
                   RabbitMQ 3.10.8 of the drill's own where its name ends with -amqp (counted in SQLite) or -cql \
                   (counted on the cluster), else through the journals",
    });
    fs::write(path, format!("{measured:#}\n")).with_context(|| path.display().to_string())
}

/// The test that puts one guard around all shards, which no server does, beside a guard for each.
fn guard_comparison(workspace: &Workspace) -> Command {
    let mut command = cargo(&["test", "--quiet", "--package", "terse-store", "--test", "cql", "one_guard"]);
    command.args(["--", "--nocapture"]).env("TERSE_CQL", cassandra::url()).current_dir(&workspace.root);
    command
}

impl Options {
    fn lists(&self) -> bool {
        self.drills.iter().any(|name| name == "list")
    }

    fn needs_cluster(&self) -> bool {
        let alone = |name: &str| ALONE.contains(&name) || (name.starts_with(CLICKS) && !name.ends_with(ON_CQL));
        !self.drills.iter().all(|name| alone(name))
    }

    fn compares_guards(&self) -> bool {
        !self.lists() && self.drills.iter().any(|name| name == "shard-cut" || name == "all")
    }

    /// How the server is built.
    fn server(&self) -> &'static [&'static str] {
        if self.quick { &["--package", "terse-server"] } else { &["--package", "terse-server", "--release"] }
    }

    fn command(&self, program: &Path, xtask: &Path) -> Command {
        let mut command = Command::new(program);
        command.args(&self.drills).args(self.quick.then_some("--quick"));
        if let Some(path) = &self.json {
            command.arg("--json").arg(path);
        }
        // With it the drills bring back nodes that they killed.
        command.env("TERSE_XTASK", xtask);
        if let Some(seed) = self.seed {
            command.env(SEED, seed.to_string());
        }
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(quick: bool, json: Option<&str>) -> Options {
        Options {
            drills: vec!["kill-node".into(), "all-down".into()],
            quick,
            seed: None,
            json: json.map(PathBuf::from),
        }
    }

    #[test]
    fn what_was_asked_for_is_passed_on() {
        let command = options(true, Some("/t/out.json")).command(Path::new("/t/drill"), Path::new("/t/xtask"));
        let arguments: Vec<_> = command.get_args().collect();
        assert_eq!(arguments, ["kill-node", "all-down", "--quick", "--json", "/t/out.json"]);
        let plain = options(false, None).command(Path::new("/t/drill"), Path::new("/t/xtask"));
        assert_eq!(plain.get_args().count(), 2);
        assert!(plain.get_envs().any(|(name, value)| name == "TERSE_XTASK" && value.is_some()));
        assert!(!plain.get_envs().any(|(name, _)| name == SEED));
        let again = Options { seed: Some(7), ..options(true, None) };
        let again = again.command(Path::new("/t/drill"), Path::new("/t/xtask"));
        assert!(again.get_envs().any(|(name, value)| name == SEED && value == Some("7".as_ref())));
    }

    #[test]
    fn the_full_form_measures_the_release_build() {
        assert!(options(false, None).server().contains(&"--release"));
        assert!(!options(true, None).server().contains(&"--release"));
    }

    #[test]
    fn what_was_measured_is_told_with_machine_date_and_commit() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("drills.json");
        fs::write(&path, r#"{"drills":{"kill-node":{}},"form":"full"}"#).unwrap();
        describe(&path, &Workspace::find().unwrap()).unwrap();
        let told: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(told["form"], "full");
        assert!(told["about"]["machine"]["cores"].as_u64() > Some(0) && told["about"]["date"].as_str() > Some("2026"));
        assert!(told["about"]["versions"]["commit"].as_str().is_some_and(|commit| commit.len() >= 7), "{told}");
    }

    #[test]
    fn the_list_needs_no_cluster() {
        let list = Options { drills: vec!["list".into()], ..options(false, None) };
        assert!(list.lists() && !options(true, None).lists());
    }

    #[test]
    fn drills_on_a_file_need_no_cluster() {
        let needs = |names: &[&str]| {
            let drills = names.iter().map(|name| (*name).to_owned()).collect();
            Options { drills, ..options(true, None) }.needs_cluster()
        };
        assert!(!needs(ALONE) && !needs(&["scan"]) && !needs(&["clicks-kill", "clicks-kill-amqp"]));
        assert!(needs(&["scan", "visible"]) && needs(&["all"]) && needs(&["clicks"]) && needs(&["clicks-kill-cql"]));
    }

    #[test]
    fn the_guards_are_compared_with_the_drill_that_cuts_a_shard() {
        let compares = |name: &str| Options { drills: vec![name.into()], ..options(true, None) }.compares_guards();
        assert!(compares("shard-cut") && compares("all"));
        assert!(!compares("kill-node") && !compares("list"));
    }
}
