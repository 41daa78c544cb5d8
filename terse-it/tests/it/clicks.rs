//! The promise that each click is counted exactly once, whatever is killed on
//! the way: the click drills in their quick form, on one machine's SQLite and
//! journal, with a broker of their own between. Those on the cluster are in `cluster`.

use crate::drills::drill;

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
fn a_broker_that_is_killed_costs_no_redirect_and_no_click() {
    drill("clicks-broker-amqp");
}

#[test]
fn a_server_that_is_ended_under_load_loses_no_click() {
    drill("clicks-term-amqp");
}
