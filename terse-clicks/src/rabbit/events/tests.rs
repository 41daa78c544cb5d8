//! What is told of links, and that it waits safely until it is told.

use std::fs;

use serde_json::Value;
use terse_core::{LinkState, Tags, Title, Version};
use terse_testkit::SeededEntropy;
use terse_testkit::links;

use super::*;

/// What those who read events are told of them.
const SCHEMA: &str = include_str!("../../../../deploy/rabbitmq/link-event.v1.schema.json");

fn link() -> ShortLink {
    let at = |text: &str| Timestamp::parse(text).unwrap();
    ShortLink {
        title: Some(Title::parse("Launch \"day\"").unwrap()),
        tags: Tags::parse(&["a", "b"]).unwrap(),
        state: LinkState::Active,
        expires_at: Some(at("2027-01-01T00:00:00Z")),
        valid_from: None,
        version: Version(3),
        ..links::link("launch")
    }
}

fn at() -> Timestamp {
    Timestamp::parse("2026-11-23T06:00:00.250Z").unwrap()
}

fn events(link: &ShortLink) -> [LinkEvent<'_>; 3] {
    [LinkEvent::Created(link), LinkEvent::Changed(link), LinkEvent::Deleted(link)]
}

/// Whether `value` is as `schema` says, in the words of JSON Schema that ours uses.
fn check(schema: &Value, value: &Value) -> Result<(), String> {
    for (word, says) in schema.as_object().unwrap() {
        let fits = match word.as_str() {
            "$schema" | "$id" | "title" | "description" | "format" => true,
            "type" => {
                let types = says.as_array().cloned().unwrap_or_else(|| vec![says.clone()]);
                types.iter().any(|kind| is_of_type(kind.as_str().unwrap(), value))
            }
            "enum" => says.as_array().unwrap().contains(value),
            "minimum" => value.as_u64().is_none_or(|number| number >= says.as_u64().unwrap()),
            "required" => says.as_array().unwrap().iter().all(|name| value.get(name.as_str().unwrap()).is_some()),
            "additionalProperties" => {
                let known = &schema["properties"];
                value.as_object().is_none_or(|fields| fields.keys().all(|name| known.get(name).is_some()))
            }
            "properties" => {
                for (name, schema) in says.as_object().unwrap() {
                    if let Some(value) = value.get(name) {
                        check(schema, value)?;
                    }
                }
                true
            }
            "items" => {
                for value in value.as_array().into_iter().flatten() {
                    check(says, value)?;
                }
                true
            }
            other => panic!("the test knows no {other}"),
        };
        if !fits {
            return Err(format!("{word} of {says} is not {value}"));
        }
    }
    Ok(())
}

fn is_of_type(kind: &str, value: &Value) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64(),
        "null" => value.is_null(),
        other => panic!("the test knows no {other}"),
    }
}

#[test]
fn events_are_as_their_schema_says() {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let plain = ShortLink { title: None, tags: Tags::default(), expires_at: None, ..link() };
    for link in [link(), plain] {
        for event in events(&link) {
            let json: Value = serde_json::from_slice(&event.json("id-0", at()).unwrap()).unwrap();
            check(&schema, &json).unwrap();
        }
    }
}

#[test]
fn the_schema_refuses_what_is_no_event() {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let link = link();
    let good: Value = serde_json::from_slice(&LinkEvent::Created(&link).json("id-0", at()).unwrap()).unwrap();
    for (field, value) in [("type", "link.created.v9".into()), ("version", Value::Null), ("more", 1.into())] {
        let mut bad = good.clone();
        bad[field] = value;
        assert!(check(&schema, &bad).is_err(), "{field}");
    }
    let mut bad = good.clone();
    bad.as_object_mut().unwrap().remove("code");
    assert!(check(&schema, &bad).is_err());
    let mut bad = good;
    bad["link"]["tags"] = "a".into();
    assert!(check(&schema, &bad).is_err());
}

#[test]
fn the_json_of_version_1_stays_as_it_is() {
    let link = link();
    let json: Value = serde_json::from_slice(&LinkEvent::Changed(&link).json("id-0", at()).unwrap()).unwrap();
    let expected = serde_json::json!({
        "type": "link.changed.v1",
        "id": "id-0",
        "at": "2026-11-23T06:00:00.25Z",
        "code": "launch",
        "version": 3,
        "link": {
            "url": link.target.as_str(),
            "title": "Launch \"day\"",
            "tags": ["a", "b"],
            "state": "active",
            "created_at": link.created_at.to_string(),
            "updated_at": link.updated_at.to_string(),
            "expires_at": "2027-01-01T00:00:00Z",
            "valid_from": null,
        },
    });
    assert_eq!(json, expected);
    let deleted: Value = serde_json::from_slice(&LinkEvent::Deleted(&link).json("id-1", at()).unwrap()).unwrap();
    assert_eq!(deleted.get("link"), None, "what was deleted is told no more");
}

fn ids(pending: &Pending) -> Vec<String> {
    let id = |event: &outbox::Waiting| {
        let json: Value = serde_json::from_slice(&event.json).unwrap();
        json["id"].as_str().unwrap().rsplit('-').next().unwrap().to_owned()
    };
    pending.events.iter().map(id).collect()
}

#[test]
fn events_wait_in_their_order_until_they_are_sent() {
    let directory = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(directory.path(), &SeededEntropy::new(1)).unwrap();
    let link = link();
    for event in events(&link) {
        outbox.append(event, at()).unwrap();
    }
    let first = outbox.pending(2).unwrap();
    assert_eq!(ids(&first), ["0", "1"]);
    assert_eq!(ids(&outbox.pending(2).unwrap()), ["0", "1"], "they were not sent");
    outbox.sent(&first).unwrap();
    let last = outbox.pending(2).unwrap();
    assert_eq!(last.events.iter().map(|event| event.kind).collect::<Vec<_>>(), [2]);
    outbox.sent(&last).unwrap();
    assert!(outbox.pending(2).unwrap().events.is_empty());
}

#[test]
fn what_a_dead_process_left_is_found_and_what_a_living_one_has_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let link = link();
    let left = Outbox::open(directory.path(), &SeededEntropy::new(1)).unwrap();
    let lives = Outbox::open(directory.path(), &SeededEntropy::new(2)).unwrap();
    for outbox in [&left, &lives] {
        for event in events(&link) {
            outbox.append(event, at()).unwrap();
        }
    }
    let sent = left.pending(1).unwrap();
    left.sent(&sent).unwrap();
    assert!(Reader::of_a_dead_process(directory.path()).unwrap().is_none());
    drop(left);
    let reader = Reader::of_a_dead_process(directory.path()).unwrap().unwrap();
    assert!(Reader::of_a_dead_process(directory.path()).unwrap().is_none(), "one at a time");
    let rest = reader.pending(10).unwrap();
    assert_eq!(ids(&rest), ["1", "2"]);
    reader.sent(&rest).unwrap();
    assert!(reader.pending(10).unwrap().events.is_empty());
    reader.remove().unwrap();
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    assert_eq!(lives.pending(10).unwrap().events.len(), 3);
}

#[test]
fn a_torn_event_ends_an_outbox_and_is_put_aside() {
    let directory = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(directory.path(), &SeededEntropy::new(1)).unwrap();
    let link = link();
    outbox.append(LinkEvent::Created(&link), at()).unwrap();
    outbox.append(LinkEvent::Changed(&link), at()).unwrap();
    drop(outbox);
    let path = fs::read_dir(directory.path()).unwrap().next().unwrap().unwrap().path();
    let whole = fs::read(&path).unwrap();
    let mut damaged = whole.clone();
    let middle = damaged.len() - 20;
    damaged[middle] ^= 1;
    for bytes in [&whole[..whole.len() - 1], &damaged] {
        fs::write(&path, bytes).unwrap();
        let reader = Reader::of_a_dead_process(directory.path()).unwrap().unwrap();
        let pending = reader.pending(10).unwrap();
        assert_eq!(ids(&pending), ["0"]);
        reader.sent(&pending).unwrap();
        reader.remove().unwrap();
        assert!(!path.exists() && path.with_extension("torn").exists());
    }
    fs::write(&path, "something else").unwrap();
    let reader = Reader::of_a_dead_process(directory.path()).unwrap().unwrap();
    assert!(reader.pending(10).unwrap().events.is_empty());
    reader.remove().unwrap();
    assert_eq!(fs::read(path.with_extension("torn")).unwrap(), b"something else");
}

#[test]
fn an_outbox_of_which_all_was_sent_begins_anew() {
    let directory = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(directory.path(), &SeededEntropy::new(1)).unwrap();
    let path = fs::read_dir(directory.path()).unwrap().next().unwrap().unwrap().path();
    let link = link();
    while fs::metadata(&path).unwrap().len() < 1 << 20 {
        outbox.append(LinkEvent::Created(&link), at()).unwrap();
    }
    let all = outbox.pending(usize::MAX).unwrap();
    outbox.append(LinkEvent::Changed(&link), at()).unwrap();
    outbox.sent(&all).unwrap();
    let last = outbox.pending(usize::MAX).unwrap();
    assert_eq!(last.events.len(), 1, "one came while the others were sent");
    outbox.sent(&last).unwrap();
    assert!(fs::metadata(&path).unwrap().len() < 100);
    outbox.append(LinkEvent::Deleted(&link), at()).unwrap();
    assert_eq!(ids(&outbox.pending(10).unwrap()), [(all.events.len() + 1).to_string()]);
}

#[test]
fn a_full_outbox_drops_the_newest_and_counts_it() {
    let directory = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(directory.path(), &SeededEntropy::new(1)).unwrap();
    let link = link();
    let mut noted = 0_u64;
    let full = loop {
        match outbox.append(LinkEvent::Created(&link), at()) {
            Ok(()) => noted += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(full, OutboxError::Full));
    assert_eq!((outbox.dropped(), noted > 100_000), (1, true));
    assert_eq!(ids(&outbox.pending(1).unwrap()), ["0"], "the oldest are kept");
}
