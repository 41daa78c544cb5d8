//! One node killed or paused, two nodes away: enough replicas are left to redirect.

use std::ops::Range;
use std::time::Duration;

use super::{Form, Stage, addresses, ask_until_answered, without_end};
use crate::cluster::{Paused, SERVE_LIMIT};
use crate::load::{Kind, KnownLink, Ledger, Load, seed};
use crate::{Request, Server, Stop};

/// What p99 of uncached redirects may be while one node is paused.
const PAUSED_P99: Duration = Duration::from_millis(150);
/// The time in which a paused node is found out: the case that drivers notice late.
const FOUND_OUT: Duration = Duration::from_secs(4);
/// How long a write that was begun before a fault ended may take; longer than the server's write deadline.
const WRITE_MARGIN: Duration = Duration::from_secs(4);
/// While a killed node is found out, creates may be refused; after that hardly any may.
const KILL_NOTICED: Duration = Duration::from_secs(2);
/// How many creates and unknown codes are answered in a row when all is as before.
const IN_A_ROW: usize = 30;
/// The share of creates that have to succeed with one node dead, in percent.
const CREATES_GO_ON: f64 = 95.0;

/// Kill -9 of one node under load, and its return.
pub(super) fn kill_node(stage: &mut Stage<'_>) {
    let keyspace = stage.cluster().keyspace("kill");
    let servers = [Stage::uncached(&keyspace).start(), Stage::uncached(&keyspace).start()];
    let servers = [&servers[0], &servers[1]];
    let links = seed(&servers[0].client(), "kept", stage.links());
    let load = stage.load(stage.plan(&servers, &links));
    let calm = load.run_for(stage.form.pick(Duration::from_secs(3), Duration::from_secs(10)));
    let fault = stage.timeline.fault("node 2 killed");
    let killed = stage.cluster().kill(1);
    let dead = load.run_for(stage.form.pick(Duration::from_secs(6), Duration::from_secs(20)));
    let from = load.elapsed();
    killed.restart();
    stage.cluster().await_whole(SERVE_LIMIT);
    fault.end();
    let returning = from..load.elapsed();
    let after = load.run_for(stage.form.pick(Duration::from_secs(3), Duration::from_secs(10)));
    let ledger = load.stop();
    for (name, window) in [("calm", &calm), ("dead", &dead), ("returning", &returning), ("after", &after)] {
        tell(stage, &ledger, name, window);
    }
    ledger.assert_truthful();
    ledger.assert_all_good(Kind::Redirect, &ledger.whole());
    let noticed = dead.start + KILL_NOTICED..dead.end;
    for (name, window) in [("with a dead node", &noticed), ("after its return", &after)] {
        let creates = ledger.window(Kind::Create, window);
        assert!(creates.availability() >= CREATES_GO_ON, "creates {name}: {creates}\n{:?}", ledger.faults());
    }
    ledger.assert_nothing_lost(&addresses(&servers));
    for client in servers.map(Server::client) {
        crate::await_true("/health to be 200", SERVE_LIMIT, || client.get("/health").status == 200);
    }
    assert_uses(stage, &servers, &ledger);
}

/// The node that returned is of use again: with another one away there is a quorum only with it.
fn assert_uses(stage: &Stage<'_>, servers: &[&Server], ledger: &Ledger) {
    let _paused = stage.cluster().pause(2);
    for server in servers {
        let client = server.client();
        crate::await_true("a create with the returned node and one other", Duration::from_secs(12), || {
            let answer = client.post(crate::API_LINKS, &serde_json::json!({ "url": "https://example.com/with-it" }));
            answer.status == 201
        });
        let link = &ledger.made().next().unwrap_or_else(|| panic!("nothing was made"));
        let answer = ask_until_answered(&mut client.connect(), &Request::new("GET", &format!("/{}", link.code)));
        assert_eq!(answer.header("location"), Some(link.target.as_str()), "{answer:?}");
    }
}

/// SIGSTOP of one node under load.
pub(super) fn pause_node(stage: &mut Stage<'_>) {
    let keyspace = stage.cluster().keyspace("pause");
    let server = Stage::uncached(&keyspace).start();
    let links = seed(&server.client(), "kept", stage.links());
    let load = stage.load(stage.plan(&[&server], &links));
    let calm = load.run_for(stage.form.pick(Duration::from_secs(3), Duration::from_secs(10)));
    let fault = stage.timeline.fault("node 2 stopped");
    let paused = stage.cluster().pause(1);
    let stopped = load.run_for(stage.form.pick(Duration::from_secs(5), Duration::from_secs(20)));
    paused.resume();
    fault.end();
    let after = load.run_for(stage.form.pick(Duration::from_secs(3), Duration::from_secs(10)));
    let ledger = load.stop();
    let first = stopped.start..stopped.start + FOUND_OUT;
    let windows = [("calm", &calm), ("stopped", &stopped), ("first four seconds of it", &first), ("after", &after)];
    for (name, window) in windows {
        tell(stage, &ledger, name, window);
        stage.assert_within(name, ledger.window(Kind::Redirect, window).p99, PAUSED_P99);
    }
    ledger.assert_truthful();
    ledger.assert_all_good(Kind::Redirect, &ledger.whole());
    stage.assert_answered(&ledger, Kind::Unknown, &ledger.whole());
    stage.assert_answered(&ledger, Kind::Create, &ledger.whole());
    ledger.assert_nothing_lost(&[server.address()]);
}

/// Two of three nodes away: one replica is left, which is enough to redirect and for nothing else.
pub(super) fn two_nodes_down(stage: &mut Stage<'_>) {
    let keyspace = stage.cluster().keyspace("two");
    let server = Stage::uncached(&keyspace).start();
    let links = seed(&server.client(), "kept", stage.links());
    // Every replica has all of it, so that what is missing later is missing for the fault's sake.
    stage.cluster().spread(&keyspace, links.iter().map(|link| &link.code));
    let mut restarted = Stage::uncached(&keyspace).start();
    let load = stage.load(stage.plan(&[&server], &links));
    let calm = load.run_for(Duration::from_secs(2));
    let fault = stage.timeline.fault("nodes 1 and 2 stopped");
    let paused: Vec<Paused<'_>> = [0, 1].map(|number| stage.cluster().pause(number)).into();
    let stopped = load.run_for(stage.form.pick(Duration::from_secs(8), Duration::from_secs(20)));
    assert_starts_beside_one_replica(&mut restarted, &links);
    paused.into_iter().for_each(Paused::resume);
    stage.cluster().await_whole(SERVE_LIMIT);
    fault.end();
    let mut windows = vec![("calm", calm), ("two paused", stopped)];
    if stage.form == Form::Full {
        settle(&load, &server);
        let fault = stage.timeline.fault("nodes 1 and 2 killed");
        let killed = [stage.cluster().kill(0), stage.cluster().kill(1)];
        let dead = load.run_for(Duration::from_secs(20));
        killed.into_iter().for_each(crate::cluster::Killed::restart);
        stage.cluster().await_whole(SERVE_LIMIT);
        fault.end();
        windows.push(("two killed", dead));
    }
    settle(&load, &server);
    let after = load.run_for(Duration::from_secs(3));
    windows.push(("after", after.clone()));
    let ledger = load.stop();
    windows.iter().for_each(|(name, window)| tell(stage, &ledger, name, window));
    ledger.assert_truthful();
    ledger.assert_all_good(Kind::Redirect, &ledger.whole());
    for (_, window) in windows.iter().filter(|(name, _)| name.starts_with("two")) {
        let sure = without_end(window, WRITE_MARGIN);
        ledger.assert_all_refused(Kind::Create, &sure);
        ledger.assert_all_refused(Kind::Unknown, &sure);
    }
    for kind in [Kind::Create, Kind::Unknown] {
        stage.assert_answered(&ledger, kind, &after);
    }
    ledger.assert_nothing_lost(&[server.address()]);
}

/// A server that has run before needs no quorum to start, and redirects.
fn assert_starts_beside_one_replica(server: &mut Server, links: &[KnownLink]) {
    server.stop(Stop::Politely);
    server.restart();
    let client = server.client();
    crate::await_true("a start beside one replica to redirect", Duration::from_secs(30), || {
        client.visit(&links[0].code).status == 302
    });
    for link in links.iter().take(20) {
        assert_eq!(client.target(&link.code), link.target);
    }
}

/// Waits until creates and unknown codes are answered as before, [`IN_A_ROW`] times without a refusal:
/// every node finds out by itself that the others are back, and each code asks other ones.
fn settle(load: &Load, server: &Server) {
    let client = server.client();
    let (mut number, mut row) = (0, 0);
    crate::await_true("creates and 404 again", SERVE_LIMIT, || {
        number += 1;
        let made = client.post(crate::API_LINKS, &serde_json::json!({ "url": "https://example.com/again" }));
        let unknown = client.visit(&format!("nobody-{}-{number}", load.elapsed().as_millis()));
        row = if made.status == 201 && unknown.status == 404 { row + 1 } else { 0 };
        row == IN_A_ROW
    });
}

/// Reports the three kinds within a window.
pub(super) fn tell(stage: &mut Stage<'_>, ledger: &Ledger, name: &str, window: &Range<Duration>) {
    for kind in [Kind::Redirect, Kind::Create, Kind::Unknown] {
        stage.report.window(&format!("{name}: {kind}"), &ledger.window(kind, window));
    }
}
