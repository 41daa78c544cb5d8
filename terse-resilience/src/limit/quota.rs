//! Quotas: so many units in a period that has a name, such as a month of the
//! calendar, for each of many keys, with what each has used.
//!
//! A quota is a fixed window that is too long for the states of a
//! [`RateLimiter`](super::RateLimiter): those are forgotten at an end of the
//! process and when other keys need their place. Here every key is counted
//! exactly, the counts can be saved and taken back ([`Uses::saved`],
//! [`Uses::restore`]), and who used most can be told ([`Uses::heaviest`]).
//!
//! **Shared.** Where several processes have one quota it is counted behind
//! [`SharedQuota`]. What a process grants while that can't be asked it adds up as
//! granted *alone*, and tells the sum with every draw; whoever is asked knows what
//! it was told of that process before, and counts only what is beyond. So nothing
//! is forgotten, a draw whose answer was lost tells nothing twice, and draws may
//! overtake each other. Each process knows what all had used when they lost sight
//! of each other. Until then `n` processes grant at most `n` times what was left.
//! The shared count never falls below what a process knows of it: one that loses
//! its memory gets it back, though then what was granted alone may count twice.
//! What a draw whose answer got lost was granted there stays counted; that errs
//! against the key, by the units of that draw.
//!
//! Bounds: so many keys at once ([`MAX_USES`] at most). One more takes the place
//! of the one that used least, whose count begins anew: what it is granted alone
//! after that is told once it is more than before. One lock, held for a
//! look-up; for a walk over all keys, some milliseconds at the bound, while they
//! are saved or the heaviest are told.

mod counts;

use std::future::Future;
use std::pin::Pin;

use self::counts::{Count, Period};
use super::Key;
use crate::SettingsError;
use crate::settings::require;
use crate::sync::{Mutex, lock};

/// Most keys whose use is counted: some ten megabytes.
pub const MAX_USES: usize = 1 << 18;

/// What a key used in the period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Use {
    /// Units granted, by all processes as far as this one knows.
    pub units: u64,
    /// Units refused, by this process.
    pub refused: u64,
}

/// What came of a draw from a quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuotaDraw {
    /// Units granted: from none to all that were wanted.
    pub granted: u32,
    /// Units used in the period, those granted now among them.
    pub used: u64,
    /// Whether a shared quota could not be asked, so that this process decided alone.
    pub alone: bool,
}

/// A question for a quota that several processes share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaQuestion {
    /// Which period it is.
    pub period: u32,
    /// Units of the key in it.
    pub limit: u64,
    /// Units used, without those that this process granted alone.
    pub known: u64,
    /// Units that this process granted alone in the period, told or not. It never falls in a period.
    pub alone: u64,
    /// Units wanted.
    pub wanted: u32,
}

/// What a shared quota says, once it does: units granted, and units used then.
pub type SharedQuotaDraw<'a> = Pin<Box<dyn Future<Output = Option<(u32, u64)>> + Send + 'a>>;

/// A quota that several processes share, kept somewhere else. See the module.
pub trait SharedQuota: Send + Sync + 'static {
    /// Takes up to as many units for `key` as the question wants, after it has noted what it tells. Of what a process
    /// granted alone that is what it was not told before: the same question may come again, and an older one later.
    /// Bounded in time; `None` when nobody can tell.
    fn draw<'a>(&'a self, key: &'a Key, question: QuotaQuestion) -> SharedQuotaDraw<'a>;
}

/// What keys used in the newest period.
#[derive(Debug)]
pub struct Uses {
    period: Mutex<Period>,
    max_keys: usize,
}

impl Uses {
    /// Nothing used yet, with room for `max_keys`, 1 to [`MAX_USES`].
    ///
    /// # Errors
    /// When `max_keys` is outside its limits.
    pub fn new(max_keys: usize) -> Result<Self, SettingsError> {
        require((1..=MAX_USES).contains(&max_keys), "max_keys", "be from 1 to 262144")?;
        Ok(Self { period: Mutex::new(Period::default()), max_keys })
    }

    /// Takes up to `wanted` of the `limit` units that `key` has in `period`; without a limit all of them. The `shared`
    /// quota decides, if there is one and it can.
    pub async fn draw(
        &self,
        period: u32,
        key: &Key,
        limit: Option<u64>,
        shared: Option<&dyn SharedQuota>,
        wanted: u32,
    ) -> QuotaDraw {
        // What has no limit needs nobody's consent.
        let Some((shared, limit)) = shared.zip(limit) else {
            return self.with(period, key, |count| count.grant(limit, wanted));
        };
        let (known, alone) = self.with(period, key, |count| count.told());
        let told = shared.draw(key, QuotaQuestion { period, limit, known, alone, wanted }).await;
        let mut current = lock(&self.period);
        // Others may have begun the next period meanwhile; it keeps what is counted of it.
        let over = current.number > period;
        if !over {
            current.advance(period);
        }
        match told {
            Some((granted, used)) if over => Count::default().note(granted, used, wanted),
            Some((granted, used)) => current.count(key, self.max_keys).note(granted, used, wanted),
            None => current.count(key, self.max_keys).grant_alone(limit, wanted),
        }
    }

    fn with<T>(&self, period: u32, key: &Key, change: impl FnOnce(&mut Count) -> T) -> T {
        let mut current = lock(&self.period);
        current.advance(period);
        change(current.count(key, self.max_keys))
    }

    /// The keys that used most in `period`, `most` of them, the heaviest first; of equal ones those with the smaller bytes.
    #[must_use]
    pub fn heaviest(&self, period: u32, most: usize) -> Vec<(Key, Use)> {
        let (_, mut all) = self.saved(period);
        all.sort_unstable_by(|(key, one), (other_key, other)| {
            let weight = |seen: &Use| (seen.units, seen.refused);
            weight(other).cmp(&weight(one)).then_with(|| key.as_bytes().cmp(other_key.as_bytes()))
        });
        all.truncate(most);
        all
    }

    /// All that is counted in `period`, with its number, in no order.
    #[must_use]
    pub fn saved(&self, period: u32) -> (u32, Vec<(Key, Use)>) {
        let mut current = lock(&self.period);
        current.advance(period);
        (current.number, current.counts.iter().map(|(key, count)| (*key, count.seen)).collect())
    }

    /// Takes back what was saved, where nothing was counted since that is more, up to the bound of keys. What a shared
    /// quota was not told of then, it gets to know as the least that was used.
    pub fn restore(&self, period: u32, saved: impl IntoIterator<Item = (Key, Use)>) {
        let mut current = lock(&self.period);
        if period < current.number {
            return;
        }
        current.advance(period);
        for (key, seen) in saved.into_iter().take(self.max_keys) {
            current.count(&key, self.max_keys).restore(seen);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
