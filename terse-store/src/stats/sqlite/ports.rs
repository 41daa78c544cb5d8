//! The ports on [`SqliteReadModel`]: each method hands owned copies of its
//! arguments to a store thread.

use async_trait::async_trait;
use rusqlite::Connection;
use terse_core::click::JournalId;
use terse_core::ports::clicks::{Batch, Bus, Checkpoint, ClickStats, ReadModel, Retired, StoredRow, Written};
use terse_core::ports::{DependencyHealth, Lease, StoreError};
use terse_core::stats::{Partition, Row, RowKey, Span};
use terse_core::{ShortCode, Timestamp};

use super::super::{check_bus, check_range};
use super::fault::Fault;
use super::{SqliteReadModel, reads, writes};

impl SqliteReadModel {
    /// Runs `work` as this instance's next step; `None` = somebody else wrote meanwhile.
    async fn in_turn<T, F>(&self, action: &'static str, work: F) -> Result<Option<T>, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    {
        let mut attached = self.attached.lock().await;
        let Some(generation) = *attached else { return Ok(None) };
        let step = move |connection: &Connection| writes::in_turn(connection, generation, work);
        // After a failure the generation stays as it was known: if the commit stands all the same, the next step
        // finds another one and is superseded, which is safe. So it is when this future is dropped here.
        match self.file.write(action, step).await? {
            Some((result, generation)) => {
                *attached = Some(generation);
                Ok(Some(result))
            }
            None => {
                *attached = None;
                Ok(None)
            }
        }
    }
}

#[async_trait]
impl ReadModel for SqliteReadModel {
    async fn settle_bus(&self, bus: Bus) -> Result<Bus, StoreError> {
        check_bus(bus)?;
        self.file.write("settling the bus", move |connection| writes::settle_bus(connection, bus)).await
    }

    async fn attach(&self) -> Result<(), StoreError> {
        let mut attached = self.attached.lock().await;
        *attached = None;
        *attached = Some(self.file.read("attaching", |connection| Ok(reads::head(connection)?.generation)).await?);
        Ok(())
    }

    async fn lease(&self, _: Partition, holder: &str, now: Timestamp, ttl_ms: u64) -> Result<bool, StoreError> {
        let holder = Lease::holder_text(holder).to_owned();
        self.file.write("leasing", move |connection| writes::lease(connection, &holder, now, ttl_ms)).await
    }

    async fn checkpoint(&self, partition: Partition) -> Result<Option<Checkpoint>, StoreError> {
        self.file.read("reading a checkpoint", move |connection| reads::checkpoint(connection, partition)).await
    }

    async fn checkpoints(&self) -> Result<Vec<(Partition, Checkpoint)>, StoreError> {
        self.file.read("reading checkpoints", reads::checkpoints).await
    }

    async fn retired(&self, partition: Partition, journal: JournalId) -> Result<Option<Retired>, StoreError> {
        self.file
            .read("reading a retired journal", move |connection| reads::retired(connection, partition, journal))
            .await
    }

    async fn begin_epoch(&self, partition: Partition, first: &Checkpoint) -> Result<Option<Checkpoint>, StoreError> {
        let first = first.clone();
        self.in_turn("beginning an epoch", move |connection| writes::begin_epoch(connection, partition, &first)).await
    }

    async fn load(&self, keys: &[RowKey]) -> Result<Vec<Option<StoredRow>>, StoreError> {
        const ACTION: &str = "loading rows";
        writes::check_count(keys.len()).map_err(|fault| fault.into_store_error(ACTION))?;
        let keys = keys.to_vec();
        self.file.read(ACTION, move |connection| reads::load(connection, &keys)).await
    }

    async fn write(&self, batch: &Batch) -> Result<Written, StoreError> {
        const ACTION: &str = "writing clicks";
        let batch = writes::Ordered::of(batch).map_err(|fault| fault.into_store_error(ACTION))?;
        let stands = self.in_turn(ACTION, move |connection| writes::batch(connection, &batch)).await?.is_some();
        Ok(if stands { Written::Stands } else { Written::Superseded })
    }

    async fn scan(&self, after: Option<&RowKey>, limit: usize) -> Result<Vec<(RowKey, StoredRow)>, StoreError> {
        let after = after.cloned();
        self.file.read("scanning rows", move |connection| reads::scan(connection, after.as_ref(), limit)).await
    }
}

#[async_trait]
impl ClickStats for SqliteReadModel {
    async fn overall(&self, code: &ShortCode) -> Result<Option<Row>, StoreError> {
        let code = code.clone();
        self.file.read("reading all clicks", move |connection| reads::overall(connection, &code)).await
    }

    async fn spans(&self, code: &ShortCode, first: Span, last: Span) -> Result<Vec<(Span, Row)>, StoreError> {
        check_range(first, last)?;
        let code = code.clone();
        self.file.read("reading clicks over time", move |connection| reads::spans(connection, &code, first, last)).await
    }

    async fn as_of(&self, code: &ShortCode) -> Result<Option<Timestamp>, StoreError> {
        let code = code.clone();
        self.file.read("reading how far clicks are counted", move |connection| reads::as_of(connection, &code)).await
    }
}

#[async_trait]
impl DependencyHealth for SqliteReadModel {
    fn name(&self) -> &'static str {
        "stats"
    }

    /// Reads what it is made for, and how large it is.
    async fn check(&self) -> Result<(), String> {
        if !self.file.writer.is_open() {
            return Err("the writer has ended".to_owned());
        }
        let read = self.file.read("reading the head", |connection| {
            reads::head(connection)?;
            reads::file_bytes(connection)
        });
        let bytes = read.await.map_err(|error| error.message)?;
        if bytes > self.alarm_bytes {
            let most = self.alarm_bytes;
            return Err(format!(
                "the file works, but has {bytes} bytes, more than {most}: it grows with links and hours"
            ));
        }
        Ok(())
    }
}
