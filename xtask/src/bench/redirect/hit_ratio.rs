//! How many redirects a cache finds that holds a tenth of the links, when the
//! links are as popular as Zipf's law says. Beside it what the ideal cache of
//! that size finds, and on the very same draws one that forgets what was used
//! least recently.
//!
//! Counted by requests, not by time: a warm-up that is long enough for the
//! cache to have seen what is popular, then as many for each round. No draw repeats,
//! but where the store refuses for a moment: then in the warm-up, and throughout a
//! quick run, what it refused is asked again. In a full round a refusal is an error.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};

use super::super::draw::{Draw, Zipf};
use super::super::generator::drive;
use super::super::ideal::Lru;
use super::super::links::{Redirects, Targets, follow_in_order, unhurried};
use super::super::pin::on_core;
use super::super::recorded::{self, Recorded};
use super::super::report::{Reading, Series};
use super::super::tiers::Tiers;
use super::super::usage::resident;
use super::super::{Bench, CONNECTIONS, Run};
use super::contenders::servers::cache_of;
use super::{CACHED_OF, EXPONENT, HIT_RATIO, SEED};

/// Draws before the first round, times the links.
const WARM_UP_TIMES: usize = 4;
/// The same in a quick run.
const QUICK_WARM_UP_TIMES: usize = 1;
/// Draws of a round: the links, divided by this.
const ROUND_OF: usize = 2;

/// Popular links in a fixed disorder, drawn one after the other.
struct Popular {
    draw: Draw,
    zipf: Zipf,
    ranked: Vec<u32>,
}

impl Popular {
    fn of(count: usize) -> Self {
        let mut draw = Draw::seeded(SEED);
        let ranked = draw.shuffled(count);
        Self { draw, zipf: Zipf::new(count, EXPONENT), ranked }
    }

    fn take(&mut self, count: usize) -> Arc<[u32]> {
        (0..count).map(|_| self.ranked[self.zipf.draw(&mut self.draw)]).collect()
    }
}

/// Starts terse on `data` with a cache for a part of `links`, and reads who answers.
///
/// # Errors
/// When the server fails or answers wrong.
pub fn measure(bench: &Bench<'_>, data: &Path, links: &Targets) -> Result<Series> {
    let cached = (links.len() / CACHED_OF).max(1);
    let mut popular = Popular::of(links.len());
    let ideal = popular.zipf.share_of(cached) * 100.0;
    let mut simulated = Lru::new(cached)?;
    let (warm_up, round) = (links.len() * warm_up_times(bench.run), (links.len() / ROUND_OF).max(1));
    let mut settings = cache_of(cached);
    settings.push(recorded::journal_for(0.0, warm_up + round * bench.run.rounds() as usize));
    let server = bench.servers.terse_set(&bench.terse, data, recorded::RECORDS, &settings)?;
    let followed_before = links.followed();
    let follow = |order: Arc<[u32]>, patiently: bool| -> Result<Tiers> {
        let before = Tiers::read(server.address)?;
        on_core(bench.cores.generator, || match patiently {
            true => follow_in_order(server.address, links, order, CONNECTIONS),
            false => follow_strictly(server.address, links, order),
        })?;
        Ok(Tiers::read(server.address)?.since(&before))
    };
    let warm_up = popular.take(warm_up);
    simulated.hit_percent(&warm_up);
    follow(warm_up, true)?;
    let mut series = Series::new(HIT_RATIO);
    for number in 1..=bench.run.rounds() {
        let order = popular.take(round);
        let simulated = simulated.hit_percent(&order);
        let mut readings = compared(&follow(order, bench.run.quick)?, ideal, simulated);
        readings.push(("resident_mb", resident(server.pid())? as f64 / 1e6));
        series.add(readings);
        println!("hit ratio: round {number} of {}", bench.run.rounds());
    }
    let clicks = Recorded::read(server.address)?.check(links.followed() - followed_before, 0);
    clicks.context(HIT_RATIO)?;
    server.stop()?;
    Ok(series)
}

fn warm_up_times(run: &Run) -> usize {
    if run.quick { QUICK_WARM_UP_TIMES } else { WARM_UP_TIMES }
}

/// Follows `links` in `order` once; a refusal is an error.
fn follow_strictly(address: SocketAddr, links: &Targets, order: Arc<[u32]>) -> Result<()> {
    let expected = order.len() as u64;
    let mut redirects = Redirects::through(links, order);
    let outcome = drive(address, &unhurried(CONNECTIONS), &mut redirects, &mut || Ok(()))?;
    ensure!(outcome.answers == expected, "{} of {expected} redirects in time", outcome.answers);
    Ok(())
}

/// The hit ratio among `tiers`, beside the ideal one and the simulated one, in percent.
fn compared(tiers: &Tiers, ideal: f64, simulated: f64) -> Vec<Reading> {
    let [hits, ..] = tiers.percents();
    vec![hits, ("ideal_percent", ideal), ("lru_percent", simulated), ("points_below_ideal", ideal - hits.1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hit_is_what_the_cache_in_process_answers_and_the_distance_is_in_points() {
        let tiers = Tiers { l1: 80.0, l2: 10.0, store: 10.0, stale: 0.0 };
        let readings = compared(&tiers, 84.0, 77.0);
        let expected =
            [("l1_percent", 80.0), ("ideal_percent", 84.0), ("lru_percent", 77.0), ("points_below_ideal", 4.0)];
        assert_eq!(readings, expected);
    }

    #[test]
    fn draws_go_on_and_never_begin_again() {
        let mut popular = Popular::of(1_000);
        let parts = [popular.take(500), popular.take(500)].concat();
        assert_eq!(parts[..], Popular::of(1_000).take(1_000)[..]);
        assert_ne!(parts[..500], parts[500..]);
    }

    #[test]
    fn what_is_popular_is_found_and_a_cache_that_knows_it_finds_the_ideal_share() {
        let mut popular = Popular::of(1_000);
        let order = popular.take(200_000);
        let mut best = vec![false; 1_000];
        popular.ranked[..100].iter().for_each(|index| best[*index as usize] = true);
        let hits = order.iter().filter(|index| best[**index as usize]).count() as f64 / order.len() as f64;
        assert!((hits - popular.zipf.share_of(100)).abs() < 0.005, "{hits}");
    }
}
