//! The table is complete: what it has is registered, and what is registered it has, with kind and labels.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::Timestamp;
use crate::click::Dropped;
use crate::metrics::{CacheReading, Metrics, Outcome, PartsCounted, Shed};
use crate::ports::Tier;

/// The label values that were seen of a metric, by label.
type Labels = BTreeMap<String, BTreeSet<String>>;

/// Metrics of which each has been told something.
fn told() -> Metrics {
    let metrics = Metrics::new();
    metrics.redirect_counts().count(Tier::L1, Outcome::Found, Duration::from_millis(1));
    metrics.store_requests("main", "resolve").observe(0.001);
    metrics.store_clock_offset("main", -0.25);
    metrics.breaker_state("main/read").set(2);
    TO.values.iter().for_each(|to| metrics.breaker_transitions("main/read", to).inc());
    metrics.bulkhead_in_use("main/read").inc();
    metrics.bulkhead_rejected("main/read").inc();
    for operation in CACHE_OPERATION.values {
        CACHE_RESULT.values.iter().for_each(|result| metrics.cache_requests(operation, result).inc());
    }
    metrics.click_counts().dropped(Dropped::Budget);
    EVENT_OUTCOME.values.iter().for_each(|outcome| metrics.link_events(outcome).inc());
    metrics.shed(Shed::Stats).inc();
    metrics.concurrency("main/read").0.set(1);
    let bus = metrics.bus();
    bus.relay_connected(true);
    bus.reader_connected(true);
    bus.relay_held(false);
    bus.parts(&PartsCounted::default());
    bus.parts_waiting(0);
    bus.partitions_held(8);
    bus.dead_letters(0);
    bus.counted(0, 1, Timestamp::from_millis(1));
    let reading = CacheReading { marks_fresh: vec![("main".to_owned(), true)], ..CacheReading::default() };
    metrics.show_cache(Arc::new(move || Some(reading.clone()))).unwrap();
    metrics
}

/// Kind, help and labels of all that `text` shows, by name.
fn shown(text: &str) -> BTreeMap<String, (String, String, Labels)> {
    let mut shown: BTreeMap<String, (String, String, Labels)> = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            shown.entry(name.to_owned()).or_default().1 = help.to_owned();
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            shown.entry(name.to_owned()).or_default().0 = kind.to_owned();
        } else if let Some((series, rest)) = line.split_once('{') {
            let pairs = rest.rsplit_once('}').unwrap().0;
            let name = ["_bucket", "_sum", "_count"].iter().find_map(|end| series.strip_suffix(end)).unwrap_or(series);
            let labels = &mut shown.get_mut(name).unwrap_or_else(|| panic!("{name} was not announced")).2;
            for (label, value) in pairs.split(',').filter_map(|pair| pair.split_once('=')) {
                labels.entry(label.to_owned()).or_default().insert(value.trim_matches('"').to_owned());
            }
        }
    }
    shown
}

#[test]
fn every_metric_has_a_row_and_every_row_a_metric() {
    let text = told().encode().unwrap();
    let shown = shown(&text);
    let described: BTreeSet<&str> = all().map(|metric| metric.name).collect();
    assert_eq!(shown.keys().map(String::as_str).collect::<BTreeSet<_>>(), described);
    assert_eq!(described.len(), all().count(), "a metric has two rows");
    for metric in all() {
        let (kind, help, _) = &shown[metric.name];
        assert_eq!((kind.as_str(), help.as_str()), (metric.kind.as_str(), metric.help), "{}", metric.name);
    }
}

#[test]
fn labels_and_their_values_are_those_of_the_rows() {
    let text = told().encode().unwrap();
    let shown = shown(&text);
    for metric in all() {
        let labels = &shown[metric.name].2;
        let expected: BTreeSet<&str> = metric.labels.iter().map(|label| label.name).collect();
        let found: BTreeSet<&str> = labels.keys().map(String::as_str).filter(|name| *name != "le").collect();
        assert_eq!(found, expected, "{}", metric.name);
        for label in metric.labels.iter().filter(|label| !label.values.is_empty()) {
            let values: BTreeSet<&str> = labels[label.name].iter().map(String::as_str).collect();
            assert_eq!(values, label.values.iter().copied().collect(), "{} of {}", label.name, metric.name);
        }
    }
}

#[test]
fn a_metric_without_a_row_cannot_be_registered() {
    assert!(prometheus::IntCounter::with_opts(opts("terse_unheard_of_total")).is_err());
    assert!(prometheus::IntCounter::with_opts(opts(LINKS_CREATED)).is_ok());
}

#[test]
fn rows_tell_what_they_are_and_end_as_their_kind_does() {
    for metric in all() {
        let Described { name, kind, unit, help, .. } = metric;
        assert_eq!(*kind == Kind::Counter, name.ends_with("_total"), "{name}");
        assert!(!unit.is_empty() && !help.is_empty() && !help.ends_with('.'), "{name}");
        assert!(metric.labels.iter().all(|label| !label.values.is_empty() || !label.about.is_empty()), "{name}");
    }
}
