//! Links that are changed once each while two servers are asked for them all
//! the time: what each server has shown, when, and whether it ever went back.
//!
//! A request sent to a server after an answer of that server was new (for the
//! server that took the change: after the change was acknowledged) has to be
//! answered new. Times are taken before sending and after reading, so no
//! verdict depends on how long either took.
//!
//! Bounds: the threads of the plan, one request each; [`FAULTS_KEPT`] faults are kept in words.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::load::{KnownLink, REFUSED_ONE_OF, percentile};
use crate::{Client, Connection, Request, Response, joined};

/// How long a change may take to show at all; the promise is asserted apart.
pub(super) const SHOWN_AT_ALL: Duration = Duration::from_secs(60);
/// How often a server is asked whether it shows a change yet.
const ASK_AGAIN: Duration = Duration::from_millis(5);
/// How long a change is tried again that was refused, as by an overloaded store.
const CHANGE_LIMIT: Duration = Duration::from_secs(60);
/// How soon.
const CHANGE_AGAIN: Duration = Duration::from_millis(200);
const FAULTS_KEPT: usize = 20;
/// Not seen yet.
const NEVER: u64 = u64::MAX;

/// What is done to a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Edit,
    Disable,
    Delete,
}

/// A link that is changed once.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) link: KnownLink,
    pub(super) change: Change,
    /// By server: from when on it has to show the change, in ns of the watch.
    seen: [AtomicU64; 2],
}

/// What an answer shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    Old,
    New,
    /// Neither, and that is said: 503 with `Retry-After`. A server that knows of a change and reaches
    /// no quorum must not show what it has.
    Refused,
    /// None of these: a failed redirect.
    Fault(String),
}

impl Subject {
    /// The link and its change; the kinds take turns.
    pub(super) fn numbered(number: usize, link: KnownLink) -> Self {
        let change = [Change::Edit, Change::Disable, Change::Delete][number % 3];
        Self { link, change, seen: [AtomicU64::new(NEVER), AtomicU64::new(NEVER)] }
    }

    /// Where it leads after an edit.
    pub(super) fn new_target(&self) -> String {
        format!("{}/new", self.link.target)
    }

    fn request(&self) -> Request {
        Request::new("GET", &format!("/{}", self.link.code))
    }

    /// What this answer shows.
    pub(super) fn judge(&self, answer: &Response) -> Shown {
        match (answer.status, answer.header("location"), self.change) {
            (302, Some(target), _) if target == self.link.target => Shown::Old,
            (302, Some(target), Change::Edit) if target == self.new_target() => Shown::New,
            (410, None, Change::Disable | Change::Delete) => Shown::New,
            (503, None, _) if super::is_refused(answer) => Shown::Refused,
            _ => Shown::Fault(format!("{} for {:?}: {answer:?}", answer.status, self.link)),
        }
    }

    /// Changes it through `client`. A change that was refused may have happened, so it is tried again.
    fn change(&self, client: &Client) -> usize {
        let (began, mut tries) = (Instant::now(), 0);
        while began.elapsed() < CHANGE_LIMIT {
            tries += 1;
            let answer = match self.change {
                Change::Edit => client.patch(&self.link.code, &json!({ "url": self.new_target() })),
                Change::Disable => client.patch(&self.link.code, &json!({ "state": "disabled" })),
                Change::Delete => client.delete(&self.link.code),
            };
            match (answer.status, self.change) {
                (200, Change::Edit | Change::Disable) | (204, Change::Delete) => return tries,
                (404, Change::Delete) if tries > 1 => return tries,
                (503, _) => std::thread::sleep(CHANGE_AGAIN),
                _ => panic!("{:?} of {:?} was answered {answer:?}", self.change, self.link),
            }
        }
        panic!("{:?} of {:?} was refused {tries} times", self.change, self.link)
    }
}

/// What the watching threads saw.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Answers, of all kinds.
    pub(super) visits: usize,
    /// Of these refused, with `Retry-After`.
    pub(super) refused: usize,
    /// Answers that were older than one that the server had given before, in words.
    pub(super) older: Vec<String>,
    /// Answers that were no redirect where there had to be one, in words.
    pub(super) faults: Vec<String>,
    counts: [usize; 2],
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.visits += other.visits;
        self.refused += other.refused;
        (0..2).for_each(|kind| self.counts[kind] += other.counts[kind]);
        let room = |kept: &Vec<String>| FAULTS_KEPT.saturating_sub(kept.len());
        self.older.extend(other.older.into_iter().take(room(&self.older)));
        self.faults.extend(other.faults.into_iter().take(room(&self.faults)));
    }

    fn note(&mut self, older: bool, text: String) {
        self.counts[usize::from(older)] += 1;
        let kept = if older { &mut self.older } else { &mut self.faults };
        if kept.len() < FAULTS_KEPT {
            kept.push(text);
        }
    }

    /// Fails unless hardly a visit was refused: an overloaded store may refuse some.
    #[track_caller]
    pub(super) fn assert_hardly_refused(&self) {
        let Self { refused, visits, .. } = self;
        assert!(refused * REFUSED_ONE_OF <= *visits, "{refused} of {visits} visits were refused");
    }

    /// Fails unless every visit was answered, and none with what was older than the server had shown.
    #[track_caller]
    pub(super) fn assert_never_back(&self) {
        let [faults, older] = self.counts;
        assert!(older == 0, "{older} of {} answers went back, such as {:#?}", self.visits, self.older);
        assert!(faults == 0, "{faults} of {} visits failed, such as {:#?}", self.visits, self.faults);
        assert!(self.visits > 0, "nobody was asked");
    }
}

struct Shared {
    began: Instant,
    servers: [SocketAddr; 2],
    subjects: Vec<Subject>,
    rest: Duration,
    ended: AtomicBool,
}

impl Shared {
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(NEVER)
    }

    /// Asks a server for a link, and notes what came of it; `None` when the wire broke, which is noted too.
    fn visit(&self, subject: &Subject, server: usize, wire: &mut Connection, tally: &mut Tally) -> Option<Shown> {
        let must_be_new = subject.seen[server].load(Ordering::SeqCst) != NEVER;
        let sent = self.now();
        tally.visits += 1;
        let answer = match wire.call(&subject.request()) {
            Ok(answer) => answer,
            Err(error) => {
                tally.note(false, format!("no answer of server {server} for {:?}: {error}", subject.link));
                return None;
            }
        };
        let shown = subject.judge(&answer);
        match &shown {
            Shown::New => {
                subject.seen[server].fetch_min(self.now(), Ordering::SeqCst);
            }
            Shown::Old if must_be_new => {
                let since = Duration::from_nanos(sent.saturating_sub(subject.seen[server].load(Ordering::SeqCst)));
                let what =
                    format!("server {server}, {since:?} after it was new: {:?} of {:?}", subject.change, subject.link);
                tally.note(true, what);
            }
            Shown::Old => {}
            Shown::Refused => tally.refused += 1,
            Shown::Fault(text) => tally.note(false, format!("server {server}: {text}")),
        }
        Some(shown)
    }
}

/// Two servers, watched all the time; the first one takes the changes. Dropped, it ends.
pub(super) struct Watch {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Tally>>,
}

/// How a change went.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    pub(super) change: Change,
    /// From the first server's answer to the second one's first new answer.
    pub(super) shown: Duration,
    pub(super) tries: usize,
}

impl Watch {
    /// Watches `subjects` on both servers by `threads` for each, which rest between their visits.
    pub(super) fn start(servers: [SocketAddr; 2], subjects: Vec<Subject>, threads: usize, rest: Duration) -> Self {
        let (began, ended) = (Instant::now(), AtomicBool::new(false));
        let shared = Arc::new(Shared { began, servers, subjects, rest, ended });
        let spawn = |number: usize| {
            let shared = Arc::clone(&shared);
            let thread = std::thread::Builder::new().name(format!("watch-{number}"));
            let spawned =
                thread.spawn(move || watch(&shared, number % 2, number / 2 * shared.subjects.len() / threads));
            spawned.unwrap_or_else(|error| panic!("no thread: {error}"))
        };
        let threads = (0..2 * threads).map(spawn).collect();
        Self { shared, threads }
    }

    pub(super) fn subjects(&self) -> &[Subject] {
        &self.shared.subjects
    }

    /// Changes the chosen subjects through the first server by `writers` at a
    /// time, and waits for each until the second shows it.
    #[track_caller]
    pub(super) fn change(&self, chosen: &[&Subject], writers: usize) -> Vec<Taken> {
        std::thread::scope(|scope| {
            let part = chosen.len().div_ceil(writers).max(1);
            let threads: Vec<_> = chosen.chunks(part).map(|part| scope.spawn(|| self.change_each(part))).collect();
            let taken = threads.into_iter().map(|thread| joined(thread.join()));
            taken.flatten().collect()
        })
    }

    fn change_each(&self, subjects: &[&Subject]) -> Vec<Taken> {
        let writer = Client::new(self.shared.servers[0]);
        let mut tally = Tally::default();
        let mut taken = Vec::with_capacity(subjects.len());
        let other = Client::new(self.shared.servers[1]);
        for subject in subjects {
            let tries = subject.change(&writer);
            let acknowledged = self.shared.now();
            subject.seen[0].fetch_min(acknowledged, Ordering::SeqCst);
            // Not before: a change may take longer than the server keeps a connection that says nothing.
            let (began, mut wire) = (Instant::now(), other.connect());
            loop {
                match self.shared.visit(subject, 1, &mut wire, &mut tally) {
                    Some(Shown::New) => break,
                    Some(_) => {}
                    None => wire = other.connect(),
                }
                assert!(began.elapsed() < SHOWN_AT_ALL, "{subject:?} is not shown after {SHOWN_AT_ALL:?}: {tally:?}");
                std::thread::sleep(ASK_AGAIN);
            }
            let seen = subject.seen[1].load(Ordering::SeqCst);
            let shown = Duration::from_nanos(seen.saturating_sub(acknowledged));
            taken.push(Taken { change: subject.change, shown, tries });
        }
        tally.assert_never_back();
        taken
    }

    /// Ends it.
    pub(super) fn stop(mut self) -> Tally {
        self.shared.ended.store(true, Ordering::SeqCst);
        let mut tally = Tally::default();
        for thread in std::mem::take(&mut self.threads) {
            tally.add(joined(thread.join()));
        }
        tally
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            // Only a failing drill drops its watch; its own failure is the one to tell.
            let _ = thread.join();
        }
    }
}

fn watch(shared: &Shared, server: usize, from: usize) -> Tally {
    let mut tally = Tally::default();
    let client = Client::new(shared.servers[server]);
    let mut wire = client.connect();
    for number in from.. {
        if shared.ended.load(Ordering::SeqCst) {
            break;
        }
        let subject = &shared.subjects[number % shared.subjects.len()];
        if shared.visit(subject, server, &mut wire, &mut tally).is_none() {
            wire = client.connect();
        }
        std::thread::sleep(shared.rest);
    }
    tally
}

/// p50, p99 and the longest of what changes took to show.
pub(super) fn shown(taken: &[Taken]) -> [Duration; 3] {
    let mut times: Vec<Duration> = taken.iter().map(|taken| taken.shown).collect();
    times.sort_unstable();
    [percentile(&times, 50), percentile(&times, 99), times.last().copied().unwrap_or_default()]
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn link() -> KnownLink {
        KnownLink { code: "c".into(), target: "https://example.com/c".into() }
    }

    fn answer(status: u16, location: Option<&str>) -> Response {
        let headers = location.map(|to| ("Location".to_owned(), to.to_owned())).into_iter().collect();
        Response { status, headers, body: Vec::new() }
    }

    #[test]
    fn an_answer_is_old_new_or_a_fault() {
        let [edit, disable, delete] = [0, 1, 2].map(|number| Subject::numbered(number, link()));
        let new = edit.new_target();
        assert_eq!(edit.judge(&answer(302, Some("https://example.com/c"))), Shown::Old);
        assert_eq!(edit.judge(&answer(302, Some(&new))), Shown::New);
        for subject in [disable, delete] {
            assert_eq!(subject.judge(&answer(302, Some("https://example.com/c"))), Shown::Old);
            assert_eq!(subject.judge(&answer(410, None)), Shown::New);
            assert!(matches!(subject.judge(&answer(302, Some(&new))), Shown::Fault(_)));
        }
        let mut refused = answer(503, None);
        refused.headers.push(("Retry-After".into(), "1".into()));
        assert_eq!(edit.judge(&refused), Shown::Refused);
        for wrong in [answer(410, None), answer(503, None), answer(404, None), answer(302, None)] {
            assert!(matches!(edit.judge(&wrong), Shown::Fault(_)), "{wrong:?}");
        }
    }

    /// Answers the requests of one connection with these targets, then closes.
    fn server(targets: Vec<String>) -> SocketAddr {
        use std::io::{Read as _, Write as _};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut peer, _) = listener.accept().unwrap();
            for target in targets {
                assert!(peer.read(&mut [0; 4_096]).unwrap() > 0);
                let head = format!("HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n");
                peer.write_all(head.as_bytes()).unwrap();
            }
        });
        address
    }

    #[test]
    fn an_older_answer_after_a_newer_one_is_found() {
        let subject = Subject::numbered(0, link());
        let (old, new) = (link().target, subject.new_target());
        let address = server(vec![old.clone(), new.clone(), old, new]);
        let (began, ended) = (Instant::now(), AtomicBool::new(false));
        let (servers, rest) = ([address; 2], Duration::ZERO);
        let shared = Shared { began, servers, subjects: vec![], rest, ended };
        let (mut wire, mut tally) = (Client::new(address).connect(), Tally::default());
        let shown: Vec<_> = (0..4).map(|_| shared.visit(&subject, 1, &mut wire, &mut tally).unwrap()).collect();
        assert_eq!(shown, [Shown::Old, Shown::New, Shown::Old, Shown::New]);
        assert_eq!((tally.visits, tally.counts, tally.older.len()), (4, [0, 1], 1));
        let failed = std::panic::catch_unwind(|| tally.assert_never_back());
        assert!(failed.is_err(), "going back has to fail a drill");
        assert!(shared.visit(&subject, 1, &mut wire, &mut tally).is_none(), "the wire is closed");
        assert_eq!(tally.counts, [1, 1]);
    }

    #[test]
    fn many_refusals_are_a_failure() {
        Tally { visits: 100, refused: 1, ..Tally::default() }.assert_hardly_refused();
        let many = Tally { visits: 199, refused: 2, ..Tally::default() };
        assert!(std::panic::catch_unwind(|| many.assert_hardly_refused()).is_err());
    }

    #[test]
    fn the_times_of_changes_are_summed_up() {
        let taken = |ms: u64| Taken { change: Change::Edit, shown: Duration::from_millis(ms), tries: 1 };
        let all: Vec<Taken> = (1..=200).map(taken).collect();
        assert_eq!(shown(&all), [100, 198, 200].map(Duration::from_millis));
        assert_eq!(shown(&[]), [Duration::ZERO; 3]);
    }
}
