//! Clicks with a ledger per code: how many requests were sent, how many 302
//! answers came. What counts the clicks has to end between the two.
//!
//! The load keeps its pace while it is answered and makes nothing up after an
//! outage. Who is away is asked again; a request counts as sent from when its
//! connection stands. Beside the clicks there are some HEAD requests, which nobody may count.
//!
//! Bounds: [`ClickPlan::visitors`] requests under way; [`FAULTS_KEPT`] faults are kept in words.

mod ledger;
mod visitors;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Answer, Kind, KnownLink, Lasting, Timeline};
use crate::{Connection, Dice, Request, Response, await_true, joined};

pub use ledger::{ClickLedger, Tally};

use visitors::Visitor;

/// Most faults that are kept in words.
pub const FAULTS_KEPT: usize = 20;
/// How long a visitor rests before asking again for a connection that it did not get.
const CONNECT_AGAIN: Duration = Duration::from_millis(20);
/// One of this many requests is a HEAD.
const HEAD_ONE_OF: u64 = 50;
/// A connection that rested longer is not used again: the server may be closing it for that.
const IDLE_LIMIT: Duration = Duration::from_secs(5);
/// Longest rest without a look whether the load is over.
const REST: Duration = Duration::from_millis(100);

/// Who clicks on what, and how fast.
#[derive(Clone, Debug)]
pub struct ClickPlan {
    /// The server.
    pub server: SocketAddr,
    /// The links; the first is clicked on most (Zipf, exponent 1).
    pub links: Vec<KnownLink>,
    /// Clicks per second, all visitors together, while they are answered.
    pub per_second: u32,
    /// Visitors, each with a connection of its own.
    pub visitors: u32,
    /// Whether each click tells as much as is ever recorded of one.
    pub wordy: bool,
    /// What the visitors do is the same for the same seed.
    pub seed: u64,
}

struct Shared {
    plan: ClickPlan,
    /// For each link the sum of the weights up to it.
    weights: Vec<u64>,
    ended: AtomicBool,
    answered: AtomicU64,
    noted: Option<Timeline>,
}

/// Clicks that go on; dropped, they end.
pub struct ClickLoad {
    shared: Arc<Shared>,
    visitors: Vec<JoinHandle<ClickLedger>>,
    /// That they go on, in the timeline.
    running: Option<Lasting>,
}

impl ClickLoad {
    /// Starts it.
    #[must_use]
    pub fn start(plan: ClickPlan) -> Self {
        Self::start_with(plan, None)
    }

    /// The same, and what came of each click is noted in `timeline`.
    #[must_use]
    pub fn start_noted(plan: ClickPlan, timeline: &Timeline) -> Self {
        Self::start_with(plan, Some(timeline.clone()))
    }

    fn start_with(plan: ClickPlan, noted: Option<Timeline>) -> Self {
        assert!(!plan.links.is_empty() && plan.visitors > 0 && plan.per_second > 0, "a plan has somebody click");
        let weights = zipf(plan.links.len());
        let (ended, answered) = (AtomicBool::new(false), AtomicU64::new(0));
        let running = noted.as_ref().map(Timeline::load);
        let shared = Arc::new(Shared { plan, weights, ended, answered, noted });
        let spawn = |number: u32| {
            let shared = Arc::clone(&shared);
            let thread = std::thread::Builder::new().name(format!("visitor-{number}"));
            thread.spawn(move || visit_on(&shared, number)).unwrap_or_else(|error| panic!("no thread: {error}"))
        };
        let visitors = (0..shared.plan.visitors).map(spawn).collect();
        Self { shared, visitors, running }
    }

    /// 302 answers so far.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::SeqCst)
    }

    /// Waits for `more` 302 answers, at most `limit`.
    #[track_caller]
    pub fn await_more(&self, more: u64, limit: Duration) {
        let before = self.answered();
        await_true(&format!("{more} more clicks to be answered"), limit, || self.answered() >= before + more);
    }

    /// Ends it and waits for the last answers.
    #[must_use]
    pub fn stop(mut self) -> ClickLedger {
        self.shared.ended.store(true, Ordering::SeqCst);
        drop(self.running.take());
        let mut ledger = ClickLedger::of(&self.shared.plan.links);
        for visitor in std::mem::take(&mut self.visitors) {
            ledger.add(joined(visitor.join()));
        }
        ledger
    }
}

impl Drop for ClickLoad {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        for visitor in self.visitors.drain(..) {
            // Only a failing drill drops its load; its own failure is the one to tell.
            let _ = visitor.join();
        }
    }
}

/// The running sums of the weights 1, 1/2, 1/3, …, in millionths.
fn zipf(count: usize) -> Vec<u64> {
    let weights = (1..=count as u64).map(|rank| (1_000_000 / rank).max(1));
    weights.scan(0, |sum, weight| Some(std::mem::replace(sum, *sum + weight) + weight)).collect()
}

fn visit_on(shared: &Shared, number: u32) -> ClickLedger {
    let plan = &shared.plan;
    let mut dice = Dice::seeded((plan.seed ^ (u64::from(number) << 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let visitor = Visitor::numbered(number, plan.wordy);
    let pace = Duration::from_secs(u64::from(plan.visitors)) / plan.per_second;
    let mut ledger = ClickLedger::of(&plan.links);
    let mut connection: Option<(Connection, Instant)> = None;
    let mut due = Instant::now() + pace * number / plan.visitors;
    while rest_until(due, &shared.ended) {
        let usable = connection.take().filter(|(_, used)| used.elapsed() < IDLE_LIMIT);
        let Some(open) = usable.map(|(open, _)| open).or_else(|| Connection::open(plan.server).ok()) else {
            due = Instant::now() + CONNECT_AGAIN;
            continue;
        };
        due = Instant::now().max(due + pace);
        let draw = dice.below(shared.weights[shared.weights.len() - 1]);
        let link = shared.weights.partition_point(|sum| *sum <= draw);
        let is_head = dice.below(HEAD_ONE_OF) == 0;
        let request = visitor.request(if is_head { "HEAD" } else { "GET" }, &plan.links[link].code, &mut dice);
        connection = ask(open, &request, |asked, took, answer| {
            let refused = matches!(&answer, Ok(answer) if is_refused(answer));
            let clicked = !is_head && ledger.note(link, &plan.links[link], took, answer);
            shared.answered.fetch_add(u64::from(clicked), Ordering::SeqCst);
            if let Some(timeline) = shared.noted.as_ref().filter(|_| !is_head) {
                let told = if refused { Answer::Refused } else { Answer::Failed };
                timeline.note(Kind::Redirect.name(), asked, took, if clicked { Answer::Answered } else { told });
            }
        });
    }
    ledger
}

/// Sends the request and has the answer noted; returns the connection if it can be used again.
fn ask(
    mut open: Connection,
    request: &Request,
    note: impl FnOnce(Instant, Duration, std::io::Result<&Response>),
) -> Option<(Connection, Instant)> {
    let asked = Instant::now();
    match open.call(request) {
        Ok(answer) => {
            note(asked, asked.elapsed(), Ok(&answer));
            let closes = answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
            (!closes).then(|| (open, Instant::now()))
        }
        Err(error) => {
            note(asked, asked.elapsed(), Err(error));
            None
        }
    }
}

/// 503, and when to come back.
fn is_refused(answer: &Response) -> bool {
    answer.status == 503 && answer.header("retry-after").is_some()
}

/// Rests until `due`; `false` when it is over.
fn rest_until(due: Instant, ended: &AtomicBool) -> bool {
    loop {
        if ended.load(Ordering::SeqCst) {
            return false;
        }
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        std::thread::sleep(left.min(REST));
    }
}

#[cfg(test)]
mod tests;
