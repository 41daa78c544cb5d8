//! The least version of a code that may be served: what this process
//! acknowledged or served already, also after memory has forgotten the link.
//!
//! One replica alone may answer with any version that ever was. A quorum answers
//! with what was acknowledged, at least; but it may answer with less than one
//! replica showed, for a write that reached that one alone has not happened yet,
//! and may never. So two versions are kept apart: *known* (acknowledged, or read
//! at a quorum) and *seen* (anything that was served).
//!
//! The first version is not noted, since nothing is older. So the map holds
//! edited links only. It is bounded by number; beyond, the coldest are evicted,
//! and an outdated answer for those is judged by the link in memory alone. An entry takes
//! about 150 bytes. Nothing expires: a store that is set back to an older state,
//! as from a backup, needs its servers started again.

use quick_cache::sync::Cache;
use terse_core::{ShortCode, Version};

/// Less than any version.
const NOTHING: Version = Version(0);

/// The versions below which answers are outdated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Least {
    /// The newest that is certain to be in the store.
    pub known: Version,
    /// The newest that was served; never below `known`.
    pub seen: Version,
}

/// The least version by code.
pub(crate) struct LeastVersions(Cache<ShortCode, Least>);

impl LeastVersions {
    /// An empty map of at most `max` codes.
    pub(crate) fn new(max: usize) -> Self {
        Self(Cache::new(max))
    }

    /// The least versions of `code`; below all versions if none is noted.
    pub(crate) fn get(&self, code: &str) -> Least {
        self.0.get(code).unwrap_or(Least { known: NOTHING, seen: NOTHING })
    }

    /// Notes that `version` of `code` was acknowledged, or read at a quorum.
    pub(crate) fn know(&self, code: &ShortCode, version: Version) {
        self.raise(code, Least { known: version, seen: version });
    }

    /// Notes that `version` of `code` was shown by something less than a quorum.
    pub(crate) fn see(&self, code: &ShortCode, version: Version) {
        self.raise(code, Least { known: NOTHING, seen: version });
    }

    fn raise(&self, code: &ShortCode, to: Least) {
        if to.seen <= Version::FIRST {
            return;
        }
        let now = self.get(code.as_str());
        let raised = Least { known: now.known.max(to.known), seen: now.seen.max(to.seen) };
        if raised != now {
            self.0.insert(code.clone(), raised);
        }
    }

    /// How many codes are noted.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use terse_testkit::links::code;

    use super::*;

    fn least(known: u64, seen: u64) -> Least {
        Least { known: Version(known), seen: Version(seen) }
    }

    #[test]
    fn versions_only_grow_and_what_is_known_was_seen() {
        let versions = LeastVersions::new(10);
        assert_eq!(versions.get("abc"), least(0, 0));
        versions.see(&code("abc"), Version(3));
        assert_eq!(versions.get("abc"), least(0, 3));
        versions.know(&code("abc"), Version(2));
        assert_eq!(versions.get("abc"), least(2, 3));
        versions.see(&code("abc"), Version(2));
        versions.know(&code("abc"), Version(1));
        assert_eq!(versions.get("abc"), least(2, 3));
        versions.know(&code("abc"), Version(4));
        assert_eq!(versions.get("abc"), least(4, 4));
        assert_eq!(versions.get("Abc"), least(0, 0));
    }

    #[test]
    fn the_first_version_takes_no_room() {
        let versions = LeastVersions::new(10);
        versions.know(&code("abc"), Version::FIRST);
        versions.see(&code("abc"), Version::FIRST);
        assert_eq!(versions.len(), 0);
    }

    #[test]
    fn beyond_the_bound_the_coldest_are_evicted() {
        let versions = LeastVersions::new(1_000);
        versions.know(&code("warm"), Version(2));
        for n in 0..20_000 {
            versions.know(&code(&format!("code{n}")), Version(2));
            assert_eq!(versions.get("warm"), least(2, 2), "after {n} others");
        }
        assert!((900..=1_000).contains(&versions.len()), "{} codes", versions.len());
    }
}
