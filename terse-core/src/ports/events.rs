//! The port to whoever wants to know what happened to links.
//!
//! An event must not be lost when the process dies between a change and telling of it. So what is about to be tried is
//! noted first, durably: an [`Intent`]. Once it is known what became of it, it is *settled*; whoever finds one that is
//! not reads the link back. [`TellingWriter`](crate::shorten::TellingWriter) does both around each write.

use async_trait::async_trait;

use crate::{Link, LinkState, ShortCode, Version};

/// What happened to a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkEvent<'a> {
    /// It was made.
    Created(&'a Link),
    /// It was edited, or its state was changed.
    Changed(&'a Link),
    /// It was deleted; the link as it stands now.
    Deleted(&'a Link),
}

impl<'a> LinkEvent<'a> {
    /// What a change was that made `link` as it is.
    #[must_use]
    pub fn of_change(link: &'a Link) -> Self {
        if link.state == LinkState::Deleted { Self::Deleted(link) } else { Self::Changed(link) }
    }

    /// The link, as it stands since then.
    #[must_use]
    pub const fn link(&self) -> &'a Link {
        match self {
            Self::Created(link) | Self::Changed(link) | Self::Deleted(link) => link,
        }
    }
}

/// What is about to be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent<'a> {
    /// To create this link.
    Create(&'a Link),
    /// To give the link `code` this version.
    Change {
        /// Which link.
        code: &'a ShortCode,
        /// The version that it gets.
        version: Version,
    },
}

/// Names an intent that was noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IntentId(pub u64);

/// What became of an intent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled<'a> {
    /// It was done.
    Happened(LinkEvent<'a>),
    /// It certainly was not done.
    Nothing,
    /// It may have been done, or be done yet; the link has to be read to know.
    Unknown,
}

/// Tells what happens to links, each change at least once.
#[async_trait]
pub trait LinkEvents: Send + Sync + 'static {
    /// Notes durably that `intent` is about to be tried. `None` = it could not be noted, and was counted: what is tried
    /// is tried all the same, and is not told. It waits for a disk, with a bound, and never for who is told.
    async fn intend(&self, intent: Intent<'_>) -> Option<IntentId>;

    /// Tells what became of the intent `id`, once. It doesn't wait.
    fn settle(&self, id: IntentId, outcome: Settled<'_>);
}
