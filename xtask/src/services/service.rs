//! One process that `up` runs: what starts it, what it needs, how it is asked
//! whether it works, and where its log is.

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::record::{Record, State};
use crate::process::{Group, Supervisor};

/// Between two questions whether a service is healthy.
const HEALTH_POLL: Duration = Duration::from_millis(100);

/// How long one question may go without an answer.
pub const HEALTH_ANSWER: Duration = Duration::from_secs(2);

/// How many lines of a log are shown when a start fails.
const TAIL_LINES: usize = 20;

/// How much of a log is read for them.
const TAIL_BYTES: u64 = 16 * 1024;

/// What a process printed is kept up to this size and one file before; the services' own logs have bounds of their own.
const OUTPUT_BYTES: u64 = 4 << 20;

/// A process that `up` runs.
pub struct Service {
    /// Its name, as `cassandra-1`.
    pub name: &'static str,
    /// The variable that tells its process id.
    pub variable: &'static str,
    /// Everything of it: configuration, data, log, record.
    pub folder: PathBuf,
    /// Where it listens; nobody else may when it starts.
    pub addresses: Vec<SocketAddr>,
    /// Its own log, relative to the folder; it is shown when a start fails.
    pub log: &'static str,
}

impl Service {
    /// How it is now.
    #[must_use]
    pub fn state(&self) -> State {
        Record::state(&self.record(), &self.folder)
    }

    fn record(&self) -> PathBuf {
        self.folder.join("process")
    }

    fn output(&self) -> PathBuf {
        self.folder.join("output.log")
    }

    /// Starts it; it is known to `down` from its first moment.
    ///
    /// # Errors
    /// When somebody else listens where it would, or it can't be started.
    pub fn start(&self, supervisor: &Supervisor, command: &mut Command) -> Result<Group> {
        for address in &self.addresses {
            TcpListener::bind(address)
                .with_context(|| format!("{} would listen on {address}, which is taken", self.name))?;
        }
        fs::create_dir_all(&self.folder)?;
        rotate(&self.output())?;
        command.current_dir(&self.folder);
        supervisor.serve_marked(command, &self.output(), &self.record(), &self.folder)
    }

    /// Asks until `healthy` says yes, as long as `alive` finds nothing wrong.
    ///
    /// # Errors
    /// That of `alive`, or when `limit` has passed, with the last answer and the log's end.
    pub fn await_healthy(
        &self,
        alive: &mut dyn FnMut() -> Result<()>,
        limit: Duration,
        healthy: &dyn Fn() -> Result<()>,
    ) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            alive()?;
            let Err(unhealthy) = healthy() else { return Ok(()) };
            if Instant::now() >= deadline {
                return Err(self.explain(&unhealthy.context(format!("not healthy after {} s", limit.as_secs()))));
            }
            thread::sleep(HEALTH_POLL);
        }
    }

    /// The last lines of its logs, and where they are: what `error` says isn't enough to find out more.
    #[must_use]
    pub fn explain(&self, error: &anyhow::Error) -> anyhow::Error {
        let mut text = format!("{}: {error:#}", self.name);
        for path in [self.output(), self.folder.join(self.log)] {
            let lines = tail(&path);
            if !lines.is_empty() {
                text += &format!("\nend of {}:\n{lines}", path.display());
            }
        }
        anyhow::anyhow!(text)
    }
}

/// Says `question` to who listens at `address`, and waits for the first `N` bytes of the answer.
///
/// # Errors
/// When nobody listens, or fewer bytes come within [`HEALTH_ANSWER`] each.
pub fn ask<const N: usize>(address: SocketAddr, question: &[u8]) -> Result<[u8; N]> {
    let mut stream = TcpStream::connect_timeout(&address, HEALTH_ANSWER).context("connecting")?;
    stream.set_read_timeout(Some(HEALTH_ANSWER))?;
    stream.write_all(question)?;
    let mut answer = [0; N];
    stream.read_exact(&mut answer).context("no answer")?;
    Ok(answer)
}

fn rotate(log: &Path) -> Result<()> {
    if fs::metadata(log).is_ok_and(|found| found.len() > OUTPUT_BYTES) {
        fs::rename(log, log.with_extension("log.1"))?;
    }
    Ok(())
}

fn tail(path: &Path) -> String {
    let Ok(mut file) = fs::File::open(path) else { return String::new() };
    let length = file.metadata().map_or(0, |found| found.len());
    let mut bytes = Vec::new();
    let read = file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES))).and_then(|_| file.read_to_end(&mut bytes));
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    match read {
        Ok(_) => lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n"),
        Err(error) => format!("can't be read: {error}"),
    }
}

/// Listens, and answers the first question, which has `length` bytes, with `answer`.
#[cfg(test)]
pub(super) fn answering(length: usize, answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        stream.read_exact(&mut vec![0; length]).unwrap();
        stream.write_all(answer).unwrap();
    });
    address
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;

    fn service(folder: &Path, addresses: Vec<SocketAddr>) -> Service {
        Service { name: "a", variable: "A_PID", folder: folder.join("a"), addresses, log: "own.log" }
    }

    fn shell(script: &str) -> Command {
        let mut command = Command::new("bash");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_service_that_cannot_start_shows_its_last_lines_and_their_files() {
        let place = tempfile::tempdir().unwrap();
        let service = service(place.path(), vec![]);
        let mut command = shell("for i in {1..30}; do echo line $i; done; echo why > own.log; exit 3");
        let mut group = service.start(&Supervisor::unwatched(), &mut command).unwrap();
        let mut alive = || group.check_alive();
        let unhealthy = || bail!("no answer");
        let failed = service.await_healthy(&mut alive, Duration::from_secs(5), &unhealthy).unwrap_err();
        let text = service.explain(&failed).to_string();
        assert!(text.starts_with("a: bash ended early: exit status: 3\nend of "), "{text}");
        assert!(text.contains("line 30") && text.contains("line 11") && !text.contains("line 10\n"), "{text}");
        assert!(text.ends_with("a/own.log:\nwhy"), "{text}");
    }

    #[test]
    fn a_service_never_starts_beside_a_stranger_on_its_address() {
        let place = tempfile::tempdir().unwrap();
        let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = stranger.local_addr().unwrap();
        let service = service(place.path(), vec![address]);
        let error = service.start(&Supervisor::unwatched(), &mut shell("exit 0")).err().unwrap();
        assert!(format!("{error:#}").starts_with(&format!("a would listen on {address}, which is taken: ")));
        assert!(!service.folder.exists());
    }

    #[test]
    fn a_service_that_never_gets_healthy_is_given_up_with_its_last_answer() {
        let place = tempfile::tempdir().unwrap();
        let unhealthy = || bail!("one node is down");
        let service = service(place.path(), vec![]);
        let error = service.await_healthy(&mut || Ok(()), Duration::ZERO, &unhealthy).unwrap_err();
        assert_eq!(error.to_string(), "a: not healthy after 0 s: one node is down");
    }

    #[test]
    fn output_is_kept_up_to_a_size_and_one_file_before() {
        let place = tempfile::tempdir().unwrap();
        let log = place.path().join("output.log");
        fs::write(&log, "short").unwrap();
        rotate(&log).unwrap();
        assert!(log.exists());
        fs::File::options().write(true).open(&log).unwrap().set_len(OUTPUT_BYTES + 1).unwrap();
        rotate(&log).unwrap();
        assert!(!log.exists() && place.path().join("output.log.1").exists());
    }
}
