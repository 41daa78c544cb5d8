//! The report as one HTML file: no script, nothing from elsewhere, readable on a phone and in the dark.
//!
//! Everything that came from a server or a command line is escaped: [`escaped`] for text, [`embedded`] for JSON.

use std::fmt::Write as _;

use serde_json::Value;

use super::chart::{Chart, Line};

/// The rules of every page and sheet, for light and dark.
pub const STYLE: &str = include_str!("page.css");
/// What the states of a breaker are called.
const BREAKER_STATES: &[(f64, &str)] = &[(0.0, "closed"), (1.0, "half-open"), (2.0, "open")];

/// `text` as HTML shows it, also within an attribute.
#[must_use]
pub fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

/// JSON that may stand in a `script` element: within strings, the only place where `<` occurs, it is written as an escape.
#[must_use]
pub fn embedded(value: &Value) -> String {
    format!("{value:#}").replace('<', "\\u003c").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029")
}

/// A page with `body`, and `data` in it as the element `data`.
#[must_use]
pub fn page(title: &str, body: &str, data: &Value) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<link rel=\"icon\" href=\"data:,\">\n\
         <title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{body}</main>\n\
         <script type=\"application/json\" id=\"data\">\n{}\n</script>\n</body>\n</html>\n",
        escaped(title),
        embedded(data)
    )
}

/// The page of a load test.
#[must_use]
pub fn load_page(report: &Value) -> String {
    let text = |name: &str| escaped(report[name].as_str().unwrap_or_default());
    let title = format!("terse under load: {}, {}", text("scenario"), text("tool"));
    let mut body = format!("<h1>{title}</h1>\n<p class=\"quiet\">{}</p>\n", text("date"));
    let verdict = report["verdict"].as_str().unwrap_or_default();
    let class = if verdict == "passed" { "good" } else { "bad" };
    let _ = writeln!(body, "<p class=\"verdict {class}\">{}</p>", escaped(verdict));
    for warning in report["warnings"].as_array().into_iter().flatten() {
        let _ = writeln!(body, "<p class=\"warning\">{}</p>", escaped(&shown(warning)));
    }
    body += &thresholds(&report["result"]["thresholds"]);
    body += "<section class=\"charts\">\n";
    charts(report).iter().filter(|chart| !chart.is_empty()).for_each(|chart| body += &chart.html());
    body += "</section>\n";
    body += &kinds(&report["result"]);
    body += &table("Size", &report["result"]["size"]);
    body += &list("Not right, the first of them", &report["result"]["samples"]);
    body += &table("The generator's own ceiling", &report["ceiling"]);
    body += &table("Usage", &report["usage"]);
    body += &table("Machine", &report["machine"]);
    body += &table("Versions", &report["versions"]);
    body += &list("Commands", &report["commands"]);
    let raw = escaped(&format!("{report:#}"));
    let _ = writeln!(body, "<details><summary>All numbers as JSON</summary><pre>{raw}</pre></details>");
    page(&format!("terse under load: {}", report["scenario"].as_str().unwrap_or_default()), &body, report)
}

/// The charts of a load test, those without data too.
#[must_use]
pub fn charts(report: &Value) -> Vec<Chart> {
    let seconds = |names: &[(&str, &str)]| lines(&report["seconds"], "second", 0.5, names);
    let samples = |names: &[(&str, &str)]| lines(&report["samples"], "at_seconds", 0.0, names);
    let each = |group: &str| lines_of_group(&report["samples"], group);
    let mut breakers = Chart::new("Breakers", "", each("breakers"));
    breakers.names = BREAKER_STATES;
    vec![
        Chart::new("Rate", "a second", seconds(&[("answers", "requests")])),
        Chart::new(
            "Latency",
            "ms",
            seconds(&[("p50", "p50_ms"), ("p90", "p90_ms"), ("p99", "p99_ms"), ("longest", "max_ms")]),
        ),
        Chart::new(
            "Refused, wrong, late",
            "a second",
            seconds(&[("429 as expected", "limited"), ("refused", "refused"), ("wrong", "wrong"), ("late", "late")]),
        ),
        Chart::new("Redirects by tier", "a second", each("tiers")),
        Chart::new("Answered from memory or Redis", "% of redirects", samples(&[("hit ratio", "hit_percent")])),
        breakers,
        Chart::new(
            "Clicks not counted yet",
            "",
            samples(&[("lag, s", "lag_seconds"), ("blocks pending", "blocks_pending")]),
        ),
        Chart::new(
            "Links, limits and clicks",
            "a second",
            samples(&[
                ("links created", "created_per_second"),
                ("limited", "limited_per_second"),
                ("clicks recorded", "clicks_per_second"),
                ("clicks dropped", "clicks_dropped_per_second"),
            ]),
        ),
        Chart::new(
            "CPU",
            "% of a core",
            samples(&[("server", "server_cpu_percent"), ("generator", "generator_cpu_percent")]),
        ),
        Chart::new("Memory of the server", "MB", samples(&[("resident", "server_memory_mb")])),
    ]
}

/// A line for each of `names` (what it is called, its field) over `rows`; `ahead` is added to a row's time.
fn lines(rows: &Value, time: &str, ahead: f64, names: &[(&str, &str)]) -> Vec<Line> {
    let line = |(name, field): &(&str, &str)| {
        let point = |row: &Value| Some((row[time].as_f64()? + ahead, row[*field].as_f64()));
        let points = rows.as_array().into_iter().flatten().filter_map(point).collect();
        Line { name: (*name).to_owned(), points }
    };
    names.iter().map(line).collect()
}

/// A line for each name in the object `group` of the samples.
fn lines_of_group(samples: &Value, group: &str) -> Vec<Line> {
    let samples = || samples.as_array().into_iter().flatten();
    let mut names: Vec<&String> = Vec::new();
    for name in samples().filter_map(|sample| sample[group].as_object()).flat_map(serde_json::Map::keys) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let point = |sample: &Value, name: &str| Some((sample["at_seconds"].as_f64()?, sample[group][name].as_f64()));
    let line = |name: &String| Line { name: name.clone(), points: samples().filter_map(|s| point(s, name)).collect() };
    names.into_iter().map(line).collect()
}

fn thresholds(thresholds: &Value) -> String {
    let row = |threshold: &Value| {
        let met = threshold["met"] == true;
        let sign = |bound: &str, sign: &str| threshold[bound].as_f64().map(|limit| format!("{sign} {limit}"));
        let limit = sign("at_most", "≤").or_else(|| sign("at_least", "≥")).unwrap_or_default();
        format!(
            "<tr><td>{}</td><td class=\"number\">{}</td><td>{limit}</td><td class=\"{}\">{}</td></tr>\n",
            escaped(&shown(&threshold["what"])),
            escaped(&shown(&threshold["measured"])),
            if met { "good" } else { "bad" },
            if met { "ok" } else { "failed" }
        )
    };
    let rows: String = thresholds.as_array().into_iter().flatten().map(row).collect();
    format!("<table><tr><th>Threshold</th><th>Measured</th><th>Limit</th><th></th></tr>\n{rows}</table>\n")
}

fn kinds(result: &Value) -> String {
    const FIELDS: [&str; 9] =
        ["requests", "limited", "refused", "wrong", "late", "p50_ms", "p90_ms", "p99_ms", "max_ms"];
    let row = |name: &str, tally: &Value| {
        let cells = FIELDS.iter().map(|field| format!("<td class=\"number\">{}</td>", escaped(&shown(&tally[*field]))));
        format!("<tr><td>{}</td>{}</tr>\n", escaped(name), cells.collect::<String>())
    };
    let head: String = FIELDS.iter().map(|field| format!("<th>{}</th>", field.replace("_ms", ", ms"))).collect();
    let kinds = result["kinds"].as_object().into_iter().flatten();
    let rows: String = kinds.map(|(name, tally)| row(name, tally)).collect();
    format!(
        "<h2>By kind</h2>\n<div class=\"wide\"><table><tr><th></th>{head}</tr>\n{rows}{}</table></div>\n",
        row("all", result)
    )
}

fn table(title: &str, object: &Value) -> String {
    let Some(object) = object.as_object() else { return String::new() };
    let row = |(name, value): (&String, &Value)| {
        format!("<tr><td>{}</td><td>{}</td></tr>\n", escaped(&name.replace('_', " ")), escaped(&shown(value)))
    };
    let rows: String = object.iter().map(row).collect();
    format!("<h2>{}</h2>\n<table class=\"facts\">{rows}</table>\n", escaped(title))
}

fn list(title: &str, items: &Value) -> String {
    let items: String = items
        .as_array()
        .into_iter()
        .flatten()
        .map(|item| format!("<li><code>{}</code></li>\n", escaped(&shown(item))))
        .collect();
    if items.is_empty() { String::new() } else { format!("<h2>{}</h2>\n<ul>{items}</ul>\n", escaped(title)) }
}

/// A value as one reads it: no quotation marks, no digits that mean nothing.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "–".to_owned(),
        Value::Number(number) if number.is_f64() => crate::bench::stats::number(number.as_f64().unwrap_or_default()),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report() -> Value {
        json!({
            "scenario": "smoke", "tool": "goose", "date": "2026-11-23T12:00:00Z", "verdict": "passed",
            "warnings": ["the generator is <slow>"],
            "seconds": [
                {"second": 0, "requests": 10, "p50_ms": 1.0, "p90_ms": 2.0, "p99_ms": 3.0, "max_ms": 4.0, "wrong": 0},
                {"second": 1, "requests": 12, "p50_ms": 1.0, "p90_ms": 2.0, "p99_ms": 3.0, "max_ms": 4.0, "wrong": 1},
            ],
            "samples": [
                {"at_seconds": 0.5, "tiers": {"l1": 5.0}, "breakers": {"main/read": 0.0}, "lag_seconds": 0.1},
                {"at_seconds": 1.5, "tiers": {"l1": 6.0, "l2": 1.0}, "breakers": {"main/read": 2.0}},
            ],
            "result": {
                "requests": 22, "kinds": {"redirect": {"requests": 22}},
                "samples": ["/a: 200, it says \"<script>alert(1)</script>\""],
                "thresholds": [{"what": "p99, ms", "at_most": 50.0, "measured": 3.0, "met": true},
                               {"what": "wrong answers", "at_most": 0.0, "measured": 1.0, "met": false}],
            },
            "commands": ["cargo xtask load smoke"], "machine": {"cpu": "x & y"},
        })
    }

    #[test]
    fn a_page_needs_nothing_from_elsewhere_and_runs_nothing() {
        let page = load_page(&report());
        for forbidden in ["http://", "https://", "src=", "@import", "url("] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
        assert_eq!(page.matches("<script").count(), 1, "the data, which is no program");
        assert!(page.contains("prefers-color-scheme: dark") && page.contains("name=\"viewport\""));
    }

    #[test]
    fn what_a_server_sent_is_escaped_wherever_it_stands() {
        let page = load_page(&report());
        assert!(
            page.contains("&lt;script&gt;alert(1)&lt;/script&gt;") && page.contains("the generator is &lt;slow&gt;")
        );
        assert!(!page.contains("<script>alert") && !page.contains("</script>alert"));
        assert!(page.contains("x &amp; y"));
        let data = page.split("id=\"data\">").nth(1).unwrap().split("</script>").next().unwrap();
        assert_eq!(serde_json::from_str::<Value>(data).unwrap(), report(), "the data is all there");
    }

    #[test]
    fn charts_have_the_data_and_those_without_are_left_out() {
        let page = load_page(&report());
        assert!(page.contains("aria-label=\"Rate\"") && page.contains("aria-label=\"Breakers\""));
        assert!(!page.contains("aria-label=\"Memory of the server\""));
        let charts = charts(&report());
        let tiers = charts.iter().find(|chart| chart.title == "Redirects by tier").unwrap();
        assert_eq!(tiers.lines[1].points, [(0.5, None), (1.5, Some(1.0))]);
        assert_eq!(charts[0].lines[0].points, [(0.5, Some(10.0)), (1.5, Some(12.0))]);
    }

    #[test]
    fn verdict_and_thresholds_are_told() {
        let page = load_page(&report());
        assert!(page.contains("class=\"verdict good\">passed") && page.contains("≤ 50"));
        assert_eq!(page.matches("<td class=\"bad\">failed").count(), 1);
        let mut failed = report();
        failed["verdict"] = "failed".into();
        assert!(load_page(&failed).contains("class=\"verdict bad\">failed"));
    }

    #[test]
    fn an_empty_report_is_a_page_too() {
        let page = load_page(&json!({}));
        assert!(page.contains("</html>") && !page.contains("<figure"));
    }
}
