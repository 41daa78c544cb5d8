//! What is kept of a load test: its numbers without the digits that mean nothing, its charts as one SVG, and in the same
//! folder a page that lists all that are kept there.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::sheet::sheet;
use super::{compare, page};
use crate::bench::stats::number;

/// The page that lists what is kept.
const INDEX: &str = "README.md";
/// Decimals of a number that is kept.
const DECIMALS: i32 = 3;
/// How many letters of a commit are shown.
const COMMIT_LETTERS: usize = 9;

/// What the files of a run are called.
#[must_use]
pub fn name(report: &Value) -> String {
    let text = |name: &str| report[name].as_str().unwrap_or_default().to_owned();
    format!("{}-{}", text("scenario"), text("tool"))
}

/// Keeps the run of `report` in `folder` and returns the path of its numbers. An earlier run of the same scenario by the
/// same tool is replaced.
///
/// # Errors
/// When a file can't be written, or one that is there is not the JSON of a load test.
pub fn keep(folder: &Path, report: &Value) -> Result<PathBuf> {
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let write = |name: String, text: String| {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| path.display().to_string())?;
        Ok::<_, anyhow::Error>(path)
    };
    let (file, text) = (name(report), |name: &str| report[name].as_str().unwrap_or_default());
    let charts: Vec<_> = page::charts(report).into_iter().filter(|chart| !chart.is_empty()).collect();
    let title = format!("terse under load: {}, {}, {}", text("scenario"), text("tool"), text("date"));
    write(format!("{file}.svg"), sheet(&title, &charts))?;
    let path = write(format!("{file}.json"), lines(&rounded(report)))?;
    write(INDEX.to_owned(), index(&kept(folder)?))?;
    Ok(path)
}

/// All reports in `folder`, by their names.
fn kept(folder: &Path) -> Result<Vec<Value>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        paths.push(entry?.path());
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    paths.iter().map(|path| compare::read(path)).collect()
}

/// `value` with all its numbers rounded.
fn rounded(value: &Value) -> Value {
    let times = 10_f64.powi(DECIMALS);
    match value {
        Value::Number(known) if known.is_f64() => {
            known.as_f64().map_or(Value::Null, |value| ((value * times).round() / times).into())
        }
        Value::Array(items) => items.iter().map(rounded).collect(),
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), rounded(value))).collect(),
        other => other.clone(),
    }
}

/// A report as JSON with a line for each of its fields, and for each second.
fn lines(report: &Value) -> String {
    let field = |(name, value): (&String, &Value)| {
        let value = match value.as_array() {
            Some(items) if items.iter().any(Value::is_object) => {
                let items: Vec<String> = items.iter().map(Value::to_string).collect();
                format!("[\n{}\n]", items.join(",\n"))
            }
            _ => value.to_string(),
        };
        format!("{}: {value}", Value::from(name.as_str()))
    };
    let fields: Vec<String> = report.as_object().into_iter().flatten().map(field).collect();
    format!("{{\n{}\n}}\n", fields.join(",\n"))
}

/// The page: what each run found, where and when, and its charts.
fn index(reports: &[Value]) -> String {
    let mut text = String::from(
        "# Load tests\n\nWritten by `cargo xtask load SCENARIO --file FOLDER`, where `all` is every scenario. Requests leave \
         at a fixed rate, whatever the server does; of every answer status and `Location` were checked. Server and \
         generator had a core each. The JSON beside this page has each second, the machine, versions, commands and \
         thresholds.\n\n\
         | scenario | tool | verdict | seconds | answers a second | p50, ms | p99, ms | longest, ms | wrong | refused | \
         late | CPU of a request, µs | memory, MB | generator's ceiling a second | date | commit |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    text.extend(reports.iter().map(row));
    text.extend(reports.iter().map(section));
    text
}

/// The line of a run in the table.
fn row(report: &Value) -> String {
    const NUMBERS: [&str; 10] = [
        "/usage/answers_per_second",
        "/result/p50_ms",
        "/result/p99_ms",
        "/result/max_ms",
        "/result/wrong",
        "/result/refused",
        "/result/late",
        "/usage/server_cpu_us_per_request",
        "/usage/server_memory_mb",
        "/ceiling/per_second",
    ];
    let said = |place: &str| cell(report.pointer(place).and_then(Value::as_str).unwrap_or("–"));
    let told = |place: &str| report.pointer(place).and_then(Value::as_f64).map_or_else(|| "–".to_owned(), short);
    let commit: String = said("/versions/commit").chars().take(COMMIT_LETTERS).collect();
    let changed = report.pointer("/versions/uncommitted_changes") == Some(&true.into());
    format!(
        "| [{}]({}.json) | {} | {} | {} | {} | {} | {commit}{} |\n",
        said("/scenario"),
        name(report),
        said("/tool"),
        said("/verdict"),
        report["seconds"].as_array().map_or(0, Vec::len),
        NUMBERS.map(told).join(" | "),
        said("/date"),
        if changed { ", changed" } else { "" }
    )
}

/// What must be known of a run, and its charts.
fn section(report: &Value) -> String {
    let (name, machine) = (name(report), cell(report["machine"]["cpu"].as_str().unwrap_or_default()));
    let mut text = format!("\n## {}\n\n", name.replace('-', " "));
    let asked = report["asked"].as_object().into_iter().flatten();
    let asked: Vec<String> =
        asked.map(|(name, value)| cell(&format!("{name} {}", value.as_str().unwrap_or_default()))).collect();
    // Writing to a text can't fail.
    if !asked.is_empty() {
        let _ = write!(text, "Not of its usual size: {}.\n\n", asked.join(", "));
    }
    for warning in report["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let _ = write!(text, "Warning: {}.\n\n", cell(warning));
    }
    let _ = writeln!(text, "![Rate, latency, tiers, CPU and memory over time, on {machine}]({name}.svg)");
    text
}

/// A number in a table: whole ones as such.
fn short(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value:.0}") } else { number(value) }
}

/// `text` that can't end a cell, a line or a link.
fn cell(text: &str) -> String {
    text.chars().map(|letter| if "|[]<>`\n\r".contains(letter) { ' ' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report(scenario: &str, p99: f64) -> Value {
        json!({
            "scenario": scenario, "tool": "goose", "date": "2026-11-23T16:42:00Z", "verdict": "passed",
            "seconds": [{"second": 0, "requests": 10, "p99_ms": p99}, {"second": 1, "requests": 12, "p99_ms": p99}],
            "result": {"requests": 22, "wrong": 0, "p99_ms": p99}, "warnings": ["others | use it"],
            "usage": {"answers_per_second": 11.0}, "machine": {"cpu": "x"}, "asked": {"seconds": "2"},
            "versions": {"commit": "0123456789abcdef", "uncommitted_changes": true},
        })
    }

    #[test]
    fn numbers_charts_and_page_are_kept_and_an_earlier_run_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let into = folder.path().join("load");
        let path = keep(&into, &report("steady", 1.234_567)).unwrap();
        assert_eq!(path, into.join("steady-goose.json"));
        keep(&into, &report("smoke", 2.0)).unwrap();
        keep(&into, &report("steady", 3.5)).unwrap();
        let page = fs::read_to_string(into.join(INDEX)).unwrap();
        assert_eq!((page.matches("steady-goose.json").count(), page.matches(".svg)").count()), (1, 2));
        let row = "| [steady](steady-goose.json) | goose | passed | 2 | 11 | – | 3.500 | – | 0 | – | – | – | – | – | \
                   2026-11-23T16:42:00Z | 012345678, changed |";
        assert!(page.contains(row), "{page}");
        assert!(page.contains("Warning: others   use it.") && page.contains("Not of its usual size: seconds 2."));
        assert!(page.find("[smoke]") < page.find("[steady]"));
        assert!(fs::read_to_string(into.join("smoke-goose.svg")).unwrap().contains("aria-label=\"Latency\""));
    }

    #[test]
    fn what_is_kept_can_be_compared_and_has_a_line_for_each_second() {
        let folder = tempfile::tempdir().unwrap();
        let path = keep(folder.path(), &report("steady", 1.234_567)).unwrap();
        let again = compare::read(&path).unwrap();
        assert_eq!((&again["result"]["p99_ms"], &again["result"]["requests"]), (&json!(1.235), &json!(22)));
        assert_eq!(again["asked"]["seconds"], "2");
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().filter(|line| line.starts_with("{\"p99_ms\":")).count(), 2, "{text}");
        assert!(text.lines().count() < 20, "{text}");
    }

    #[test]
    fn nothing_that_a_report_says_leaves_its_cell() {
        assert_eq!(cell("a|b](c)\n<d>`"), "a b (c)  d  ");
        assert_eq!((short(3.0), short(0.25), short(1_234.5)), ("3".into(), "0.250".into(), "1234".into()));
    }

    #[test]
    fn the_page_of_the_book_lists_what_is_kept_beside_it() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/measurements/load");
        let reports = kept(&folder).unwrap();
        assert_eq!(fs::read_to_string(folder.join(INDEX)).unwrap(), index(&reports));
        assert!(reports.iter().all(|report| folder.join(name(report)).with_extension("svg").is_file()));
    }

    #[test]
    fn a_file_that_is_no_report_is_not_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("other.json"), "{}").unwrap();
        assert!(keep(folder.path(), &report("smoke", 1.0)).is_err());
    }
}
