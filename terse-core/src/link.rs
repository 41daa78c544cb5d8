//! A link, and what of it a redirect needs.

mod packed;

pub use packed::PackedResolution;

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
    /// Whether what this link answers depends on the time.
    #[must_use]
    pub const fn has_times(&self) -> bool {
        self.expires_at.is_some() || self.valid_from.is_some()
    }

    /// What this link answers at `now`.
    #[must_use]
    pub fn verdict(&self, now: Timestamp) -> Verdict {
        Verdict::at(now, self.state, self.valid_from, self.expires_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::UrlPolicy;

    const STATES: [LinkState; 4] = [LinkState::Active, LinkState::Disabled, LinkState::Blocked, LinkState::Deleted];

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    #[test]
    fn states_are_words_and_back() {
        assert_eq!(STATES.map(LinkState::as_str), ["active", "disabled", "blocked", "deleted"]);
        for state in STATES {
            assert_eq!(LinkState::parse(state.as_str()), Some(state));
        }
        assert_eq!(LinkState::parse("Active"), None);
        assert_eq!(LinkState::parse(""), None);
    }

    #[test]
    fn versions_count_from_one() {
        assert_eq!((Version::FIRST, Version::FIRST.next()), (Version(1), Version(2)));
    }

    #[test]
    fn an_active_link_answers_by_the_time() {
        let verdict = |now| Verdict::at(at(now), LinkState::Active, Some(at(10)), Some(at(20)));
        let verdicts = [0, 9, 10, 19, 20, 30].map(verdict);
        use Verdict::{Found, Gone, Missing};
        assert_eq!(verdicts, [Missing, Missing, Found, Found, Gone, Gone]);
        assert_eq!(Verdict::at(at(5), LinkState::Active, None, None), Found);
    }

    #[test]
    fn an_expired_link_is_gone_even_before_its_begin() {
        assert_eq!(Verdict::at(at(5), LinkState::Active, Some(at(10)), Some(at(3))), Verdict::Gone);
    }

    #[test]
    fn other_states_answer_the_same_at_any_time() {
        for now in [0, 15, 30] {
            let verdict = |state| Verdict::at(at(now), state, Some(at(10)), Some(at(20)));
            assert_eq!(verdict(LinkState::Blocked), Verdict::Blocked);
            assert_eq!(verdict(LinkState::Disabled), Verdict::Gone);
            assert_eq!(verdict(LinkState::Deleted), Verdict::Gone);
        }
    }

    #[test]
    fn a_resolution_holds_what_a_redirect_needs() {
        let link = Link {
            code: ShortCode::parse("abc").unwrap(),
            target: UrlPolicy::new("localhost", false).check("https://example.com/").unwrap(),
            title: None,
            tags: Tags::default(),
            state: LinkState::Active,
            owner: Owner::open(),
            created_at: at(1),
            updated_at: at(2),
            expires_at: Some(at(20)),
            valid_from: Some(at(10)),
            version: Version(3),
        };
        let resolution = link.resolution();
        assert_eq!(resolution.target, link.target);
        assert_eq!((resolution.state, resolution.version), (LinkState::Active, Version(3)));
        assert_eq!((resolution.valid_from, resolution.expires_at), (Some(at(10)), Some(at(20))));
        assert!(resolution.has_times());
        let one_time = [(None, Some(at(10))), (Some(at(20)), None)];
        for (expires_at, valid_from) in one_time {
            assert!(Resolution { expires_at, valid_from, ..resolution.clone() }.has_times());
        }
        assert!(!Resolution { expires_at: None, valid_from: None, ..resolution.clone() }.has_times());
        let verdicts = [5, 15, 25].map(|now| resolution.verdict(at(now)));
        assert_eq!(verdicts, [Verdict::Missing, Verdict::Found, Verdict::Gone]);
    }

    #[test]
    fn titles_are_bounded_in_characters() {
        let longest = "ü".repeat(200);
        for text in ["a", " ", "<b>", "日本", longest.as_str()] {
            assert_eq!(Title::parse(text).unwrap().as_str(), text);
        }
        for text in ["", "a\nb", "\0", "\u{7f}", "\u{85}", &"a".repeat(201)] {
            assert!(Title::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn tags_are_distinct_and_bounded() {
        assert_eq!(Tags::parse(&["b", "a", "b", "A"]).unwrap().as_slice(), ["b", "a", "A"]);
        assert!(Tags::parse::<&str>(&[]).unwrap().as_slice().is_empty());
        let numbered = |count: usize| (0..count).map(|n| n.to_string()).collect::<Vec<_>>();
        assert_eq!(Tags::parse(&numbered(20)).unwrap().as_slice().len(), 20);
        assert!(Tags::parse(&numbered(21)).is_err());
        assert!(Tags::parse(&[numbered(20), numbered(20)].concat()).is_ok(), "repeats don't count");
        assert!(Tags::parse(&["ü".repeat(50)]).is_ok());
        for tag in ["", "a\tb", "\u{9f}", &"a".repeat(51)] {
            let error = Tags::parse(&["good", tag]).unwrap_err();
            assert!(error.to_string().starts_with("holds"), "{error}");
        }
    }
}
