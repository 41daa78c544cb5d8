//! `cargo xtask book`: checks the book in `docs/` and builds it with mdBook.
//!
//! The pages hold names instead of numbers. mdBook hands every page to
//! `cargo xtask book preprocess`, which puts in what `docs/claims.toml` says
//! about the name, worked out at that moment; so a page can't be out of date.
//!
//! | in a page | becomes |
//! |---|---|
//! | `{{claim NAME}}` | the number with its unit and a letter that leads to where it comes from |
//! | `{{output NAME}}` | what a command of terse prints |
//! | `{{claims}}` | the table of all claims |
//! | `{{chart NAME}}` | a chart of what is in a file of measurements, or of claims |
//!
//! Blocks of `mermaid` become diagrams. `cargo xtask book look` opens every page in a browser.
//!
//! mdBook itself is installed under `target/`, in the version that is named here.

pub mod alerts;
pub mod bars;
pub mod charts;
pub mod commands;
pub mod diagrams;
pub mod linked;
pub mod look;
pub mod pages;
pub mod preprocess;
pub mod reference;
pub mod runbook;
pub mod script;
pub mod slips;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Result, bail};

use self::charts::Charts;
use self::preprocess::Sources;
use crate::claims::Values;
use crate::claims::file::Claims;
use crate::process::{Supervisor, find_program};
use crate::workspace::{Workspace, cargo};

/// The version of mdBook that the book is built with.
const MDBOOK: &str = "0.5.4";
/// How long building mdBook may take.
const INSTALL_LIMIT: Duration = Duration::from_secs(15 * 60);
/// How long building the book may take.
const BUILD_LIMIT: Duration = Duration::from_secs(5 * 60);

/// Arguments of `cargo xtask book`.
#[derive(clap::Subcommand)]
pub enum Options {
    /// Check the pages: names of claims, bare numbers, links, paths, commands
    Check,
    /// Check the pages and make `target/book`
    Build,
    /// Open every page of `target/book` in a browser, at two widths, light and dark
    Look,
    /// Write the pages of `docs/reference/` anew, from the code
    Reference,
    /// What mdBook calls with the pages
    #[command(hide = true)]
    Preprocess {
        /// `supports RENDERER`
        asked: Vec<String>,
    },
}

/// Runs the subcommand.
///
/// # Errors
/// When a page is not as it must be, or mdBook can't be had or fails.
pub fn run(workspace: &Workspace, supervisor: &Supervisor, options: &Options) -> Result<()> {
    match options {
        Options::Check => check(workspace, supervisor),
        Options::Build => build(workspace, supervisor),
        Options::Reference => reference::write(workspace, supervisor),
        Options::Look => look::look(workspace, supervisor),
        // Any renderer is served: what is put in is Markdown.
        Options::Preprocess { asked } if !asked.is_empty() => Ok(()),
        Options::Preprocess { .. } => {
            let claims = Claims::read(workspace)?;
            let values = Values::work_out(workspace, supervisor, &claims)?;
            let charts = Charts::read(workspace)?;
            let input = std::io::read_to_string(std::io::stdin())?;
            let sources = Sources { claims: &claims, values: &values, charts: &charts };
            print!("{}", preprocess::preprocess(workspace, &input, &sources)?);
            Ok(())
        }
    }
}

fn check(workspace: &Workspace, supervisor: &Supervisor) -> Result<()> {
    let claims = Claims::read(workspace)?;
    let pages = pages::read(workspace)?;
    let mut problems = slips::problems(workspace, &pages, &claims, &Charts::read(workspace)?);
    problems.extend(script::problems(&pages));
    problems.extend(reference::problems(&workspace.root)?);
    problems.extend(runbook::problems(&workspace.root)?);
    problems.extend(diagrams::problems(workspace, &pages));
    problems.extend(commands::problems(&workspace.root, supervisor, &pages)?);
    for problem in &problems {
        println!("FAIL  book: {problem}");
    }
    if !problems.is_empty() {
        bail!("the book has {} problems", problems.len());
    }
    println!("ok    book: {} pages, {} claims", pages.len(), claims.all().count());
    Ok(())
}

fn build(workspace: &Workspace, supervisor: &Supervisor) -> Result<()> {
    check(workspace, supervisor)?;
    // What mdBook calls needs terse; built here, it is not part of mdBook's time.
    Values::work_out(workspace, supervisor, &Claims::read(workspace)?)?;
    let program = mdbook(workspace, supervisor)?;
    let into = folder(workspace);
    let mdbook = |command: &mut Command| {
        command.arg(workspace.root.join("docs"));
        // This very program, so that mdBook need not ask cargo for it.
        command.env("MDBOOK_PREPROCESSOR__CLAIMS__COMMAND", format!("{} book preprocess", workspace.program.display()));
        supervisor.run_ok(command, BUILD_LIMIT)
    };
    // It names each page; what is said of one that fails comes all the same.
    mdbook(Command::new(&program).arg("test").env("MDBOOK_LOG", "warn"))?;
    mdbook(Command::new(&program).arg("build").arg("--dest-dir").arg(&into))?;
    diagrams::put_beside(workspace, supervisor, &into)?;
    linked::put_beside(workspace, &pages::read(workspace)?, &into)?;
    println!("ok    {}", into.join("index.html").display());
    Ok(())
}

/// Where the book is built.
fn folder(workspace: &Workspace) -> PathBuf {
    workspace.target.join("book")
}

/// mdBook of the right version: one that is installed already, or built under `target/`.
fn mdbook(workspace: &Workspace, supervisor: &Supervisor) -> Result<PathBuf> {
    let root = workspace.target.join("mdbook");
    let own = root.join("bin/mdbook");
    let there = [find_program(&["mdbook"]), Some(own.clone()).filter(|own| own.exists())];
    if let Some(program) = there.into_iter().flatten().find(is_wanted) {
        return Ok(program);
    }
    println!("building mdbook {MDBOOK}");
    // Without optimisation: the book is small, and building mdBook is what takes time.
    let mut command = cargo(&["install", "mdbook", "--version", MDBOOK, "--no-default-features", "--debug", "--quiet"]);
    command.arg("--root").arg(&root).arg("--target-dir").arg(root.join("build"));
    supervisor.run_ok(&mut command, INSTALL_LIMIT)?;
    Ok(own)
}

fn is_wanted(program: &PathBuf) -> bool {
    let told = Command::new(program).arg("--version").stderr(Stdio::null()).output();
    told.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim().ends_with(&format!("v{MDBOOK}")))
}

#[cfg(test)]
mod tests;
