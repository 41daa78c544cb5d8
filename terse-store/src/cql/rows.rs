//! How links stand in rows. What can't be read back is a fault, never "missing".

use scylla::DeserializeRow;
use scylla::response::query_result::QueryRowsResult;
use scylla::value::CqlTimestamp;
use terse_core::ports::{AttemptId, StoreError};
use terse_core::{Link, LinkState, Owner, Resolution, ShortCode, Tags, TargetUrl, Timestamp, Title, Version};

use super::fault;

/// The columns of a whole link, as [`LinkRow`] reads them.
pub(super) const LINK_COLUMNS: &str =
    "code, target, title, tags, state, owner, created_at, updated_at, expires_at, valid_from, version";

/// The columns that a redirect needs, as [`resolution`] reads them.
pub(super) const RESOLUTION_COLUMNS: &str = "target, state, expires_at, valid_from, version";

/// A time as the engine keeps it.
pub(super) const fn cql_time(time: Timestamp) -> CqlTimestamp {
    CqlTimestamp(time.as_millis())
}

/// Milliseconds of a month, see the schema: 30 days.
const MONTH_MS: i64 = 30 * 24 * 3_600_000;

/// The month of the owner's list in which a link created `at` stands.
pub(super) fn month_of(at: Timestamp) -> i32 {
    // The last time there is falls into month 97,763.
    i32::try_from(at.as_millis() / MONTH_MS).unwrap_or(i32::MAX)
}

/// A version as the engine keeps it; one that never was stored is the largest.
pub(super) fn cql_version(version: Version) -> i64 {
    i64::try_from(version.0).unwrap_or(i64::MAX)
}

pub(super) fn time(value: CqlTimestamp, column: &str) -> Result<Timestamp, StoreError> {
    let time = Timestamp::from_millis(value.0);
    // Clamped = out of range = never written.
    if time.as_millis() == value.0 { Ok(time) } else { Err(wrong(column)) }
}

pub(super) fn optional_time(value: Option<CqlTimestamp>, column: &str) -> Result<Option<Timestamp>, StoreError> {
    value.map(|value| time(value, column)).transpose()
}

/// What a column holds can't be understood.
pub(super) fn wrong(column: &str) -> StoreError {
    fault::corrupt(format!("a row whose column '{column}' can't be understood"))
}

/// A column that every row has.
pub(super) fn must<T>(value: Option<T>, column: &str) -> Result<T, StoreError> {
    value.ok_or_else(|| wrong(column))
}

pub(super) fn version(value: Option<i64>) -> Result<Version, StoreError> {
    let number = value.and_then(|value| u64::try_from(value).ok());
    number.map(Version).ok_or_else(|| wrong("version"))
}

pub(super) fn code(text: &str) -> Result<ShortCode, StoreError> {
    ShortCode::parse(text).map_err(|_| wrong("code"))
}

pub(super) fn attempt(bytes: Option<&[u8]>) -> Result<AttemptId, StoreError> {
    let bytes = bytes.and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
    bytes.map(AttemptId).ok_or_else(|| wrong("attempt"))
}

fn state(word: Option<&str>) -> Result<LinkState, StoreError> {
    word.and_then(LinkState::parse).ok_or_else(|| wrong("state"))
}

fn target(text: Option<&str>) -> Result<TargetUrl, StoreError> {
    text.and_then(TargetUrl::from_stored).ok_or_else(|| wrong("target"))
}

/// The columns of [`RESOLUTION_COLUMNS`].
#[derive(DeserializeRow)]
#[scylla(flavor = "enforce_order", skip_name_checks)]
struct ResolutionRow<'frame> {
    target: Option<&'frame str>,
    state: Option<&'frame str>,
    expires_at: Option<CqlTimestamp>,
    valid_from: Option<CqlTimestamp>,
    version: Option<i64>,
}

/// The link of a point read by [`RESOLUTION_COLUMNS`], if there is one.
pub(super) fn resolution(rows: &QueryRowsResult) -> Result<Option<Resolution>, StoreError> {
    let Some(row) = first::<ResolutionRow<'_>>(rows)? else { return Ok(None) };
    Ok(Some(Resolution {
        target: target(row.target)?,
        state: state(row.state)?,
        expires_at: optional_time(row.expires_at, "expires_at")?,
        valid_from: optional_time(row.valid_from, "valid_from")?,
        version: version(row.version)?,
    }))
}

/// The columns of [`LINK_COLUMNS`].
#[derive(DeserializeRow)]
#[scylla(flavor = "enforce_order", skip_name_checks)]
pub(super) struct LinkRow<'frame> {
    code: &'frame str,
    target: Option<&'frame str>,
    title: Option<&'frame str>,
    tags: Option<Vec<&'frame str>>,
    state: Option<&'frame str>,
    owner: Option<&'frame str>,
    created_at: Option<CqlTimestamp>,
    updated_at: Option<CqlTimestamp>,
    expires_at: Option<CqlTimestamp>,
    valid_from: Option<CqlTimestamp>,
    version: Option<i64>,
}

impl LinkRow<'_> {
    /// The link in this row.
    pub(super) fn link(&self) -> Result<Link, StoreError> {
        Ok(Link {
            code: code(self.code)?,
            target: target(self.target)?,
            title: self.title.map(Title::parse).transpose().map_err(|_| wrong("title"))?,
            tags: tags(self.tags.as_deref().unwrap_or_default())?,
            state: state(self.state)?,
            owner: Owner::parse(must(self.owner, "owner")?).map_err(|_| wrong("owner"))?,
            created_at: time(must(self.created_at, "created_at")?, "created_at")?,
            updated_at: time(must(self.updated_at, "updated_at")?, "updated_at")?,
            expires_at: optional_time(self.expires_at, "expires_at")?,
            valid_from: optional_time(self.valid_from, "valid_from")?,
            version: version(self.version)?,
        })
    }
}

fn tags(words: &[&str]) -> Result<Tags, StoreError> {
    let tags = Tags::parse(words).map_err(|_| wrong("tags"))?;
    // Repeated tags were never written.
    if tags.as_slice().len() == words.len() { Ok(tags) } else { Err(wrong("tags")) }
}

/// The link of a point read by [`LINK_COLUMNS`], if there is one.
pub(super) fn link(rows: &QueryRowsResult) -> Result<Option<Link>, StoreError> {
    first::<LinkRow<'_>>(rows)?.map(|row| row.link()).transpose()
}

/// The first row, if there is one.
pub(super) fn first<'frame, R>(rows: &'frame QueryRowsResult) -> Result<Option<R>, StoreError>
where
    R: scylla::deserialize::row::DeserializeRow<'frame, 'frame>,
{
    rows.maybe_first_row::<R>().map_err(|error| fault::corrupt("a row that can't be understood").caused_by(error))
}

/// All rows, each made into something by `read`.
pub(super) fn all<'frame, R, T>(
    rows: &'frame QueryRowsResult,
    read: impl Fn(R) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError>
where
    R: scylla::deserialize::row::DeserializeRow<'frame, 'frame>,
{
    let not_understood =
        |error: &dyn std::fmt::Display| fault::corrupt(format!("a row that can't be understood: {error}"));
    let rows = rows.rows::<R>().map_err(|error| not_understood(&error))?;
    rows.map(|row| read(row.map_err(|error| not_understood(&error))?)).collect()
}

#[cfg(test)]
mod tests {
    use terse_core::ports::StoreErrorKind;

    use super::*;

    fn row() -> LinkRow<'static> {
        LinkRow {
            code: "abc",
            target: Some("https://example.com/"),
            title: None,
            tags: None,
            state: Some("active"),
            owner: Some("somebody"),
            created_at: Some(CqlTimestamp(1)),
            updated_at: Some(CqlTimestamp(2)),
            expires_at: None,
            valid_from: None,
            version: Some(1),
        }
    }

    #[test]
    fn a_sound_row_is_a_link() {
        let link = row().link().unwrap();
        assert_eq!((link.code.as_str(), link.version, link.state), ("abc", Version(1), LinkState::Active));
        assert_eq!(link.tags, Tags::default());
    }

    #[test]
    fn what_was_never_written_is_corrupt_by_column() {
        let spoilt = [
            (LinkRow { target: None, ..row() }, "target"),
            (LinkRow { target: Some("https://e.example/\n"), ..row() }, "target"),
            (LinkRow { title: Some(""), ..row() }, "title"),
            (LinkRow { tags: Some(vec!["a", "a"]), ..row() }, "tags"),
            (LinkRow { tags: Some(vec![""]), ..row() }, "tags"),
            (LinkRow { state: Some("Active"), ..row() }, "state"),
            (LinkRow { state: None, ..row() }, "state"),
            (LinkRow { owner: None, ..row() }, "owner"),
            (LinkRow { created_at: None, ..row() }, "created_at"),
            (LinkRow { updated_at: Some(CqlTimestamp(-1)), ..row() }, "updated_at"),
            (LinkRow { expires_at: Some(CqlTimestamp(i64::MAX)), ..row() }, "expires_at"),
            (LinkRow { version: Some(-1), ..row() }, "version"),
            (LinkRow { version: None, ..row() }, "version"),
            (LinkRow { code: "a/b", ..row() }, "code"),
        ];
        for (row, column) in spoilt {
            let error = row.link().unwrap_err();
            assert_eq!(error.kind, StoreErrorKind::Corrupt);
            assert!(error.message.contains(&format!("'{column}'")), "{column}: {error}");
        }
    }

    #[test]
    fn months_are_thirty_days_from_1970_on() {
        let months = [0, MONTH_MS - 1, MONTH_MS, 10 * MONTH_MS + 1, i64::MAX].map(Timestamp::from_millis).map(month_of);
        assert_eq!(months, [0, 0, 1, 10, 97_763]);
    }

    #[test]
    fn an_attempt_has_sixteen_bytes() {
        assert_eq!(attempt(Some(&[7; 16])).unwrap(), AttemptId([7; 16]));
        for bytes in [None, Some(&[][..]), Some(&[0; 15][..]), Some(&[0; 17][..])] {
            assert_eq!(attempt(bytes).unwrap_err().kind, StoreErrorKind::Corrupt);
        }
    }

    #[test]
    fn a_version_beyond_all_stored_ones_matches_none() {
        assert_eq!(cql_version(Version(3)), 3);
        assert_eq!(cql_version(Version(u64::MAX)), i64::MAX);
    }
}
