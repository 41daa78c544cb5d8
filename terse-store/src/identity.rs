//! What each shard knows of itself: to which deployment it belongs, and which
//! slots it owns. Moved slots would hide links and free taken aliases, so a
//! shard map that differs from what the shards recorded is refused.

use terse_core::ports::{SettingsStore, StoreError};

/// The setting in which a shard records its deployment's id.
pub const DEPLOYMENT_SETTING: &str = "shard_deployment";

/// The setting in which a shard records its slots.
pub const SLOTS_SETTING: &str = "shard_slots";

/// Why the shards may not be used with this map.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A shard belongs to another deployment.
    #[error("shard '{shard}' belongs to deployment '{recorded}', not to '{wanted}'")]
    Deployment {
        /// The shard.
        shard: String,
        /// What it recorded.
        recorded: String,
        /// What it was opened as.
        wanted: String,
    },
    /// A shard was first started with other slots.
    #[error("shard '{shard}' owns the slots {recorded}, but the shard map gives it {wanted}")]
    Slots {
        /// The shard.
        shard: String,
        /// What it recorded.
        recorded: String,
        /// What the map says.
        wanted: String,
    },
    /// A shard that was recorded once has forgotten all of it.
    #[error("shard '{shard}' is a new, empty store, but it had links: bring its store back, or correct its address")]
    Empty {
        /// The shard.
        shard: String,
    },
    /// A shard could not be asked.
    #[error("shard '{shard}' could not tell its identity")]
    Store {
        /// The shard.
        shard: String,
        /// Why.
        #[source]
        source: StoreError,
    },
}

/// A shard as it is asked for its identity.
pub struct Share<'a> {
    /// Its name.
    pub name: &'a str,
    /// The slots that the map gives it, as [`ShardMap::slots_text`](crate::ShardMap::slots_text) writes them.
    pub slots: String,
    /// Whether it is known from elsewhere that it was recorded before: then an empty store is another one.
    pub known: bool,
    /// Its store.
    pub store: &'a dyn SettingsStore,
}

impl Share<'_> {
    /// Compares what the shard recorded with `deployment` and the map; a shard
    /// that recorded nothing yet is fine, unless it is known. Changes nothing,
    /// so all shards can be compared before any is recorded.
    ///
    /// # Errors
    /// [`IdentityError`] when it differs or doesn't answer.
    pub async fn compare(&self, deployment: &str) -> Result<(), IdentityError> {
        let recorded = self.recorded(DEPLOYMENT_SETTING).await?;
        if recorded.is_none() && self.known {
            return Err(IdentityError::Empty { shard: self.name.to_owned() });
        }
        self.judge(deployment, recorded, self.recorded(SLOTS_SETTING).await?)
    }

    /// Records `deployment` and the slots in the shard, unless they stand there, and compares them.
    ///
    /// # Errors
    /// [`IdentityError`] when what stands differs, or the shard doesn't answer.
    pub async fn record(&self, deployment: &str) -> Result<(), IdentityError> {
        let recorded = self.settled(DEPLOYMENT_SETTING, deployment).await?;
        // Nothing more is left in a shard of another deployment.
        self.judge(deployment, Some(recorded), None)?;
        let slots = self.settled(SLOTS_SETTING, &self.slots).await?;
        self.judge(deployment, None, Some(slots))
    }

    fn judge(&self, wanted: &str, deployment: Option<Vec<u8>>, slots: Option<Vec<u8>>) -> Result<(), IdentityError> {
        let shard = || self.name.to_owned();
        let text = |recorded: Vec<u8>| String::from_utf8_lossy(&recorded).into_owned();
        if let Some(recorded) = deployment.map(text).filter(|recorded| recorded != wanted) {
            return Err(IdentityError::Deployment { shard: shard(), recorded, wanted: wanted.to_owned() });
        }
        if let Some(recorded) = slots.map(text).filter(|recorded| *recorded != self.slots) {
            return Err(IdentityError::Slots { shard: shard(), recorded, wanted: self.slots.clone() });
        }
        Ok(())
    }

    async fn recorded(&self, setting: &str) -> Result<Option<Vec<u8>>, IdentityError> {
        self.store.setting(setting).await.map_err(|source| self.silent(source))
    }

    async fn settled(&self, setting: &str, value: &str) -> Result<Vec<u8>, IdentityError> {
        self.store.settle(setting, value.as_bytes()).await.map_err(|source| self.silent(source))
    }

    fn silent(&self, source: StoreError) -> IdentityError {
        IdentityError::Store { shard: self.name.to_owned(), source }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{MemoryStore, ShardMap};

    fn shards(count: usize) -> Vec<Arc<MemoryStore>> {
        (0..count).map(|_| Arc::new(MemoryStore::new())).collect()
    }

    fn share<'a>(shards: &'a [Arc<MemoryStore>], map: &'a ShardMap, number: usize, known: bool) -> Share<'a> {
        let (name, slots) = (map.names()[number].as_str(), map.slots_text(number));
        Share { name, slots, known, store: shards[number].as_ref() }
    }

    /// Compares all, then records all.
    async fn record(shards: &[Arc<MemoryStore>], map: &ShardMap, deployment: &str) -> Result<(), IdentityError> {
        for number in 0..shards.len() {
            share(shards, map, number, false).compare(deployment).await?;
        }
        for number in 0..shards.len() {
            share(shards, map, number, false).record(deployment).await?;
        }
        Ok(())
    }

    fn halves() -> ShardMap {
        ShardMap::parse(&[("a", "0-2047"), ("b", "2048-4095")]).unwrap()
    }

    #[tokio::test]
    async fn the_same_map_is_accepted_again() {
        let shards = shards(2);
        record(&shards, &halves(), "d1").await.unwrap();
        record(&shards, &halves(), "d1").await.unwrap();
        let respelled = ShardMap::parse(&[("a", "0-10,11-2047"), ("b", "2048-4095")]).unwrap();
        record(&shards, &respelled, "d1").await.unwrap();
    }

    #[tokio::test]
    async fn moved_slots_are_refused_with_both_texts() {
        let shards = shards(2);
        record(&shards, &halves(), "d1").await.unwrap();
        let moved = ShardMap::parse(&[("a", "0-2000"), ("b", "2001-4095")]).unwrap();
        let error = record(&shards, &moved, "d1").await.unwrap_err();
        assert_eq!(error.to_string(), "shard 'a' owns the slots 0-2047, but the shard map gives it 0-2000");
    }

    #[tokio::test]
    async fn swapped_shards_are_refused() {
        let mut shards = shards(2);
        record(&shards, &halves(), "d1").await.unwrap();
        shards.reverse();
        assert!(matches!(record(&shards, &halves(), "d1").await, Err(IdentityError::Slots { .. })));
    }

    #[tokio::test]
    async fn a_shard_of_another_deployment_is_refused_with_both_ids() {
        let shards = shards(1);
        record(&shards, &ShardMap::single("main"), "d1").await.unwrap();
        let error = record(&shards, &ShardMap::single("main"), "d2").await.unwrap_err();
        assert_eq!(error.to_string(), "shard 'main' belongs to deployment 'd1', not to 'd2'");
    }

    #[tokio::test]
    async fn a_refused_map_records_nothing() {
        let fresh = Arc::new(MemoryStore::new());
        let known = Arc::new(MemoryStore::new());
        known.settle(SLOTS_SETTING, b"0-4095").await.unwrap();
        let shards = vec![fresh.clone(), known];
        record(&shards, &halves(), "d1").await.unwrap_err();
        assert_eq!(fresh.setting(DEPLOYMENT_SETTING).await.unwrap(), None);
        assert_eq!(fresh.setting(SLOTS_SETTING).await.unwrap(), None);
    }

    #[tokio::test]
    async fn one_store_given_as_two_shards_is_refused() {
        let same = Arc::new(MemoryStore::new());
        let error = record(&[Arc::clone(&same), same], &halves(), "d1").await.unwrap_err();
        assert!(matches!(error, IdentityError::Slots { .. }), "{error}");
    }

    #[tokio::test]
    async fn an_empty_store_in_the_place_of_a_known_one_is_refused() {
        let (shards, map) = (shards(1), ShardMap::single("main"));
        let known = share(&shards, &map, 0, true);
        let refused = known.compare("d1").await.unwrap_err();
        assert!(refused.to_string().contains("shard 'main' is a new, empty store"), "{refused}");
        known.record("d1").await.unwrap();
        known.compare("d1").await.unwrap();
    }
}
