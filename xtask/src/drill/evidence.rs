//! What drills leave: numbers in a file, and a chart of each that has a timeline.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Serialize as _;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};
use serde_json::{Value, json};

use super::draw;

/// What the drills break, in all runs.
const ENGINE: &str = "Apache Cassandra 5.0.8, three nodes, replication factor 3, and a Redis of the drill's own, on \
                      the cores of the server and the load; SQLite where a drill needs no cluster. Clicks go through \
                      RabbitMQ 3.10.8 of the drill's own where its name ends with -amqp (counted in SQLite) or -cql \
                      (counted on the cluster), else through the journals";

/// Where the charts are of what is in that file.
pub(super) fn beside(file: &Path) -> PathBuf {
    file.with_file_name("drills")
}

/// Puts what a run `measured` into the file at `path`, each drill with what is told `about` the run.
pub(super) fn file(path: &Path, measured: &Value, about: &Value) -> Result<()> {
    let mut filed = if path.exists() { read(path)? } else { json!({}) };
    filed["engine"] = ENGINE.into();
    for (name, run) in measured["drills"].as_object().context("what was measured has no drills")? {
        let mut run = run.clone();
        run["form"] = measured["form"].clone();
        run["about"] = about.clone();
        filed["drills"][name] = run;
    }
    fs::write(path, written(&filed)? + "\n").with_context(|| path.display().to_string())
}

/// Draws each drill that has a timeline into `folder`; returns how many there are.
pub(super) fn draw(folder: &Path, measured: &Value) -> Result<usize> {
    let mut drawn = 0;
    for (name, run) in measured["drills"].as_object().context("what was measured has no drills")? {
        if let Some(svg) = draw::svg(name, run) {
            let path = folder.join(format!("{name}.svg"));
            fs::create_dir_all(folder)
                .and_then(|()| fs::write(&path, svg))
                .with_context(|| path.display().to_string())?;
            drawn += 1;
        }
    }
    Ok(drawn)
}

pub(super) fn read(path: &Path) -> Result<Value> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

/// JSON as one reads it, but with a list on one line: a timeline has thousands of numbers.
fn written(value: &Value) -> Result<String> {
    let mut bytes = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut bytes, ListsOnOneLine(PrettyFormatter::new())))?;
    Ok(String::from_utf8(bytes)?)
}

struct ListsOnOneLine(PrettyFormatter<'static>);

impl Formatter for ListsOnOneLine {
    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b"[")
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b"]")
    }

    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn end_array_value<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        Ok(())
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object(writer)
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object(writer)
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(writer, first)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object_value(writer)
    }

    fn end_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object_value(writer)
    }
}

#[cfg(test)]
mod tests {
    use super::super::draw::tests::run;
    use super::*;

    fn measured(name: &str, run: Value) -> Value {
        json!({ "form": "full", "drills": { name: run } })
    }

    #[test]
    fn what_was_measured_is_filed_beside_other_drills() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("drills.json");
        let about = json!({ "date": "2026-11-23T12:00:00Z" });
        for (name, lost) in [("kill-node", 1), ("scan", 2), ("kill-node", 3)] {
            let run = json!({ "verdict": "held", "measured": { "lost": { "count": lost } } });
            file(&path, &measured(name, run), &about).unwrap();
        }
        let filed = read(&path).unwrap();
        assert_eq!(filed["drills"].as_object().map(serde_json::Map::len), Some(2));
        let drill = &filed["drills"]["kill-node"];
        assert_eq!(
            (&drill["measured"]["lost"]["count"], &drill["form"], &drill["about"]),
            (&json!(3), &json!("full"), &about)
        );
        assert_eq!(drill["verdict"], "held");
    }

    #[test]
    fn a_drill_that_is_broken_leaves_its_numbers_and_its_chart() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("click-drills.json");
        let run = run("broken");
        file(&path, &measured("clicks-kill", run.clone()), &json!({})).unwrap();
        assert_eq!(draw(&beside(&path), &measured("clicks-kill", run)).unwrap(), 1);
        let filed = read(&path).unwrap();
        assert_eq!(filed["drills"]["clicks-kill"]["verdict"], "broken");
        assert!(filed["drills"]["clicks-kill"]["timeline"]["faults"][0]["to_s"].as_f64() > Some(0.0));
        let chart = fs::read_to_string(place.path().join("drills/clicks-kill.svg")).unwrap();
        assert!(chart.contains("Broken: 1 of 2 redirects failed"), "{chart}");
    }

    #[test]
    fn a_drill_without_a_timeline_has_no_chart() {
        let place = tempfile::tempdir().unwrap();
        let run = json!({ "verdict": "held", "measured": {} });
        assert_eq!(draw(&place.path().join("drills"), &measured("alias-race", run)).unwrap(), 0);
        assert!(!place.path().join("drills").exists());
    }

    #[test]
    fn a_spoilt_file_is_not_overwritten() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("drills.json");
        fs::write(&path, "half a").unwrap();
        assert!(file(&path, &json!({ "drills": {} }), &json!({})).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "half a");
    }

    #[test]
    fn a_list_is_on_one_line_and_all_is_there() {
        let value = json!({ "a": [1, 2.5, null], "b": { "c": [{ "d": "e" }, []] } });
        let text = written(&value).unwrap();
        assert!(text.contains("\"a\": [1, 2.5, null],\n"), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }
}
