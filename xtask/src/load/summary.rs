//! What a run amounts to: usage, warnings, verdict.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::tool::Driven;

/// Above this share of its ceiling a generator is no longer a good clock.
const NEAR_CEILING: f64 = 0.7;
/// Above this share of its core it isn't either.
const BUSY_PERCENT: f64 = 85.0;
/// More requests than this in a thousand that left late …
const LATE_PER_MILLE: f64 = 10.0;
/// … are not the doing of a server whose core is used less than this.
const IDLE_PERCENT: f64 = 70.0;

/// Adds to `report` what was driven and seen, and what follows from it; `warnings` are those of before.
pub fn add(report: &mut Value, driven: Driven, samples: Vec<Value>, mut warnings: Vec<String>) {
    let Driven { seconds, result, passed } = driven;
    let began = result["began_unix_ms"].as_f64();
    let samples: Vec<Value> = samples.into_iter().filter_map(|sample| during(sample, began?, seconds.len())).collect();
    report["usage"] = usage(&seconds, &result, &samples);
    if report["quick"] == true {
        warnings.push("a quick run of an unoptimised build: answers were checked, the numbers say nothing".to_owned());
    }
    warnings.extend(bottleneck(report, &seconds));
    report["verdict"] = match (passed, report["interrupted"] == true) {
        (_, true) => super::STOPPED,
        (true, false) => "passed",
        (false, false) => "failed",
    }
    .into();
    report["warnings"] = warnings.into();
    report["seconds"] = seconds.into();
    report["samples"] = samples.into();
    report["result"] = result;
}

/// `sample` with its time from the beginning of the load; `None` = it was before or after.
fn during(mut sample: Value, began_unix_ms: f64, seconds: usize) -> Option<Value> {
    let at = (sample["unix_ms"].as_f64()? - began_unix_ms) / 1e3;
    sample["at_seconds"] = at.into();
    (at >= 0.0 && at <= seconds as f64 + 1.0).then_some(sample)
}

fn numbers<'a>(samples: &'a [Value], name: &'a str) -> impl Iterator<Item = f64> + 'a {
    samples.iter().filter_map(move |sample| sample[name].as_f64())
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0_u32), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

fn usage(seconds: &[Value], result: &Value, samples: &[Value]) -> Value {
    let length = seconds.len().max(1) as f64;
    let requests = result["requests"].as_f64().unwrap_or_default();
    let server = mean(numbers(samples, "server_cpu_percent"));
    let tier = |name: &str| mean(samples.iter().filter_map(|sample| sample["tiers"][name].as_f64())).unwrap_or(0.0);
    let asked: f64 = ["l1", "l2", "store", "stale"].into_iter().map(tier).sum();
    json!({
        "answers_per_second": requests / length,
        "server_cpu_percent": server,
        "server_cpu_us_per_request": server.filter(|_| requests > 0.0).map(|busy| busy / 100.0 * length * 1e6 / requests),
        "server_memory_mb": numbers(samples, "server_memory_mb").reduce(f64::max),
        "generator_cpu_percent": mean(numbers(samples, "generator_cpu_percent")),
        "hit_percent": (asked > 0.0).then(|| (tier("l1") + tier("l2")) / asked * 100.0),
        "lag_seconds": numbers(samples, "lag_seconds").reduce(f64::max),
    })
}

/// Why the generator's limits may be what was measured.
fn bottleneck(report: &Value, seconds: &[Value]) -> Vec<String> {
    let mut warnings = Vec::new();
    let peak = numbers(seconds, "requests").fold(0.0, f64::max);
    if let Some(ceiling) = report["ceiling"]["per_second"].as_f64().filter(|ceiling| peak > ceiling * NEAR_CEILING) {
        warnings.push(format!(
            "the generator is the bottleneck: {peak:.0} requests in a second, and it manages {ceiling:.0} at all"
        ));
    }
    if let Some(busy) = report["usage"]["generator_cpu_percent"].as_f64().filter(|busy| *busy > BUSY_PERCENT) {
        warnings.push(format!("the generator is the bottleneck: it used {busy:.0} % of its core"));
    }
    let (late, requests) = (numbers(seconds, "late").sum::<f64>(), numbers(seconds, "requests").sum::<f64>());
    let idle = report["usage"]["server_cpu_percent"].as_f64().filter(|busy| *busy < IDLE_PERCENT);
    if let Some(busy) = idle.filter(|_| late * 1e3 > requests * LATE_PER_MILLE) {
        warnings.push(format!(
            "the generator is the bottleneck, or the store: {late:.0} requests left late or never, \
             while the server used {busy:.0} % of its core"
        ));
    }
    warnings
}

/// What a person reads at the end of a run.
#[must_use]
pub fn text(report: &Value) -> String {
    let mut text = String::new();
    for sample in report["result"]["samples"].as_array().into_iter().flatten() {
        let _ = writeln!(text, "not right: {}", sample.as_str().unwrap_or_default());
    }
    for threshold in report["result"]["thresholds"].as_array().into_iter().flatten() {
        let verdict = if threshold["met"] == true { "ok  " } else { "FAIL" };
        let bound = |name: &str, sign: &str| threshold[name].as_f64().map(|limit| format!("{sign} {limit}"));
        let limit = bound("at_most", "≤").or_else(|| bound("at_least", "≥")).unwrap_or_default();
        let what = threshold["what"].as_str().unwrap_or_default();
        let _ = writeln!(
            text,
            "{verdict}  {what:<44} {:>10.2}  {limit}",
            threshold["measured"].as_f64().unwrap_or_default()
        );
    }
    for warning in report["warnings"].as_array().into_iter().flatten() {
        let _ = writeln!(text, "{}", warning.as_str().unwrap_or_default());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn driven(passed: bool) -> Driven {
        let second = |second: u64, requests: u64| json!({ "second": second, "requests": requests });
        let result = json!({ "requests": 300, "began_unix_ms": 1_000, "thresholds": [
            { "what": "p99, ms", "at_most": 50.0, "measured": 60.5, "met": false },
        ], "samples": ["/a: 500"] });
        Driven { seconds: vec![second(0, 100), second(1, 200)], result, passed }
    }

    fn sample(unix_ms: u64, cpu: f64, l1: f64) -> Value {
        json!({ "unix_ms": unix_ms, "server_cpu_percent": cpu, "server_memory_mb": cpu, "generator_cpu_percent": 10.0,
                "tiers": { "l1": l1, "store": 10.0 } })
    }

    fn report(ceiling: f64, interrupted: bool, passed: bool) -> Value {
        let mut report = json!({ "ceiling": { "per_second": ceiling }, "interrupted": interrupted, "quick": false });
        let samples = vec![
            sample(500, 99.0, 0.0),
            sample(2_000, 20.0, 90.0),
            sample(3_000, 40.0, 90.0),
            sample(9_000, 99.0, 0.0),
        ];
        add(&mut report, driven(passed), samples, vec![]);
        report
    }

    #[test]
    fn samples_from_before_and_after_the_load_are_left_out() {
        let report = report(1e6, false, true);
        let times: Vec<f64> = numbers(report["samples"].as_array().unwrap(), "at_seconds").collect();
        assert_eq!(times, [1.0, 2.0]);
        let usage = &report["usage"];
        assert_eq!((&usage["server_cpu_percent"], &usage["server_memory_mb"]), (&json!(30.0), &json!(40.0)));
        assert_eq!((&usage["answers_per_second"], &usage["hit_percent"]), (&json!(150.0), &json!(90.0)));
        // 0.3 of two seconds for 300 requests.
        assert!((usage["server_cpu_us_per_request"].as_f64().unwrap() - 2_000.0).abs() < 1e-6);
        assert_eq!((&report["verdict"], &report["warnings"]), (&json!("passed"), &json!([])));
    }

    #[test]
    fn a_generator_near_its_ceiling_is_warned_of() {
        let report = report(250.0, false, true);
        assert!(report["warnings"][0].as_str().unwrap().starts_with("the generator is the bottleneck: 200 requests"));
        assert_eq!(report["verdict"], "passed", "a warning is no failure");
    }

    #[test]
    fn a_busy_generator_is_warned_of() {
        let warnings = bottleneck(&json!({ "usage": { "generator_cpu_percent": 93.0 } }), &[]);
        assert_eq!(warnings, ["the generator is the bottleneck: it used 93 % of its core"]);
    }

    #[test]
    fn requests_that_left_late_although_the_server_was_idle_are_warned_of() {
        let seconds = [json!({ "requests": 900, "late": 50 }), json!({ "requests": 1_000, "late": 0 })];
        let warned = |percent: f64| bottleneck(&json!({ "usage": { "server_cpu_percent": percent } }), &seconds);
        assert!(warned(20.0)[0].contains("50 requests left late or never, while the server used 20 %"));
        assert!(warned(95.0).is_empty(), "that is the server's doing");
        assert!(bottleneck(&json!({ "usage": { "server_cpu_percent": 20.0 } }), &seconds[1..]).is_empty());
    }

    #[test]
    fn a_run_passes_fails_or_was_stopped() {
        assert_eq!(report(1e6, false, false)["verdict"], "failed");
        assert_eq!(report(1e6, true, true)["verdict"], super::super::STOPPED);
    }

    #[test]
    fn the_end_tells_what_failed_and_why() {
        let text = text(&report(1e6, false, false));
        assert!(text.contains("not right: /a: 500\n"), "{text}");
        assert!(text.contains("FAIL  p99, ms") && text.contains("60.50  ≤ 50"), "{text}");
    }
}
