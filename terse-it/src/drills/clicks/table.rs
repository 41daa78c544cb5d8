//! The click drills, each on the ways on which it can fail.

use super::way::Way;
use super::{broker, budget, chaos, copy, kill, nodes, projector, redis, term, twice};
use crate::drills::catalogue::takes;
use crate::drills::{Chart, Drill, Stage, Takes};

const LOCAL: Way = Way::Local;
const AMQP: Way = Way::Broker;
const CLUSTER: Way = Way::Cluster;

/// What is tried on several ways.
struct Trial {
    breaks: &'static str,
    hypothesis: &'static str,
}

const KILL: Trial = Trial {
    breaks: "kill -9 of the server that redirects and counts, again and again",
    hypothesis: "Each click whose 302 was received is counted exactly once, and none that was not asked for",
};
const COPY: Trial = Trial {
    breaks: "a journal's directory: it comes back from an older copy, then the original beside it",
    hypothesis: "Nothing that both of them have is counted twice, and nothing that one of them has is lost",
};
const PROJECTOR: Trial = Trial {
    breaks: "kill -9 of the process that counts, again and again; then a stopped one goes on beside its successor",
    hypothesis: "What is counted is what was answered, link by link, and no redirect fails",
};
const BROKER: Trial = Trial {
    breaks: "kill -9 of RabbitMQ, which comes back later",
    hypothesis: "No redirect fails or gets slower, and what is counted afterwards is what was answered",
};
const STOP: Trial = Trial {
    breaks: "RabbitMQ, which stands still for a while and then has no memory left",
    hypothesis: "No redirect fails or gets slower, nothing is sent to a broker that asks to be spared, and what is \
                 counted afterwards is what was answered",
};
const REDIS: Trial = Trial {
    breaks: "kill -9, SIGSTOP and return of Redis under a server that caches in it",
    hypothesis: "No redirect fails, and what is counted is what was answered",
};
const BUDGET: Trial = Trial {
    breaks: "the journal's disk budget, which is used up while nobody takes clicks from it",
    hypothesis: "Redirects are unharmed, and what is counted and what was dropped are what was answered",
};
const TERM: Trial = Trial {
    breaks: "SIGTERM of the server that redirects and counts, under load, again and again",
    hypothesis: "It ends in time and in order, and what is counted is what was answered",
};
const TWICE: Trial = Trial {
    breaks: "the wire to RabbitMQ, on which its confirms are lost, so that clicks are published twice",
    hypothesis: "The streams hold clicks twice, and each is counted once",
};
const NODES: Trial = Trial {
    breaks: "kill -9 of one store node, then of a second one, under a read model on the cluster",
    hypothesis: "Counting goes on with two nodes, pauses with one and catches up, and no redirect fails",
};
const CHAOS: Trial = Trial {
    breaks: "whatever there is, at random: servers, the process that counts, Redis, RabbitMQ, store nodes",
    hypothesis: "Each click whose 302 was received is counted exactly once, whatever happened",
};

/// A trial on a way. It takes so long, quick and in full.
const fn on(name: &'static str, trial: &Trial, way: Way, takes: Takes, run: fn(&mut Stage<'_>)) -> Drill {
    let Trial { breaks, hypothesis } = *trial;
    Drill { name, breaks, hypothesis, needs: way.needs(), takes, chart: Chart::Timeline, run }
}

/// The same with a Redis.
const fn and_redis(drill: Drill) -> Drill {
    Drill { needs: drill.needs.and_redis(), ..drill }
}

/// All of them. Without a suffix: the journals are the log, with a SQLite file; `-amqp`: RabbitMQ and a SQLite file;
/// `-cql`: RabbitMQ and the cluster.
pub(in crate::drills) static CLICK_DRILLS: [Drill; 27] = [
    on("clicks-kill", &KILL, LOCAL, takes(20, 27), |stage| kill::kill(stage, LOCAL)),
    on("clicks-kill-amqp", &KILL, AMQP, takes(28, 44), |stage| kill::kill(stage, AMQP)),
    on("clicks-kill-cql", &KILL, CLUSTER, takes(48, 66), |stage| kill::kill(stage, CLUSTER)),
    on("clicks-copy", &COPY, LOCAL, takes(22, 32), |stage| copy::copy(stage, LOCAL)),
    on("clicks-copy-amqp", &COPY, AMQP, takes(33, 57), |stage| copy::copy(stage, AMQP)),
    on("clicks-copy-cql", &COPY, CLUSTER, takes(53, 123), |stage| copy::copy(stage, CLUSTER)),
    on("clicks-broker-amqp", &BROKER, AMQP, takes(29, 68), |stage| broker::broker_killed(stage, AMQP)),
    on("clicks-broker-cql", &BROKER, CLUSTER, takes(32, 82), |stage| broker::broker_killed(stage, CLUSTER)),
    on("clicks-projector", &PROJECTOR, LOCAL, takes(28, 36), |stage| projector::projector(stage, LOCAL)),
    on("clicks-projector-amqp", &PROJECTOR, AMQP, takes(36, 44), |stage| projector::projector(stage, AMQP)),
    on("clicks-projector-cql", &PROJECTOR, CLUSTER, takes(40, 59), |stage| projector::projector(stage, CLUSTER)),
    on("clicks-stop-amqp", &STOP, AMQP, takes(41, 90), |stage| broker::broker_stopped(stage, AMQP)),
    on("clicks-stop-cql", &STOP, CLUSTER, takes(40, 95), |stage| broker::broker_stopped(stage, CLUSTER)),
    and_redis(on("clicks-redis", &REDIS, LOCAL, takes(14, 19), |stage| redis::redis(stage, LOCAL))),
    and_redis(on("clicks-redis-amqp", &REDIS, AMQP, takes(25, 50), |stage| redis::redis(stage, AMQP))),
    and_redis(on("clicks-redis-cql", &REDIS, CLUSTER, takes(27, 33), |stage| redis::redis(stage, CLUSTER))),
    on("clicks-nodes-cql", &NODES, CLUSTER, takes(80, 107), nodes::nodes),
    on("clicks-twice-amqp", &TWICE, AMQP, takes(20, 21), |stage| twice::twice(stage, AMQP)),
    on("clicks-twice-cql", &TWICE, CLUSTER, takes(23, 30), |stage| twice::twice(stage, CLUSTER)),
    on("clicks-budget", &BUDGET, LOCAL, takes(28, 35), |stage| budget::budget(stage, LOCAL)),
    on("clicks-budget-amqp", &BUDGET, AMQP, takes(40, 45), |stage| budget::budget(stage, AMQP)),
    on("clicks-term", &TERM, LOCAL, takes(17, 20), |stage| term::term(stage, LOCAL)),
    on("clicks-term-amqp", &TERM, AMQP, takes(25, 27), |stage| term::term(stage, AMQP)),
    on("clicks-term-cql", &TERM, CLUSTER, takes(34, 40), |stage| term::term(stage, CLUSTER)),
    and_redis(on("clicks-chaos", &CHAOS, LOCAL, takes(30, 40), |stage| chaos::chaos(stage, LOCAL))),
    and_redis(on("clicks-chaos-amqp", &CHAOS, AMQP, takes(38, 90), |stage| chaos::chaos(stage, AMQP))),
    and_redis(on("clicks-chaos-cql", &CHAOS, CLUSTER, takes(43, 360), |stage| chaos::chaos(stage, CLUSTER))),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_drill_runs_on_is_in_its_name() {
        for drill in &CLICK_DRILLS {
            let (on_amqp, on_cql) = (drill.name.ends_with("-amqp"), drill.name.ends_with("-cql"));
            assert_eq!((drill.needs.broker, drill.needs.cluster), (on_amqp || on_cql, on_cql), "{}", drill.name);
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
