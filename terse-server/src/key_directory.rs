//! The API keys as this server knows them: a snapshot in memory, so that a
//! request is authenticated without I/O, on the web worker.
//!
//! A task of the server calls [`KeyDirectory::refresh_once`] every
//! [`REFRESH_EVERY`]. It reads the keys only when their revision changed, so a
//! key that another process makes or revokes counts here within a second. While
//! the store can't be read, the last snapshot is honoured for [`HONOURED_FOR`];
//! then every key is answered with "unavailable", for it may have been revoked.
//!
//! Bound: the snapshot holds the keys that are not revoked, at most [`MAX_KEYS`].
//! `terse keys create` refuses to make more; a store that has more all the same
//! counts as one that can't be read.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use terse_core::access::{ApiKey, Authenticator, Caller, Denied, KeyId, KeyRequest, Owner, PresentedKey, Role};
use terse_core::ports::{HomeStore, StoreError, StoreErrorKind};
use terse_core::{Clock, Entropy, Timestamp};

/// How often the store is asked whether keys changed.
pub const REFRESH_EVERY: Duration = Duration::from_millis(250);
/// How long keys are honoured while the store can't be asked.
pub const HONOURED_FOR: Duration = Duration::from_secs(5 * 60);
/// Most keys that are kept in memory.
pub const MAX_KEYS: usize = 100_000;

/// The keys at one moment.
struct Snapshot {
    /// The revision they had, if they were ever read.
    revision: Option<u64>,
    /// Monotonic time at which the read that proved them current began.
    current_at_ms: u64,
    keys: Arc<HashMap<KeyId, ApiKey>>,
}

/// Authenticates from memory, and keeps that memory up to date.
pub struct KeyDirectory {
    store: Arc<dyn HomeStore>,
    clock: Arc<dyn Clock>,
    snapshot: ArcSwap<Snapshot>,
    /// Compared with when a key's id is unknown, so that this takes as long as a wrong secret.
    decoy: ApiKey,
}

impl KeyDirectory {
    /// A directory that has not read anything: it denies every key as [`Denied::Unavailable`].
    #[must_use]
    pub fn new(store: Arc<dyn HomeStore>, clock: Arc<dyn Clock>, entropy: &dyn Entropy) -> Self {
        let decoy =
            KeyRequest { name: "decoy".to_owned(), role: Role::Reader, owner: Some(Owner::open()), expires_at: None };
        let (decoy, _) = ApiKey::issue(decoy, clock.now(), entropy);
        let snapshot = Snapshot { revision: None, current_at_ms: 0, keys: Arc::default() };
        Self { store, clock, snapshot: ArcSwap::from_pointee(snapshot), decoy }
    }

    /// Asks the store once, and reads the keys if they changed. Returns whether they did.
    ///
    /// # Errors
    /// [`StoreError`] when the store could not answer; the last snapshot stands.
    pub async fn refresh_once(&self) -> Result<bool, StoreError> {
        let began_ms = self.clock.monotonic_ms();
        // The revision is read first: keys that change in between have a later one, and are read again next time.
        let revision = self.store.keys_revision().await?;
        let last = self.snapshot.load();
        if last.revision == Some(revision) {
            let keys = Arc::clone(&last.keys);
            self.snapshot.store(Arc::new(Snapshot { revision: Some(revision), current_at_ms: began_ms, keys }));
            return Ok(false);
        }
        let keys = Arc::new(self.usable_keys().await?);
        self.snapshot.store(Arc::new(Snapshot { revision: Some(revision), current_at_ms: began_ms, keys }));
        Ok(true)
    }

    /// How many keys are in memory.
    #[must_use]
    pub fn len(&self) -> usize {
        self.snapshot.load().keys.len()
    }

    /// Whether there is no key in memory.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    async fn usable_keys(&self) -> Result<HashMap<KeyId, ApiKey>, StoreError> {
        let keys = self.store.keys().await?;
        let usable: HashMap<_, _> =
            keys.into_iter().filter(|key| key.revoked_at.is_none()).map(|key| (key.id.clone(), key)).collect();
        if usable.len() > MAX_KEYS {
            let text = format!("{} keys are more than the {MAX_KEYS} that are kept in memory", usable.len());
            return Err(StoreError::new(StoreErrorKind::Overloaded, text));
        }
        Ok(usable)
    }
}

impl Authenticator for KeyDirectory {
    fn authenticate(&self, presented: &str, now: Timestamp) -> Result<Caller, Denied> {
        let snapshot = self.snapshot.load();
        let presented = PresentedKey::parse(presented).map_err(|_| Denied::Unknown)?;
        let age_ms = self.clock.monotonic_ms().saturating_sub(snapshot.current_at_ms);
        if snapshot.revision.is_none() || u128::from(age_ms) > HONOURED_FOR.as_millis() {
            return Err(Denied::Unavailable);
        }
        let known = snapshot.keys.get(presented.id());
        // The decoy's secret is known to nobody; comparing with it costs what a real comparison costs.
        let admitted = known.unwrap_or(&self.decoy).admits(&presented, now);
        match known {
            Some(key) if admitted => Ok(Caller { owner: key.owner.clone(), role: key.role, key: Some(key.id.clone()) }),
            _ => Err(Denied::Unknown),
        }
    }
}
