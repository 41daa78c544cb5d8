//! All of it at random: servers that redirect or count are killed, ended,
//! stopped, succeeded, and so are Redis, the broker and nodes of the cluster. The seed is printed.

use std::time::{Duration, Instant};

use super::way::Way;
use super::{ANSWERED_LIMIT, Bound, Deployment, Roles, between, chance};
use crate::cluster::{Cluster, SERVE_LIMIT};
use crate::drills::Stage;
use crate::redis::Redis;
use crate::{Dice, Server, Stop};

/// How many kinds of faults there are of servers and Redis; of the broker besides, and of the cluster.
const FAULTS_OF_SERVERS: u64 = 8;
const FAULTS_OF_A_BROKER: u64 = 2;
const FAULTS_OF_A_CLUSTER: u64 = 2;
/// What each of them is called.
const FAULTS: [&str; 12] = [
    "server killed",
    "server ended",
    "server stopped",
    "counting process killed",
    "counting process ended",
    "counting process stopped",
    "a second counting process comes or goes",
    "Redis fails",
    "RabbitMQ stopped",
    "RabbitMQ killed",
    "store nodes stopped",
    "store nodes killed",
];

pub(in crate::drills) fn chaos(stage: &mut Stage<'_>, way: Way) {
    let mut dice = Dice::seeded(chance("clicks-chaos"));
    let mut redis = Redis::start();
    let url = redis.url();
    let mut deployment = Deployment::start_with(stage, way, Roles::Apart, |setup| setup.env("TERSE_CACHE", &url));
    let load = deployment.load(stage);
    let (began, time) = (Instant::now(), stage.form.pick(Duration::from_secs(15), way.chaos()));
    // A second one that counts, or stands by; it comes and goes.
    let mut standby: Option<Server> = None;
    let mut faults = 0;
    while began.elapsed() < time {
        std::thread::sleep(between(&mut dice, 50, 2_000));
        let kind = dice.below(way.faults());
        let _fault = stage.timeline.fault(FAULTS[usize::try_from(kind).unwrap_or_default()]);
        match kind {
            0 => deployment.end_front(Stop::AtOnce),
            1 => deployment.end_front(Stop::Politely),
            2 => drop(rest(deployment.front.pause(), &mut dice, 1_000)),
            3 => deployment.end_analytics(Stop::AtOnce),
            4 => deployment.end_analytics(Stop::Politely),
            5 => deployment.pause_analytics(&mut dice),
            6 => standby = standby.is_none().then(|| deployment.start_analytics()),
            7 => fail(&mut redis, &mut dice),
            8 => drop(rest(deployment.broker().pause(), &mut dice, 10_000)),
            9 => deployment.end_broker(&mut dice),
            10 => pause_nodes(stage.cluster(), &mut dice),
            _ => kill_nodes(stage.cluster(), &mut dice),
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

impl Way {
    fn faults(self) -> u64 {
        FAULTS_OF_SERVERS
            + match self {
                Self::Local => 0,
                Self::Broker => FAULTS_OF_A_BROKER,
                Self::Cluster => FAULTS_OF_A_BROKER + FAULTS_OF_A_CLUSTER,
            }
    }

    /// How long chaos goes on: five minutes where everything can fail that fails elsewhere.
    fn chaos(self) -> Duration {
        let seconds = match self {
            Self::Local => 20,
            Self::Broker => 60,
            Self::Cluster => 300,
        };
        Duration::from_secs(seconds)
    }
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

/// Stops one node, and at times a second one.
fn pause_nodes(cluster: &Cluster, dice: &mut Dice) {
    let first = chosen(cluster, dice);
    let paused = cluster.pause(first);
    let other = (dice.below(2) == 0).then(|| cluster.pause((first + 1) % cluster.len()));
    drop(rest((paused, other), dice, 5_000));
}

/// Kills one node, and at times a second one.
fn kill_nodes(cluster: &Cluster, dice: &mut Dice) {
    let first = chosen(cluster, dice);
    let killed = cluster.kill(first);
    let other = (dice.below(2) == 0).then(|| cluster.kill((first + 1) % cluster.len()));
    rest((), dice, 5_000);
    // Both come back.
    killed.restart();
    drop(other);
    cluster.await_whole(SERVE_LIMIT);
}

fn chosen(cluster: &Cluster, dice: &mut Dice) -> usize {
    usize::try_from(dice.below(cluster.len() as u64)).unwrap_or_default()
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

    fn end_broker(&mut self, dice: &mut Dice) {
        self.broker().kill();
        rest((), dice, 5_000);
        self.broker().restart();
    }
}
