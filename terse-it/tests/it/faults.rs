//! Damaged files and a full disk: what can't be read is 503, never 404, and
//! nothing that was acknowledged is lost.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use terse_it::{API_LINKS, Client, Request, Response, Server, Setup, Stop, await_true, code_of, code_path};

use crate::contract::assert_problem;

/// The database files of a data directory whose names hold `part`.
fn databases(data: &Path, part: &str) -> Vec<PathBuf> {
    let files = std::fs::read_dir(data).unwrap().map(|entry| entry.unwrap().path());
    let is_database = |path: &PathBuf| {
        let mut start = [0; 16];
        let read = File::open(path).and_then(|mut file| file.read_exact(&mut start));
        read.is_ok() && start.starts_with(b"SQLite format 3")
    };
    let name_fits = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().contains(part);
    let found: Vec<PathBuf> = files.filter(|path| path.is_file() && name_fits(path) && is_database(path)).collect();
    assert!(!found.is_empty(), "no database named like {part:?} in {}", data.display());
    found
}

/// Overwrites a database and its write-ahead log with zeros, as a failing disk
/// would; the first page stays, so that the file is still known as a database.
fn zero_pages(path: &Path) {
    const WAL_HEAD: u64 = 32;
    let mut head = [0; 100];
    File::open(path).unwrap().read_exact(&mut head).unwrap();
    let page = match u16::from_be_bytes([head[16], head[17]]) {
        1 => 65_536,
        size => u64::from(size),
    };
    zero_from(path, page);
    zero_from(&beside(path, "-wal"), WAL_HEAD);
}

fn zero_from(path: &Path, start: u64) {
    let Ok(mut file) = File::options().write(true).open(path) else { return };
    let length = file.metadata().unwrap().len();
    file.seek(SeekFrom::Start(start)).unwrap();
    file.write_all(&vec![0; usize::try_from(length.saturating_sub(start)).unwrap()]).unwrap();
    file.sync_all().unwrap();
}

/// The file that SQLite keeps beside a database.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Creates `count` links with aliases `PREFIX-0`, `PREFIX-1`, ….
fn create_many(client: &Client, prefix: &str, count: usize) -> Vec<String> {
    let aliases: Vec<String> = (0..count).map(|n| format!("{prefix}-{n}")).collect();
    for chunk in aliases.chunks(500) {
        let item = |alias: &String| json!({ "url": format!("https://example.com/{alias}"), "alias": alias });
        let items: Vec<_> = chunk.iter().map(item).collect();
        let answer = client.post(&format!("{API_LINKS}/batch"), &json!({ "items": items })).expect(200).json();
        assert!(answer["items"].as_array().unwrap().iter().all(|item| item["status"] == 201));
    }
    aliases
}

/// Starts `server` without the codes that it saved when it ended: what is in memory then was asked for since.
fn start_cold(server: &mut Server) {
    std::fs::remove_file(server.setup().data().join("warm.codes")).expect("codes are saved at the end");
    server.restart();
}

#[track_caller]
fn assert_unavailable(answer: &Response) {
    assert_eq!(answer.status, 503, "{answer:?}");
    let wait = answer.header("retry-after").unwrap_or_else(|| panic!("no retry-after in {answer:?}"));
    assert!(wait.parse::<u32>().is_ok(), "{wait}");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
}

#[test]
fn a_damaged_store_is_503_and_never_404_while_cached_links_redirect() {
    let mut server = Setup::new().start();
    let aliases = create_many(&server.client(), "link", 2_000);
    server.stop(Stop::Politely);
    start_cold(&mut server);
    let client = server.client();
    let (hot, cold) = aliases.split_at(100);
    for alias in hot {
        assert_eq!(client.visit(alias).status, 302);
    }
    // A commit empties the page caches of SQLite's readers, so all that follows has to read the file.
    client.shorten("https://example.com/commit");
    for path in databases(server.setup().data(), "") {
        zero_pages(&path);
    }
    for alias in &cold[..200] {
        assert_unavailable(&client.visit(alias));
    }
    for unknown in ["nobody-knows", "zzzzzzz"] {
        assert_unavailable(&client.visit(unknown));
    }
    for alias in hot {
        assert_eq!(client.target(alias), format!("https://example.com/{alias}"));
    }
    let api = client.get(&code_path(&cold[cold.len() - 1]));
    assert_unavailable(&api);
    assert_problem(&api, 503, None);
    assert_unavailable(&client.get(API_LINKS));
    assert_unavailable(&client.patch(&cold[cold.len() - 1], &json!({ "title": "x" })));
    assert_unavailable(&client.delete(&cold[cold.len() - 1]));
    assert_unavailable(&client.post(API_LINKS, &json!({ "url": "https://example.com/", "alias": "link-1500-fresh" })));
    assert_eq!(client.get("/livez").status, 200);
    assert_eq!(client.get("/readyz").status, 200);
    let text = client.get("/metrics").expect(200).text();
    let counted = text.lines().any(|l| l.contains("outcome=\"unavailable\"") && !l.ends_with(" 0"));
    assert!(counted, "{text}");
}

/// Two shards; aliases from `0` to `V` in front are on `low`, the others on `high`.
const TWO_SHARDS: &str = r#"
[[shard]]
name = "low"
slots = "0-2047"
store = "sqlite"

[[shard]]
name = "high"
slots = "2048-4095"
store = "sqlite"
"#;

/// Asserts that all of `low` works and nothing of `high` is denied.
fn assert_high_is_down(client: &Client, low: &[String], high: &[String]) {
    for alias in low {
        assert_eq!(client.target(alias), format!("https://example.com/{alias}"));
    }
    for alias in high {
        assert_unavailable(&client.visit(alias));
    }
    assert_unavailable(&client.visit("z-unknown"));
    assert_eq!(client.visit("A-unknown").status, 404);
    let fresh = format!("A-new-{}", terse_it::now_ms());
    client.create(&json!({ "url": "https://example.com/new", "alias": fresh }));
    assert_eq!(client.target(&fresh), "https://example.com/new");
}

#[test]
fn a_damaged_shard_leaves_the_other_untouched() {
    let mut server = Setup::new().file(TWO_SHARDS).start();
    let low = create_many(&server.client(), "A", 1_000);
    let high = create_many(&server.client(), "z", 1_000);
    assert_eq!(server.client().all_links(200).len(), 2_000);
    server.stop(Stop::Politely);
    start_cold(&mut server);
    server.client().create(&json!({ "url": "https://example.com/commit", "alias": "z-commit" }));
    zero_pages(&databases(server.setup().data(), "high")[0]);
    assert_high_is_down(&server.client(), &low, &high);
}

/// A shard's files set aside, garbage in their place.
struct Spoilt {
    files: [PathBuf; 3],
    sound: [Option<Vec<u8>>; 3],
}

impl Spoilt {
    fn spoil(path: &Path) -> Self {
        let files = [path.to_path_buf(), beside(path, "-wal"), beside(path, "-shm")];
        let sound = files.each_ref().map(|file| std::fs::read(file).ok());
        for file in &files {
            let _ = std::fs::remove_file(file);
        }
        std::fs::write(path, vec![0x5a; 64 * 1024]).unwrap();
        Self { files, sound }
    }

    fn mend(self) {
        for (file, bytes) in self.files.iter().zip(self.sound) {
            let _ = std::fs::remove_file(file);
            if let Some(bytes) = bytes {
                std::fs::write(file, bytes).unwrap();
            }
        }
    }
}

#[test]
fn a_spoilt_file_is_named_at_start_and_never_overwritten() {
    let mut server = Setup::new().file(TWO_SHARDS).start();
    let high = create_many(&server.client(), "z", 50);
    server.stop(Stop::Politely);
    let path = databases(server.setup().data(), "high").remove(0);
    let spoilt = Spoilt::spoil(&path);
    let refused = server.setup().run(&["serve"]);
    assert!(!matches!(refused.code, Some(0 | 101) | None), "{refused:?}");
    assert!(refused.stderr.contains(path.to_str().unwrap()), "{refused:?}");
    assert_eq!(std::fs::read(&path).unwrap(), vec![0x5a; 64 * 1024], "the file was changed");
    spoilt.mend();
    server.restart();
    for alias in &high {
        assert_eq!(server.client().target(alias), format!("https://example.com/{alias}"));
    }
}

#[test]
fn links_of_all_shards_survive_a_restart_and_a_moved_map_is_refused() {
    let mut server = Setup::new().file(TWO_SHARDS).start();
    let codes: Vec<String> = (0..40).map(|n| server.client().shorten(&format!("https://example.com/{n}"))).collect();
    server.stop(Stop::AtOnce);
    server.restart();
    for (n, code) in codes.iter().enumerate() {
        assert_eq!(server.client().target(code), format!("https://example.com/{n}"));
    }
    server.stop(Stop::Politely);
    let moved = TWO_SHARDS.replace("2047", "1023").replace("2048", "1024");
    let refused = server.setup().clone().file(&moved).run(&["serve"]);
    assert_eq!(refused.code, Some(64), "{refused:?}");
    let _ = server.setup().clone().file(TWO_SHARDS);
    server.restart();
    assert_eq!(server.client().all_links(200).len(), 40);
}

/// A file system of a few megabytes in memory, unmounted when dropped.
struct SmallDisk {
    at: tempfile::TempDir,
}

impl SmallDisk {
    /// `None` when this user may not mount.
    fn mount(bytes: usize) -> Option<Self> {
        let at = tempfile::tempdir().unwrap();
        let options = format!("size={bytes}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at.path()).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self { at })
    }

    /// Takes all space that is left; returns the file that holds it.
    fn fill(&self) -> PathBuf {
        let path = self.at.path().join("ballast");
        let mut file = File::create(&path).unwrap();
        let mut chunk = vec![7_u8; 64 * 1024];
        while chunk.len() > 1 {
            if file.write_all(&chunk).is_err() {
                chunk.truncate(chunk.len() / 2);
            }
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(self.at.path()).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            println!("{} could not be unmounted", self.at.path().display());
        }
    }
}

/// Creates links until one is refused, which it returns; acknowledged ones go into `kept`.
fn create_until_refused(client: &Client, kept: &mut HashMap<String, String>) -> Response {
    const TRIES: usize = 20_000;
    let mut connection = client.connect();
    for _ in 0..TRIES {
        let target = format!("https://example.com/{}/{}", kept.len(), "x".repeat(2_000));
        let answer = connection.call(&Request::new("POST", API_LINKS).json(&json!({ "url": target }))).unwrap();
        if answer.status != 201 {
            return answer;
        }
        kept.insert(code_of(&answer.json()), target);
    }
    panic!("{TRIES} creates of 2 KB went through on a full disk");
}

#[test]
fn a_full_disk_refuses_creates_and_loses_nothing() {
    let Some(disk) = SmallDisk::mount(24 * 1024 * 1024) else {
        assert!(std::env::var("CI").is_err(), "mounting a tmpfs needs root, and this must run in CI");
        println!("NOT TESTED: mounting a tmpfs needs root, so the full disk was not tried");
        return;
    };
    let mut server = Setup::new().data_in(&disk.at.path().join("data")).start();
    let client = server.client();
    let mut kept: HashMap<String, String> = (0..200)
        .map(|n| format!("https://example.com/before/{n}"))
        .map(|target| (client.shorten(&target), target))
        .collect();
    let ballast = disk.fill();
    let refused = create_until_refused(&client, &mut kept);
    assert_unavailable(&refused);
    assert_problem(&refused, 503, None);
    for _ in 0..20 {
        let answer = client.post(API_LINKS, &json!({ "url": "https://example.com/", "alias": "too-much" }));
        assert!(matches!(answer.status, 201 | 409 | 503), "{answer:?}");
    }
    for (code, target) in &kept {
        assert_eq!(client.target(code), *target, "redirects go on");
    }
    assert_eq!(client.visit("unknown").status, 404, "reading still works");
    std::fs::remove_file(ballast).unwrap();
    await_true("creates to work again", Duration::from_secs(15), || {
        let answer = client.post(API_LINKS, &json!({ "url": "https://example.com/after" }));
        answer.status == 201 && kept.insert(code_of(&answer.json()), "https://example.com/after".to_owned()).is_none()
    });
    server.stop(Stop::AtOnce);
    server.restart();
    for (code, target) in &kept {
        assert_eq!(server.client().target(code), *target, "acknowledged");
    }
    assert!(server.client().all_links(200).len() >= kept.len());
}
