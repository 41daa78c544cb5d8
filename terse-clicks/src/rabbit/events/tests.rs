//! What is told of links, and that it waits safely until it is told.

use std::collections::HashMap;
use std::fs;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::Value;
use tempfile::TempDir;
use terse_core::cursor::Cursor;
use terse_core::ports::StoreErrorKind;
use terse_core::ports::events::{Intent, LinkEvent, LinkEvents, Settled};
use terse_core::{Link as ShortLink, LinkState, Owner, ShortCode, Tags, Timestamp, Title, Version};
use terse_testkit::{SeededEntropy, TestClock, links};

use super::file::HEAD_BYTES;
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

fn json(event: LinkEvent<'_>) -> Value {
    serde_json::from_slice(&Told::of(event, "id-0").unwrap().json).unwrap()
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
            check(&schema, &json(event)).unwrap();
        }
    }
}

#[test]
fn the_schema_refuses_what_is_no_event() {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let link = link();
    let good = json(LinkEvent::Created(&link));
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
    let expected = serde_json::json!({
        "type": "link.changed.v1",
        "id": "id-0",
        "at": link.updated_at.to_string(),
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
    assert_eq!(json(LinkEvent::Changed(&link)), expected);
    assert_eq!(json(LinkEvent::Deleted(&link)).get("link"), None, "what was deleted is told no more");
}

fn change(link: &ShortLink) -> Intent<'_> {
    Intent::Change { code: &link.code, version: link.version }
}

fn noted(intent: Intent<'_>) -> Noted {
    Noted::decode(&Noted::of(intent, "id-0").unwrap().encode().unwrap()).unwrap()
}

#[test]
fn what_an_intent_turns_out_to_have_been_is_told_by_the_link() {
    let link = link();
    let told = |intent: Intent<'_>, link: Option<&ShortLink>| {
        let told = noted(intent).judge(link, "id-0").unwrap()?;
        let json: Value = serde_json::from_slice(&told.json).unwrap();
        Some((json["type"].as_str().unwrap().to_owned(), json["version"].as_u64().unwrap()))
    };
    let created = |version| Some(("link.created.v1".to_owned(), version));
    let changed = |version| Some(("link.changed.v1".to_owned(), version));
    let first = ShortLink { version: Version::FIRST, ..link.clone() };
    assert_eq!(told(Intent::Create(&first), None), None, "it was never made");
    assert_eq!(told(Intent::Create(&first), Some(&first)), created(1));
    assert_eq!(told(Intent::Create(&first), Some(&link)), created(1), "and edited since");
    let other = ShortLink { created_at: link.created_at.plus_millis(1), ..first.clone() };
    assert_eq!(told(Intent::Create(&first), Some(&other)), None, "somebody else has the code");

    let before = ShortLink { version: Version(2), ..link.clone() };
    let deleted = ShortLink { state: LinkState::Deleted, version: Version(5), ..link.clone() };
    assert_eq!(told(change(&link), Some(&before)), None);
    assert_eq!(told(change(&link), None), None);
    assert_eq!(told(change(&link), Some(&link)), changed(3));
    assert_eq!(told(change(&before), Some(&link)), changed(3), "as it stands by now");
    assert_eq!(told(change(&link), Some(&deleted)), Some(("link.deleted.v1".to_owned(), 5)));
}

#[test]
fn what_is_no_intent_is_none() {
    assert_eq!(Noted::decode(b""), None);
    assert_eq!(Noted::decode(&[0xff; 40]), None);
}

/// A process with an outbox, on a clock that stands.
struct Process {
    directory: TempDir,
    outbox: Arc<Outbox>,
}

fn open(directory: &Path, seed: u64) -> Arc<Outbox> {
    Outbox::open(directory, Arc::new(TestClock::default()), &SeededEntropy::new(seed)).unwrap()
}

/// What a dead process left in `directory`, where nothing is damaged.
fn find(directory: &Path) -> Option<Left> {
    Left::find(directory, 0, |path, error| panic!("{}: {error}", path.display()))
}

async fn create(outbox: &Outbox, link: &ShortLink) {
    let id = outbox.intend(Intent::Create(link)).await.unwrap();
    outbox.settle(id, Settled::Happened(LinkEvent::Created(link)));
}

/// Waits until `fits` of what is told.
async fn until(outbox: &Outbox, fits: impl Fn(OutboxReport) -> bool) {
    let waits = async {
        while !fits(outbox.report()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waits).await.unwrap();
}

impl Process {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let outbox = open(directory.path(), 1);
        Self { directory, outbox }
    }

    async fn settled(&self) {
        until(&self.outbox, |report| report.open == 0).await;
    }

    fn file(&self) -> PathBuf {
        fs::read_dir(self.directory.path()).unwrap().next().unwrap().unwrap().path()
    }

    fn left(&self) -> Option<Left> {
        find(self.directory.path())
    }
}

/// The numbers of the events among `frames`.
fn numbers(frames: &file::Frames) -> Vec<u64> {
    frames.frames.iter().filter(|frame| event_of(frame).is_some()).map(|frame| frame.number).collect()
}

#[tokio::test]
async fn an_intent_is_on_the_disk_before_anything_is_tried() {
    let process = Process::new();
    let link = link();
    process.outbox.intend(Intent::Create(&link)).await.unwrap();
    let bytes = fs::read(process.file()).unwrap();
    assert!(bytes.len() as u64 > HEAD_BYTES && bytes.windows(6).any(|six| six == b"launch"));
    assert_eq!(process.outbox.report().open, 1);
}

#[tokio::test]
async fn events_wait_in_their_order_until_they_are_published() {
    let process = Process::new();
    let (link, outbox) = (link(), &process.outbox);
    for event in [LinkEvent::Created(&link), LinkEvent::Changed(&link), LinkEvent::Deleted(&link)] {
        let id = outbox.intend(change(&link)).await.unwrap();
        outbox.settle(id, Settled::Happened(event));
    }
    let nothing = outbox.intend(change(&link)).await.unwrap();
    outbox.settle(nothing, Settled::Nothing);
    process.settled().await;
    let first = outbox.pending(4).unwrap();
    assert_eq!(numbers(&first), [0, 1]);
    assert_eq!(numbers(&outbox.pending(4).unwrap()), [0, 1], "they were not published");
    outbox.published(&first).unwrap();
    let last = outbox.pending(9).unwrap();
    assert_eq!(last.frames.iter().filter_map(event_of).map(|(kind, _)| kind).collect::<Vec<_>>(), [Kind::Deleted]);
    outbox.published(&last).unwrap();
    assert!(outbox.pending(9).unwrap().frames.is_empty());
    assert_eq!(outbox.report(), OutboxReport::default());
}

#[tokio::test]
async fn what_a_dead_process_left_is_found_and_what_a_living_one_has_is_not() {
    let process = Process::new();
    let link = link();
    let lives = open(process.directory.path(), 2);
    for _ in 0..3 {
        create(&process.outbox, &link).await;
    }
    create(&lives, &link).await;
    let open = process.outbox.intend(change(&link)).await.unwrap();
    until(&process.outbox, |report| report.open == 1).await;
    let first = process.outbox.pending(2).unwrap();
    process.outbox.published(&first).unwrap();
    assert!(process.left().is_none());
    let id = process.outbox.event_id(open.0);
    let directory = process.directory;
    drop(process.outbox);

    let mut left = find(directory.path()).unwrap();
    assert!(find(directory.path()).is_none(), "one reads it");
    let rest = left.pending(9).unwrap();
    assert_eq!(numbers(&rest), [1, 2]);
    assert!(left.doubts(9).is_empty(), "not before all events are published");
    left.published(rest).unwrap();
    let doubts = left.doubts(9);
    assert_eq!(doubts.iter().map(|(number, _)| left.event_id(*number)).collect::<Vec<_>>(), [id.as_str()]);
    drop(left);
    // Whoever comes next finds the intent again, and nothing before it.
    let mut left = find(directory.path()).unwrap();
    let rest = left.pending(9).unwrap();
    assert!(numbers(&rest).is_empty());
    left.published(rest).unwrap();
    assert_eq!(left.doubts(9), doubts);
    left.settled(&[open.0]).unwrap();
    assert!(left.doubts(9).is_empty() && left.pending(9).unwrap().frames.is_empty());
    left.remove().unwrap();
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "the living one's");
}

#[tokio::test]
async fn a_torn_frame_ends_an_outbox_and_is_put_aside() {
    let process = Process::new();
    let (link, path) = (link(), process.file());
    create(&process.outbox, &link).await;
    process.settled().await;
    let good = fs::metadata(&path).unwrap().len();
    create(&process.outbox, &link).await;
    process.settled().await;
    let directory = process.directory;
    drop(process.outbox);
    let whole = fs::read(&path).unwrap();
    let mut damaged = whole.clone();
    damaged[good as usize + 30] ^= 1;
    for (bytes, frames) in [(&whole[..whole.len() - 1], 3), (&damaged, 2)] {
        fs::write(&path, bytes).unwrap();
        let mut left = find(directory.path()).unwrap();
        let pending = left.pending(9).unwrap();
        assert_eq!((pending.frames.len(), numbers(&pending)), (frames, vec![0]));
        left.published(pending).unwrap();
        left.remove().unwrap();
        assert!(!path.exists() && path.with_extension("torn").exists());
    }
    fs::write(&path, "something else").unwrap();
    let left = find(directory.path()).unwrap();
    assert!(left.pending(9).unwrap().frames.is_empty());
    left.remove().unwrap();
    assert_eq!(fs::read(path.with_extension("torn")).unwrap(), b"something else");
}

#[tokio::test]
async fn an_outbox_of_which_most_was_published_begins_anew_and_keeps_what_is_open() {
    let process = Process::new();
    let (link, outbox) = (link(), &process.outbox);
    let early = outbox.intend(change(&link)).await.unwrap();
    while outbox.report().waiting_bytes < (1 << 20) + (1 << 18) {
        create(outbox, &link).await;
    }
    until(outbox, |report| report.open == 1).await;
    let big = fs::metadata(process.file()).unwrap().len();
    let mut published = Vec::new();
    while fs::metadata(process.file()).unwrap().len() == big {
        let pending = outbox.pending(MAX_BATCH).unwrap();
        published.extend(numbers(&pending));
        outbox.published(&pending).unwrap();
    }
    assert!(published.is_sorted() && fs::metadata(process.file()).unwrap().len() < big / 2);
    let late = outbox.intend(change(&link)).await.unwrap();
    loop {
        let pending = outbox.pending(MAX_BATCH).unwrap();
        if pending.frames.is_empty() {
            break;
        }
        published.extend(numbers(&pending));
        outbox.published(&pending).unwrap();
    }
    assert_eq!(published, (1..late.0).collect::<Vec<_>>(), "each once");
    outbox.settle(late, Settled::Happened(LinkEvent::Deleted(&link)));
    until(outbox, |report| report.open == 1).await;
    assert_eq!(numbers(&outbox.pending(9).unwrap()), [late.0]);
    let directory = process.directory;
    drop(process.outbox);
    let mut left = find(directory.path()).unwrap();
    let mut again = Vec::new();
    loop {
        let rest = left.pending(MAX_BATCH).unwrap();
        if rest.frames.is_empty() {
            break;
        }
        again.extend(numbers(&rest));
        left.published(rest).unwrap();
    }
    // What came behind the open intent may come again.
    assert!(again.is_sorted() && again.last() == Some(&late.0) && again.len() < published.len() / 2, "{again:?}");
    assert_eq!(left.doubts(9).iter().map(|(number, _)| *number).collect::<Vec<_>>(), [early.0]);
}

#[tokio::test]
async fn a_full_outbox_drops_the_newest_and_counts_it() {
    let process = Process::new();
    let outbox = &process.outbox;
    // A title of the largest link that there is.
    let link = ShortLink { tags: Tags::default(), ..link() };
    let body = vec![0_u8; 200 << 10];
    let mut filled = 0;
    while outbox.fill_for_test(&body).await {
        filled += body.len() as u64;
    }
    assert!(filled > MAX_OUTBOX_BYTES * 3 / 4 && filled < MAX_OUTBOX_BYTES, "{filled}");
    let (before, mut noted) = (outbox.report().dropped, Vec::new());
    // What is left takes some smaller ones.
    let refused = loop {
        match outbox.intend(Intent::Create(&link)).await {
            Some(id) => noted.push(id),
            None => break outbox.report().dropped - before,
        }
        assert!(noted.len() < MAX_OPEN);
    };
    assert_eq!(refused, 1);
    for id in noted {
        outbox.settle(id, Settled::Happened(LinkEvent::Created(&link)));
    }
    process.settled().await;
    assert_eq!(outbox.report().dropped, before + 1, "there is room to settle what was noted");
    assert!(outbox.report().waiting_bytes <= MAX_OUTBOX_BYTES);
}

#[tokio::test]
async fn a_caller_that_goes_away_while_its_intent_is_noted_leaves_nothing_open() {
    let process = Process::new();
    let link = link();
    let mut gone = 0;
    for _ in 0..50 {
        let mut noting = std::pin::pin!(process.outbox.intend(Intent::Create(&link)));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match noting.as_mut().poll(&mut context) {
            std::task::Poll::Pending => gone += 1,
            // The disk was quicker than this thread.
            std::task::Poll::Ready(noted) => process.outbox.settle(noted.unwrap(), Settled::Nothing),
        }
    }
    assert!(gone > 0, "nobody went away while an intent was noted");
    process.settled().await;
    create(&process.outbox, &link).await;
    process.settled().await;
    assert_eq!(process.outbox.report().dropped, 0);
    assert_eq!(numbers(&process.outbox.pending(999).unwrap()).len(), 1);
}

/// Links as the store tells them, or that it can't be reached.
#[derive(Default)]
struct Links(Mutex<HashMap<ShortCode, ShortLink>>, std::sync::atomic::AtomicBool);

#[async_trait]
impl LinkCatalog for Links {
    async fn get(&self, code: &ShortCode) -> Result<Option<ShortLink>, StoreError> {
        if self.1.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(StoreError::new(StoreErrorKind::Unavailable, "away"));
        }
        Ok(self.0.lock().get(code).cloned())
    }

    async fn list(&self, _: &Owner, _: Option<&Cursor>, _: usize) -> Result<Vec<ShortLink>, StoreError> {
        Ok(Vec::new())
    }
}

#[tokio::test]
async fn what_is_in_doubt_is_asked_of_the_store_when_no_write_can_be_under_way() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), Arc::new(TestClock::default()));
    let links = Arc::new(Links::default());
    let time = || Arc::clone(&clock) as Arc<dyn Clock>;
    let outbox = Outbox::open(directory.path(), time(), &SeededEntropy::new(1)).unwrap();
    // Nobody listens there: nothing has to be published for this.
    let config = BrokerConfig::new("amqp://127.0.0.1:1/%2f", "d", 1).unwrap();
    let entropy = SeededEntropy::new(2);
    let catalog = Arc::clone(&links) as Arc<dyn LinkCatalog>;
    let own = Some(Arc::clone(&outbox));
    let mut relay = EventRelay::new(config, directory.path(), own, catalog, time(), &entropy).unwrap();
    let (made, missing) = (links::link("made"), links::link("missing"));
    for link in [&made, &missing] {
        let id = outbox.intend(Intent::Create(link)).await.unwrap();
        outbox.settle(id, Settled::Unknown);
    }
    links.0.lock().insert(made.code.clone(), made.clone());
    links.1.store(true, std::sync::atomic::Ordering::SeqCst);
    let marked = async {
        while outbox.doubts(0, 9).len() < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), marked).await.unwrap();
    relay.run_once(0).await;
    assert_eq!(outbox.report().open, 2, "a write may be under way");
    clock.advance(Duration::from_millis(ASK_AFTER_MS));
    relay.settle_doubts(&outbox).await;
    // The store is away: both are asked again, later.
    until(&outbox, |_| outbox.doubts(0, 9).len() == 2 && outbox.doubts(1, 9).is_empty()).await;
    links.1.store(false, std::sync::atomic::Ordering::SeqCst);
    clock.advance(Duration::from_millis(ASK_AFTER_MS));
    relay.settle_doubts(&outbox).await;
    until(&outbox, |report| report.open == 0).await;
    assert_eq!(numbers(&outbox.pending(9).unwrap()), [0]);
}

#[tokio::test]
async fn an_outbox_that_can_not_be_opened_holds_no_other_up() {
    let process = Process::new();
    let link = link();
    let lost = process.outbox.intend(change(&link)).await.unwrap();
    process.outbox.settle(lost, Settled::Nothing);
    process.settled().await;
    let (directory, path) = (tempfile::tempdir().unwrap(), process.file());
    // What a run as another user leaves can't be opened either; the tests may run as root.
    fs::create_dir(directory.path().join("a.events")).unwrap();
    fs::create_dir(directory.path().join("z.events")).unwrap();
    let dead = directory.path().join("m.events");
    fs::copy(&path, &dead).unwrap();
    let mut skipped = Vec::new();
    let found = Left::find(directory.path(), 0, |path, _| skipped.push(path.to_owned()));
    assert!(found.is_some());
    assert!(Left::find(directory.path(), 0, |path, _| skipped.push(path.to_owned())).is_none(), "it is being read");
    assert!(
        skipped.contains(&directory.path().join("a.events")) && skipped.contains(&directory.path().join("z.events"))
    );
    drop(found);

    let mut relay = relay(directory.path(), None, Arc::default());
    for _ in 0..2 {
        assert_eq!(relay.run_once(0).await, EventStep::default(), "no pause");
    }
    assert!(!dead.exists(), "all of it was seen to");
}

#[tokio::test]
async fn an_outbox_that_can_not_be_removed_rests_and_is_tried_again() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), Arc::new(TestClock::default()));
    let path = directory.path().join("a.events");
    fs::write(&path, b"torn").unwrap();
    // It is to be put aside, under a name that is taken by a directory.
    fs::create_dir(path.with_extension("torn")).unwrap();
    let mut relay = relay(directory.path(), None, Arc::clone(&clock));
    for _ in 0..2 {
        assert_eq!(relay.run_once(0).await, EventStep::default(), "no pause");
        assert!(path.exists() && relay.left.len() == 1);
    }
    fs::remove_dir(path.with_extension("torn")).unwrap();
    relay.run_once(0).await;
    assert!(path.exists(), "it rests");
    clock.advance(Duration::from_millis(LOOK_MS));
    relay.run_once(0).await;
    assert!(!path.exists() && relay.left.is_empty());
}

/// A relay whose broker is away.
fn relay(directory: &Path, own: Option<Arc<Outbox>>, clock: Arc<TestClock>) -> EventRelay {
    // Nobody listens there.
    let config = BrokerConfig::new("amqp://127.0.0.1:1/%2f", "d", 1).unwrap();
    EventRelay::new(config, directory, own, Arc::new(Links::default()), clock, &SeededEntropy::new(2)).unwrap()
}
