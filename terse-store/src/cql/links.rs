//! Links: resolving, creating, editing.
//!
//! - **resolve** reads at LOCAL_QUORUM. If that fails, or the quorum breaker
//!   is open, one replica is asked: its "found" is told as stale, its "not
//!   found" is no answer.
//! - **insert** writes the owner's rows first, then the link, if absent.
//! - **update** reads the link, marks it, writes it if its version is still
//!   the expected one, and marks it again, whatever became of the write. It is
//!   refused while this server's clock is off the store's.
//!
//! Conditional writes on one code contend with each other on every replica, so
//! those of this process take turns ([`Stripes`](super::stripes::Stripes)).

mod edit;
mod insertion;

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use scylla::statement::prepared::PreparedStatement;
use terse_core::ports::{
    AttemptId, Insert, LinkChange, LinkReader, LinkWriter, Lookup, StoreError, StoreErrorKind, Tier, Update,
};
use terse_core::{Link, LinkState, Owner, Resolution, ShortCode, Timestamp, Version};

use tokio::time::Instant;

use super::owed::Owed;
use super::rows::{cql_time, month_of};
use super::session::{Preparer, Use};
use super::{CqlStore, Live, by, fault, levels, rows};
use edit::{Edit, Edited};
use insertion::{Inserted, Insertion};

pub(super) struct Statements {
    resolve: PreparedStatement,
    resolve_from_one: PreparedStatement,
    get: PreparedStatement,
    attempt: PreparedStatement,
    insert: PreparedStatement,
    update: PreparedStatement,
    read_back: PreparedStatement,
    list_entry: PreparedStatement,
    list_month: PreparedStatement,
    unlist: PreparedStatement,
}

impl Statements {
    pub(super) async fn prepare(preparer: &Preparer<'_>) -> Result<Self, StoreError> {
        let resolve = format!("SELECT {} FROM {{keyspace}}.links WHERE code = ?", rows::RESOLUTION_COLUMNS);
        let get = format!("SELECT {} FROM {{keyspace}}.links WHERE code = ?", rows::LINK_COLUMNS);
        let statement = |usage, text| preparer.statement(usage, text);
        Ok(Self {
            resolve: statement(Use::PointRead, &resolve).await?,
            resolve_from_one: statement(Use::SingleReplica, &resolve).await?,
            get: statement(Use::ListRead, &get).await?,
            attempt: statement(Use::ListRead, "SELECT attempt FROM {keyspace}.links WHERE code = ?").await?,
            insert: statement(Use::Conditional, INSERT).await?,
            update: statement(Use::Conditional, UPDATE).await?,
            read_back: statement(Use::SerialRead, READ_BACK).await?,
            list_entry: statement(Use::Write, LIST_ENTRY).await?,
            list_month: statement(Use::Write, LIST_MONTH).await?,
            unlist: statement(Use::Write, UNLIST).await?,
        })
    }
}

const INSERT: &str = "INSERT INTO {keyspace}.links (code, target, title, tags, state, owner, created_at, updated_at, \
    expires_at, valid_from, version, attempt) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) IF NOT EXISTS";
const UPDATE: &str = "UPDATE {keyspace}.links SET target = ?, title = ?, tags = ?, state = ?, updated_at = ?, \
    expires_at = ?, valid_from = ?, version = ?, edit = ? WHERE code = ? IF version = ? AND state != 'deleted'";
const READ_BACK: &str = "SELECT version, attempt, edit, owner, created_at FROM {keyspace}.links WHERE code = ?";
const LIST_ENTRY: &str =
    "INSERT INTO {keyspace}.links_by_owner (owner, month, created_at, code, written) VALUES (?, ?, ?, ?, ?)";
const LIST_MONTH: &str = "INSERT INTO {keyspace}.owner_months (owner, month) VALUES (?, ?)";
const UNLIST: &str =
    "DELETE FROM {keyspace}.links_by_owner WHERE owner = ? AND month = ? AND created_at = ? AND code = ?";

/// Which months of which owners were surely written, so that most creates need not write theirs again.
pub(super) struct KnownMonths {
    known: Mutex<HashSet<(Owner, i32)>>,
    at_most: usize,
}

impl KnownMonths {
    pub(super) fn new(at_most: usize) -> Self {
        Self { known: Mutex::default(), at_most }
    }

    fn contains(&self, month: &(Owner, i32)) -> bool {
        self.known.lock().contains(month)
    }

    fn add(&self, month: (Owner, i32)) {
        let mut known = self.known.lock();
        if known.len() >= self.at_most {
            known.clear();
        }
        known.insert(month);
    }
}

#[async_trait]
impl LinkReader for CqlStore {
    async fn resolve(&self, code: &ShortCode) -> Result<Lookup, StoreError> {
        let live = self.live()?;
        let failed = match self.point_rows(live, "resolving", &live.links.resolve, (code.as_str(),)).await {
            Ok(found) => {
                let link = rows::resolution(&found)?;
                return Ok(Lookup { link, tier: Tier::Store });
            }
            Err(error) if error.kind == StoreErrorKind::Corrupt => return Err(error),
            Err(error) => error,
        };
        let answer = resolve_from_one(live, code).await;
        if let Err(error) = &answer {
            tracing::debug!(shard = self.config.shard, %code, quorum = %failed, one = %error, "no replica answered");
        }
        stale(answer, failed)
    }
}

async fn resolve_from_one(live: &Live, code: &ShortCode) -> Result<Option<Resolution>, StoreError> {
    let statement = &live.links.resolve_from_one;
    let found = levels::rows(live, "resolving from one replica", statement, (code.as_str(),)).await?;
    rows::resolution(&found)
}

/// What is known when the quorum `failed` and one replica said `answer`: what
/// it has is an older or the newest version; what it has not may exist.
fn stale(answer: Result<Option<Resolution>, StoreError>, failed: StoreError) -> Result<Lookup, StoreError> {
    match answer {
        Ok(Some(link)) => Ok(Lookup { link: Some(link), tier: Tier::Stale }),
        // An answer, if a useless one: it says nothing against the shard, which serves what it has.
        Ok(None) => Err(failed.although_answered()),
        Err(error) if error.kind == StoreErrorKind::Corrupt => Err(error),
        Err(_) => Err(failed),
    }
}

#[async_trait]
impl LinkWriter for CqlStore {
    async fn insert_if_absent(&self, link: &Link, attempt: AttemptId) -> Result<Insert, StoreError> {
        let live = self.live()?;
        let deadline = self.write_deadline();
        let turn = match self.turns.try_turn(link.code.as_str()) {
            Some(turn) => turn,
            None => {
                // Whoever is at it probably takes the code: then a read is all it needs, and that
                // goes for those too who may not even wait.
                let waited = self.turns.turn(link.code.as_str(), deadline).await.map(drop);
                if let Some(attempt) = by(deadline, self.attempt_of(live, &link.code)).await? {
                    return Ok(Insert::Taken { attempt });
                }
                waited?;
                self.turns.turn(link.code.as_str(), deadline).await?
            }
        };
        by(deadline, self.list(live, link)).await?;
        // Such a try may complete an edit of a link that is there, which another process left half done.
        let debt = self.owe(live, &link.code, Owed::mark(Version::FIRST))?;
        let inserted = self.decide(deadline, &Insertion { live, link, attempt }).await;
        drop(turn);
        debt.settle(owed_by_insertion(link, &inserted)).await;
        Ok(match inserted? {
            Inserted::Created => Insert::Created,
            Inserted::Taken { by, .. } => Insert::Taken { attempt: by },
        })
    }

    async fn update(&self, code: &ShortCode, expected: Version, change: &LinkChange) -> Result<Update, StoreError> {
        let live = self.live()?;
        let deadline = self.write_deadline();
        by(deadline, self.in_step(live)).await?;
        let turn = self.turns.turn(code.as_str(), deadline).await?;
        let Some(before) = by(deadline, self.link_of(live, code)).await? else { return Ok(Update::NotFound) };
        if before.version != expected || before.state == LinkState::Deleted {
            drop(turn);
            return self.conflict(live, deadline, expected, &before).await;
        }
        by(deadline, self.mark_before(live, code, expected.next())).await?;
        let debt = self.owe(live, code, Owed::mark(expected.next()))?;
        let edited = self.decide(deadline, &Edit::new(live, code, expected, change, &*self.entropy)).await;
        drop(turn);
        debt.settle(owed_by_edit(&before, change, &edited)).await;
        told(&before, change, edited)
    }
}

impl CqlStore {
    /// The link of `code`, at a quorum; deleted ones included.
    pub(super) async fn link_of(&self, live: &Live, code: &ShortCode) -> Result<Option<Link>, StoreError> {
        let found = self.quorum_rows(live, "reading a link", &live.links.get, (code.as_str(),)).await?;
        rows::link(&found)
    }

    /// Whose attempt made the link of `code`, at a quorum.
    async fn attempt_of(&self, live: &Live, code: &ShortCode) -> Result<Option<AttemptId>, StoreError> {
        let found = self.quorum_rows(live, "reading an attempt", &live.links.attempt, (code.as_str(),)).await?;
        let row = rows::first::<(Option<&[u8]>,)>(&found)?;
        row.map(|(attempt,)| rows::attempt(attempt)).transpose()
    }

    /// Writes the owner's rows of `link`.
    async fn list(&self, live: &Live, link: &Link) -> Result<(), StoreError> {
        let month = (link.owner.clone(), month_of(link.created_at));
        let known = self.known_months.contains(&month);
        let values =
            (link.owner.as_str(), month.1, cql_time(link.created_at), link.code.as_str(), cql_time(self.clock.now()));
        let entry = live.session.execute_unpaged(&live.links.list_entry, values);
        let list_month = async {
            if known {
                return Ok(());
            }
            let answer = live.session.execute_unpaged(&live.links.list_month, (link.owner.as_str(), month.1)).await;
            answer.map(drop)
        };
        let (entry, list_month) = futures_util::join!(entry, list_month);
        // Without the link these rows mean nothing, so nothing has happened.
        let failed = |error| StoreError { kind: StoreErrorKind::Unavailable, ..fault::write("listing a link", error) };
        entry.map_err(failed)?;
        list_month.map_err(failed)?;
        if !known {
            self.known_months.add(month);
        }
        Ok(())
    }

    /// Answers an edit of a version that the link has not. A node that has
    /// served an older version is told by a mark.
    async fn conflict(
        &self,
        live: &Arc<Live>,
        deadline: Instant,
        expected: Version,
        before: &Link,
    ) -> Result<Update, StoreError> {
        let (code, mut current) = (&before.code, before.version);
        if current < expected {
            // The caller may know a version that no quorum has yet: a serial read settles it.
            let stands = by(deadline, edit::read_back(live, code)).await?;
            current = stands.map_or(current, |stands| stands.version);
            if current == expected && before.state != LinkState::Deleted {
                return Err(fault::unavailable("the newest version was not at a quorum until now"));
            }
        }
        let owed = Owed::mark_of_known(current);
        self.owe(live, code, owed.clone())?.settle(owed).await;
        Ok(Update::Conflict { current })
    }
}

impl Live {
    /// Removes the entry of a link from its owner's list.
    pub(super) async fn unlist(
        &self,
        owner: &Owner,
        created_at: Timestamp,
        code: &ShortCode,
    ) -> Result<(), StoreError> {
        let values = (owner.as_str(), month_of(created_at), cql_time(created_at), code.as_str());
        let answer = self.session.execute_unpaged(&self.links.unlist, values).await;
        answer.map(drop).map_err(|error| fault::write("removing an entry", error))
    }
}

/// What is owed after an insertion.
fn owed_by_insertion(link: &Link, inserted: &Result<Inserted, StoreError>) -> Owed {
    match inserted {
        Ok(Inserted::Created) => Owed::default(),
        Ok(Inserted::Taken { version, listed, .. }) => {
            let unlist = (!listed).then(|| (link.owner.clone(), link.created_at));
            Owed { unlist, ..Owed::mark_of_known(*version) }
        }
        // Whatever stands: it may be newer than what others have in memory.
        Err(error) if error.kind == StoreErrorKind::UnknownOutcome => Owed::mark(Version::FIRST),
        Err(_) => Owed::default(),
    }
}

/// What is owed after an edit: a mark, whatever became of it.
fn owed_by_edit(before: &Link, change: &LinkChange, edited: &Result<Edited, StoreError>) -> Owed {
    match edited {
        Ok(Edited::Applied) => {
            let deleted = change.state == LinkState::Deleted;
            let unlist = deleted.then(|| (before.owner.clone(), before.created_at));
            Owed { mark: Some(before.version.next()), unlist }
        }
        Ok(Edited::Conflict(current) | Edited::Overwritten(current)) => Owed::mark(*current),
        Ok(Edited::Gone) => Owed::default(),
        Err(_) => Owed::mark(before.version.next()),
    }
}

/// Tells what became of an edit.
fn told(before: &Link, change: &LinkChange, edited: Result<Edited, StoreError>) -> Result<Update, StoreError> {
    match edited? {
        Edited::Applied => Ok(Update::Updated(Box::new(changed(before, change, before.version.next())))),
        Edited::Conflict(current) => Ok(Update::Conflict { current }),
        Edited::Gone => Ok(Update::NotFound),
        Edited::Overwritten(_) => {
            Err(StoreError::new(StoreErrorKind::UnknownOutcome, "later edits hide whether this one was made"))
        }
    }
}

/// The link as `change` leaves it.
fn changed(before: &Link, change: &LinkChange, version: Version) -> Link {
    Link {
        code: before.code.clone(),
        target: change.target.clone(),
        title: change.title.clone(),
        tags: change.tags.clone(),
        state: change.state,
        owner: before.owner.clone(),
        created_at: before.created_at,
        updated_at: change.updated_at,
        expires_at: change.expires_at,
        valid_from: change.valid_from,
        version,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_months_are_bounded_and_forgotten_together() {
        let months = KnownMonths::new(3);
        let month = |number| (Owner::parse("somebody").unwrap(), number);
        (0..3).for_each(|number| months.add(month(number)));
        assert!((0..3).all(|number| months.contains(&month(number))));
        months.add(month(3));
        assert!(months.contains(&month(3)) && !months.contains(&month(0)));
    }

    #[test]
    fn a_mark_is_owed_after_every_edit_whatever_became_of_it() {
        let before = terse_testkit::links::link("abc");
        let (edit, next) = (LinkChange::of(&before), before.version.next());
        let owed = |change: &LinkChange, edited: Result<Edited, StoreError>| owed_by_edit(&before, change, &edited);
        assert_eq!(owed(&edit, Ok(Edited::Applied)), Owed::mark(next));
        let deletion = LinkChange { state: LinkState::Deleted, ..edit.clone() };
        let entry = Some((before.owner.clone(), before.created_at));
        assert_eq!(owed(&deletion, Ok(Edited::Applied)), Owed { mark: Some(next), unlist: entry });
        assert_eq!(owed(&deletion, Ok(Edited::Conflict(Version(5)))), Owed::mark(Version(5)));
        assert_eq!(owed(&edit, Ok(Edited::Overwritten(Version(6)))), Owed::mark(Version(6)));
        for kind in [StoreErrorKind::UnknownOutcome, StoreErrorKind::Unavailable] {
            assert_eq!(owed(&edit, Err(StoreError::new(kind, "lost"))), Owed::mark(next));
        }
    }

    #[test]
    fn a_claim_owes_a_mark_if_it_may_have_completed_an_edit() {
        let link = terse_testkit::links::link("abc");
        let owed = |inserted: Result<Inserted, StoreError>| owed_by_insertion(&link, &inserted);
        let taken = |listed| Ok(Inserted::Taken { by: AttemptId([1; 16]), version: Version(4), listed });
        assert_eq!(owed(Ok(Inserted::Created)), Owed::default());
        assert_eq!(owed(taken(true)), Owed::mark(Version(4)));
        let entry = Some((link.owner.clone(), link.created_at));
        assert_eq!(owed(taken(false)), Owed { mark: Some(Version(4)), unlist: entry });
        // Nobody's claim may cool a link that never was edited.
        let first = Ok(Inserted::Taken { by: AttemptId([1; 16]), version: Version::FIRST, listed: true });
        assert_eq!(owed(first), Owed::default());
        let failed = |kind| owed(Err(StoreError::new(kind, "lost")));
        assert_eq!(failed(StoreErrorKind::UnknownOutcome), Owed::mark(Version::FIRST));
        assert_eq!(failed(StoreErrorKind::Unavailable), Owed::default());
    }

    #[test]
    fn one_replica_is_believed_when_it_has_the_link_only() {
        let failed = || StoreError { retry_after_ms: 77, ..fault::unavailable("no quorum") };
        let link = Resolution {
            target: terse_core::TargetUrl::from_stored("https://example.com/").unwrap(),
            state: LinkState::Deleted,
            expires_at: None,
            valid_from: None,
            version: Version(4),
        };
        let found = stale(Ok(Some(link.clone())), failed()).unwrap();
        assert_eq!((found.link.as_ref(), found.tier), (Some(&link), Tier::Stale));
        for answer in [Ok(None), Err(fault::unavailable("one is away too"))] {
            let error = stale(answer, failed()).unwrap_err();
            assert_eq!((error.kind, error.retry_after_ms), (StoreErrorKind::Unavailable, 77));
        }
        let counts = |answer| !stale(answer, failed()).unwrap_err().answered;
        assert!(!counts(Ok(None)) && counts(Err(fault::unavailable("one is away too"))));
        let error = stale(Err(fault::corrupt("spoilt")), failed()).unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Corrupt);
    }
}
