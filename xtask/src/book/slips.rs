//! What may not stand in the book: numbers without a claim, names that nobody
//! knows, links and paths that lead nowhere, claims that no page needs.

use std::collections::BTreeSet;

use super::charts::{self, Charts};
use super::pages::{Page, anchors, code_spans, links, names, without_code};
use crate::claims::file::Claims;
use crate::workspace::Workspace;

/// A number before one of these is a claim. Minutes are not among them: they are the interview's.
const UNITS: &[&str] = &[
    "%",
    "ms",
    "µs",
    "ns",
    "s",
    "seconds",
    "bytes",
    "B",
    "kB",
    "KB",
    "MB",
    "GB",
    "TB",
    "PB",
    "KiB",
    "MiB",
    "GiB",
    "/s",
    "million",
    "billion",
    "times",
    "cores",
    "per",
    "a",
    "redirects",
    "creates",
    "clicks",
    "links",
    "points",
];

/// Words between which a unit is a rate: `40 a second`.
const RATES: &[&str] = &["second", "minute", "hour", "day", "month", "year", "cent"];

/// What is wrong, a line each.
#[must_use]
pub fn problems(workspace: &Workspace, pages: &[Page], claims: &Claims, charts: &Charts) -> Vec<String> {
    let mut problems = vec![];
    for page in pages {
        if !page.is_exempt() {
            let bare = bare_numbers(&page.text);
            problems.extend(bare.iter().map(|(line, text)| format!("{}:{line}: '{text}' is no claim", page.path)));
            problems.extend(unknown_names(page, claims));
        }
        problems.extend(dead_links(workspace, page, pages));
        if !page.is_exempt() {
            problems.extend(dead_paths(workspace, page));
        }
    }
    problems.extend(charts.problems(pages, claims));
    problems.extend(unused(pages, claims, charts));
    problems
}

/// Numbers with a unit, with the numbers of their lines.
#[must_use]
pub fn bare_numbers(text: &str) -> Vec<(usize, String)> {
    let text = without_code(text);
    let mut found = vec![];
    for (place, line) in text.lines().enumerate() {
        let line = without_names(line);
        let words: Vec<&str> = line.split(|letter: char| letter.is_whitespace() || "|()*".contains(letter)).collect();
        let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
        for (at, word) in words.iter().enumerate() {
            let (number, behind) = split_number(word);
            let next = words.get(at + 1).map_or("", |next| bare(next));
            let after = words.get(at + 2).map_or("", |after| bare(after));
            let unit = if behind.is_empty() { next } else { behind };
            let is_rate = if behind.is_empty() { RATES.contains(&after) } else { RATES.contains(&next) };
            let counts = UNITS.contains(&unit) && (!matches!(unit, "a" | "per") || is_rate);
            if !number.is_empty() && counts {
                found.push((place + 1, format!("{number} {unit}")));
            }
        }
    }
    found
}

/// The line without links' targets and without `{{…}}`.
fn without_names(line: &str) -> String {
    let mut kept = String::new();
    for (place, part) in line.split("{{").enumerate() {
        let part = if place == 0 { part } else { part.split_once("}}").map_or("", |(_, behind)| behind) };
        kept.push_str(part);
    }
    let mut plain = String::new();
    for (place, part) in kept.split("](").enumerate() {
        plain.push_str(if place == 0 { part } else { part.split_once(')').map_or("", |(_, behind)| behind) });
        plain.push(' ');
    }
    plain
}

/// The number that a word begins with, and what stands right behind it.
fn split_number(word: &str) -> (&str, &str) {
    let word = word.trim_start_matches(['(', '"', '~', '<', '>', '=', '≤', '≥', '[']);
    let is_part = |letter: char| letter.is_ascii_digit() || letter == ',' || letter == '.';
    let end = word.find(|letter| !is_part(letter)).unwrap_or(word.len());
    let number = word[..end].trim_end_matches([',', '.']);
    if number.starts_with(|first: char| first.is_ascii_digit()) { (number, bare(&word[end..])) } else { ("", "") }
}

/// A word without the marks around it.
fn bare(word: &str) -> &str {
    word.trim_matches(|letter: char| ".,:;!?)('\"[]".contains(letter))
}

fn unknown_names(page: &Page, claims: &Claims) -> Vec<String> {
    let known = |word: &str, name: &str| match word {
        "claim" => claims.get(name).is_some(),
        "output" => claims.file.output.iter().any(|output| output.id == name),
        "claims" => name.is_empty(),
        // Those are looked at where they are known.
        charts::WORD => true,
        _ => false,
    };
    let unknown = names(&page.text).into_iter().filter(|(word, name)| !known(word, name));
    unknown.map(|(word, name)| format!("{}: there is nothing for '{word} {name}'", page.path)).collect()
}

fn dead_links(workspace: &Workspace, page: &Page, pages: &[Page]) -> Vec<String> {
    let folder = page.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut problems = vec![];
    for link in links(&page.text) {
        if link.starts_with("https://") || link.starts_with("http://") || link.starts_with("mailto:") {
            continue;
        }
        let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
        let path = if path.is_empty() { page.path.clone() } else { joined(folder, path) };
        match pages.iter().find(|target| target.path == path) {
            None if !workspace.root.join("docs").join(&path).exists() => {
                problems.push(format!("{}: the link {link} leads nowhere", page.path));
            }
            Some(target) if !anchor.is_empty() && !anchors(&target.text).iter().any(|known| known == anchor) => {
                problems.push(format!("{}: no heading for {link}", page.path));
            }
            _ => {}
        }
    }
    problems
}

/// `path`, as seen from `folder`, with its `..` resolved as far as there are folders.
fn joined(folder: &str, path: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "." | "" => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Paths of the workspace in backquotes that are not there.
fn dead_paths(workspace: &Workspace, page: &Page) -> Vec<String> {
    let first = ["terse-", "xtask/", "docs/", "deploy/", "loadtests/"];
    let is_path = |span: &String| {
        span.contains('/')
            && !span.contains([' ', '*', '{', 'N', '…'])
            && first.iter().any(|first| span.starts_with(first))
    };
    let dead = code_spans(&page.text).into_iter().filter(is_path).filter(|span| !workspace.root.join(span).exists());
    dead.map(|span| format!("{}: there is no {span}", page.path)).collect()
}

/// Claims and outputs that no page needs.
fn unused(pages: &[Page], claims: &Claims, charts: &Charts) -> Vec<String> {
    let named = pages.iter().flat_map(|page| names(&page.text)).map(|(_, name)| name);
    let used: BTreeSet<String> = named.chain(charts.claims().map(str::to_owned)).collect();
    let checked: BTreeSet<&str> = claims.all().flat_map(|claim| claim.check.names()).collect();
    let ids = claims.all().map(|claim| &claim.id).chain(claims.file.output.iter().map(|output| &output.id));
    let unused = ids.filter(|id| !used.contains(*id) && !checked.contains(id.as_str()));
    unused.map(|id| format!("no page needs '{id}'")).collect()
}
