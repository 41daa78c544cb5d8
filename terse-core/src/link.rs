//! A link, and what of it a redirect needs.

use crate::{Owner, ShortCode, TargetUrl, Timestamp};

/// How often a link has been written: 1 when created, one more with each edit.
/// It is the `ETag` of the API and the guard of every conditional write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

impl Version {
    /// The version of a link that was just created.
    pub const FIRST: Self = Self(1);

    /// The version after one more edit.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Whether a link redirects, as far as people decide it. Expiry is a matter of time and not kept here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkState {
    /// Redirects.
    Active,
    /// Switched off by its owner: 410.
    Disabled,
    /// Refused by an administrator: 451.
    Blocked,
    /// Deleted: 410 as a redirect, unknown to the API. The row stays, so that
    /// the code is never given to another link.
    Deleted,
}

impl LinkState {
    /// The word for it in the API and in every store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Disabled => "disabled",
            Self::Blocked => "blocked",
            Self::Deleted => "deleted",
        }
    }

    /// The state that `word` stands for, if any.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Active, Self::Disabled, Self::Blocked, Self::Deleted].into_iter().find(|state| state.as_str() == word)
    }
}

/// A link's title: 1 to 200 characters, none of them a control character.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Title(String);

/// A link's tags: up to 20 distinct ones, each 1 to 50 characters without control characters, in the order given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tags(Vec<String>);

/// A title or the tags are out of bounds. The text says how, for the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LabelError(&'static str);

impl Title {
    /// Most characters of a title.
    pub const MAX_CHARS: usize = 200;

    /// Checks `text` as a title.
    ///
    /// # Errors
    /// [`LabelError`] when it is empty, too long or holds a control character.
    pub fn parse(text: &str) -> Result<Self, LabelError> {
        if text.is_empty() {
            return Err(LabelError("must not be empty; leave it out or send null"));
        }
        if text.chars().count() > Self::MAX_CHARS {
            return Err(LabelError("is longer than 200 characters"));
        }
        if text.chars().any(char::is_control) {
            return Err(LabelError("holds a control character"));
        }
        Ok(Self(text.to_owned()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Tags {
    /// Most tags of a link.
    pub const MAX: usize = 20;
    /// Most characters of a tag.
    pub const MAX_CHARS: usize = 50;

    /// Checks `tags`; one given twice is kept once.
    ///
    /// # Errors
    /// [`LabelError`] when there are too many, or one is empty, too long or holds a control character.
    pub fn parse<S: AsRef<str>>(tags: &[S]) -> Result<Self, LabelError> {
        let mut kept: Vec<String> = Vec::new();
        for tag in tags.iter().map(AsRef::as_ref) {
            if tag.is_empty() {
                return Err(LabelError("holds an empty tag"));
            }
            if tag.chars().count() > Self::MAX_CHARS {
                return Err(LabelError("holds a tag longer than 50 characters"));
            }
            if tag.chars().any(char::is_control) {
                return Err(LabelError("holds a control character"));
            }
            if !kept.iter().any(|k| k == tag) {
                if kept.len() == Self::MAX {
                    return Err(LabelError("holds more than 20 tags"));
                }
                kept.push(tag.to_owned());
            }
        }
        Ok(Self(kept))
    }

    /// The tags in their order.
    #[must_use]
    pub fn as_slice(&self) -> &[String] {
        &self.0
    }
}

/// A short code and all that is kept under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its code; belongs to this link for ever.
    pub code: ShortCode,
    /// Where it leads.
    pub target: TargetUrl,
    /// An optional title.
    pub title: Option<Title>,
    /// Its tags.
    pub tags: Tags,
    /// Whether it redirects.
    pub state: LinkState,
    /// Who created it.
    pub owner: Owner,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last written.
    pub updated_at: Timestamp,
    /// From when on it answers 410.
    pub expires_at: Option<Timestamp>,
    /// Until when it answers 404.
    pub valid_from: Option<Timestamp>,
    /// How often it was written.
    pub version: Version,
}

impl Link {
    /// What a redirect needs of this link.
    #[must_use]
    pub fn resolution(&self) -> Resolution {
        Resolution {
            target: self.target.clone(),
            state: self.state,
            expires_at: self.expires_at,
            valid_from: self.valid_from,
            version: self.version,
        }
    }
}

/// What a redirect needs of a link; the unit of every cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// Where it leads.
    pub target: TargetUrl,
    /// Whether it redirects.
    pub state: LinkState,
    /// From when on it answers 410.
    pub expires_at: Option<Timestamp>,
    /// Until when it answers 404.
    pub valid_from: Option<Timestamp>,
    /// How often the link was written.
    pub version: Version,
}

/// What a redirect answers for a link at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Redirect to its target.
    Found,
    /// Not valid yet: as if there were no such link.
    Missing,
    /// Expired, disabled or deleted.
    Gone,
    /// Blocked by an administrator.
    Blocked,
}

impl Verdict {
    /// What a link of this state and validity answers at `now`. `valid_from`
    /// and `expires_at` are the first instants of being valid and expired.
    #[must_use]
    pub fn at(now: Timestamp, state: LinkState, valid_from: Option<Timestamp>, expires_at: Option<Timestamp>) -> Self {
        match state {
            LinkState::Blocked => Self::Blocked,
            LinkState::Disabled | LinkState::Deleted => Self::Gone,
            LinkState::Active if expires_at.is_some_and(|at| now >= at) => Self::Gone,
            LinkState::Active if valid_from.is_some_and(|at| now < at) => Self::Missing,
            LinkState::Active => Self::Found,
        }
    }
}

impl Resolution {
    /// What this link answers at `now`.
    #[must_use]
    pub fn verdict(&self, now: Timestamp) -> Verdict {
        Verdict::at(now, self.state, self.valid_from, self.expires_at)
    }
}
