//! How fast the statistics of links are told that were clicked ten million
//! times in a year. Their rows are written by the benchmark's program, since
//! clicking would take hours; each answer's total is checked.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::super::Bench;
use super::super::generator::{Connections, Load, Pace, Workload, drive};
use super::super::links::{Targets, fill};
use super::super::pin::on_core;
use super::super::report::{Reading, Series};
use super::super::server::Server;
use super::super::wire::Answer;
use super::Program;

/// A year, day by day.
pub const YEAR: &str = "statistics, a year of days";
/// A month, hour by hour.
const MONTH: &str = "statistics, a month of hours";
/// How many links there are that are asked about in turn.
pub const LINKS: usize = 4;
/// How often is asked.
pub const CALLS: usize = 200;
/// The same in a quick run.
const QUICK_CALLS: usize = 20;
/// How long all calls may take.
const LIMIT: Duration = Duration::from_secs(120);

/// Measures both ranges as told from SQLite.
///
/// # Errors
/// When the server fails, or tells another total than was written.
pub fn measure(bench: &Bench<'_>, program: &Program<'_>) -> Result<Vec<Series>> {
    if !bench.run.wants(YEAR) && !bench.run.wants(MONTH) {
        return Ok(Vec::new());
    }
    let data = bench.data("clicks-told")?;
    let links = links(bench, &data, LINKS)?;
    let written = program.run(&["rows", &data.join("stats.sqlite").to_string_lossy(), &joined(&links)])?;
    println!("the rows of {LINKS} links are written");
    let calls = if bench.run.quick { QUICK_CALLS } else { CALLS };
    let (names, rounds) = ([YEAR, MONTH], bench.run.rounds());
    let telling = Telling { names, rounds, warm_up: 0, calls, links: &links, written: &written };
    telling.measure(bench, &|| bench.servers.terse(&bench.terse, &data))
}

/// So many links in the data directory `data`, whose server has ended.
///
/// # Errors
/// When a link isn't made.
pub fn links(bench: &Bench<'_>, data: &Path, count: usize) -> Result<Targets> {
    let server = bench.servers.terse(&bench.terse, data)?;
    let links = Targets::of(&fill(server.address, count)?);
    server.stop()?;
    Ok(links)
}

/// The codes of `links` as the benchmark's program reads them.
#[must_use]
pub fn joined(links: &Targets) -> String {
    links.codes().collect::<Vec<_>>().join(",")
}

/// What is asked, and how often.
pub struct Telling<'a> {
    /// What the series of the year is called, and that of the month.
    pub names: [&'static str; 2],
    /// How many servers there are, one after the other.
    pub rounds: u32,
    /// Calls of each series that come before those that are measured.
    pub warm_up: usize,
    /// Calls of each series and round that are measured; not 0.
    pub calls: usize,
    /// The links that are asked about in turn.
    pub links: &'a Targets,
    /// What the program told of their rows.
    pub written: &'a Value,
}

impl Telling<'_> {
    /// Asks a server that `start` has just started, `calls` times about each range, and measures nothing.
    ///
    /// # Errors
    /// When the server fails, or tells another total than was written.
    pub fn rehearse(&self, bench: &Bench<'_>, start: &dyn Fn() -> Result<Server>, calls: usize) -> Result<()> {
        let server = start()?;
        for (_, year) in self.wanted(bench) {
            self.ask(bench, &server, year, calls)?;
        }
        server.stop()
    }

    /// Measures both ranges on a server that `start` has just started, round after round.
    ///
    /// # Errors
    /// When the server fails, or tells another total than was written.
    pub fn measure(&self, bench: &Bench<'_>, start: &dyn Fn() -> Result<Server>) -> Result<Vec<Series>> {
        let mut all: Vec<_> = self.wanted(bench).map(|(name, year)| (Series::new(name), year)).collect();
        for round in 1..=self.rounds {
            let server = start()?;
            for (series, year) in &mut all {
                self.ask(bench, &server, *year, self.warm_up)?;
                series.add(self.ask(bench, &server, *year, self.calls)?);
            }
            server.stop()?;
            println!("{}: round {round} of {}", self.names[0], self.rounds);
        }
        Ok(all.into_iter().map(|(series, _)| series).collect())
    }

    /// What the series of the wanted ranges are called, and whether that is the year.
    fn wanted(&self, bench: &Bench<'_>) -> impl Iterator<Item = (&'static str, bool)> {
        self.names.into_iter().zip([true, false]).filter(|(name, _)| bench.run.wants(name))
    }

    fn ask(&self, bench: &Bench<'_>, server: &Server, year: bool, calls: usize) -> Result<Vec<Reading>> {
        let asking = Asking::about(self.written, year, self.links, server.address)?;
        on_core(bench.cores.generator, || told(Asking { left: calls, ..asking }))
    }
}

/// Asks one call after the other.
fn told(mut asking: Asking<'_>) -> Result<Vec<Reading>> {
    let (address, calls) = (asking.address, asking.left as u64);
    let (kind, pace) = (Connections::Kept, Pace::Closed);
    let load = Load { connections: 1, kind, pace, warm_up: Duration::ZERO, window: LIMIT };
    let outcome = drive(address, &load, &mut asking, &mut || Ok(()))?;
    ensure!(outcome.answers == calls, "{} of {calls} answers in time", outcome.answers);
    let percentile = |percent| outcome.latencies.percentile_ms(percent);
    Ok(vec![("p50_ms", percentile(50.0)), ("p99_ms", percentile(99.0))])
}

/// Asks for the statistics of links in turn.
struct Asking<'a> {
    links: &'a Targets,
    address: SocketAddr,
    query: String,
    /// The fewest clicks that an answer tells, and the most.
    clicks: (u64, u64),
    left: usize,
}

impl<'a> Asking<'a> {
    /// About a year, or about a month, of what was `written`.
    fn about(written: &Value, year: bool, links: &'a Targets, address: SocketAddr) -> Result<Self> {
        let (from, interval) = if year { ("year", "day") } else { ("hours", "hour") };
        let from = written[from].as_str().context("rows that begin at no time")?;
        let number = |name: &str| written[name].as_u64().with_context(|| format!("rows without {name}"));
        let all = number("clicks")?;
        let clicks = if year { (all, all) } else { (number("hourly_clicks_at_least")?, all) };
        Ok(Self { links, address, query: format!("from={from}&interval={interval}"), clicks, left: 0 })
    }
}

impl Workload for Asking<'_> {
    fn request(&mut self, out: &mut Vec<u8>) -> Option<u64> {
        self.left = self.left.checked_sub(1)?;
        let Self { links, address, query, left, .. } = self;
        let code = links.code(*left % links.len());
        let head = format!(
            "GET /api/v1/links/{code}/stats?{query} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: terse-bench/1\r\n\
             Accept: application/json\r\n\r\n"
        );
        out.extend_from_slice(head.as_bytes());
        Some(*left as u64)
    }

    fn check(&mut self, _: u64, answer: &Answer<'_>) -> Result<()> {
        if answer.status != 200 {
            bail!("statistics were answered {}: {}", answer.status, String::from_utf8_lossy(answer.body));
        }
        let stats: Value = serde_json::from_slice(answer.body).context("reading statistics")?;
        let total = stats["total"].as_u64().context("statistics without a total")?;
        let (least, most) = self.clicks;
        ensure!((least..=most).contains(&total), "{total} clicks are told, not {least} to {most}");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::super::links::Pair;
    use super::*;

    fn links() -> Targets {
        Targets::of(&[Pair { code: "aaaaaaa".into(), index: 0 }, Pair { code: "bbbbbbb".into(), index: 1 }])
    }

    fn asking(links: &Targets, year: bool) -> Asking<'_> {
        let written = json!({"clicks": 100, "year": "2026-01-01T00:00:00Z", "hours": "2026-12-01T00:00:00Z",
            "hourly_clicks_at_least": 30});
        Asking::about(&written, year, links, "127.0.0.1:1".parse().unwrap()).unwrap()
    }

    #[test]
    fn links_are_asked_about_in_turn_and_so_often() {
        let links = links();
        let mut asking = Asking { left: 3, ..asking(&links, true) };
        let mut asked = Vec::new();
        while asking.request(&mut asked).is_some() {}
        let text = String::from_utf8(asked).unwrap();
        let paths: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("GET /api/v1/links/")).collect();
        let query = "stats?from=2026-01-01T00:00:00Z&interval=day HTTP/1.1";
        assert_eq!(paths, ["aaaaaaa", "bbbbbbb", "aaaaaaa"].map(|code| format!("{code}/{query}")));
    }

    #[test]
    fn every_total_is_that_of_the_rows() {
        let links = links();
        let answer = |status, body: &str| {
            let answer = Answer { status, location: None, body: body.as_bytes(), keep_alive: true, bytes: 0 };
            (asking(&links, true).check(0, &answer).is_ok(), asking(&links, false).check(0, &answer).is_ok())
        };
        assert_eq!(answer(200, r#"{"total": 100}"#), (true, true));
        assert_eq!(answer(200, r#"{"total": 30}"#), (false, true));
        assert_eq!(answer(200, r#"{"total": 29}"#), (false, false));
        assert_eq!(answer(200, "{}"), (false, false));
        assert_eq!(answer(503, r#"{"total": 100}"#), (false, false));
    }

    #[test]
    fn rows_that_are_not_described_are_an_error() {
        let address = "127.0.0.1:1".parse().unwrap();
        let without_clicks = json!({"year": "2026-01-01T00:00:00Z"});
        assert!(Asking::about(&without_clicks, true, &links(), address).is_err());
        assert!(Asking::about(&json!({"clicks": 1}), true, &links(), address).is_err());
    }
}
