//! `cargo xtask lint`: one line per check, `ok` or what is wrong and where.
//!
//! The checks that look at the sources and at the dependency graph are plain
//! functions from what they look at to a list of problems, and each is tested
//! with a sample that violates it.

pub mod architecture;
pub mod licences;
pub mod sizes;
pub mod source;
pub mod threats;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::process::Supervisor;
use crate::workspace::{BUILD_LIMIT, Workspace, cargo};

/// Arguments of `cargo xtask lint`.
#[derive(clap::Args, Default)]
pub struct Options {
    /// Only the checks that need no compiler: sizes, licences, architecture
    #[arg(long)]
    fast: bool,
}

/// What a check found: nothing, or what is wrong and where, a line each.
pub type Problems = Vec<String>;

/// Runs the checks, all of them even if some fail.
///
/// # Errors
/// When any check found a problem.
pub fn run(workspace: &Workspace, supervisor: &Supervisor, options: &Options) -> Result<()> {
    let mut failed: Vec<&str> = Vec::new();
    let mut check = |name: &'static str, look: &mut dyn FnMut() -> Result<Problems>| -> Result<()> {
        let start = Instant::now();
        let problems = look()?;
        print!("{}", verdict(name, &problems, start.elapsed()));
        failed.extend((!problems.is_empty()).then_some(name));
        Ok(())
    };
    if !options.fast {
        for (name, arguments, variables) in COMPILER_CHECKS {
            check(name, &mut || cargo_check(workspace, supervisor, arguments, variables))?;
        }
    }
    let files = source::read_workspace(workspace)?;
    check("sizes", &mut || {
        let report = sizes::Report::of(&files);
        print!("{}", report.table());
        Ok(report.problems())
    })?;
    check("threat model", &mut || {
        let page = std::fs::read_to_string(workspace.root.join(threats::PAGE))?;
        Ok(threats::problems(&page, &files))
    })?;
    check("licences", &mut || Ok(licences::problems(&workspace.graph)))?;
    for (name, look) in architecture::GRAPH_CHECKS {
        check(name, &mut || Ok(look(&workspace.graph)))?;
    }
    for (name, look) in architecture::SOURCE_CHECKS {
        check(name, &mut || Ok(look(&files)))?;
    }
    if !failed.is_empty() {
        bail!("lint failed: {}", failed.join(", "));
    }
    Ok(())
}

type CompilerCheck = (&'static str, &'static [&'static str], &'static [(&'static str, &'static str)]);

/// Name, arguments of cargo, environment.
const COMPILER_CHECKS: &[CompilerCheck] = &[
    ("format", &["fmt", "--all", "--check"], &[]),
    ("clippy", &["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"], &[]),
    ("docs", &["doc", "--quiet", "--workspace", "--no-deps"], &[("RUSTDOCFLAGS", "-D warnings")]),
];

fn cargo_check(
    workspace: &Workspace,
    supervisor: &Supervisor,
    arguments: &[&str],
    variables: &[(&str, &str)],
) -> Result<Problems> {
    let (own, passed_on) = arguments.split_at(arguments.iter().position(|a| *a == "--").unwrap_or(arguments.len()));
    let mut command = cargo(own);
    command.args(passed_on).envs(variables.iter().copied()).current_dir(&workspace.root);
    let status = supervisor.run(&mut command, BUILD_LIMIT)?;
    Ok(if status.success() { vec![] } else { vec![format!("see above: cargo {}: {status}", arguments.join(" "))] })
}

fn verdict(name: &str, problems: &[String], duration: Duration) -> String {
    match problems {
        [] => format!("ok    {name} ({:.1} s)\n", duration.as_secs_f64()),
        problems => problems.iter().map(|problem| format!("FAIL  {name}: {problem}\n")).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_says_ok_or_each_problem_on_a_line() {
        assert_eq!(verdict("x", &[], Duration::from_millis(1_500)), "ok    x (1.5 s)\n");
        let problems = ["a".to_owned(), "b".to_owned()];
        assert_eq!(verdict("x", &problems, Duration::ZERO), "FAIL  x: a\nFAIL  x: b\n");
    }

    #[test]
    fn a_failing_cargo_command_is_a_problem_that_names_it() {
        let workspace = Workspace::find().unwrap();
        let supervisor = Supervisor::unwatched();
        let problems = cargo_check(&workspace, &supervisor, &["no-such-command"], &[]).unwrap();
        assert_eq!(problems.len(), 1);
        assert!(problems[0].starts_with("see above: cargo no-such-command"), "{problems:?}");
        assert!(cargo_check(&workspace, &supervisor, &["version"], &[]).unwrap().is_empty());
    }
}
