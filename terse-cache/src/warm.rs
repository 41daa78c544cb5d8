//! Which links in memory are the hottest, and how a cache that starts empty is
//! warmed with those of an earlier run.
//!
//! **Heat** is a count of sampled hits, in a table beside the links: a hit of a
//! link writes to nothing but a counter of its own thread, and each sixteenth
//! adds one to two cells chosen by the code. So a celebrity's heat is no cache
//! line that every worker writes at every hit, an entry is no bigger for its
//! heat, and a link that was evicted and comes back is not cold. Two codes that
//! meet in a cell can only make each other look hotter; the lesser of its two
//! cells is a code's heat, and only that is added to (a count-min sketch with
//! conservative update: Estan and Varghese, 2002). Heat halves now and then,
//! so that what was hot once doesn't stay so.
//!
//! **Warming** is one look-up per code through the ring, with all of its rules.
//! It ends when memory is nine tenths full, so it evicts nothing that is asked
//! for, and it leaves no negative entry behind.
//!
//! Bounds: [`MAX_CELLS`] of four bytes; a list of the hottest is as long as its
//! caller says, and makes traffic wait for one entry at a time.

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU32, Ordering};

use terse_core::ShortCode;
use terse_core::ports::{LinkReader, StoreError, StoreErrorKind, Tier};

use crate::ReadThrough;

/// Cells per link that memory may hold: two of each code are seldom both another's.
const CELLS_PER_LINK: usize = 2;
/// Fewest cells of a table, 4 KiB.
const MIN_CELLS: usize = 1 << 10;
/// Most cells of a table, 16 MiB. With more links than that, some look hotter than they are.
const MAX_CELLS: usize = 1 << 22;
/// One hit of this many is counted.
const SAMPLE: u32 = 16;
/// 2³² divided by the golden ratio: added up, its multiples fall evenly on all
/// numbers and in step with no pattern of requests, so no code escapes the sample.
const GOLDEN_STEP: u32 = 0x9E37_79B9;
/// Memory is warmed up to this part of its bound.
const WARM_TENTHS: u64 = 9;

thread_local! {
    /// Where this thread's sampling is.
    static TURN: Cell<u32> = const { Cell::new(0) };
}

/// Whether this hit is one to count.
fn sampled() -> bool {
    TURN.with(|turn| {
        let next = turn.get().wrapping_add(GOLDEN_STEP);
        turn.set(next);
        next <= u32::MAX / SAMPLE
    })
}

/// A code and how often it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HotCode {
    /// Sampled hits, halved with age. Says more or less than another's, nothing by itself.
    pub heat: u32,
    /// The code.
    pub code: ShortCode,
}

/// What became of [`ReadThrough::warm`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Warmed {
    /// Its link was read.
    Read,
    /// Its link was in memory.
    Known,
    /// There is no such link; nothing is remembered of that.
    Gone,
    /// Memory has no room for links that nobody asked for; nothing was read.
    Full,
}

/// The heat of codes.
pub(crate) struct Heat {
    cells: Box<[AtomicU32]>,
}

impl Heat {
    /// No heat, for a memory of up to `max_links` links.
    pub(crate) fn new(max_links: usize) -> Self {
        let wanted = max_links.saturating_mul(CELLS_PER_LINK).clamp(MIN_CELLS, MAX_CELLS);
        Self { cells: (0..wanted.next_power_of_two()).map(|_| AtomicU32::new(0)).collect() }
    }

    /// Notes a hit of `code`. No allocation, no waiting, and mostly nothing at all.
    pub(crate) fn hit(&self, code: &str) {
        if sampled() {
            self.add_one(code);
        }
    }

    /// Two threads that add at once may count one hit: it is a sample anyway.
    fn add_one(&self, code: &str) {
        let cells = self.cells_of(code);
        let heats = cells.map(|cell| cell.load(Ordering::Relaxed));
        let least = heats[0].min(heats[1]);
        for (cell, heat) in cells.into_iter().zip(heats) {
            if heat == least {
                cell.store(least.saturating_add(1), Ordering::Relaxed);
            }
        }
    }

    /// Sees to it that `code` is at least as hot as this.
    fn raise(&self, code: &str, heat: u32) {
        for cell in self.cells_of(code) {
            cell.fetch_max(heat, Ordering::Relaxed);
        }
    }

    fn of(&self, code: &str) -> u32 {
        let [one, other] = self.cells_of(code).map(|cell| cell.load(Ordering::Relaxed));
        one.min(other)
    }

    /// Halves all heat. A hit that is counted meanwhile may be lost.
    fn age(&self) {
        for cell in &self.cells {
            let heat = cell.load(Ordering::Relaxed);
            if heat > 0 {
                cell.store(heat / 2, Ordering::Relaxed);
            }
        }
    }

    fn cells_of(&self, code: &str) -> [&AtomicU32; 2] {
        let mut hasher = DefaultHasher::new();
        code.hash(&mut hasher);
        let hash = hasher.finish();
        // The number of cells is a power of two, at most 2²²: the halves of the hash are independent choices.
        let mask = self.cells.len() - 1;
        [hash as u32, (hash >> 32) as u32].map(|half| &self.cells[half as usize & mask])
    }
}

impl ReadThrough {
    /// Up to `limit` codes whose links are in memory and may still be served,
    /// hottest first. Walks through all of memory, some tens of milliseconds
    /// with 400,000 links, so it is nothing for a web worker; traffic goes on meanwhile.
    #[must_use]
    pub fn hottest(&self, limit: usize) -> Vec<HotCode> {
        let heat = self.memory.heat();
        let mut hottest: BinaryHeap<Reverse<HotCode>> = BinaryHeap::new();
        for code in self.memory.kept(self.clock.monotonic_ms()) {
            let found = Reverse(HotCode { heat: heat.of(code.as_str()), code });
            if hottest.len() < limit {
                hottest.push(found);
            } else if let Some(mut coldest) = hottest.peek_mut()
                && found.0 > coldest.0
            {
                *coldest = found;
            }
        }
        hottest.into_sorted_vec().into_iter().map(|Reverse(hot)| hot).collect()
    }

    /// Halves the heat of all codes.
    pub fn age_heat(&self) {
        self.memory.heat().age();
    }

    /// Reads the link of `hot` ahead of the first who asks for it, as a
    /// look-up of the lowest rank: only while memory has room, and without
    /// leaving a negative entry. A code that is answered has at least its heat of before.
    ///
    /// # Errors
    /// [`StoreError`] as [`resolve`](LinkReader::resolve), and when nothing but
    /// an outdated link is in reach.
    pub async fn warm(&self, hot: &HotCode) -> Result<Warmed, StoreError> {
        if !self.memory.has_room(WARM_TENTHS) {
            return Ok(Warmed::Full);
        }
        let found = self.resolve(&hot.code).await?;
        match (&found.link, found.tier) {
            (None, Tier::L1) => Ok(Warmed::Gone),
            (None, _) => {
                let _stripe = self.stripes.lock(&hot.code);
                self.memory.forget_negative(&hot.code);
                Ok(Warmed::Gone)
            }
            (Some(_), Tier::Stale) => {
                Err(StoreError::new(StoreErrorKind::Unavailable, "only an outdated version is in reach"))
            }
            (Some(_), tier) => {
                self.memory.heat().raise(hot.code.as_str(), hot.heat);
                Ok(if tier == Tier::L1 { Warmed::Known } else { Warmed::Read })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sixteenth_of_the_hits_is_counted() {
        let heat = Heat::new(1_000);
        (0..16_000).for_each(|_| heat.hit("abc"));
        assert!((990..=1_010).contains(&heat.of("abc")), "{}", heat.of("abc"));
        assert_eq!(heat.of("other"), 0);
    }

    #[test]
    fn no_code_escapes_the_sample_by_coming_in_step_with_it() {
        for codes in [2, 8, 16, 32, 34] {
            let heat = Heat::new(1_000);
            (0..16_000).for_each(|_| (0..codes).for_each(|code| heat.hit(&format!("code{code}"))));
            for code in 0..codes {
                let counted = heat.of(&format!("code{code}"));
                assert!((900..=1_100).contains(&counted), "{counted} of 1000 with {codes} codes");
            }
        }
    }

    #[test]
    fn heat_halves_with_age_until_nothing_is_left() {
        let heat = Heat::new(1_000);
        heat.raise("abc", 5);
        heat.raise("abc", 3);
        let ages: Vec<u32> = (0..4).map(|_| (heat.of("abc"), heat.age()).0).collect();
        assert_eq!(ages, [5, 2, 1, 0]);
    }

    #[test]
    fn what_is_hot_today_overtakes_what_was_hot_yesterday() {
        let heat = Heat::new(1_000);
        heat.raise("yesterday", 1_000_000);
        (0..48).for_each(|_| heat.age());
        heat.add_one("today");
        assert!(heat.of("today") > heat.of("yesterday"));
    }

    #[test]
    fn few_cold_codes_look_hot_in_a_full_memory() {
        let heat = Heat::new(400_000);
        for hot in 0..50_000 {
            (0..10).for_each(|_| heat.add_one(&format!("hot{hot}")));
        }
        assert!((0..50_000).all(|hot| heat.of(&format!("hot{hot}")) >= 10), "a hot code is never too cold");
        let wrong = (0..350_000).filter(|cold| heat.of(&format!("cold{cold}")) > 0).count();
        assert!(wrong < 5_000, "{wrong} of 350,000");
    }

    #[test]
    fn heat_neither_overflows_nor_outgrows_its_table() {
        let heat = Heat::new(1_000);
        heat.raise("abc", u32::MAX);
        heat.add_one("abc");
        assert_eq!(heat.of("abc"), u32::MAX);
        let cells = [0, 400_000, usize::MAX].map(|links| Heat::new(links).cells.len());
        assert_eq!(cells, [MIN_CELLS, 1 << 20, MAX_CELLS]);
    }

    #[test]
    fn hits_on_many_threads_are_counted_about_right() {
        let heat = Heat::new(1_000);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let heat = &heat;
                scope.spawn(move || (0..16_000).for_each(|_| heat.hit(&format!("of{thread}"))));
            }
        });
        for thread in 0..4 {
            let counted = heat.of(&format!("of{thread}"));
            assert!((990..=1_010).contains(&counted), "{counted}");
        }
    }
}
