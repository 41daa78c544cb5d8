//! `terse shards skew`: how codes fall on shards, by the way they are made.
//!
//! Counting is by slot, once per scheme; equal shards and the configured ones
//! are two ways to add the slots up. The key is fixed, so that everybody gets
//! the same numbers, unless the deployment's own is asked for.

use serde_json::{Map, Value, json};
use terse_core::codegen::Scheme;
use terse_core::{ShortCode, Slot};
use terse_store::ShardMap;

use super::leases::with_deployment;
use crate::cli::SkewOrder;
use crate::commands::{say, table};
use crate::config::Config;
use crate::exit::{Exit, StartError};

/// The key unless the deployment's is asked for.
const FIXED_KEY: [u8; 16] = *b"terse skew chart";
/// So many neighbouring ids are looked at on their own: a morning's links of a busy deployment.
const NEIGHBOURS: u64 = 200_000;
/// More shards than these are not listed one by one, but in JSON.
const LISTED_SHARDS: usize = 64;
/// How many schemes there are.
const SCHEMES: usize = 3;
/// How many slots there are.
const SLOTS: usize = Slot::COUNT as usize;

/// Prints how codes fall on equal shards and on the configured ones.
pub(super) fn skew(config: &Config, order: &SkewOrder) -> Result<(), StartError> {
    let key = if order.store_key { store_key(config)? } else { FIXED_KEY };
    let schemes = Scheme::all(key);
    let skew = Skew {
        codes: order.codes,
        key: if order.store_key { "store" } else { "fixed" },
        equal: equal_shards(order.shards)?,
        configured: config.store.map.clone(),
        slots: count(&schemes, order.codes)?,
        neighbours: count(&schemes, NEIGHBOURS)?,
    };
    say(&if order.json { format!("{:#}", skew.in_json()) } else { skew.in_words() })
}

fn store_key(config: &Config) -> Result<[u8; 16], StartError> {
    let identity = with_deployment(config, async |_, identity| Ok(identity))?;
    let none = || StartError::config("--store-key: the store has no key before the first start (or terse migrate)");
    identity.map(|identity| identity.permutation_key).ok_or_else(none)
}

/// How many codes fell on each slot, by scheme.
type Slots = [Vec<u64>; SCHEMES];

/// Makes the codes of the ids below `ids` by each scheme.
fn count(schemes: &[Scheme; SCHEMES], ids: u64) -> Result<Slots, StartError> {
    let mut counts = [const { Vec::new() }; SCHEMES];
    for (scheme, slots) in schemes.iter().zip(&mut counts) {
        slots.resize(SLOTS, 0);
        for id in 0..ids {
            let none = || StartError::new(Exit::Internal, format_args!("{} has no code for id {id}", scheme.name()));
            let code: ShortCode = scheme.code(id).ok_or_else(none)?;
            slots[usize::from(code.slot().number())] += 1;
        }
    }
    Ok(counts)
}

/// `number` shards, named 1 and up, whose slots differ in number by one at most.
fn equal_shards(number: u16) -> Result<ShardMap, StartError> {
    let (number, slots) = (u32::from(number), u32::from(Slot::COUNT));
    let shards: Vec<(String, String)> = (0..number)
        .map(|shard| {
            ((shard + 1).to_string(), format!("{}-{}", shard * slots / number, (shard + 1) * slots / number - 1))
        })
        .collect();
    ShardMap::parse(&shards).map_err(|error| StartError::config(format_args!("--shards: {error}")))
}

/// What is shown.
struct Skew {
    codes: u64,
    key: &'static str,
    equal: ShardMap,
    configured: ShardMap,
    slots: Slots,
    neighbours: Slots,
}

/// Codes by slot as codes by shard.
fn by_shard(map: &ShardMap, slots: &[u64]) -> Vec<u64> {
    let mut shards = vec![0; map.names().len()];
    for (slot, count) in (0..Slot::COUNT).filter_map(Slot::new).zip(slots) {
        shards[map.shard_of(slot)] += count;
    }
    shards
}

/// For each shard, how many of its slots generated codes can fall on: those of two letters that are no `-` or `_`.
fn reachable(map: &ShardMap) -> Vec<u64> {
    const PER_LETTER: u16 = 64;
    const GENERATED: u16 = 62;
    let slots: Vec<u64> = (0..Slot::COUNT)
        .map(|slot| u64::from(slot / PER_LETTER < GENERATED && slot % PER_LETTER < GENERATED))
        .collect();
    by_shard(map, &slots)
}

/// How even a spread is.
struct Spread {
    least: u64,
    most: u64,
    most_over_mean: f64,
    empty: usize,
}

impl Spread {
    fn of(shards: &[u64]) -> Self {
        let (least, most) = (shards.iter().min().copied().unwrap_or(0), shards.iter().max().copied().unwrap_or(0));
        let mean = shards.iter().sum::<u64>() as f64 / shards.len() as f64;
        Self { least, most, most_over_mean: most as f64 / mean, empty: shards.iter().filter(|n| **n == 0).count() }
    }
}

/// The names of the schemes; the key doesn't matter for them.
fn names() -> [&'static str; SCHEMES] {
    Scheme::all(FIXED_KEY).map(|scheme| scheme.name())
}

impl Skew {
    fn in_words(&self) -> String {
        let mut text = format!(
            "{} codes, of ids 0 to {}, {} key\n\non {} equal shards\n{}\n\n{}\n{}\n",
            self.codes,
            self.codes.saturating_sub(1),
            self.key,
            self.equal.names().len(),
            self.on(&self.equal),
            self.neighbours_line(),
            letters_line(&self.equal)
        );
        let names = self.configured.names().join(", ");
        text.push_str(&format!("\non the configured shards ({names})\n{}", self.on(&self.configured)));
        text
    }

    /// The table of one shard map.
    fn on(&self, map: &ShardMap) -> String {
        let counts = self.slots.each_ref().map(|slots| by_shard(map, slots));
        let [plain, permuted, hash] = names().map(str::to_uppercase);
        let mut rows = vec![["SHARD".to_owned(), "IDEAL".to_owned(), plain, permuted, hash]];
        let ideal = self.ideal(map);
        let listed = if map.names().len() > LISTED_SHARDS { 0 } else { map.names().len() };
        for (shard, name) in map.names().iter().take(listed).enumerate() {
            let [plain, permuted, hash] = counts.each_ref().map(|shards| shards[shard].to_string());
            rows.push([name.clone(), format!("{:.0}", ideal[shard]), plain, permuted, hash]);
        }
        let spreads = counts.each_ref().map(|shards| Spread::of(shards));
        let mut sum = |name: &str, tell: fn(&Spread) -> String| {
            let [plain, permuted, hash] = spreads.each_ref().map(tell);
            rows.push([name.to_owned(), String::new(), plain, permuted, hash]);
        };
        sum("min", |spread| spread.least.to_string());
        sum("max", |spread| spread.most.to_string());
        sum("max/mean", |spread| format!("{:.3}", spread.most_over_mean));
        sum("empty", |spread| spread.empty.to_string());
        table(&rows)
    }

    /// How many codes each shard would get if they were spread as evenly as its slots allow.
    fn ideal(&self, map: &ShardMap) -> Vec<f64> {
        let reachable = reachable(map);
        let all: u64 = reachable.iter().sum();
        reachable.iter().map(|slots| self.codes as f64 * *slots as f64 / all as f64).collect()
    }

    /// How many of the equal shards get any of the neighbours, by scheme.
    fn hit(&self) -> [usize; SCHEMES] {
        self.neighbours.each_ref().map(|slots| by_shard(&self.equal, slots).iter().filter(|n| **n > 0).count())
    }

    fn neighbours_line(&self) -> String {
        let shards = self.equal.names().len();
        let told: Vec<String> =
            names().iter().zip(self.hit()).map(|(name, hit)| format!("{name} {hit} of {shards}")).collect();
        format!("shards that the first {NEIGHBOURS} consecutive ids fall on: {}", told.join(", "))
    }

    fn in_json(&self) -> Value {
        let hit: Map<String, Value> =
            names().iter().zip(self.hit()).map(|(name, hit)| ((*name).to_owned(), hit.into())).collect();
        json!({
            "codes": self.codes,
            "key": self.key,
            "equal": self.map_in_json(&self.equal),
            "configured": self.map_in_json(&self.configured),
            "consecutive": { "ids": NEIGHBOURS, "shards_hit": hit },
        })
    }

    fn map_in_json(&self, map: &ShardMap) -> Value {
        let ideal: Vec<u64> = self.ideal(map).into_iter().map(|ideal| ideal.round() as u64).collect();
        let shard = |(number, name): (usize, &String)| {
            let slots = map.slots_text(number);
            json!({ "name": name, "slots": slots, "ideal": ideal[number] })
        };
        let scheme = |(name, slots): (&str, &Vec<u64>)| {
            let codes = by_shard(map, slots);
            let spread = Spread::of(&codes);
            json!({
                "scheme": name,
                "min": spread.least,
                "max": spread.most,
                "max_over_mean": spread.most_over_mean,
                "empty": spread.empty,
                "codes": codes,
            })
        };
        json!({
            "shards": map.names().iter().enumerate().map(shard).collect::<Vec<_>>(),
            "schemes": names().into_iter().zip(&self.slots).map(scheme).collect::<Vec<_>>(),
        })
    }
}

/// Why equal shards don't get equal shares.
fn letters_line(map: &ShardMap) -> String {
    let reachable = reachable(map);
    let all: u64 = reachable.iter().sum();
    let least = reachable.last().copied().unwrap_or(0);
    let share = least as f64 * reachable.len() as f64 / all as f64;
    format!(
        "generated codes have 62 of the 64 letters of slots ('-' and '_', the last two, are in aliases only): they \
         reach {all} of {SLOTS} slots, and the last shard gets {share:.2} of an even share"
    )
}

#[cfg(test)]
mod tests;
