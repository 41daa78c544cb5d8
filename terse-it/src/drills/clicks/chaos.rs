//! All of it at random: servers that redirect or count are killed, ended,
//! stopped, succeeded, and Redis with them. The seed is printed.

use std::time::{Duration, Instant};

use super::{ANSWERED_LIMIT, Bound, Deployment, Roles, between, chance};
use crate::drills::Stage;
use crate::redis::Redis;
use crate::{Dice, Server, Stop};

/// How many kinds of faults there are.
const FAULTS: u64 = 8;

pub(in crate::drills) fn chaos(stage: &mut Stage<'_>) {
    let mut dice = Dice::seeded(chance("clicks-chaos"));
    let mut redis = Redis::start();
    let url = redis.url();
    let mut deployment = Deployment::start_with(stage, Roles::Apart, |setup| setup.env("TERSE_CACHE", &url));
    let load = deployment.load(stage);
    let (began, time) = (Instant::now(), stage.form.pick(Duration::from_secs(15), Duration::from_secs(300)));
    // A second one that counts, or stands by; it comes and goes.
    let mut standby: Option<Server> = None;
    let mut faults = 0;
    while began.elapsed() < time {
        std::thread::sleep(between(&mut dice, 50, 2_000));
        match dice.below(FAULTS) {
            0 => deployment.end_front(Stop::AtOnce),
            1 => deployment.end_front(Stop::Politely),
            2 => drop(rest(deployment.front.pause(), &mut dice, 1_000)),
            3 => deployment.end_analytics(Stop::AtOnce),
            4 => deployment.end_analytics(Stop::Politely),
            5 => deployment.pause_analytics(&mut dice),
            6 => standby = standby.is_none().then(|| deployment.start_analytics()),
            _ => fail(&mut redis, &mut dice),
        }
        load.await_more(5, ANSWERED_LIMIT);
        faults += 1;
    }
    let ledger = load.stop();
    stage.report.count("faults", faults);
    ledger.assert_truthful();
    drop(standby);
    deployment.settle(stage, &ledger, Bound::Between);
    deployment.replay(stage);
}

/// Lets a fault last a while.
fn rest<T>(fault: T, dice: &mut Dice, most_ms: u64) -> T {
    std::thread::sleep(between(dice, 10, most_ms));
    fault
}

fn fail(redis: &mut Redis, dice: &mut Dice) {
    if dice.below(2) == 0 {
        rest(redis.pause(), dice, 3_000).resume();
    } else {
        redis.kill();
        std::thread::sleep(between(dice, 10, 3_000));
        redis.restart();
    }
}

impl Deployment {
    fn end_front(&mut self, stop: Stop) {
        self.front.stop(stop);
        self.front.restart();
    }

    fn end_analytics(&mut self, stop: Stop) {
        self.stop_analytics(stop);
        self.restart_analytics();
    }

    /// Long enough, at times, for somebody else to take over.
    fn pause_analytics(&self, dice: &mut Dice) {
        let analytics = self.analytics.as_ref().unwrap_or_else(|| panic!("nobody counts"));
        let most_ms = if dice.below(4) == 0 { 14_000 } else { 2_000 };
        drop(rest(analytics.pause(), dice, most_ms));
    }
}
