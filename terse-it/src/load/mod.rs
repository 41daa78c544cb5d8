//! Steady load with a ledger: redirects of known links, of unknown codes, and
//! creates, at a fixed rate that does not slow down when answers do (open loop).
//! A latency counts from when its request was due, so a stall shows in full.
//!
//! Bounds: [`WORKERS`] requests under way, each for at most
//! [`ANSWER_LIMIT`](crate::ANSWER_LIMIT); beyond that requests begin late, and the lateness counts.

pub mod clicks;
mod ledger;
mod report;
mod timeline;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::{API_LINKS, Client, Connection, Request, Response, code_of, joined};

pub use ledger::{Kind, Ledger, Outcome, REFUSED_ONE_OF, Record, Window};
pub use report::{Report, percentile};
pub use timeline::{Answer, Bucket, Lasting, Marked, Picture, Timeline};

/// Requests under way at most.
pub const WORKERS: usize = 48;
/// A connection that rested longer is not used again: the server may be closing it for that.
const IDLE_LIMIT: Duration = Duration::from_secs(5);
/// Links per request while known links are made.
const SEED_BATCH: usize = 50;
/// How often a link that was refused for overload is asked for again while known links are made.
const SEED_TRIES: usize = 20;

/// A link whose creation was acknowledged: where its code has to lead for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownLink {
    /// The code.
    pub code: String,
    /// The target.
    pub target: String,
}

/// Makes `count` links whose targets start with `https://example.com/NAME/`.
#[must_use]
#[track_caller]
pub fn seed(client: &Client, name: &str, count: usize) -> Vec<KnownLink> {
    let mut links = Vec::with_capacity(count);
    let mut wanted: Vec<String> = (0..count).rev().map(|n| format!("https://example.com/{name}/{n}")).collect();
    let mut tries = 0;
    while !wanted.is_empty() {
        let batch = wanted.split_off(wanted.len().saturating_sub(SEED_BATCH));
        let items: Vec<_> = batch.iter().map(|target| json!({ "url": target })).collect();
        let answer = client.post(&format!("{API_LINKS}/batch"), &json!({ "items": items })).expect(200).json();
        for (target, item) in batch.into_iter().zip(answer["items"].as_array().into_iter().flatten()) {
            if item["status"] == 201 {
                links.push(KnownLink { code: code_of(&item["link"]), target });
            } else {
                tries += 1;
                assert!(item["status"] == 503 && tries <= SEED_TRIES * count, "{target}: {item}");
                wanted.push(target);
            }
        }
    }
    links
}

/// What is to be asked, how often, of whom.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The servers, asked in turn.
    pub servers: Vec<SocketAddr>,
    /// Links made before, visited in turn.
    pub links: Vec<KnownLink>,
    /// Redirects of those per second.
    pub redirects: u32,
    /// Links to be made per second.
    pub creates: u32,
    /// Redirects of unknown codes per second.
    pub unknown: u32,
}

impl Plan {
    fn per_second(&self) -> u64 {
        u64::from(self.redirects + self.creates + self.unknown)
    }

    /// What request `number` is; the kinds are spread evenly over each second.
    fn kind(&self, number: u64) -> Kind {
        // Coprime to any rate used here, so each second has all kinds at their rates.
        const STRIDE: u64 = 7_919;
        let place = number.wrapping_mul(STRIDE) % self.per_second();
        let (redirects, creates) = (u64::from(self.redirects), u64::from(self.creates));
        match place {
            _ if place < redirects => Kind::Redirect,
            _ if place < redirects + creates => Kind::Create,
            _ => Kind::Unknown,
        }
    }

    fn due(&self, number: u64) -> Duration {
        Duration::from_nanos(number * 1_000_000_000 / self.per_second())
    }
}

/// What requests of a kind are called in a timeline, those for this code.
pub type LaneOf = fn(Kind, &str) -> &'static str;

struct Shared {
    plan: Plan,
    began: Instant,
    next: AtomicU64,
    ended: AtomicBool,
    noted: Option<(Timeline, LaneOf)>,
}

/// Load that is running; dropped, it ends.
pub struct Load {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<Vec<Record>>>,
    /// That it runs, in the timeline.
    running: Option<Lasting>,
}

impl Load {
    /// Starts it.
    #[must_use]
    pub fn start(plan: Plan) -> Self {
        Self::start_with(plan, None)
    }

    /// The same, and each answer is noted in `timeline`.
    #[must_use]
    pub fn start_noted(plan: Plan, timeline: &Timeline, lane: LaneOf) -> Self {
        Self::start_with(plan, Some((timeline.clone(), lane)))
    }

    fn start_with(plan: Plan, noted: Option<(Timeline, LaneOf)>) -> Self {
        assert!(plan.per_second() > 0 && !plan.servers.is_empty(), "a plan asks somebody for something");
        assert!(plan.redirects == 0 || !plan.links.is_empty(), "redirects need links");
        let (next, ended) = (AtomicU64::new(0), AtomicBool::new(false));
        let running = noted.as_ref().map(|(timeline, _)| timeline.load());
        let shared = Arc::new(Shared { plan, began: Instant::now(), next, ended, noted });
        let spawn = |n: usize| {
            let shared = Arc::clone(&shared);
            let thread = std::thread::Builder::new().name(format!("load-{n}"));
            thread.spawn(move || work(&shared)).unwrap_or_else(|error| panic!("no thread: {error}"))
        };
        let workers = (0..WORKERS).map(spawn).collect();
        Self { shared, workers, running }
    }

    /// How long it has been running: what windows of the ledger are told in.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.shared.began.elapsed()
    }

    /// Lets it run for that long, and returns the window.
    pub fn run_for(&self, time: Duration) -> std::ops::Range<Duration> {
        let from = self.elapsed();
        std::thread::sleep(time);
        from..self.elapsed()
    }

    /// Ends it and waits for the last answers.
    #[must_use]
    pub fn stop(mut self) -> Ledger {
        self.shared.ended.store(true, Ordering::SeqCst);
        drop(self.running.take());
        let parts = std::mem::take(&mut self.workers).into_iter().map(|worker| joined(worker.join()));
        let mut records: Vec<Record> = parts.flatten().collect();
        records.sort_by_key(|record| record.at);
        Ledger::new(self.shared.plan.clone(), records)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            // Only a failing drill drops its load; its own failure is the one to tell.
            let _ = worker.join();
        }
    }
}

fn work(shared: &Shared) -> Vec<Record> {
    let mut records = Vec::new();
    let mut connections = HashMap::new();
    loop {
        let number = shared.next.fetch_add(1, Ordering::SeqCst);
        let due = shared.plan.due(number);
        while !shared.ended.load(Ordering::SeqCst) && shared.began.elapsed() < due {
            std::thread::sleep(due.saturating_sub(shared.began.elapsed()).min(Duration::from_millis(100)));
        }
        if shared.ended.load(Ordering::SeqCst) {
            return records;
        }
        let servers = &shared.plan.servers;
        let server = servers[usize::try_from(number).unwrap_or_default() % servers.len()];
        let asked = Asked::of(&shared.plan, number);
        let answer = call(&mut connections, server, &asked.request);
        let latency = shared.began.elapsed().saturating_sub(due);
        let record = asked.record(due, server, latency, answer);
        if let Some((timeline, lane)) = &shared.noted {
            timeline.note(lane(record.kind, &record.code), shared.began + due, latency, (&record.outcome).into());
        }
        records.push(record);
    }
}

fn call(
    connections: &mut HashMap<SocketAddr, (Connection, Instant)>,
    server: SocketAddr,
    request: &Request,
) -> std::io::Result<Response> {
    let mut connection = match connections.remove(&server) {
        Some((connection, used)) if used.elapsed() < IDLE_LIMIT => connection,
        _ => Connection::open(server)?,
    };
    let answer = connection.call(request)?;
    if answer.header("connection").is_none_or(|value| !value.eq_ignore_ascii_case("close")) {
        connections.insert(server, (connection, Instant::now()));
    }
    Ok(answer)
}

/// One request, and what a true answer to it is.
struct Asked {
    kind: Kind,
    request: Request,
    link: KnownLink,
}

impl Asked {
    fn of(plan: &Plan, number: u64) -> Self {
        let kind = plan.kind(number);
        let index = usize::try_from(number).unwrap_or_default();
        let (request, link) = match kind {
            Kind::Redirect => {
                let link = plan.links[index % plan.links.len()].clone();
                (Request::new("GET", &format!("/{}", link.code)), link)
            }
            Kind::Create => {
                let target = format!("https://example.com/made/{number}");
                let request = Request::new("POST", API_LINKS).json(&json!({ "url": target }));
                (request, KnownLink { code: String::new(), target })
            }
            Kind::Unknown => {
                // Two letters in front that spread over the shards.
                const LETTERS: &[u8; 16] = b"05AEJPUZafkpuz_-";
                let letter = |at: usize| char::from(LETTERS[at % LETTERS.len()]);
                let code = format!("{}{}unknown-{number}", letter(index), letter(index / 7));
                (Request::new("GET", &format!("/{code}")), KnownLink { code, target: String::new() })
            }
        };
        Self { kind, request, link }
    }

    fn record(self, at: Duration, server: SocketAddr, latency: Duration, answer: std::io::Result<Response>) -> Record {
        let outcome = self.judge(answer);
        let code = match &outcome {
            Outcome::Made(link) => link.code.clone(),
            _ => self.link.code,
        };
        Record { at, kind: self.kind, server, code, latency, outcome }
    }

    fn judge(&self, answer: std::io::Result<Response>) -> Outcome {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return Outcome::NoAnswer(error.to_string()),
        };
        let leads = || answer.header("location").unwrap_or_default() == self.link.target;
        match (self.kind, answer.status) {
            (Kind::Redirect, 302) if leads() => Outcome::Good,
            (Kind::Create, 201) => {
                let made = answer.json();
                let link = KnownLink { code: code_of(&made), target: self.link.target.clone() };
                if made["url"] == link.target { Outcome::Made(link) } else { Outcome::Wrong(made.to_string()) }
            }
            (Kind::Unknown, 404) => Outcome::Good,
            (_, 503) if answer.header("retry-after").is_some_and(|wait| wait.parse::<u32>().is_ok_and(|s| s > 0)) => {
                Outcome::Refused(answer.text())
            }
            _ => Outcome::Wrong(format!("{} for {}: {answer:?}", answer.status, self.link.code)),
        }
    }
}

#[cfg(test)]
mod tests;
