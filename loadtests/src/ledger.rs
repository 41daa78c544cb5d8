//! What was answered, second by second and in all.
//!
//! Bounds: a histogram of fixed size for the second that runs, one for each
//! kind and one for all; the first [`SAMPLES`] wrong answers in full.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, anyhow};
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::judge::Outcome;
use crate::scenario::Kind;
use crate::seed::LIMITED;

/// How many answers that were not right are told in full.
pub const SAMPLES: usize = 10;
/// Latencies are told apart from one microsecond on; longer ones than a minute count as that.
const LONGEST_US: u64 = 60_000_000;

/// An answer, or that none came.
#[derive(Clone, Debug)]
pub struct Entry {
    /// When it came, from the beginning of the load.
    pub at: Duration,
    /// What was asked for.
    pub kind: Kind,
    /// How long it took.
    pub latency: Duration,
    /// Whether it was asked for later than it was due.
    pub late: bool,
    /// What it was.
    pub outcome: Outcome,
}

/// Counts and latencies of a second, of a kind, or of all.
#[derive(Clone, Debug)]
pub struct Tally {
    /// How many were asked for.
    pub requests: u64,
    /// How many got 429 where that is what it is about.
    pub limited: u64,
    /// How many got 429 or 503 where it is not, or no answer.
    pub refused: u64,
    /// How many got a wrong answer.
    pub wrong: u64,
    /// How many left late, or never.
    pub late: u64,
    latencies: Histogram<u64>,
}

impl Tally {
    fn new() -> Result<Self> {
        let latencies = Histogram::new_with_bounds(1, LONGEST_US, 3).map_err(|error| anyhow!("histogram: {error}"))?;
        Ok(Self { requests: 0, limited: 0, refused: 0, wrong: 0, late: 0, latencies })
    }

    fn add(&mut self, entry: &Entry) {
        self.requests += 1;
        self.late += u64::from(entry.late);
        match entry.outcome {
            Outcome::Good => {}
            Outcome::Limited => self.limited += 1,
            Outcome::Refused(_) | Outcome::NoAnswer(_) => self.refused += 1,
            Outcome::Wrong(_) => self.wrong += 1,
        }
        self.latencies.saturating_record(u64::try_from(entry.latency.as_micros()).unwrap_or(LONGEST_US));
    }

    fn clear(&mut self) {
        (self.requests, self.limited, self.refused, self.wrong, self.late) = (0, 0, 0, 0, 0);
        self.latencies.reset();
    }

    /// The latency that `percent` of 100 answers don't exceed, in milliseconds; 0 if there are none.
    #[must_use]
    pub fn percentile_ms(&self, percent: f64) -> f64 {
        self.latencies.value_at_percentile(percent) as f64 / 1e3
    }

    /// As JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "requests": self.requests, "limited": self.limited, "refused": self.refused, "wrong": self.wrong,
            "late": self.late, "p50_ms": self.percentile_ms(50.0), "p90_ms": self.percentile_ms(90.0),
            "p99_ms": self.percentile_ms(99.0), "max_ms": self.percentile_ms(100.0),
        })
    }
}

/// The ledger of a run.
#[derive(Debug)]
pub struct Ledger {
    /// The second that runs.
    second: u64,
    running: Tally,
    all: Tally,
    kinds: BTreeMap<Kind, Tally>,
    /// How many requests of the plan never left.
    unsent: u64,
    samples: Vec<String>,
}

impl Ledger {
    /// An empty one.
    ///
    /// # Errors
    /// Never, with the fixed bounds.
    pub fn new() -> Result<Self> {
        let kinds = Kind::ALL.into_iter().map(|kind| Ok((kind, Tally::new()?))).collect::<Result<_>>()?;
        Ok(Self { second: 0, running: Tally::new()?, all: Tally::new()?, kinds, unsent: 0, samples: Vec::new() })
    }

    /// Adds an entry. It counts for the second that runs, and [`Ledger::close_before`] says when that ends.
    pub fn add(&mut self, entry: &Entry) {
        self.running.add(entry);
        self.all.add(entry);
        if let Some(kind) = self.kinds.get_mut(&entry.kind) {
            kind.add(entry);
        }
        let told = match &entry.outcome {
            Outcome::Good | Outcome::Limited => return,
            Outcome::Wrong(text) | Outcome::NoAnswer(text) => text.clone(),
            Outcome::Refused(429) => format!("{}: 429, {LIMITED}", entry.kind.name()),
            Outcome::Refused(status) => format!("{}: {status}", entry.kind.name()),
        };
        if self.samples.len() < SAMPLES {
            self.samples.push(told);
        }
    }

    /// Adds `count` requests that never left: they are late, whatever kind they were of.
    pub fn never_left(&mut self, count: u64) {
        if count == 0 {
            return;
        }
        self.unsent += count;
        self.running.late += count;
        self.all.late += count;
        self.samples.push(format!("{count} requests never left: all users still waited for answers"));
    }

    /// How many requests there were to be: those that were asked for, and those that never left.
    #[must_use]
    pub fn planned(&self) -> u64 {
        self.all.requests + self.unsent
    }

    /// Ends all seconds before that of `now`, and tells each as JSON, those without an answer too.
    pub fn close_before(&mut self, now: Duration) -> Vec<Value> {
        let mut closed = Vec::new();
        while self.second < now.as_secs() {
            closed.push(self.close());
        }
        closed
    }

    /// Whether there is something to tell of the second that runs.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.running.requests > 0 || self.running.late > 0
    }

    /// Ends the second that runs.
    pub fn close(&mut self) -> Value {
        let mut told = self.running.json();
        told["second"] = self.second.into();
        self.running.clear();
        self.second += 1;
        told
    }

    /// All of it.
    #[must_use]
    pub fn all(&self) -> &Tally {
        &self.all
    }

    /// The first answers that were not right, and whether requests never left.
    #[must_use]
    pub fn samples(&self) -> &[String] {
        &self.samples
    }

    /// All of it as JSON, by kind too.
    #[must_use]
    pub fn json(&self) -> Value {
        let mut told = self.all.json();
        let asked = self.kinds.iter().filter(|(_, tally)| tally.requests > 0);
        told["kinds"] =
            asked.map(|(kind, tally)| (kind.name().to_owned(), tally.json())).collect::<serde_json::Map<_, _>>().into();
        told["samples"] = self.samples.clone().into();
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(ms: u64, outcome: Outcome) -> Entry {
        let at = Duration::from_millis(ms);
        Entry { at, kind: Kind::Redirect, latency: Duration::from_millis(ms), late: false, outcome }
    }

    fn filled(outcomes: Vec<Outcome>) -> Ledger {
        let mut ledger = Ledger::new().unwrap();
        outcomes.into_iter().for_each(|outcome| ledger.add(&entry(1, outcome)));
        ledger
    }

    #[test]
    fn outcomes_are_told_apart() {
        let ledger = filled(vec![
            Outcome::Good,
            Outcome::Good,
            Outcome::Limited,
            Outcome::Refused(503),
            Outcome::NoAnswer("no".into()),
            Outcome::Wrong("bad".into()),
        ]);
        let all = ledger.all();
        assert_eq!((all.requests, all.limited, all.refused, all.wrong, all.late), (6, 1, 2, 1, 0));
        assert_eq!(ledger.samples(), ["redirect: 503", "no", "bad"]);
    }

    #[test]
    fn a_server_with_its_limits_on_is_told_to_be_one() {
        let told = filled(vec![Outcome::Refused(429)]).samples().concat();
        assert!(told.starts_with("redirect: 429, ") && told.contains("TERSE_LIMITS=off"), "{told}");
    }

    #[test]
    fn what_never_left_is_late_and_was_planned_and_is_told_even_of_a_silent_second() {
        let mut ledger = filled(vec![Outcome::Good]);
        ledger.close();
        ledger.never_left(0);
        assert!(!ledger.runs() && ledger.samples().is_empty());
        ledger.never_left(9);
        assert_eq!((ledger.all().requests, ledger.all().late, ledger.planned()), (1, 9, 10));
        assert!(ledger.runs() && ledger.samples()[0].starts_with("9 requests never left"));
        assert_eq!(ledger.close()["late"], 9);
    }

    #[test]
    fn percentiles_are_of_all_latencies_and_late_ones_are_counted() {
        let mut ledger = Ledger::new().unwrap();
        for ms in 1..=100 {
            ledger.add(&Entry { late: ms > 90, ..entry(ms, Outcome::Good) });
        }
        let all = ledger.all();
        assert_eq!(all.late, 10);
        for (percent, ms) in [(50.0, 50.0), (99.0, 99.0), (100.0, 100.0)] {
            assert!((all.percentile_ms(percent) - ms).abs() < 0.2, "{percent}");
        }
        ledger.add(&Entry { latency: Duration::from_secs(1_000), ..entry(1, Outcome::Good) });
        assert!((ledger.all().percentile_ms(100.0) - 60_000.0).abs() < 100.0);
    }

    #[test]
    fn each_second_is_told_once_also_one_without_answers() {
        let mut ledger = filled(vec![Outcome::Good, Outcome::Wrong("x".into())]);
        assert!(ledger.close_before(Duration::from_millis(999)).is_empty());
        let told = ledger.close_before(Duration::from_millis(2_100));
        assert_eq!(told.len(), 2);
        assert_eq!((&told[0]["second"], &told[0]["requests"], &told[0]["wrong"]), (&json!(0), &json!(2), &json!(1)));
        assert_eq!((&told[1]["second"], &told[1]["requests"], &told[1]["p99_ms"]), (&json!(1), &json!(0), &json!(0.0)));
        assert!(!ledger.runs(), "nothing came since");
        assert_eq!(ledger.close()["second"], 2);
        assert_eq!(ledger.all().requests, 2, "all stays all");
    }

    #[test]
    fn the_sum_is_told_by_kind_and_only_of_kinds_that_were_asked_for() {
        let mut ledger = filled(vec![Outcome::Good]);
        ledger.add(&Entry { kind: Kind::Create, ..entry(3, Outcome::Good) });
        let told = ledger.json();
        assert_eq!((&told["requests"], &told["kinds"]["create"]["requests"]), (&json!(2), &json!(1)));
        assert!(told["kinds"]["unknown"].is_null());
    }

    #[test]
    fn only_the_first_wrong_answers_are_kept() {
        let ledger = filled((0..1_000).map(|n| Outcome::Wrong(n.to_string())).collect());
        assert_eq!((ledger.samples().len(), ledger.all().wrong), (SAMPLES, 1_000));
    }
}
