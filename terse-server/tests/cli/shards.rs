//! `terse shards`: where codes belong, how they fall on shards, and the audit of leased ids.

use serde_json::Value;

use crate::program::{PATIENCE, Place, Server};

const TWO: &str = "[[shard]]\nname='a'\nslots='0-2047'\nstore='sqlite'\n\
                   [[shard]]\nname='b'\nslots='2048-4095'\nstore='sqlite:bee'";

/// What a command says in JSON.
fn json(place: &Place, arguments: &[&str]) -> Value {
    serde_json::from_str(place.run(arguments).success()).unwrap()
}

/// Creates `number` links with generated codes.
fn create(server: &Server, number: usize) {
    for _ in 0..number {
        let headers = ["Content-Type: application/json"];
        let (status, answer) = server.request("POST", "/api/v1/links", &headers, r#"{"url":"https://example.com/x"}"#);
        assert_eq!(status, 201, "{answer}");
    }
}

fn end(server: Server) {
    server.signal("TERM");
    assert!(server.end(PATIENCE).0.success());
}

#[test]
fn codes_are_shown_with_slot_and_shard() {
    let place = Place::new();
    place.write("terse.toml", TWO);
    let shown = place.run(&["shards", "show", "00x", "zz", "_", "skew", "--", "-a", "--x"]);
    let lines: Vec<&str> = shown.success().lines().collect();
    assert_eq!(
        lines,
        [
            "00x slot 0 shard a on sqlite (links-a.sqlite)",
            "zz slot 3965 shard b on sqlite (links-bee.sqlite)",
            "_ slot 4032 shard b on sqlite (links-bee.sqlite)",
            "skew slot 3502 shard b on sqlite (links-bee.sqlite)",
            "-a slot 4004 shard b on sqlite (links-bee.sqlite)",
            "--x slot 4030 shard b on sqlite (links-bee.sqlite)",
        ]
    );
    assert!(shown.err.is_empty() && !place.path().join("data").exists(), "no store is needed");
    assert_eq!(place.run(&["shards", "show", "Vz", "W"]).success().lines().count(), 2);
}

#[test]
fn the_last_slot_of_a_shard_and_the_first_of_the_next_are_told_apart() {
    let place = Place::new();
    place.write("terse.toml", TWO);
    // Slot 2047 is the 32nd letter with the 64th, slot 2048 the 33rd with the first.
    let shown = place.run(&["shards", "show", "V_", "W0", "W"]);
    let told: Vec<Vec<&str>> = shown.success().lines().map(|line| line.split(' ').take(5).collect()).collect();
    assert_eq!(told[0], ["V_", "slot", "2047", "shard", "a"]);
    assert_eq!(told[1], ["W0", "slot", "2048", "shard", "b"]);
    assert_eq!(told[2], ["W", "slot", "2048", "shard", "b"], "a missing letter counts as the first");
}

#[test]
fn a_code_named_like_a_command_is_shown_with_a_note() {
    let place = Place::new();
    for word in ["skew", "leases"] {
        let shown = place.run(&["shards", "show", word]);
        assert!(shown.success().starts_with(&format!("{word} slot ")));
        assert!(shown.err.contains(&format!("terse shards {word}")), "{}", shown.err);
    }
}

#[test]
fn wrong_usage_is_one_line_and_exit_code_64() {
    let place = Place::new();
    for (arguments, told) in [
        (&["shards", "show"][..], "CODE"),
        (&["shards", "show", "fine", "a/b"], "'a/b' may only hold"),
        (&["shards", "show", "ü"], "'ü' may only hold"),
        (&["shards", "show", ""], "''"),
        (&["shards", "show", "-a"], "-a"),
        (&["shards", "spread"], "spread"),
        (&["shards", "leases", "now"], "now"),
        (&["shards", "leases", "--from", "-1"], "-1"),
        (&["shards", "leases", "--from", "x"], "--from"),
        (&["shards", "leases", "--limit", "0"], "must be 1 to 10000"),
        (&["shards", "leases", "--limit", "10001"], "must be 1 to 10000"),
        (&["shards", "skew", "--shards", "0"], "--shards"),
        (&["shards", "skew", "--shards", "4097"], "--shards"),
        (&["shards", "skew", "--codes", "0"], "--codes"),
        (&["shards", "skew", "--codes", "100000001"], "--codes"),
        (&["shards", "skew", "--json=yes"], "--json"),
    ] {
        let ended = place.run(arguments);
        let refusal = ended.refusal(64);
        assert!(refusal.starts_with("terse: ") && refusal.contains(told), "{arguments:?}: {refusal}");
        assert!(ended.out.is_empty());
    }
    let long = "x".repeat(65);
    place.run(&["shards", "show", &long]).refusal(64);
}

#[test]
fn the_help_tells_the_commands_and_their_flags() {
    let place = Place::new();
    let help = place.run(&["shards", "--help"]);
    for command in ["show", "skew", "leases"] {
        assert!(help.success().contains(&format!("\n  {command} ")), "{command}");
    }
    let leases = place.run(&["shards", "leases", "-h"]);
    for told in ["--from <ID>", "--limit <N>", "--json", "'open?'", "exit code 70"] {
        assert!(leases.success().contains(told), "{told}: {}", leases.out);
    }
    let skew = place.run(&["shards", "skew", "-h"]);
    for told in ["--shards <N>", "[default: 16]", "--codes <N>", "[default: 1000000]", "--store-key", "--json"] {
        assert!(skew.success().contains(told), "{told}: {}", skew.out);
    }
}

#[test]
fn a_million_codes_fall_on_sixteen_shards() {
    let place = Place::new();
    let told = json(&place, &["shards", "skew", "--json"]);
    assert_eq!((&told["codes"], &told["key"]), (&1_000_000.into(), &"fixed".into()));
    let [plain, permuted, hash] = [0, 1, 2].map(|scheme| &told["equal"]["schemes"][scheme]);
    assert_eq!(
        (&plain["scheme"], &plain["empty"], &plain["max"]),
        (&"plain counter".into(), &15.into(), &1_000_000.into())
    );
    for even in [permuted, hash] {
        assert_eq!((&even["empty"], even["codes"].as_array().unwrap().len()), (&0.into(), 16));
        assert!(even["max_over_mean"].as_f64().unwrap() < 1.06, "{even}");
        // The last shard has half the letters: `y` and `z`, but no code is made with `-` and `_`.
        let last = even["codes"][15].as_u64().unwrap();
        assert!((30_000..35_000).contains(&last) && even["min"] == last, "{even}");
    }
    assert_eq!(told["consecutive"]["shards_hit"]["plain counter"], 1);
    assert_eq!(told["consecutive"]["shards_hit"]["permuted counter"], 16);
    assert!(!place.path().join("data").exists(), "no store is needed");
}

#[test]
fn the_skew_is_the_same_each_time_and_shows_the_configured_shards() {
    let place = Place::new();
    place.write("terse.toml", TWO);
    let text = || place.run(&["shards", "skew", "--codes", "5000", "--shards", "4"]).success().to_owned();
    let told = text();
    assert_eq!(told, text());
    assert!(told.starts_with("5000 codes, of ids 0 to 4999, fixed key"), "{told}");
    assert!(told.contains("plain counter 1 of 4, permuted counter 4 of 4, hash 4 of 4"), "{told}");
    assert!(told.contains("generated codes have 62 of the 64 letters"), "{told}");
    let (_, configured) = told.split_once("on the configured shards (a, b)\n").unwrap();
    let rows: Vec<Vec<&str>> = configured.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!((rows[1][0], rows[1][2], rows[2][0], rows[2][2]), ("a", "5000", "b", "0"));
}

#[test]
fn the_skew_of_the_stores_own_key_differs_and_needs_a_store() {
    let place = Place::new();
    std::fs::create_dir(place.path().join("data")).unwrap();
    let arguments = ["shards", "skew", "--codes", "2000", "--store-key", "--json"];
    assert!(place.run(&arguments).refusal(64).contains("--store-key: the store has no key"));
    place.run(&["migrate"]).success();
    let own = json(&place, &arguments);
    let fixed = json(&place, &["shards", "skew", "--codes", "2000", "--json"]);
    let codes = |told: &Value, scheme: usize| told["equal"]["schemes"][scheme]["codes"].clone();
    assert_eq!(own["key"], "store");
    assert_eq!(codes(&own, 0), codes(&fixed, 0), "the plain counter has no key");
    assert_ne!(codes(&own, 1), codes(&fixed, 1));
}

#[test]
fn the_audit_tells_gaps_from_blocks_in_use() {
    let place = Place::new();
    place.write("terse.toml", TWO);
    // Two lives of one holder would be one: each server listens elsewhere.
    let first = place.serve(&["--code-block", "4"]);
    create(&first, 5);
    let holder = first.address.to_string();
    end(first);
    let second = place.serve(&["--code-block", "4"]);
    create(&second, 9);
    // Beside the running server, as after it.
    for _ in 0..2 {
        let told = json(&place, &["shards", "leases", "--json"]);
        let blocks = told["blocks"].as_array().unwrap();
        let number = |value: &Value| value.as_u64().unwrap();
        assert!(blocks[0]["holder"].as_str().unwrap().ends_with(&holder), "{told:#}");
        assert_eq!((number(&blocks[0]["first"]), number(&blocks[0]["last"]), number(&blocks[0]["links"])), (0, 3, 4));
        assert_eq!(told["overlaps"], Value::Array(vec![]));
        assert_eq!(told["unrecorded"], Value::Array(vec![]));
        let sum = &told["summary"];
        assert_eq!(number(&sum["links"]), 14);
        assert_eq!(number(&sum["ids"]), 4 * blocks.len() as u64);
        assert_eq!(number(&sum["ids"]), 14 + number(&sum["gap_ids"]) + number(&sum["open_ids"]));
        assert!(blocks.iter().all(|block| block["leased_at"].as_str().unwrap().ends_with('Z')));
    }
    let text = place.run(&["shards", "leases"]);
    assert!(text.success().starts_with("IDS ") && text.out.contains("links found: 14"), "{}", text.out);
    assert!(text.out.contains("overlaps: 0"));
}

#[test]
fn a_killed_server_leaves_a_gap_that_the_audit_reports() {
    let place = Place::new();
    for round in 0..4 {
        let server = place.serve(&["--code-block", "10"]);
        create(&server, 3);
        server.signal("KILL");
        assert_eq!(server.end(PATIENCE).0.code(), None, "round {round}");
    }
    let told = json(&place, &["shards", "leases", "--json"]);
    assert_eq!((&told["summary"]["links"], &told["overlaps"]), (&12.into(), &Value::Array(vec![])));
    let ids = told["summary"]["ids"].as_u64().unwrap();
    let unused = ["gap_ids", "open_ids"].map(|kind| told["summary"][kind].as_u64().unwrap());
    assert_eq!(unused[0] + unused[1], ids - 12, "{told:#}");
}

#[test]
fn the_audit_goes_on_where_it_ended() {
    let place = Place::new();
    let server = place.serve(&["--code-block", "2"]);
    create(&server, 9);
    end(server);
    let all = json(&place, &["shards", "leases", "--json"]);
    let (mut from, mut firsts) = ("0".to_owned(), vec![]);
    loop {
        let told = json(&place, &["shards", "leases", "--limit", "2", "--from", &from, "--json"]);
        firsts.extend(told["blocks"].as_array().unwrap().iter().map(|block| block["first"].clone()));
        let Some(next) = told["next_from"].as_u64() else { break };
        from = next.to_string();
    }
    let expected: Vec<Value> = all["blocks"].as_array().unwrap().iter().map(|block| block["first"].clone()).collect();
    assert_eq!(firsts, expected);
    let cut = place.run(&["shards", "leases", "--limit", "1"]);
    assert!(cut.success().contains("more blocks follow: see --from 2"), "{}", cut.out);
}

#[test]
fn an_audit_before_the_first_start_finds_nothing_and_makes_no_deployment() {
    let place = Place::new();
    assert!(place.run(&["shards", "leases"]).refusal(69).contains("links.sqlite"), "there is no data directory");
    std::fs::create_dir(place.path().join("data")).unwrap();
    assert_eq!(place.run(&["shards", "leases"]).success(), "no ids were leased here yet\n");
    assert!(!place.path().join("data/identity.json").exists());
}

#[test]
fn an_audit_with_another_shard_map_is_refused() {
    let place = Place::new();
    place.write("terse.toml", TWO);
    end(place.serve(&[]));
    place.write("terse.toml", &TWO.replace("2047", "2000").replace("2048", "2001"));
    assert!(place.run(&["shards", "leases"]).refusal(64).contains("owns the slots 0-2047"));
}
