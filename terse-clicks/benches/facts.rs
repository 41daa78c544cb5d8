//! What it costs to tell a click apart, and to count its visitor. Prints nanoseconds, the best of five rounds;
//! `cargo bench -p terse-clicks --bench facts`. A number on the command line = so many clicks a round.
#![allow(missing_docs, clippy::print_stdout)]

use std::hint::black_box;
use std::time::Instant;

use terse_clicks::enrich::Enrichment;
use terse_clicks::record::Record;
use terse_core::click::Signals;
use terse_core::stats::Sketch;
use terse_core::{Timestamp, Version};

const CLICKS: u64 = 500_000;
const ROUNDS: usize = 5;

/// Agents of people, of which nearly all clicks are.
const AGENTS: &str = include_str!("../src/enrich/agents.txt");

/// Nanoseconds for one `work`, which gets the number of its round and its own.
fn measure(name: &str, mut work: impl FnMut(usize, u64)) {
    let clicks = std::env::args().find_map(|word| word.parse().ok()).unwrap_or(CLICKS).max(1);
    let mut round = |round| {
        let began = Instant::now();
        (0..clicks).for_each(|click| work(round, click));
        began.elapsed().as_secs_f64() * 1e9 / clicks as f64
    };
    let best = (0..ROUNDS).map(&mut round).fold(f64::INFINITY, f64::min);
    println!("{name:<58} {best:>8.1} ns");
}

fn record(agent: &[u8]) -> Record<'_> {
    Record {
        at: Timestamp::from_millis(0),
        code: "2nX9Kq1",
        version: Version::FIRST,
        network: Some([192, 0, 2, 0].into()),
        visitor: None,
        referrer: b"https://www.example.org/a/path?with=a&query=too",
        user_agent: agent,
        language: b"de-AT,de;q=0.9,en;q=0.8",
        signals: Signals::default(),
    }
}

/// Numbers that are spread evenly: the steps of splitmix64.
fn spread(number: u64) -> u64 {
    let z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn main() {
    let people = AGENTS.lines().filter_map(|line| line.split_once('\t')).map(|(_, agent)| agent.as_bytes());
    let people: Vec<&[u8]> = people.collect();
    let mut enrichment = Enrichment::new(["terse.example"], None);
    measure("a click by an agent that was seen lately", |_, click| {
        let facts = enrichment.facts(&record(people[click as usize % people.len()]));
        black_box(facts.bot);
    });
    let mut agent = Vec::new();
    measure("a click by an agent that never was seen", |round, click| {
        agent.clear();
        agent.extend_from_slice(people[click as usize % people.len()]);
        agent.extend_from_slice(&[round as u8]);
        agent.extend_from_slice(&click.to_le_bytes());
        black_box(enrichment.facts(&record(&agent)).bot);
    });
    let mut few = Sketch::default();
    measure("a visitor of some hundred", |_, click| few.add(spread(click % 500)));
    let mut many = Sketch::default();
    measure("a visitor of many", |_, click| many.add(spread(click)));
    black_box((few.count(), many.count()));
}
