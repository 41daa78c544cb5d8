//! Clicks from their recording to the statistics: what one costs the worker
//! that records it, how many a second one core counts, how late they are
//! counted, and how fast the statistics of a link are told that has ten million.
//!
//! Recording is the benchmark `record` of `terse-clicks`; counting is the
//! benchmark `clicks` of `terse-server`, which puts journal, projector and read
//! model together as the server does, and compares the totals of 2,000 codes with
//! what was recorded; statistics are told over HTTP ([`told`]). Both are done
//! on a cluster too ([`cluster`]).

pub mod cluster;
pub mod told;

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::pin::on_core;
use super::report::{Promise, Reading, Report, Series};
use super::store::program::output_of;
use super::{Bench, Run};

/// Counting in SQLite.
const LOCAL: &str = "counting, SQLite";
/// The lag at half of the rate of [`LOCAL`].
const LAG: &str = "lag at half of the rate, SQLite";
/// The recording that the promise is about: as a server with the usual settings does.
const RECORDING: &str = "recording, one browser, recycled blocks";

/// Clicks that are counted in a round.
const CLICKS: u64 = 2_000_000;
/// The same in a quick run.
const QUICK_CLICKS: u64 = 20_000;
/// Seconds of a lag measurement, times the window.
const LAG_WINDOWS: u64 = 3;
/// Clicks a second at most while lag is measured in a quick run, where nothing is optimised.
const QUICK_MOST_PER_SECOND: f64 = 2_000.0;
/// How long a program may take.
const LIMIT: Duration = Duration::from_secs(15 * 60);
/// Of the clicks that are recorded to be timed, how many may be dropped, in percent: a dropped one costs less.
const MAX_DROPPED_PERCENT: f64 = 1.0;

/// What recording may cost, in nanoseconds.
const RECORD_LIMIT_NS: f64 = 150.0;
/// Clicks a second that one core must count in SQLite, and those that are aimed at.
const COUNT_LIMIT: f64 = 150_000.0;
const COUNT_AIM: f64 = 300_000.0;
/// How late clicks may be at half of the rate, in milliseconds.
const LAG_LIMIT_MS: f64 = 2_000.0;
/// How long the statistics of a year may take, in milliseconds: told from SQLite, and from a cluster.
const STATS_LIMIT_MS: f64 = 50.0;
const CLUSTER_STATS_LIMIT_MS: f64 = 100.0;

/// Measures clicks.
///
/// # Errors
/// When a program or a server fails, a click is dropped or counted wrong, or a total is told wrong.
pub fn measure(bench: &Bench<'_>) -> Result<Report> {
    let mut series = recording(bench)?;
    let program = Program::build(bench)?;
    series.extend(counting(bench, &program)?);
    series.extend(told::measure(bench, &program)?);
    series.extend(cluster::measure(bench, &program)?);
    ensure!(!series.is_empty(), "nothing was measured");
    Ok(report(series))
}

/// The benchmark `clicks` of `terse-server`.
pub struct Program<'a> {
    path: std::path::PathBuf,
    bench: &'a Bench<'a>,
}

impl<'a> Program<'a> {
    fn build(bench: &'a Bench<'a>) -> Result<Self> {
        Ok(Self { path: bench.build("terse-server", "clicks")?, bench })
    }

    /// What it tells when it gets `arguments`.
    ///
    /// # Errors
    /// When it fails, or tells nothing.
    pub fn run(&self, arguments: &[&str]) -> Result<Value> {
        let lines = output_of(self.bench, Command::new(&self.path).args(arguments), LIMIT)?;
        let line = lines.last().with_context(|| format!("{arguments:?} tells nothing"))?;
        serde_json::from_str(line).with_context(|| format!("not a measurement: {line}"))
    }
}

/// Those of `names` that `value` has.
fn readings(value: &Value, names: &[&'static str]) -> Result<Vec<Reading>> {
    let reading = |name: &&'static str| Some((*name, value[*name].as_f64()?));
    let found: Vec<Reading> = names.iter().filter_map(reading).collect();
    ensure!(found.len() == names.len(), "of {names:?} some are missing: {value}");
    Ok(found)
}

fn recording(bench: &Bench<'_>) -> Result<Vec<Series>> {
    if !bench.run.wants("recording") {
        return Ok(Vec::new());
    }
    let program = bench.build("terse-clicks", "record")?;
    let mut all: Vec<Series> = Vec::new();
    for _ in 0..bench.run.rounds() {
        for line in output_of(bench, &mut Command::new(&program), LIMIT)? {
            let (name, recorded) = recorded(&line).with_context(|| format!("not a line of recording: {line}"))?;
            check_dropped(bench.run, &recorded).with_context(|| name.clone())?;
            match all.iter_mut().find(|series| series.name == name) {
                Some(series) => series.add(recorded),
                None => {
                    all.push(Series::new(&name));
                    all.last_mut().into_iter().for_each(|series| series.add(recorded.clone()));
                }
            }
        }
    }
    println!("recording: {} rounds", bench.run.rounds());
    ensure!(all.iter().any(|series| series.name == RECORDING), "recording has no line for '{RECORDING}'");
    Ok(all)
}

/// Reads `NAME  X ns a call (best Y) + Z ns of CPU behind = S ns[, B bytes], N dropped`.
fn recorded(line: &str) -> Option<(String, Vec<Reading>)> {
    let (rest, dropped) = line.strip_suffix(" dropped")?.rsplit_once(", ")?;
    let (rest, costs) = rest.split_once(" ns a call (best ")?;
    let (name, mean) = rest.rsplit_once(' ')?;
    let (best, costs) = costs.split_once(") + ")?;
    let (behind, costs) = costs.split_once(" ns of CPU behind = ")?;
    let both = costs.trim_start().split(' ').next()?;
    let number = |text: &str| text.trim().parse::<f64>().ok();
    let readings = vec![
        ("ns_per_click", number(mean)?),
        ("ns_per_click_of_best_burst", number(best)?),
        ("cpu_ns_behind", number(behind)?),
        ("ns_together", number(both)?),
        ("dropped", number(dropped)?),
    ];
    Some((format!("recording, {}", name.trim()), readings))
}

/// Fails if so many clicks were dropped that it was dropping that was timed. Full runs record 800,000 clicks.
fn check_dropped(run: &Run, recorded: &[Reading]) -> Result<()> {
    let dropped = recorded.iter().find(|(name, _)| *name == "dropped").map_or(0.0, |(_, value)| *value);
    let percent = dropped * 100.0 / 800_000.0;
    ensure!(run.quick || percent <= MAX_DROPPED_PERCENT, "{dropped} clicks were dropped");
    Ok(())
}

/// Counts prepared journals, and then measures the lag at half of that rate.
fn counting(bench: &Bench<'_>, program: &Program<'_>) -> Result<Vec<Series>> {
    let run = bench.run;
    if !run.wants(LOCAL) && !run.wants(LAG) {
        return Ok(Vec::new());
    }
    let clicks = if run.quick { QUICK_CLICKS } else { CLICKS }.to_string();
    let mut counting = Series::new(LOCAL);
    for round in 1..=run.rounds() {
        let folder = bench.data("clicks")?;
        let arguments = ["project", &folder.to_string_lossy(), &clicks];
        let told = on_core(bench.cores.server, || program.run(&arguments))?;
        counting.add(readings(&told, &["per_second", "cpu_us", "rows_per_click", "writes", "faults"])?);
        println!("{LOCAL}: round {round} of {}", run.rounds());
    }
    let mut all = Vec::new();
    if run.wants(LAG) {
        let rate = counting.spread("per_second").context("no rate to halve")?.median / 2.0;
        all.push(lag(bench, program, if run.quick { rate.min(QUICK_MOST_PER_SECOND) } else { rate })?);
    }
    all.insert(0, counting);
    Ok(all)
}

fn lag(bench: &Bench<'_>, program: &Program<'_>, rate: f64) -> Result<Series> {
    let (rate, seconds) = ((rate as u64).to_string(), bench.run.window().as_secs().max(1) * LAG_WINDOWS);
    let mut series = Series::new(LAG);
    for round in 1..=bench.run.rounds() {
        let folder = bench.data("clicks")?;
        let cores = [bench.cores.server, bench.cores.generator].map(|core| core.to_string());
        let told =
            program.run(&["lag", &folder.to_string_lossy(), &rate, &seconds.to_string(), &cores[0], &cores[1]])?;
        let mut read = readings(&told, &["lag_p50_ms", "lag_p99_ms", "lag_max_ms"])?;
        read.insert(0, ("per_second", rate.parse()?));
        series.add(read);
        println!("{LAG}: round {round} of {}", bench.run.rounds());
    }
    Ok(series)
}

fn report(series: Vec<Series>) -> Report {
    let median = |name: &str, reading: &str| {
        let found = series.iter().find(|series| series.name == name)?;
        found.spread(reading).map(|spread| spread.median)
    };
    let most = |what, limit, measured| Promise { what, limit, at_least: false, measured };
    let promises = vec![
        most("recording a click, nanoseconds", RECORD_LIMIT_NS, median(RECORDING, "ns_per_click")),
        Promise {
            what: "clicks counted a second in SQLite, one core",
            limit: COUNT_LIMIT,
            at_least: true,
            measured: median(LOCAL, "per_second"),
        },
        most("lag at half of that rate, p99, milliseconds", LAG_LIMIT_MS, median(LAG, "lag_p99_ms")),
        most("statistics of a year, p99, milliseconds", STATS_LIMIT_MS, median(told::YEAR, "p99_ms")),
        most("statistics of a year on CQL, p99, milliseconds", CLUSTER_STATS_LIMIT_MS, median(cluster::YEAR, "p99_ms")),
    ];
    Report { name: "clicks", series, promises, notes: notes() }
}

fn notes() -> Vec<String> {
    let text = [
        format!("{COUNT_AIM} clicks a second are aimed at"),
        format!(
            "counting: projector and read model on one core, {CLICKS} clicks of a journal that has ended, codes by \
             Zipf's law (s = 1) over 50000, until all rows stand; on the cluster {} clicks of 8 streams in memory, \
             with the nodes on the same cores",
            cluster::CLICKS
        ),
        "lag: from the moment in which a click is recorded, not that in which its block is sealed, until its rows \
         stand; each click counts but those of the first fifth of the time"
            .to_owned(),
        "statistics: over HTTP one call after the other, each round on a server that has just started, of links with \
         ten million clicks in the last 365 days"
            .to_owned(),
        format!(
            "statistics on the cluster: by a server that serves the API alone and has its core for itself, from a \
             keyspace of three replicas, at a quorum; the nodes and the caller share the other core; {} calls about \
             each range come first, while the nodes have both cores, for a JVM compiles what it runs often after a \
             while, and {} before those that are measured in each round",
            cluster::REHEARSED_CALLS,
            cluster::WARM_UP_CALLS
        ),
    ];
    text.to_vec()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_of_recording_is_its_name_and_its_numbers() {
        let line = format!(
            "{:<36} {:>6.1} ns a call (best {:.1}) + {:>6.1} ns of CPU behind = {:>6.1} ns",
            "one browser, recycled blocks", 131.25, 99.9, 80.5, 211.75
        );
        let expected = [
            ("ns_per_click", 131.2),
            ("ns_per_click_of_best_burst", 99.9),
            ("cpu_ns_behind", 80.5),
            ("ns_together", 211.8),
            ("dropped", 7.0),
        ];
        for disk in ["", ", 47.8 bytes"] {
            let (name, readings) = recorded(&format!("{line}{disk}, 7 dropped")).unwrap();
            assert_eq!((name.as_str(), readings.as_slice()), (RECORDING, &expected[..]));
        }
        for other in ["", "running 3 tests", "x fast ns a call (best 1) + 2 ns of CPU behind = 3 ns, 3 dropped"] {
            assert!(recorded(other).is_none(), "{other}");
        }
    }

    #[test]
    fn a_full_run_does_not_time_dropping() {
        let (full, quick) = (Run::default(), Run { quick: true, ..Run::default() });
        assert!(check_dropped(&full, &[("dropped", 8_000.0)]).is_ok());
        assert!(check_dropped(&full, &[("dropped", 8_001.0)]).is_err());
        assert!(check_dropped(&quick, &[("dropped", 8_001.0)]).is_ok());
    }

    #[test]
    fn a_number_that_is_not_told_is_an_error() {
        let told = json!({"per_second": 3.5, "faults": 0});
        assert_eq!(readings(&told, &["faults", "per_second"]).unwrap(), [("faults", 0.0), ("per_second", 3.5)]);
        let error = readings(&told, &["per_second", "writes"]).unwrap_err().to_string();
        assert!(error.contains("some are missing"), "{error}");
    }

    #[test]
    fn each_promise_is_about_its_series() {
        let series = |name: &str, reading, value: f64| {
            let mut series = Series::new(name);
            series.add(vec![(reading, value)]);
            series
        };
        let all = vec![
            series(RECORDING, "ns_per_click", 120.0),
            series(LOCAL, "per_second", 200_000.0),
            series(LAG, "lag_p99_ms", 700.0),
            series(told::YEAR, "p99_ms", 9.0),
            series(cluster::COUNTING, "per_second", 1.0),
            series(cluster::YEAR, "p99_ms", 60.0),
        ];
        let measured: Vec<_> = report(all).promises.iter().map(|promise| promise.measured).collect();
        assert_eq!(measured, [Some(120.0), Some(200_000.0), Some(700.0), Some(9.0), Some(60.0)]);
        assert!(report(vec![]).promises.iter().all(|promise| promise.measured.is_none()));
    }
}
