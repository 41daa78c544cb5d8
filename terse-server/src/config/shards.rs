//! Where links are kept: one shard that owns all slots, or several from the file.

use std::collections::BTreeSet;
use std::fmt;

use terse_store::ShardMap;

use super::address::{CqlAddress, parse_host};
use super::keys::suggestion;
use super::raw::RawShard;
use super::values::shown;

/// The name of the shard when there is only one.
pub const SINGLE_SHARD: &str = "main";
/// Most shards of a deployment.
const MAX_SHARDS: usize = 256;
/// Longest name of a shard, in bytes; it is a label in metrics and part of a file name.
const MAX_NAME_LEN: usize = 32;

/// What keeps a shard's links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShardBackend {
    /// A SQLite file in the data directory.
    Sqlite {
        /// The file's name.
        file: String,
    },
    /// A keyspace.
    Cql(CqlAddress),
}

impl fmt::Display for ShardBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite { file } => write!(f, "sqlite ({file})"),
            Self::Cql(address) => address.url.fmt(f),
        }
    }
}

/// One shard: its name and its store; its slots are in the map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardConfig {
    /// The name.
    pub name: String,
    /// What keeps its links.
    pub backend: ShardBackend,
    /// Addresses that the database tells, and those to use instead; kept for a CQL backend.
    pub translate: Vec<(String, String)>,
}

/// The shards of a deployment, and which slots each owns; both in the same order.
pub type Shards = (ShardMap, Vec<ShardConfig>);

/// The one shard that owns all slots, on `store`.
pub(super) fn single(store: &str) -> Result<Shards, String> {
    let shard =
        ShardConfig { name: SINGLE_SHARD.to_owned(), backend: backend(store, "links.sqlite")?, translate: vec![] };
    Ok((ShardMap::single(SINGLE_SHARD), vec![shard]))
}

/// The shards of the file: distinct names and stores, each slot owned once.
pub(super) fn several(raw: &[RawShard]) -> Result<Shards, String> {
    if raw.len() > MAX_SHARDS {
        return Err(format!("there are more than {MAX_SHARDS} shards"));
    }
    let shards = raw.iter().map(shard).collect::<Result<Vec<_>, _>>()?;
    let slots: Vec<(&str, &str)> = raw.iter().map(|shard| (shard.name.as_str(), shard.slots.as_str())).collect();
    let map = ShardMap::parse(&slots).map_err(|fault| fault.to_string())?;
    let mut stores = BTreeSet::new();
    for shard in &shards {
        if !stores.insert(shard.backend.to_string()) {
            return Err(format!("shard '{}' has the store of another shard", shard.name));
        }
    }
    Ok((map, shards))
}

fn shard(raw: &RawShard) -> Result<ShardConfig, String> {
    let letters = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if raw.name.is_empty() || raw.name.len() > MAX_NAME_LEN || !raw.name.bytes().all(letters) {
        return Err(format!("a shard's name is 1 to {MAX_NAME_LEN} of a-z, 0-9 and '-', not '{}'", shown(&raw.name)));
    }
    let within = |text: String| format!("shard '{}': {text}", raw.name);
    let backend = backend(&raw.store, &format!("links-{}.sqlite", raw.name));
    for (from, to) in &raw.translate {
        for address in [from, to] {
            parse_host(address).map_err(|fault| within(format!("translate: '{}' {fault}", shown(address))))?;
        }
    }
    Ok(ShardConfig {
        name: raw.name.clone(),
        backend: backend.map_err(|fault| within(format!("store: {fault}")))?,
        translate: raw.translate.clone(),
    })
}

/// What `text` names; plain `sqlite` is `default_file`.
fn backend(text: &str, default_file: &str) -> Result<ShardBackend, String> {
    const EXPECTED: &str = "must be sqlite or cql://[user:password@]host[:port],.../keyspace[?replication=N]";
    if text == "sqlite" {
        return Ok(ShardBackend::Sqlite { file: default_file.to_owned() });
    }
    if let Some(name) = text.strip_prefix("sqlite:") {
        let letters = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        if name.is_empty() || name.len() > MAX_NAME_LEN || !name.bytes().all(letters) {
            return Err(format!("the name after 'sqlite:' is 1 to {MAX_NAME_LEN} of A-Z, a-z, 0-9, '_' and '-'"));
        }
        return Ok(ShardBackend::Sqlite { file: format!("links-{name}.sqlite") });
    }
    if text.starts_with("cql:") {
        return CqlAddress::parse(text).map(ShardBackend::Cql);
    }
    // The value may hold a password, so only its scheme is compared.
    let scheme = text.split(':').next().unwrap_or_default();
    Err(format!("{EXPECTED}{}", suggestion(scheme, ["sqlite", "cql"])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(name: &str, slots: &str, store: &str) -> RawShard {
        RawShard { name: name.into(), slots: slots.into(), store: store.into(), translate: vec![] }
    }

    #[test]
    fn one_store_is_one_shard_with_all_slots() {
        let (map, shards) = single("sqlite").unwrap();
        assert_eq!(map.slots_text(0), "0-4095");
        assert_eq!(shards[0].backend, ShardBackend::Sqlite { file: "links.sqlite".into() });
        assert!(matches!(single("cql://a/k").unwrap().1[0].backend, ShardBackend::Cql(_)));
    }

    #[test]
    fn several_shards_share_all_slots() {
        let raw = [raw("b", "2048-4095", "sqlite:old"), raw("a", "0-99,100-2047", "sqlite")];
        let (map, shards) = several(&raw).unwrap();
        assert_eq!(shards[0].backend, ShardBackend::Sqlite { file: "links-old.sqlite".into() });
        assert_eq!(shards[1].backend, ShardBackend::Sqlite { file: "links-a.sqlite".into() });
        assert_eq!((map.names()[1].as_str(), map.slots_text(1).as_str()), ("a", "0-2047"));
    }

    #[test]
    fn a_map_that_is_not_whole_is_refused() {
        for (shards, fault) in [
            (vec![raw("a", "0-4094", "sqlite")], "slots 4095 belong to no shard"),
            (vec![raw("a", "1-4095", "sqlite")], "slots 0 belong to no shard"),
            (vec![raw("a", "0-2048", "sqlite"), raw("b", "2048-4095", "sqlite")], "slots 2048 belong to both"),
            (vec![raw("a", "0-2047", "sqlite"), raw("a", "2048-4095", "sqlite:b")], "'a' is empty or given twice"),
            (vec![raw("a", "0-2047", "sqlite:x"), raw("b", "2048-4095", "sqlite:x")], "the store of another"),
            (vec![raw("a", "0-4096", "sqlite")], "is no slot or range"),
            (vec![raw("a", "9-1,0-4095", "sqlite")], "is no slot or range"),
            (vec![raw("a", "", "sqlite")], "is no slot or range"),
            (vec![raw("A b", "0-4095", "sqlite")], "a shard's name is"),
            (vec![raw("a", "0-4095", "sqlit")], "did you mean 'sqlite'?"),
            (vec![raw("a", "0-4095", "sqlite:../x")], "the name after 'sqlite:'"),
        ] {
            let refused = several(&shards).unwrap_err();
            assert!(refused.contains(fault), "{refused}");
        }
    }

    #[test]
    fn translated_addresses_are_checked() {
        let mut shard = raw("a", "0-4095", "cql://a/k");
        shard.translate = vec![("10.0.0.1:9042".into(), "127.0.0.1:9142".into())];
        assert_eq!(several(std::slice::from_ref(&shard)).unwrap().1[0].translate.len(), 1);
        shard.translate[0].1 = "127.0.0.1:nine".into();
        assert!(several(&[shard]).unwrap_err().contains("translate"));
    }
}
