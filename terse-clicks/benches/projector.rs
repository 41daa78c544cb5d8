//! What it costs to project a click: a log in memory, clicks spread over 50,000 codes as Zipf says, and a read model that
//! keeps none of the rows it is given. Prints clicks a second of one core, and rows written per click;
//! `cargo bench -p terse-clicks --bench projector`. A number on the command line = so many clicks.
#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used)]

#[path = "../tests/one_journal/mod.rs"]
mod one_journal;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use futures_util::FutureExt;
use terse_clicks::enrich::Enrichment;
use terse_clicks::part::Part;
use terse_clicks::projector::{Projector, ProjectorConfig};
use terse_clicks::record::Record;
use terse_core::click::Signals;
use terse_core::ports::clicks::{Bus, ReadModel};
use terse_core::{Clock, Timestamp, Version};
use terse_testkit::SeededEntropy;

use one_journal::{AT, OneJournal, Sink, header};

const CLICKS: usize = 2_000_000;
const CODES: usize = 50_000;
const CLICKS_PER_BLOCK: usize = 1_000;
/// A click of the log's first second comes this much later than one of the second before, in milliseconds.
const CLICKS_A_SECOND: usize = 100_000;

/// Agents of people, of which nearly all clicks are.
const AGENTS: &str = include_str!("../src/enrich/agents.txt");

struct SystemClock(Instant);

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        AT.plus_millis(self.monotonic_ms() as i64)
    }

    fn monotonic_ms(&self) -> u64 {
        self.0.elapsed().as_millis() as u64
    }
}

/// Draws codes as Zipf says: the n-th most frequent comes 1/n as often as the first.
struct Zipf {
    cumulative: Vec<f64>,
    random: SeededEntropy,
}

impl Zipf {
    fn new() -> Self {
        let mut sum = 0.0;
        let weights = (1..=CODES).map(|rank| {
            sum += 1.0 / rank as f64;
            sum
        });
        Self { cumulative: weights.collect(), random: SeededEntropy::new(1) }
    }

    fn draw(&self) -> usize {
        let most = self.cumulative.last().copied().unwrap_or(1.0);
        let point = (self.random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64 * most;
        self.cumulative.partition_point(|sum| *sum < point).min(CODES - 1)
    }
}

fn parts(clicks: usize) -> Vec<Part> {
    let agents: Vec<&str> = AGENTS.lines().filter_map(|line| line.split_once('\t')).map(|(_, agent)| agent).collect();
    let codes: Vec<String> = (0..CODES).map(|code| format!("{:07x}", code * 5_237)).collect();
    let zipf = Zipf::new();
    let record = |number: usize| Record {
        at: AT.plus_millis((number / (CLICKS_A_SECOND / 1_000)) as i64),
        code: &codes[zipf.draw()],
        version: Version(1),
        network: Some([192, 0, 2, 0].into()),
        visitor: Some(zipf.random.next_u64()),
        referrer: b"https://www.example.org",
        user_agent: agents[zipf.random.next_u64() as usize % agents.len()].as_bytes(),
        language: b"de-AT,de;q=0.9,en;q=0.8",
        signals: Signals::default(),
    };
    let part = |seq: usize| {
        let records = (0..CLICKS_PER_BLOCK).map(|index| (index as u32, record(seq * CLICKS_PER_BLOCK + index)));
        Part::new(header(seq, CLICKS_PER_BLOCK), records)
    };
    (0..clicks.div_ceil(CLICKS_PER_BLOCK)).map(part).collect()
}

fn main() {
    let clicks = std::env::args().find_map(|word| word.parse().ok()).unwrap_or(CLICKS).max(CLICKS_PER_BLOCK);
    let parts = parts(clicks);
    let clicks = parts.len() * CLICKS_PER_BLOCK;
    let sink = Arc::new(Sink::default());
    let config = ProjectorConfig::new(Bus::Local, "bench");
    let model: Arc<dyn ReadModel> = sink.clone();
    let log = Box::new(OneJournal { blocks: parts.len(), next: 0, make: move |number: usize| parts[number].clone() });
    let clock = Arc::new(SystemClock(Instant::now()));
    let (enrichment, entropy) = (Enrichment::new([], None), SeededEntropy::new(1));
    let mut projector = Projector::new(config, log, model, enrichment, clock, &entropy).unwrap();
    let began = Instant::now();
    let mut added = 0;
    while added < clicks as u64 {
        added += projector.run_once(0).now_or_never().unwrap().unwrap().added;
    }
    projector.write_now().now_or_never().unwrap().unwrap();
    let seconds = began.elapsed().as_secs_f64();
    let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed) as f64;
    println!(
        "projecting {:>9.0} clicks a second, {:>6.0} ns each; {:.2} rows a click, {} writes, {:.0} bytes a row, \
         {} KiB of rows in play",
        clicks as f64 / seconds,
        seconds * 1e9 / clicks as f64,
        count(&sink.rows) / clicks as f64,
        count(&sink.writes),
        count(&sink.bytes) / count(&sink.rows),
        projector.progress().report().row_bytes >> 10,
    );
}
