//! The drills: each breaks one thing of the real cluster or of Redis under load,
//! or asks for too much at once, and checks what was promised for that case.
//!
//! In the quick form, which the tests run, answers and ledger are asserted and
//! latencies are only reported; the full form asserts the latencies too and
//! takes longer. A drill that fails panics, and its guards make its faults good; whoever runs it has its report and
//! its timeline all the same.
//!
//! Each is declared once, in the catalogue: what is broken, what is expected, what it needs and how long it takes.

mod alias_race;
mod all_down;
mod catalogue;
mod celebrity;
mod clicks;
mod connections;
mod expiry;
mod first_start;
mod limits;
mod lost_answer;
mod nodes;
mod overload;
mod paced;
mod page;
mod redis_faults;
mod run;
mod rush;
mod scan;
mod shard_cut;
mod stale_replica;
mod stampede;
mod visible;
mod watch;
mod wires;

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use crate::cluster::{Cluster, Keyspace};
use crate::load::{Kind, KnownLink, Ledger, Load, Plan, REFUSED_ONE_OF, Report, Timeline};
use crate::{Connection, Request, Response, Server, Setup, await_some};

pub use catalogue::{Chart, Drill, Needs, QUICK_LIMIT, Takes, all, find, find_all};
pub use page::{list, page, section};
pub use run::Run;
pub use wires::{Wires, shards_file};

/// How long the first start on a keyspace may take: three nodes have to agree on a dozen tables.
pub const FIRST_START_LIMIT: Duration = Duration::from_secs(90);

/// How long a single request of a drill is asked again that was refused, as by an overloaded store.
const REFUSED_LIMIT: Duration = Duration::from_secs(20);

/// How long a drill goes on, and how strict it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Seconds; latencies are reported.
    Quick,
    /// As long as the promise says; latencies are asserted.
    Full,
}

impl Form {
    /// The first in the quick form, the second in the full one.
    #[must_use]
    pub fn pick<T>(self, quick: T, full: T) -> T {
        match self {
            Self::Quick => quick,
            Self::Full => full,
        }
    }
}

/// What a drill works with.
struct Stage<'a> {
    cluster: Option<&'a Cluster>,
    form: Form,
    report: Report,
    /// What loads meet, and when something is broken.
    timeline: Timeline,
}

impl<'a> Stage<'a> {
    fn new(cluster: Option<&'a Cluster>, form: Form) -> Self {
        Self { cluster, form, report: Report::default(), timeline: Timeline::start() }
    }

    /// Starts a load whose answers are in the timeline, by what was asked for.
    fn load(&self, plan: Plan) -> Load {
        Load::start_noted(plan, &self.timeline, |kind, _| kind.name())
    }

    /// The cluster, for drills that need it.
    fn cluster(&self) -> &'a Cluster {
        self.cluster.unwrap_or_else(|| panic!("this drill needs the cluster"))
    }

    /// A server on `keyspace`; its cache holds one link, so that about every redirect asks the store.
    fn uncached(keyspace: &Keyspace) -> Setup {
        Self::cached(keyspace).env("TERSE_CACHE_ENTRIES", "1")
    }

    /// A server on `keyspace`.
    fn cached(keyspace: &Keyspace) -> Setup {
        Setup::new().env("TERSE_STORE", &keyspace.store()).ready_within(FIRST_START_LIMIT)
    }

    /// A plan of the usual mix for `servers`, scaled by the form.
    fn plan(&self, servers: &[&Server], links: &[KnownLink]) -> Plan {
        let (redirects, creates, unknown) = self.form.pick((80, 8, 8), (150, 15, 15));
        Plan { servers: addresses(servers), links: links.to_vec(), redirects, creates, unknown }
    }

    /// How many links are made before the load.
    fn links(&self) -> usize {
        self.form.pick(150, 1_000)
    }

    /// Asserts that all requests were answered; in the quick form hardly any may be refused, since the
    /// machine has other things to do.
    #[track_caller]
    fn assert_answered(&self, ledger: &Ledger, kind: Kind, window: &Range<Duration>) {
        match self.form {
            Form::Quick => ledger.assert_hardly_refused(kind, window),
            Form::Full => ledger.assert_all_good(kind, window),
        }
    }

    /// The same for a drill's own requests: how many were refused of how many.
    #[track_caller]
    fn assert_few_refused(&self, what: &str, refused: usize, asked: usize) {
        let most = self.form.pick((asked / REFUSED_ONE_OF).max(1), 0);
        assert!(refused <= most, "{what}: {refused} of {asked} were refused");
    }

    /// Asserts a latency, in the full form only: in the quick one the machine has other things to do.
    #[track_caller]
    fn assert_within(&self, what: &str, took: Duration, limit: Duration) {
        assert!(self.form == Form::Quick || took <= limit, "{what} took {took:?}, {limit:?} are promised");
    }
}

/// The answer to `request`, which is asked again while it is refused with `Retry-After`, [`REFUSED_LIMIT`] at most.
#[track_caller]
fn ask_until_answered(wire: &mut Connection, request: &Request) -> Response {
    await_some(&format!("an answer to {request:?}"), REFUSED_LIMIT, || {
        let answer = wire.call(request).unwrap_or_else(|error| panic!("no answer: {error}"));
        (!is_refused(&answer)).then_some(answer)
    })
}

/// 503 with `Retry-After`: it is said that there is no answer now.
fn is_refused(answer: &Response) -> bool {
    answer.status == 503 && answer.header("retry-after").is_some()
}

fn addresses(servers: &[&Server]) -> Vec<SocketAddr> {
    servers.iter().map(|server| server.address()).collect()
}

/// A window without its last `margin`, in which a slow answer could already be one of the time after it.
#[track_caller]
fn without_end(window: &Range<Duration>, margin: Duration) -> Range<Duration> {
    assert!(window.end - window.start > margin, "the window {window:?} is too short");
    window.start..window.end - margin
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_few_in_the_quick_form_and_none_in_the_full_one() {
        let stage = |form| Stage::new(None, form);
        stage(Form::Quick).assert_few_refused("visits", 2, 200);
        stage(Form::Quick).assert_few_refused("visits", 1, 20);
        stage(Form::Full).assert_few_refused("visits", 0, 200);
        for (form, refused) in [(Form::Quick, 3), (Form::Full, 1)] {
            let failed = std::panic::catch_unwind(|| stage(form).assert_few_refused("visits", refused, 200));
            assert!(failed.is_err(), "{form:?}");
        }
    }

    #[test]
    fn a_request_is_asked_again_while_it_is_refused() {
        use std::io::{Read as _, Write as _};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut peer, _) = listener.accept().unwrap();
            for head in ["503 Busy\r\nRetry-After: 1", "503 Busy\r\nRetry-After: 1", "503 Down"] {
                assert!(peer.read(&mut [0; 4_096]).unwrap() > 0);
                peer.write_all(format!("HTTP/1.1 {head}\r\nContent-Length: 0\r\n\r\n").as_bytes()).unwrap();
            }
        });
        let answer = ask_until_answered(&mut Connection::open(address).unwrap(), &Request::new("GET", "/a"));
        assert_eq!((answer.status, answer.header("retry-after")), (503, None));
    }

    #[test]
    fn the_end_of_a_window_is_left_out() {
        let seconds = Duration::from_secs;
        assert_eq!(without_end(&(seconds(2)..seconds(9)), seconds(3)), seconds(2)..seconds(6));
    }

    #[test]
    #[should_panic(expected = "too short")]
    fn a_window_that_would_be_empty_is_refused() {
        let _ = without_end(&(Duration::ZERO..Duration::from_secs(1)), Duration::from_secs(1));
    }
}
