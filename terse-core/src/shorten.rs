//! The use cases of the API: create, edit and delete links. They hold the
//! rules that are the same over every store and every face.
//!
//! Every loop here is bounded by a named constant; when it is hit, others were
//! faster too often, and the answer is [`StoreErrorKind::Overloaded`].

mod change;
mod create;
mod telling;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::access::Caller;
use crate::codegen::CodeSource;
use crate::cursor::Cursor;
use crate::metrics::Metrics;
use crate::ports::{IdempotencyStore, LinkCatalog, LinkWriter, StoreError, StoreErrorKind};
use crate::{Alias, Clock, Entropy, Link, LinkState, ShortCode, Tags, TargetUrl, Timestamp, Title, Version};

pub use self::telling::TellingWriter;

/// What a link shall be; each part is checked already.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Where it leads.
    pub target: TargetUrl,
    /// The code that the user wants; `None` = any.
    pub alias: Option<Alias>,
    /// Its title.
    pub title: Option<Title>,
    /// Its tags.
    pub tags: Tags,
    /// From when on it answers 410.
    pub expires_at: Option<Timestamp>,
    /// Until when it answers 404.
    pub valid_from: Option<Timestamp>,
}

/// An idempotency key and what it stands for.
#[derive(Clone, Debug)]
pub struct Idempotency {
    /// The key: 1 to 255 printable ASCII characters, checked by the caller.
    pub key: String,
    /// SHA-256 of the request's body.
    pub body_hash: [u8; 32],
}

/// What an edit shall change: the outer `None` keeps, `Some(None)` clears.
#[derive(Clone, Debug, Default)]
pub struct Patch {
    /// A new target.
    pub target: Option<TargetUrl>,
    /// A new title.
    pub title: Option<Option<Title>>,
    /// New tags (clearing = none).
    pub tags: Option<Tags>,
    /// A new state, never [`LinkState::Deleted`].
    pub state: Option<LinkState>,
    /// A new expiry.
    pub expires_at: Option<Option<Timestamp>>,
    /// A new begin.
    pub valid_from: Option<Option<Timestamp>>,
}

/// One thing wrong with one field of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The field's name in the API.
    pub field: &'static str,
    /// A stable word for programs.
    pub code: &'static str,
    /// What is wrong, for people.
    pub detail: String,
}

/// Why nothing was created, changed or read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ServiceError {
    /// The request contradicts itself or the calendar.
    #[error("the request is invalid")]
    Invalid(Vec<Fault>),
    /// The alias belongs to a link, perhaps a deleted one.
    #[error("the alias is taken")]
    AliasTaken,
    /// The idempotency key was used with another body.
    #[error("the idempotency key was used for another request")]
    KeyReused,
    /// There is no such link, or it belongs to somebody else.
    #[error("no such link")]
    NotFound,
    /// The link has another version than the caller expects.
    #[error("the link has version {}", .current.0)]
    VersionConflict {
        /// The version it has.
        current: Version,
    },
    /// The caller's role doesn't allow it.
    #[error("the key's role does not allow this")]
    Forbidden,
    /// The store could not be reached, or others were faster too often.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How long an idempotency key is honoured: 24 h, in milliseconds.
pub const IDEMPOTENCY_MS: i64 = 24 * 3_600 * 1_000;

/// Creates, edits and deletes links.
pub struct Shortener {
    /// Where codes come from.
    pub codes: Arc<dyn CodeSource>,
    /// Where links are written.
    pub writer: Arc<dyn LinkWriter>,
    /// Where whole links are read.
    pub catalog: Arc<dyn LinkCatalog>,
    /// Where idempotency keys are kept.
    pub idempotency: Arc<dyn IdempotencyStore>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness, for attempt ids.
    pub entropy: Arc<dyn Entropy>,
    /// Where created links are counted.
    pub metrics: Arc<Metrics>,
}

impl Shortener {
    /// The link of `code`, if the caller may see it and it isn't deleted.
    ///
    /// # Errors
    /// [`ServiceError`]: `NotFound`, `Store`.
    pub async fn read(&self, caller: &Caller, code: &ShortCode) -> Result<Link, ServiceError> {
        let link = self.catalog.get(code).await?.ok_or(ServiceError::NotFound)?;
        visible(link, caller)
    }

    /// Up to `limit` of the caller's own links, newest first, those after `after` if given.
    ///
    /// # Errors
    /// [`ServiceError`]: `Store`.
    pub async fn list(&self, caller: &Caller, after: Option<&Cursor>, limit: usize) -> Result<Vec<Link>, ServiceError> {
        Ok(self.catalog.list(&caller.owner, after, limit).await?)
    }
}

/// `link` if `caller` may know of it: a foreign or deleted link is as good as none.
fn visible(link: Link, caller: &Caller) -> Result<Link, ServiceError> {
    if link.state == LinkState::Deleted || !caller.may_reach(&link.owner) {
        return Err(ServiceError::NotFound);
    }
    Ok(link)
}

fn overloaded(message: &str) -> ServiceError {
    ServiceError::Store(StoreError::new(StoreErrorKind::Overloaded, message))
}

/// Whether `error` leaves open if the write was made.
fn is_unknown(error: &StoreError) -> bool {
    error.kind == StoreErrorKind::UnknownOutcome
}

fn expired_fault(expires_at: Option<Timestamp>, now: Timestamp) -> Option<Fault> {
    expires_at.is_some_and(|at| at <= now).then(|| Fault {
        field: "expires_at",
        code: "in_the_past",
        detail: "must be later than now".to_owned(),
    })
}

fn order_fault(valid_from: Option<Timestamp>, expires_at: Option<Timestamp>) -> Option<Fault> {
    valid_from.zip(expires_at).is_some_and(|(from, until)| from >= until).then(|| Fault {
        field: "valid_from",
        code: "not_before_expiry",
        detail: "must be earlier than expires_at".to_owned(),
    })
}

fn refuse(faults: impl IntoIterator<Item = Fault>) -> Result<(), ServiceError> {
    let faults: Vec<Fault> = faults.into_iter().collect();
    if faults.is_empty() { Ok(()) } else { Err(ServiceError::Invalid(faults)) }
}
