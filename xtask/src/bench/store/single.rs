//! A Cassandra node that is a cluster by itself, for as long as it is measured.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::super::Bench;
use super::Cluster;
use crate::process::Group;
use crate::services::cassandra;
use crate::tools::Tools;

/// Its name in the results.
pub const NAME: &str = "CQL 1 node";
/// Between two questions whether it answers.
const POLL: Duration = Duration::from_millis(100);

/// The node, running.
pub struct Single {
    group: Group,
    hosts: Vec<String>,
}

impl Single {
    /// How it is measured on.
    #[must_use]
    pub fn cluster(&self) -> Cluster {
        Cluster { name: NAME, hosts: self.hosts.clone(), replication: 1, pids: vec![self.group.pid()] }
    }

    /// Ends it. What it stored goes with the benchmark's folder.
    ///
    /// # Errors
    /// When it can't be ended.
    pub fn stop(self) -> Result<()> {
        self.group.stop().map(drop)
    }
}

/// Starts the node, empty, and waits until it answers.
///
/// # Errors
/// When something needed can't be had, or it doesn't answer in time.
pub fn start(bench: &Bench<'_>) -> Result<Single> {
    let node = cassandra::single(bench.data("cassandra-single")?);
    let services = bench.workspace.target.join("services");
    let mut command = cassandra::single_command(&services, &node, &Tools::new(bench.supervisor), bench.supervisor)?;
    println!("starting {}", node.name);
    let log = node.folder.join("output.log");
    command.current_dir(&node.folder);
    let mut group = bench.supervisor.serve(&command, &log)?;
    await_answer(&mut group, &log)?;
    let hosts = node.addresses.first().map(ToString::to_string).into_iter().collect();
    Ok(Single { group, hosts })
}

fn await_answer(group: &mut Group, log: &Path) -> Result<()> {
    let deadline = Instant::now() + cassandra::START_LIMIT;
    while let Err(error) = cassandra::single_healthy() {
        group.check_alive()?;
        if Instant::now() > deadline {
            bail!("the single node doesn't answer: {error:#}; see {}", log.display());
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}
