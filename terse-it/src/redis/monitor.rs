//! Every command that Redis is sent, as it tells them itself (`MONITOR`).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use super::{Redis, RedisConnection, Reply};

static STARTED: AtomicUsize = AtomicUsize::new(0);

/// What was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Commands with the chosen text in them.
    pub chosen: usize,
    /// All commands.
    pub all: usize,
}

/// Counts commands until it is ended.
#[derive(Debug)]
pub struct Monitor {
    end: String,
    ender: RedisConnection,
    thread: JoinHandle<std::io::Result<Seen>>,
}

impl Monitor {
    /// Counts from now on; apart those with `chosen` in them.
    #[must_use]
    #[track_caller]
    pub fn start(redis: &Redis, chosen: &str) -> Self {
        let end = format!("end-of-monitor-{}", STARTED.fetch_add(1, Ordering::Relaxed));
        let mut wire = redis.connect();
        let answer = wire.call(&["MONITOR"]);
        assert!(matches!(&answer, Ok(Reply::Text(text)) if text == "OK"), "MONITOR gave {answer:?}");
        let (chosen, last) = (chosen.to_owned(), end.clone());
        let thread = std::thread::spawn(move || count(&mut wire, &chosen, &last));
        Self { end, ender: redis.connect(), thread }
    }

    /// What was seen until now, no command missing: the end is a command of its own.
    #[must_use]
    #[track_caller]
    pub fn end(mut self) -> Seen {
        self.ender.call(&["ECHO", &self.end]).unwrap_or_else(|error| panic!("no answer of redis: {error}"));
        let seen = crate::joined(self.thread.join());
        seen.unwrap_or_else(|error| panic!("the monitor broke off: {error}"))
    }
}

fn count(wire: &mut RedisConnection, chosen: &str, last: &str) -> std::io::Result<Seen> {
    let mut seen = Seen::default();
    loop {
        match wire.line() {
            Ok(line) if line.contains(last) => return Ok(seen),
            Ok(line) => {
                seen.all += 1;
                seen.chosen += usize::from(line.contains(chosen));
            }
            // Nothing was sent for a while; a line is never cut by that, Redis writes them whole.
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
    }
}
