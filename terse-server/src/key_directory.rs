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

#[cfg(test)]
mod tests {
    use terse_core::access::KeyText;
    use terse_core::ports::KeyStore;
    use terse_store::{MemoryStore, SqliteConfig, SqliteStore};
    use terse_testkit::{Fault, FaultyStore, Operation, SeededEntropy, TestClock, When};

    use super::*;

    struct Bench {
        store: Arc<FaultyStore<MemoryStore>>,
        clock: Arc<TestClock>,
        entropy: SeededEntropy,
        keys: KeyDirectory,
    }

    impl Bench {
        fn new() -> Self {
            let store = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())));
            let clock = Arc::new(TestClock::default());
            let entropy = SeededEntropy::new(7);
            let keys = KeyDirectory::new(store.clone(), clock.clone(), &entropy);
            Self { store, clock, entropy, keys }
        }

        fn issue(&self, role: Role, expires_at: Option<Timestamp>) -> (ApiKey, KeyText) {
            let request = KeyRequest { name: "test".to_owned(), role, owner: None, expires_at };
            ApiKey::issue(request, self.clock.now(), &self.entropy)
        }

        async fn added(&self, role: Role) -> (ApiKey, KeyText) {
            let (key, text) = self.issue(role, None);
            self.store.add_key(&key).await.unwrap();
            (key, text)
        }

        fn authenticate(&self, text: &KeyText) -> Result<Caller, Denied> {
            self.keys.authenticate(text.reveal(), self.clock.now())
        }
    }

    #[tokio::test]
    async fn a_key_gives_its_owner_and_role_once_it_is_read() {
        let bench = Bench::new();
        let (key, text) = bench.added(Role::Writer).await;
        assert_eq!(bench.authenticate(&text), Err(Denied::Unavailable), "nothing was read yet");
        assert_eq!(bench.keys.refresh_once().await.ok(), Some(true));
        let caller = bench.authenticate(&text).unwrap();
        assert_eq!((caller.owner, caller.role, caller.key), (key.owner, Role::Writer, Some(key.id)));
    }

    #[tokio::test]
    async fn keys_are_read_again_only_when_they_changed() {
        let bench = Bench::new();
        let (key, text) = bench.added(Role::Reader).await;
        for changed in [true, false, false] {
            assert_eq!(bench.keys.refresh_once().await.ok(), Some(changed));
        }
        assert_eq!(bench.store.faults.calls(Operation::Keys), 1);
        bench.store.revoke_key(&key.id, bench.clock.now()).await.unwrap();
        assert!(bench.authenticate(&text).is_ok(), "not known yet");
        assert_eq!(bench.keys.refresh_once().await.ok(), Some(true));
        assert_eq!(bench.authenticate(&text), Err(Denied::Unknown));
        assert!(bench.keys.is_empty());
    }

    #[tokio::test]
    async fn what_is_no_key_or_a_wrong_one_is_denied() {
        let bench = Bench::new();
        let (_, text) = bench.added(Role::Admin).await;
        bench.keys.refresh_once().await.unwrap();
        let (_, stranger) = bench.issue(Role::Admin, None);
        assert_eq!(bench.authenticate(&stranger), Err(Denied::Unknown));
        let whole = text.reveal();
        // The id of a known key with the secret of another.
        let forged =
            bench.keys.authenticate(&format!("{}{}", &whole[..15], &stranger.reveal()[15..]), bench.clock.now());
        assert_eq!(forged, Err(Denied::Unknown));
        for presented in ["", "trs_", "Bearer", &whole[..whole.len() - 1], &format!("{whole} ")] {
            assert_eq!(bench.keys.authenticate(presented, bench.clock.now()), Err(Denied::Unknown), "{presented}");
        }
        assert_eq!(bench.keys.authenticate(&bench.decoy_like(), bench.clock.now()), Err(Denied::Unknown));
    }

    impl Bench {
        /// The key that the directory made as its decoy: the first of the same seed.
        fn decoy_like(&self) -> String {
            let request = KeyRequest { name: String::new(), role: Role::Reader, owner: None, expires_at: None };
            ApiKey::issue(request, self.clock.now(), &SeededEntropy::new(7)).1.reveal().to_owned()
        }
    }

    #[tokio::test]
    async fn a_key_ends_at_its_expiry_without_a_read() {
        let bench = Bench::new();
        let (key, text) = bench.issue(Role::Writer, Some(bench.clock.now().plus_millis(60_000)));
        bench.store.add_key(&key).await.unwrap();
        bench.keys.refresh_once().await.unwrap();
        bench.clock.advance(Duration::from_millis(59_999));
        assert!(bench.authenticate(&text).is_ok());
        bench.clock.advance(Duration::from_millis(1));
        assert_eq!(bench.authenticate(&text), Err(Denied::Unknown));
    }

    #[tokio::test]
    async fn keys_are_honoured_for_five_minutes_without_the_store() {
        let bench = Bench::new();
        let (_, text) = bench.added(Role::Writer).await;
        bench.keys.refresh_once().await.unwrap();
        bench.store.faults.add(Operation::KeysRevision, When::Every, Fault::Fail(StoreErrorKind::Unavailable));
        bench.clock.advance(HONOURED_FOR);
        assert!(bench.keys.refresh_once().await.is_err());
        assert!(bench.authenticate(&text).is_ok());
        bench.clock.advance(Duration::from_millis(1));
        assert_eq!(bench.authenticate(&text), Err(Denied::Unavailable));
        bench.store.faults.heal();
        bench.keys.refresh_once().await.unwrap();
        assert!(bench.authenticate(&text).is_ok());
    }

    #[tokio::test]
    async fn a_failed_read_of_the_keys_keeps_the_last_ones_and_is_tried_again() {
        let bench = Bench::new();
        let (_, first) = bench.added(Role::Writer).await;
        bench.keys.refresh_once().await.unwrap();
        let (_, second) = bench.added(Role::Writer).await;
        bench.store.faults.add(Operation::Keys, When::Every, Fault::Fail(StoreErrorKind::Unavailable));
        assert!(bench.keys.refresh_once().await.is_err());
        assert!(bench.authenticate(&first).is_ok());
        assert_eq!(bench.authenticate(&second), Err(Denied::Unknown));
        bench.store.faults.heal();
        assert_eq!(bench.keys.refresh_once().await.ok(), Some(true));
        assert!(bench.authenticate(&second).is_ok());
    }

    #[tokio::test]
    async fn another_process_on_the_same_file_is_seen_at_the_next_refresh() {
        let place = tempfile::tempdir().unwrap();
        let open = || SqliteStore::open(SqliteConfig::new(place.path().join("links.sqlite"), "main")).unwrap();
        let (server, command) = (open(), open());
        let bench = Bench::new();
        let keys = KeyDirectory::new(server.clone(), bench.clock.clone(), &bench.entropy);
        keys.refresh_once().await.unwrap();
        let (key, text) = bench.issue(Role::Admin, None);
        let now = bench.clock.now();
        command.add_key(&key).await.unwrap();
        assert_eq!(keys.authenticate(text.reveal(), now), Err(Denied::Unknown));
        assert_eq!(keys.refresh_once().await.ok(), Some(true));
        assert!(keys.authenticate(text.reveal(), now).is_ok());
        command.revoke_key(&key.id, now).await.unwrap();
        assert_eq!(keys.refresh_once().await.ok(), Some(true));
        assert_eq!(keys.authenticate(text.reveal(), now), Err(Denied::Unknown));
        command.close();
        server.close();
    }
}
