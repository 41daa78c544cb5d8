//! What differs between the two engines: Apache Cassandra and ScyllaDB.
//!
//! Statements are the same for both. Only three things are not: whether a
//! table may be given its id, how a keyspace is made on which conditional
//! writes work, and what such a write answers (see [`super::lwt`]).

use std::fmt::Write as _;

use scylla::client::session::Session;
use sha2::{Digest, Sha256};
use terse_core::ports::StoreError;

use super::fault;
use super::session::{Profiles, Use, plain};

/// The software behind a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Engine {
    Cassandra,
    Scylla,
}

impl Engine {
    /// Asks the cluster what it is.
    pub(super) async fn probe(session: &Session, profiles: &Profiles) -> Result<Self, StoreError> {
        const QUERY: &str = "SELECT table_name FROM system_schema.tables \
            WHERE keyspace_name = 'system' AND table_name = 'scylla_local'";
        let answer = session.query_unpaged(plain(profiles, Use::Schema, QUERY), ()).await;
        let rows = answer.map_err(|error| fault::read("asking for the engine", error))?.into_rows_result();
        let rows = rows.map_err(|error| fault::corrupt("the schema can't be read").caused_by(error))?;
        Ok(if rows.rows_num() == 0 { Self::Cassandra } else { Self::Scylla })
    }

    /// Statements that make `keyspace` (quoted), the first that the engine takes to be used.
    pub(super) fn create_keyspace(self, keyspace: &str, replication: u8) -> Vec<String> {
        let plain = format!(
            "CREATE KEYSPACE IF NOT EXISTS {keyspace} WITH replication = \
             {{'class': 'NetworkTopologyStrategy', 'replication_factor': {replication}}}"
        );
        match self {
            Self::Cassandra => vec![plain],
            // Conditional writes don't work on tablets before ScyllaDB 2025.4; before 6.0 the option is unknown.
            Self::Scylla => vec![format!("{plain} AND tablets = {{'enabled': false}}"), plain],
        }
    }

    /// `statement`, with a fixed id if it makes a table. Two nodes of Cassandra
    /// that make one table at the same time would give it two ids, and split
    /// its rows between them; ScyllaDB puts such statements in one order.
    pub(super) fn with_table_id(self, statement: &str, keyspace: &str) -> String {
        match table_made_by(statement) {
            Some(table) if self == Self::Cassandra => {
                let joint = if statement.contains(" WITH ") { "AND" } else { "WITH" };
                format!("{statement} {joint} id = {}", table_id(keyspace, table))
            }
            _ => statement.to_owned(),
        }
    }
}

/// The table that `statement` makes, if it makes one.
pub(super) fn table_made_by(statement: &str) -> Option<&str> {
    let rest = statement.strip_prefix("CREATE TABLE IF NOT EXISTS ")?;
    let name = rest.split([' ', '(']).next()?;
    Some(name.rsplit('.').next().unwrap_or(name))
}

/// The first half of SHA-256 over both names, as a UUID of version 8 (RFC 9562).
fn table_id(keyspace: &str, table: &str) -> String {
    let digest = Sha256::new().chain_update(keyspace).chain_update([0]).chain_update(table).finalize();
    let mut bytes = [0_u8; 16];
    bytes.copy_from_slice(&digest[..16]);
    bytes[6] = (bytes[6] & 0x0f) | 0x80;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let mut text = String::with_capacity(36);
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        // Writing to a string never fails.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_gets_the_same_id_everywhere_and_another_in_another_keyspace() {
        assert_eq!(table_id("a", "links"), table_id("a", "links"));
        assert_ne!(table_id("a", "links"), table_id("b", "links"));
        assert_ne!(table_id("a", "links"), table_id("a", "leases"));
        assert_ne!(table_id("a", "blinks"), table_id("ab", "links"));
        let id = table_id("a", "links");
        assert_eq!((id.len(), &id[14..15]), (36, "8"), "{id}");
        assert!("89ab".contains(&id[19..20]), "{id}");
    }

    #[test]
    fn only_cassandra_is_given_ids() {
        let table = "CREATE TABLE IF NOT EXISTS \"k\".links (code text PRIMARY KEY)";
        assert_eq!(Engine::Scylla.with_table_id(table, "k"), table);
        let expected = format!("{table} WITH id = {}", table_id("k", "links"));
        assert_eq!(Engine::Cassandra.with_table_id(table, "k"), expected);
        let ordered = format!("{table} WITH CLUSTERING ORDER BY (a DESC)");
        let expected = format!("{ordered} AND id = {}", table_id("k", "links"));
        assert_eq!(Engine::Cassandra.with_table_id(&ordered, "k"), expected);
        let other = "ALTER TABLE \"k\".links ADD x int";
        assert_eq!(Engine::Cassandra.with_table_id(other, "k"), other);
    }

    #[test]
    fn scylla_is_asked_for_a_keyspace_without_tablets_first() {
        let statements = Engine::Scylla.create_keyspace("\"k\"", 3);
        assert!(statements[0].contains("tablets = {'enabled': false}"), "{statements:?}");
        assert_eq!(statements[1..], Engine::Cassandra.create_keyspace("\"k\"", 3));
        assert!(statements[1].contains("'replication_factor': 3}"), "{statements:?}");
    }
}
