//! What a process knows of the use of each key in a period.

use std::collections::HashMap;

use super::{Key, QuotaDraw, Use};

/// What is known of one key.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Count {
    pub(super) seen: Use,
    /// Units of these that this process granted while a shared quota could not be asked, told to it since or not.
    alone: u64,
}

impl Count {
    /// What a shared quota is told of it: the units used without those that this process granted alone, and these.
    pub(super) fn told(&self) -> (u64, u64) {
        (self.seen.units.saturating_sub(self.alone), self.alone)
    }

    /// Takes up to `wanted` units, as far as this process knows what is left.
    pub(super) fn grant(&mut self, limit: Option<u64>, wanted: u32) -> QuotaDraw {
        let left = limit.map_or(u64::MAX, |limit| limit.saturating_sub(self.seen.units));
        let granted = wanted.min(u32::try_from(left).unwrap_or(u32::MAX));
        self.seen.units = self.seen.units.saturating_add(u64::from(granted));
        self.refuse(wanted - granted);
        QuotaDraw { granted, used: self.seen.units, alone: false }
    }

    /// The same for a shared quota that could not be asked.
    pub(super) fn grant_alone(&mut self, limit: u64, wanted: u32) -> QuotaDraw {
        let draw = self.grant(Some(limit), wanted);
        self.alone = self.alone.saturating_add(u64::from(draw.granted));
        QuotaDraw { alone: true, ..draw }
    }

    /// Takes note that a shared quota, of which `used` units are used then, granted so many of `wanted`.
    pub(super) fn note(&mut self, granted: u32, used: u64, wanted: u32) -> QuotaDraw {
        let granted = granted.min(wanted);
        self.seen.units = self.seen.units.max(used);
        self.refuse(wanted - granted);
        QuotaDraw { granted, used: self.seen.units, alone: false }
    }

    /// Takes back what was seen before, where that is more.
    pub(super) fn restore(&mut self, seen: Use) {
        self.seen.units = self.seen.units.max(seen.units);
        self.seen.refused = self.seen.refused.max(seen.refused);
    }

    fn refuse(&mut self, units: u32) {
        self.seen.refused = self.seen.refused.saturating_add(u64::from(units));
    }
}

/// What is known of all keys.
#[derive(Debug, Default)]
pub(super) struct Period {
    pub(super) number: u32,
    pub(super) counts: HashMap<Key, Count>,
}

impl Period {
    /// Goes on to the period `number`. Also to an older one, after the clock stepped back: what was used counts there.
    pub(super) fn advance(&mut self, number: u32) {
        if number > self.number {
            self.counts.clear();
        }
        self.number = number;
    }

    /// The count of `key`, for which another one may lose its place.
    pub(super) fn count(&mut self, key: &Key, max_keys: usize) -> &mut Count {
        if !self.counts.contains_key(key) && self.counts.len() >= max_keys {
            let least = self.counts.iter().min_by_key(|(_, count)| count.seen.units).map(|(key, _)| *key);
            least.and_then(|least| self.counts.remove(&least));
        }
        self.counts.entry(*key).or_default()
    }
}
