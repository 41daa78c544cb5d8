//! What a deployment agrees on once: its id and the key of its permutation.
//!
//! Both are settled in the first shard, so that all nodes share them, and
//! copied to `identity.json` in the data directory, so that a server can start
//! while that shard is away: it redirects from the others, and the first start
//! of all is the only one that needs it. A shard that is away is admitted when
//! it comes back, after it told that it is the one that is meant.
//!
//! A data directory and a store that belong to different deployments are
//! refused: one of them was lost or swapped, and codes of a lost deployment
//! must not be made again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use terse_core::Entropy;
use terse_core::ports::{SettingsStore, StoreError, StoreErrorKind};
use terse_core::time::random_bytes;
use terse_store::{IdentityError, ShardMap, Share, record_identity};

use crate::config::Config;
use crate::data_dir::replace_private_file;
use crate::exit::{Exit, StartError};
use crate::stores::{Patience, Stores, store_failure};

/// The setting that holds the deployment's id.
const DEPLOYMENT_SETTING: &str = "deployment_id";
/// The setting that holds the key of the permutation.
const PERMUTATION_SETTING: &str = "permutation_key";
/// The copy in the data directory.
const FILE: &str = "identity.json";

/// A deployment's id and key. Not printable: who knows the key can tell codes in advance.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// The id.
    pub deployment: [u8; 16],
    /// The key of the permutation of codes.
    pub permutation_key: [u8; 16],
}

impl Identity {
    /// The id as 32 hexadecimal digits.
    #[must_use]
    pub fn deployment_text(&self) -> String {
        hex(&self.deployment)
    }
}

/// The copy of what was settled, as it stands in the file.
#[derive(PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    deployment: String,
    permutation_key: String,
    /// The slots of each shard.
    shards: BTreeMap<String, String>,
}

impl Record {
    fn identity(&self, data_dir: &Path) -> Result<Identity, StartError> {
        let read = |text: &str| unhex(text).ok_or_else(|| damaged(&data_dir.join(FILE)));
        Ok(Identity { deployment: read(&self.deployment)?, permutation_key: read(&self.permutation_key)? })
    }
}

/// Settles the identity in the first shard (random at first start), lets each
/// shard that is in reach record its part in it, admits those, and keeps the copy.
///
/// # Errors
/// [`StartError`]: 64 when store, shard map and data directory contradict each
/// other, 69 when the first shard is away and there is no copy to go by.
pub async fn settle(config: &Config, stores: &Stores, entropy: &dyn Entropy) -> Result<Identity, StartError> {
    let known = read_record(&config.data_dir)?;
    let away = stores.connect(if known.is_some() { Patience::One } else { Patience::FirstStart }).await?;
    if let Some(known) = &known {
        refuse_moved(&config.data_dir, known, &config.store.map)?;
    }
    let home_is_away = away.iter().find(|away| away.shard == 0);
    let identity = match (home_is_away, &known) {
        (None, known) => settle_at_home(config, stores, known.as_ref(), entropy).await?,
        (Some(_), Some(known)) => known.identity(&config.data_dir)?,
        (Some(away), None) => return Err(store_failure(&config.store.shards[0].name, &away.error)),
    };
    for away in &away {
        let (shard, error) = (&config.store.shards[away.shard].name, &away.error);
        tracing::warn!(shard, %error, "a shard is out of reach; starting without it");
    }
    let reached: Vec<usize> =
        (0..stores.shards().len()).filter(|shard| away.iter().all(|away| away.shard != *shard)).collect();
    admit(&reached, stores, &config.store.map, &identity).await?;
    let record = record_of(&identity, &config.store.map);
    if known.as_ref() != Some(&record) {
        write_record(&config.data_dir, &record)?;
    }
    Ok(identity)
}

/// Tries once to connect the shards that are not admitted yet, and admits those that are the right ones.
///
/// # Errors
/// [`StoreError`] for the first shard that stays out of reach, or is none of this deployment's.
pub async fn admit_once(stores: &Stores, map: &ShardMap, identity: &Identity) -> Result<(), StoreError> {
    let mut failure = None;
    for shard in stores.waiting() {
        let admitted = match stores.shards()[shard].connect_once().await {
            Ok(()) => admit_late(shard, stores, map, identity).await,
            Err(error) => Err(error),
        };
        match admitted {
            Ok(()) => tracing::info!(shard = map.names()[shard], "the shard is in reach"),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    failure.map_or(Ok(()), Err)
}

async fn admit_late(shard: usize, stores: &Stores, map: &ShardMap, identity: &Identity) -> Result<(), StoreError> {
    if shard == 0 {
        let home = stores.shards()[0].settings();
        for (name, value) in
            [(DEPLOYMENT_SETTING, &identity.deployment), (PERMUTATION_SETTING, &identity.permutation_key)]
        {
            if home.setting(name).await?.as_deref() != Some(value) {
                let text =
                    format!("shard '{}' is not this deployment's first shard: its {name} differs", map.names()[0]);
                return Err(StoreError::new(StoreErrorKind::Corrupt, text));
            }
        }
    }
    admit(&[shard], stores, map, identity)
        .await
        .map_err(|error| StoreError::new(StoreErrorKind::Corrupt, error.message))
}

/// Lets `shards` record their part in the deployment, or compares it, and admits them.
async fn admit(shards: &[usize], stores: &Stores, map: &ShardMap, identity: &Identity) -> Result<(), StartError> {
    let share = |shard: &usize| Share {
        name: &map.names()[*shard],
        slots: map.slots_text(*shard),
        store: stores.shards()[*shard].settings(),
    };
    let shares: Vec<Share<'_>> = shards.iter().map(share).collect();
    record_identity(&shares, &identity.deployment_text()).await.map_err(|error| match error {
        IdentityError::Store { shard, source } => store_failure(&shard, &source),
        differs => StartError::config(differs),
    })?;
    shards.iter().for_each(|shard| stores.shards()[*shard].admit());
    Ok(())
}

/// What stands in the first shard, which has to be what `known` says.
async fn settle_at_home(
    config: &Config,
    stores: &Stores,
    known: Option<&Record>,
    entropy: &dyn Entropy,
) -> Result<Identity, StartError> {
    let home = stores.shards()[0].settings();
    let shard = config.store.map.names()[0].as_str();
    let stored = home.setting(DEPLOYMENT_SETTING).await.map_err(|error| store_failure(shard, &error))?;
    if let Some(known) = known {
        refuse_another(&config.data_dir, &known.deployment, stored.as_deref())?;
    }
    Ok(Identity {
        deployment: agree(home, shard, DEPLOYMENT_SETTING, entropy).await?,
        permutation_key: agree(home, shard, PERMUTATION_SETTING, entropy).await?,
    })
}

/// The value of `name` that stands in the store, after offering a random one.
async fn agree(
    home: &dyn SettingsStore,
    shard: &str,
    name: &str,
    entropy: &dyn Entropy,
) -> Result<[u8; 16], StartError> {
    let offered: [u8; 16] = random_bytes(entropy);
    let stands = home.settle(name, &offered).await.map_err(|error| store_failure(shard, &error))?;
    let wrong = |_| StartError::new(Exit::Io, format_args!("setting '{name}' of shard '{shard}' is not 16 bytes"));
    stands.try_into().map_err(wrong)
}

fn refuse_another(data_dir: &Path, known: &str, stored: Option<&[u8]>) -> Result<(), StartError> {
    let stored = stored.map(hex);
    if stored.as_deref() == Some(known) {
        return Ok(());
    }
    let found = stored.map_or("a new, empty store".to_owned(), |id| format!("the store of deployment {id}"));
    Err(StartError::config(format_args!(
        "the data directory {} belongs to deployment {known}, but this is {found}; bring the store back, \
         or remove {FILE} to go on with it",
        data_dir.display()
    )))
}

/// Shards that are away can't tell whether their slots were moved; the copy can.
fn refuse_moved(data_dir: &Path, known: &Record, map: &ShardMap) -> Result<(), StartError> {
    for (number, name) in map.names().iter().enumerate() {
        let slots = map.slots_text(number);
        if let Some(recorded) = known.shards.get(name).filter(|recorded| **recorded != slots) {
            return Err(StartError::config(format_args!(
                "shard '{name}' owns the slots {recorded}, but the shard map gives it {slots} (as {FILE} in {} says)",
                data_dir.display()
            )));
        }
    }
    Ok(())
}

fn record_of(identity: &Identity, map: &ShardMap) -> Record {
    let slots = map.names().iter().enumerate().map(|(number, name)| (name.clone(), map.slots_text(number)));
    Record {
        deployment: identity.deployment_text(),
        permutation_key: hex(&identity.permutation_key),
        shards: slots.collect(),
    }
}

fn read_record(data_dir: &Path) -> Result<Option<Record>, StartError> {
    let path: PathBuf = data_dir.join(FILE);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StartError::new(Exit::Io, format_args!("cannot read {}: {error}", path.display()))),
    };
    // It was replaced whole, so a damaged one was damaged by somebody; the store knows better.
    serde_json::from_slice(&bytes).map(Some).map_err(|_| damaged(&path))
}

fn damaged(path: &Path) -> StartError {
    StartError::new(Exit::Io, format_args!("{} is damaged; remove it to have it made again", path.display()))
}

fn write_record(data_dir: &Path, record: &Record) -> Result<(), StartError> {
    let failed = |error: std::io::Error| {
        StartError::new(Exit::CannotCreate, format_args!("cannot write {FILE} in {}: {error}", data_dir.display()))
    };
    let bytes = serde_json::to_vec_pretty(record).map_err(|error| failed(error.into()))?;
    replace_private_file(data_dir, FILE, &bytes).map_err(failed)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// 16 bytes from 32 hexadecimal digits.
fn unhex(text: &str) -> Option<[u8; 16]> {
    let digits = text.len() == 32 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    let number = u128::from_str_radix(text, 16).ok().filter(|_| digits)?;
    Some(number.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use terse_testkit::SeededEntropy;

    use super::*;
    use crate::config::raw::Inputs;
    use crate::world::World;

    fn config(directory: &Path, file: &str) -> Config {
        std::fs::write(directory.join("terse.toml"), file).unwrap();
        let working_dir = directory.to_owned();
        let mut config = Config::load(Inputs { working_dir, ..Inputs::default() }).unwrap();
        config.data_dir = directory.to_owned();
        config
    }

    async fn settled(config: &Config, seed: u64) -> Result<Identity, StartError> {
        let stores = Stores::open(config, &World::real()).unwrap();
        let settled = settle(config, &stores, &SeededEntropy::new(seed)).await;
        stores.close();
        settled
    }

    #[tokio::test]
    async fn the_first_start_decides_and_later_ones_agree() {
        let place = tempfile::tempdir().unwrap();
        let config = config(place.path(), "");
        let first = settled(&config, 1).await.unwrap();
        let second = settled(&config, 2).await.unwrap();
        assert!(first == second);
        assert_ne!(first.deployment, first.permutation_key);
        let file = std::fs::read_to_string(place.path().join(FILE)).unwrap();
        assert!(file.contains(&first.deployment_text()) && file.contains("0-4095"), "{file}");
    }

    #[tokio::test]
    async fn a_lost_store_is_not_silently_replaced_by_a_new_one() {
        let place = tempfile::tempdir().unwrap();
        let config = config(place.path(), "");
        settled(&config, 1).await.unwrap();
        for name in ["links.sqlite", "links.sqlite-wal", "links.sqlite-shm"] {
            let _ = std::fs::remove_file(place.path().join(name));
        }
        let refused = settled(&config, 2).await.err().unwrap();
        assert_eq!(refused.exit, Exit::Config);
        assert!(refused.message.contains("new, empty store"), "{refused}");
        std::fs::remove_file(place.path().join(FILE)).unwrap();
        settled(&config, 2).await.unwrap();
    }

    #[tokio::test]
    async fn a_shard_map_that_changed_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let shards = |a: &str, b: &str| {
            format!(
                "[[shard]]\nname='a'\nslots='{a}'\nstore='sqlite'\n[[shard]]\nname='b'\nslots='{b}'\nstore='sqlite'"
            )
        };
        let halves = config(place.path(), &shards("0-2047", "2048-4095"));
        settled(&halves, 1).await.unwrap();
        settled(&halves, 2).await.unwrap();
        let moved = config(place.path(), &shards("0-2046", "2047-4095"));
        let refused = settled(&moved, 3).await.err().unwrap();
        assert_eq!(refused.exit, Exit::Config);
        assert!(refused.message.contains("shard 'a' owns the slots 0-2047"), "{refused}");
    }

    #[tokio::test]
    async fn two_first_starts_at_once_make_one_deployment() {
        let place = tempfile::tempdir().unwrap();
        let config = config(place.path(), "");
        let (one, other) = tokio::join!(settled(&config, 1), settled(&config, 2));
        assert!(one.unwrap() == other.unwrap());
    }

    #[tokio::test]
    async fn a_store_of_another_deployment_is_refused_with_both_ids() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let config_here = config(here.path(), "");
        let own = settled(&config_here, 1).await.unwrap().deployment_text();
        let foreign = settled(&config(there.path(), ""), 2).await.unwrap().deployment_text();
        std::fs::copy(there.path().join("links.sqlite"), here.path().join("links.sqlite")).unwrap();
        let refused = settled(&config_here, 3).await.err().unwrap();
        assert_eq!(refused.exit, Exit::Config);
        assert!(refused.message.contains(&own) && refused.message.contains(&foreign), "{refused}");
    }

    #[tokio::test]
    async fn a_shard_of_another_deployment_is_refused() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let shards = "[[shard]]\nname='a'\nslots='0-2047'\nstore='sqlite'\n\
                      [[shard]]\nname='b'\nslots='2048-4095'\nstore='sqlite'";
        let config_here = config(here.path(), shards);
        settled(&config_here, 1).await.unwrap();
        settled(&config(there.path(), shards), 2).await.unwrap();
        std::fs::copy(there.path().join("links-b.sqlite"), here.path().join("links-b.sqlite")).unwrap();
        let refused = settled(&config_here, 3).await.err().unwrap();
        assert_eq!(refused.exit, Exit::Config);
        assert!(refused.message.contains("shard 'b' belongs to deployment"), "{refused}");
    }

    #[tokio::test]
    async fn a_damaged_copy_is_told_by_name_and_made_again_once_removed() {
        let place = tempfile::tempdir().unwrap();
        let config = config(place.path(), "");
        let first = settled(&config, 1).await.unwrap();
        std::fs::write(place.path().join(FILE), "{").unwrap();
        let refused = settled(&config, 2).await.err().unwrap();
        assert_eq!(refused.exit, Exit::Io);
        assert!(refused.message.contains("identity.json is damaged"), "{refused}");
        std::fs::remove_file(place.path().join(FILE)).unwrap();
        assert!(settled(&config, 2).await.unwrap() == first);
    }

    #[test]
    fn bytes_are_written_as_two_digits_each() {
        assert_eq!(hex(&[0, 0x0f, 0xff]), "000fff");
    }
}
