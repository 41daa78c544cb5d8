//! The disk budget of the journal is used up while nobody counts: redirects go
//! on unharmed, and once somebody counts again, what is counted and what was
//! dropped are all that was clicked.

use std::time::Duration;

use super::{ANSWERED_LIMIT, Bound, Deployment, Roles};
use crate::drills::Stage;
use crate::load::clicks::ClickLoad;
use crate::metrics::{CLICKS_DROPPED, Scrape};
use crate::{Stop, await_true};

/// The least that is allowed.
const BUDGET: &str = "16MiB";
/// How long until it is used up.
const USED_UP_LIMIT: Duration = Duration::from_secs(60);
/// Clicks answered while they are dropped.
const DROPPED_LEAST: u64 = 200;

pub(in crate::drills) fn budget(stage: &mut Stage<'_>) {
    let mut deployment = Deployment::start_with(stage, Roles::Apart, |setup| setup.env("TERSE_JOURNAL_BYTES", BUDGET));
    let fast = stage.form.pick(2_000, 4_000);
    let load =
        deployment.load_with(stage, |plan| crate::load::clicks::ClickPlan { wordy: true, per_second: fast, ..plan });
    load.await_more(100, ANSWERED_LIMIT);
    deployment.stop_analytics(Stop::Politely);
    await_dropping(&deployment, &load);
    deployment.restart_analytics();
    // There is room again: passed blocks make place.
    await_recording(&deployment);
    load.await_more(100, ANSWERED_LIMIT);
    let ledger = load.stop();
    ledger.assert_all_answered();
    for (name, percent) in [("p50 of a redirect", 50), ("p99 of a redirect", 99), ("longest redirect", 100)] {
        stage.report.time(name, ledger.latency(percent));
    }
    deployment.await_drained();
    let dropped = deployment.dropped();
    stage.report.count("clicks dropped", usize::try_from(dropped).unwrap_or(usize::MAX));
    deployment.settle(stage, &ledger, Bound::Dropped(dropped));
}

#[track_caller]
fn await_dropping(deployment: &Deployment, load: &ClickLoad) {
    await_true("the budget to be used up", USED_UP_LIMIT, || {
        std::thread::sleep(super::LOOK);
        deployment.dropped() > DROPPED_LEAST
    });
    load.await_more(DROPPED_LEAST, ANSWERED_LIMIT);
}

/// Waits until a look finds no more dropped than the one before.
#[track_caller]
fn await_recording(deployment: &Deployment) {
    let mut before = deployment.dropped();
    await_true("clicks to be recorded again", USED_UP_LIMIT, || {
        std::thread::sleep(5 * super::LOOK);
        let now = deployment.dropped();
        std::mem::replace(&mut before, now) == now
    });
}

impl Deployment {
    fn dropped(&self) -> u64 {
        Scrape::of(&self.front.client()).sum(CLICKS_DROPPED, &[])
    }
}
