//! Files of the workspace that pages link to. The built book has copies of them, as plain texts, so that their links
//! lead somewhere wherever it is read.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::pages::{Page, links};
use crate::workspace::Workspace;

/// Where the copies are, in the built book.
const FOLDER: &str = "source";
/// What copies end with, so that browsers show them.
const END: &str = ".txt";

/// The page at `path` with its links to files outside of `docs/` leading to the copies.
#[must_use]
pub fn to_copies(text: &str, path: &str) -> String {
    let up = "../".repeat(path.matches('/').count());
    outside(text, path).into_iter().fold(text.to_owned(), |text, (link, file)| {
        text.replace(&format!("]({link})"), &format!("]({up}{FOLDER}/{file}{END})"))
    })
}

/// Puts the copies into the built book at `into`.
///
/// # Errors
/// When a file can't be copied.
pub fn put_beside(workspace: &Workspace, pages: &[Page], into: &Path) -> Result<()> {
    let files: BTreeSet<String> =
        pages.iter().flat_map(|page| outside(&page.text, &page.path)).map(|(_, file)| file).collect();
    for file in files {
        let copy = into.join(FOLDER).join(format!("{file}{END}"));
        let folder = copy.parent().context("a file is in a folder")?;
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        fs::copy(workspace.root.join(&file), &copy).with_context(|| file.clone())?;
    }
    Ok(())
}

/// The links of a page that lead out of `docs/`, with the files that they lead to, from the workspace's root.
fn outside(text: &str, path: &str) -> Vec<(String, String)> {
    // As far up as the page is deep, and once more.
    let way_out = "../".repeat(path.matches('/').count() + 1);
    let leads_out = |link: String| link.strip_prefix(&way_out).map(str::to_owned).map(|file| (link.clone(), file));
    let outside = links(text).into_iter().filter_map(leads_out);
    outside.filter(|(_, file)| !file.is_empty() && !file.contains(['#', ' '])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_that_leave_the_book_lead_to_copies_and_others_stay() {
        let text = "[a](../terse-core/src/code.rs) [b](other.md) [c](https://x) `[d](../e.rs)`";
        let expected = "[a](source/terse-core/src/code.rs.txt) [b](other.md) [c](https://x) `[d](../e.rs)`";
        assert_eq!(to_copies(text, "glossary.md"), expected);
        let deep = "[a](../../xtask/src/main.rs) [b](../glossary.md)";
        assert_eq!(to_copies(deep, "reference/x.md"), "[a](../source/xtask/src/main.rs.txt) [b](../glossary.md)");
    }

    #[test]
    fn what_is_linked_is_beside_the_book() {
        let (workspace, place) = (Workspace::find().unwrap(), tempfile::tempdir().unwrap());
        let page = |text: &str| [Page { path: "page.md".to_owned(), text: text.to_owned() }];
        put_beside(&workspace, &page("[a](../xtask/src/main.rs)"), place.path()).unwrap();
        let copy = fs::read_to_string(place.path().join("source/xtask/src/main.rs.txt")).unwrap();
        assert_eq!(copy, fs::read_to_string(workspace.root.join("xtask/src/main.rs")).unwrap());
        assert!(put_beside(&workspace, &page("[a](../no/such/file.rs)"), place.path()).is_err());
    }
}
