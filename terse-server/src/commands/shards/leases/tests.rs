// A list of one block is meant as such.
#![allow(clippy::single_range_in_vec_init)]

use terse_core::Timestamp;
use terse_core::ports::{Lease, StoreError, StoreErrorKind};

use super::super::audit::{Found, Overlap};
use super::*;
use crate::config::raw::Inputs;

fn block(ids: std::ops::Range<u64>, holder: &str, links: Option<u64>) -> Block {
    let found = links.map(|links| Found { links, ..Found::default() });
    let leased_at = Timestamp::from_millis(1_700_000_000_000);
    Block { lease: Lease { ids, holder: holder.to_owned(), leased_at }, found, newest: false }
}

fn found(blocks: Vec<Block>) -> Audit {
    Audit { blocks, ..Audit::default() }
}

#[test]
fn the_table_shows_each_block_and_a_summary() {
    let text = in_words(&found(vec![block(0..10, "web1 [::1]:80", Some(10)), block(10..30, "web2", Some(4))]));
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    verdict(&found(vec![])).unwrap();
    assert_eq!(lines[0], ["IDS", "HOLDER", "LEASED", "LINKS", "UNUSED", "STATE"]);
    assert_eq!(lines[1], ["0-9", "web1", "[::1]:80", "2023-11-14T22:13:20Z", "10", "0", "full"]);
    assert_eq!(lines[2], ["10-29", "web2", "2023-11-14T22:13:20Z", "4", "16", "gap"]);
    assert!(text.ends_with(
        "blocks: 2, ids leased: 30, links found: 14, gaps: 16 ids (blocks: 1), open?: 0 ids (blocks: 0), overlaps: 0"
    ));
}

#[test]
fn nothing_leased_is_said_in_a_sentence() {
    assert_eq!(in_words(&Audit::default()), "no ids were leased here yet");
    assert_eq!(in_json(&Audit::default())["summary"]["blocks"], 0);
}

#[test]
fn what_is_wrong_or_left_out_gets_a_line() {
    let mut blocks = vec![block(5..10, "one", Some(5)), block(8..20, "two", None)];
    blocks[0].found = Some(Found { links: 5, older: 3, reserved: 0 });
    let overlaps = vec![Overlap { ids: 8..10, of: [0, 1] }];
    let audit = Audit { blocks, unrecorded: vec![0..5], overlaps, next: Some(20) };
    let text = in_words(&audit);
    let at = "2023-11-14T22:13:20Z";
    for line in [
        "no record: ids 0-4 (5) are below leased ids",
        &format!("OVERLAP! IDS 8-9 WERE LEASED TWICE: 5-9 by one at {at}, and 8-19 by two at {at}"),
        "links older than the lease of their id: 3; aliases that happen to be its code, or a counter that went back",
        "blocks whose links were not read: 1; one run reads 10000000 ids at most, see --from 8",
        "more blocks follow: see --from 20",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    let told = in_json(&audit);
    assert_eq!(told["overlaps"], json!([{"first": 8, "last": 9, "blocks": [5, 8]}]));
    let verdict = verdict(&audit).unwrap_err();
    assert_eq!((verdict.exit, verdict.message.contains("ids were leased twice (overlaps: 1)")), (Exit::Internal, true));
    assert_eq!(told["unrecorded"], json!([{"first": 0, "last": 4}]));
    assert_eq!((&told["next_from"], &told["blocks"][1]["links"]), (&json!(20), &json!(null)));
    assert_eq!((&told["blocks"][0]["older_links"], &told["blocks"][1]["state"]), (&json!(3), &json!("not read")));
}

#[test]
fn a_holder_cannot_steer_the_terminal() {
    let text = in_words(&found(vec![block(0..1, "a\u{1b}[31m\nb", Some(1))]));
    assert!(text.contains("a?[31m?b") && !text.contains('\u{1b}'), "{text}");
    assert_eq!(in_json(&found(vec![block(0..1, "a\u{1b}b", Some(1))]))["blocks"][0]["holder"], "a\u{1b}b");
}

#[test]
fn a_failure_names_the_shard_of_the_code() {
    let place = tempfile::tempdir().unwrap();
    let two =
        "[[shard]]\nname='a'\nslots='0-2047'\nstore='sqlite'\n[[shard]]\nname='b'\nslots='2048-4095'\nstore='sqlite'";
    std::fs::write(place.path().join("terse.toml"), two).unwrap();
    let config = Config::load(Inputs { working_dir: place.path().to_owned(), ..Inputs::default() }).unwrap();
    let away = || StoreError::new(StoreErrorKind::Unavailable, "away");
    let link = |code: &str| failure(&config, &AuditError::Link(terse_testkit::links::code(code), away()));
    assert!(link("zz").message.contains("shard 'b'") && link("00").message.contains("shard 'a'"));
    let leases = failure(&config, &AuditError::Leases(away()));
    assert!(leases.message.contains("shard 'a'") && leases.exit == Exit::Unavailable, "leases stand in the first");
}
