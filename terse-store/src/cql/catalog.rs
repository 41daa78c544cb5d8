//! Whole links, for the API: point reads, and the list of an owner.
//!
//! A list walks the owner's months from the newest on, and in each month the
//! entries of `links_by_owner`. An entry is written before its link, so it may
//! dangle: its link was never made, or the code became another's. The link's
//! row alone says what is true; the entries only say where to look. Entries of
//! deleted links are removed at once, for a deleted code never comes back; a
//! dangling one when it is older than any create can take.
//!
//! Bounds: months are read [`MONTHS_AT_ONCE`], entries [`ENTRIES_AT_ONCE`],
//! their links [`list_reads`](super::CqlLimits::list_reads) at once, and
//! [`list_reads_in_all`](super::CqlLimits::list_reads_in_all) for all lists. A list
//! that passed [`MAX_PASSED`] entries without a link to show fails: more than
//! the creates that fail in an hour leave behind, whose entries can't be removed yet.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt, stream};
use scylla::statement::prepared::PreparedStatement;
use scylla::value::CqlTimestamp;
use terse_core::cursor::Cursor;
use terse_core::ports::{LinkCatalog, StoreError, StoreErrorKind};
use terse_core::{Link, LinkState, Owner, ShortCode, Timestamp};
use tokio::sync::SemaphorePermit;

use super::session::{Preparer, Use};
use super::{CqlStore, Live, fault, levels, rows};

/// Months read at once.
const MONTHS_AT_ONCE: usize = 120;
/// Entries of a month read at once.
const ENTRIES_AT_ONCE: usize = 100;
/// Entries without a link to show that one list may pass; then it fails.
const MAX_PASSED: usize = 20_000;
/// How old a dangling entry must be to be removed, in milliseconds: no create
/// takes that long from its entry to its link, and clocks are not that far apart.
const DANGLING_MS: i64 = 3_600_000;

const GET: &str = "SELECT {columns} FROM {keyspace}.links WHERE code = ?";
const MONTHS: &str = "SELECT month FROM {keyspace}.owner_months WHERE owner = ? AND month <= ? LIMIT ?";
// The age of an entry is that of its last write, not of `created_at`: a retry with an
// idempotency key writes an entry anew whose link is to be created hours in the past.
const ENTRIES: &str = "SELECT created_at, code, WRITETIME(written) FROM {keyspace}.links_by_owner \
     WHERE owner = ? AND month = ? AND (created_at, code) < (?, ?) LIMIT ?";
// At the time of the write that was read, so that an entry written again since then stays.
const REMOVE: &str = "DELETE FROM {keyspace}.links_by_owner USING TIMESTAMP ? \
     WHERE owner = ? AND month = ? AND created_at = ? AND code = ?";

pub(super) struct Statements {
    get: PreparedStatement,
    months: PreparedStatement,
    entries: PreparedStatement,
    remove: PreparedStatement,
}

impl Statements {
    pub(super) async fn prepare(preparer: &Preparer<'_>) -> Result<Self, StoreError> {
        let get = GET.replace("{columns}", rows::LINK_COLUMNS);
        Ok(Self {
            get: preparer.statement(Use::ListRead, &get).await?,
            months: preparer.statement(Use::ListRead, MONTHS).await?,
            entries: preparer.statement(Use::ListRead, ENTRIES).await?,
            remove: preparer.statement(Use::Write, REMOVE).await?,
        })
    }
}

#[async_trait]
impl LinkCatalog for CqlStore {
    async fn get(&self, code: &ShortCode) -> Result<Option<Link>, StoreError> {
        let live = self.live()?;
        self.link_of(live, code).await
    }

    async fn list(&self, owner: &Owner, after: Option<&Cursor>, limit: usize) -> Result<Vec<Link>, StoreError> {
        let mut walk = Walk {
            store: self,
            live: self.live()?,
            owner,
            page: Page { limit, links: Vec::new(), passed: 0 },
            // No link is created this late, so an empty code comes before all.
            before: after.map_or((CqlTimestamp(i64::MAX), String::new()), |after| {
                (rows::cql_time(after.created_at), after.code.as_str().to_owned())
            }),
        };
        walk.back_from(after.map_or(i32::MAX, |after| rows::month_of(after.created_at))).await?;
        Ok(walk.page.links)
    }
}

impl CqlStore {
    /// A place among the reads of all lists.
    ///
    /// # Errors
    /// [`StoreErrorKind::Overloaded`] when none came free in the time of a list's read.
    async fn place_for_list(&self) -> Result<SemaphorePermit<'_>, StoreError> {
        let bound = Duration::from_millis(self.config.limits.list_timeout_ms);
        let place = tokio::time::timeout(bound, self.listing.acquire()).await;
        place.ok().and_then(Result::ok).ok_or_else(|| {
            StoreError::new(StoreErrorKind::Overloaded, "too many links are being read for lists at once")
        })
    }
}

/// A row of `links_by_owner`: a link was about to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    created_at: CqlTimestamp,
    code: String,
    /// When this was last written, in microseconds by the cluster's clocks.
    written_us: i64,
}

/// What an entry leads to.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Shown,
    /// Its link is deleted, for ever.
    Deleted,
    /// There is no such link, or not the one that the entry was written for.
    Dangling,
}

impl Entry {
    fn verdict(&self, owner: &Owner, link: Option<&Link>) -> Verdict {
        match link {
            Some(link) if link.owner != *owner || rows::cql_time(link.created_at) != self.created_at => {
                Verdict::Dangling
            }
            Some(link) if link.state == LinkState::Deleted => Verdict::Deleted,
            Some(_) => Verdict::Shown,
            None => Verdict::Dangling,
        }
    }

    /// Whether its link would be there by `now`, had it ever been made.
    fn is_past_hope(&self, now: Timestamp) -> bool {
        self.written_us / 1_000 < now.as_millis().saturating_sub(DANGLING_MS)
    }
}

/// What a list has found so far.
struct Page {
    limit: usize,
    links: Vec<Link>,
    passed: usize,
}

impl Page {
    /// How many entries to read next; 0 = the page is full. Ever more, the more led
    /// nowhere: else the last place of a page would take its entries one by one.
    fn wanted(&self) -> usize {
        match self.limit.saturating_sub(self.links.len()) {
            0 => 0,
            missing => (missing + self.passed).min(ENTRIES_AT_ONCE),
        }
    }

    /// Takes a link, unless the page is full.
    fn show(&mut self, link: Link) {
        if self.links.len() < self.limit {
            self.links.push(link);
        }
    }

    /// Passes an entry without a link to show.
    fn pass(&mut self) {
        self.passed += 1;
    }

    /// # Errors
    /// When too many entries were passed.
    fn check(&self) -> Result<(), StoreError> {
        if self.passed > MAX_PASSED && self.wanted() > 0 {
            return Err(fault::unavailable(format!("a list passed over {MAX_PASSED} entries without a link")));
        }
        Ok(())
    }
}

/// A list under way.
struct Walk<'a> {
    store: &'a CqlStore,
    live: &'a Live,
    owner: &'a Owner,
    page: Page,
    /// All entries that come after this place are still to be read, and no others.
    before: (CqlTimestamp, String),
}

impl Walk<'_> {
    /// Walks from `newest` back to the first month.
    async fn back_from(&mut self, newest: i32) -> Result<(), StoreError> {
        let mut newest = newest;
        while self.page.wanted() > 0 {
            let months = self.months(newest).await?;
            for month in &months {
                self.month(*month).await?;
            }
            match months.last() {
                Some(oldest) if months.len() == MONTHS_AT_ONCE && *oldest > i32::MIN => newest = oldest - 1,
                _ => return Ok(()),
            }
        }
        Ok(())
    }

    async fn months(&self, newest: i32) -> Result<Vec<i32>, StoreError> {
        let values = (self.owner.as_str(), newest, MONTHS_AT_ONCE as i32);
        let statement = &self.live.catalog.months;
        let found = self.store.quorum_rows(self.live, "reading an owner's months", statement, values).await?;
        rows::all(&found, |(month,): (i32,)| Ok(month))
    }

    /// Walks through `month`, until it ends or the list is full.
    async fn month(&mut self, month: i32) -> Result<(), StoreError> {
        loop {
            let wanted = self.page.wanted();
            if wanted == 0 {
                return Ok(());
            }
            let entries = self.entries(month, wanted).await?;
            let Some(last) = entries.last() else { return Ok(()) };
            self.before = (last.created_at, last.code.clone());
            let ended = entries.len() < wanted;
            self.take(month, entries).await?;
            if ended {
                return Ok(());
            }
        }
    }

    async fn entries(&self, month: i32, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let (created_at, code) = &self.before;
        let values = (self.owner.as_str(), month, created_at, code, limit as i32);
        let statement = &self.live.catalog.entries;
        let found = self.store.quorum_rows(self.live, "reading an owner's list", statement, values).await?;
        rows::all(&found, |(created_at, code, written_us): (CqlTimestamp, String, Option<i64>)| {
            Ok(Entry { created_at, code, written_us: rows::must(written_us, "written")? })
        })
    }

    /// Takes the links that `entries` lead to, and removes the entries that lead nowhere.
    async fn take(&mut self, month: i32, entries: Vec<Entry>) -> Result<(), StoreError> {
        let links = self.links_of(&entries).await?;
        let now = self.store.clock.now();
        let mut spent = Vec::new();
        for (entry, link) in entries.into_iter().zip(links) {
            match (entry.verdict(self.owner, link.as_ref()), link) {
                (Verdict::Shown, Some(link)) => {
                    self.page.show(link);
                    continue;
                }
                (Verdict::Deleted, _) => spent.push(entry),
                (Verdict::Dangling | Verdict::Shown, _) if entry.is_past_hope(now) => spent.push(entry),
                (Verdict::Dangling | Verdict::Shown, _) => {}
            }
            self.page.pass();
        }
        self.remove(month, &spent).await;
        self.page.check()
    }

    /// The links of `entries`, in their order. Not watched by the breaker: it has
    /// just let the read of the entries through, and its few probes are not for these many.
    async fn links_of(&self, entries: &[Entry]) -> Result<Vec<Option<Link>>, StoreError> {
        let reads: Vec<_> = entries.iter().map(|entry| self.link_of(entry)).collect();
        stream::iter(reads).buffered(self.at_once()).try_collect().await
    }

    async fn link_of(&self, entry: &Entry) -> Result<Option<Link>, StoreError> {
        let _place = self.store.place_for_list().await?;
        let found = levels::rows(self.live, "reading a list's link", &self.live.catalog.get, (&entry.code,)).await?;
        rows::link(&found)
    }

    /// Removes `spent` entries. A failure only leaves them to the next list.
    async fn remove(&self, month: i32, spent: &[Entry]) {
        let removals: Vec<_> = spent.iter().map(|entry| self.remove_one(month, entry)).collect();
        stream::iter(removals).buffer_unordered(self.at_once()).collect::<()>().await;
    }

    async fn remove_one(&self, month: i32, entry: &Entry) {
        let Ok(_place) = self.store.place_for_list().await else { return };
        let values = (entry.written_us, self.owner.as_str(), month, entry.created_at, &entry.code);
        if let Err(error) = self.live.session.execute_unpaged(&self.live.catalog.remove, values).await {
            tracing::debug!(shard = self.store.config.shard, code = entry.code, %error, "a list's entry stays for now");
        }
    }

    fn at_once(&self) -> usize {
        self.store.config.limits.list_reads.max(1)
    }
}

#[cfg(test)]
mod tests {
    use terse_core::{Tags, UrlPolicy, Version};

    use super::super::tests::{store, unconnected};
    use super::*;

    fn owner(text: &str) -> Owner {
        Owner::parse(text).unwrap()
    }

    fn link(state: LinkState) -> Link {
        Link {
            code: ShortCode::parse("abc").unwrap(),
            target: UrlPolicy::new("localhost", false).check("https://example.com/").unwrap(),
            title: None,
            tags: Tags::default(),
            state,
            owner: owner("alice"),
            created_at: Timestamp::from_millis(5),
            updated_at: Timestamp::from_millis(9),
            expires_at: None,
            valid_from: None,
            version: Version::FIRST,
        }
    }

    fn entry(created_ms: i64, written_us: i64) -> Entry {
        Entry { created_at: CqlTimestamp(created_ms), code: "abc".to_owned(), written_us }
    }

    #[test]
    fn only_the_link_that_an_entry_was_written_for_is_shown() {
        let of = |created_ms, name: &str, link: Option<&Link>| entry(created_ms, 0).verdict(&owner(name), link);
        assert_eq!(of(5, "alice", Some(&link(LinkState::Active))), Verdict::Shown);
        assert_eq!(of(5, "alice", Some(&link(LinkState::Blocked))), Verdict::Shown);
        assert_eq!(of(5, "alice", Some(&link(LinkState::Deleted))), Verdict::Deleted);
        assert_eq!(of(5, "alice", None), Verdict::Dangling);
        assert_eq!(of(5, "bob", Some(&link(LinkState::Active))), Verdict::Dangling);
        assert_eq!(of(6, "alice", Some(&link(LinkState::Active))), Verdict::Dangling);
        assert_eq!(of(6, "alice", Some(&link(LinkState::Deleted))), Verdict::Dangling);
    }

    #[tokio::test(start_paused = true)]
    async fn all_lists_together_read_so_many_links_at_once_and_no_more() {
        let mut config = unconnected();
        config.limits.list_reads_in_all = 2;
        let store = store(config);
        let first = store.place_for_list().await.unwrap();
        let _second = store.place_for_list().await.unwrap();
        let began = tokio::time::Instant::now();
        assert_eq!(store.place_for_list().await.unwrap_err().kind, StoreErrorKind::Overloaded);
        assert_eq!(began.elapsed(), Duration::from_millis(store.config.limits.list_timeout_ms));
        drop(first);
        drop(store.place_for_list().await.unwrap());
    }

    #[test]
    fn an_hour_of_failed_creates_does_not_block_a_list() {
        let mut page = Page { limit: 2, links: Vec::new(), passed: 0 };
        assert_eq!(page.wanted(), 2);
        for _ in 0..MAX_PASSED {
            page.pass();
            page.check().unwrap();
        }
        assert_eq!(page.wanted(), ENTRIES_AT_ONCE, "what leads nowhere is passed in large steps");
        page.pass();
        assert_eq!(page.check().unwrap_err().kind, StoreErrorKind::Unavailable);
        (0..3).for_each(|_| page.show(link(LinkState::Active)));
        assert_eq!((page.links.len(), page.wanted()), (2, 0));
        page.check().unwrap();
    }

    #[test]
    fn an_entry_has_an_hour_from_its_last_write() {
        let written_ms = 1_000_000_000_000;
        let entry = entry(5, written_ms * 1_000 + 999);
        assert!(!entry.is_past_hope(Timestamp::from_millis(written_ms)));
        assert!(!entry.is_past_hope(Timestamp::from_millis(written_ms + DANGLING_MS)));
        assert!(entry.is_past_hope(Timestamp::from_millis(written_ms + DANGLING_MS + 1)));
        assert!(!entry.is_past_hope(Timestamp::from_millis(0)), "a clock that steps back is no reason to remove");
    }
}
