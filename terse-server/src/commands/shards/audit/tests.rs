// A list of one block is meant as such.
#![allow(clippy::single_range_in_vec_init)]

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use terse_core::cursor::Cursor;
use terse_core::ports::{LinkWriter as _, StoreErrorKind};
use terse_core::{Link, Owner, Timestamp};
use terse_store::MemoryStore;
use terse_testkit::links::{attempt, link};

use super::*;

const KEY: [u8; 16] = *b"terse test key 1";
const ALL: Scope = Scope { from: 0, blocks: 100, ids: 1_000_000 };

fn at(minute: i64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + minute * 60_000)
}

/// Creates the links of `ids`.
async fn create(store: &MemoryStore, ids: impl IntoIterator<Item = u64>, created_at: Timestamp) {
    for id in ids {
        let code = CodeSpace::new(KEY).code(id).unwrap();
        let link = Link { created_at, ..link(code.as_str()) };
        store.insert_if_absent(&link, attempt(id.into())).await.unwrap();
    }
}

async fn audited(store: &MemoryStore, scope: Scope) -> Audit {
    audit(store, store, &CodeSpace::new(KEY), scope).await.unwrap()
}

fn states(audit: &Audit) -> Vec<&'static str> {
    audit.blocks.iter().map(|block| block.state().as_str()).collect()
}

/// Records as a fault might leave them, which no store would write.
struct Records(Vec<Lease>);

impl Records {
    fn of(blocks: &[Range<u64>]) -> Self {
        let lease = |ids: &Range<u64>| Lease { ids: ids.clone(), holder: "web1".to_owned(), leased_at: at(0) };
        Self(blocks.iter().map(lease).collect())
    }
}

#[async_trait]
impl LeaseStore for Records {
    async fn lease(&self, _: &str, _: u64, _: &str, _: Timestamp) -> Result<Range<u64>, StoreError> {
        Err(StoreError::new(StoreErrorKind::Unavailable, "nothing is leased here"))
    }

    async fn leases(&self, _: &str, from: u64, limit: usize) -> Result<Vec<Lease>, StoreError> {
        Ok(self.0.iter().filter(|lease| lease.ids.start >= from).take(limit).cloned().collect())
    }
}

/// A catalog that counts its readers, and fails for one code.
#[derive(Default)]
struct Catalog {
    failing: Option<ShortCode>,
    reading: AtomicUsize,
    most: AtomicUsize,
}

#[async_trait]
impl LinkCatalog for Catalog {
    async fn get(&self, code: &ShortCode) -> Result<Option<Link>, StoreError> {
        let reading = self.reading.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(reading, Ordering::SeqCst);
        tokio::task::yield_now().await;
        self.reading.fetch_sub(1, Ordering::SeqCst);
        if self.failing.as_ref() == Some(code) {
            return Err(StoreError::new(StoreErrorKind::Unavailable, "the shard is away"));
        }
        Ok(None)
    }

    async fn list(&self, _: &Owner, _: Option<&Cursor>, _: usize) -> Result<Vec<Link>, StoreError> {
        Ok(vec![])
    }
}

#[tokio::test]
async fn used_ids_gaps_and_blocks_in_use_are_told_apart() {
    let store = MemoryStore::new();
    for (holder, minute) in [("one", 0), ("one", 1), ("two", 2), ("one", 3), ("one", 4)] {
        store.lease(IDS, 10, holder, at(minute)).await.unwrap();
    }
    create(&store, (0..10).chain(10..13).chain(20..29).chain(30..31), at(5)).await;
    let audit = audited(&store, ALL).await;
    // The holder 'one' has two newer blocks than its second one, which it has lost.
    assert_eq!(states(&audit), ["full", "gap", "open?", "open?", "open?"]);
    let unused: Vec<_> = audit.blocks.iter().map(|block| block.unused().unwrap()).collect();
    assert_eq!(unused, [0, 7, 1, 9, 10]);
    let expected =
        Summary { ids: 50, links: 23, gap_ids: 7, gap_blocks: 1, open_ids: 20, open_blocks: 3, ..Summary::default() };
    assert_eq!(audit.summary(), expected);
    assert!(audit.unrecorded.is_empty() && audit.overlaps.is_empty() && audit.next.is_none());
}

#[tokio::test]
async fn a_deleted_link_has_used_its_id() {
    let store = MemoryStore::new();
    store.lease(IDS, 1, "one", at(0)).await.unwrap();
    let code = CodeSpace::new(KEY).code(0).unwrap();
    let deleted = Link { state: terse_core::LinkState::Deleted, created_at: at(1), ..link(code.as_str()) };
    store.insert_if_absent(&deleted, attempt(1)).await.unwrap();
    assert_eq!(states(&audited(&store, ALL).await), ["full"]);
}

#[tokio::test]
async fn links_older_than_their_lease_are_counted() {
    let store = MemoryStore::new();
    create(&store, [1, 2], at(0)).await;
    store.lease(IDS, 5, "one", at(10)).await.unwrap();
    // Within the clocks' tolerance.
    create(&store, [3], at(10).plus_millis(-CLOCK_TOLERANCE_MS)).await;
    let found = audited(&store, ALL).await.blocks[0].found.unwrap();
    assert_eq!(found, Found { links: 3, older: 2, reserved: 0 });
}

#[tokio::test]
async fn ids_of_reserved_words_are_no_gap() {
    // In a space of three letters some codes are reserved: `api` and `app` in every case.
    let space = CodeSpace::with_first_length(KEY, 3);
    let id = (0..).find(|id| is_reserved(space.code(*id).unwrap().as_str())).unwrap();
    let records = Records(vec![Lease { ids: id..id + 1, holder: "one".to_owned(), leased_at: at(0) }]);
    let audit = audit(&records, &Catalog::default(), &space, ALL).await.unwrap();
    assert_eq!(audit.blocks[0].found.unwrap(), Found { reserved: 1, ..Found::default() });
    assert_eq!(audit.blocks[0].state(), State::Full);
}

#[tokio::test]
async fn ids_without_a_record_are_told() {
    let of = async |blocks: &[Range<u64>], from| {
        let scope = Scope { from, ..ALL };
        audit(&Records::of(blocks), &Catalog::default(), &CodeSpace::new(KEY), scope).await.unwrap().unrecorded
    };
    assert_eq!(of(&[0..10, 10..20], 0).await, []);
    assert_eq!(of(&[5..10, 10..20, 27..30], 0).await, [0..5, 20..27]);
    // A block that begins before and is not seen may cover what lies before the first one.
    assert_eq!(of(&[5..10, 10..20, 27..30], 7).await, [20..27]);
    assert_eq!(of(&[], 0).await, []);
}

#[tokio::test]
async fn ids_leased_twice_are_told_with_both_blocks() {
    let of = async |blocks: &[Range<u64>]| {
        let found = audit(&Records::of(blocks), &Catalog::default(), &CodeSpace::new(KEY), ALL).await.unwrap();
        assert!(found.unrecorded.is_empty());
        found.overlaps
    };
    assert_eq!(of(&[0..10, 10..20]).await, []);
    assert_eq!(of(&[0..10, 9..20]).await, [Overlap { ids: 9..10, of: [0, 1] }]);
    // One block within another, and a third that meets the larger one.
    let nested = [Overlap { ids: 2..4, of: [0, 1] }, Overlap { ids: 5..10, of: [0, 2] }];
    assert_eq!(of(&[0..10, 2..4, 5..12, 12..13]).await, nested);
    assert_eq!(of(&[0..10, 0..10]).await, [Overlap { ids: 0..10, of: [0, 1] }]);
}

#[tokio::test]
async fn an_audit_ends_at_its_blocks_and_the_next_goes_on() {
    let store = MemoryStore::new();
    for minute in 0..7 {
        store.lease(IDS, 10, "one", at(minute)).await.unwrap();
    }
    let (mut scope, mut seen) = (Scope { blocks: 3, ..ALL }, vec![]);
    loop {
        let audit = audited(&store, scope).await;
        seen.push(audit.blocks.len());
        assert!(audit.unrecorded.is_empty());
        let Some(next) = audit.next else { break };
        scope.from = next;
    }
    assert_eq!(seen, [3, 3, 1]);
    assert_eq!(audited(&store, Scope { blocks: 7, ..ALL }).await.next, None, "exactly as many as there are");
}

#[tokio::test]
async fn more_records_than_a_page_are_all_read() {
    let blocks: Vec<Range<u64>> = (0..2 * PAGE as u64 + 3).map(|number| number * 2..number * 2 + 2).collect();
    for (limit, expected, next) in [(blocks.len(), blocks.len(), None), (PAGE, PAGE, Some(2 * PAGE as u64))] {
        let scope = Scope { blocks: limit, ids: 0, from: 0 };
        let audit = audit(&Records::of(&blocks), &Catalog::default(), &CodeSpace::new(KEY), scope).await.unwrap();
        assert_eq!((audit.blocks.len(), audit.next), (expected, next));
    }
}

#[tokio::test]
async fn blocks_beyond_the_bound_of_ids_are_not_read_and_say_so() {
    let records = Records::of(&[0..10, 10..1_000_000_010, 1_000_000_010..1_000_000_015]);
    let scope = Scope { ids: 15, ..ALL };
    let audit = audit(&records, &Catalog::default(), &CodeSpace::new(KEY), scope).await.unwrap();
    assert_eq!(states(&audit), ["gap", "not read", "open?"]);
    assert_eq!((audit.summary().unread_blocks, audit.summary().ids), (1, 1_000_000_015));
}

#[tokio::test]
async fn links_are_read_a_few_at_once() {
    let catalog = Catalog::default();
    audit(&Records::of(&[0..500, 500..1_000]), &catalog, &CodeSpace::new(KEY), ALL).await.unwrap();
    assert_eq!(catalog.most.load(Ordering::SeqCst), READS_AT_ONCE);
}

#[tokio::test]
async fn a_link_that_cannot_be_read_ends_the_audit_with_its_code() {
    let code = CodeSpace::new(KEY).code(7).unwrap();
    let catalog = Catalog { failing: Some(code.clone()), ..Catalog::default() };
    let ended = audit(&Records::of(&[0..10]), &catalog, &CodeSpace::new(KEY), ALL).await;
    assert!(matches!(ended, Err(AuditError::Link(failed, _)) if failed == code));
}
