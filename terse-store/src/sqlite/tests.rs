//! What only a SQLite file can show: reopening, faults of the disk, corrupt
//! rows, full queues, several processes, the WAL's length.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::join_all;
use tempfile::TempDir;
use terse_core::ports::{
    IdempotencyRecord, IdempotencyStore, Insert, KeyStore, LeaseStore, LinkCatalog, LinkChange, LinkReader, LinkWriter,
    SettingsStore, StoreErrorKind, StoreHealth, Update,
};
use terse_core::{ApiKey, KeyId, Link, LinkState, Owner, Role, ShortCode, Tags, Timestamp, Title, Version};
use terse_testkit::links::{attempt, code, link, target};

use super::*;
use crate::sqlite_file::group::{Pending, Wal};
use crate::sqlite_file::{ReadJob, connection};

mod disk;
mod leases;
mod processes;

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// Who leases in these tests, and when.
const HOLDER: &str = "web1 127.0.0.1:8080";
const AT: Timestamp = Timestamp::from_millis(1_700_000_000_123);

struct File {
    directory: TempDir,
}

impl File {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("links.db")
    }

    fn config(&self) -> SqliteConfig {
        SqliteConfig::new(self.path(), "main")
    }

    fn open(&self) -> Arc<SqliteStore> {
        SqliteStore::open(self.config()).unwrap()
    }
}

async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("it took too long")
}

/// Runs SQL on the writer's connection, as nobody but a test does.
async fn meddle(store: &SqliteStore, sql: &'static str) {
    store.write(Operation::Check, move |connection| Ok(connection.execute_batch(sql)?)).await.unwrap();
}

/// A read that keeps its thread until the returned sender is dropped.
fn occupy_reader(store: &Arc<SqliteStore>) -> std::sync::mpsc::Sender<()> {
    let (release, gate) = std::sync::mpsc::channel::<()>();
    let (began, begun) = std::sync::mpsc::channel();
    let job: ReadJob = Box::new(move |_| {
        began.send(()).unwrap();
        gate.recv().unwrap_err();
    });
    store.file.readers.submit(job).unwrap();
    begun.recv_timeout(PATIENCE).unwrap();
    release
}

/// A write that keeps the writer until the returned sender is dropped.
fn occupy_writer(store: &Arc<SqliteStore>) -> std::sync::mpsc::Sender<()> {
    let (release, gate) = std::sync::mpsc::channel::<()>();
    let (began, begun) = std::sync::mpsc::channel();
    let work = move |_: &Connection| {
        began.send(()).unwrap();
        gate.recv().unwrap_err();
        Ok(())
    };
    let (job, answer) = Pending::new("occupy", work);
    // Nobody awaits it, but an abandoned job would not be run.
    std::mem::forget(answer);
    store.file.writer.submit(Box::new(job)).unwrap();
    begun.recv_timeout(PATIENCE).unwrap();
    release
}

fn key(id: &str) -> ApiKey {
    ApiKey {
        id: KeyId::parse(id).unwrap(),
        name: "name".to_owned(),
        owner: Owner::open(),
        role: Role::Writer,
        secret_hash: [7; 32],
        created_at: Timestamp::from_millis(1),
        expires_at: None,
        revoked_at: None,
    }
}

fn record() -> IdempotencyRecord {
    IdempotencyRecord {
        body_hash: [1; 32],
        code: code("code"),
        attempt: attempt(1),
        created_at: Timestamp::from_millis(1),
    }
}

fn dressed(text: &str) -> Link {
    Link {
        title: Some(Title::parse("title").unwrap()),
        tags: Tags::parse(&["a", "b"]).unwrap(),
        expires_at: Some(Timestamp::from_millis(9)),
        ..link(text)
    }
}

#[tokio::test]
async fn of_a_setting_that_was_forgotten_no_byte_stays_in_the_file() {
    let file = File::new();
    let secret: Vec<u8> = (0..64_u8).map(|byte| byte.wrapping_mul(151) ^ 0xa5).collect();
    let stands = |secret: &[u8]| {
        let bytes = std::fs::read(file.path()).unwrap();
        bytes.windows(secret.len()).any(|window| window == secret)
    };
    let store = file.open();
    store.settle("kept", &[7; 64]).await.unwrap();
    store.settle("secret", &secret).await.unwrap();
    // The last connection to close moves the WAL into the file.
    store.close();
    drop(store);
    assert!(stands(&secret));
    let store = file.open();
    store.forget("secret").await.unwrap();
    store.close();
    drop(store);
    assert!(!stands(&secret));
    assert!(stands(&[7; 64]));
}

/// The file and its WAL, as they are on disk.
fn all_bytes(path: &std::path::Path) -> Vec<u8> {
    let mut bytes = std::fs::read(path).unwrap();
    bytes.extend(std::fs::read(path.with_extension("db-wal")).unwrap_or_default());
    bytes
}

/// Waits for what happens soon after an answer.
async fn eventually(mut holds: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "in time");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn of_a_setting_that_was_forgotten_no_byte_stays_in_the_wal() {
    let file = File::new();
    let secret: Vec<u8> = (0..64_u8).map(|byte| byte.wrapping_mul(151) ^ 0x5a).collect();
    let stands = |path: &std::path::Path| all_bytes(path).windows(secret.len()).any(|window| window == secret);
    let store = file.open();
    store.settle("kept", &[7; 64]).await.unwrap();
    // The start has cut the WAL already.
    eventually(|| all_bytes(&file.path()).windows(64).any(|window| window == [7; 64])).await;
    store.settle("secret", &secret).await.unwrap();
    assert!(stands(&file.path()));
    // A process that is killed leaves both as they are.
    let copy = File::new();
    store.forget("secret").await.unwrap();
    for extension in ["db", "db-wal"] {
        std::fs::copy(file.path().with_extension(extension), copy.path().with_extension(extension)).unwrap();
    }
    eventually(|| !stands(&file.path())).await;
    assert_eq!(store.setting("kept").await.unwrap().as_deref(), Some(&[7; 64][..]));
    let next = copy.open();
    eventually(|| !stands(&copy.path())).await;
    assert_eq!(next.setting("kept").await.unwrap().as_deref(), Some(&[7; 64][..]));
}

#[tokio::test]
async fn reopening_keeps_everything() {
    let file = File::new();
    let store = file.open();
    let deleted = LinkChange { state: LinkState::Deleted, ..LinkChange::of(&link("gone")) };
    store.insert_if_absent(&dressed("kept"), attempt(1)).await.unwrap();
    store.insert_if_absent(&link("gone"), attempt(2)).await.unwrap();
    store.update(&code("gone"), Version::FIRST, &deleted).await.unwrap();
    store.claim_key(&Owner::open(), "key", &record(), Timestamp::from_millis(0)).await.unwrap();
    store.settle("name", b"value").await.unwrap();
    assert_eq!(store.lease("ids", 10, HOLDER, AT).await.unwrap(), 0..10);
    store.add_key(&key("0123456789")).await.unwrap();
    let revision = store.keys_revision().await.unwrap();
    store.close();

    let store = file.open();
    assert_eq!(store.get(&code("kept")).await.unwrap(), Some(dressed("kept")));
    assert_eq!(store.get(&code("gone")).await.unwrap().unwrap().state, LinkState::Deleted);
    let again = store.insert_if_absent(&link("gone"), attempt(3)).await.unwrap();
    assert_eq!(again, Insert::Taken { attempt: attempt(2) });
    assert_eq!(store.list(&Owner::open(), None, 10).await.unwrap(), [dressed("kept")]);
    assert_eq!(store.find_key(&Owner::open(), "key").await.unwrap(), Some(record()));
    assert_eq!(store.setting("name").await.unwrap().as_deref(), Some(&b"value"[..]));
    assert_eq!(store.lease("ids", 10, HOLDER, AT).await.unwrap(), 10..20);
    assert_eq!(store.keys().await.unwrap(), [key("0123456789")]);
    assert_eq!(store.keys_revision().await.unwrap(), revision);
}

#[tokio::test]
async fn closing_answers_what_was_accepted_and_refuses_the_rest() {
    let file = File::new();
    let store = file.open();
    let release = occupy_writer(&store);
    let accepted: Vec<_> = (0..20)
        .map(|number| {
            let store = Arc::clone(&store);
            let link = link(&format!("queued{number}"));
            tokio::spawn(async move { store.insert_if_absent(&link, attempt(1)).await })
        })
        .collect();
    tokio::task::yield_now().await;
    drop(release);
    let closing = Arc::clone(&store);
    tokio::task::spawn_blocking(move || closing.close()).await.unwrap();
    for answer in accepted {
        assert_eq!(soon(answer).await.unwrap().unwrap(), Insert::Created);
    }
    let late = store.insert_if_absent(&link("late"), attempt(1)).await.unwrap_err();
    assert_eq!(late.kind, StoreErrorKind::Unavailable);
    let late = store.resolve(&code("queued1")).await.unwrap_err();
    assert_eq!(late.kind, StoreErrorKind::Unavailable);
    assert!(store.check().await[0].1.is_err());
}

#[tokio::test]
async fn dropping_the_store_ends_its_threads() {
    let file = File::new();
    let store = file.open();
    store.insert_if_absent(&link("one"), attempt(1)).await.unwrap();
    drop(store);
    // The last connection to close removes the WAL: no thread has one any more.
    assert!(!file.directory.path().join("links.db-wal").exists());
}

#[tokio::test]
async fn a_full_write_queue_refuses_at_once() {
    let file = File::new();
    let config = SqliteConfig { write_queue: 3, ..file.config() };
    let store = SqliteStore::open(config).unwrap();
    let release = occupy_writer(&store);
    let links: Vec<_> = (0..5).map(|number| link(&format!("full{number}"))).collect();
    let all = join_all(links.iter().map(|link| store.insert_if_absent(link, attempt(1))));
    let (answers, ()) = tokio::join!(soon(all), async { drop(release) });
    let kinds: Vec<_> = answers.iter().map(|answer| answer.as_ref().map_err(|error| error.kind)).collect();
    assert_eq!(kinds[..3], [Ok(&Insert::Created); 3]);
    assert_eq!(kinds[3..], [Err(StoreErrorKind::Overloaded); 2]);
    for (number, link) in links.iter().enumerate() {
        assert_eq!(store.get(&link.code).await.unwrap().is_some(), number < 3);
    }
}

#[tokio::test]
async fn a_full_read_queue_refuses_at_once() {
    let file = File::new();
    let config = SqliteConfig { readers: 1, read_queue: 2, ..file.config() };
    let store = SqliteStore::open(config).unwrap();
    let release = occupy_reader(&store);
    let code = code("any");
    let all = join_all((0..4).map(|_| store.resolve(&code)));
    let (answers, ()) = tokio::join!(soon(all), async { drop(release) });
    assert!(answers[..2].iter().all(Result::is_ok), "{answers:?}");
    assert!(answers[2..].iter().all(|answer| answer.as_ref().unwrap_err().kind == StoreErrorKind::Overloaded));
}

#[tokio::test]
async fn a_slow_read_holds_up_neither_writes_nor_the_other_reader() {
    let file = File::new();
    let store = file.open();
    let release = occupy_reader(&store);
    let created = soon(store.insert_if_absent(&link("beside"), attempt(1))).await.unwrap();
    assert_eq!(created, Insert::Created);
    assert!(soon(store.resolve(&code("beside"))).await.unwrap().link.is_some());
    drop(release);
}

#[tokio::test]
async fn a_caller_that_went_before_its_turn_leaves_no_trace() {
    let file = File::new();
    let store = file.open();
    let release = occupy_writer(&store);
    let gone = tokio::time::timeout(Duration::ZERO, store.insert_if_absent(&link("gone"), attempt(1))).await;
    assert!(gone.is_err());
    let stays = link("stays");
    let (created, ()) = tokio::join!(soon(store.insert_if_absent(&stays, attempt(1))), async { drop(release) });
    assert_eq!(created.unwrap(), Insert::Created);
    assert_eq!(store.get(&code("gone")).await.unwrap(), None);
}

#[tokio::test]
async fn callers_that_go_at_any_time_hurt_nobody() {
    let file = File::new();
    let store = file.open();
    for number in 0..200_u64 {
        let (impatient, patient) = (link(&format!("i{number}")), link(&format!("p{number}")));
        let given = Duration::from_micros(number * 7);
        let (_, created, _) = tokio::join!(
            tokio::time::timeout(given, store.insert_if_absent(&impatient, attempt(1))),
            soon(store.insert_if_absent(&patient, attempt(1))),
            tokio::time::timeout(given, store.resolve(&patient.code)),
        );
        assert_eq!(created.unwrap(), Insert::Created);
    }
    assert!(store.check().await[0].1.is_ok());
}

#[tokio::test]
async fn one_bad_operation_leaves_its_group_unharmed() {
    let file = File::new();
    let store = file.open();
    let release = occupy_writer(&store);
    let links: Vec<_> = (0..10).map(|number| link(&format!("group{number}"))).collect();
    let good = join_all(links.iter().map(|link| store.insert_if_absent(link, attempt(1))));
    let bad =
        store.write(Operation::Check, |connection| Ok(connection.execute_batch("INSERT INTO nowhere DEFAULT VALUES")?));
    // Undone whole, though its first half succeeded.
    let half = async {
        meddle_key_revision(&store).await;
        store.add_key(&key("0123456789")).await
    };
    let (bad, good, half, ()) = tokio::join!(soon(bad), soon(good), soon(half), async { drop(release) });
    assert!(bad.is_err());
    assert!(good.iter().all(|answer| *answer.as_ref().unwrap() == Insert::Created), "{good:?}");
    assert_eq!(half.unwrap_err().kind, StoreErrorKind::Corrupt);
    assert_eq!(store.keys().await.unwrap(), []);
}

/// Without its revision row, adding a key fails in its second statement.
async fn meddle_key_revision(store: &SqliteStore) {
    meddle(store, "DELETE FROM api_keys_revision").await;
}

#[tokio::test]
async fn what_cannot_be_understood_is_corrupt_and_never_missing() {
    for (column, sql) in [
        ("state", "UPDATE links SET state = 9"),
        ("version", "UPDATE links SET version = -1"),
        ("target", "UPDATE links SET target = 'https://a b'"),
        ("target", "UPDATE links SET target = CAST(x'68ff' AS TEXT)"),
        ("expires_at", "UPDATE links SET expires_at = -5"),
        ("valid_from", "UPDATE links SET valid_from = 99999999999999999"),
    ] {
        let file = File::new();
        let store = file.open();
        store.insert_if_absent(&dressed("bad"), attempt(1)).await.unwrap();
        meddle(&store, sql).await;
        let error = store.resolve(&code("bad")).await.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Corrupt, "{sql}");
        assert!(error.message.contains(column), "{error}");
        assert_eq!(store.get(&code("bad")).await.unwrap_err().kind, StoreErrorKind::Corrupt, "{sql}");
        let change = LinkChange::of(&link("bad"));
        let refused = store.update(&code("bad"), Version::FIRST, &change).await;
        assert_eq!(refused.unwrap_err().kind, StoreErrorKind::Corrupt, "{sql}");
        let taken = store.insert_if_absent(&link("bad"), attempt(2)).await.unwrap();
        assert_eq!(taken, Insert::Taken { attempt: attempt(1) }, "{sql}");
    }
}

#[tokio::test]
async fn parts_that_a_redirect_does_not_need_fail_whole_links_only() {
    for sql in [
        "UPDATE links SET title = ''",
        "UPDATE links SET tags = 'a' || char(31) || 'a'",
        "UPDATE links SET owner = 'a b'",
        "UPDATE links SET created_at = -1",
    ] {
        let file = File::new();
        let store = file.open();
        store.insert_if_absent(&dressed("bad"), attempt(1)).await.unwrap();
        meddle(&store, sql).await;
        assert!(store.resolve(&code("bad")).await.unwrap().link.is_some(), "{sql}");
        assert_eq!(store.get(&code("bad")).await.unwrap_err().kind, StoreErrorKind::Corrupt, "{sql}");
    }
}

#[tokio::test]
async fn corrupt_keys_records_and_attempts_are_told() {
    let file = File::new();
    let store = file.open();
    store.add_key(&key("0123456789")).await.unwrap();
    meddle(&store, "UPDATE api_keys SET role = 'king'").await;
    assert_eq!(store.keys().await.unwrap_err().kind, StoreErrorKind::Corrupt);

    let (owner, start) = (Owner::open(), Timestamp::from_millis(0));
    store.claim_key(&owner, "key", &record(), start).await.unwrap();
    meddle(&store, "UPDATE idempotency SET body_hash = x'00'").await;
    assert_eq!(store.find_key(&owner, "key").await.unwrap_err().kind, StoreErrorKind::Corrupt);
    assert_eq!(store.claim_key(&owner, "key", &record(), start).await.unwrap_err().kind, StoreErrorKind::Corrupt);

    store.insert_if_absent(&link("one"), attempt(1)).await.unwrap();
    meddle(&store, "UPDATE links SET attempt = x'0102'").await;
    let taken = store.insert_if_absent(&link("one"), attempt(1)).await;
    assert_eq!(taken.unwrap_err().kind, StoreErrorKind::Corrupt);
}

#[test]
fn a_file_that_is_no_database_is_corrupt() {
    let file = File::new();
    std::fs::write(file.path(), vec![b'x'; 8_192]).unwrap();
    let error = SqliteStore::open(file.config()).err().unwrap();
    assert_eq!(error.kind, StoreErrorKind::Corrupt);
    assert!(error.message.contains("links.db"), "{error}");
}

#[test]
fn a_directory_that_is_not_there_is_unavailable() {
    let file = File::new();
    let config = SqliteConfig::new(file.directory.path().join("absent/links.db"), "main");
    let error = SqliteStore::open(config).err().unwrap();
    assert_eq!(error.kind, StoreErrorKind::Unavailable);
}

#[test]
fn a_newer_schema_is_refused_and_left_alone() {
    let file = File::new();
    SqliteStore::migrate(&file.path()).unwrap();
    let connection = connection::open_writer(&file.path(), &KIND.tuning).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    let error = SqliteStore::open(file.config()).err().unwrap();
    assert_eq!(error.kind, StoreErrorKind::Corrupt);
    assert!(error.message.contains("schema version 99"), "{error}");
    SqliteStore::migrate(&file.path()).unwrap_err();
}
