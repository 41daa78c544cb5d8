//! `cargo xtask book look`: every page of the built book in a browser, served as `terse serve` serves it.
//!
//! What is looked at is in `terse-it/src/pages.rs`; this builds what that needs and runs it.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::folder;
use crate::process::Supervisor;
use crate::suite::BUILD_ALL;
use crate::tools::{CHROMIUM, Tools};
use crate::workspace::{Workspace, in_ci};

/// How long opening all pages may take.
const LOOK_LIMIT: Duration = Duration::from_secs(5 * 60);

/// Opens every page; the pictures of them are in `target/screenshots/book`.
///
/// # Errors
/// When there is no book or no browser, or a page is not as it should be.
pub fn look(workspace: &Workspace, supervisor: &Supervisor) -> Result<()> {
    let book = folder(workspace);
    if !book.join("index.html").exists() {
        bail!("there is no book: run `cargo xtask book build` first");
    }
    let chromium = Tools::new(supervisor).find(&CHROMIUM)?.context("there is no browser to look with")?;
    // In CI everything is built already, with the features of everything.
    let build = |own: &[&str], name: &str| workspace.build(supervisor, if in_ci() { BUILD_ALL } else { own }, name);
    let terse = build(&["--package", "terse-server", "--bin", "terse"], "terse")?;
    let pages = build(&["--package", "terse-it", "--bin", "pages"], "pages")?;
    let mut command = Command::new(pages);
    command.arg(&book).arg(workspace.target.join("screenshots/book"));
    command.env("TERSE_BIN", terse).env("TERSE_CHROMIUM", chromium);
    supervisor.run_ok(&mut command, LOOK_LIMIT)
}
