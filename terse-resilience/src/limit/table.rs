//! The states of a bounded number of keys, in places that are made as keys come.
//!
//! A key's hash chooses a set of eight places; it takes one of these or
//! none. So a look at eight neighbours is all that finding, adding and
//! throwing out ever costs. A set is made when its first key comes, all eight
//! at once, and stays: a table that nobody uses holds but eight bytes a set, and
//! one that was flooded holds all its places and never more. Sets are spread
//! over stripes with a lock each, which is held for tens of nanoseconds, for
//! some hundreds while a set is made.

use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher;

use super::Key;
use crate::SettingsError;
use crate::settings::require;
use crate::sync::{Mutex, lock};

/// Most keys of a limiter: some hundred megabytes.
pub const MAX_KEYS: usize = 1 << 22;
/// Places that a key may take.
const WAYS: usize = 8;
/// Locks: a power of two, large enough that web workers seldom meet at one.
const MAX_STRIPES: usize = 64;

/// How full a limiter is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Places: keys that it can hold.
    pub places: usize,
    /// Keys that it holds, whether they have used anything lately or not.
    pub keys: usize,
    /// Keys that lost their place to another one, since the start. Most were as good as new.
    pub displaced: u64,
}

/// A place, free where the key is none.
#[derive(Clone, Copy)]
struct Place<S> {
    key: Key,
    state: S,
}

/// The places of some keys; null until the first one comes.
type Set<S> = Option<Box<[Place<S>; WAYS]>>;

/// The sets of one lock.
struct Stripe<S> {
    sets: Box<[Set<S>]>,
    keys: usize,
    displaced: u64,
}

/// The states of keys; see the module.
pub(super) struct Table<S> {
    stripes: Box<[Mutex<Stripe<S>>]>,
    sets: usize,
    seed: u64,
}

impl<S: Copy + Default> Table<S> {
    /// Room for at least `max_keys`, rounded up to a power of two.
    pub(super) fn new(max_keys: usize, seed: u64) -> Result<Self, SettingsError> {
        require((WAYS..=MAX_KEYS).contains(&max_keys), "max_keys", "be from 8 to 4194304")?;
        let all_sets = max_keys.next_power_of_two() / WAYS;
        let stripes = all_sets.min(MAX_STRIPES);
        let sets = all_sets / stripes;
        let stripe = || Stripe { sets: (0..sets).map(|_| None).collect(), keys: 0, displaced: 0 };
        Ok(Self { stripes: (0..stripes).map(|_| Mutex::new(stripe())).collect(), sets, seed })
    }

    /// What `change` makes of the state of `key`. Where there is no place left,
    /// the key of which `idle_at` is the earliest loses its own.
    pub(super) fn with<T>(&self, key: &Key, idle_at: impl Fn(&S) -> u64, change: impl FnOnce(&mut S) -> T) -> T {
        let hash = self.hash(key);
        let stripe = &self.stripes[hash as usize % self.stripes.len()];
        let set = (hash >> 32) as usize % self.sets;
        change(lock(stripe).state(set, key, idle_at))
    }

    pub(super) fn usage(&self) -> Usage {
        let places = self.stripes.len() * self.sets * WAYS;
        let mut usage = Usage { places, ..Usage::default() };
        for stripe in &self.stripes {
            let stripe = lock(stripe);
            usage.keys += stripe.keys;
            usage.displaced += stripe.displaced;
        }
        usage
    }

    /// SipHash behind a secret: who doesn't know it can't choose the place of a key.
    fn hash(&self, key: &Key) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.seed);
        hasher.write(key.as_bytes());
        hasher.finish()
    }
}

impl<S: Copy + Default> Place<S> {
    fn of(key: Key) -> Self {
        Self { key, state: S::default() }
    }
}

impl<S: Copy + Default> Stripe<S> {
    /// The state of `key`, which has its place in that set or gets one.
    fn state(&mut self, set: usize, key: &Key, idle_at: impl Fn(&S) -> u64) -> &mut S {
        let places = self.sets[set].get_or_insert_with(|| Box::new([Place::of(Key::NONE); WAYS]));
        let known = places.iter().position(|place| place.key == *key);
        let way = known.unwrap_or_else(|| {
            let way = least(places, idle_at);
            if places[way].key == Key::NONE {
                self.keys += 1;
            } else {
                self.displaced += 1;
            }
            places[way] = Place::of(*key);
            way
        });
        &mut places[way].state
    }
}

/// Which of `places` a new key gets: a free one, else the one of which `idle_at` is the earliest.
fn least<S>(places: &[Place<S>; WAYS], idle_at: impl Fn(&S) -> u64) -> usize {
    let rank = |place: &Place<S>| if place.key == Key::NONE { (0, 0) } else { (1, idle_at(&place.state)) };
    (0..WAYS).min_by_key(|way| rank(&places[*way])).unwrap_or(0)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn key(n: u64) -> Key {
        Key::of(&[&n.to_be_bytes()]).unwrap()
    }

    /// States are plain numbers: how often the key was seen, which is also when it is idle.
    fn seen(table: &Table<u64>, n: u64) -> u64 {
        let count = |state: &mut u64| {
            *state += 1;
            *state
        };
        table.with(&key(n), |state| *state, count)
    }

    #[test]
    fn each_key_has_a_state_of_its_own() {
        let table = Table::new(4_096, 1).unwrap();
        for round in 1..=3 {
            for n in 0..400 {
                assert_eq!(seen(&table, n), round);
            }
        }
        assert_eq!(table.usage(), Usage { places: 4_096, keys: 400, displaced: 0 });
    }

    #[test]
    fn keys_beyond_the_bound_displace_others_and_take_no_more_room() {
        let table = Table::new(1_024, 1).unwrap();
        for n in 0..100_000 {
            seen(&table, n);
        }
        let usage = table.usage();
        assert_eq!((usage.places, usage.keys), (1_024, 1_024));
        assert_eq!(usage.displaced, 100_000 - 1_024);
    }

    #[test]
    fn a_flood_displaces_those_first_that_are_idle_first() {
        let table = Table::new(1_024, 1).unwrap();
        for _ in 0..100 {
            (0..64).for_each(|n| assert!(seen(&table, n) > 0));
        }
        (1_000..101_000).for_each(|n| assert_eq!(seen(&table, n), 1));
        let kept = (0..64).filter(|n| seen(&table, *n) == 101).count();
        assert_eq!(kept, 64, "64 busy keys of 1024 places");
    }

    #[test]
    fn where_a_key_has_its_place_depends_on_the_seed() {
        let together = |seed| {
            let table = Table::<u64>::new(4_096, seed).unwrap();
            let place = |n| table.hash(&key(n)) % 64;
            (0..64).filter(|n| place(*n) == place(100)).collect::<Vec<_>>()
        };
        assert_eq!(together(1), together(1));
        assert_ne!(together(1), together(2));
    }

    #[test]
    fn room_is_rounded_up_and_bounded() {
        let places = |keys| Table::<u64>::new(keys, 0).map(|table| table.usage().places);
        assert_eq!((places(8).unwrap(), places(9).unwrap(), places(1_000).unwrap()), (8, 16, 1_024));
        assert_eq!(places(7).unwrap_err().setting, "max_keys");
        assert_eq!(places(MAX_KEYS + 1).unwrap_err().setting, "max_keys");
    }

    fn sets_made(table: &Table<u64>) -> usize {
        table.stripes.iter().map(|stripe| lock(stripe).sets.iter().flatten().count()).sum()
    }

    #[test]
    fn places_are_made_when_their_first_key_comes_and_once() {
        let table = Table::new(4_096, 1).unwrap();
        assert_eq!((sets_made(&table), table.usage().places), (0, 4_096));
        (0..100).for_each(|_| assert!(seen(&table, 7) > 0));
        assert_eq!(sets_made(&table), 1);
        (0..40).for_each(|n| assert!(seen(&table, n) > 0));
        assert!((30..=40).contains(&sets_made(&table)), "{} sets for 40 keys", sets_made(&table));
        (0..100_000).for_each(|n| assert!(seen(&table, n) > 0));
        assert_eq!(sets_made(&table), 512, "all that there are");
    }

    #[test]
    fn keys_spread_over_all_places() {
        let table = Table::new(65_536, 9).unwrap();
        (0..32_768).for_each(|n| assert_eq!(seen(&table, n), 1));
        let usage = table.usage();
        assert!(usage.displaced < 700, "half full, {} had no place", usage.displaced);
        assert_eq!(usage.keys as u64 + usage.displaced, 32_768);
    }
}
