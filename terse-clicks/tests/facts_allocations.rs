//! Telling a click apart allocates nothing when its agent was seen lately. Each test counts its own thread alone.

#![allow(missing_docs)]

use terse_clicks::enrich::Enrichment;
use terse_clicks::record::Record;
use terse_core::click::Signals;
use terse_core::stats::{Dimension, Sketch};
use terse_core::{Timestamp, Version};
use terse_testkit::CountingAllocator;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::new();

/// How often `work` allocated.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = CountingAllocator::of_this_thread();
    work();
    CountingAllocator::of_this_thread() - before
}

fn record(agent: &[u8], prefetch: bool) -> Record<'_> {
    Record {
        at: Timestamp::from_millis(0),
        code: "2nX9Kq1",
        version: Version::FIRST,
        network: Some([192, 0, 2, 0].into()),
        visitor: None,
        referrer: b"https://WWW.Example.org/a/path?with=a&query=too",
        user_agent: agent,
        language: b"de-AT,de;q=0.9,en;q=0.8",
        signals: Signals { prefetch, ..Signals::default() },
    }
}

#[test]
fn a_click_by_a_known_agent_allocates_nothing() {
    let long = [b'x'; 10_000];
    let agents: [&[u8]; 5] = [b"", b"curl/8.5.0", b"Mozilla/5.0 (X11; Linux) Firefox/127.0", b"\xff\xfe", &long];
    let mut enrichment = Enrichment::new(["terse.example"], None);
    let mut tell = |agent| {
        for prefetch in [false, true] {
            let facts = enrichment.facts(&record(agent, prefetch));
            assert_eq!(facts.value(Dimension::Referrer), "example.org");
            assert_eq!(facts.value(Dimension::Language), "de");
        }
    };
    assert!(allocations(|| agents.into_iter().for_each(&mut tell)) > 0, "nothing is counted");
    assert_eq!(allocations(|| (0..100).for_each(|_| agents.into_iter().for_each(&mut tell))), 0);
}

#[test]
fn a_visitor_of_many_allocates_nothing() {
    let spread = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut sketch = Sketch::default();
    (0..1_000).for_each(|number| sketch.add(spread(number)));
    assert_eq!(allocations(|| (0..10_000).for_each(|number| sketch.add(spread(number)))), 0);
}
