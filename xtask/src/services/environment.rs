//! What runs, as variables: `target/services.env`, in the form that a shell
//! (`set -a; . target/services.env`) and compose read alike.

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::{Kind, cassandra, rabbitmq, redis};

/// The keyspace of a terse that is started with these variables.
const KEYSPACE: &str = "terse";

/// Variables and their values, in the order in which they are written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment(Vec<(&'static str, String)>);

impl Environment {
    /// What the processes of each kind, as `(variable, process id)`, mean.
    #[must_use]
    pub fn of(running: impl IntoIterator<Item = (Kind, Vec<(&'static str, i32)>)>) -> Self {
        let mut environment = Self::default();
        for (kind, processes) in running {
            if processes.is_empty() {
                continue;
            }
            let (name, value) = address(kind);
            environment.set(name, value);
            processes.into_iter().for_each(|(name, pid)| environment.set(name, pid.to_string()));
        }
        environment
    }

    /// Adds a variable.
    pub fn set(&mut self, name: &'static str, value: String) {
        self.0.push((name, value));
    }

    /// All of them.
    #[must_use]
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        self.0.clone()
    }

    /// Writes them to `path`, whole or not at all.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let half = path.with_extension("env.new");
        fs::write(&half, self.to_string()).with_context(|| half.display().to_string())?;
        fs::rename(&half, path).with_context(|| path.display().to_string())
    }
}

/// How terse is told of a kind of service.
fn address(kind: Kind) -> (&'static str, String) {
    match kind {
        Kind::Cassandra => ("TERSE_STORE", format!("{}/{KEYSPACE}", cassandra::url())),
        Kind::Redis => ("TERSE_CACHE", redis::url()),
        Kind::Rabbitmq => ("TERSE_BUS", rabbitmq::url()),
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(name, value)| writeln!(f, "{name}={value}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_is_told_with_its_address_and_its_processes() {
        let environment = Environment::of([
            (Kind::Cassandra, vec![("CASSANDRA_1_PID", 11), ("CASSANDRA_3_PID", 13)]),
            (Kind::Redis, vec![]),
            (Kind::Rabbitmq, vec![("RABBITMQ_PID", 7)]),
        ]);
        let lines = [
            "TERSE_STORE=cql://127.0.0.11:9042,127.0.0.12:9042,127.0.0.13:9042/terse",
            "CASSANDRA_1_PID=11",
            "CASSANDRA_3_PID=13",
            "TERSE_BUS=amqp://guest:guest@127.0.0.1:16672/%2f",
            "RABBITMQ_PID=7",
        ];
        assert_eq!(environment.to_string(), lines.map(|line| format!("{line}\n")).concat());
    }

    #[test]
    fn a_shell_reads_the_file_as_it_is() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("services.env");
        Environment::of([(Kind::Redis, vec![("REDIS_PID", 5)])]).write(&path).unwrap();
        let mut shell = std::process::Command::new("bash");
        shell.args(["-c", "set -a; . \"$0\"; env"]).arg(&path);
        let output = String::from_utf8(shell.output().unwrap().stdout).unwrap();
        assert!(output.contains("TERSE_CACHE=redis://127.0.0.1:16379\n") && output.contains("REDIS_PID=5\n"));
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
    }
}
