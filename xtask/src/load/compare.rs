//! Two runs beside each other: what of the one is how many times that of the other.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::bench::stats::number;

/// What is compared: what it is called, and where it stands.
const COMPARED: &[(&str, &str)] = &[
    ("answers a second", "/usage/answers_per_second"),
    ("p50, ms", "/result/p50_ms"),
    ("p90, ms", "/result/p90_ms"),
    ("p99, ms", "/result/p99_ms"),
    ("longest, ms", "/result/max_ms"),
    ("requests", "/result/requests"),
    ("429 as expected", "/result/limited"),
    ("refused", "/result/refused"),
    ("wrong", "/result/wrong"),
    ("late", "/result/late"),
    ("server CPU, µs a request", "/usage/server_cpu_us_per_request"),
    ("server memory at most, MB", "/usage/server_memory_mb"),
    ("hit ratio, %", "/usage/hit_percent"),
    ("generator's ceiling a second", "/ceiling/per_second"),
];

/// What must be the same, or the ratios are of different things: what it is called, and where it stands.
const ALIKE: &[(&str, &str)] = &[
    ("scenario", "/scenario"),
    ("tool", "/tool"),
    ("size", "/asked"),
    ("build", "/quick"),
    ("processor", "/machine/cpu"),
];

/// Reads a report's JSON.
///
/// # Errors
/// When it can't be read or is none.
pub fn read(path: &Path) -> Result<Value> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let report: Value = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
    if !report["result"].is_object() {
        bail!("{}: not the JSON of a load test", path.display());
    }
    Ok(report)
}

/// The ratios of `b` to `a`, as a table.
#[must_use]
pub fn table(a: &Value, b: &Value) -> String {
    let title = |report: &Value| {
        let text = |name: &str| report[name].as_str().unwrap_or("?").to_owned();
        format!("{}, {}, {}, {}", text("scenario"), text("tool"), text("store"), text("date"))
    };
    let mut text = format!("A: {}\nB: {}\n\n{:<30}{:>12}{:>12}{:>9}\n", title(a), title(b), "", "A", "B", "B/A");
    for (name, place) in COMPARED {
        let value = |report: &Value| report.pointer(place).and_then(Value::as_f64);
        let (a, b) = (value(a), value(b));
        let shown = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), number);
        let ratio = match (a, b) {
            (Some(a), Some(b)) if a != 0.0 => format!("{:.2}", b / a),
            _ => "–".to_owned(),
        };
        let _ = writeln!(text, "{name:<30}{:>12}{:>12}{ratio:>9}", shown(a), shown(b));
    }
    let differ: Vec<&str> =
        ALIKE.iter().filter(|(_, place)| a.pointer(place) != b.pointer(place)).map(|(what, _)| *what).collect();
    if !differ.is_empty() {
        let _ = writeln!(text, "\nnot the same {}: the ratios say little", differ.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report(p99: f64, wrong: u64) -> Value {
        json!({ "scenario": "smoke", "tool": "k6", "result": { "p99_ms": p99, "wrong": wrong, "requests": 100 } })
    }

    #[test]
    fn ratios_are_of_the_second_to_the_first() {
        let table = table(&report(2.0, 0), &report(5.0, 3));
        let line = |name: &str| table.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
        assert!(line("p99").ends_with("2.50") && line("requests").ends_with("1.00"), "{table}");
        assert!(line("wrong").ends_with('–'), "nothing has a ratio to zero: {table}");
        assert!(line("hit ratio").contains('–') && !table.contains("not the same"));
    }

    #[test]
    fn different_scenarios_are_said_to_be() {
        let mut other = report(1.0, 0);
        other["scenario"] = "steady".into();
        assert!(table(&report(1.0, 0), &other).contains("not the same scenario: the ratios"));
    }

    #[test]
    fn runs_of_another_size_or_machine_are_said_to_be() {
        let mut other = report(1.0, 0);
        other["asked"] = json!({ "rate": "5" });
        other["machine"] = json!({ "cpu": "x" });
        assert!(table(&report(1.0, 0), &other).ends_with("\nnot the same size, processor: the ratios say little\n"));
    }

    #[test]
    fn only_reports_are_compared() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        fs::write(&path, "{}").unwrap();
        assert!(read(&path).unwrap_err().to_string().ends_with("not the JSON of a load test"));
        fs::write(&path, report(1.0, 0).to_string()).unwrap();
        assert_eq!(read(&path).unwrap()["tool"], "k6");
        assert!(read(&folder.path().join("none")).is_err());
    }
}
