//! The binary as a process: set up, started, ended, started again.
//!
//! Each server has a temporary directory of its own: the data directory, the
//! working directory (so that no `terse.toml` from elsewhere is read) and the
//! captured output. A dropped server is killed, and its log is printed when the
//! test fails. A log that tells of a panic fails every test.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{Client, await_some};

/// How long a start may take until `/readyz` says 200; generous, for a debug build on busy cores.
pub const START_LIMIT: Duration = Duration::from_secs(60);
/// How long a process may take to end.
pub const EXIT_LIMIT: Duration = Duration::from_secs(40);
/// How long a signalled process may take to be in its new state.
const SIGNAL_LIMIT: Duration = Duration::from_secs(10);
/// How much of a log is printed when a test fails.
const LOG_TAIL_BYTES: usize = 16 * 1024;

/// The executable under test: `TERSE_BIN`, else `terse` where cargo built the
/// tests, else the release build beside it. Without one every test fails: there is nothing to skip to.
#[must_use]
pub fn binary() -> PathBuf {
    let built = |profile: &Path| profile.join("terse");
    let chosen = std::env::var_os("TERSE_BIN").map(PathBuf::from).or_else(|| {
        let profile = std::env::current_exe().ok()?.parent()?.parent()?.to_path_buf();
        let release = profile.parent()?.join("release");
        [built(&profile), built(&release)].into_iter().find(|path| path.is_file())
    });
    match chosen {
        Some(path) if path.is_file() => path,
        Some(path) => panic!("TERSE_BIN names {}, which is no file", path.display()),
        None => panic!("the binary terse is not built: run `cargo build -p terse-server` first, or set TERSE_BIN"),
    }
}

/// A temporary directory, that of a setup and of all that were made from it, or of a service.
#[derive(Debug)]
pub(crate) struct Place {
    directory: TempDir,
    kept_on_failure: AtomicBool,
}

impl Place {
    /// An empty one.
    pub(crate) fn new(prefix: &str) -> Self {
        let directory = tempfile::Builder::new().prefix(prefix).tempdir();
        let directory = directory.unwrap_or_else(|e| panic!("no temporary directory: {e}"));
        Self { directory, kept_on_failure: AtomicBool::new(false) }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Leaves it behind when the test fails.
    pub(crate) fn keep_on_failure(&self) {
        self.kept_on_failure.store(true, Ordering::SeqCst);
    }
}

impl Drop for Place {
    #[allow(clippy::print_stdout)] // The test runner shows it with the failure.
    fn drop(&mut self) {
        if std::thread::panicking() && self.kept_on_failure.load(Ordering::SeqCst) {
            self.directory.disable_cleanup(true);
            println!("what was found is kept in {}", self.path().display());
        }
    }
}

/// How a server is to be started.
#[derive(Clone, Debug)]
pub struct Setup {
    place: Arc<Place>,
    data: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    start_limit: Duration,
}

impl Default for Setup {
    fn default() -> Self {
        Self::new()
    }
}

impl Setup {
    /// The defaults, on a free port and an empty directory. Rate limits are
    /// off: the tests are one impatient client.
    #[must_use]
    pub fn new() -> Self {
        let place = Place::new("terse-it-");
        let data = place.path().join("data");
        let (arguments, environment) = (Vec::new(), Vec::new());
        Self { place: Arc::new(place), data, arguments, environment, start_limit: START_LIMIT }
            .env("TERSE_LISTEN", "127.0.0.1:0")
            .env("TERSE_LIMITS", "off")
    }

    /// The same with an environment variable, which replaces one of that name.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.retain(|(n, _)| n != name);
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same with a further argument after `serve`.
    #[must_use]
    pub fn flag(mut self, flag: &str) -> Self {
        self.arguments.push(flag.to_owned());
        self
    }

    /// The same with a `terse.toml` in the working directory.
    #[must_use]
    pub fn file(self, text: &str) -> Self {
        let path = self.place.path().join("terse.toml");
        std::fs::write(&path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        self
    }

    /// The same with the data kept in `directory`, which is the caller's to remove.
    #[must_use]
    pub fn data_in(mut self, directory: &Path) -> Self {
        self.data = directory.to_path_buf();
        self
    }

    /// The same with this long to get ready, instead of [`START_LIMIT`].
    #[must_use]
    pub fn ready_within(mut self, limit: Duration) -> Self {
        self.start_limit = limit;
        self
    }

    /// The same, but its directory, with data and logs, is left behind when the test fails.
    #[must_use]
    pub fn kept_on_failure(self) -> Self {
        self.place.keep_on_failure();
        self
    }

    /// The working directory, with the logs of all that was started.
    #[must_use]
    pub fn place(&self) -> &Path {
        self.place.path()
    }

    /// The data directory.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Starts the server and waits until it is ready.
    #[must_use]
    #[track_caller]
    pub fn start(&self) -> Server {
        let mut server = self.launch();
        server.await_ready();
        server
    }

    /// Starts the server without waiting for anything.
    #[must_use]
    #[track_caller]
    pub fn launch(&self) -> Server {
        let number = count_logs(self.place.path());
        let log = self.place.path().join(format!("output-{number}.log"));
        let arguments: Vec<&str> = std::iter::once("serve").chain(self.arguments.iter().map(String::as_str)).collect();
        let began = Instant::now();
        let child = self.spawn(&arguments, &log, &log);
        Server { setup: self.clone(), child, log, began, address: None, ended: None }
    }

    /// Runs a subcommand with the same environment and directory to its end.
    #[must_use]
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Finished {
        let number = count_logs(self.place.path());
        let out = self.place.path().join(format!("output-{number}.out"));
        let err = self.place.path().join(format!("output-{number}.err"));
        let began = Instant::now();
        let mut child = self.spawn(arguments, &out, &err);
        let code = exit_code(&mut child, &format!("the end of terse {arguments:?}"));
        Finished { code, took: began.elapsed(), stdout: read(&out), stderr: read(&err) }
    }

    /// Makes an API key and returns its text and its id.
    #[must_use]
    #[track_caller]
    pub fn create_key(&self, role: &str, further: &[&str]) -> (String, String) {
        let name = format!("a {role}");
        let made = self.run(&[&["keys", "create", "--name", &name, "--role", role], further].concat());
        assert_eq!(made.code, Some(0), "{made:?}");
        let is_key = |word: &&str| word.starts_with("trs_");
        let letters = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
        let key = made.stdout.split(letters).find(is_key).unwrap_or_else(|| panic!("no key in {made:?}"));
        let id = key.split('_').nth(1).unwrap_or_default();
        (key.to_owned(), id.to_owned())
    }

    fn spawn(&self, arguments: &[&str], out: &Path, err: &Path) -> Child {
        let mut command = Command::new(binary());
        command.args(arguments).current_dir(self.place.path()).stdin(Stdio::null());
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TERSE_")) {
            command.env_remove(name);
        }
        command.env_remove("RUST_LOG").env("TERSE_DATA_DIR", &self.data);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdout(appended(out)).stderr(appended(err));
        command.spawn().unwrap_or_else(|e| panic!("{} does not start: {e}", binary().display()))
    }
}

/// Runs `terse` with these arguments and environment in an empty directory to its end.
#[must_use]
#[track_caller]
pub fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Finished {
    environment.iter().fold(Setup::new(), |setup, (name, value)| setup.env(name, value)).run(arguments)
}

/// How a process ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// From its start, or from the signal that was to end it.
    pub took: Duration,
    /// What it wrote to standard output (a server: both outputs together).
    pub stdout: String,
    /// What it wrote to standard error (a server: nothing, it is in `stdout`).
    pub stderr: String,
}

/// How to end a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// SIGTERM: it may finish what it does.
    Politely,
    /// SIGKILL.
    AtOnce,
}

/// A started server.
#[derive(Debug)]
pub struct Server {
    setup: Setup,
    child: Child,
    log: PathBuf,
    began: Instant,
    address: Option<SocketAddr>,
    ended: Option<Finished>,
}

impl Server {
    /// Waits until the server says where it listens and `/readyz` answers 200.
    /// Returns how long that took since its start.
    #[track_caller]
    pub fn await_ready(&mut self) -> Duration {
        let address = await_some("the listening address", self.setup.start_limit, || {
            self.fail_if_ended();
            listening_address(&self.output())
        });
        self.address = Some(address);
        await_some("/readyz to answer 200", self.setup.start_limit, || {
            self.fail_if_ended();
            let mut connection = crate::Connection::open(address).ok()?;
            let answer = connection.call(&crate::Request::new("GET", "/readyz")).ok()?;
            (answer.status == 200).then(|| self.began.elapsed())
        })
    }

    /// Where it listens.
    #[must_use]
    #[track_caller]
    pub fn address(&self) -> SocketAddr {
        self.address.unwrap_or_else(|| panic!("the server was not awaited"))
    }

    /// A caller without a key.
    #[must_use]
    #[track_caller]
    pub fn client(&self) -> Client {
        Client::new(self.address())
    }

    /// What it was started with.
    #[must_use]
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What this start of it has written so far.
    #[must_use]
    pub fn output(&self) -> String {
        read(&self.log)
    }

    /// Sends the signal and returns at once.
    pub fn signal(&self, stop: Stop) {
        self.send(match stop {
            Stop::Politely => Signal::TERM,
            Stop::AtOnce => Signal::KILL,
        });
    }

    /// Sends SIGHUP, at which it reads its file of blocked hosts again, and returns at once.
    pub fn hang_up(&self) {
        self.send(Signal::HUP);
    }

    fn send(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let sent = pid.map(|pid| kill_process(pid, signal));
        assert!(matches!(sent, Some(Ok(()))), "no signal could be sent: {sent:?}");
    }

    /// SIGSTOPs it, until what this returns is dropped.
    #[must_use]
    #[track_caller]
    pub fn pause(&self) -> PausedServer {
        let pid = i32::try_from(self.child.id()).unwrap_or_default();
        let sent = Pid::from_raw(pid).map(|pid| kill_process(pid, Signal::STOP));
        assert!(matches!(sent, Some(Ok(()))), "the server can't be stopped: {sent:?}");
        crate::await_true("the server to stop", SIGNAL_LIMIT, || crate::cluster::process_state(pid) == Some('T'));
        PausedServer { pid }
    }

    /// The memory that it has resident now, in bytes.
    #[must_use]
    #[track_caller]
    pub fn resident_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
        resident_bytes(&status).unwrap_or_else(|| panic!("{path} tells no resident memory"))
    }

    /// Whether it has ended, and how.
    pub fn finished(&mut self) -> Option<Finished> {
        if self.ended.is_none()
            && let Ok(Some(status)) = self.child.try_wait()
        {
            let took = self.began.elapsed();
            self.ended = Some(Finished { code: status.code(), took, stdout: self.output(), stderr: String::new() });
        }
        self.ended.clone()
    }

    /// Ends it and waits for that.
    #[track_caller]
    pub fn stop(&mut self, stop: Stop) -> Finished {
        let began = Instant::now();
        self.signal(stop);
        let code = exit_code(&mut self.child, "the server's end");
        let ended = Finished { code, took: began.elapsed(), stdout: self.output(), stderr: String::new() };
        self.ended = Some(ended.clone());
        ended
    }

    /// Starts it again on the same directory (it must have ended), on a new port. Returns how long until it was ready.
    #[track_caller]
    pub fn restart(&mut self) -> Duration {
        assert!(self.finished().is_some(), "the server still runs");
        self.check_log();
        *self = self.setup.launch();
        self.await_ready()
    }

    #[track_caller]
    fn fail_if_ended(&mut self) {
        if let Some(ended) = self.finished() {
            panic!("the server ended with {:?} instead of serving:\n{}", ended.code, ended.stdout);
        }
    }

    #[track_caller]
    fn check_log(&self) {
        let output = self.output();
        assert!(!output.contains("panicked at"), "the server panicked:\n{}", tail(&output));
    }
}

impl Drop for Server {
    #[allow(clippy::print_stdout)] // The test runner shows it with the failure.
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let output = self.output();
            println!("--- the server's log ---\n{}\n--- end of the log ---", tail(&output));
        } else {
            self.check_log();
        }
    }
}

/// A stopped server; dropped, it goes on.
#[derive(Debug)]
pub struct PausedServer {
    pid: i32,
}

impl Drop for PausedServer {
    fn drop(&mut self) {
        let sent = Pid::from_raw(self.pid).map(|pid| kill_process(pid, Signal::CONT));
        assert!(std::thread::panicking() || matches!(sent, Some(Ok(()))), "the server can't go on: {sent:?}");
    }
}

/// `VmRSS` of `/proc/PID/status`.
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib * 1_024)
}

fn exit_code(child: &mut Child, what: &str) -> Option<i32> {
    let began = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return status.code(),
            Ok(None) if began.elapsed() < EXIT_LIMIT => std::thread::sleep(crate::LOOK_AGAIN),
            other => {
                let _ = child.kill();
                let _ = child.wait();
                panic!("waited {EXIT_LIMIT:?} in vain for: {what} ({other:?})");
            }
        }
    }
}

fn appended(path: &Path) -> File {
    let file = File::options().create(true).append(true).open(path);
    file.unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

fn tail(text: &str) -> &str {
    let mut from = text.len().saturating_sub(LOG_TAIL_BYTES);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    &text[from..]
}

fn count_logs(place: &Path) -> usize {
    std::fs::read_dir(place).map(Iterator::count).unwrap_or_default()
}

/// The first loopback address with a real port that the output names as the
/// server's own; others, such as a store's, may come before it.
fn listening_address(output: &str) -> Option<SocketAddr> {
    const NAMED: [&str; 2] = ["http://127.0.0.1:", "\"address\":\"127.0.0.1:"];
    let found = |named: &&str| {
        let ports = output.match_indices(named).filter_map(|(at, _)| whole_port(&output[at + named.len()..]));
        ports.into_iter().find(|port| *port != 0)
    };
    NAMED.iter().find_map(found).map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
}

/// The number that `text` begins with, if it has an end: the rest of it may not be written yet.
fn whole_port(text: &str) -> Option<u16> {
    text[..text.find(|c: char| !c.is_ascii_digit())?].parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_listening_address_is_found_in_any_wording() {
        let found = |text: &str| listening_address(text).map(|a| a.port());
        assert_eq!(found("listening on http://127.0.0.1:40123\n"), Some(40123));
        assert_eq!(found("{\"listen\":\"127.0.0.1:0\"}\n{\"address\":\"127.0.0.1:8\"}"), Some(8));
        assert_eq!(found("listening on http://127.0.0.1:401"), None, "the rest of the number may be missing yet");
        assert_eq!(found("no answer from 127.0.0.1:9042\nlistens on http://127.0.0.1:81, data"), Some(81));
        assert_eq!(found("public URL http://localhost:8080 \n"), None);
    }

    #[test]
    fn resident_memory_is_told_in_bytes() {
        assert_eq!(resident_bytes("VmPeak:\t9 kB\nVmRSS:\t   2048 kB\n"), Some(2 * 1_024 * 1_024));
        assert_eq!(resident_bytes("VmPeak:\t9 kB\n"), None);
    }

    #[test]
    fn a_long_log_is_cut_at_a_character() {
        let text = "é".repeat(LOG_TAIL_BYTES);
        assert!(tail(&text).len() <= LOG_TAIL_BYTES);
        assert_eq!(tail("short"), "short");
    }

    #[test]
    fn what_a_failed_test_leaves_behind_is_kept_if_asked_for() {
        let left_by = |setup: Setup| {
            let place = setup.place().to_path_buf();
            let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                let _owned = setup;
                panic!("as tests do");
            }));
            assert!(failed.is_err());
            place
        };
        let place = left_by(Setup::new().kept_on_failure());
        assert!(place.is_dir());
        std::fs::remove_dir_all(place).unwrap();
        assert!(!left_by(Setup::new()).exists());
    }

    #[test]
    fn a_variable_set_twice_has_its_last_value() {
        let setup = Setup::new().env("TERSE_LISTEN", "127.0.0.1:1");
        let listens: Vec<_> = setup.environment.iter().filter(|(name, _)| name == "TERSE_LISTEN").collect();
        assert_eq!(listens.len(), 1);
        assert_eq!(listens[0].1, "127.0.0.1:1");
    }
}
