//! The last calls, in buckets of time: how many, how many failed, how many
//! were slow.
//!
//! Memory is bounded by the number of buckets, whatever the traffic; counting
//! is constant work but for clearing buckets whose time has passed.

use super::settings::RatePolicy;

/// Calls, failures and slow calls of some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Calls that ended with a verdict.
    pub calls: u32,
    /// Those that failed.
    pub failures: u32,
    /// Those that were slow, failed or not.
    pub slow: u32,
}

impl Tally {
    fn add(&mut self, failed: bool, slow: bool) {
        // A window of 4 billion calls saturates: its rates stay near the truth until it moves on.
        self.calls = self.calls.saturating_add(1);
        self.failures = self.failures.saturating_add(u32::from(failed));
        self.slow = self.slow.saturating_add(u32::from(slow));
    }

    fn subtract(&mut self, other: Self) {
        self.calls = self.calls.saturating_sub(other.calls);
        self.failures = self.failures.saturating_sub(other.failures);
        self.slow = self.slow.saturating_sub(other.slow);
    }
}

/// A sliding window of `buckets` buckets.
#[derive(Debug)]
pub(super) struct Window {
    buckets: Box<[Tally]>,
    bucket_ms: u64,
    total: Tally,
    /// The newest bucket, counted from the start of time.
    newest: u64,
}

impl Window {
    pub(super) fn new(policy: &RatePolicy) -> Self {
        Self {
            buckets: vec![Tally::default(); usize::from(policy.buckets)].into_boxed_slice(),
            bucket_ms: policy.window_ms / u64::from(policy.buckets),
            total: Tally::default(),
            newest: 0,
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.buckets.fill(Tally::default());
        self.total = Tally::default();
    }

    /// Counts a call that ended at `now_ms`; an older time than before counts in the newest bucket.
    pub(super) fn record(&mut self, now_ms: u64, failed: bool, slow: bool) {
        self.advance(now_ms);
        let place = self.place(self.newest);
        self.buckets[place].add(failed, slow);
        self.total.add(failed, slow);
    }

    /// What the window holds at `now_ms`.
    pub(super) fn tally(&mut self, now_ms: u64) -> Tally {
        self.advance(now_ms);
        self.total
    }

    fn advance(&mut self, now_ms: u64) {
        let bucket = now_ms / self.bucket_ms;
        let passed = bucket.saturating_sub(self.newest);
        if passed >= self.buckets.len() as u64 {
            self.clear();
        } else {
            for emptied in self.newest + 1..=self.newest + passed {
                let place = self.place(emptied);
                self.total.subtract(std::mem::take(&mut self.buckets[place]));
            }
        }
        self.newest = self.newest.max(bucket);
    }

    fn place(&self, bucket: u64) -> usize {
        (bucket % self.buckets.len() as u64) as usize
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn window(window_ms: u64, buckets: u8) -> Window {
        Window::new(&RatePolicy { window_ms, buckets, ..RatePolicy::default() })
    }

    #[test]
    fn calls_leave_the_window_with_their_bucket() {
        let mut window = window(1_000, 10);
        window.record(0, true, false);
        window.record(99, false, true);
        window.record(100, true, true);
        assert_eq!(window.tally(999), Tally { calls: 3, failures: 2, slow: 2 });
        assert_eq!(window.tally(1_000), Tally { calls: 1, failures: 1, slow: 1 });
        assert_eq!(window.tally(1_100), Tally::default());
    }

    #[test]
    fn a_long_silence_empties_the_window() {
        let mut window = window(1_000, 10);
        (0..50).for_each(|n| window.record(n * 20, true, true));
        assert_eq!(window.tally(980).calls, 50);
        assert_eq!(window.tally(u64::MAX), Tally::default());
        window.record(u64::MAX, true, false);
        assert_eq!(window.tally(u64::MAX).calls, 1);
    }

    #[test]
    fn an_older_time_counts_in_the_newest_bucket_and_brings_nothing_back() {
        let mut window = window(1_000, 10);
        window.record(500, true, false);
        window.record(2_000, false, false);
        window.record(300, true, false);
        assert_eq!(window.tally(0), Tally { calls: 2, failures: 1, slow: 0 });
        assert_eq!(window.tally(2_999), Tally { calls: 2, failures: 1, slow: 0 });
        assert_eq!(window.tally(3_000), Tally::default());
    }

    #[test]
    fn a_single_bucket_is_a_fixed_window() {
        let mut window = window(1_000, 1);
        window.record(999, true, false);
        assert_eq!(window.tally(999).calls, 1);
        assert_eq!(window.tally(1_000).calls, 0);
    }

    #[test]
    fn clearing_forgets_all_and_counts_on() {
        let mut window = window(1_000, 4);
        window.record(700, true, true);
        window.clear();
        assert_eq!(window.tally(700), Tally::default());
        window.record(700, false, false);
        assert_eq!(window.tally(700).calls, 1);
    }

    #[test]
    fn counts_saturate_where_numbers_end() {
        let mut window = window(1_000, 2);
        let full = Tally { calls: u32::MAX, failures: u32::MAX, slow: u32::MAX };
        window.buckets[0] = full;
        window.total = full;
        window.record(0, true, true);
        assert_eq!(window.tally(0), full);
        assert_eq!(window.tally(1_000), Tally::default());
    }

    proptest! {
        #[test]
        fn the_window_agrees_with_a_list_of_all_calls(
            buckets in 1_u8..12, bucket_ms in 1_u64..50,
            steps in proptest::collection::vec((0_u64..120, any::<bool>(), any::<bool>()), 1..120),
        ) {
            let mut window = window(u64::from(buckets) * bucket_ms, buckets);
            let mut all: Vec<(u64, bool, bool)> = Vec::new();
            let mut now_ms = 0;
            for (wait_ms, failed, slow) in steps {
                now_ms += wait_ms;
                window.record(now_ms, failed, slow);
                all.push((now_ms / bucket_ms, failed, slow));
                let inside = || all.iter().filter(|(bucket, ..)| bucket + u64::from(buckets) > now_ms / bucket_ms);
                let expected = Tally {
                    calls: inside().count() as u32,
                    failures: inside().filter(|(_, failed, _)| *failed).count() as u32,
                    slow: inside().filter(|(.., slow)| *slow).count() as u32,
                };
                prop_assert_eq!(window.tally(now_ms), expected);
            }
        }
    }
}
