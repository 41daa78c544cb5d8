//! What runs, and where: `target/services.env` and the environment.

use std::collections::HashMap;
use std::fs::File;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::LOCK_LIMIT;

/// The port of a node that is named without one.
const CQL_PORT: u16 = 9042;
/// A node's process says so on its command line; nothing else is ever signalled.
const NODE_PROGRAM: &str = "CassandraDaemon";

/// The services that `up` started.
#[derive(Debug)]
pub(super) struct Services {
    root: PathBuf,
    target: PathBuf,
}

impl Services {
    /// The workspace that this program was built in, and its target folder.
    pub(super) fn find() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default();
        let built = std::env::current_exe().ok();
        let target = built.as_deref().and_then(target_of).unwrap_or_else(|| root.join("target"));
        Self { root, target }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn folder(&self) -> &Path {
        &self.target
    }

    /// Waits for the lock on the cluster.
    pub(super) fn take_turn(&self) -> File {
        let path = self.target.join("cluster.lock");
        let file = File::options().create(true).append(true).open(&path);
        let file = file.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let began = Instant::now();
        while file.try_lock().is_err() {
            assert!(began.elapsed() < LOCK_LIMIT, "others had the cluster for {LOCK_LIMIT:?}");
            std::thread::sleep(crate::LOOK_AGAIN);
        }
        file
    }

    /// The value of `name` in the file of services, as it is now, else in the environment.
    fn value(&self, name: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.target.join("services.env")).unwrap_or_default();
        parse(&text).remove(name).or_else(|| std::env::var(name).ok())
    }

    /// Where the nodes serve CQL.
    pub(super) fn nodes(&self) -> Vec<SocketAddr> {
        let url = std::env::var("TERSE_CQL").ok().or_else(|| self.value("TERSE_STORE"));
        let url = url.unwrap_or_else(|| panic!("no cluster: run `cargo xtask up cassandra`, or set TERSE_CQL"));
        let nodes = addresses(&url).unwrap_or_else(|| panic!("{url} names no nodes, cql://host:port,host:port does"));
        assert!(nodes.len() >= 3, "{url} names {} nodes, drills need three", nodes.len());
        nodes
    }

    /// The process of a node, which has to run.
    pub(super) fn pid(&self, number: usize) -> i32 {
        self.running(number).unwrap_or_else(|| panic!("node {} does not run", number + 1))
    }

    /// The process of a node, if it runs. The nodes have to be known: others are not ours to signal.
    pub(super) fn running(&self, number: usize) -> Option<i32> {
        let name = format!("CASSANDRA_{}_PID", number + 1);
        let text = self.value(&name).unwrap_or_else(|| panic!("no {name}: the nodes are not ours to signal"));
        let pid: i32 = text.parse().unwrap_or_else(|_| panic!("{name} is {text}, no process id"));
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command).contains(NODE_PROGRAM).then_some(pid)
    }

    /// The program that runs `up`, and what comes before that word.
    pub(super) fn xtask(&self) -> (PathBuf, &'static [&'static str]) {
        match std::env::var_os("TERSE_XTASK") {
            Some(path) => (path.into(), &[]),
            None => (std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()).into(), &["xtask"]),
        }
    }
}

/// The state letter of a process; `None` when it is gone.
pub(crate) fn process_state(pid: i32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// `target` of `target/PROFILE/program` and `target/PROFILE/deps/test`.
fn target_of(program: &Path) -> Option<PathBuf> {
    let folder = program.parent()?;
    let profile = if folder.ends_with("deps") { folder.parent()? } else { folder };
    profile.parent().map(Path::to_path_buf)
}

/// Lines of `NAME=value`, as a shell reads them.
fn parse(text: &str) -> HashMap<String, String> {
    let lines = text.lines().filter_map(|line| line.trim().trim_start_matches("export ").split_once('='));
    let unquoted = |value: &str| value.trim_matches(['"', '\'']).to_owned();
    lines.filter(|(name, _)| !name.starts_with('#')).map(|(n, value)| (n.to_owned(), unquoted(value))).collect()
}

/// The hosts of `cql://host[:port],…[/keyspace…]`.
fn addresses(url: &str) -> Option<Vec<SocketAddr>> {
    let rest = url.strip_prefix("cql://")?;
    let hosts = rest.split(['/', '?']).next()?.rsplit('@').next()?;
    let address = |host: &str| match host.to_socket_addrs() {
        Ok(mut found) => found.next(),
        Err(_) => (host, CQL_PORT).to_socket_addrs().ok()?.next(),
    };
    hosts.split(',').map(address).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_of_a_store_are_its_nodes() {
        let ports = |url: &str| addresses(url).map(|all| all.iter().map(SocketAddr::port).collect::<Vec<_>>());
        assert_eq!(ports("cql://127.0.0.11:9042,127.0.0.12:1/terse?replication=3"), Some(vec![9042, 1]));
        assert_eq!(ports("cql://u:p@127.0.0.11,127.0.0.12"), Some(vec![9042, 9042]));
        assert_eq!(ports("sqlite"), None);
    }

    #[test]
    fn the_file_of_services_reads_like_a_shell_script() {
        let values = parse("# made by up\nexport A=1\nB=\"two words\"\n\nC='x=y'\n#D=4\n");
        assert_eq!(values.len(), 3);
        assert_eq!((values["A"].as_str(), values["B"].as_str(), values["C"].as_str()), ("1", "two words", "x=y"));
    }

    #[test]
    fn the_target_folder_is_above_the_profile() {
        assert_eq!(target_of(Path::new("/w/target/debug/drill")), Some("/w/target".into()));
        assert_eq!(target_of(Path::new("/w/target/debug/deps/it-1")), Some("/w/target".into()));
    }

    #[test]
    fn the_state_of_a_process_is_a_letter_and_of_none_nothing() {
        let me = i32::try_from(std::process::id()).unwrap();
        assert!(matches!(process_state(me), Some('R' | 'S')));
        assert_eq!(process_state(i32::MAX), None);
    }
}
