//! The links that are measured with, and the two operations on them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use terse_core::Link;
use terse_core::codegen::CodeSpace;
use terse_core::ports::{Insert, LinkReader, LinkWriter, StoreError, StoreErrorKind, Tier};
use terse_store::Sharded;
use terse_testkit::links::{attempt, code, link, target};

use crate::load::{Answer, Fault, Operation};

/// How long the creation of a link is tried again, and the pause before it is.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(200);

/// Makes links by number: each number has a code and a target of its own.
pub(crate) struct Links {
    space: CodeSpace,
    next: AtomicU64,
}

impl Links {
    /// Codes that differ from those of any other run.
    pub(crate) fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { space: CodeSpace::new(now.as_nanos().to_be_bytes()), next: AtomicU64::new(0) }
    }

    /// `count` new links.
    pub(crate) fn take(&self, count: u64) -> Arc<[Link]> {
        let first = self.next.fetch_add(count, Ordering::Relaxed);
        (first..first + count).map(|number| self.link(number)).collect()
    }

    fn link(&self, number: u64) -> Link {
        let url = format!("https://www.example.com/catalogue/item-{number:09}?utm_source=newsletter&utm_medium=mail");
        // The space of codes is larger than any run.
        let code = self.space.code(number).unwrap_or_else(|| code("none"));
        Link { target: target(&url), ..link(code.as_str()) }
    }
}

/// What a store's failure means for a measurement.
fn fault(error: &StoreError) -> Fault {
    let source = error.source.as_ref().map(|source| format!(": {source}")).unwrap_or_default();
    match error.kind {
        StoreErrorKind::Corrupt => Fault::Wrong(format!("{error}{source}")),
        _ => Fault::Refused(format!("{error}{source}")),
    }
}

/// Fails unless `found` is where `link` leads.
pub(crate) fn check_target(link: &Link, found: Option<&str>) -> Result<(), Fault> {
    if found == Some(link.target.as_str()) {
        return Ok(());
    }
    Err(Fault::Wrong(format!("/{} leads to {found:?} instead of {}", link.code.as_str(), link.target.as_str())))
}

/// Resolves existing links in turn.
pub(crate) struct Resolve {
    pub(crate) ring: Arc<Sharded>,
    pub(crate) links: Arc<[Link]>,
}

impl Operation for Resolve {
    async fn run(&self, call: u64) -> Result<Answer, Fault> {
        let link = &self.links[call as usize % self.links.len()];
        let found = self.ring.resolve(&link.code).await.map_err(|error| fault(&error))?;
        check_target(link, found.link.as_ref().map(|link| link.target.as_str()))?;
        Ok(if found.tier == Tier::Stale { Answer::Stale } else { Answer::Full })
    }
}

/// Creates links that nobody has created before, at most as many as there are.
pub(crate) struct Create {
    ring: Arc<Sharded>,
    links: Arc<[Link]>,
    /// Which of them were acknowledged.
    created: Box<[AtomicBool]>,
}

impl Create {
    pub(crate) fn new(ring: &Arc<Sharded>, links: Arc<[Link]>) -> Self {
        let created = links.iter().map(|_| AtomicBool::new(false)).collect();
        Self { ring: Arc::clone(ring), links, created }
    }

    /// The links whose creation was acknowledged.
    pub(crate) fn created(&self) -> Vec<Link> {
        let acknowledged = self.links.iter().zip(&self.created).filter(|(_, created)| created.load(Ordering::Relaxed));
        acknowledged.map(|(link, _)| link.clone()).collect()
    }

    /// Creates those links, one by one, whose creation was not acknowledged,
    /// each again for some seconds: what was too much for a store trips its breaker.
    pub(crate) async fn complete(&self) -> Result<(), Fault> {
        for (call, created) in self.created.iter().enumerate() {
            let until = Instant::now() + PATIENCE;
            while !created.load(Ordering::Relaxed) {
                match self.run(call as u64).await {
                    Err(Fault::Refused(_)) if Instant::now() < until => tokio::time::sleep(PAUSE).await,
                    ended => drop(ended?),
                }
            }
        }
        Ok(())
    }
}

impl Operation for Create {
    async fn run(&self, call: u64) -> Result<Answer, Fault> {
        let link = &self.links[call as usize];
        let own = attempt(u128::from(call));
        match self.ring.insert_if_absent(link, own).await.map_err(|error| fault(&error))? {
            Insert::Taken { attempt } if attempt != own => {
                Err(Fault::Wrong(format!("the new code {} is taken", link.code.as_str())))
            }
            Insert::Created | Insert::Taken { .. } => {
                self.created[call as usize].store(true, Ordering::Relaxed);
                Ok(Answer::Full)
            }
        }
    }
}
