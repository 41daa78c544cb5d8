//! What the projector takes of memory stays within its bounds, whatever clients send: what is allowed is compared with
//! what the allocator gave.

#![allow(missing_docs, clippy::unwrap_used)]

mod one_journal;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::FutureExt;
use terse_clicks::enrich::Enrichment;
use terse_clicks::part::Part;
use terse_clicks::projector::{MAX_BATCH_BYTES, Projector, ProjectorConfig};
use terse_clicks::record::Record;
use terse_core::click::Signals;
use terse_core::ports::clicks::{Bus, ReadModel};
use terse_core::{Clock, Version};
use terse_testkit::{CountingAllocator, SeededEntropy, TestClock};

use one_journal::{AT, OneJournal, Sink, header};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::new();

/// Each gets as many clicks as a row has names, each with a referrer of its own.
const CODES: usize = 2_000;
const CLICKS_PER_CODE: usize = 100;
const CODES_PER_BLOCK: usize = 10;
const CACHE_BYTES: usize = 16 << 20;

/// A block in which each of its codes is clicked by way of as many sites as a row has names.
fn block(number: usize) -> Part {
    let clicks: Vec<(String, String)> = (0..CODES_PER_BLOCK * CLICKS_PER_CODE)
        .map(|click| {
            let code = number * CODES_PER_BLOCK + click % CODES_PER_BLOCK;
            // A name within the bounds of names: labels of at most 63 letters.
            let host = format!("{:030}.{:060}.org", click, code);
            (format!("c{code:06}"), format!("https://{host}/"))
        })
        .collect();
    let record = |(code, referrer)| Record {
        at: AT,
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
    Part::new(header(number, CODES_PER_BLOCK * CLICKS_PER_CODE), (0..).zip(texts.map(record)))
}

/// One test, for allocations of any other would be counted, too.
#[test]
fn rows_that_clients_filled_stay_within_the_bounds_of_memory() {
    let (model, clock) = (Arc::new(Sink::default()), Arc::new(TestClock::default()) as Arc<dyn Clock>);
    let mut config = ProjectorConfig::new(Bus::Local, "nobody");
    config.cache_bytes = CACHE_BYTES;
    let log = Box::new(OneJournal { blocks: CODES / CODES_PER_BLOCK, next: 0, make: block });
    let entropy = SeededEntropy::new(1);
    let read_model = Arc::clone(&model) as Arc<dyn ReadModel>;
    // Rules and their tables are made before memory is measured.
    let enrichment = Enrichment::new([], None);
    let before = ALLOCATOR.live_bytes();
    let mut projector = Projector::new(config, log, read_model, enrichment, clock, &entropy).unwrap();
    let (mut most_kept, mut most) = (0, 0);
    loop {
        // Time stands still: only what is full is written.
        let step = projector.run_once(0).now_or_never().unwrap().unwrap();
        most = most.max(ALLOCATOR.live_bytes() - before);
        if step.wrote {
            most_kept = most_kept.max(ALLOCATOR.live_bytes() - before);
        }
        if step.taken == 0 {
            break;
        }
    }
    projector.write_now().now_or_never().unwrap().unwrap();
    let kept = ALLOCATOR.live_bytes() - before;
    let (rows, heaviest) = (model.rows.load(Ordering::Relaxed), model.heaviest.load(Ordering::Relaxed));
    assert_eq!(rows, CODES * 3, "each code is in one block, so each row is written once");
    assert!(heaviest >= MAX_BATCH_BYTES * 3 / 4, "the bound was reached: {heaviest} bytes in a write");
    assert!(heaviest <= MAX_BATCH_BYTES * 5 / 4, "{heaviest} bytes in a write");
    assert!(most <= (MAX_BATCH_BYTES + CACHE_BYTES) * 5 / 4, "{most} bytes at the most");
    assert!(most_kept.max(kept) <= CACHE_BYTES * 9 / 8, "{} bytes after a write", most_kept.max(kept));
    assert!(kept >= CACHE_BYTES / 3, "rows that fit are kept: {kept} bytes");
}
