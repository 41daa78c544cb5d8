//! How a shard's guards shall be.

use terse_resilience::{BreakerSettings, ConcurrencySettings, Policy, SettingsError};

/// Limits of one guard: its bulkhead, its breaker, its timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneSettings {
    /// Calls that may run at once; at least 1. Beyond, they are refused as overloaded.
    pub permits: u32,
    /// How long a call may take, in milliseconds; at least 1. Longer than the
    /// store's own deadline, for the store knows better what became of a call.
    pub timeout_ms: u64,
    /// The breaker. Its `call_limit_ms` is taken from `timeout_ms`.
    pub breaker: BreakerSettings,
}

/// Limits of the reads that need a quorum and that no redirect waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CatalogSettings {
    /// How many of the read guard's permits they may have at once; at least 1
    /// and fewer than all. Beyond, they are refused as overloaded.
    pub permits: u32,
    /// How long one may take, in milliseconds; at least 1.
    pub timeout_ms: u64,
}

/// Limits of polls of the marks of changes. They have places of their own, for
/// what is cached is fresh only while they succeed: were they refused because
/// reads are many, hits would become reads, and there would be more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarksSettings {
    /// Polls that may run at once; at least 1. Beyond, they are refused as
    /// overloaded. A server polls a shard once at a time.
    pub permits: u32,
    /// How long a poll may take, in milliseconds; at least 1. What is cached is
    /// fresh for 500 ms from the begin of a poll, and the next begins after 250:
    /// if that one fails after 200, the third is in time yet.
    pub timeout_ms: u64,
}

/// Limits of a shard's two guards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuardSettings {
    /// `NAME/read`. Its breaker judges no slow calls: lists pass by it too, and are slow by nature.
    pub read: LaneSettings,
    /// The share of `NAME/read` that catalog reads may have.
    pub catalog: CatalogSettings,
    /// Polls of the marks of changes, beside `NAME/read`.
    pub marks: MarksSettings,
    /// `NAME/write`.
    pub write: LaneSettings,
    /// How long a shard may take to tell whether it works, in milliseconds; at
    /// least 1. Less than a health probe waits, so that one hung shard is told as one.
    pub check_timeout_ms: u64,
    /// How many redirects may wait for the shard at once, by how long it takes. At most, they and the catalog's
    /// share fit into `read.permits`: so whom the limit lets in finds a place.
    pub redirects: ConcurrencySettings,
    /// How many creates and edits may; at most fewer than `write.permits`, so that what the server writes for itself
    /// finds a place beside them.
    pub creates: ConcurrencySettings,
}

/// - Reads: a store that answers in 10 ms serves 128,000 a second with 1,280
///   permits, which are as many as redirects and the catalog may have together; one that hangs holds no more than these, of about 2 KiB each,
///   until five of them have timed out. A read may fall back from a quorum to
///   one replica, which takes 500 ms at most.
/// - Catalog: a fifth, which is more lists than a shard can work off in their time.
/// - Marks: a server polls once at a time; the others are there for one that
///   was given up and another that catches up. What is cached stays fresh for 500 ms.
/// - Writes: 576 are 512 creates and edits and what a server writes for itself, and
///   at 600 conditional writes a second, what three nodes on two cores did, the
///   last of them still ends within the store's deadline of 2 s.
/// - Calls at once by how long they take: never fewer than 128. A file on a disk
///   that takes 5 ms for a read answers 800 a second with its four readers, the
///   last of 128 after 160 ms: a quarter of the time that a read has. Creates have
///   four times as long, and never fewer than 256: 64 connections, and the 64 links that
///   all batches together create at once, are less than half of that, where statistics begin to give way.
///   Neither gets fewer while calls take a tenth of the time that they have.
impl Default for GuardSettings {
    fn default() -> Self {
        Self {
            read: LaneSettings { permits: 1_280, timeout_ms: 700, breaker: BreakerSettings::cheap_to_probe(700) },
            catalog: CatalogSettings { permits: 256, timeout_ms: 1_500 },
            marks: MarksSettings { permits: 4, timeout_ms: 200 },
            write: LaneSettings { permits: 576, timeout_ms: 3_000, breaker: BreakerSettings::cheap_to_probe(3_000) },
            check_timeout_ms: 800,
            redirects: ConcurrencySettings::default(),
            creates: ConcurrencySettings {
                initial: 512,
                min: 256,
                max: 512,
                patience_ms: 300,
                ..ConcurrencySettings::default()
            },
        }
    }
}

impl LaneSettings {
    /// The breaker's settings with the limit that the timeout gives.
    pub(super) fn breaker(&self) -> BreakerSettings {
        BreakerSettings { call_limit_ms: self.timeout_ms, ..self.breaker }
    }

    pub(super) fn check(&self) -> Result<(), SettingsError> {
        require(self.permits >= 1, "permits", "be at least 1")?;
        require(self.timeout_ms >= 1, "timeout_ms", "be at least 1")?;
        self.breaker().check()
    }
}

impl GuardSettings {
    /// Whether the settings are within their limits.
    ///
    /// # Errors
    /// The first setting that is not.
    pub fn check(&self) -> Result<(), SettingsError> {
        self.read.check()?;
        self.write.check()?;
        let judges_slowness = match self.read.breaker.policy {
            Policy::Consecutive { .. } => false,
            Policy::Rate(rate) | Policy::Either { rate, .. } => rate.slow.is_some(),
        };
        require(!judges_slowness, "read.breaker.policy", "judge no slow calls, for lists are among them")?;
        let share = 1..self.read.permits.max(2);
        require(share.contains(&self.catalog.permits), "catalog.permits", "be at least 1 and below read.permits")?;
        require(self.catalog.timeout_ms >= 1, "catalog.timeout_ms", "be at least 1")?;
        require(self.marks.permits >= 1, "marks.permits", "be at least 1")?;
        require(self.marks.timeout_ms >= 1, "marks.timeout_ms", "be at least 1")?;
        require(self.check_timeout_ms >= 1, "check_timeout_ms", "be at least 1")?;
        self.redirects.check()?;
        self.creates.check()?;
        self.check_room()
    }

    /// Whether the bulkheads have room for all that the limits let in, and for what passes no limit.
    fn check_room(&self) -> Result<(), SettingsError> {
        let reads = self.redirects.max.saturating_add(self.catalog.permits);
        require(reads <= self.read.permits, "redirects.max", "leave room for catalog.permits in read.permits")?;
        require(self.creates.max < self.write.permits, "creates.max", "be below write.permits")
    }
}

fn require(holds: bool, setting: &'static str, must: &'static str) -> Result<(), SettingsError> {
    if holds { Ok(()) } else { Err(SettingsError { setting, must }) }
}

#[cfg(test)]
mod tests {
    use terse_resilience::{RatePolicy, SlowCalls};

    use super::*;

    #[test]
    fn the_defaults_are_the_documented_ones_and_valid() {
        let default = GuardSettings::default();
        default.check().unwrap();
        for lane in [default.read, default.write] {
            assert_eq!((lane.breaker.open_ms, lane.breaker.open_factor, lane.breaker.max_open_ms), (500, 2, 4_000));
            assert!(matches!(lane.breaker.policy, Policy::Either { failures: 5, .. }));
            assert!(lane.breaker.jitter_percent > 0);
            assert_eq!((lane.breaker.probes, lane.breaker.call_limit_ms), (3, lane.timeout_ms));
        }
        assert!(default.write.timeout_ms > 2_000, "the store's own deadline comes first");
        assert!(default.marks.timeout_ms < 500, "what is cached stays fresh for half a second");
        assert!(default.check_timeout_ms < 1_000, "a health probe waits for a second");
        assert!(default.redirects.max + default.catalog.permits <= default.read.permits);
        assert!(
            default.creates.max + 64 <= default.write.permits,
            "leases, keys and settings have places of their own"
        );
        assert!(default.redirects.patience_ms * 10 <= default.read.timeout_ms);
        assert!(default.creates.patience_ms * 10 <= default.write.timeout_ms);
    }

    #[test]
    fn a_breakers_call_limit_is_its_lanes_timeout() {
        let mut lane = GuardSettings::default().read;
        lane.timeout_ms = 123;
        assert_eq!(lane.breaker().call_limit_ms, 123);
        lane.breaker.call_limit_ms = 0;
        lane.check().unwrap();
    }

    /// The setting that is refused after `change`.
    fn refused(change: impl Fn(&mut GuardSettings)) -> &'static str {
        let mut settings = GuardSettings::default();
        change(&mut settings);
        settings.check().unwrap_err().setting
    }

    #[test]
    fn each_setting_has_its_limits() {
        assert_eq!(refused(|s| s.read.permits = 0), "permits");
        assert_eq!(refused(|s| s.write.permits = 0), "permits");
        assert_eq!(refused(|s| s.read.timeout_ms = 0), "timeout_ms");
        assert_eq!(refused(|s| s.write.breaker.probes = 0), "probes");
        assert_eq!(refused(|s| s.catalog.permits = 0), "catalog.permits");
        assert_eq!(refused(|s| s.catalog.permits = s.read.permits), "catalog.permits");
        assert_eq!(refused(|s| s.catalog.timeout_ms = 0), "catalog.timeout_ms");
        assert_eq!(refused(|s| s.marks.permits = 0), "marks.permits");
        assert_eq!(refused(|s| s.marks.timeout_ms = 0), "marks.timeout_ms");
        assert_eq!(refused(|s| s.check_timeout_ms = 0), "check_timeout_ms");
        assert_eq!(refused(|s| s.redirects.min = 0), "min");
        assert_eq!(refused(|s| s.creates.window_ms = 0), "window_ms");
        assert_eq!(refused(|s| s.redirects.max = s.read.permits - s.catalog.permits + 1), "redirects.max");
        assert_eq!(refused(|s| s.creates.max = s.write.permits), "creates.max");
    }

    #[test]
    fn redirects_are_not_judged_by_how_slow_lists_are() {
        let slow = Some(SlowCalls { after_ms: 100, percent: 50 });
        let rate = RatePolicy { slow, ..RatePolicy::default() };
        for policy in [Policy::Rate(rate), Policy::Either { failures: 5, rate }] {
            assert_eq!(refused(|s| s.read.breaker.policy = policy), "read.breaker.policy");
            let mut writes = GuardSettings::default();
            writes.write.breaker.policy = policy;
            writes.check().unwrap();
        }
    }
}
