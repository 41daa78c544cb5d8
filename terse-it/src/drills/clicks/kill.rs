//! kill -9 of the server that redirects and counts, again and again.

use std::time::{Duration, Instant};

use super::way::Way;
use super::{ANSWERED_LIMIT, Bound, Deployment, Roles, between, chance};
use crate::drills::Stage;
use crate::{Dice, Stop};

pub(in crate::drills) fn kill(stage: &mut Stage<'_>, way: Way) {
    let mut dice = Dice::seeded(chance("clicks-kill"));
    let mut deployment = Deployment::start(stage, way, Roles::Together);
    let load = deployment.load(stage);
    let (began, time) = (Instant::now(), stage.form.pick(Duration::from_secs(11), Duration::from_secs(15)));
    let (least_ms, most_ms) = stage.form.pick((300, 2_000), (500, 4_000));
    let mut kills = 0;
    while began.elapsed() < time {
        load.await_more(20, ANSWERED_LIMIT);
        std::thread::sleep(between(&mut dice, least_ms, most_ms));
        let _fault = stage.timeline.fault("server killed");
        deployment.front.stop(Stop::AtOnce);
        deployment.front.restart();
        kills += 1;
    }
    load.await_more(20, ANSWERED_LIMIT);
    let ledger = load.stop();
    stage.report.count("kills", kills);
    ledger.assert_truthful();
    let lost = usize::try_from(ledger.unanswered()).unwrap_or(usize::MAX);
    stage.report.count("requests that were cut off", lost);
    deployment.settle(stage, &ledger, Bound::Between);
    deployment.replay(stage);
}
