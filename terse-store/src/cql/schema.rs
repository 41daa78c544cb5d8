//! The schema, its versions, and how a keyspace gets from one to the next.
//!
//! The table `schema_versions` tells which migrations ran. Each statement of a
//! migration can be run again: it says "if not exists", or sets options of a
//! table. Tables have fixed ids where the engine needs them, and a version is
//! written down after its last statement: nodes that migrate at the same time
//! make one schema, and one that dies half way is completed by the next. A
//! keyspace of a newer release is refused.

use std::collections::HashSet;

use scylla::client::session::Session;
use scylla::errors::{DbError, ExecutionError, RequestAttemptError};
use terse_core::Timestamp;
use terse_core::ports::{StoreError, StoreErrorKind};

use super::dialect::{Engine, table_made_by};
use super::fault;
use super::rows::{self, cql_time};
use super::session::{KEYSPACE, Profiles, Use, plain};

/// What one part of terse keeps in a keyspace. Parts may share one: their tables have different names, and each has
/// versions of its own.
pub(super) struct Component {
    /// Whose versions they are.
    pub(super) name: &'static str,
    /// The migrations in order; a release only ever adds to the end.
    migrations: &'static [&'static str],
}

/// Links and what belongs to them.
pub(super) const LINKS: Component =
    Component { name: "links", migrations: &[include_str!("../../migrations/cql/0001_links.cql")] };

/// The read model of clicks.
pub(super) const CLICKS: Component = Component {
    name: "clicks",
    migrations: &[
        include_str!("../../migrations/cql/clicks/0001_rows.cql"),
        include_str!("../../migrations/cql/clicks/0002_patience.cql"),
    ],
};

const CREATE_VERSIONS: &str = "CREATE TABLE IF NOT EXISTS {keyspace}.schema_versions \
    (component text, version int, applied_at timestamp, PRIMARY KEY (component, version))";

/// Changes the schema of one keyspace.
pub(super) struct Migrator<'a> {
    pub(super) component: &'a Component,
    pub(super) session: &'a Session,
    pub(super) profiles: &'a Profiles,
    pub(super) keyspace: &'a str,
    pub(super) replication: u8,
}

impl Migrator<'_> {
    /// Whether the keyspace has this release's schema; only reads.
    ///
    /// # Errors
    /// [`StoreErrorKind::Corrupt`] when it has a newer one, told by both numbers.
    pub(super) async fn is_current(&self) -> Result<bool, StoreError> {
        Ok(self.applied(&self.tables().await?).await? == self.component.migrations.len())
    }

    /// Brings the keyspace to this release's schema.
    ///
    /// Nodes are waited for after the keyspace is made and before a version is
    /// written down, not after each table: each of them takes the others'
    /// changes over by itself.
    pub(super) async fn migrate(&self, now: Timestamp) -> Result<(), StoreError> {
        let engine = Engine::probe(self.session, self.profiles).await?;
        self.create_keyspace(engine).await?;
        self.agree().await?;
        let mut tables = self.tables().await?;
        if self.change(engine, CREATE_VERSIONS, &tables).await? {
            self.agree().await?;
            tables = self.tables().await?;
        }
        // What another node has written down meanwhile, or a newer release.
        let done = self.applied(&tables).await?;
        for (at, migration) in self.component.migrations.iter().enumerate().skip(done) {
            for statement in statements(migration) {
                self.change(engine, &statement, &tables).await?;
            }
            self.agree().await?;
            self.record(at + 1, now).await?;
        }
        // So that the driver knows where rows are.
        let refreshed = self.session.refresh_metadata().await;
        refreshed.map_err(|error| fault::unavailable("reading the schema failed").caused_by(error))
    }

    /// Waits until all nodes in reach have one schema.
    async fn agree(&self) -> Result<(), StoreError> {
        let agreed = self.session.await_schema_agreement().await;
        agreed.map(drop).map_err(|error| fault::unavailable("nodes don't agree on the schema").caused_by(error))
    }

    /// How many migrations the keyspace has had. A newer schema is refused by both numbers.
    async fn applied(&self, tables: &HashSet<String>) -> Result<usize, StoreError> {
        if !tables.contains("schema_versions") {
            return Ok(0);
        }
        let newest = match self.newest(Use::ListRead).await {
            Ok(newest) => newest,
            // As with links: what one replica has is known, what it has not may be on the others.
            Err(error) => match self.newest(Use::SingleReplica).await {
                Ok(newest) if newest > 0 => newest,
                _ => return Err(error),
            },
        };
        let known = self.component.migrations.len();
        match usize::try_from(newest) {
            Ok(version) if version <= known => Ok(version),
            _ => Err(fault::corrupt(format!(
                "schema version {newest}, but this release knows versions up to {known}: it was written by a newer one"
            ))),
        }
    }

    /// The tables of the keyspace, as one node knows them.
    async fn tables(&self) -> Result<HashSet<String>, StoreError> {
        const QUERY: &str = "SELECT table_name FROM system_schema.tables WHERE keyspace_name = ?";
        let statement = plain(self.profiles, Use::Schema, QUERY);
        let answer = self.session.query_unpaged(statement, (self.keyspace,)).await;
        let rows = answer.map_err(|error| fault::read("looking for the schema", error))?.into_rows_result();
        let rows = rows.map_err(|error| fault::corrupt("the schema can't be read").caused_by(error))?;
        rows::all(&rows, |(table,): (String,)| Ok(table)).map(HashSet::from_iter)
    }

    async fn newest(&self, usage: Use) -> Result<i32, StoreError> {
        let text = self.filled("SELECT max(version) FROM {keyspace}.schema_versions WHERE component = ?");
        let answer = self.session.query_unpaged(plain(self.profiles, usage, text), (self.component.name,)).await;
        let rows = answer.map_err(|error| fault::read("reading the schema's version", error))?.into_rows_result();
        let rows = rows.map_err(|error| fault::corrupt("the schema's version can't be read").caused_by(error))?;
        let row = rows.maybe_first_row::<(Option<i32>,)>();
        let row = row.map_err(|error| fault::corrupt("the schema's version can't be read").caused_by(error))?;
        Ok(row.and_then(|(version,)| version).unwrap_or(0))
    }

    async fn create_keyspace(&self, engine: Engine) -> Result<(), StoreError> {
        let mut refused = None;
        for statement in engine.create_keyspace(&quoted(self.keyspace), self.replication) {
            match self.session.query_unpaged(plain(self.profiles, Use::Schema, statement), ()).await {
                Ok(_) => return Ok(()),
                Err(error) if not_understood(&error) => refused = Some(error),
                Err(error) => return Err(failed(error)),
            }
        }
        Err(refused.map_or_else(|| fault::unavailable("no statement makes the keyspace"), failed))
    }

    /// Runs `statement`, unless it makes one of `tables`. Tells whether it did.
    async fn change(&self, engine: Engine, statement: &str, tables: &HashSet<String>) -> Result<bool, StoreError> {
        if table_made_by(statement).is_some_and(|table| tables.contains(table)) {
            return Ok(false);
        }
        let statement = engine.with_table_id(&self.filled(statement), self.keyspace);
        let answer = self.session.query_unpaged(plain(self.profiles, Use::Schema, statement), ()).await;
        answer.map(|_| true).map_err(failed)
    }

    async fn record(&self, version: usize, now: Timestamp) -> Result<(), StoreError> {
        let text =
            self.filled("INSERT INTO {keyspace}.schema_versions (component, version, applied_at) VALUES (?, ?, ?)");
        let version = i32::try_from(version).unwrap_or(i32::MAX);
        let statement = plain(self.profiles, Use::Write, text);
        let answer = self.session.query_unpaged(statement, (self.component.name, version, cql_time(now))).await;
        answer.map(drop).map_err(failed)
    }

    fn filled(&self, text: &str) -> String {
        text.replace(KEYSPACE, &quoted(self.keyspace))
    }
}

/// Migrating may have happened in part, but doing it again is right in any case.
fn failed(error: ExecutionError) -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable, "changing the schema failed").caused_by(error)
}

fn not_understood(error: &ExecutionError) -> bool {
    use RequestAttemptError::DbError as Told;
    matches!(
        error,
        ExecutionError::LastAttemptError(Told(DbError::SyntaxError | DbError::Invalid | DbError::ConfigError, _))
    )
}

/// `name` as it stands in statements, its letters kept.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The statements of a migration, without comments, each on one line.
fn statements(migration: &str) -> Vec<String> {
    let lines = migration.lines().map(|line| line.split("--").next().unwrap_or_default().trim());
    let text = lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    text.split(';').map(str::trim).filter(|statement| !statement.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_migration_falls_into_its_statements() {
        let text = "-- about; this\nCREATE TABLE a (\n  b int, -- why\n  c int\n);\n\nCREATE TABLE d (e int);\n";
        assert_eq!(statements(text), ["CREATE TABLE a ( b int, c int )", "CREATE TABLE d (e int)"]);
    }

    fn all_statements() -> Vec<String> {
        let migrations = [LINKS, CLICKS].into_iter().flat_map(|component| component.migrations);
        migrations.flat_map(|migration| statements(migration)).collect()
    }

    #[test]
    fn every_statement_can_be_run_again() {
        for statement in all_statements() {
            let makes = statement.starts_with("CREATE TABLE IF NOT EXISTS {keyspace}.");
            let altered = statement.strip_prefix("ALTER TABLE {keyspace}.").and_then(|rest| rest.split_once(' '));
            let sets = altered.is_some_and(|(_, change)| change.starts_with("WITH "));
            assert!(makes || sets, "{statement}");
        }
        assert!(CREATE_VERSIONS.starts_with("CREATE TABLE IF NOT EXISTS {keyspace}."));
    }

    #[test]
    fn parts_that_share_a_keyspace_share_no_table() {
        let statements = all_statements();
        let makes = statements.iter().filter_map(|statement| table_made_by(statement));
        let (count, tables) = (makes.clone().count(), makes.collect::<HashSet<_>>());
        assert_eq!(tables.len(), count, "{tables:?}");
        assert!(!tables.contains("schema_versions"));
    }

    #[test]
    fn nothing_that_only_one_engine_knows_is_in_the_schema() {
        for statement in all_statements() {
            let lower = statement.to_lowercase();
            for word in ["compression", "compaction", " counter,", " counter)", "index", "using", "tablets", " id ="] {
                assert!(!lower.contains(word), "{word}: {statement}");
            }
        }
    }

    #[test]
    fn names_are_quoted() {
        assert_eq!(quoted("links"), "\"links\"");
        assert_eq!(quoted("a\"; DROP"), "\"a\"\"; DROP\"");
    }
}
