//! Editing and deleting: read, decide, write if nobody was faster.

use super::{Fault, Patch, ServiceError, Shortener};
use super::{expired_fault, is_unknown, order_fault, overloaded, refuse, visible};
use crate::access::{Caller, Role};
use crate::ports::{LinkChange, StoreError, Update};
use crate::{Link, LinkState, ShortCode, Timestamp, Version};

/// Times that a change is tried while others change the same link, or its outcome stays unknown.
const MAX_ROUNDS: usize = 8;

/// What a change makes of a link; called again whenever the link turns out to be another.
type Revision<'a> = &'a (dyn Fn(&Link) -> Result<LinkChange, ServiceError> + Send + Sync);

impl Shortener {
    /// Changes a link; with `expected` versions, only if it has one of them.
    /// Times are checked only as far as the patch sets them: an expired link
    /// can still be given another title. An edit that changes nothing makes no
    /// new version.
    ///
    /// # Errors
    /// [`ServiceError`]: `Forbidden`, `Invalid`, `NotFound`, `VersionConflict`, `Store`.
    pub async fn edit(
        &self,
        caller: &Caller,
        code: &ShortCode,
        expected: Option<&[Version]>,
        patch: &Patch,
    ) -> Result<Link, ServiceError> {
        let now = self.clock.now();
        self.change(caller, code, expected, &|link| {
            check_state(caller, link.state, patch.state)?;
            let change = patch.apply(link, now);
            patch.check_times(&change, now)?;
            Ok(change)
        })
        .await
    }

    /// Deletes a link for ever; with `expected` versions, only if it has one of them.
    ///
    /// # Errors
    /// [`ServiceError`]: `Forbidden`, `NotFound`, `VersionConflict`, `Store`.
    pub async fn delete(
        &self,
        caller: &Caller,
        code: &ShortCode,
        expected: Option<&[Version]>,
    ) -> Result<(), ServiceError> {
        let now = self.clock.now();
        let revision = |link: &Link| {
            let updated_at = now.max(link.updated_at);
            Ok(LinkChange { state: LinkState::Deleted, updated_at, ..LinkChange::of(link) })
        };
        self.change(caller, code, expected, &revision).await.map(drop)
    }

    async fn change(
        &self,
        caller: &Caller,
        code: &ShortCode,
        expected: Option<&[Version]>,
        revision: Revision<'_>,
    ) -> Result<Link, ServiceError> {
        if !caller.role.may_write() {
            return Err(ServiceError::Forbidden);
        }
        let mut unknown: Option<Unknown> = None;
        for _ in 0..MAX_ROUNDS {
            let link = match self.catalog.get(code).await {
                Ok(link) => link.ok_or(ServiceError::NotFound)?,
                Err(error) => return Err(first_unknown(unknown, error)),
            };
            // A change whose outcome was unknown has been made after all, perhaps only by now.
            if unknown.as_ref().is_some_and(|(version, change, _)| is_result(&link, *version, change)) {
                return Ok(link);
            }
            let link = visible(link, caller)?;
            let version = link.version;
            if expected.is_some_and(|expected| !expected.contains(&version)) {
                return Err(ServiceError::VersionConflict { current: version });
            }
            let change = revision(&link)?;
            if changes_nothing(&link, &change) {
                return Ok(link);
            }
            match self.writer.update(code, version, &change).await {
                Ok(Update::Updated(link)) => return Ok(*link),
                Ok(Update::NotFound) => return Err(ServiceError::NotFound),
                // Reading again tells whether it was deleted, and which version it has by now.
                Ok(Update::Conflict { .. }) => {}
                Err(error) if is_unknown(&error) => unknown = Some((version, change, error)),
                Err(error) => return Err(first_unknown(unknown, error)),
            }
        }
        Err(unknown.map_or_else(|| overloaded("a link was changed by others too often"), |(.., error)| error.into()))
    }
}

/// A change whose outcome is unknown, and how that was told.
type Unknown = (Version, LinkChange, StoreError);

/// What is answered when a round ends with `error`: nothing is known of an
/// earlier one of unknown outcome, whatever a later one is refused for.
fn first_unknown(unknown: Option<Unknown>, error: StoreError) -> ServiceError {
    unknown.map_or(error, |(.., unknown)| unknown).into()
}

/// Whether `link` is what `change` makes of `version`.
fn is_result(link: &Link, version: Version, change: &LinkChange) -> bool {
    link.version == version.next() && LinkChange::of(link) == *change
}

/// Whether `link` is as `change` wants it already; then it keeps its version.
fn changes_nothing(link: &Link, change: &LinkChange) -> bool {
    LinkChange { updated_at: link.updated_at, ..change.clone() } == LinkChange::of(link)
}

/// Only an administrator blocks a link, or lifts that.
fn check_state(caller: &Caller, current: LinkState, wanted: Option<LinkState>) -> Result<(), ServiceError> {
    let Some(wanted) = wanted else { return Ok(()) };
    if wanted == LinkState::Deleted {
        let detail = "must be active, disabled or blocked; links are deleted by DELETE".to_owned();
        return refuse([Fault { field: "state", code: "unknown_state", detail }]);
    }
    if [current, wanted].contains(&LinkState::Blocked) && caller.role != Role::Admin {
        return Err(ServiceError::Forbidden);
    }
    Ok(())
}

impl Patch {
    fn apply(&self, link: &Link, now: Timestamp) -> LinkChange {
        let kept = LinkChange::of(link);
        LinkChange {
            target: self.target.clone().unwrap_or(kept.target),
            title: self.title.clone().unwrap_or(kept.title),
            tags: self.tags.clone().unwrap_or(kept.tags),
            state: self.state.unwrap_or(kept.state),
            expires_at: self.expires_at.unwrap_or(kept.expires_at),
            valid_from: self.valid_from.unwrap_or(kept.valid_from),
            // The clock may have stepped back; a link's history doesn't.
            updated_at: now.max(kept.updated_at),
        }
    }

    fn check_times(&self, change: &LinkChange, now: Timestamp) -> Result<(), ServiceError> {
        let touched = self.expires_at.is_some() || self.valid_from.is_some();
        let expired = self.expires_at.and_then(|expires_at| expired_fault(expires_at, now));
        let order = if touched { order_fault(change.valid_from, change.expires_at) } else { None };
        refuse(expired.into_iter().chain(order))
    }
}
