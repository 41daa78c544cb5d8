//! What this process remembers of codes: links (L1), codes without a link,
//! answers that may be outdated, and the least versions that may be served (each
//! apart, so that none of the others evicts links).
//!
//! Times are monotonic milliseconds. Reading takes no lock of ours. Changes are
//! made under the lock of the code's stripe (see [`crate::flight`]), which makes
//! "compare, then put" one step.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use quick_cache::sync::Cache;
use quick_cache::{OptionsBuilder, UnitWeighter, Weighter};
use terse_core::link::PackedResolution;
use terse_core::ports::{Lookup, Tier};
use terse_core::{BlockedHosts, LinkState, Resolution, ShortCode, Version};

use crate::CacheConfig;
use crate::key::CodeKey;
use crate::least::{Least, LeastVersions};
use crate::marks::{FRESH_FOR_MS, Keep, MarkedCodes, NO_SHARD, ShardNumber, Shards, UNMET_FRESH_MS};
use crate::warm::Heat;

/// How long ago the changes of a link's shard may have been read last, in milliseconds, for the link to be served `stale`
/// while its store is asked for more than it can do: twenty polls.
const LATELY_MS: u64 = 5_000;

/// Bytes of a slot of the table of links (72: an entry, its neighbours in two
/// lists, how it was used), twice: the table grows by doubling, so up to half of
/// its slots are not used yet, and what may be taken is a bound.
const SLOT_BYTES: u64 = 2 * 72;

/// Bytes of a slot's share of the table of hashes, which has five a place and is 7/16 to 7/8 full.
const INDEX_BYTES: u64 = 9;

/// Links that were evicted of which the table remembers the hash, per link that
/// it may hold: one that comes back soon is worth more than one that is new.
const EVICTED_OF_LINKS: usize = 2;

/// They take a slot each, but no more than this part of all bytes.
const EVICTED_OF_BYTES: u64 = 8;

/// A link in memory.
#[derive(Clone)]
pub(crate) struct Entry {
    link: PackedResolution,
    age: Age,
}

/// When an entry's age limit is reached, and the shard that it is on as long as
/// it may be fresh at all. Eight bytes, for there are as many as links.
#[derive(Clone, Copy)]
struct Age(u64);

impl Age {
    /// The last limit that fits: some 8,900 years after the clock's start. A
    /// later one comes down to it, so that nothing is fresh longer than it may be.
    const LAST_MS: u64 = u64::MAX >> ShardNumber::BITS;

    fn new(aged_at_ms: u64, shard: ShardNumber) -> Self {
        Self(aged_at_ms.min(Self::LAST_MS) << ShardNumber::BITS | u64::from(shard))
    }

    fn aged_at_ms(self) -> u64 {
        self.0 >> ShardNumber::BITS
    }

    /// [`NO_SHARD`] = it may not be fresh.
    fn shard(self) -> ShardNumber {
        self.0 as ShardNumber
    }

    fn never_fresh(self) -> Self {
        Self::new(self.aged_at_ms(), NO_SHARD)
    }
}

/// An answer that the inner reader itself called stale.
#[derive(Clone)]
struct Outdated {
    link: Resolution,
    until_ms: u64,
}

#[derive(Clone)]
struct ByBytes {
    /// No entry weighs less, so that a bound on weight is one on entries too.
    least: u64,
}

impl Weighter<CodeKey, Entry> for ByBytes {
    fn weight(&self, code: &CodeKey, entry: &Entry) -> u64 {
        let bytes = SLOT_BYTES + INDEX_BYTES + (code.heap_bytes() + entry.link.heap_bytes()) as u64;
        bytes.max(self.least)
    }
}

/// The links and the codes without one.
pub(crate) struct Memory {
    links: Cache<CodeKey, Entry, ByBytes>,
    negative: Cache<ShortCode, u64, UnitWeighter>,
    outdated: Cache<ShortCode, Outdated, UnitWeighter>,
    least: LeastVersions,
    marked: MarkedCodes,
    shards: Shards,
    heat: Heat,
    blocked: Arc<BlockedHosts>,
    outdated_ms: u64,
    fresh_ms: u64,
    negative_ms: u64,
    stale_ms: u64,
}

impl Memory {
    pub(crate) fn new(config: &CacheConfig, shards: Shards) -> Self {
        Self {
            links: links(config.max_links, config.max_bytes),
            negative: Cache::new(config.max_negative),
            outdated: Cache::new(config.max_outdated),
            least: LeastVersions::new(config.max_least),
            marked: MarkedCodes::new(config.max_marked, millis(config.doubt_for)),
            shards,
            heat: Heat::new(config.max_links),
            blocked: Arc::default(),
            outdated_ms: millis(config.outdated_for),
            fresh_ms: millis(config.fresh_for),
            negative_ms: millis(config.negative_for),
            stale_ms: millis(config.stale_for),
        }
    }

    /// What is known of `code` and still fresh at `now_ms`. No allocation.
    pub(crate) fn fresh(&self, code: &str, now_ms: u64) -> Option<Lookup> {
        if let Some(entry) = self.links.get(code.as_bytes())
            && self.is_fresh(&entry, now_ms)
        {
            self.heat.hit(code);
            return Some(Lookup { link: Some(entry.link.into_resolution()), tier: Tier::L1 });
        }
        if let Some(until_ms) = self.negative.get(code)
            && now_ms < until_ms
        {
            return Some(Lookup { link: None, tier: Tier::L1 });
        }
        let outdated = self.outdated.get(code).filter(|outdated| now_ms < outdated.until_ms)?;
        Some(Lookup { link: Some(outdated.link), tier: Tier::Stale })
    }

    /// Whether `entry` may be answered without a look at anything else: its age,
    /// and how lately its shard's changes were read.
    fn is_fresh(&self, entry: &Entry, now_ms: u64) -> bool {
        now_ms < entry.age.aged_at_ms() && self.shards.fresh(entry.age.shard(), now_ms)
    }

    fn stale_until_ms(&self, entry: &Entry) -> u64 {
        entry.age.aged_at_ms().saturating_add(self.stale_ms)
    }

    /// The newest version of `code` that this process acknowledged or served, as far as it remembers.
    pub(crate) fn newest(&self, code: &ShortCode) -> Version {
        let seen = self.least.get(code.as_str()).seen;
        self.peek(code).map_or(seen, |entry| entry.link.version().max(seen))
    }

    /// The least versions of `code` that may be served.
    pub(crate) fn least(&self, code: &ShortCode) -> Least {
        self.least.get(code.as_str())
    }

    /// The link of `code`, as long as it may be served when nothing better is in reach.
    pub(crate) fn stale(&self, code: &str, now_ms: u64) -> Option<Lookup> {
        let entry = self.links.get(code.as_bytes()).filter(|entry| now_ms < self.stale_until_ms(entry))?;
        if entry.link.version() < self.least.get(code).seen.max(self.marked.least(code)) {
            return None;
        }
        let tier = if self.is_fresh(&entry, now_ms) { Tier::L1 } else { Tier::Stale };
        Some(Lookup { link: Some(entry.link.into_resolution()), tier })
    }

    /// Remembers for a moment what the inner reader called stale as of
    /// `as_of_ms`. It takes nothing's place; nothing newer was [`seen`](Self::see).
    pub(crate) fn put_outdated(&self, code: &ShortCode, link: Resolution, as_of_ms: u64) {
        let until_ms = as_of_ms.saturating_add(self.outdated_ms);
        let link = self.judged(&link);
        self.outdated.insert(code.clone(), Outdated { link, until_ms });
    }

    /// Notes that `version` of `code` was acknowledged, or read at a quorum.
    pub(crate) fn know(&self, code: &ShortCode, version: Version) {
        self.least.know(code, version);
        self.outdate_below(code, version);
    }

    /// Notes that `version` of `code` was shown by something less than a quorum.
    pub(crate) fn see(&self, code: &ShortCode, version: Version) {
        self.least.see(code, version);
        self.outdate_below(code, version);
    }

    /// What is older than `version` is not answered from memory any more.
    fn outdate_below(&self, code: &ShortCode, version: Version) {
        self.forget_negative(code);
        if self.peek(code).is_some_and(|entry| entry.link.version() < version) {
            self.end_freshness(code);
        }
    }

    /// Remembers a link, acknowledged or read at a quorum, as of `as_of_ms`.
    pub(crate) fn put(&self, code: &ShortCode, link: &Resolution, as_of_ms: u64) {
        self.least.know(code, link.version);
        self.put_entry(code, link, as_of_ms, self.fresh_ms);
    }

    /// The same for a moment only, for a newer version was announced: see [`Keep::Briefly`].
    pub(crate) fn put_briefly(&self, code: &ShortCode, link: &Resolution, as_of_ms: u64) {
        self.least.know(code, link.version);
        self.put_entry(code, link, as_of_ms, self.fresh_ms.min(UNMET_FRESH_MS));
    }

    /// Remembers a link that the shared cache showed, as of `as_of_ms`.
    pub(crate) fn put_shared(&self, code: &ShortCode, link: &Resolution, as_of_ms: u64) {
        self.least.see(code, link.version);
        self.put_entry(code, link, as_of_ms, self.fresh_ms);
    }

    fn put_entry(&self, code: &ShortCode, link: &Resolution, as_of_ms: u64, fresh_ms: u64) {
        self.forget_negative(code);
        let aged_at_ms = as_of_ms.saturating_add(fresh_ms - jitter(code, fresh_ms));
        let age = Age::new(aged_at_ms, self.shards.of(code));
        self.links.insert(CodeKey::of(code), Entry { link: PackedResolution::of(&self.judged(link)), age });
    }

    /// Notes a mark of `code` that was seen at `now_ms`, and drops what it outdates.
    pub(crate) fn mark(&self, code: &ShortCode, version: Version, now_ms: u64) {
        self.marked.mark(code, version, now_ms);
        self.drop_older(code, version);
    }

    /// Drops what is older than `least`: it may not even be served in need. The
    /// rest is read again before it is trusted, if nobody knows what `code` changed to.
    pub(crate) fn drop_older(&self, code: &ShortCode, least: Version) {
        self.forget_negative(code);
        if least <= Version::FIRST {
            self.end_freshness(code);
        } else if self.peek(code).is_some_and(|entry| entry.link.version() < least) {
            self.forget(code);
        }
    }

    /// Notes that this process itself changed `code` to `version`, for sure. The
    /// first version needs no note: nothing is older.
    pub(crate) fn acknowledge(&self, code: &ShortCode, version: Version, now_ms: u64) {
        if version > Version::FIRST {
            self.marked.acknowledge(code, version, now_ms);
        }
    }

    /// Whether the link of `code` may be served, and all that it lacks to be fresh are its shard's changes since
    /// [`LATELY_MS`] ago at most.
    pub(crate) fn was_fresh_lately(&self, code: &str, now_ms: u64) -> bool {
        let lately_ms = now_ms.saturating_sub(LATELY_MS);
        let is_young =
            |entry: Entry| now_ms < entry.age.aged_at_ms() && self.shards.fresh(entry.age.shard(), lately_ms);
        self.links.get(code.as_bytes()).is_some_and(is_young) && self.stale(code, now_ms).is_some()
    }

    /// Whether no newer version of `code` than this one was acknowledged, announced or served.
    pub(crate) fn is_newest(&self, code: &ShortCode, version: Version) -> bool {
        version >= self.newest(code).max(self.marked.least(code.as_str()))
    }

    /// Whether `version` of `code`, which a look-up in the store that began at
    /// `began_ms` found, may be kept; see [`MarkedCodes::settle`].
    pub(crate) fn settle(&self, code: &ShortCode, version: Version, began_ms: u64) -> Keep {
        self.marked.settle(code, version, began_ms)
    }

    /// Whether no change of `code` was announced that can still happen after `began_ms`.
    pub(crate) fn is_settled(&self, code: &ShortCode, began_ms: u64) -> bool {
        self.marked.is_settled(code, began_ms)
    }

    /// Whether all changes of `code` that the shared cache may have missed are known at `now_ms`.
    pub(crate) fn knows_changes(&self, code: &ShortCode, now_ms: u64) -> bool {
        self.shards.fresh(self.shards.of(code), now_ms) && !self.marked.bypassed(now_ms)
    }

    /// Whether what was true of `code` at `as_of_ms` may be told at `now_ms` for
    /// fresh: its shard's changes are known, or it is as young as they would be.
    pub(crate) fn in_step(&self, code: &ShortCode, as_of_ms: u64, now_ms: u64) -> bool {
        now_ms <= as_of_ms.saturating_add(FRESH_FOR_MS) || self.shards.fresh(self.shards.of(code), now_ms)
    }

    /// The least version of `code` that may be taken from the shared cache; `None` = none may.
    pub(crate) fn least_shared(&self, code: &ShortCode) -> Option<Version> {
        Some(self.marked.least_shared(code)?.max(self.newest(code)))
    }

    /// What is noted of codes that changed.
    pub(crate) fn marked(&self) -> &MarkedCodes {
        &self.marked
    }

    /// The shards that the links are on.
    pub(crate) fn shards(&self) -> &Shards {
        &self.shards
    }

    /// Remembers that there was no link of `code` as of `as_of_ms`.
    pub(crate) fn put_negative(&self, code: &ShortCode, as_of_ms: u64) {
        self.forget(code);
        self.negative.insert(code.clone(), as_of_ms.saturating_add(self.negative_ms));
    }

    /// Forgets all about `code` but the version that it had.
    pub(crate) fn forget(&self, code: &ShortCode) {
        self.forget_negative(code);
        if let Some((_, entry)) = self.links.remove(code.as_str().as_bytes()) {
            self.least.know(code, entry.link.version());
        }
    }

    /// Forgets that there was no link of `code`, or an outdated one.
    pub(crate) fn forget_negative(&self, code: &ShortCode) {
        self.negative.remove(code.as_str());
        self.outdated.remove(code.as_str());
    }

    /// Ends the freshness of what is known of `code`: it is read again before
    /// it is trusted, but still there if that fails.
    pub(crate) fn end_freshness(&self, code: &ShortCode) {
        self.forget_negative(code);
        if let Some(entry) = self.peek(code) {
            self.links.insert(CodeKey::of(code), Entry { age: entry.age.never_fresh(), ..entry });
        }
    }

    /// The entry of `code`, fresh or not, without making it hotter.
    fn peek(&self, code: &ShortCode) -> Option<Entry> {
        self.links.peek(code.as_str().as_bytes())
    }

    /// Which hosts are blocked.
    pub(crate) fn blocked(&self) -> &Arc<BlockedHosts> {
        &self.blocked
    }

    /// `link` as it is kept here: blocked if it leads to a blocked host, so that a hit needs no look at hosts.
    fn judged(&self, link: &Resolution) -> Resolution {
        Resolution { state: self.blocked.state_of(link), ..link.clone() }
    }

    /// Whether what is kept of a link is other than it would be if it came now.
    fn is_misjudged(&self, entry: &Entry) -> bool {
        let link = entry.link.clone().into_resolution();
        match link.state {
            LinkState::Active => self.blocked.blocks(&link.target),
            // That may be for its host, or for its own sake.
            LinkState::Blocked => !self.blocked.blocks(&link.target),
            LinkState::Disabled | LinkState::Deleted => false,
        }
    }

    /// The codes whose links would be kept otherwise if they came now.
    pub(crate) fn misjudged(&self) -> Vec<ShortCode> {
        let entries = self.links.iter().filter(|(_, entry)| self.is_misjudged(entry));
        entries.filter_map(|(code, _)| code.code()).collect()
    }

    /// Keeps the link of `code` as it would be kept if it came now. What it is if it isn't blocked any more only its
    /// store knows: then it is read again before it is trusted, and blocked in need.
    pub(crate) fn rejudge(&self, code: &ShortCode) {
        let Some(entry) = self.peek(code).filter(|entry| self.is_misjudged(entry)) else { return };
        let link = entry.link.into_resolution();
        if link.state == LinkState::Active {
            let link = PackedResolution::of(&self.judged(&link));
            self.links.insert(CodeKey::of(code), Entry { link, age: entry.age });
        } else {
            self.end_freshness(code);
        }
    }

    /// Forgets all answers that the inner reader itself called stale.
    pub(crate) fn forget_outdated(&self) {
        self.outdated.clear();
    }

    pub(crate) fn heat(&self) -> &Heat {
        &self.heat
    }

    /// The codes whose links may still be served at `now_ms`, if only in need.
    pub(crate) fn kept(&self, now_ms: u64) -> impl Iterator<Item = ShortCode> {
        let kept = self.links.iter().filter(move |(_, entry)| now_ms < self.stale_until_ms(entry));
        kept.filter_map(|(code, _)| code.code())
    }

    /// Whether less than so many tenths of what links may take is taken.
    pub(crate) fn has_room(&self, tenths: u64) -> bool {
        self.links.weight() < self.links.capacity() / 10 * tenths
    }

    pub(crate) fn links(&self) -> usize {
        self.links.len()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.links.weight()
    }

    #[cfg(test)]
    pub(crate) fn negative(&self) -> usize {
        self.negative.len()
    }

    #[cfg(test)]
    pub(crate) fn least_len(&self) -> usize {
        self.least.len()
    }
}

/// A table of up to `max_links` links that with all that belongs to it takes up to `max_bytes`.
fn links(max_links: usize, max_bytes: u64) -> Cache<CodeKey, Entry, ByBytes> {
    let evicted_bytes = max_bytes / EVICTED_OF_BYTES;
    let evicted = (evicted_bytes / (SLOT_BYTES + INDEX_BYTES)).min((max_links / EVICTED_OF_LINKS) as u64);
    let capacity = max_bytes - evicted * (SLOT_BYTES + INDEX_BYTES);
    let by_bytes = ByBytes { least: capacity / max_links.max(1) as u64 };
    let options = OptionsBuilder::new()
        .estimated_items_capacity(max_links)
        .ghost_allocation(evicted as f64 / max_links.max(1) as f64)
        .weight_capacity(capacity)
        .build();
    // No room is set aside: the server's allocator may have it in pages of 2 MiB, of which a touch takes a whole one.
    match options {
        Ok(options) => Cache::with_options(options, by_bytes, Default::default(), Default::default()),
        // That would be for want of an option, and none is.
        Err(_) => Cache::with_weighter(max_links, capacity, by_bytes),
    }
}

/// Whole milliseconds of `duration`.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A number of `code` that spreads evenly. Always the same for one code, so nothing random enters here.
pub(crate) fn spread(code: &ShortCode) -> u64 {
    let mut hasher = DefaultHasher::new();
    code.hash(&mut hasher);
    hasher.finish()
}

/// 0 to a tenth of `limit_ms`, by code.
fn jitter(code: &ShortCode, limit_ms: u64) -> u64 {
    spread(code) % (limit_ms / 10 + 1)
}

#[cfg(test)]
mod tests {
    use terse_testkit::links;

    use super::*;

    fn memory(config: CacheConfig) -> Memory {
        Memory::new(&config, Shards::in_step())
    }

    fn put(memory: &Memory, code: &str, as_of_ms: u64) {
        memory.put(&links::code(code), &links::resolution(code, 1), as_of_ms);
    }

    /// Asserts what is known of `abc` at `now_ms`: the fresh answer's tier, and the one in need.
    #[track_caller]
    fn assert_known(memory: &Memory, now_ms: u64, fresh: Option<Tier>, stale: Option<Tier>) {
        assert_eq!(memory.fresh("abc", now_ms).map(|found| found.tier), fresh);
        assert_eq!(memory.stale("abc", now_ms).map(|found| found.tier), stale);
    }

    #[test]
    fn a_link_is_fresh_then_stale_then_gone() {
        let memory = memory(CacheConfig::default());
        put(&memory, "abc", 1_000);
        let fresh_until = 1_000 + 1_800_000 - jitter(&links::code("abc"), 1_800_000);
        assert_known(&memory, fresh_until - 1, Some(Tier::L1), Some(Tier::L1));
        assert_known(&memory, fresh_until, None, Some(Tier::Stale));
        assert_known(&memory, fresh_until + 3_599_999, None, Some(Tier::Stale));
        assert_known(&memory, fresh_until + 3_600_000, None, None);
    }

    #[test]
    fn age_limits_differ_by_code_and_never_exceed_the_configured_one() {
        let limits: Vec<u64> = (0..1_000).map(|n| jitter(&links::code(&format!("code{n}")), 1_800_000)).collect();
        assert!(limits.iter().all(|jitter| *jitter <= 180_000));
        let late = limits.iter().filter(|jitter| **jitter > 90_000).count();
        assert!((400..600).contains(&late), "{late} of 1000 in the upper half");
        assert_eq!(jitter(&links::code("abc"), 0), 0);
    }

    #[test]
    fn a_negative_entry_lives_for_its_second_and_is_never_stale() {
        let memory = memory(CacheConfig::default());
        memory.put_negative(&links::code("abc"), 5_000);
        assert!(memory.fresh("abc", 5_999).unwrap().link.is_none());
        assert_known(&memory, 5_999, Some(Tier::L1), None);
        assert_known(&memory, 6_000, None, None);
    }

    #[test]
    fn a_link_and_a_negative_entry_replace_each_other() {
        let memory = memory(CacheConfig::default());
        memory.put_negative(&links::code("abc"), 0);
        put(&memory, "abc", 0);
        assert_eq!((memory.links(), memory.negative()), (1, 0));
        memory.put_negative(&links::code("abc"), 0);
        assert_eq!((memory.links(), memory.negative()), (0, 1));
        memory.forget(&links::code("abc"));
        assert_eq!((memory.links(), memory.negative()), (0, 0));
    }

    #[test]
    fn ended_freshness_leaves_the_link_for_need() {
        let memory = memory(CacheConfig::default());
        put(&memory, "abc", 1_000);
        memory.end_freshness(&links::code("abc"));
        assert_known(&memory, 1_000, None, Some(Tier::Stale));
        assert_eq!(memory.stale("abc", 1_000).unwrap().link.unwrap().version, Version(1));
        memory.end_freshness(&links::code("unknown"));
        assert_eq!(memory.links(), 1);
    }

    #[test]
    fn links_are_bounded_by_their_number() {
        let memory = memory(CacheConfig { max_links: 1_000, ..CacheConfig::default() });
        (0..20_000).for_each(|n| put(&memory, &format!("code{n}"), 0));
        assert!((900..=1_000).contains(&memory.links()), "{} links", memory.links());
    }

    #[test]
    fn links_are_bounded_by_their_bytes() {
        let bound = 10_000_000;
        let memory = memory(CacheConfig { max_bytes: bound, ..CacheConfig::default() });
        for n in 0..5_000 {
            let code = links::code(&format!("code{n}"));
            let target = links::target(&format!("https://example.com/{}", "x".repeat(8_000)));
            memory.put(&code, &Resolution { target, ..links::resolution("abc", 1) }, 0);
        }
        assert!(memory.bytes() <= bound, "{} bytes", memory.bytes());
        assert!((1_000..1_250).contains(&memory.links()), "{} links", memory.links());
    }

    #[test]
    fn an_age_keeps_limit_and_shard_and_a_limit_too_late_comes_down() {
        let age = Age::new(1_234_567_890_123, 65_534);
        assert_eq!((age.aged_at_ms(), age.shard()), (1_234_567_890_123, 65_534));
        assert_eq!((age.never_fresh().aged_at_ms(), age.never_fresh().shard()), (1_234_567_890_123, NO_SHARD));
        let late = Age::new(u64::MAX, 7);
        assert_eq!((late.aged_at_ms(), late.shard()), (Age::LAST_MS, 7));
        assert_eq!(size_of::<Entry>(), 40);
    }

    #[test]
    fn a_long_code_weighs_what_it_takes() {
        let weigh = |code: &str| {
            let link = PackedResolution::of(&links::resolution("abc", 1));
            ByBytes { least: 0 }.weight(&CodeKey::of(&links::code(code)), &Entry { link, age: Age::new(0, NO_SHARD) })
        };
        assert_eq!(weigh(&"x".repeat(14)), weigh("x"));
        assert_eq!(weigh(&"x".repeat(24)), weigh("x") + 32);
        assert_eq!(weigh(&"x".repeat(64)), weigh("x") + 32 + 64);
    }

    #[test]
    fn a_link_too_big_for_the_cache_leaves_no_older_one_behind() {
        let memory = memory(CacheConfig { max_bytes: 4_096, max_links: 4, ..CacheConfig::default() });
        put(&memory, "abc", 0);
        let target = links::target(&format!("https://example.com/{}", "x".repeat(8_000)));
        let big = Resolution { target, ..links::resolution("abc", 2) };
        memory.put(&links::code("abc"), &big, 0);
        assert_known(&memory, 0, None, None);
    }
}
