//! The charts of the book: `{{chart NAME}}` becomes a figure, drawn at each build.
//!
//! `docs/charts.toml` says what each is of: places in a file of `docs/measurements/`, or claims. So a chart is as old
//! as its data; one whose data is missing fails the build.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::bars;
use super::pages::{Page, names};
use crate::claims::file::Claims;
use crate::claims::value::{find, significant};
use crate::load::chart::{self, HEIGHT, WIDTH};
use crate::load::page::escaped;
use crate::workspace::Workspace;

/// Where the charts are told.
const CHARTS: &str = "docs/charts.toml";
/// The word of a page for a chart.
pub const WORD: &str = "chart";
/// Significant digits of a value.
const DIGITS: u32 = 3;

/// The value of a claim, and how it is shown.
pub type OfClaim<'a> = &'a dyn Fn(&str) -> Result<(f64, String)>;

/// The file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    chart: Vec<Chart>,
}

/// One chart: bars or lines.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Chart {
    /// Its name: `{{chart NAME}}`.
    id: String,
    /// What it shows.
    title: String,
    /// What its values are in.
    #[serde(default)]
    unit: String,
    /// What there is to see in it, for those who don't.
    alt: String,
    /// What a reader has to know beside it.
    #[serde(default)]
    note: String,
    /// The file in `docs/measurements/` that its data is in.
    file: Option<String>,
    #[serde(default)]
    bar: Vec<Bar>,
    #[serde(default)]
    line: Vec<Line>,
}

/// A bar: a place in the file, or a claim.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bar {
    name: String,
    /// A number, or an object with `median`, `min` and `max`.
    at: Option<String>,
    claim: Option<String>,
    #[serde(default)]
    ours: bool,
}

/// A line: what a limiter was asked for or let through by then.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    name: String,
    rule: String,
    schedule: String,
    /// `offered` or `passed`.
    of: String,
}

/// All charts, with the files that they are drawn from.
#[derive(Debug)]
pub struct Charts {
    charts: Vec<Chart>,
    files: BTreeMap<String, Value>,
}

impl Charts {
    /// Reads what is told of them, and their data.
    ///
    /// # Errors
    /// When a file can't be read, or a chart makes no sense.
    pub fn read(workspace: &Workspace) -> Result<Self> {
        let load = |path: &str| {
            let path = workspace.root.join(path);
            fs::read_to_string(&path).with_context(|| path.display().to_string())
        };
        let json = |file: &str| -> Result<Value> {
            let text = load(&format!("docs/measurements/{file}"))?;
            serde_json::from_str(&text).with_context(|| file.to_owned())
        };
        Self::parse(&load(CHARTS)?, &json).context(CHARTS)
    }

    /// Reads what `text` tells, with the files that `json` gives.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn parse(text: &str, json: &dyn Fn(&str) -> Result<Value>) -> Result<Self> {
        let File { chart: charts } = toml::from_str(text)?;
        let mut files = BTreeMap::new();
        for (place, chart) in charts.iter().enumerate() {
            let id = &chart.id;
            ensure!(!charts[..place].iter().any(|other| other.id == *id), "there are two charts '{id}'");
            ensure!(!chart.title.is_empty() && !chart.alt.is_empty(), "chart '{id}' has no title or no alt");
            ensure!(chart.bar.is_empty() != chart.line.is_empty(), "chart '{id}' has bars or lines, one of them");
            for bar in &chart.bar {
                let has_place = bar.at.is_some() && chart.file.is_some();
                ensure!(
                    has_place != bar.claim.is_some(),
                    "chart '{id}': '{}' is a place in a file or a claim",
                    bar.name
                );
            }
            if let Some(file) = &chart.file
                && !files.contains_key(file)
            {
                files.insert(file.clone(), json(file)?);
            }
        }
        Ok(Self { charts, files })
    }

    /// The claims that are shown.
    pub fn claims(&self) -> impl Iterator<Item = &str> {
        self.charts.iter().flat_map(|chart| &chart.bar).filter_map(|bar| bar.claim.as_deref())
    }

    /// The chart as a figure for a page that reaches the others by `up`.
    ///
    /// # Errors
    /// When there is no such chart, or no data for it.
    pub fn html(&self, id: &str, up: &str, claim: OfClaim<'_>) -> Result<String> {
        let chart = self.charts.iter().find(|chart| chart.id == id);
        let chart = chart.with_context(|| format!("there is no chart '{id}'"))?;
        self.figure(chart, up, claim).with_context(|| format!("chart '{id}'"))
    }

    fn figure(&self, chart: &Chart, up: &str, claim: OfClaim<'_>) -> Result<String> {
        if !chart.line.is_empty() {
            let lines = chart.line.iter().map(|line| self.line(chart, line)).collect::<Result<Vec<_>>>()?;
            let drawn = chart::Chart::new(&chart.title, "", lines);
            let key =
                |(colour, text): (usize, String)| format!("<span class=\"key c{colour}\"></span>{} ", escaped(&text));
            let legend: String = drawn.keys().map(key).collect();
            return Ok(chart.framed((&drawn.drawing(), HEIGHT), &chart.alt, &legend, up));
        }
        let bars = chart.bar.iter().map(|bar| self.bar(chart, bar, claim)).collect::<Result<Vec<_>>>()?;
        let values: Vec<String> = bars.iter().map(|bar| format!("{}: {}", bar.name, bar.shown)).collect();
        let told = format!("{} {}", chart.alt, values.join("; "));
        Ok(chart.framed((&bars::drawing(&bars), bars::height(bars.len())), &told, "", up))
    }

    /// What stands at `at` in the chart's file.
    fn at(&self, chart: &Chart, at: &str) -> Result<&Value> {
        let file = chart.file.as_ref().and_then(|file| self.files.get(file)).context("it has no file")?;
        find(file, at)
    }

    fn bar(&self, chart: &Chart, bar: &Bar, claim: OfClaim<'_>) -> Result<bars::Bar> {
        let (name, ours) = (bar.name.clone(), bar.ours);
        if let Some(id) = &bar.claim {
            let (value, shown) = claim(id)?;
            return Ok(bars::Bar { name, value, spread: None, shown, ours });
        }
        let found = self.at(chart, bar.at.as_deref().unwrap_or_default())?;
        let written = |value: f64| significant(value, DIGITS);
        let unit = if chart.unit.is_empty() { String::new() } else { format!(" {}", chart.unit) };
        if let Some(value) = found.as_f64() {
            return Ok(bars::Bar { name, value, spread: None, shown: format!("{}{unit}", written(value)), ours });
        }
        let part = |part: &str| found[part].as_f64().with_context(|| format!("'{name}' has no {part}"));
        let (value, least, greatest) = (part("median")?, part("min")?, part("max")?);
        let shown = format!("{}{unit} ({}–{})", written(value), written(least), written(greatest));
        Ok(bars::Bar { name, value, spread: Some((least, greatest)), shown, ours })
    }

    /// What a limiter was asked for or let through, added up.
    fn line(&self, chart: &Chart, line: &Line) -> Result<chart::Line> {
        let Line { name, rule, schedule, of } = line;
        let curves = self.at(chart, "curves")?.as_array().context("the file has no curves")?;
        let curve = curves.iter().find(|curve| curve["rule"] == **rule && curve["schedule"] == **schedule);
        let curve = curve.with_context(|| format!("there is no curve of {rule}, {schedule}"))?;
        let column = |name: &str| -> Result<Vec<f64>> {
            serde_json::from_value(curve[name].clone()).with_context(|| format!("{rule}, {schedule}: '{name}'"))
        };
        let (seconds, counts) = (column("seconds")?, column(of)?);
        if seconds.is_empty() || seconds.len() != counts.len() {
            bail!("{rule}, {schedule}: {} times and {} counts", seconds.len(), counts.len());
        }
        let sums = counts.iter().scan(0.0, |sum, count| {
            *sum += count;
            Some(Some(*sum))
        });
        Ok(chart::Line { name: name.clone(), points: seconds.into_iter().zip(sums).collect() })
    }

    /// What is wrong with the charts and with the pages' use of them, a line each.
    #[must_use]
    pub fn problems(&self, pages: &[Page], claims: &Claims) -> Vec<String> {
        let of_claim = |id: &str| -> Result<(f64, String)> {
            let claim = claims.get(id).with_context(|| format!("there is no claim '{id}'"))?;
            Ok((1.0, claim.shown(1.0)))
        };
        let mut problems: Vec<String> = Vec::new();
        let mut used: Vec<String> = Vec::new();
        for page in pages {
            let wanted = names(&page.text).into_iter().filter(|(word, _)| word == WORD);
            for (_, name) in wanted {
                problems.extend(self.html(&name, "", &of_claim).err().map(|error| format!("{}: {error:#}", page.path)));
                used.push(name);
            }
        }
        let unused = self.charts.iter().filter(|chart| !used.contains(&chart.id));
        problems.extend(unused.map(|chart| format!("no page needs the chart '{}'", chart.id)));
        problems
    }
}

impl Chart {
    /// As one block of HTML: an empty line within would end it.
    fn framed(&self, (drawing, height): (&str, f64), alt: &str, legend: &str, up: &str) -> String {
        let unit = if self.unit.is_empty() { String::new() } else { format!(", {}", self.unit) };
        let legend = if legend.is_empty() { String::new() } else { format!("<p class=\"legend\">{legend}</p>") };
        let note = if self.note.is_empty() { String::new() } else { format!("{} ", escaped(&self.note)) };
        format!(
            "<figure class=\"chart\" id=\"chart-{}\"><figcaption>{}</figcaption>\
             <svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">{drawing}</svg>\
             {legend}<p class=\"legend\">{note}{}</p></figure>\n",
            escaped(&self.id),
            escaped(&format!("{}{unit}", self.title)),
            escaped(alt),
            self.origin(up)
        )
    }

    /// Where the data is.
    fn origin(&self, up: &str) -> String {
        let file = self.file.iter().map(|file| format!("<a href=\"{up}measurements/{file}\">{file}</a>"));
        let claims = self.bar.iter().filter_map(|bar| bar.claim.as_ref());
        let claims = claims.map(|id| format!("<a href=\"{up}claims.html#{id}\">{id}</a>"));
        format!("From {}.", file.chain(claims).collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TEXT: &str = r#"
        [[chart]]
        id = "cpu"
        title = "CPU of a redirect"
        unit = "µs"
        alt = "Ours is between the others."
        note = "Whiskers: all rounds."
        file = "redirect.json"
        [[chart.bar]]
        name = "nginx"
        at = "contenders/nginx/spread/cpu"
        [[chart.bar]]
        name = "<ours>"
        at = "contenders/ours/cpu"
        ours = true

        [[chart]]
        id = "breaker"
        title = "Calls"
        alt = "Few."
        bar = [{ name = "textbook's", claim = "theirs" }]

        [[chart]]
        id = "burst"
        title = "Units so far"
        alt = "A step."
        file = "curves.json"
        line = [{ name = "bucket", rule = "token-bucket", schedule = "burst", of = "passed" }]
    "#;

    fn data(file: &str) -> Result<Value> {
        match file {
            "redirect.json" => Ok(json!({"contenders": [
                {"name": "nginx", "spread": {"cpu": {"median": 8.865, "min": 6.868, "max": 8.9}}},
                {"name": "ours", "cpu": 7.0}]})),
            "curves.json" => Ok(json!({"curves": [{"rule": "token-bucket", "schedule": "burst",
                "seconds": [0.0, 0.5, 1.0], "passed": [0, 100, 5], "offered": [0, 200, 5]}]})),
            _ => bail!("there is no {file}"),
        }
    }

    fn claim(id: &str) -> Result<(f64, String)> {
        if id == "theirs" { Ok((1_000.0, "1,000".to_owned())) } else { bail!("there is no claim '{id}'") }
    }

    fn charts() -> Charts {
        Charts::parse(TEXT, &data).unwrap()
    }

    fn page(text: &str) -> Page {
        Page { path: "page.md".to_owned(), text: text.to_owned() }
    }

    #[test]
    fn bars_have_the_values_of_the_file_with_their_spread() {
        let html = charts().html("cpu", "../", &claim).unwrap();
        assert!(html.contains("<figcaption>CPU of a redirect, µs</figcaption>"), "{html}");
        assert!(html.contains("8.87 µs (6.87–8.9)") && html.contains(">7 µs<"), "{html}");
        assert!(
            html.contains("aria-label=\"Ours is between the others. nginx: 8.87 µs (6.87–8.9); &lt;ours&gt;: 7 µs\"")
        );
        assert!(html.contains("Whiskers: all rounds. From <a href=\"../measurements/redirect.json\">"), "{html}");
        assert!(html.starts_with("<figure") && !html.trim_end().contains("\n\n"), "one block");
    }

    #[test]
    fn bars_of_claims_lead_to_them() {
        let html = charts().html("breaker", "", &claim).unwrap();
        assert!(html.contains(">1,000<") && html.contains("From <a href=\"claims.html#theirs\">theirs</a>."), "{html}");
        assert_eq!(charts().claims().collect::<Vec<_>>(), ["theirs"]);
    }

    #[test]
    fn a_line_is_what_passed_by_then() {
        let html = charts().html("burst", "", &claim).unwrap();
        assert!(html.contains("bucket ≤ 105") && html.matches("class=\"line ").count() == 1, "{html}");
        let points = charts().line(&charts().charts[2], &charts().charts[2].line[0]).unwrap().points;
        assert_eq!(points, [(0.0, Some(0.0)), (0.5, Some(100.0)), (1.0, Some(105.0))]);
    }

    #[test]
    fn a_chart_without_data_is_an_error() {
        for (from, to, told) in [
            ("contenders/nginx", "contenders/apache", "there is no 'apache'"),
            ("spread/cpu", "spread", "'nginx' has no median"),
            ("claim = \"theirs\"", "claim = \"none\"", "there is no claim 'none'"),
            ("rule = \"token-bucket\"", "rule = \"none\"", "there is no curve of none, burst"),
            ("of = \"passed\"", "of = \"none\"", "'none'"),
        ] {
            let charts = Charts::parse(&TEXT.replace(from, to), &data).unwrap();
            let errors = ["cpu", "breaker", "burst"].map(|id| charts.html(id, "", &claim).err());
            let told_of: Vec<String> = errors.into_iter().flatten().map(|error| format!("{error:#}")).collect();
            assert!(told_of.len() == 1 && told_of[0].contains(told), "{told}: {told_of:?}");
        }
        assert!(charts().html("none", "", &claim).is_err());
    }

    #[test]
    fn a_chart_that_makes_no_sense_is_refused() {
        for (from, to) in [
            ("redirect.json", "none.json"),
            ("id = \"breaker\"", "id = \"cpu\""),
            ("alt = \"Few.\"", "alt = \"\""),
            ("claim = \"theirs\"", "at = \"x\""),
            ("claim = \"theirs\"", ""),
            ("bar = [{ name = \"textbook's\", claim = \"theirs\" }]", ""),
            ("alt =", "alter ="),
        ] {
            assert!(Charts::parse(&TEXT.replace(from, to), &data).is_err(), "{to}");
        }
    }

    #[test]
    fn charts_that_no_page_needs_and_names_without_a_chart_are_problems() {
        let claims = Claims::parse(
            "[[claim]]\nid = \"theirs\"\ntext = \"x\"\nkind = \"cited\"\nsource = \"https://example.com/\"\n\
             value = 1.0",
        );
        let claims = claims.unwrap();
        let all = page("{{chart cpu}} {{chart breaker}}\n{{chart burst}}");
        assert_eq!(charts().problems(&[all], &claims), Vec::<String>::new());
        let problems = charts().problems(&[page("{{chart cpu}} {{chart pie}} {{chart burst}}")], &claims);
        assert_eq!(problems, ["page.md: there is no chart 'pie'", "no page needs the chart 'breaker'"]);
    }

    #[test]
    fn each_chart_of_the_book_is_drawn_from_data_that_is_there() {
        let workspace = Workspace::find().unwrap();
        let charts = Charts::read(&workspace).unwrap();
        let problems =
            charts.problems(&super::super::pages::read(&workspace).unwrap(), &Claims::read(&workspace).unwrap());
        assert!(charts.charts.len() >= 8 && problems.is_empty(), "{problems:#?}");
    }
}
