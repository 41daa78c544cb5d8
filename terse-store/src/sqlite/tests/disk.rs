//! Faults of the disk, and the room that links take on it.

use super::*;

fn wal_bytes(file: &File) -> u64 {
    std::fs::metadata(file.directory.path().join("links.db-wal")).unwrap().len()
}

async fn insert_all(store: &SqliteStore, codes: impl Iterator<Item = ShortCode>) -> Vec<Result<Insert, StoreError>> {
    let links: Vec<_> = codes.map(|code| link(code.as_str())).collect();
    join_all(links.iter().map(|link| store.insert_if_absent(link, attempt(1)))).await
}

#[tokio::test]
async fn a_full_disk_fails_the_group_and_is_survived() {
    let file = File::new();
    let store = file.open();
    store.insert_if_absent(&link("before"), attempt(1)).await.unwrap();
    // The file may not grow by a page: to SQLite, a full disk.
    meddle(&store, "PRAGMA max_page_count = 1").await;
    let mut refused = None;
    for round in 0..100 {
        let answers = insert_all(&store, (0..20).map(|n| code(&format!("{round}full{n}")))).await;
        if answers.iter().any(Result::is_err) {
            refused = Some((round, answers));
            break;
        }
    }
    let (round, answers) = refused.expect("the disk was never full");
    assert!(answers.iter().all(|answer| match answer {
        Ok(insert) => *insert == Insert::Created,
        Err(error) => error.kind == StoreErrorKind::Unavailable,
    }));
    // What was refused did not happen, what was acknowledged did.
    for (number, answer) in answers.iter().enumerate() {
        let stored = store.get(&code(&format!("{round}full{number}"))).await.unwrap();
        assert_eq!(stored.is_some(), answer.is_ok(), "{number}");
    }
    assert!(store.get(&code("before")).await.unwrap().is_some());
    assert!(store.check().await[0].1.is_ok(), "reads go on");
    // A group after that one may have found room in a page that there is already.
    let mut found_room = 0;
    while store.insert_if_absent(&link(&format!("last{found_room}")), attempt(1)).await.is_ok() {
        found_room += 1;
        assert!(found_room < 1_000, "the disk was never full again");
    }
    let failed = store.check_writes(false).await.remove(0);
    assert_eq!((failed.0.as_str(), failed.1.kind), ("main", StoreErrorKind::Unavailable));
    assert!(failed.1.message.contains("free some of the disk"), "{}", failed.1);

    meddle(&store, "PRAGMA max_page_count = 1000000").await;
    assert!(store.check_writes(false).await.is_empty(), "it is well again without a client");
    let answers = insert_all(&store, (0..20).map(|n| code(&format!("{round}full{n}")))).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
}

#[tokio::test]
async fn a_failed_commit_fails_each_of_its_group_and_is_survived() {
    let file = File::new();
    let store = file.open();
    // A deferred constraint fails nothing but the commit.
    meddle(
        &store,
        "CREATE TABLE parent (id INTEGER PRIMARY KEY); \
         CREATE TABLE child (parent INTEGER REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED)",
    )
    .await;
    let release = occupy_writer(&store);
    let orphan =
        store.write(Operation::Check, |connection| Ok(connection.execute_batch("INSERT INTO child VALUES (7)")?));
    let group = insert_all(&store, (0..5).map(|n| code(&format!("commit{n}"))));
    let (orphan, group, ()) = tokio::join!(soon(orphan), soon(group), async { drop(release) });
    assert_eq!(orphan.unwrap_err().kind, StoreErrorKind::UnknownOutcome);
    for answer in group {
        let error = answer.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::UnknownOutcome);
        assert!(error.message.contains("commit failed"), "{error}");
    }
    assert_eq!(store.get(&code("commit0")).await.unwrap(), None);
    let again = insert_all(&store, (0..5).map(|n| code(&format!("commit{n}")))).await;
    assert!(again.iter().all(|answer| *answer.as_ref().unwrap() == Insert::Created), "{again:?}");
}

/// Runs the test `name`, which is ignored by itself, in a process whose writes
/// beyond the file size limit fail instead of killing it.
fn run_with_file_size_faults(name: &str) {
    let test = std::env::current_exe().unwrap();
    let output = std::process::Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
        .arg(test)
        .args(["--exact", name, "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn an_io_error_in_the_wal_fails_the_group_and_is_survived() {
    run_with_file_size_faults("sqlite::tests::disk::in_a_process_whose_writes_fail");
}

#[tokio::test]
#[ignore = "changes a limit of its process; run by an_io_error_in_the_wal_fails_the_group_and_is_survived"]
async fn in_a_process_whose_writes_fail() {
    let file = File::new();
    let store = file.open();
    store.insert_if_absent(&link("first"), attempt(1)).await.unwrap();
    // A start cuts the WAL once, before or after the first group; what the second one writes stays in it.
    store.insert_if_absent(&link("before"), attempt(1)).await.unwrap();
    let (_, most) = rlimit::Resource::FSIZE.get().unwrap();
    rlimit::Resource::FSIZE.set(wal_bytes(&file), most).unwrap();
    let refused = store.insert_if_absent(&link("fault"), attempt(1)).await.unwrap_err();
    assert_eq!(refused.kind, StoreErrorKind::UnknownOutcome, "{refused}");
    assert_eq!(store.get(&code("fault")).await.unwrap(), None);
    assert!(store.get(&code("before")).await.unwrap().is_some());

    rlimit::Resource::FSIZE.set(most, most).unwrap();
    let after = store.insert_if_absent(&link("fault"), attempt(1)).await.unwrap();
    assert_eq!(after, Insert::Created);
    drop(store);
    let store = file.open();
    assert!(store.get(&code("fault")).await.unwrap().is_some());
}

/// A code as generated ones are: seven letters in no order.
fn scattered(number: u64) -> ShortCode {
    let mut rest = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let letters: String = (0..7)
        .map(|_| {
            let letter = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"[(rest % 62) as usize];
            rest /= 62;
            letter as char
        })
        .collect();
    code(&letters)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_links_keep_the_wal_short_and_the_file_small() {
    const LINKS: u64 = 100_000;
    let file = File::new();
    let store = file.open();
    let mut longest = 0;
    for start in (0..LINKS).step_by(1_000) {
        let answers = insert_all(&store, (start..start + 1_000).map(scattered)).await;
        assert!(answers.iter().all(|answer| matches!(answer, Ok(Insert::Created))));
        longest = longest.max(wal_bytes(&file));
    }
    let most = 4 * KIND.tuning.checkpoint_frames as u64 * 4_096;
    assert!(longest <= most, "the WAL grew to {longest} bytes");
    store.close();
    let bytes = std::fs::metadata(file.path()).unwrap().len();
    let targets: u64 = LINKS * link("1234567").target.as_str().len() as u64;
    let each = (bytes - targets) / LINKS;
    assert!(each < 150, "{each} bytes a link beyond its target");
}

#[tokio::test]
async fn a_wal_held_up_by_a_foreign_reader_is_bounded() {
    let file = File::new();
    let store = file.open();
    store.insert_if_absent(&link("before"), attempt(1)).await.unwrap();
    let foreign = connection::open_reader(&file.path(), &KIND.tuning).unwrap();
    foreign.execute_batch("BEGIN; SELECT count(*) FROM links").unwrap();

    let connection = SqliteFile::open_migrated(&KIND, &file.path()).unwrap();
    let mut wal = Wal::new(Tuning { wal_max_frames: 20, ..KIND.tuning });
    let grow = |wal: &mut Wal| -> Result<(), StoreError> {
        wal.admit()?;
        connection.execute_batch("UPDATE api_keys_revision SET value = value + 1").unwrap();
        wal.tend_once(&connection, "main");
        Ok(())
    };
    let refused = (0..100).find_map(|_| grow(&mut wal).err()).expect("it grew without bound");
    assert_eq!(refused.kind, StoreErrorKind::Overloaded);
    assert!(refused.message.contains("read transaction open"), "{refused}");

    foreign.execute_batch("COMMIT").unwrap();
    wal.tend_once(&connection, "main");
    grow(&mut wal).unwrap();
}
