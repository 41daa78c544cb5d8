//! How the calls to Redis ended, as the metrics tell it.

use prometheus::IntCounter;
use terse_core::metrics::Metrics;

/// What was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Get,
    Put,
    Drop,
    Draw,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The link was there.
    Hit,
    /// It was not.
    Miss,
    /// It was there past its time.
    Expired,
    /// What was there is no link; it was removed.
    Unreadable,
    /// What was there is of a later build.
    Later,
    /// The link was kept.
    Kept,
    /// Something newer was there.
    Newer,
    /// An older link was removed.
    Dropped,
    /// There was none to remove.
    Nothing,
    /// Some of the units that were wanted were granted, or none were wanted.
    Granted,
    /// None were left.
    Refused,
    /// No answer in time.
    Timeout,
    /// Redis, or the way to it, failed.
    Fault,
    /// Not asked: the breaker is open.
    Open,
    /// Not asked: too many wait.
    Full,
    /// Not asked: there is no connection.
    Unconnected,
}

impl Operation {
    const ALL: [Self; 4] = [Self::Get, Self::Put, Self::Drop, Self::Draw];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Put => "put",
            Self::Drop => "drop",
            Self::Draw => "draw",
        }
    }
}

impl Ending {
    const ALL: [Self; 16] = [
        Self::Hit,
        Self::Miss,
        Self::Expired,
        Self::Unreadable,
        Self::Later,
        Self::Kept,
        Self::Newer,
        Self::Dropped,
        Self::Nothing,
        Self::Granted,
        Self::Refused,
        Self::Timeout,
        Self::Fault,
        Self::Open,
        Self::Full,
        Self::Unconnected,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Expired => "expired",
            Self::Unreadable => "unreadable",
            Self::Later => "later",
            Self::Kept => "kept",
            Self::Newer => "newer",
            Self::Dropped => "dropped",
            Self::Nothing => "nothing",
            Self::Granted => "granted",
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Fault => "fault",
            Self::Open => "open",
            Self::Full => "full",
            Self::Unconnected => "unconnected",
        }
    }

    /// The one operation that can end so; `None` = all.
    const fn only_of(self) -> Option<Operation> {
        match self {
            Self::Hit | Self::Miss | Self::Expired | Self::Unreadable | Self::Later => Some(Operation::Get),
            Self::Kept | Self::Newer => Some(Operation::Put),
            Self::Dropped | Self::Nothing => Some(Operation::Drop),
            Self::Granted | Self::Refused => Some(Operation::Draw),
            Self::Timeout | Self::Fault | Self::Open | Self::Full | Self::Unconnected => None,
        }
    }
}

/// A counter for each way in which each operation can end.
pub(super) struct Tally([[Option<IntCounter>; Ending::ALL.len()]; Operation::ALL.len()]);

impl Tally {
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self(Operation::ALL.map(|operation| {
            Ending::ALL.map(|ending| {
                let possible = ending.only_of().is_none_or(|only| only == operation);
                possible.then(|| metrics.cache_requests(operation.as_str(), ending.as_str()))
            })
        }))
    }

    pub(super) fn count(&self, operation: Operation, ending: Ending) {
        if let Some(counter) = &self.0[operation as usize][ending as usize] {
            counter.inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_ending_counts_under_its_own_name_from_zero_on() {
        let metrics = Metrics::new();
        let tally = Tally::new(&metrics);
        let mut expected = 0;
        for operation in Operation::ALL {
            for ending in Ending::ALL.into_iter().filter(|ending| ending.only_of().is_none_or(|of| of == operation)) {
                let counter = metrics.cache_requests(operation.as_str(), ending.as_str());
                assert_eq!(counter.get(), 0);
                expected += 1;
                (0..expected).for_each(|_| tally.count(operation, ending));
                assert_eq!(counter.get(), expected, "{operation:?} {ending:?}");
            }
        }
        let lines = metrics.encode().unwrap();
        let lines = lines.lines().filter(|line| line.starts_with("terse_cache_requests_total{"));
        assert_eq!(lines.count() as u64, expected, "and nothing that can't happen");
    }

    #[test]
    fn the_order_is_that_of_the_numbers() {
        Operation::ALL.iter().enumerate().for_each(|(at, operation)| assert_eq!(*operation as usize, at));
        Ending::ALL.iter().enumerate().for_each(|(at, ending)| assert_eq!(*ending as usize, at));
    }
}
