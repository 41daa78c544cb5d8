//! Size budgets: long functions and files are where bugs hide, and code
//! without tests is where they stay.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::Problems;
use super::source::{Function, SourceFile};

/// Lines of a function, tests' included.
const FUNCTION_LINES: usize = 70;
/// Lines of a file, its tests not counted.
const FILE_LINES: usize = 500;
/// Lines of a program's `main`.
const MAIN_LINES: usize = 40;
/// Lines of test code per line of other code, over the whole workspace, in percent.
const TEST_PERCENT: usize = 90;

/// What the sources measure, beside what they may.
pub struct Report<'a> {
    files: &'a [SourceFile],
}

impl<'a> Report<'a> {
    /// Measures `files`.
    #[must_use]
    pub fn of(files: &'a [SourceFile]) -> Self {
        Self { files }
    }

    fn functions(&self) -> impl Iterator<Item = (&SourceFile, &Function)> {
        self.files.iter().flat_map(|file| file.functions.iter().map(move |function| (file, function)))
    }

    fn mains(&self) -> impl Iterator<Item = (&SourceFile, &Function)> {
        self.functions().filter(|(file, function)| function.name == "main" && file.path.ends_with("src/main.rs"))
    }

    /// Code lines and test lines of each package.
    fn packages(&self) -> BTreeMap<&str, (usize, usize)> {
        let mut packages: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for file in self.files {
            let (code, test) = packages.entry(&file.package).or_default();
            *code += file.count_code(false);
            *test += file.count_code(true);
        }
        packages
    }

    fn total(&self) -> (usize, usize) {
        self.packages().values().fold((0, 0), |sum, (code, test)| (sum.0 + code, sum.1 + test))
    }

    /// Ours beside the budget, then the packages one by one.
    #[must_use]
    pub fn table(&self) -> String {
        let mut lengths: Vec<usize> = self.functions().filter(|(_, f)| !f.test).map(|(_, f)| f.lines).collect();
        lengths.sort_unstable();
        let share = |percent: usize| lengths.get(lengths.len().saturating_sub(1) * percent / 100).copied().unwrap_or(0);
        let longest = self.functions().map(|(_, function)| function.lines).max().unwrap_or(0);
        let file = self.files.iter().map(SourceFile::lines_without_tests).max().unwrap_or(0);
        let main = self.mains().map(|(_, function)| function.lines).max().unwrap_or(0);
        let (code, test) = self.total();
        let mut text = format!("      {:<34}{:>8}{:>8}\n", "", "ours", "budget");
        let mut row = |what: &str, ours: String, budget: String| {
            let _ = writeln!(text, "      {what:<34}{ours:>8}{budget:>8}");
        };
        row("longest function, lines", longest.to_string(), FUNCTION_LINES.to_string());
        row("function, median", share(50).to_string(), String::new());
        row("function, 90 of 100", share(90).to_string(), String::new());
        row("longest file without tests, lines", file.to_string(), FILE_LINES.to_string());
        row("longest main, lines", main.to_string(), MAIN_LINES.to_string());
        row("test lines per code line", ratio(code, test), format!("{:.2}", TEST_PERCENT as f64 / 100.0));
        for (package, (code, test)) in self.packages() {
            let what = format!("  {package}: {code} code, {test} test");
            row(&what, ratio(code, test), String::new());
        }
        text
    }

    /// What exceeds its budget, and where.
    #[must_use]
    pub fn problems(&self) -> Problems {
        let mut problems = Problems::new();
        let mut exceeded = |file: &SourceFile, line: usize, what: &str, ours: usize, budget: usize| {
            if ours > budget {
                problems.push(format!("{}:{line}: {what} has {ours} lines, budget {budget}", file.path.display()));
            }
        };
        for (file, function) in self.functions() {
            exceeded(file, function.line, &format!("function {}", function.name), function.lines, FUNCTION_LINES);
        }
        for (file, function) in self.mains() {
            exceeded(file, function.line, "main", function.lines, MAIN_LINES);
        }
        for file in self.files {
            exceeded(file, 1, "file without tests", file.lines_without_tests(), FILE_LINES);
        }
        let (code, test) = self.total();
        if test * 100 < code * TEST_PERCENT {
            problems.push(format!("{test} test lines for {code} code lines, {} needed", code * TEST_PERCENT / 100));
        }
        problems
    }
}

fn ratio(code: usize, test: usize) -> String {
    if code == 0 { "all".to_owned() } else { format!("{:.2}", test as f64 / code as f64) }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn file(path: &str, text: &str) -> SourceFile {
        SourceFile::parse("p", Path::new(path), text, false).unwrap()
    }

    fn function(name: &str, lines: usize) -> String {
        format!("fn {name}() {{\n{}}}\n", "    a();\n".repeat(lines - 2))
    }

    /// Enough test code for `code` lines.
    fn tests(code: usize) -> SourceFile {
        SourceFile::parse("p", Path::new("p/tests/t.rs"), &"use a;\n".repeat(code), true).unwrap()
    }

    fn problems(path: &str, text: &str) -> Problems {
        Report::of(&[file(path, text), tests(1_000)]).problems()
    }

    #[test]
    fn a_function_may_have_seventy_lines_and_not_one_more() {
        assert!(problems("p/src/a.rs", &function("f", 70)).is_empty());
        assert_eq!(problems("p/src/a.rs", &function("f", 71)), ["p/src/a.rs:1: function f has 71 lines, budget 70"]);
    }

    #[test]
    fn the_budget_of_functions_holds_in_tests_too() {
        let text = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", function("t", 71));
        assert_eq!(problems("p/src/a.rs", &text).len(), 1);
    }

    #[test]
    fn main_has_a_budget_of_its_own() {
        let text = function("main", 41);
        assert_eq!(problems("p/src/main.rs", &text), ["p/src/main.rs:1: main has 41 lines, budget 40"]);
        assert!(problems("p/src/a.rs", &text).is_empty());
        assert!(problems("p/src/main.rs", &function("main", 40)).is_empty());
    }

    #[test]
    fn a_file_may_have_five_hundred_lines_beside_its_tests() {
        let code = "use a;\n".repeat(500);
        let with_tests = format!("{code}#[cfg(test)]\nmod tests {{\n{}}}\n", "use b;\n".repeat(100));
        assert!(problems("p/src/a.rs", &with_tests).is_empty());
        let longer = format!("// a comment counts\n{code}");
        assert_eq!(problems("p/src/a.rs", &longer), ["p/src/a.rs:1: file without tests has 501 lines, budget 500"]);
    }

    #[test]
    fn too_few_test_lines_are_a_problem() {
        let code = file("p/src/a.rs", &"use a;\n".repeat(100));
        let enough = [code, tests(90)];
        assert!(Report::of(&enough).problems().is_empty());
        let code = file("p/src/a.rs", &"use a;\n".repeat(100));
        let few = [code, tests(89)];
        assert_eq!(Report::of(&few).problems(), ["89 test lines for 100 code lines, 90 needed"]);
    }

    #[test]
    fn the_table_shows_ours_beside_the_budget() {
        let files = [file("p/src/a.rs", &function("f", 20)), tests(10)];
        let table = Report::of(&files).table();
        assert!(table.contains("longest function, lines                 20      70"), "{table}");
        assert!(table.contains("test lines per code line              0.50    0.90"), "{table}");
        assert!(table.contains("p: 20 code, 10 test"), "{table}");
        assert_eq!(ratio(0, 5), "all");
    }
}
