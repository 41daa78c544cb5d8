//! Bars beside each other as SVG, for what is compared rather than followed over time: what [`crate::load::chart`] is
//! for lines. Colours are classes, so that the page decides them for light and dark.
//!
//! A bar's name and value stand above it: there is room for both on a phone.

use std::fmt::Write as _;

use crate::load::chart::WIDTH;
use crate::load::page::escaped;

/// How high one bar is, with its name and the room below it.
const ROW: f64 = 42.0;
/// From the top of a row to the line of its texts, and to its bar.
const TEXT: f64 = 15.0;
const BAR: f64 = 20.0;
/// How high the bar itself is.
const THICKNESS: f64 = 13.0;
/// How far the ends of a whisker reach up and down from its line.
const CAP: f64 = 4.0;
/// How much wider than the largest value the drawing is, so that its whisker is seen.
const ROOM: f64 = 1.01;

/// A value with its name.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// What it is of.
    pub name: String,
    /// How long it is.
    pub value: f64,
    /// The least and the greatest of the rounds, if there were several.
    pub spread: Option<(f64, f64)>,
    /// The value as it is written.
    pub shown: String,
    /// Whether it is the one that the others stand beside.
    pub ours: bool,
}

/// How high a drawing of so many bars is.
#[must_use]
pub fn height(bars: usize) -> f64 {
    ROW * bars as f64
}

/// What is in the drawing, [`WIDTH`] by [`height`]. All bars begin at zero.
#[must_use]
pub fn drawing(bars: &[Bar]) -> String {
    let most = bars.iter().map(|bar| bar.spread.map_or(bar.value, |(_, greatest)| greatest)).fold(0.0, f64::max);
    let x = |value: f64| if most > 0.0 { WIDTH * (value / (most * ROOM)).clamp(0.0, 1.0) } else { 0.0 };
    let mut text = String::new();
    for (row, bar) in bars.iter().enumerate() {
        let top = ROW * row as f64;
        let class = if bar.ours { "bar ours" } else { "bar" };
        // A value of nothing is a line, so that it is seen to be there.
        let width = x(bar.value).max(1.0);
        let _ = write!(
            text,
            "<text class=\"name\" x=\"0\" y=\"{0:.1}\">{1}</text>\
             <text class=\"value end\" x=\"{WIDTH}\" y=\"{0:.1}\">{2}</text>\
             <rect class=\"{class}\" x=\"0\" y=\"{3:.1}\" width=\"{width:.1}\" height=\"{THICKNESS}\"/>",
            top + TEXT,
            escaped(&bar.name),
            escaped(&bar.shown),
            top + BAR,
        );
        if let Some((least, greatest)) = bar.spread {
            let _ = write!(text, "<path class=\"whisker\" d=\"{}\"/>", whisker(x(least), x(greatest), top));
        }
    }
    text
}

fn whisker(least: f64, greatest: f64, top: f64) -> String {
    let middle = top + BAR + THICKNESS / 2.0;
    let (from, cap) = (middle - CAP, 2.0 * CAP);
    format!("M{least:.1} {from:.1}v{cap}M{greatest:.1} {from:.1}v{cap}M{least:.1} {middle:.1}H{greatest:.1}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(name: &str, value: f64, spread: Option<(f64, f64)>) -> Bar {
        Bar { name: name.to_owned(), value, spread, shown: format!("{value} µs"), ours: false }
    }

    #[test]
    fn the_largest_bar_or_whisker_fills_the_width() {
        let drawn = drawing(&[bar("a", 50.0, Some((40.0, 100.0))), bar("b", 100.0, None)]);
        assert!(drawn.contains("width=\"237.6\"") && drawn.contains("width=\"475.2\""), "{drawn}");
        assert!(drawn.contains("M190.1 22.5v8M475.2 22.5v8M190.1 26.5H475.2"), "{drawn}");
        assert_eq!(drawn.matches("whisker").count(), 1);
        assert_eq!(height(2), 84.0);
    }

    #[test]
    fn a_bar_of_nothing_is_seen_and_nothing_is_not_a_number() {
        for bars in [vec![bar("none", 0.0, None)], vec![bar("none", 0.0, None), bar("some", 5.0, None)], vec![]] {
            let drawn = drawing(&bars);
            assert!(!drawn.contains("NaN") && !drawn.contains("inf"), "{drawn}");
            assert_eq!(drawn.contains("width=\"1.0\""), !bars.is_empty());
        }
    }

    #[test]
    fn names_are_escaped_and_ours_is_told_apart() {
        let drawn = drawing(&[Bar { ours: true, ..bar("<b>", 1.0, None) }]);
        assert!(drawn.contains("&lt;b&gt;") && drawn.contains("class=\"bar ours\""), "{drawn}");
    }
}
