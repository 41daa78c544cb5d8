//! No node is left. What is cached redirects, the rest is refused, soon at
//! once; and when the nodes are back, so is the server, without help.

use std::ops::Range;
use std::time::{Duration, Instant};

use serde_json::json;

use super::nodes::tell;
use super::{Form, Stage, without_end};
use crate::cluster::{Keyspace, SERVE_LIMIT, await_quorum};
use crate::load::{Kind, KnownLink, Ledger, Load, Plan, seed};
use crate::{API_LINKS, Client, await_some, await_true};

/// How long a refusal may take before the breakers are open.
const BEFORE_OPEN: Duration = Duration::from_secs(1);
/// How long it may take from then on.
const ONCE_OPEN: Duration = Duration::from_millis(100);
/// By when the breakers are open.
const OPEN_BY: Duration = Duration::from_secs(2);
/// How long after the first quorum read of a fresh session all may take to be normal.
const NORMAL_WITHIN: Duration = Duration::from_secs(12);
/// How long it may take in the quick form: a bound, no promise.
const NORMAL_AT_ALL: Duration = Duration::from_secs(60);
/// How long an answer under way may take when the nodes come back.
const MARGIN: Duration = Duration::from_secs(3);

/// All three nodes paused; in the full form killed too.
pub(super) fn all_down(stage: &mut Stage<'_>) {
    let keyspace = stage.cluster().keyspace("all");
    let server = Stage::cached(&keyspace).start();
    let links = seed(&server.client(), "kept", stage.links());
    let mut fresh = Stage::cached(&keyspace).start();
    // What this server has never been asked for it can't have in memory.
    let (hot, cold) = links.split_at(links.len() / 2);
    hot.iter().for_each(|link| assert_eq!(fresh.client().target(&link.code), link.target));
    drop(server);

    outage(stage, &fresh.client(), &keyspace, (hot, cold), "paused");
    if stage.form == Form::Full {
        fresh.stop(crate::Stop::Politely);
        fresh.restart();
        hot.iter().for_each(|link| assert_eq!(fresh.client().target(&link.code), link.target));
        outage(stage, &fresh.client(), &keyspace, (hot, cold), "killed");
    }
}

fn outage(
    stage: &mut Stage<'_>,
    client: &Client,
    keyspace: &Keyspace,
    (hot, cold): (&[KnownLink], &[KnownLink]),
    how: &str,
) {
    let plan = stage.form.pick((80, 8, 8), (150, 15, 15));
    let servers = vec![client.address()];
    let (redirects, creates, unknown) = plan;
    let load = stage.load(Plan { servers: servers.clone(), links: hot.to_vec(), redirects, creates, unknown });
    load.run_for(Duration::from_secs(2));
    let (mut paused, mut killed) = (Vec::new(), Vec::new());
    let fault = stage.timeline.fault(&format!("all nodes {how}"));
    let nodes = 0..stage.cluster().len();
    match how {
        "paused" => paused.extend(nodes.map(|number| stage.cluster().pause(number))),
        _ => killed.extend(nodes.map(|number| stage.cluster().kill(number))),
    }
    let cold_plan = Plan { servers, links: cold.to_vec(), redirects: 40, creates: 0, unknown: 0 };
    let cold_load = Load::start_noted(cold_plan, &stage.timeline, |_, _| "redirect, not in memory");
    let cold_down = cold_load.run_for(stage.form.pick(Duration::from_secs(8), Duration::from_secs(20)));
    let cold_ledger = cold_load.stop();
    let down = load.elapsed() - (cold_down.end - cold_down.start)..load.elapsed();
    assert_eq!(client.get("/readyz").status, 200, "a server without its store is ready: it redirects");
    assert_eq!(client.get("/health").status, 503);

    paused.into_iter().for_each(crate::cluster::Paused::resume);
    killed.into_iter().for_each(crate::cluster::Killed::restart);
    let query = format!("SELECT name FROM {}.settings", keyspace.name());
    let readable = await_quorum(stage.cluster().addresses(), &query, SERVE_LIMIT);
    fault.end();
    let normal = await_normal(client, cold, readable);
    stage.cluster().await_whole(SERVE_LIMIT);
    let from = load.elapsed();
    load.run_for(Duration::from_secs(2));
    let after = from..load.elapsed();
    let ledger = load.stop();

    tell(stage, &ledger, how, &down);
    stage
        .report
        .window(&format!("{how}: redirect of an uncached link"), &cold_ledger.window(Kind::Redirect, &cold_down));
    stage.report.time(&format!("{how}: normal after the first quorum read"), normal);
    stage.assert_within("normal again", normal, NORMAL_WITHIN);
    ledger.assert_truthful();
    cold_ledger.assert_truthful();
    ledger.assert_all_good(Kind::Redirect, &ledger.whole());
    for kind in [Kind::Create, Kind::Unknown] {
        check_refusals(stage, &ledger, kind, &without_end(&down, MARGIN));
        stage.assert_answered(&ledger, kind, &after);
    }
    check_refusals(stage, &cold_ledger, Kind::Redirect, &without_end(&cold_down, MARGIN));
    ledger.assert_nothing_lost(&[client.address()]);
}

/// All of `kind` is refused, and in time. A probe of a half-open breaker still
/// asks the store, so among many there are some slower ones.
fn check_refusals(stage: &mut Stage<'_>, ledger: &Ledger, kind: Kind, down: &Range<Duration>) {
    ledger.assert_all_refused(kind, down);
    let whole = ledger.window(kind, down);
    let open = ledger.window(kind, &(down.start + OPEN_BY..down.end));
    stage.report.window(&format!("breakers open: refused {kind}"), &open);
    stage.assert_within("the slowest refusal", whole.max, BEFORE_OPEN);
    stage.assert_within("p99 of refusals with open breakers", open.p99, ONCE_OPEN);
}

/// How long after `readable` uncached links redirect, unknown codes are 404, and links are made.
fn await_normal(client: &Client, cold: &[KnownLink], readable: Instant) -> Duration {
    let mut number = 0;
    await_some("all to be normal", NORMAL_AT_ALL, || {
        number += 1;
        let link = &cold[number % cold.len()];
        let redirects = client.visit(&link.code).status == 302;
        let unknown = client.visit(&format!("nobody-{number}")).status == 404;
        let made = client.post(API_LINKS, &json!({ "url": "https://example.com/again" })).status == 201;
        (redirects && unknown && made).then(|| readable.elapsed())
    })
    .max(await_health(client, readable))
}

fn await_health(client: &Client, readable: Instant) -> Duration {
    await_true("/health to be 200", NORMAL_AT_ALL, || client.get("/health").status == 200);
    readable.elapsed()
}
