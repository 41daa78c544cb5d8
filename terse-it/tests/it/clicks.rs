//! The promise that each click is counted exactly once, whatever is killed on
//! the way: the click drills in their quick form, on one machine's SQLite and journal.

use terse_it::drills::{Form, find};
use terse_it::heavy_turn;

#[track_caller]
fn drill(name: &str) {
    let _turn = heavy_turn();
    let report = find(name).unwrap().run(None, Form::Quick);
    println!("{name}\n{report}");
}

#[test]
fn a_server_that_is_killed_again_and_again_counts_each_click_once() {
    drill("clicks-kill");
}

#[test]
fn a_journal_that_comes_back_from_a_copy_counts_each_click_once() {
    drill("clicks-copy");
}

#[test]
fn a_counting_process_that_is_killed_or_succeeded_counts_each_click_once() {
    drill("clicks-projector");
}

#[test]
fn a_server_that_is_ended_under_load_loses_no_click() {
    drill("clicks-term");
}
