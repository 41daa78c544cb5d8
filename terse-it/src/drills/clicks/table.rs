//! The click drills, each on the ways on which it can fail.

use super::way::Way;
use super::{broker, budget, chaos, copy, kill, nodes, projector, redis, term, twice};
use crate::drills::{Drill, Stage};

const KILL: &str = "kill -9 of the server that redirects and counts, again and again: each click whose 302 was \
                    received is counted exactly once";
const COPY: &str = "a journal's directory comes back from an older copy, then the original beside it: nothing is \
                    counted twice or lost";
const PROJECTOR: &str = "kill -9 of the process that counts; a stopped one goes on after its successor took over: \
                         counted = answered";
const BROKER: &str = "kill -9 and restart of RabbitMQ: no redirect fails or gets slower, counted = answered";
const STOP: &str = "RabbitMQ stands still for half a minute, then has no memory left: no redirect fails or gets \
                    slower, counted = answered";
const REDIS: &str = "kill -9, SIGSTOP and return of Redis: counted = answered";
const BUDGET: &str = "the journal's disk budget used up: redirects are unharmed, counted + dropped = answered";
const TERM: &str = "SIGTERM under load, again and again: counted = answered";
const TWICE: &str = "confirms of the broker are lost, so parts are published twice: counted = answered";
const NODES: &str = "one node killed, then two: counting pauses and catches up, counted = answered";
const CHAOS: &str = "all of that at random for minutes: each click whose 302 was received is counted exactly once";

const fn on(name: &'static str, about: &'static str, needs_cluster: bool, run: fn(&mut Stage<'_>)) -> Drill {
    Drill { name, about, needs_cluster, run }
}

/// All of them. Without a suffix: the journals are the log, with a SQLite file; `-amqp`: RabbitMQ and a SQLite file;
/// `-cql`: RabbitMQ and the cluster.
pub(in crate::drills) static CLICK_DRILLS: [Drill; 27] = [
    on("clicks-kill", KILL, false, |stage| kill::kill(stage, Way::Local)),
    on("clicks-kill-amqp", KILL, false, |stage| kill::kill(stage, Way::Broker)),
    on("clicks-kill-cql", KILL, true, |stage| kill::kill(stage, Way::Cluster)),
    on("clicks-copy", COPY, false, |stage| copy::copy(stage, Way::Local)),
    on("clicks-copy-amqp", COPY, false, |stage| copy::copy(stage, Way::Broker)),
    on("clicks-copy-cql", COPY, true, |stage| copy::copy(stage, Way::Cluster)),
    on("clicks-broker-amqp", BROKER, false, |stage| broker::broker_killed(stage, Way::Broker)),
    on("clicks-broker-cql", BROKER, true, |stage| broker::broker_killed(stage, Way::Cluster)),
    on("clicks-projector", PROJECTOR, false, |stage| projector::projector(stage, Way::Local)),
    on("clicks-projector-amqp", PROJECTOR, false, |stage| projector::projector(stage, Way::Broker)),
    on("clicks-projector-cql", PROJECTOR, true, |stage| projector::projector(stage, Way::Cluster)),
    on("clicks-stop-amqp", STOP, false, |stage| broker::broker_stopped(stage, Way::Broker)),
    on("clicks-stop-cql", STOP, true, |stage| broker::broker_stopped(stage, Way::Cluster)),
    on("clicks-redis", REDIS, false, |stage| redis::redis(stage, Way::Local)),
    on("clicks-redis-amqp", REDIS, false, |stage| redis::redis(stage, Way::Broker)),
    on("clicks-redis-cql", REDIS, true, |stage| redis::redis(stage, Way::Cluster)),
    on("clicks-nodes-cql", NODES, true, nodes::nodes),
    on("clicks-twice-amqp", TWICE, false, |stage| twice::twice(stage, Way::Broker)),
    on("clicks-twice-cql", TWICE, true, |stage| twice::twice(stage, Way::Cluster)),
    on("clicks-budget", BUDGET, false, |stage| budget::budget(stage, Way::Local)),
    on("clicks-budget-amqp", BUDGET, false, |stage| budget::budget(stage, Way::Broker)),
    on("clicks-term", TERM, false, |stage| term::term(stage, Way::Local)),
    on("clicks-term-amqp", TERM, false, |stage| term::term(stage, Way::Broker)),
    on("clicks-term-cql", TERM, true, |stage| term::term(stage, Way::Cluster)),
    on("clicks-chaos", CHAOS, false, |stage| chaos::chaos(stage, Way::Local)),
    on("clicks-chaos-amqp", CHAOS, false, |stage| chaos::chaos(stage, Way::Broker)),
    on("clicks-chaos-cql", CHAOS, true, |stage| chaos::chaos(stage, Way::Cluster)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_drill_runs_on_is_in_its_name() {
        for drill in &CLICK_DRILLS {
            assert_eq!(drill.needs_cluster, drill.name.ends_with("-cql"), "{}", drill.name);
            assert!(drill.name.starts_with("clicks-"));
        }
    }

    #[test]
    fn everything_is_tried_on_the_broker_with_both_read_models() {
        let has = |name: String| CLICK_DRILLS.iter().any(|drill| drill.name == name);
        for kind in ["kill", "copy", "broker", "projector", "stop", "redis", "twice", "term", "chaos"] {
            assert!(has(format!("clicks-{kind}-amqp")) && has(format!("clicks-{kind}-cql")), "{kind}");
        }
    }
}
