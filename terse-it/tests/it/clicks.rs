//! The promise that each click is counted exactly once, whatever is killed on
//! the way: the click drills in their quick form, on one machine's SQLite and journal, with a broker of their own
//! between, and with the read model on the cluster.

use terse_it::cluster::Cluster;
use terse_it::drills::{Form, find};
use terse_it::heavy_turn;

#[track_caller]
fn drill(name: &str) {
    let _turn = heavy_turn();
    let drill = find(name).unwrap();
    let cluster = drill.needs_cluster.then(Cluster::from_env);
    let report = drill.run(cluster.as_ref(), Form::Quick);
    println!("{name}\n{report}");
}

#[test]
fn a_server_that_is_killed_again_and_again_counts_each_click_once() {
    drill("clicks-kill");
}

#[test]
fn a_server_that_is_killed_beside_a_broker_counts_each_click_once() {
    drill("clicks-kill-amqp");
}

#[test]
fn a_journal_that_comes_back_from_a_copy_is_published_twice_and_counted_once() {
    drill("clicks-copy-amqp");
}

#[test]
fn a_counting_process_that_is_killed_or_succeeded_counts_each_click_once() {
    drill("clicks-projector");
}

#[test]
fn a_counting_process_that_is_killed_between_rows_and_checkpoint_counts_each_click_once() {
    drill("clicks-projector-cql");
}

#[test]
fn a_broker_that_is_killed_costs_no_redirect_and_no_click() {
    drill("clicks-broker-amqp");
}

#[test]
fn a_broker_that_is_killed_before_a_cluster_costs_no_redirect_and_no_click() {
    drill("clicks-broker-cql");
}

#[test]
fn a_read_model_without_a_quorum_costs_no_redirect_and_no_click() {
    drill("clicks-nodes-cql");
}

#[test]
fn a_server_that_is_ended_under_load_loses_no_click() {
    drill("clicks-term-amqp");
}
