//! A deployment on the broker: a journal, its relay, a projector, and a ledger of what was clicked.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};
use lapin::{Channel, Connection, ConnectionProperties};
use tempfile::TempDir;
use terse_clicks::enrich::Enrichment;
use terse_clicks::journal::{Journal, JournalConfig, MIN_BLOCK_BYTES, SyncPolicy};
use terse_clicks::projector::{Projector, ProjectorConfig};
use terse_clicks::rabbit::{BrokerConfig, CheckpointNeeds, Needs, Relay, RelayConfig, StreamLog};
use terse_core::click::{Click, ClickRecorder, ClickRecording, JournalId, Signals};
use terse_core::ports::StoreError;
use terse_core::ports::clicks::{Bus, ReadModel};
use terse_core::stats::Span;
use terse_core::{Clock, Timestamp, Version};
use terse_testkit::clicks::{ClickStore, ClickStoreKind};
use terse_testkit::{Proxy, SeededEntropy};

/// How long anything may take that waits for the broker.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const PARTITIONS: u16 = 4;

pub(crate) struct SystemClock(Instant);

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64)
    }

    fn monotonic_ms(&self) -> u64 {
        self.0.elapsed().as_millis() as u64
    }
}

pub(crate) fn address() -> String {
    std::env::var("TERSE_AMQP").expect("TERSE_AMQP names a RabbitMQ, such as amqp://guest:guest@127.0.0.1:5672/%2f")
}

/// The address of the broker as a socket's, and with that of a proxy in its place.
pub(crate) fn through(proxy: &Proxy) -> String {
    let (url, authority) = (address(), authority());
    url.replacen(&authority, &proxy.address().to_string(), 1)
}

fn authority() -> String {
    let url = address();
    let rest = url.split_once("://").unwrap().1;
    let rest = rest.split_once('@').map_or(rest, |(_, rest)| rest);
    rest.split('/').next().unwrap().to_owned()
}

pub(crate) fn proxy() -> Proxy {
    let upstream = authority().to_socket_addrs().unwrap().next().unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    Proxy::start(upstream, any).unwrap()
}

/// A name that no other test has, now or before.
fn unique() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
    format!("t{now:x}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

pub(crate) struct Deployment {
    pub(crate) broker: BrokerConfig,
    pub(crate) store: Arc<ClickStore>,
    pub(crate) clock: Arc<dyn Clock>,
    directory: TempDir,
    ledger: BTreeMap<String, u64>,
    processes: u64,
}

impl Deployment {
    pub(crate) fn new() -> Self {
        Self::at(&address())
    }

    pub(crate) fn at(address: &str) -> Self {
        Self {
            broker: BrokerConfig::new(address, &unique(), PARTITIONS).unwrap(),
            store: ClickStore::new(ClickStoreKind::Positions, 1),
            clock: Arc::new(SystemClock(Instant::now())),
            directory: tempfile::tempdir().unwrap(),
            ledger: BTreeMap::new(),
            processes: 0,
        }
    }

    fn entropy(&mut self) -> SeededEntropy {
        self.processes += 1;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        SeededEntropy::new(now ^ self.processes)
    }

    pub(crate) fn journal(&mut self) -> Arc<Journal> {
        let config = JournalConfig {
            block_bytes: MIN_BLOCK_BYTES,
            seal_age_ms: 10,
            sync: SyncPolicy::None,
            partitions: PARTITIONS,
            ..JournalConfig::new(self.directory.path().join("journal"))
        };
        Journal::open(&config, Arc::clone(&self.clock), &self.entropy()).unwrap()
    }

    pub(crate) fn relay_config(&self) -> RelayConfig {
        RelayConfig::new(self.broker.clone(), self.directory.path().join("journal"))
    }

    pub(crate) fn relay(&mut self, journal: Option<&Arc<Journal>>) -> Relay {
        let needs = Arc::new(CheckpointNeeds(self.store.writer() as Arc<dyn ReadModel>));
        self.relay_with(self.relay_config(), journal, needs)
    }

    pub(crate) fn relay_with(
        &mut self,
        config: RelayConfig,
        journal: Option<&Arc<Journal>>,
        needs: Arc<dyn Needs>,
    ) -> Relay {
        let entropy = self.entropy();
        Relay::new(config, journal.cloned(), needs, Arc::clone(&self.clock), &entropy).unwrap()
    }

    pub(crate) fn stream_log(&mut self) -> StreamLog {
        StreamLog::new(self.broker.clone(), &self.entropy()).unwrap()
    }

    pub(crate) fn projector(&mut self) -> Projector {
        let (log, entropy) = (self.stream_log(), self.entropy());
        let mut config = ProjectorConfig::new(Bus::Streams { partitions: PARTITIONS }, "projector");
        config.write_age_ms = 20;
        let enrichment = Enrichment::new(["short.example"], None);
        let clock = Arc::clone(&self.clock);
        Projector::new(config, Box::new(log), self.store.writer(), enrichment, clock, &entropy).unwrap()
    }

    /// Clicks `count` times on each of `codes`, and notes it.
    pub(crate) fn click(&mut self, recorder: &mut dyn ClickRecorder, codes: u64, count: u64) {
        for number in 0..count {
            for code in 0..codes {
                let code = format!("code{code}");
                recorder.record(&self.of(&code, number)).unwrap();
                *self.ledger.entry(code).or_default() += 1;
            }
        }
        recorder.seal_if_old(u64::MAX);
    }

    fn of<'a>(&self, code: &'a str, number: u64) -> Click<'a> {
        Click {
            at: self.clock.now(),
            code,
            version: Version::FIRST,
            client: Some([203, 0, 113, (number % 251) as u8].into()),
            referrer: b"https://news.example/story",
            user_agent: b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
            language: b"en-GB,en;q=0.5",
            signals: Signals::default(),
        }
    }

    /// The clicks that stand in the read model, by code.
    pub(crate) fn counted(&self) -> BTreeMap<String, u64> {
        let rows = self.store.rows().into_iter().filter(|(key, _)| key.span == Span::All);
        rows.map(|(key, row)| (key.code.to_string(), row.clicks + row.bots)).collect()
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.counted() == self.ledger
    }

    /// Steps relay and projector until all that was clicked is counted, and sees that no more is.
    pub(crate) async fn settle(&self, relay: &mut Relay, projector: &mut Projector) {
        let deadline = Instant::now() + PATIENCE;
        while !self.is_settled() {
            let reports = (relay.progress().report(), projector.progress().report());
            let (counted, ledger) = (self.counted(), &self.ledger);
            assert!(Instant::now() < deadline, "{counted:?} was counted of {ledger:?}; {reports:?}");
            relay.run_once(20).await;
            projector.run_once(20).await.unwrap();
        }
        self.quiet(relay, projector).await;
        assert_eq!(self.counted(), self.ledger);
    }

    /// Steps until nothing is left, with some more steps of the projector.
    pub(crate) async fn quiet(&self, relay: &mut Relay, projector: &mut Projector) {
        self.relay_all(relay).await;
        let mut quiet = 0;
        while quiet < 5 {
            let step = projector.run_once(20).await.unwrap();
            quiet = if step.taken == 0 && !step.wrote { quiet + 1 } else { 0 };
        }
        projector.write_now().await.unwrap();
    }

    /// Steps until all is confirmed.
    pub(crate) async fn relay_all(&self, relay: &mut Relay) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let step = relay.run_once(20).await;
            if step.idle {
                return;
            }
            assert!(Instant::now() < deadline, "{:?}", relay.progress().report());
            tokio::time::sleep(Duration::from_millis(step.pause_ms)).await;
        }
    }

    /// Where its journals are.
    pub(crate) fn journals(&self) -> PathBuf {
        self.directory.path().join("journal")
    }

    /// The number of leading blocks of `journal` that are told to be passed.
    pub(crate) fn passed(&self, journal: JournalId) -> u64 {
        let file = self.directory.path().join("journal").join(journal.to_string()).join("passed");
        std::fs::read(file).map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().unwrap()))
    }

    /// Removes its exchanges and queues.
    pub(crate) async fn clean(self) {
        let (_connection, channel) = channel().await;
        let queues = (0..PARTITIONS).map(|partition| self.broker.stream(partition)).chain([self.broker.dead_queue()]);
        for queue in queues {
            channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
        }
        for exchange in [self.broker.exchange(), self.broker.events_exchange()] {
            channel.exchange_delete(exchange.into(), ExchangeDeleteOptions::default()).await.unwrap();
        }
    }
}

/// A connection of the test's own.
pub(crate) async fn channel() -> (Connection, Channel) {
    let connection = Connection::connect(&address(), ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
}

pub(crate) fn recorder(journal: &Arc<Journal>) -> Box<dyn ClickRecorder> {
    journal.of_a_worker()
}

/// Needs that a test sets.
pub(crate) struct FixedNeeds(pub(crate) Result<Option<u64>, StoreError>);

#[async_trait]
impl Needs for FixedNeeds {
    async fn first_needed(&self, _: u16) -> Result<Option<u64>, StoreError> {
        self.0.clone()
    }
}
