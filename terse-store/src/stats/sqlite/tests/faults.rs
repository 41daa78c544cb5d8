//! A batch that fails leaves nothing, and its writer attached.

use super::*;

const ROWS: usize = 500;

#[tokio::test]
async fn a_full_disk_leaves_nothing_of_a_batch() {
    let file = File::new();
    let model = file.attached().await;
    assert_eq!(model.write(&step(1, 1)).await.unwrap(), Written::Stands);
    // The file may not grow by a page: to SQLite, a full disk.
    meddle(&model, "PRAGMA max_page_count = 1").await;
    for _ in 0..3 {
        let refused = model.write(&step(ROWS, 2)).await.unwrap_err();
        assert_eq!(refused.kind, StoreErrorKind::Unavailable, "{refused}");
        assert_eq!(standing(&model, 1).await, 1);
        assert_eq!(model.load(&[key("code77")]).await.unwrap(), [None]);
    }
    meddle(&model, "PRAGMA max_page_count = 1000000").await;
    assert_eq!(model.write(&step(ROWS, 2)).await.unwrap(), Written::Stands);
    assert_eq!(standing(&model, ROWS).await, 2);
}

#[tokio::test]
async fn a_batch_that_fails_at_its_end_leaves_nothing() {
    let file = File::new();
    let model = file.attached().await;
    assert_eq!(model.write(&step(ROWS, 1)).await.unwrap(), Written::Stands);
    let mut large = step(ROWS, 2);
    large.checkpoints[0].1.passed = vec![0; MAX_PASSED_BYTES + 1];
    let refused = model.write(&large).await.unwrap_err();
    assert!(refused.answered && refused.message.contains("blocks passed of 16777217 bytes"), "{refused}");
    assert_eq!(standing(&model, ROWS).await, 1);
    assert_eq!(model.write(&step(ROWS, 2)).await.unwrap(), Written::Stands);
    assert_eq!(standing(&model, ROWS).await, 2);
}

#[tokio::test]
async fn a_position_out_of_bounds_is_refused_before_anything_is_written() {
    let file = File::new();
    let model = file.attached().await;
    for at in [Position { epoch: 1 << Position::EPOCH_BITS, offset: 0 }, offset(1 << Position::OFFSET_BITS)] {
        let mut batch = step(3, 1);
        batch.rows[2].1.at = at;
        assert!(model.write(&batch).await.unwrap_err().answered);
        let mut batch = step(3, 1);
        batch.checkpoints[0].1.at = at;
        assert!(model.write(&batch).await.unwrap_err().answered);
        assert_eq!(standing(&model, 3).await, 0);
    }
}

#[tokio::test]
async fn a_commit_of_unknown_outcome_is_found_out_by_the_next_batch() {
    let file = File::new();
    let model = file.attached().await;
    // A deferred constraint fails nothing but the commit; the trigger breaks it in each batch.
    meddle(
        &model,
        "CREATE TABLE parent (id INTEGER PRIMARY KEY); \
         CREATE TABLE child (parent INTEGER REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED); \
         CREATE TRIGGER orphan AFTER UPDATE ON head BEGIN INSERT INTO child VALUES (7); END",
    )
    .await;
    let unknown = model.write(&step(ROWS, 1)).await.unwrap_err();
    assert_eq!(unknown.kind, StoreErrorKind::UnknownOutcome, "{unknown}");
    assert_eq!(standing(&model, ROWS).await, 0);
    meddle(&model, "DROP TRIGGER orphan").await;
    // It did not happen this time, so nobody has written since.
    assert_eq!(model.write(&step(ROWS, 1)).await.unwrap(), Written::Stands);
    // It did happen: here, somebody else has raised the generation in its place.
    meddle(&model, "UPDATE head SET generation = generation + 1").await;
    assert_eq!(model.write(&step(ROWS, 2)).await.unwrap(), Written::Superseded);
    assert_eq!(standing(&model, ROWS).await, 1);
}

#[tokio::test]
async fn a_lock_that_another_process_holds_is_waited_for() {
    let file = File::new();
    let model = file.attached().await;
    let foreign = connection::open_writer(&file.config().path, &file.config().kind().tuning).unwrap();
    foreign.execute_batch("BEGIN IMMEDIATE").unwrap();
    let writing = {
        let model = Arc::clone(&model);
        tokio::spawn(async move { model.write(&step(ROWS, 1)).await })
    };
    assert_eq!(soon(model.overall(&code("code0"))).await.unwrap(), None, "reads don't wait");
    foreign.execute_batch("COMMIT").unwrap();
    assert_eq!(soon(writing).await.unwrap().unwrap(), Written::Stands);
}

#[tokio::test]
async fn a_wal_that_a_foreign_reader_holds_up_is_bounded() {
    let file = File::new();
    let config = SqliteReadModelConfig { checkpoint_mib: 1, ..file.config() };
    let model = SqliteReadModel::open(config.clone()).unwrap();
    model.attach().await.unwrap();
    assert_eq!(model.write(&step(1, 1)).await.unwrap(), Written::Stands);
    let foreign = connection::open_reader(&config.path, &config.kind().tuning).unwrap();
    foreign.execute_batch("BEGIN; SELECT count(*) FROM clicks").unwrap();
    let mut refused = None;
    for number in 2..600 {
        if let Err(error) = model.write(&step(2_000, number)).await {
            refused = Some(error);
            break;
        }
    }
    let refused = refused.expect("it grew without bound");
    assert_eq!(refused.kind, StoreErrorKind::Overloaded, "{refused}");
    assert!(file.wal_bytes() < 20 * 1_024 * 1_024);
    foreign.execute_batch("COMMIT").unwrap();
    // The next refused one finds that the WAL can start over.
    let last = model.write(&step(2_000, 600)).await;
    assert!(last.is_ok() || model.write(&step(2_000, 600)).await.unwrap() == Written::Stands);
    assert_eq!(standing(&model, 2_000).await, 600);
    assert!(file.wal_bytes() < 4 * 1_024 * 1_024);
}
