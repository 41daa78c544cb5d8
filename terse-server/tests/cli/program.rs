//! The program under test, in a directory of its own, and a client of few lines.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A directory in which the program runs, without any environment but what a test gives it.
pub(crate) struct Place {
    directory: tempfile::TempDir,
    environment: Vec<(String, String)>,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), environment: vec![] }
    }

    pub(crate) fn with(mut self, variable: &str, value: &str) -> Self {
        self.environment.push((variable.into(), value.into()));
        self
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path().join(name), text).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_terse"));
        let environment = self.environment.iter().map(|(name, value)| (name, value));
        command.args(arguments).current_dir(self.path()).env_clear().envs(environment).stdin(Stdio::null());
        command
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        let child = self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // A command that should fail but serves instead must not hang the test.
        let mut guard = Guard(Some(child));
        let deadline = Instant::now() + PATIENCE;
        while guard.0.as_mut().unwrap().try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "{arguments:?} does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ended::from(guard.0.take().unwrap().wait_with_output().unwrap())
    }

    /// Starts the program and leaves it running.
    pub(crate) fn spawn(&self, arguments: &[&str]) -> Running {
        let child = self.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Running(Guard(Some(child)))
    }

    /// Starts a server on a free port and waits until it listens.
    pub(crate) fn serve(&self, arguments: &[&str]) -> Server {
        let all: Vec<&str> = ["serve", "--listen", "127.0.0.1:0"].iter().chain(arguments).copied().collect();
        self.run_to_greeting(&all)
    }

    /// Starts a server with these arguments and waits until it listens.
    pub(crate) fn run_to_greeting(&self, arguments: &[&str]) -> Server {
        let mut child = self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (stdout, stderr) = (lines(child.stdout.take().unwrap()), lines(child.stderr.take().unwrap()));
        let mut server =
            Server { guard: Guard(Some(child)), stderr, greeting: vec![], address: ([0, 0, 0, 0], 0).into() };
        while server.greeting.len() < 3 {
            match stdout.recv_timeout(PATIENCE) {
                Ok(line) => server.greeting.push(line),
                Err(_) => panic!("no server: {:?}", server.stderr.iter().collect::<Vec<_>>()),
            }
        }
        let line = &server.greeting[0];
        let address = line.split("http://").nth(1).and_then(|rest| rest.split([',', ' ']).next()).unwrap();
        server.address = address.parse().unwrap();
        server
    }
}

/// Reads lines on a thread, so that the program never waits for the test.
fn lines(source: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(source).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// What a program that ended has left.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ended {
    /// The one line on stderr of a program that was to fail with `code`.
    pub(crate) fn refusal(&self, code: i32) -> &str {
        assert_eq!((self.code, self.err.lines().count()), (Some(code), 1), "{}{}", self.out, self.err);
        self.err.trim_end()
    }

    pub(crate) fn success(&self) -> &str {
        assert_eq!(self.code, Some(0), "{}", self.err);
        &self.out
    }
}

/// A child that never outlives its test.
struct Guard(Option<Child>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A program of which only the end is of interest.
pub(crate) struct Running(Guard);

impl Running {
    /// Its exit code, if it has ended.
    pub(crate) fn code(&mut self) -> Option<i32> {
        self.0.0.as_mut()?.try_wait().unwrap().and_then(|status| status.code())
    }
}

/// A running server.
pub(crate) struct Server {
    guard: Guard,
    stderr: Receiver<String>,
    pub(crate) greeting: Vec<String>,
    pub(crate) address: SocketAddr,
}

impl Server {
    pub(crate) fn pid(&self) -> String {
        self.guard.0.as_ref().unwrap().id().to_string()
    }

    pub(crate) fn signal(&self, name: &str) {
        assert!(Command::new("kill").args(["-s", name, &self.pid()]).status().unwrap().success());
    }

    /// Waits for the end; returns the status and what was logged.
    pub(crate) fn end(mut self, within: Duration) -> (ExitStatus, Vec<String>) {
        let deadline = Instant::now() + within;
        let mut child = self.guard.0.take().unwrap();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return (status, self.stderr.iter().collect());
            }
            if Instant::now() > deadline {
                self.guard.0 = Some(child);
                panic!("the server does not end within {within:?}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for a line of the log with this text, and returns it.
    pub(crate) fn logged(&self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.stderr.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains(text) => return line,
                Ok(_) => {}
                Err(error) => panic!("no line with {text:?}: {error}"),
            }
        }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends one request on a connection of its own; returns the status and the whole answer.
    pub(crate) fn request(&self, method: &str, path: &str, headers: &[&str], body: &str) -> (u16, String) {
        let mut stream = self.connect();
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.address);
        for header in headers {
            head.push_str(&format!("{header}\r\n"));
        }
        head.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        (status_of(&answer), answer)
    }

    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        self.request("GET", path, &[], "")
    }

    /// Creates a link with this alias, with a key if there is one.
    pub(crate) fn create(&self, alias: &str, key: Option<&str>) -> u16 {
        let mut headers = vec!["Content-Type: application/json".to_owned()];
        headers.extend(key.map(|key| format!("Authorization: Bearer {key}")));
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        let body = format!(r#"{{"url":"https://example.com/{alias}","alias":"{alias}"}}"#);
        self.request("POST", "/api/v1/links", &headers, &body).0
    }
}

pub(crate) fn status_of(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("no status: {answer:?}"))
}

/// Asks until `holds`, at most as long as a second key poll may take.
pub(crate) fn within_a_second(mut holds: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + Duration::from_secs(1);
    while Instant::now() < deadline {
        if holds() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}
