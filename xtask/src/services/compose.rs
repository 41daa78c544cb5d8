//! The services in containers, where a Docker engine answers: ScyllaDB in
//! place of Cassandra, Redis, RabbitMQ, and with `all` terse itself.
//!
//! Process ids are the engine's business there: `docker compose kill` and
//! `pause` do what `kill` and `kill -STOP` do to the processes of this machine.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Result;

use super::Which;
use super::environment::Environment;
use crate::process::Supervisor;
use crate::workspace::Workspace;

/// How long pulling images, building terse and starting everything may take.
const UP_LIMIT: Duration = Duration::from_secs(30 * 60);

/// How long stopping everything may take.
const DOWN_LIMIT: Duration = Duration::from_secs(3 * 60);

/// Tells that `up` used the engine, so that `down` asks it as well.
const MARKER: &str = "compose";

/// Whether there is an engine that answers; the program alone is no engine.
#[must_use]
pub fn engine_answers() -> bool {
    succeeds(Command::new("docker").arg("info")) && succeeds(Command::new("docker").args(["compose", "version"]))
}

fn succeeds(command: &mut Command) -> bool {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// The names in `docker-compose.yml`; none = all.
fn names(which: Which) -> &'static [&'static str] {
    match which {
        Which::Cassandra => &["scylla"],
        Which::Redis => &["redis"],
        Which::Rabbitmq => &["rabbitmq"],
        Which::All => &[],
    }
}

/// Where the published ports are, as terse on this machine takes them.
fn addresses(which: Which) -> Environment {
    let all = [
        (Which::Cassandra, "TERSE_STORE", "cql://127.0.0.1:9042/terse?replication=1"),
        (Which::Redis, "TERSE_CACHE", "redis://127.0.0.1:6379"),
        (Which::Rabbitmq, "TERSE_BUS", "amqp://terse:terse@127.0.0.1:5672/%2f"),
    ];
    let mut environment = Environment::default();
    for (one, name, value) in all {
        if which == Which::All || which == one {
            environment.set(name, value.to_owned());
        }
    }
    environment
}

fn command(workspace: &Workspace, arguments: &[&str]) -> Command {
    let mut command = Command::new("docker");
    command.arg("compose").args(arguments).current_dir(&workspace.root);
    command
}

/// Brings up what is named and waits until its health checks pass.
///
/// # Errors
/// When the engine fails or a container doesn't get healthy.
pub fn up(workspace: &Workspace, supervisor: &Supervisor, folder: &Path, which: Which) -> Result<Environment> {
    fs::write(folder.join(MARKER), "")?;
    let mut command = command(workspace, &["up", "--detach", "--wait"]);
    supervisor.run_ok(command.args(names(which)), UP_LIMIT)?;
    Ok(addresses(which))
}

/// Takes down what [`up`] brought up, if it did.
///
/// # Errors
/// When the engine fails.
pub fn down(workspace: &Workspace, supervisor: &Supervisor, folder: &Path, delete_data: bool) -> Result<()> {
    let marker = folder.join(MARKER);
    if !marker.exists() {
        return Ok(());
    }
    let mut command = command(workspace, &["down"]);
    if delete_data {
        command.arg("--volumes");
    }
    supervisor.run_ok(&mut command, DOWN_LIMIT)?;
    Ok(fs::remove_file(marker)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_of_what_was_brought_up() {
        assert_eq!(addresses(Which::Redis).to_string(), "TERSE_CACHE=redis://127.0.0.1:6379\n");
        assert_eq!(addresses(Which::All).variables().len(), 3);
    }

    #[test]
    fn nothing_is_asked_of_an_engine_that_was_never_used() {
        let folder = tempfile::tempdir().unwrap();
        let workspace = Workspace::find().unwrap();
        down(&workspace, &Supervisor::unwatched(), folder.path(), true).unwrap();
    }

    #[test]
    fn a_program_that_fails_or_is_not_there_is_no_engine() {
        assert!(succeeds(&mut Command::new("true")));
        assert!(!succeeds(&mut Command::new("false")));
        assert!(!succeeds(&mut Command::new("no-such-program-here")));
    }
}
