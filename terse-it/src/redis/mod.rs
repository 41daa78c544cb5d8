//! A Redis of a drill's own: on a free port, in a directory of its own, to be
//! killed, stopped and brought back without harm to anybody else.
//!
//! Where it is to be killed, every write is on disk before it is answered
//! (append-only file, synced always), so what it held when it was killed is what
//! it comes back with: the old values that a cache must not believe. Elsewhere it
//! writes nothing to disk, so that a slow disk is none of a drill's business.
//!
//! Bounds: `UP_LIMIT` until it answers, `MEMORY` of values, `PATIENCE` per answer.

mod monitor;
mod wire;

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::cluster::process_state;
use crate::{await_some, await_true};

pub use monitor::Monitor;
pub use wire::{PATIENCE, RedisConnection, Reply};

/// How long it may take to answer, its data read.
pub const UP_LIMIT: Duration = Duration::from_secs(20);
/// Most memory for values.
const MEMORY: &str = "64mb";
/// How long a signalled process may take to be in its new state.
const SIGNAL_LIMIT: Duration = Duration::from_secs(10);
/// How often another free port is tried: between finding and using one somebody else may take it.
const PORT_TRIES: usize = 5;

/// A value as Redis itself serialises it, with what is left of its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its key.
    pub key: String,
    /// What `DUMP` gave; texts are in it as they are, since compression is off.
    pub value: Vec<u8>,
}

impl Kept {
    /// Whether this text is in the value.
    #[must_use]
    pub fn holds(&self, text: &str) -> bool {
        self.value.windows(text.len()).any(|part| part == text.as_bytes())
    }
}

/// A running Redis; dropped, it is killed.
#[derive(Debug)]
pub struct Redis {
    durable: bool,
    place: TempDir,
    address: SocketAddr,
    child: Option<Child>,
}

impl Redis {
    /// Starts one that has nothing on disk, and waits until it answers.
    ///
    /// # Panics
    /// When there is no program `redis-server`: a drill without what it needs has failed, not passed.
    #[must_use]
    pub fn start() -> Self {
        Self::start_as(false)
    }

    /// Starts one that comes back from a kill with all that it held, and waits until it answers.
    ///
    /// # Panics
    /// As [`start`](Self::start) does.
    #[must_use]
    pub fn start_durable() -> Self {
        Self::start_as(true)
    }

    fn start_as(durable: bool) -> Self {
        let place = tempfile::Builder::new().prefix("terse-it-redis-").tempdir();
        let place = place.unwrap_or_else(|error| panic!("no temporary directory: {error}"));
        let mut redis = Self { durable, place, address: ([127, 0, 0, 1], 0).into(), child: None };
        for _ in 0..PORT_TRIES {
            redis.address = free_port();
            redis.launch();
            if redis.is_up_or_ended() {
                return redis;
            }
        }
        panic!("redis-server does not start: {}", redis.log());
    }

    /// `TERSE_CACHE` for it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// A connection to it.
    #[must_use]
    #[track_caller]
    pub fn connect(&self) -> RedisConnection {
        RedisConnection::open(self.address).unwrap_or_else(|error| panic!("no connection to {}: {error}", self.address))
    }

    /// SIGKILLs it.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let killed = child.kill().and_then(|()| child.wait());
            assert!(killed.is_ok(), "redis-server can't be killed: {killed:?}");
        }
    }

    /// Starts it again on the same port and data, and waits until it answers.
    #[track_caller]
    pub fn restart(&mut self) {
        assert!(self.child.is_none(), "redis-server still runs");
        self.launch();
        assert!(self.is_up_or_ended(), "redis-server does not start again: {}", self.log());
    }

    /// SIGSTOPs it: connections stay open and nothing is answered.
    pub fn pause(&self) -> PausedRedis<'_> {
        let pid = self.signal(Signal::STOP);
        await_true("redis-server to stop", SIGNAL_LIMIT, || process_state(pid) == Some('T'));
        PausedRedis { redis: self }
    }

    fn launch(&mut self) {
        let log = self.place.path().join("output.log");
        let output = File::options().create(true).append(true).open(&log);
        let output = output.unwrap_or_else(|error| panic!("{}: {error}", log.display()));
        let mut command = command(self.place.path(), self.address.port(), self.durable);
        let child = command.stdout(output).stderr(Stdio::null()).spawn();
        self.child =
            Some(child.unwrap_or_else(|error| panic!("redis-server does not start, is it installed? {error}")));
    }

    /// Waits until it answers: `true`, or has ended: `false`.
    fn is_up_or_ended(&mut self) -> bool {
        let address = self.address;
        let Some(child) = &mut self.child else { return false };
        await_some("redis-server to answer", UP_LIMIT, || {
            if matches!(child.try_wait(), Ok(Some(_))) {
                return Some(false);
            }
            let answer = RedisConnection::open(address).and_then(|mut redis| redis.call(&["PING"]));
            matches!(answer, Ok(Reply::Text(text)) if text == "PONG").then_some(true)
        })
    }

    fn signal(&self, signal: Signal) -> i32 {
        let pid = self.child.as_ref().and_then(|child| i32::try_from(child.id()).ok()).unwrap_or_default();
        let sent = Pid::from_raw(pid).map(|pid| kill_process(pid, signal));
        assert!(matches!(sent, Some(Ok(()))), "no {signal:?} could be sent to redis-server: {sent:?}");
        pid
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.place.path().join("output.log")).unwrap_or_default()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Both fail only when it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A stopped Redis; dropped, it goes on.
#[derive(Debug)]
pub struct PausedRedis<'a> {
    redis: &'a Redis,
}

impl PausedRedis<'_> {
    /// Lets it go on, and returns at once.
    pub fn resume(self) {}
}

impl Drop for PausedRedis<'_> {
    fn drop(&mut self) {
        self.redis.signal(Signal::CONT);
    }
}

fn command(place: &Path, port: u16, durable: bool) -> Command {
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--daemonize", "no", "--save", ""]);
    let kept = if durable { "yes" } else { "no" };
    command.args(["--appendonly", kept, "--appendfsync", "always", "--rdbcompression", "no"]);
    command.args(["--maxmemory", MEMORY, "--maxmemory-policy", "allkeys-lru"]);
    command.arg("--dir").arg(place).current_dir(place).stdin(Stdio::null());
    command
}

fn free_port() -> SocketAddr {
    let found = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    found.unwrap_or_else(|error| panic!("no free port: {error}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_it_held_when_it_was_killed_is_there_after_its_restart() {
        let mut redis = Redis::start_durable();
        let mut before = redis.connect();
        assert_eq!(before.call(&["SET", "a:link:b", "https://example.com/old"]).unwrap(), Reply::Text("OK".into()));
        redis.kill();
        assert!(before.call(&["PING"]).is_err());
        redis.restart();
        let mut after = redis.connect();
        let kept = after.kept("*:link:b").unwrap();
        assert_eq!(kept.key, "a:link:b");
        assert!(kept.holds("https://example.com/old") && !kept.holds("https://example.com/new"));
    }

    #[test]
    fn one_that_is_not_durable_comes_back_empty() {
        let mut redis = Redis::start();
        let mut before = redis.connect();
        before.call(&["SET", "a:link:b", "old"]).unwrap();
        assert_eq!(before.keys("a:link:*"), ["a:link:b"]);
        redis.kill();
        redis.restart();
        assert!(redis.connect().keys("*").is_empty());
    }

    #[test]
    fn a_value_that_was_kept_can_be_put_back_over_a_newer_one() {
        let redis = Redis::start();
        let mut wire = redis.connect();
        wire.call(&["SET", "k", "old"]).unwrap();
        let kept = wire.kept("k").unwrap();
        wire.call(&["SET", "k", "new"]).unwrap();
        assert!(!wire.kept("k").unwrap().holds("old"));
        wire.put_back(&kept);
        assert_eq!(wire.kept("k").unwrap(), kept);
        assert_eq!(wire.kept("nothing-*"), None);
    }

    #[test]
    fn a_stopped_one_answers_when_it_goes_on() {
        let redis = Redis::start();
        let mut wire = redis.connect();
        let paused = redis.pause();
        wire.send(&["PING"]).unwrap();
        assert_eq!(process_state(redis.signal(Signal::WINCH)), Some('T'));
        paused.resume();
        assert_eq!(wire.receive().unwrap(), Reply::Text("PONG".into()));
    }

    #[test]
    fn commands_are_counted_by_name_and_seen_by_key() {
        let redis = Redis::start();
        let mut wire = redis.connect();
        let monitor = Monitor::start(&redis, "link:hot");
        let before = wire.commands();
        for key in ["link:hot", "link:cold", "link:hot"] {
            wire.call(&["GET", key]).unwrap();
        }
        let after = wire.commands();
        assert_eq!(after["get"] - before.get("get").copied().unwrap_or_default(), 3);
        let seen = monitor.end();
        assert_eq!((seen.chosen, seen.all >= 3), (2, true), "{seen:?}");
    }
}
