//! The page of the book and its chart, made of the file of measurements alone: `docs/peers.md`,
//! `docs/measurements/peers.svg`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::super::redirect::{ALL, COUNTING, Who};
use super::super::stats::{Spread, number};
use super::{NAME, peer};
use crate::book::bars::{self, Bar};
use crate::load::chart::WIDTH;
use crate::load::page::STYLE;
use crate::workspace::Workspace;

/// Above this load average over five minutes others had a part in it: server and generator make up 2.
const OTHERS_LOAD: f64 = 2.5;
/// What a peer is.
const OTHER: &str = "another shortener";
/// How many letters of a commit are shown.
const COMMIT_LETTERS: usize = 9;
/// Around the chart, and the height of a group's title.
const MARGIN: f64 = 12.0;
const TITLE: f64 = 36.0;
/// The rules of the chart besides those of pages.
const CHART_STYLE: &str = "svg { background: var(--paper); font: 13px/1.4 system-ui, sans-serif; }\n\
    text { fill: var(--ink); }\n.title { font-weight: 600; }\n.end { text-anchor: end; }\n\
    .bar { fill: var(--quiet); opacity: .6; }\n.bar.ours { fill: var(--c0); opacity: 1; }\n\
    .whisker { fill: none; stroke: var(--ink); stroke-width: 1.2; }\n";

/// Writes page and chart of the measurements in `path`; without such a file, the page that says so.
///
/// # Errors
/// When the file isn't one of such measurements, or a file can't be written.
pub fn write(workspace: &Workspace, path: &Path) -> Result<()> {
    let docs = workspace.root.join("docs");
    let file = read(path)?;
    if let Some(file) = &file {
        let chart_path = format!("measurements/{NAME}.svg");
        fs::write(docs.join(&chart_path), chart(file)?).with_context(|| chart_path.clone())?;
        println!("written to docs/{chart_path}");
    }
    fs::write(docs.join("peers.md"), page(file.as_ref())?).context("docs/peers.md")?;
    println!("written to docs/peers.md");
    Ok(())
}

/// The measurements in `path`, if there are any.
fn read(path: &Path) -> Result<Option<Value>> {
    if !path.exists() {
        return Ok(None);
    }
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).map(Some).with_context(|| path.display().to_string())
}

/// Somebody who redirects, and what was measured.
struct Row<'a> {
    name: String,
    what: &'static str,
    kept: &'a Value,
    churn: Option<&'a Value>,
    even: Option<&'a Value>,
}

/// Whoever is in `file`, terse after the constants, others last.
fn rows(file: &Value) -> Result<Vec<Row<'_>>> {
    let all = file["contenders"].as_array().context("no contenders")?;
    let named = |name: &str| all.iter().find(|series| series["name"] == name);
    let mut rows = Vec::new();
    for who in ALL {
        let what = match who {
            Who::Floor => "one epoll loop that answers without looking",
            Who::Nginx => "`return 302`",
            Who::Actix => "a handler that answers a constant",
            Who::Terse => "records each click",
        };
        let row = |kept| Row {
            name: who.name().to_owned(),
            what,
            kept,
            churn: named(&who.churn()),
            even: named(&who.half()),
        };
        rows.extend(named(who.kept()).map(row));
    }
    let counting = |kept| Row { name: COUNTING.to_owned(), what: "records and counts", kept, churn: None, even: None };
    rows.extend(named(COUNTING).map(counting));
    for kept in all {
        let name = kept["name"].as_str().context("a contender without a name")?;
        // A peer's name has no comma; its further series, and all of ours, do.
        if !name.contains(',') {
            let (churn, even) = (named(&peer::churn(name)), named(&peer::even(name)));
            rows.push(Row { name: name.to_owned(), what: OTHER, kept, churn, even });
        }
    }
    Ok(rows)
}

fn spread(series: &Value, reading: &str) -> Option<Spread> {
    let told = &series["spread"][reading];
    Some(Spread { median: told["median"].as_f64()?, min: told["min"].as_f64()?, max: told["max"].as_f64()? })
}

/// The page of what was measured, if anything was.
///
/// # Errors
/// When `file` lacks what the page tells.
pub fn page(file: Option<&Value>) -> Result<String> {
    let told = file.map(told).transpose()?.unwrap_or_else(|| "Nothing was measured yet.\n\n".to_owned());
    Ok(format!(
        "# Beside others\n\n\
         Made by `cargo xtask bench peers`: measure again rather than edit it.\n\n\
         What the redirect of one code costs, by everybody in turn on one machine: a constant answer of nginx and of \
         actix-web, terse, and any other shortener that one adds.\n\n{told}{HOW}{LIMITS}"
    ))
}

/// Chart, table, and what one must know of them.
fn told(file: &Value) -> Result<String> {
    let rows = rows(file)?;
    let others = rows.iter().any(|row| row.what == OTHER);
    let absent = if others { "" } else { "No other shortener was on this machine when it was measured.\n\n" };
    let head = "| | | CPU, µs | times nginx | redirects a second | memory, MB | new connection each: CPU, µs | p50, ms | \
                p99, ms |\n|---|---|---|---|---|---|---|---|---|";
    let table: String = rows.iter().map(line).collect();
    let measured = measured(file)?;
    Ok(format!(
        "{absent}![CPU of a redirect and redirects a second, by server](measurements/{NAME}.svg)\n\n{head}\n{table}\n\
         {measured}All of it is in [{NAME}.json](measurements/{NAME}.json).\n\n"
    ))
}

/// The line of `row` in the table.
fn line(row: &Row<'_>) -> String {
    let cell = |series: Option<&Value>, reading: &str| {
        series.and_then(|series| spread(series, reading)).map_or_else(|| "–".to_owned(), |spread| spread.text())
    };
    let kept = |reading: &str| cell(Some(row.kept), reading);
    format!(
        "| **{}** | {} | {} | {} | {} | {} | {} | {} | {} |\n",
        row.name,
        row.what,
        kept("cpu_us"),
        kept("cpu_ratio_to_nginx"),
        kept("per_second"),
        kept("resident_mb"),
        cell(row.churn, "cpu_us"),
        cell(row.even, "p50_ms"),
        cell(row.even, "p99_ms")
    )
}

/// Where, when and how it was measured.
fn measured(file: &Value) -> Result<String> {
    let text = |place: &str| file.pointer(place).and_then(Value::as_str).with_context(|| format!("no {place}"));
    let told = |place: &str| file.pointer(place).and_then(Value::as_f64).with_context(|| format!("no {place}"));
    let commit: String = text("/versions/commit")?.chars().take(COMMIT_LETTERS).collect();
    let changed =
        if file.pointer("/versions/uncommitted_changes") == Some(&true.into()) { " with changes" } else { "" };
    let load = told("/machine/load_average")?;
    let busy = if load > OTHERS_LOAD {
        format!(
            "**Others used this machine**: its load average over five minutes was {load}, of which the measurement makes \
             up 2. CPU of a redirect is still telling, rates and latencies are not.\n\n"
        )
    } else {
        String::new()
    };
    let notes = file["notes"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let notes: String = notes.map(|note| format!("- {note}.\n")).collect();
    Ok(format!(
        "Medians of {} rounds of {} s, with the lowest and the highest; measured {} at commit {commit}{changed} on {}, \
         Linux {}. The server had core {}, the load core {}, with {} connections. Every answer was checked, status and \
         `Location`. CPU and memory are those of the process and whatever it started, as `/proc` tells them; what \
         processes share counts for each.\n\n{busy}{notes}\n",
        told("/rounds")?,
        told("/window_seconds")?,
        text("/date")?,
        text("/machine/cpu")?,
        text("/machine/kernel")?,
        told("/machine/server_core")?,
        told("/machine/generator_core")?,
        told("/connections")?,
    ))
}

const HOW: &str = "## With your own shortener

Start it so that it listens on loopback, set up as you would run it, but for limits, which would refuse the load. Make a
link in it, and name the URL of its code and the process:

```sh
cargo xtask bench peers --quick --peer 'mine=http://127.0.0.1:8081/abc123,4242'    # seconds: does it work?
cargo xtask bench peers --peer 'mine=http://127.0.0.1:8081/abc123,4242'            # minutes: the numbers, this page
```

- 4242 is the process that has started all others of it: their CPU and memory are added up. They are moved to the server's
  core meanwhile, so run it as their owner. A process that used no CPU while it answered is refused: it was another one.
- Its first answer is what all must be: 301, 302, 303, 307 or 308, and the same `Location`. Anything else ends the run.
- It must speak HTTP/1.1, say where an answer ends (`Content-Length` or chunks), and close a connection that it was asked
  to close. Connections are kept for as long as it keeps them; making them anew is part of its cost.
- `--peer` may be repeated; `--rounds` and `--seconds` size the run. Let nothing else run on the machine.

";

const LIMITS: &str = "## What this doesn't say

- nginx and the constant handler are no shorteners. They keep no link, look nothing up and note nothing: they are what an
  HTTP server costs by itself, and the first line is what the kernel costs.
- terse has the click of each redirect in its journal before the answer leaves, and what is in the journal survives
  `kill -9`. Whether another one records clicks, when, and what a crash or a power cut takes with it, isn't measured.
- Nothing is said of features: expiry, edits, statistics, limits, blocked hosts, accounts.
- One code is in everybody's memory. Nothing is said of many links, of links that no cache has, of creates, of several
  servers, of a store that is away. [Measurements](measurements/README.md) has those of terse.
- One core, loopback, no TLS, no proxy in front. Of servers that scale over many cores in different ways it says little.
";

/// The chart: a bar for each, with its range.
///
/// # Errors
/// When `file` lacks what it shows.
pub fn chart(file: &Value) -> Result<String> {
    let rows = rows(file)?;
    let kept = |reading: &'static str| move |row: &Row<'_>| spread(row.kept, reading);
    let churn = |row: &Row<'_>| row.churn.and_then(|series| spread(series, "cpu_us"));
    let groups = [
        ("CPU of a redirect, µs", bars_of(&rows, &kept("cpu_us"))),
        ("CPU of a redirect with a connection of its own, µs", bars_of(&rows, &churn)),
        ("Redirects a second on one core", bars_of(&rows, &kept("per_second"))),
    ];
    let (mut body, mut top) = (String::new(), 0.0);
    for (title, bars) in groups {
        // Writing to a text can't fail.
        let _ = writeln!(
            body,
            "<text class=\"title\" x=\"{MARGIN}\" y=\"{}\">{title}</text>\n<svg x=\"{MARGIN}\" y=\"{}\" \
             width=\"{WIDTH}\" height=\"{}\">{}</svg>",
            top + TITLE - MARGIN,
            top + TITLE,
            bars::height(bars.len()),
            bars::drawing(&bars)
        );
        top += TITLE + bars::height(bars.len());
    }
    let width = WIDTH + 2.0 * MARGIN;
    Ok(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {top}\" role=\"img\">\n<title>Redirects of one \
         code, by server: medians, with the lowest and the highest round</title>\n<style>\n{STYLE}{CHART_STYLE}</style>\n\
         {body}</svg>\n"
    ))
}

/// A bar for each of `rows` that has a `value`.
fn bars_of(rows: &[Row<'_>], value: &dyn Fn(&Row<'_>) -> Option<Spread>) -> Vec<Bar> {
    let bar = |row: &Row<'_>| {
        let spread = value(row)?;
        Some(Bar {
            name: row.name.clone(),
            value: spread.median,
            spread: Some((spread.min, spread.max)),
            shown: number(spread.median),
            ours: row.name.starts_with(Who::Terse.name()),
        })
    };
    rows.iter().filter_map(bar).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn series(name: &str, cpu: f64) -> Value {
        let spread = |value: f64| json!({ "median": value, "min": value * 0.9, "max": value * 1.1 });
        json!({ "name": name, "spread": {
            "cpu_us": spread(cpu), "per_second": spread(1e6 / cpu), "resident_mb": spread(20.0),
            "cpu_ratio_to_nginx": spread(cpu / 8.0), "p50_ms": spread(0.125), "p99_ms": spread(1.5),
        }})
    }

    fn file() -> Value {
        let mut contenders: Vec<Value> = ALL
            .iter()
            .flat_map(|who| [who.kept().to_owned(), who.churn(), who.half()])
            .map(|n| series(&n, 8.0))
            .collect();
        contenders.extend([COUNTING, "other", "other, churn", "other, half of peak"].map(|name| series(name, 16.0)));
        json!({
            "contenders": contenders, "notes": ["other is http://127.0.0.1:1/a"], "date": "2026-11-23T16:42:00Z",
            "rounds": 5, "window_seconds": 5.0, "connections": 64,
            "machine": { "cpu": "x", "kernel": "6.1", "server_core": 0, "generator_core": 1, "load_average": 1.5 },
            "versions": { "commit": "0123456789abcdef", "uncommitted_changes": false },
        })
    }

    #[test]
    fn everybody_has_a_line_with_all_that_was_measured() {
        let page = page(Some(&file())).unwrap();
        let lines: Vec<&str> = page.lines().filter(|line| line.starts_with("| **")).collect();
        let names: Vec<&str> = lines.iter().filter_map(|line| line.split("**").nth(1)).collect();
        assert_eq!(names, ["floor", "nginx", "actix-web", "terse", "terse, all roles", "other"]);
        assert!(lines[5].contains("| 16.00 (14.40–17.60) | 2.000 (1.800–2.200) | 62500"), "{}", lines[5]);
        assert_eq!((lines[5].matches('–').count(), lines[4].matches("| – |").count()), (7, 2), "{}", lines[4]);
        assert!(page.contains("5 rounds of 5 s") && page.contains("at commit 012345678 on x, Linux 6.1"));
        assert!(page.contains("- other is http://127.0.0.1:1/a.\n") && !page.contains("No other shortener"));
        assert!(!page.contains("**Others used"));
    }

    #[test]
    fn the_page_says_when_nobody_else_was_there_and_when_others_used_the_machine() {
        let mut alone = file();
        alone["contenders"].as_array_mut().unwrap().truncate(13);
        alone["machine"]["load_average"] = 3.5.into();
        let page = page(Some(&alone)).unwrap();
        assert!(
            page.contains("No other shortener was on this machine") && page.contains("**Others used this machine**")
        );
        assert!(page.contains("average over five minutes was 3.5"));
    }

    #[test]
    fn the_chart_has_a_bar_for_everybody_within_its_size() {
        let svg = chart(&file()).unwrap();
        assert_eq!((svg.matches("<rect").count(), svg.matches("class=\"bar ours\"").count()), (6 + 5 + 6, 2 + 1 + 2));
        let high = 3.0 * TITLE + bars::height(17);
        assert!(svg.contains(&format!("viewBox=\"0 0 504 {high}\"")), "{}", &svg[..120]);
        assert!(svg.contains("prefers-color-scheme: dark") && !svg.contains("NaN") && svg.ends_with("</svg>\n"));
    }

    #[test]
    fn without_measurements_the_page_says_so_and_how_to_make_them() {
        let page = page(None).unwrap();
        assert!(page.contains("Nothing was measured yet") && page.contains("bench peers --quick --peer"));
        assert!(!page.contains("peers.json") && !page.contains("| **"));
    }

    #[test]
    fn the_page_of_the_book_is_that_of_its_measurements() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
        let file = read(&docs.join("measurements/peers.json")).unwrap();
        let written = fs::read_to_string(docs.join("peers.md")).unwrap();
        assert_eq!(written, page(file.as_ref()).unwrap(), "cargo xtask bench peers --page makes it anew");
        let Some(file) = file else { return assert!(!docs.join("measurements/peers.svg").exists()) };
        let svg = fs::read_to_string(docs.join("measurements/peers.svg")).unwrap();
        for row in rows(&file).unwrap() {
            let shown = number(spread(row.kept, "cpu_us").unwrap().median);
            assert!(svg.contains(&format!(">{}<", row.name)) && svg.contains(&format!(">{shown}<")), "{}", row.name);
        }
    }

    #[test]
    fn a_file_of_something_else_is_no_page() {
        assert!(page(Some(&json!({}))).is_err() && chart(&json!({ "contenders": [{}] })).is_err());
        let mut nowhere = file();
        nowhere["machine"] = Value::Null;
        assert!(page(Some(&nowhere)).is_err());
    }
}
