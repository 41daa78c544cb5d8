//! The embedded read model, once its file could be opened. Until then statistics are unavailable and the projector
//! pauses, as with one that is out of reach.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use terse_core::click::JournalId;
use terse_core::ports::clicks::{Batch, Bus, Checkpoint, ClickStats, ReadModel, Retired, StoredRow, Written};
use terse_core::ports::{DependencyHealth, StoreError};
use terse_core::stats::{Partition, Row, RowKey, Span};
use terse_core::{ShortCode, Timestamp};
use terse_store::{SqliteReadModel, SqliteReadModelConfig};

use super::late::Late;

/// A read model in a file that may not be open yet.
pub(super) struct LateReadModel(pub(super) Arc<Late<SqliteReadModel>>);

impl LateReadModel {
    /// Will be the one in `path`. Nothing is opened yet.
    pub(super) fn new(path: PathBuf) -> Self {
        let open = move || SqliteReadModel::open(SqliteReadModelConfig::new(&path));
        Self(Late::new("the read model of clicks", open))
    }
}

#[async_trait]
impl ReadModel for LateReadModel {
    async fn settle_bus(&self, bus: Bus) -> Result<Bus, StoreError> {
        self.0.must()?.settle_bus(bus).await
    }

    async fn attach(&self) -> Result<(), StoreError> {
        self.0.must()?.attach().await
    }

    async fn lease(&self, partition: Partition, holder: &str, now: Timestamp, ttl_ms: u64) -> Result<bool, StoreError> {
        self.0.must()?.lease(partition, holder, now, ttl_ms).await
    }

    async fn checkpoint(&self, partition: Partition) -> Result<Option<Checkpoint>, StoreError> {
        self.0.must()?.checkpoint(partition).await
    }

    async fn checkpoints(&self) -> Result<Vec<(Partition, Checkpoint)>, StoreError> {
        self.0.must()?.checkpoints().await
    }

    async fn retired(&self, partition: Partition, journal: JournalId) -> Result<Option<Retired>, StoreError> {
        self.0.must()?.retired(partition, journal).await
    }

    async fn begin_epoch(&self, partition: Partition, first: &Checkpoint) -> Result<Option<Checkpoint>, StoreError> {
        self.0.must()?.begin_epoch(partition, first).await
    }

    async fn load(&self, keys: &[RowKey]) -> Result<Vec<Option<StoredRow>>, StoreError> {
        self.0.must()?.load(keys).await
    }

    async fn write(&self, batch: &Batch) -> Result<Written, StoreError> {
        self.0.must()?.write(batch).await
    }

    async fn scan(&self, after: Option<&RowKey>, limit: usize) -> Result<Vec<(RowKey, StoredRow)>, StoreError> {
        self.0.must()?.scan(after, limit).await
    }
}

#[async_trait]
impl ClickStats for LateReadModel {
    async fn overall(&self, code: &ShortCode) -> Result<Option<Row>, StoreError> {
        self.0.must()?.overall(code).await
    }

    async fn spans(&self, code: &ShortCode, first: Span, last: Span) -> Result<Vec<(Span, Row)>, StoreError> {
        self.0.must()?.spans(code, first, last).await
    }

    async fn as_of(&self, code: &ShortCode) -> Result<Option<Timestamp>, StoreError> {
        self.0.must()?.as_of(code).await
    }
}

#[async_trait]
impl DependencyHealth for LateReadModel {
    fn name(&self) -> &'static str {
        "stats"
    }

    async fn check(&self) -> Result<(), String> {
        match self.0.must() {
            Ok(model) => model.check().await,
            Err(error) => Err(error.message),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use terse_core::ports::StoreErrorKind;

    use super::*;

    const WITHIN: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn a_file_that_is_no_read_model_is_unavailable_until_it_is_replaced() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("stats.sqlite");
        std::fs::write(&path, [b'x'; 8_192]).unwrap();
        let model = LateReadModel::new(path.clone());
        assert_eq!(model.0.open_once(WITHIN).await.unwrap_err().kind, StoreErrorKind::Corrupt);
        let code = ShortCode::parse("abc").unwrap();
        assert_eq!(model.overall(&code).await.unwrap_err().kind, StoreErrorKind::Unavailable);
        assert_eq!(model.settle_bus(Bus::Local).await.unwrap_err().kind, StoreErrorKind::Unavailable);
        let told = model.check().await.unwrap_err();
        assert!(!told.contains(path.to_str().unwrap()), "{told}");
        assert_eq!(told, "the read model of clicks could not be opened yet");

        std::fs::remove_file(&path).unwrap();
        model.0.open_once(WITHIN).await.unwrap();
        assert_eq!(model.check().await, Ok(()));
        assert_eq!(model.settle_bus(Bus::Local).await.unwrap(), Bus::Local);
        assert!(model.overall(&code).await.unwrap().is_none());
    }
}
