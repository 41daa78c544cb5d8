//! The broker takes what is published, and its confirms are lost on the wire:
//! the relay publishes the same parts again. They stand in the streams twice, and each click is counted once.

use std::fs;
use std::time::{Duration, Instant};

use terse_testkit::{Mode, Proxy};

use super::way::Way;
use super::{ANSWERED_LIMIT, Bound, Deployment, LOOK, Roles, entries};
use crate::drills::Stage;
use crate::metrics::{BUS_PARTS, Scrape};
use crate::{await_some, await_true};

/// How long confirms are lost at most, and how often that is tried for each time that it has to happen.
const LOST_LIMIT: Duration = Duration::from_secs(4);
const TRIES_EACH: usize = 3;
/// How long it may take until the relay is back.
const BACK_LIMIT: Duration = Duration::from_secs(30);
/// So many parts are published while confirms are lost, at least.
const LOST_PARTS: u64 = 16;
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
    let rounds = stage.form.pick(3, 6);
    let (mut lost, mut tries) = (0, 0);
    while lost < rounds {
        deployment.await_confirms();
        load.await_more(20, ANSWERED_LIMIT);
        lost += usize::from(lose_confirms(stage, &proxy, &deployment));
        tries += 1;
        assert!(tries <= TRIES_EACH * rounds, "confirms were lost {lost} times in {tries} tries");
    }
    deployment.await_confirms();
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

/// Loses what the broker answers until parts were published, and then the connection; whether there were any. At times
/// the relay waits for another answer just then, and publishes nothing before it has it.
fn lose_confirms(stage: &Stage<'_>, proxy: &Proxy, deployment: &Deployment) -> bool {
    let (began, before) = (Instant::now(), proxy.counts());
    let published = deployment.parts_so_far("published");
    let _fault = stage.timeline.fault("confirms lost");
    proxy.set(Mode::LoseAnswers);
    let lost = await_some("confirms to be lost", 2 * LOST_LIMIT, || {
        std::thread::sleep(LOOK);
        let more = deployment.parts_so_far("published") >= published + LOST_PARTS;
        let lost = more && proxy.counts().lost_bytes > before.lost_bytes;
        (lost || began.elapsed() >= LOST_LIMIT).then_some(lost)
    });
    // Whoever lost an answer is cut off by this.
    proxy.restore();
    lost
}

impl Deployment {
    /// Waits until the broker confirms what is published.
    #[track_caller]
    fn await_confirms(&self) {
        let before = self.parts_so_far("confirmed");
        await_true("parts to be confirmed", BACK_LIMIT, || {
            std::thread::sleep(LOOK);
            self.parts_so_far("confirmed") >= before + LOST_PARTS
        });
    }

    /// Parts that the front has published, those that it published again too, or that were confirmed.
    fn parts_so_far(&self, outcome: &str) -> u64 {
        Scrape::of(&self.front.client()).sum(BUS_PARTS, &[("outcome", outcome)])
    }

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
