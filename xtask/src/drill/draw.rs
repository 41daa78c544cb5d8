//! The chart of a drill, as an SVG file that needs nothing else: answers a second and latencies over time, the fault
//! as a band, what was expected and what came of it. It is drawn as the reports of load tests are.

use serde_json::Value;

use crate::load::chart::{Chart, Line};
use crate::load::sheet;

/// So many faults are numbered in the chart and told below; of more there are bands alone, and the first are told.
const FAULTS_TOLD: usize = 8;
/// A bucket in which a load ran for less than this part of it has no rate, unless something was asked in it.
const COVERED_LEAST: f64 = 0.25;

/// The chart of a drill that was run; `None` when it has no timeline.
pub(super) fn svg(name: &str, run: &Value) -> Option<String> {
    let timeline = run["timeline"].as_object().map(|_| &run["timeline"])?;
    let text = |field: &str| run[field].as_str().unwrap_or_default();
    let mut notes = vec![format!("Expected: {}.", text("hypothesis"))];
    notes.extend(run["broken"].as_str().map(|why| format!("Broken: {why}")));
    notes.extend(faults(timeline));
    if let Some(left_out) = timeline["left_out"].as_u64().filter(|count| *count > 0) {
        notes.push(format!("{left_out} further answers and faults are not in it."));
    }
    let title = format!("{name}: {}", text("verdict"));
    Some(sheet::noted(&title, &charts(timeline), &notes))
}

/// What there is to see: answers a second of each kind, and how long those of the main kind took.
fn charts(timeline: &Value) -> Vec<Chart> {
    let lanes = || timeline["lanes"].as_object().into_iter().flatten();
    let mut rates: Vec<Line> =
        lanes().map(|(name, lane)| line(timeline, name, |at| lane["answered"][at].as_f64().or(Some(0.0)))).collect();
    for what in ["refused", "failed"] {
        // Of nothing the sum is −0, which would be told so.
        let sum = |at: usize| Some(lanes().filter_map(|(_, lane)| lane[what][at].as_f64()).sum::<f64>() + 0.0);
        rates.push(line(timeline, what, sum));
    }
    for (at, (_, value)) in rates.iter_mut().flat_map(|rate| rate.points.iter_mut().enumerate()) {
        // What was asked in a bucket that no load covers is still seen.
        let asked = value.filter(|count| *count > 0.0).map(|_| bucket(timeline));
        *value = covered(timeline, at).or(asked).and_then(|seconds| Some((*value)? / seconds));
    }
    let main = timeline["main"].as_str().unwrap_or_default();
    let lane = &timeline["lanes"][main];
    let times = [("p50", "p50_ms"), ("p99", "p99_ms"), ("longest", "max_ms")];
    let times = times.map(|(name, column)| line(timeline, name, |at| lane[column][at].as_f64()));
    let mut charts = vec![
        Chart::new("Answered, refused, failed", "a second", rates),
        Chart::new(&format!("How long it took: {main}"), "ms", times.into()),
    ];
    charts.iter_mut().for_each(|chart| mark(chart, timeline));
    charts
}

/// A line of what `value` tells of each bucket, drawn at its middle.
fn line(timeline: &Value, name: &str, value: impl Fn(usize) -> Option<f64>) -> Line {
    let count = timeline["loaded_ms"].as_array().map_or(0, Vec::len);
    let point = |at: usize| ((at as f64 + 0.5) * bucket(timeline), value(at));
    Line { name: name.to_owned(), points: (0..count).map(point).collect() }
}

/// How long a bucket is, in seconds.
fn bucket(timeline: &Value) -> f64 {
    timeline["bucket_ms"].as_f64().unwrap_or(1_000.0) / 1e3
}

/// For how many seconds of a bucket a load ran, if that is long enough to tell a rate.
fn covered(timeline: &Value, at: usize) -> Option<f64> {
    let loaded = timeline["loaded_ms"][at].as_f64()? / 1e3;
    (loaded >= COVERED_LEAST * bucket(timeline)).then_some(loaded)
}

/// What was broken, from when until when.
fn spans(timeline: &Value) -> Vec<(f64, f64, &str)> {
    let span = |fault: &Value| Some((fault["from_s"].as_f64()?, fault["to_s"].as_f64()?));
    let faults = timeline["faults"].as_array().into_iter().flatten();
    faults
        .filter_map(|fault| span(fault).map(|(from, to)| (from, to, fault["what"].as_str().unwrap_or_default())))
        .collect()
}

/// Marks the beginning and the end of each fault, and what is between.
fn mark(chart: &mut Chart, timeline: &Value) {
    let spans = spans(timeline);
    for (number, (from, to, _)) in spans.iter().enumerate() {
        chart.bands.push((*from, *to));
        if spans.len() <= FAULTS_TOLD {
            chart.marks.push((*from, (number + 1).to_string()));
            chart.marks.push((*to, String::new()));
        }
    }
}

/// What the bands are, a line each.
fn faults(timeline: &Value) -> Vec<String> {
    let spans = spans(timeline);
    let told = |(number, (from, to, what)): (usize, &(f64, f64, &str))| {
        let number = if spans.len() <= FAULTS_TOLD { format!("{}  ", number + 1) } else { String::new() };
        format!("{number}{what}: from {from:.1} s to {to:.1} s")
    };
    let mut lines: Vec<String> = spans.iter().enumerate().take(FAULTS_TOLD).map(told).collect();
    if spans.len() > FAULTS_TOLD {
        lines.push(format!("and {} more", spans.len() - FAULTS_TOLD));
    }
    lines
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// A run of which one request failed while a node was away.
    pub(in crate::drill) fn run(verdict: &str) -> Value {
        let mut run = json!({
            "hypothesis": "No redirect fails & none is <slow>",
            "verdict": verdict,
            "measured": {},
            "timeline": {
                "bucket_ms": 500, "seconds": 1.6, "loaded_ms": [500, 500, 0, 100], "main": "redirect", "left_out": 0,
                "faults": [{ "what": "node 2 killed", "from_s": 0.4, "to_s": 1.1 }],
                "lanes": {
                    "redirect": { "answered": [40, 39, 0, 8], "failed": [0, 1, 0, 0], "p50_ms": [1.5, 2.0, null, 1.0],
                        "p99_ms": [3.0, 90.0, null, 2.0], "max_ms": [3.5, 95.5, null, 2.0] },
                    "create": { "answered": [4, 2, 0, 1], "refused": [0, 2, 0, 0], "p50_ms": [9.0, 9.0, null, 9.0],
                        "p99_ms": [9.0, 9.0, null, 9.0], "max_ms": [9.0, 9.0, null, 9.0] },
                },
            },
        });
        if verdict == "broken" {
            run["broken"] = "1 of 2 redirects failed".into();
        }
        run
    }

    fn values(chart: &Chart, name: &str) -> Vec<Option<f64>> {
        let line = chart.lines.iter().find(|line| line.name == name);
        line.unwrap_or_else(|| panic!("no line {name}")).points.iter().map(|(_, value)| *value).collect()
    }

    #[test]
    fn the_chart_has_rates_of_what_was_answered_refused_and_failed() {
        let run = run("held");
        let [rates, times] = <[Chart; 2]>::try_from(charts(&run["timeline"])).unwrap();
        assert_eq!(values(&rates, "redirect"), [Some(80.0), Some(78.0), None, Some(16.0)], "no load ran in the third");
        assert_eq!(values(&rates, "refused"), [Some(0.0), Some(4.0), None, None]);
        assert_eq!(values(&rates, "failed"), [Some(0.0), Some(2.0), None, None]);
        assert_eq!(values(&times, "longest"), [Some(3.5), Some(95.5), None, Some(2.0)]);
        assert_eq!(times.lines[0].points[1].0, 0.75, "a bucket is drawn at its middle");
    }

    #[test]
    fn what_never_happened_is_drawn_as_zero() {
        let timeline = json!({ "bucket_ms": 500, "loaded_ms": [500], "lanes": { "redirect": { "answered": [7] } } });
        let keys: Vec<String> = charts(&timeline)[0].keys().map(|(_, text)| text).collect();
        assert_eq!(keys, ["redirect ≤ 14", "refused ≤ 0", "failed ≤ 0"]);
    }

    #[test]
    fn the_fault_is_marked_where_it_begins_and_ends() {
        let run = run("held");
        for chart in charts(&run["timeline"]) {
            assert_eq!(chart.bands, [(0.4, 1.1)]);
            assert_eq!(chart.marks, [(0.4, "1".to_owned()), (1.1, String::new())]);
        }
        let svg = svg("kill-node", &run).unwrap();
        assert_eq!(svg.matches("class=\"band\"").count(), 2, "one in each drawing");
        assert_eq!(svg.matches("class=\"mark\"").count(), 4);
        assert!(svg.contains("1 node 2 killed: from 0.4 s to 1.1 s"), "{svg}");
    }

    #[test]
    fn many_faults_are_bands_without_numbers() {
        let mut run = run("held");
        run["timeline"]["faults"] =
            (0..20).map(|at| json!({ "what": "server killed", "from_s": at, "to_s": at })).collect();
        let svg = svg("clicks-chaos", &run).unwrap();
        assert_eq!((svg.matches("class=\"band\"").count(), svg.matches("class=\"mark\"").count()), (40, 0));
        assert!(svg.contains("and 12 more") && svg.matches("server killed").count() == FAULTS_TOLD);
    }

    #[test]
    fn a_drill_that_is_broken_says_what_did_not_hold() {
        let svg = svg("kill-node", &run("broken")).unwrap();
        assert!(svg.contains(">kill-node: broken</text>"), "{svg}");
        assert!(svg.contains(">Broken: 1 of 2 redirects failed</text>"), "{svg}");
        assert!(svg.contains("Expected: No redirect fails &amp; none is &lt;slow&gt;."), "it is escaped: {svg}");
    }

    #[test]
    fn a_chart_has_its_lines_and_a_drill_without_a_timeline_has_no_chart() {
        let svg = svg("kill-node", &run("held")).unwrap();
        assert!(svg.starts_with("<svg xmlns=") && !svg.contains("NaN"), "{svg}");
        // Answered of two kinds, refused and failed; median, p99 and longest, interrupted where nothing was asked.
        assert_eq!(svg.matches("<path class=\"line").count(), 2 * 2 + 2 + 3 * 2, "{svg}");
        assert!(super::svg("alias-race", &json!({ "verdict": "held" })).is_none());
    }
}
