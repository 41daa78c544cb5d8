//! A log, a read model and the processes between them.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures_util::FutureExt;
use parking_lot::Mutex;
use terse_clicks::enrich::Enrichment;
use terse_clicks::log::Body;
use terse_clicks::part::{Part, PartHeader};
use terse_clicks::projector::{Projector, ProjectorConfig, Step};
use terse_clicks::record::Record;
use terse_core::click::{BlockId, JournalId, Signals};
use terse_core::ports::clicks::Bus;
use terse_core::stats::{Dimension, Partition, Row, RowKey, Span};
use terse_core::{Clock, ShortCode, Timestamp, Version};
use terse_testkit::clicks::{ClickModel, ClickStore, ClickStoreKind, ModelClick, ModelPart};
use terse_testkit::{SeededEntropy, TestClock};

use crate::log::MemoryLog;

pub(crate) const PERSON: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
pub(crate) const OTHER_PERSON: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) \
                                Chrome/140.0.0.0 Safari/537.36";
pub(crate) const PROGRAM: &str = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";

/// A click as a test tells it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    pub(crate) code: &'static str,
    pub(crate) at_ms: i64,
    pub(crate) agent: &'static str,
    pub(crate) visitor: u64,
}

/// Clicks of a person on `code`.
pub(crate) fn clicks(code: &'static str, count: usize) -> Vec<Told> {
    (0..count).map(|n| Told { code, at_ms: n as i64, agent: PERSON, visitor: n as u64 }).collect()
}

pub(crate) fn journal(number: u8) -> JournalId {
    JournalId([number; 16])
}

/// The block `seq` of `journal`, as its own worker sealed it.
pub(crate) fn block(journal: JournalId, seq: u64, told: &[Told]) -> Part {
    version(journal, seq, told, false, false)
}

/// A version of a block, or the end of a journal.
pub(crate) fn version(journal: JournalId, seq: u64, told: &[Told], recovered: bool, end: bool) -> Part {
    let header = PartHeader {
        block: BlockId { journal, seq },
        partition: 0,
        partitions: 1,
        block_records: told.len() as u32,
        recovered,
        end,
        sealed_at: Timestamp::from_millis(1_000 + seq as i64),
    };
    Part::new(header, told.iter().zip(0..).map(|(told, index)| (index, told.record())))
}

impl Told {
    fn record(&self) -> Record<'_> {
        Record {
            at: Timestamp::from_millis(self.at_ms),
            code: self.code,
            version: Version(1),
            network: None,
            visitor: Some(self.visitor),
            referrer: b"https://example.org/page",
            user_agent: self.agent.as_bytes(),
            language: b"de-DE,de;q=0.9",
            signals: Signals::default(),
        }
    }
}

pub(crate) struct World {
    pub(crate) bus: Bus,
    pub(crate) log: Arc<MemoryLog>,
    pub(crate) store: Arc<ClickStore>,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) config: ProjectorConfig,
    pub(crate) early: usize,
    processes: u64,
}

impl World {
    pub(crate) fn new(bus: Bus, kind: ClickStoreKind, seed: u64) -> Self {
        Self {
            bus,
            log: MemoryLog::new(),
            store: ClickStore::new(kind, seed),
            clock: Arc::new(TestClock::default()),
            config: ProjectorConfig::new(bus, "nobody"),
            early: 0,
            processes: 0,
        }
    }

    /// Streams, whose rows are ordered by positions.
    pub(crate) fn of_streams(partitions: u16) -> Self {
        let world = Self::new(Bus::Streams { partitions }, ClickStoreKind::Positions, 1);
        for number in 0..partitions {
            world.log.declare(Partition::Stream(number));
        }
        world
    }

    /// Journals, whose rows are written in transactions.
    pub(crate) fn local() -> Self {
        Self::new(Bus::Local, ClickStoreKind::Transactions, 1)
    }

    pub(crate) fn partitions(&self) -> u16 {
        match self.bus {
            Bus::Local => 1,
            Bus::Streams { partitions } => partitions,
        }
    }

    /// Publishes a block: to all streams, or to its journal.
    pub(crate) fn publish(&self, part: &Part) {
        match self.bus {
            Bus::Local => self.log.put_block(part.clone()),
            Bus::Streams { partitions } => {
                for part in part.split(partitions) {
                    self.log.push(Partition::Stream(part.header.partition), Body::Part(part));
                }
            }
        }
    }

    /// A new process.
    pub(crate) fn process(&mut self) -> Projector {
        self.processes += 1;
        let mut config = self.config.clone();
        config.holder = format!("process {}", self.processes);
        let log = self.log.reader(self.early, self.processes);
        let (clock, entropy) = (Arc::clone(&self.clock), SeededEntropy::new(self.processes));
        Projector::new(config, log, self.store.writer(), enrichment(), clock, &entropy).unwrap()
    }

    /// One step of `projector`, after a while; `None` = it died, or whoever called for it did.
    pub(crate) fn step(&self, projector: &mut Projector) -> Option<Step> {
        self.clock.advance(Duration::from_millis(100));
        projector.run_once(0).now_or_never().map(|step| step.unwrap())
    }

    /// Steps until nothing is left to take or write.
    ///
    /// # Panics
    /// If that takes more steps than it may, or the process dies.
    pub(crate) fn drain(&self, projector: &mut Projector) {
        const QUIET_STEPS: u32 = 12;
        const MOST_STEPS: u32 = 3_000;
        let mut quiet = 0;
        for _ in 0..MOST_STEPS {
            let step = self.step(projector).expect("no process dies while it drains");
            quiet = if step.taken == 0 && !step.wrote && step.pause_ms == 0 { quiet + 1 } else { 0 };
            if quiet == QUIET_STEPS {
                return;
            }
        }
        panic!("the log is not drained after {MOST_STEPS} steps");
    }

    /// A new process drains the log, after the leases of those before it ran out.
    pub(crate) fn drain_anew(&mut self) -> Projector {
        self.clock.advance(Duration::from_millis(self.config.lease_ms));
        let mut projector = self.process();
        self.drain(&mut projector);
        projector
    }

    /// What the read model must be for what is in the log.
    pub(crate) fn model(&self) -> ClickModel {
        let (mut model, mut enrichment) = (ClickModel::default(), enrichment());
        for (partition, messages) in self.log.messages() {
            for message in messages {
                let Body::Part(part) = &message.body else { continue };
                let clicks = part.records().map(|(index, record)| (index, told_apart(&record, &mut enrichment)));
                let part = ModelPart { block: part.header.block, clicks: clicks.collect() };
                model.deliver(partition, &part, enrichment.version());
            }
        }
        model
    }

    /// The read model is what it must be.
    pub(crate) fn check(&self) {
        let (stands, must) = (self.store.rows(), self.model());
        let totals = |rows: &std::collections::BTreeMap<RowKey, Row>| -> Vec<(String, u64)> {
            rows.iter().map(|(key, row)| (format!("{} {:?}", key.code, key.span), row.clicks + row.bots)).collect()
        };
        assert_eq!(totals(&stands), totals(must.rows()));
        assert_eq!(&stands, must.rows());
    }

    /// How many clicks of `code` are counted.
    pub(crate) fn counted(&self, code: &str) -> u64 {
        let key = RowKey { code: ShortCode::parse(code).unwrap(), span: Span::All };
        self.store.rows().get(&key).map_or(0, |row| row.clicks + row.bots)
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

fn enrichment() -> Enrichment {
    static RULES: LazyLock<Mutex<Enrichment>> = LazyLock::new(|| Mutex::new(Enrichment::new([], None)));
    RULES.lock().another()
}

fn told_apart(record: &Record<'_>, enrichment: &mut Enrichment) -> ModelClick {
    let facts = enrichment.facts(record);
    ModelClick {
        at: record.at,
        code: ShortCode::parse(record.code).unwrap(),
        bot: facts.bot,
        values: Dimension::ALL.map(|dimension| facts.value(dimension).to_owned()),
        visitor: record.visitor,
    }
}
