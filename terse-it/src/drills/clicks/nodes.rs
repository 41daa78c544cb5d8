//! One node of the cluster that clicks are counted on is killed: counting goes
//! on. Then a second one: there is no quorum, counting pauses, redirects don't notice. With the nodes back it catches
//! up.

use std::time::Duration;

use super::way::Way;
use super::{ANSWERED_LIMIT, Bound, Deployment, Roles};
use crate::cluster::SERVE_LIMIT;
use crate::drills::Stage;
use crate::load::Lasting;

pub(in crate::drills) fn nodes(stage: &mut Stage<'_>) {
    let deployment = Deployment::start(stage, Way::Cluster, Roles::Apart);
    let load = deployment.load(stage);
    let time = stage.form.pick(Duration::from_secs(3), Duration::from_secs(10));
    deployment.await_counting();
    let fault_of_one = stage.timeline.fault("node 2 killed");
    let one = stage.cluster().kill(1);
    std::thread::sleep(time);
    deployment.await_counting();
    let fault_of_other = stage.timeline.fault("node 3 killed");
    let other = stage.cluster().kill(2);
    std::thread::sleep(time);
    load.await_more(20, ANSWERED_LIMIT);
    let counted = deployment.applied();
    std::thread::sleep(time);
    stage.report.count("clicks counted without a quorum", (deployment.applied() - counted) as usize);
    assert_eq!(deployment.applied(), counted, "clicks were counted without a quorum");
    // Both come back.
    other.restart();
    one.restart();
    stage.cluster().await_whole(SERVE_LIMIT);
    [fault_of_one, fault_of_other].into_iter().for_each(Lasting::end);
    deployment.await_counting();
    let ledger = load.stop();
    ledger.assert_all_answered();
    deployment.settle(stage, &ledger, Bound::Exact);
    deployment.replay(stage);
}
