//! The threat model names, for each threat, the tests and drills that show what is done
//! against it. This keeps the names true.

use std::collections::BTreeSet;

use super::Problems;
use super::source::SourceFile;

/// The page, from the workspace's root.
pub const PAGE: &str = "docs/threat-model.md";
/// What stands before the name of a drill.
const DRILL: &str = "drill ";
/// Where drills are listed.
const DRILLS: &str = "terse-it/src/drills";

/// What `page` names that is neither a test in `files` nor a drill, and threats that name nothing.
#[must_use]
pub fn problems(page: &str, files: &[SourceFile]) -> Problems {
    let tests: BTreeSet<String> = files.iter().flat_map(SourceFile::test_functions).collect();
    let is_drill = |name: &str| files.iter().any(|file| file.path.starts_with(DRILLS) && file.has_string(name));
    let mut problems = Problems::new();
    let mut threats = 0;
    for (number, row) in page.lines().enumerate().filter(|(_, line)| is_threat(line)) {
        threats += 1;
        let shown_by = row.trim_end_matches('|').rsplit('|').next().unwrap_or_default();
        let names: Vec<&str> = shown_by.split('`').skip(1).step_by(2).collect();
        let place = format!("{PAGE}:{}", number + 1);
        if names.is_empty() {
            problems.push(format!("{place}: no test and no drill shows this"));
        }
        for name in names {
            let known = match name.strip_prefix(DRILL) {
                Some(drill) => is_drill(drill),
                None => tests.contains(name),
            };
            if !known {
                problems.push(format!("{place}: there is no test or drill {name}"));
            }
        }
    }
    if threats == 0 {
        problems.push(format!("{PAGE} names no threat"));
    }
    problems
}

/// Whether `line` is a row of a table, but for its first two.
fn is_threat(line: &str) -> bool {
    line.starts_with('|') && !line.starts_with("|---") && !line.starts_with("| threat |")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn files() -> Vec<SourceFile> {
        let tests = "#[test]\nfn it_holds() {}\nproptest! { #[test]\nfn whatever(n in 0..3) {} }";
        let drills = "static ALL: [&str; 1] = [\"flood\"];";
        vec![
            SourceFile::parse("a", Path::new("a/tests/a.rs"), tests, true).unwrap(),
            SourceFile::parse("a", Path::new("a/src/lib.rs"), "fn no_test() { drop(\"other\") }", false).unwrap(),
            SourceFile::parse("terse-it", Path::new("terse-it/src/drills/mod.rs"), drills, true).unwrap(),
        ]
    }

    fn told(shown_by: &str) -> Problems {
        let page = format!("# Page\n\n| threat | what | shown by |\n|---|---|---|\n| `x` | y | {shown_by} |\n");
        problems(&page, &files())
    }

    #[test]
    fn tests_and_drills_that_exist_are_fine() {
        assert_eq!(told("`it_holds`, `whatever`, `drill flood`"), Problems::new());
    }

    #[test]
    fn a_name_that_nothing_has_is_told_with_its_line() {
        assert_eq!(told("`it_held`"), ["docs/threat-model.md:5: there is no test or drill it_held"]);
        assert_eq!(told("`it_holds`, `drill other`").len(), 1, "that text stands elsewhere");
        assert_eq!(told("`no_test`").len(), 1);
        assert_eq!(told("`flood`").len(), 1);
    }

    #[test]
    fn a_threat_that_nothing_shows_is_told() {
        assert_eq!(told("everything"), ["docs/threat-model.md:5: no test and no drill shows this"]);
        assert_eq!(problems("# Page\n", &files()), ["docs/threat-model.md names no threat"]);
    }
}
