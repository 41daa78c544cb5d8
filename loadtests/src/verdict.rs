//! What makes a run fail: thresholds, each with what was measured.

use std::fmt;

use serde_json::{Value, json};

use crate::ledger::Ledger;
use crate::scenario::Scenario;

/// A limit and what was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Threshold {
    /// What is limited.
    pub what: &'static str,
    /// The limit.
    pub limit: f64,
    /// Whether it must be reached, rather than not be exceeded.
    pub at_least: bool,
    /// What was measured.
    pub measured: f64,
}

impl Threshold {
    /// Whether it holds.
    #[must_use]
    pub fn met(&self) -> bool {
        if self.at_least { self.measured >= self.limit } else { self.measured <= self.limit }
    }

    /// As JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        let bound = if self.at_least { "at_least" } else { "at_most" };
        json!({ "what": self.what, bound: self.limit, "measured": self.measured, "met": self.met() })
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verdict, sign) = (if self.met() { "ok  " } else { "FAIL" }, if self.at_least { "≥" } else { "≤" });
        write!(f, "{verdict}  {:<28} {:>10.2}  {sign} {:.2}", self.what, self.measured, self.limit)
    }
}

/// Judges what `ledger` has against what `scenario` demands, with `p99_ms` as the latency's limit.
#[must_use]
pub fn thresholds(scenario: &Scenario, p99_ms: f64, ledger: &Ledger) -> Vec<Threshold> {
    let all = ledger.all();
    let per_mille = |count: u64, of: u64| count as f64 * 1e3 / of.max(1) as f64;
    let at_most = |what, limit, measured| Threshold { what, limit, at_least: false, measured };
    let at_least = |what, limit, measured| Threshold { what, limit, at_least: true, measured };
    let mut thresholds = vec![
        at_least("requests", 1.0, all.requests as f64),
        at_most("wrong answers", 0.0, all.wrong as f64),
        at_most("refused, per mille", scenario.refused_per_mille, per_mille(all.refused, all.requests)),
        at_most("left late, per mille", scenario.late_per_mille, per_mille(all.late, ledger.planned())),
        at_most("p99, ms", p99_ms, all.percentile_ms(99.0)),
    ];
    if scenario.expects_429 {
        let made = all.requests - all.limited - all.refused - all.wrong;
        thresholds.push(at_least("links made", 1.0, made as f64));
        thresholds.push(at_least("answers 429", 1.0, all.limited as f64));
    }
    thresholds
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::judge::Outcome;
    use crate::ledger::Entry;
    use crate::scenario::Kind;

    fn failed(name: &str, outcomes: &[(usize, Outcome)], late: bool, ms: u64) -> Vec<&'static str> {
        let mut ledger = Ledger::new().unwrap();
        for (count, outcome) in outcomes {
            let entry = Entry {
                at: Duration::ZERO,
                kind: Kind::Redirect,
                latency: Duration::from_millis(ms),
                late,
                outcome: outcome.clone(),
            };
            (0..*count).for_each(|_| ledger.add(&entry));
        }
        let scenario = Scenario::named(name).unwrap();
        let thresholds = thresholds(scenario, scenario.p99_ms, &ledger);
        thresholds.iter().filter(|threshold| !threshold.met()).map(|threshold| threshold.what).collect()
    }

    #[test]
    fn a_good_run_fails_at_nothing() {
        assert!(failed("steady", &[(10_000, Outcome::Good)], false, 1).is_empty());
    }

    #[test]
    fn one_wrong_answer_of_many_fails_a_run() {
        let outcomes = [(10_000, Outcome::Good), (1, Outcome::Wrong("x".into()))];
        assert_eq!(failed("steady", &outcomes, false, 1), ["wrong answers"]);
    }

    #[test]
    fn every_scenario_fails_by_whatever_goes_wrong() {
        for scenario in crate::scenario::SCENARIOS {
            let name = scenario.name;
            assert!(failed(name, &[(10_000, Outcome::Wrong("200".into()))], false, 1).contains(&"wrong answers"));
            assert!(failed(name, &[(10_000, Outcome::Refused(503))], false, 1).contains(&"refused, per mille"));
            let slow = failed(name, &[(9_000, Outcome::Good), (1_000, Outcome::Limited)], false, 501);
            assert_eq!(slow, ["p99, ms"], "{name}");
            assert!(failed(name, &[], false, 1).contains(&"requests"), "{name}");
        }
    }

    #[test]
    fn a_few_refusals_are_borne_where_the_scenario_says_so() {
        let few = [(9_999, Outcome::Good), (1, Outcome::Refused(503))];
        assert!(failed("steady", &few, false, 1).is_empty());
        assert_eq!(failed("smoke", &few, false, 1), ["refused, per mille"]);
        let more = [(980, Outcome::Good), (20, Outcome::NoAnswer("gone".into()))];
        assert_eq!(failed("steady", &more, false, 1), ["refused, per mille"]);
    }

    #[test]
    fn slow_answers_late_requests_and_none_at_all_fail_a_run() {
        assert_eq!(failed("steady", &[(10, Outcome::Good)], false, 900), ["p99, ms"]);
        assert_eq!(failed("steady", &[(10, Outcome::Good)], true, 1), ["left late, per mille"]);
        assert_eq!(failed("steady", &[], false, 1), ["requests"]);
    }

    #[test]
    fn requests_that_never_left_fail_a_run_however_good_the_others_were() {
        let mut ledger = Ledger::new().unwrap();
        let (at, latency) = (Duration::ZERO, Duration::from_millis(1));
        let good = Entry { at, kind: Kind::Redirect, latency, late: false, outcome: Outcome::Good };
        (0..900).for_each(|_| ledger.add(&good));
        ledger.never_left(100);
        let late = &thresholds(Scenario::named("steady").unwrap(), 50.0, &ledger)[3];
        assert_eq!((late.what, late.measured, late.met()), ("left late, per mille", 100.0, false));
    }

    #[test]
    fn a_limit_must_limit_and_let_some_through() {
        assert!(failed("limit", &[(20, Outcome::Good), (80, Outcome::Limited)], false, 1).is_empty());
        assert_eq!(failed("limit", &[(100, Outcome::Good)], false, 1), ["answers 429"]);
        assert_eq!(failed("limit", &[(100, Outcome::Limited)], false, 1), ["links made"]);
    }

    #[test]
    fn a_threshold_tells_what_it_is_and_whether_it_holds() {
        let threshold = Threshold { what: "p99, ms", limit: 50.0, at_least: false, measured: 51.0 };
        assert!(threshold.to_string().starts_with("FAIL  p99, ms") && threshold.to_string().ends_with("≤ 50.00"));
        assert_eq!(threshold.json(), json!({"what": "p99, ms", "at_most": 50.0, "measured": 51.0, "met": false}));
        assert!(Threshold { at_least: true, ..threshold }.met());
    }
}
