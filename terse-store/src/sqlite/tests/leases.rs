//! The counter and its log in the file.

use super::*;

#[tokio::test]
async fn a_counter_that_went_back_leases_nothing() {
    let file = File::new();
    let store = file.open();
    for ids in [0..10, 10..20] {
        assert_eq!(store.lease("ids", 10, HOLDER, AT).await.unwrap(), ids);
    }
    meddle(&store, "UPDATE leases SET next_id = 10 WHERE counter = 'ids'").await;
    for _ in 0..2 {
        let refused = store.lease("ids", 10, HOLDER, AT).await.unwrap_err();
        assert_eq!(refused.kind, StoreErrorKind::Corrupt);
        assert!(refused.message.contains("the counter 'ids' went back: id 10 is leased already"), "{refused}");
    }
    meddle(&store, "UPDATE leases SET next_id = 20 WHERE counter = 'ids'").await;
    assert_eq!(store.lease("ids", 10, HOLDER, AT).await.unwrap(), 20..30, "the refused leases left no trace");
}

#[tokio::test]
async fn a_file_from_before_the_log_goes_on_where_it_was() {
    let file = File::new();
    let connection = connection::open_writer(&file.path(), &KIND.tuning).unwrap();
    connection.execute_batch(include_str!("../../../migrations/sqlite/0001_links.sql")).unwrap();
    connection
        .execute_batch(
            "INSERT INTO leases VALUES ('ids', 30000); PRAGMA user_version = 1; PRAGMA application_id = 0x74657273",
        )
        .unwrap();
    drop(connection);
    let store = file.open();
    assert_eq!(store.leases("ids", 0, 10).await.unwrap(), []);
    assert_eq!(store.lease("ids", 10, HOLDER, AT).await.unwrap(), 30_000..30_010);
    assert_eq!(store.leases("ids", 0, 10).await.unwrap()[0].ids, 30_000..30_010);
}

#[tokio::test]
async fn the_log_outlives_the_process() {
    let file = File::new();
    let store = file.open();
    store.lease("ids", 10, HOLDER, AT).await.unwrap();
    let before = store.leases("ids", 0, 10).await.unwrap();
    store.close();
    assert_eq!(file.open().leases("ids", 0, 10).await.unwrap(), before);
}

#[tokio::test]
async fn a_record_that_cannot_be_understood_is_no_missing_one() {
    let file = File::new();
    let store = file.open();
    store.lease("ids", 10, HOLDER, AT).await.unwrap();
    meddle(&store, "UPDATE lease_log SET leased_at = 9223372036854775807").await;
    assert_eq!(store.leases("ids", 0, 10).await.unwrap_err().kind, StoreErrorKind::Corrupt);
}
