//! CSV (RFC 4180): a header, lines that end with CRLF, UTF-8. It is made to be
//! saved and opened in a spreadsheet, which takes some texts for formulas: what
//! could be one gets an apostrophe in front, so that it stays a text.

use actix_web::HttpResponse;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use terse_core::ShortCode;

/// The content type.
const CONTENT_TYPE: &str = "text/csv; charset=utf-8";

/// What a spreadsheet may take for the begin of a formula, or strips to find one.
const FORMULA_STARTS: [char; 11] = ['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠'];

/// A table under way.
pub(super) struct Csv(String);

impl Csv {
    /// A table with these columns.
    pub(super) fn new<const N: usize>(columns: [&str; N]) -> Self {
        let mut table = Self(String::new());
        table.row(columns);
        table
    }

    /// Adds a row.
    pub(super) fn row<const N: usize>(&mut self, fields: [&str; N]) {
        for (place, field) in fields.into_iter().enumerate() {
            if place > 0 {
                self.0.push(',');
            }
            self.field(field);
        }
        self.0.push_str("\r\n");
    }

    fn field(&mut self, field: &str) {
        let guard = if field.trim_start_matches(' ').starts_with(FORMULA_STARTS) { "'" } else { "" };
        if !field.contains(['"', ',', '\r', '\n']) {
            self.0.push_str(guard);
            self.0.push_str(field);
            return;
        }
        self.0.push('"');
        self.0.push_str(guard);
        self.0.push_str(&field.replace('"', "\"\""));
        self.0.push('"');
    }

    /// The answer: a file to save, named after the link and what is told of it.
    pub(super) fn response(self, code: &ShortCode, what: &str) -> HttpResponse {
        let mut response = HttpResponse::Ok();
        response.insert_header((header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE)));
        // A code has no character that would have to be quoted.
        response.insert_header((header::CONTENT_DISPOSITION, format!("attachment; filename=\"{code}-{what}.csv\"")));
        response.insert_header(VARY_ACCEPT);
        response.body(self.0)
    }
}

/// Said by every answer that has two forms.
pub(super) const VARY_ACCEPT: (HeaderName, HeaderValue) = (header::VARY, HeaderValue::from_static("Accept"));

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(fields: [&str; 3]) -> String {
        let mut table = Csv(String::new());
        table.row(fields);
        table.0
    }

    /// A reader of its own, to the letter of RFC 4180.
    fn read(text: &str) -> Vec<Vec<String>> {
        let (mut rows, mut row, mut field, mut quoted) = (Vec::new(), Vec::new(), String::new(), false);
        let mut letters = text.chars().peekable();
        while let Some(letter) = letters.next() {
            match letter {
                '"' if quoted && letters.next_if_eq(&'"').is_some() => field.push('"'),
                '"' => quoted = !quoted,
                ',' if !quoted => row.push(std::mem::take(&mut field)),
                '\r' if !quoted => {
                    assert_eq!(letters.next(), Some('\n'));
                    row.push(std::mem::take(&mut field));
                    rows.push(std::mem::take(&mut row));
                }
                '\n' => {
                    assert!(quoted, "a bare line feed in {text:?}");
                    field.push('\n');
                }
                other => field.push(other),
            }
        }
        assert!(!quoted && row.is_empty() && field.is_empty(), "{text:?} does not end with a row");
        rows
    }

    #[test]
    fn fields_are_quoted_only_where_they_must_be() {
        assert_eq!(line(["a", "", "b c"]), "a,,b c\r\n");
        assert_eq!(line(["a,b", "say \"x\"", "two\nlines"]), "\"a,b\",\"say \"\"x\"\"\",\"two\nlines\"\r\n");
        assert_eq!(Csv::new(["at", "bot"]).0, "at,bot\r\n");
    }

    #[test]
    fn what_could_be_a_formula_stays_a_text() {
        for start in FORMULA_STARTS {
            let written = read(&line([&format!("{start}1+1"), &format!("  {start}x"), &format!("a{start}")]));
            assert_eq!(written[0], [format!("'{start}1+1"), format!("'  {start}x"), format!("a{start}")]);
        }
        assert_eq!(
            line(["=HYPERLINK(\"http://x\",\"y\")", "2026-01-01", "de"]),
            "\"'=HYPERLINK(\"\"http://x\"\",\"\"y\"\")\",2026-01-01,de\r\n"
        );
    }

    #[test]
    fn the_answer_is_a_file_to_save() {
        let response = Csv::new(["at"]).response(&ShortCode::parse("a_b-C").unwrap(), "clicks");
        let header = |name| response.headers().get(name).unwrap().to_str().unwrap();
        assert_eq!(header(header::CONTENT_TYPE), "text/csv; charset=utf-8");
        assert_eq!(header(header::CONTENT_DISPOSITION), "attachment; filename=\"a_b-C-clicks.csv\"");
        assert_eq!(header(header::VARY), "Accept");
    }

    proptest! {
        #[test]
        fn any_text_is_read_back_as_it_was(fields in proptest::array::uniform3("(.|[=,\"'\r\n\t -])*")) {
            let written = line([&fields[0], &fields[1], &fields[2]]);
            let rows = read(&written);
            prop_assert_eq!(rows.len(), 1);
            for (read, field) in rows[0].iter().zip(&fields) {
                let text = read.strip_prefix('\'').filter(|_| !field.starts_with('\'')).unwrap_or(read);
                prop_assert_eq!(text, field);
                prop_assert!(!read.starts_with(FORMULA_STARTS));
            }
        }
    }
}
