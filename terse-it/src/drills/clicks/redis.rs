//! Redis is killed, stopped and brought back under a server that caches in it: clicks are none of its business.

use std::time::Duration;

use super::way::Way;
use super::{ANSWERED_LIMIT, Bound, Deployment, Roles};
use crate::drills::Stage;
use crate::redis::Redis;

pub(in crate::drills) fn redis(stage: &mut Stage<'_>, way: Way) {
    let mut redis = Redis::start();
    let url = redis.url();
    // Few links stay in memory, so that Redis is asked all the time.
    let cached = |setup: crate::Setup| setup.env("TERSE_CACHE", &url).env("TERSE_CACHE_ENTRIES", "20");
    let deployment = Deployment::start_with(stage, way, Roles::Together, cached);
    let load = deployment.load(stage);
    let time = stage.form.pick(Duration::from_secs(1), Duration::from_secs(2));
    let hold = || {
        std::thread::sleep(time);
        load.await_more(20, ANSWERED_LIMIT);
    };
    hold();
    let fault = stage.timeline.fault("Redis killed");
    redis.kill();
    hold();
    redis.restart();
    fault.end();
    hold();
    let fault = stage.timeline.fault("Redis stopped");
    let paused = redis.pause();
    hold();
    paused.resume();
    fault.end();
    hold();
    let fault = stage.timeline.fault("Redis killed");
    redis.kill();
    hold();
    fault.end();
    let ledger = load.stop();
    ledger.assert_all_answered();
    deployment.settle(stage, &ledger, Bound::Exact);
    deployment.replay(stage);
}
