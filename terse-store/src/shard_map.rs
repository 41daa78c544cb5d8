//! Which shard owns which slots.

use terse_core::Slot;

/// Gives each of the 4,096 slots to one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardMap {
    names: Vec<String>,
    /// The shard's number, by slot.
    owners: Vec<u16>,
}

/// Why a shard map can't be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShardMapError {
    /// No shard was given, or more than there are slots.
    #[error("there are {0} shards; there must be 1 to 4096")]
    ShardCount(usize),
    /// Two shards have one name, or a shard has none.
    #[error("the shard name '{0}' is empty or given twice")]
    Name(String),
    /// A text is no list of slot ranges.
    #[error("shard '{shard}': '{text}' is no slot or range of slots between 0 and 4095, such as 0-2047")]
    Range {
        /// The shard.
        shard: String,
        /// The part that can't be read.
        text: String,
    },
    /// Slots belong to two shards.
    #[error("slots {slots} belong to both '{first}' and '{second}'")]
    Overlap {
        /// The slots, as ranges.
        slots: String,
        /// One shard.
        first: String,
        /// The other, or the same when it names a slot twice.
        second: String,
    },
    /// Slots belong to no shard.
    #[error("slots {slots} belong to no shard")]
    Gap {
        /// The slots, as ranges.
        slots: String,
    },
    /// As many stores as shards are needed.
    #[error("the map has {shards} shards, but there are {stores} stores")]
    StoreCount {
        /// Shards in the map.
        shards: usize,
        /// Stores that were given.
        stores: usize,
    },
}

const SLOTS: usize = Slot::COUNT as usize;

impl ShardMap {
    /// One shard that owns all slots.
    #[must_use]
    pub fn single(name: &str) -> Self {
        Self { names: vec![name.to_owned()], owners: vec![0; SLOTS] }
    }

    /// Reads shards as (name, slots), slots being ranges such as `0-2047` or
    /// `0-10,20-30,99`. The shards keep their order.
    ///
    /// # Errors
    /// [`ShardMapError`] unless every slot belongs to exactly one shard.
    pub fn parse<N: AsRef<str>, S: AsRef<str>>(shards: &[(N, S)]) -> Result<Self, ShardMapError> {
        if !(1..=SLOTS).contains(&shards.len()) {
            return Err(ShardMapError::ShardCount(shards.len()));
        }
        let mut names: Vec<String> = Vec::with_capacity(shards.len());
        let mut owners: Vec<Option<u16>> = vec![None; SLOTS];
        for (number, (name, slots)) in (0..).zip(shards) {
            let name = name.as_ref();
            if name.is_empty() || names.iter().any(|other| other == name) {
                return Err(ShardMapError::Name(name.to_owned()));
            }
            names.push(name.to_owned());
            for range in slots.as_ref().split(',') {
                claim(&mut owners, &names, number, range)?;
            }
        }
        let gaps = (0..Slot::COUNT).filter(|slot| owners[usize::from(*slot)].is_none());
        let gaps = ranges_text(gaps);
        if !gaps.is_empty() {
            return Err(ShardMapError::Gap { slots: gaps });
        }
        Ok(Self { names, owners: owners.into_iter().flatten().collect() })
    }

    /// The number of the shard that owns `slot`.
    #[must_use]
    pub fn shard_of(&self, slot: Slot) -> usize {
        usize::from(self.owners[usize::from(slot.number())])
    }

    /// The shards' names in their order. There is at least one.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The slots of shard number `shard` as ranges in ascending order; two
    /// spellings of the same slots give one text.
    #[must_use]
    pub fn slots_text(&self, shard: usize) -> String {
        ranges_text((0..Slot::COUNT).filter(|slot| usize::from(self.owners[usize::from(*slot)]) == shard))
    }
}

/// Gives the slots of `range` to shard `number`, the last of `names`.
fn claim(owners: &mut [Option<u16>], names: &[String], number: u16, range: &str) -> Result<(), ShardMapError> {
    let shard = &names[usize::from(number)];
    let (first, last) = parse_range(range)
        .ok_or_else(|| ShardMapError::Range { shard: shard.clone(), text: range.trim().to_owned() })?;
    let wanted = &owners[usize::from(first)..=usize::from(last)];
    if let Some(other) = wanted.iter().flatten().next() {
        let both = (first..=last).filter(|slot| owners[usize::from(*slot)] == Some(*other));
        return Err(ShardMapError::Overlap {
            slots: ranges_text(both),
            first: names[usize::from(*other)].clone(),
            second: shard.clone(),
        });
    }
    owners[usize::from(first)..=usize::from(last)].fill(Some(number));
    Ok(())
}

fn parse_range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (parse_slot(first)?, parse_slot(last)?);
    (first <= last).then_some((first, last))
}

fn parse_slot(text: &str) -> Option<u16> {
    let text = text.trim();
    // `parse` would also take a sign.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| digits)?;
    Slot::new(number).map(Slot::number)
}

/// Ascending slots as `0-10,20,30-31`.
fn ranges_text(slots: impl Iterator<Item = u16>) -> String {
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for slot in slots {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == slot => *last = slot,
            _ => ranges.push((slot, slot)),
        }
    }
    let texts: Vec<String> = ranges
        .into_iter()
        .map(|(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") })
        .collect();
    texts.join(",")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn owner(map: &ShardMap, slot: u16) -> &str {
        &map.names()[map.shard_of(Slot::new(slot).unwrap())]
    }

    #[test]
    fn a_single_shard_owns_every_slot() {
        let map = ShardMap::single("main");
        assert!((0..Slot::COUNT).all(|slot| owner(&map, slot) == "main"));
        assert_eq!(map.slots_text(0), "0-4095");
        assert_eq!(map, ShardMap::parse(&[("main", "0-4095")]).unwrap());
    }

    #[test]
    fn ranges_and_lists_are_read() {
        let map = ShardMap::parse(&[("a", "0-10, 20-30,4095"), ("b", "31 - 4094"), ("c", "11,12-19")]).unwrap();
        for (slot, name) in [(0, "a"), (10, "a"), (11, "c"), (19, "c"), (20, "a"), (30, "a"), (31, "b"), (4094, "b")] {
            assert_eq!(owner(&map, slot), name, "{slot}");
        }
        assert_eq!(map.slots_text(0), "0-10,20-30,4095");
        assert_eq!(map.slots_text(2), "11-19");
    }

    #[test]
    fn gaps_are_named() {
        let error = ShardMap::parse(&[("a", "0-99"), ("b", "101-4000")]).unwrap_err();
        assert_eq!(error.to_string(), "slots 100,4001-4095 belong to no shard");
    }

    #[test]
    fn overlaps_are_named() {
        let error = ShardMap::parse(&[("a", "0-2047"), ("b", "2000-4095")]).unwrap_err();
        assert_eq!(error.to_string(), "slots 2000-2047 belong to both 'a' and 'b'");
        let twice = ShardMap::parse(&[("a", "0-4095,7")]).unwrap_err();
        assert_eq!(twice.to_string(), "slots 7 belong to both 'a' and 'a'");
    }

    #[test]
    fn what_is_no_range_is_refused_with_its_text() {
        for text in ["", "x", "5-", "-5", "9-8", "0-4096", "+1", "1-2-3", "0-4095,", "0x10", "99999999999"] {
            let error = ShardMap::parse(&[("a", text)]).unwrap_err();
            assert!(matches!(error, ShardMapError::Range { .. }), "{text}: {error}");
        }
    }

    #[test]
    fn shards_need_distinct_names() {
        let none: [(&str, &str); 0] = [];
        assert_eq!(ShardMap::parse(&none), Err(ShardMapError::ShardCount(0)));
        let twice = ShardMap::parse(&[("a", "0-1"), ("a", "2-4095")]);
        assert_eq!(twice, Err(ShardMapError::Name("a".to_owned())));
        assert_eq!(ShardMap::parse(&[("", "0-4095")]), Err(ShardMapError::Name(String::new())));
    }

    proptest! {
        #[test]
        fn a_map_read_from_its_own_text_is_the_same(cuts in proptest::collection::btree_set(1u16..4095, 0..12)) {
            let bounds: Vec<u16> = std::iter::once(0).chain(cuts).chain([4096]).collect();
            let shards: Vec<_> = bounds
                .windows(2)
                .enumerate()
                .map(|(i, pair)| (format!("s{i}"), format!("{}-{}", pair[0], pair[1] - 1)))
                .collect();
            let map = ShardMap::parse(&shards).unwrap();
            let again: Vec<_> =
                map.names().iter().enumerate().map(|(i, name)| (name.clone(), map.slots_text(i))).collect();
            prop_assert_eq!(ShardMap::parse(&again).unwrap(), map);
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,40}") {
            drop(ShardMap::parse(&[("a", text)]));
        }
    }
}
