//! What is told of writes, and that it is told whatever becomes of them.

use std::pin::pin;
use std::sync::Mutex;
use std::task::{Context, Waker};

use async_trait::async_trait;

use super::*;
use crate::ports::AttemptId;
use crate::ports::events::{Intent, IntentId, LinkEvent, LinkEvents, Settled};

/// What was told, in words.
#[derive(Default)]
struct Told {
    lines: Mutex<Vec<String>>,
    full: bool,
}

impl Told {
    fn say(&self, line: String) {
        self.lines.lock().unwrap().push(line);
    }

    fn all(&self) -> Vec<String> {
        std::mem::take(&mut self.lines.lock().unwrap())
    }
}

#[async_trait]
impl LinkEvents for Told {
    async fn intend(&self, intent: Intent<'_>) -> Option<IntentId> {
        self.say(match intent {
            Intent::Create(link) => format!("intend {}", link.code.as_str()),
            Intent::Change { code, version } => format!("intend {} {}", code.as_str(), version.0),
        });
        (!self.full).then_some(IntentId(7))
    }

    fn settle(&self, id: IntentId, outcome: Settled<'_>) {
        assert_eq!(id, IntentId(7));
        self.say(match outcome {
            Settled::Happened(LinkEvent::Created(link)) => format!("created {}", link.code.as_str()),
            Settled::Happened(LinkEvent::Changed(link)) => format!("changed {}", link.version.0),
            Settled::Happened(LinkEvent::Deleted(link)) => format!("deleted {}", link.version.0),
            Settled::Nothing => "nothing".to_owned(),
            Settled::Unknown => "unknown".to_owned(),
        });
    }
}

fn telling(full: bool) -> (Bench, Arc<Told>) {
    let told = Arc::new(Told { full, ..Told::default() });
    let mut bench = Bench::new();
    let writer = TellingWriter::new(Arc::clone(&bench.shortener.writer), Arc::clone(&told) as Arc<dyn LinkEvents>);
    bench.shortener.writer = Arc::new(writer);
    (bench, told)
}

#[test]
fn each_change_is_intended_first_and_told_when_it_was_made() {
    let (bench, told) = telling(false);
    bench.create(&draft().alias("abc")).unwrap();
    assert_eq!(told.all(), ["intend abc", "created abc"]);
    let off = Patch { state: Some(LinkState::Disabled), ..Patch::default() };
    bench.edit("abc", &off).unwrap();
    assert_eq!(told.all(), ["intend abc 2", "changed 2"]);
    bench.edit("abc", &off).unwrap();
    assert!(told.all().is_empty(), "it changed nothing");
    bench.delete("abc").unwrap();
    assert_eq!(told.all(), ["intend abc 3", "deleted 3"]);
    assert!(bench.create(&draft().alias("abc")).is_err());
    assert_eq!(told.all(), ["intend abc", "nothing"]);
}

#[test]
fn a_failed_write_is_nothing_and_one_of_unknown_outcome_is_in_doubt() {
    for (kind, settled) in [
        (Unavailable, "nothing"),
        (Overloaded, "nothing"),
        (UnknownOutcome, "unknown"),
        (StoreErrorKind::Corrupt, "unknown"),
    ] {
        let (bench, told) = telling(false);
        bench.store.cue(Op::Insert, Cue::FailAfter(kind));
        let _ = bench.create(&draft().alias("abc"));
        assert_eq!(told.all()[..2], ["intend abc", settled], "{kind:?}");
    }
}

#[test]
fn a_write_found_to_have_been_made_is_told() {
    let (bench, told) = telling(false);
    bench.store.cue(Op::Insert, Cue::FailAfter(UnknownOutcome));
    bench.create(&draft().alias("abc")).unwrap();
    assert_eq!(told.all(), ["intend abc", "unknown", "intend abc", "created abc"]);
}

#[test]
fn a_retry_under_an_idempotency_key_is_told_again_at_most() {
    let (bench, told) = telling(false);
    let key = Idempotency { key: "k".to_owned(), body_hash: [1; 32] };
    let made = [bench.create_with_key(&draft(), &key).unwrap(), bench.create_with_key(&draft(), &key).unwrap()];
    assert_eq!(made[0].code, made[1].code);
    let code = made[0].code.as_str();
    assert_eq!(told.all().iter().filter(|line| **line == format!("created {code}")).count(), 2);
}

#[test]
fn a_caller_that_goes_away_leaves_its_write_in_doubt() {
    let (bench, told) = telling(false);
    let link = Bench::new().create(&draft().alias("abc")).unwrap();
    {
        let mut writing = pin!(bench.shortener.writer.insert_if_absent(&link, AttemptId([1; 16])));
        assert!(writing.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    assert_eq!(told.all(), ["intend abc", "unknown"]);
}

#[test]
fn a_write_that_could_not_be_noted_is_made_all_the_same() {
    let (bench, told) = telling(true);
    bench.create(&draft().alias("abc")).unwrap();
    bench.delete("abc").unwrap();
    assert_eq!(told.all(), ["intend abc", "intend abc 2"]);
    assert_eq!(bench.row("abc").unwrap().state, LinkState::Deleted);
}
