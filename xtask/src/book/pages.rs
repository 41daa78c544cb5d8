//! The pages of the book: which there are, and what is text in them.

use std::fs;

use anyhow::{Context as _, Result};

use crate::workspace::Workspace;

/// What is not checked: pages that name their own measurements and commands.
const EXEMPT: &[&str] = &["adr/", "measurements/", "peers.md", "reference/", "threat-model.md"];

/// A page that `docs/SUMMARY.md` lists.
#[derive(Clone, Debug)]
pub struct Page {
    /// Its path in `docs/`.
    pub path: String,
    /// Its Markdown.
    pub text: String,
}

impl Page {
    /// Whether it may have numbers of its own.
    #[must_use]
    pub fn is_exempt(&self) -> bool {
        EXEMPT.iter().any(|prefix| self.path.starts_with(prefix))
    }
}

/// Reads all pages that are listed.
///
/// # Errors
/// When one can't be read.
pub fn read(workspace: &Workspace) -> Result<Vec<Page>> {
    let docs = workspace.root.join("docs");
    let load = |path: &str| {
        let file = docs.join(path);
        fs::read_to_string(&file).with_context(|| file.display().to_string())
    };
    let listed = links(&load("SUMMARY.md")?);
    listed.into_iter().map(|path| Ok(Page { text: load(&path)?, path })).collect()
}

/// Where the links of a text lead, in their order.
#[must_use]
pub fn links(text: &str) -> Vec<String> {
    let text = without_code(text);
    let ends = text.match_indices("](").map(|(at, mark)| &text[at + mark.len()..]);
    ends.filter_map(|rest| rest.split_once(')')).map(|(target, _)| target.to_owned()).collect()
}

/// The text with blanks in place of code, of the same length in lines.
#[must_use]
pub fn without_code(text: &str) -> String {
    let mut lines = vec![];
    let mut in_block = false;
    for line in text.lines() {
        let fence = line.trim_start().starts_with("```");
        in_block ^= fence;
        lines.push(if fence || in_block { String::new() } else { without_spans(line, '`') });
    }
    lines.join("\n")
}

/// The line without what stands between two `mark`s.
fn without_spans(line: &str, mark: char) -> String {
    if line.matches(mark).count() % 2 == 1 {
        return line.to_owned();
    }
    line.split(mark).step_by(2).collect::<Vec<_>>().join(" ")
}

/// What stands between backquotes, outside of blocks.
#[must_use]
pub fn code_spans(text: &str) -> Vec<String> {
    let mut in_block = false;
    let mut spans = vec![];
    for line in text.lines() {
        let fence = line.trim_start().starts_with("```");
        in_block ^= fence;
        if !fence && !in_block && line.matches('`').count().is_multiple_of(2) {
            spans.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    spans
}

/// The names in the page's `{{word NAME}}`, with the word.
#[must_use]
pub fn names(text: &str) -> Vec<(String, String)> {
    let ends = text.match_indices("{{").map(|(at, mark)| &text[at + mark.len()..]);
    let inside = ends.filter_map(|rest| rest.split_once("}}")).map(|(inside, _)| inside.trim());
    inside
        .map(|inside| {
            let (word, name) = inside.split_once(' ').unwrap_or((inside, ""));
            (word.to_owned(), name.trim().to_owned())
        })
        .collect()
}

/// The page with what `put` says in place of each `{{word NAME}}`.
///
/// # Errors
/// When `put` fails.
pub fn replaced(text: &str, put: &dyn Fn(&str, &str) -> Result<String>) -> Result<String> {
    let mut done = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((inside, behind)) = after.split_once("}}") else { break };
        let (word, name) = inside.trim().split_once(' ').unwrap_or((inside.trim(), ""));
        done.push_str(before);
        done.push_str(&put(word, name.trim())?);
        rest = behind;
    }
    done.push_str(rest);
    Ok(done)
}

/// The anchors of a page's headings, as mdBook makes them.
#[must_use]
pub fn anchors(text: &str) -> Vec<String> {
    let mut in_block = false;
    let mut anchors: Vec<String> = vec![];
    for line in text.lines() {
        in_block ^= line.trim_start().starts_with("```");
        let Some(title) = line.strip_prefix('#').filter(|_| !in_block) else { continue };
        let title = title.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter_map(|letter| match letter {
            ' ' => Some('-'),
            letter if letter.is_alphanumeric() || letter == '-' || letter == '_' => Some(letter),
            _ => None,
        });
        let anchor: String = kept.collect();
        let same = anchors.iter().filter(|known| **known == anchor).count();
        anchors.push(if same == 0 { anchor } else { format!("{anchor}-{same}") });
    }
    anchors
}
