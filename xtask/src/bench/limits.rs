//! Rate limits: what a decision costs here and through Redis, what all limits
//! cost a create, and what each rule lets through over time.
//!
//! The first two are the benchmarks `limits` of `terse-resilience` and
//! `shared_limits` of `terse-cache`, read. Then a server with every limit on,
//! none of them ever reached, beside one without any, in alternating rounds; and
//! redirects from memory of one with the usual limits beside one without, which
//! are to cost the same: redirects that are found have no limit.
//! The curves are of a time of their own: the same on every machine.

pub mod curves;

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::generator::{Pace, Workload};
use super::links::{Creates, Redirects, assert_distinct, fill};
use super::pin::{on_core, while_confined};
use super::report::{Promise, Report, Series};
use super::server::Server;
use super::store::guards;
use super::store::program::output_of;
use super::{Bench, redirect};
use crate::services::{Compiler, Kind, Session, redis};

/// What a local decision may cost, in nanoseconds.
const DECISION_LIMIT_NS: f64 = 150.0;
/// What CPU a create may need with all limits on, times that without.
const CREATE_LIMIT: f64 = 1.05;
/// Decisions in a round of a quick run, where nothing is optimised.
const QUICK_DECISIONS: &str = "20000";
/// What CPU a redirect may need with the usual limits, times that without: what rounds differ by themselves.
const REDIRECT_LIMIT: f64 = 1.02;
/// Links that are followed, all of them in memory.
const LINKS: usize = 1_000;
/// How long one of the benchmarks may take.
const LIMIT: Duration = Duration::from_secs(180);
/// The rules, by their names.
const RULES: [&str; 4] = ["token-bucket", "sliding-window", "fixed-window", "leaky-bucket"];
/// All schedules that a curve is of.
const SCHEDULES: [&str; 3] = ["burst", "steady", "window edge"];
/// A create with all limits on.
const LIMITED: &str = "create, all limits on";
/// A create without.
const UNLIMITED: &str = "create, no limits";

/// A redirect with the usual limits.
const USUAL: &str = "redirect, usual limits";
/// A redirect without.
const FREE: &str = "redirect, no limits";

/// The limits that a server has out of the box, but for those of making its links.
const OUT_OF_THE_BOX: &str = "[limits]\ncreate = \"off\"\napi = \"off\"\n";
/// Every limit, so wide that it is never reached.
const WIDE: &str = "[limits.create]\nby = \"address\"\nalgorithm = \"token-bucket\"\nburst = 1000000000\n\
    refill = 1000000000\nper = \"1s\"\n\n[limits.api]\nby = \"address\"\nalgorithm = \"fixed-window\"\n\
    limit = 1000000000\nwindow = \"1m\"\n\n[limits.redirect]\nalgorithm = \"leaky-bucket\"\nrate = 1000000000\n\
    per = \"1s\"\nqueue = 100\n\n[limits.not_found]\nalgorithm = \"sliding-window\"\nlimit = 1000000000\n\
    window = \"1m\"\n";

/// Measures limits.
///
/// # Errors
/// When a program or a server fails, or an answer is wrong: also when a curve is not what its rule promises.
pub fn measure(bench: &Bench<'_>) -> Result<Report> {
    let mut series = decisions(bench)?;
    series.extend(shared(bench)?);
    series.extend(creates(bench)?);
    series.extend(redirects(bench)?);
    let curves = curves(bench)?;
    Ok(report(series, curves))
}

/// Nanoseconds of a decision in this process.
fn decisions(bench: &Bench<'_>) -> Result<Vec<Series>> {
    let mut command = Command::new(bench.build("terse-resilience", "limits")?);
    if bench.run.quick {
        command.arg(QUICK_DECISIONS);
    }
    let lines = output_of(bench, &mut command, LIMIT)?;
    let series: Vec<Series> = lines.iter().map(|line| guards::read("local", line)).collect::<Result<_>>()?;
    for rule in RULES {
        ensure!(series.iter().any(|series| series.name == known_key(rule)), "no decision of a {rule} was measured");
    }
    println!("limits: {} measurements in this process", series.len());
    Ok(series.into_iter().filter(|series| bench.run.wants(&series.name)).collect())
}

/// The series of one key that is known already.
fn known_key(rule: &str) -> String {
    format!("local: {rule}: one key, 1 thread")
}

/// Decisions through Redis, which has the generator's core for itself.
fn shared(bench: &Bench<'_>) -> Result<Vec<Series>> {
    if !bench.run.wants("shared") {
        return Ok(vec![]);
    }
    let session = Session::start(bench.workspace, bench.supervisor, &[Kind::Redis], Compiler::Full)?;
    let measured = shared_through(bench, &session);
    let ended = session.end();
    let series = measured?;
    ended?;
    Ok(series)
}

fn shared_through(bench: &Bench<'_>, session: &Session<'_>) -> Result<Vec<Series>> {
    let program = bench.build("terse-cache", "shared_limits")?;
    let redis_pid: Vec<u32> = redirect::redis_pid(session)?.into_iter().collect();
    let mut all: Vec<Series> = vec![];
    while_confined(&redis_pid, bench.cores.generator, || {
        for round in 0..bench.run.rounds() {
            let mut command = Command::new(&program);
            command.arg(redis::address().to_string()).arg(bench.run.window().as_millis().to_string());
            let lines = on_core(bench.cores.server, || output_of(bench, &mut command, LIMIT))?;
            ensure!(lines.len() == 6, "{} lines of shared limits", lines.len());
            for line in &lines {
                add(&mut all, read_shared(line)?);
            }
            println!("limits through Redis: round {} of {}", round + 1, bench.run.rounds());
        }
        Ok(())
    })?;
    Ok(all)
}

/// What was measured of a rule with so many callers.
#[derive(Debug, PartialEq)]
struct Shared {
    name: String,
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
}

/// Reads `NAME  RATE per second  MEDIAN p50 us  P99 p99 us`.
fn read_shared(line: &str) -> Result<Shared> {
    let parts = || {
        let (rest, p99_us) = line.strip_suffix(" p99 us")?.rsplit_once(' ')?;
        let (rest, p50_us) = rest.trim_end().strip_suffix(" p50 us")?.rsplit_once(' ')?;
        let (name, per_second) = rest.trim_end().strip_suffix(" per second")?.rsplit_once(' ')?;
        let name = format!("shared: {}", name.trim_end());
        Some(Shared {
            name,
            per_second: per_second.parse().ok()?,
            p50_us: p50_us.parse().ok()?,
            p99_us: p99_us.parse().ok()?,
        })
    };
    parts().with_context(|| format!("not a line of shared limits: {line}"))
}

fn add(all: &mut Vec<Series>, read: Shared) {
    let readings = vec![("per_second", read.per_second), ("p50_us", read.p50_us), ("p99_us", read.p99_us)];
    match all.iter_mut().find(|series| series.name == read.name) {
        Some(series) => series.add(readings),
        None => {
            let mut series = Series::new(&read.name);
            series.add(readings);
            all.push(series);
        }
    }
}

/// A server and what is asked of it.
struct Contender<W> {
    server: Server,
    workload: W,
    series: Series,
}

/// Creates with all limits and without, by turns, each on links of its own.
fn creates(bench: &Bench<'_>) -> Result<Vec<Series>> {
    if !bench.run.wants(LIMITED) || !bench.run.wants(UNLIMITED) {
        return Ok(vec![]);
    }
    let mut series = vec![];
    let create = |server: &Server| Ok(Creates::new(server.address));
    let contenders = [contender(bench, UNLIMITED, None, create)?, contender(bench, LIMITED, Some(WIDE), create)?];
    for Contender { server, workload, series: measured } in by_turns(bench, contenders)? {
        server.stop()?;
        assert_distinct(&workload.links)?;
        ensure!(!workload.links.is_empty(), "nothing was created");
        series.push(measured);
    }
    Ok(series)
}

/// Redirects from memory, with the usual limits and without, by turns.
fn redirects(bench: &Bench<'_>) -> Result<Vec<Series>> {
    if !bench.run.wants(USUAL) || !bench.run.wants(FREE) {
        return Ok(vec![]);
    }
    let follow = |server: &Server| {
        let links = fill(server.address, LINKS)?;
        Ok(Redirects::repeated(&links, (0..LINKS as u32).collect()))
    };
    let contenders = [contender(bench, FREE, None, follow)?, contender(bench, USUAL, Some(OUT_OF_THE_BOX), follow)?];
    let mut series = vec![];
    for Contender { server, series: measured, .. } in by_turns(bench, contenders)? {
        server.stop()?;
        series.push(measured);
    }
    Ok(series)
}

/// Measures both, round by round; the second one's readings have its CPU beside that of the first.
fn by_turns<W: Workload>(bench: &Bench<'_>, mut contenders: [Contender<W>; 2]) -> Result<[Contender<W>; 2]> {
    for round in 0..bench.run.rounds() as usize {
        let mut cpu = [0.0; 2];
        let mut readings = [vec![], vec![]];
        for step in 0..2 {
            // Each round begins with another one, so that none always follows the other.
            let at = (round + step) % 2;
            let Contender { server, workload, .. } = &mut contenders[at];
            readings[at] = bench.measure((server.pid(), server.address), Pace::Closed, workload)?;
            cpu[at] = redirect::contenders::reading(&readings[at], "cpu_us").context("an answer without CPU")?;
        }
        readings[1].push(("cpu_ratio", cpu[1] / cpu[0]));
        let name = contenders[1].series.name.clone();
        contenders.iter_mut().zip(readings).for_each(|(contender, readings)| contender.series.add(readings));
        println!("{name}, and without: round {} of {}", round + 1, bench.run.rounds());
    }
    Ok(contenders)
}

fn contender<W>(
    bench: &Bench<'_>,
    name: &str,
    limits: Option<&str>,
    workload: impl FnOnce(&Server) -> Result<W>,
) -> Result<Contender<W>> {
    let folder = name.replace([' ', ','], "-");
    let data = bench.data(&folder)?;
    let config = limits.map(|limits| {
        let path = bench.folder.join(&folder).with_extension("toml");
        fs::write(&path, limits).map(|()| path)
    });
    let server = match config.transpose()? {
        Some(config) => bench.servers.terse_limited(&bench.terse, &data, &config)?,
        None => bench.servers.terse(&bench.terse, &data)?,
    };
    let workload = workload(&server)?;
    Ok(Contender { server, workload, series: Series::new(name) })
}

/// What each rule lets through over time. That it is what was promised, the benchmark has asserted itself.
fn curves(bench: &Bench<'_>) -> Result<Vec<Series>> {
    let mut command = Command::new(bench.build("terse-resilience", "limits")?);
    let lines = output_of(bench, command.arg("curves"), LIMIT)?;
    let mut curves: Vec<Series> = vec![];
    for line in &lines {
        let (name, point) = read_point(line)?;
        match curves.last_mut().filter(|curve| curve.name == name) {
            Some(curve) => curve.add(point.to_vec()),
            None => {
                let mut curve = Series::curve(&name);
                curve.add(point.to_vec());
                curves.push(curve);
            }
        }
    }
    let missing = |curves: &[Series]| {
        let all = SCHEDULES.iter().flat_map(|schedule| RULES.map(|rule| format!("curve: {rule}, {schedule}")));
        all.into_iter().find(|name| !curves.iter().any(|curve| curve.name == *name))
    };
    if let Some(name) = missing(&curves) {
        bail!("there is no {name}");
    }
    Ok(curves)
}

/// Reads `curve: RULE, SCHEDULE: MS OFFERED PASSED`.
fn read_point(line: &str) -> Result<(String, [(&'static str, f64); 3])> {
    let parts = || {
        let (name, point) = line.rsplit_once(": ").filter(|(name, _)| name.starts_with("curve: "))?;
        let values: Vec<f64> = point.split(' ').map(str::parse).collect::<Result<_, _>>().ok()?;
        let [ms, offered, passed] = values.try_into().ok()?;
        Some((name.to_owned(), [("ms", ms), ("offered", offered), ("passed", passed)]))
    };
    parts().with_context(|| format!("not a point of a curve: {line}"))
}

fn report(mut series: Vec<Series>, curves: Vec<Series>) -> Report {
    let median = |name: &str, reading: &str| {
        let found = series.iter().find(|series| series.name == name)?;
        found.spread(reading).map(|spread| spread.median)
    };
    let dearest = RULES.iter().map(|rule| median(&known_key(rule), "ns"));
    let dearest = dearest.collect::<Option<Vec<f64>>>().map(|all| all.into_iter().fold(0.0, f64::max));
    let promise = |what, limit, measured| Promise { what, limit, at_least: false, measured };
    let promises = vec![
        promise("a local decision for a known key, the dearest rule, ns", DECISION_LIMIT_NS, dearest),
        promise("a create with all limits on, CPU, times one without", CREATE_LIMIT, median(LIMITED, "cpu_ratio")),
        promise("a redirect with the usual limits, CPU, times one without", REDIRECT_LIMIT, median(USUAL, "cpu_ratio")),
    ];
    series.extend(curves);
    Report { name: "limits", series, promises, notes: notes() }
}

fn notes() -> Vec<String> {
    let text = [
        "local: the clock is read each time; the best of five rounds of two million decisions; of two threads the \
         slower one. A key that is new each time displaces another one when the 65,536 places are taken",
        "shared: one process, one thread on one core, Redis on the other; with 64 callers each waits for those before it",
        "creates are on SQLite, so all limits are decided in the process; what the answer tells of the limit is in it",
        "redirects are of 1,000 links in memory, and each records its click; the usual limits are those of a server out \
         of the box, which has none on redirects that are found",
        "curves: units asked for and let through in each half second of a time of their own; 100 units at once or in a \
         window of 10 s, 10 a second in the long run; of a leaky bucket when their turn is. The same in every run, and \
         checked against what each rule promises",
    ];
    text.map(str::to_owned).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(name: &str, readings: &[(&'static str, f64)]) -> Series {
        let mut series = Series::new(name);
        series.add(readings.to_vec());
        series
    }

    #[test]
    fn the_promises_are_about_the_dearest_rule_and_the_cpu_of_creates_and_redirects() {
        let mut all: Vec<Series> = RULES
            .iter()
            .zip([40.0, 70.0, 30.0, 35.0])
            .map(|(rule, ns)| series(&known_key(rule), &[("ns", ns)]))
            .collect();
        all.push(series(LIMITED, &[("cpu_us", 51.0), ("cpu_ratio", 1.02)]));
        all.push(series(USUAL, &[("cpu_us", 4.6), ("cpu_ratio", 1.01)]));
        let measured: Vec<_> = report(all, vec![]).promises.iter().map(|promise| promise.measured).collect();
        assert_eq!(measured, [Some(70.0), Some(1.02), Some(1.01)]);
    }

    #[test]
    fn a_rule_that_was_not_measured_keeps_no_promise() {
        let some = vec![series(&known_key(RULES[0]), &[("ns", 1.0)])];
        assert!(report(some, vec![]).promises.iter().all(|promise| promise.measured.is_none()));
    }

    #[test]
    fn a_line_of_shared_limits_is_a_rate_and_two_times() {
        let line = format!(
            "{:<32}{:>10.0} per second {:>10.1} p50 us {:>10.1} p99 us",
            "token-bucket, 64 callers", 9e4, 650.0, 1e3
        );
        let read = read_shared(&line).unwrap();
        let name = "shared: token-bucket, 64 callers".to_owned();
        assert_eq!(read, Shared { name, per_second: 90_000.0, p50_us: 650.0, p99_us: 1_000.0 });
        for line in ["", "token-bucket 9 per second 1 p50 us", "token-bucket x per second 1 p50 us 2 p99 us"] {
            assert!(read_shared(line).is_err(), "{line}");
        }
    }

    #[test]
    fn rounds_of_one_rule_are_one_series() {
        let mut all = vec![];
        for rate in [1.0, 3.0] {
            add(&mut all, Shared { name: "a".into(), per_second: rate, p50_us: 1.0, p99_us: 2.0 });
        }
        assert_eq!((all.len(), all[0].values("per_second")), (1, vec![1.0, 3.0]));
    }

    #[test]
    fn a_point_of_a_curve_has_a_time_and_two_counts() {
        let (name, point) = read_point("curve: fixed-window, window edge: 9500 200 100").unwrap();
        assert_eq!(name, "curve: fixed-window, window edge");
        assert_eq!(point, [("ms", 9_500.0), ("offered", 200.0), ("passed", 100.0)]);
        for line in ["curve: a: 1 2", "curve: a: 1 2 3 4", "curve: a: 1 2 x", "1 2 3", "bend: a: 1 2 3"] {
            assert!(read_point(line).is_err(), "{line}");
        }
    }
}
