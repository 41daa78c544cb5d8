//! `terse reference PAGE`: the pages of `docs/reference/` that this program has the facts of. `cargo xtask book
//! reference` writes them; a test holds the written ones against these.

mod configuration;

use std::fmt::Write as _;
use std::iter;

use terse_core::metrics::table::{BUCKET_BOUNDS, Described, GROUPS, Label};
use terse_http::reference::{DescribedProblem, FAULTS, problems};

use crate::cli::ReferencePage;

/// The page in Markdown.
pub(super) fn page(page: ReferencePage) -> String {
    match page {
        ReferencePage::Configuration => configuration::page(),
        ReferencePage::Metrics => metrics(),
        ReferencePage::Errors => errors(),
    }
}

/// The head of a page that is made from `source`.
fn head(title: &str, source: &str) -> String {
    format!("# {title}\n\n*Made by `cargo xtask book reference` from `{source}`: change that, not this page.*\n\n")
}

/// A table. What separates columns is written so that it doesn't.
fn table<const COLUMNS: usize>(head: [&str; COLUMNS], rows: impl IntoIterator<Item = [String; COLUMNS]>) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut text = line(&head.map(str::to_owned));
    text.push_str(&line(&head.map(|_| "---".to_owned())).replace(' ', ""));
    for row in rows {
        text.push_str(&line(&row.map(|cell| cell.replace('|', "\\|"))));
    }
    text
}

/// `text` between backquotes.
fn code(text: &str) -> String {
    format!("`{text}`")
}

fn metrics() -> String {
    let mut text = head("Metrics", "terse-core/src/metrics/table.rs");
    text.push_str(
        "`GET /metrics` of each server tells these, in the text format of Prometheus. They are the server's own, from \
         its start: sum them over servers. Counters begin at zero with each start. What to be woken for is in \
         `deploy/prometheus/alerts.yml`, and what to do then in the [runbook](../runbook.md).\n\n",
    );
    let bounds: Vec<String> = BUCKET_BOUNDS.iter().map(f64::to_string).collect();
    let _ = writeln!(text, "Histograms have buckets up to `{}` seconds.", bounds.join("`, `"));
    for (title, group) in GROUPS {
        // Two columns, because names are long: beside more of them a text has room for a word or two.
        let rows = group.iter().map(|metric| {
            let kind = format!("{}<br>{}: {}", code(metric.name), metric.kind.as_str(), metric.unit);
            let told: Vec<String> = iter::once(meaning(metric)).chain(metric.labels.iter().map(label)).collect();
            [kind, told.join("<br>")]
        });
        let _ = write!(text, "\n## {title}\n\n{}", table(["metric, type, unit", "meaning, labels"], rows));
    }
    text
}

/// A label with its values, if there are no others, and what it tells.
fn label(label: &Label) -> String {
    let mut text = code(label.name);
    if !label.values.is_empty() {
        let values: Vec<String> = label.values.iter().copied().map(code).collect();
        let _ = write!(text, ": {}", values.join(", "));
    }
    if !label.about.is_empty() {
        let _ = write!(text, " ({})", label.about);
    }
    text
}

fn meaning(metric: &Described) -> String {
    match metric.shown_by.as_str() {
        "" => metric.help.to_owned(),
        shown_by => format!("{}; only {shown_by}", metric.help),
    }
}

fn errors() -> String {
    let mut text = head("Errors", "terse-http/src/reference.rs");
    text.push_str(
        "Every error of the API is `application/problem+json` ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)): \
         `type`, `title`, `status`, `detail`, `code`, `request_id`, and with 422 `errors`. `code` never changes its \
         meaning; `type` is `urn:terse:problem:` and the code. `detail` is for people and may change. 429 and 503 \
         carry `Retry-After`, 405 carries `Allow`, 401 `WWW-Authenticate`. An item of a batch that fails has its \
         problem in its place. Redirects answer the same problems, or a page to browsers.\n\n",
    );
    let rows = problems().map(|problem| {
        let DescribedProblem { status, code: word, title, when, remedy } = problem;
        [status.to_string(), format!("{}<br>{title}", code(word)), when.to_owned(), remedy.to_owned()]
    });
    text.push_str(&table(["status", "code, title", "when", "what a client does"], rows));
    text.push_str(
        "\n## Faults of fields\n\n`errors` of a 422 has one member for each fault, with `field`, `code` and `detail`. \
         The codes:\n\n",
    );
    let rows = FAULTS.iter().map(|(word, about)| [code(word), (*about).to_owned()]);
    text.push_str(&table(["code", "the field, header or parameter"], rows));
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn the_written_pages_are_the_current_ones() {
        for which in ReferencePage::value_variants() {
            let name = which.to_possible_value().unwrap().get_name().to_owned();
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../docs/reference/{name}.md"));
            let written = std::fs::read_to_string(&path).unwrap();
            let current = page(*which);
            let differs = written.lines().zip(current.lines()).find(|(written, current)| written != current);
            assert!(written == current, "run `cargo xtask book reference`: {name}.md is not current: {differs:?}");
        }
    }

    #[test]
    fn each_row_has_as_many_cells_as_its_table() {
        for which in ReferencePage::value_variants() {
            let mut columns = 0;
            let mut rows = 0;
            for line in page(*which).lines() {
                let cells = line.replace("\\|", "").matches('|').count();
                columns = if line.starts_with('|') && columns == 0 { cells } else { columns };
                columns = if cells == 0 { 0 } else { columns };
                assert_eq!(cells, columns, "{line}");
                rows += usize::from(cells > 0);
            }
            assert!(rows > 20, "{which:?} has {rows} rows");
        }
    }

    #[test]
    fn labels_are_told_with_their_values() {
        let of = |values, about| label(&Label { name: "to", values, about });
        assert_eq!(of(&["open", "closed"], "the state"), "`to`: `open`, `closed` (the state)");
        assert_eq!((of(&[], "any"), of(&["open"], "")), ("`to` (any)".to_owned(), "`to`: `open`".to_owned()));
    }

    #[test]
    fn a_bar_in_a_cell_is_no_column() {
        assert_eq!(table(["a", "b"], [["x|y".to_owned(), "z".to_owned()]]), "| a | b |\n|---|---|\n| x\\|y | z |\n");
    }
}
