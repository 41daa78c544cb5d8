//! How late clicks are counted that are recorded at a steady rate: from the moment in which a click is recorded to the
//! moment from which on the read model has it.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::{Value, json};
use terse_clicks::journal::Journal;
use terse_clicks::log::local::LocalLog;
use terse_core::Clock;
use terse_core::click::{ClickRecording, SEAL_CHECK_MS};
use terse_core::ports::clicks::{Bus, ReadModel};
use terse_server::system::SystemClock;

use crate::load::Load;
use crate::local::{COUNT_LIMIT, compare, journal, open, projector, runtime};
use crate::text;

/// How often due clicks are recorded.
const TICK: Duration = Duration::from_millis(1);
/// Clicks of the first part of the time are not measured.
const WARM_UP_PART: u32 = 5;

/// Where threads run.
#[derive(Clone, Copy)]
pub(crate) struct Cores {
    /// The projector and the threads of its read model.
    pub(crate) projector: usize,
    /// Everything else.
    pub(crate) other: usize,
}

/// So many clicks, the first ones, were there at this moment.
type Sample = (Instant, u64);

/// Records `rate` clicks a second for some seconds, while a projector counts them.
pub(crate) fn measure(folder: &Path, rate: u64, seconds: u64, cores: Cores) -> Result<Value, String> {
    let directory = tempfile::tempdir_in(folder).map_err(text)?;
    let journals = directory.path().join("journal");
    pin(cores.other)?;
    let journal = journal(&journals)?;
    let (told, fed_in_all) = channel();
    let counting = start(cores.projector, directory.path(), Arc::clone(&journal), fed_in_all)?;
    let (load, recorded) = feed(&journal, rate, Duration::from_secs(seconds))?;
    // It ends early only with an error, which is told below.
    let _ = told.send(load);
    let counted = counting.join().map_err(|_| "the projector has panicked".to_owned())??;
    journal.end().map_err(text)?;
    Ok(summed_up(&recorded, &counted))
}

/// Records what is due, and notes how many clicks there are by when.
fn feed(journal: &Arc<Journal>, rate: u64, time: Duration) -> Result<(Load, Vec<Sample>), String> {
    let (clock, mut load) = (SystemClock::new(), Load::new());
    let mut recorder = journal.of_a_worker();
    let (mut samples, mut fed, mut looked) = (Vec::new(), 0, Instant::now());
    let begun = Instant::now();
    while begun.elapsed() < time {
        let due = (begun.elapsed().as_nanos() * u128::from(rate) / 1_000_000_000) as u64;
        samples.push((Instant::now(), due));
        for _ in fed..due {
            let drawn = load.draw();
            let recorded = recorder.record(&load.click(drawn, clock.now()));
            recorded.map_err(|reason| format!("a click was dropped: {reason:?}"))?;
            load.count(drawn);
        }
        fed = due;
        if looked.elapsed() >= Duration::from_millis(SEAL_CHECK_MS) {
            looked = Instant::now();
            // By any clock: those of a process differ by the time between their makings, which is nothing here.
            recorder.seal_if_old(clock.monotonic_ms());
        }
        std::thread::sleep(TICK);
    }
    Ok((load, samples))
}

/// Starts a projector, which ends when it has counted all that was recorded in the end.
fn start(
    core: usize,
    directory: &Path,
    journal: Arc<Journal>,
    fed_in_all: Receiver<Load>,
) -> Result<JoinHandle<Result<Vec<Sample>, String>>, String> {
    let (file, journals) = (directory.join("stats.sqlite"), directory.join("journal"));
    let work = move || {
        pin(core)?;
        runtime()?.block_on(async move {
            let model = open(&file)?;
            let log = Box::new(LocalLog::new(&journals, Some(journal)));
            let mut projector = projector(Bus::Local, log, Arc::clone(&model) as Arc<dyn ReadModel>)?;
            let (progress, mut samples) = (projector.progress(), Vec::new());
            let (mut load, mut since) = (None, Instant::now());
            loop {
                projector.run_once(20).await.map_err(text)?;
                let applied = progress.report().applied;
                if samples.last().is_none_or(|(_, before)| *before != applied) {
                    samples.push((Instant::now(), applied));
                }
                if load.is_none() {
                    (load, since) = (fed_in_all.try_recv().ok(), Instant::now());
                }
                if let Some(load) = load.as_ref().filter(|load: &&Load| total(load) == applied) {
                    compare(model.as_ref(), load).await?;
                    break;
                }
                if since.elapsed() > COUNT_LIMIT {
                    return Err(format!("{applied} clicks are counted in time"));
                }
            }
            projector.finish().await.map_err(text)?;
            model.close();
            Ok(samples)
        })
    };
    std::thread::Builder::new().name("projector".to_owned()).spawn(work).map_err(text)
}

fn total(load: &Load) -> u64 {
    load.counted().map(|(_, count)| count).sum()
}

fn pin(core: usize) -> Result<(), String> {
    let mut only = CpuSet::new();
    only.set(core);
    sched_setaffinity(None, &only).map_err(text)
}

/// The lags of all clicks, by when they were recorded and when they were counted.
fn summed_up(recorded: &[Sample], counted: &[Sample]) -> Value {
    let skipped = recorded.len() / WARM_UP_PART as usize;
    let mut lags: Vec<(Duration, u64)> = Vec::new();
    for pair in recorded[skipped..].windows(2) {
        let ((_, before), (at, until)) = (pair[0], pair[1]);
        let place = counted.partition_point(|(_, applied)| *applied < until);
        if let Some((done, _)) = counted.get(place) {
            lags.push((done.saturating_duration_since(at), until - before));
        }
    }
    lags.sort_unstable();
    let all: u64 = lags.iter().map(|(_, clicks)| clicks).sum();
    let percentile = |percent: f64| {
        let mut left = (all as f64 * percent / 100.0) as u64;
        let found = lags.iter().find(|(_, clicks)| {
            let here = *clicks > left;
            left = left.saturating_sub(*clicks);
            here
        });
        found.or(lags.last()).map_or(0.0, |(lag, _)| lag.as_secs_f64() * 1e3)
    };
    json!({ "clicks": all, "lag_p50_ms": percentile(50.0), "lag_p99_ms": percentile(99.0), "lag_max_ms": percentile(100.0) })
}
