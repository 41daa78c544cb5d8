//! What mdBook calls: its pages come as JSON and go back with the values in.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::charts::{self, Charts};
use super::pages::replaced;
use super::{diagrams, linked};
use crate::claims::Values;
use crate::claims::file::{Claim, Claims};
use crate::workspace::Workspace;

/// The page beneath which all decisions are put.
const DECISIONS: &str = "adr/README.md";

/// Where what is put into the pages comes from.
pub struct Sources<'a> {
    /// The claims.
    pub claims: &'a Claims,
    /// Their values.
    pub values: &'a Values,
    /// The charts.
    pub charts: &'a Charts,
}

/// mdBook's message with all names replaced, and diagrams marked.
///
/// # Errors
/// When a name is not known or the message is not mdBook's.
pub fn preprocess(workspace: &Workspace, message: &str, sources: &Sources<'_>) -> Result<String> {
    let message: Value = serde_json::from_str(message).context("reading what mdbook sent")?;
    let mut book = message.get(1).cloned().context("mdbook sent no book")?;
    let decisions = decisions(workspace)?;
    visit(&mut book, &mut |chapter| {
        if chapter["path"] == DECISIONS {
            chapter["sub_items"] = sub_items(chapter, &decisions);
        }
        let Some(text) = chapter["content"].as_str() else { return Ok(()) };
        let place = chapter["path"].as_str().unwrap_or_default().to_owned();
        // Pages in folders reach the table of claims one level up.
        let up = "../".repeat(place.matches('/').count());
        let text = replaced(text, &|word, name| sources.put(word, name, &up)).context(place.clone())?;
        let text = linked::to_copies(&text, &place);
        chapter["content"] = diagrams::marked(&text).context(place)?.into();
        Ok(())
    })?;
    Ok(book.to_string())
}

/// Does `change` to every chapter, before what is beneath it.
fn visit(here: &mut Value, change: &mut dyn FnMut(&mut Value) -> Result<()>) -> Result<()> {
    match here {
        Value::Object(map) => {
            if let Some(chapter) = map.get_mut("Chapter") {
                change(chapter)?;
            }
            map.values_mut().try_for_each(|value| visit(value, change))
        }
        Value::Array(list) => list.iter_mut().try_for_each(|value| visit(value, change)),
        _ => Ok(()),
    }
}

impl Sources<'_> {
    /// What stands in place of `{{word name}}` on a page that reaches the others by `up`.
    fn put(&self, word: &str, name: &str, up: &str) -> Result<String> {
        match word {
            "claim" => {
                let claim = self.claim(name)?;
                let shown = claim.shown(self.values.of(name)?);
                let (kind, letter) = (claim.kind.name(), claim.kind.letter());
                Ok(format!("{shown}<sup><a href=\"{up}claims.html#{name}\" title=\"{kind}\">{letter}</a></sup>"))
            }
            "output" => Ok(self.values.text(name)?.to_owned()),
            "claims" => table(self.claims, self.values),
            charts::WORD => self.charts.html(name, up, &|id| {
                let value = self.values.of(id)?;
                Ok((value, self.claim(id)?.shown(value)))
            }),
            _ => bail!("'{{{{{word} {name}}}}}' is no name that can be put in"),
        }
    }

    fn claim(&self, name: &str) -> Result<&Claim> {
        self.claims.get(name).with_context(|| format!("there is no claim '{name}'"))
    }
}

/// All claims with values and sources.
fn table(claims: &Claims, values: &Values) -> Result<String> {
    let mut text = String::from("| name, what it is | value | kind, where it is from |\n|---|---|---|\n");
    for claim in claims.all() {
        let shown = claim.shown(values.of(&claim.id)?);
        let (id, kind, what) = (&claim.id, claim.kind.name(), &claim.text);
        writeln!(text, "| <a id=\"{id}\"></a>*{id}*<br>{what} | {shown} | {kind}<br>{} |", origin(claim))?;
    }
    Ok(text)
}

/// Where a claim's value comes from.
fn origin(claim: &Claim) -> String {
    let command = claim.command.as_deref().map(|command| format!("`{command}`"));
    let file = claim.file.as_deref().map(|file| format!("[{file}](measurements/{file})"));
    let source = claim.source.as_deref().map(|source| match source.strip_prefix("https://") {
        // Its host is enough to tell it: an address has no place to break.
        Some(address) => format!("[{}]({source})", address.split('/').next().unwrap_or_default()),
        None => format!("`{source}`"),
    });
    [file, command, source].into_iter().flatten().collect::<Vec<_>>().join("<br>")
}

/// A page of a decision.
struct Decision {
    file: String,
    title: String,
    text: String,
}

/// The pages of all decisions, by their numbers.
fn decisions(workspace: &Workspace) -> Result<Vec<Decision>> {
    let folder = workspace.root.join("docs/adr");
    let mut decisions = vec![];
    for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let file = entry?.file_name().to_string_lossy().into_owned();
        if !file.ends_with(".md") || file == "README.md" {
            continue;
        }
        let text = fs::read_to_string(folder.join(&file))?;
        let title = text.lines().next().unwrap_or_default().trim_start_matches(['#', ' ']).to_owned();
        decisions.push(Decision { file, title, text });
    }
    decisions.sort_by(|one, other| one.file.cmp(&other.file));
    Ok(decisions)
}

/// The decisions as chapters beneath `parent`.
fn sub_items(parent: &Value, decisions: &[Decision]) -> Value {
    let mut parents = parent["parent_names"].as_array().cloned().unwrap_or_default();
    parents.push(parent["name"].clone());
    let numbers = parent["number"].as_array().cloned();
    let chapter = |(place, decision): (usize, &Decision)| {
        let number = numbers.clone().map(|mut numbers| {
            numbers.push((place + 1).into());
            numbers
        });
        let path = format!("adr/{}", decision.file);
        json!({"Chapter": {"name": decision.title, "content": decision.text, "number": number, "sub_items": [],
            "path": path, "source_path": path, "parent_names": parents}})
    };
    decisions.iter().enumerate().map(chapter).collect()
}
