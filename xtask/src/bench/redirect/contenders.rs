//! Who is measured with what: a server, the requests that it gets, the tier
//! that must answer them, and whose CPU stands beside its own.

pub mod servers;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use self::servers::{Loaded, Stage};
use super::super::draw::{Draw, Zipf};
use super::super::generator::{Connections, Pace, Workload};
use super::super::links::{PAUSE, Redirects, Targets, Unknown};
use super::super::recorded;
use super::super::report::{Reading, Series};
use super::super::tiers::Tiers;
use super::super::usage::{CpuTime, resident};
use super::super::{Bench, CONNECTIONS, Run};
use super::{ALL, COUNTING, EXPONENT, SEED, SHARED, STORE, Sizes, UNKNOWN, Who, codes};

/// How many draws are made ahead; they repeat after that.
const DRAWS: usize = 1 << 20;
/// Of all redirects, how many the tier must have answered that is measured, in percent. A quick run,
/// which may have a busy machine, only asks that it answered any.
const MIN_TIER_PERCENT: f64 = 95.0;
/// How often a quick run measures at most what a store may refuse for a moment.
const QUICK_TRIES: u32 = 3;

/// A server under one kind of load.
pub struct Contender {
    /// What was read.
    pub series: Series,
    server: (u32, SocketAddr),
    kind: Connections,
    workload: Box<dyn Workload>,
    /// The share of the tier that must answer, as [`Tiers::percents`] calls it.
    tier: Option<&'static str>,
    /// How often it is measured at most, until it succeeds.
    tries: u32,
    /// The links of a server that records: it must have a click of each redirect.
    recorded: Option<Targets>,
    /// Whether it also counts what it records, which then belongs to its cost.
    counts: bool,
    /// Readings that are ratios of CPU, and the series that is 1 there.
    beside: Vec<(&'static str, String)>,
}

impl Contender {
    /// The server, process and address, under this workload over connections that are kept.
    #[must_use]
    pub fn new(name: &str, server: (u32, SocketAddr), workload: impl Workload + 'static) -> Self {
        let (series, workload) = (Series::new(name), Box::new(workload));
        let (kind, tier, tries, beside) = (Connections::Kept, None, 1, Vec::new());
        Self { series, server, kind, workload, tier, tries, recorded: None, counts: false, beside }
    }

    fn recording(self, links: &Targets) -> Self {
        Self { recorded: Some(links.clone()), ..self }
    }

    fn counting(self) -> Self {
        Self { counts: true, ..self }
    }

    /// The same over connections that the server may end.
    #[must_use]
    pub fn offering(self) -> Self {
        Self { kind: Connections::Offered, ..self }
    }

    /// The same with a connection for each request, which the workload asks for.
    #[must_use]
    pub fn churning(self) -> Self {
        Self { kind: Connections::Renewed, ..self }
    }

    fn answered_by(self, tier: &'static str) -> Self {
        Self { tier: Some(tier), ..self }
    }

    /// Lets a quick run measure again, since a store may refuse for a moment.
    fn patient(self, run: &Run) -> Self {
        Self { tries: if run.quick { QUICK_TRIES } else { 1 }, ..self }
    }

    /// Compares with the constants of the same kind, whose names `name` gives.
    #[must_use]
    pub fn beside_constants(mut self, name: impl Fn(Who) -> String) -> Self {
        self.beside.extend([("cpu_ratio_to_nginx", name(Who::Nginx)), ("cpu_ratio_to_floor", name(Who::Floor))]);
        self
    }

    /// Puts one window of load on the server and reads what it cost.
    ///
    /// # Errors
    /// When an answer is wrong, or came from another tier; where it is tried often, each time.
    pub fn measure(&mut self, bench: &Bench<'_>, pace: Pace) -> Result<Vec<Reading>> {
        repeated(self.tries, PAUSE, || {
            let measured = self.measure_once(bench, pace);
            if let (Err(_), Some(links)) = (&measured, &self.recorded) {
                links.abandon(CONNECTIONS as u64);
            }
            measured
        })
    }

    fn measure_once(&mut self, bench: &Bench<'_>, pace: Pace) -> Result<Vec<Reading>> {
        let name = &self.series.name;
        let (pid, address) = self.server;
        let before = self.tier.map(|_| Tiers::read(address)).transpose()?;
        let begun = Spent::until_now(pid, self.recorded.as_ref())?;
        let measured = bench.measure_over(self.kind, self.server, pace, &mut *self.workload);
        let mut readings = measured.with_context(|| name.clone())?;
        if self.counts {
            recorded::await_counted(address).with_context(|| name.clone())?;
            begun.correct(&Spent::until_now(pid, self.recorded.as_ref())?, &mut readings);
        }
        if let Some(links) = &self.recorded {
            recorded::assert_recorded(address, links).with_context(|| name.clone())?;
        }
        readings.push(("resident_mb", resident(pid)? as f64 / 1e6));
        if let (Some(tier), Some(before)) = (self.tier, before) {
            let share = reading(&Tiers::read(address)?.since(&before).percents(), tier).context("an unknown tier")?;
            check_share(bench.run, share).with_context(|| format!("{name}: {tier}"))?;
            readings.push((tier, share));
        }
        Ok(readings)
    }
}

/// What a server has spent on which redirects.
struct Spent {
    cpu: CpuTime,
    redirects: u64,
}

impl Spent {
    fn until_now(pid: u32, links: Option<&Targets>) -> Result<Self> {
        Ok(Self { cpu: CpuTime::of(pid)?, redirects: links.map_or(0, Targets::followed) })
    }

    /// Says in `readings` what a redirect cost from this moment to `end`, and apart what the window alone has told: a
    /// server that counts has more to do after it.
    fn correct(&self, end: &Self, readings: &mut Vec<Reading>) {
        let redirects = (end.redirects - self.redirects).max(1);
        let whole = end.cpu.since(&self.cpu).as_secs_f64() * 1e6 / redirects as f64;
        if let Some((_, cpu)) = readings.iter_mut().find(|(name, _)| *name == "cpu_us") {
            let of_window = std::mem::replace(cpu, whole);
            readings.push(("cpu_us_before_counting_ends", of_window));
        }
    }
}

/// Fails if the tier that is measured answered too few.
fn check_share(run: &Run, share: f64) -> Result<()> {
    if run.quick {
        ensure!(share > 0.0, "is 0");
    } else {
        ensure!(share >= MIN_TIER_PERCENT, "is {share:.1} instead of at least {MIN_TIER_PERCENT}");
    }
    Ok(())
}

/// What `measure` returns once it succeeds, or its error the last of `tries` times; waits `pause` between them.
fn repeated<T>(tries: u32, pause: Duration, mut measure: impl FnMut() -> Result<T>) -> Result<T> {
    let mut left = tries;
    loop {
        left = left.saturating_sub(1);
        match measure() {
            Err(error) if left > 0 => println!("measured again: {error:#}"),
            done => return done,
        }
        std::thread::sleep(pause);
    }
}

/// The value of `name` among `readings`.
#[must_use]
pub fn reading(readings: &[Reading], name: &str) -> Option<f64> {
    readings.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
}

/// Adds to the readings of each contender of one round how its CPU compares in that round.
pub fn add_ratios(contenders: &[Contender], rounds: &mut [Vec<Reading>]) {
    let cpu: Vec<Option<f64>> = rounds.iter().map(|readings| reading(readings, "cpu_us")).collect();
    let of = |name: &str| cpu[contenders.iter().position(|contender| contender.series.name == name)?];
    for ((contender, readings), ours) in contenders.iter().zip(rounds).zip(&cpu) {
        let ratios: Vec<Reading> =
            contender.beside.iter().filter_map(|(ratio, name)| Some((*ratio, (*ours)? / of(name)?))).collect();
        readings.splice(2.min(readings.len())..2.min(readings.len()), ratios);
    }
}

/// Draws the same sequence for everybody who asks for the same.
fn zipf_order(count: usize) -> Arc<[u32]> {
    let mut draw = Draw::seeded(SEED);
    // Rank and age of a link have nothing to do with each other.
    let ranked = draw.shuffled(count);
    let zipf = Zipf::new(count, EXPONENT);
    (0..DRAWS).map(|_| ranked[zipf.draw(&mut draw)]).collect()
}

fn uniform_order(count: usize) -> Arc<[u32]> {
    let mut draw = Draw::seeded(SEED);
    (0..DRAWS).map(|_| draw.below(count) as u32).collect()
}

fn one(links: &Targets) -> Redirects {
    Redirects::over(links, [0].into())
}

/// terse following the first `count` links by Zipf's law, all of them in memory.
#[must_use]
pub fn zipf(stage: &Stage<'_>, name: &str, count: usize) -> Option<Contender> {
    let main = stage.main()?;
    Some(from_memory(name, main, Redirects::over(&main.links, zipf_order(count))))
}

fn from_memory(name: &str, main: &Loaded, workload: impl Workload + 'static) -> Contender {
    let contender = Contender::new(name, main.seat(), workload).recording(&main.links);
    contender.answered_by("l1_percent").beside_constants(|who| who.kept().into())
}

/// Everything that is measured as fast as it is answered, if `run` wants it.
#[must_use]
pub fn fast(run: &Run, stage: &Stage<'_>, sizes: Sizes) -> Vec<Contender> {
    let mut all = constants(run, stage);
    if let Some(main) = stage.main() {
        all.extend(wanted(run, Who::Terse.kept(), |name| from_memory(name, main, one(&main.links))));
        for count in [sizes.some, sizes.many] {
            all.extend(run.wants(&codes(count, "zipf")).then(|| zipf(stage, &codes(count, "zipf"), count)).flatten());
            let uniform = || Redirects::over(&main.links, uniform_order(count));
            all.extend(wanted(run, &codes(count, "uniform"), |name| from_memory(name, main, uniform())));
        }
        all.extend(wanted(run, UNKNOWN, |name| {
            let unknown = Unknown::beside(&main.links, DRAWS, &mut Draw::seeded(SEED));
            Contender::new(name, main.seat(), unknown).beside_constants(|who| who.kept().into())
        }));
    }
    let by_tier = [(STORE, stage.store(), "store_percent"), (SHARED, stage.shared(), "l2_percent")];
    for (name, loaded, tier) in by_tier {
        all.extend(loaded.filter(|_| run.wants(name)).map(|loaded| {
            let workload = Redirects::over(&loaded.links, uniform_order(loaded.links.len()));
            let contender = Contender::new(name, loaded.seat(), workload).recording(&loaded.links).answered_by(tier);
            let mut contender = contender.patient(run).beside_constants(|who| who.kept().into());
            contender.beside.push(("cpu_ratio_to_l1", Who::Terse.kept().into()));
            contender
        }));
    }
    all.extend(stage.counting().filter(|_| run.wants(COUNTING)).map(|counting| {
        from_memory(COUNTING, counting, Redirects::over(&counting.links, zipf_order(counting.links.len()))).counting()
    }));
    all.extend(churn(run, stage));
    all
}

fn wanted(run: &Run, name: &str, make: impl FnOnce(&str) -> Contender) -> Option<Contender> {
    run.wants(name).then(|| make(name))
}

fn constants(run: &Run, stage: &Stage<'_>) -> Vec<Contender> {
    let constants = ALL.into_iter().filter(|who| *who != Who::Terse && run.wants(who.kept()));
    let contender = |who: Who| {
        let (seat, links) = stage.seat(who, Connections::Kept)?;
        Some(Contender::new(who.kept(), seat, one(links)).beside_constants(|who| who.kept().into()))
    };
    constants.filter_map(contender).collect()
}

/// Everybody with a connection for each request.
fn churn(run: &Run, stage: &Stage<'_>) -> Vec<Contender> {
    let contender = |who: Who| {
        let (seat, links) = stage.seat(who, Connections::Renewed)?;
        let mut contender = Contender::new(&who.churn(), seat, one(links).closing());
        contender.recorded = (who == Who::Terse).then(|| links.clone());
        Some(contender.churning().beside_constants(Who::churn))
    };
    ALL.into_iter().filter(|who| run.wants(&who.churn())).filter_map(contender).collect()
}

/// Everybody at a fixed rate; terse follows [`Sizes::some`] links.
#[must_use]
pub fn even(run: &Run, stage: &Stage<'_>, sizes: Sizes) -> Vec<Contender> {
    let contender = |who: Who| {
        let contender = match who {
            Who::Terse => zipf(stage, &who.half(), sizes.some).map(|made| Contender { beside: Vec::new(), ..made })?,
            _ => {
                let (seat, links) = stage.seat(who, Connections::Kept)?;
                Contender::new(&who.half(), seat, one(links))
            }
        };
        Some(contender.beside_constants(Who::half))
    };
    ALL.into_iter().filter(|who| run.wants(&who.half())).filter_map(contender).collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::links::Pair;
    use super::*;

    fn contender(name: &str) -> Contender {
        let links = Targets::of(&[Pair { code: "abcdefg".into(), index: 0 }]);
        Contender::new(name, (1, "127.0.0.1:1".parse().unwrap()), one(&links))
    }

    #[test]
    fn ratios_are_of_one_round_and_of_the_same_kind_of_connection() {
        let contenders = [
            contender(Who::Nginx.kept()),
            contender(&Who::Nginx.churn()),
            contender(Who::Terse.kept()).beside_constants(|who| who.kept().into()),
            contender(&Who::Terse.churn()).churning().beside_constants(Who::churn),
        ];
        let cpu = |us: f64| vec![("per_second", 1.0), ("cpu_us", us), ("p99_ms", 3.0)];
        let mut rounds = [cpu(5.0), cpu(14.0), cpu(4.5), cpu(21.0)];
        add_ratios(&contenders, &mut rounds);
        assert_eq!(reading(&rounds[2], "cpu_ratio_to_nginx"), Some(0.9));
        assert_eq!(reading(&rounds[3], "cpu_ratio_to_nginx"), Some(1.5));
        assert_eq!(reading(&rounds[3], "cpu_ratio_to_floor"), None, "there is no floor");
        assert_eq!(rounds[0], cpu(5.0), "nothing to compare with");
        assert_eq!(rounds[2][2], ("cpu_ratio_to_nginx", 0.9), "right after what it compares");
    }

    #[test]
    fn what_counting_takes_after_the_window_belongs_to_a_redirect() {
        let links = Targets::of(&[Pair { code: "abcdefg".into(), index: 0 }]);
        let begun = Spent::until_now(std::process::id(), Some(&links)).unwrap();
        links.follow(0);
        links.follow(0);
        let mut end = Spent::until_now(std::process::id(), Some(&links)).unwrap();
        end.cpu = begun.cpu.clone();
        let mut readings = vec![("per_second", 1.0), ("cpu_us", 3.5)];
        begun.correct(&end, &mut readings);
        assert_eq!(readings, [("per_second", 1.0), ("cpu_us", 0.0), ("cpu_us_before_counting_ends", 3.5)]);
    }

    #[test]
    fn only_a_full_run_asks_that_nearly_all_came_from_the_tier() {
        let (full, quick) = (Run::default(), Run { quick: true, ..Run::default() });
        assert!(check_share(&full, MIN_TIER_PERCENT).is_ok());
        let error = check_share(&full, 94.9).unwrap_err().to_string();
        assert_eq!(error, "is 94.9 instead of at least 95");
        assert!(check_share(&quick, 0.1).is_ok());
        assert!(check_share(&quick, 0.0).is_err());
    }

    #[test]
    fn only_a_quick_run_measures_again() {
        assert_eq!(contender(STORE).tries, 1);
        assert_eq!(contender(STORE).patient(&Run::default()).tries, 1);
        assert_eq!(contender(STORE).patient(&Run { quick: true, ..Run::default() }).tries, QUICK_TRIES);
    }

    #[test]
    fn what_fails_is_measured_again_until_it_succeeds_or_has_failed_too_often() {
        let measured = |fails: u32, tries: u32| {
            let mut calls = 0;
            let result = repeated(tries, Duration::ZERO, || {
                calls += 1;
                ensure!(calls > fails, "refused");
                Ok(())
            });
            (result.is_ok(), calls)
        };
        assert_eq!(measured(0, 3), (true, 1));
        assert_eq!(measured(2, 3), (true, 3));
        assert_eq!(measured(3, 3), (false, 3));
        assert_eq!(measured(1, 1), (false, 1));
    }

    #[test]
    fn everybody_who_asks_for_a_law_gets_the_same_draws() {
        let popular = zipf_order(1_000);
        assert_eq!(popular, zipf_order(1_000));
        assert_eq!(popular.len(), DRAWS);
        let most = |order: &[u32]| {
            let mut counts = vec![0_usize; 1_000];
            order.iter().for_each(|index| counts[*index as usize] += 1);
            counts.into_iter().max().unwrap() as f64 / DRAWS as f64
        };
        // The most popular of a thousand has 1 of 7.485 draws.
        assert!((most(&popular) - 0.1336).abs() < 0.002, "{}", most(&popular));
        assert!((most(&uniform_order(1_000)) - 0.001).abs() < 0.0002);
        assert!(zipf_order(1).iter().all(|index| *index == 0));
    }
}
