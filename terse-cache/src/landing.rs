//! How flights end: what of their answers is true enough to be served, to be
//! kept in memory, and to be shared.
//!
//! All of it happens under the lock of the code's stripe, so nothing changes
//! between the judgement and what is done after it.

use std::sync::Arc;

use terse_core::ports::{Lookup, StoreError, Tier};
use terse_core::{Resolution, ShortCode, Version};

use crate::ReadThrough;
use crate::flight::{Answer, Flight};
use crate::marks::Keep;
use crate::read_through::unavailable;
use crate::shared::EVERY_VERSION_IS_OLDER;

/// What became of a look-up's answer.
pub(crate) struct Landed {
    /// What those who wait are told.
    pub answer: Answer,
    /// The link, if the shared cache shall have it.
    pub to_share: Option<Resolution>,
}

/// What the shared cache has may be outdated.
pub(crate) struct Untrusted {
    /// What it has is outdated below this.
    pub least: Version,
}

/// The end of a flight.
struct Landing {
    /// Whether no change of the code was seen since it began.
    current: bool,
    may_store: bool,
    began_ms: u64,
}

impl ReadThrough {
    /// Whether the shared cache may be asked for `code`: its shard's changes are
    /// known, none of those that outdate what it has was forgotten, and nobody
    /// is in doubt about the code.
    pub(crate) fn asks_shared(&self, code: &ShortCode) -> bool {
        let now_ms = self.clock.monotonic_ms();
        self.memory.knows_changes(code, now_ms)
            && self.memory.least_shared(code).is_some()
            && !self.stripes.lock(code).in_doubt(code, now_ms)
    }

    /// Whether what the shared cache has of `code` may be served as of now, if it has that version.
    pub(crate) fn trusts(&self, code: &ShortCode, version: Version) -> bool {
        self.asks_shared(code) && self.memory.least_shared(code).is_some_and(|least| version >= least)
    }

    /// Ends `flight` with what the shared cache has, if that may be trusted;
    /// else the flight goes on.
    pub(crate) fn land_shared(
        &self,
        code: &ShortCode,
        flight: &Arc<Flight>,
        began_ms: u64,
        link: &Resolution,
    ) -> Result<Lookup, Untrusted> {
        let mut stripe = self.stripes.lock(code);
        let now_ms = self.clock.monotonic_ms();
        let least = self.memory.least_shared(code).unwrap_or(EVERY_VERSION_IS_OLDER);
        let sure = self.memory.knows_changes(code, now_ms) && !stripe.in_doubt(code, now_ms);
        if !sure || link.version < least || !stripe.is_current(code, flight) {
            return Err(Untrusted { least });
        }
        stripe.end(code, flight);
        self.memory.put_shared(code, link, began_ms);
        Ok(Lookup { link: Some(link.clone()), tier: Tier::L2 })
    }

    /// Ends `flight` with what the inner reader brought: stores that if it may,
    /// and tells the newest that is known.
    pub(crate) fn land(&self, code: &ShortCode, flight: &Arc<Flight>, began_ms: u64, answer: Answer) -> Landed {
        let mut stripe = self.stripes.lock(code);
        let now_ms = self.clock.monotonic_ms();
        let current = stripe.end(code, flight);
        let found = match answer {
            Ok(found) => found,
            Err(error) => return Landed { answer: Err(error), to_share: None },
        };
        let newest = self.memory.newest(code);
        let landing = Landing { current, may_store: current && !stripe.in_doubt(code, now_ms), began_ms };
        let mut kept = false;
        let answer = match &found.link {
            None => self.land_missing(code, found, &landing),
            Some(link) if found.tier == Tier::Stale => self.land_outdated(code, link, &landing),
            Some(_) => self.land_sure(code, found, &landing, &mut kept),
        };
        let served = answer.as_ref().ok().and_then(|found| found.link.as_ref());
        // Whatever flies now began before this was served, and may bring less.
        if !current && served.is_some_and(|link| link.version > newest) {
            stripe.detach(code);
        }
        let shares = kept && self.shared().is_some() && self.memory.knows_changes(code, now_ms);
        let to_share = served.filter(|_| shares).cloned();
        Landed { answer, to_share }
    }

    /// Judges that there is no such link, which is sure. Links never go away.
    fn land_missing(&self, code: &ShortCode, found: Lookup, landing: &Landing) -> Answer {
        let least = self.memory.least(code).seen;
        if landing.current && least > Version::FIRST {
            return Err(went_back(code, None, least));
        }
        if landing.may_store && self.memory.is_settled(code, landing.began_ms) {
            self.memory.put_negative(code, landing.began_ms);
        }
        Ok(found)
    }

    /// Judges a link as it is at a quorum. That never shows less than it did
    /// before, unless it was asked before; but it may show less than one replica
    /// did, or than a mark says, for a write that hasn't happened yet: then it is right, but not to be kept.
    fn land_sure(&self, code: &ShortCode, found: Lookup, landing: &Landing, kept: &mut bool) -> Answer {
        let Some(link) = &found.link else { return Ok(found) };
        if let Some(newer) = self.newer(code, link) {
            return Ok(newer);
        }
        let least = self.memory.least(code);
        if landing.current && link.version < least.known {
            return Err(went_back(code, Some(link.version), least.known));
        }
        if link.version < least.seen {
            return Ok(found);
        }
        if !landing.may_store {
            self.memory.know(code, link.version);
            return Ok(found);
        }
        match self.memory.settle(code, link.version, landing.began_ms) {
            Keep::No => {}
            Keep::Briefly => self.memory.put_briefly(code, link, landing.began_ms),
            Keep::Yes => {
                self.memory.put(code, link, landing.began_ms);
                *kept = true;
            }
        }
        Ok(found)
    }

    /// Judges what the inner reader itself calls stale: refused if a newer
    /// version was acknowledged, announced or served, so that no edit or deletion
    /// is undone, and never kept as fresh.
    fn land_outdated(&self, code: &ShortCode, link: &Resolution, landing: &Landing) -> Answer {
        if !self.memory.is_newest(code, link.version) {
            let newer = self.memory.stale(code.as_str(), self.clock.monotonic_ms());
            return newer.ok_or_else(|| unavailable("only an outdated version is in reach"));
        }
        self.memory.see(code, link.version);
        if landing.may_store {
            self.memory.put_outdated(code, link.clone(), landing.began_ms);
        }
        Ok(Lookup { link: Some(link.clone()), tier: Tier::Stale })
    }
}

/// The store lost what it acknowledged.
fn went_back(code: &ShortCode, version: Option<Version>, known: Version) -> StoreError {
    let version = version.map_or(0, |version| version.0);
    tracing::error!(%code, version, known = known.0, "the store answered with less than it acknowledged");
    unavailable("the store answered with less than it acknowledged")
}
