//! Several processes on one file. Two stores in one process stand for them
//! where nothing depends on the difference; connections share nothing but the file.

use super::*;

#[test]
fn processes_that_start_at_once_make_one_schema() {
    let file = File::new();
    let test = std::env::current_exe().unwrap();
    let children: Vec<_> = (0..6)
        .map(|_| {
            std::process::Command::new(&test)
                .args(["--exact", "sqlite::tests::processes::in_a_process_that_migrates", "--ignored"])
                .env("TERSE_STORE_TEST_FILE", file.path())
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
    }
    let connection = SqliteFile::open_migrated(&KIND, &file.path()).unwrap();
    let started: i64 = connection.query_row("SELECT count(*) FROM links", [], |row| row.get(0)).unwrap();
    assert_eq!(started, 6);
}

#[tokio::test]
#[ignore = "run by processes_that_start_at_once_make_one_schema"]
async fn in_a_process_that_migrates() {
    let path = std::env::var_os("TERSE_STORE_TEST_FILE").unwrap();
    let store = SqliteStore::open(SqliteConfig::new(path, "main")).unwrap();
    let own = link(&format!("process{}", std::process::id()));
    assert_eq!(store.insert_if_absent(&own, attempt(1)).await.unwrap(), Insert::Created);
}

#[tokio::test]
async fn a_key_made_beside_a_running_server_is_seen() {
    let file = File::new();
    let server = file.open();
    let before = server.keys_revision().await.unwrap();
    let tool = file.open();
    tool.add_key(&key("0123456789")).await.unwrap();
    drop(tool);
    assert_ne!(server.keys_revision().await.unwrap(), before);
    assert_eq!(server.keys().await.unwrap(), [key("0123456789")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_stores_on_one_file_never_both_win() {
    let file = File::new();
    let stores = [file.open(), file.open()];
    for round in 0..60 {
        let contender = |number: usize| Link {
            target: target(&format!("https://t.example/{number}")),
            ..link(&format!("both{round}"))
        };
        let links = [contender(0), contender(1)];
        let (first, second) = tokio::join!(
            soon(stores[0].insert_if_absent(&links[0], attempt(0))),
            soon(stores[1].insert_if_absent(&links[1], attempt(1))),
        );
        let created = [first.unwrap(), second.unwrap()].map(|answer| answer == Insert::Created);
        assert_ne!(created[0], created[1]);
        let winner = &links[usize::from(created[1])];
        for store in &stores {
            assert_eq!(store.get(&winner.code).await.unwrap().as_ref(), Some(winner));
        }
        let change = LinkChange::of(winner);
        let (first, second) = tokio::join!(
            soon(stores[0].update(&winner.code, Version::FIRST, &change)),
            soon(stores[1].update(&winner.code, Version::FIRST, &change)),
        );
        let updated = [first.unwrap(), second.unwrap()].map(|answer| matches!(answer, Update::Updated(_)));
        assert_ne!(updated[0], updated[1]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_stores_on_one_file_lease_disjoint_ranges() {
    let file = File::new();
    let stores = [file.open(), file.open()];
    let mut ranges = Vec::new();
    for _ in 0..50 {
        let lease = |store: usize| soon(stores[store].lease("ids", 10, HOLDER, AT));
        let (first, second) = tokio::join!(lease(0), lease(1));
        ranges.extend([first.unwrap(), second.unwrap()]);
    }
    ranges.sort_by_key(|range| range.start);
    assert!(ranges.windows(2).all(|two| two[0].end <= two[1].start), "{ranges:?}");
}

#[tokio::test]
async fn writes_wait_for_another_process_lock() {
    let file = File::new();
    let store = file.open();
    let foreign = connection::open_writer(&file.path(), &KIND.tuning).unwrap();
    foreign.execute_batch("BEGIN IMMEDIATE").unwrap();
    let waiting = {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.insert_if_absent(&link("waits"), attempt(1)).await })
    };
    // Reads don't wait for it.
    assert!(soon(store.resolve(&code("waits"))).await.unwrap().link.is_none());
    foreign.execute_batch("COMMIT").unwrap();
    assert_eq!(soon(waiting).await.unwrap().unwrap(), Insert::Created);
}
