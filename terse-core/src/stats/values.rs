//! How often which value was seen: bounded in number and length.

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

/// Most different values that are counted by name in one row; more are counted together as [`Values::other`].
pub const MAX_VALUES: usize = 100;
/// Most bytes of a value; a longer one is cut between characters.
pub const MAX_VALUE_BYTES: usize = 100;

/// Counts of values, the first [`MAX_VALUES`] that came by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Values {
    /// In the order of their names.
    named: Vec<(CompactString, u64)>,
    /// Of those that found no room.
    other: u64,
}

impl Values {
    /// Counts `value` `times` more.
    pub fn add(&mut self, value: &str, times: u64) {
        let value = &value[..value.floor_char_boundary(MAX_VALUE_BYTES)];
        match self.named.binary_search_by(|(name, _)| name.as_str().cmp(value)) {
            Ok(place) => self.named[place].1 += times,
            Err(place) if self.named.len() < MAX_VALUES => self.named.insert(place, (value.into(), times)),
            Err(_) => self.other += times,
        }
    }

    /// Counts all of `more`, too.
    pub fn merge(&mut self, more: &Self) {
        for (name, times) in &more.named {
            self.add(name, *times);
        }
        self.other += more.other;
    }

    /// The values with their counts, largest first, then by name.
    #[must_use]
    pub fn largest_first(&self) -> Vec<(&str, u64)> {
        let mut sorted: Vec<(&str, u64)> = self.named.iter().map(|(name, times)| (name.as_str(), *times)).collect();
        sorted.sort_by_key(|(_, times)| std::cmp::Reverse(*times));
        sorted
    }

    /// How often something came that found no room.
    #[must_use]
    pub fn other(&self) -> u64 {
        self.other
    }

    /// The sum of all counts.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.other + self.named.iter().map(|(_, times)| times).sum::<u64>()
    }
}
