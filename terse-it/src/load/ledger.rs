//! What was asked, when, and what came of it.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use super::{KnownLink, Plan, percentile};
use crate::{Client, Connection, Request, Response, await_some};

/// How long a link may be unavailable when all is well again, before it counts as lost.
const SETTLED_LIMIT: Duration = Duration::from_secs(15);
/// At most one of this many requests may be refused by a machine that has too much to do.
pub const REFUSED_ONE_OF: usize = 100;
/// How many findings a failure tells.
const SHOWN: usize = 5;

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A redirect of a link made before.
    Redirect,
    /// A new link.
    Create,
    /// A redirect of a code that nobody has.
    Unknown,
}

impl Kind {
    /// In words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Redirect => "redirect",
            Self::Create => "create",
            Self::Unknown => "unknown code",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// 302 to the link's own target, or 404 for an unknown code.
    Good,
    /// 201 and this link.
    Made(KnownLink),
    /// 503 with `Retry-After`; its body.
    Refused(String),
    /// Any other answer: another target, another status, 503 without `Retry-After`.
    Wrong(String),
    /// The server closed or said nothing.
    NoAnswer(String),
}

impl Outcome {
    /// Whether the caller got what it asked for.
    #[must_use]
    pub fn is_good(&self) -> bool {
        matches!(self, Self::Good | Self::Made(_))
    }
}

/// One request.
#[derive(Clone, Debug)]
pub struct Record {
    /// When it was due, from the start of the load.
    pub at: Duration,
    /// What was asked for.
    pub kind: Kind,
    /// Who was asked.
    pub server: SocketAddr,
    /// The code that was asked for or made; empty when none was made.
    pub code: String,
    /// From when it was due until the answer was read.
    pub latency: Duration,
    /// What came of it.
    pub outcome: Outcome,
}

/// The requests of one kind within a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// How many were due.
    pub requests: usize,
    /// How many got what they asked for.
    pub good: usize,
    /// How many were refused with 503.
    pub refused: usize,
    /// Half of all answers came within this.
    pub p50: Duration,
    /// 99 of 100 answers came within this.
    pub p99: Duration,
    /// All answers came within this.
    pub max: Duration,
}

impl Window {
    /// The share that got what it asked for, in percent; 100 when nothing was asked.
    #[must_use]
    pub fn availability(&self) -> f64 {
        if self.requests == 0 { 100.0 } else { 100.0 * self.good as f64 / self.requests as f64 }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let Self { requests, refused, .. } = self;
        write!(
            f,
            "{requests:>6} requests, {:>7.3} % good, {refused:>5} refused, p50 {:>7.1} ms, p99 {:>7.1} ms, max {:>7.1} ms",
            self.availability(),
            ms(self.p50),
            ms(self.p99),
            ms(self.max),
        )
    }
}

/// All requests of a load, by the time they were due.
#[derive(Clone, Debug)]
pub struct Ledger {
    plan: Plan,
    /// The requests.
    pub records: Vec<Record>,
}

impl Ledger {
    pub(super) fn new(plan: Plan, records: Vec<Record>) -> Self {
        Self { plan, records }
    }

    /// The requests of `kind` that were due within `time`.
    pub fn within(&self, kind: Kind, time: &Range<Duration>) -> impl Iterator<Item = &Record> {
        self.records.iter().filter(move |record| record.kind == kind && time.contains(&record.at))
    }

    /// The same, summed up.
    #[must_use]
    pub fn window(&self, kind: Kind, time: &Range<Duration>) -> Window {
        self.window_if(kind, time, |_| true)
    }

    /// The same for those requests that `chosen` is true of.
    #[must_use]
    pub fn window_if(&self, kind: Kind, time: &Range<Duration>, chosen: impl Fn(&Record) -> bool) -> Window {
        let records: Vec<&Record> = self.within(kind, time).filter(|record| chosen(record)).collect();
        let mut latencies: Vec<Duration> = records.iter().map(|record| record.latency).collect();
        latencies.sort_unstable();
        Window {
            requests: records.len(),
            good: records.iter().filter(|record| record.outcome.is_good()).count(),
            refused: records.iter().filter(|record| matches!(record.outcome, Outcome::Refused(_))).count(),
            p50: percentile(&latencies, 50),
            p99: percentile(&latencies, 99),
            max: latencies.last().copied().unwrap_or_default(),
        }
    }

    /// From the start to after the last request.
    #[must_use]
    pub fn whole(&self) -> Range<Duration> {
        Duration::ZERO..Duration::MAX
    }

    /// The links that were acknowledged with 201.
    pub fn made(&self) -> impl Iterator<Item = &KnownLink> {
        self.records.iter().filter_map(|record| match &record.outcome {
            Outcome::Made(link) => Some(link),
            _ => None,
        })
    }

    /// Fails unless all requests of `kind` in `time` got what they asked for.
    #[track_caller]
    pub fn assert_all_good(&self, kind: Kind, time: &Range<Duration>) {
        let bad: Vec<&Record> = self.within(kind, time).filter(|record| !record.outcome.is_good()).collect();
        assert!(bad.is_empty(), "{} requests of kind '{kind}' failed, such as {:#?}", bad.len(), first(&bad));
        assert!(self.within(kind, time).next().is_some(), "nothing of kind '{kind}' was asked in {time:?}");
    }

    /// Fails unless all requests of `kind` in `time` got what they asked for, but for a few that were
    /// refused: one of [`REFUSED_ONE_OF`], or a single one where so many were not asked.
    #[track_caller]
    pub fn assert_hardly_refused(&self, kind: Kind, time: &Range<Duration>) {
        let failed = |record: &&Record| !record.outcome.is_good();
        let bad: Vec<&Record> = self.within(kind, time).filter(failed).collect();
        let asked = self.within(kind, time).count();
        let only_refused = bad.iter().all(|record| matches!(record.outcome, Outcome::Refused(_)));
        let most = (asked / REFUSED_ONE_OF).max(1);
        assert!(
            only_refused && bad.len() <= most,
            "{} of {asked} requests of kind '{kind}' failed, such as {:#?}",
            bad.len(),
            first(&bad)
        );
        assert!(asked > 0, "nothing of kind '{kind}' was asked in {time:?}");
    }

    /// Fails unless all requests of `kind` in `time` were refused: 503 with `Retry-After`.
    #[track_caller]
    pub fn assert_all_refused(&self, kind: Kind, time: &Range<Duration>) {
        let refused = |record: &&Record| matches!(record.outcome, Outcome::Refused(_));
        let bad: Vec<&Record> = self.within(kind, time).filter(|record| !refused(record)).collect();
        assert!(bad.is_empty(), "{} requests of kind '{kind}' were not refused, such as {:#?}", bad.len(), first(&bad));
        assert!(self.within(kind, time).next().is_some(), "nothing of kind '{kind}' was asked in {time:?}");
    }

    /// Fails unless every answer was true: the link's own target, a fresh code,
    /// 404 for a code that nobody has, or 503 with `Retry-After`; and none was missing.
    #[track_caller]
    pub fn assert_truthful(&self) {
        let false_answer = |record: &&Record| matches!(record.outcome, Outcome::Wrong(_) | Outcome::NoAnswer(_));
        let bad: Vec<&Record> = self.records.iter().filter(false_answer).collect();
        assert!(bad.is_empty(), "{} answers were wrong or missing, such as {:#?}", bad.len(), first(&bad));
        let mut owners: HashMap<&str, &str> = HashMap::new();
        for link in self.plan.links.iter().chain(self.made()) {
            let before = owners.insert(&link.code, &link.target);
            assert!(
                before.is_none_or(|before| before == link.target),
                "{} was given to {before:?} and to {}",
                link.code,
                link.target
            );
        }
    }

    /// Fails unless every known link and every link acknowledged with 201 redirects to its own target
    /// through every one of `servers`, now that all is well.
    #[track_caller]
    pub fn assert_nothing_lost(&self, servers: &[SocketAddr]) {
        for server in servers {
            let client = Client::new(*server);
            let mut connection = client.connect();
            for link in self.plan.links.iter().chain(self.made()) {
                let what = format!("{} of {} to answer", link.code, link.target);
                let answer = await_some(&what, SETTLED_LIMIT, || visit(&mut connection, link));
                assert_eq!(answer.status, 302, "{link:?} through {server}: {answer:?}");
                assert_eq!(answer.header("location"), Some(link.target.as_str()), "{link:?} through {server}");
            }
        }
    }

    /// How often each kind of bad outcome was seen, in words.
    #[must_use]
    pub fn faults(&self) -> BTreeMap<String, usize> {
        let mut faults = BTreeMap::new();
        for record in &self.records {
            let text = match &record.outcome {
                Outcome::Good | Outcome::Made(_) => continue,
                Outcome::Refused(_) => format!("{}: 503", record.kind),
                Outcome::Wrong(_) => format!("{}: wrong", record.kind),
                Outcome::NoAnswer(error) => format!("{}: {error}", record.kind),
            };
            *faults.entry(text).or_default() += 1;
        }
        faults
    }
}

/// The answer for a link, unless it is 503: that may still pass.
fn visit(connection: &mut Connection, link: &KnownLink) -> Option<Response> {
    let answer = connection.call(&Request::new("GET", &format!("/{}", link.code)));
    let answer = answer.unwrap_or_else(|error| panic!("no answer for {link:?}: {error}"));
    (answer.status != 503).then_some(answer)
}

fn first<'a>(records: &'a [&'a Record]) -> &'a [&'a Record] {
    &records[..records.len().min(SHOWN)]
}
