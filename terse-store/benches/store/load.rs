//! Closed-loop load: a fixed number of tasks, each of which begins its next
//! operation when the last has ended, for a fixed time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// What the histogram tells apart, in nanoseconds.
const FINEST_NS: u64 = 100;
/// What the histogram holds at most, in nanoseconds; longer counts as this.
const LONGEST_NS: u64 = 60_000_000_000;

/// Why an operation didn't do what it should.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The store was out of reach or overloaded, which it may be for a moment.
    Refused(String),
    /// The answer is wrong, which it may never be.
    Wrong(String),
}

/// How good an answer is that is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// As good as the store can.
    Full,
    /// A single replica's, because most didn't answer in time. It costs less, so it is told apart.
    Stale,
}

/// What is measured.
pub(crate) trait Operation: Send + Sync + 'static {
    /// Does it once; `number` counts the calls of a window.
    fn run(&self, number: u64) -> impl Future<Output = Result<Answer, Fault>> + Send;
}

/// How much load for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// How many operations run at once.
    pub(crate) concurrency: usize,
    /// How long new ones begin.
    pub(crate) window: Duration,
    /// How many there are at most; then the window ends early.
    pub(crate) most: u64,
}

/// What was measured in a window.
pub(crate) struct Outcome {
    done: u64,
    stale: u64,
    refused: u64,
    refusal: Option<String>,
    elapsed: Duration,
    cpu: Duration,
    latencies: Histogram<u64>,
}

impl Outcome {
    /// This window and another of the same operation as one.
    pub(crate) fn with(mut self, other: &Self) -> Result<Self, String> {
        self.done += other.done;
        self.stale += other.stale;
        self.refused += other.refused;
        self.refusal = self.refusal.take().or_else(|| other.refusal.clone());
        self.elapsed += other.elapsed;
        self.cpu += other.cpu;
        self.latencies.add(&other.latencies).map_err(|error| error.to_string())?;
        Ok(self)
    }

    /// CPU time of this process for each operation, in microseconds.
    pub(crate) fn cpu_us(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.done.max(1) as f64
    }

    /// The readings, under the names that the report has.
    pub(crate) fn json(&self) -> Value {
        let percentile = |percent| self.latencies.value_at_percentile(percent) as f64 / 1e6;
        json!({
            "per_second": self.done as f64 / self.elapsed.as_secs_f64(),
            "cpu_us": self.cpu_us(),
            "p50_ms": percentile(50.0),
            "p99_ms": percentile(99.0),
            "stale": self.stale,
            "refused": self.refused,
        })
    }

    /// Whether every operation was done, and with a full answer.
    pub(crate) fn is_clean(&self) -> bool {
        self.stale == 0 && self.refused == 0
    }

    /// Fails unless something was done, and at most so many percent of all refused.
    pub(crate) fn check(&self, max_refused_percent: u64) -> Result<(), String> {
        let all = self.done + self.refused;
        if self.done == 0 || self.refused * 100 > all * max_refused_percent {
            let why = self.refusal.as_deref().unwrap_or("nothing was begun");
            return Err(format!("{} of {all} operations were refused, the first: {why}", self.refused));
        }
        Ok(())
    }
}

/// One task's part of an outcome.
struct Part {
    done: u64,
    stale: u64,
    refused: u64,
    refusal: Option<String>,
    latencies: Histogram<u64>,
}

/// Runs `operation` under `load`; all that began have ended when this returns.
pub(crate) async fn drive<O: Operation>(load: Load, operation: &Arc<O>) -> Result<Outcome, String> {
    let numbers = Arc::new(AtomicU64::new(0));
    let (cpu, begun) = (process_cpu(), Instant::now());
    let mut tasks = JoinSet::new();
    for _ in 0..load.concurrency {
        let (operation, numbers) = (Arc::clone(operation), Arc::clone(&numbers));
        tasks.spawn(repeat(operation, numbers, begun + load.window, load.most));
    }
    let mut parts = Vec::with_capacity(load.concurrency);
    while let Some(part) = tasks.join_next().await {
        parts.push(part.map_err(|error| error.to_string())??);
    }
    let (elapsed, cpu) = (begun.elapsed(), process_cpu().saturating_sub(cpu));
    let mut outcome = Outcome { done: 0, stale: 0, refused: 0, refusal: None, elapsed, cpu, latencies: histogram()? };
    for part in parts {
        outcome.done += part.done;
        outcome.stale += part.stale;
        outcome.refused += part.refused;
        outcome.refusal = outcome.refusal.or(part.refusal);
        outcome.latencies.add(&part.latencies).map_err(|error| error.to_string())?;
    }
    Ok(outcome)
}

async fn repeat<O: Operation>(
    operation: Arc<O>,
    numbers: Arc<AtomicU64>,
    deadline: Instant,
    most: u64,
) -> Result<Part, String> {
    let mut part = Part { done: 0, stale: 0, refused: 0, refusal: None, latencies: histogram()? };
    loop {
        let begun = Instant::now();
        if begun >= deadline {
            return Ok(part);
        }
        let number = numbers.fetch_add(1, Ordering::Relaxed);
        if number >= most {
            return Ok(part);
        }
        match operation.run(number).await {
            Ok(answer) => {
                part.done += 1;
                part.stale += u64::from(answer == Answer::Stale);
                part.latencies.saturating_record(begun.elapsed().as_nanos() as u64);
            }
            Err(Fault::Refused(why)) => {
                part.refused += 1;
                part.refusal.get_or_insert(why);
            }
            Err(Fault::Wrong(why)) => return Err(why),
        }
        // A store that never waits would keep the other tasks from running.
        tokio::task::coop::consume_budget().await;
    }
}

fn histogram() -> Result<Histogram<u64>, String> {
    Histogram::new_with_bounds(FINEST_NS, LONGEST_NS, 3).map_err(|error| error.to_string())
}

/// CPU time that this process has used, all threads together.
fn process_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}
