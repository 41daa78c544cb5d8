//! Which process a service is: the id that it wrote down itself before it
//! became the service, and what proves that the id still means that process.
//!
//! An id alone proves nothing: ids are used again. So a record has the start
//! time as well, and every process of a service carries the service's folder
//! in its environment ([`MARK`]), which nobody else's process does. Whatever
//! fails these checks is a stranger and is left alone.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::process::{MARK, POLL};

/// How long a service may take to end after SIGTERM, before SIGKILL; Cassandra takes about five seconds.
const STOP_GRACE: Duration = Duration::from_secs(20);

/// How long a process may take to go after SIGKILL: only the kernel can be slow then.
const KILL_GRACE: Duration = Duration::from_secs(10);

/// A process as it wrote itself down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its id.
    pub pid: i32,
    /// When it started, in clock ticks since the machine did.
    pub started: u64,
}

/// How a service is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// There is no process.
    Absent,
    /// Its process runs.
    Running(Record),
    /// Its process was stopped by a signal, as by `kill -STOP`.
    Paused(Record),
}

impl State {
    /// The process, if there is one.
    #[must_use]
    pub fn record(self) -> Option<Record> {
        match self {
            Self::Absent => None,
            Self::Running(record) | Self::Paused(record) => Some(record),
        }
    }
}

impl Record {
    /// Reads `PID STARTED`.
    fn parse(text: &str) -> Option<Self> {
        let (pid, started) = text.trim().split_once(' ')?;
        Some(Self { pid: pid.parse().ok().filter(|pid| *pid > 1)?, started: started.parse().ok()? })
    }

    /// How the process in `file` is, provided that it still is the one of the service in `folder`.
    #[must_use]
    pub fn state(file: &Path, folder: &Path) -> State {
        let record = fs::read_to_string(file).ok().and_then(|text| Self::parse(&text));
        record.map_or(State::Absent, |record| record.look(folder))
    }

    fn look(self, folder: &Path) -> State {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        let environment = fs::read(format!("/proc/{}/environ", self.pid)).unwrap_or_default();
        judge(self, &stat, &environment, folder)
    }

    fn signal(self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.pid) {
            // It may have ended by itself: the caller waits for that anyway.
            let _ = kill_process(pid, signal);
        }
    }

    /// Lets a paused process go on.
    pub fn resume(self) {
        self.signal(Signal::CONT);
    }

    /// Ends the process of the service in `folder`: asks first, kills when the
    /// grace period is over, and returns only when it is gone.
    ///
    /// # Errors
    /// When it is still there after SIGKILL.
    pub fn stop(self, folder: &Path) -> Result<()> {
        self.signal(Signal::TERM);
        // A paused process would never see the request.
        self.signal(Signal::CONT);
        if self.await_gone(folder, STOP_GRACE) {
            return Ok(());
        }
        self.signal(Signal::KILL);
        if !self.await_gone(folder, KILL_GRACE) {
            bail!("process {} of {} can't be ended", self.pid, folder.display());
        }
        Ok(())
    }

    fn await_gone(self, folder: &Path, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while self.look(folder) != State::Absent {
            if Instant::now() >= deadline {
                return false;
            }
            thread::sleep(POLL);
        }
        true
    }
}

/// What `stat` and `environ` of a process say about a record.
fn judge(record: Record, stat: &str, environment: &[u8], folder: &Path) -> State {
    let Some((_, fields)) = stat.rsplit_once(") ") else { return State::Absent };
    let fields: Vec<&str> = fields.split_whitespace().collect();
    // The state is field 3 of the line, the start time field 22.
    let (Some(state), Some(started)) = (fields.first(), fields.get(19)) else { return State::Absent };
    if started.parse() != Ok(record.started) || !marks(environment).any(|mark| mark == folder.as_os_str()) {
        return State::Absent;
    }
    match *state {
        "Z" | "X" => State::Absent,
        "T" | "t" => State::Paused(record),
        _ => State::Running(record),
    }
}

/// All processes that carry the mark of a service in `folder` or below it:
/// the services themselves and what they started.
#[must_use]
pub fn marked_below(folder: &Path) -> Vec<i32> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        marks(&environment).any(|mark| Path::new(mark).starts_with(folder))
    })
    .collect()
}

/// The folders of services that an environment names; a process has one at most.
fn marks(environment: &[u8]) -> impl Iterator<Item = &OsStr> {
    let variables = environment.split(|byte| *byte == 0);
    variables.filter_map(|variable| variable.strip_prefix(MARK.as_bytes())?.strip_prefix(b"=").map(OsStr::from_bytes))
}

/// Kills what is left of services in `folder`, as `down` does last; waits until all of it is gone.
///
/// # Errors
/// When something is still there.
pub fn kill_marked_below(folder: &Path) -> Result<()> {
    let deadline = Instant::now() + KILL_GRACE;
    loop {
        let left = marked_below(folder);
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!("processes of {} can't be ended: {left:?}", folder.display());
        }
        left.iter().for_each(|pid| Record { pid: *pid, started: 0 }.signal(Signal::KILL));
        thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Supervisor;
    use std::process::Command;

    const RECORD: Record = Record { pid: 42, started: 777 };

    fn stat(state: &str, started: u64) -> String {
        let zeros = "0 ".repeat(18);
        format!("42 (a) b) {state} {zeros}{started} 0 0")
    }

    fn environment(folder: &str) -> Vec<u8> {
        format!("A=1\0{MARK}={folder}\0B=2\0").into_bytes()
    }

    #[test]
    fn a_record_is_an_id_and_a_start_time() {
        assert_eq!(Record::parse("42 777\n"), Some(RECORD));
        for nonsense in ["", "42", "x 777", "42 x", "0 777", "1 777", "-3 777"] {
            assert_eq!(Record::parse(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn an_id_that_another_process_has_by_now_is_no_service() {
        let folder = Path::new("/t/redis");
        let judge = |stat: &str, marked: &str| judge(RECORD, stat, &environment(marked), folder);
        assert_eq!(judge(&stat("S", 777), "/t/redis"), State::Running(RECORD));
        assert_eq!(judge(&stat("T", 777), "/t/redis"), State::Paused(RECORD));
        assert_eq!(judge(&stat("Z", 777), "/t/redis"), State::Absent);
        assert_eq!(judge(&stat("S", 778), "/t/redis"), State::Absent);
        assert_eq!(judge(&stat("S", 777), "/other/redis"), State::Absent);
        assert_eq!(judge("", "/t/redis"), State::Absent);
    }

    /// A service that is a shell, as `up` would start one.
    fn shell(script: &str, folder: &Path) -> crate::process::Group {
        let mut command = Command::new("bash");
        command.args(["-c", script]);
        let supervisor = Supervisor::unwatched();
        let group =
            supervisor.serve_marked(&command, &folder.join("log"), &folder.join("record"), folder).expect("starts");
        let deadline = Instant::now() + Duration::from_secs(5);
        while fs::read_to_string(folder.join("log")).unwrap_or_default() != "up\n" {
            assert!(Instant::now() < deadline, "the service did not start");
            thread::sleep(POLL);
        }
        group
    }

    #[test]
    fn a_service_writes_itself_down_and_is_recognised_paused_and_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let mut group = shell("echo up; while :; do read -rt 0.05 <> <(:); done", folder.path());
        let file = folder.path().join("record");
        let State::Running(record) = Record::state(&file, folder.path()) else { panic!("not running") };
        assert_eq!(record.pid.unsigned_abs(), group.pid());
        record.signal(Signal::STOP);
        let deadline = Instant::now() + Duration::from_secs(5);
        while Record::state(&file, folder.path()) != State::Paused(record) {
            assert!(Instant::now() < deadline, "it never paused");
            thread::sleep(POLL);
        }
        record.stop(folder.path()).unwrap();
        assert_eq!(Record::state(&file, folder.path()), State::Absent);
        assert!(group.check_alive().is_err());
    }

    #[test]
    fn what_a_service_left_behind_is_found_by_its_mark_and_ended() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("a");
        fs::create_dir(&folder).unwrap();
        let group = shell("sleep 100 & echo up; wait", &folder);
        assert_eq!(marked_below(place.path()).len(), 2);
        assert_eq!(marked_below(&folder).len(), 2);
        assert_eq!(marked_below(&place.path().join("b")), [0; 0]);
        kill_marked_below(place.path()).unwrap();
        assert_eq!(marked_below(place.path()), [0; 0]);
        drop(group);
    }
}
