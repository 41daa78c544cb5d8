//! The conditional write that edits a link, and how it is read back.

use async_trait::async_trait;
use scylla::DeserializeRow;
use scylla::value::CqlTimestamp;
use terse_core::ports::{AttemptId, LinkChange, StoreError};
use terse_core::time::random_bytes;
use terse_core::{Entropy, ShortCode, Version};

use super::super::lwt::{Conditional, Decision, conditional};
use super::super::rows::{self, cql_time, cql_version};
use super::super::{Live, levels};

/// Applies `change` to the version `expected` of a link, under a fresh id.
pub(super) struct Edit<'a> {
    live: &'a Live,
    code: &'a ShortCode,
    expected: Version,
    change: &'a LinkChange,
    id: [u8; 16],
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Edited {
    Applied,
    /// The link has this version, by another's edit.
    Conflict(Version),
    /// Later edits stand on this one or on another's; which, is not known any more.
    Overwritten(Version),
    /// There is no such link any more; only a spoilt store says so.
    Gone,
}

impl<'a> Edit<'a> {
    pub(super) fn new(
        live: &'a Live,
        code: &'a ShortCode,
        expected: Version,
        change: &'a LinkChange,
        entropy: &dyn Entropy,
    ) -> Self {
        Self { live, code, expected, change, id: random_bytes(entropy) }
    }
}

#[async_trait]
impl Decision for Edit<'_> {
    type Answer = Edited;

    async fn try_once(&self, again: bool) -> Result<Option<Edited>, StoreError> {
        let change = self.change;
        let tags = change.tags.as_slice();
        let values = (
            change.target.as_str(),
            change.title.as_ref().map(|title| title.as_str()),
            (!tags.is_empty()).then_some(tags),
            change.state.as_str(),
            cql_time(change.updated_at),
            change.expires_at.map(cql_time),
            change.valid_from.map(cql_time),
            cql_version(self.expected.next()),
            &self.id[..],
            self.code.as_str(),
            cql_version(self.expected),
        );
        match conditional(self.live, "editing a link", &self.live.links.update, values).await? {
            Conditional::Applied => Ok(Some(Edited::Applied)),
            // An earlier try of this edit may be what stands in its way.
            Conditional::Refused(_) if again => Ok(None),
            Conditional::Refused(existing) => Ok(Some(match existing.bigint("version") {
                None => Edited::Gone,
                version => Edited::Conflict(rows::version(version)?),
            })),
        }
    }

    async fn read_back(&self) -> Result<Option<Edited>, StoreError> {
        Ok(judge(read_back(self.live, self.code).await?.as_ref(), self.expected, &self.id))
    }
}

/// What `stands` tells of the edit `id` of version `expected`; `None` = it was not made.
fn judge(stands: Option<&Stands>, expected: Version, id: &[u8; 16]) -> Option<Edited> {
    let Some(stands) = stands else { return Some(Edited::Gone) };
    if stands.edit.as_deref() == Some(&id[..]) {
        return Some(Edited::Applied);
    }
    if stands.version <= expected {
        return None;
    }
    let next = expected.next();
    Some(if stands.version == next { Edited::Conflict(next) } else { Edited::Overwritten(stands.version) })
}

/// What of a link tells whose writes made it.
#[derive(Debug)]
pub(super) struct Stands {
    pub(super) version: Version,
    pub(super) attempt: Option<AttemptId>,
    pub(super) edit: Option<Vec<u8>>,
    pub(super) owner: Option<String>,
    pub(super) created_at: Option<CqlTimestamp>,
}

#[derive(DeserializeRow)]
#[scylla(flavor = "enforce_order", skip_name_checks)]
struct StandsRow<'frame> {
    version: Option<i64>,
    attempt: Option<&'frame [u8]>,
    edit: Option<&'frame [u8]>,
    owner: Option<&'frame str>,
    created_at: Option<CqlTimestamp>,
}

/// Reads at SERIAL what stands under `code`; completes what was accepted but not yet committed.
pub(super) async fn read_back(live: &Live, code: &ShortCode) -> Result<Option<Stands>, StoreError> {
    let found = levels::rows(live, "reading back", &live.links.read_back, (code.as_str(),)).await?;
    let Some(row) = rows::first::<StandsRow<'_>>(&found)? else { return Ok(None) };
    Ok(Some(Stands {
        version: rows::version(row.version)?,
        attempt: row.attempt.map(|bytes| rows::attempt(Some(bytes))).transpose()?,
        edit: row.edit.map(<[u8]>::to_vec),
        owner: row.owner.map(str::to_owned),
        created_at: row.created_at,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stands(version: u64, edit: Option<u8>) -> Stands {
        let edit = edit.map(|byte| vec![byte; 16]);
        Stands { version: Version(version), attempt: None, edit, owner: None, created_at: None }
    }

    #[test]
    fn an_edit_knows_itself_by_its_id() {
        let judged = |stands: &Stands| judge(Some(stands), Version(3), &[7; 16]);
        assert_eq!(judged(&stands(4, Some(7))), Some(Edited::Applied));
        assert_eq!(judged(&stands(4, Some(8))), Some(Edited::Conflict(Version(4))));
        assert_eq!(judged(&stands(3, Some(6))), None, "not made");
        assert_eq!(judged(&stands(3, None)), None, "not made, and no edit before");
    }

    #[test]
    fn an_edit_under_later_ones_is_not_called_a_conflict() {
        assert_eq!(judge(Some(&stands(5, Some(8))), Version(3), &[7; 16]), Some(Edited::Overwritten(Version(5))));
    }

    #[test]
    fn a_link_that_vanished_is_gone() {
        assert_eq!(judge(None, Version(3), &[7; 16]), Some(Edited::Gone));
    }
}
