//! `cargo xtask test`: all tests of the workspace, with all that they need.
//!
//! One build serves all of it: the programs and the tests are built together,
//! with one set of features, and `cargo test` then finds everything built.
//! What the integration tests need is passed by environment: `TERSE_BIN`, the
//! built server; `TERSE_SCHEMATHESIS` and `TERSE_CHROMIUM`, when they are there;
//! `TERSE_K6`, for the load tests.
//!
//! Tests of the shared cache get a real Redis: `TERSE_REDIS`, and those of the
//! click log a real RabbitMQ: `TERSE_AMQP`.
//! Tests of the cluster get a real one: `TERSE_CQL`, its nodes without a
//! keyspace, which each test chooses; what `target/services.env` says, as
//! variables; its path in `TERSE_SERVICES`, since a process id changes when a
//! test kills a node; and in `TERSE_XTASK` this program, of which `up cassandra`
//! brings the node back. A cluster that ran already is used and left running.
//!
//! All tests run in two lanes, see `lanes`; those of packages or names that
//! are asked for run one program after another.

mod lanes;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;

use self::lanes::{Lanes, Run, Totals};
use crate::process::Supervisor;
use crate::services::{self, Compiler, Kind, Session, cassandra, rabbitmq, redis};
use crate::tools::{CHROMIUM, NGINX, Tools};
use crate::workspace::{Workspace, cargo};

/// How long all tests together may take; about half of it on two cores.
const TESTS_LIMIT: Duration = Duration::from_secs(30 * 60);

/// The package whose tests drive the built server.
const INTEGRATION: &str = "terse-it";

/// The packages some of whose tests run the built server.
const WITH_SERVER: &[&str] = &["xtask", INTEGRATION];

/// The packages some of whose tests need a running service, and which.
const SERVED: &[(Kind, &[&str])] = &[
    (Kind::Cassandra, &["terse-store", INTEGRATION]),
    (Kind::Redis, &["terse-cache", INTEGRATION]),
    (Kind::Rabbitmq, &["terse-clicks", INTEGRATION]),
];

/// The package whose atomics loom tries in every order that the memory model
/// allows; tests by threads show but those that the machine happens to choose. 75 s, built from nothing on a busy machine.
const MODELLED: &str = "terse-resilience";

/// What builds the server the way that `cargo test --workspace` does, so that nothing is built twice.
pub const BUILD_ALL: &[&str] = &["--workspace", "--bins", "--tests"];

/// Arguments of `cargo xtask test`.
#[derive(clap::Args, Default)]
pub struct Options {
    /// Test only this package; may be repeated
    #[arg(short, long, value_name = "NAME")]
    package: Vec<String>,
    /// Passed to the test programs: a filter, or flags such as --nocapture
    #[arg(last = true, value_name = "FILTER")]
    filter: Vec<String>,
}

/// What the integration tests get.
#[derive(Default)]
struct Needs {
    server: Option<PathBuf>,
    schemathesis: Option<PathBuf>,
    chromium: Option<PathBuf>,
    k6: Option<PathBuf>,
    variables: Vec<(&'static str, OsString)>,
}

/// Runs the tests.
///
/// # Errors
/// When a build or a test fails, something needed is missing, or it takes too long.
pub fn run(workspace: &Workspace, supervisor: &Supervisor, options: &Options) -> Result<()> {
    let mut summary = Summary::default();
    let done = steps(workspace, supervisor, options, &mut summary);
    print!("{}", summary.text(done.is_ok()));
    done
}

fn steps(workspace: &Workspace, supervisor: &Supervisor, options: &Options, summary: &mut Summary) -> Result<()> {
    let mut needs = Needs::default();
    if options.wants(INTEGRATION) {
        summary.time("programs", || {
            let tools = Tools::new(supervisor);
            needs.schemathesis = tools.schemathesis(workspace)?;
            needs.chromium = tools.find(&CHROMIUM)?;
            needs.k6 = tools.k6(workspace)?;
            tools.find(&NGINX).map(drop)
        })?;
    }
    if WITH_SERVER.iter().any(|package| options.wants(package)) {
        summary.time("build", || {
            needs.server = Some(workspace.build(supervisor, BUILD_ALL, "terse")?);
            // What the build wrote would hold up the first sync of a test for seconds.
            rustix::fs::sync();
            Ok(())
        })?;
    }
    let mut session = None;
    let services = options.services();
    if !services.is_empty() {
        summary.time("services", || {
            let started = session.insert(Session::start(workspace, supervisor, &services, Compiler::Quick)?);
            needs.variables = service_variables(workspace, started)?;
            Ok(())
        })?;
    }
    let lanes = options.lanes(workspace);
    let command = |run: &Run| test_command(workspace, run, &needs);
    let outcome = summary.time("tests", || lanes::run(supervisor, &lanes, TESTS_LIMIT, &command));
    let ended = session.map_or(Ok(()), Session::end);
    let outcome = outcome?;
    summary.steps.extend(&outcome.times);
    summary.totals = outcome.totals;
    outcome.verdict().and(ended)
}

/// Runs the tests of [`MODELLED`] under loom. They are built in a directory of
/// their own, since another configuration would have everything else built anew.
fn model_check(workspace: &Workspace) -> Command {
    let mut command = cargo(&["test", "--package", MODELLED, "--lib"]);
    command.arg("--target-dir").arg(workspace.root.join("target/loom")).arg("model_check");
    command.env("RUSTFLAGS", "--cfg loom").current_dir(&workspace.root);
    command
}

/// What tells the tests where the services are.
fn service_variables(workspace: &Workspace, session: &Session) -> Result<Vec<(&'static str, OsString)>> {
    let running = session.variables().into_iter().map(|(name, value)| (name, value.into()));
    let further = [
        ("TERSE_CQL", cassandra::url().into()),
        ("TERSE_REDIS", redis::url().into()),
        ("TERSE_AMQP", rabbitmq::url().into()),
        ("TERSE_SERVICES", services::environment_file(workspace).into()),
        ("TERSE_XTASK", workspace.program.clone().into()),
    ];
    Ok(running.chain(further).collect())
}

impl Options {
    fn wants(&self, package: &str) -> bool {
        self.package.is_empty() || self.package.iter().any(|wanted| wanted == package)
    }

    /// The services that the wanted tests need.
    fn services(&self) -> Vec<Kind> {
        let needed = |packages: &[&str]| packages.iter().any(|package| self.wants(package));
        SERVED.iter().filter(|(_, packages)| needed(packages)).map(|(kind, _)| *kind).collect()
    }

    fn lanes(&self, workspace: &Workspace) -> Lanes {
        if !self.package.is_empty() || !self.filter.is_empty() {
            let mut lanes = lanes::some(&self.package, &self.filter);
            if self.filter.is_empty() && self.wants(MODELLED) {
                lanes.iter_mut().for_each(|lane| lane.push(Run::models()));
            }
            return lanes;
        }
        let programs = workspace.graph.ours().flat_map(|package| package.tests.iter().cloned());
        lanes::all(&programs.collect::<BTreeSet<String>>())
    }
}

fn test_command(workspace: &Workspace, run: &Run, needs: &Needs) -> Command {
    if run.models {
        return model_check(workspace);
    }
    let mut command = cargo(&["test", "--no-fail-fast"]);
    command.args(&run.targets).arg("--").args(&run.filter).current_dir(&workspace.root);
    let variables = [
        ("TERSE_BIN", &needs.server),
        ("TERSE_SCHEMATHESIS", &needs.schemathesis),
        ("TERSE_CHROMIUM", &needs.chromium),
        ("TERSE_K6", &needs.k6),
    ];
    for (name, path) in variables {
        if let Some(path) = path {
            command.env(name, path);
        }
    }
    command.envs(needs.variables.iter().map(|(name, value)| (name, value)));
    command
}

/// What was done and how long it took.
#[derive(Default)]
struct Summary {
    steps: Vec<(&'static str, Duration)>,
    totals: Totals,
}

impl Summary {
    fn time<T>(&mut self, name: &'static str, step: impl FnOnce() -> Result<T>) -> Result<T> {
        let start = Instant::now();
        let done = step();
        self.steps.push((name, start.elapsed()));
        done
    }

    fn text(&self, ok: bool) -> String {
        let mut text = String::from("\n");
        for (name, duration) in &self.steps {
            text += &format!("{name:<10}{:>8.1} s\n", duration.as_secs_f64());
        }
        let Totals { passed, failed, ignored } = self.totals;
        let verdict = if ok { "ok" } else { "FAILED" };
        text + &format!("{verdict}: {passed} passed, {failed} failed, {ignored} ignored\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(needs: &Needs) -> Command {
        let lanes = lanes::some(&["a".into()], &["x".into()]);
        test_command(&Workspace::find().unwrap(), &lanes[0][0], needs)
    }

    #[test]
    fn a_run_is_one_cargo_test_that_ends_with_its_filter() {
        let command = command(&Needs::default());
        let words = command.get_args().map(|word| word.to_string_lossy().into_owned());
        let words: Vec<_> = words.filter(|word| word != "--locked").collect();
        assert_eq!(words, ["test", "--no-fail-fast", "--package", "a", "--", "x"]);
    }

    #[test]
    fn what_is_asked_for_runs_in_one_lane_and_all_tests_in_two() {
        let workspace = Workspace::find().unwrap();
        let lanes = |package: &[&str], filter: &[&str]| {
            let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
            Options { package: owned(package), filter: owned(filter) }.lanes(&workspace).len()
        };
        assert_eq!((lanes(&[], &[]), lanes(&["xtask"], &[]), lanes(&[], &["x"])), (2, 1, 1));
        let runs = |package: &str| Options { package: vec![package.into()], filter: vec![] }.lanes(&workspace)[0].len();
        assert_eq!((runs(MODELLED), runs("xtask")), (2, 1), "atomics are modelled with their package");
    }

    #[test]
    fn the_integration_tests_are_wanted_with_all_and_by_name() {
        assert!(Options::default().wants(INTEGRATION));
        let other = Options { package: vec!["terse-core".into()], filter: vec![] };
        assert!(!other.wants(INTEGRATION));
        let it = Options { package: vec![INTEGRATION.into()], filter: vec![] };
        assert!(it.wants(INTEGRATION));
    }

    #[test]
    fn the_model_check_is_built_apart_from_everything_else() {
        let command = model_check(&Workspace::find().unwrap());
        let flags: Vec<_> = command.get_envs().collect();
        assert_eq!(flags, [("RUSTFLAGS".as_ref(), Some("--cfg loom".as_ref()))]);
        let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
        assert!(words.contains(&MODELLED.to_owned()) && words.iter().any(|word| word.ends_with("/target/loom")));
        assert_eq!(words.last().map(String::as_str), Some("model_check"));
    }

    #[test]
    fn what_was_found_is_passed_by_environment_and_what_is_missing_is_not() {
        let needs = Needs { server: Some("/t/terse".into()), ..Needs::default() };
        let command = command(&needs);
        let passed: Vec<_> = command.get_envs().collect();
        assert_eq!(passed, [("TERSE_BIN".as_ref(), Some("/t/terse".as_ref()))]);
    }

    #[test]
    fn a_cluster_is_told_by_environment() {
        let needs = Needs { variables: vec![("TERSE_CQL", "cql://x".into())], ..Needs::default() };
        assert!(
            command(&needs).get_envs().any(|variable| variable == ("TERSE_CQL".as_ref(), Some("cql://x".as_ref())))
        );
    }

    #[test]
    fn no_service_is_started_for_a_package_that_needs_none() {
        let services = |package: &str| Options { package: vec![package.into()], filter: vec![] }.services();
        assert_eq!(services("terse-store"), [Kind::Cassandra]);
        assert_eq!(services("terse-cache"), [Kind::Redis]);
        assert_eq!(services(INTEGRATION), [Kind::Cassandra, Kind::Redis, Kind::Rabbitmq]);
        assert_eq!(services("terse-clicks"), [Kind::Rabbitmq]);
        assert_eq!(Options::default().services(), [Kind::Cassandra, Kind::Redis, Kind::Rabbitmq]);
        assert!(services("terse-core").is_empty() && services("terse-http").is_empty());
    }

    #[test]
    fn the_summary_tells_steps_and_verdict() {
        let mut summary = Summary::default();
        assert!(summary.time("build", || -> Result<()> { anyhow::bail!("broken") }).is_err());
        summary.totals = Totals { passed: 1, failed: 2, ignored: 3 };
        let text = summary.text(false);
        assert!(text.contains("build          0.0 s"), "{text}");
        assert!(text.ends_with("FAILED: 1 passed, 2 failed, 3 ignored\n"), "{text}");
    }
}
