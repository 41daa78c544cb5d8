//! The click drills: each breaks one thing under load while a ledger notes, code
//! by code, how many requests were sent (S) and how many 302 answers came (R).
//! After the drain the API tells how many clicks were counted (C), and for each
//! code R ≤ C ≤ S has to hold; C = R where no server was killed that redirects.
//!
//! Each is run on the ways that clicks can go ([`Way`]). All servers of a drill are on one data directory, and come
//! back on the port that they had; the broker is the drill's own. A drill that fails leaves all of that behind, with
//! the logs and the ledger, and the keyspace.
//!
//! Bounds: [`START_LIMIT`](crate::START_LIMIT) per start, [`DRAIN_LIMIT`] until all is counted.

mod broker;
mod budget;
mod chaos;
mod copy;
mod kill;
mod nodes;
mod projector;
mod redis;
mod rounds;
mod table;
mod term;
mod twice;
mod verdict;
mod way;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::{FIRST_START_LIMIT, Stage};
use crate::broker::Broker;
use crate::load::clicks::{ClickLedger, ClickLoad, ClickPlan};
use crate::load::{KnownLink, seed};
use crate::metrics::{CLICK_BLOCKS_PENDING, CLICKS_APPLIED, Scrape};
use crate::ports::steady_port;
use crate::{Connection, Finished, Request, Server, Setup, Stop, await_some, await_true, code_path};

pub(super) use table::CLICK_DRILLS;

use verdict::{Bound, Verdict};
use way::{Backing, Way};

/// How long it may take until all clicks are counted: a projector that was killed has its lease for 10 s more, and what
/// waited for a broker or a cluster comes all at once.
const DRAIN_LIMIT: Duration = Duration::from_secs(120);
/// All is counted when nothing is pending and the count stood still for so long: longer than the second between two
/// recoveries, the two seconds between two looks at other journals and the half between two gauges together.
const QUIET: Duration = Duration::from_secs(4);
/// What is missing then gets so much more time.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// How long the load may take to get answers again.
const ANSWERED_LIMIT: Duration = Duration::from_secs(30);
/// Names the seed of what happens by chance.
const SEED: &str = "TERSE_DRILL_SEED";

/// How the roles are spread over processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Roles {
    /// One process does it all.
    Together,
    /// One redirects and has the API, another one counts.
    Apart,
}

/// Servers on one data directory, and the links that are clicked on. In a failing drill they end in this order.
struct Deployment {
    way: Way,
    setup: Setup,
    /// Redirects, and answers the API.
    front: Server,
    /// Counts, where that is a process of its own.
    analytics: Option<Server>,
    links: Vec<KnownLink>,
    backing: Backing,
}

impl Deployment {
    /// Starts the servers and makes the links.
    #[track_caller]
    fn start(stage: &Stage<'_>, way: Way, roles: Roles) -> Self {
        Self::start_with(stage, way, roles, |setup| setup)
    }

    /// The same with a setup that was changed.
    #[track_caller]
    fn start_with(stage: &Stage<'_>, way: Way, roles: Roles, change: impl FnOnce(Setup) -> Setup) -> Self {
        let backing = Backing::of(stage, way);
        let setup = change(backing.tell(Setup::new().kept_on_failure()));
        Self::start_on(stage, way, roles, backing, setup.clone(), setup)
    }

    /// The same, but the front has a setup of its own.
    #[track_caller]
    fn start_between(stage: &Stage<'_>, way: Way, roles: Roles, change: impl FnOnce(Setup, &Backing) -> Setup) -> Self {
        let backing = Backing::of(stage, way);
        let setup = backing.tell(Setup::new().kept_on_failure());
        let of_front = change(setup.clone(), &backing);
        Self::start_on(stage, way, roles, backing, setup, of_front)
    }

    #[track_caller]
    fn start_on(stage: &Stage<'_>, way: Way, roles: Roles, backing: Backing, setup: Setup, of_front: Setup) -> Self {
        let front = match roles {
            Roles::Together => on_steady_port(&of_front),
            Roles::Apart => on_steady_port(&["redirect", "api"].iter().fold(of_front, role)),
        };
        let links = seed(&front.client(), "clicked", way.links(stage.form));
        let mut deployment = Self { way, setup, front, analytics: None, links, backing };
        if roles == Roles::Apart {
            deployment.analytics = Some(deployment.start_analytics());
        }
        deployment.await_connected();
        deployment
    }

    /// Waits until the servers work with what backs them, and would find it again after a fault.
    #[track_caller]
    fn await_connected(&self) {
        if let Some(broker) = &self.backing.broker {
            broker.await_declared();
        }
        // The first of them makes its tables, on which all nodes have to agree.
        for server in [Some(&self.front), self.analytics.as_ref()].into_iter().flatten() {
            await_true("the read model to be in reach", FIRST_START_LIMIT, || {
                std::thread::sleep(LOOK);
                let health = server.client().get("/health").json();
                let checks = health["checks"].as_array().map(Vec::as_slice).unwrap_or_default();
                checks.iter().any(|check| check["name"] == "stats" && check["status"] == "ok")
            });
        }
    }

    /// Starts a process that counts, or stands by.
    #[track_caller]
    fn start_analytics(&self) -> Server {
        on_steady_port(&role(self.setup.clone(), &"analytics"))
    }

    /// Starts visitors.
    fn load(&self, stage: &Stage<'_>) -> ClickLoad {
        self.load_with(stage, |plan| plan)
    }

    /// The same with a plan that was changed.
    fn load_with(&self, stage: &Stage<'_>, change: impl FnOnce(ClickPlan) -> ClickPlan) -> ClickLoad {
        let (per_second, visitors) = self.way.pace(stage.form);
        let (server, links) = (self.front.address(), self.links.clone());
        let plan = change(ClickPlan { server, links, per_second, visitors, wordy: false, seed: 1 });
        let load = ClickLoad::start_noted(plan, &stage.timeline);
        load.await_more(1, ANSWERED_LIMIT);
        load
    }

    /// What the counting process tells of itself.
    fn applied(&self) -> u64 {
        let counting = self.analytics.as_ref().unwrap_or(&self.front);
        Scrape::of(&counting.client()).sum(CLICKS_APPLIED, &[])
    }

    /// Blocks that wait to be counted, as the front last saw it.
    fn pending(&self) -> u64 {
        Scrape::of(&self.front.client()).sum(CLICK_BLOCKS_PENDING, &[])
    }

    /// Waits until all clicks are counted. Nobody may be clicking.
    #[track_caller]
    fn await_drained(&self) {
        let mut seen = (0, self.applied());
        let mut since = Instant::now();
        await_true("all clicks to be counted", DRAIN_LIMIT, || {
            std::thread::sleep(LOOK);
            let now = (self.pending(), self.applied());
            if now != seen || now.0 > 0 {
                (seen, since) = (now, Instant::now());
            }
            since.elapsed() >= QUIET
        });
    }

    /// The clicks counted of each link, of all time; its days and its hours must add up to the same.
    #[track_caller]
    fn counted(&self) -> BTreeMap<String, u64> {
        let mut wire = self.front.client().connect();
        let mut ask = |code: &str| loop {
            let [days, hours, again] = ["day", "hour", "day"].map(|interval| Sums::told(&mut wire, code, interval));
            // A report reads the total first. So if that is the same in the end no row was written in between; else the
            // numbers are of different times.
            if days.total == again.total {
                assert_eq!([days.total; 3], [days.points, hours.total, hours.points], "{code}: totals, days, hours");
                break days.total;
            }
        };
        self.links.iter().map(|link| (link.code.clone(), ask(&link.code))).collect()
    }

    /// Waits until all is counted, and fails unless it is what the ledger says. What is missing still gets some time:
    /// on a busy machine gauges can be late.
    #[track_caller]
    fn settle(&self, stage: &mut Stage<'_>, ledger: &ClickLedger, bound: Bound) {
        let began = Instant::now();
        let mut drained: Option<Instant> = None;
        let (counted, verdict) = await_some("a verdict", DRAIN_LIMIT + PATIENCE, || {
            self.await_drained();
            let drained = drained.get_or_insert_with(Instant::now);
            let counted = self.counted();
            let verdict = Verdict::of(ledger, &counted, bound);
            (verdict.holds() || drained.elapsed() >= PATIENCE).then_some((counted, verdict))
        });
        stage.report.time("until all was counted", began.elapsed().saturating_sub(QUIET));
        verdict.report(&mut stage.report);
        let path = self.setup.place().join("ledger.json");
        let kept = fs::write(&path, ledger.json(&counted).to_string());
        kept.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        verdict.assert_held();
        let aside = self.put_aside();
        assert!(aside.is_empty(), "blocks were put aside: {aside:?}");
        let dead = self.backing.broker.as_ref().map_or(0, Broker::dead_letters);
        assert_eq!(dead, 0, "clicks that nobody could decode");
    }

    /// Builds the read model once more from all that the journals keep; it must be the one that stands, row by row.
    #[track_caller]
    fn replay(&self, stage: &mut Stage<'_>) {
        let finished = self.try_replay();
        assert_eq!(finished.code, Some(0), "what was counted is not what the log says: {finished:?}");
        stage.report.time("a replay that compares all rows", finished.took);
    }

    fn try_replay(&self) -> Finished {
        let into = self.setup.place().join("replayed.sqlite");
        let finished = self.setup.run(&["replay", "--into", &into.to_string_lossy(), "--verify"]);
        for suffix in ["", "-wal", "-shm"] {
            // What isn't there need not be removed; what stays in the way is told by the next replay.
            let _ = fs::remove_file(format!("{}{suffix}", into.display()));
        }
        finished
    }

    /// From now on nothing that is recorded goes on from the journals: nobody counts, or there is no broker.
    #[track_caller]
    fn stop_draining(&mut self, stop: Stop) {
        match &mut self.backing.broker {
            Some(broker) => broker.kill(),
            None => self.stop_analytics(stop),
        }
    }

    /// It goes on again.
    #[track_caller]
    fn drain_again(&mut self) {
        match &mut self.backing.broker {
            Some(broker) => broker.restart(),
            None => self.restart_analytics(),
        }
    }

    /// The journals' blocks that nobody could read.
    fn put_aside(&self) -> Vec<PathBuf> {
        let journals = entries(&self.setup.data().join("journal"));
        journals.iter().flat_map(|journal| entries(&journal.join("quarantine"))).collect()
    }
}

/// What a report says of a link.
struct Sums {
    /// Its clicks of all time.
    total: u64,
    /// Those of all points of the series together.
    points: u64,
}

impl Sums {
    #[track_caller]
    fn told(wire: &mut Connection, code: &str, interval: &str) -> Self {
        let request = Request::new("GET", &format!("{}/stats?interval={interval}", code_path(code)));
        let answer = wire.call(&request).unwrap_or_else(|error| panic!("no statistics of {code}: {error}"));
        let told = answer.expect(200).json();
        let number = |value: &serde_json::Value| value.as_u64().unwrap_or_else(|| panic!("no number in {told}"));
        let points = told["series"].as_array().unwrap_or_else(|| panic!("no series in {told}"));
        let points = points.iter().map(|point| number(&point["clicks"]) + number(&point["bots"])).sum();
        Self { total: number(&told["total"]), points }
    }
}

/// What is in a directory; nothing, if it isn't there.
fn entries(directory: &std::path::Path) -> Vec<PathBuf> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn role(setup: Setup, role: &&str) -> Setup {
    setup.flag("--role").flag(role)
}

/// Starts a server on a port that it has again when it is started again.
#[track_caller]
fn on_steady_port(setup: &Setup) -> Server {
    setup.clone().env("TERSE_LISTEN", &format!("127.0.0.1:{}", steady_port())).start()
}

/// The seed of what happens by chance: that of the environment, else another one each time. It is printed.
#[allow(clippy::print_stdout)] // It has to be known above all when the drill fails.
fn chance(name: &str) -> u64 {
    let given = std::env::var(SEED).ok().map(|text| text.parse());
    let seed = match given {
        Some(Ok(seed)) => seed,
        Some(Err(error)) => panic!("{SEED}: {error}"),
        None => crate::now_ms().unsigned_abs(),
    };
    println!("{name}: {SEED}={seed}");
    seed
}

/// A time between two, by chance.
fn between(dice: &mut crate::Dice, least_ms: u64, most_ms: u64) -> Duration {
    Duration::from_millis(least_ms + dice.below(most_ms - least_ms))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn chance_stays_between_its_bounds() {
        let mut dice = crate::Dice::seeded(3);
        for _ in 0..100 {
            let time = between(&mut dice, 200, 300);
            assert!((Duration::from_millis(200)..Duration::from_millis(300)).contains(&time), "{time:?}");
        }
    }

    #[test]
    fn a_directory_that_is_not_there_has_nothing_in_it() {
        let place = tempfile::tempdir().unwrap();
        assert!(entries(&place.path().join("none")).is_empty());
        fs::write(place.path().join("one"), "").unwrap();
        assert_eq!(entries(place.path()), [place.path().join("one")]);
    }
}
