//! Creates, each durable when it is answered, on a fresh data directory each
//! round. What was created is followed afterwards, on a restarted server.

use anyhow::{Result, bail};

use super::generator::Pace;
use super::links::{Creates, Targets, assert_distinct, follow_all};
use super::report::{Promise, Report, Series};
use super::{Bench, CONNECTIONS};

/// How many of the created links are followed afterwards, evenly picked.
const FOLLOWED: usize = 2_000;

/// Measures creates.
///
/// # Errors
/// When a create isn't answered 201, two get one code, or a link isn't found afterwards.
pub fn measure(bench: &Bench<'_>) -> Result<Report> {
    let mut series = Series::new("terse, one by one");
    for round in 0..bench.run.rounds() {
        let data = bench.data("create")?;
        let server = bench.servers.terse(&bench.terse, &data)?;
        let mut creates = Creates::new(server.address);
        series.add(bench.measure((server.pid(), server.address), Pace::Closed, &mut creates)?);
        server.stop()?;
        assert_distinct(&creates.links)?;
        if creates.links.is_empty() {
            bail!("nothing was created");
        }
        let step = creates.links.len().div_ceil(FOLLOWED);
        let sample: Vec<_> = creates.links.iter().step_by(step).cloned().collect();
        let server = bench.servers.terse(&bench.terse, &data)?;
        follow_all(server.address, &Targets::of(&sample), CONNECTIONS)?;
        server.stop()?;
        let (round, rounds) = (round + 1, bench.run.rounds());
        println!("round {round} of {rounds}: {} created, {} followed", creates.links.len(), sample.len());
    }
    Ok(report(series))
}

fn report(series: Series) -> Report {
    let promise = Promise {
        what: "durable creates per second, 64 connections",
        limit: 10_000.0,
        at_least: true,
        measured: series.spread("per_second").map(|spread| spread.median),
    };
    Report { name: "create", series: vec![series], promises: vec![promise], notes: vec![] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_promise_is_the_median_rate() {
        let mut series = Series::new("x");
        for rate in [9_000.0, 12_000.0, 11_000.0] {
            series.add(vec![("per_second", rate)]);
        }
        assert_eq!(report(series).promises[0].measured, Some(11_000.0));
    }
}
