//! `cargo xtask bench curves`: what each rate limiter lets through over time, as
//! data and as a chart.
//!
//! The benchmark `limits` of `terse-resilience` makes the curves in a time of
//! their own and asserts what each rule promises of them, so they are the same
//! on every machine and in every build: this one needs no optimisation, and the
//! files change only when a rule does.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::super::store::program::lines_of;
use super::{RULES, SCHEDULES, read_point};
use crate::process::Supervisor;
use crate::workspace::Workspace;

/// The command that makes both files.
const COMMAND: &str = "cargo xtask bench curves";
/// The data, and the chart of it, in the folder of measurements.
const DATA: &str = "limits-curves.json";
const CHART: &str = "limits-curves.svg";
/// How long making the curves may take.
const LIMIT: Duration = Duration::from_secs(60);

/// A panel, its plot, and what is around them, in pixels.
const PANEL: (f64, f64) = (300.0, 110.0);
const PLOT: (f64, f64) = (264.0, 66.0);
const MARGIN: (f64, f64) = (16.0, 72.0);
/// Seconds of a curve, and of one bar.
const SECONDS: f64 = 30.0;
const STEP_SECONDS: f64 = 0.5;
/// Units that are as high as a plot, of each schedule: a burst is higher than what passes of it, so it is cut.
const UNITS: [f64; 3] = [110.0, 11.0, 110.0];

/// Units asked for and let through from that second on.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Point {
    at: f64,
    offered: f64,
    passed: f64,
}

/// One rule under one schedule.
#[derive(Clone, Debug, PartialEq)]
struct Curve {
    rule: String,
    schedule: String,
    points: Vec<Point>,
}

/// Makes both files.
///
/// # Errors
/// When the benchmark can't be built, or a curve is not what its rule promises, or is missing.
pub fn draw(workspace: &Workspace, supervisor: &Supervisor) -> Result<()> {
    let program = workspace.build(supervisor, &["--package", "terse-resilience", "--bench", "limits"], "limits")?;
    let lines = lines_of(supervisor, Command::new(program).arg("curves"), LIMIT)?;
    let curves = read(&lines.join("\n"))?;
    let folder = workspace.root.join("docs/measurements");
    write(&folder, &curves)?;
    println!("written to docs/measurements/{DATA} and docs/measurements/{CHART}");
    Ok(())
}

fn write(folder: &Path, curves: &[Curve]) -> Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join(DATA), serde_json::to_string(&data(curves))? + "\n")?;
    fs::write(folder.join(CHART), chart(curves)).with_context(|| CHART.to_owned())
}

/// The curves that are printed as `text`: one for each rule and schedule.
fn read(text: &str) -> Result<Vec<Curve>> {
    let mut curves: Vec<Curve> = vec![];
    for line in text.lines() {
        let (name, [(_, ms), (_, offered), (_, passed)]) = read_point(line)?;
        let parts = name.strip_prefix("curve: ").and_then(|name| name.split_once(", "));
        let (rule, schedule) = parts.with_context(|| format!("not a curve: {name}"))?;
        let point = Point { at: ms / 1_000.0, offered, passed };
        match curves.last_mut().filter(|curve| (&*curve.rule, &*curve.schedule) == (rule, schedule)) {
            Some(curve) => curve.points.push(point),
            None => {
                let (rule, schedule) = (rule.to_owned(), schedule.to_owned());
                curves.push(Curve { rule, schedule, points: vec![point] });
            }
        }
    }
    ensure!(curves.len() == RULES.len() * SCHEDULES.len(), "there are {} curves", curves.len());
    Ok(curves)
}

fn data(curves: &[Curve]) -> Value {
    let column = |curve: &Curve, of: fn(&Point) -> f64| curve.points.iter().map(of).collect::<Vec<f64>>();
    let curve = |curve: &Curve| {
        json!({
            "rule": curve.rule, "schedule": curve.schedule, "seconds": column(curve, |point| point.at),
            "offered": column(curve, |point| point.offered), "passed": column(curve, |point| point.passed),
        })
    };
    json!({ "command": COMMAND, "curves": curves.iter().map(curve).collect::<Vec<_>>() })
}

/// One panel for each rule, below each other, and for each schedule, side by side.
fn chart(curves: &[Curve]) -> String {
    let size = (PANEL.0 * SCHEDULES.len() as f64 + 2.0 * MARGIN.0, PANEL.1 * RULES.len() as f64 + MARGIN.1);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" role=\"img\" \
         font-family=\"system-ui, sans-serif\" font-size=\"11\">\n\
         <title>What each rate limiter lets through of two bursts, of twice its rate, and around the edge of a \
         window</title>\n\
         <style>text{{fill:#24292f}}.offered{{fill:#d0d7de}}.passed{{fill:#0969da}}.axis{{stroke:#8c959f}}\
         .tick{{stroke:#bc4c00;stroke-dasharray:3 3}}\
         @media(prefers-color-scheme:dark){{text{{fill:#e6edf3}}.offered{{fill:#30363d}}.passed{{fill:#4493f8}}}}\
         </style>\n\
         <text x=\"{2}\" y=\"18\">Units each half second: asked for (grey; bursts of 200 are cut) and let through \
         (blue). Dashed: ticks of the fixed window.</text>\n\
         <text x=\"{2}\" y=\"33\">Each rule lets through 100 units at once, or in a window of 10 s, and 10 a second in \
         the long run.</text>\n",
        size.0, size.1, MARGIN.0
    );
    for (row, rule) in RULES.iter().enumerate() {
        for (column, schedule) in SCHEDULES.iter().enumerate() {
            if let Some(curve) = curves.iter().find(|curve| curve.rule == *rule && curve.schedule == *schedule) {
                let at = (MARGIN.0 + column as f64 * PANEL.0, 46.0 + row as f64 * PANEL.1);
                panel(&mut svg, curve, UNITS[column], at);
            }
        }
    }
    svg.push_str("</svg>\n");
    svg
}

/// Writing to a text can't fail.
fn panel(svg: &mut String, curve: &Curve, most: f64, (left, top): (f64, f64)) {
    let total: f64 = curve.points.iter().map(|point| point.passed).sum();
    let base = top + 16.0 + PLOT.1;
    let _ = writeln!(
        svg,
        "<text x=\"{left}\" y=\"{}\" font-size=\"10\" font-weight=\"600\">{}, {}: {total:.0}, at most {:.0} in 10 s</text>",
        top + 12.0,
        curve.rule,
        curve.schedule,
        worst(curve)
    );
    let x = |seconds: f64| left + seconds / SECONDS * PLOT.0;
    let width = STEP_SECONDS / SECONDS * PLOT.0 - 0.6;
    for (class, of) in [("offered", (|point| point.offered) as fn(&Point) -> f64), ("passed", |point| point.passed)] {
        for point in curve.points.iter().filter(|point| of(point) > 0.0) {
            let height = of(point).min(most) / most * PLOT.1;
            let (x, y) = (x(point.at), base - height);
            let _ = writeln!(
                svg,
                "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>"
            );
        }
    }
    for second in [10.0, 20.0] {
        let _ = writeln!(
            svg,
            "<line class=\"tick\" x1=\"{0:.1}\" y1=\"{1:.1}\" x2=\"{0:.1}\" y2=\"{base:.1}\"/>",
            x(second),
            base - PLOT.1
        );
    }
    let end = x(SECONDS);
    let _ = writeln!(svg, "<line class=\"axis\" x1=\"{left}\" y1=\"{base:.1}\" x2=\"{end:.1}\" y2=\"{base:.1}\"/>");
    for second in [0.0, 10.0, 20.0, 30.0] {
        let (x, y) = (x(second), base + 12.0);
        let _ = writeln!(
            svg,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\" font-size=\"9\">{second:.0} s</text>"
        );
    }
}

/// The most that passed within ten seconds that begin with a bar.
fn worst(curve: &Curve) -> f64 {
    let within = |from: f64| {
        let inside = curve.points.iter().filter(|point| point.at >= from && point.at < from + 10.0);
        inside.map(|point| point.passed).sum::<f64>()
    };
    curve.points.iter().map(|point| within(point.at)).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curves() -> Vec<Curve> {
        let mut text = String::new();
        for schedule in SCHEDULES {
            for rule in RULES {
                for (ms, offered, passed) in [(0, 0, 0), (9_500, 200, 100), (10_000, 200, 90), (20_000, 1, 1)] {
                    let _ = writeln!(text, "curve: {rule}, {schedule}: {ms} {offered} {passed}");
                }
            }
        }
        read(&text).unwrap()
    }

    #[test]
    fn every_rule_and_schedule_has_a_panel() {
        let chart = chart(&curves());
        for rule in RULES {
            for schedule in SCHEDULES {
                assert!(chart.contains(&format!("{rule}, {schedule}: 191, at most 190 in 10 s")), "{chart}");
            }
        }
        assert_eq!(chart.matches("class=\"passed\"").count(), 3 * RULES.len() * SCHEDULES.len());
        assert!(!chart.contains("NaN") && chart.ends_with("</svg>\n"));
    }

    #[test]
    fn a_curve_that_is_missing_is_told() {
        assert!(read("curve: fixed-window, burst: 0 1 1\n").is_err());
        assert!(read("nonsense\n").is_err());
    }

    #[test]
    fn the_data_has_the_points_by_columns() {
        let data = data(&curves());
        assert_eq!(data["command"], COMMAND);
        assert_eq!(data["curves"][0]["seconds"], json!([0.0, 9.5, 10.0, 20.0]));
        assert_eq!(data["curves"][11]["passed"], json!([0.0, 100.0, 90.0, 1.0]));
    }

    #[test]
    fn the_chart_that_is_kept_is_that_of_the_data_that_is_kept() {
        let folder = Workspace::find().unwrap().root.join("docs/measurements");
        let kept: Value = serde_json::from_str(&fs::read_to_string(folder.join(DATA)).unwrap()).unwrap();
        let column = |curve: &Value, name: &str| -> Vec<f64> { serde_json::from_value(curve[name].clone()).unwrap() };
        let curve = |curve: &Value| {
            let [at, offered, passed] = ["seconds", "offered", "passed"].map(|name| column(curve, name));
            let points = at.into_iter().zip(offered).zip(passed);
            let text = |name: &str| curve[name].as_str().unwrap().to_owned();
            Curve {
                rule: text("rule"),
                schedule: text("schedule"),
                points: points.map(|((at, offered), passed)| Point { at, offered, passed }).collect(),
            }
        };
        let curves: Vec<Curve> = kept["curves"].as_array().unwrap().iter().map(curve).collect();
        assert_eq!(fs::read_to_string(folder.join(CHART)).unwrap(), chart(&curves), "{COMMAND} makes both");
        let edge = |rule: &str| {
            let found = curves.iter().find(|curve| curve.rule == rule && curve.schedule == "window edge");
            worst(found.unwrap())
        };
        assert_eq!((edge("fixed-window"), edge("sliding-window")), (200.0, 100.0), "by design");
    }
}
