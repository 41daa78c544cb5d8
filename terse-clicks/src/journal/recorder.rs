//! Recording, on a web worker's thread.
//!
//! A click is copied into the block that the worker has. A full block is sealed and exchanged for a prepared one.
//! Nothing of that allocates, locks, or calls the system: the threads that prepare and seal blocks are woken by the
//! worker's timer, which looks how old its block is, and when it starts and ends.
//!
//! From here on a click is followed by its block: with `terse_clicks=debug` among what is logged, each step on its way
//! names it.

use std::sync::Arc;

use terse_core::click::{BlockId, Click, ClickRecorder, Dropped};
use terse_core::{ShortCode, Timestamp};

use super::exchange::{Exchange, WorkerCounts};
use super::open::Block;
use super::visitor::Discretion;
use crate::record::Record;
use crate::record::texts::Texts;

/// Writes down the clicks of one worker.
pub(super) struct Recorder {
    exchange: Arc<Exchange>,
    counts: Arc<WorkerCounts>,
    discretion: Discretion,
    texts: Texts,
    open: Option<Open>,
    /// Whether blocks were taken or given back since the threads behind were woken.
    exchanged: bool,
}

struct Open {
    block: Block,
    since_ms: u64,
}

impl Recorder {
    pub(super) fn new(exchange: Arc<Exchange>, counts: Arc<WorkerCounts>) -> Self {
        let discretion = Discretion::new(&exchange.keys, exchange.obey_signals);
        Self { exchange, counts, discretion, texts: Texts::default(), open: None, exchanged: false }
    }

    fn write(&mut self, record: &Record<'_>) -> Result<(), Dropped> {
        if self.open.as_mut().is_some_and(|open| open.block.append(record, &mut self.texts)) {
            return Ok(());
        }
        self.write_to_next(record)
    }

    #[cold]
    fn write_to_next(&mut self, record: &Record<'_>) -> Result<(), Dropped> {
        self.seal(record.at);
        self.exchanged = true;
        let mut block = self.exchange.take_free()?;
        let id = BlockId { journal: self.exchange.journal, seq: self.exchange.take_seq() };
        block.begin(id, self.exchange.partitions, record.at);
        let appended = block.append(record, &mut self.texts);
        self.open = Some(Open { block, since_ms: self.exchange.clock.monotonic_ms() });
        // Blocks are made larger than the largest record.
        if appended { Ok(()) } else { Err(Dropped::Fault) }
    }

    /// Names the block that has `click`.
    #[cold]
    fn tell(&self, click: &Click<'_>) {
        if let Some((block, record)) = self.open.as_ref().and_then(|open| open.block.last()) {
            tracing::debug!(code = click.code, %block, record, "click recorded");
        }
    }

    fn seal(&mut self, now: Timestamp) {
        if let Some(Open { mut block, .. }) = self.open.take() {
            block.seal(now);
            self.exchange.give_back(block);
            self.exchanged = true;
        }
    }
}

impl ClickRecorder for Recorder {
    fn record(&mut self, click: &Click<'_>) -> Result<(), Dropped> {
        // A text that is no code can't be read back; no redirect has one.
        let outcome = if ShortCode::is_valid(click.code) {
            let record = self.discretion.record_of(click);
            self.write(&record)
        } else {
            Err(Dropped::Fault)
        };
        match outcome {
            Ok(()) => {
                self.counts.recorded();
                if tracing::enabled!(tracing::Level::DEBUG) {
                    self.tell(click);
                }
            }
            Err(reason) => self.counts.dropped(reason),
        }
        outcome
    }

    fn seal_if_old(&mut self, now_ms: u64) {
        let age_ms = self.open.as_ref().map_or(0, |open| now_ms.saturating_sub(open.since_ms));
        if age_ms >= self.exchange.seal_age_ms() || self.exchange.is_ending() {
            self.seal(self.exchange.clock.now());
        }
        if std::mem::take(&mut self.exchanged) {
            self.exchange.wake();
        }
    }
}

/// Also when the worker's thread unwinds.
impl Drop for Recorder {
    fn drop(&mut self) {
        self.seal(self.exchange.clock.now());
        self.exchange.remove_worker(&self.counts);
        self.exchange.wake();
    }
}
