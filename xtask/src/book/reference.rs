//! `docs/reference/`: pages that are made from the code. terse prints those of its keys, metrics and problems, and a
//! test of terse holds them; the page of events is made here, from the schema that readers of events get and from the
//! layouts that the modules of clicks describe.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::claims::output_of;
use crate::process::Supervisor;
use crate::workspace::Workspace;

/// Where the pages are, from the workspace's root.
const FOLDER: &str = "docs/reference";
/// The pages that terse prints.
const FROM_TERSE: [&str; 3] = ["configuration", "metrics", "errors"];
/// The page that is made here.
const EVENTS: &str = "docs/reference/events.md";
/// What is told of links.
const SCHEMA: &str = "deploy/rabbitmq/link-event.v1.schema.json";
/// What clicks are published as, from the outside in: a heading, and the module whose documentation has the layout.
const LAYOUTS: [(&str, &str); 3] = [
    ("A part", "terse-clicks/src/part.rs"),
    ("Its frames", "terse-clicks/src/frame.rs"),
    ("A record", "terse-clicks/src/record.rs"),
];

/// Writes all pages.
///
/// # Errors
/// When terse can't be built, or a page can't be written.
pub fn write(workspace: &Workspace, supervisor: &Supervisor) -> Result<()> {
    let folder = workspace.root.join(FOLDER);
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let terse = workspace.build(supervisor, &["--package", "terse-server", "--bin", "terse"], "terse")?;
    for name in FROM_TERSE {
        let page = output_of(supervisor, Command::new(&terse).args(["reference", name]))?;
        put(&folder.join(format!("{name}.md")), &page)?;
    }
    put(&workspace.root.join(EVENTS), &events(&workspace.root)?)
}

fn put(path: &Path, page: &str) -> Result<()> {
    fs::write(path, page).with_context(|| path.display().to_string())?;
    println!("ok    {}", path.display());
    Ok(())
}

/// What is not current, of what can be told without building terse.
///
/// # Errors
/// When a file can't be read.
pub fn problems(root: &Path) -> Result<Vec<String>> {
    let current = read(root, EVENTS)? == events(root)?;
    Ok(if current { vec![] } else { vec![format!("{EVENTS} is not current: run `cargo xtask book reference`")] })
}

fn read(root: &Path, path: &str) -> Result<String> {
    let path = root.join(path);
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// The page of events.
fn events(root: &Path) -> Result<String> {
    let schema: Value = serde_json::from_str(&read(root, SCHEMA)?).context(SCHEMA)?;
    let mut page = format!(
        "# Events\n\n*Made by `cargo xtask book reference` from `{SCHEMA}` and the modules named below: change those, \
         not this page.*\n\nWith a message broker (`TERSE_BUS=amqp://…`) terse publishes what happens to links, for \
         whoever binds a queue, and clicks, for itself. `ID` is the first half of the deployment's id, which `terse \
         migrate` prints. Names and sizes of exchanges and streams are in `deploy/rabbitmq/README.md`.\n\n## Link \
         events\n\nTopic exchange `terse.ID.events`; the routing key is the `type`; `application/json`, persistent. \
         {}\n\n",
        text(&schema, "description")
    );
    page.push_str(&fields(&schema));
    let link = &schema["properties"]["link"];
    let _ = write!(page, "\n### `link`\n\n{}\n\n{}", text(link, "description"), fields(link));
    page.push_str(
        "\n## Clicks\n\nDirect exchange `terse.ID.clicks`; the routing key is the number of the partition, whose \
         stream is `terse.ID.clicks.N`; persistent, `mandatory`, confirmed. They are terse's own, and may come more \
         than once: a part is named by journal, sequence number and partition.\n",
    );
    for (title, module) in LAYOUTS {
        let _ = write!(page, "\n### {title}\n\n*`{module}`.* {}\n", module_doc(&read(root, module)?));
    }
    Ok(page)
}

/// The members of an object of a schema: those that must be there first, in the schema's order.
fn fields(schema: &Value) -> String {
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let properties = schema["properties"].as_object();
    let others =
        properties.into_iter().flatten().map(|(name, _)| name.as_str()).filter(|name| !required.contains(name));
    let mut table = String::from("| field | type | always there | what it is |\n|---|---|---|---|\n");
    for name in required.iter().copied().chain(others) {
        let field = &schema["properties"][name];
        let always = if required.contains(&name) { "yes" } else { "no" };
        let _ = writeln!(table, "| `{name}` | {} | {always} | {} |", kind(field), text(field, "description"));
    }
    table
}

/// The type of a member: its words, if it is one of some.
fn kind(field: &Value) -> String {
    let words = |list: &Value| -> Vec<String> {
        list.as_array().into_iter().flatten().filter_map(Value::as_str).map(|word| format!("`{word}`")).collect()
    };
    let format = field["format"].as_str().map(|format| format!(", `{format}`")).unwrap_or_default();
    match (&field["enum"], &field["type"]) {
        (list @ Value::Array(_), _) => words(list).join(", "),
        (_, list @ Value::Array(_)) => format!("{}{format}", words(list).join(" or ")),
        (_, one) => format!("`{}`{format}", one.as_str().unwrap_or_default()),
    }
}

fn text<'a>(schema: &'a Value, name: &str) -> &'a str {
    schema[name].as_str().unwrap_or_default()
}

/// The documentation of a module, without its links, which only rustdoc can follow.
fn module_doc(source: &str) -> String {
    let lines =
        source.lines().map_while(|line| line.strip_prefix("//!")).map(|line| line.strip_prefix(' ').unwrap_or(line));
    without_links(&lines.collect::<Vec<_>>().join("\n"))
}

/// `[text](target)` and `[text]` as `text`.
fn without_links(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, inside)) = rest.split_once('[') {
        plain.push_str(before);
        let Some((words, after)) = inside.split_once(']') else {
            plain.push('[');
            rest = inside;
            continue;
        };
        plain.push_str(words);
        rest = after.strip_prefix('(').and_then(|target| target.split_once(')')).map_or(after, |(_, behind)| behind);
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_page_of_events_is_current() {
        let workspace = Workspace::find().unwrap();
        assert_eq!(problems(&workspace.root).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_page_that_was_changed_by_hand_is_told() {
        let (workspace, place) = (Workspace::find().unwrap(), tempfile::tempdir().unwrap());
        for path in [SCHEMA, EVENTS].into_iter().chain(LAYOUTS.map(|(_, module)| module)) {
            let copy = place.path().join(path);
            fs::create_dir_all(copy.parent().unwrap()).unwrap();
            fs::copy(workspace.root.join(path), copy).unwrap();
        }
        assert!(problems(place.path()).unwrap().is_empty());
        let changed = read(place.path(), SCHEMA).unwrap().replace("The short code.", "Another text.");
        fs::write(place.path().join(SCHEMA), changed).unwrap();
        assert!(problems(place.path()).unwrap()[0].contains("is not current: run `cargo xtask book reference`"));
    }

    #[test]
    fn members_are_told_with_type_words_and_whether_they_are_always_there() {
        let schema = json!({ "required": ["b"], "properties": {
            "a": { "type": ["string", "null"], "format": "date-time", "description": "When." },
            "b": { "enum": ["x", "y"], "description": "Which." } } });
        let rows: Vec<String> = fields(&schema).lines().skip(2).map(str::to_owned).collect();
        let expected = ["| `b` | `x`, `y` | yes | Which. |", "| `a` | `string` or `null`, `date-time` | no | When. |"];
        assert_eq!(rows, expected);
    }

    #[test]
    fn the_documentation_of_a_module_ends_with_it_and_loses_its_links() {
        let source = "//! A [part](crate::part) and [seed].\n//!\n//! | a | [b](c) |\nuse x;\n//! not this";
        assert_eq!(module_doc(source), "A part and seed.\n\n| a | b |");
        assert_eq!(without_links("an [open end"), "an [open end");
    }

    #[test]
    fn every_field_of_the_schema_is_described() {
        let workspace = Workspace::find().unwrap();
        let schema: Value = serde_json::from_str(&read(&workspace.root, SCHEMA).unwrap()).unwrap();
        for object in [&schema, &schema["properties"]["link"]] {
            for (name, field) in object["properties"].as_object().unwrap() {
                assert!(!text(field, "description").is_empty(), "{name}");
            }
        }
    }
}
