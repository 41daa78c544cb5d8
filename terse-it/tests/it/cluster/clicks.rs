//! Each click is counted exactly once with the read model on the cluster, too: the click drills in their quick form.

use crate::drills::drill;

#[test]
fn a_counting_process_that_is_killed_between_rows_and_checkpoint_counts_each_click_once() {
    drill("clicks-projector-cql");
}

#[test]
fn a_broker_that_is_killed_before_a_cluster_costs_no_redirect_and_no_click() {
    drill("clicks-broker-cql");
}

#[test]
fn a_read_model_without_a_quorum_costs_no_redirect_and_no_click() {
    drill("clicks-nodes-cql");
}
