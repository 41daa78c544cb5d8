//! Two shards, the wires of one cut: the other one must not notice.

use std::ops::Range;
use std::time::Duration;

use terse_testkit::Mode;

use super::wires::is_low;
use super::{FIRST_START_LIMIT, Stage, Wires, shards_file};
use crate::cluster::Keyspace;
use crate::load::{Kind, KnownLink, Ledger, Load, Record, Window, seed};
use crate::{Client, Server, Setup, Stop, await_true};

/// How many times the worst fault-free p99 the other shard's p99 may be.
const P99_FACTOR: u32 = 2;
/// Below this the machine's own noise is all there is to measure.
const P99_FLOOR: Duration = Duration::from_millis(10);
/// How long the cut shard may take to be back.
const BACK_LIMIT: Duration = Duration::from_secs(30);

/// Two shards with wires of their own.
struct TwoShards {
    low: (Wires, Keyspace),
    high: (Wires, Keyspace),
}

impl TwoShards {
    fn new(stage: &Stage<'_>) -> Self {
        let shard = |purpose: &str| (Wires::to(stage.cluster()), stage.cluster().keyspace(purpose));
        Self { low: shard("low"), high: shard("high") }
    }

    fn setup(&self) -> Setup {
        let shards =
            [self.low.0.shard("low", "0-2047", &self.low.1), self.high.0.shard("high", "2048-4095", &self.high.1)];
        Setup::new().ready_within(FIRST_START_LIMIT).env("TERSE_CACHE_ENTRIES", "1").file(&shards_file(&shards))
    }
}

/// One of two shards cut off, either of them, and a start without the first.
pub(super) fn shard_cut(stage: &mut Stage<'_>) {
    let shards = TwoShards::new(stage);
    let mut server = shards.setup().start();
    let links = seed(&server.client(), "kept", stage.links());
    let (low, high): (Vec<KnownLink>, Vec<KnownLink>) = links.iter().cloned().partition(|link| is_low(&link.code));
    assert!(low.len() > links.len() / 4 && high.len() > links.len() / 4, "{} low, {} high", low.len(), high.len());
    let load = Load::start_noted(stage.plan(&[&server], &links), &stage.timeline, lane);
    let calm: Vec<_> = (0..3).map(|_| load.run_for(stage.form.pick(secs(2), secs(10)))).collect();
    // The first shard keeps settings, keys and leases too, so it is the harder one to lose.
    let fault = stage.timeline.fault("the wires of the first shard cut");
    shards.low.0.set(Mode::Cut);
    let cut = load.run_for(stage.form.pick(secs(5), secs(10)));
    shards.low.0.restore();
    fault.end();
    await_back(&server.client(), &low);
    let back = load.run_for(secs(2));
    let ledger = load.stop();
    ledger.assert_truthful();
    check_other(stage, &ledger, &calm, &cut);
    let back = ledger.window_if(Kind::Redirect, &back, |record| is_low(&record.code));
    stage.report.window("restored: redirect on the shard that was cut", &back);
    assert_eq!(back.good, back.requests, "{back}");
    ledger.assert_nothing_lost(&[server.address()]);
    start_without_first(&shards, &mut server, &low, &high);
}

/// Redirects are told apart by the shard they are of.
fn lane(kind: Kind, code: &str) -> &'static str {
    match kind {
        Kind::Redirect if is_low(code) => "redirect, shard that is cut",
        Kind::Redirect => "redirect, other shard",
        kind => kind.name(),
    }
}

/// The shard that was not cut is as it was.
fn check_other(stage: &mut Stage<'_>, ledger: &Ledger, calm: &[Range<Duration>], cut: &Range<Duration>) {
    let redirects = |time: &Range<Duration>, low: bool| -> Window {
        ledger.window_if(Kind::Redirect, time, |record: &Record| is_low(&record.code) == low)
    };
    for (number, time) in calm.iter().enumerate() {
        stage.report.window(&format!("fault-free {}: redirect", number + 1), &redirects(time, false));
    }
    let (other, gone) = (redirects(cut, false), redirects(cut, true));
    stage.report.window("one shard cut: redirect on the other", &other);
    stage.report.window("one shard cut: redirect on it", &gone);
    stage.report.window("one shard cut: create", &ledger.window(Kind::Create, cut));
    assert_eq!(other.good, other.requests, "the other shard noticed: {other}");
    assert!(gone.refused > 0, "the shard was not cut off at all: {gone}");
    let worst = calm.iter().map(|time| redirects(time, false).p99).max().unwrap_or_default();
    stage.assert_within("p99 of the other shard", other.p99, worst.max(P99_FLOOR) * P99_FACTOR);
    let created = ledger.within(Kind::Create, cut).filter(|record| record.outcome.is_good());
    let (low, high): (Vec<&Record>, Vec<&Record>) = created.partition(|record| is_low(&record.code));
    assert!(low.is_empty(), "links were made on a shard that is cut off: {low:?}");
    assert!(!high.is_empty(), "no link could be made on the other shard");
}

/// A server that has run before redirects from the other shards when the first is out of reach at its start.
fn start_without_first(shards: &TwoShards, server: &mut Server, low: &[KnownLink], high: &[KnownLink]) {
    server.stop(Stop::Politely);
    shards.low.0.set(Mode::Cut);
    server.restart();
    let client = server.client();
    await_true("the second shard to be connected", BACK_LIMIT, || client.visit(&high[0].code).status == 302);
    for link in high {
        assert_eq!(client.target(&link.code), link.target);
    }
    let refused = client.visit(&low[0].code).expect(503);
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    let health = client.get("/health").expect(200);
    assert_eq!(health.json()["status"], "degraded", "{}", health.text());
    shards.low.0.restore();
    await_back(&client, low);
}

fn await_back(client: &Client, links: &[KnownLink]) {
    await_true("the shard that was cut off to be back", BACK_LIMIT, || {
        let answers = links.iter().take(3).all(|link| client.visit(&link.code).status == 302);
        answers && client.get("/health").json()["status"] == "ok"
    });
}

fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}
