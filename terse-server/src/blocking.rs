//! Blocked hosts: those of the operator's file, which is read at the start and at
//! each SIGHUP, and those that admins block, which all servers of the deployment share.
//!
//! **The file** belongs to a server. One that can't be used keeps a server from
//! starting; at a SIGHUP the list before it stays in use, and the log says why and in which line.
//!
//! **The shared list** is a chain of settings of the first shard, `blocked-hosts/N`,
//! each of which is the whole list and never changes. Who changes the list settles
//! the next one, which only one of several can, so no change is lost. A server asks
//! for the next one every `POLL_EVERY`: one read of one row. So a change shows on
//! every server within a second while the first shard can be read; while it can't,
//! the list stays as it was. A server that starts meanwhile goes by the list that its
//! data directory remembers (`remembered.rs`), and says so in `/health` until the shard
//! has answered: one that was changed by another server since is not known to it.
//!
//! Old lists are forgotten once `KEPT` newer ones stand. A server that slept
//! through so many finds no next one; that is why all names are looked at every `LOOK_EVERY_MS`.
//!
//! Bounds: `MAX_SHARED` hosts that admins block, told by `Full`; `MAX_TRIES` tries while others
//! change the list, and `TURN_WITHIN` until this server has done with it, then 503; a step of the task reads
//! at most `MAX_STEPS` lists.

mod chain;
mod file;
mod health;
mod remembered;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use terse_cache::ReadThrough;
use terse_core::metrics::Metrics;
use terse_core::ports::blocking::{BlockChange, HostBlocking};
use terse_core::ports::{HomeStore, StoreError, StoreErrorKind};
use terse_core::{BlockList, BlockedHost};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Mutex;

use self::chain::{Chain, Hosts};
use self::remembered::Remembered;
use crate::config::Config;
use crate::exit::{Exit, StartError};
use crate::tasks::Tasks;
use crate::world::World;

/// How long a change waits until the shared list is not being read or changed by this server.
const TURN_WITHIN: Duration = Duration::from_secs(2);
/// How often the next shared list is asked for.
const POLL_EVERY: Duration = Duration::from_millis(400);
/// How long reading the file and looking through memory may take.
const RELOAD_WITHIN: Duration = Duration::from_secs(30);
/// How long a start waits for the shared list.
const FIRST_WITHIN: Duration = Duration::from_millis(500);
/// Most hosts that admins block; more belong into the file.
const MAX_SHARED: usize = 1_000;
/// How often a change is tried while others change the list.
const MAX_TRIES: usize = 8;
/// Most lists read in one step.
const MAX_STEPS: usize = 64;
/// After so many newer ones a list is forgotten.
const KEPT: u64 = 64;
/// How often all names of lists are looked at, in monotonic milliseconds.
const LOOK_EVERY_MS: u64 = 60_000;

/// The blocked hosts of a server.
pub struct Blocking {
    cache: Arc<ReadThrough>,
    file: Option<PathBuf>,
    /// Taken by who reads the file, so that what is read later takes effect later.
    reading: parking_lot::Mutex<()>,
    /// Taken by who reads or changes the shared list.
    chain: Mutex<Chain>,
    remembered: Arc<Remembered>,
    hosts: ArcSwap<Hosts>,
    /// Whether the shared list was read since the start.
    known: AtomicBool,
    metrics: Arc<Metrics>,
}

/// SIGHUP, caught.
pub struct Hangups(Signal);

impl Hangups {
    /// Catches SIGHUP from now on, which would end the process otherwise. Must be called inside a runtime.
    ///
    /// # Errors
    /// [`StartError`] when the system refuses.
    pub fn catch() -> Result<Self, StartError> {
        let caught = signal(SignalKind::hangup());
        caught.map(Self).map_err(|e| StartError::new(Exit::Internal, format_args!("cannot catch SIGHUP: {e}")))
    }
}

/// Reads the file of blocked hosts, if there is one.
///
/// # Errors
/// [`StartError`] that says what is wrong with it, and in which line.
pub fn check(file: Option<&Path>) -> Result<BlockList, StartError> {
    let list = file.map(file::read).transpose();
    Ok(list.map_err(|why| StartError::config(format_args!("blocklist: {why}")))?.unwrap_or_default())
}

impl Blocking {
    /// With the hosts of `list`, which was read of the file, blocked in `cache`, and those of the shared list as
    /// `deployment` knew it in the last run, until the first shard, its `home`, answers.
    pub async fn open(
        list: BlockList,
        config: &Config,
        deployment: String,
        cache: &Arc<ReadThrough>,
        home: &Arc<dyn HomeStore>,
        world: &World,
    ) -> Arc<Self> {
        cache.block_file(list);
        let remembered = Remembered::new(config.data_dir.clone(), deployment);
        let blocking = Arc::new(Self::new(config.blocklist.as_deref(), remembered, cache, home, world));
        let first = tokio::time::timeout(FIRST_WITHIN, blocking.poll_once()).await;
        if !blocking.is_known() {
            let error = first.ok().and_then(Result::err).map(|error| error.to_string());
            let hosts = blocking.hosts.load().len();
            tracing::warn!(hosts, error, "what admins block can't be read yet; until then what was known last counts");
        }
        blocking
    }

    fn new(
        file: Option<&Path>,
        remembered: Arc<Remembered>,
        cache: &Arc<ReadThrough>,
        home: &Arc<dyn HomeStore>,
        world: &World,
    ) -> Self {
        let hosts = remembered.recall();
        cache.block_shared(hosts.iter().cloned().collect());
        Self {
            cache: Arc::clone(cache),
            file: file.map(Path::to_owned),
            reading: parking_lot::Mutex::default(),
            chain: Mutex::new(Chain::new(Arc::clone(home), Arc::clone(&world.clock), Arc::clone(&hosts))),
            remembered,
            hosts: ArcSwap::new(hosts),
            known: AtomicBool::new(false),
            metrics: Arc::clone(&world.metrics),
        }
    }

    /// Whether the shared list was read since the start.
    fn is_known(&self) -> bool {
        self.known.load(Ordering::Relaxed)
    }

    /// Starts the tasks that read the file at SIGHUP, and the shared list.
    pub fn run(self: &Arc<Self>, tasks: &mut Tasks, Hangups(hangups): Hangups) {
        let blocking = Arc::clone(self);
        tasks.at_each("reload", hangups, RELOAD_WITHIN, move || {
            let blocking = Arc::clone(&blocking);
            async move { blocking.reload_once().await }
        });
        let blocking = Arc::clone(self);
        tasks.every("blocked hosts", POLL_EVERY, move || {
            let blocking = Arc::clone(&blocking);
            async move { blocking.poll_once().await }
        });
    }

    /// Reads the file again. If it can't be used, the list before it stays in use, and the log says why.
    async fn reload_once(self: Arc<Self>) -> Result<(), StoreError> {
        let reading = tokio::task::spawn_blocking(move || self.reload());
        reading.await.map_err(|error| failed("reading the file of blocked hosts has panicked").caused_by(error))
    }

    fn reload(&self) {
        let Some(path) = &self.file else {
            tracing::info!("SIGHUP: there is no file of blocked hosts to be read again");
            return;
        };
        let _turn = self.reading.lock();
        match file::read(path) {
            Ok(list) => {
                let hosts = list.len();
                let links = self.cache.block_file(list);
                tracing::info!(path = %path.display(), hosts, links, "SIGHUP: the file of blocked hosts was read again");
            }
            Err(why) => {
                tracing::error!(%why, "SIGHUP: the file of blocked hosts can't be used; the list before it stays in use")
            }
        }
    }

    /// Takes over what other servers changed of the shared list, and remembers it for the next start.
    async fn poll_once(&self) -> Result<(), StoreError> {
        let hosts = {
            let mut chain = self.chain.lock().await;
            let read = chain.read().await;
            // What was read before it failed counts, too.
            self.take(&chain).await?;
            read?;
            chain.hosts()
        };
        // Nobody who changes the list waits for the disk.
        self.remembered.keep(hosts).await
    }

    /// Blocks what `chain` has, if that is something else than before.
    async fn take(&self, chain: &Chain) -> Result<(), StoreError> {
        let hosts = chain.hosts();
        if hosts != *self.hosts.load() {
            let (cache, list) = (Arc::clone(&self.cache), hosts.iter().cloned().collect());
            let links = tokio::task::spawn_blocking(move || cache.block_shared(list)).await;
            let links = links.map_err(|error| failed("looking through memory has panicked").caused_by(error))?;
            tracing::info!(hosts = hosts.len(), links, "the hosts that admins block have changed");
            self.hosts.store(hosts);
        }
        self.known.store(chain.is_known(), Ordering::Relaxed);
        self.metrics.blocked_hosts_known(chain.is_known());
        Ok(())
    }
}

#[async_trait]
impl HostBlocking for Blocking {
    fn hosts(&self) -> Vec<BlockedHost> {
        self.hosts.load().iter().cloned().collect()
    }

    fn covers(&self, host: &BlockedHost) -> bool {
        self.cache.blocked().covers(host)
    }

    fn of_file(&self) -> usize {
        self.cache.blocked().len().0
    }

    async fn change(&self, host: &BlockedHost, blocked: bool) -> Result<BlockChange, StoreError> {
        let turn = tokio::time::timeout(TURN_WITHIN, self.chain.lock()).await;
        let mut chain = turn.map_err(|_| {
            StoreError::new(StoreErrorKind::Overloaded, "the list of blocked hosts is still being read or changed")
        })?;
        let changed = chain.change(host, blocked).await;
        self.take(&chain).await?;
        changed
    }
}

fn failed(text: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable, text)
}

#[cfg(test)]
mod tests;
