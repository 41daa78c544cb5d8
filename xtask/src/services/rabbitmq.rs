//! One RabbitMQ, from the Debian package, with a name daemon (`epmd`) of its
//! own: Erlang's nodes find each other through it, and a shared one would
//! outlive us. Both listen on the loopback address only.
//!
//! The package's script in /usr/lib is used, not the wrapper in /usr/sbin:
//! that one becomes the user `rabbitmq`, who couldn't reach our folders. Told
//! that it runs under systemd, the script becomes the broker itself, so that
//! the process that was started is `beam.smp`.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::service::{HEALTH_ANSWER, Service, ask};
use crate::process::find_program;
use crate::tools::Tools;

/// How long it may take until it answers; 7 s on two idle cores.
pub const START_LIMIT: Duration = Duration::from_secs(90);

const AMQP_PORT: u16 = 16_672;
const DISTRIBUTION_PORT: u16 = 16_673;
const NAMES_PORT: u16 = 16_674;
const SCRIPT: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
const PACKAGE: &str = "rabbitmq-server";

/// Ten megabytes of log a file, four files.
const CONFIG: &str = "\
listeners.tcp.default = 127.0.0.1:16672
distribution.listener.interface = 127.0.0.1
log.console = false
log.file = rabbitmq.log
log.file.level = info
log.file.rotation.size = 10485760
log.file.rotation.count = 3
";

/// The log of clicks as terse takes it.
#[must_use]
pub fn url() -> String {
    format!("amqp://guest:guest@127.0.0.1:{AMQP_PORT}/%2f")
}

/// The name daemon and the broker, with their files under `services`.
#[must_use]
pub fn services(services: &Path) -> Vec<Service> {
    let service = |name, variable, ports: &[u16]| Service {
        name,
        variable,
        folder: services.join(name),
        addresses: ports.iter().map(|port| (Ipv4Addr::LOCALHOST, *port).into()).collect(),
        log: "log/rabbitmq.log",
    };
    vec![
        service("epmd", "EPMD_PID", &[NAMES_PORT]),
        service("rabbitmq", "RABBITMQ_PID", &[AMQP_PORT, DISTRIBUTION_PORT]),
    ]
}

/// What starts `service`, its configuration put in place.
///
/// # Errors
/// When RabbitMQ can't be had, with the command that would install it.
pub fn command(service: &Service, tools: &Tools) -> Result<Command> {
    let script = tools.require("RabbitMQ", PACKAGE, &|| Some(PathBuf::from(SCRIPT)).filter(|path| path.is_file()))?;
    if service.name == "epmd" {
        let daemon = tools.require("epmd", "erlang-base", &|| find_program(&["epmd"]))?;
        let mut command = Command::new(daemon);
        command.args(["-address", "127.0.0.1", "-port", &NAMES_PORT.to_string()]);
        return Ok(command);
    }
    broker(&script, &service.folder)
}

fn broker(script: &Path, folder: &Path) -> Result<Command> {
    fs::create_dir_all(folder.join("log"))?;
    fs::write(folder.join("rabbitmq.conf"), CONFIG)?;
    fs::write(folder.join("enabled_plugins"), "[].\n")?;
    fs::write(folder.join("rabbitmq-env.conf"), "")?;
    let mut command = Command::new(script);
    let files = [
        ("HOME", ""),
        ("RABBITMQ_CONF_ENV_FILE", "rabbitmq-env.conf"),
        ("RABBITMQ_CONFIG_FILE", "rabbitmq.conf"),
        ("RABBITMQ_ADVANCED_CONFIG_FILE", "advanced.config"),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", "enabled_plugins"),
        ("RABBITMQ_MNESIA_BASE", "data"),
        ("RABBITMQ_LOG_BASE", "log"),
    ];
    command.envs(files.map(|(name, path)| (name, folder.join(path))));
    command.envs([
        ("RABBITMQ_NODENAME", "terse@localhost".to_owned()),
        ("RABBITMQ_DIST_PORT", DISTRIBUTION_PORT.to_string()),
        ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
        ("ERL_EPMD_PORT", NAMES_PORT.to_string()),
        ("RUNNING_UNDER_SYSTEMD", "true".to_owned()),
    ]);
    Ok(command)
}

/// Whether the name daemon answers.
///
/// # Errors
/// The reason why it doesn't.
pub fn names_healthy() -> Result<()> {
    TcpStream::connect_timeout(&(Ipv4Addr::LOCALHOST, NAMES_PORT).into(), HEALTH_ANSWER).context("epmd")?;
    Ok(())
}

/// Whether the broker starts a conversation in AMQP 0-9-1.
///
/// # Errors
/// The reason why it doesn't.
pub fn healthy() -> Result<()> {
    speaks_amqp((Ipv4Addr::LOCALHOST, AMQP_PORT).into())
}

fn speaks_amqp(address: SocketAddr) -> Result<()> {
    let start = ask::<11>(address, b"AMQP\0\0\x09\x01").context("the AMQP header")?;
    // A method frame (1) of channel 0, then its size, then connection.start (10, 10).
    if start[..3] != [1, 0, 0] || start[7..] != [0, 10, 0, 10] {
        bail!("the AMQP header was not answered with connection.start");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::service::answering;
    use super::*;

    #[test]
    fn only_the_start_of_a_connection_is_healthy() {
        speaks_amqp(answering(8, &[1, 0, 0, 0, 0, 1, 0, 0, 10, 0, 10, 0, 9])).unwrap();
        // A broker of another protocol version answers with its own header and closes.
        assert!(speaks_amqp(answering(8, b"AMQP\0\0\x09\x01")).is_err());
        let other = speaks_amqp(answering(8, b"HTTP/1.1 400")).unwrap_err();
        assert_eq!(other.to_string(), "the AMQP header was not answered with connection.start");
    }

    #[test]
    fn the_broker_keeps_everything_in_its_own_folder() {
        let place = tempfile::tempdir().unwrap();
        let command = broker(Path::new(SCRIPT), place.path()).unwrap();
        let value = |name: &str| {
            let found = command.get_envs().find(|(variable, _)| *variable == name);
            found.and_then(|(_, value)| value).map(PathBuf::from).unwrap_or_default()
        };
        for name in ["HOME", "RABBITMQ_MNESIA_BASE", "RABBITMQ_LOG_BASE", "RABBITMQ_CONF_ENV_FILE"] {
            assert!(value(name).starts_with(place.path()), "{name}");
        }
        assert!(value("RABBITMQ_CONFIG_FILE").is_file());
    }

    #[test]
    fn the_configured_port_is_the_one_in_the_url() {
        assert!(CONFIG.contains(&format!("127.0.0.1:{AMQP_PORT}")) && url().contains(&format!(":{AMQP_PORT}/")));
    }
}
