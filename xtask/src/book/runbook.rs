//! `docs/runbook.md` beside `deploy/prometheus/alerts.yml`: every alert has its heading and every heading its alert,
//! each says what there is to say, and what both name exists: metrics, labels, anchors. That the drills and tests of the
//! page exist is checked with those of the whole book.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::alerts::{self, Alert, Metric};
use super::pages::anchors;

/// The rules, from the workspace's root.
const ALERTS: &str = "deploy/prometheus/alerts.yml";
/// What to do when they are raised.
const RUNBOOK: &str = "docs/runbook.md";
/// Where the metrics are that rules may name.
pub(super) const METRICS: &str = "docs/reference/metrics.md";
/// What stands before the name of a heading that is an alert's.
const HEADING: &str = "### ";
/// How a rule leads to its heading: below the address of a server that serves the book.
const URL: &str = "http://localhost:8080/docs/runbook.html#";
/// What there is to say under each heading, in this order.
const PARTS: [&str; 7] = ["Means", "Users see", "Look first", "Causes", "Do", "Never", "Drill"];
/// How grave an alert is.
const SEVERITIES: [&str; 2] = ["critical", "warning"];

/// What is wrong, a line each.
///
/// # Errors
/// When a file can't be read, or the rules are none.
pub fn problems(root: &Path) -> Result<Vec<String>> {
    let read = |path: &str| {
        let path = root.join(path);
        fs::read_to_string(&path).with_context(|| path.display().to_string())
    };
    let (alerts, metrics) = (alerts::parse(&read(ALERTS)?)?, alerts::metrics(&read(METRICS)?));
    let page = read(RUNBOOK)?;
    let mut problems: Vec<String> = alerts.iter().flat_map(|alert| of_rule(alert, &metrics)).collect();
    problems.extend(of_page(&page, &alerts));
    Ok(problems)
}

/// What is wrong with a rule.
fn of_rule(alert: &Alert, metrics: &BTreeMap<String, Metric>) -> Vec<String> {
    let mut problems = alerts::problems(&alert.expr, metrics);
    let text = |name: &str| alert.texts.get(name).map_or("", String::as_str);
    if !SEVERITIES.contains(&text("severity")) {
        problems.push(format!("severity is one of {}", SEVERITIES.join(", ")));
    }
    if text("summary").is_empty() {
        problems.push("no summary".to_owned());
    }
    let expected = format!("{URL}{}", alert.name.to_lowercase());
    if text("runbook_url") != expected {
        problems.push(format!("runbook_url is not {expected}"));
    }
    let (number, unit) = alert.lasts.split_at(alert.lasts.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(0));
    if number.is_empty() || !["s", "m", "h"].contains(&unit) {
        problems.push(format!("'{}' is no time", alert.lasts));
    }
    problems.into_iter().map(|problem| format!("{ALERTS}: {}: {problem}", alert.name)).collect()
}

/// What is wrong with the page.
fn of_page(page: &str, alerts: &[Alert]) -> Vec<String> {
    let sections: Vec<(&str, &str)> = page.split(&format!("\n{HEADING}")).skip(1).map(titled).collect();
    let titles: BTreeSet<&str> = sections.iter().map(|(title, _)| *title).collect();
    let names: BTreeSet<&str> = alerts.iter().map(|alert| alert.name.as_str()).collect();
    let mut problems: Vec<String> = names.difference(&titles).map(|name| format!("no heading for {name}")).collect();
    problems.extend(titles.difference(&names).map(|title| format!("there is no alert {title}")));
    if names.len() != alerts.len() || titles.len() != sections.len() {
        problems.push("a name is there twice".to_owned());
    }
    let anchors = anchors(page);
    problems
        .extend(names.iter().filter(|name| !anchors.contains(&name.to_lowercase())).map(|n| format!("no anchor {n}")));
    for (title, text) in sections {
        problems.extend(of_section(text).into_iter().map(|problem| format!("{title}: {problem}")));
    }
    problems.into_iter().map(|problem| format!("{RUNBOOK}: {problem}")).collect()
}

/// A section's heading and what stands under it.
fn titled(section: &str) -> (&str, &str) {
    let (title, text) = section.split_once('\n').unwrap_or((section, ""));
    (title.trim(), text.split("\n## ").next().unwrap_or_default())
}

/// What is not said under a heading, or not in its place.
fn of_section(text: &str) -> Vec<String> {
    let mut problems = vec![];
    let mut from = 0;
    for part in PARTS {
        match text[from..].find(&format!("**{part}.**")) {
            Some(at) => from += at,
            None => problems.push(format!("no '**{part}.**' in its place")),
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Workspace;

    fn alert(name: &str) -> Alert {
        let texts = [
            ("severity", "critical".to_owned()),
            ("summary", "it is so".to_owned()),
            ("runbook_url", format!("{URL}{}", name.to_lowercase())),
        ];
        let texts = texts.map(|(name, text)| (name.to_owned(), text)).into();
        Alert { name: name.to_owned(), expr: "terse_b > 0".to_owned(), lasts: "5m".to_owned(), texts }
    }

    fn section(name: &str, parts: &[&str]) -> String {
        let parts: Vec<String> = parts.iter().map(|part| format!("**{part}.** So and so.")).collect();
        format!("\n{HEADING}{name}\n\n{}\n", parts.join("\n\n"))
    }

    fn told(page: &str) -> Vec<String> {
        of_page(page, &[alert("One"), alert("Two")])
    }

    #[test]
    fn the_runbook_and_the_alerts_are_of_one_piece() {
        let workspace = Workspace::find().unwrap();
        assert_eq!(problems(&workspace.root).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn every_alert_has_a_heading_and_every_heading_an_alert() {
        let (one, two) = (section("One", &PARTS), section("Two", &PARTS));
        assert_eq!(told(&format!("# Page\n{one}{two}\n## Besides\n\n`cargo xtask drill scan --quick`\n")), [""; 0]);
        assert_eq!(told(&one), ["docs/runbook.md: no heading for Two", "docs/runbook.md: no anchor Two"]);
        let three = section("Three", &PARTS);
        assert_eq!(told(&format!("{one}{two}{three}")), ["docs/runbook.md: there is no alert Three"]);
        assert_eq!(told(&format!("{one}{two}{two}")), ["docs/runbook.md: a name is there twice"]);
    }

    #[test]
    fn each_heading_has_all_parts_in_their_order() {
        let lacking = section("One", &PARTS[..6]) + &section("Two", &PARTS);
        assert_eq!(told(&lacking), ["docs/runbook.md: One: no '**Drill.**' in its place"]);
        let swapped = ["Means", "Look first", "Users see", "Causes", "Do", "Never", "Drill"];
        let swapped = section("One", &swapped) + &section("Two", &PARTS);
        assert_eq!(told(&swapped), ["docs/runbook.md: One: no '**Look first.**' in its place"]);
    }

    #[test]
    fn a_rule_has_summary_severity_time_and_the_address_of_its_heading() {
        let metrics =
            BTreeMap::from([("terse_b".to_owned(), Metric { kind: "gauge".to_owned(), ..Metric::default() })]);
        assert_eq!(of_rule(&alert("One"), &metrics), [""; 0]);
        let without = |name: &str| {
            let mut alert = alert("One");
            alert.texts.remove(name);
            of_rule(&alert, &metrics)
        };
        for name in ["severity", "summary", "runbook_url"] {
            let told = without(name);
            assert!(told.len() == 1 && told[0].contains(name), "{told:?}");
        }
        for lasts in ["", "m", "5", "5 m", "5d"] {
            let told = of_rule(&Alert { lasts: lasts.to_owned(), ..alert("One") }, &metrics);
            assert_eq!(told, [format!("{ALERTS}: One: '{lasts}' is no time")]);
        }
        let unknown = of_rule(&alert("One"), &BTreeMap::new());
        assert_eq!(unknown, [format!("{ALERTS}: One: the reference has no terse_b")]);
    }
}
