//! The codes that changed within the last half hour, and the least version of
//! each that may be served or taken from the shared cache.
//!
//! A mark says that no version of the code below its own may be served, if the
//! edit that it belongs to happens. It need not: so a marked code *settles*. A
//! version at or above the mark settles it at once, and so does a look-up in
//! the store that began when the edit was not to be expected any more. Then the least
//! version is what was found, be it less. A mark of the first version says that
//! the code may have changed to nobody knows what: it settles by time alone, and
//! nothing of the shared cache is taken until then.
//!
//! That an edit is not to be expected any more is no proof: a disk that hangs in
//! the middle of a commit, or a node that is stopped in the middle of a round,
//! may go on whenever it likes, and a file tells nobody of it. So what was
//! announced and not found stays noted as *unmet*: what is older is kept in
//! memory for a moment only ([`UNMET_FRESH_MS`](super::UNMET_FRESH_MS)), and neither taken from the shared
//! cache nor given to it, until the code's note is forgotten.
//!
//! Bound: the number of codes. Beyond, the one that changed longest ago is
//! forgotten, and if it is younger than [`REMEMBERED_MS`], the shared cache is not
//! to be trusted for as long: it may hold what nobody remembers to be outdated.

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;
use terse_core::{ShortCode, Version};

use super::REMEMBERED_MS;

/// What is remembered of a code that changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Marked {
    least: Version,
    /// What was announced and not found when it was settled by time; below all versions = nothing.
    unmet: Version,
    /// Changed to a version that nobody knows.
    unknown: bool,
    /// From when on a look-up in the store tells the truth; 0 = it is settled.
    settles_at_ms: u64,
    noted_ms: u64,
}

impl Marked {
    /// Whether `version` is at least what the change made.
    fn reached_by(&self, version: Version) -> bool {
        !self.unknown && version >= self.least
    }

    /// What is unmet of it once `version` is certain.
    fn unmet_at(&self, version: Version) -> Version {
        if version < self.newest() { self.newest() } else { NOTHING }
    }

    /// The newest version that was announced or found.
    fn newest(&self) -> Version {
        self.least.max(self.unmet)
    }
}

/// Less than any version.
const NOTHING: Version = Version(0);

/// Whether what a look-up in the store found may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// It may be outdated any moment.
    No,
    /// An edit that was announced may have been given up, or be stuck.
    Briefly,
    /// As long as any link.
    Yes,
}

#[derive(Default)]
struct Notes {
    by_code: HashMap<ShortCode, Marked>,
    /// When codes were noted, oldest first; those of codes noted again since are void.
    order: VecDeque<(u64, ShortCode)>,
    /// The shared cache is not to be trusted before this.
    bypass_until_ms: u64,
    bypasses: u64,
}

/// Least versions of codes that changed.
pub(crate) struct MarkedCodes {
    notes: Mutex<Notes>,
    max: usize,
    settle_ms: u64,
}

impl MarkedCodes {
    /// Remembers at most `max` codes; an edit may happen until `settle_ms` after its mark was seen.
    pub(crate) fn new(max: usize, settle_ms: u64) -> Self {
        Self { notes: Mutex::default(), max, settle_ms }
    }

    /// Notes a mark of `code` that was seen at `now_ms`.
    pub(crate) fn mark(&self, code: &ShortCode, version: Version, now_ms: u64) {
        let settles_at_ms = now_ms.saturating_add(self.settle_ms);
        let unknown = version <= Version::FIRST;
        self.note(code, now_ms, |known| match known {
            None => Marked { least: version, unmet: NOTHING, unknown, settles_at_ms, noted_ms: now_ms },
            Some(known) if unknown => Marked { unknown, settles_at_ms, ..known },
            Some(known) if version > known.least => Marked { least: version, settles_at_ms, ..known },
            Some(known) if known.settles_at_ms > 0 => Marked { settles_at_ms, ..known },
            Some(known) => known,
        });
    }

    /// Notes that this process itself changed `code` to `version`, for sure.
    pub(crate) fn acknowledge(&self, code: &ShortCode, version: Version, now_ms: u64) {
        self.note(code, now_ms, |known| match known {
            Some(known) if version < known.least => known,
            Some(known) if known.unknown => Marked { least: version, ..known },
            known => {
                let unmet = known.map_or(NOTHING, |known| known.unmet_at(version));
                Marked { least: version, unmet, unknown: false, settles_at_ms: 0, noted_ms: now_ms }
            }
        });
    }

    /// Whether `version` of `code`, as a look-up in the store that began at
    /// `began_ms` found it, may be kept. If so, and the code was not settled, it is now.
    pub(crate) fn settle(&self, code: &ShortCode, version: Version, began_ms: u64) -> Keep {
        let mut notes = self.notes.lock();
        let Some(marked) = notes.by_code.get_mut(code) else { return Keep::Yes };
        if !marked.reached_by(version) && began_ms < marked.settles_at_ms {
            return Keep::No;
        }
        let unmet = marked.unmet_at(version);
        *marked = Marked { least: version, unmet, unknown: false, settles_at_ms: 0, ..*marked };
        if unmet > NOTHING { Keep::Briefly } else { Keep::Yes }
    }

    /// Whether no change of `code` is noted that can still happen after `began_ms`.
    pub(crate) fn is_settled(&self, code: &ShortCode, began_ms: u64) -> bool {
        self.notes.lock().by_code.get(code).is_none_or(|marked| began_ms >= marked.settles_at_ms)
    }

    /// The least version of `code` that may be taken from the shared cache; `None` = none may.
    pub(crate) fn least_shared(&self, code: &ShortCode) -> Option<Version> {
        match self.notes.lock().by_code.get(code) {
            Some(marked) => (!marked.unknown).then_some(marked.newest()),
            None => Some(NOTHING),
        }
    }

    /// The least version of `code` that may be served in need; below all versions if it didn't change.
    pub(crate) fn least(&self, code: &str) -> Version {
        self.notes.lock().by_code.get(code).map_or(NOTHING, |marked| marked.least)
    }

    /// Whether the shared cache is to be bypassed at `now_ms`.
    pub(crate) fn bypassed(&self, now_ms: u64) -> bool {
        now_ms < self.notes.lock().bypass_until_ms
    }

    /// How often that began.
    pub(crate) fn bypasses(&self) -> u64 {
        self.notes.lock().bypasses
    }

    /// How many codes are remembered.
    pub(crate) fn len(&self) -> usize {
        self.notes.lock().by_code.len()
    }

    fn note(&self, code: &ShortCode, now_ms: u64, noted: impl FnOnce(Option<Marked>) -> Marked) {
        let mut notes = self.notes.lock();
        notes.forget_old(now_ms);
        let known = notes.by_code.get(code).copied();
        if known.is_none() && notes.by_code.len() >= self.max {
            notes.forget_oldest(now_ms);
        }
        if self.max == 0 {
            return notes.bypass(now_ms);
        }
        notes.by_code.insert(code.clone(), Marked { noted_ms: now_ms, ..noted(known) });
        if known.is_none_or(|known| known.noted_ms != now_ms) {
            notes.order.push_back((now_ms, code.clone()));
        }
        if notes.order.len() > 2 * self.max {
            notes.drop_void();
        }
    }
}

impl Notes {
    /// Whether a place in the order is that of the code's last change.
    fn stands(&self, noted_ms: u64, code: &ShortCode) -> bool {
        self.by_code.get(code).is_some_and(|marked| marked.noted_ms == noted_ms)
    }

    fn forget_old(&mut self, now_ms: u64) {
        while self.order.front().is_some_and(|(noted_ms, _)| noted_ms.saturating_add(REMEMBERED_MS) <= now_ms) {
            self.forget_first();
        }
    }

    /// Forgets the code that changed longest ago. It is young, or it would be forgotten by now.
    fn forget_oldest(&mut self, now_ms: u64) {
        while let Some(forgotten) = self.forget_first() {
            if forgotten {
                return self.bypass(now_ms);
            }
        }
    }

    /// Takes the first place of the order away, and its code unless that changed
    /// again; whether it did forget one. `None` = the order is empty.
    fn forget_first(&mut self) -> Option<bool> {
        let (noted_ms, code) = self.order.pop_front()?;
        let stands = self.stands(noted_ms, &code);
        if stands {
            self.by_code.remove(&code);
        }
        Some(stands)
    }

    fn drop_void(&mut self) {
        let mut order = std::mem::take(&mut self.order);
        order.retain(|(noted_ms, code)| self.stands(*noted_ms, code));
        self.order = order;
    }

    fn bypass(&mut self, now_ms: u64) {
        if now_ms >= self.bypass_until_ms {
            self.bypasses += 1;
            tracing::warn!("more codes change than are remembered, so the shared cache is not used for half an hour");
        }
        self.bypass_until_ms = now_ms.saturating_add(REMEMBERED_MS);
    }
}

#[cfg(test)]
mod tests {
    use terse_testkit::links::code;

    use super::*;

    const SETTLE_MS: u64 = 5_000;

    fn codes(max: usize) -> MarkedCodes {
        MarkedCodes::new(max, SETTLE_MS)
    }

    #[test]
    fn a_mark_is_settled_by_its_version_at_once_or_by_any_in_time() {
        let marked = codes(10);
        marked.mark(&code("abc"), Version(2), 1_000);
        assert_eq!(marked.settle(&code("abc"), Version(1), 5_999), Keep::No);
        assert_eq!(marked.least_shared(&code("abc")), Some(Version(2)));
        assert_eq!(marked.settle(&code("abc"), Version(1), 6_000), Keep::Briefly, "as if it never happened");
        assert_eq!(marked.least("abc"), Version(1), "so it may be served in need");
        marked.mark(&code("abc"), Version(3), 7_000);
        assert_eq!(marked.settle(&code("abc"), Version(4), 7_000), Keep::Yes);
        assert_eq!((marked.least("abc"), marked.least("other")), (Version(4), Version(0)));
    }

    #[test]
    fn a_mark_that_comes_again_after_it_was_settled_changes_nothing() {
        let marked = codes(10);
        marked.acknowledge(&code("abc"), Version(3), 0);
        marked.mark(&code("abc"), Version(3), 10);
        marked.mark(&code("abc"), Version(2), 10);
        assert!(marked.is_settled(&code("abc"), 10));
        assert_eq!(marked.least_shared(&code("abc")), Some(Version(3)));
        marked.acknowledge(&code("abc"), Version(2), 20);
        assert_eq!(marked.least("abc"), Version(3));
    }

    #[test]
    fn an_unknown_change_is_settled_by_time_alone() {
        let marked = codes(10);
        marked.acknowledge(&code("abc"), Version(3), 0);
        marked.mark(&code("abc"), Version::FIRST, 100);
        assert_eq!((marked.least_shared(&code("abc")), marked.least("abc")), (None, Version(3)));
        assert_eq!(marked.settle(&code("abc"), Version(9), 5_099), Keep::No);
        assert_eq!(marked.settle(&code("abc"), Version(4), 5_100), Keep::Yes);
        assert_eq!(marked.least_shared(&code("abc")), Some(Version(4)));
    }

    #[test]
    fn what_was_announced_and_not_found_stays_unmet_until_it_shows() {
        let marked = codes(10);
        marked.mark(&code("abc"), Version(3), 0);
        for _ in 0..2 {
            assert_eq!(marked.settle(&code("abc"), Version(2), 5_000), Keep::Briefly);
            assert_eq!(marked.least_shared(&code("abc")), Some(Version(3)), "the shared cache may have it from before");
        }
        marked.acknowledge(&code("abc"), Version(2), 5_500);
        assert_eq!(marked.settle(&code("abc"), Version(2), 5_500), Keep::Briefly, "a conflict proves nothing");
        marked.mark(&code("abc"), Version(3), 6_000);
        assert_eq!(marked.settle(&code("abc"), Version(2), 6_000), Keep::No, "it is expected again");
        assert_eq!(marked.settle(&code("abc"), Version(3), 6_000), Keep::Yes);
        assert_eq!(marked.settle(&code("abc"), Version(3), 60_000), Keep::Yes);
    }

    #[test]
    fn an_acknowledged_version_meets_what_was_announced() {
        let marked = codes(10);
        marked.mark(&code("abc"), Version(2), 0);
        assert_eq!(marked.settle(&code("abc"), Version(1), 5_000), Keep::Briefly);
        marked.acknowledge(&code("abc"), Version(2), 6_000);
        assert_eq!(marked.settle(&code("abc"), Version(2), 6_000), Keep::Yes);
    }

    #[test]
    fn a_change_is_forgotten_after_half_an_hour_from_its_last_mark() {
        let marked = codes(10);
        marked.mark(&code("abc"), Version(2), 0);
        marked.mark(&code("abc"), Version(3), 1_000);
        marked.mark(&code("one"), Version(2), REMEMBERED_MS);
        assert_eq!((marked.len(), marked.least("abc")), (2, Version(3)));
        marked.mark(&code("two"), Version(2), REMEMBERED_MS + 1_000);
        assert_eq!((marked.len(), marked.least("abc"), marked.bypasses()), (2, Version(0), 0));
    }

    #[test]
    fn beyond_the_bound_the_oldest_goes_and_the_shared_cache_is_bypassed() {
        let marked = codes(2);
        marked.mark(&code("one"), Version(2), 0);
        marked.mark(&code("two"), Version(2), 1);
        marked.mark(&code("one"), Version(3), 2);
        assert!(!marked.bypassed(2));
        marked.mark(&code("three"), Version(2), 3);
        assert_eq!((marked.len(), marked.least("one"), marked.least("two")), (2, Version(3), Version(0)));
        assert!(marked.bypassed(3 + REMEMBERED_MS - 1) && !marked.bypassed(3 + REMEMBERED_MS));
        marked.mark(&code("four"), Version(2), 4);
        assert_eq!(marked.bypasses(), 1, "it was bypassed already");
    }

    #[test]
    fn a_code_that_changes_all_the_time_takes_a_bounded_room() {
        let marked = codes(4);
        for n in 0..1_000 {
            marked.mark(&code("hot"), Version(2 + n), n);
        }
        assert!(marked.notes.lock().order.len() <= 9);
        assert_eq!((marked.len(), marked.bypasses()), (1, 0));
        let none = codes(0);
        none.mark(&code("abc"), Version(2), 0);
        assert_eq!((none.len(), none.bypassed(0)), (0, true));
    }
}
