//! Reads what k6 tells with `--out json`: a line for each value of each metric.
//!
//! Bounds: `OPEN_SECONDS` at a time; lines come a little out of order, and one for a second that was told already
//! counts for the first that wasn't.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Map, Value, json};

use crate::bench::stats::Latencies;

/// How many seconds wait for lines that are late.
const OPEN_SECONDS: u64 = 3;

/// Counts and latencies.
struct Tally {
    requests: u64,
    limited: u64,
    refused: u64,
    wrong: u64,
    late: u64,
    latencies: Latencies,
}

impl Tally {
    fn new() -> Result<Self> {
        Ok(Self { requests: 0, limited: 0, refused: 0, wrong: 0, late: 0, latencies: Latencies::new()? })
    }

    fn add(&mut self, point: &Point<'_>) {
        let count = point.value as u64;
        match point.metric {
            "http_req_duration" => {
                self.requests += 1;
                self.latencies.record(Duration::from_secs_f64((point.value / 1e3).clamp(0.0, 3_600.0)));
            }
            "wrong_answers" => self.wrong += count,
            "refused" => self.refused += count,
            "limited" => self.limited += count,
            // Arrivals for which no user was free: they never left.
            _ => self.late += count,
        }
    }

    fn json(&self) -> Value {
        let ms = |percent| self.latencies.percentile_ms(percent);
        json!({
            "requests": self.requests, "limited": self.limited, "refused": self.refused, "wrong": self.wrong,
            "late": self.late, "p50_ms": ms(50.0), "p90_ms": ms(90.0), "p99_ms": ms(99.0), "max_ms": ms(100.0),
        })
    }
}

/// A value of a metric that counts here.
#[derive(Debug, PartialEq)]
struct Point<'a> {
    metric: &'a str,
    unix_ms: u64,
    value: f64,
    kind: &'a str,
}

/// What is read of k6.
const METRICS: [&str; 5] = ["http_req_duration", "wrong_answers", "refused", "limited", "dropped_iterations"];

impl<'a> Point<'a> {
    /// Reads a line; `None` = it is of another metric, of the making of links, or no value.
    fn read(line: &'a str) -> Option<Self> {
        let (metric, rest) = line.strip_prefix("{\"metric\":\"")?.split_once('"')?;
        // k6 writes its fields in this order; most lines end here, and cost next to nothing.
        if !METRICS.contains(&metric) || !rest.contains("\"type\":\"Point\"") || rest.contains("\"load\":\"no\"") {
            return None;
        }
        let unix_ms = unix_ms(field(rest, "\"time\":\"")?.split('"').next()?)?;
        let value = field(rest, "\"value\":")?.split([',', '}']).next()?.parse().ok()?;
        let kind = field(rest, "\"kind\":\"").and_then(|text| text.split('"').next()).unwrap_or_default();
        Some(Self { metric, unix_ms, value, kind })
    }
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.split_once(name).map(|(_, value)| value)
}

/// Milliseconds since 1970 of a time in UTC, as `2026-11-23T11:49:24.793423883Z`.
fn unix_ms(text: &str) -> Option<u64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.split('-').map(|part| part.parse::<u64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let mut time = time.split(':');
    let (hour, minute) = (time.next()?.parse::<u64>().ok()?, time.next()?.parse::<u64>().ok()?);
    let seconds: f64 = time.next()?.parse().ok()?;
    // Days since 1970 by the civil calendar, years beginning in March (Hinnant, "chrono-compatible low-level date algorithms").
    let (years, months) = if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let days =
        (years * 365 + years / 4 - years / 100 + years / 400 + (153 * months + 2) / 5 + day).checked_sub(719_469)?;
    Some((days * 86_400 + hour * 3_600 + minute * 60) * 1_000 + (seconds * 1e3) as u64)
}

/// Adds up what k6 tells.
pub struct Reader {
    began_unix_ms: Option<u64>,
    open: BTreeMap<u64, Tally>,
    /// The first second that wasn't told.
    next: u64,
    all: Tally,
    kinds: BTreeMap<String, Tally>,
}

impl Reader {
    /// Nothing yet.
    ///
    /// # Errors
    /// Never, with the fixed bounds of histograms.
    pub fn new() -> Result<Self> {
        Ok(Self { began_unix_ms: None, open: BTreeMap::new(), next: 0, all: Tally::new()?, kinds: BTreeMap::new() })
    }

    /// Takes a line, and returns the seconds that are complete now.
    ///
    /// # Errors
    /// Never, with the fixed bounds of histograms.
    pub fn line(&mut self, line: &str) -> Result<Vec<Value>> {
        let Some(point) = Point::read(line) else { return Ok(Vec::new()) };
        let began = match self.began_unix_ms {
            Some(began) => began,
            None if point.metric == "http_req_duration" => *self.began_unix_ms.insert(point.unix_ms),
            None => return Ok(Vec::new()),
        };
        let second = (point.unix_ms.saturating_sub(began) / 1_000).max(self.next);
        if let std::collections::btree_map::Entry::Vacant(vacant) = self.open.entry(second) {
            vacant.insert(Tally::new()?);
        }
        if let Some(tally) = self.open.get_mut(&second) {
            tally.add(&point);
        }
        self.all.add(&point);
        if !point.kind.is_empty() {
            if !self.kinds.contains_key(point.kind) {
                self.kinds.insert(point.kind.to_owned(), Tally::new()?);
            }
            if let Some(tally) = self.kinds.get_mut(point.kind) {
                tally.add(&point);
            }
        }
        self.close_before(second.saturating_sub(OPEN_SECONDS - 1))
    }

    fn close_before(&mut self, end: u64) -> Result<Vec<Value>> {
        let mut closed = Vec::new();
        while self.next < end {
            let tally = self.open.remove(&self.next).map_or_else(Tally::new, Ok)?;
            let mut told = tally.json();
            told["second"] = self.next.into();
            closed.push(told);
            self.next += 1;
        }
        Ok(closed)
    }

    /// The seconds that were left, and all of it.
    ///
    /// # Errors
    /// Never, with the fixed bounds of histograms.
    pub fn end(mut self) -> Result<(Vec<Value>, Value)> {
        let last = self.open.keys().next_back().map_or(self.next, |second| second + 1);
        let seconds = self.close_before(last)?;
        let mut result = self.all.json();
        result["began_unix_ms"] = self.began_unix_ms.into();
        let kinds: Map<String, Value> = self.kinds.iter().map(|(kind, tally)| (kind.clone(), tally.json())).collect();
        result["kinds"] = kinds.into();
        Ok((seconds, result))
    }
}

/// The thresholds of k6's `--summary-export`, in our form. There `false` means that one was not crossed.
#[must_use]
pub fn thresholds(summary: &Value) -> Vec<Value> {
    let metrics = summary["metrics"].as_object().into_iter().flatten();
    let read = |(name, metric): (&String, &Value)| -> Vec<Value> {
        let each = metric["thresholds"].as_object().into_iter().flatten();
        each.map(|(limit, crossed)| {
            let what = limit.split(['<', '>', '=']).next().unwrap_or_default();
            // The rate of something that is true or false is called its value here.
            let measured = metric.get(what).or(metric.get("value").filter(|_| what == "rate")).cloned();
            json!({ "what": format!("{name}: {limit}"), "measured": measured, "met": crossed == false })
        })
        .collect()
    };
    metrics.flat_map(read).collect()
}

/// What scripts told of answers that were not right, in what k6 logged.
#[must_use]
pub fn samples(log: &str, most: usize) -> Vec<String> {
    let told = log.lines().filter_map(|line| line.split_once("msg=\"not right: "));
    let text =
        |(_, rest): (&str, &str)| rest.rsplit_once("\" source=").map_or(rest, |(text, _)| text).replace("\\\"", "\"");
    told.map(text).take(most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(metric: &str, seconds: f64, value: f64, kind: &str) -> String {
        let load = if kind == "seed" { "no" } else { "yes" };
        format!(
            "{{\"metric\":\"{metric}\",\"type\":\"Point\",\"data\":{{\"time\":\"2026-11-23T11:49:{seconds:012.9}Z\",\
             \"value\":{value},\"tags\":{{\"kind\":\"{kind}\",\"load\":\"{load}\",\"status\":\"302\"}}}}}}"
        )
    }

    fn read(lines: &[String]) -> (Vec<Value>, Value) {
        let mut reader = Reader::new().unwrap();
        let mut seconds: Vec<Value> = lines.iter().flat_map(|line| reader.line(line).unwrap()).collect();
        let (last, result) = reader.end().unwrap();
        seconds.extend(last);
        (seconds, result)
    }

    #[test]
    fn times_are_read_to_the_millisecond() {
        assert_eq!(unix_ms("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(unix_ms("2000-02-29T12:00:00.5Z"), Some(951_825_600_500));
        assert_eq!(unix_ms("2026-11-23T11:49:24.793423883Z"), Some(1_795_434_564_793));
        assert_eq!(unix_ms("2026-11-23T11:49:24+02:00"), None);
    }

    #[test]
    fn requests_are_added_up_by_second_and_by_kind() {
        let lines = [
            line("http_req_duration", 1.0, 99.0, "seed"),
            line("http_req_duration", 2.5, 1.0, "redirect"),
            line("http_reqs", 2.5, 1.0, "redirect"),
            line("http_req_duration", 3.4, 3.0, "create"),
            line("http_req_duration", 4.6, 2.0, "redirect"),
        ];
        let (seconds, result) = read(&lines);
        let requests: Vec<&Value> = seconds.iter().map(|second| &second["requests"]).collect();
        assert_eq!(requests, [&json!(2), &json!(0), &json!(1)], "the making of links is none of it");
        assert_eq!((&result["requests"], &result["kinds"]["redirect"]["requests"]), (&json!(3), &json!(2)));
        assert!((result["max_ms"].as_f64().unwrap() - 3.0).abs() < 0.01);
        assert!(result["began_unix_ms"].as_u64() > Some(1_700_000_000_000));
    }

    #[test]
    fn a_line_that_comes_late_counts_in_the_next_second() {
        let times = [0.0, 5.0, 0.5];
        let lines: Vec<String> = times.iter().map(|at| line("http_req_duration", *at, 1.0, "redirect")).collect();
        let (seconds, result) = read(&lines);
        assert_eq!((seconds.len(), &result["requests"]), (6, &json!(3)));
        let told: u64 = seconds.iter().filter_map(|second| second["requests"].as_u64()).sum();
        assert_eq!((told, &seconds[3]["requests"]), (3, &json!(1)));
        assert!(seconds.iter().enumerate().all(|(at, second)| second["second"] == at));
    }

    #[test]
    fn what_is_not_right_is_counted() {
        let lines = [
            line("http_req_duration", 0.0, 1.0, "redirect"),
            line("wrong_answers", 0.1, 1.0, ""),
            line("refused", 0.1, 2.0, ""),
            line("limited", 0.1, 3.0, ""),
            line("dropped_iterations", 0.1, 4.0, ""),
            "{\"type\":\"Metric\",\"data\":{},\"metric\":\"refused\"}".into(),
            "no JSON".into(),
        ];
        let (seconds, result) = read(&lines);
        for (name, count) in [("wrong", 1), ("refused", 2), ("limited", 3), ("late", 4)] {
            assert_eq!((&seconds[0][name], &result[name]), (&json!(count), &json!(count)), "{name}");
        }
    }

    #[test]
    fn thresholds_are_met_when_k6_says_that_they_were_not_crossed() {
        let summary = json!({ "metrics": {
            "wrong_answers": { "count": 3, "thresholds": { "count==0": true } },
            "http_req_duration{load:yes}": { "p(99)": 2.5, "thresholds": { "p(99)<=500": false } },
            "http_req_failed{load:yes}": { "value": 0.25, "passes": 1, "fails": 3, "thresholds": { "rate<=0.001": true } },
            "vus": { "value": 1 },
        }});
        let told = thresholds(&summary);
        assert_eq!(told.len(), 3);
        assert!(
            told.contains(&json!({ "what": "http_req_failed{load:yes}: rate<=0.001", "measured": 0.25, "met": false }))
        );
        assert!(told.contains(&json!({ "what": "wrong_answers: count==0", "measured": 3, "met": false })));
        assert!(
            told.contains(&json!({ "what": "http_req_duration{load:yes}: p(99)<=500", "measured": 2.5, "met": true }))
        );
    }

    #[test]
    fn the_scripts_count_what_is_read_here() {
        let library = include_str!("../../../loadtests/k6/lib/terse.js");
        for metric in METRICS.iter().filter(|metric| !["http_req_duration", "dropped_iterations"].contains(metric)) {
            assert!(library.contains(&format!("new Counter('{metric}')")), "{metric}");
        }
        assert!(library.contains("load: kind === 'seed' ? 'no' : 'yes'"), "what is none of the load is marked");
    }

    #[test]
    fn samples_are_found_in_the_log() {
        let log = "time=\"x\" level=error msg=\"not right: /a: 404 to \\\"b\\\"\" source=console\nother\n";
        assert_eq!(samples(&log.repeat(5), 2), ["/a: 404 to \"b\"", "/a: 404 to \"b\""]);
    }
}
