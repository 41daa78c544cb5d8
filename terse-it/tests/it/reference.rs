//! The reference of metrics against what running servers show: the same names, types and labels, none more and none less.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use terse_it::redis::Redis;
use terse_it::{Client, Setup, await_true};

const PAGE: &str = include_str!("../../../docs/reference/metrics.md");
/// By when each metric was told once; the gauges of clicks are brought up to date twice a second.
const TOLD_LIMIT: Duration = Duration::from_secs(60);
/// What stands before the servers that show a metric, if not all do.
const ONLY: &str = "; only ";

/// What there is to say of a metric: its type, and its labels with their values, none for those of any value.
#[derive(Debug, Default)]
struct Metric {
    kind: String,
    labels: BTreeMap<String, BTreeSet<String>>,
}

/// The texts between backquotes.
fn spans(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split('`').skip(1).step_by(2).map(str::to_owned)
}

/// What the reference has of servers that are all of `kinds`.
fn referred(kinds: &[&str]) -> BTreeMap<String, Metric> {
    let rows = PAGE.lines().filter(|line| line.starts_with("| `terse_"));
    let cells = rows.map(|row| row.trim_matches(['|', ' ']).split_once(" | ").unwrap());
    let only = |told: &str| told.lines().next()?.split_once(ONLY).map(|(_, only)| only.to_owned());
    let cells = cells.map(|(metric, told)| (metric, told.replace("<br>", "\n")));
    let shown = cells.filter(|(_, told)| only(told).is_none_or(|only| kinds.contains(&&*only)));
    let metric = |(metric, told): (&str, String)| {
        let (name, kind) = metric.split_once("<br>").unwrap();
        let labels = told.lines().skip(1).filter_map(|label| {
            let mut words = spans(label.split(" (").next()?);
            Some((words.next()?, words.collect()))
        });
        let kind = kind.split(':').next().unwrap_or_default();
        (spans(name).next().unwrap(), Metric { kind: kind.to_owned(), labels: labels.collect() })
    };
    shown.map(metric).collect()
}

/// What the servers show, taken together.
fn shown(clients: &[Client]) -> BTreeMap<String, Metric> {
    let mut shown: BTreeMap<String, Metric> = BTreeMap::new();
    for client in clients {
        let text = client.get("/metrics").expect(200).text();
        for line in text.lines() {
            if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
                kind.clone_into(&mut shown.entry(name.to_owned()).or_default().kind);
            } else if let Some((series, rest)) = line.split_once('{').filter(|_| !line.starts_with('#')) {
                let name = ["_bucket", "_sum", "_count"].iter().find_map(|end| series.strip_suffix(end));
                let metric = shown.get_mut(name.unwrap_or(series)).unwrap_or_else(|| panic!("{series} has no type"));
                let pairs = rest.split_once('}').unwrap().0.split(',').filter_map(|pair| pair.split_once('='));
                for (label, value) in pairs.filter(|(label, _)| *label != "le") {
                    metric.labels.entry(label.to_owned()).or_default().insert(value.trim_matches('"').to_owned());
                }
            }
        }
    }
    shown
}

/// Asserts that the servers, which are of `kinds`, show what the reference has of them.
#[track_caller]
pub(crate) fn assert_metrics(clients: &[Client], kinds: &[&str]) {
    let referred = referred(kinds);
    await_true("all metrics of the reference to be shown", TOLD_LIMIT, || {
        let shown = shown(clients);
        let missing: Vec<&String> = referred.keys().filter(|name| !shown.contains_key(*name)).collect();
        if !missing.is_empty() {
            println!("not shown yet: {missing:?}");
        }
        missing.is_empty()
    });
    for (name, Metric { kind, labels }) in shown(clients) {
        let known = referred.get(&name).unwrap_or_else(|| panic!("the reference of {kinds:?} has no {name}"));
        assert_eq!(kind, known.kind, "{name}");
        assert!(labels.keys().eq(known.labels.keys()), "{name}: {:?}, not {:?}", known.labels.keys(), labels.keys());
        for (label, values) in labels {
            let listed = &known.labels[&label];
            assert!(listed.is_empty() || values.is_subset(listed), "{name}: {label} is {values:?}, not {listed:?}");
        }
    }
}

#[test]
fn the_reference_has_the_metrics_that_a_server_shows() {
    let redis = Redis::start();
    let server = Setup::new().env("TERSE_CACHE", &redis.url()).start();
    let client = server.client();
    let code = client.shorten("https://example.com/");
    assert_eq!(client.visit(&code).status, 302);
    assert_metrics(&[client], &["with a shared cache"]);
}

#[test]
fn a_server_alone_shows_nothing_of_what_it_does_not_use() {
    let server = Setup::new().start();
    assert_metrics(&[server.client()], &[]);
}
