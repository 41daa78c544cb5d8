//! How links, idempotency records and API keys stand in rows. What can't be
//! read back is a fault, never "missing".

use rusqlite::Row;
use rusqlite::types::ValueRef;
use terse_core::ports::{AttemptId, IdempotencyRecord, Lease};
use terse_core::{
    ApiKey, KeyId, Link, LinkState, Owner, Resolution, Role, ShortCode, Tags, TargetUrl, Timestamp, Title, Version,
};

use super::fault::Fault;

/// Separates tags; a control character, so no tag holds it.
const TAG_SEPARATOR: char = '\u{1f}';

pub(super) const fn state_number(state: LinkState) -> i64 {
    match state {
        LinkState::Active => 0,
        LinkState::Disabled => 1,
        LinkState::Blocked => 2,
        LinkState::Deleted => 3,
    }
}

fn state_of(number: i64) -> Option<LinkState> {
    [LinkState::Active, LinkState::Disabled, LinkState::Blocked, LinkState::Deleted]
        .into_iter()
        .find(|state| state_number(*state) == number)
}

/// Tags in one column; none = NULL.
pub(super) fn tags_text(tags: &Tags) -> Option<String> {
    let tags = tags.as_slice();
    (!tags.is_empty()).then(|| tags.join(&TAG_SEPARATOR.to_string()))
}

fn tags_of(text: Option<&str>) -> Option<Tags> {
    let Some(text) = text else { return Some(Tags::default()) };
    let parts: Vec<&str> = text.split(TAG_SEPARATOR).collect();
    Tags::parse(&parts).ok().filter(|tags| tags.as_slice().len() == parts.len())
}

/// A column that must hold text.
fn text<'row>(row: &'row Row<'_>, column: &'static str) -> Result<&'row str, Fault> {
    optional_text(row, column)?.ok_or_else(|| wrong(column))
}

fn optional_text<'row>(row: &'row Row<'_>, column: &'static str) -> Result<Option<&'row str>, Fault> {
    match row.get_ref(column)? {
        ValueRef::Null => Ok(None),
        ValueRef::Text(bytes) => std::str::from_utf8(bytes).map(Some).map_err(|_| wrong(column)),
        _ => Err(wrong(column)),
    }
}

fn number(row: &Row<'_>, column: &'static str) -> Result<i64, Fault> {
    row.get_ref(column)?.as_i64().map_err(|_| wrong(column))
}

fn bytes<const N: usize>(row: &Row<'_>, column: &'static str) -> Result<[u8; N], Fault> {
    let blob = row.get_ref(column)?.as_blob().map_err(|_| wrong(column))?;
    <[u8; N]>::try_from(blob).map_err(|_| wrong(column))
}

fn time(row: &Row<'_>, column: &'static str) -> Result<Timestamp, Fault> {
    optional_time(row, column)?.ok_or_else(|| wrong(column))
}

fn optional_time(row: &Row<'_>, column: &'static str) -> Result<Option<Timestamp>, Fault> {
    let Some(ms) = row.get_ref(column)?.as_i64_or_null().map_err(|_| wrong(column))? else { return Ok(None) };
    let time = Timestamp::from_millis(ms);
    // Clamped = out of range = never written.
    if time.as_millis() == ms { Ok(Some(time)) } else { Err(wrong(column)) }
}

fn wrong(column: &str) -> Fault {
    Fault::corrupt(format!("a row whose column '{column}' can't be understood"))
}

fn state(row: &Row<'_>) -> Result<LinkState, Fault> {
    state_of(number(row, "state")?).ok_or_else(|| wrong("state"))
}

pub(super) fn version(row: &Row<'_>) -> Result<Version, Fault> {
    u64::try_from(number(row, "version")?).map(Version).map_err(|_| wrong("version"))
}

fn target(row: &Row<'_>) -> Result<TargetUrl, Fault> {
    TargetUrl::from_stored(text(row, "target")?).ok_or_else(|| wrong("target"))
}

fn code(row: &Row<'_>) -> Result<ShortCode, Fault> {
    ShortCode::parse(text(row, "code")?).map_err(|_| wrong("code"))
}

fn owner(row: &Row<'_>) -> Result<Owner, Fault> {
    Owner::parse(text(row, "owner")?).map_err(|_| wrong("owner"))
}

pub(super) fn attempt(row: &Row<'_>) -> Result<AttemptId, Fault> {
    bytes(row, "attempt").map(AttemptId)
}

/// A row with the columns of [`Resolution`].
pub(super) fn resolution(row: &Row<'_>) -> Result<Resolution, Fault> {
    Ok(Resolution {
        target: target(row)?,
        state: state(row)?,
        expires_at: optional_time(row, "expires_at")?,
        valid_from: optional_time(row, "valid_from")?,
        version: version(row)?,
    })
}

/// A whole row of `links`.
pub(super) fn link(row: &Row<'_>) -> Result<Link, Fault> {
    let title = optional_text(row, "title")?.map(Title::parse).transpose().map_err(|_| wrong("title"))?;
    Ok(Link {
        code: code(row)?,
        target: target(row)?,
        title,
        tags: tags_of(optional_text(row, "tags")?).ok_or_else(|| wrong("tags"))?,
        state: state(row)?,
        owner: owner(row)?,
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
        expires_at: optional_time(row, "expires_at")?,
        valid_from: optional_time(row, "valid_from")?,
        version: version(row)?,
    })
}

/// A whole row of `idempotency`.
pub(super) fn idempotency_record(row: &Row<'_>) -> Result<IdempotencyRecord, Fault> {
    Ok(IdempotencyRecord {
        body_hash: bytes(row, "body_hash")?,
        code: code(row)?,
        attempt: attempt(row)?,
        created_at: time(row, "created_at")?,
    })
}

/// A row of `lease_log` without its counter.
pub(super) fn lease(row: &Row<'_>) -> Result<Lease, Fault> {
    let id = |column| u64::try_from(number(row, column)?).map_err(|_| wrong(column));
    Ok(Lease {
        ids: id("first_id")?..id("end_id")?,
        holder: text(row, "holder")?.to_owned(),
        leased_at: time(row, "leased_at")?,
    })
}

/// A whole row of `api_keys`.
pub(super) fn api_key(row: &Row<'_>) -> Result<ApiKey, Fault> {
    Ok(ApiKey {
        id: KeyId::parse(text(row, "id")?).map_err(|_| wrong("id"))?,
        name: text(row, "name")?.to_owned(),
        owner: owner(row)?,
        role: Role::parse(text(row, "role")?).ok_or_else(|| wrong("role"))?,
        secret_hash: bytes(row, "secret_hash")?,
        created_at: time(row, "created_at")?,
        expires_at: optional_time(row, "expires_at")?,
        revoked_at: optional_time(row, "revoked_at")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_keep_their_numbers() {
        for (state, number) in
            [(LinkState::Active, 0), (LinkState::Disabled, 1), (LinkState::Blocked, 2), (LinkState::Deleted, 3)]
        {
            assert_eq!(state_number(state), number);
            assert_eq!(state_of(number), Some(state));
        }
        assert_eq!(state_of(4), None);
        assert_eq!(state_of(-1), None);
    }

    #[test]
    fn tags_come_back_as_they_went() {
        for tags in [vec![], vec!["one"], vec!["a,b", "c d", "\"q\"", "ü|;"]] {
            let tags = Tags::parse(&tags).unwrap();
            assert_eq!(tags_of(tags_text(&tags).as_deref()), Some(tags));
        }
        assert_eq!(tags_text(&Tags::default()), None);
    }

    #[test]
    fn tags_that_were_never_written_are_not_read() {
        for text in ["", "a\u{1f}", "a\u{1f}a", "a\nb"] {
            assert_eq!(tags_of(Some(text)), None, "{text:?}");
        }
    }
}
