//! Redirects of one code, by whoever is on this machine: nginx and actix-web with
//! a constant answer, terse, and other shorteners by URL and process.
//!
//! The servers, the load and the alternating rounds are those of
//! [`super::redirect`]; a peer's processes have the server's core meanwhile.
//! Writes `docs/measurements/peers.json`, and [`page`] makes the page and its
//! chart of that file.

pub mod page;
pub mod peer;

use anyhow::{Context as _, Result, ensure};

use self::peer::{Moved, Peer};
use super::generator::{Connections, Pace};
use super::pin::while_confined;
use super::redirect::contenders::{self, Contender, servers::Stage};
use super::redirect::{ALL, COUNTING, SOME_OF, Sizes, Who, alternate, taken};
use super::report::{Report, Series};
use super::{Bench, Run, measured};
use crate::process::{Supervisor, family};
use crate::workspace::Workspace;

/// The name of the file of measurements.
pub const NAME: &str = "peers";
/// A redirect takes more: reading a request and writing an answer alone take the kernel several.
const LEAST_CPU_US: f64 = 1.0;

/// Arguments of `cargo xtask bench peers`.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Options {
    /// Another shortener: its name, the URL of one of its codes on loopback, its process; may be repeated
    #[arg(long = "peer", value_name = "NAME=URL,PID")]
    peers: Vec<Peer>,
    /// Only make the page and its chart anew, of what was measured before
    #[arg(long, conflicts_with = "peers")]
    page: bool,
    #[command(flatten)]
    run: Run,
}

/// A peer, and what it answers.
struct Known {
    peer: Peer,
    answer: Moved,
}

/// Measures, and writes the file, the chart and the page, unless it was a quick run.
///
/// # Errors
/// When a server fails or answers wrong, or a peer is not what it was said to be.
pub fn run(workspace: &Workspace, supervisor: &Supervisor, options: &Options) -> Result<()> {
    if options.page {
        return page::write(workspace, &workspace.root.join("docs/measurements").join(NAME).with_extension("json"));
    }
    let run = options.run()?;
    let written = measured(workspace, supervisor, &run, options.run.writes(), &|bench| measure(bench, &options.peers))?;
    match written {
        Some(path) => page::write(workspace, &path),
        None => Ok(()),
    }
}

impl Options {
    /// The run of the redirects with those that stand on the page, all of one code.
    fn run(&self) -> Result<Run> {
        ensure!(self.run.only.is_empty() && self.run.links.is_none(), "--only and --links are not for the peers");
        for (at, peer) in self.peers.iter().enumerate() {
            let twice = self.peers[..at].iter().any(|earlier| earlier.name == peer.name);
            ensure!(!twice, "two peers are called {}", peer.name);
        }
        let names = |who: Who| [who.kept().to_owned(), who.churn(), who.half()];
        let only = ALL.into_iter().flat_map(names).chain([COUNTING.to_owned()]).collect();
        // So many that the smaller number of links, which the series follow, is one.
        Ok(Run { only, links: Some(SOME_OF as u32), ..self.run.clone() })
    }
}

fn measure(bench: &Bench<'_>, peers: &[Peer]) -> Result<Report> {
    let sizes = Sizes::of(bench.run);
    let stage = Stage::set(bench, sizes, false)?;
    let mut peers = peers.to_vec();
    if bench.run.quick && peers.is_empty() {
        peers.extend(constant_by_url(&stage)?);
    }
    let known = |peer: Peer| peer.first_answer().map(|answer| Known { peer, answer });
    let known: Vec<Known> = peers.into_iter().map(known).collect::<Result<_>>()?;
    let pids: Vec<u32> = known.iter().flat_map(|known| family(known.peer.pid)).collect();
    let (series, rate) = while_confined(&pids, bench.cores.server, || all_rounds(bench, &stage, sizes, &known))?;
    stage.clear()?;
    known.iter().try_for_each(|known| check_used(&series, &known.peer))?;
    Ok(Report { name: NAME, series, promises: vec![], notes: notes(&known, rate) })
}

/// The constant actix-web once more, as one that is known by its URL only: so a quick run has a peer.
fn constant_by_url(stage: &Stage<'_>) -> Result<Option<Peer>> {
    let Some(((pid, address), _)) = stage.seat(Who::Actix, Connections::Kept) else { return Ok(None) };
    format!("actix-web by URL=http://{address}/abcdefg,{pid}").parse().map(Some)
}

/// As fast as they answer, and then all at the same rate, which is told too.
fn all_rounds(bench: &Bench<'_>, stage: &Stage<'_>, sizes: Sizes, known: &[Known]) -> Result<(Vec<Series>, u32)> {
    let both = |known: &Known| [known.peer.kept(&known.answer), known.peer.churn(&known.answer)];
    let mut fast: Vec<Contender> = contenders::fast(bench.run, stage, sizes);
    fast.extend(known.iter().flat_map(both));
    alternate(bench, Pace::Closed, &mut fast)?;
    let mut series = taken(fast);
    let rate = half_of_slowest(&series, known)?;
    println!("half of what the slowest managed is {rate} requests per second");
    let mut even = contenders::even(bench.run, stage, sizes);
    even.extend(known.iter().map(|known| known.peer.even(&known.answer)));
    alternate(bench, Pace::Open { per_second: rate }, &mut even)?;
    series.extend(taken(even));
    Ok((series, rate))
}

/// Half of the least that anybody managed over kept connections, requests per second.
fn half_of_slowest(series: &[Series], known: &[Known]) -> Result<u32> {
    let is_kept =
        |name: &str| ALL.iter().any(|who| who.kept() == name) || known.iter().any(|known| known.peer.name == name);
    let kept = series.iter().filter(|series| is_kept(&series.name));
    let rates = kept.filter_map(|series| series.spread("per_second")).map(|spread| spread.median);
    let half = rates.reduce(f64::min).context("nobody was measured")? / 2.0;
    ensure!(half >= 1.0, "half of what the slowest managed is {half} requests per second");
    Ok(half as u32)
}

/// Fails if `peer` used next to nothing for what it answered: then another process did.
fn check_used(series: &[Series], peer: &Peer) -> Result<()> {
    let found = series.iter().find(|series| series.name == peer.name).and_then(|series| series.spread("cpu_us"));
    let used = found.with_context(|| format!("{} was not measured", peer.name))?.median;
    ensure!(
        used >= LEAST_CPU_US,
        "process {} used {used:.2} µs for each redirect of {}: it is not the one that answers",
        peer.pid,
        peer.name
    );
    Ok(())
}

fn notes(known: &[Known], rate: u32) -> Vec<String> {
    let mut notes: Vec<String> = known
        .iter()
        .map(|Known { peer, answer }| {
            format!("{} is {}, which answered {} to {}", peer.name, peer.url, answer.status, answer.location)
        })
        .collect();
    notes.push(
        "everybody redirects one code. terse records the click of each redirect before its answer leaves, in roles \
         'redirect' and 'api'; in all roles it counts what it recorded too, and its CPU is that until everything was \
         counted"
            .into(),
    );
    notes.push(format!(
        "'half of peak' is an open loop: a latency runs from when a request was due, at {rate} requests a second for \
         everybody, which is half of what the slowest managed"
    ));
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(name: &str) -> Peer {
        format!("{name}=http://127.0.0.1:1/abc,{}", std::process::id()).parse().unwrap()
    }

    fn known(name: &str) -> Known {
        Known { peer: peer(name), answer: Moved { status: 301, location: "https://a.example/".into() } }
    }

    fn series(name: &str, reading: &'static str, value: f64) -> Series {
        let mut series = Series::new(name);
        series.add(vec![(reading, value)]);
        series
    }

    #[test]
    fn the_run_has_one_code_and_those_of_the_page_alone() {
        let options = Options { peers: vec![peer("a"), peer("b")], ..Options::default() };
        let run = options.run().unwrap();
        assert_eq!(Sizes::of(&run).some, 1);
        for who in ALL {
            assert!(run.wants(who.kept()) && run.wants(&who.churn()) && run.wants(&who.half()));
        }
        assert!(run.wants(COUNTING));
        for other in [super::super::redirect::UNKNOWN, super::super::redirect::STORE, "terse, 1 codes, zipf"] {
            assert!(!run.wants(other), "{other}");
        }
    }

    #[test]
    fn two_peers_of_one_name_and_parts_of_a_page_are_refused() {
        let twice = Options { peers: vec![peer("a"), peer("a")], ..Options::default() };
        assert_eq!(twice.run().unwrap_err().to_string(), "two peers are called a");
        let only = Options { run: Run { only: vec!["nginx".into()], ..Run::default() }, ..Options::default() };
        assert!(only.run().is_err());
    }

    #[test]
    fn the_same_rate_for_all_is_one_that_the_slowest_bears() {
        let kept = |name: &str, rate| series(name, "per_second", rate);
        let all = [kept(Who::Nginx.kept(), 90_000.0), kept("slow", 801.0), kept("slow, churn", 10.0)];
        assert_eq!(half_of_slowest(&all, &[known("slow")]).unwrap(), 400);
        assert_eq!(half_of_slowest(&all, &[]).unwrap(), 45_000);
        assert!(half_of_slowest(&[], &[]).is_err());
        assert!(half_of_slowest(&[kept("slow", 1.0)], &[known("slow")]).is_err(), "that is no rate");
    }

    #[test]
    fn a_process_that_did_nothing_is_not_the_peer() {
        assert!(check_used(&[series("x", "cpu_us", 5.0)], &peer("x")).is_ok());
        let error = check_used(&[series("x", "cpu_us", 0.01)], &peer("x")).unwrap_err().to_string();
        assert!(error.contains("used 0.01 µs") && error.ends_with("it is not the one that answers"), "{error}");
        assert!(check_used(&[], &peer("x")).is_err());
    }

    #[test]
    fn the_file_says_who_a_peer_is_and_what_it_answers() {
        let notes = notes(&[known("other")], 500);
        assert_eq!(notes[0], "other is http://127.0.0.1:1/abc, which answered 301 to https://a.example/");
        assert!(notes[2].contains("at 500 requests a second for everybody"));
    }
}
