//! The drills: each breaks one thing of the real cluster or of Redis under load,
//! or asks for too much at once, and checks what was promised for that case.
//!
//! In the quick form, which the tests run, answers and ledger are asserted and
//! latencies are only reported; the full form asserts the latencies too and
//! takes longer. A drill that fails panics, and its guards make its faults good.

mod alias_race;
mod all_down;
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
mod redis_faults;
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
use crate::load::{Kind, KnownLink, Ledger, Plan, REFUSED_ONE_OF, Report};
use crate::{Connection, Request, Response, Server, Setup, await_some};

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

/// One drill.
pub struct Drill {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it breaks, and what must hold.
    pub about: &'static str,
    /// Whether it needs the cluster; else its server has a SQLite file.
    pub needs_cluster: bool,
    run: fn(&mut Stage<'_>),
}

/// All drills but those of the counting.
static OTHERS: [Drill; 24] = [
    Drill {
        name: "kill-node",
        about: "kill -9 one node: no failed redirect, no lost 201, creates go on, its return needs no help",
        needs_cluster: true,
        run: nodes::kill_node,
    },
    Drill {
        name: "pause-node",
        about: "SIGSTOP one node: uncached redirects stay quick, no error",
        needs_cluster: true,
        run: nodes::pause_node,
    },
    Drill {
        name: "two-nodes-down",
        about: "two of three nodes away: every link still redirects, the rest is 503 with Retry-After",
        needs_cluster: true,
        run: nodes::two_nodes_down,
    },
    Drill {
        name: "all-down",
        about: "no node left: cached links redirect, the rest is refused quickly; normal again by itself",
        needs_cluster: true,
        run: all_down::all_down,
    },
    Drill {
        name: "stale-replica",
        about: "one replica misses a create, an edit and a delete: no read shows the old state",
        needs_cluster: true,
        run: stale_replica::stale_replica,
    },
    Drill {
        name: "shard-cut",
        about: "the wires of one of two shards cut: the other one does not notice; a start without the first shard",
        needs_cluster: true,
        run: shard_cut::shard_cut,
    },
    Drill {
        name: "alias-race",
        about: "200 claims of one alias through two servers: exactly one link",
        needs_cluster: true,
        run: alias_race::alias_race,
    },
    Drill {
        name: "first-start",
        about: "two first starts at once: one schema, one key, disjoint leases; kill -9 loses ids, never codes",
        needs_cluster: true,
        run: first_start::first_start,
    },
    Drill {
        name: "lost-answer",
        about: "the answer to a write is lost on the wire: its caller still gets a true one",
        needs_cluster: true,
        run: lost_answer::lost_answer,
    },
    Drill {
        name: "visible",
        about: "changes through one server, Redis between: the other shows them in a second, and nothing older after",
        needs_cluster: true,
        run: visible::with_redis,
    },
    Drill {
        name: "visible-no-redis",
        about: "the same without Redis",
        needs_cluster: true,
        run: visible::without_redis,
    },
    Drill {
        name: "visible-paused-redis",
        about: "the same with Redis SIGSTOPped during the changes, going on with the old values in it",
        needs_cluster: true,
        run: visible::with_paused_redis,
    },
    Drill {
        name: "redis-faults",
        about: "kill -9, SIGSTOP, restart of Redis: no failed redirect; edits meanwhile are seen, its old values never",
        needs_cluster: true,
        run: redis_faults::redis_faults,
    },
    Drill {
        name: "stampede",
        about: "10,000 first requests at once for one code: one store read; one per expiry of a hot entry",
        needs_cluster: false,
        run: stampede::stampede,
    },
    Drill {
        name: "stampede-slow",
        about: "the same while the store is slow to answer, two tiers behind: all wait for the one read",
        needs_cluster: true,
        run: stampede::stampede_slow,
    },
    Drill {
        name: "expiry",
        about: "a link that expires at an instant is 302 before and 410 from it on, cached or not, on both servers",
        needs_cluster: true,
        run: expiry::expiry,
    },
    Drill {
        name: "scan",
        about: "1,000,000 unknown codes: hot links stay in memory, memory and store reads stay bounded",
        needs_cluster: false,
        run: scan::scan,
    },
    Drill {
        name: "celebrity",
        about: "90 % of the load on one code: it costs Redis and the store nothing",
        needs_cluster: false,
        run: celebrity::celebrity,
    },
    Drill {
        name: "limits-shared",
        about: "64 clients of one key on two servers: what one limit allows; Redis killed: no 500, at most each its own",
        needs_cluster: true,
        run: limits::shared,
    },
    Drill {
        name: "enumeration",
        about: "random codes from one /64 are stopped after the window's, ten readers behind one address never",
        needs_cluster: false,
        run: limits::enumeration,
    },
    Drill {
        name: "limits-flood",
        about: "100,000 addresses: memory stays bounded, modest clients are served, who is used up stays so",
        needs_cluster: false,
        run: limits::flood,
    },
    Drill {
        name: "limits-paced",
        about: "a leaky bucket with more than it takes: requests leave it evenly, up to 200 a second",
        needs_cluster: false,
        run: paced::paced,
    },
    Drill {
        name: "overload",
        about: "more asked of a slow store than it can do: it does nearly all it can, links in memory do not notice",
        needs_cluster: true,
        run: overload::overload,
    },
    Drill {
        name: "idle-and-slow",
        about: "10,000 idle connections and 1,000 slow ones: redirects of others are as quick as ever; they do not last",
        needs_cluster: false,
        run: connections::idle_and_slow,
    },
];

/// All drills, in the order in which they are run.
pub fn all() -> impl Iterator<Item = &'static Drill> {
    OTHERS.iter().chain(&clicks::CLICK_DRILLS)
}

/// The drill called `name`, or all of the group `name`, such as `clicks`; none if there is neither.
#[must_use]
pub fn find_all(name: &str) -> Vec<&'static Drill> {
    let of_group = |drill: &&Drill| drill.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('-'));
    match find(name) {
        Some(drill) => vec![drill],
        None if name == "clicks" => all().filter(of_group).collect(),
        None => Vec::new(),
    }
}

/// The drill called `name`.
#[must_use]
pub fn find(name: &str) -> Option<&'static Drill> {
    all().find(|drill| drill.name == name)
}

impl Drill {
    /// Runs it and returns what it measured.
    ///
    /// # Panics
    /// When something that must hold does not, or the cluster that it needs is not given.
    pub fn run(&self, cluster: Option<&Cluster>, form: Form) -> Report {
        let mut stage = Stage { cluster, form, report: Report::default() };
        (self.run)(&mut stage);
        stage.report
    }
}

/// What a drill works with.
struct Stage<'a> {
    cluster: Option<&'a Cluster>,
    form: Form,
    report: Report,
}

impl<'a> Stage<'a> {
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
    fn every_drill_has_a_name_of_its_own_and_is_found_by_it() {
        for drill in all() {
            assert_eq!(find(drill.name).unwrap().about, drill.about);
            assert!(drill.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'));
        }
        assert!(find("no-such-drill").is_none());
    }

    #[test]
    fn the_click_drills_are_found_by_one_name() {
        let names = |name| find_all(name).iter().map(|drill| drill.name).collect::<Vec<_>>();
        assert_eq!(names("scan"), ["scan"]);
        assert!(names("clicks").len() >= 7 && names("clicks").iter().all(|name| name.starts_with("clicks-")));
        assert!(names("visible-no").is_empty() && names("").is_empty() && names("click").is_empty());
    }

    #[test]
    fn refusals_are_few_in_the_quick_form_and_none_in_the_full_one() {
        let stage = |form| Stage { cluster: None, form, report: Report::default() };
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
