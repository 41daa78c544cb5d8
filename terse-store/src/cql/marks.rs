//! Marks of what changed, so that other nodes drop what they have cached.
//!
//! A mark stands in a bucket of ten seconds by the store's clock as its writer
//! knows it ([`super::store_clock`]); whoever reads marks looks for them by that
//! clock too. A poll reads a bucket or three, each one small partition. Marks go
//! by themselves after an hour (the table's TTL). Within a bucket they are ordered
//! by their random ids, so a bucket that is too full for one read is read in pages.
//!
//! No breaker refuses a poll, and none hears of it: a poll is one read at a
//! quorum, bounded by a short timeout, and as soon as there is a quorum again
//! the next one must succeed. What is cached is fresh only while they do.

use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt, stream};
use scylla::DeserializeRow;
use scylla::statement::prepared::PreparedStatement;
use scylla::value::CqlTimestamp;
use terse_core::ports::{ChangeFeed, ChangeMark, ChangeMarks, MarkPlace, StoreError, StoreErrorKind};
use terse_core::time::random_bytes;
use terse_core::{Clock, Entropy, ShortCode, Timestamp, Version};

use super::rows::{cql_time, cql_version, must, time, version, wrong};
use super::session::{Preparer, Use};
use super::{CqlStore, Live, fault, levels, rows};

/// Milliseconds of a bucket.
const BUCKET_MS: i64 = 10_000;
/// How long a mark lasts, in milliseconds, and how far from now marks are
/// looked for: those of a writer whose clock is further off are not found.
const MARK_LIFE_MS: i64 = 3_600_000;
/// Buckets read at once; the others wait.
const BUCKETS_AT_ONCE: usize = 16;

pub(super) struct Statements {
    write: PreparedStatement,
    read: PreparedStatement,
}

impl Statements {
    pub(super) async fn prepare(preparer: &Preparer<'_>) -> Result<Self, StoreError> {
        let write = "INSERT INTO {keyspace}.changes (bucket, id, code, version, at) VALUES (?, ?, ?, ?, ?)";
        let read = "SELECT id, code, version, at FROM {keyspace}.changes WHERE bucket = ? AND id > ? LIMIT ?";
        Ok(Self {
            write: preparer.statement(Use::Write, write).await?,
            read: preparer.statement(Use::MarkRead, read).await?,
        })
    }
}

/// The columns that the feed reads.
#[derive(DeserializeRow)]
#[scylla(flavor = "enforce_order", skip_name_checks)]
struct MarkRow<'frame> {
    id: &'frame [u8],
    code: Option<&'frame str>,
    version: Option<i64>,
    at: Option<CqlTimestamp>,
}

impl MarkRow<'_> {
    fn mark(&self) -> Result<ChangeMark, StoreError> {
        Ok(ChangeMark {
            id: self.id.try_into().map_err(|_| wrong("id"))?,
            code: rows::code(must(self.code, "code")?)?,
            version: version(self.version)?,
            at: time(must(self.at, "at")?, "at")?,
        })
    }
}

/// The bucket of a mark written `at`.
fn bucket_of(at: Timestamp) -> i64 {
    at.as_millis() / BUCKET_MS
}

impl CqlStore {
    /// Writes the mark that must stand before an edit: no version of `code` below `version` may be served.
    ///
    /// # Errors
    /// [`StoreErrorKind::Unavailable`]: the edit must not be made then.
    pub(super) async fn mark_before(&self, live: &Live, code: &ShortCode, version: Version) -> Result<(), StoreError> {
        let marked = live.mark(code, version, &*self.clock, &*self.entropy).await;
        // Whether this mark stands is all the same when the edit is not made.
        marked.map_err(|error| StoreError { kind: StoreErrorKind::Unavailable, ..error })
    }
}

impl Live {
    /// Writes a mark at the store's time: no version of `code` below `version` may be served.
    pub(super) async fn mark(
        &self,
        code: &ShortCode,
        version: Version,
        clock: &dyn Clock,
        entropy: &dyn Entropy,
    ) -> Result<(), StoreError> {
        let at = self.clock.now(clock);
        let id: [u8; 16] = random_bytes(entropy);
        let values = (bucket_of(at), &id[..], code.as_str(), cql_version(version), cql_time(at));
        let answer = self.session.execute_unpaged(&self.marks.write, values).await;
        answer.map(drop).map_err(|error| fault::write("marking a change", error))
    }

    /// Up to `limit` marks of `bucket`, those that come after the id `after`, and the places of them.
    async fn bucket(
        &self,
        bucket: i64,
        after: Option<[u8; 16]>,
        limit: i32,
    ) -> Result<Vec<(MarkPlace, ChangeMark)>, StoreError> {
        // Every id comes after the empty one.
        let after = after.as_ref().map_or(&[][..], |id| &id[..]);
        let found = levels::rows(self, "reading marks", &self.marks.read, (bucket, after, limit)).await?;
        rows::all(&found, |row: MarkRow<'_>| {
            let mark = row.mark()?;
            Ok((MarkPlace { bucket, id: mark.id }, mark))
        })
    }
}

#[async_trait]
impl ChangeFeed for CqlStore {
    async fn marks(
        &self,
        from: Timestamp,
        until: Timestamp,
        after: Option<MarkPlace>,
        limit: usize,
    ) -> Result<ChangeMarks, StoreError> {
        let live = self.live()?;
        // The range is told by this server's clock, and marks stand by the store's.
        let now = live.clock.now(&*self.clock);
        let behind_ms = now.as_millis().saturating_sub(self.clock.now().as_millis());
        let from = bucket_of(from.plus_millis(behind_ms).max(now.plus_millis(-MARK_LIFE_MS)));
        let until = bucket_of(until.plus_millis(behind_ms).min(now.plus_millis(MARK_LIFE_MS)));
        let (from, limit) = (after.map_or(from, |after| from.max(after.bucket)), limit.max(1));
        let after = |bucket| after.filter(|after| after.bucket == bucket).map(|after| after.id);
        // One more than asked for tells whether there are more.
        let enough = limit.saturating_add(1);
        let at_most = i32::try_from(enough).unwrap_or(i32::MAX);
        let reads = stream::iter(from..=until).map(|bucket| live.bucket(bucket, after(bucket), at_most));
        let mut buckets = reads.buffered(BUCKETS_AT_ONCE);
        let mut found = Vec::new();
        while found.len() < enough {
            let Some(more) = buckets.try_next().await? else { break };
            found.extend(more);
        }
        let next = if found.len() > limit { found.get(limit - 1).map(|(place, _)| *place) } else { None };
        found.truncate(limit);
        // Told by this server's clock as the range is.
        let told = |(_, mark): (_, ChangeMark)| ChangeMark { at: mark.at.plus_millis(-behind_ms), ..mark };
        Ok(ChangeMarks { marks: found.into_iter().map(told).collect(), next })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_comes_back_or_is_corrupt() {
        let row =
            |id: &'static [u8], code, version, at: Option<i64>| MarkRow { id, code, version, at: at.map(CqlTimestamp) };
        let mark = row(&[1; 16], Some("abc"), Some(2), Some(3)).mark().unwrap();
        assert_eq!((mark.id, mark.code.as_str(), mark.version), ([1; 16], "abc", Version(2)));
        assert_eq!(mark.at, Timestamp::from_millis(3));
        for spoilt in [
            row(&[1; 15], Some("abc"), Some(2), Some(3)),
            row(&[1; 16], None, Some(2), Some(3)),
            row(&[1; 16], Some("a b"), Some(2), Some(3)),
            row(&[1; 16], Some("abc"), Some(-2), Some(3)),
            row(&[1; 16], Some("abc"), Some(2), None),
        ] {
            assert_eq!(spoilt.mark().unwrap_err().kind, StoreErrorKind::Corrupt);
        }
    }

    #[test]
    fn buckets_are_ten_seconds() {
        let buckets = [0, 9_999, 10_000, 25_000].map(Timestamp::from_millis).map(bucket_of);
        assert_eq!(buckets, [0, 0, 1, 2]);
    }
}
