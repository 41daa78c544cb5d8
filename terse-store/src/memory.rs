//! Links in memory, for tests and benchmarks: the ports at their simplest.
//! Nothing outlives the process and nothing bounds it but what callers put in.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

use async_trait::async_trait;
use parking_lot::Mutex;
use terse_core::cursor::Cursor;
use terse_core::ports::{
    AttemptId, IdempotencyRecord, IdempotencyStore, Insert, KeyStore, Lease, LeaseStore, LinkCatalog, LinkChange,
    LinkReader, LinkWriter, Lookup, SettingsStore, StoreError, StoreErrorKind, StoreHealth, Tier, Update,
};
use terse_core::{ApiKey, KeyId, Link, LinkState, Owner, ShortCode, Timestamp, Version};

/// A store in memory. Implements
/// [`ShardStore`](terse_core::ports::ShardStore) and
/// [`HomeStore`](terse_core::ports::HomeStore).
#[derive(Default)]
pub struct MemoryStore {
    /// One lock for everything: each operation is one step.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    links: HashMap<ShortCode, (Link, AttemptId)>,
    /// The links that a list shows, oldest first.
    listed: BTreeSet<(Owner, Timestamp, ShortCode)>,
    idempotency: HashMap<(Owner, String), IdempotencyRecord>,
    settings: HashMap<String, Vec<u8>>,
    leases: HashMap<String, u64>,
    /// What was leased, by counter and first id.
    lease_log: BTreeMap<(String, u64), Lease>,
    keys: BTreeMap<KeyId, ApiKey>,
    keys_revision: u64,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

#[async_trait]
impl LinkReader for MemoryStore {
    async fn resolve(&self, code: &ShortCode) -> Result<Lookup, StoreError> {
        let state = self.state.lock();
        let link = state.links.get(code).map(|(link, _)| link.resolution());
        Ok(Lookup { link, tier: Tier::Store })
    }
}

#[async_trait]
impl LinkWriter for MemoryStore {
    async fn insert_if_absent(&self, link: &Link, attempt: AttemptId) -> Result<Insert, StoreError> {
        let mut state = self.state.lock();
        if let Some((_, attempt)) = state.links.get(&link.code) {
            return Ok(Insert::Taken { attempt: *attempt });
        }
        state.links.insert(link.code.clone(), (link.clone(), attempt));
        if link.state != LinkState::Deleted {
            state.listed.insert((link.owner.clone(), link.created_at, link.code.clone()));
        }
        Ok(Insert::Created)
    }

    async fn update(&self, code: &ShortCode, expected: Version, change: &LinkChange) -> Result<Update, StoreError> {
        let mut state = self.state.lock();
        let State { links, listed, .. } = &mut *state;
        let Some((link, _)) = links.get_mut(code) else { return Ok(Update::NotFound) };
        if link.version != expected || link.state == LinkState::Deleted {
            return Ok(Update::Conflict { current: link.version });
        }
        link.target = change.target.clone();
        link.title.clone_from(&change.title);
        link.tags = change.tags.clone();
        link.state = change.state;
        link.expires_at = change.expires_at;
        link.valid_from = change.valid_from;
        link.updated_at = change.updated_at;
        link.version = link.version.next();
        if link.state == LinkState::Deleted {
            listed.remove(&(link.owner.clone(), link.created_at, link.code.clone()));
        }
        Ok(Update::Updated(Box::new(link.clone())))
    }
}

#[async_trait]
impl LinkCatalog for MemoryStore {
    async fn get(&self, code: &ShortCode) -> Result<Option<Link>, StoreError> {
        Ok(self.state.lock().links.get(code).map(|(link, _)| link.clone()))
    }

    async fn list(&self, owner: &Owner, after: Option<&Cursor>, limit: usize) -> Result<Vec<Link>, StoreError> {
        let state = self.state.lock();
        let newest_first = state.listed.iter().rev().filter(|(of, _, _)| of == owner);
        let page = newest_first
            .filter(|(_, at, code)| after.is_none_or(|after| (*at, code) < (after.created_at, &after.code)))
            .take(limit);
        Ok(page.filter_map(|(_, _, code)| state.links.get(code)).map(|(link, _)| link.clone()).collect())
    }
}

#[async_trait]
impl IdempotencyStore for MemoryStore {
    async fn find_key(&self, owner: &Owner, key: &str) -> Result<Option<IdempotencyRecord>, StoreError> {
        Ok(self.state.lock().idempotency.get(&(owner.clone(), key.to_owned())).cloned())
    }

    async fn claim_key(
        &self,
        owner: &Owner,
        key: &str,
        record: &IdempotencyRecord,
        expired_before: Timestamp,
    ) -> Result<Option<IdempotencyRecord>, StoreError> {
        let mut state = self.state.lock();
        let name = (owner.clone(), key.to_owned());
        let standing = state.idempotency.get(&name).filter(|standing| standing.created_at >= expired_before).cloned();
        if standing.is_none() {
            state.idempotency.insert(name, record.clone());
        }
        Ok(standing)
    }

    async fn replace_key(
        &self,
        owner: &Owner,
        key: &str,
        expected: AttemptId,
        record: &IdempotencyRecord,
    ) -> Result<bool, StoreError> {
        let mut state = self.state.lock();
        match state.idempotency.get_mut(&(owner.clone(), key.to_owned())) {
            Some(standing) if standing.attempt == expected => {
                *standing = record.clone();
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    async fn purge_keys(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
        let mut state = self.state.lock();
        let old = state.idempotency.iter().filter(|(_, record)| record.created_at < before);
        let names: Vec<_> = old.map(|(name, _)| name.clone()).take(limit).collect();
        for name in &names {
            state.idempotency.remove(name);
        }
        Ok(names.len())
    }
}

#[async_trait]
impl SettingsStore for MemoryStore {
    async fn setting(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.state.lock().settings.get(name).cloned())
    }

    async fn settle(&self, name: &str, value: &[u8]) -> Result<Vec<u8>, StoreError> {
        Ok(self.state.lock().settings.entry(name.to_owned()).or_insert_with(|| value.to_vec()).clone())
    }

    async fn forget(&self, name: &str) -> Result<(), StoreError> {
        self.state.lock().settings.remove(name);
        Ok(())
    }

    async fn names(&self, prefix: &str, limit: usize) -> Result<Vec<String>, StoreError> {
        let state = self.state.lock();
        Ok(state.settings.keys().filter(|name| name.starts_with(prefix)).take(limit).cloned().collect())
    }
}

#[async_trait]
impl LeaseStore for MemoryStore {
    async fn lease(&self, counter: &str, size: u64, holder: &str, at: Timestamp) -> Result<Range<u64>, StoreError> {
        let mut state = self.state.lock();
        let State { leases, lease_log, .. } = &mut *state;
        let next = leases.entry(counter.to_owned()).or_default();
        let start = *next;
        // As every other store, which keep a signed number.
        let end = start.checked_add(size).filter(|end| i64::try_from(*end).is_ok());
        *next = end.ok_or_else(|| StoreError::new(StoreErrorKind::Unavailable, "the counter has run out of ids"))?;
        let ids = start..*next;
        if !ids.is_empty() {
            let holder = Lease::holder_text(holder).to_owned();
            lease_log.insert((counter.to_owned(), start), Lease { ids: ids.clone(), holder, leased_at: at });
        }
        Ok(ids)
    }

    async fn leases(&self, counter: &str, from: u64, limit: usize) -> Result<Vec<Lease>, StoreError> {
        let state = self.state.lock();
        let range = (counter.to_owned(), from)..=(counter.to_owned(), u64::MAX);
        Ok(state.lease_log.range(range).take(limit).map(|(_, lease)| lease.clone()).collect())
    }
}

#[async_trait]
impl KeyStore for MemoryStore {
    async fn add_key(&self, key: &ApiKey) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        if state.keys.contains_key(&key.id) {
            let text = format!("there is a key '{}' already", key.id);
            return Err(StoreError::new(StoreErrorKind::Unavailable, text).although_answered());
        }
        state.keys.insert(key.id.clone(), key.clone());
        state.keys_revision += 1;
        Ok(())
    }

    async fn keys(&self) -> Result<Vec<ApiKey>, StoreError> {
        let mut keys: Vec<_> = self.state.lock().keys.values().cloned().collect();
        // A stable sort: keys of one moment stay in the order of their ids.
        keys.sort_by_key(|key| key.created_at);
        Ok(keys)
    }

    async fn revoke_key(&self, id: &KeyId, at: Timestamp) -> Result<bool, StoreError> {
        let mut state = self.state.lock();
        let Some(key) = state.keys.get_mut(id) else { return Ok(false) };
        if key.revoked_at.is_none() {
            key.revoked_at = Some(at);
            state.keys_revision += 1;
        }
        Ok(true)
    }

    async fn keys_revision(&self) -> Result<u64, StoreError> {
        Ok(self.state.lock().keys_revision)
    }
}

#[async_trait]
impl StoreHealth for MemoryStore {
    async fn check_writes(&self, _: bool) -> Vec<(String, StoreError)> {
        Vec::new()
    }

    async fn check(&self) -> Vec<(String, Result<(), StoreError>)> {
        vec![("memory".to_owned(), Ok(()))]
    }
}
