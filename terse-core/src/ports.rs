//! The ports to storage. Each method's text is its contract; the conformance
//! suite in `terse-store` checks every backend against it.
//!
//! Reading and writing links are two traits, so that a cache, which is a
//! [`LinkReader`] around a `LinkReader`, can't be asked to create. Behaviour is
//! added by wrapping a port (cache, sharding, guards), never by a flag.

pub mod blocking;
pub mod clicks;
pub mod events;
mod health;

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;

pub use self::health::{DependencyHealth, Observation, StoreHealth};
use crate::cursor::Cursor;
use crate::{ApiKey, KeyId, Link, LinkState, Owner, Resolution, ShortCode, Tags, TargetUrl, Timestamp, Title, Version};

/// What went wrong in a store, as far as callers may branch on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StoreErrorKind {
    /// Out of reach or refused; a write did not happen.
    Unavailable,
    /// A queue or bulkhead in front of the store is full; nothing was attempted.
    Overloaded,
    /// A write may or may not have happened; read back before telling anyone.
    UnknownOutcome,
    /// What is stored can't be understood. Trying again will not help.
    Corrupt,
}

/// A store's failure: a kind to branch on, a text and source to log, a time to obey.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct StoreError {
    /// What to branch on.
    pub kind: StoreErrorKind,
    /// What happened, for the log; lower case, no full stop, no secrets.
    pub message: String,
    /// When trying again makes sense, in milliseconds.
    pub retry_after_ms: u64,
    /// Whether the store did answer this call, only not so that the answer may
    /// be relied on, as when one replica alone knows no such link. Such a
    /// failure says nothing against the store, and no guard counts it.
    pub answered: bool,
    /// The driver's error, for the log.
    #[source]
    pub source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl StoreError {
    /// A failure of `kind` without a source; to be tried again after a second.
    #[must_use]
    pub fn new(kind: StoreErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry_after_ms: 1_000, answered: false, source: None }
    }

    /// The same failure of a store that did answer; see [`StoreError::answered`].
    #[must_use]
    pub fn although_answered(mut self) -> Self {
        self.answered = true;
        self
    }

    /// The same failure with the error that caused it.
    #[must_use]
    pub fn caused_by(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }
}

/// Which layer answered a look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tier {
    /// The cache in this process, fresh.
    L1,
    /// The cache that nodes share.
    L2,
    /// The store, at its usual consistency.
    Store,
    /// An answer that may be outdated, because nothing better was in reach.
    Stale,
    /// No layer was asked or none answered.
    None,
}

impl Tier {
    /// All tiers, in the order of the metrics' label values.
    pub const ALL: [Self; 5] = [Self::L1, Self::L2, Self::Store, Self::Stale, Self::None];

    /// The label value in the metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::L1 => "l1",
            Self::L2 => "l2",
            Self::Store => "store",
            Self::Stale => "stale",
            Self::None => "none",
        }
    }
}

/// The answer to a look-up.
#[derive(Clone, Debug)]
pub struct Lookup {
    /// What is known of the link (deleted links are known); `None` = there is
    /// no such link.
    pub link: Option<Resolution>,
    /// Who answered.
    pub tier: Tier,
}

/// Looks links up for redirects.
#[async_trait]
pub trait LinkReader: Send + Sync + 'static {
    /// What this layer can say about `code` at once from memory: no I/O, no
    /// lock held across anything, no allocation. `None` = it would have to
    /// look. `code` may be any text.
    fn peek(&self, code: &str) -> Option<Lookup> {
        let _ = code;
        None
    }

    /// The same as of `now_ms`, which the caller has just read of the clock
    /// that this layer has (monotonic milliseconds): a look at the clock is a
    /// good part of what a look at memory takes.
    fn peek_at(&self, code: &str, now_ms: u64) -> Option<Lookup> {
        let _ = now_ms;
        self.peek(code)
    }

    /// Looks `code` up. A link that was acknowledged as created, edited or
    /// deleted before the call is seen so. `link: None` is only ever said
    /// when it is sure that there is none: a fault is an error, never "missing".
    ///
    /// # Errors
    /// [`StoreError`] when no layer could answer.
    async fn resolve(&self, code: &ShortCode) -> Result<Lookup, StoreError>;

    /// The same for who has an answer already that may have changed since. That one is better than a long wait: a
    /// layer that is asked for much refuses this sooner than [`resolve`](Self::resolve).
    ///
    /// # Errors
    /// [`StoreError`] when no layer could answer, or one had too much to do.
    async fn refresh(&self, code: &ShortCode) -> Result<Lookup, StoreError> {
        self.resolve(code).await
    }

    /// What can be said about `code` without asking a store: from memory and
    /// from the cache that nodes share. For who may not have the store asked.
    /// `None` = a store would have to be asked.
    async fn resolve_near(&self, code: &ShortCode) -> Option<Lookup> {
        self.peek(code.as_str())
    }
}

/// Names one attempt to create a link. Whoever finds a link with its own
/// attempt id has created it, however often it tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AttemptId(pub [u8; 16]);

/// What became of [`LinkWriter::insert_if_absent`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insert {
    /// The link exists now, durably, and did not before.
    Created,
    /// The code belonged to a link already, perhaps a deleted one; nothing changed.
    Taken {
        /// The attempt that created that link; one's own = an earlier try succeeded.
        attempt: AttemptId,
    },
}

/// All that an edit may change of a link, as it shall be afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkChange {
    /// Where it leads.
    pub target: TargetUrl,
    /// Its title.
    pub title: Option<Title>,
    /// Its tags.
    pub tags: Tags,
    /// Its state; [`LinkState::Deleted`] deletes it for ever.
    pub state: LinkState,
    /// From when on it answers 410.
    pub expires_at: Option<Timestamp>,
    /// Until when it answers 404.
    pub valid_from: Option<Timestamp>,
    /// When this edit was made.
    pub updated_at: Timestamp,
}

impl LinkChange {
    /// A change that leaves `link` as it is.
    #[must_use]
    pub fn of(link: &Link) -> Self {
        Self {
            target: link.target.clone(),
            title: link.title.clone(),
            tags: link.tags.clone(),
            state: link.state,
            expires_at: link.expires_at,
            valid_from: link.valid_from,
            updated_at: link.updated_at,
        }
    }
}

/// What became of [`LinkWriter::update`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// The link is now as returned, durably, its version one higher.
    Updated(Box<Link>),
    /// The link has another version (or is deleted); nothing changed.
    Conflict {
        /// The version it has.
        current: Version,
    },
    /// There is no such link.
    NotFound,
}

/// Writes links. These two methods are the whole write side.
#[async_trait]
pub trait LinkWriter: Send + Sync + 'static {
    /// Creates `link` unless its code was ever used. Of any number of
    /// concurrent calls for one code exactly one gets [`Insert::Created`], and
    /// its link is durable by then and never overwritten.
    ///
    /// # Errors
    /// [`StoreError`]; only with [`StoreErrorKind::UnknownOutcome`] the link may exist nevertheless.
    async fn insert_if_absent(&self, link: &Link, attempt: AttemptId) -> Result<Insert, StoreError>;

    /// Applies `change` if the link still has version `expected` and is not
    /// deleted. Of concurrent calls with one `expected`, at most one succeeds.
    ///
    /// # Errors
    /// [`StoreError`]; only with [`StoreErrorKind::UnknownOutcome`] the change may have been made nevertheless.
    async fn update(&self, code: &ShortCode, expected: Version, change: &LinkChange) -> Result<Update, StoreError>;
}

/// Reads whole links, for the API.
#[async_trait]
pub trait LinkCatalog: Send + Sync + 'static {
    /// The link of `code`, deleted ones included (callers hide them).
    ///
    /// # Errors
    /// [`StoreError`] when the store could not answer.
    async fn get(&self, code: &ShortCode) -> Result<Option<Link>, StoreError>;

    /// Up to `limit` links of `owner`, newest first by (`created_at`, `code`),
    /// both descending, deleted ones left out; with `after`, only links that
    /// come after it in this order.
    ///
    /// # Errors
    /// [`StoreError`] when the store could not answer for all links.
    async fn list(&self, owner: &Owner, after: Option<&Cursor>, limit: usize) -> Result<Vec<Link>, StoreError>;
}

/// What an idempotency key stands for. With the request's body it determines
/// the answer, so a retry is answered alike after a restart or a crash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyRecord {
    /// SHA-256 of the request's body.
    pub body_hash: [u8; 32],
    /// The code that was chosen for it.
    pub code: ShortCode,
    /// The attempt that creates the link.
    pub attempt: AttemptId,
    /// When the key was first used; also the link's time of creation.
    pub created_at: Timestamp,
}

/// Remembers idempotency keys, each within its owner.
#[async_trait]
pub trait IdempotencyStore: Send + Sync + 'static {
    /// The record of (`owner`, `key`), whatever its age.
    ///
    /// # Errors
    /// [`StoreError`] when the store could not answer.
    async fn find_key(&self, owner: &Owner, key: &str) -> Result<Option<IdempotencyRecord>, StoreError>;

    /// Stores `record` unless there is one not older than `expired_before`,
    /// which is then returned. `None` = `record` stands, durably. Of concurrent
    /// calls exactly one wins.
    ///
    /// # Errors
    /// [`StoreError`]; with [`StoreErrorKind::UnknownOutcome`] the record may stand.
    async fn claim_key(
        &self,
        owner: &Owner,
        key: &str,
        record: &IdempotencyRecord,
        expired_before: Timestamp,
    ) -> Result<Option<IdempotencyRecord>, StoreError>;

    /// Replaces the record whose attempt is `expected` by `record` (its code
    /// turned out to be taken by somebody else). Returns whether it did.
    ///
    /// # Errors
    /// [`StoreError`]; with [`StoreErrorKind::UnknownOutcome`] it may have been replaced.
    async fn replace_key(
        &self,
        owner: &Owner,
        key: &str,
        expected: AttemptId,
        record: &IdempotencyRecord,
    ) -> Result<bool, StoreError>;

    /// Removes up to `limit` records older than `before`; returns how many. A
    /// store in which records expire by themselves has nothing to remove and returns 0.
    ///
    /// # Errors
    /// [`StoreError`] when the store could not answer.
    async fn purge_keys(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError>;
}

/// Small values that a deployment agrees on once: its id, the key of its permutation, a shard's slots.
#[async_trait]
pub trait SettingsStore: Send + Sync + 'static {
    /// The value of `name`.
    ///
    /// # Errors
    /// [`StoreError`] when the store could not answer.
    async fn setting(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// Stores `value` under `name` unless it has one, and returns the value that
    /// stands, durably. Concurrent callers all get the same.
    ///
    /// # Errors
    /// [`StoreError`]; the value may stand nevertheless, which is harmless.
    async fn settle(&self, name: &str, value: &[u8]) -> Result<Vec<u8>, StoreError>;

    /// Removes the value of `name`, if it has one. Only for values that nobody
    /// may use any more: whoever settles `name` afterwards begins anew, and
    /// while a store has no quorum it may still tell the removed one.
    ///
    /// # Errors
    /// [`StoreError`]; with [`StoreErrorKind::UnknownOutcome`] it may be removed. Removing it again does no harm.
    async fn forget(&self, name: &str) -> Result<(), StoreError>;

    /// Up to `limit` of the names that begin with `prefix` and have a value, in no particular order; fewer than `limit`
    /// are all. A value that was acknowledged as settled before the call and not forgotten is among them, one that was
    /// acknowledged as forgotten is not. It may read every name that there is, so it is for tasks, not for requests.
    ///
    /// # Errors
    /// [`StoreError`] when not all of them could be read.
    async fn names(&self, prefix: &str, limit: usize) -> Result<Vec<String>, StoreError>;
}

/// Most bytes of the text that tells who holds a lease; a longer one is cut by [`Lease::holder_text`].
pub const LEASE_HOLDER_MAX_BYTES: usize = 256;

/// The record of ids that were handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The ids, at least one.
    pub ids: Range<u64>,
    /// Who leased them, for people to read; at most [`LEASE_HOLDER_MAX_BYTES`].
    pub holder: String,
    /// When, by the holder's clock.
    pub leased_at: Timestamp,
}

impl Lease {
    /// What a store keeps of `holder`: as many whole characters as fit [`LEASE_HOLDER_MAX_BYTES`].
    #[must_use]
    pub fn holder_text(holder: &str) -> &str {
        &holder[..holder.floor_char_boundary(LEASE_HOLDER_MAX_BYTES)]
    }
}

/// Hands out ranges of ids, each at most once, and keeps a record of each for ever.
#[async_trait]
pub trait LeaseStore: Send + Sync + 'static {
    /// The next `size` ids of `counter`, never handed out before nor again, also
    /// after a crash. Ids start at 0. A lost answer costs a gap, never a repeat.
    /// That `holder` leased them `at` this time is recorded in the same step,
    /// unless `size` is 0: then there is nothing to record.
    ///
    /// # Errors
    /// [`StoreError`] when no range could be leased; with
    /// [`StoreErrorKind::UnknownOutcome`] one may be recorded that nobody got.
    async fn lease(&self, counter: &str, size: u64, holder: &str, at: Timestamp) -> Result<Range<u64>, StoreError>;

    /// Up to `limit` records of `counter` whose first id is `from` or a later
    /// one, in the order of their first ids. A lease that was answered before the call is among them.
    ///
    /// # Errors
    /// [`StoreError`] when the store could not answer.
    async fn leases(&self, counter: &str, from: u64, limit: usize) -> Result<Vec<Lease>, StoreError>;
}

/// A note in the store that a link changed, or was about to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeMark {
    /// Distinct for each mark.
    pub id: [u8; 16],
    /// The code of the link.
    pub code: ShortCode,
    /// The least version that may be served by now: before a write the one it
    /// would make, after it the one that was read back.
    pub version: Version,
    /// When it was written: the store's time, told by the clock of whoever reads it.
    pub at: Timestamp,
}

/// Where what was told of marks ended, in the order of the feed that told of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkPlace {
    /// A part of time, as the feed counts them.
    pub bucket: i64,
    /// The mark's id, by which the marks of one part are ordered.
    pub id: [u8; 16],
}

/// What [`ChangeFeed::marks`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangeMarks {
    /// The marks, in the order of the feed.
    pub marks: Vec<ChangeMark>,
    /// After which place there are more than were asked for; `None` = these are all.
    pub next: Option<MarkPlace>,
}

/// Tells what other nodes changed. Every edit writes a mark before and after
/// itself, at a quorum; marks last an hour.
#[async_trait]
pub trait ChangeFeed: Send + Sync + 'static {
    /// Up to `limit` marks (at least 1) whose time lies within `from..=until`, and perhaps
    /// some up to ten seconds outside; of these those that come after the place `after`, if one is given.
    ///
    /// # Errors
    /// [`StoreError`] when not all of them could be read.
    async fn marks(
        &self,
        from: Timestamp,
        until: Timestamp,
        after: Option<MarkPlace>,
        limit: usize,
    ) -> Result<ChangeMarks, StoreError>;
}

/// Keeps API keys.
#[async_trait]
pub trait KeyStore: Send + Sync + 'static {
    /// Adds `key`; its id is new.
    ///
    /// # Errors
    /// [`StoreError`] when it could not be stored; [`answered`](StoreError::answered) when its id is used already.
    async fn add_key(&self, key: &ApiKey) -> Result<(), StoreError>;

    /// All keys, oldest first, revoked ones included.
    ///
    /// # Errors
    /// [`StoreError`] when the store could not answer.
    async fn keys(&self) -> Result<Vec<ApiKey>, StoreError>;

    /// Revokes the key `id` from `at` on, for ever. `false` = there is no such
    /// key; revoking again keeps the first time and returns `true`.
    ///
    /// # Errors
    /// [`StoreError`] when it could not be stored.
    async fn revoke_key(&self, id: &KeyId, at: Timestamp) -> Result<bool, StoreError>;

    /// A number that changes whenever a key is added or revoked, by any process.
    ///
    /// # Errors
    /// [`StoreError`] when the store could not answer.
    async fn keys_revision(&self) -> Result<u64, StoreError>;
}

/// All that a shard keeps: links, their idempotency keys, and what the shard knows of itself.
pub trait ShardStore: LinkReader + LinkWriter + LinkCatalog + IdempotencyStore + SettingsStore + StoreHealth {}

impl<T: LinkReader + LinkWriter + LinkCatalog + IdempotencyStore + SettingsStore + StoreHealth> ShardStore for T {}

/// What the first shard keeps besides, for the whole deployment.
pub trait HomeStore: SettingsStore + LeaseStore + KeyStore {}

impl<T: SettingsStore + LeaseStore + KeyStore> HomeStore for T {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_is_cut_between_characters() {
        assert_eq!(Lease::holder_text("web1 127.0.0.1:8080"), "web1 127.0.0.1:8080");
        let long = format!("{}\u{e4}{}", "x".repeat(LEASE_HOLDER_MAX_BYTES - 1), "y".repeat(100));
        assert_eq!(Lease::holder_text(&long), "x".repeat(LEASE_HOLDER_MAX_BYTES - 1));
    }
}
