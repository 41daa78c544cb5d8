//! SIGTERM under load, again and again: nothing is lost, nothing is counted that was not answered.

use std::time::{Duration, Instant};

use super::way::Way;
use super::{ANSWERED_LIMIT, Bound, Deployment, Roles, between, chance};
use crate::drills::Stage;
use crate::{Dice, Stop};

pub(in crate::drills) fn term(stage: &mut Stage<'_>, way: Way) {
    let mut dice = Dice::seeded(chance("clicks-term"));
    let mut deployment = Deployment::start(stage, way, Roles::Together);
    let load = deployment.load(stage);
    let (began, time) = (Instant::now(), stage.form.pick(Duration::from_secs(10), Duration::from_secs(12)));
    let (mut ends, mut longest) = (0, Duration::ZERO);
    while began.elapsed() < time {
        load.await_more(20, ANSWERED_LIMIT);
        std::thread::sleep(between(&mut dice, 200, 2_000));
        let _fault = stage.timeline.fault("server ended");
        let ended = deployment.front.stop(Stop::Politely);
        assert_eq!(ended.code, Some(0), "{}", ended.stdout);
        longest = longest.max(ended.took);
        deployment.front.restart();
        ends += 1;
    }
    load.await_more(20, ANSWERED_LIMIT);
    let ledger = load.stop();
    stage.report.count("servers ended", ends);
    stage.report.time("the longest end of a server under load", longest);
    ledger.assert_truthful();
    deployment.settle(stage, &ledger, Bound::Exact);
    deployment.replay(stage);
}
