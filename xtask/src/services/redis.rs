//! One Redis, from the Debian package, on a port of its own. Every write is in
//! its append-only file, so that `up` after a kill brings the data back.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::service::{Service, ask};
use crate::process::find_program;
use crate::tools::Tools;

/// How long it may take until it answers; it reads its data first.
pub const START_LIMIT: Duration = Duration::from_secs(30);

const ADDRESS: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 16_379);

/// Where it listens.
#[must_use]
pub fn address() -> SocketAddr {
    ADDRESS.into()
}

/// The cache as terse takes it.
#[must_use]
pub fn url() -> String {
    format!("redis://{}", address())
}

/// The one process, with its files under `services`.
#[must_use]
pub fn services(services: &Path) -> Vec<Service> {
    vec![Service {
        name: "redis",
        variable: "REDIS_PID",
        folder: services.join("redis"),
        addresses: vec![ADDRESS.into()],
        log: "output.log",
    }]
}

/// What starts it.
///
/// # Errors
/// When Redis can't be had, with the command that would install it.
pub fn command(tools: &Tools) -> Result<Command> {
    let server = tools.require("redis-server", "redis-server", &|| find_program(&["redis-server"]))?;
    let mut command = Command::new(server);
    command.args(["--bind", &ADDRESS.0.to_string(), "--port", &ADDRESS.1.to_string()]);
    // Memory is bounded, and a full cache forgets what was used least.
    command.args(["--maxmemory", "256mb", "--maxmemory-policy", "allkeys-lru"]);
    command.args(["--appendonly", "yes", "--save", "", "--daemonize", "no", "--dir", "."]);
    // The title would be written over the environment, by which the process is known.
    command.args(["--set-proc-title", "no"]);
    Ok(command)
}

/// Whether it answers a PING; while it loads its data it does not.
///
/// # Errors
/// The reason why it doesn't.
pub fn healthy() -> Result<()> {
    answers_ping(ADDRESS.into())
}

fn answers_ping(address: SocketAddr) -> Result<()> {
    let answer = ask::<7>(address, b"PING\r\n").context("PING")?;
    if &answer != b"+PONG\r\n" {
        bail!("PING was answered with {:?}", String::from_utf8_lossy(&answer));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::service::answering;
    use super::*;

    #[test]
    fn only_a_pong_is_healthy() {
        answers_ping(answering(6, b"+PONG\r\n")).unwrap();
        let loading = answers_ping(answering(6, b"-LOADING Redis is loading\r\n")).unwrap_err();
        assert_eq!(loading.to_string(), "PING was answered with \"-LOADIN\"");
        assert!(answers_ping(answering(6, b"")).is_err());
    }

    #[test]
    fn the_url_names_a_port_that_is_not_the_usual_one() {
        assert_eq!(url(), "redis://127.0.0.1:16379");
    }
}
