//! The page of all keys.

use std::fmt::Write as _;

use super::{code, head, table};
use crate::config::AuthMode;
use crate::config::keys::{FILE_SUFFIX, FOREIGN_VARIABLES, KEYS, Key, Range};
use crate::config::limits::LimitsConfig;
use crate::config::raw::Source;
use crate::config::tables::{TABLES, TableKey};
use crate::exit::Exit;

/// How values are written.
const FORMS: [(&str, &str); 4] = [
    ("N", "a whole number"),
    ("TIME", "a whole number and `ms`, `s`, `m`, `h` or `d`, such as `500ms`"),
    ("SIZE", "a whole number and `KiB`, `MiB` or `GiB`, such as `64MiB`"),
    ("CIDR", "a network such as `10.0.0.0/8`, or an address"),
];

pub(super) fn page() -> String {
    let mut text = head("Configuration", "terse-server/src/config/keys.rs");
    let foreign = FOREIGN_VARIABLES.map(code).join(" and ");
    let _ = write!(
        text,
        "A flag overrides its environment variable, which overrides the line of `terse.toml` (`--config FILE`, else in the \
         working directory), which overrides the default. A variable with `{FILE_SUFFIX}` after its name reads the value \
         from a file. Lists are separated by commas; in the file they may be lists. An unknown key, flag or variable \
         `TERSE_…` is refused, but for {foreign}, which belong to the load tests. `terse check-config` prints what is in \
         force and where each value comes from.\n\n"
    );
    text.push_str(&table(["form", "what it is"], FORMS.map(|(form, about)| [code(form), about.to_owned()])));
    text.push_str("\n## Keys\n\n");
    text.push_str(&table(["key, flag, variable", "what it is for, values, default"], KEYS.map(row)));
    for group in &TABLES {
        let _ = write!(text, "\n## Table {}\n\n{}\n\n", code(&group.header.replace(", ", "`, `")), group.about);
        text.push_str(&table(["key", "values", "default", "what it is for"], group.keys.iter().map(row_of_table)));
    }
    for (auth, when) in [(AuthMode::Keys, "keys"), (AuthMode::Open, "open")] {
        let limits = LimitsConfig::usual(auth).describe(&Source::Default);
        let _ = write!(text, "\n## Limits without a word, `auth = \"{when}\"`\n\n```toml\n{}\n```\n", limits.trim());
    }
    text.push_str("\n## Exit codes\n\n");
    let codes = Exit::ALL.map(|(exit, meaning)| [(exit as u8).to_string(), meaning.to_owned()]);
    text.push_str(&table(["code", "meaning"], [["0".to_owned(), "all went well".to_owned()]].into_iter().chain(codes)));
    text
}

/// Two columns, because names are long: beside more of them what a key is for would be out of sight.
fn row(key: &Key) -> [String; 2] {
    let names = format!("`{}`<br>`--{}`<br>`{}`", key.name, key.flag, key.variable);
    // A default that follows from others is words, not a value.
    let default = if key.default.is_some() { code(key.default_text) } else { key.default_text.to_owned() };
    let secret = if key.secret { "; a password in it is never shown" } else { "" };
    [names, format!("{}{secret}<br>{}; default: {default}", key.help, values(key.value, key.range))]
}

fn row_of_table(key: &TableKey) -> [String; 4] {
    [code(key.name), values(key.value, key.range), key.default.to_owned(), key.help.to_owned()]
}

/// The form and the range.
fn values(form: &str, range: Range) -> String {
    match range {
        Range::Any => code(form),
        range => format!("`{form}`, `{}`", range.text().replace(" to ", "` to `")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_row_with_its_three_names_default_and_range() {
        let page = page();
        for key in KEYS {
            let names = format!("| `{}`<br>`--{}`<br>`{}` | ", key.name, key.flag, key.variable);
            let line = page.lines().find(|line| line.starts_with(&names)).unwrap_or_else(|| panic!("{}", key.name));
            assert!(line.contains(key.default_text) && line.contains(&key.help.replace('|', "\\|")), "{line}");
        }
        assert!(page.contains("<br>`N`, `1` to `256`; default: one per core |"), "{page}");
        assert!(page.contains("<br>`TIME`, `10ms` to `10m`; default: `5s` |"), "{page}");
    }

    #[test]
    fn what_applies_without_a_word_is_told_as_the_file_would_have_it() {
        let page = page();
        assert!(page.contains("[limits.create]\nby = \"key\"\nalgorithm = \"token-bucket\"\nburst = 100\n"), "{page}");
        assert!(
            page.contains("[limits.create]\nby = \"address\"\nalgorithm = \"token-bucket\"\nburst = 20\n"),
            "{page}"
        );
    }
}
