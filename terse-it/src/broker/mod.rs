//! A RabbitMQ of a drill's own: its own node, ports, name daemon and directory,
//! to be killed, stopped, starved and brought back without harm to anybody else.
//!
//! It is run as `cargo xtask up rabbitmq` runs the shared one: by the package's
//! script in /usr/lib, told that it runs under systemd, so that the process that
//! was started is the broker itself. What it holds is in its directory, and is
//! there again when it comes back from a kill. A drill that fails leaves that directory behind.
//!
//! Bounds: [`UP_LIMIT`] until it answers, [`CONTROL_LIMIT`] per command of an operator.

mod control;

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::cluster::process_state;
use crate::ports::steady_port;
use crate::process::Place;
use crate::{await_some, await_true};

pub use control::{CONTROL_LIMIT, Queue};

/// How long it may take to answer; 7 s on two idle cores.
pub const UP_LIMIT: Duration = Duration::from_secs(90);
/// How long it may take to say the first word of a conversation.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// How long a signalled process may take to be in its new state.
const SIGNAL_LIMIT: Duration = Duration::from_secs(10);
/// How long what was declared may take to be on disk.
const DECLARED_LIMIT: Duration = Duration::from_secs(30);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// The package's programs.
const PROGRAMS: &str = "/usr/lib/rabbitmq/bin";

/// Where it listens; they stay the same when it comes back.
#[derive(Clone, Copy, Debug)]
struct Ports {
    amqp: u16,
    distribution: u16,
    names: u16,
}

/// A running RabbitMQ with its name daemon; dropped, both are killed.
#[derive(Debug)]
pub struct Broker {
    ports: Ports,
    names: Child,
    child: Option<Child>,
    place: Place,
}

impl Broker {
    /// Starts one that holds nothing, and waits until it answers.
    ///
    /// # Panics
    /// When RabbitMQ is not installed: a drill without what it needs has failed, not passed.
    #[must_use]
    pub fn start() -> Self {
        let place = Place::new("terse-it-rabbitmq-");
        place.keep_on_failure();
        let ports = Ports { amqp: steady_port(), distribution: steady_port(), names: steady_port() };
        let names = name_daemon(ports.names);
        let mut broker = Self { ports, names, child: None, place };
        await_true("the name daemon to answer", SIGNAL_LIMIT, || TcpStream::connect(local(ports.names)).is_ok());
        broker.configure();
        broker.launch();
        broker
    }

    /// `TERSE_BUS` for it.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_through(self.address())
    }

    /// `TERSE_BUS` for what listens at `address` in front of it.
    #[must_use]
    pub fn url_through(&self, address: SocketAddr) -> String {
        format!("amqp://guest:guest@{address}/%2f")
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        local(self.ports.amqp)
    }

    /// SIGKILLs it.
    #[track_caller]
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let killed = child.kill().and_then(|()| child.wait());
            assert!(killed.is_ok(), "the broker can't be killed: {killed:?}");
        }
    }

    /// Starts it again with what it held, and waits until it answers.
    #[track_caller]
    pub fn restart(&mut self) {
        assert!(self.child.is_none(), "the broker still runs");
        self.launch();
    }

    /// Whether it runs, stopped or not.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.child.is_some()
    }

    /// Waits until its disk has the names of what was declared. Streams and quorum queues have theirs in a table that
    /// is written some seconds late: killed before that, RabbitMQ 3.10 does not find them when it comes back, however
    /// long it is waited for, and terse's clicks stay on disk until an operator has deleted them.
    #[track_caller]
    pub fn await_declared(&self) {
        let node = self.node();
        for (of, name) in [("coordination", "rabbit_stream_coordinator"), ("quorum", control::DEAD)] {
            let table = self.place.path().join("data").join(&node).join(of).join(&node).join("names.dets");
            await_true(&format!("{name} in {}", table.display()), DECLARED_LIMIT, || {
                std::thread::sleep(LOOK);
                let table = fs::read(&table).unwrap_or_default();
                table.windows(name.len()).any(|part| part == name.as_bytes())
            });
        }
    }

    fn node(&self) -> String {
        format!("drill-{}@localhost", self.ports.amqp)
    }

    /// SIGSTOPs it: connections stay open, new ones are taken by the system, and nothing is answered.
    #[must_use]
    #[track_caller]
    pub fn pause(&self) -> PausedBroker {
        let pid = self.child.as_ref().and_then(|child| i32::try_from(child.id()).ok()).unwrap_or_default();
        let sent = Pid::from_raw(pid).map(|pid| kill_process(pid, Signal::STOP));
        assert!(matches!(sent, Some(Ok(()))), "the broker can't be stopped: {sent:?}");
        await_true("the broker to stop", SIGNAL_LIMIT, || process_state(pid) == Some('T'));
        PausedBroker { pid }
    }

    fn configure(&self) {
        let config = format!(
            "listeners.tcp.default = 127.0.0.1:{}\ndistribution.listener.interface = 127.0.0.1\nlog.console = false\n\
             log.file = rabbitmq.log\nlog.file.level = info\n",
            self.ports.amqp
        );
        for (name, text) in [("rabbitmq.conf", &*config), ("enabled_plugins", "[].\n"), ("rabbitmq-env.conf", "")] {
            let path = self.place.path().join(name);
            fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
    }

    #[track_caller]
    fn launch(&mut self) {
        let log = self.place.path().join("output.log");
        let output = File::options().create(true).append(true).open(&log);
        let output = output.unwrap_or_else(|error| panic!("{}: {error}", log.display()));
        let errors = output.try_clone().unwrap_or_else(|error| panic!("{}: {error}", log.display()));
        let mut command = self.program("rabbitmq-server");
        let child = command.env("RUNNING_UNDER_SYSTEMD", "true").stdout(output).stderr(errors).spawn();
        let child = child.unwrap_or_else(|error| panic!("RabbitMQ does not start, is it installed? {error}"));
        let (child, address) = (self.child.insert(child), local(self.ports.amqp));
        let is_up = await_some("the broker to answer", UP_LIMIT, || match child.try_wait() {
            Ok(Some(_)) => Some(false),
            _ => speaks_amqp(address).then_some(true),
        });
        assert!(is_up, "the broker has ended: {}", fs::read_to_string(log).unwrap_or_default());
    }

    /// One of the package's programs, told which node it is about and where everything of it is.
    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(Path::new(PROGRAMS).join(name));
        let Ports { distribution, names, .. } = self.ports;
        let files = [
            ("HOME", ""),
            ("RABBITMQ_CONF_ENV_FILE", "rabbitmq-env.conf"),
            ("RABBITMQ_CONFIG_FILE", "rabbitmq.conf"),
            ("RABBITMQ_ADVANCED_CONFIG_FILE", "advanced.config"),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", "enabled_plugins"),
            ("RABBITMQ_MNESIA_BASE", "data"),
            ("RABBITMQ_LOG_BASE", "log"),
        ];
        command.envs(files.map(|(name, path)| (name, self.place.path().join(path))));
        command.envs([
            ("RABBITMQ_NODENAME", self.node()),
            ("RABBITMQ_DIST_PORT", distribution.to_string()),
            ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
            ("ERL_EPMD_PORT", names.to_string()),
        ]);
        command.current_dir(self.place.path()).stdin(Stdio::null());
        command
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Each fails only when it has ended already.
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = self.names.kill();
        let _ = self.names.wait();
    }
}

/// A stopped broker; dropped, it goes on.
#[derive(Debug)]
pub struct PausedBroker {
    pid: i32,
}

impl Drop for PausedBroker {
    fn drop(&mut self) {
        let sent = Pid::from_raw(self.pid).map(|pid| kill_process(pid, Signal::CONT));
        assert!(std::thread::panicking() || matches!(sent, Some(Ok(()))), "the broker can't go on: {sent:?}");
    }
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Erlang's nodes find each other through it; a shared one would outlive the drill.
fn name_daemon(port: u16) -> Child {
    let mut command = Command::new("epmd");
    command.args(["-address", "127.0.0.1", "-port", &port.to_string()]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    child.unwrap_or_else(|error| panic!("epmd does not start, is RabbitMQ installed? {error}"))
}

/// Whether who listens there begins a conversation in AMQP 0-9-1.
fn speaks_amqp(address: SocketAddr) -> bool {
    let asked = || -> std::io::Result<[u8; 11]> {
        let mut stream = TcpStream::connect_timeout(&address, ANSWER_LIMIT)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.write_all(b"AMQP\0\0\x09\x01")?;
        let mut answer = [0; 11];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    };
    // A method frame (1) of channel 0, then its size, then connection.start (10, 10).
    asked().is_ok_and(|answer| answer[..3] == [1, 0, 0] && answer[7..] == [0, 10, 0, 10])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Listens, and answers the first question of eight bytes with `answer`.
    fn answering(answer: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            stream.read_exact(&mut [0; 8]).unwrap();
            stream.write_all(answer).unwrap();
        });
        address
    }

    #[test]
    fn only_the_start_of_a_conversation_is_an_answer() {
        assert!(speaks_amqp(answering(&[1, 0, 0, 0, 0, 1, 0, 0, 10, 0, 10, 0, 9])));
        assert!(!speaks_amqp(answering(b"AMQP\0\0\x09\x01")));
        assert!(!speaks_amqp(answering(b"HTTP/1.1 400 Bad Request")));
    }

    #[test]
    fn it_is_killed_stopped_and_asked_and_comes_back_where_it_was() {
        let mut broker = Broker::start();
        let (url, address) = (broker.url(), broker.address());
        assert!(broker.queues().is_empty() && speaks_amqp(address));
        let paused = broker.pause();
        assert!(!speaks_amqp(address), "a stopped one says nothing");
        drop(paused);
        assert!(speaks_amqp(address));
        broker.kill();
        assert!(!broker.is_up() && TcpStream::connect(address).is_err());
        broker.restart();
        assert!(broker.is_up() && broker.url() == url && speaks_amqp(address));
    }
}
