//! Where a redirect is best answered: in a handler behind actix-web's router,
//! in a service around the `App`, in a service without one, or beneath the HTTP server. One link in
//! memory, the real cache, the same answer in each place, over kept connections
//! on loopback. The servers' threads are on one core, the generator on another.
//!
//! Told is the CPU time of the server for an answer: the median of alternating
//! rounds with the least and the most, and the median of its ratios to the
//! service without `App` in the same round.
//!
//! Arguments: how many rounds, how many seconds of each (7 and 2 unless given;
//! what cargo itself passes is ignored).
#![allow(missing_docs, clippy::print_stdout, clippy::expect_used)]

mod generator;
mod places;
mod state;

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use self::generator::{CONNECTIONS, Measured};
use self::places::{PLACES, Place};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROUNDS: usize = 7;
const SECONDS: u64 = 2;
const WARM_UP: Duration = Duration::from_millis(300);

/// Lets this thread, and those that it starts from now on, run on `core` alone.
fn move_to(core: usize) -> Result<(), Box<dyn Error>> {
    let mut only = CpuSet::new();
    only.set(core);
    Ok(sched_setaffinity(None, &only)?)
}

/// The first two cores that this process may use: for the servers, and for the generator.
fn cores() -> Result<(usize, usize), Box<dyn Error>> {
    let allowed = sched_getaffinity(None)?;
    let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
    cores.next().zip(cores.next()).ok_or_else(|| "server and generator need a core each".into())
}

/// Starts a server for each place, all with one and the same link.
fn start() -> Result<Vec<(Place, SocketAddr)>, Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    PLACES
        .into_iter()
        .map(|place| {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            let address = listener.local_addr()?;
            place.serve(listener, runtime.block_on(state::state(address))?)?;
            Ok((place, address))
        })
        .collect()
}

/// Least, median and most.
fn spread(values: impl Iterator<Item = f64>) -> (f64, f64, f64) {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    (values[0], values[values.len() / 2], values[values.len() - 1])
}

fn tell(place: Place, measured: &[Measured], alone: &[Measured]) {
    let (least, median, most) = spread(measured.iter().map(|round| round.cpu_us));
    let ratios = measured.iter().zip(alone).map(|(round, alone)| round.cpu_us / alone.cpu_us);
    let (lower, ratio, upper) = spread(ratios);
    let (_, per_second, _) = spread(measured.iter().map(|round| round.per_second));
    let answers: u64 = measured.iter().map(|round| round.answers).sum();
    println!(
        "{:<30} {median:6.3} ({least:.3} to {most:.3})   {ratio:5.3} ({lower:.3} to {upper:.3})   {per_second:7.0}   \
         {answers}",
        place.name()
    );
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut numbers = std::env::args().skip(1).filter_map(|text| text.parse::<u64>().ok());
    let rounds = numbers.next().map_or(Ok(ROUNDS), usize::try_from)?.max(1);
    let span = Duration::from_secs(numbers.next().unwrap_or(SECONDS).max(1));
    let (for_servers, for_generator) = cores()?;
    move_to(for_servers)?;
    let servers = start()?;
    move_to(for_generator)?;
    let mut measured = vec![Vec::with_capacity(rounds); servers.len()];
    for round in 0..rounds {
        for turn in 0..servers.len() {
            // Each round begins with another one.
            let index = (round + turn) % servers.len();
            measured[index].push(generator::measure(servers[index].1, state::CODE, WARM_UP, span));
        }
    }
    println!("{rounds} rounds of {span:?}, {CONNECTIONS} connections");
    println!("servers on core {for_servers}, generator on core {for_generator}");
    println!("{:<30} CPU µs an answer          ratio to the first        a second   answers", "place");
    for (index, (place, _)) in servers.iter().enumerate() {
        tell(*place, &measured[index], &measured[0]);
    }
    Ok(())
}
