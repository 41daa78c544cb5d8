#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;

const MS: u64 = 1_000;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A timeline with one load of so long, and these requests: when, how long, what came of it.
fn timeline(load_ms: u64, notes: &[(u64, u64, Answer)]) -> Timeline {
    let timeline = Timeline::start();
    timeline.kept().loads.push(Span { from_us: 0, to_us: Some(load_ms * MS) });
    for (at, took, answer) in notes {
        timeline.note("redirect", timeline.began + ms(*at), ms(*took), *answer);
    }
    timeline
}

fn break_it(timeline: &Timeline, what: &str, from_ms: u64, to_ms: Option<u64>) {
    timeline.kept().faults.push((what.into(), Span { from_us: from_ms * MS, to_us: to_ms.map(|to| to * MS) }));
}

use Answer::{Answered, Failed, Refused};

#[test]
fn a_request_belongs_to_the_bucket_in_which_it_was_asked() {
    let edges = timeline(1_000, &[(0, 600, Answered), (249, 1, Answered), (250, 2, Answered), (1_000, 3, Answered)]);
    let picture = edges.picture().unwrap();
    let counts: Vec<usize> = picture.lane("redirect").iter().map(|bucket| bucket.answered).collect();
    assert_eq!(counts, [2, 1, 0, 1], "an edge begins a bucket; the very end belongs to the last one");
    assert_eq!(picture.lane("redirect")[0].max, ms(600), "a stall shows where it began");
    assert_eq!((picture.bucket(), picture.loaded()), (BUCKET, &[BUCKET; 4][..]));
}

#[test]
fn refusals_and_failures_are_told_apart_and_have_no_latency() {
    let picture = timeline(250, &[(1, 10, Answered), (2, 900, Refused), (3, 5_000, Failed), (4, 30, Answered)]);
    let bucket = picture.picture().unwrap().lane("redirect")[0];
    assert_eq!((bucket.answered, bucket.refused, bucket.failed), (2, 1, 1));
    assert_eq!((bucket.p50, bucket.p99, bucket.max), (ms(10), ms(30), ms(30)));
    assert_eq!(bucket.to_string(), "2 answered, 1 refused, 1 failed, p99 30.0 ms, longest 30.0 ms");
}

#[test]
fn a_long_time_has_longer_buckets_and_no_more_of_them() {
    for (seconds, bucket) in [(1, 250), (30, 250), (31, 500), (60, 500), (61, 1_000), (600, 8_000)] {
        let picture = timeline(seconds * 1_000, &[(0, 1, Answered)]).picture().unwrap();
        assert_eq!(picture.bucket(), ms(bucket), "{seconds} s");
        assert!(picture.loaded().len() <= POINTS);
    }
}

#[test]
fn what_no_load_covers_is_told() {
    let timeline = timeline(300, &[(0, 1, Answered), (900, 1, Answered)]);
    timeline.kept().loads.push(Span { from_us: 800 * MS, to_us: Some(900 * MS) });
    timeline.kept().loads.push(Span { from_us: 850 * MS, to_us: Some(1_000 * MS) });
    let picture = timeline.picture().unwrap();
    assert_eq!(picture.loaded(), [ms(250), ms(50), ms(0), ms(200)], "two loads at once cover it once");
}

#[test]
fn zero_is_the_beginning_of_the_first_load() {
    let timeline = Timeline::start();
    timeline.kept().loads.push(Span { from_us: 5_000 * MS, to_us: Some(6_000 * MS) });
    timeline.note("create", timeline.began + ms(5_300), ms(7), Answered);
    break_it(&timeline, "before", 1_000, Some(2_000));
    break_it(&timeline, "all the time", 4_000, Some(9_000));
    break_it(&timeline, "after", 7_000, Some(8_000));
    let picture = timeline.picture().unwrap();
    assert_eq!(picture.lane("create")[1].answered, 1);
    assert!(picture.lane("redirect").is_empty());
    let marked = |what: &str| picture.faults().iter().find(|fault| fault.what == what).cloned();
    let all = Marked { what: "all the time".into(), from: ms(0), to: ms(1_000) };
    assert_eq!((marked("all the time"), marked("after")), (Some(all), None), "what is marked is within the loads");
}

#[test]
fn what_was_met_with_the_fault_is_told_of_its_time_alone() {
    let timeline = timeline(2_000, &[(499, 1, Answered), (500, 2, Refused), (999, 3, Failed), (1_000, 4, Answered)]);
    break_it(&timeline, "node 2 killed", 500, Some(1_000));
    let picture = timeline.picture().unwrap();
    assert_eq!(picture.observed(), ["redirect, with the fault: 0 answered, 1 refused, 1 failed"]);
    let told = picture.json();
    assert_eq!(told["faults"], json!([{ "what": "node 2 killed", "from_s": 0.5, "to_s": 1.0 }]));
    assert_eq!(
        (&told["with_fault"]["redirect"]["failed"], &told["whole"]["redirect"]["answered"]),
        (&json!(1), &json!(2))
    );
    assert_eq!((&told["main"], &told["bucket_ms"]), (&json!("redirect"), &json!(250)));
    assert_eq!(told["lanes"]["redirect"]["answered"], json!([0, 1, 0, 0, 1, 0, 0, 0]));
    assert_eq!(told["lanes"]["redirect"]["p50_ms"][0], json!(null), "nothing was answered, so there is no latency");
    assert_eq!(told["lanes"]["redirect"]["max_ms"][4], json!(4.0));
}

#[test]
fn a_column_of_zeros_is_left_out() {
    let told = timeline(500, &[(0, 1, Answered)]).picture().unwrap().json();
    let lane = &told["lanes"]["redirect"];
    assert!(lane["refused"].is_null() && lane["failed"].is_null() && lane["answered"].is_array(), "{told}");
}

#[test]
fn without_a_fault_all_the_time_is_told() {
    let told = timeline(500, &[(0, 1, Answered), (1, 1, Answered)]).picture().unwrap().observed();
    assert_eq!(told, ["redirect: 2 answered, 0 refused, 0 failed, p99 1.0 ms, longest 1.0 ms"]);
    let timeline = timeline(500, &[(0, 1, Answered)]);
    timeline.note("create", timeline.began + ms(9), ms(1), Failed);
    let told = timeline.picture().unwrap().observed();
    assert!(told.len() == 2 && told[0] == "create: 0 answered, 0 refused, 1 failed", "{told:?}");
}

#[test]
fn nothing_is_drawn_without_a_load_or_an_answer() {
    assert!(Timeline::start().picture().is_none());
    assert!(timeline(1_000, &[]).picture().is_none());
    let timeline = Timeline::start();
    timeline.note("redirect", Instant::now(), ms(1), Answered);
    assert!(timeline.picture().is_none(), "no load ran");
}

#[test]
fn a_fault_lasts_until_its_guard_is_dropped_and_a_panic_drops_it() {
    let timeline = timeline(0, &[(0, 1, Answered)]);
    let load = timeline.load();
    let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _fault = timeline.fault("dropped");
        panic!("as a drill does");
    }));
    assert!(failed.is_err());
    let lasting = timeline.fault("lasting");
    std::thread::sleep(ms(5));
    let ends: Vec<bool> = timeline.kept().faults.iter().map(|(_, span)| span.to_us.is_some()).collect();
    assert_eq!(ends, [true, false]);
    lasting.end();
    load.end();
    let picture = timeline.picture().unwrap();
    assert!(picture.faults().iter().all(|fault| fault.to >= fault.from), "{:?}", picture.faults());
    assert!(picture.faults()[1].to - picture.faults()[1].from >= ms(5));
}

#[test]
fn what_is_beyond_the_room_is_counted() {
    let timeline = Timeline { room: 2, ..timeline(500, &[]) };
    (0..5).for_each(|at| timeline.note("redirect", timeline.began + ms(at), ms(1), Answered));
    let faults: Vec<Lasting> = (0..FAULTS_KEPT + 1).map(|_| timeline.fault("again")).collect();
    drop(faults);
    let picture = timeline.picture().unwrap();
    assert_eq!(picture.lane("redirect")[0].answered, 2);
    assert_eq!(picture.json()["left_out"], 4, "three answers and a fault");
}

#[test]
fn each_outcome_of_a_load_is_an_answer_of_some_kind() {
    let link = crate::load::KnownLink { code: "c".into(), target: "t".into() };
    let answers = [Outcome::Good, Outcome::Made(link), Outcome::Refused("".into()), Outcome::Wrong("".into())];
    assert_eq!(answers.each_ref().map(Answer::from), [Answered, Answered, Refused, Failed]);
    assert_eq!(Answer::from(&Outcome::NoAnswer("reset".into())), Failed);
}
