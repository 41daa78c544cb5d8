//! Three Cassandra nodes on one machine, on 127.0.0.11 to 127.0.0.13, each with
//! a token of its own, so that replication factor 3 puts every row on each.
//!
//! The jars come from Maven, once; configuration comes from `deploy/cassandra`.
//! Healthy means: through every node, a read to which all three replicas must
//! answer succeeds. A node refuses that as long as it takes another for dead.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::Compiler;
use super::cql::{Connection, Consistency};
use super::service::{HEALTH_ANSWER, Service};
use crate::process::{Supervisor, find_program};
use crate::tools::Tools;

/// How long the nodes may take until they answer and see each other; 15-25 s on two idle cores.
pub const START_LIMIT: Duration = Duration::from_secs(150);

/// How long fetching the jars may take; 7 s with a near registry.
const FETCH_LIMIT: Duration = Duration::from_secs(5 * 60);

const CQL_PORT: u16 = 9042;
const GOSSIP_PORT: u16 = 7000;

/// Number, name, variable and token of each node: the ring in three equal parts.
const NODES: [(u8, &str, &str, &str); 3] = [
    (1, "cassandra-1", "CASSANDRA_1_PID", "-6148914691236517206"),
    (2, "cassandra-2", "CASSANDRA_2_PID", "0"),
    (3, "cassandra-3", "CASSANDRA_3_PID", "6148914691236517205"),
];

/// Where the node that is a cluster by itself listens.
const SINGLE_HOST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 21);

const POM: &str = include_str!("../../../deploy/cassandra/pom.xml");
const CONFIG: &str = include_str!("../../../deploy/cassandra/cassandra.yaml");
const OTHER_FILES: [(&str, &str); 3] = [
    ("cassandra-rackdc.properties", include_str!("../../../deploy/cassandra/cassandra-rackdc.properties")),
    ("logback.xml", include_str!("../../../deploy/cassandra/logback.xml")),
    ("jvm17.options", include_str!("../../../deploy/cassandra/jvm17.options")),
];

fn host(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, 10 + number)
}

/// Where the nodes answer CQL.
#[must_use]
pub fn addresses() -> Vec<SocketAddr> {
    NODES.iter().map(|(number, ..)| (host(*number), CQL_PORT).into()).collect()
}

/// The cluster as tests get it: without a keyspace, which each test chooses.
#[must_use]
pub fn url() -> String {
    let nodes: Vec<String> = addresses().iter().map(ToString::to_string).collect();
    format!("cql://{}", nodes.join(","))
}

/// The nodes, with their files under `services`.
#[must_use]
pub fn services(services: &Path) -> Vec<Service> {
    let service = |(number, name, variable, _): &(u8, &'static str, &'static str, &str)| Service {
        name,
        variable,
        folder: services.join(name),
        addresses: [CQL_PORT, GOSSIP_PORT].map(|port| (host(*number), port).into()).to_vec(),
        log: "cassandra.log",
    };
    NODES.iter().map(service).collect()
}

/// What starts each of `nodes`; jars and configuration are put in place.
///
/// # Errors
/// When something needed can't be had, with the command that would install it.
pub fn commands(
    services: &Path,
    nodes: &[&Service],
    compiler: Compiler,
    tools: &Tools,
    supervisor: &Supervisor,
) -> Result<Vec<Command>> {
    let java = java(tools)?;
    let jars = jars(services, tools, supervisor)?;
    nodes.iter().map(|node| command(node, compiler, &java, &jars)).collect()
}

fn command(node: &Service, compiler: Compiler, java: &Path, jars: &Path) -> Result<Command> {
    let (number, .., token) =
        NODES.iter().find(|(_, name, ..)| *name == node.name).with_context(|| format!("no node {}", node.name))?;
    let folder = node.folder.to_str().context("the path of the target folder is not UTF-8")?;
    node_command(node, &render(CONFIG, &host(*number).to_string(), token, folder), compiler, java, jars)
}

/// A node that is a cluster by itself, beside the three: for measurements. Its files are in `folder`.
#[must_use]
pub fn single(folder: PathBuf) -> Service {
    let addresses = [CQL_PORT, GOSSIP_PORT].map(|port| (SINGLE_HOST, port).into()).to_vec();
    Service { name: "cassandra-single", variable: "CASSANDRA_SINGLE_PID", folder, addresses, log: "cassandra.log" }
}

/// What starts the node of [`single`]; jars and configuration are put in place.
///
/// # Errors
/// As [`commands`].
pub fn single_command(services: &Path, node: &Service, tools: &Tools, supervisor: &Supervisor) -> Result<Command> {
    let java = java(tools)?;
    let jars = jars(services, tools, supervisor)?;
    let folder = node.folder.to_str().context("the path of the target folder is not UTF-8")?;
    let config = render(CONFIG, &SINGLE_HOST.to_string(), "0", folder).replace(&seeds(), &SINGLE_HOST.to_string());
    node_command(node, &config, Compiler::Full, &java, &jars)
}

/// Whether the node of [`single`] answers.
///
/// # Errors
/// The reason why it doesn't.
pub fn single_healthy() -> Result<()> {
    let mut connection = Connection::open((SINGLE_HOST, CQL_PORT).into(), HEALTH_ANSWER)?;
    connection.query("SELECT key FROM system.local", Consistency::Quorum)
}

/// The three nodes as the configuration names them to each other.
fn seeds() -> String {
    NODES.map(|(number, ..)| host(number).to_string()).join(",")
}

fn node_command(node: &Service, config: &str, compiler: Compiler, java: &Path, jars: &Path) -> Result<Command> {
    let folder = node.folder.to_str().context("the path of the target folder is not UTF-8")?;
    let conf = node.folder.join("conf");
    fs::create_dir_all(&conf)?;
    fs::create_dir_all(node.folder.join("tmp"))?;
    fs::write(conf.join("cassandra.yaml"), config)?;
    for (name, text) in OTHER_FILES {
        fs::write(conf.join(name), text)?;
    }
    let mut command = Command::new(java);
    command.arg(format!("@{folder}/conf/jvm17.options"));
    if compiler == Compiler::Quick {
        command.arg("-XX:TieredStopAtLevel=1");
    }
    command.args([
        format!("-Djava.io.tmpdir={folder}/tmp"),
        format!("-Dcassandra.storagedir={folder}"),
        format!("-Dcassandra.config=file://{folder}/conf/cassandra.yaml"),
        format!("-Dcassandra-rackdc.properties=file://{folder}/conf/cassandra-rackdc.properties"),
        format!("-Dlogback.configurationFile=file://{folder}/conf/logback.xml"),
        format!("-Dterse.log={folder}/{}", node.log),
    ]);
    command.args(["-cp", &format!("{folder}/conf:{}/*", jars.display())]);
    command.arg("org.apache.cassandra.service.CassandraDaemon");
    Ok(command)
}

fn render(template: &str, address: &str, token: &str, folder: &str) -> String {
    template.replace("@ADDRESS@", address).replace("@TOKEN@", token).replace("@FOLDER@", folder)
}

/// Whether all nodes answer and see all others.
///
/// # Errors
/// The first reason why they don't.
pub fn healthy() -> Result<()> {
    for node in addresses() {
        let mut connection = Connection::open(node, HEALTH_ANSWER).with_context(|| node.to_string())?;
        // A table that has three replicas by itself.
        let read = "SELECT keyspace_name FROM system_distributed.parent_repair_history LIMIT 1";
        connection.query(read, Consistency::All).with_context(|| node.to_string())?;
    }
    Ok(())
}

/// A Java 17: Cassandra 5.0 runs on no later one.
fn java(tools: &Tools) -> Result<PathBuf> {
    let found = || java_candidates().into_iter().find(|java| is_java_17(java));
    tools.require("Java 17", "openjdk-17-jre-headless", &found)
}

fn java_candidates() -> Vec<PathBuf> {
    let installed = fs::read_dir("/usr/lib/jvm").into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    std::env::var_os("JAVA_HOME")
        .map(PathBuf::from)
        .into_iter()
        .chain(installed)
        .map(|home| home.join("bin/java"))
        .chain(find_program(&["java"]))
        .filter(|java| java.is_file())
        .collect()
}

fn is_java_17(java: &Path) -> bool {
    let said = Command::new(java).arg("-version").stdin(Stdio::null()).output();
    said.is_ok_and(|said| String::from_utf8_lossy(&said.stderr).contains("version \"17."))
}

/// The folder with the jars, fetched if the pinned version isn't there yet.
fn jars(services: &Path, tools: &Tools, supervisor: &Supervisor) -> Result<PathBuf> {
    let jars = services.join("cassandra-jars");
    let stamp = jars.join("pom.xml");
    if fs::read_to_string(&stamp).is_ok_and(|fetched| fetched == POM) {
        return Ok(jars);
    }
    let maven = tools.require("mvn", "maven", &|| find_program(&["mvn"]))?;
    println!("fetching Cassandra's jars");
    let (project, fetched) = (services.join("cassandra-pom"), services.join("cassandra-jars.new"));
    for folder in [&project, &fetched] {
        let _ = fs::remove_dir_all(folder);
        fs::create_dir_all(folder)?;
    }
    fs::write(project.join("pom.xml"), POM)?;
    let mut command = Command::new(maven);
    command.args(["-q", "-B", "dependency:copy-dependencies"]).current_dir(&project);
    command.arg(format!("-DoutputDirectory={}", fetched.display()));
    supervisor.run_ok(&mut command, FETCH_LIMIT).context("fetching Cassandra's jars with Maven")?;
    if fs::read_dir(&fetched)?.next().is_none() {
        bail!("Maven fetched no jar to {}", fetched.display());
    }
    // The stamp comes last and the folder is renamed whole: half of the jars are never taken for all.
    fs::write(fetched.join("pom.xml"), POM)?;
    let _ = fs::remove_dir_all(&jars);
    fs::rename(&fetched, &jars)?;
    Ok(jars)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_nodes_part_the_ring_equally() {
        let tokens: Vec<i128> = NODES.iter().map(|(.., token)| token.parse().unwrap()).collect();
        let third = (1_i128 << 64) / 3;
        assert!(tokens.windows(2).all(|pair| (pair[1] - pair[0] - third).abs() <= 1), "{tokens:?}");
    }

    #[test]
    fn a_nodes_configuration_names_its_own_address_token_and_folder() {
        let text = render(CONFIG, "127.0.0.12", "0", "/t/cassandra-2");
        for line in
            ["listen_address: 127.0.0.12", "rpc_address: 127.0.0.12", "initial_token: \"0\"", "  - /t/cassandra-2/data"]
        {
            assert!(text.lines().any(|found| found == line), "{line}");
        }
        assert!(!text.lines().any(|line| !line.starts_with('#') && line.contains('@')), "{text}");
    }

    #[test]
    fn the_configuration_promises_what_the_tests_rely_on() {
        for line in
            ["hinted_handoff_enabled: false", "paxos_variant: v2", "commitlog_sync: batch", "auto_bootstrap: false"]
        {
            assert!(CONFIG.lines().any(|found| found == line), "{line}");
        }
        assert!(CONFIG.contains(&format!("seeds: \"{}\"", seeds())));
    }

    #[test]
    fn a_node_that_is_a_cluster_by_itself_knows_none_of_the_three() {
        let place = tempfile::tempdir().unwrap();
        let node = single(place.path().join("single"));
        let text = render(CONFIG, &SINGLE_HOST.to_string(), "0", "/t").replace(&seeds(), &SINGLE_HOST.to_string());
        assert!(text.contains("seeds: \"127.0.0.21\"") && !text.contains("127.0.0.1"), "{text}");
        assert!(node.addresses.iter().all(|address| !addresses().contains(address)));
    }

    #[test]
    fn tests_get_all_nodes_and_no_keyspace() {
        assert_eq!(url(), "cql://127.0.0.11:9042,127.0.0.12:9042,127.0.0.13:9042");
    }

    #[test]
    fn a_node_runs_with_its_own_configuration_first_on_the_class_path() {
        let place = tempfile::tempdir().unwrap();
        let nodes = services(place.path());
        let command = command(&nodes[2], Compiler::Quick, Path::new("/jdk/bin/java"), Path::new("/jars")).unwrap();
        let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
        let folder = nodes[2].folder.display();
        assert!(arguments.contains(&format!("{folder}/conf:/jars/*").into()), "{arguments:?}");
        let written = fs::read_to_string(nodes[2].folder.join("conf/cassandra.yaml")).unwrap();
        assert!(written.contains("127.0.0.13") && written.contains("6148914691236517205"));
    }

    #[test]
    fn fetched_jars_are_used_as_they_are_while_the_pinned_version_is_the_same() {
        let place = tempfile::tempdir().unwrap();
        let supervisor = Supervisor::unwatched();
        let folder = place.path().join("cassandra-jars");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("pom.xml"), POM).unwrap();
        assert_eq!(jars(place.path(), &Tools::new(&supervisor), &supervisor).unwrap(), folder);
    }

    #[test]
    fn only_a_java_of_version_17_will_do() {
        use std::os::unix::fs::PermissionsExt as _;
        let place = tempfile::tempdir().unwrap();
        let java = place.path().join("java");
        for (version, fits) in [("17.0.15", true), ("21.0.2", false), ("1.8.0_17", false)] {
            fs::write(&java, format!("#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n")).unwrap();
            fs::set_permissions(&java, fs::Permissions::from_mode(0o755)).unwrap();
            assert_eq!(is_java_17(&java), fits, "{version}");
        }
    }
}
