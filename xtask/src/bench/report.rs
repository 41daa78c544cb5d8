//! What a benchmark tells: a table, the promised numbers beside the measured
//! ones, and a file with everything that is needed to judge or repeat it.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use super::stats::{Spread, number, rounded};

/// One measured quantity of one round: its name with the unit, and its value.
pub type Reading = (&'static str, f64);

/// The readings of one contender, round by round.
pub struct Series {
    /// Who or what was measured.
    pub name: String,
    rounds: Vec<Vec<Reading>>,
    /// Whether the rounds are points of a curve, one after the other.
    curve: bool,
}

impl Series {
    /// No rounds yet.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), rounds: Vec::new(), curve: false }
    }

    /// A curve without points yet: it has no spread, and is in the file alone.
    #[must_use]
    pub fn curve(name: &str) -> Self {
        Self { curve: true, ..Self::new(name) }
    }

    /// Adds a round.
    pub fn add(&mut self, round: Vec<Reading>) {
        self.rounds.push(round);
    }

    /// What was read under `name`, round by round.
    #[must_use]
    pub fn values(&self, name: &str) -> Vec<f64> {
        self.rounds.iter().filter_map(|round| round.iter().find(|(key, _)| *key == name)).map(|(_, v)| *v).collect()
    }

    /// The spread of `name` over the rounds.
    #[must_use]
    pub fn spread(&self, name: &str) -> Option<Spread> {
        Spread::of(&self.values(name))
    }

    fn json(&self) -> Value {
        let object = |round: &Vec<Reading>| -> Map<String, Value> {
            round.iter().map(|(name, value)| ((*name).to_owned(), rounded(*value).into())).collect()
        };
        // A reading may be missing in some rounds; the first one too.
        let mut names: Vec<&'static str> = Vec::new();
        for (name, _) in self.rounds.iter().flatten() {
            if !names.contains(name) {
                names.push(name);
            }
        }
        if self.curve {
            let column = |name: &&'static str| {
                ((*name).to_owned(), self.values(name).into_iter().map(rounded).collect::<Vec<_>>().into())
            };
            return json!({"name": self.name, "points": names.iter().map(column).collect::<Map<_, _>>()});
        }
        let spread: Map<String, Value> =
            names.into_iter().filter_map(|name| Some((name.to_owned(), self.spread(name)?.json()))).collect();
        json!({"name": self.name, "rounds": self.rounds.iter().map(object).collect::<Vec<_>>(), "spread": spread})
    }
}

/// A number that terse promises, and what was measured.
pub struct Promise {
    /// What is promised, in words.
    pub what: &'static str,
    /// The limit.
    pub limit: f64,
    /// Whether the measured number must be at least the limit, rather than at most.
    pub at_least: bool,
    /// What was measured; `None` = it wasn't.
    pub measured: Option<f64>,
}

impl Promise {
    fn met(&self) -> Option<bool> {
        self.measured.map(|measured| if self.at_least { measured >= self.limit } else { measured <= self.limit })
    }

    fn line(&self) -> String {
        let verdict = match self.met() {
            Some(true) => "met",
            Some(false) => "missed",
            None => "not measured",
        };
        let sign = if self.at_least { "≥" } else { "≤" };
        let measured = self.measured.map_or_else(String::new, number);
        format!("{:<62}{sign} {:>8}  {measured:>10}  {verdict}\n", self.what, number(self.limit))
    }

    fn json(&self) -> Value {
        let bound = if self.at_least { "at_least" } else { "at_most" };
        json!({"what": self.what, bound: self.limit, "measured": self.measured.map(rounded), "met": self.met()})
    }
}

/// All that a benchmark found.
pub struct Report {
    /// The benchmark's name and the measurement file's.
    pub name: &'static str,
    /// Who was measured.
    pub series: Vec<Series>,
    /// What was promised.
    pub promises: Vec<Promise>,
    /// What one must know to read the numbers, one sentence or two each.
    pub notes: Vec<String>,
}

impl Report {
    /// Per contender its medians, with the smallest and the largest below them.
    #[must_use]
    pub fn table(&self) -> String {
        let shown = || self.series.iter().filter(|series| !series.curve);
        let mut columns: Vec<&'static str> = Vec::new();
        for (name, _) in shown().flat_map(|series| series.rounds.iter().flatten()) {
            if !columns.contains(name) {
                columns.push(name);
            }
        }
        let mut rows = vec![[String::new()].into_iter().chain(columns.iter().map(|name| (*name).to_owned())).collect()];
        for series in shown() {
            let spreads: Vec<Option<Spread>> = columns.iter().map(|name| series.spread(name)).collect();
            let cells = |text: &dyn Fn(&Spread) -> String| -> Vec<String> {
                spreads.iter().map(|spread| spread.as_ref().map(text).unwrap_or_default()).collect()
            };
            let medians = cells(&|spread| number(spread.median));
            let ranges = cells(&|spread| format!("{}–{}", number(spread.min), number(spread.max)));
            rows.push([series.name.clone()].into_iter().chain(medians).collect::<Vec<String>>());
            rows.push(["  min–max".to_owned()].into_iter().chain(ranges).collect());
        }
        aligned(&rows)
    }

    /// The promised numbers, each met or missed.
    #[must_use]
    pub fn promises(&self) -> String {
        self.promises.iter().map(Promise::line).collect()
    }

    /// What one must know to read the numbers.
    #[must_use]
    pub fn notes(&self) -> String {
        self.notes.iter().map(|note| format!("note: {note}\n")).collect()
    }

    /// Everything, for the measurement file. `about` says where, with what and how.
    #[must_use]
    pub fn json(&self, about: Value) -> Value {
        let mut whole = json!({"name": self.name});
        if let (Some(whole), Value::Object(about)) = (whole.as_object_mut(), about) {
            whole.extend(about);
            if !self.notes.is_empty() {
                whole.insert("notes".into(), json!(self.notes));
            }
            whole.insert("promises".into(), self.promises.iter().map(Promise::json).collect());
            whole.insert("contenders".into(), self.series.iter().map(Series::json).collect());
        }
        whole
    }

    /// Writes the measurement file and returns its path.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write(&self, folder: &Path, about: Value) -> Result<PathBuf> {
        let path = folder.join(self.name).with_extension("json");
        fs::create_dir_all(folder)?;
        let text = serde_json::to_string_pretty(&self.json(about))? + "\n";
        fs::write(&path, text).with_context(|| path.display().to_string())?;
        Ok(path)
    }
}

/// The first column to the left, the others to the right.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            let width = widths[column];
            let _ = if column == 0 { write!(text, "{cell:<width$}") } else { write!(text, "  {cell:>width$}") };
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut series = Series::new("terse");
        series.add(vec![("per_second", 1_000.0), ("p99_ms", 1.0)]);
        series.add(vec![("per_second", 3_000.0), ("p99_ms", 2.0)]);
        series.add(vec![("per_second", 2_000.0), ("p99_ms", 3.0)]);
        let promise = Promise { what: "fast", limit: 1_500.0, at_least: true, measured: Some(2_000.0) };
        Report { name: "sample", series: vec![series], promises: vec![promise], notes: vec!["alone".into()] }
    }

    #[test]
    fn the_table_has_medians_with_their_spread_below() {
        let table = report().table();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines[0], "           per_second       p99_ms");
        assert_eq!(lines[1], "terse            2000        2.000");
        assert_eq!(lines[2], "  min–max   1000–3000  1.000–3.000");
    }

    #[test]
    fn a_reading_that_a_contender_lacks_stays_empty() {
        let mut report = report();
        let mut other = Series::new("other");
        other.add(vec![("p99_ms", 4.0)]);
        report.series.push(other);
        assert_eq!(report.table().lines().nth(3).unwrap(), "other                        4.000");
        assert_eq!(report.series[1].values("per_second"), Vec::<f64>::new());
    }

    #[test]
    fn a_reading_that_the_first_round_lacks_is_in_the_file_nevertheless() {
        let mut series = Series::new("x");
        series.add(vec![("p99_ms", 4.0)]);
        series.add(vec![("p99_ms", 4.0), ("ratio", 1.5)]);
        assert_eq!(series.json()["spread"]["ratio"]["median"], 1.5);
    }

    #[test]
    fn a_curve_is_in_the_file_by_columns_and_not_in_the_table() {
        let mut curve = Series::curve("admitted");
        curve.add(vec![("ms", 0.0), ("passed", 7.0)]);
        curve.add(vec![("ms", 500.0), ("passed", 9.0)]);
        assert_eq!(curve.json(), json!({"name": "admitted", "points": {"ms": [0.0, 500.0], "passed": [7.0, 9.0]}}));
        let mut report = report();
        let table = report.table();
        report.series.push(curve);
        assert_eq!(report.table(), table);
    }

    #[test]
    fn promises_are_met_missed_or_not_measured() {
        let promise = |measured, at_least| Promise { what: "x", limit: 5.0, at_least, measured };
        assert!(promise(Some(5.0), false).line().ends_with("met\n"));
        assert!(promise(Some(5.1), false).line().ends_with("missed\n"));
        assert!(promise(Some(5.1), true).line().ends_with("met\n"));
        assert!(promise(Some(4.9), true).line().ends_with("missed\n"));
        assert!(promise(None, true).line().ends_with("not measured\n"));
        assert_eq!(promise(Some(4.9), true).met(), Some(false));
    }

    #[test]
    fn the_file_has_every_round_and_what_is_needed_to_repeat_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = report().write(folder.path(), json!({"command": "cargo xtask"})).unwrap();
        assert!(path.ends_with("sample.json"));
        let written: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        assert_eq!(written["command"], "cargo xtask");
        assert_eq!(written["contenders"][0]["rounds"][1]["per_second"], 3_000.0);
        assert_eq!(written["contenders"][0]["spread"]["p99_ms"]["median"], 2.0);
        assert_eq!(written["promises"][0]["met"], true);
        assert_eq!(written["promises"][0]["at_least"], 1_500.0);
        assert_eq!(written["notes"][0], "alone");
    }
}
