//! The alerting rules of `deploy/prometheus/alerts.yml`, as far as they can be checked without Prometheus: that they
//! are YAML of the right form, that brackets close, and that metrics, labels, their values and functions are those that
//! there are. What metrics there are is read from the reference.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, anyhow, bail};
use saphyr::{LoadableYamlNode as _, Yaml};

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// What it is called.
    pub name: String,
    /// When it is raised.
    pub expr: String,
    /// How long that must be so.
    pub lasts: String,
    /// Its other texts: `severity`, `summary`, `runbook_url` and so on.
    pub texts: BTreeMap<String, String>,
}

/// What a metric is, as the reference has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metric {
    /// Its type.
    pub kind: String,
    /// Its labels with their values; none for those of any value.
    pub labels: BTreeMap<String, Vec<String>>,
}

/// Reads the rules.
///
/// # Errors
/// When the text is no such file.
pub fn parse(text: &str) -> Result<Vec<Alert>> {
    let documents = Yaml::load_from_str(text).map_err(|error| anyhow!("the rules are no YAML: {error}"))?;
    let [document] = &documents[..] else { bail!("the rules are {} documents", documents.len()) };
    let mut alerts = vec![];
    for group in list(document, "groups")? {
        let name = word(group, "name")?;
        for rule in list(group, "rules").with_context(|| name.to_owned())? {
            alerts.push(alert(rule).with_context(|| format!("a rule of {name}"))?);
        }
    }
    Ok(alerts)
}

fn alert(rule: &Yaml<'_>) -> Result<Alert> {
    let mut texts = BTreeMap::new();
    for part in ["labels", "annotations"] {
        let pairs = rule.as_mapping_get(part).and_then(Yaml::as_mapping).with_context(|| format!("no {part}"))?;
        for (name, value) in pairs {
            let (name, value) = (name.as_str().context("a name")?, value.as_str().context("a text")?);
            texts.insert(name.to_owned(), value.to_owned());
        }
    }
    let name = word(rule, "alert")?.to_owned();
    Ok(Alert { name, expr: word(rule, "expr")?.to_owned(), lasts: word(rule, "for")?.to_owned(), texts })
}

fn list<'a, 'i>(yaml: &'a Yaml<'i>, key: &str) -> Result<&'a [Yaml<'i>]> {
    let value = yaml.as_mapping_get(key).with_context(|| format!("no {key}"))?;
    value.as_vec().map(Vec::as_slice).with_context(|| format!("{key} is no list"))
}

fn word<'a>(yaml: &'a Yaml<'_>, key: &str) -> Result<&'a str> {
    yaml.as_mapping_get(key).and_then(Yaml::as_str).with_context(|| format!("no {key}"))
}

/// The metrics in the reference's tables.
#[must_use]
pub fn metrics(page: &str) -> BTreeMap<String, Metric> {
    let rows = page.lines().filter(|line| line.starts_with("| `terse_"));
    let read = |row: &str| {
        let (metric, told) = row.trim_matches(['|', ' ']).split_once(" | ")?;
        let (name, kind) = metric.split_once("<br>")?;
        let (kind, _unit) = kind.split_once(": ")?;
        // What stands first is what it means.
        let labels = told.split("<br>").skip(1).filter_map(|label| {
            let mut words = spans(label.split(" (").next()?);
            Some((words.next()?.to_owned(), words.map(str::to_owned).collect()))
        });
        Some((spans(name).next()?.to_owned(), Metric { kind: kind.to_owned(), labels: labels.collect() }))
    };
    rows.filter_map(read).collect()
}

/// The texts between backquotes.
fn spans(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// What an expression is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'e> {
    Word(&'e str),
    Text(&'e str),
    Sign(char),
}

fn tokens(expr: &str) -> Result<Vec<Token<'_>>> {
    let mut tokens = vec![];
    let mut rest = expr.trim_start();
    while let Some(first) = rest.chars().next() {
        let is_part = |letter: char| letter.is_ascii_alphanumeric() || "_:.".contains(letter);
        let end = match first {
            '"' => {
                let end = rest[1..].find('"').with_context(|| format!("a text that does not end: {rest}"))? + 2;
                tokens.push(Token::Text(&rest[1..end - 1]));
                end
            }
            letter if is_part(letter) => {
                let end = rest.find(|letter| !is_part(letter)).unwrap_or(rest.len());
                tokens.push(Token::Word(&rest[..end]));
                end
            }
            sign => {
                tokens.push(Token::Sign(sign));
                sign.len_utf8()
            }
        };
        rest = rest[end..].trim_start();
    }
    Ok(tokens)
}

/// Functions that make a rate of a counter.
const OF_COUNTERS: [&str; 2] = ["rate", "increase"];
/// Those and all others.
const FUNCTIONS: [&str; 13] = [
    "rate",
    "increase",
    "sum",
    "max",
    "min",
    "avg",
    "count",
    "abs",
    "time",
    "histogram_quantile",
    "max_over_time",
    "min_over_time",
    "clamp_min",
];
const KEYWORDS: [&str; 7] = ["by", "without", "on", "ignoring", "and", "or", "unless"];
/// Labels that Prometheus adds, and that of buckets.
const GIVEN_LABELS: [&str; 3] = ["instance", "job", "le"];
/// A metric that Prometheus adds.
const UP: &str = "up";

/// What is wrong with an expression.
#[must_use]
pub fn problems(expr: &str, metrics: &BTreeMap<String, Metric>) -> Vec<String> {
    let tokens = match tokens(expr) {
        Ok(tokens) => tokens,
        Err(error) => return vec![error.to_string()],
    };
    let mut walk = Walk { tokens: &tokens, at: 0, open: vec![], metrics, named: 0, problems: vec![] };
    walk.walk();
    if !walk.open.is_empty() {
        walk.problems.push("a bracket does not close".to_owned());
    }
    if walk.named == 0 {
        walk.problems.push("no metric is named".to_owned());
    }
    walk.problems
}

/// Goes through the tokens of an expression.
struct Walk<'e> {
    tokens: &'e [Token<'e>],
    at: usize,
    /// The brackets that are open, with what stands before them.
    open: Vec<(char, &'e str)>,
    metrics: &'e BTreeMap<String, Metric>,
    named: usize,
    problems: Vec<String>,
}

impl<'e> Walk<'e> {
    fn walk(&mut self) {
        let mut before = "";
        while let Some(token) = self.next() {
            match token {
                Token::Sign(sign @ ('(' | '[' | '{')) => self.open.push((sign, before)),
                Token::Sign(sign @ (')' | ']' | '}')) => self.close(sign),
                Token::Word(word) => {
                    self.word(word);
                    before = word;
                    continue;
                }
                Token::Sign(_) | Token::Text(_) => {}
            }
            before = "";
        }
    }

    fn next(&mut self) -> Option<Token<'e>> {
        let token = self.tokens.get(self.at).copied();
        self.at += 1;
        token
    }

    fn peek(&self) -> Option<Token<'e>> {
        self.tokens.get(self.at).copied()
    }

    fn close(&mut self, sign: char) {
        let fits = [('(', ')'), ('[', ']'), ('{', '}')];
        match self.open.pop() {
            Some((open, _)) if fits.contains(&(open, sign)) => {}
            _ => self.problems.push(format!("'{sign}' closes nothing")),
        }
    }

    fn word(&mut self, word: &'e str) {
        let within = self.open.last().copied().unwrap_or((' ', ""));
        let is_call = self.peek() == Some(Token::Sign('('));
        if word.starts_with(|first: char| first.is_ascii_digit()) || KEYWORDS.contains(&word) {
            return;
        }
        if matches!(within, ('(', "by" | "without" | "on" | "ignoring")) {
            if !GIVEN_LABELS.contains(&word) && !self.metrics.values().any(|metric| metric.labels.contains_key(word)) {
                self.problems.push(format!("no metric has the label {word}"));
            }
        } else if FUNCTIONS.contains(&word) {
            // `sum by (…) (…)` has its bracket later.
        } else if word == UP {
            self.named += 1;
            self.selectors(word, &Metric::default());
        } else if is_call {
            self.problems.push(format!("there is no function {word}"));
        } else {
            self.metric(word);
        }
    }

    fn metric(&mut self, word: &'e str) {
        self.named += 1;
        let metrics = self.metrics;
        let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end));
        let histogram = of_histogram.and_then(|name| metrics.get(name)).filter(|metric| metric.kind == "histogram");
        let plain = metrics.get(word).filter(|metric| metric.kind != "histogram");
        let Some(metric) = histogram.or(plain) else {
            self.problems.push(format!("the reference has no {word}"));
            return;
        };
        let function = self.open.iter().rev().find(|(sign, _)| *sign == '(').map_or("", |(_, before)| before);
        let grows = metric.kind != "gauge";
        if grows != OF_COUNTERS.contains(&function) {
            let told = if grows { "only grows: take its rate" } else { "has no rate" };
            self.problems.push(format!("{word} {told}"));
        }
        self.selectors(word, metric);
        let ranged = self.peek() == Some(Token::Sign('['));
        if ranged != (OF_COUNTERS.contains(&function) || function.ends_with("_over_time")) {
            self.problems.push(format!("{word} needs a range exactly where a function takes one"));
        }
    }

    /// What stands in braces behind a metric.
    fn selectors(&mut self, word: &str, metric: &Metric) {
        if self.peek() != Some(Token::Sign('{')) {
            return;
        }
        self.at += 1;
        let (mut label, mut is_equal) = ("", false);
        while let Some(token) = self.next() {
            match token {
                Token::Sign('}') => return,
                Token::Word(name) => {
                    (label, is_equal) = (name, true);
                    if !GIVEN_LABELS.contains(&name) && !metric.labels.contains_key(name) {
                        self.problems.push(format!("{word} has no label {name}"));
                    }
                }
                Token::Sign(sign) => is_equal &= !"!~".contains(sign),
                Token::Text(value) => {
                    let values = metric.labels.get(label).filter(|values| !values.is_empty() && is_equal);
                    if values.is_some_and(|values| !values.iter().any(|known| known == value)) {
                        self.problems.push(format!("{label} of {word} is never {value}"));
                    }
                }
            }
        }
        self.problems.push("a brace does not close".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "| metric, type, unit | meaning, labels |\n|---|---|\n\
        | `terse_a_total`<br>counter: times | grows with `y`<br>`to`: `open`, `closed` (the `x`)<br>`name` (any) |\n\
        | `terse_b`<br>gauge: 0, 1 | moves |\n\
        | `terse_c_seconds`<br>histogram: seconds | takes<br>`shard` (its name) |\n";

    fn told(expr: &str) -> Vec<String> {
        problems(expr, &metrics(PAGE))
    }

    #[test]
    fn the_reference_is_read_with_types_labels_and_values() {
        let metrics = metrics(PAGE);
        assert_eq!(metrics.len(), 3);
        let labels = &metrics["terse_a_total"].labels;
        assert_eq!((labels["to"].join(" "), labels["name"].len()), ("open closed".to_owned(), 0));
        assert!(metrics["terse_b"].labels.is_empty() && metrics["terse_c_seconds"].kind == "histogram");
    }

    #[test]
    fn sound_expressions_are_left_alone() {
        for expr in [
            "terse_b > 0",
            "up{job=\"terse\"} == 0",
            "rate(terse_a_total{to=\"open\"}[5m]) > 0.1",
            "sum by (instance, name) (increase(terse_a_total{name=~\".+/read\", to!=\"x\"}[1h])) > 0",
            "histogram_quantile(0.99, sum by (instance, le) (rate(terse_c_seconds_bucket{shard=\"a\"}[5m]))) > 0.1",
            "min_over_time(terse_b[2m]) > 0 and on (instance) rate(terse_a_total[5m]) > 0",
            "time() - max by (instance) (terse_b) > 300",
            "rate(terse_c_seconds_sum[5m]) / rate(terse_c_seconds_count[5m]) > 1",
        ] {
            assert_eq!(told(expr), Vec::<String>::new(), "{expr}");
        }
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (expr, problem) in [
            ("terse_d > 0", "the reference has no terse_d"),
            ("rate(terse_c_seconds[5m]) > 0", "the reference has no terse_c_seconds"),
            ("rate(terse_b_count[5m]) > 0", "the reference has no terse_b_count"),
            ("terse_a_total > 0", "terse_a_total only grows: take its rate"),
            ("rate(terse_b[5m]) > 0", "terse_b has no rate"),
            ("rate(terse_a_total) > 0", "terse_a_total needs a range exactly where a function takes one"),
            ("terse_b[5m] > 0", "terse_b needs a range exactly where a function takes one"),
            ("rate(terse_a_total{from=\"x\"}[5m]) > 0", "terse_a_total has no label from"),
            ("rate(terse_a_total{to=\"opened\"}[5m]) > 0", "to of terse_a_total is never opened"),
            ("sum by (colour) (terse_b) > 0", "no metric has the label colour"),
            ("mean(terse_b) > 0", "there is no function mean"),
            ("(terse_b > 0", "a bracket does not close"),
            ("terse_b) > 0", "')' closes nothing"),
            ("rate(terse_a_total{to=\"open\"[5m]) > 0", "a brace does not close"),
            ("terse_b{x=\"y} > 0", "a text that does not end"),
            ("1 > 0", "no metric is named"),
        ] {
            let told = told(expr);
            assert!(told.iter().any(|told| told.starts_with(problem)), "{expr}: {told:?}");
        }
    }

    #[test]
    fn rules_are_read_and_what_is_none_is_refused() {
        let rules = "groups:\n  - name: g\n    rules:\n      - alert: A\n        expr: terse_b > 0\n\
            \x20       for: 5m\n        labels: {severity: critical}\n\
            \x20       annotations: {summary: \"s\", runbook_url: \"u\"}\n";
        let alerts = parse(rules).unwrap();
        assert_eq!((alerts.len(), alerts[0].name.as_str(), alerts[0].lasts.as_str()), (1, "A", "5m"));
        assert_eq!((alerts[0].expr.as_str(), alerts[0].texts["severity"].as_str()), ("terse_b > 0", "critical"));
        for broken in
            ["", "groups: 7", "groups:\n  - rules: []", &rules.replace("expr", "exp"), &rules.replace("for", "x")]
        {
            assert!(parse(broken).is_err(), "{broken}");
        }
        assert!(parse(&rules.replace("annotations", "notes")).is_err());
        assert!(parse("groups: [}").is_err());
    }
}
