//! How many links a key may create in a month of the calendar, UTC.
//!
//! Each link that is asked for draws one unit, of a batch each item, once the
//! limit `create` has let it through; whether it can be made shows later. A quota
//! is a key's own, or the usual one, or none. What keys created is counted also
//! where they have no quota, so that an operator sees who creates most. While
//! access is open there are no keys, and nothing is counted.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::http::header::HeaderValue;
use terse_core::access::Caller;
use terse_core::metrics::{LimitCounts, Metrics};
use terse_core::{KeyId, Timestamp};
use terse_resilience::limit::{Key, QuotaDraw, SharedQuota, Use, Uses};

use super::answer::{add, seconds};
use crate::State;
use crate::problem::{Kind, Problem};

/// What the quota is called in answers and metrics.
const NAME: &str = "quota";
const DAY_MS: i64 = 86_400_000;

/// A month of the calendar, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Month(u32);

impl Month {
    /// The month of `time`.
    #[must_use]
    pub fn of(time: Timestamp) -> Self {
        // Days are counted from the first of a March, so that the leap day is the last of a year; years by eras of 400,
        // which all have the same days (Howard Hinnant, `civil_from_days`). The years 1970 to 9999 leave no signs.
        let days = u32::try_from(time.as_millis() / DAY_MS).unwrap_or(0) + 719_468;
        let (era, day) = (days / 146_097, days % 146_097);
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day_of_year = day - (365 * year + year / 4 - year / 100);
        let since_march = (5 * day_of_year + 2) / 153;
        // Of March the third month of the year, of January the first of the next one.
        Self((era * 400 + year) * 12 + since_march + 2)
    }

    /// Its number: months since the year 0.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }

    /// Its first moment.
    #[must_use]
    pub fn begins(self) -> Timestamp {
        Timestamp::parse(&format!("{self}-01T00:00:00Z")).unwrap_or(Timestamp::from_millis(i64::MAX))
    }

    /// The first moment of the next one.
    #[must_use]
    pub fn ends(self) -> Timestamp {
        Self(self.0 + 1).begins()
    }

    fn lasts(self) -> Duration {
        between(self.begins(), self.ends())
    }
}

impl std::fmt::Display for Month {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:04}-{:02}", self.0 / 12, self.0 % 12 + 1)
    }
}

fn between(from: Timestamp, until: Timestamp) -> Duration {
    Duration::from_millis(u64::try_from(until.as_millis() - from.as_millis()).unwrap_or(0))
}

/// The quotas of keys, and what they have created this month.
pub struct Quotas {
    /// Links a month of a key that has no quota of its own; `None` = as many as it likes.
    usual: Option<u64>,
    /// Those that have one.
    own: HashMap<KeyId, Option<u64>>,
    uses: Arc<Uses>,
    shared: Option<Arc<dyn SharedQuota>>,
    counts: LimitCounts,
}

/// What a key created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyUse {
    pub(crate) key: String,
    pub(crate) seen: Use,
    pub(crate) limit: Option<u64>,
}

impl Quotas {
    /// Keys may create `usual` links a month, and those in `own` so many; `None` = as many as they like. What they did
    /// is counted in `uses`; where there is a `shared` quota it decides, and this process only while that can't.
    #[must_use]
    pub fn new(
        usual: Option<u64>,
        own: HashMap<KeyId, Option<u64>>,
        uses: Arc<Uses>,
        shared: Option<Arc<dyn SharedQuota>>,
        metrics: &Metrics,
    ) -> Self {
        Self { usual, own, uses, shared, counts: metrics.limit_counts(NAME) }
    }

    fn limit(&self, key: &KeyId) -> Option<u64> {
        self.own.get(key).copied().unwrap_or(self.usual)
    }

    /// Takes up to `wanted` links for `caller`: how many it may create. Notes what the answer to `request` is to tell.
    async fn draw(&self, request: &HttpRequest, caller: &Caller, now: Timestamp, wanted: u32) -> Drawn {
        let known = caller.key.as_ref().and_then(|id| Some((id, Key::of(&[id.as_str().as_bytes()])?)));
        let Some((id, key)) = known else { return Drawn { granted: wanted, refusal: None } };
        let (month, limit) = (Month::of(now), self.limit(id));
        let drawn = self.uses.draw(month.number(), &key, limit, self.shared.as_deref(), wanted).await;
        self.counts.refused(wanted - drawn.granted);
        if drawn.alone {
            self.counts.decided_alone();
        }
        let Some(limit) = limit else { return Drawn { granted: drawn.granted, refusal: None } };
        add(request, fields(month, limit, &drawn, now));
        let refusal = (drawn.granted < wanted).then(|| refusal(month, now));
        Drawn { granted: drawn.granted, refusal }
    }

    /// Who created most in the month of `now`, the heaviest first.
    pub(crate) fn heaviest(&self, now: Timestamp, most: usize) -> Vec<KeyUse> {
        let heaviest = self.uses.heaviest(Month::of(now).number(), most).into_iter();
        heaviest
            .map(|(key, seen)| {
                let key = String::from_utf8_lossy(key.as_bytes()).into_owned();
                let limit = KeyId::parse(&key).ok().and_then(|id| self.limit(&id));
                KeyUse { key, seen, limit }
            })
            .collect()
    }
}

/// How many links may be created, and what is answered for the others.
pub(crate) struct Drawn {
    pub(crate) granted: u32,
    pub(crate) refusal: Option<Problem>,
}

/// Draws `wanted` links from the quota of `caller`.
pub(super) async fn draw(request: &HttpRequest, state: &State, caller: &Caller, wanted: u32) -> Drawn {
    match &state.limits.quotas {
        Some(quotas) => quotas.draw(request, caller, state.clock.now(), wanted).await,
        None => Drawn { granted: wanted, refusal: None },
    }
}

fn fields(month: Month, limit: u64, drawn: &QuotaDraw, now: Timestamp) -> Option<[HeaderValue; 2]> {
    let policy = format!("\"{NAME}\";q={limit};w={}", seconds(month.lasts()));
    let (left, ends) = (limit.saturating_sub(drawn.used), seconds(between(now, month.ends())));
    let left = format!("\"{NAME}\";r={left};t={ends}");
    Some([HeaderValue::try_from(policy).ok()?, HeaderValue::try_from(left).ok()?])
}

fn refusal(month: Month, now: Timestamp) -> Problem {
    let ms = u64::try_from(between(now, month.ends()).as_millis()).unwrap_or(u64::MAX);
    Problem::unavailable(Kind::RateLimited, format!("the key has created all links of its quota for {month}"), ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    #[test]
    fn months_are_those_of_the_calendar() {
        for (time, month, days) in [
            ("1970-01-01T00:00:00Z", "1970-01", 31),
            ("1999-12-31T23:59:59.999Z", "1999-12", 31),
            ("2000-02-29T12:00:00Z", "2000-02", 29),
            ("2000-03-01T00:00:00Z", "2000-03", 31),
            ("2026-02-28T23:59:59Z", "2026-02", 28),
            ("2026-11-30T00:00:00Z", "2026-11", 30),
            ("2100-02-28T00:00:00Z", "2100-02", 28),
            ("2104-02-29T00:00:00Z", "2104-02", 29),
            ("9999-11-01T00:00:00Z", "9999-11", 30),
        ] {
            let of = Month::of(at(time));
            assert_eq!((of.to_string().as_str(), of.lasts().as_secs()), (month, days * 86_400), "{time}");
            assert!(of.begins() <= at(time) && at(time) < of.ends(), "{time}");
        }
    }

    #[test]
    fn every_day_is_in_the_month_that_it_is_written_in() {
        for day in 0..60_000 {
            for ms in [day * DAY_MS, (day + 1) * DAY_MS - 1] {
                let time = Timestamp::from_millis(ms);
                assert_eq!(Month::of(time).to_string(), time.to_string()[..7]);
            }
        }
    }

    #[test]
    fn the_last_month_that_can_be_written_ends_too() {
        let last = Month::of(Timestamp::from_millis(i64::MAX));
        assert_eq!(last.to_string(), "9999-12");
        assert_eq!(last.ends(), Timestamp::from_millis(i64::MAX));
    }

    #[test]
    fn the_fields_tell_of_this_month_and_when_the_next_begins() {
        let now = at("2026-11-30T23:59:30Z");
        let drawn = QuotaDraw { granted: 1, used: 40, alone: false };
        let [policy, left] = fields(Month::of(now), 100, &drawn, now).unwrap();
        assert_eq!([policy, left], ["\"quota\";q=100;w=2592000", "\"quota\";r=60;t=30"]);
        let drawn = QuotaDraw { used: 104, ..drawn };
        let [_, left] = fields(Month::of(now), 100, &drawn, now).unwrap();
        assert_eq!(left, "\"quota\";r=0;t=30", "several servers granted alone");
        let answer = refusal(Month::of(now), now).response(None);
        assert_eq!(answer.status().as_u16(), 429);
        assert_eq!(answer.headers().get("retry-after").unwrap(), "30");
    }
}
