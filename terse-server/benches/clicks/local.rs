//! Journals of this machine, counted in SQLite.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use terse_clicks::enrich::Enrichment;
use terse_clicks::journal::{DayKey, Journal, JournalConfig};
use terse_clicks::log::ClickLog;
use terse_clicks::log::local::LocalLog;
use terse_clicks::projector::{Projector, ProjectorConfig};
use terse_core::Clock;
use terse_core::click::{ClickRecorder, ClickRecording};
use terse_core::ports::clicks::{Bus, ClickStats, ReadModel};
use terse_server::system::{OsEntropy, SystemClock};
use terse_store::{SqliteReadModel, SqliteReadModelConfig};

use crate::load::Load;
use crate::text;

/// More than any journal here takes.
const BUDGET_BYTES: u64 = 16 << 30;
/// How long a click waits for a prepared block at most.
const BLOCK_LIMIT: Duration = Duration::from_secs(10);
/// How long counting may take.
pub(crate) const COUNT_LIMIT: Duration = Duration::from_secs(600);
/// Of how many codes the totals are compared with what was recorded.
const COMPARED: usize = 2_000;

/// How many clicks a second of one core are counted that lie in a journal.
pub(crate) fn project(folder: &Path, clicks: u64) -> Result<Value, String> {
    let directory = tempfile::tempdir_in(folder).map_err(text)?;
    let journals = directory.path().join("journal");
    let mut load = Load::new();
    record(&journals, &mut load, clicks)?;
    runtime()?.block_on(async {
        let model = open(&directory.path().join("stats.sqlite"))?;
        let log = Box::new(LocalLog::new(&journals, None));
        let mut projector = projector(Bus::Local, log, Arc::clone(&model) as Arc<dyn ReadModel>)?;
        let measured = count(&mut projector, clicks).await?;
        compare(model.as_ref(), &load).await?;
        projector.finish().await.map_err(text)?;
        model.close();
        Ok(measured)
    })
}

/// Counts until `clicks` stand.
pub(crate) async fn count(projector: &mut Projector, clicks: u64) -> Result<Value, String> {
    let (begun, cpu) = (Instant::now(), process_cpu());
    let (progress, mut added) = (projector.progress(), 0);
    while progress.report().applied < clicks {
        // The last rows would wait until they are old enough.
        let step = if added < clicks { projector.run_once(1_000).await } else { projector.write_now().await };
        let step = step.map_err(text)?;
        added += step.added;
        if step.pause_ms > 0 {
            tokio::time::sleep(Duration::from_millis(step.pause_ms)).await;
        }
        if begun.elapsed() > COUNT_LIMIT {
            return Err(format!("{} of {clicks} clicks are counted in time", progress.report().applied));
        }
    }
    let (seconds, cpu) = (begun.elapsed().as_secs_f64(), (process_cpu() - cpu).as_secs_f64());
    let report = progress.report();
    let each = |value: f64| value / clicks as f64;
    Ok(json!({
        "per_second": clicks as f64 / seconds,
        "cpu_us": each(cpu * 1e6),
        "rows_per_click": each(report.rows_written as f64),
        "writes": report.writes,
        "faults": report.faults,
    }))
}

/// Fails unless the totals of the likeliest codes are those that were recorded.
pub(crate) async fn compare(model: &dyn ClickStats, load: &Load) -> Result<(), String> {
    for (code, clicked) in load.counted().take(COMPARED) {
        let row = model.overall(code).await.map_err(text)?;
        let counted = row.map_or(0, |row| row.clicks + row.bots);
        if counted != clicked {
            return Err(format!("{counted} clicks of {code} are counted, {clicked} were recorded"));
        }
    }
    Ok(())
}

/// Records `clicks` in a journal that is ended then.
fn record(journals: &Path, load: &mut Load, clicks: u64) -> Result<(), String> {
    let journal = journal(journals)?;
    let clock = SystemClock::new();
    let mut recorder = journal.of_a_worker();
    for _ in 0..clicks {
        record_one(&mut *recorder, load, &clock)?;
    }
    drop(recorder);
    journal.end().map_err(text)
}

/// Records the next click, as soon as there is a block for it.
fn record_one(recorder: &mut dyn ClickRecorder, load: &mut Load, clock: &dyn Clock) -> Result<(), String> {
    let drawn = load.draw();
    let mut waiting: Option<Instant> = None;
    while let Err(dropped) = recorder.record(&load.click(drawn, clock.now())) {
        if waiting.get_or_insert_with(Instant::now).elapsed() > BLOCK_LIMIT {
            return Err(format!("no click was recorded for {} s: {dropped:?}", BLOCK_LIMIT.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    load.count(drawn);
    Ok(())
}

/// A journal in `journals` with today's key for visitors.
pub(crate) fn journal(journals: &Path) -> Result<Arc<Journal>, String> {
    let config = JournalConfig { budget_bytes: BUDGET_BYTES, ..JournalConfig::new(journals.to_owned()) };
    let clock = Arc::new(SystemClock::new());
    let today = (clock.now().as_millis() / 86_400_000) as u32;
    let journal = Journal::open(&config, clock, &OsEntropy).map_err(text)?;
    let key = |day| Some(DayKey { day, key: [7; 16] });
    journal.visitor_keys().set([key(today), key(today + 1)]);
    Ok(journal)
}

pub(crate) fn open(file: &Path) -> Result<Arc<SqliteReadModel>, String> {
    SqliteReadModel::open(SqliteReadModelConfig::new(file)).map_err(text)
}

pub(crate) fn projector(bus: Bus, log: Box<dyn ClickLog>, model: Arc<dyn ReadModel>) -> Result<Projector, String> {
    let (config, enrichment) = (ProjectorConfig::new(bus, "bench"), Enrichment::new([], None));
    Projector::new(config, log, model, enrichment, Arc::new(SystemClock::new()), &OsEntropy).map_err(text)
}

/// One thread, as the server's projector has it.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(text)
}

/// CPU time that this process has used, all threads together.
fn process_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}
