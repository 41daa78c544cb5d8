//! Two servers start on an empty keyspace at once, and are killed again and
//! again while they hold leased ids: ids may be lost, codes are never given twice.

use std::collections::{HashMap, HashSet};
use std::net::TcpListener;
use std::time::Duration;

use serde_json::Value;

use super::Stage;
use crate::cluster::{Cluster, Consistency, Keyspace, Row};
use crate::load::{Kind, Plan, seed};
use crate::{Server, Setup, Stop};

/// Ids leased at once: few enough that every round leases again, many enough that a kill loses some.
const BLOCK: &str = "200";
/// How long links are made between two kills.
const BETWEEN_KILLS: Duration = Duration::from_millis(700);
/// Links made per second meanwhile.
const CREATES: u32 = 60;

/// Two first starts at once, then kill -9 of either, mid-lease.
pub(super) fn first_start(stage: &mut Stage<'_>) {
    let keyspace = stage.cluster().keyspace("first");
    // An address of its own for life, as servers have: it names the holder of leases.
    let setup = || Stage::cached(&keyspace).env("TERSE_CODE_BLOCK", BLOCK).env("TERSE_LISTEN", &free_address());
    let mut servers = [setup().launch(), setup().launch()];
    let took = servers.each_mut().map(Server::await_ready);
    stage.report.time("both ready", took[0].max(took[1]));
    assert_one_schema(stage.cluster(), &keyspace);

    let identities = servers.each_ref().map(|server| identity(server.setup()));
    assert_eq!(identities[0], identities[1], "the servers made a key each");

    let mut owners = HashMap::new();
    for (number, server) in servers.iter().enumerate() {
        for link in seed(&server.client(), &format!("first-{number}"), 50) {
            assert!(owners.insert(link.code.clone(), link.target).is_none(), "{} was given twice", link.code);
        }
    }
    let rounds = stage.form.pick(4, 20);
    for round in 0..rounds {
        kill_mid_lease(stage, &mut servers, round, &mut owners);
    }
    for server in &servers {
        let client = server.client();
        owners.iter().for_each(|(code, target)| assert_eq!(client.target(code), *target));
    }
    stage.report.count("kills", rounds);
    stage.report.count("links, each with a code of its own", owners.len());
    audit(stage, servers[0].setup(), owners.len());
}

/// Makes links through both servers, kills one of them meanwhile, and starts it again.
fn kill_mid_lease(stage: &Stage<'_>, servers: &mut [Server; 2], round: usize, owners: &mut HashMap<String, String>) {
    let addresses = servers.iter().map(Server::address).collect();
    let load = stage.load(Plan { servers: addresses, links: vec![], redirects: 0, creates: CREATES, unknown: 0 });
    load.run_for(BETWEEN_KILLS);
    let victim = &mut servers[round % 2];
    let (killed_at, killed) = (load.elapsed(), victim.address());
    let fault = stage.timeline.fault(&format!("server {} killed", round % 2 + 1));
    victim.stop(Stop::AtOnce);
    load.run_for(BETWEEN_KILLS / 2);
    let ledger = load.stop();
    victim.restart();
    fault.end();
    for link in ledger.made() {
        let before = owners.insert(link.code.clone(), link.target.clone());
        assert!(before.is_none(), "round {round}: {} was given to {before:?} and to {}", link.code, link.target);
    }
    let made =
        |server| ledger.records.iter().filter(|record| record.server == server && record.outcome.is_good()).count();
    assert!(made(killed) > 0, "round {round}: nothing was made through the killed server in {killed_at:?}");
    let survivors = ledger.window_if(Kind::Create, &(killed_at..Duration::MAX), |record| record.server != killed);
    assert!(survivors.good > 0, "round {round}: the other server made nothing: {survivors}");
}

/// An address that nothing listens on.
fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    listener.unwrap_or_else(|error| panic!("no free port: {error}")).to_string()
}

/// The deployment's id and key, as the server keeps them beside the store.
fn identity(setup: &Setup) -> String {
    let path = setup.data().join("identity.json");
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All nodes have the same tables, and one version of the schema.
fn assert_one_schema(cluster: &Cluster, keyspace: &Keyspace) {
    let tables = format!("SELECT table_name, id FROM system_schema.tables WHERE keyspace_name = '{}'", keyspace.name());
    let told = |query: &str| -> HashSet<Vec<Row>> {
        let ask = |number| cluster.ask(number, query, Consistency::One);
        (0..cluster.len()).map(|number| ask(number).unwrap_or_else(|error| panic!("{query}: {error}"))).collect()
    };
    let known = told(&tables);
    assert_eq!(known.len(), 1, "the nodes disagree on the tables: {known:?}");
    assert!(known.iter().all(|rows| rows.len() > 5), "{known:?}");
    let versions = told("SELECT schema_version FROM system.local");
    assert_eq!(versions.len(), 1, "the nodes have {} versions of the schema", versions.len());
}

/// What the audit of leases must find: nothing leased twice, a link for every id that made one, and
/// the ids that kills cost as gaps.
fn audit(stage: &mut Stage<'_>, setup: &Setup, acknowledged: usize) {
    let audit = setup.run(&["shards", "leases", "--limit", "10000", "--json"]);
    assert_eq!(audit.code, Some(0), "{audit:?}");
    let told: Value = serde_json::from_str(&audit.stdout).unwrap_or_else(|error| panic!("{error}: {audit:?}"));
    let none = |list: &str| assert_eq!(told[list].as_array().map(Vec::len), Some(0), "{list}: {}", told[list]);
    none("overlaps");
    none("unrecorded");
    let sum = |name: &str| {
        let number = told["summary"][name].as_u64().and_then(|number| usize::try_from(number).ok());
        number.unwrap_or_else(|| panic!("no {name} in {}", told["summary"]))
    };
    assert_eq!((sum("unread_blocks"), sum("older_links")), (0, 0), "{}", told["summary"]);
    assert!(sum("links") >= acknowledged, "{acknowledged} links were acknowledged: {}", told["summary"]);
    assert!(sum("gap_blocks") > 0, "kills cost no ids: {}", told["summary"]);
    for name in ["ids", "links", "gap_ids", "open_ids"] {
        stage.report.count(&format!("audit: {name}"), sum(name));
    }
}
