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

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use terse_core::Entropy;
use terse_core::ports::{SettingsStore, StoreError, StoreErrorKind};
use terse_core::time::random_bytes;
use terse_store::{IdentityError, ShardMap, Share};

use crate::config::Config;
use crate::config::shards::ShardBackend;
use crate::data_dir::replace_private_file;
use crate::exit::{Exit, StartError};
use crate::stores::{Away, Home, Patience, Stores, store_failure};

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

    /// The first half of it, for names in services that deployments share: two of them have the same one in one of 2⁶⁴
    /// cases.
    #[must_use]
    pub fn short_text(&self) -> String {
        hex(&self.deployment[..8])
    }
}

/// The copy of what was settled, as it stands in the file.
#[derive(PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    deployment: String,
    permutation_key: String,
    /// The slots of each shard that was admitted once.
    shards: BTreeMap<String, String>,
}

impl Record {
    /// A record that knows of no shard yet.
    fn of(identity: &Identity) -> Self {
        let (deployment, permutation_key) = (identity.deployment_text(), hex(&identity.permutation_key));
        Self { deployment, permutation_key, shards: BTreeMap::new() }
    }

    fn identity(&self, data_dir: &Path) -> Result<Identity, StartError> {
        let read = |text: &str| unhex(text).ok_or_else(|| damaged(&data_dir.join(FILE)));
        Ok(Identity { deployment: read(&self.deployment)?, permutation_key: read(&self.permutation_key)? })
    }
}

/// Why something about a shard could not be settled.
enum Obstacle {
    /// It doesn't answer; it may come back.
    Away(StoreError),
    /// It must not be used.
    Refused(StartError),
}

impl Obstacle {
    fn of(shard: &str, error: StoreError) -> Self {
        match error.kind {
            StoreErrorKind::Corrupt => Self::Refused(store_failure(shard, &error)),
            StoreErrorKind::Unavailable | StoreErrorKind::Overloaded | StoreErrorKind::UnknownOutcome => {
                Self::Away(error)
            }
        }
    }
}

impl From<IdentityError> for Obstacle {
    fn from(error: IdentityError) -> Self {
        match error {
            IdentityError::Store { shard, source } => Self::of(&shard, source),
            differs => Self::Refused(StartError::config(differs)),
        }
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
    let mut away = stores.connect(if known.is_some() { Patience::One } else { Patience::FirstStart }).await?;
    if let Some(known) = &known {
        refuse_moved(&config.data_dir, known, &config.store.map)?;
    }
    let home = &config.store.shards[0].name;
    if away.iter().all(|away| away.shard != 0) {
        match settle_at_home(config, stores, known.as_ref(), entropy).await {
            Ok(identity) => return go_on(config, stores, identity, away).await,
            Err(Obstacle::Refused(error)) => return Err(error),
            Err(Obstacle::Away(error)) => away.push(Away { shard: 0, error }),
        }
    }
    match (known, away.iter().find(|away| away.shard == 0)) {
        (Some(known), _) => go_on(config, stores, known.identity(&config.data_dir)?, away).await,
        (None, Some(away)) => Err(store_failure(home, &away.error)),
        (None, None) => Err(StartError::new(Exit::Internal, "the first shard is neither away nor there")),
    }
}

/// The identity of a deployment that was settled before, from the copy or from the first shard. Nothing is made.
///
/// # Errors
/// [`StartError`] when there is none, or the first shard is out of reach.
pub async fn of_existing(config: &Config) -> Result<Identity, StartError> {
    if let Some(record) = read_record(&config.data_dir)? {
        return record.identity(&config.data_dir);
    }
    let none = || StartError::config(format_args!("no server was started on {} yet", config.data_dir.display()));
    let first = &config.store.shards[0];
    if matches!(first.backend, ShardBackend::Sqlite { .. }) {
        return Err(none());
    }
    let home = Home::open(config).await?;
    let setting = async |name| {
        let value = home.store.setting(name).await.map_err(|error| store_failure(&first.name, &error))?;
        value.and_then(|value| <[u8; 16]>::try_from(value).ok()).ok_or_else(none)
    };
    let identity = Identity {
        deployment: setting(DEPLOYMENT_SETTING).await?,
        permutation_key: setting(PERMUTATION_SETTING).await?,
    };
    home.close();
    Ok(identity)
}

/// Admits the shards that are not `away`, and starts without the others.
async fn go_on(
    config: &Config,
    stores: &Stores,
    identity: Identity,
    mut away: Vec<Away>,
) -> Result<Identity, StartError> {
    let reached: Vec<usize> =
        (0..stores.shards().len()).filter(|shard| away.iter().all(|away| away.shard != *shard)).collect();
    away.extend(admit(&config.data_dir, stores, &identity, &reached).await?);
    for away in &away {
        let (shard, error) = (&config.store.shards[away.shard].name, &away.error);
        let cause = error.source.as_ref().map(ToString::to_string);
        tracing::warn!(shard, %error, cause, "a shard is out of reach; starting without it");
    }
    Ok(identity)
}

/// Tries once to connect the shards that are not admitted yet, all at the same time, and admits those that are the right ones.
///
/// # Errors
/// [`StoreError`] for the first shard that stays out of reach, or is none of this deployment's.
pub async fn admit_once(data_dir: &Path, stores: &Stores, identity: &Identity) -> Result<(), StoreError> {
    let connected = join_all(stores.waiting().into_iter().map(|shard| async move {
        match stores.shards()[shard].connect_once().await {
            Ok(()) if shard == 0 => same_home(stores, identity).await.map(|()| shard),
            connected => connected.map(|()| shard),
        }
    }))
    .await;
    let (mut reached, mut failures) = (vec![], vec![]);
    for outcome in connected {
        match outcome {
            Ok(shard) => reached.push(shard),
            Err(error) => failures.push(error),
        }
    }
    // One at a time, so that one that is refused doesn't keep the others out.
    for shard in reached {
        match admit(data_dir, stores, identity, &[shard]).await {
            Ok(away) if away.is_empty() => tracing::info!(shard = stores.links.map().names()[shard], "is in reach"),
            Ok(away) => failures.extend(away.into_iter().map(|away| away.error)),
            Err(refused) => failures.push(StoreError::new(StoreErrorKind::Corrupt, refused.message)),
        }
    }
    failures.into_iter().next().map_or(Ok(()), Err)
}

/// Whether the first shard, which was away, is the one of this deployment.
async fn same_home(stores: &Stores, identity: &Identity) -> Result<(), StoreError> {
    let home = stores.shards()[0].settings();
    for (name, value) in [(DEPLOYMENT_SETTING, &identity.deployment), (PERMUTATION_SETTING, &identity.permutation_key)]
    {
        if home.setting(name).await?.as_deref() != Some(value) {
            let text = format!("this is not the deployment's first shard: its {name} differs");
            return Err(StoreError::new(StoreErrorKind::Corrupt, text));
        }
    }
    Ok(())
}

/// Lets `shards` record their part in the deployment, or compares it; admits
/// and remembers those that are the right ones. All are compared before
/// anything is recorded. Those that don't answer are returned.
async fn admit(
    data_dir: &Path,
    stores: &Stores,
    identity: &Identity,
    shards: &[usize],
) -> Result<Vec<Away>, StartError> {
    let mut record = read_record(data_dir)?.unwrap_or_else(|| Record::of(identity));
    let (deployment, map) = (identity.deployment_text(), stores.links.map());
    let mut away = vec![];
    let mut shares = vec![];
    for number in shards {
        let name = map.names()[*number].as_str();
        let known = record.shards.contains_key(name) || known_at_home(stores, name).await;
        let store = stores.shards()[*number].settings();
        let share = Share { name, slots: map.slots_text(*number), known, store };
        match share.compare(&deployment).await.map_err(Obstacle::from) {
            Ok(()) => shares.push((*number, share)),
            Err(Obstacle::Away(error)) => away.push(Away { shard: *number, error }),
            Err(Obstacle::Refused(error)) => return Err(error),
        }
    }
    for (number, share) in shares {
        match share.record(&deployment).await.map_err(Obstacle::from) {
            Ok(()) => {
                stores.shards()[number].admit();
                tell_home(stores, share.name).await;
                record.shards.insert(share.name.to_owned(), share.slots);
            }
            Err(Obstacle::Away(error)) => away.push(Away { shard: number, error }),
            Err(Obstacle::Refused(error)) => return Err(error),
        }
    }
    if read_record(data_dir)?.as_ref() != Some(&record) {
        write_record(data_dir, &record)?;
    }
    Ok(away)
}

/// The setting of the first shard that says that shard `name` was recorded once.
fn known_setting(name: &str) -> String {
    format!("known_shard/{name}")
}

/// Whether the first shard knows that shard `name` was recorded once. If it can't be asked, the copy alone knows.
async fn known_at_home(stores: &Stores, name: &str) -> bool {
    let known = stores.shards()[0].settings().setting(&known_setting(name)).await;
    known
        .inspect_err(|error| tracing::debug!(%error, "the first shard can't tell which shards it knows"))
        .is_ok_and(|known| known.is_some())
}

/// Lets the first shard know that shard `name` is recorded. If it is away, a later start tells it.
async fn tell_home(stores: &Stores, name: &str) {
    if let Err(error) = stores.shards()[0].settings().settle(&known_setting(name), b"recorded").await {
        tracing::debug!(%error, shard = name, "the first shard could not be told of the shard");
    }
}

/// What stands in the first shard, which has to be what `known` says.
async fn settle_at_home(
    config: &Config,
    stores: &Stores,
    known: Option<&Record>,
    entropy: &dyn Entropy,
) -> Result<Identity, Obstacle> {
    let home = stores.shards()[0].settings();
    let shard = config.store.map.names()[0].as_str();
    let stored = home.setting(DEPLOYMENT_SETTING).await.map_err(|error| Obstacle::of(shard, error))?;
    if let Some(known) = known {
        refuse_another(&config.data_dir, &known.deployment, stored.as_deref()).map_err(Obstacle::Refused)?;
    }
    Ok(Identity {
        deployment: agree(home, shard, DEPLOYMENT_SETTING, entropy).await?,
        permutation_key: agree(home, shard, PERMUTATION_SETTING, entropy).await?,
    })
}

/// The value of `name` that stands in the store, after offering a random one.
async fn agree(home: &dyn SettingsStore, shard: &str, name: &str, entropy: &dyn Entropy) -> Result<[u8; 16], Obstacle> {
    let offered: [u8; 16] = random_bytes(entropy);
    let stands = home.settle(name, &offered).await.map_err(|error| Obstacle::of(shard, error))?;
    let wrong = |_| StartError::new(Exit::Io, format_args!("setting '{name}' of shard '{shard}' is not 16 bytes"));
    stands.try_into().map_err(|stands: Vec<u8>| Obstacle::Refused(wrong(stands)))
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

    const HALVES: &str = "[[shard]]\nname='a'\nslots='0-2047'\nstore='sqlite'\n\
                          [[shard]]\nname='b'\nslots='2048-4095'\nstore='sqlite'";

    #[tokio::test]
    async fn a_lost_shard_is_not_silently_replaced_by_an_empty_one() {
        let place = tempfile::tempdir().unwrap();
        let config = config(place.path(), HALVES);
        settled(&config, 1).await.unwrap();
        for copy_is_lost in [false, true] {
            for suffix in ["", "-wal", "-shm"] {
                let _ = std::fs::remove_file(place.path().join(format!("links-b.sqlite{suffix}")));
            }
            if copy_is_lost {
                // Another server, or a new data directory: the first shard knows.
                std::fs::remove_file(place.path().join(FILE)).unwrap();
            }
            let refused = settled(&config, 2).await.err().unwrap();
            assert_eq!(refused.exit, Exit::Config);
            assert!(refused.message.contains("shard 'b' is a new, empty store"), "{refused}");
        }
    }

    /// Two shards, the one of `away` in a keyspace that nobody serves.
    fn with_one_away(away: &str) -> String {
        let store = |name| if name == away { "cql://127.0.0.1:1/links" } else { "sqlite" };
        HALVES
            .replace("slots='0-2047'\nstore='sqlite'", &format!("slots='0-2047'\nstore='{}'", store("a")))
            .replace("slots='2048-4095'\nstore='sqlite'", &format!("slots='2048-4095'\nstore='{}'", store("b")))
    }

    #[tokio::test]
    async fn a_start_goes_on_without_a_shard_that_is_away_and_does_not_admit_it() {
        let place = tempfile::tempdir().unwrap();
        let first = settled(&config(place.path(), HALVES), 1).await.unwrap();
        for (away, number) in [("b", 1), ("a", 0)] {
            let config = config(place.path(), &with_one_away(away));
            let stores = Stores::open(&config, &World::real()).unwrap();
            let identity = settle(&config, &stores, &SeededEntropy::new(2)).await.unwrap();
            assert!(identity == first, "as the copy or the first shard says");
            assert_eq!(stores.waiting(), [number]);
            assert!(admit_once(place.path(), &stores, &identity).await.is_err());
            assert_eq!(stores.waiting(), [number]);
            stores.close();
        }
    }

    #[tokio::test]
    async fn slots_that_moved_are_refused_while_their_shard_is_away_too() {
        let place = tempfile::tempdir().unwrap();
        settled(&config(place.path(), HALVES), 1).await.unwrap();
        let moved = with_one_away("b").replace("0-2047", "0-2000").replace("2048-4095", "2001-4095");
        let refused = settled(&config(place.path(), &moved), 2).await.err().unwrap();
        assert_eq!(refused.exit, Exit::Config);
        assert!(refused.message.contains("owns the slots") && refused.message.contains(FILE), "{refused}");
    }

    #[tokio::test]
    async fn a_shard_that_was_never_reached_is_not_in_the_copy() {
        let place = tempfile::tempdir().unwrap();
        settled(&config(place.path(), &with_one_away("b")), 1).await.unwrap();
        let file = std::fs::read_to_string(place.path().join(FILE)).unwrap();
        assert!(file.contains("\"a\"") && !file.contains("\"b\""), "{file}");
        // So its first store is welcome.
        settled(&config(place.path(), HALVES), 2).await.unwrap();
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
