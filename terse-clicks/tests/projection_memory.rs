//! What the projector takes of memory stays within its bounds, whatever clients send: what is allowed is compared with
//! what the allocator gave.

#![allow(missing_docs, clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use futures_util::FutureExt;
use terse_clicks::enrich::Enrichment;
use terse_clicks::log::{Body, ClickLog, Delivery, LogError};
use terse_clicks::part::{Part, PartHeader};
use terse_clicks::projector::{MAX_BATCH_BYTES, Projector, ProjectorConfig};
use terse_clicks::record::Record;
use terse_core::click::{BlockId, JournalId, Signals};
use terse_core::ports::StoreError;
use terse_core::ports::clicks::{Batch, Bus, Checkpoint, ReadModel, Retired, StoredRow, Written};
use terse_core::stats::{Partition, Row, RowKey};
use terse_core::{Clock, Timestamp, Version};
use terse_testkit::{SeededEntropy, TestClock};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes that are allocated now.
static LIVE: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, counted.
struct Counting;

#[allow(unsafe_code, reason = "an allocator can't be written without; all is left to the system's")]
// SAFETY: every call goes to the system's allocator with the arguments that came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LIVE.fetch_add(size, Ordering::Relaxed);
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(place, layout, size) }
    }
}

fn live() -> usize {
    LIVE.load(Ordering::Relaxed)
}

const JOURNAL: JournalId = JournalId([1; 16]);
/// Each gets as many clicks as a row has names, each with a referrer of its own.
const CODES: usize = 1_000;
const CLICKS_PER_CODE: usize = 100;
const CODES_PER_BLOCK: usize = 10;
const CACHE_BYTES: usize = 16 << 20;

/// A log that makes its blocks when they are read.
struct Hostile {
    next: usize,
}

fn block(number: usize) -> Part {
    let header = PartHeader {
        block: BlockId { journal: JOURNAL, seq: number as u64 },
        partition: 0,
        partitions: 1,
        block_records: (CODES_PER_BLOCK * CLICKS_PER_CODE) as u32,
        recovered: false,
        end: false,
        sealed_at: Timestamp::from_millis(1_767_323_045_000),
    };
    let clicks: Vec<(String, String)> = (0..CODES_PER_BLOCK * CLICKS_PER_CODE)
        .map(|click| {
            let code = number * CODES_PER_BLOCK + click % CODES_PER_BLOCK;
            // A name within the bounds of names: labels of at most 63 letters.
            let host = format!("{:030}.{:060}.org", click, code);
            (format!("c{code:06}"), format!("https://{host}/"))
        })
        .collect();
    let record = |(code, referrer)| Record {
        at: Timestamp::from_millis(1_767_323_045_000),
        code,
        version: Version(1),
        network: None,
        visitor: Some(7),
        referrer,
        user_agent: b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        language: b"de",
        signals: Signals::default(),
    };
    let texts = clicks.iter().map(|(code, referrer)| (code.as_str(), referrer.as_bytes()));
    Part::new(header, (0..).zip(texts.map(record)))
}

#[async_trait]
impl ClickLog for Hostile {
    async fn partitions(&mut self) -> Result<Vec<Partition>, LogError> {
        Ok(vec![Partition::Journal(JOURNAL)])
    }

    async fn start(&mut self, _: Partition, _: Option<&Checkpoint>) -> Result<(), LogError> {
        Ok(())
    }

    async fn next(&mut self, _: usize, _: u64) -> Result<Vec<Delivery>, LogError> {
        if self.next == CODES / CODES_PER_BLOCK {
            return Ok(Vec::new());
        }
        let (offset, body) = (self.next as u64, Body::Part(block(self.next)));
        self.next += 1;
        Ok(vec![Delivery { partition: Partition::Journal(JOURNAL), offset, body }])
    }

    async fn passed(&mut self, _: Partition, _: u64) -> Result<(), LogError> {
        Ok(())
    }

    async fn dead_letter(&mut self, _: &Delivery) -> Result<(), LogError> {
        unreachable!("all of it can be decoded")
    }

    fn stop(&mut self, _: Partition) {}

    fn ended(&self) -> Vec<(Partition, JournalId)> {
        Vec::new()
    }

    fn oldest_waiting(&self) -> Option<Timestamp> {
        None
    }
}

/// Keeps nothing but how much it was given at once.
#[derive(Default)]
struct Sink {
    rows: AtomicUsize,
    heaviest: AtomicUsize,
}

fn weight(rows: &[(RowKey, StoredRow)]) -> usize {
    rows.iter().map(|(_, stored)| stored.row.heap_bytes() + size_of::<Row>()).sum()
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
        self.rows.fetch_add(batch.rows.len(), Ordering::Relaxed);
        self.heaviest.fetch_max(weight(&batch.rows), Ordering::Relaxed);
        Ok(Written::Stands)
    }

    async fn scan(&self, _: Option<&RowKey>, _: usize) -> Result<Vec<(RowKey, StoredRow)>, StoreError> {
        Ok(Vec::new())
    }
}

/// One test, for allocations of any other would be counted, too.
#[test]
fn rows_that_clients_filled_stay_within_the_bounds_of_memory() {
    let (model, clock) = (Arc::new(Sink::default()), Arc::new(TestClock::default()) as Arc<dyn Clock>);
    let mut config = ProjectorConfig::new(Bus::Local, "nobody");
    config.cache_bytes = CACHE_BYTES;
    let (log, entropy) = (Box::new(Hostile { next: 0 }), SeededEntropy::new(1));
    let read_model = Arc::clone(&model) as Arc<dyn ReadModel>;
    // Rules and their tables are made before memory is measured.
    let enrichment = Enrichment::new([], None);
    let before = live();
    let mut projector = Projector::new(config, log, read_model, enrichment, clock, &entropy).unwrap();
    let (mut most_kept, mut most) = (0, 0);
    loop {
        // Time stands still: only what is full is written.
        let step = projector.run_once(0).now_or_never().unwrap().unwrap();
        most = most.max(live() - before);
        if step.wrote {
            most_kept = most_kept.max(live() - before);
        }
        if step.taken == 0 {
            break;
        }
    }
    projector.write_now().now_or_never().unwrap().unwrap();
    let kept = live() - before;
    let (rows, heaviest) = (model.rows.load(Ordering::Relaxed), model.heaviest.load(Ordering::Relaxed));
    assert_eq!(rows, CODES * 3, "each code is in one block, so each row is written once");
    assert!(heaviest >= MAX_BATCH_BYTES * 3 / 4, "the bound was reached: {heaviest} bytes in a write");
    assert!(heaviest <= MAX_BATCH_BYTES * 5 / 4, "{heaviest} bytes in a write");
    assert!(most <= (MAX_BATCH_BYTES + CACHE_BYTES) * 5 / 4, "{most} bytes at the most");
    assert!(most_kept.max(kept) <= CACHE_BYTES * 9 / 8, "{} bytes after a write", most_kept.max(kept));
    assert!(kept >= CACHE_BYTES / 3, "rows that fit are kept: {kept} bytes");
}
