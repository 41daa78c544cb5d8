//! Clicks over a real RabbitMQ, counted on the cluster by one of several servers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use terse_it::cluster::{Cluster, Keyspace};
use terse_it::{Setup, Stop, heavy_turn};

use crate::broker::{Ends, await_total, check, click, shared_broker, verify, with_broker};
use crate::reference::assert_metrics;

/// A first start on a keyspace makes its tables.
const KEYSPACE_LIMIT: Duration = Duration::from_secs(120);

/// Servers that share a keyspace of links and one of statistics.
struct Shared {
    setup: Setup,
    _links: Keyspace,
    _stats: Keyspace,
}

impl Shared {
    fn new(cluster: &Cluster) -> Self {
        let (links, stats) = (cluster.keyspace("links"), cluster.keyspace("stats"));
        let setup = with_broker(&shared_broker()).ready_within(KEYSPACE_LIMIT);
        let setup = setup.env("TERSE_STORE", &links.store()).env("TERSE_STATS", &stats.store());
        Self { setup, _links: links, _stats: stats }
    }

    /// The same on a data directory of its own.
    fn elsewhere(&self, name: &str) -> Setup {
        self.setup.clone().data_in(&self.setup.place().join(name))
    }
}

#[test]
fn two_servers_publish_and_one_counts_on_a_cluster() {
    let _turn = heavy_turn();
    let cluster = Cluster::from_env();
    let shared = Shared::new(&cluster);
    let front = |name| shared.elsewhere(name).flag("--role=redirect").flag("--role=api");
    let one = front("one").start();
    let mut other = front("other").start();
    let counting = shared.elsewhere("counting").flag("--role=analytics").start();
    let codes: Vec<String> =
        (0..12).map(|number| one.client().shorten(&format!("https://example.com/{number}"))).collect();
    for round in 1..=3 {
        for code in &codes {
            click(&one.client(), code, 5);
            click(&other.client(), code, 4);
        }
        if round == 2 {
            other.stop(Stop::AtOnce);
            other.restart();
        }
    }
    for code in &codes {
        await_total(&one.client(), code, 27);
        await_total(&other.client(), code, 27);
    }
    assert_eq!(check(&counting.client(), "bus:partitions")["observedValue"], 8);
    let clients = [one.client(), counting.client()];
    assert_metrics(&clients, &["with links in a keyspace", "with a message broker"]);
    // A replay beside servers that go on, from a keyspace into a file and into another keyspace.
    let into = cluster.keyspace("fresh");
    let ended = AtomicBool::new(false);
    let more = std::thread::scope(|scope| {
        let visitor = scope.spawn(|| {
            let mut more = 0;
            while !ended.load(Ordering::SeqCst) {
                codes.iter().for_each(|code| click(&one.client(), code, 1));
                more += 1;
                std::thread::sleep(Duration::from_millis(100));
            }
            more
        });
        let ends = Ends(&ended);
        let said = verify(&shared.elsewhere("one"), "fresh.sqlite");
        println!("{said}");
        println!("{}", verify(&shared.elsewhere("one"), &into.store()));
        drop(ends);
        visitor.join().unwrap()
    });
    for code in &codes {
        await_total(&other.client(), code, 27 + more);
    }
    let refused = shared.elsewhere("one").run(&["replay", "--into", &into.store()]);
    assert!(refused.code == Some(64) && refused.stderr.contains("holds statistics already"), "{refused:?}");
}
