//! Whether what was counted is what was clicked.

use std::collections::BTreeMap;

use crate::load::Report;
use crate::load::clicks::{ClickLedger, Tally};

/// How many findings a failure tells.
const SHOWN: usize = 10;

/// What has to hold for each code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    /// Each 302 that was received was counted once, and nothing else.
    Exact,
    /// Each 302 that was received was counted once; a request whose answer was lost may have been.
    Between,
    /// As many clicks were dropped, in all; each of the others was counted once.
    Dropped(u64),
}

/// A code whose count is out of bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    code: String,
    tally: Tally,
    counted: u64,
}

/// What was found.
#[derive(Clone, Debug)]
pub(super) struct Verdict {
    bound: Bound,
    all: Tally,
    counted: u64,
    findings: Vec<Finding>,
}

impl Verdict {
    /// Of the ledger and what was counted of each code.
    pub(super) fn of(ledger: &ClickLedger, counted: &BTreeMap<String, u64>, bound: Bound) -> Self {
        let finding = |(code, tally): (&str, Tally)| {
            let counted = counted.get(code).copied().unwrap_or_default();
            (!bound.holds(tally, counted)).then(|| Finding { code: code.to_owned(), tally, counted })
        };
        let findings = ledger.tallies().filter_map(finding).collect();
        Self { bound, all: ledger.sum(), counted: counted.values().sum(), findings }
    }

    /// Tells the sums.
    pub(super) fn report(&self, report: &mut Report) {
        let counts = [
            ("requests sent", self.all.sent),
            ("302 answers received", self.all.received),
            ("clicks counted", self.counted),
            ("codes out of bounds", self.findings.len() as u64),
        ];
        for (name, count) in counts {
            report.count(name, usize::try_from(count).unwrap_or(usize::MAX));
        }
    }

    /// Whether the bound holds for each code, and in all.
    pub(super) fn holds(&self) -> bool {
        let adds_up = match self.bound {
            Bound::Dropped(dropped) => self.counted + dropped == self.all.received,
            Bound::Exact | Bound::Between => true,
        };
        self.findings.is_empty() && adds_up
    }

    /// Fails unless the bound holds for each code, and in all.
    #[track_caller]
    pub(super) fn assert_held(&self) {
        let Self { bound, all, counted, findings } = self;
        let shown = &findings[..findings.len().min(SHOWN)];
        assert!(
            self.holds(),
            "{} codes are out of the bound {bound:?}; in all {all:?}, {counted} counted: {shown:#?}",
            findings.len()
        );
        assert!(all.received > 0, "nobody clicked");
    }
}

impl Bound {
    fn holds(self, tally: Tally, counted: u64) -> bool {
        match self {
            Self::Exact => counted == tally.received,
            Self::Between => (tally.received..=tally.sent).contains(&counted),
            Self::Dropped(_) => counted <= tally.received,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const TALLY: Tally = Tally { sent: 12, received: 10 };

    #[test]
    fn each_bound_refuses_what_is_beyond_it() {
        for (bound, least, most) in [(Bound::Exact, 10, 10), (Bound::Between, 10, 12), (Bound::Dropped(3), 0, 10)] {
            for counted in 0..20 {
                assert_eq!(bound.holds(TALLY, counted), (least..=most).contains(&counted), "{bound:?} {counted}");
            }
        }
    }

    fn verdict(bound: Bound, counted: u64) -> Verdict {
        let finding = Finding { code: "a".into(), tally: TALLY, counted };
        let findings = if bound.holds(TALLY, counted) { Vec::new() } else { vec![finding] };
        Verdict { bound, all: TALLY, counted, findings }
    }

    #[test]
    fn a_click_too_few_or_too_many_fails() {
        let held = |bound, counted| std::panic::catch_unwind(|| verdict(bound, counted).assert_held()).is_ok();
        assert!(held(Bound::Exact, 10) && !held(Bound::Exact, 9) && !held(Bound::Exact, 11));
        assert!(held(Bound::Between, 12) && !held(Bound::Between, 9) && !held(Bound::Between, 13));
        assert!(held(Bound::Dropped(3), 7) && !held(Bound::Dropped(3), 8) && !held(Bound::Dropped(3), 6));
    }

    #[test]
    fn sums_are_reported() {
        let mut report = Report::default();
        verdict(Bound::Between, 13).report(&mut report);
        let told = report.json();
        assert_eq!(told["clicks counted"]["count"], 13);
        assert_eq!(told["codes out of bounds"]["count"], 1);
    }
}
