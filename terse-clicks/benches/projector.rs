//! What it costs to project a click: a log in memory, clicks spread over 50,000 codes as Zipf says, and a read model that
//! encodes the rows it is given and keeps none. Prints clicks a second of one core, and rows written per click;
//! `cargo bench -p terse-clicks --bench projector`. A number on the command line = so many clicks.
#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used)]

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use async_trait::async_trait;
use futures_util::FutureExt;
use terse_clicks::enrich::Enrichment;
use terse_clicks::log::{Body, ClickLog, Delivery, LogError};
use terse_clicks::part::{Part, PartHeader};
use terse_clicks::projector::{Projector, ProjectorConfig};
use terse_clicks::record::Record;
use terse_core::click::{BlockId, JournalId, Signals};
use terse_core::ports::StoreError;
use terse_core::ports::clicks::{Batch, Bus, Checkpoint, ReadModel, Retired, StoredRow, Written};
use terse_core::stats::{Partition, RowKey};
use terse_core::{Clock, Timestamp, Version};
use terse_testkit::SeededEntropy;

const CLICKS: usize = 2_000_000;
const CODES: usize = 50_000;
const CLICKS_PER_BLOCK: usize = 1_000;
const JOURNAL: JournalId = JournalId([1; 16]);
/// A click of the log's first second comes this much later than one of the second before, in milliseconds.
const CLICKS_A_SECOND: usize = 100_000;

/// Agents of people, of which nearly all clicks are.
const AGENTS: &str = include_str!("../src/enrich/agents.txt");

struct SystemClock(Instant);

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_767_323_045_000).plus_millis(self.monotonic_ms() as i64)
    }

    fn monotonic_ms(&self) -> u64 {
        self.0.elapsed().as_millis() as u64
    }
}

/// One journal, read from front to back.
struct Blocks {
    parts: Vec<Part>,
    next: usize,
}

#[async_trait]
impl ClickLog for Blocks {
    async fn partitions(&mut self) -> Result<Vec<Partition>, LogError> {
        Ok(vec![Partition::Journal(JOURNAL)])
    }

    async fn start(&mut self, _: Partition, _: Option<&Checkpoint>) -> Result<(), LogError> {
        Ok(())
    }

    async fn next(&mut self, most_bytes: usize, _: u64) -> Result<Vec<Delivery>, LogError> {
        let (mut bytes, mut taken) = (0, Vec::new());
        while bytes < most_bytes
            && let Some(part) = self.parts.get(self.next)
        {
            let delivery = Delivery {
                partition: Partition::Journal(JOURNAL),
                offset: self.next as u64,
                body: Body::Part(part.clone()),
            };
            bytes += part.frames_len();
            taken.push(delivery);
            self.next += 1;
        }
        Ok(taken)
    }

    async fn passed(&mut self, _: Partition, _: u64) -> Result<(), LogError> {
        Ok(())
    }

    async fn dead_letter(&mut self, _: &Delivery) -> Result<(), LogError> {
        Ok(())
    }

    fn stop(&mut self, _: Partition) {}

    fn ended(&self) -> Vec<(Partition, JournalId)> {
        Vec::new()
    }

    fn oldest_waiting(&self) -> Option<Timestamp> {
        None
    }
}

/// Encodes what it is given, if it is to, and keeps nothing.
#[derive(Default)]
struct Sink {
    encodes: bool,
    rows: AtomicU64,
    bytes: AtomicU64,
    writes: AtomicU64,
}

#[async_trait]
impl ReadModel for Sink {
    async fn settle_bus(&self, bus: Bus) -> Result<Bus, StoreError> {
        Ok(bus)
    }

    async fn attach(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn lease(&self, _: Partition, _: &str, _: Timestamp, _: u64) -> Result<bool, StoreError> {
        Ok(true)
    }

    async fn checkpoint(&self, _: Partition) -> Result<Option<Checkpoint>, StoreError> {
        Ok(None)
    }

    async fn checkpoints(&self) -> Result<Vec<(Partition, Checkpoint)>, StoreError> {
        Ok(Vec::new())
    }

    async fn retired(&self, _: Partition, _: JournalId) -> Result<Option<Retired>, StoreError> {
        Ok(None)
    }

    async fn load(&self, keys: &[RowKey]) -> Result<Vec<Option<StoredRow>>, StoreError> {
        Ok(vec![None; keys.len()])
    }

    async fn write(&self, batch: &Batch) -> Result<Written, StoreError> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.rows.fetch_add(batch.rows.len() as u64, Ordering::Relaxed);
        if self.encodes {
            let bytes: usize = batch.rows.iter().map(|(_, stored)| black_box(stored.row.encode()).len()).sum();
            self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        }
        Ok(Written::Stands)
    }

    async fn scan(&self, _: Option<&RowKey>, _: usize) -> Result<Vec<(RowKey, StoredRow)>, StoreError> {
        Ok(Vec::new())
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
        at: Timestamp::from_millis(1_767_323_045_000 + (number / (CLICKS_A_SECOND / 1_000)) as i64),
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
        let header = PartHeader {
            block: BlockId { journal: JOURNAL, seq: seq as u64 },
            partition: 0,
            partitions: 1,
            block_records: CLICKS_PER_BLOCK as u32,
            recovered: false,
            end: false,
            sealed_at: Timestamp::from_millis(1_767_323_045_000),
        };
        let records = (0..CLICKS_PER_BLOCK).map(|index| (index as u32, record(seq * CLICKS_PER_BLOCK + index)));
        Part::new(header, records)
    };
    (0..clicks.div_ceil(CLICKS_PER_BLOCK)).map(part).collect()
}

fn main() {
    let clicks = std::env::args().find_map(|word| word.parse().ok()).unwrap_or(CLICKS).max(CLICKS_PER_BLOCK);
    let parts = parts(clicks);
    let clicks = parts.len() * CLICKS_PER_BLOCK;
    for encodes in [false, true] {
        let sink = Arc::new(Sink { encodes, ..Sink::default() });
        let mut config = ProjectorConfig::new(Bus::Local, "bench");
        config.cache_bytes = 2 << 30;
        let model: Arc<dyn ReadModel> = sink.clone();
        let log = Box::new(Blocks { parts: parts.clone(), next: 0 });
        let clock = Arc::new(SystemClock(Instant::now()));
        let enrichment = Enrichment::new([], None);
        let entropy = SeededEntropy::new(1);
        let mut projector = Projector::new(config, log, model, enrichment, clock, &entropy).unwrap();
        let began = Instant::now();
        let mut added = 0;
        while added < clicks as u64 {
            added += projector.run_once(0).now_or_never().unwrap().unwrap().added;
        }
        projector.write_now().now_or_never().unwrap().unwrap();
        let seconds = began.elapsed().as_secs_f64();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
        println!(
            "{:<28} {:>9.0} clicks a second, {:>6.0} ns each; {:.2} rows a click, {} writes, {:.0} bytes a row",
            if encodes { "projecting and encoding" } else { "projecting" },
            clicks as f64 / seconds,
            seconds * 1e9 / clicks as f64,
            count(&sink.rows) / clicks as f64,
            count(&sink.writes),
            count(&sink.bytes) / count(&sink.rows),
        );
    }
}
