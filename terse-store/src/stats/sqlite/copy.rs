//! What comparing a read model that is in use takes: a copy of one moment, and all that the copy holds.

use std::path::Path;

use rusqlite::Connection;
use terse_core::click::JournalId;
use terse_core::ports::StoreError;
use terse_core::ports::clicks::Retired;

use super::fault::Fault;
use super::{SqliteReadModel, SqliteReadModelConfig, connection, reads};

impl SqliteReadModel {
    /// Copies the file at `from`, as it stands at one moment, to `to`, where no file may be. Whoever writes the former
    /// goes on meanwhile, and nothing of it is changed. It blocks as long as copying takes.
    ///
    /// # Errors
    /// [`StoreErrorKind::Unavailable`](terse_core::ports::StoreErrorKind::Unavailable) when the one can't be read or the
    /// other can't be made.
    pub fn copy(from: &Path, to: &Path) -> Result<(), StoreError> {
        let copied = connection::open_reader(from, &SqliteReadModelConfig::new(from).kind().tuning)
            .and_then(|connection| vacuum_into(&connection, to));
        copied.map_err(|fault| fault.into_store_error(&format!("copying {}", from.display())))
    }

    /// Up to `limit` retired journals that are partitions by themselves, after `after`, in the order of their ids.
    ///
    /// # Errors
    /// [`StoreError`] when the file could not be read.
    pub async fn retired_journals(
        &self,
        after: Option<JournalId>,
        limit: usize,
    ) -> Result<Vec<(JournalId, Retired)>, StoreError> {
        let read = move |connection: &Connection| reads::retired_journals(connection, after, limit);
        self.file.read("reading retired journals", read).await
    }
}

/// One read transaction, which in WAL mode keeps nobody from writing.
fn vacuum_into(connection: &Connection, to: &Path) -> Result<(), Fault> {
    let to = to.to_str().ok_or_else(|| Fault::Refused("a path that is not UTF-8".to_owned()))?;
    connection.execute("VACUUM INTO ?1", [to])?;
    Ok(())
}
