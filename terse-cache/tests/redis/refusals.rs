//! A Redis that answers, but with a refusal.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use terse_cache::{Credentials, RedisConfig, SharedCache};
use terse_core::Version;
use terse_resilience::State;

use crate::service::Server;
use crate::setup::{Setup, code, link, patient, raw};

async fn tell(setup: &Setup, words: &[&str]) {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    let _: () = command.query_async(&mut raw((setup.config.host.as_str(), setup.config.port)).await).await.unwrap();
}

#[tokio::test]
async fn a_full_redis_keeps_nothing_new_and_goes_on_answering() {
    let server = Server::start(&["--maxmemory-policy", "noeviction"]);
    let setup = Setup::warm(patient(server.address)).await;
    setup.cache.put(&code("abc"), &link("abc", 1)).await;
    tell(&setup, &["CONFIG", "SET", "maxmemory", "1"]).await;
    for _ in 0..20 {
        setup.cache.put(&code("new"), &link("new", 1)).await;
    }
    assert_eq!(setup.count("put", "fault"), 20);
    assert_eq!(setup.breaker.state(), State::Closed, "look-ups work");
    assert_eq!(setup.cache.get(&code("abc")).await, Some(link("abc", 1)));
    assert_eq!(setup.cache.get(&code("new")).await, None);
    setup.cache.drop_older(&code("abc"), Version(2)).await;
    assert_eq!(setup.cache.get(&code("abc")).await, None, "what is old is dropped all the same");
    tell(&setup, &["CONFIG", "SET", "maxmemory", "0"]).await;
    setup.cache.put(&code("new"), &link("new", 1)).await;
    assert_eq!(setup.cache.get(&code("new")).await, Some(link("new", 1)));
}

#[tokio::test]
async fn a_redis_that_evicts_forgets_and_nothing_else() {
    let server = Server::start(&["--maxmemory-policy", "allkeys-lru"]);
    let setup = Setup::warm(patient(server.address)).await;
    setup.cache.put(&code("abc"), &link("abc", 1)).await;
    tell(&setup, &["CONFIG", "SET", "maxmemory", "1"]).await;
    setup.cache.put(&code("new"), &link("new", 1)).await;
    assert_eq!(setup.cache.get(&code("abc")).await, None);
    assert_eq!(setup.count("get", "fault"), 0);
}

#[tokio::test]
async fn a_read_only_replica_is_read_and_not_written() {
    let server = Server::start(&[]);
    let setup = Setup::warm(patient(server.address)).await;
    setup.cache.put(&code("abc"), &link("abc", 1)).await;
    // Of a master that isn't there: what it has stays.
    tell(&setup, &["REPLICAOF", "127.0.0.1", "1"]).await;
    for _ in 0..20 {
        setup.cache.put(&code("abc"), &link("abc", 2)).await;
        setup.cache.drop_older(&code("abc"), Version(2)).await;
    }
    assert_eq!((setup.count("put", "fault"), setup.count("drop", "fault")), (20, 20));
    assert_eq!(setup.cache.get(&code("abc")).await, Some(link("abc", 1)));
    assert_eq!(setup.breaker.state(), State::Closed);
    tell(&setup, &["REPLICAOF", "NO", "ONE"]).await;
    setup.cache.put(&code("abc"), &link("abc", 2)).await;
    assert_eq!(setup.cache.get(&code("abc")).await, Some(link("abc", 2)));
}

/// A name that leads to one Redis and then to another: who is connected stays where it is.
struct Name {
    address: SocketAddr,
    leads_to: Arc<Mutex<SocketAddr>>,
}

impl Name {
    async fn leading_to(server: SocketAddr) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, leads_to) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(server)));
        let target = Arc::clone(&leads_to);
        // It ends with the test's runtime.
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let target = *target.lock();
                tokio::spawn(async move {
                    let mut server = tokio::net::TcpStream::connect(target).await.unwrap();
                    // However it ends, both are closed then.
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Self { address, leads_to }
    }
}

#[tokio::test]
async fn after_a_failover_the_connections_follow_the_name_to_the_new_master() {
    let (old, new) = (Server::start(&[]), Server::start(&[]));
    let name = Name::leading_to(old.address).await;
    let setup = Setup::warm(patient(name.address)).await;
    setup.cache.put(&code("abc"), &link("abc", 1)).await;
    tell(&setup, &["REPLICAOF", "127.0.0.1", "1"]).await;
    *name.leads_to.lock() = new.address;
    for _ in 0..setup.config.connections {
        setup.cache.put(&code("abc"), &link("abc", 2)).await;
    }
    assert_eq!(setup.count("put", "fault"), u64::from(setup.config.connections), "a replica takes no writes");
    setup.cache.upkeep_once().await;
    assert_eq!(setup.cache.connections(), setup.config.connections as usize);
    for _ in 0..setup.config.connections {
        setup.cache.put(&code("abc"), &link("abc", 2)).await;
        assert_eq!(setup.cache.get(&code("abc")).await, Some(link("abc", 2)));
    }
    assert_eq!(setup.count("put", "kept"), 1 + u64::from(setup.config.connections));
}

#[tokio::test]
async fn a_replica_that_stays_one_is_read_across_upkeep() {
    let server = Server::start(&[]);
    let setup = Setup::warm(patient(server.address)).await;
    setup.cache.put(&code("abc"), &link("abc", 1)).await;
    tell(&setup, &["REPLICAOF", "127.0.0.1", "1"]).await;
    for _ in 0..3 {
        setup.cache.put(&code("abc"), &link("abc", 2)).await;
        setup.cache.upkeep_once().await;
        assert_eq!(setup.cache.connections(), setup.config.connections as usize);
        assert_eq!(setup.cache.get(&code("abc")).await, Some(link("abc", 1)));
    }
}

/// As a Redis does that loads its data, or a replica without its master.
#[tokio::test]
async fn a_redis_that_refuses_look_ups_is_left_alone() {
    let server = Server::start(&["--replica-serve-stale-data", "no"]);
    let setup = Setup::warm(patient(server.address)).await;
    setup.cache.put(&code("abc"), &link("abc", 1)).await;
    tell(&setup, &["REPLICAOF", "127.0.0.1", "1"]).await;
    for _ in 0..20 {
        assert_eq!(setup.cache.get(&code("abc")).await, None);
    }
    assert_eq!(setup.breaker.state(), State::Open);
    assert_eq!((setup.count("get", "fault"), setup.count("get", "open")), (5, 15));
    let why = setup.cache.check().await.unwrap_err().to_string();
    assert!(why.to_lowercase().contains("masterdown"), "{why}");
    setup.cache.upkeep_once().await;
    assert_eq!(setup.cache.connections(), 2, "an answer is an answer: no other connection would help");
}

#[tokio::test]
async fn a_password_is_sent_and_a_wrong_one_is_told_without_repeating_it() {
    let alice = ["--user", "alice", "on", ">p@ss:/word", "~*", "+@all"];
    let server = Server::start(&[&["--requirepass", "right one"], &alice[..]].concat());
    let with = |user: Option<&str>, password: &str| {
        let credentials = Credentials { user: user.map(str::to_owned), password: password.to_owned() };
        RedisConfig { credentials: Some(credentials), ..patient(server.address) }
    };
    for config in [with(None, "right one"), with(Some("alice"), "p@ss:/word")] {
        let setup = Setup::warm(config).await;
        setup.cache.put(&code("abc"), &link("abc", 1)).await;
        assert_eq!(setup.cache.get(&code("abc")).await, Some(link("abc", 1)));
    }
    for config in [with(None, "wr0ng"), with(Some("bob"), "wr0ng"), patient(server.address)] {
        let setup = Setup::cold(config);
        setup.cache.upkeep_once().await;
        assert_eq!(setup.cache.connections(), 0);
        assert_eq!(setup.cache.get(&code("abc")).await, None);
        let why = setup.cache.check().await.unwrap_err().to_string();
        assert!(!why.contains("wr0ng") && why != "not connected", "{why}");
    }
}
