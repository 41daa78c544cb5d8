//! Turns for conditional writes on one key.

use std::hash::{DefaultHasher, Hasher};

use terse_core::Entropy;
use terse_core::ports::{StoreError, StoreErrorKind};
use terse_core::time::random_bytes;
use tokio::sync::{Mutex, MutexGuard, Semaphore, SemaphorePermit};
use tokio::time::Instant;

/// So many locks; two keys of one stripe wait for each other without need.
const STRIPES: usize = 1_024;
/// Who may wait for one stripe; who comes then is refused as overloaded.
///
/// Enough that of 200 claims of one alias at one moment each learns who got it.
/// With who has the turn that is half of what a guard lets write at once, so one
/// hot key never takes up all the places of writes. A waiter is a future of a
/// few KiB, and waits no longer than its deadline.
const MAX_WAITING: usize = 255;

/// Lets the conditional writes of this process on one key go one after
/// another: on the replicas they would contend with each other.
pub(super) struct Stripes {
    /// Drawn anew for each store, so that no client can choose keys of one stripe.
    seed: [u8; 16],
    stripes: Box<[Stripe]>,
}

/// One lock.
struct Stripe {
    /// Places for who has the turn and those who wait for it.
    places: Semaphore,
    turn: Mutex<()>,
}

/// The right to write to the keys of one stripe, until it is dropped.
#[must_use = "the turn is over as soon as this is dropped"]
#[derive(Debug)]
pub(super) struct Turn<'a> {
    _turn: MutexGuard<'a, ()>,
    _place: SemaphorePermit<'a>,
}

impl Stripes {
    pub(super) fn new(entropy: &dyn Entropy) -> Self {
        let stripe = |_| Stripe { places: Semaphore::new(1 + MAX_WAITING), turn: Mutex::new(()) };
        Self { seed: random_bytes(entropy), stripes: (0..STRIPES).map(stripe).collect() }
    }

    fn of(&self, key: &str) -> &Stripe {
        let mut hasher = DefaultHasher::new();
        hasher.write(&self.seed);
        hasher.write(key.as_bytes());
        // The remainder is below STRIPES.
        &self.stripes[(hasher.finish() % STRIPES as u64) as usize]
    }

    /// The turn of `key`, if nobody has it.
    pub(super) fn try_turn(&self, key: &str) -> Option<Turn<'_>> {
        let stripe = self.of(key);
        let place = stripe.places.try_acquire().ok()?;
        Some(Turn { _turn: stripe.turn.try_lock().ok()?, _place: place })
    }

    /// Waits until `deadline` for the turn of `key`. Who came first goes first.
    ///
    /// # Errors
    /// [`StoreErrorKind::Overloaded`] at the deadline, or at once when too many wait already.
    pub(super) async fn turn(&self, key: &str, deadline: Instant) -> Result<Turn<'_>, StoreError> {
        let stripe = self.of(key);
        let place = stripe.places.try_acquire().map_err(|_| too_many_wait())?;
        let turn = tokio::time::timeout_at(deadline, stripe.turn.lock()).await;
        Ok(Turn { _turn: turn.map_err(|_| too_many_wait())?, _place: place })
    }
}

fn too_many_wait() -> StoreError {
    StoreError::new(StoreErrorKind::Overloaded, "too many writes of one key are waiting for each other")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use futures_util::FutureExt;
    use terse_testkit::SeededEntropy;

    use super::*;

    fn stripes(seed: u64) -> Stripes {
        Stripes::new(&SeededEntropy::new(seed))
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(2)
    }

    #[test]
    fn one_key_has_one_turn_and_others_mostly_another() {
        let stripes = stripes(1);
        let taken = stripes.try_turn("abc").unwrap();
        assert!(stripes.try_turn("abc").is_none());
        let free = (0..1_000).filter(|n| stripes.try_turn(&n.to_string()).is_some()).count();
        assert!(free >= 990, "{free}");
        drop(taken);
        assert!(stripes.try_turn("abc").is_some());
    }

    #[test]
    fn keys_spread_over_the_stripes_and_differently_in_each_store() {
        let (one, other) = (stripes(1), stripes(2));
        let at = |stripes: &Stripes, n: u32| {
            let stripe = stripes.of(&format!("c{n:06}"));
            stripes.stripes.iter().position(|known| std::ptr::eq(known, stripe)).unwrap()
        };
        let used: HashSet<_> = (0..1_000).map(|n| at(&one, n)).collect();
        assert!(used.len() > 500, "{} stripes for 1,000 keys", used.len());
        let alike = (0..1_000).filter(|n| at(&one, *n) == at(&other, *n)).count();
        assert!(alike < 20, "{alike} of 1,000 keys in the same stripe of both");
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_wait_for_one_key_and_the_next_is_refused_at_once() {
        let stripes = stripes(1);
        let taken = stripes.try_turn("hot").unwrap();
        let mut waiting: Vec<_> = (0..MAX_WAITING).map(|_| Box::pin(stripes.turn("hot", soon()))).collect();
        waiting.iter_mut().for_each(|turn| assert!(turn.as_mut().now_or_never().is_none()));
        let refused = stripes.turn("hot", soon()).now_or_never().expect("refused without a wait");
        assert_eq!(refused.unwrap_err().kind, StoreErrorKind::Overloaded);
        assert!(stripes.turn("another", soon()).await.is_ok(), "other keys don't notice");
        // One that goes away makes room for another.
        waiting.pop();
        assert!(stripes.turn("hot", soon()).now_or_never().is_none());
        drop(taken);
        for turn in waiting {
            drop(turn.await.unwrap());
        }
        assert!(stripes.try_turn("hot").is_some());
    }

    #[test]
    fn one_hot_key_leaves_half_of_the_writes_to_others() {
        assert!(MAX_WAITING < crate::GuardSettings::default().write.permits as usize / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_is_waited_for_until_the_deadline() {
        let stripes = stripes(1);
        let _taken = stripes.try_turn("hot").unwrap();
        let deadline = soon();
        assert_eq!(stripes.turn("hot", deadline).await.unwrap_err().kind, StoreErrorKind::Overloaded);
        assert_eq!(Instant::now(), deadline);
    }
}
