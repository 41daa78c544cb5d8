//! The servers of the measured redirects, started once for all rounds: a
//! server that isn't asked costs its neighbours nothing.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::super::super::generator::Connections;
use super::super::super::links::{Pair, Targets, fill, follow_all, target};
use super::super::super::pin::on_core;
use super::super::super::recorded::{self, journal_for};
use super::super::super::server::Server;
use super::super::super::usage::resident;
use super::super::super::{Bench, CONNECTIONS, Run};
use super::super::{ALL, COUNTING, HIT_RATIO, STORE, Sizes, UNKNOWN, Who, codes};
use crate::services::redis;
use crate::tools::{NGINX, Tools};

/// Room for links that hash unevenly, of 100.
const ROOM_PERCENT: usize = 125;
/// How many entries share a KiB of the cache's bound. A link needs less
/// than its share, so that the number of entries is the bound that counts.
const ENTRIES_PER_KIB: usize = 2;
/// The least that a cache may be given, in KiB.
const LEAST_CACHE_KIB: usize = 1024;
/// How many series the main server answers with redirects at most: one code, some and many by two laws, churn, half of
/// the peak, and one more to know the peak.
const ON_MAIN: u32 = 8;
/// Of how many links the statistics are compared with what was seen.
const TOLD: usize = 500;

/// A terse with links.
pub struct Loaded {
    server: Server,
    data: PathBuf,
    /// Its links.
    pub links: Targets,
}

impl Loaded {
    /// Where it is.
    #[must_use]
    pub fn seat(&self) -> (u32, SocketAddr) {
        (self.server.pid(), self.server.address)
    }

    /// Ends it. Its data directory is left, but for the journal of clicks.
    fn end(self) -> Result<(PathBuf, Targets)> {
        let Self { server, data, links } = self;
        recorded::assert_recorded(server.address, &links).with_context(|| data.display().to_string())?;
        server.stop()?;
        fs::remove_dir_all(data.join("journal"))?;
        Ok((data, links))
    }
}

/// A server that answers everything the same.
struct Constant {
    who: Who,
    kind: Option<Connections>,
    server: Server,
}

/// All servers that run at once.
pub struct Stage<'a> {
    constants: Vec<Constant>,
    /// What the constants are asked for.
    link: Targets,
    main: Option<Loaded>,
    store: Option<Loaded>,
    shared: Option<Loaded>,
    counting: Option<Loaded>,
    empty_mb: Option<f64>,
    bench: &'a Bench<'a>,
}

/// What is left of a stage.
pub struct Rest {
    /// The data directory of the main server, and its links.
    pub main: Option<(PathBuf, Targets)>,
    /// What the main server took with nothing in memory, in megabytes.
    pub empty_mb: Option<f64>,
}

/// The settings of a cache in process for `entries`.
#[must_use]
pub fn cache_of(entries: usize) -> Vec<(&'static str, String)> {
    let size = entries.div_ceil(ENTRIES_PER_KIB).max(LEAST_CACHE_KIB);
    vec![("TERSE_CACHE_ENTRIES", entries.to_string()), ("TERSE_CACHE_BYTES", format!("{size}KiB"))]
}

impl<'a> Stage<'a> {
    /// Starts what is wanted, with all links where they are measured.
    ///
    /// # Errors
    /// When a server fails or answers wrong.
    pub fn set(bench: &'a Bench<'a>, sizes: Sizes, with_redis: bool) -> Result<Self> {
        let link = Targets::of(&[Pair { code: "abcdefg".into(), index: 0 }]);
        let (main, store, shared, counting) = (None, None, None, None);
        let mut stage = Self { constants: vec![], link, main, store, shared, counting, empty_mb: None, bench };
        stage.start_constants()?;
        if wants_main(bench, sizes) {
            stage.start_main(sizes)?;
        }
        if bench.run.wants(STORE) {
            let mut settings = cache_of(1);
            settings.push(journal_for(seconds(bench.run, 1), sizes.some));
            stage.store = Some(loaded(bench, "redirect-store", sizes.some, (recorded::RECORDS, settings))?.0);
        }
        if with_redis {
            let mut settings = cache_of(1);
            settings.extend([("TERSE_CACHE", redis::url()), journal_for(seconds(bench.run, 1), sizes.some)]);
            stage.shared = Some(loaded(bench, "redirect-shared", sizes.some, (recorded::RECORDS, settings))?.0);
        }
        if bench.run.wants(COUNTING) {
            let settings = cache_of(sizes.some * ROOM_PERCENT / 100 + 1);
            stage.counting = Some(loaded(bench, "redirect-counting", sizes.some, (&[], settings))?.0);
        }
        Ok(stage)
    }

    fn start_constants(&mut self) -> Result<()> {
        let bench = self.bench;
        let run = bench.run;
        let (floor, churned) = (Who::Floor, run.wants(&Who::Floor.churn()));
        if run.wants(floor.kept()) || run.wants(&floor.half()) {
            self.add(floor, Some(Connections::Kept), bench.servers.floor(&target(0), false)?);
        }
        if churned {
            self.add(floor, Some(Connections::Renewed), bench.servers.floor(&target(0), true)?);
        }
        if wants_any(bench, Who::Nginx) {
            match Tools::new(bench.supervisor).find(&NGINX)? {
                Some(program) => self.add(Who::Nginx, None, bench.servers.nginx(&program, &target(0))?),
                None => println!("no nginx, no ratio"),
            }
        }
        if wants_any(bench, Who::Actix) {
            // A copy, since another build may replace the file while it is measured.
            let program = bench.folder.join("constant");
            fs::copy(bench.build("terse-http", "constant")?, &program)?;
            self.add(Who::Actix, None, bench.servers.actix(&program, &target(0))?);
        }
        Ok(())
    }

    fn add(&mut self, who: Who, kind: Option<Connections>, server: Server) {
        self.constants.push(Constant { who, kind, server });
    }

    fn start_main(&mut self, sizes: Sizes) -> Result<()> {
        let count = if wants_many(self.bench, sizes) { sizes.many } else { sizes.some };
        let mut settings = cache_of(count * ROOM_PERCENT / 100 + 1);
        settings.push(journal_for(seconds(self.bench.run, ON_MAIN), count));
        let (main, empty) = loaded(self.bench, "redirect", count, (recorded::RECORDS, settings))?;
        self.main = Some(main);
        self.empty_mb = Some(empty);
        Ok(())
    }

    /// terse with all its links in memory.
    #[must_use]
    pub fn main(&self) -> Option<&Loaded> {
        self.main.as_ref()
    }

    /// terse with a cache of one entry.
    #[must_use]
    pub fn store(&self) -> Option<&Loaded> {
        self.store.as_ref()
    }

    /// terse with a cache of one entry and all its links in Redis.
    #[must_use]
    pub fn shared(&self) -> Option<&Loaded> {
        self.shared.as_ref()
    }

    /// terse in all roles: it counts what it records.
    #[must_use]
    pub fn counting(&self) -> Option<&Loaded> {
        self.counting.as_ref()
    }

    /// Where `who` answers over connections of this kind, and the links to ask for.
    #[must_use]
    pub fn seat(&self, who: Who, kind: Connections) -> Option<((u32, SocketAddr), &Targets)> {
        if who == Who::Terse {
            return self.main().map(|main| (main.seat(), &main.links));
        }
        let fits = |constant: &&Constant| constant.who == who && constant.kind.is_none_or(|only| only == kind);
        let constant = self.constants.iter().find(fits)?;
        Some(((constant.server.pid(), constant.server.address), &self.link))
    }

    /// Ends all servers, which have recorded all that they answered. What they recorded goes.
    ///
    /// # Errors
    /// When one had to be killed, says that it failed, dropped a click, or tells other counts than there were.
    pub fn clear(self) -> Result<Rest> {
        for constant in self.constants {
            constant.server.stop()?;
        }
        if let Some(counting) = &self.counting {
            recorded::await_counted(counting.server.address)?;
            recorded::assert_told(counting.server.address, &counting.links, TOLD).context(COUNTING)?;
        }
        for loaded in [self.store, self.shared, self.counting].into_iter().flatten() {
            let (data, _) = loaded.end()?;
            fs::remove_dir_all(data)?;
        }
        let main = self.main.map(Loaded::end).transpose()?;
        Ok(Rest { main, empty_mb: self.empty_mb })
    }
}

/// How long one server is under load that `contenders` series put on it.
fn seconds(run: &Run, contenders: u32) -> f64 {
    (run.warm_up() + run.window()).as_secs_f64() * f64::from(run.rounds() * contenders)
}

/// Makes `count` links in a new data directory, and starts terse on it in
/// these roles with these settings. Then each link is followed once, so that whatever is asked for
/// later is where it belongs. Also returns what memory the server took before that, in megabytes.
fn loaded(
    bench: &Bench<'_>,
    name: &str,
    count: usize,
    (roles, settings): (&[&str], Vec<(&str, String)>),
) -> Result<(Loaded, f64)> {
    let data = bench.data(name)?;
    // By a server of its own: what it needed to make the links is not what redirects need.
    let maker = bench.servers.terse(&bench.terse, &data)?;
    let pairs = on_core(bench.cores.generator, || fill(maker.address, count))?;
    maker.stop()?;
    let server = bench.servers.terse_set(&bench.terse, &data, roles, &settings)?;
    let empty = resident(server.pid())? as f64 / 1e6;
    let links = Targets::of(&pairs);
    on_core(bench.cores.generator, || follow_all(server.address, &links, CONNECTIONS))?;
    println!("{name}: {count} links");
    Ok((Loaded { server, data, links }, empty))
}

fn wants_any(bench: &Bench<'_>, who: Who) -> bool {
    bench.run.wants(who.kept()) || bench.run.wants(&who.churn()) || bench.run.wants(&who.half())
}

/// Whether a series follows all links.
fn wants_many(bench: &Bench<'_>, sizes: Sizes) -> bool {
    let names = ["zipf", "uniform"].map(|law| codes(sizes.many, law));
    names.iter().any(|name| bench.run.wants(name)) || bench.run.wants(HIT_RATIO)
}

fn wants_main(bench: &Bench<'_>, sizes: Sizes) -> bool {
    let names = ["zipf", "uniform"].map(|law| codes(sizes.some, law));
    let half = ALL.iter().any(|who| bench.run.wants(&who.half()));
    let own = wants_any(bench, Who::Terse) || bench.run.wants(UNKNOWN);
    own || half || wants_many(bench, sizes) || names.iter().any(|name| bench.run.wants(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_is_bounded_by_its_entries() {
        let text = |entries| cache_of(entries).into_iter().map(|(_, value)| value).collect::<Vec<_>>();
        assert_eq!(text(100_000), ["100000", "50000KiB"]);
        assert_eq!(text(1), ["1", "1024KiB"]);
    }
}
