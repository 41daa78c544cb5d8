//! Line charts as SVG, drawn here: a page with them needs no script and nothing from elsewhere.
//!
//! Colours are classes, so that the page decides them for light and dark.

use std::fmt::Write as _;

use super::page::escaped;

/// The drawing's size; the page scales it to its width.
pub const WIDTH: f64 = 480.0;
/// Its height.
pub const HEIGHT: f64 = 210.0;
/// What axes and their numbers take.
const LEFT: f64 = 64.0;
const RIGHT: f64 = 10.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 24.0;
/// About how many numbers an axis has.
const TICKS: f64 = 4.0;
/// How many colours there are; further lines begin again with the first.
const COLOURS: usize = 6;

/// A line of a chart.
#[derive(Clone, Debug)]
pub struct Line {
    /// What it shows.
    pub name: String,
    /// Its points: seconds, and a value if there is one; where there is none it is interrupted.
    pub points: Vec<(f64, Option<f64>)>,
}

/// A chart over time.
#[derive(Clone, Debug)]
pub struct Chart {
    /// What it shows.
    pub title: String,
    /// What its values are in.
    pub unit: &'static str,
    /// Its lines.
    pub lines: Vec<Line>,
    /// What happened when, in seconds.
    pub marks: Vec<(f64, String)>,
    /// What lasted from when until when, in seconds.
    pub bands: Vec<(f64, f64)>,
    /// What certain values mean; empty = numbers stand for themselves.
    pub names: &'static [(f64, &'static str)],
}

impl Chart {
    /// A chart of `lines` without marks; lines without any value are left out.
    #[must_use]
    pub fn new(title: &str, unit: &'static str, lines: Vec<Line>) -> Self {
        let lines = lines.into_iter().filter(|line| line.points.iter().any(|(_, value)| value.is_some())).collect();
        Self { title: title.to_owned(), unit, lines, marks: Vec::new(), bands: Vec::new(), names: &[] }
    }

    /// Whether it has nothing to show.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// As a figure of HTML: title, drawing, and what each line is.
    #[must_use]
    pub fn html(&self) -> String {
        let title = escaped(&self.title);
        format!(
            "<figure class=\"chart\"><figcaption>{}</figcaption>\
             <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">{}</svg>\
             <p class=\"legend\">{}</p></figure>\n",
            escaped(&self.caption()),
            self.drawing(),
            self.legend()
        )
    }

    /// Title and unit.
    #[must_use]
    pub fn caption(&self) -> String {
        if self.unit.is_empty() { self.title.clone() } else { format!("{}, {}", self.title, self.unit) }
    }

    /// What is in the drawing, [`WIDTH`] by [`HEIGHT`]: axes, bands, lines and marks.
    #[must_use]
    pub fn drawing(&self) -> String {
        let scale = Scale::of(self);
        let mut drawing = String::new();
        for (from, to) in &self.bands {
            let (from, to) = (scale.x(*from), scale.x(*to));
            let _ = write!(
                drawing,
                "<rect class=\"band\" x=\"{from:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{:.1}\"/>",
                (to - from).max(1.0),
                HEIGHT - BOTTOM - TOP
            );
        }
        drawing += &self.axes(&scale);
        for (index, line) in self.lines.iter().enumerate() {
            for part in scale.paths(&line.points) {
                let _ = write!(drawing, "<path class=\"line c{}\" d=\"{part}\"/>", index % COLOURS);
            }
        }
        for (at, what) in &self.marks {
            let x = scale.x(*at);
            let _ = write!(
                drawing,
                "<line class=\"mark\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{:.1}\"/>\
                 <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                HEIGHT - BOTTOM,
                x + 3.0,
                TOP + 10.0,
                escaped(what)
            );
        }
        drawing
    }

    fn axes(&self, scale: &Scale) -> String {
        let mut text = String::new();
        let named: Vec<(f64, String)> = self.names.iter().map(|(at, name)| (*at, (*name).to_owned())).collect();
        let numbers = || ticks(scale.most).into_iter().map(|at| (at, short(at))).collect();
        for (value, name) in if named.is_empty() { numbers() } else { named } {
            let y = scale.y(value);
            let _ = write!(
                text,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text class=\"tick end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 5.0,
                y + 4.0,
                escaped(&name)
            );
        }
        for at in ticks(scale.last) {
            let _ = write!(
                text,
                "<text class=\"tick middle\" x=\"{:.1}\" y=\"{:.1}\">{} s</text>",
                scale.x(at),
                HEIGHT - 7.0,
                short(at)
            );
        }
        text
    }

    /// What each line is and how high it gets, with the number of its colour.
    pub fn keys(&self) -> impl Iterator<Item = (usize, String)> {
        self.lines.iter().enumerate().map(|(index, line)| {
            let values = line.points.iter().filter_map(|(_, value)| *value);
            let most = values.fold(f64::MIN, f64::max);
            let told = if self.names.is_empty() { format!(" ≤ {}", short(most)) } else { String::new() };
            (index % COLOURS, format!("{}{told}", line.name))
        })
    }

    fn legend(&self) -> String {
        self.keys().map(|(colour, text)| format!("<span class=\"key c{colour}\"></span>{} ", escaped(&text))).collect()
    }
}

/// Where values are in the drawing.
struct Scale {
    /// The last second.
    last: f64,
    /// The largest value, rounded up.
    most: f64,
}

impl Scale {
    fn of(chart: &Chart) -> Self {
        let points = || chart.lines.iter().flat_map(|line| &line.points);
        let last = points().map(|(at, _)| *at).fold(1.0, f64::max);
        let values = points().filter_map(|(_, value)| *value).chain(chart.names.iter().map(|(value, _)| *value));
        let most = values.filter(|value| value.is_finite()).fold(0.0, f64::max);
        Self { last, most: if most > 0.0 { most * 1.05 } else { 1.0 } }
    }

    fn x(&self, at: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * at.clamp(0.0, self.last) / self.last
    }

    fn y(&self, value: f64) -> f64 {
        let height = HEIGHT - TOP - BOTTOM;
        TOP + height * (1.0 - (value / self.most).clamp(0.0, 1.0))
    }

    /// The parts of a line between its gaps. A part of one point is a short stroke, else nobody would see it.
    fn paths(&self, points: &[(f64, Option<f64>)]) -> Vec<String> {
        let parts = points.split(|(_, value)| value.is_none_or(|value| !value.is_finite()));
        let path = |part: &[(f64, Option<f64>)]| {
            let mut path = String::new();
            for (at, value) in part {
                let letter = if path.is_empty() { 'M' } else { 'L' };
                let _ = write!(path, "{letter}{:.1} {:.1}", self.x(*at), self.y(value.unwrap_or_default()));
            }
            if part.len() == 1 {
                path.push_str("h2");
            }
            path
        };
        parts.filter(|part| !part.is_empty()).map(path).collect()
    }
}

/// Round numbers from 0 to `most`: a handful.
fn ticks(most: f64) -> Vec<f64> {
    let rough = most / TICKS;
    let size = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|times| times * size).find(|step| *step >= rough).unwrap_or(rough);
    (0..).map(|index| f64::from(index) * step).take_while(|tick| *tick <= most * 1.000_001).take(12).collect()
}

/// A number in a few letters.
fn short(value: f64) -> String {
    let trimmed = |value: f64, decimals: usize, unit: &str| {
        let text = format!("{value:.decimals$}");
        let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
        format!("{text}{unit}")
    };
    match value.abs() {
        large if large >= 1e6 => trimmed(value / 1e6, 2, " M"),
        large if large >= 1e4 => trimmed(value / 1e3, 1, " k"),
        large if large >= 100.0 => trimmed(value, 0, ""),
        large if large >= 1.0 => trimmed(value, 1, ""),
        _ => trimmed(value, 3, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, values: &[Option<f64>]) -> Line {
        let points = values.iter().enumerate().map(|(at, value)| (at as f64, *value)).collect();
        Line { name: name.into(), points }
    }

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(ticks(10.0), [0.0, 5.0, 10.0]);
        assert_eq!(ticks(100.0), [0.0, 50.0, 100.0]);
        assert_eq!(ticks(7.0), [0.0, 2.0, 4.0, 6.0]);
        for most in [0.001, 0.37, 1.0, 42.0, 99_999.0] {
            assert!((2..=6).contains(&ticks(most).len()), "{most}: {:?}", ticks(most));
        }
    }

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (0.25, "0.25"),
            (1.5, "1.5"),
            (100.0, "100"),
            (1_234.4, "1234"),
            (12_000.0, "12 k"),
            (2_500_000.0, "2.5 M"),
        ] {
            assert_eq!(short(value), text);
        }
    }

    #[test]
    fn a_line_spans_the_drawing_and_stays_in_it() {
        let chart = Chart::new("rate", "a second", vec![line("answers", &[Some(0.0), Some(50.0), Some(100.0)])]);
        let html = chart.html();
        let path = html.split("d=\"M").nth(1).unwrap().split('"').next().unwrap();
        assert!(path.starts_with("64.0 186.0L") && path.contains("L470.0 "), "{path}");
        assert!(html.contains("rate, a second") && html.contains("answers ≤ 100"), "{html}");
        assert!(!html.contains("NaN") && !html.contains("inf"));
    }

    #[test]
    fn a_gap_interrupts_a_line_and_a_lone_point_is_seen() {
        let chart = Chart::new("x", "", vec![line("a", &[Some(1.0), None, Some(2.0), Some(3.0), Some(f64::NAN)])]);
        let html = chart.html();
        assert_eq!(html.matches("<path").count(), 2);
        assert!(html.contains("h2\""));
    }

    #[test]
    fn a_line_without_values_is_left_out_and_one_of_zeros_is_drawn() {
        let chart = Chart::new("x", "", vec![line("none", &[None, None]), line("zero", &[Some(0.0), Some(0.0)])]);
        assert_eq!(chart.lines.len(), 1);
        assert!(chart.html().contains("<path") && !chart.html().contains("NaN"));
        assert!(Chart::new("x", "", vec![line("none", &[None])]).is_empty());
    }

    #[test]
    fn values_may_have_names_and_times_marks() {
        let mut chart = Chart::new("breakers", "", vec![line("main/read", &[Some(0.0), Some(2.0)])]);
        chart.names = &[(0.0, "closed"), (1.0, "half-open"), (2.0, "open")];
        chart.marks.push((0.5, "kill <node>".into()));
        chart.bands.push((0.0, 0.5));
        let html = chart.html();
        assert!(html.contains("<rect class=\"band\" x=\"64.0\" y=\"10\" width=\"203.0\" height=\"176.0\"/>"), "{html}");
        assert!(html.contains(">half-open<") && html.contains("kill &lt;node&gt;") && html.contains("class=\"mark\""));
    }

    #[test]
    fn names_from_elsewhere_are_escaped() {
        let html = Chart::new("<b>", "", vec![line("<script>\"", &[Some(1.0)])]).html();
        assert!(!html.contains("<script>") && !html.contains("<b>"), "{html}");
    }
}
