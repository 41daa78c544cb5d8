//! Load tests as an engineer runs them: both generators on a real server, servers that answer wrong, Ctrl-C, the
//! scripts as stock k6 takes them, and the report in a browser. Counts and latencies are compared, latencies within
//! narrow limits only when `COMPARE_LATENCIES` is set, as on a machine that does nothing else.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod report;
mod runs;
mod scripts;
mod wrong;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// The two generators.
const TOOLS: [&str; 2] = ["goose", "k6"];
/// The version that `xtask` installs.
const K6: &str = "k6/v1.8.1/k6";

/// The folder that cargo builds into, and in it that of this profile.
fn built() -> (PathBuf, PathBuf) {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().unwrap().parent().unwrap().to_owned();
    (profile.parent().unwrap().to_owned(), profile)
}

/// A program that must be there: there is nothing to skip to.
fn program(variable: &str, usual: &Path) -> PathBuf {
    let path = std::env::var_os(variable).map_or_else(|| usual.to_owned(), PathBuf::from);
    assert!(path.is_file(), "{} is missing: run `cargo xtask test`, or set {variable}", path.display());
    path
}

fn xtask() -> PathBuf {
    program("TERSE_XTASK", &built().1.join("xtask"))
}

fn generator(tool: &str) -> PathBuf {
    match tool {
        "k6" => program("TERSE_K6", &built().0.join(K6)),
        _ => program("TERSE_LOADTESTS", &built().1.join("loadtests")),
    }
}

/// A run of `cargo xtask load`.
struct Run {
    folder: TempDir,
    command: Command,
}

impl Run {
    /// `scenario` by `tool`, with `arguments` besides.
    fn new(scenario: &str, tool: &str, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(xtask());
        command.args(["load", scenario, "--tool", tool, "--quick", "--generator"]).arg(generator(tool));
        command.arg("--report").arg(folder.path().join("report.html")).args(arguments);
        command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self { folder, command }
    }

    /// On a server of its own.
    fn on_own_server(scenario: &str, tool: &str, arguments: &[&str]) -> Self {
        let mut run = Self::new(scenario, tool, arguments);
        run.command.arg("--server").arg(terse_it::binary());
        run
    }

    fn page(&self) -> PathBuf {
        self.folder.path().join("report.html")
    }

    fn report(&self) -> Value {
        let text = std::fs::read_to_string(self.folder.path().join("report.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// Runs it to its end; `passes` = whether it must succeed.
    fn finish(&mut self, passes: bool) -> Output {
        let output = self.command.output().unwrap();
        assert_eq!(output.status.success(), passes, "{}", said(&output));
        output
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
