//! What can't be understood is corrupt, and never "none".

use super::*;

/// A file with one row of each kind and a checkpoint, after `sql`.
async fn damaged(sql: &'static str) -> (File, Arc<SqliteReadModel>) {
    let file = File::new();
    let model = file.attached().await;
    model.settle_bus(Bus::Streams { partitions: 1 }).await.unwrap();
    let mut batch = step(2, 1);
    let day = RowKey { code: code("code0"), span: Span::Day(5) };
    batch.rows.push((day, PackedRow { at: offset(1), cell: Cell::of(&row(1)) }));
    batch.checkpoints.push((Partition::Stream(0), checkpoint(1)));
    let retired =
        terse_core::ports::clicks::Retired { at: offset(1), until: Timestamp::from_millis(1), passed: vec![] };
    batch.retired.push((LOG, JournalId([1; 16]), retired));
    assert_eq!(model.write(&batch).await.unwrap(), Written::Stands);
    meddle(&model, sql).await;
    (file, model)
}

#[tokio::test]
async fn a_damaged_cell_is_corrupt_wherever_it_is_read() {
    for sql in [
        "UPDATE clicks SET cell = x'' WHERE code = 'code0'",
        "UPDATE clicks SET cell = substr(cell, 1, length(cell) - 1) WHERE code = 'code0'",
        "UPDATE clicks SET cell = CAST(cell || x'00' AS BLOB) WHERE code = 'code0'",
        "UPDATE clicks SET cell = CAST(x'ff' || substr(cell, 2) AS BLOB) WHERE code = 'code0'",
        "UPDATE clicks SET cell = randomblob(200) WHERE code = 'code0'",
        "UPDATE clicks SET cell = zeroblob(300000) WHERE code = 'code0'",
    ] {
        let (_file, model) = damaged(sql).await;
        let code = code("code0");
        assert_eq!(model.overall(&code).await.unwrap_err().kind, StoreErrorKind::Corrupt, "{sql}");
        let spans = model.spans(&code, Span::Day(0), Span::Day(9)).await;
        assert_eq!(spans.unwrap_err().kind, StoreErrorKind::Corrupt, "{sql}");
        let loaded = model.load(&[key("code1"), key("code0")]).await;
        assert_eq!(loaded.unwrap_err().kind, StoreErrorKind::Corrupt, "{sql}");
        assert_eq!(model.scan(None, 9).await.err().unwrap().kind, StoreErrorKind::Corrupt, "{sql}");
        // Others are not harmed, and the damaged one can be written anew.
        assert_eq!(model.load(&[key("code1")]).await.unwrap().len(), 1, "{sql}");
        assert_eq!(model.write(&step(2, 2)).await.unwrap(), Written::Stands, "{sql}");
        assert_eq!(model.overall(&code).await.unwrap(), Some(row(2)), "{sql}");
    }
}

#[tokio::test]
async fn a_newer_format_is_told_by_number() {
    let (_file, model) = damaged("UPDATE clicks SET cell = CAST(x'63' || substr(cell, 2) AS BLOB)").await;
    let error = model.overall(&code("code0")).await.unwrap_err();
    assert!(error.message.contains("format 99"), "{error}");
}

#[tokio::test]
async fn a_key_or_position_that_is_none_is_corrupt() {
    for (column, sql) in [
        ("at", "UPDATE clicks SET at = -1"),
        ("at", "UPDATE clicks SET at = 1 << 50"),
        ("span", "UPDATE clicks SET span = 7 WHERE span = 0 AND code = 'code0'"),
        ("code", "UPDATE clicks SET code = 'no code' WHERE code = 'code1'"),
        ("code", "UPDATE clicks SET code = CAST(x'ff' AS TEXT) WHERE code = 'code1'"),
    ] {
        let (_file, model) = damaged(sql).await;
        let error = model.scan(None, 9).await.err().unwrap();
        assert_eq!(error.kind, StoreErrorKind::Corrupt, "{sql}");
        assert!(error.message.contains(column), "{error}");
    }
}

#[tokio::test]
async fn a_damaged_checkpoint_is_corrupt() {
    for sql in [
        "UPDATE checkpoints SET at = -1",
        "UPDATE checkpoints SET until = -1",
        "UPDATE checkpoints SET journal = x'0102'",
    ] {
        let (_file, model) = damaged(sql).await;
        assert_eq!(model.checkpoint(LOG).await.unwrap_err().kind, StoreErrorKind::Corrupt, "{sql}");
        assert_eq!(model.checkpoints().await.unwrap_err().kind, StoreErrorKind::Corrupt, "{sql}");
    }
    let (_file, model) = damaged("UPDATE checkpoints SET partition = 'queue/1' WHERE partition = 'stream/1'").await;
    assert_eq!(model.checkpoints().await.unwrap_err().kind, StoreErrorKind::Corrupt);
    let (_file, model) = damaged("UPDATE checkpoints SET until = -1").await;
    assert_eq!(model.as_of(&code("any")).await.unwrap_err().kind, StoreErrorKind::Corrupt);
    let (_file, model) = damaged("UPDATE retired SET at = -1").await;
    assert_eq!(model.retired(LOG, JournalId([1; 16])).await.unwrap_err().kind, StoreErrorKind::Corrupt);
}

#[tokio::test]
async fn a_damaged_head_lets_nobody_write() {
    for sql in ["DELETE FROM head", "UPDATE head SET bus = 999", "UPDATE head SET until = -1"] {
        let (_file, model) = damaged(sql).await;
        assert_eq!(model.attach().await.unwrap_err().kind, StoreErrorKind::Corrupt, "{sql}");
        assert_eq!(model.settle_bus(Bus::Local).await.unwrap_err().kind, StoreErrorKind::Corrupt, "{sql}");
        assert_eq!(model.as_of(&code("any")).await.unwrap_err().kind, StoreErrorKind::Corrupt, "{sql}");
        assert!(model.check().await.is_err(), "{sql}");
        // It failed to attach, so it is not.
        assert_eq!(model.write(&step(1, 9)).await.unwrap(), Written::Superseded, "{sql}");
    }
    let (_file, model) = damaged("DELETE FROM head").await;
    assert_eq!(model.write(&step(1, 9)).await.unwrap_err().kind, StoreErrorKind::Corrupt);
    assert_eq!(standing(&model, 1).await, 1);
}

#[test]
fn a_file_of_another_kind_is_refused_and_left_alone() {
    let file = File::new();
    let links = file.directory.path().join("links.db");
    SqliteStore::migrate(&links).unwrap();
    let refused = SqliteReadModel::open(SqliteReadModelConfig::new(&links)).err().unwrap();
    assert_eq!(refused.kind, StoreErrorKind::Corrupt);
    SqliteStore::migrate(&links).unwrap();
    SqliteReadModel::migrate(&file.config().path).unwrap();
    assert_eq!(SqliteStore::migrate(&file.config().path).unwrap_err().kind, StoreErrorKind::Corrupt);
    drop(file.open());

    std::fs::write(file.directory.path().join("noise.db"), vec![b'x'; 8_192]).unwrap();
    let noise = SqliteReadModel::migrate(&file.directory.path().join("noise.db")).unwrap_err();
    assert_eq!(noise.kind, StoreErrorKind::Corrupt);
    let absent = SqliteReadModel::migrate(&file.directory.path().join("absent/stats.db")).unwrap_err();
    assert_eq!(absent.kind, StoreErrorKind::Unavailable);
}

#[test]
fn a_newer_schema_is_refused() {
    let file = File::new();
    SqliteReadModel::migrate(&file.config().path).unwrap();
    let connection = connection::open_writer(&file.config().path, &file.config().kind().tuning).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    let refused = SqliteReadModel::open(file.config()).err().unwrap();
    assert_eq!(refused.kind, StoreErrorKind::Corrupt);
    assert!(refused.message.contains("schema version 99"), "{refused}");
}
