//! Warms a cluster that has just started: its first thousands of operations
//! run several times slower, until the JVM has compiled them, and a test that
//! meets that measures the compiler.
//!
//! The operations are those of `terse-store`: an insert, an insert that must
//! be the first, a read and an update, at a quorum, through every node.
//! Bounds: [`WARM_LIMIT`] and [`WARM_OPERATIONS`], whichever comes first.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};

use super::cql::{Connection, Consistency, Outcome, Prepared};
use crate::process::POLL;

/// How long the warm-up may take.
pub const WARM_LIMIT: Duration = Duration::from_secs(8);

/// How many operations it does at most, over all nodes.
pub const WARM_OPERATIONS: u32 = 20_000;

/// Requests in flight on each connection.
const WINDOW: u32 = 32;

/// How long one answer may take: a cold node is slow, and schema changes take a while.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

const KEYSPACE: &str = "terse_warm_up";

/// Each kind of operation; all take a key first, the writes a text as well.
const STATEMENTS: [&str; 4] = [
    "INSERT INTO terse_warm_up.links (code, target) VALUES (?, ?) IF NOT EXISTS",
    "INSERT INTO terse_warm_up.links (code, target) VALUES (?, ?)",
    "SELECT target FROM terse_warm_up.links WHERE code = ?",
    "UPDATE terse_warm_up.links SET target = 'x' WHERE code = ? IF EXISTS",
];

/// Warms the nodes up. Leaves nothing behind. Returns how many operations were done.
///
/// # Errors
/// When a node doesn't answer, or nothing but refusals came.
pub fn warm_up(nodes: &[SocketAddr]) -> Result<Outcome> {
    let deadline = Instant::now() + WARM_LIMIT;
    let first = *nodes.first().context("no node to warm up")?;
    let mut schema = Connection::open(first, ANSWER_LIMIT)?;
    for statement in schema_statements() {
        schema.query(&statement, Consistency::Quorum)?;
    }
    let share = WARM_OPERATIONS / u32::try_from(nodes.len())?;
    let outcome = thread::scope(|scope| {
        let start = |(number, node): (usize, &SocketAddr)| {
            let node = *node;
            scope.spawn(move || warm_node(node, number, share, deadline))
        };
        let running: Vec<_> = nodes.iter().enumerate().map(start).collect();
        let mut outcome = Outcome::default();
        for node in running {
            let part = node.join().map_err(|_| anyhow!("a warm-up thread panicked"))??;
            outcome.done += part.done;
            outcome.refused += part.refused;
        }
        anyhow::Ok(outcome)
    });
    schema.query(&format!("DROP KEYSPACE {KEYSPACE}"), Consistency::Quorum)?;
    outcome.and_then(|outcome| match outcome.done {
        0 => Err(anyhow!("all {} operations of the warm-up were refused", outcome.refused)),
        _ => Ok(outcome),
    })
}

fn schema_statements() -> [String; 3] {
    [
        // Left from a warm-up that was killed.
        format!("DROP KEYSPACE IF EXISTS {KEYSPACE}"),
        format!(
            "CREATE KEYSPACE {KEYSPACE} WITH replication = \
             {{'class': 'NetworkTopologyStrategy', 'replication_factor': 3}}"
        ),
        format!("CREATE TABLE {KEYSPACE}.links (code text PRIMARY KEY, target text)"),
    ]
}

fn warm_node(node: SocketAddr, number: usize, share: u32, deadline: Instant) -> Result<Outcome> {
    let mut connection = Connection::open(node, ANSWER_LIMIT)?;
    let mut statements = Vec::new();
    for text in STATEMENTS {
        statements.push((text.matches('?').count(), prepare(&mut connection, text)?));
    }
    let mut outcome = Outcome::default();
    let mut window = 0;
    while outcome.done + outcome.refused < share && Instant::now() < deadline {
        for (values, statement) in &statements {
            let rows: Vec<_> = (0..WINDOW).map(|row| row_of(number, window, row, *values)).collect();
            let part = connection.execute_all(statement, &rows)?;
            outcome.done += part.done;
            outcome.refused += part.refused;
        }
        window += 1;
    }
    Ok(outcome)
}

/// Prepares a statement about a table that this node may not have heard of yet.
fn prepare(connection: &mut Connection, statement: &str) -> Result<Prepared> {
    let deadline = Instant::now() + ANSWER_LIMIT;
    loop {
        match connection.prepare(statement) {
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_) => thread::sleep(POLL),
            Ok(prepared) => return Ok(prepared),
        }
    }
}

fn row_of(node: usize, window: u32, row: u32, values: usize) -> Vec<Vec<u8>> {
    let key = format!("{node}-{window}-{row}").into_bytes();
    [key, b"https://example.com/a/path/of/some/length".to_vec()].into_iter().take(values).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_touched_by_one_node_once() {
        let mut keys: Vec<_> = (0..3)
            .flat_map(|node| (0..4).flat_map(move |window| (0..WINDOW).map(move |row| row_of(node, window, row, 1))))
            .collect();
        keys.sort();
        let all = keys.len();
        keys.dedup();
        assert_eq!(keys.len(), all);
    }

    #[test]
    fn a_row_has_as_many_values_as_its_statement_asks_for() {
        for statement in STATEMENTS {
            let values = statement.matches('?').count();
            assert_eq!(row_of(0, 0, 0, values).len(), values, "{statement}");
        }
    }

    #[test]
    fn every_statement_is_about_the_keyspace_that_is_dropped() {
        assert!(STATEMENTS.iter().all(|statement| statement.contains(&format!("{KEYSPACE}.links"))));
    }
}
