//! `cargo xtask test`: all tests of the workspace, with all that they need.
//!
//! One build serves all of it: the programs and the tests are built together,
//! with one set of features, and `cargo test` then finds everything built.
//! What the integration tests need is passed by environment: `TERSE_BIN`, the
//! built server; `TERSE_SCHEMATHESIS` and `TERSE_CHROMIUM`, when they are there.
//!
//! Tests of the shared cache get a real Redis: `TERSE_REDIS`, and those of the
//! click log a real RabbitMQ: `TERSE_AMQP`.
//! Tests of the cluster get a real one: `TERSE_CQL`, its nodes without a
//! keyspace, which each test chooses; what `target/services.env` says, as
//! variables; its path in `TERSE_SERVICES`, since a process id changes when a
//! test kills a node; and in `TERSE_XTASK` this program, of which `up cassandra`
//! brings the node back. A cluster that ran already is used and left running.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::process::Supervisor;
use crate::services::{self, Compiler, Kind, Session, cassandra, rabbitmq, redis};
use crate::tools::{CHROMIUM, NGINX, Tools};
use crate::workspace::{Workspace, cargo};

/// How long all tests together may take.
const TESTS_LIMIT: Duration = Duration::from_secs(45 * 60);

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
/// allows; tests by threads show but those that the machine happens to choose.
const MODELLED: &str = "terse-resilience";

/// How long trying all orders may take, the build for it included; 75 s here, built from nothing on a busy machine.
const MODELS_LIMIT: Duration = Duration::from_secs(5 * 60);

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
    let mut totals = Totals::default();
    let outcome = summary.time("tests", || run_tests(supervisor, workspace, options, &needs, &mut totals));
    summary.totals = totals;
    let ended = session.map_or(Ok(()), Session::end);
    outcome.and(ended)?;
    if options.wants(MODELLED) && options.filter.is_empty() {
        summary.time("models", || supervisor.run_ok(&mut model_check(workspace), MODELS_LIMIT))?;
    }
    Ok(())
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

    fn command(&self, needs: &Needs) -> Command {
        let mut command = cargo(&["test", "--no-fail-fast"]);
        if self.package.is_empty() {
            command.arg("--workspace");
        }
        self.package.iter().for_each(|package| {
            command.args(["--package", package]);
        });
        command.arg("--").args(&self.filter);
        let variables = [
            ("TERSE_BIN", &needs.server),
            ("TERSE_SCHEMATHESIS", &needs.schemathesis),
            ("TERSE_CHROMIUM", &needs.chromium),
        ];
        for (name, path) in variables {
            if let Some(path) = path {
                command.env(name, path);
            }
        }
        command.envs(needs.variables.iter().map(|(name, value)| (name, value)));
        command
    }
}

fn run_tests(
    supervisor: &Supervisor,
    workspace: &Workspace,
    options: &Options,
    needs: &Needs,
    totals: &mut Totals,
) -> Result<()> {
    let mut command = options.command(needs);
    command.current_dir(&workspace.root).stdout(Stdio::piped());
    let mut group = supervisor.spawn(&mut command)?;
    let output = group.take_stdout().context("no output of cargo test")?;
    // Its own thread, so that a process that keeps the pipe open can't outlast the limit.
    let reader = std::thread::spawn(move || pass_on(BufReader::new(output), std::io::stdout()));
    let status = group.wait(TESTS_LIMIT)?;
    drop(group);
    // Closes the pipe if a test left a process behind that holds it; named at the end.
    let left = supervisor.sweep();
    *totals = reader.join().map_err(|_| anyhow::anyhow!("reading the tests' output panicked"))?;
    if !status.success() {
        bail!("the tests failed");
    }
    if !left.is_empty() {
        bail!("the tests left behind: {}", left.join(", "));
    }
    Ok(())
}

/// Hands the lines of `output` to `printed` as they come and adds up what they report.
fn pass_on(mut output: impl BufRead, mut printed: impl Write) -> Totals {
    let mut totals = Totals::default();
    let mut line = Vec::new();
    while output.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        // Nobody may be reading any more; the tests' result counts all the same.
        let _ = printed.write_all(&line).and_then(|()| printed.flush());
        totals.add(&String::from_utf8_lossy(&line));
        line.clear();
    }
    totals
}

/// How many tests there were, as the test programs report them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Totals {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Totals {
    /// Adds a line such as `test result: ok. 3 passed; 0 failed; 1 ignored; …`; others are passed over.
    fn add(&mut self, line: &str) {
        let Some((_, counts)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". ")) else {
            return;
        };
        for (count, what) in counts.split("; ").filter_map(|part| part.split_once(' ')) {
            let count = count.parse().unwrap_or(0);
            match what.trim() {
                "passed" => self.passed += count,
                "failed" => self.failed += count,
                "ignored" => self.ignored += count,
                _ => {}
            }
        }
    }
}

/// What was done and how long it took.
#[derive(Default)]
struct Summary {
    steps: Vec<(&'static str, Duration)>,
    totals: Totals,
}

impl Summary {
    fn time(&mut self, name: &'static str, step: impl FnOnce() -> Result<()>) -> Result<()> {
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

    fn arguments(options: &Options, needs: &Needs) -> Vec<String> {
        let command = options.command(needs);
        command.get_args().map(|argument| argument.to_string_lossy().into_owned()).filter(|a| a != "--locked").collect()
    }

    #[test]
    fn all_packages_are_tested_unless_some_are_named() {
        let all = arguments(&Options::default(), &Needs::default());
        assert_eq!(all, ["test", "--no-fail-fast", "--workspace", "--"]);
        let options = Options { package: vec!["a".into(), "b".into()], filter: vec!["x".into()] };
        let some = arguments(&options, &Needs::default());
        assert_eq!(some, ["test", "--no-fail-fast", "--package", "a", "--package", "b", "--", "x"]);
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
        let command = Options::default().command(&needs);
        let passed: Vec<_> = command.get_envs().collect();
        assert_eq!(passed, [("TERSE_BIN".as_ref(), Some("/t/terse".as_ref()))]);
    }

    #[test]
    fn a_cluster_is_told_by_environment() {
        let needs = Needs { variables: vec![("TERSE_CQL", "cql://x".into())], ..Needs::default() };
        let command = Options::default().command(&needs);
        assert!(command.get_envs().any(|variable| variable == ("TERSE_CQL".as_ref(), Some("cql://x".as_ref()))));
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
    fn results_of_several_programs_are_added_up() {
        let output = "running 4 tests\n\
            test result: FAILED. 3 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
            test result: a line that says nothing\n\
            test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 7 filtered out; finished in 0.00s\n";
        let mut printed = Vec::new();
        assert_eq!(pass_on(output.as_bytes(), &mut printed), Totals { passed: 8, failed: 1, ignored: 2 });
        assert_eq!(printed, output.as_bytes());
    }

    #[test]
    fn the_summary_tells_steps_and_verdict() {
        let mut summary = Summary::default();
        assert!(summary.time("build", || bail!("broken")).is_err());
        summary.totals = Totals { passed: 1, failed: 2, ignored: 3 };
        let text = summary.text(false);
        assert!(text.contains("build          0.0 s"), "{text}");
        assert!(text.ends_with("FAILED: 1 passed, 2 failed, 3 ignored\n"), "{text}");
    }
}
