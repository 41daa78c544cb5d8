//! Creates and look-ups a second, on every backend, with one shard and with
//! two, through the rings that the server puts around a store; and how much
//! CPU these rings add to the CQL driver. Without HTTP.
//!
//! `cargo xtask bench store` runs this and makes a report of it; by itself:
//! `cargo bench -p terse-store --bench store -- --rounds 3`. Prints one JSON
//! object per measurement. Contenders are measured in turn, round after
//! round, each round beginning with another one. Every answer is checked.
//!
//! All tasks share one thread, as the requests of one web worker do. Bounds: see [`Options`].
#![allow(missing_docs, clippy::print_stdout, clippy::print_stderr)]

mod backend;
mod driver;
mod links;
mod load;
mod options;
#[path = "../../tests/cql/system_clock.rs"]
mod system_clock;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use terse_core::Link;
use terse_store::Sharded;

use backend::{Backend, Surroundings};
use driver::Select;
use links::{Create, Links, Resolve};
use load::{Load, Operation, Outcome, drive};
use options::Options;

/// The allocator of the server.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Of the links that a measurement has created, how many are looked up afterwards, evenly picked.
const FOLLOWED: usize = 200;
/// Into how many pairs a round of the comparison with the driver is divided.
const PAIRS: u32 = 16;
/// Longest time for the links that are resolved to be made.
const FILL_LIMIT: Duration = Duration::from_secs(300);

/// One ring, and the links that are resolved through it.
struct Contender {
    name: String,
    ring: Arc<Sharded>,
    links: Arc<[Link]>,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench store: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let options = Options::parse(std::env::args().skip(1))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    runtime.block_on(async {
        let done = measure(&options).await;
        // Whatever became of it, nothing is left on a cluster that others use.
        let mut dropped = Ok(());
        for cluster in &options.clusters {
            dropped = dropped.and(backend::drop_keyspaces(cluster).await);
        }
        done.and(dropped)
    })
}

async fn measure(options: &Options) -> Result<(), String> {
    let directory = tempfile::tempdir_in(&options.folder).map_err(|error| error.to_string())?;
    let local = Options { folder: directory.path().to_owned(), ..options.clone() };
    let links = Links::new();
    let backends = backend::all(&local, &Surroundings::new()).await?;
    let mut contenders = Vec::new();
    for backend in &backends {
        contenders.extend(filled(options, backend, &links).await?);
    }
    let rounds = if options.rates { options.rounds as usize } else { 0 };
    for round in 0..rounds {
        for step in 0..contenders.len() {
            let contender = &contenders[(round + step) % contenders.len()];
            report(&format!("{}, creates", contender.name), &creates(options, contender, &links).await?);
            report(&format!("{}, resolves", contender.name), &resolves(options, contender).await?);
        }
    }
    let compared = if options.comparison { backends.as_slice() } else { &[] };
    for backend in compared {
        let name = format!("{}, 1 shard", backend.name);
        let ring = contenders.iter().find(|contender| contender.name == name);
        if let (Some(cluster), Some(ring)) = (&backend.cluster, ring) {
            let select = Arc::new(Select::prepare(cluster, Arc::clone(&ring.links)).await?);
            compare(options, ring, &select).await?;
        }
    }
    Ok(())
}

/// The rings over `backend`, with the links that will be resolved; a cluster is warm then.
async fn filled(options: &Options, backend: &Backend, links: &Links) -> Result<Vec<Contender>, String> {
    let mut contenders = Vec::new();
    for (shards, ring) in &backend.rings {
        let name = format!("{}, {shards} shard{}", backend.name, if *shards == 1 { "" } else { "s" });
        let existing = links.take(options.links);
        let fill = Arc::new(Create::new(ring, Arc::clone(&existing)));
        let load = Load { concurrency: options.concurrency, window: FILL_LIMIT, most: options.links };
        drive(load, &fill).await?;
        // What was refused for a moment is not refused one by one, unless the store is out of reach.
        fill.complete().await.map_err(|fault| format!("filling {name}: {fault:?}"))?;
        let contender = Contender { name, ring: Arc::clone(ring), links: existing };
        if backend.cluster.is_some() {
            let warm = Options { warm_up: options.first_warm_up, ..options.clone() };
            warm_up(&warm, &resolve_of(&contender)).await?;
        }
        contenders.push(contender);
    }
    Ok(contenders)
}

fn resolve_of(contender: &Contender) -> Arc<Resolve> {
    Arc::new(Resolve { ring: Arc::clone(&contender.ring), links: Arc::clone(&contender.links) })
}

async fn warm_up<O: Operation>(options: &Options, operation: &Arc<O>) -> Result<(), String> {
    let load = Load { concurrency: options.concurrency, window: options.warm_up, most: options.most_creates };
    drive(load, operation).await.map(drop)
}

async fn resolves(options: &Options, contender: &Contender) -> Result<Outcome, String> {
    window(options, &contender.name, &resolve_of(contender)).await
}

/// Measures creates, then follows some of what was created.
async fn creates(options: &Options, contender: &Contender, links: &Links) -> Result<Outcome, String> {
    warm_up(options, &Arc::new(Create::new(&contender.ring, links.take(options.most_creates)))).await?;
    let create = Arc::new(Create::new(&contender.ring, links.take(options.most_creates)));
    let load = Load { concurrency: options.concurrency, window: options.window, most: options.most_creates };
    let outcome = drive(load, &create).await?;
    outcome.check(options.max_refused_percent).map_err(|error| format!("{}, creates: {error}", contender.name))?;
    let created = create.created();
    let sample: Arc<[Link]> = created.iter().step_by(created.len().div_ceil(FOLLOWED)).cloned().collect();
    follow(options, contender, sample).await.map_err(|error| format!("{}, following: {error}", contender.name))?;
    Ok(outcome)
}

/// Resolves each of `links` once.
async fn follow(options: &Options, contender: &Contender, links: Arc<[Link]>) -> Result<(), String> {
    let load = Load { concurrency: options.concurrency, window: FILL_LIMIT, most: links.len() as u64 };
    drive(load, &Arc::new(Resolve { ring: Arc::clone(&contender.ring), links }))
        .await?
        .check(options.max_refused_percent)
}

async fn window<O: Operation>(options: &Options, name: &str, operation: &Arc<O>) -> Result<Outcome, String> {
    let outcome = loaded(options, operation).await?;
    outcome.check(options.max_refused_percent).map_err(|error| format!("{name}: {error}"))?;
    Ok(outcome)
}

/// The ring beside the driver that does the same select, in turns, each going
/// first in every other pair. A round is many short pairs, since in a window in
/// which a JVM collects garbage requests are late, and late ones are sent twice.
async fn compare(options: &Options, contender: &Contender, select: &Arc<Select>) -> Result<(), String> {
    let ring_name = format!("{}, beside the driver", contender.name);
    let resolve = resolve_of(contender);
    let options = Options { window: options.window / PAIRS, warm_up: options.warm_up / PAIRS, ..options.clone() };
    for _ in 0..options.rounds {
        let mut round: Option<(Outcome, Outcome)> = None;
        for pair in 0..PAIRS {
            let (ring, bare) = if pair % 2 == 0 {
                let ring = loaded(&options, &resolve).await?;
                (ring, loaded(&options, select).await?)
            } else {
                let bare = loaded(&options, select).await?;
                (loaded(&options, &resolve).await?, bare)
            };
            round = Some(match round {
                // A single replica's answers cost less, and refusals next to nothing: such a pair compares nothing.
                Some(round) if !(ring.is_clean() && bare.is_clean()) => round,
                Some((rings, bares)) if rings.is_clean() && bares.is_clean() => {
                    (rings.with(&ring)?, bares.with(&bare)?)
                }
                _ => (ring, bare),
            });
        }
        let Some((ring, bare)) = round else { return Err("a round without a pair".to_owned()) };
        let mut readings = ring.json();
        if ring.is_clean() && bare.is_clean() {
            readings["cpu_ratio_to_driver"] = json!(ring.cpu_us() / bare.cpu_us());
        }
        print(&ring_name, &readings);
        report(&format!("{}, the driver alone", contender.name), &bare);
    }
    Ok(())
}

/// What a window of load measures, whatever was refused; a wrong answer is an error.
async fn loaded<O: Operation>(options: &Options, operation: &Arc<O>) -> Result<Outcome, String> {
    warm_up(options, operation).await?;
    let load = Load { concurrency: options.concurrency, window: options.window, most: u64::MAX };
    drive(load, operation).await
}

fn report(series: &str, outcome: &Outcome) {
    print(series, &outcome.json());
}

fn print(series: &str, readings: &Value) {
    println!("{}", json!({"series": series, "readings": readings}));
}
