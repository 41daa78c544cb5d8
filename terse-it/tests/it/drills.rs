//! Promises for a server that is asked for too much at once: the drills that need no cluster, in their quick form.

use terse_it::cluster::Cluster;
use terse_it::drills::{Form, find};
use terse_it::heavy_turn;

/// Runs a drill in its quick form; no other test of this program that is heavy runs meanwhile.
#[track_caller]
pub(crate) fn drill(name: &str) {
    let drill = find(name).unwrap();
    // What is in `cluster` has the cluster, and a lane of its own among all tests. On the main thread no name tells.
    if let Some((module, _)) = std::thread::current().name().and_then(|test| test.split_once("::")) {
        assert_eq!(module == "cluster", drill.needs.cluster, "{name} is a test of {module}");
    }
    let _turn = heavy_turn();
    let cluster = drill.needs.cluster.then(Cluster::from_env);
    let run = drill.run(cluster.as_ref(), Form::Quick);
    println!("{name}: {}\n{run}", drill.hypothesis);
    run.assert_held();
}

#[test]
fn thousands_who_want_one_code_at_once_cost_one_store_read() {
    drill("stampede");
}

#[test]
fn a_scan_of_unknown_codes_leaves_hot_links_in_memory() {
    drill("scan");
}

#[test]
fn a_celebrity_costs_redis_and_the_store_nothing() {
    drill("celebrity");
}

#[test]
fn who_tries_codes_is_stopped_and_who_reads_is_not() {
    drill("enumeration");
}

#[test]
fn a_flood_of_addresses_takes_no_memory_and_harms_nobody() {
    drill("limits-flood");
}

#[test]
fn a_leaky_bucket_lets_requests_out_evenly() {
    drill("limits-paced");
}

#[test]
fn thousands_of_idle_and_slow_connections_harm_nobody() {
    drill("idle-and-slow");
}
