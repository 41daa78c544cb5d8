//! An estimate as a table for the terminal, as Markdown for the book, as JSON
//! for claims and other programs.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::inputs::{FIELDS, Inputs};
use crate::presets::{Preset, Verdict};
use crate::results::Results;

/// How an estimate is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// For a terminal.
    Table,
    /// For the book.
    Markdown,
    /// For programs.
    Json,
}

/// A title and a table beneath it; the first row is the head.
struct Section {
    title: String,
    rows: Vec<Vec<String>>,
}

/// The estimate of `inputs`, which began as those of `preset`, without a line break at its end.
#[must_use]
pub fn render(preset: &Preset, inputs: &Inputs, form: Form) -> String {
    let results = inputs.results();
    match form {
        Form::Json => format!("{:#}", as_json(preset, inputs, &results)),
        Form::Table => sections(preset, inputs, &results).iter().map(text).collect::<Vec<_>>().join("\n\n"),
        Form::Markdown => sections(preset, inputs, &results).iter().map(markdown).collect::<Vec<_>>().join("\n\n"),
    }
}

fn row<const CELLS: usize>(cells: [&str; CELLS]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

fn sections(preset: &Preset, inputs: &Inputs, results: &Results) -> Vec<Section> {
    let mut sections = vec![inputs_section(preset, inputs)];
    for outcome in results.all() {
        if sections.last().is_none_or(|last| last.title != outcome.group) {
            sections.push(Section { title: outcome.group.to_owned(), rows: vec![row(["what", "result", "from"])] });
        }
        if let Some(last) = sections.last_mut() {
            last.rows.push(row([outcome.label, &outcome.shown(), outcome.formula]));
        }
    }
    if let Some(section) = quotes_section(preset, inputs, results) {
        sections.push(section);
    }
    sections
}

fn inputs_section(preset: &Preset, inputs: &Inputs) -> Section {
    let mut rows = vec![row(["input", "value", "what it is", "why"])];
    let period = row(["per", inputs.per.name(), "the period in which links are counted", ""]);
    for field in FIELDS {
        let value = (field.get)(inputs);
        let reason = preset.reasons.iter().find(|(name, _)| *name == field.name());
        // A reason is one for the preset's value alone.
        let kept = (value - (field.get)(&preset.inputs)).abs() < f64::EPSILON;
        let why = if kept { reason.map_or("", |(_, why)| *why) } else { "given" };
        rows.push(row([field.flag, &field.unit.show(value), field.help, why]));
    }
    rows.insert(2, period);
    Section { title: format!("inputs: {}", preset.title), rows }
}

/// What the preset's source says, if nothing was changed in it.
fn quotes_section(preset: &Preset, inputs: &Inputs, results: &Results) -> Option<Section> {
    if preset.quotes.is_empty() || *inputs != preset.inputs {
        return None;
    }
    let mut rows = vec![row(["it says", "of", "its inputs come to", "verdict"])];
    for quote in preset.quotes {
        let outcome = results.get(quote.result)?;
        let verdict = match quote.verdict(results)? {
            Verdict::Agrees => "agrees".to_owned(),
            Verdict::Differs(times) => format!("{} times", crate::Unit::Times.show(times)),
        };
        let verdict = if quote.remark.is_empty() { verdict } else { format!("{verdict}: {}", quote.remark) };
        rows.push(row([&outcome.unit.show(quote.value), outcome.label, &outcome.shown(), &verdict]));
    }
    Some(Section { title: "what the guide says".to_owned(), rows })
}

fn text(section: &Section) -> String {
    let columns = section.rows.first().map_or(0, Vec::len);
    let width = |column: usize| section.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = section.title.to_uppercase();
    for row in section.rows.iter().skip(1) {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let _ = write!(text, "\n  {}", cells.join("  ").trim_end());
    }
    text
}

fn markdown(section: &Section) -> String {
    let line = |row: &[String]| format!("| {} |", row.iter().map(|cell| escaped(cell)).collect::<Vec<_>>().join(" | "));
    let mut text = format!("**{}**\n", escaped(&section.title));
    for (number, row) in section.rows.iter().enumerate() {
        let _ = write!(text, "\n{}", line(row));
        if number == 0 {
            let _ = write!(text, "\n|{}", "---|".repeat(row.len()));
        }
    }
    text
}

/// What would end a cell or begin an emphasis, as itself.
fn escaped(cell: &str) -> String {
    cell.replace('|', "\\|").replace('*', "\\*").replace('_', "\\_")
}

fn as_json(preset: &Preset, inputs: &Inputs, results: &Results) -> Value {
    let mut given = Map::new();
    given.insert("per".to_owned(), inputs.per.name().into());
    given.extend(FIELDS.iter().map(|field| (field.name(), (field.get)(inputs).into())));
    let computed: Map<String, Value> = results
        .all()
        .iter()
        .map(|outcome| (outcome.name.to_owned(), json!({"value": outcome.value, "unit": outcome.unit.name()})))
        .collect();
    let quoted: Vec<Value> = preset
        .quotes
        .iter()
        .filter_map(|quote| {
            let times = quote.value / results.get(quote.result)?.value;
            Some(json!({"result": quote.result, "value": quote.value, "times": times, "remark": quote.remark}))
        })
        .collect();
    json!({"preset": preset.name, "inputs": given, "results": computed, "quoted": quoted})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presets::PRESETS;

    fn rendered(name: &str, form: Form) -> String {
        let preset = Preset::named(name).unwrap();
        render(preset, &preset.inputs, form)
    }

    #[test]
    fn a_table_has_every_input_and_every_result_with_its_formula() {
        let text = rendered("ours", Form::Table);
        assert!(text.starts_with("INPUTS: TERSE\n"), "{text}");
        for field in FIELDS {
            assert!(text.contains(&format!("\n  {} ", field.flag)), "{}", field.flag);
        }
        for outcome in PRESETS[0].inputs.results().all() {
            assert!(text.contains(outcome.formula) && text.contains(&outcome.shown()), "{}", outcome.name);
        }
        assert!(text.lines().all(|line| line.trim_end() == line), "no blanks at the ends of lines");
    }

    #[test]
    fn json_has_every_input_and_result_as_a_number() {
        let json: Value = serde_json::from_str(&rendered("karan", Form::Json)).unwrap();
        assert_eq!(json["preset"], "karan");
        assert_eq!(json["inputs"]["links"], 100e6);
        assert_eq!(json["inputs"]["per"], "month");
        assert_eq!(json["results"]["links_total"]["value"], 12e9);
        assert_eq!(json["results"]["links_total"]["unit"], "count");
        let slip = json["quoted"].as_array().unwrap().last().unwrap();
        assert!((slip["times"].as_f64().unwrap() - 5.83).abs() < 0.01, "{slip}");
    }

    #[test]
    fn markdown_is_tables_with_as_many_cells_in_each_row() {
        let text = rendered("xu", Form::Markdown);
        for table in text.split("\n\n**") {
            let rows: Vec<&str> = table.lines().filter(|line| line.starts_with('|')).collect();
            let cells = |row: &str| row.replace("\\|", "").matches('|').count();
            assert!(rows.iter().all(|row| cells(row) == cells(rows[0])), "{table}");
            assert!(rows[1].chars().all(|letter| "|-".contains(letter)), "{table}");
        }
    }

    #[test]
    fn a_slip_of_a_guide_is_told_with_its_factor() {
        let text = rendered("xu", Form::Table);
        assert!(text.contains("WHAT THE GUIDE SAYS"));
        assert!(
            text.contains("365 TB") && text.contains("36.5 TB") && text.contains("10 times: the ten years"),
            "{text}"
        );
        assert!(!rendered("ours", Form::Table).contains("THE GUIDE"));
    }

    #[test]
    fn a_guide_is_not_compared_with_other_inputs_than_its_own() {
        let preset = Preset::named("xu").unwrap();
        let mut inputs = preset.inputs;
        inputs.set("links", 1e6).unwrap();
        let text = render(preset, &inputs, Form::Table);
        assert!(!text.contains("365 TB"), "{text}");
        assert!(text.lines().any(|line| line.starts_with("  links ") && line.ends_with("given")), "{text}");
    }

    #[test]
    fn cells_cannot_end_a_row_of_markdown() {
        assert_eq!(escaped("a|b*c_d"), "a\\|b\\*c\\_d");
    }
}
