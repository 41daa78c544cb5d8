//! Whether redirects notice that something is away which they don't need:
//! rounds of clicks before it goes and rounds while it is away, compared by
//! their medians and 99th percentiles.
//!
//! Rounds differ by themselves. So what is asked is that the middle one of the rounds without it is no slower than the
//! slowest round with it, and as much again as those differ among themselves.

use std::time::Duration;

use super::{ANSWERED_LIMIT, Deployment};
use crate::drills::{Form, Stage};
use crate::load::clicks::ClickLedger;

/// What is compared.
const PERCENTS: [(usize, &str); 2] = [(50, "median"), (99, "p99")];

/// The rounds of a drill.
#[derive(Default)]
pub(super) struct Rounds {
    before: Vec<ClickLedger>,
    away: Vec<ClickLedger>,
    others: Vec<ClickLedger>,
}

impl Rounds {
    /// Rounds while all is well.
    pub(super) fn before(&mut self, stage: &Stage<'_>, deployment: &Deployment) {
        for _ in 0..stage.form.pick(3, 7) {
            self.before.push(round(stage, deployment));
        }
    }

    /// Rounds while something is away.
    pub(super) fn away(&mut self, stage: &Stage<'_>, deployment: &Deployment) {
        for _ in 0..stage.form.pick(3, 5) {
            self.away.push(round(stage, deployment));
        }
    }

    /// Adds clicks that are not compared: those while it went and came.
    pub(super) fn add(&mut self, ledger: ClickLedger) {
        self.others.push(ledger);
    }

    /// All clicks. Fails if one was not answered, and in the full form if it shows that something was away.
    #[track_caller]
    pub(super) fn conclude(self, stage: &mut Stage<'_>) -> ClickLedger {
        for (percent, name) in PERCENTS {
            let [before, away] = [&self.before, &self.away].map(|rounds| latencies(rounds, percent));
            let (Some(middle), Some(limit)) = (away.get(away.len() / 2).copied(), limit(&before)) else {
                panic!("there were no rounds to compare");
            };
            for (when, latencies) in [("before", &before), ("away", &away)] {
                let [least, most] = [latencies.first(), latencies.last()].map(|at| at.copied().unwrap_or_default());
                stage.report.time(&format!("{name} of a redirect, {when}: quickest round"), least);
                stage.report.time(&format!("{name} of a redirect, {when}: slowest round"), most);
            }
            stage.report.time(&format!("{name} of a redirect, away: middle round"), middle);
            assert!(stage.form == Form::Quick || middle <= limit, "{name}: {middle:?} is beyond {limit:?}: {before:?}");
        }
        let mut all = self.before.into_iter().chain(self.away).chain(self.others);
        let mut ledger = all.next().unwrap_or_else(|| panic!("nobody clicked"));
        all.for_each(|more| ledger.add(more));
        ledger.assert_all_answered();
        ledger
    }
}

fn round(stage: &Stage<'_>, deployment: &Deployment) -> ClickLedger {
    let load = deployment.load(stage);
    std::thread::sleep(stage.form.pick(Duration::from_secs(1), Duration::from_secs(2)));
    load.await_more(1, ANSWERED_LIMIT);
    load.stop()
}

/// One latency of each round, the shortest first.
fn latencies(rounds: &[ClickLedger], percent: usize) -> Vec<Duration> {
    let mut latencies: Vec<Duration> = rounds.iter().map(|round| round.latency(percent)).collect();
    latencies.sort_unstable();
    latencies
}

/// The longest of these, and as much again as it is longer than the shortest.
fn limit(latencies: &[Duration]) -> Option<Duration> {
    let (least, most) = (latencies.first()?, latencies.last()?);
    Some(*most + (*most - *least))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allowed_follows_from_how_rounds_differ() {
        let ms = |all: &[u64]| all.iter().copied().map(Duration::from_millis).collect::<Vec<_>>();
        assert_eq!(limit(&ms(&[3, 4, 6])), Some(Duration::from_millis(9)));
        assert_eq!(limit(&ms(&[5])), Some(Duration::from_millis(5)));
        assert_eq!(limit(&[]), None);
    }
}
