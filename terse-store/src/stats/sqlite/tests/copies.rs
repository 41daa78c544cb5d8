//! Copies of a file that is in use.

use terse_core::ports::clicks::Retired;

use super::*;

fn row_of(code_text: &str, clicks: u64) -> (RowKey, PackedRow) {
    let mut row = Row::default();
    row.clicks = clicks;
    (RowKey { code: code(code_text), span: Span::All }, PackedRow { at: Position::default(), cell: Cell::of(&row) })
}

async fn write(model: &SqliteReadModel, clicks: u64) {
    let batch = Batch { rows: vec![row_of("abc", clicks)], ..Batch::default() };
    assert_eq!(model.write(&batch).await.unwrap(), Written::Stands);
}

async fn clicks(model: &SqliteReadModel) -> u64 {
    model.overall(&code("abc")).await.unwrap().unwrap().clicks
}

#[tokio::test]
async fn a_copy_is_of_one_moment_and_leaves_the_file_and_its_writer_alone() {
    let file = File::new();
    let model = file.attached().await;
    model.settle_bus(Bus::Local).await.unwrap();
    write(&model, 1).await;
    let copy = file.directory.path().join("copy.db");
    SqliteReadModel::copy(&file.config().path, &copy).unwrap();
    // The copy took no turn of the writer's: it is not superseded.
    write(&model, 2).await;
    let copied = SqliteReadModel::open(SqliteReadModelConfig::new(&copy)).unwrap();
    assert_eq!((clicks(&copied).await, clicks(&model).await), (1, 2));
    let stands = copied.settle_bus(Bus::Streams { partitions: 2 }).await.unwrap();
    assert_eq!(stands, Bus::Local, "what it was made for is copied too");
}

#[test]
fn a_copy_needs_a_file_and_a_free_place() {
    let file = File::new();
    let copy = file.directory.path().join("copy.db");
    let failed = |from: &Path| SqliteReadModel::copy(from, &copy).unwrap_err();
    failed(&file.config().path);
    assert!(!file.config().path.exists(), "a file that is not there is not made");
    file.open().close();
    std::fs::write(&copy, "somebody's").unwrap();
    failed(&file.config().path);
    assert_eq!(std::fs::read(&copy).unwrap(), b"somebody's");
}

#[tokio::test]
async fn journals_that_were_retired_are_listed_page_by_page() {
    let file = File::new();
    let model = file.attached().await;
    let own = |number: u8| (Partition::Journal(JournalId([number; 16])), JournalId([number; 16]));
    let retired = |offset| Retired {
        at: Position { epoch: 0, offset },
        until: Timestamp::from_millis(1),
        passed: vec![offset as u8],
    };
    let mut batch = Batch::default();
    for number in [0, 7, 255] {
        let (partition, journal) = own(number);
        batch.retired.push((partition, journal, retired(u64::from(number))));
    }
    batch.retired.push((LOG, JournalId([8; 16]), retired(8)));
    assert_eq!(model.write(&batch).await.unwrap(), Written::Stands);
    let first = model.retired_journals(None, 2).await.unwrap();
    assert_eq!(first, [(own(0).1, retired(0)), (own(7).1, retired(7))]);
    assert_eq!(model.retired_journals(Some(own(7).1), 2).await.unwrap(), [(own(255).1, retired(255))]);
    assert_eq!(model.retired_journals(Some(own(255).1), 2).await.unwrap(), [], "a stream's are not its own");
}
