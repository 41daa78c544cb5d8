//! Processes that are killed while they write.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use super::*;

const ROWS: usize = 300;

/// A process that writes steps until it is killed; the numbers of those that stand come as lines.
fn writing_process(file: &File) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "stats::sqlite::tests::processes::in_a_process_that_is_killed", "--ignored", "--nocapture"])
        .env("TERSE_STORE_TEST_FILE", file.config().path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn whatever_was_answered_stands_whole_after_a_kill() {
    let file = File::new();
    let mut last = 0;
    for round in 1..=4 {
        let mut child = writing_process(&file);
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let numbers = lines.map_while(Result::ok).filter_map(|line| line.strip_prefix("stands ")?.parse::<u64>().ok());
        let mut answered = 0;
        for number in numbers.take(5 * round) {
            answered = number;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let stands = standing(&file.open(), ROWS).await;
        assert!(answered > last && stands >= answered, "{answered} was answered, {stands} stands");
        last = stands;
    }
}

#[tokio::test]
#[ignore = "run by whatever_was_answered_stands_whole_after_a_kill"]
#[allow(clippy::print_stdout)]
async fn in_a_process_that_is_killed() {
    let path = std::env::var_os("TERSE_STORE_TEST_FILE").unwrap();
    // Checkpoints often, so that some are cut short.
    let config = SqliteReadModelConfig { checkpoint_mib: 1, ..SqliteReadModelConfig::new(path) };
    let model = SqliteReadModel::open(config).unwrap();
    model.attach().await.unwrap();
    let first = standing(&model, ROWS).await + 1;
    for number in first..first + 100_000 {
        assert_eq!(model.write(&step(ROWS, number)).await.unwrap(), Written::Stands);
        println!("stands {number}");
    }
}

#[test]
fn processes_that_open_at_once_make_one_schema() {
    let file = File::new();
    let threads: Vec<_> = (0..6)
        .map(|_| {
            let path = file.config().path;
            std::thread::spawn(move || SqliteReadModel::migrate(&path))
        })
        .collect();
    for thread in threads {
        thread.join().unwrap().unwrap();
    }
}
