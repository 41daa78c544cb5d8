//! The ring around the writer that tells what happens to links.
//!
//! What is about to be written is noted before it is, and settled when the store has answered; an answer that leaves
//! open whether it was written, and a caller that goes away meanwhile, leave it to be read back. So however it ends, a
//! link that was changed is told at least once.

use std::sync::Arc;

use async_trait::async_trait;

use crate::ports::events::{Intent, IntentId, LinkEvent, LinkEvents, Settled};
use crate::ports::{AttemptId, Insert, LinkChange, LinkWriter, StoreError, StoreErrorKind, Update};
use crate::{Link, ShortCode, Version};

/// Passes writes on, and tells of them.
pub struct TellingWriter {
    inner: Arc<dyn LinkWriter>,
    events: Arc<dyn LinkEvents>,
}

impl TellingWriter {
    /// A ring around `inner` that tells `events` of all that is written through it.
    #[must_use]
    pub fn new(inner: Arc<dyn LinkWriter>, events: Arc<dyn LinkEvents>) -> Self {
        Self { inner, events }
    }

    async fn intend(&self, intent: Intent<'_>) -> Intended<'_> {
        Intended { events: self.events.as_ref(), id: self.events.intend(intent).await }
    }
}

/// An intent that was noted. One that is dropped before it was settled is in doubt.
struct Intended<'a> {
    events: &'a dyn LinkEvents,
    id: Option<IntentId>,
}

impl Intended<'_> {
    fn settle(mut self, outcome: Settled<'_>) {
        if let Some(id) = self.id.take() {
            self.events.settle(id, outcome);
        }
    }
}

impl Drop for Intended<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            self.events.settle(id, Settled::Unknown);
        }
    }
}

/// What a failed write came to.
fn failed(error: &StoreError) -> Settled<'static> {
    match error.kind {
        StoreErrorKind::Unavailable | StoreErrorKind::Overloaded => Settled::Nothing,
        StoreErrorKind::UnknownOutcome | StoreErrorKind::Corrupt => Settled::Unknown,
    }
}

#[async_trait]
impl LinkWriter for TellingWriter {
    async fn insert_if_absent(&self, link: &Link, attempt: AttemptId) -> Result<Insert, StoreError> {
        let intended = self.intend(Intent::Create(link)).await;
        let outcome = self.inner.insert_if_absent(link, attempt).await;
        intended.settle(match &outcome {
            Ok(Insert::Created) => Settled::Happened(LinkEvent::Created(link)),
            // An earlier try created it, which may have died before it could tell.
            Ok(Insert::Taken { attempt: winner }) if *winner == attempt => Settled::Happened(LinkEvent::Created(link)),
            Ok(Insert::Taken { .. }) => Settled::Nothing,
            Err(error) => failed(error),
        });
        outcome
    }

    async fn update(&self, code: &ShortCode, expected: Version, change: &LinkChange) -> Result<Update, StoreError> {
        let intended = self.intend(Intent::Change { code, version: expected.next() }).await;
        let outcome = self.inner.update(code, expected, change).await;
        intended.settle(match &outcome {
            Ok(Update::Updated(link)) => Settled::Happened(LinkEvent::of_change(link)),
            Ok(Update::Conflict { .. } | Update::NotFound) => Settled::Nothing,
            Err(error) => failed(error),
        });
        outcome
    }
}
