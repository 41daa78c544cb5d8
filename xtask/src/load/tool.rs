//! The generators: the goose package, built here, and k6, installed when wanted. Both run on a core of their own
//! and tell each second in one form.
//!
//! Bounds: `LINES` lines wait to be read (a generator that tells faster waits), a run has its limit.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::Value;

use super::k6;
use crate::bench::pin::on_core;
use crate::process::{Group, Supervisor};
use crate::tools::Tools;
use crate::workspace::Workspace;

/// Lines that wait to be read.
const LINES: usize = 4_096;
/// How many answers that were not right are told.
const SAMPLES: usize = 10;
/// How many letters of what a failed generator said are shown.
const TOLD_LETTERS: usize = 2_000;
/// What to do where k6 can't be built.
const WITHOUT_K6: &str = "without k6 there is no load by k6; --generator takes one that is on this machine";
/// How long a generator may take to end once it has told everything.
const END_LIMIT: Duration = Duration::from_secs(30);

/// A generator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Tool {
    /// The package `loadtests`.
    Goose,
    /// The scripts in `loadtests/k6`.
    K6,
}

impl Tool {
    /// What it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Goose => "goose",
            Self::K6 => "k6",
        }
    }
}

/// What a generator is to do; what is left open is as the scenario has it.
#[derive(Clone, Debug, Default)]
pub struct Job {
    /// The scenario's name.
    pub scenario: String,
    /// The server.
    pub url: String,
    /// Requests per second; 0 = as fast as answers come.
    pub rate: Option<u32>,
    /// How long.
    pub seconds: Option<u32>,
    /// How many links are made before.
    pub links: Option<u32>,
    /// Requests under way at most.
    pub users: Option<u32>,
    /// The latency that 99 of 100 answers must not exceed.
    pub p99_ms: Option<f64>,
    /// The server redirects everything there.
    pub constant: Option<String>,
}

impl Job {
    /// The sizes that are given as JSON; what isn't is as the scenario has it.
    #[must_use]
    pub fn asked(&self) -> Value {
        self.sizes().into_iter().map(|(name, value)| (name.to_owned(), Value::from(value))).collect()
    }

    /// The sizes that are given, by their names.
    fn sizes(&self) -> Vec<(&'static str, String)> {
        let number = |name, value: Option<u32>| value.map(|value| (name, value.to_string()));
        let sizes = [
            number("rate", self.rate),
            number("seconds", self.seconds),
            number("links", self.links),
            number("users", self.users),
            self.p99_ms.map(|limit| ("p99-ms", limit.to_string())),
            self.constant.clone().map(|target| ("constant", target)),
        ];
        sizes.into_iter().flatten().collect()
    }
}

/// What came of a job.
#[derive(Debug, Default)]
pub struct Driven {
    /// Second by second.
    pub seconds: Vec<Value>,
    /// All of it.
    pub result: Value,
    /// Whether all thresholds held.
    pub passed: bool,
}

/// A generator that can be run.
pub struct Generator {
    tool: Tool,
    program: PathBuf,
    /// Where the k6 scripts are.
    scripts: PathBuf,
    /// Where it may write.
    folder: PathBuf,
}

impl Generator {
    /// Builds or installs `tool`; in a quick run what the tests have built is used.
    ///
    /// # Errors
    /// When that fails.
    pub fn find(
        workspace: &Workspace,
        supervisor: &Supervisor,
        tool: Tool,
        quick: bool,
        folder: &Path,
    ) -> Result<Self> {
        let program = match tool {
            Tool::Goose if quick => workspace.build(supervisor, crate::suite::BUILD_ALL, "loadtests")?,
            Tool::Goose => {
                workspace.build(supervisor, &["--profile", "bench", "--package", "loadtests"], "loadtests")?
            }
            Tool::K6 => Tools::new(supervisor).k6(workspace)?.context(WITHOUT_K6)?,
        };
        Ok(Self::new(workspace, tool, &program, folder))
    }

    /// The generator that `program` is; it may write in `folder`.
    #[must_use]
    pub fn new(workspace: &Workspace, tool: Tool, program: &Path, folder: &Path) -> Self {
        let scripts = workspace.root.join("loadtests/k6");
        Self { tool, program: program.to_owned(), scripts, folder: folder.to_owned() }
    }

    /// The command for `job`.
    #[must_use]
    pub fn command(&self, job: &Job) -> Command {
        let mut command = Command::new(&self.program);
        match self.tool {
            Tool::Goose => {
                command.args([&job.scenario, "--url", &job.url, "--json"]);
                command.args(job.sizes().into_iter().flat_map(|(name, value)| [format!("--{name}"), value]));
            }
            Tool::K6 => {
                command.args(["run", "--quiet", "--no-color", "--no-usage-report", "--out", "json"]);
                command.arg("--summary-export").arg(self.summary());
                let variable = |(name, value): (&str, String)| {
                    ["-e".to_owned(), format!("{}={value}", name.to_uppercase().replace('-', "_"))]
                };
                command.args(job.sizes().into_iter().flat_map(variable));
                command.arg(self.scripts.join(&job.scenario).with_extension("js"));
                // Times are read as UTC.
                command.env("TERSE_URL", &job.url).env("TZ", "UTC");
            }
        }
        command
    }

    fn summary(&self) -> PathBuf {
        self.folder.join("k6-summary.json")
    }

    /// Runs `job` on `core` for at most `limit`. `on_start` gets the process id, `on_second` each second.
    ///
    /// # Errors
    /// When it can't run, takes too long, or tells no result.
    pub fn drive(
        &self,
        supervisor: &Supervisor,
        core: usize,
        job: &Job,
        limit: Duration,
        on_start: &mut dyn FnMut(u32) -> Result<()>,
        on_second: &mut dyn FnMut(&Value),
    ) -> Result<Driven> {
        let log = self.folder.join(format!("{}.log", self.tool.name()));
        // What an earlier run left there would be told as this one's.
        if self.summary().exists() {
            fs::remove_file(self.summary()).with_context(|| self.summary().display().to_string())?;
        }
        let mut command = self.command(job);
        command.stdout(Stdio::piped()).stderr(File::create(&log).with_context(|| log.display().to_string())?);
        let mut group = on_core(core, || supervisor.spawn(&mut command))?;
        on_start(group.pid())?;
        let driven = self.read(lines(&mut group)?, Instant::now() + limit, on_second);
        let said = || fs::read_to_string(&log).unwrap_or_default();
        let mut driven = driven.with_context(|| format!("{} says: {}", self.tool.name(), tail(&said())))?;
        driven.passed = group.wait(END_LIMIT)?.success();
        // A load of nothing shows nothing.
        driven.passed &= driven.result["requests"].as_u64() > Some(0);
        if driven.result["requests"].as_u64().is_none() {
            bail!("{} told no result, it says: {}", self.tool.name(), tail(&said()));
        }
        if self.tool == Tool::K6 {
            driven.result["samples"] = k6::samples(&said(), SAMPLES).into();
            let summary = fs::read_to_string(self.summary());
            let summary = summary.with_context(|| format!("k6 left no summary, it says: {}", tail(&said())))?;
            driven.result["thresholds"] = k6::thresholds(&serde_json::from_str(&summary)?).into();
        }
        Ok(driven)
    }

    fn read(&self, lines: Receiver<String>, deadline: Instant, on_second: &mut dyn FnMut(&Value)) -> Result<Driven> {
        let mut driven = Driven::default();
        let mut reader = k6::Reader::new()?;
        let mut tell = |second: Value, seconds: &mut Vec<Value>| {
            on_second(&second);
            seconds.push(second);
        };
        loop {
            let line = match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => line,
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => bail!("it takes too long"),
            };
            match self.tool {
                Tool::K6 => reader.line(&line)?.into_iter().for_each(|second| tell(second, &mut driven.seconds)),
                Tool::Goose => match serde_json::from_str::<Value>(&line) {
                    Ok(mut told) if told["result"].is_object() => driven.result = told["result"].take(),
                    Ok(second) => tell(second, &mut driven.seconds),
                    Err(_) => {}
                },
            }
        }
        if self.tool == Tool::K6 {
            let (seconds, result) = reader.end()?;
            seconds.into_iter().for_each(|second| tell(second, &mut driven.seconds));
            driven.result = result;
        }
        Ok(driven)
    }
}

/// The lines that the leader of `group` writes, until it writes no more.
fn lines(group: &mut Group) -> Result<Receiver<String>> {
    let output = group.take_stdout().ok_or_else(|| anyhow!("the generator has no output"))?;
    let (sender, receiver) = mpsc::sync_channel(LINES);
    let read = move || {
        for line in BufReader::new(output).lines() {
            // Nobody reads any more, or what was written is no text: both end the run, and its result tells.
            let Ok(Ok(())) = line.map(|line| sender.send(line)) else { return };
        }
    };
    std::thread::Builder::new().name("generator".into()).spawn(read).context("a thread for reading")?;
    Ok(receiver)
}

fn tail(text: &str) -> String {
    let letters: Vec<char> = text.trim().chars().collect();
    letters[letters.len().saturating_sub(TOLD_LETTERS)..].iter().collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn job() -> Job {
        Job {
            scenario: "steady".into(),
            url: "http://127.0.0.1:1".into(),
            rate: Some(7),
            p99_ms: Some(2.5),
            constant: Some("https://a.example/".into()),
            ..Job::default()
        }
    }

    /// A generator that is the shell script `text`.
    fn scripted(tool: Tool, folder: &Path, text: &str) -> Generator {
        let program = folder.join("generator");
        fs::write(&program, format!("#!/bin/bash\n{text}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        Generator { tool, program, scripts: folder.to_owned(), folder: folder.to_owned() }
    }

    fn driven(generator: &Generator, limit: Duration) -> (Result<Driven>, usize) {
        let mut seconds = 0;
        let supervisor = Supervisor::unwatched();
        let core = rustix::thread::sched_getcpu();
        let done = generator.drive(&supervisor, core, &job(), limit, &mut |_| Ok(()), &mut |_| seconds += 1);
        (done, seconds)
    }

    #[test]
    fn sizes_are_passed_to_each_tool_in_its_way() {
        let folder = tempfile::tempdir().unwrap();
        let words = |tool| -> Vec<String> {
            let command = scripted(tool, folder.path(), "").command(&job());
            command.get_args().map(|word| word.to_string_lossy().into_owned()).collect()
        };
        assert_eq!(job().asked()["rate"], "7");
        let wanted = "steady --url http://127.0.0.1:1 --json --rate 7 --p99-ms 2.5 --constant https://a.example/";
        assert_eq!(words(Tool::Goose).join(" "), wanted);
        let k6 = words(Tool::K6);
        assert!(k6.join(" ").contains("-e RATE=7 -e P99_MS=2.5 -e CONSTANT=https://a.example/"), "{k6:?}");
        assert!(k6.last().unwrap().ends_with("/steady.js"));
    }

    #[test]
    fn seconds_and_result_of_goose_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let text = "echo '{\"second\":0,\"requests\":3}'; echo noise; echo '{\"result\":{\"requests\":3}}'; exit 1";
        let (done, seconds) = driven(&scripted(Tool::Goose, folder.path(), text), END_LIMIT);
        let done = done.unwrap();
        assert_eq!((seconds, done.seconds.len(), &done.result["requests"]), (1, 1, &Value::from(3)));
        assert!(!done.passed, "its exit status says so");
    }

    #[test]
    fn a_load_of_nothing_has_not_passed() {
        let folder = tempfile::tempdir().unwrap();
        let generator = scripted(Tool::Goose, folder.path(), "echo '{\"result\":{\"requests\":0}}'");
        assert!(!driven(&generator, END_LIMIT).0.unwrap().passed);
    }

    #[test]
    fn a_generator_that_fails_tells_why() {
        let folder = tempfile::tempdir().unwrap();
        let generator = scripted(Tool::Goose, folder.path(), "echo no such server >&2; exit 1");
        let error = driven(&generator, END_LIMIT).0.unwrap_err().to_string();
        assert_eq!(error, "goose told no result, it says: no such server");
    }

    #[test]
    fn the_summary_of_an_earlier_run_is_not_taken_for_that_of_this_one() {
        let folder = tempfile::tempdir().unwrap();
        let generator = scripted(Tool::K6, folder.path(), "echo lost >&2; exit 1");
        fs::write(generator.summary(), "{\"metrics\": {}}").unwrap();
        let error = driven(&generator, END_LIMIT).0.unwrap_err().to_string();
        assert_eq!(error, "k6 left no summary, it says: lost");
    }

    #[test]
    fn a_generator_that_hangs_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let generator = scripted(Tool::Goose, folder.path(), "sleep 100");
        let begun = Instant::now();
        let error = format!("{:#}", driven(&generator, Duration::from_millis(50)).0.unwrap_err());
        assert!(error.contains("it takes too long"), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn only_the_end_of_a_long_log_is_told() {
        assert_eq!(tail(&"é".repeat(10_000)).chars().count(), TOLD_LETTERS);
        assert_eq!(tail(" short \n"), "short");
    }
}
