//! The commands that the book tells its readers to run. A test that is called otherwise by now would run nothing and
//! seem to pass, so each test, drill and metric that a page names has to be there; and what a page says that a line of
//! `awk` prints has to be what it prints.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::pages::{Page, code_spans};
use super::runbook::METRICS;
use crate::claims::output_of;
use crate::process::Supervisor;

/// Where tests are: what these folders' names begin with, and this program's own.
const CRATES: [&str; 2] = ["terse-", "xtask"];
/// Where drills are told by their names.
const DRILLS: &str = "terse-it/src/drills/";
/// What stands before the names of drills, and names that are none.
const DRILL: &str = "cargo xtask drill ";
const NO_DRILLS: [&str; 4] = ["all", "list", "page", "NAME"];
/// What runs tests.
const TESTS: [&str; 2] = ["cargo test ", "cargo xtask test "];
/// Flags of those whose value is the next word.
const WITH_VALUE: [&str; 2] = ["-p", "--test"];
/// From so many words on a name with `_` between them is a test's: keys and tables have fewer.
const WORDS_OF_A_TEST: usize = 5;
/// What names of metrics begin with, and what those of histograms may end with.
const METRIC: &str = "terse_";
const ENDS: [&str; 4] = ["_bucket", "_count", "_sum", ""];

/// What there is to be named.
#[derive(Debug, Default)]
struct Known {
    functions: BTreeSet<String>,
    modules: BTreeSet<String>,
    drills: String,
    metrics: String,
}

/// What is wrong with the commands of the pages, a line each.
///
/// # Errors
/// When a file can't be read, or a command can't be run.
pub fn problems(root: &Path, supervisor: &Supervisor, pages: &[Page]) -> Result<Vec<String>> {
    let known = Known::read(root)?;
    let mut problems = vec![];
    for page in pages.iter().filter(|page| !page.path.starts_with("reference/")) {
        let mut told = known.missing(&page.text);
        for line in printed(supervisor, &page.text)? {
            told.push(format!("an awk of it prints '{line}', which it doesn't say"));
        }
        problems.extend(told.iter().map(|problem| format!("{}: {problem}", page.path)));
    }
    Ok(problems)
}

impl Known {
    fn read(root: &Path) -> Result<Self> {
        let mut known = Self { metrics: read(&root.join(METRICS))?, ..Self::default() };
        for folder in fs::read_dir(root).with_context(|| root.display().to_string())? {
            let folder = folder?;
            if CRATES.iter().any(|prefix| folder.file_name().to_string_lossy().starts_with(prefix)) {
                known.add_folder(&folder.path())?;
            }
        }
        Ok(known)
    }

    /// What there is beneath a folder; files and folders are modules by their names.
    fn add_folder(&mut self, folder: &Path) -> Result<()> {
        for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            self.modules.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
            if path.is_dir() {
                self.add_folder(&path)?;
            } else if path.extension().is_some_and(|end| end == "rs") {
                let source = read(&path)?;
                self.add(&source);
                if path.to_string_lossy().contains(DRILLS) {
                    self.drills.push_str(&source);
                }
            }
        }
        Ok(())
    }

    /// The functions and modules that a source declares.
    fn add(&mut self, source: &str) {
        let names = |word: &str| -> Vec<String> {
            let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
            let name = |rest: &str| rest[..rest.find(|letter| !is_part(letter)).unwrap_or(rest.len())].to_owned();
            source.split(word).skip(1).map(name).collect()
        };
        self.functions.extend(names("fn "));
        self.modules.extend(names("mod "));
    }

    /// What a page names that is not there, a line each.
    fn missing(&self, page: &str) -> Vec<String> {
        let in_blocks = blocks(page).flat_map(|block| block.lines().map(str::to_owned).collect::<Vec<_>>());
        let spans = code_spans(page);
        let mut missing = vec![];
        for line in spans.iter().cloned().chain(in_blocks) {
            let command = line.split(" #").next().unwrap_or_default();
            if let Some(names) = command.strip_prefix(DRILL) {
                let names = names.split_whitespace().take_while(|name| !name.starts_with('-'));
                let unknown = names.filter(|name| !NO_DRILLS.contains(name) && !self.has_drill(name));
                missing.extend(unknown.map(|name| format!("there is no drill '{name}'")));
            }
            let filters = TESTS.iter().filter_map(|prefix| command.strip_prefix(prefix)).flat_map(filters);
            let unknown = filters.filter(|filter| *filter != "NAME" && !self.has_tests(filter));
            missing.extend(unknown.map(|filter| format!("no test is called '{filter}'")));
        }
        for name in spans.iter().filter(|span| is_name(span)) {
            let is_metric = name.starts_with(METRIC);
            if is_metric && !self.has_metric(name) {
                missing.push(format!("there is no metric '{name}'"));
            } else if !is_metric && name.split('_').count() >= WORDS_OF_A_TEST && !self.functions.contains(name) {
                missing.push(format!("there is no test '{name}'"));
            }
        }
        missing
    }

    fn has_drill(&self, name: &str) -> bool {
        self.drills.contains(&format!("\"{name}\""))
    }

    /// Whether a filter of tests has something to run: each part of it is in the name of a module or a function.
    fn has_tests(&self, filter: &str) -> bool {
        let names = || self.modules.iter().chain(&self.functions);
        filter.split("::").all(|part| names().any(|name| name.contains(part)))
    }

    fn has_metric(&self, name: &str) -> bool {
        let mut names = ENDS.iter().filter_map(|end| name.strip_suffix(*end));
        names.any(|name| self.metrics.contains(&format!("`{name}`")))
    }
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| path.display().to_string())
}

/// What filters the tests of a command.
fn filters(command: &str) -> Vec<&str> {
    let words: Vec<&str> = command.split_whitespace().collect();
    let is_value = |place: usize| place > 0 && WITH_VALUE.contains(&words[place - 1]);
    let filters = words.iter().enumerate().filter(|(place, word)| !word.starts_with('-') && !is_value(*place));
    filters.map(|(_, word)| *word).collect()
}

fn is_name(span: &str) -> bool {
    span.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_')
}

/// The blocks of a page that are for a shell.
fn blocks(page: &str) -> impl Iterator<Item = &str> {
    page.split("\n```sh\n").skip(1).filter_map(|rest| rest.split("\n```").next())
}

/// The lines that the page's blocks of `awk` print, and that the page doesn't say.
fn printed(supervisor: &Supervisor, page: &str) -> Result<Vec<String>> {
    let said: BTreeSet<String> = code_spans(page).into_iter().collect();
    let mut unsaid = vec![];
    for block in blocks(page).filter(|block| block.starts_with("awk ")) {
        let text = output_of(supervisor, Command::new("sh").args(["-c", block])).with_context(|| block.to_owned())?;
        unsaid.extend(text.lines().filter(|line| !said.contains(*line)).map(str::to_owned));
    }
    Ok(unsaid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Workspace;

    fn missing(page: &str) -> Vec<String> {
        let mut known = Known { drills: "\"scan\"".to_owned(), metrics: "`terse_a`".to_owned(), ..Known::default() };
        known.add("mod lists {}\n#[test]\nfn it_holds_whatever_comes_next() {}");
        known.missing(page)
    }

    #[test]
    fn what_is_there_may_be_named() {
        for page in [
            "`cargo xtask drill scan --quick`, `cargo xtask drill all`",
            "`cargo test -p terse-core --lib it_holds`, `cargo xtask test -p terse-it -- lists`",
            "`cargo test -p terse-core lists::it_holds`, `cargo test -p terse-core`",
            "`it_holds_whatever_comes_next`, `terse_a_bucket`, `valid_from`, `click_rows`",
            "\n```sh\ncargo xtask drill scan   # the first\n```\n",
        ] {
            assert_eq!(missing(page), Vec::<String>::new(), "{page}");
        }
    }

    #[test]
    fn what_is_not_there_is_told() {
        for (page, told) in [
            ("`cargo xtask drill scan scam`", "there is no drill 'scam'"),
            ("\n```sh\ncargo xtask drill scam\n```\n", "there is no drill 'scam'"),
            ("`cargo test -p terse-core it_held`", "no test is called 'it_held'"),
            ("`cargo xtask test -- lists::it_held`", "no test is called 'lists::it_held'"),
            ("`it_held_whatever_comes_next`", "there is no test 'it_held_whatever_comes_next'"),
            ("`terse_b`", "there is no metric 'terse_b'"),
        ] {
            assert_eq!(missing(page), [told], "{page}");
        }
    }

    #[test]
    fn what_awk_prints_has_to_stand_on_the_page() {
        let supervisor = Supervisor::unwatched();
        let block = "a\n```sh\nawk 'BEGIN { print 6 * 7 \" GB\" }'\n```\n\nIt prints";
        let unsaid = |said: &str| printed(&supervisor, &format!("{block} `{said}`.")).unwrap();
        assert_eq!(unsaid("42 GB"), Vec::<String>::new());
        assert_eq!(unsaid("43 GB"), ["42 GB"]);
    }

    #[test]
    fn the_books_commands_name_what_there_is() {
        let (workspace, supervisor) = (Workspace::find().unwrap(), Supervisor::unwatched());
        let pages = crate::book::pages::read(&workspace).unwrap();
        assert_eq!(problems(&workspace.root, &supervisor, &pages).unwrap(), Vec::<String>::new());
    }
}
