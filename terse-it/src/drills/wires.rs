//! A shard's wires: one proxy before each node, so that this shard can be cut off and no other.

use std::net::SocketAddr;

use terse_testkit::{Mode, Proxy};

use crate::cluster::{Cluster, Keyspace};

/// A proxy for each node of the cluster.
#[derive(Debug)]
pub struct Wires {
    proxies: Vec<Proxy>,
}

impl Wires {
    /// Proxies before all nodes.
    ///
    /// # Panics
    /// When the machine has no port or thread left.
    #[must_use]
    pub fn to(cluster: &Cluster) -> Self {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let start =
            |node: &SocketAddr| Proxy::start(*node, listen).unwrap_or_else(|e| panic!("no proxy to {node}: {e}"));
        Self { proxies: cluster.addresses().iter().map(start).collect() }
    }

    /// The proxies, in the order of the nodes.
    #[must_use]
    pub fn proxies(&self) -> &[Proxy] {
        &self.proxies
    }

    /// Does this on all wires.
    pub fn set(&self, mode: Mode) {
        self.proxies.iter().for_each(|proxy| proxy.set(mode));
    }

    /// Lets everything pass again.
    pub fn restore(&self) {
        self.proxies.iter().for_each(Proxy::restore);
    }

    /// A shard on `keyspace` that reaches its nodes only by these wires, as `terse.toml` has it.
    #[must_use]
    pub fn shard(&self, name: &str, slots: &str, keyspace: &Keyspace) -> String {
        let contacts: Vec<SocketAddr> = self.proxies.iter().map(Proxy::address).collect();
        let pairs: Vec<String> =
            self.proxies.iter().map(|proxy| format!("\"{}\" = \"{}\"", proxy.upstream(), proxy.address())).collect();
        format!(
            "[[shard]]\nname = \"{name}\"\nslots = \"{slots}\"\nstore = \"{}\"\ntranslate = {{ {} }}\n",
            keyspace.store_on(&contacts),
            pairs.join(", ")
        )
    }
}

/// The file with these shards.
#[must_use]
pub fn shards_file(shards: &[String]) -> String {
    shards.join("\n")
}

/// Whether a code is in the lower half of the slots: its first letter is 0–9 or A–V.
pub(super) fn is_low(code: &str) -> bool {
    code.starts_with(|letter: char| letter.is_ascii_digit() || ('A'..='V').contains(&letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_first_letters_are_low() {
        let letters = ('0'..='9').chain('A'..='Z').chain('a'..='z').chain(['-', '_']);
        assert_eq!(letters.filter(|letter| is_low(&letter.to_string())).count(), 32);
        assert!(is_low("Vzz") && !is_low("W00") && !is_low("-a"));
    }
}
