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
    /// Its store.
    pub store: &'a dyn SettingsStore,
}

/// Records `deployment` and each shard's slots at first start, and compares
/// them later. `shares` may leave out shards that are out of reach. All are
/// compared before anything is recorded, so a refused map leaves no trace.
///
/// # Errors
/// [`IdentityError`]: the first shard that differs or doesn't answer.
pub async fn record_identity(shares: &[Share<'_>], deployment: &str) -> Result<(), IdentityError> {
    for record in [false, true] {
        for Share { name, slots, store } in shares {
            if let Some(recorded) = stand(*store, name, DEPLOYMENT_SETTING, deployment, record).await? {
                let shard = (*name).to_owned();
                return Err(IdentityError::Deployment { shard, recorded, wanted: deployment.to_owned() });
            }
            if let Some(recorded) = stand(*store, name, SLOTS_SETTING, slots, record).await? {
                return Err(IdentityError::Slots { shard: (*name).to_owned(), recorded, wanted: slots.clone() });
            }
        }
    }
    Ok(())
}

/// The recorded value of `setting` if it differs from `wanted`; with `record`, `wanted` is recorded if nothing is yet.
async fn stand(
    shard: &dyn SettingsStore,
    name: &str,
    setting: &str,
    wanted: &str,
    record: bool,
) -> Result<Option<String>, IdentityError> {
    let recorded =
        if record { shard.settle(setting, wanted.as_bytes()).await.map(Some) } else { shard.setting(setting).await };
    let recorded = recorded.map_err(|source| IdentityError::Store { shard: name.to_owned(), source })?;
    Ok(recorded
        .filter(|recorded| recorded != wanted.as_bytes())
        .map(|recorded| String::from_utf8_lossy(&recorded).into_owned()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{MemoryStore, ShardMap};

    fn shards(count: usize) -> Vec<Arc<MemoryStore>> {
        (0..count).map(|_| Arc::new(MemoryStore::new())).collect()
    }

    async fn record(shards: &[Arc<MemoryStore>], map: &ShardMap, deployment: &str) -> Result<(), IdentityError> {
        let share = |(number, store): (usize, &Arc<MemoryStore>)| {
            (&map.names()[number], map.slots_text(number), Arc::clone(store))
        };
        let shares: Vec<_> = shards.iter().enumerate().map(share).collect();
        let shares: Vec<Share<'_>> = shares
            .iter()
            .map(|(name, slots, store)| Share { name, slots: slots.clone(), store: store.as_ref() })
            .collect();
        record_identity(&shares, deployment).await
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
}
