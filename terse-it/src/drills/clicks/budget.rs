//! The disk budget of the journal is used up while nobody counts, or there is no
//! broker: redirects go on unharmed, and once all is well again, what is counted and what was
//! dropped are all that was clicked.

use std::time::Duration;

use super::way::Way;
use super::{ANSWERED_LIMIT, Bound, Deployment, Roles};
use crate::drills::Stage;
use crate::load::clicks::{ClickLedger, ClickLoad, ClickPlan};
use crate::metrics::{CLICKS_DROPPED, Scrape};
use crate::{Stop, await_true};

/// The least that is allowed.
const BUDGET: &str = "16MiB";
/// How long until it is used up, and until clicks are recorded again.
const BUDGET_LIMIT: Duration = Duration::from_secs(60);
/// Clicks dropped before it counts as used up.
const DROPPED_LEAST: u64 = 200;
/// Times the p99 of redirects while clicks are recorded, at most, while they are dropped; and a few milliseconds, which
/// are the machine's.
const SLOWER: u32 = 2;
const OF_THE_MACHINE: Duration = Duration::from_millis(5);

pub(in crate::drills) fn budget(stage: &mut Stage<'_>, way: Way) {
    let small = |setup: crate::Setup| setup.env("TERSE_JOURNAL_BYTES", BUDGET);
    let mut deployment = Deployment::start_with(stage, way, Roles::Apart, small);
    let calm = phase(stage, &deployment, |load| hold(stage, load));
    let fault = stage.timeline.fault("nobody takes clicks from the journal");
    deployment.stop_draining(Stop::Politely);
    let mut ledger = phase(stage, &deployment, |_| await_dropping(&deployment));
    let before = deployment.dropped();
    let dropping = phase(stage, &deployment, |load| hold(stage, load));
    assert!(deployment.dropped() > before, "no click was dropped");
    deployment.drain_again();
    fault.end();
    // There is room again: passed blocks make place.
    let after = phase(stage, &deployment, |load| {
        await_recording(&deployment);
        hold(stage, load);
    });
    for (name, ledger) in [("recorded", &calm), ("dropped", &dropping), ("recorded again", &after)] {
        ledger.assert_all_answered();
        for percent in [50, 99, 100] {
            stage.report.time(&format!("clicks are {name}: p{percent}"), ledger.latency(percent));
        }
    }
    let limit = SLOWER * calm.latency(99) + OF_THE_MACHINE;
    stage.assert_within("p99 of a redirect whose click is dropped", dropping.latency(99), limit);
    [calm, dropping, after].into_iter().for_each(|more| ledger.add(more));
    ledger.assert_all_answered();
    deployment.await_drained();
    let dropped = deployment.dropped();
    stage.report.count("clicks dropped", usize::try_from(dropped).unwrap_or(usize::MAX));
    deployment.settle(stage, &ledger, Bound::Dropped(dropped));
    if way != Way::Local {
        // The streams keep what the journals don't.
        return deployment.replay(stage);
    }
    // Passed blocks were used again, so a replay has to say that it can't tell.
    let replayed = deployment.try_replay();
    assert!(replayed.code != Some(0) && replayed.stderr.contains("no longer begins"), "{replayed:?}");
}

/// Clicks that tell much, until `done` returns.
fn phase(stage: &Stage<'_>, deployment: &Deployment, done: impl FnOnce(&ClickLoad)) -> ClickLedger {
    let per_second = stage.form.pick(2_000, 4_000);
    let load = deployment.load_with(stage, |plan| ClickPlan { wordy: true, per_second, ..plan });
    done(&load);
    load.stop()
}

fn hold(stage: &Stage<'_>, load: &ClickLoad) {
    load.await_more(stage.form.pick(1_000, 20_000), ANSWERED_LIMIT);
}

#[track_caller]
fn await_dropping(deployment: &Deployment) {
    await_true("the budget to be used up", BUDGET_LIMIT, || {
        std::thread::sleep(super::LOOK);
        deployment.dropped() > DROPPED_LEAST
    });
}

/// Waits until a look finds no more dropped than the one before.
#[track_caller]
fn await_recording(deployment: &Deployment) {
    let mut before = deployment.dropped();
    await_true("clicks to be recorded again", BUDGET_LIMIT, || {
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
