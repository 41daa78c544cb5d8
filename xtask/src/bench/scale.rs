//! A million links: how long a start takes, what memory it needs, what a link
//! costs on disk, and how fast a redirect is that no cache of terse knows.
//!
//! The links are made through the batch API. Before each start the store's
//! files are written back; for the one contender they are also dropped from the
//! kernel's page cache, so that the first reads really go to the disk.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::fs::Advice;

use super::Bench;
use super::draw::Draw;
use super::generator::Pace;
use super::links::{Pair, Redirects, fill, target};
use super::report::{Promise, Reading, Report, Series};
use super::usage::memory;

/// How many links.
const LINKS: usize = 1_000_000;
/// How many in a quick run.
const QUICK_LINKS: usize = 20_000;
/// Requests per second of the open loop.
const RATE: u32 = 2_000;
/// How long a started server is left alone before its memory is read.
const IDLE: Duration = Duration::from_secs(2);
/// Where all draws begin.
const SEED: u64 = 0x5ca1e;

const COLD: &str = "page cache dropped";
const WARM: &str = "page cache warm";

/// Measures a large store.
///
/// # Errors
/// When a server fails or answers wrong.
pub fn measure(bench: &Bench<'_>) -> Result<Report> {
    let data = bench.data("scale")?;
    let count = bench.run.links(LINKS, QUICK_LINKS);
    let (links, filling) = filled(bench, &data, count)?;
    let bytes = bytes_of(&data)? as f64 / count as f64 - target(0).len() as f64;
    let mut fill_series = Series::new("filling by batches");
    fill_series.add(vec![("per_second", count as f64 / filling.as_secs_f64()), ("disk_bytes_beyond_url", bytes)]);
    let mut unused = shuffled(&links).into_iter();
    let mut series = [Series::new(COLD), Series::new(WARM)];
    for round in 0..bench.run.rounds() {
        for series in &mut series {
            let seconds = (bench.run.warm_up() + bench.run.window()).as_secs_f64();
            let batch: Vec<Pair> = unused.by_ref().take((seconds * f64::from(RATE)) as usize).collect();
            if series.name == COLD {
                drop_page_cache(&data)?;
            }
            series.add(measure_start(bench, &data, &batch)?);
        }
        println!("round {} of {}", round + 1, bench.run.rounds());
    }
    let [cold, warm] = series;
    Ok(report(vec![fill_series, cold, warm], bytes))
}

fn filled(bench: &Bench<'_>, data: &Path, count: usize) -> Result<(Vec<Pair>, Duration)> {
    let server = bench.servers.terse(&bench.terse, data)?;
    let begun = Instant::now();
    let links = super::on_core(bench.cores.generator, || fill(server.address, count))?;
    let filling = begun.elapsed();
    // Stopping in order writes everything back.
    server.stop()?;
    println!("{count} links after {:.1} s", filling.as_secs_f64());
    Ok((links, filling))
}

fn shuffled(links: &[Pair]) -> Vec<Pair> {
    Draw::seeded(SEED).shuffled(links.len()).into_iter().map(|index| links[index as usize].clone()).collect()
}

/// Starts the server, looks at it idle, then follows each of `links` once.
fn measure_start(bench: &Bench<'_>, data: &Path, links: &[Pair]) -> Result<Vec<Reading>> {
    if links.is_empty() {
        bail!("there are no links left that were never followed: fewer rounds or seconds, or more links");
    }
    let server = bench.servers.terse(&bench.terse, data)?;
    std::thread::sleep(IDLE);
    let (idle, _) = memory(server.pid())?;
    let mut workload = Redirects::once(links);
    let load = bench.measure((server.pid(), server.address), Pace::Open { per_second: RATE }, &mut workload)?;
    let (_, most) = memory(server.pid())?;
    let start = server.ready_after.as_secs_f64();
    server.stop()?;
    let mut readings =
        vec![("start_s", start), ("idle_memory_mb", idle as f64 / 1e6), ("most_memory_mb", most as f64 / 1e6)];
    readings.extend(load.into_iter().filter(|(name, _)| *name != "generator_busy_percent"));
    Ok(readings)
}

fn files_of(folder: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() { files.extend(files_of(&path)?) } else { files.push(path) }
    }
    Ok(files)
}

/// What all files below `folder` take, in bytes.
fn bytes_of(folder: &Path) -> Result<u64> {
    files_of(folder)?.iter().map(|path| Ok(fs::metadata(path)?.len())).sum()
}

/// Writes the files below `folder` back and drops them from the kernel's page cache.
fn drop_page_cache(folder: &Path) -> Result<()> {
    for path in files_of(folder)? {
        let file = File::open(&path)?;
        file.sync_all()?;
        rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

fn report(series: Vec<Series>, bytes: f64) -> Report {
    let median = |name: &str, reading: &str| {
        let found = series.iter().find(|series| series.name == name)?;
        found.spread(reading).map(|spread| spread.median)
    };
    let promise = |what, limit, measured| Promise { what, limit, at_least: false, measured };
    let promises = vec![
        promise("start until ready, page cache dropped, seconds", 1.0, median(COLD, "start_s")),
        promise("uncached redirect, p99 at 2,000/s, milliseconds", 5.0, median(WARM, "p99_ms")),
        promise("the same with the page cache dropped, milliseconds", 5.0, median(COLD, "p99_ms")),
        promise("disk of a link beyond its URL, bytes", 300.0, Some(bytes)),
        promise("idle memory, megabytes", 40.0, median(COLD, "idle_memory_mb")),
    ];
    Report { name: "scale", series, promises, notes: vec![] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_and_memory_are_judged_cold_and_latency_both_ways() {
        let mut cold = Series::new(COLD);
        cold.add(vec![("start_s", 0.5), ("p99_ms", 6.0), ("idle_memory_mb", 20.0)]);
        let mut warm = Series::new(WARM);
        warm.add(vec![("start_s", 0.1), ("p99_ms", 1.0), ("idle_memory_mb", 10.0)]);
        let measured: Vec<_> = report(vec![warm, cold], 250.0).promises.iter().map(|p| p.measured).collect();
        assert_eq!(measured, [Some(0.5), Some(1.0), Some(6.0), Some(250.0), Some(20.0)]);
    }

    #[test]
    fn all_files_below_a_folder_are_counted_and_can_be_dropped_from_the_cache() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("below")).unwrap();
        fs::write(folder.path().join("a"), [0; 100]).unwrap();
        fs::write(folder.path().join("below/b"), [0; 23]).unwrap();
        assert_eq!(bytes_of(folder.path()).unwrap(), 123);
        drop_page_cache(folder.path()).unwrap();
        assert!(bytes_of(&folder.path().join("none")).is_err());
    }

    #[test]
    fn links_are_shuffled_and_none_is_lost() {
        let links: Vec<Pair> = (0..100).map(|index| Pair { code: index.to_string().into(), index }).collect();
        let mut shuffled = shuffled(&links);
        assert_ne!(shuffled, links);
        shuffled.sort_by_key(|pair| pair.index);
        assert_eq!(shuffled, links);
    }
}
