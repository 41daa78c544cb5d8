//! A keyspace of a drill's own.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::{Consistency, CqlConnection};
use crate::now_ms;

/// How long dropping may take: every node has to agree.
const DROP_LIMIT: Duration = Duration::from_secs(30);

static MADE: AtomicU32 = AtomicU32::new(0);

/// A keyspace that nothing else uses. It is made by the first server that is
/// given it, and dropped with this value; should no node take that, its name is printed.
#[derive(Debug)]
pub struct Keyspace {
    name: String,
    nodes: Vec<SocketAddr>,
    kept_on_failure: bool,
}

impl Keyspace {
    pub(super) fn named(purpose: &str, nodes: &[SocketAddr]) -> Self {
        let (number, second) = (MADE.fetch_add(1, Ordering::Relaxed), now_ms() / 1_000);
        let name = format!("it_{purpose}_{second}_{}_{number}", std::process::id());
        Self { name, nodes: nodes.to_vec(), kept_on_failure: false }
    }

    /// The same, but it is left behind when the test fails.
    #[must_use]
    pub(crate) fn kept_on_failure(mut self) -> Self {
        self.kept_on_failure = true;
        self
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `TERSE_STORE` for it on all nodes, with three replicas.
    #[must_use]
    pub fn store(&self) -> String {
        self.store_on(&self.nodes)
    }

    /// `TERSE_STORE` for it with these contact points.
    #[must_use]
    pub fn store_on(&self, contacts: &[SocketAddr]) -> String {
        let hosts: Vec<String> = contacts.iter().map(SocketAddr::to_string).collect();
        format!("cql://{}/{}?replication=3", hosts.join(","), self.name)
    }
}

impl Drop for Keyspace {
    #[allow(clippy::print_stdout, reason = "what is left behind has to be told")]
    fn drop(&mut self) {
        if self.kept_on_failure && std::thread::panicking() {
            println!("keyspace {} is kept", self.name);
            return;
        }
        let drop_it = format!("DROP KEYSPACE IF EXISTS {}", self.name);
        let dropped = |node: &SocketAddr| {
            CqlConnection::open(*node, DROP_LIMIT).and_then(|mut node| node.query(&drop_it, Consistency::Quorum))
        };
        let faults: Vec<_> = self.nodes.iter().map(dropped).take_while(Result::is_err).collect();
        if faults.len() == self.nodes.len() {
            println!("keyspace {} is left behind: {faults:?}", self.name);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_keyspace_has_a_name_of_its_own_that_cql_takes_unquoted() {
        let (one, other) = (Keyspace::named("race", &[]), Keyspace::named("race", &[]));
        assert_ne!(one.name(), other.name());
        assert!(one.name().len() <= 48, "{}", one.name());
        assert!(one.name().bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'));
    }

    #[test]
    fn the_store_names_contacts_keyspace_and_replicas() {
        let nodes: Vec<SocketAddr> = vec!["127.0.0.1:1".parse().unwrap(), "127.0.0.2:2".parse().unwrap()];
        let keyspace = Keyspace { name: "k".into(), nodes: vec![], kept_on_failure: false };
        assert_eq!(keyspace.store_on(&nodes), "cql://127.0.0.1:1,127.0.0.2:2/k?replication=3");
    }
}
