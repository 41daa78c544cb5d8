//! `cargo xtask drill`: breaks one thing of the running cluster, of Redis or of
//! RabbitMQ, or asks for too much at once, and checks what was promised for that case. The drills are in
//! `terse-it/src/drills`; this builds what they need and runs them. Redis and RabbitMQ are the drills' own.
//!
//! The full form measures, so it runs the release build of the server; the
//! quick form runs the build that the tests use.

use std::fs;
use std::io::ErrorKind;
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
const ALONE: &[&str] =
    &["stampede", "scan", "celebrity", "enumeration", "limits-flood", "limits-paced", "idle-and-slow"];
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
    /// Also write what was measured to this file, in place of what it holds of the same drills
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Runs drills, on the cluster that `cargo xtask up cassandra` has started if they need one.
///
/// # Errors
/// When there is no cluster, a build fails, or something that must hold does not.
pub fn run(workspace: &Workspace, supervisor: &Supervisor, options: &Options) -> Result<()> {
    let program = workspace.build(supervisor, &["--package", "terse-it", "--bin", "drill"], "drill")?;
    let measured = workspace.target.join("drills.json");
    let mut command = options.command(&program, &workspace.program, &measured);
    if !options.lists() {
        let environment = workspace.target.join("services.env");
        if options.needs_cluster() && !environment.exists() {
            bail!("no cluster is up: run `cargo xtask up cassandra` first");
        }
        command.env("TERSE_BIN", workspace.build(supervisor, options.server(), "terse")?);
    }
    remove(&measured)?;
    let status = supervisor.run(&mut command, DRILLS_LIMIT)?;
    if let (Some(path), true) = (&options.json, measured.exists()) {
        file(path, &read(&measured)?, &about(workspace))?;
    }
    if !status.success() {
        bail!("drill {}: {status}", options.drills.join(" "));
    }
    if options.compares_guards() {
        println!("\nthe same with the stores alone, a guard for each shard and one guard for all:");
        supervisor.run_ok(&mut guard_comparison(workspace), DRILLS_LIMIT)?;
    }
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

/// What the drills break, in all runs.
const ENGINE: &str = "Apache Cassandra 5.0.8, three nodes, replication factor 3, and a Redis of the drill's own, on the \
                      cores of the server and the load; SQLite where a drill needs no cluster. Clicks go through \
                      RabbitMQ 3.10.8 of the drill's own where its name ends with -amqp (counted in SQLite) or -cql \
                      (counted on the cluster), else through the journals";

/// Puts what a run `measured` into the file at `path`, each drill with what is told `about` the run.
fn file(path: &Path, measured: &Value, about: &Value) -> Result<()> {
    let mut filed = if path.exists() { read(path)? } else { json!({}) };
    filed["engine"] = ENGINE.into();
    for (name, report) in measured["drills"].as_object().context("what was measured has no drills")? {
        filed["drills"][name] = json!({ "form": measured["form"], "about": about, "measured": report });
    }
    fs::write(path, format!("{filed:#}\n")).with_context(|| path.display().to_string())
}

fn read(path: &Path) -> Result<Value> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
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

    fn command(&self, program: &Path, xtask: &Path, measured: &Path) -> Command {
        let mut command = Command::new(program);
        command.args(&self.drills).args(self.quick.then_some("--quick"));
        if self.json.is_some() {
            command.arg("--json").arg(measured);
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
        let command = |options: Options| {
            options.command(Path::new("/t/drill"), Path::new("/t/xtask"), Path::new("/t/measured.json"))
        };
        let asked = command(options(true, Some("/t/out.json")));
        let arguments: Vec<_> = asked.get_args().collect();
        assert_eq!(arguments, ["kill-node", "all-down", "--quick", "--json", "/t/measured.json"]);
        let plain = command(options(false, None));
        assert_eq!(plain.get_args().count(), 2);
        assert!(plain.get_envs().any(|(name, value)| name == "TERSE_XTASK" && value.is_some()));
        assert!(!plain.get_envs().any(|(name, _)| name == SEED));
        let again = command(Options { seed: Some(7), ..options(true, None) });
        assert!(again.get_envs().any(|(name, value)| name == SEED && value == Some("7".as_ref())));
    }

    #[test]
    fn the_full_form_measures_the_release_build() {
        assert!(options(false, None).server().contains(&"--release"));
        assert!(!options(true, None).server().contains(&"--release"));
    }

    #[test]
    fn what_was_measured_is_filed_with_machine_date_and_commit_beside_other_drills() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("drills.json");
        let about = about(&Workspace::find().unwrap());
        let measured = |name: &str, lost: u32| json!({ "form": "full", "drills": { name: { "lost": lost } } });
        for (name, lost) in [("kill-node", 1), ("scan", 2), ("kill-node", 3)] {
            file(&path, &measured(name, lost), &about).unwrap();
        }
        let filed = read(&path).unwrap();
        assert_eq!(filed["drills"].as_object().map(serde_json::Map::len), Some(2));
        assert_eq!(
            (&filed["drills"]["kill-node"]["measured"]["lost"], &filed["drills"]["scan"]["form"]),
            (&json!(3), &json!("full"))
        );
        let about = &filed["drills"]["scan"]["about"];
        assert!(about["machine"]["cores"].as_u64() > Some(0) && about["date"].as_str() > Some("2026"));
        assert!(about["versions"]["commit"].as_str().is_some_and(|commit| commit.len() >= 7), "{filed}");
    }

    #[test]
    fn a_spoilt_file_is_not_overwritten() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("drills.json");
        fs::write(&path, "half a").unwrap();
        assert!(file(&path, &json!({ "drills": {} }), &json!({})).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "half a");
        remove(&path).unwrap();
        remove(&path).unwrap();
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
