//! Something that is away, told once when that begins and once when it is over.
//!
//! What fails and works by turns is away: it is over only when nothing has failed for [`CALM_MS`]. So the log of a server
//! without its broker, or with a disk that is nearly full, has two lines for it and not two for every try.

/// For so long nothing may fail before it is over, in milliseconds: longer than a try and the wait for the next.
pub(crate) const CALM_MS: u64 = 30_000;

/// Whether something is away. Times are monotonic.
#[derive(Debug, Default)]
pub(crate) struct Outage {
    failed_ms: Option<u64>,
}

impl Outage {
    /// Notes a failure at `now_ms`; whether an outage begins with it, which is to be told.
    pub(crate) fn begins(&mut self, now_ms: u64) -> bool {
        self.failed_ms.replace(now_ms).is_none()
    }

    /// Whether there is one.
    pub(crate) fn is_on(&self) -> bool {
        self.failed_ms.is_some()
    }

    /// Notes that it works at `now_ms`; whether an outage is over with it, which is to be told.
    pub(crate) fn is_over(&mut self, now_ms: u64) -> bool {
        let over = self.failed_ms.is_some_and(|failed_ms| now_ms.saturating_sub(failed_ms) >= CALM_MS);
        if over {
            self.failed_ms = None;
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_and_works_by_turns_is_told_once_and_its_end_once() {
        let mut outage = Outage::default();
        assert!(!outage.is_over(0), "there was none");
        let begun = (0..1_000).filter(|turn| {
            let begins = outage.begins(turn * 100);
            assert!(!outage.is_over(turn * 100 + 50));
            begins
        });
        assert_eq!(begun.count(), 1);
        let last_ms = 999 * 100;
        assert!(!outage.is_over(last_ms + CALM_MS - 1));
        assert!(outage.is_on() && outage.is_over(last_ms + CALM_MS) && !outage.is_on());
        assert!(!outage.is_over(last_ms + 2 * CALM_MS), "it is told once");
        assert!(outage.begins(last_ms + 2 * CALM_MS), "and the next one is another");
    }
}
