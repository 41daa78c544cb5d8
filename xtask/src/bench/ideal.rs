//! What a cache could do: the yardsticks that a measured hit ratio stands beside.
//!
//! The ideal cache of n entries always holds the n most popular links; its hit
//! ratio is the sum of their probabilities ([`super::draw::Zipf::share_of`]),
//! and on independent draws no cache does better that does not know the future. The simulated one forgets
//! what was used least recently: what is reached without any sense of popularity.

use std::collections::HashMap;

use anyhow::{Result, ensure};

/// The end of the list, and of nothing else.
const NONE: u32 = u32::MAX;

/// A cache that forgets what was used least recently. Keys are below [`u32::MAX`].
pub struct Lru {
    most: usize,
    slots: HashMap<u32, u32>,
    entries: Vec<Entry>,
    newest: u32,
    oldest: u32,
}

#[derive(Clone, Copy)]
struct Entry {
    key: u32,
    newer: u32,
    older: u32,
}

impl Lru {
    /// Empty, for at most `most` entries.
    ///
    /// # Errors
    /// When `most` is 0 or beyond what an index tells apart.
    pub fn new(most: usize) -> Result<Self> {
        ensure!(most > 0 && most < NONE as usize, "a cache of {most} entries");
        Ok(Self { most, slots: HashMap::new(), entries: Vec::new(), newest: NONE, oldest: NONE })
    }

    /// Uses `key`, which is in the cache afterwards. `true` = it was before.
    pub fn hit(&mut self, key: u32) -> bool {
        if let Some(slot) = self.slots.get(&key).copied() {
            self.unlink(slot);
            self.link(slot);
            return true;
        }
        let slot = if self.entries.len() < self.most {
            self.entries.push(Entry { key, newer: NONE, older: NONE });
            (self.entries.len() - 1) as u32
        } else {
            let slot = self.oldest;
            self.unlink(slot);
            self.slots.remove(&self.entries[slot as usize].key);
            self.entries[slot as usize].key = key;
            slot
        };
        self.slots.insert(key, slot);
        self.link(slot);
        false
    }

    /// How many of `keys`, used in this order, are hits, in percent.
    pub fn hit_percent(&mut self, keys: &[u32]) -> f64 {
        let hits = keys.iter().filter(|key| self.hit(**key)).count();
        hits as f64 * 100.0 / keys.len().max(1) as f64
    }

    fn unlink(&mut self, slot: u32) {
        let Entry { newer, older, .. } = self.entries[slot as usize];
        if newer == NONE {
            self.newest = older
        } else {
            self.entries[newer as usize].older = older
        }
        if older == NONE { self.oldest = newer } else { self.entries[older as usize].newer = newer }
    }

    fn link(&mut self, slot: u32) {
        let second = self.newest;
        let entry = &mut self.entries[slot as usize];
        (entry.newer, entry.older) = (NONE, second);
        if second == NONE {
            self.oldest = slot
        } else {
            self.entries[second as usize].newer = slot
        }
        self.newest = slot;
    }
}

#[cfg(test)]
mod tests {
    use super::super::draw::{Draw, Zipf};
    use super::*;

    fn hits(most: usize, keys: &[u32]) -> Vec<bool> {
        let mut cache = Lru::new(most).unwrap();
        keys.iter().map(|key| cache.hit(*key)).collect()
    }

    #[test]
    fn what_was_used_least_recently_goes_first() {
        // 1 is used again, so 2 goes for 3; then 1 goes for 2.
        let found = hits(2, &[1, 2, 1, 3, 1, 2, 3, 2]);
        assert_eq!(found, [false, false, true, false, true, false, false, true]);
    }

    #[test]
    fn one_entry_knows_repetitions_alone() {
        assert_eq!(hits(1, &[7, 7, 8, 7, 7]), [false, true, false, false, true]);
    }

    #[test]
    fn a_cache_for_all_keys_misses_each_once() {
        let keys: Vec<u32> = (0..100).chain(0..100).collect();
        let mut cache = Lru::new(100).unwrap();
        assert!((cache.hit_percent(&keys) - 50.0).abs() < 1e-9);
        assert_eq!(cache.hit_percent(&[]), 0.0);
    }

    #[test]
    fn a_cache_without_room_is_refused() {
        assert!(Lru::new(0).is_err());
    }

    #[test]
    fn it_does_as_a_list_that_is_searched() {
        let mut draw = Draw::seeded(6);
        let keys: Vec<u32> = (0..5_000).map(|_| draw.below(40) as u32).collect();
        let mut list: Vec<u32> = Vec::new();
        let expected: Vec<bool> = keys
            .iter()
            .map(|key| {
                let found = list.iter().position(|known| known == key);
                found.map(|at| list.remove(at));
                list.push(*key);
                if list.len() > 16 {
                    list.remove(0);
                }
                found.is_some()
            })
            .collect();
        assert_eq!(hits(16, &keys), expected);
    }

    #[test]
    fn under_zipf_it_stays_below_the_ideal_but_not_far() {
        let zipf = Zipf::new(10_000, 1.0);
        let mut draw = Draw::seeded(7);
        let mut cache = Lru::new(1_000).unwrap();
        let mut percent = |count| {
            let keys: Vec<u32> = (0..count).map(|_| zipf.draw(&mut draw) as u32).collect();
            cache.hit_percent(&keys)
        };
        percent(100_000);
        let (ours, ideal) = (percent(100_000), zipf.share_of(1_000) * 100.0);
        assert!(ours < ideal && ours > ideal - 15.0, "{ours} % beside {ideal} %");
    }
}
