//! What the suite can't see through the ports: how rows stand on a cluster, and which of them go.

use std::sync::Arc;

use scylla::client::session::Session;
use scylla::value::CqlTimestamp;
use terse_core::ports::{IdempotencyRecord, IdempotencyStore, Insert, LinkCatalog, LinkChange, LinkWriter};
use terse_core::{Link, LinkState, Owner, Timestamp, Version};
use terse_testkit::links::{attempt, code, link};

use crate::cql::{connect, session, since_epoch};
use crate::patient::Patient;

/// A day, and the hour for which a record outlives it.
const RECORD_SECONDS: i32 = 25 * 3_600;
const HOUR_US: i64 = 3_600_000_000;
const MINUTE_US: i64 = 60_000_000;

struct Rows {
    store: Arc<Patient>,
    session: Session,
    keyspace: String,
}

pub(crate) async fn run(keyspace: &str) {
    let rows = Rows { store: connect("main", keyspace).await, session: session().await, keyspace: keyspace.to_owned() };
    an_idempotency_record_expires_a_day_and_an_hour_after_its_last_write(&rows).await;
    an_entry_without_a_link_stays_for_an_hour(&rows).await;
    links_behind_many_young_entries_are_listed(&rows).await;
    an_entry_of_a_deleted_link_goes_at_once(&rows).await;
    an_entry_that_another_took_the_code_of_is_not_shown(&rows).await;
}

impl Rows {
    /// Runs `text` with `{k}` filled in.
    async fn query(&self, text: &str) -> scylla::response::query_result::QueryResult {
        self.session.query_unpaged(text.replace("{k}", &self.keyspace), ()).await.unwrap()
    }

    /// Seconds that each column of the record of `key` has left.
    async fn seconds_left(&self, key: &str) -> [i32; 4] {
        let columns = "TTL(body_hash), TTL(code), TTL(attempt), TTL(created_at)";
        let text = format!("SELECT {columns} FROM {{k}}.idempotency WHERE owner = 'ttl' AND key = '{key}'");
        let rows = self.query(&text).await.into_rows_result().unwrap();
        let (hash, code, attempt, created_at) = rows.single_row::<(i32, i32, i32, i32)>().unwrap();
        [hash, code, attempt, created_at]
    }

    /// Writes the entry and the month of a link that is not there, at `written_us`.
    async fn entry(&self, owner: &str, code: &str, created_ms: i64, written_us: i64) {
        // The first month of 1970.
        let entry = format!(
            "INSERT INTO {{k}}.links_by_owner (owner, month, created_at, code, written) \
             VALUES ('{owner}', 0, {created_ms}, '{code}', 0) USING TIMESTAMP {written_us}"
        );
        self.query(&entry).await;
        self.query(&format!("INSERT INTO {{k}}.owner_months (owner, month) VALUES ('{owner}', 0)")).await;
    }

    /// The codes of the entries of `owner`, newest first.
    async fn entries(&self, owner: &str) -> Vec<String> {
        let text = format!("SELECT created_at, code FROM {{k}}.links_by_owner WHERE owner = '{owner}' AND month = 0");
        let rows = self.query(&text).await.into_rows_result().unwrap();
        rows.rows::<(CqlTimestamp, String)>().unwrap().map(|row| row.unwrap().1).collect()
    }

    async fn listed(&self, owner: &str) -> Vec<String> {
        let links = self.store.list(&Owner::parse(owner).unwrap(), None, 10).await.unwrap();
        links.into_iter().map(|link| link.code.as_str().to_owned()).collect()
    }
}

fn now_us() -> i64 {
    since_epoch().as_micros() as i64
}

fn owned(owner: &str, text: &str, created_ms: i64) -> Link {
    Link { owner: Owner::parse(owner).unwrap(), created_at: Timestamp::from_millis(created_ms), ..link(text) }
}

async fn an_idempotency_record_expires_a_day_and_an_hour_after_its_last_write(rows: &Rows) {
    let owner = Owner::parse("ttl").unwrap();
    let record = |number: u8| IdempotencyRecord {
        body_hash: [number; 32],
        code: code(&format!("code{number}")),
        attempt: attempt(u128::from(number)),
        created_at: Timestamp::from_millis(i64::from(number)),
    };
    let store = &rows.store;
    assert_eq!(store.claim_key(&owner, "claimed", &record(1), Timestamp::from_millis(0)).await.unwrap(), None);
    store.claim_key(&owner, "again", &record(1), Timestamp::from_millis(0)).await.unwrap();
    assert_eq!(store.claim_key(&owner, "again", &record(2), Timestamp::from_millis(2)).await.unwrap(), None);
    store.claim_key(&owner, "replaced", &record(1), Timestamp::from_millis(0)).await.unwrap();
    assert!(store.replace_key(&owner, "replaced", attempt(1), &record(2)).await.unwrap());
    for key in ["claimed", "again", "replaced"] {
        let left = rows.seconds_left(key).await;
        assert!(left.iter().all(|left| (RECORD_SECONDS - 600..=RECORD_SECONDS).contains(left)), "{key}: {left:?}");
    }
}

async fn an_entry_without_a_link_stays_for_an_hour(rows: &Rows) {
    // `created_at` is hours ago for both: only the last write counts.
    rows.entry("dangles", "young", 2_000, now_us() - HOUR_US + 10 * MINUTE_US).await;
    rows.entry("dangles", "old", 1_000, now_us() - HOUR_US - MINUTE_US).await;
    assert_eq!(rows.listed("dangles").await, [""; 0]);
    assert_eq!(rows.entries("dangles").await, ["young"]);
    // The create that was under way comes through after all.
    let late = owned("dangles", "young", 2_000);
    assert_eq!(rows.store.insert_if_absent(&late, attempt(1)).await.unwrap(), Insert::Created);
    assert_eq!(rows.listed("dangles").await, ["young"]);
}

async fn links_behind_many_young_entries_are_listed(rows: &Rows) {
    rows.store.insert_if_absent(&owned("incident", "behind", 1), attempt(1)).await.unwrap();
    let entry = |number: i64| {
        format!(
            "INSERT INTO {{k}}.links_by_owner (owner, month, created_at, code, written) \
             VALUES ('incident', 0, {}, 'x{number}', 0); ",
            2 + number
        )
    };
    for hundred in 0..25 {
        let entries: String = (0..100).map(|number| entry(hundred * 100 + number)).collect();
        rows.query(&format!("BEGIN UNLOGGED BATCH {entries} APPLY BATCH")).await;
    }
    assert_eq!(rows.listed("incident").await, ["behind"]);
    assert_eq!(rows.entries("incident").await.len(), 2_501, "none is old enough to be removed");
}

async fn an_entry_of_a_deleted_link_goes_at_once(rows: &Rows) {
    let first = owned("deletes", "gone", 1_000);
    rows.store.insert_if_absent(&first, attempt(1)).await.unwrap();
    let deleted = LinkChange { state: LinkState::Deleted, ..LinkChange::of(&first) };
    rows.store.update(&first.code, Version::FIRST, &deleted).await.unwrap();
    // As a server leaves it that died between the deletion and the removal of the entry.
    rows.entry("deletes", "gone", 1_000, now_us()).await;
    assert_eq!(rows.entries("deletes").await, ["gone"]);
    assert_eq!(rows.listed("deletes").await, [""; 0]);
    assert_eq!(rows.entries("deletes").await, [""; 0]);
}

async fn an_entry_that_another_took_the_code_of_is_not_shown(rows: &Rows) {
    rows.store.insert_if_absent(&owned("winner", "both", 1_000), attempt(1)).await.unwrap();
    rows.entry("loser", "both", 1_000, now_us()).await;
    rows.entry("winner", "both", 2_000, now_us()).await;
    assert_eq!(rows.listed("loser").await, [""; 0]);
    assert_eq!(rows.listed("winner").await, ["both"]);
    assert_eq!(rows.entries("loser").await, ["both"]);
}
