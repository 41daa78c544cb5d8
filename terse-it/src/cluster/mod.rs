//! The three-node cluster that `cargo xtask up cassandra` runs: its nodes can be
//! killed, paused and brought back, and looked into one by one.
//!
//! `TERSE_CQL` names the nodes (`cql://host:port,host:port`), else
//! `TERSE_STORE` of `target/services.env` does. Process ids come from that
//! file, which `up` rewrites, else from `CASSANDRA_1_PID` and so on.
//!
//! A guard stands for every fault: dropped, also by a failing test, it makes
//! the fault good. Only one test or drill has the cluster at a time: a lock on
//! `target/cluster.lock`, which the system releases even if the holder is killed.
//!
//! Bounds: [`LOCK_LIMIT`] for the turn, [`RESTART_LIMIT`] for `up`, [`SERVE_LIMIT`] for a node to answer.

mod apart;
mod cql;
mod keyspace;
mod services;

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::{await_some, await_true};

pub use apart::Apart;
pub use cql::{Consistency, CqlConnection, CqlError, Row};
pub use keyspace::Keyspace;
use services::Services;
pub(crate) use services::process_state;

/// How long others may have the cluster before it is one's own turn.
pub const LOCK_LIMIT: Duration = Duration::from_secs(15 * 60);
/// How long `up` may take to bring a killed node back.
pub const RESTART_LIMIT: Duration = Duration::from_secs(180);
/// How long a node may take to answer after it was resumed or restarted.
pub const SERVE_LIMIT: Duration = Duration::from_secs(60);
/// How long a node may take for one answer to the drill itself.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How long a signalled process may take to be in its new state.
const SIGNAL_LIMIT: Duration = Duration::from_secs(10);

/// The cluster, held exclusively while this lives.
#[derive(Debug)]
pub struct Cluster {
    services: Services,
    nodes: Vec<SocketAddr>,
    /// Unlocked when closed.
    _turn: File,
}

impl Cluster {
    /// The cluster of the environment, once it is this caller's turn and all its nodes serve.
    ///
    /// # Panics
    /// When there is none: a drill without a cluster has failed, not passed.
    #[must_use]
    pub fn from_env() -> Self {
        let services = Services::find();
        let nodes = services.nodes();
        let cluster = Self { _turn: services.take_turn(), services, nodes };
        cluster.make_whole();
        cluster
    }

    /// Brings back and lets go on all nodes, and waits until they know of each other.
    ///
    /// # Panics
    /// When that takes longer than [`RESTART_LIMIT`] and [`SERVE_LIMIT`].
    pub fn make_whole(&self) {
        self.heal();
        self.await_whole(SERVE_LIMIT);
    }

    /// Makes good what a drill that was killed itself has left behind.
    fn heal(&self) {
        let states: Vec<_> = (0..self.len()).map(|number| self.services.running(number)).collect();
        for pid in states.iter().flatten().filter(|pid| services::process_state(**pid) == Some('T')) {
            signal(*pid, Signal::CONT);
        }
        if states.iter().any(Option::is_none) {
            self.up().unwrap_or_else(|error| panic!("{error}"));
        }
    }

    /// How many nodes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there are none; there always are.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Where node `number` serves CQL; the first is 0.
    #[must_use]
    pub fn address(&self, number: usize) -> SocketAddr {
        self.nodes[number]
    }

    /// Where the nodes serve CQL.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.nodes
    }

    /// A keyspace of a name that nothing else has, made by whoever uses it first, dropped with the value.
    #[must_use]
    pub fn keyspace(&self, purpose: &str) -> Keyspace {
        Keyspace::named(purpose, &self.nodes)
    }

    /// Asks one node directly.
    ///
    /// # Errors
    /// Those of the node and of the wire.
    pub fn ask(&self, number: usize, query: &str, consistency: Consistency) -> Result<Vec<Row>, CqlError> {
        CqlConnection::open(self.nodes[number], PATIENCE)?.query(query, consistency)
    }

    /// Waits until every node, asked directly, has an answer of all replicas: none is down or thought to be down.
    pub fn await_whole(&self, limit: Duration) {
        // A table of the engine's own with three replicas.
        const EVERYWHERE: &str = "SELECT id FROM system_distributed.repair_history \
                                  WHERE keyspace_name = 'none' AND columnfamily_name = 'none'";
        for number in 0..self.len() {
            await_true(&format!("node {} to reach all replicas", number + 1), limit, || {
                self.ask(number, EVERYWHERE, Consistency::All).is_ok()
            });
        }
    }

    /// Waits until every replica has these links: one that missed a write is
    /// given it by a read of all, since nodes hold no writes for others here.
    pub fn spread(&self, keyspace: &Keyspace, codes: impl IntoIterator<Item = impl AsRef<str>>) {
        let mut node = CqlConnection::open(self.nodes[0], PATIENCE).unwrap_or_else(|error| panic!("{error}"));
        for code in codes {
            let query = format!("SELECT * FROM {}.links WHERE code = '{}'", keyspace.name(), code.as_ref());
            await_true("a read of all replicas", SERVE_LIMIT, || {
                let rows = node.query(&query, Consistency::All);
                rows.is_ok_and(|rows| rows.len() == 1)
            });
        }
    }

    /// Waits until one node answers for itself; returns how long that took.
    pub fn await_serving(&self, number: usize, limit: Duration) -> Duration {
        let began = Instant::now();
        await_true(&format!("node {} to serve", number + 1), limit, || {
            self.ask(number, "SELECT key FROM system.local", Consistency::One).is_ok()
        });
        began.elapsed()
    }

    /// Gives the nodes a core to themselves, and the rest to the processes `others` and to this one; what this one
    /// starts from then on is with it.
    ///
    /// # Panics
    /// When there is but one.
    pub fn apart(&self, others: &[u32]) -> Apart {
        let nodes = (0..self.len()).map(|number| self.services.pid(number).unsigned_abs()).collect();
        Apart::put(nodes, others.iter().copied().chain([std::process::id()]).collect())
    }

    /// SIGSTOPs a node: it keeps its connections and says nothing.
    #[must_use]
    pub fn pause(&self, number: usize) -> Paused<'_> {
        let pid = self.services.pid(number);
        signal(pid, Signal::STOP);
        await_true("the node to stop", SIGNAL_LIMIT, || services::process_state(pid) == Some('T'));
        Paused { cluster: self, number, pid, resumed: false }
    }

    /// SIGKILLs a node.
    #[must_use]
    pub fn kill(&self, number: usize) -> Killed<'_> {
        let pid = self.services.pid(number);
        signal(pid, Signal::KILL);
        await_true("the node to end", SIGNAL_LIMIT, || matches!(services::process_state(pid), None | Some('Z')));
        Killed { cluster: self, number, back: false }
    }

    /// Brings back what is missing, as `cargo xtask up cassandra` does.
    ///
    /// # Errors
    /// When that fails or takes longer than [`RESTART_LIMIT`].
    pub fn up(&self) -> Result<(), String> {
        let (program, arguments) = self.services.xtask();
        let log = self.services.folder().join("drill-up.log");
        let output = File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
        let errors = output.try_clone().map_err(|error| error.to_string())?;
        let mut command = Command::new(&program);
        command.args(arguments).args(["up", "cassandra"]).current_dir(self.services.root());
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let mut child = command.spawn().map_err(|error| format!("{}: {error}", program.display()))?;
        let began = Instant::now();
        loop {
            match child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(None) if began.elapsed() < RESTART_LIMIT => std::thread::sleep(crate::LOOK_AGAIN),
                other => {
                    // It may have ended by itself; then there is nothing to kill.
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(format!("up: {other:?}\n{}", tail(&log)));
                }
            }
        }
    }
}

fn tail(log: &PathBuf) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

fn signal(pid: i32, signal: Signal) {
    let sent = Pid::from_raw(pid).map(|pid| kill_process(pid, signal));
    assert!(matches!(sent, Some(Ok(()))), "no {signal:?} could be sent to {pid}: {sent:?}");
}

/// A stopped node; dropped, it goes on.
#[derive(Debug)]
pub struct Paused<'a> {
    cluster: &'a Cluster,
    number: usize,
    pid: i32,
    resumed: bool,
}

impl Paused<'_> {
    /// Which node it is.
    #[must_use]
    pub fn number(&self) -> usize {
        self.number
    }

    /// Lets the node go on, and returns at once.
    pub fn resume(mut self) {
        self.go_on();
    }

    fn go_on(&mut self) {
        if !std::mem::replace(&mut self.resumed, true) {
            signal(self.pid, Signal::CONT);
        }
    }
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        let failing = std::thread::panicking();
        if failing {
            // The failure at hand is what has to be told; the node may have been killed meanwhile.
            let _ = Pid::from_raw(self.pid).map(|pid| kill_process(pid, Signal::CONT));
        } else {
            self.go_on();
            self.cluster.await_serving(self.number, SERVE_LIMIT);
        }
    }
}

/// A killed node; dropped, it is brought back.
#[derive(Debug)]
pub struct Killed<'a> {
    cluster: &'a Cluster,
    number: usize,
    back: bool,
}

impl Killed<'_> {
    /// Which node it is.
    #[must_use]
    pub fn number(&self) -> usize {
        self.number
    }

    /// Brings the node back and waits until it serves. All other killed nodes come back with it.
    pub fn restart(mut self) {
        self.back = true;
        self.cluster.up().unwrap_or_else(|error| panic!("{error}"));
        self.cluster.await_serving(self.number, SERVE_LIMIT);
    }
}

impl Drop for Killed<'_> {
    #[allow(clippy::print_stdout, reason = "the test runner shows it with the failure")]
    fn drop(&mut self) {
        if !self.back
            && let Err(error) = self.cluster.up()
        {
            assert!(std::thread::panicking(), "{error}");
            println!("{error}");
        }
    }
}

/// Waits until a fresh connection reads `query` at a quorum through any node; returns when that was.
#[must_use]
pub fn await_quorum(nodes: &[SocketAddr], query: &str, limit: Duration) -> Instant {
    let patience = Duration::from_millis(500);
    await_some("a read at a quorum", limit, || {
        let read = |node: &SocketAddr| CqlConnection::open(*node, patience)?.query(query, Consistency::LocalQuorum);
        nodes.iter().any(|node| read(node).is_ok()).then(Instant::now)
    })
}
