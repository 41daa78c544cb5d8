use std::io::{BufRead as _, BufReader};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use terse_it::heavy_turn;

use super::{Run, TOOLS};

/// Set, the two generators' latencies are compared as on a machine that does nothing else.
const ALONE: &str = "COMPARE_LATENCIES";
/// By how many milliseconds they may differ, of a work of one: alone, and where others build and test beside them.
const APART_MS: [(&str, f64, f64); 3] =
    [("p50_ms", 100.0, 1_000.0), ("p90_ms", 500.0, 2_500.0), ("p99_ms", 1_000.0, 5_000.0)];
/// k6 starts one more at the end of its time.
const REQUESTS_APART: u64 = 3;
/// How long an interrupted run may take to end and report.
const END_LIMIT: Duration = Duration::from_secs(30);

fn count(report: &Value, name: &str) -> u64 {
    report["result"][name].as_u64().unwrap_or_else(|| panic!("no {name} in {report}"))
}

#[test]
fn both_generators_agree_on_a_real_server() {
    let _turn = heavy_turn();
    let sizes = ["--rate", "20", "--seconds", "4", "--p99-ms", "5000"];
    let [goose, k6] = TOOLS.map(|tool| {
        let mut run = Run::on_own_server("smoke", tool, &sizes);
        run.finish(true);
        run.report()
    });
    let planned = 80;
    for report in [&goose, &k6] {
        assert!(count(report, "requests").abs_diff(planned) <= REQUESTS_APART, "{}", report["result"]);
        for none in ["wrong", "refused", "limited"] {
            assert_eq!(count(report, none), 0, "{none} of {}", report["tool"]);
        }
        for (kind, share) in [("redirect", 8), ("unknown", 1), ("create", 1)] {
            let asked = report["result"]["kinds"][kind]["requests"].as_u64().unwrap();
            assert!(asked.abs_diff(planned * share / 10) <= REQUESTS_APART, "{kind}: {asked}");
        }
        let by_second: u64 = report["seconds"].as_array().unwrap().iter().filter_map(|s| s["requests"].as_u64()).sum();
        assert_eq!(by_second, count(report, "requests"), "the seconds add up");
        assert!(report["ceiling"]["per_second"].as_f64() > Some(100.0), "{}", report["ceiling"]);
        let samples = report["samples"].as_array().unwrap();
        assert!(samples.len() >= 2 && samples.iter().any(|sample| sample["tiers"]["l1"].as_f64() > Some(0.0)));
        assert!(report["usage"]["server_memory_mb"].as_f64() > Some(5.0), "{}", report["usage"]);
    }
    let alone = std::env::var_os(ALONE).is_some();
    for (percentile, most_alone, most) in APART_MS {
        let ms = |report: &Value| report["result"][percentile].as_f64().unwrap();
        let (ours, theirs) = (ms(&goose), ms(&k6));
        println!("{percentile}: {ours} with goose, {theirs} with k6");
        let most = if alone { most_alone } else { most };
        assert!((ours - theirs).abs() <= most, "{percentile}: {ours} with goose, {theirs} with k6");
    }
}

#[test]
fn a_limited_server_limits_both_generators() {
    let _turn = heavy_turn();
    for tool in TOOLS {
        let mut run = Run::on_own_server("limit", tool, &["--seconds", "3", "--p99-ms", "5000"]);
        run.finish(true);
        let report = run.report();
        let (requests, limited) = (count(&report, "requests"), count(&report, "limited"));
        assert!(limited > 0 && limited < requests, "{tool}: {limited} of {requests}");
    }
}

/// The server that the command of process `parent` runs.
fn server_of(parent: u32) -> Pid {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    // Processes that end meanwhile can't be read.
    let stats = processes.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
    let servers = stats.filter_map(|stat| {
        let (pid, rest) = stat.split_once(" (terse) ")?;
        (rest.split(' ').nth(1)? == parent.to_string()).then(|| pid.parse().unwrap())
    });
    let servers: Vec<i32> = servers.collect();
    assert_eq!(servers.len(), 1, "{servers:?}");
    Pid::from_raw(servers[0]).unwrap()
}

#[test]
fn a_server_that_dies_under_load_fails_the_run_and_is_reported() {
    let _turn = heavy_turn();
    let mut run = Run::on_own_server("smoke", "goose", &["--rate", "50", "--seconds", "3"]);
    let mut child = run.command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = lines.by_ref().find(|line| line.as_ref().is_ok_and(|line| line.starts_with("    0 s ")));
    assert!(first.is_some(), "it ended by itself");
    kill_process(server_of(child.id()), Signal::KILL).unwrap();
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    assert!(!child.wait().unwrap().success(), "{rest:?}");
    let report = run.report();
    assert_eq!((&report["verdict"], count(&report, "requests")), (&Value::from("failed"), 150), "{rest:?}");
    assert!(count(&report, "refused") > 0 && count(&report, "wrong") == 0, "{}", report["result"]);
    let warnings = report["warnings"].as_array().unwrap();
    assert!(warnings.iter().any(|warning| warning == "the server ended with signal: 9 (SIGKILL)"), "{warnings:?}");
    assert!(run.page().is_file());
}

#[test]
fn an_interrupted_run_ends_with_good_answers_and_a_report() {
    let _turn = heavy_turn();
    for tool in TOOLS {
        let mut run = Run::on_own_server("smoke", tool, &["--rate", "50", "--seconds", "300"]);
        let mut child = run.command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let third = lines.by_ref().find(|line| line.as_ref().is_ok_and(|line| line.starts_with("    2 s ")));
        assert!(third.is_some(), "{tool}: it ended by itself");
        let begun = Instant::now();
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        let rest: Vec<String> = lines.map_while(Result::ok).collect();
        let status = child.wait().unwrap();
        assert!(!status.success() && begun.elapsed() < END_LIMIT, "{tool}: {:?}, {rest:?}", begun.elapsed());
        let report = run.report();
        assert_eq!(report["verdict"], "stopped before its end", "{tool}");
        assert!(count(&report, "requests") >= 100, "{tool}: {}", report["result"]);
        assert_eq!((count(&report, "wrong"), count(&report, "refused")), (0, 0), "{tool}: {}", report["result"]);
        assert!(run.page().is_file());
    }
}
