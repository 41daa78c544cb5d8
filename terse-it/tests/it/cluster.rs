//! The promises for a real cluster and a Redis whose parts fail: every drill of
//! them in its quick form, on the cluster that `cargo xtask test` brings up if
//! it needs one.
//!
//! All tests of this program that need the cluster are in this module, and no
//! others: `cargo xtask test` runs it beside the rest.

mod blocked;
mod broker;
mod clicks;
mod slow_stats;

use terse_it::cluster::{Cluster, Consistency};
use terse_it::heavy_turn;

use crate::drills::drill;

#[test]
fn a_killed_node_costs_no_redirect_and_no_link() {
    drill("kill-node");
}

#[test]
fn a_paused_node_costs_no_answer() {
    drill("pause-node");
}

#[test]
fn one_replica_is_enough_to_redirect() {
    drill("two-nodes-down");
}

#[test]
fn cached_links_redirect_without_any_node() {
    drill("all-down");
}

#[test]
fn a_replica_that_slept_shows_nobody_its_old_state() {
    drill("stale-replica");
}

#[test]
fn a_shard_that_is_cut_off_is_not_noticed_by_the_other() {
    drill("shard-cut");
}

#[test]
fn two_hundred_claims_of_an_alias_through_two_servers_make_one_link() {
    drill("alias-race");
}

#[test]
fn two_first_starts_at_once_make_one_deployment_and_no_code_twice() {
    drill("first-start");
}

#[test]
fn a_write_whose_answer_is_lost_is_answered_truly() {
    drill("lost-answer");
}

#[test]
fn a_change_shows_on_the_other_server_and_is_never_undone() {
    drill("visible");
}

#[test]
fn a_change_shows_on_the_other_server_without_redis() {
    drill("visible-no-redis");
}

#[test]
fn a_change_shows_on_the_other_server_while_redis_is_stopped() {
    drill("visible-paused-redis");
}

#[test]
fn redis_that_fails_and_comes_back_with_old_values_harms_nobody() {
    drill("redis-faults");
}

#[test]
fn thousands_who_wait_for_a_slow_store_cost_it_one_read() {
    drill("stampede-slow");
}

#[test]
fn a_slow_store_that_is_asked_for_too_much_does_what_it_can() {
    drill("overload");
}

#[test]
fn a_link_expires_at_its_instant_wherever_it_is_kept() {
    drill("expiry");
}

#[test]
fn two_servers_admit_together_what_one_limit_allows() {
    drill("limits-shared");
}

#[test]
fn a_guard_lets_its_node_go_on() {
    let _turn = heavy_turn();
    let cluster = Cluster::from_env();
    let ask = || cluster.ask(1, "SELECT key FROM system.local", Consistency::One);
    let paused = cluster.pause(1);
    assert!(ask().is_err(), "a stopped node answers");
    drop(paused);
    assert!(ask().is_ok());
}
