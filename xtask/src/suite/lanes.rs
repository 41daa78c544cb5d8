//! What runs beside what: tests of the cluster own it, wait for it most of the
//! time and run one after another; all others run beside them. Two lanes, then,
//! each a row of `cargo test`s on what is built already. Within a lane programs
//! run one after another, as ever, so nothing that measures has its like beside it.
//!
//! The output of two lanes would mix line by line: it is handed on program by
//! program. What is named is one lane, whose lines are handed on as they come.
//! What was held back is handed on, too, once a test takes long, and when the
//! time is over: so one that hangs is seen, by name.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::Command;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::process::Supervisor;

/// The test programs of which all, or all that takes long, is on the cluster.
pub(super) const ON_CLUSTER: &[&str] = &["conformance", "cql", "cql_clicks", "read_model"];

/// The module of the integration tests' program that has all tests of the cluster, and no others.
const CLUSTER_TESTS: &str = "cluster::";

/// How long what a run has printed may take to be read once it has ended.
const READ_LIMIT: Duration = Duration::from_secs(30);

/// The integration tests' program.
const IT: &str = "it";

/// One `cargo test`: which targets, and which of their tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// What it is called in the summary.
    pub(super) name: &'static str,
    pub(super) targets: Vec<String>,
    pub(super) filter: Vec<String>,
    /// Whether it tries orders of atomics instead, which is a build and a run of its own.
    pub(super) models: bool,
}

/// Rows of runs that run beside each other.
pub(super) type Lanes = Vec<Vec<Run>>;

impl Run {
    fn new(name: &'static str, targets: &[&str], filter: &[&str]) -> Self {
        let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        Self { name, targets: owned(targets), filter: owned(filter), models: false }
    }

    /// The run of the models.
    pub(super) fn models() -> Self {
        Self { models: true, ..Self::new("  models", &[], &[]) }
    }

    /// `targets` and these test programs.
    fn with_programs<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        self.targets.extend(names.into_iter().flat_map(|name| ["--test".to_owned(), name.to_owned()]));
        self
    }
}

/// The lanes for all tests of a workspace that has these test programs.
pub(super) fn all(programs: &BTreeSet<String>) -> Lanes {
    let others = programs.iter().map(String::as_str).filter(|name| *name != IT && !ON_CLUSTER.contains(name));
    let cluster = vec![
        Run::new("  cluster", &["--workspace"], &[]).with_programs(ON_CLUSTER.iter().copied()),
        Run::new("  drills", &["--workspace"], &[CLUSTER_TESTS]).with_programs([IT]),
    ];
    let beside = vec![
        Run::new("  units", &["--workspace", "--lib", "--bins", "--examples"], &[]).with_programs(others),
        Run::new("  server", &["--workspace"], &["--skip", CLUSTER_TESTS]).with_programs([IT]),
        Run::new("  docs", &["--workspace", "--doc"], &[]),
        Run::models(),
    ];
    vec![cluster, beside]
}

/// The one lane for these packages; of all packages, only those tests that `filter` finds.
pub(super) fn some(packages: &[String], filter: &[String]) -> Lanes {
    let mut targets: Vec<String> = packages.iter().flat_map(|name| ["--package".to_owned(), name.clone()]).collect();
    if packages.is_empty() {
        targets.push("--workspace".to_owned());
    }
    vec![vec![Run { targets, filter: filter.to_vec(), ..Run::new("  named", &[], &[]) }]]
}

/// What came of the lanes.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) totals: Totals,
    /// How long each run took.
    pub(super) times: Vec<(&'static str, Duration)>,
    failed: bool,
    /// What tests left behind, ended by now.
    left: Vec<String>,
}

impl Outcome {
    /// # Errors
    /// When a run failed, or left a process behind.
    pub(super) fn verdict(&self) -> Result<()> {
        if self.failed {
            bail!("the tests failed");
        }
        if !self.left.is_empty() {
            bail!("the tests left behind: {}", self.left.join(", "));
        }
        Ok(())
    }
}

/// A run that has ended. Its output may still be open, held by a process that a test left behind.
struct Ended {
    name: &'static str,
    took: Duration,
    succeeded: bool,
    output: Reading,
}

/// Runs the lanes to their ends, for at most `limit`; a run that fails stops no other.
///
/// # Errors
/// When a run can't be started or is not done in time.
pub(super) fn run(
    supervisor: &Supervisor,
    lanes: &Lanes,
    limit: Duration,
    command: &(dyn Fn(&Run) -> Command + Sync),
) -> Result<Outcome> {
    let deadline = Instant::now() + limit;
    let whole = lanes.len() > 1;
    let walk = |lane: &[Run]| {
        let mut ended = Vec::new();
        for run in lane {
            match run_one(supervisor, run.name, command(run), deadline, whole) {
                Ok(run) => ended.push(run),
                Err(error) => return (ended, Err(error)),
            }
        }
        (ended, Ok(()))
    };
    let walked: Vec<(Vec<Ended>, Result<()>)> = thread::scope(|scope| {
        let threads: Vec<_> = lanes.iter().map(|lane| scope.spawn(|| walk(lane))).collect();
        let joined = threads.into_iter().map(thread::ScopedJoinHandle::join);
        let panicked = |_| (Vec::new(), Err(anyhow!("a thread that runs tests panicked")));
        joined.map(|walked| walked.unwrap_or_else(panicked)).collect()
    });
    // Closes the pipes that a process left behind holds open; named at the end.
    let mut outcome = Outcome { left: supervisor.sweep(), ..Outcome::default() };
    let mut done = Ok(());
    for (ended, walked) in walked {
        for run in ended {
            match run.output.join(READ_LIMIT, std::io::stdout()) {
                Ok(totals) => outcome.totals = outcome.totals + totals,
                Err(error) => done = done.and(Err(error)),
            }
            outcome.times.push((run.name, run.took));
            outcome.failed |= !run.succeeded;
        }
        done = done.and(walked);
    }
    done.map(|()| outcome)
}

fn run_one(
    supervisor: &Supervisor,
    name: &'static str,
    mut command: Command,
    deadline: Instant,
    whole: bool,
) -> Result<Ended> {
    let began = Instant::now();
    // One pipe for both, so that each program's name stands before its tests.
    let (output, input) = std::io::pipe().context("no pipe for cargo test")?;
    command.stdout(input.try_clone()?).stderr(input);
    let mut group = supervisor.spawn(&mut command)?;
    // It holds the pipe open.
    drop(command);
    let output = Reading::start(output, std::io::stdout(), whole);
    match group.wait(deadline.saturating_duration_since(began)) {
        Ok(status) => Ok(Ended { name, took: began.elapsed(), succeeded: status.success(), output }),
        Err(late) => {
            // Kills it; then all that it has printed is told, and how many tests there were is of no interest.
            drop(group);
            let _ = output.join(READ_LIMIT, std::io::stdout());
            Err(late)
        }
    }
}

/// A run's output while it is read, on a thread of its own, so that a process
/// that keeps the pipe open can't outlast the limit.
struct Reading {
    /// What wasn't handed on yet.
    held: Arc<Held>,
    totals: Receiver<Totals>,
}

type Held = Mutex<Vec<u8>>;

impl Reading {
    fn start(output: impl Read + Send + 'static, printed: impl Write + Send + 'static, whole: bool) -> Self {
        let held = Arc::<Held>::default();
        let (done, totals) = mpsc::sync_channel(1);
        let reads = Arc::clone(&held);
        thread::spawn(move || {
            // Nobody may be waiting for it any more.
            let _ = done.send(pass_on(BufReader::new(output), printed, whole, &reads));
        });
        Self { held, totals }
    }

    /// Waits for the end of the output, for at most `limit`; if it doesn't come, what was held goes to `printed`.
    ///
    /// # Errors
    /// When it doesn't come.
    fn join(self, limit: Duration, mut printed: impl Write) -> Result<Totals> {
        match self.totals.recv_timeout(limit) {
            Ok(totals) => Ok(totals),
            Err(RecvTimeoutError::Disconnected) => bail!("reading the tests' output panicked"),
            Err(RecvTimeoutError::Timeout) => {
                hand_on(&self.held, &mut printed);
                bail!("the tests' output was still open after {} s", limit.as_secs())
            }
        }
    }
}

/// Hands the lines of `output` to `printed` and adds up what they report: as they come, or all of a program at once.
fn pass_on(mut output: impl BufRead, mut printed: impl Write, whole: bool, held: &Held) -> Totals {
    let (mut totals, mut line) = (Totals::default(), Vec::new());
    while output.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        let text = String::from_utf8_lossy(&line);
        totals.add_line(&text);
        let at_once = !whole || tells_of_delay(&text);
        if begins_program(&text) {
            hand_on(held, &mut printed);
        }
        held.lock().unwrap_or_else(PoisonError::into_inner).append(&mut line);
        if at_once {
            hand_on(held, &mut printed);
        }
    }
    hand_on(held, &mut printed);
    totals
}

/// Whether a test program says with `line` that a test takes long: perhaps it never ends.
fn tells_of_delay(line: &str) -> bool {
    line.contains("has been running for over")
}

/// Whether cargo says with `line` which program comes next.
fn begins_program(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("Running ") || line.starts_with("Doc-tests ")
}

fn hand_on(held: &Held, printed: &mut impl Write) {
    // Not held while it is written: whoever reads it may be slow.
    let text = std::mem::take(&mut *held.lock().unwrap_or_else(PoisonError::into_inner));
    if !text.is_empty() {
        // Nobody may be reading any more; the tests' result counts all the same.
        let _ = printed.write_all(&text).and_then(|()| printed.flush());
    }
}

/// How many tests there were, as the test programs report them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) passed: u64,
    pub(super) failed: u64,
    pub(super) ignored: u64,
}

impl std::ops::Add for Totals {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            ignored: self.ignored + other.ignored,
        }
    }
}

impl Totals {
    /// Adds a line such as `test result: ok. 3 passed; 0 failed; 1 ignored; …`; others are passed over.
    fn add_line(&mut self, line: &str) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Workspace;

    fn programs(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn program_names(run: &Run) -> Vec<&str> {
        run.targets.windows(2).filter(|pair| pair[0] == "--test").map(|pair| pair[1].as_str()).collect()
    }

    #[test]
    fn every_test_program_runs_in_one_lane_and_that_of_the_integration_tests_in_both() {
        let lanes = all(&programs(&["it", "cli", "cql", "http"]));
        let of = |lane: usize| lanes[lane].iter().flat_map(program_names).collect::<Vec<_>>();
        assert_eq!(of(0), ["conformance", "cql", "cql_clicks", "read_model", "it"]);
        assert_eq!(of(1), ["cli", "http", "it"]);
        let filters: Vec<&[String]> = lanes.iter().flatten().map(|run| run.filter.as_slice()).collect();
        assert_eq!(filters, [&[] as &[&str], &["cluster::"], &[], &["--skip", "cluster::"], &[], &[]]);
        let built = lanes.iter().flatten().filter(|run| !run.models);
        assert!(built.into_iter().all(|run| run.targets[0] == "--workspace"), "as it was built");
        assert!(lanes[1].last().unwrap().models);
    }

    #[test]
    fn the_programs_on_the_cluster_are_there_and_of_the_store_alone() {
        let workspace = Workspace::find().unwrap();
        for name in ON_CLUSTER {
            let with = workspace.graph.ours().filter(|package| package.tests.contains(*name));
            assert_eq!(with.map(|package| package.name.as_str()).collect::<Vec<_>>(), ["terse-store"], "{name}");
        }
    }

    #[test]
    fn all_packages_are_tested_unless_some_are_named() {
        let words = |lanes: Lanes| lanes.into_iter().flatten().map(|run| (run.targets, run.filter)).collect::<Vec<_>>();
        let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let some_packages = some(&owned(&["a", "b"]), &owned(&["x"]));
        assert_eq!(words(some_packages), [(owned(&["--package", "a", "--package", "b"]), owned(&["x"]))]);
        assert_eq!(words(some(&[], &owned(&["x"]))), [(owned(&["--workspace"]), owned(&["x"]))]);
    }

    /// Lanes of shell scripts.
    fn run_scripts(lanes: &[&[&'static str]], limit: Duration) -> Result<Outcome> {
        let lane = |scripts: &&[&'static str]| scripts.iter().map(|script| Run::new(script, &[], &[])).collect();
        let lanes: Lanes = lanes.iter().map(lane).collect();
        run(&Supervisor::unwatched(), &lanes, limit, &|run| {
            let mut command = Command::new("bash");
            command.args(["-c", run.name]);
            command
        })
    }

    const LIMIT: Duration = Duration::from_secs(60);

    #[test]
    fn lanes_run_beside_each_other_and_the_runs_of_one_after_another() {
        let place = tempfile::tempdir().unwrap();
        let fifo = place.path().join("fifo");
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        // Each end of the fifo opens only when the other does: in the other lane, and there in the second run.
        let reads: &'static str = format!("read -r line <{}; [[ $line == it ]]", fifo.display()).leak();
        let writes: &'static str = format!("echo it >{}", fifo.display()).leak();
        let outcome = run_scripts(&[&[reads], &["true", writes]], LIMIT).unwrap();
        outcome.verdict().unwrap();
        assert_eq!(outcome.times.iter().map(|(name, _)| *name).collect::<Vec<_>>(), [reads, "true", writes]);
    }

    #[test]
    fn a_run_that_fails_stops_no_other() {
        let result = "echo 'test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured'";
        let outcome = run_scripts(&[&["exit 1", result], &[result]], LIMIT).unwrap();
        assert_eq!(outcome.totals.passed, 2);
        assert_eq!(outcome.verdict().unwrap_err().to_string(), "the tests failed");
    }

    #[test]
    fn a_lane_that_is_not_done_in_time_is_an_error() {
        let error = run_scripts(&[&["sleep 100"], &["true"]], Duration::from_millis(50)).unwrap_err();
        assert!(error.to_string().contains("took longer"), "{error}");
    }

    const OUTPUT: &str = "     Running a\nrunning 4 tests\n\
        test result: FAILED. 3 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
        test result: a line that says nothing\n   Doc-tests b\n\
        test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 7 filtered out; finished in 0.00s\n";

    #[test]
    fn results_of_several_programs_are_added_up() {
        for whole in [false, true] {
            let mut printed = Vec::new();
            let totals = pass_on(OUTPUT.as_bytes(), &mut printed, whole, &Held::default());
            assert_eq!(totals, Totals { passed: 8, failed: 1, ignored: 2 });
            assert_eq!(printed, OUTPUT.as_bytes());
        }
    }

    /// Keeps what is written at once apart.
    struct Pieces(Vec<String>);

    impl Write for Pieces {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.push(String::from_utf8_lossy(bytes).into_owned());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn pieces(output: &str, whole: bool) -> Vec<String> {
        let mut pieces = Pieces(Vec::new());
        pass_on(output.as_bytes(), &mut pieces, whole, &Held::default());
        pieces.0
    }

    #[test]
    fn the_output_of_a_program_is_handed_on_whole_beside_another_lane() {
        let programs = pieces(OUTPUT, true);
        assert_eq!(programs.len(), 2, "{programs:?}");
        assert!(programs[0].starts_with("     Running a") && programs[1].starts_with("   Doc-tests b"));
        assert_eq!(pieces(OUTPUT, false).len(), OUTPUT.lines().count());
    }

    #[test]
    fn what_is_held_is_handed_on_once_a_test_takes_long() {
        let (before, after) = ("     Running a\ntest x ... ok\n", "test z ... ok\n");
        let slow = "test y has been running for over 60 seconds\n";
        assert_eq!(pieces(&[before, slow, after].concat(), true), [[before, slow].concat().as_str(), after]);
    }

    #[test]
    fn what_is_held_is_printed_though_the_output_never_ends() {
        const TEXT: &str = "     Running a\ntest x ... ok\n";
        let (output, mut input) = std::io::pipe().unwrap();
        let reading = Reading::start(output, std::io::sink(), true);
        input.write_all(TEXT.as_bytes()).unwrap();
        let began = Instant::now();
        while reading.held.lock().unwrap().len() < TEXT.len() {
            assert!(began.elapsed() < LIMIT, "it was not read");
            thread::yield_now();
        }
        let mut printed = Vec::new();
        let error = reading.join(Duration::from_millis(1), &mut printed).unwrap_err();
        assert_eq!(error.to_string(), "the tests' output was still open after 0 s");
        assert_eq!(String::from_utf8(printed).unwrap(), TEXT);
    }

    #[test]
    fn output_that_ends_is_added_up_whenever_it_is_asked_for() {
        let reading = Reading::start(OUTPUT.as_bytes(), std::io::sink(), true);
        assert_eq!(reading.join(LIMIT, std::io::sink()).unwrap().passed, 8);
    }
}
