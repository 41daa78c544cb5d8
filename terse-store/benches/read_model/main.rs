//! What the read model of clicks on SQLite takes and tells: rows written a
//! second, at batches as a projector makes them, and how long a read of a
//! year takes.
//!
//! `cargo bench -p terse-store --bench read_model -- --rounds 3`. Prints one
//! JSON object per measurement. Everything that is written is bounded by
//! [`Options`], and goes into a directory that is removed.
#![allow(missing_docs, clippy::print_stdout, clippy::print_stderr)]

mod clicks;
mod options;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use terse_core::ShortCode;
use terse_core::ports::StoreError;
use terse_core::ports::clicks::{Batch, ClickStats, ReadModel, Written};
use terse_core::stats::Span;
use terse_store::{SqliteReadModel, SqliteReadModelConfig};

use clicks::{Clicks, LAST_DAY, Popular};
use options::Options;

/// The allocator of the server.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What the histogram tells apart, in nanoseconds.
const FINEST_NS: u64 = 100;
/// What the histogram holds at most, in nanoseconds; longer counts as this.
const LONGEST_NS: u64 = 60_000_000_000;

fn main() -> ExitCode {
    match Options::parse(std::env::args().skip(1)).and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench read_model: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(|error| error.to_string())?;
    runtime.block_on(async {
        for _ in 0..options.rounds {
            let directory = tempfile::tempdir_in(&options.folder).map_err(|error| error.to_string())?;
            let mut config = SqliteReadModelConfig::new(directory.path().join("stats.sqlite"));
            options.apply(&mut config);
            let model = SqliteReadModel::open(config).map_err(text)?;
            model.attach().await.map_err(text)?;
            writes(options, &model).await?;
            reads(options, &model).await?;
        }
        Ok(())
    })
}

/// Writes all rows at once, and again, and then those of the codes that were clicked.
async fn writes(options: &Options, model: &SqliteReadModel) -> Result<(), String> {
    let mut clicks = Clicks::new(options.codes);
    // What was there before: each code has its days and hours of old.
    for day in LAST_DAY - options.history..LAST_DAY {
        write(model, &clicks.all_rows(day)).await?;
    }
    for series in ["all rows, new", "all rows, changed"] {
        let all = clicks.all_rows(LAST_DAY);
        let mut written = Measured::begin();
        for batch in in_batches(&all, options.batch) {
            written.add(&batch);
            write(model, &batch).await?;
        }
        written.report(series);
        clicks.click_all();
    }
    let mut written = Measured::begin();
    for _ in 0..options.flushes {
        let batch = clicks.flush(options.clicks);
        written.made(&batch, options.clicks);
        write(model, &batch).await?;
        written.wrote();
    }
    written.report("rows of those clicked");
    Ok(())
}

fn in_batches(batch: &Batch, size: usize) -> impl Iterator<Item = Batch> {
    batch.rows.chunks(size).map(|rows| Batch { rows: rows.to_vec(), ..Batch::default() })
}

async fn write(model: &SqliteReadModel, batch: &Batch) -> Result<(), String> {
    match model.write(batch).await.map_err(text)? {
        Written::Stands => Ok(()),
        Written::Superseded => Err("superseded, though nobody else is there".to_owned()),
    }
}

/// Reads of a link of ten million clicks, among others.
async fn reads(options: &Options, model: &SqliteReadModel) -> Result<(), String> {
    let popular = Popular::new();
    for day in LAST_DAY - 364..=LAST_DAY {
        write(model, &popular.day(day)).await?;
    }
    write(model, &popular.all()).await?;
    let year = (Span::Day(LAST_DAY - 364), Span::Day(LAST_DAY));
    let month = (Span::Hour((LAST_DAY - 30) * 24), Span::Hour(LAST_DAY * 24 + 23));
    let hours = (Span::Hour((LAST_DAY - 364) * 24), Span::Hour(LAST_DAY * 24 + 23));
    for (series, range, expected) in
        [("a year of days", year, 365), ("a month of hours", month, 744), ("a year of hours", hours, 8_760)]
    {
        timed(series, options.reads, async |turn| {
            let found = model.spans(popular.code(turn), range.0, range.1).await?;
            Ok(found.len() == expected)
        })
        .await?;
    }
    timed("all time", options.reads, async |turn| Ok(model.overall(popular.code(turn)).await?.is_some())).await
}

async fn timed(
    series: &str,
    count: u64,
    mut read: impl AsyncFnMut(u64) -> Result<bool, StoreError>,
) -> Result<(), String> {
    let mut latencies =
        Histogram::<u64>::new_with_bounds(FINEST_NS, LONGEST_NS, 3).map_err(|error| error.to_string())?;
    for turn in 0..count {
        let begun = Instant::now();
        if !read(turn).await.map_err(text)? {
            return Err(format!("{series}: not the rows that were written"));
        }
        latencies.saturating_record(u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }
    let ms = |percent| latencies.value_at_percentile(percent) as f64 / 1e6;
    println!("{}", json!({"series": series, "readings": {"p50_ms": ms(50.0), "p99_ms": ms(99.0)}}));
    Ok(())
}

/// What was written, and what it took.
struct Measured {
    rows: usize,
    clicks: usize,
    bytes: usize,
    elapsed: Duration,
    cpu: Duration,
    /// When what is being measured began.
    since: (Instant, Duration),
}

impl Measured {
    fn begin() -> Self {
        let since = (Instant::now(), process_cpu());
        Self { rows: 0, clicks: 0, bytes: 0, elapsed: Duration::ZERO, cpu: Duration::ZERO, since }
    }

    /// A batch is going to be written.
    fn add(&mut self, batch: &Batch) {
        self.rows += batch.rows.len();
    }

    /// A batch was made, which is not what is measured.
    fn made(&mut self, batch: &Batch, clicks: usize) {
        self.rows += batch.rows.len();
        self.clicks += clicks;
        self.bytes += batch.rows.iter().map(|(_, stored)| stored.cell.bytes().len()).sum::<usize>();
        self.since = (Instant::now(), process_cpu());
    }

    fn wrote(&mut self) {
        self.elapsed += self.since.0.elapsed();
        self.cpu += process_cpu().saturating_sub(self.since.1);
    }

    fn report(mut self, series: &str) {
        if self.elapsed.is_zero() {
            self.wrote();
        }
        let seconds = self.elapsed.as_secs_f64();
        let readings = json!({
            "rows": self.rows,
            "rows_per_second": self.rows as f64 / seconds,
            "clicks_per_second": self.clicks as f64 / seconds,
            "bytes_per_row": self.bytes as f64 / self.rows.max(1) as f64,
            "cpu_us_per_row": self.cpu.as_secs_f64() * 1e6 / self.rows.max(1) as f64,
        });
        println!("{}", json!({"series": series, "readings": readings}));
    }
}

/// CPU time that this process has used, all threads together.
fn process_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

fn text(error: StoreError) -> String {
    error.to_string()
}

/// The code of this number, scattered as generated codes are.
fn scattered(number: u64) -> ShortCode {
    let mut rest = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let letters: String = (0..7)
        .map(|_| {
            let letter = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"[(rest % 62) as usize];
            rest /= 62;
            char::from(letter)
        })
        .collect();
    terse_testkit::links::code(&letters)
}
