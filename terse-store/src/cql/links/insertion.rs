//! The conditional write that makes a link.

use async_trait::async_trait;
use scylla::value::{CqlTimestamp, MaybeUnset};
use terse_core::ports::{AttemptId, StoreError};
use terse_core::{Link, Timestamp, Version};

use super::super::lwt::{Conditional, Decision, Existing, conditional};
use super::super::rows::{self, cql_time, cql_version};
use super::super::{Live, fault};
use super::edit::read_back;

/// Makes `link`, if its code was never used, by `attempt`.
pub(super) struct Insertion<'a> {
    pub(super) live: &'a Live,
    pub(super) link: &'a Link,
    pub(super) attempt: AttemptId,
}

/// What became of it.
#[derive(Debug, PartialEq)]
pub(super) enum Inserted {
    Created,
    Taken {
        by: AttemptId,
        version: Version,
        /// Whether that link stands at the very place of the owner's list where this one would.
        listed: bool,
    },
}

/// What stands under the code.
struct Standing {
    attempt: AttemptId,
    version: Version,
    owned_alike: bool,
}

impl Insertion<'_> {
    fn owned_alike(&self, owner: Option<&str>, created_at: Option<CqlTimestamp>) -> bool {
        owner == Some(self.link.owner.as_str()) && created_at == Some(cql_time(self.link.created_at))
    }

    fn standing(&self, existing: &Existing) -> Result<Standing, StoreError> {
        Ok(Standing {
            attempt: rows::attempt(existing.blob("attempt"))?,
            version: rows::version(existing.bigint("version"))?,
            owned_alike: self.owned_alike(existing.text("owner"), existing.timestamp("created_at")),
        })
    }

    /// `again` = this call may have made the link itself.
    fn judge(&self, standing: &Standing, again: bool) -> Inserted {
        if again && standing.attempt == self.attempt {
            return Inserted::Created;
        }
        Inserted::Taken { by: standing.attempt, version: standing.version, listed: standing.owned_alike }
    }
}

fn unless_none<T>(value: Option<T>) -> MaybeUnset<T> {
    // An absent cell costs nothing, a null one a tombstone.
    value.map_or(MaybeUnset::Unset, MaybeUnset::Set)
}

#[async_trait]
impl Decision for Insertion<'_> {
    type Answer = Inserted;

    async fn try_once(&self, again: bool) -> Result<Option<Inserted>, StoreError> {
        let link = self.link;
        let tags = link.tags.as_slice();
        let optional = |time: Option<Timestamp>| unless_none(time.map(cql_time));
        let values = (
            link.code.as_str(),
            link.target.as_str(),
            unless_none(link.title.as_ref().map(|title| title.as_str())),
            unless_none((!tags.is_empty()).then_some(tags)),
            link.state.as_str(),
            link.owner.as_str(),
            cql_time(link.created_at),
            cql_time(link.updated_at),
            optional(link.expires_at),
            optional(link.valid_from),
            cql_version(link.version),
            &self.attempt.0[..],
        );
        match conditional(self.live, "creating a link", &self.live.links.insert, values).await? {
            Conditional::Applied => Ok(Some(Inserted::Created)),
            Conditional::Refused(existing) => Ok(Some(self.judge(&self.standing(&existing)?, again))),
        }
    }

    async fn read_back(&self) -> Result<Option<Inserted>, StoreError> {
        let Some(stands) = read_back(self.live, &self.link.code).await? else { return Ok(None) };
        let standing = Standing {
            attempt: stands.attempt.ok_or_else(|| fault::corrupt("a link without an attempt"))?,
            version: stands.version,
            owned_alike: self.owned_alike(stands.owner.as_deref(), stands.created_at),
        };
        Ok(Some(self.judge(&standing, true)))
    }
}
