//! Redirects: terse beside nginx answering a constant `return 302`, a constant
//! actix-web handler and the floor, all with the same request bytes.
//!
//! Three parts, one report. As fast as they answer, in alternating rounds: the
//! constants; terse from memory, from the shared cache, from the store, for
//! unknown codes, and in all its roles; all of them with a connection for each request. Then all at
//! half of terse's peak, evenly, where latencies are read. Last the hit ratio
//! of a cache that holds a tenth of the links ([`hit_ratio`]).
//!
//! terse records the click of each redirect throughout, and whatever its
//! threads spend on that is its cost. In all roles it also counts them; else
//! nobody does. Each server must have recorded all of its redirects in the end
//! ([`super::recorded`]), and the one that counts must tell the right totals.

pub mod contenders;
pub mod hit_ratio;
pub mod pauses;
pub mod summary;

use std::fs;

use anyhow::{Context as _, Result, ensure};

use self::contenders::Contender;
use self::contenders::servers::Stage;
use super::generator::Pace;
use super::report::{Report, Series};
use super::{Bench, Run};
use crate::services::{Compiler, Kind, Session};

/// How many links there are.
const LINKS: usize = 1_000_000;
/// How many in a quick run.
const QUICK_LINKS: usize = 20_000;
/// Of all links, the part of them that the smaller series follow.
pub(super) const SOME_OF: usize = 20;
/// Of all links, the part that the cache holds whose hit ratio is measured.
const CACHED_OF: usize = 10;
/// Of Zipf's law: that of words, cities and popular links.
const EXPONENT: f64 = 1.0;
/// Where all draws begin.
const SEED: u64 = 0x7e45e;

/// How many links are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// All.
    pub many: usize,
    /// A part that any cache holds.
    pub some: usize,
}

impl Sizes {
    /// Those of this run.
    pub(super) fn of(run: &Run) -> Self {
        let many = run.links(LINKS, QUICK_LINKS);
        Self { many, some: (many / SOME_OF).max(1) }
    }
}

/// Who answers a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// One epoll and a constant.
    Floor,
    /// A constant `return 302`.
    Nginx,
    /// A constant handler.
    Actix,
    /// The server.
    Terse,
}

/// All of them, in the order of the report.
pub const ALL: [Who; 4] = [Who::Floor, Who::Nginx, Who::Actix, Who::Terse];

impl Who {
    /// Its name in a series where everybody takes part.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Nginx => "nginx",
            Self::Actix => "actix-web",
            Self::Terse => "terse",
        }
    }

    /// The series over kept connections, as fast as it answers; of terse, all for one link in memory.
    #[must_use]
    pub fn kept(self) -> &'static str {
        match self {
            Self::Floor => "floor, epoll and a constant",
            Self::Nginx => "nginx, return 302",
            Self::Actix => "actix-web, a constant",
            Self::Terse => "terse, one code",
        }
    }

    /// The series with a connection for each request.
    #[must_use]
    pub fn churn(self) -> String {
        format!("{}, churn", self.name())
    }

    /// The series at half of terse's peak.
    #[must_use]
    pub fn half(self) -> String {
        format!("{}, half of peak", self.name())
    }
}

/// terse, codes that no link has.
pub const UNKNOWN: &str = "terse, unknown codes";
/// terse, with a cache of one entry.
pub const STORE: &str = "terse, store hit";
/// terse, with a cache of one entry and Redis.
pub const SHARED: &str = "terse, L2 hit";
/// terse in all roles, counting what it records.
pub const COUNTING: &str = "terse, all roles";
/// terse, with a cache for a tenth of the links.
pub const HIT_RATIO: &str = "terse, hit ratio";

/// The series of `count` links in memory, drawn by `law`.
#[must_use]
pub fn codes(count: usize, law: &str) -> String {
    format!("terse, {count} codes, {law}")
}

/// Measures redirects.
///
/// # Errors
/// When a server fails, answers wrong, or answers from another tier than is measured.
pub fn measure(bench: &Bench<'_>) -> Result<Report> {
    if !bench.run.wants(SHARED) {
        return measure_with(bench, None);
    }
    let session = Session::start(bench.workspace, bench.supervisor, &[Kind::Redis], Compiler::Full)?;
    let measured = measure_with(bench, Some(&session));
    let ended = session.end();
    let report = measured?;
    ended?;
    Ok(report)
}

fn measure_with(bench: &Bench<'_>, redis: Option<&Session<'_>>) -> Result<Report> {
    let sizes = Sizes::of(bench.run);
    let stage = Stage::set(bench, sizes, redis.is_some())?;
    let mut fast = contenders::fast(bench.run, &stage, sizes);
    let redis: Vec<u32> = redis.map(redis_pid).transpose()?.flatten().into_iter().collect();
    // What Redis does is not the server's cost, and must not push it aside.
    super::pin::while_confined(&redis, bench.cores.generator, || alternate(bench, Pace::Closed, &mut fast))?;
    let mut series = taken(fast);
    if ALL.iter().any(|who| bench.run.wants(&who.half())) {
        let rate = half_of_peak(bench, &stage, &series, sizes)?;
        println!("half of the peak is {rate} requests per second");
        let mut even = contenders::even(bench.run, &stage, sizes);
        alternate(bench, Pace::Open { per_second: rate }, &mut even)?;
        series.extend(taken(even));
        series.push(pauses::measure(bench)?);
    }
    let rest = stage.clear()?;
    if let (true, Some((data, links))) = (bench.run.wants(HIT_RATIO), &rest.main) {
        series.push(hit_ratio::measure(bench, data, links)?);
    }
    if let Some((data, _)) = &rest.main {
        fs::remove_dir_all(data)?;
    }
    Ok(summary::report(series, sizes, rest.empty_mb))
}

/// The process of Redis, unless an engine runs it where it can't be seen.
///
/// # Errors
/// When its number can't be understood.
pub fn redis_pid(session: &Session<'_>) -> Result<Option<u32>> {
    let found = session.variables().into_iter().find(|(name, _)| *name == "REDIS_PID");
    found.map(|(_, pid)| pid.parse().context("the process id of Redis")).transpose()
}

/// What was read of `contenders`.
pub(super) fn taken(contenders: Vec<Contender>) -> Vec<Series> {
    contenders.into_iter().map(|contender| contender.series).collect()
}

/// Measures all `contenders`, round after round.
pub(super) fn alternate(bench: &Bench<'_>, pace: Pace, contenders: &mut [Contender]) -> Result<()> {
    let count = contenders.len();
    for round in 0..bench.run.rounds() as usize {
        let mut rounds: Vec<_> = (0..count).map(|_| Vec::new()).collect();
        for step in 0..count {
            // Each round begins with another one, so that none always follows the same.
            let at = (round + step) % count;
            rounds[at] = contenders[at].measure(bench, pace)?;
        }
        contenders::add_ratios(contenders, &mut rounds);
        for (contender, readings) in contenders.iter_mut().zip(rounds) {
            contender.series.add(readings);
        }
        println!("round {} of {}", round + 1, bench.run.rounds());
    }
    Ok(())
}

/// Half of what terse managed over [`Sizes::some`] links, requests per second.
fn half_of_peak(bench: &Bench<'_>, stage: &Stage<'_>, series: &[Series], sizes: Sizes) -> Result<u32> {
    let name = codes(sizes.some, "zipf");
    let known = series.iter().find(|series| series.name == name).and_then(|series| series.spread("per_second"));
    let peak = match known {
        Some(spread) => spread.median,
        None => {
            let readings = contenders::zipf(stage, &name, sizes.some)
                .context("half of the peak of a server that is not there")?
                .measure(bench, Pace::Closed)?;
            contenders::reading(&readings, "per_second").context("a peak without a rate")?
        }
    };
    let half = (peak / 2.0) as u32;
    ensure!(half > 0, "a peak of {peak} requests per second");
    Ok(half)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_full_run_follows_a_million_links_and_a_quick_one_few() {
        assert_eq!(Sizes::of(&Run::default()), Sizes { many: 1_000_000, some: 50_000 });
        let quick = Sizes::of(&Run { quick: true, ..Run::default() });
        assert_eq!(quick, Sizes { many: 20_000, some: 1_000 });
        let set = Sizes::of(&Run { links: Some(2_000), ..Run::default() });
        assert_eq!(set, Sizes { many: 2_000, some: 100 });
    }

    #[test]
    fn no_two_series_have_one_name() {
        let mut names: Vec<String> = ALL.iter().flat_map(|who| [who.kept().into(), who.churn(), who.half()]).collect();
        names.extend([UNKNOWN, STORE, SHARED, COUNTING, HIT_RATIO].map(str::to_owned));
        names.extend([codes(50, "zipf"), codes(50, "uniform"), codes(1_000, "zipf")]);
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
        assert!(names.iter().all(|name| ALL.iter().any(|who| name.starts_with(who.name()))));
    }
}
