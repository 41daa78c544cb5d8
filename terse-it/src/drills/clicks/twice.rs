//! The broker takes what is published, and its confirms are lost on the wire:
//! the relay publishes the same parts again. They stand in the streams twice, and each click is counted once.

use std::fs;
use std::time::Duration;

use terse_testkit::{Mode, Proxy};

use super::way::Way;
use super::{ANSWERED_LIMIT, Bound, Deployment, LOOK, Roles, entries};
use crate::drills::Stage;
use crate::{await_some, await_true};

/// How long it may take until confirms are lost, and until the relay is back.
const LOST_LIMIT: Duration = Duration::from_secs(20);
/// How long the broker may take to tell how long its streams are.
const TOLD_LIMIT: Duration = Duration::from_secs(30);

pub(in crate::drills) fn twice(stage: &mut Stage<'_>, way: Way) {
    let mut proxy = None;
    let mut deployment = Deployment::start_between(stage, way, Roles::Apart, |setup, backing| {
        let broker = backing.broker.as_ref().unwrap_or_else(|| panic!("there is no broker"));
        let wire = Proxy::start(broker.address(), ([127, 0, 0, 1], 0).into());
        let wire = proxy.insert(wire.unwrap_or_else(|error| panic!("no proxy: {error}")));
        setup.env("TERSE_BUS", &broker.url_through(wire.address()))
    });
    let proxy = proxy.unwrap_or_else(|| panic!("no proxy was made"));
    let load = deployment.load(stage);
    let rounds = stage.form.pick(3, 15);
    for _ in 0..rounds {
        load.await_more(100, ANSWERED_LIMIT);
        lose_confirms(&proxy);
    }
    deployment.await_counting();
    let ledger = load.stop();
    ledger.assert_all_answered();
    stage.report.count("times that confirms were lost", rounds);
    deployment.settle(stage, &ledger, Bound::Exact);
    let parts = deployment.parts();
    let streamed = await_some("streams that are longer than what was published", TOLD_LIMIT, || {
        std::thread::sleep(LOOK);
        Some(deployment.broker().streamed()).filter(|streamed| *streamed > parts)
    });
    stage.report.count("parts of blocks", usize::try_from(parts).unwrap_or(usize::MAX));
    stage.report.count("messages in the streams", usize::try_from(streamed).unwrap_or(usize::MAX));
    deployment.replay(stage);
}

/// Loses what the broker answers until it has answered something, and then the connection.
fn lose_confirms(proxy: &Proxy) {
    let before = proxy.counts();
    proxy.set(Mode::LoseAnswers);
    await_true("a confirm to be lost", LOST_LIMIT, || proxy.counts().lost_bytes > before.lost_bytes);
    // Whoever lost an answer is cut off by this.
    proxy.restore();
    await_true("the relay to be back", LOST_LIMIT, || {
        let now = proxy.counts();
        now.connections > before.connections && now.answered_bytes > before.answered_bytes
    });
}

impl Deployment {
    /// Parts of all blocks of the journals here, each counted once: all of them are relayed.
    #[track_caller]
    fn parts(&mut self) -> u64 {
        let journals = entries(&self.setup.data().join("journal"));
        let passed = |journal: &std::path::PathBuf| fs::read(journal.join("passed")).ok();
        let number = |bytes: Vec<u8>| bytes.try_into().map_or(0, u64::from_le_bytes);
        let blocks: u64 = journals.iter().filter_map(passed).map(number).sum();
        assert!(blocks > 0, "no block was relayed");
        blocks * self.broker().streams() as u64
    }
}
