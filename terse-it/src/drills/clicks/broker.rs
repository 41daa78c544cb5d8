//! The broker is killed and comes back, again and again; or it stands still for
//! a while, and then asks to be spared. Clicks wait on disk meanwhile, redirects don't notice, and each click is
//! counted once when the broker is well again.

use std::time::{Duration, Instant};

use super::rounds::Rounds;
use super::way::Way;
use super::{ANSWERED_LIMIT, Bound, Deployment, LOOK, Roles};
use crate::await_true;
use crate::broker::Broker;
use crate::drills::Stage;

/// How late a broker tells at most how many messages a stream has: it looks every five seconds.
const TOLD_LATE: Duration = Duration::from_secs(6);
/// How long it may take until blocks wait because the broker asks to be spared.
const SPARED_LIMIT: Duration = Duration::from_secs(30);
/// In the full form it stands still for half a minute: so long, and the rounds that are compared.
const STOPPED_MORE: Duration = Duration::from_secs(20);
/// So many blocks wait then, at least.
const SPARED_BLOCKS: u64 = 20;

/// Kill -9 and restart of the broker.
pub(in crate::drills) fn broker_killed(stage: &mut Stage<'_>, way: Way) {
    let mut deployment = Deployment::start(stage, way, Roles::Apart);
    let mut rounds = Rounds::default();
    rounds.before(stage, &deployment);
    let outages = stage.form.pick(1, 3);
    for outage in 0..outages {
        let load = deployment.load(stage);
        load.await_more(20, ANSWERED_LIMIT);
        let fault = stage.timeline.fault("RabbitMQ killed");
        deployment.broker().kill();
        load.await_more(20, ANSWERED_LIMIT);
        rounds.add(load.stop());
        if outage == 0 {
            rounds.away(stage, &deployment);
        }
        let load = deployment.load(stage);
        deployment.broker().restart();
        fault.end();
        deployment.await_counting();
        rounds.add(load.stop());
    }
    stage.report.count("kills of the broker", outages);
    conclude(stage, &deployment, rounds);
}

/// SIGSTOP of the broker for a while; then it has no memory left.
pub(in crate::drills) fn broker_stopped(stage: &mut Stage<'_>, way: Way) {
    let mut deployment = Deployment::start(stage, way, Roles::Apart);
    let mut rounds = Rounds::default();
    rounds.before(stage, &deployment);
    let load = deployment.load(stage);
    load.await_more(20, ANSWERED_LIMIT);
    let fault = stage.timeline.fault("RabbitMQ stopped");
    let paused = deployment.broker().pause();
    load.await_more(20, ANSWERED_LIMIT);
    std::thread::sleep(stage.form.pick(Duration::from_secs(1), STOPPED_MORE));
    rounds.add(load.stop());
    rounds.away(stage, &deployment);
    let load = deployment.load(stage);
    drop(paused);
    fault.end();
    deployment.await_counting();
    deployment.await_few_pending();

    let fault = stage.timeline.fault("RabbitMQ without memory");
    deployment.broker().starve();
    await_true("clicks to wait while the broker asks to be spared", SPARED_LIMIT, || {
        std::thread::sleep(LOOK);
        deployment.pending() >= SPARED_BLOCKS
    });
    let streamed = deployment.await_streams_at_rest();
    let pending = deployment.pending();
    await_true("more clicks to wait", SPARED_LIMIT, || {
        std::thread::sleep(LOOK);
        deployment.pending() >= pending + SPARED_BLOCKS
    });
    assert_eq!(deployment.await_streams_at_rest(), streamed, "a broker that asked to be spared was given clicks");
    deployment.broker().feed();
    fault.end();
    deployment.await_counting();
    rounds.add(load.stop());
    conclude(stage, &deployment, rounds);
}

#[track_caller]
fn conclude(stage: &mut Stage<'_>, deployment: &Deployment, rounds: Rounds) {
    let ledger = rounds.conclude(stage);
    deployment.settle(stage, &ledger, Bound::Exact);
    deployment.replay(stage);
}

impl Deployment {
    /// The broker, where there is one.
    #[track_caller]
    pub(super) fn broker(&mut self) -> &mut Broker {
        self.backing.broker.as_mut().unwrap_or_else(|| panic!("there is no broker"))
    }

    /// Messages in the streams, once no more come; the broker tells their number some seconds late.
    #[track_caller]
    fn await_streams_at_rest(&mut self) -> u64 {
        let (mut streamed, mut since) = (self.broker().streamed(), Instant::now());
        await_true("streams to stand still", SPARED_LIMIT, || {
            std::thread::sleep(LOOK);
            let now = self.broker().streamed();
            if now != streamed {
                (streamed, since) = (now, Instant::now());
            }
            since.elapsed() > TOLD_LATE
        });
        streamed
    }

    /// Waits until hardly any block waits, while clicks go on.
    #[track_caller]
    fn await_few_pending(&self) {
        await_true("blocks to be published again", SPARED_LIMIT, || {
            std::thread::sleep(LOOK);
            self.pending() < SPARED_BLOCKS / 2
        });
    }
}
