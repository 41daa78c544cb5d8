//! Redirects from memory: terse beside nginx answering a constant `return 302`
//! and beside the floor, all with the same request bytes.

use std::net::SocketAddr;

use anyhow::Result;

use super::Bench;
use super::draw::{Draw, Zipf};
use super::generator::Pace;
use super::links::{Pair, Redirects, fill, follow_all, target};
use super::report::{Promise, Report, Series};
use super::server::Server;
use crate::tools::{NGINX, Tools};

/// How many codes are followed when it is more than one.
const CODES: usize = 50_000;
/// How many of them in a quick run.
const QUICK_CODES: usize = 2_000;
/// How many draws are made ahead; they repeat after that.
const DRAWS: usize = 1 << 20;
/// Of Zipf's law: that of words, cities and popular links.
const EXPONENT: f64 = 1.0;
/// Where all draws begin.
const SEED: u64 = 0x7e45e;

const NGINX_NAME: &str = "nginx, return 302";
const ONE_CODE: &str = "terse, one code";

/// Who is measured: a server, and which links are followed on it.
struct Contender {
    series: Series,
    server: (u32, SocketAddr),
    links: Vec<Pair>,
    order: Vec<u32>,
}

/// Measures redirects.
///
/// # Errors
/// When a server fails or answers wrong.
pub fn measure(bench: &Bench<'_>) -> Result<Report> {
    let terse = bench.servers.terse(&bench.terse, &bench.data("redirect")?)?;
    let links = fill(terse.address, bench.run.links(CODES, QUICK_CODES))?;
    let constants = constants(bench)?;
    let mut contenders = contenders(bench, &constants, &terse, &links);
    // Whatever is asked for later is in memory already.
    follow_all(terse.address, &links, super::CONNECTIONS)?;
    for round in 0..bench.run.rounds() as usize {
        let count = contenders.len();
        let mut nginx_cpu = None;
        let mut rounds = Vec::new();
        for step in 0..count {
            // Each round begins with another one, so that none always follows the same.
            let at = (round + step) % count;
            let contender = &contenders[at];
            let mut workload = Redirects::repeated(&contender.links, contender.order.clone());
            let readings = bench.measure(contender.server, Pace::Closed, &mut workload)?;
            let cpu = readings.iter().find(|(name, _)| *name == "cpu_us").map(|(_, cpu)| *cpu);
            if contender.series.name == NGINX_NAME {
                nginx_cpu = cpu;
            }
            rounds.push((at, cpu, readings));
        }
        for (at, cpu, mut readings) in rounds {
            if let (Some(cpu), Some(nginx)) = (cpu, nginx_cpu) {
                readings.insert(2, ("cpu_ratio_to_nginx", cpu / nginx));
            }
            contenders[at].series.add(readings);
        }
        println!("round {} of {}", round + 1, bench.run.rounds());
    }
    for (_, server) in constants {
        server.stop()?;
    }
    terse.stop()?;
    Ok(report(contenders.into_iter().map(|contender| contender.series).collect()))
}

/// The servers that answer the same to everything.
fn constants(bench: &Bench<'_>) -> Result<Vec<(&'static str, Server)>> {
    let mut servers = vec![("floor, epoll and a constant", bench.servers.floor(&target(0))?)];
    match Tools::new(bench.supervisor).find(&NGINX)? {
        Some(program) => servers.push((NGINX_NAME, bench.servers.nginx(&program, &target(0))?)),
        None => println!("no nginx, no ratio"),
    }
    Ok(servers)
}

fn contenders(bench: &Bench<'_>, constants: &[(&str, Server)], terse: &Server, links: &[Pair]) -> Vec<Contender> {
    let one = &links[..1];
    let many = links.len();
    let mut draw = Draw::seeded(SEED);
    let zipf = Zipf::new(many, EXPONENT);
    // Rank and age of a link have nothing to do with each other.
    let ranked = draw.shuffled(many);
    let popular: Vec<u32> = (0..DRAWS).map(|_| ranked[zipf.draw(&mut draw)]).collect();
    let uniform: Vec<u32> = (0..DRAWS).map(|_| draw.below(many) as u32).collect();
    let on_terse = (terse.pid(), terse.address);
    let contender = |name: &str, server, links: &[Pair], order| Contender {
        series: Series::new(name),
        server,
        links: links.to_vec(),
        order,
    };
    let mut all: Vec<Contender> =
        constants.iter().map(|(name, server)| contender(name, (server.pid(), server.address), one, vec![0])).collect();
    all.push(contender(ONE_CODE, on_terse, one, vec![0]));
    all.push(contender(&format!("terse, {many} codes, zipf"), on_terse, links, popular));
    all.push(contender(&format!("terse, {many} codes, uniform"), on_terse, links, uniform));
    all.retain(|contender| bench.run.wants(&contender.series.name));
    all
}

fn report(series: Vec<Series>) -> Report {
    let one = series.iter().find(|series| series.name == ONE_CODE);
    let ratio = one.and_then(|series| series.spread("cpu_ratio_to_nginx")).map(|spread| spread.median);
    let promise = Promise {
        what: "redirect from memory, CPU per request, times nginx",
        limit: 1.3,
        at_least: false,
        measured: ratio,
    };
    Report { name: "redirect", series, promises: vec![promise], notes: vec![] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_promise_is_about_one_code_from_memory() {
        let mut one = Series::new(ONE_CODE);
        for ratio in [1.0, 1.2, 1.1] {
            one.add(vec![("cpu_ratio_to_nginx", ratio)]);
        }
        let mut other = Series::new("terse, 50000 codes, zipf");
        other.add(vec![("cpu_ratio_to_nginx", 9.0)]);
        assert_eq!(report(vec![other, one]).promises[0].measured, Some(1.1));
    }

    #[test]
    fn without_nginx_the_promise_is_not_measured() {
        let mut one = Series::new(ONE_CODE);
        one.add(vec![("cpu_us", 5.0)]);
        assert_eq!(report(vec![one]).promises[0].measured, None);
    }
}
