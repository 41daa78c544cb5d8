//! One factory per backend: each makes an empty store, on which instances are
//! opened as processes do.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use terse_core::ports::clicks::{Bus, ClickStats, ReadModel};
use terse_store::{MemoryReadModel, SqliteReadModel, SqliteReadModelConfig};

/// What the projector writes through and the API reads from.
pub(crate) trait Model: ReadModel + ClickStats {}

impl<T: ReadModel + ClickStats> Model for T {}

/// An instance, as a process has it.
pub(crate) type Instance = Arc<dyn Model>;

/// Opens an instance.
type Open = dyn Fn() -> BoxFuture<'static, Instance> + Send + Sync;

/// A store, and how it differs. Clones are the same store.
#[derive(Clone)]
pub(crate) struct Backend {
    open: Arc<Open>,
    pub(crate) traits: Traits,
}

/// What the suite must know of a backend.
#[derive(Clone, Copy)]
pub(crate) struct Traits {
    /// What the suite settles it for.
    pub(crate) bus: Bus,
    /// Whether a batch is one transaction which tells of other writers. Else positions order the writers.
    pub(crate) transactional: bool,
    /// Whether one lease is for all partitions together.
    pub(crate) one_lease: bool,
    /// Whether a scan is in the order of the keys.
    pub(crate) in_order: bool,
    /// How many times less it is made to do where much is done, because it is dear. Every check runs all the same.
    pub(crate) less: usize,
}

impl Backend {
    /// A store on which `open` opens instances.
    pub(crate) fn new(traits: Traits, open: impl Fn() -> BoxFuture<'static, Instance> + Send + Sync + 'static) -> Self {
        Self { open: Arc::new(open), traits }
    }

    /// An instance of its own, not attached.
    pub(crate) async fn open(&self) -> Instance {
        (self.open)().await
    }

    /// An instance of its own that may write.
    pub(crate) async fn attached(&self) -> Instance {
        let instance = self.open().await;
        instance.attach().await.unwrap();
        instance
    }

    /// How much this backend is made to do where a cheap one does `much`.
    pub(crate) fn some_of(&self, much: usize) -> usize {
        much.div_ceil(self.traits.less)
    }
}

pub(crate) fn memory(bus: Bus) -> Backend {
    let first = MemoryReadModel::new();
    let traits = Traits { bus, transactional: true, one_lease: true, in_order: true, less: 1 };
    Backend::new(traits, move || {
        let instance: Instance = Arc::new(first.another());
        Box::pin(async { instance })
    })
}

pub(crate) fn sqlite(bus: Bus) -> Backend {
    let directory = tempfile::tempdir().unwrap();
    let traits = Traits { bus, transactional: true, one_lease: true, in_order: true, less: 1 };
    Backend::new(traits, move || {
        let path = directory.path().join("stats.sqlite");
        Box::pin(async { SqliteReadModel::open(SqliteReadModelConfig::new(path)).unwrap() as Instance })
    })
}
