//! Charts as one SVG file of its own: it needs nothing from elsewhere and follows the reader's light or dark, by the
//! rules of the page.

use std::fmt::Write as _;

use super::chart::{Chart, HEIGHT, WIDTH};
use super::page::{STYLE, escaped};

/// What a sheet has besides its charts: around each, for its title, for a line of its legend.
const GAP: f64 = 16.0;
const CAPTION: f64 = 22.0;
const LEGEND_LINE: f64 = 16.0;
/// Letters of a legend that surely fit the width of a chart, and those of a key and its distance to the next.
const LEGEND_LETTERS: usize = 68;
const KEY_LETTERS: usize = 4;
/// Charts beside each other.
const COLUMNS: usize = 2;
/// The rules besides the page's.
const SHEET_STYLE: &str = "svg { background: var(--paper); font: 13px/1.4 system-ui, sans-serif; }\n\
    text { fill: var(--ink); }\n.title { font-weight: 600; }\n\
    tspan.c0 { fill: var(--c0); } tspan.c1 { fill: var(--c1); } tspan.c2 { fill: var(--c2); }\n\
    tspan.c3 { fill: var(--c3); } tspan.c4 { fill: var(--c4); } tspan.c5 { fill: var(--c5); }\n";

/// `charts` under `title`, two beside each other.
#[must_use]
pub fn sheet(title: &str, charts: &[Chart]) -> String {
    noted(title, charts, &[])
}

/// The same with `notes` below, a line each, or more lines where they are long.
#[must_use]
pub fn noted(title: &str, charts: &[Chart], notes: &[String]) -> String {
    let columns = charts.len().clamp(1, COLUMNS);
    let mut body = String::new();
    let mut top = CAPTION + GAP;
    for row in charts.chunks(columns) {
        let mut height: f64 = 0.0;
        for (column, chart) in row.iter().enumerate() {
            let left = GAP + column as f64 * (WIDTH + GAP);
            height = height.max(place(&mut body, chart, left, top));
        }
        top += height + GAP;
    }
    top += if notes.is_empty() { 0.0 } else { GAP };
    for line in notes.iter().flat_map(|note| wrapped(note, columns * LEGEND_LETTERS)) {
        // Writing to a text can't fail.
        let _ = writeln!(body, "<text x=\"{GAP}\" y=\"{top}\">{}</text>", escaped(&line));
        top += LEGEND_LINE;
    }
    let width = GAP + columns as f64 * (WIDTH + GAP);
    let (title, body) = (visible(&escaped(title)), visible(&body));
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {top}\" role=\"img\">\n<title>{title}</title>\n\
         <style>\n{STYLE}{SHEET_STYLE}</style>\n<text class=\"title\" x=\"{GAP}\" y=\"{CAPTION}\">{title}</text>\n\
         {body}</svg>\n"
    )
}

/// Adds `chart` to `body` with its upper left corner there, and returns how high it is.
fn place(body: &mut String, chart: &Chart, left: f64, top: f64) -> f64 {
    let (title, caption, drawing) = (escaped(&chart.title), escaped(&chart.caption()), chart.drawing());
    // Writing to a text can't fail.
    let _ = writeln!(
        body,
        "<text class=\"title\" x=\"{left}\" y=\"{}\">{caption}</text>\n<svg x=\"{left}\" y=\"{}\" width=\"{WIDTH}\" \
         height=\"{HEIGHT}\" overflow=\"visible\" role=\"img\" aria-label=\"{title}\">{drawing}</svg>",
        top + LEGEND_LINE,
        top + CAPTION,
    );
    let mut below = top + CAPTION + HEIGHT;
    for line in legend(chart) {
        below += LEGEND_LINE;
        let _ = writeln!(body, "<text x=\"{left}\" y=\"{below}\">{line}</text>");
    }
    below - top
}

/// The legend as lines that fit a chart's width.
fn legend(chart: &Chart) -> Vec<String> {
    let (mut lines, mut letters) = (Vec::new(), LEGEND_LETTERS);
    for (colour, text) in chart.keys() {
        letters += text.chars().count() + KEY_LETTERS;
        if letters > LEGEND_LETTERS {
            letters = text.chars().count() + KEY_LETTERS;
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            let _ = write!(line, "<tspan class=\"c{colour}\">■</tspan> {}  ", escaped(&text));
        }
    }
    lines
}

/// The text in lines of so many letters, where its words allow it.
fn wrapped(text: &str, letters: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= letters => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// `text` without the letters that no XML may have.
fn visible(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control() || matches!(letter, '\n' | '\t')).collect()
}

#[cfg(test)]
mod tests {
    use super::super::chart::Line;
    use super::*;

    fn chart(title: &str, names: &[&str]) -> Chart {
        let line = |name: &&str| Line { name: (*name).into(), points: vec![(0.0, Some(1.0)), (1.0, Some(2.0))] };
        Chart::new(title, "ms", names.iter().map(line).collect())
    }

    #[test]
    fn all_charts_are_in_one_file_of_the_size_that_it_says() {
        let long = chart("one", &["a rather long name of a line", "another that is as long", "and a third one"]);
        let svg = sheet("three <charts>", &[long.clone(), chart("two", &["b"]), long]);
        assert!(svg.starts_with("<svg xmlns=") && svg.ends_with("</svg>\n"));
        assert_eq!((svg.matches("<svg x=").count(), svg.matches("class=\"line ").count()), (3, 7));
        // Two rows of caption, drawing and two lines of legend, below the title.
        assert!(svg.contains("viewBox=\"0 0 1008 598\""), "{}", &svg[..200]);
        assert!(svg.contains("three &lt;charts&gt;") && svg.contains("prefers-color-scheme: dark"));
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
    }

    #[test]
    fn notes_are_below_and_long_ones_are_wrapped_between_words() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("incomprehensible x", 4), ["incomprehensible", "x"]);
        let (one, notes) = ([chart("one", &["a"])], ["short & <true>".to_owned(), "long ".repeat(20)]);
        let (plain, noted) = (sheet("x", &one), noted("x", &one, &notes));
        assert_eq!(noted.matches("<text").count(), plain.matches("<text").count() + 3);
        assert!(noted.contains(">short &amp; &lt;true&gt;</text>"), "{noted}");
    }

    #[test]
    fn a_legend_is_broken_between_its_entries() {
        assert_eq!(legend(&chart("x", &["a", "b"])).len(), 1);
        assert_eq!(legend(&chart("x", &["a"; 20])).len(), 3);
        assert_eq!(legend(&chart("x", &[&"long".repeat(100), "b"])).len(), 2);
        assert!(legend(&chart("x", &[])).is_empty());
    }

    #[test]
    fn no_letter_is_left_that_xml_forbids_and_no_name_is_read_as_one_of_its_own() {
        let svg = sheet("a\u{1}b", &[chart("c\u{0}", &["<d>\u{8}"])]);
        assert!(!svg.contains(['\u{0}', '\u{1}', '\u{8}']), "{svg}");
        assert!(svg.contains("<title>ab</title>") && svg.contains("&lt;d&gt;") && !svg.contains("<d>"));
    }
}
