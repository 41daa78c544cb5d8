//! Flights, and the stripes that keep them: one look-up per code at a time,
//! whose answer all who came meanwhile share.
//!
//! A flight is *current* while the stripe holds it. Only a current flight is
//! joined, and only a current one may store what it found; a change of the code
//! takes it out of the stripe (*detaches* it). So its being current is the proof
//! that no change of its code was acknowledged since it began.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};
use terse_core::ShortCode;
use terse_core::ports::{Lookup, StoreError};
use tokio::sync::watch;

use crate::memory::spread;

/// A power of two, large enough that web workers seldom meet at one lock.
const STRIPES: usize = 256;

/// Codes in doubt that a stripe keeps apart; with more, all codes of the stripe are in doubt.
const MAX_DOUBTS_PER_STRIPE: usize = 64;

/// What a flight brings.
pub(crate) type Answer = Result<Lookup, StoreError>;

/// One look-up that is running.
pub(crate) struct Flight {
    answer: watch::Receiver<Option<Answer>>,
    waiters: AtomicUsize,
    began_ms: u64,
}

/// A place among those who wait for a flight; dropping it gives it back.
pub(crate) struct Waiter(Arc<Flight>);

/// The flight's task is gone without an answer: it panicked, or its runtime was shut down.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Lost;

impl Flight {
    /// A flight that begins at `began_ms`, and where its answer goes. Dropping that unused tells the waiters that it is lost.
    pub(crate) fn new(began_ms: u64) -> (Arc<Self>, watch::Sender<Option<Answer>>) {
        let (sender, answer) = watch::channel(None);
        (Arc::new(Self { answer, waiters: AtomicUsize::new(0), began_ms }), sender)
    }

    /// When it began.
    pub(crate) fn began_ms(&self) -> u64 {
        self.began_ms
    }

    /// Takes a place among the waiters, unless `max` have one.
    pub(crate) fn join(self: &Arc<Self>, max: usize) -> Option<Waiter> {
        if self.waiters.fetch_add(1, Ordering::Relaxed) < max {
            return Some(Waiter(Arc::clone(self)));
        }
        self.waiters.fetch_sub(1, Ordering::Relaxed);
        None
    }
}

impl Waiter {
    /// Waits for the answer.
    pub(crate) async fn answer(&self) -> Result<Answer, Lost> {
        let mut answer = self.0.answer.clone();
        let ready = answer.wait_for(Option::is_some).await.map_err(|_| Lost)?;
        ready.clone().ok_or(Lost)
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.0.waiters.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The writes of one code that are going on.
#[derive(Default)]
struct Writes {
    running: usize,
    ended: u64,
}

/// The begin of a write, to be given back at its end.
#[derive(Clone, Copy)]
pub(crate) struct WriteBegin(u64);

/// The flights and writes of the codes that fall into it, and which of its codes are in doubt.
#[derive(Default)]
pub(crate) struct Stripe {
    flights: HashMap<ShortCode, Arc<Flight>>,
    writes: HashMap<ShortCode, Writes>,
    doubts: HashMap<ShortCode, u64>,
    all_in_doubt_until_ms: u64,
}

impl Stripe {
    /// The current flight of `code`.
    pub(crate) fn flight(&self, code: &ShortCode) -> Option<&Arc<Flight>> {
        self.flights.get(code)
    }

    /// Makes `flight` the current one of `code`.
    pub(crate) fn begin(&mut self, code: &ShortCode, flight: &Arc<Flight>) {
        self.flights.insert(code.clone(), Arc::clone(flight));
    }

    /// Whether `flight` is the current one of `code`.
    pub(crate) fn is_current(&self, code: &ShortCode, flight: &Arc<Flight>) -> bool {
        self.flight(code).is_some_and(|current| Arc::ptr_eq(current, flight))
    }

    /// Takes `flight` out; returns whether it was still the current one of `code`.
    pub(crate) fn end(&mut self, code: &ShortCode, flight: &Arc<Flight>) -> bool {
        let current = self.is_current(code, flight);
        if current {
            self.flights.remove(code);
        }
        current
    }

    /// Detaches whichever flight `code` has: it may store nothing, and nobody joins it any more.
    pub(crate) fn detach(&mut self, code: &ShortCode) {
        self.flights.remove(code);
    }

    /// Notes that a write of `code` begins.
    pub(crate) fn begin_write(&mut self, code: &ShortCode) -> WriteBegin {
        let writes = self.writes.entry(code.clone()).or_default();
        writes.running += 1;
        WriteBegin(writes.ended)
    }

    /// Notes that a write of `code` ends; returns whether no other one ended
    /// since it began. Else a later version may have been acknowledged, and
    /// forgotten again, before this write's own answer came.
    pub(crate) fn end_write(&mut self, code: &ShortCode, begin: WriteBegin) -> bool {
        let Some(writes) = self.writes.get_mut(code) else { return false };
        let alone = writes.ended == begin.0;
        writes.running -= 1;
        writes.ended += 1;
        if writes.running == 0 {
            self.writes.remove(code);
        }
        alone
    }

    /// Puts `code` in doubt until `until_ms`.
    pub(crate) fn doubt(&mut self, code: &ShortCode, now_ms: u64, until_ms: u64) {
        if self.doubts.len() >= MAX_DOUBTS_PER_STRIPE {
            self.doubts.retain(|_, until_ms| now_ms < *until_ms);
        }
        if self.doubts.len() < MAX_DOUBTS_PER_STRIPE {
            self.doubts.insert(code.clone(), until_ms);
        } else {
            self.all_in_doubt_until_ms = self.all_in_doubt_until_ms.max(until_ms);
        }
    }

    /// Whether a write of `code` may still happen that nobody knows the outcome of.
    pub(crate) fn in_doubt(&self, code: &ShortCode, now_ms: u64) -> bool {
        now_ms < self.all_in_doubt_until_ms || self.doubts.get(code).is_some_and(|until_ms| now_ms < *until_ms)
    }
}

/// All stripes.
pub(crate) struct Stripes(Box<[Mutex<Stripe>]>);

impl Stripes {
    pub(crate) fn new() -> Self {
        Self((0..STRIPES).map(|_| Mutex::default()).collect())
    }

    /// Locks the stripe of `code`. Never held across an await.
    pub(crate) fn lock(&self, code: &ShortCode) -> MutexGuard<'_, Stripe> {
        // The low bits choose the jitter, the high ones the stripe.
        self.0[(spread(code) >> 32) as usize % STRIPES].lock()
    }

    /// Returns when everybody who has a lock now, or had one before, has given it back.
    pub(crate) fn pass(&self) {
        self.0.iter().for_each(|stripe| drop(stripe.lock()));
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use terse_core::ports::Tier;
    use terse_testkit::links::code;

    use super::*;

    #[test]
    fn waiters_are_bounded_and_a_place_is_given_back() {
        let (flight, _sender) = Flight::new(0);
        let first = flight.join(2).unwrap();
        let _second = flight.join(2).unwrap();
        assert!(flight.join(2).is_none());
        drop(first);
        assert!(flight.join(2).is_some());
    }

    #[test]
    fn an_answer_reaches_those_who_came_before_and_after_it() {
        let (flight, sender) = Flight::new(0);
        let early = flight.join(9).unwrap();
        assert!(early.answer().now_or_never().is_none());
        sender.send_replace(Some(Ok(Lookup { link: None, tier: Tier::Store })));
        drop(sender);
        let late = flight.join(9).unwrap();
        for waiter in [early, late] {
            let answer = waiter.answer().now_or_never().unwrap();
            assert_eq!(answer.unwrap().unwrap().tier, Tier::Store);
        }
    }

    #[test]
    fn a_flight_dropped_without_an_answer_is_lost_and_hangs_nobody() {
        let (flight, sender) = Flight::new(0);
        let waiter = flight.join(9).unwrap();
        drop(sender);
        assert!(matches!(waiter.answer().now_or_never(), Some(Err(Lost))));
    }

    #[test]
    fn a_detached_flight_is_not_current_and_does_not_end_its_successor() {
        let mut stripe = Stripe::default();
        let ((first, _a), (second, _b)) = (Flight::new(0), Flight::new(0));
        stripe.begin(&code("abc"), &first);
        stripe.detach(&code("abc"));
        assert!(stripe.flight(&code("abc")).is_none());
        stripe.begin(&code("abc"), &second);
        assert!(!stripe.end(&code("abc"), &first));
        assert!(stripe.end(&code("abc"), &second));
        assert!(stripe.flight(&code("abc")).is_none());
    }

    #[test]
    fn a_write_knows_whether_another_ended_since_it_began() {
        let mut stripe = Stripe::default();
        let outer = stripe.begin_write(&code("abc"));
        let inner = stripe.begin_write(&code("abc"));
        let other = stripe.begin_write(&code("other"));
        assert!(stripe.end_write(&code("abc"), inner));
        let late = stripe.begin_write(&code("abc"));
        assert!(!stripe.end_write(&code("abc"), outer));
        assert!(!stripe.end_write(&code("abc"), late));
        assert!(stripe.end_write(&code("other"), other));
        assert!(stripe.writes.is_empty(), "writes that have ended take no room");
    }

    #[test]
    fn doubt_concerns_one_code_and_passes() {
        let mut stripe = Stripe::default();
        stripe.doubt(&code("abc"), 0, 5_000);
        assert!(stripe.in_doubt(&code("abc"), 4_999));
        assert!(!stripe.in_doubt(&code("abc"), 5_000));
        assert!(!stripe.in_doubt(&code("other"), 0));
    }

    #[test]
    fn too_many_doubts_put_the_stripe_in_doubt_and_take_no_more_room() {
        let mut stripe = Stripe::default();
        for n in 0..1_000_u64 {
            stripe.doubt(&code(&format!("code{n}")), n, n + 5_000);
        }
        assert_eq!(stripe.doubts.len(), MAX_DOUBTS_PER_STRIPE);
        assert!(stripe.in_doubt(&code("other"), 5_998));
        assert!(!stripe.in_doubt(&code("other"), 5_999));
    }

    #[test]
    fn doubts_that_have_passed_make_room_for_new_ones() {
        let mut stripe = Stripe::default();
        for n in 0..MAX_DOUBTS_PER_STRIPE {
            stripe.doubt(&code(&format!("code{n}")), 0, 5_000);
        }
        stripe.doubt(&code("abc"), 5_000, 10_000);
        assert!(stripe.in_doubt(&code("abc"), 9_999));
        assert!(!stripe.in_doubt(&code("other"), 5_000));
        assert_eq!(stripe.doubts.len(), 1);
    }

    #[test]
    fn codes_spread_over_the_stripes() {
        let stripes = Stripes::new();
        for n in 0..10_000_u64 {
            let (flight, _) = Flight::new(0);
            let code = code(&format!("code{n}"));
            stripes.lock(&code).begin(&code, &flight);
        }
        let fullest = stripes.0.iter().map(|stripe| stripe.lock().flights.len()).max().unwrap();
        assert!(fullest < 100, "{fullest} of 10000 codes in one of 256 stripes");
    }
}
