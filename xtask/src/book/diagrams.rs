//! The diagrams of the book. A page has them as text, in blocks of `mermaid`; the browser draws them with mermaid,
//! which lies beside the book, so that nothing has to be fetched to read it.
//!
//! Why in the browser: drawing them here would need one at each build, and the drawings follow the reader's choice of
//! light or dark. Without scripts, or where mermaid couldn't be had, the text is shown, and it can be read.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use sha2::{Digest, Sha256};

use super::pages::Page;
use crate::load::page::escaped;
use crate::process::Supervisor;
use crate::tools::{NPM, Tools};
use crate::workspace::Workspace;

/// The version of mermaid that draws, from the registry of npm.
const VERSION: &str = "11.12.0";
/// SHA-256 of its one file that is needed.
const SHA256: &str = "07e37dfa97b337ccc85365d57eddf99b9706f09db3b59b260d0333b23b343c4b";
/// That file, in the package and beside the book, where `docs/assets/diagrams.js` looks for it.
const IN_PACKAGE: &str = "package/dist/mermaid.min.js";
const IN_BOOK: &str = "assets/mermaid.min.js";
/// How long fetching it may take.
const FETCH_LIMIT: Duration = Duration::from_secs(5 * 60);

const FENCE: &str = "```";
const BLOCK: &str = "```mermaid";

/// The page with its diagrams as mermaid looks for them.
///
/// # Errors
/// When one has no end.
pub fn marked(text: &str) -> Result<String> {
    let mut done = String::with_capacity(text.len());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim_end() != BLOCK {
            done.push_str(line);
            done.push('\n');
            continue;
        }
        let mut diagram = String::new();
        loop {
            let line = lines.next().context("a diagram has no end")?;
            if line.trim_end() == FENCE {
                break;
            }
            diagram.push_str(line);
            diagram.push('\n');
        }
        ensure!(!diagram.trim().is_empty(), "a diagram is empty");
        done.push_str("<pre class=\"mermaid\">");
        done.push_str(&escaped(diagram.trim_end()));
        done.push_str("</pre>\n");
    }
    Ok(done)
}

/// What is wrong with the diagrams, a line each: a crate that a box names has to be there.
#[must_use]
pub fn problems(workspace: &Workspace, pages: &[Page]) -> Vec<String> {
    let is_ours = |name: &str| workspace.graph.ours().any(|package| package.name == name);
    let unknown = pages.iter().flat_map(|page| crates(&page.text).into_iter().map(move |name| (page, name)));
    let unknown = unknown.filter(|(_, name)| !is_ours(name));
    unknown.map(|(page, name)| format!("{}: a diagram names {name}, which is no crate", page.path)).collect()
}

/// The crates that diagrams name.
fn crates(text: &str) -> Vec<String> {
    let blocks = text.split(BLOCK).skip(1).map(|rest| rest.split("\n```").next().unwrap_or_default());
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
    let words = blocks.flat_map(|block| block.split(move |letter| !is_name(letter)));
    words.filter(|word| word.starts_with("terse-")).map(str::to_owned).collect()
}

/// Puts mermaid beside the book in `book`. Where it can't be had, and nobody insists, that has been said.
///
/// # Errors
/// When it can't be fetched, is not what it should be, or this is CI and npm is missing.
pub fn put_beside(workspace: &Workspace, supervisor: &Supervisor, book: &Path) -> Result<()> {
    let Some(script) = mermaid(workspace, supervisor)? else {
        println!("the diagrams of the book stay text");
        return Ok(());
    };
    let into = book.join(IN_BOOK);
    fs::copy(&script, &into).with_context(|| format!("{} to {}", script.display(), into.display()))?;
    Ok(())
}

/// Mermaid's script under `target/`, fetched if it was missing.
fn mermaid(workspace: &Workspace, supervisor: &Supervisor) -> Result<Option<PathBuf>> {
    let folder = workspace.target.join("mermaid").join(VERSION);
    let script = folder.join(IN_PACKAGE);
    if !script.exists() {
        let Some(npm) = Tools::new(supervisor).find(&NPM)? else { return Ok(None) };
        println!("fetching mermaid {VERSION}");
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let mut command = Command::new(npm);
        command.args(["pack", "--silent", &format!("mermaid@{VERSION}")]).current_dir(&folder).stdout(Stdio::null());
        supervisor.run_ok(&mut command, FETCH_LIMIT)?;
        let package = folder.join(format!("mermaid-{VERSION}.tgz"));
        let mut command = Command::new("tar");
        command.arg("-xzf").arg(&package).arg("-C").arg(&folder).arg(IN_PACKAGE);
        supervisor.run_ok(&mut command, FETCH_LIMIT)?;
        fs::remove_file(&package).with_context(|| package.display().to_string())?;
    }
    let bytes = fs::read(&script).with_context(|| script.display().to_string())?;
    if !is_known(&bytes, SHA256) {
        fs::remove_file(&script).with_context(|| script.display().to_string())?;
        bail!("mermaid {VERSION} is not what it was when its version was chosen: it has another hash");
    }
    Ok(Some(script))
}

/// Whether `bytes` have this SHA-256.
fn is_known(bytes: &[u8], sha256: &str) -> bool {
    let hash: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    hash == sha256
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diagram_is_marked_and_escaped_and_all_else_stays() {
        let text = "a\n```mermaid\nflowchart\n  a[\"x<br/>y\"] --> b\n\n  b\n```\n```text\n```\nb\n";
        let marked = marked(text).unwrap();
        let diagram = "flowchart\n  a[&quot;x&lt;br/&gt;y&quot;] --&gt; b\n\n  b";
        assert_eq!(marked, format!("a\n<pre class=\"mermaid\">{diagram}</pre>\n```text\n```\nb\n"));
    }

    #[test]
    fn a_page_without_diagrams_stays_as_it_is() {
        for text in ["", "a\n", "```sh\nx\n```\n", "    ```mermaid\n"] {
            assert_eq!(marked(text).unwrap(), text);
        }
    }

    #[test]
    fn a_diagram_without_end_or_content_is_an_error() {
        for text in ["```mermaid\nflowchart", "```mermaid\n", "```mermaid\n\n```\n"] {
            assert!(marked(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_crate_that_a_box_names_has_to_be_there() {
        let workspace = Workspace::find().unwrap();
        let text = "terse-nothing\n```mermaid\na[\"x<br/>terse-http\"] --> b[terse-nowhere]\n```\nterse-other";
        let page = Page { path: "page.md".to_owned(), text: text.to_owned() };
        assert_eq!(problems(&workspace, &[page]), ["page.md: a diagram names terse-nowhere, which is no crate"]);
    }

    #[test]
    fn a_script_that_was_changed_is_not_taken() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert!(is_known(b"", empty) && !is_known(b"x", empty));
        assert!(SHA256.len() == empty.len() && VERSION.split('.').count() == 3);
    }

    #[test]
    fn what_the_page_loads_is_what_is_put_beside_the_book() {
        let script = include_str!("../../../docs/assets/diagrams.js");
        assert!(script.contains(&format!("path_to_root + '{IN_BOOK}'")), "{script}");
    }
}
