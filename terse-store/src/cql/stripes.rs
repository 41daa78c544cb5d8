//! Turns for conditional writes on one key.

use std::hash::{DefaultHasher, Hasher};

use tokio::sync::Mutex;

/// So many locks; two keys of one stripe wait for each other without need.
const STRIPES: usize = 1_024;

/// Lets the conditional writes of this process on one key go one after
/// another: on the replicas they would contend with each other. Who waits is
/// bounded by the guard around the store.
pub(super) struct Stripes(Box<[Mutex<()>]>);

impl Stripes {
    pub(super) fn new() -> Self {
        Self((0..STRIPES).map(|_| Mutex::new(())).collect())
    }

    /// The lock of `key`. It is fair: who came first goes first.
    pub(super) fn of(&self, key: &str) -> &Mutex<()> {
        let mut hasher = DefaultHasher::new();
        hasher.write(key.as_bytes());
        // The remainder is below STRIPES.
        &self.0[(hasher.finish() % STRIPES as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn one_key_has_one_turn_and_others_mostly_another() {
        let stripes = Stripes::new();
        assert!(std::ptr::eq(stripes.of("abc"), stripes.of("abc")));
        let taken = stripes.of("abc").try_lock().unwrap();
        let free = (0..1_000).filter(|n| stripes.of(&n.to_string()).try_lock().is_ok()).count();
        assert!(free >= 990, "{free}");
        drop(taken);
        assert!(stripes.of("abc").try_lock().is_ok());
    }

    #[test]
    fn keys_spread_over_the_stripes() {
        let stripes = Stripes::new();
        let used: HashSet<_> = (0..1_000).map(|n| std::ptr::from_ref(stripes.of(&format!("c{n:06}")))).collect();
        assert!(used.len() > 500, "{} stripes for 1,000 keys", used.len());
    }
}
