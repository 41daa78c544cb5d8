//! How far this server's clock is from its store's.
//!
//! A mark stands in a bucket of ten seconds, and readers look into the newest
//! ones: marks of a writer whose clock is far off would not be seen. So
//!
//! - marks are written, and looked for, by the store's clock as this server
//!   knows it;
//! - a server whose clock is more than [`MAX_APART_MS`] off makes no edits:
//!   something is wrong with it, or with the nodes.
//!
//! **The store's clock** is that of the majority of the nodes that answer, up
//! to [`NODES_ASKED`]: of two of three, if one is off. Half of a node's round
//! trip is uncertain, and counts as if it were apart. It is kept as a
//! difference to the *monotonic* clock, so a step of this server's clock shows
//! at once, and needs no new measurement.
//!
//! It is measured whenever a store connects, so it is never unknown to a store
//! that answers. [`CqlStore::clock_once`] measures anew. An edit does so itself
//! when the last measurement is [`TRUSTED_MS`] old, and is refused if no node answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join_all;
use parking_lot::Mutex;
use scylla::client::session::Session;
use scylla::cluster::Node;
use scylla::policies::load_balancing::{NodeIdentifier, SingleTargetLoadBalancingPolicy};
use scylla::statement::unprepared::Statement;
use terse_core::ports::StoreError;
use terse_core::{Clock, Timestamp};

use super::session::{Profiles, Use, plain};
use super::{CqlStore, fault, rows};

/// How far the clocks may be apart, in milliseconds; then edits are refused.
const MAX_APART_MS: u64 = 5_000;
/// How long a measurement is relied on, in milliseconds: clocks drift by less than a millisecond meanwhile.
const TRUSTED_MS: u64 = 15_000;
/// Nodes asked for their time, at once.
const NODES_ASKED: usize = 5;
/// When a refused edit makes sense again, in milliseconds.
const RETRY_MS: u64 = 5_000;

const NOW: &str = "SELECT toUnixTimestamp(now()) FROM system.local";

/// The store's clock, as far as it is known.
pub(super) struct StoreClock {
    now: Statement,
    measured: Mutex<Option<Reading>>,
    /// Held while measuring: edits that find an old measurement wait for one new one.
    measuring: tokio::sync::Mutex<()>,
    /// Whether the log was told that the clocks are apart.
    told_apart: AtomicBool,
}

/// What a node's clock was seen to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reading {
    /// The monotonic time of the answer.
    at_ms: u64,
    /// What to add to the monotonic time to get the node's.
    ahead_ms: i64,
    /// By how much it may be more or less: half of the round trip.
    unsure_ms: u64,
}

impl Reading {
    /// Of a node that answered with `node_ms`, between two monotonic times.
    fn new(node_ms: i64, sent_ms: u64, answered_ms: u64) -> Self {
        let trip_ms = answered_ms.saturating_sub(sent_ms);
        let middle_ms = signed(sent_ms.saturating_add(trip_ms / 2));
        Self { at_ms: answered_ms, ahead_ms: node_ms.saturating_sub(middle_ms), unsure_ms: trip_ms.div_ceil(2) }
    }

    /// The node's time now.
    fn now(&self, clock: &dyn Clock) -> Timestamp {
        Timestamp::from_millis(self.ahead_ms.saturating_add(signed(clock.monotonic_ms())))
    }

    /// How far `clock` is ahead of the node's; negative = behind.
    fn offset_ms(&self, clock: &dyn Clock) -> i64 {
        clock.now().as_millis().saturating_sub(self.now(clock).as_millis())
    }

    /// How far the clocks may be apart.
    fn apart_ms(&self, clock: &dyn Clock) -> u64 {
        self.offset_ms(clock).unsigned_abs().saturating_add(self.unsure_ms)
    }

    fn is_trusted(&self, clock: &dyn Clock) -> bool {
        clock.monotonic_ms().saturating_sub(self.at_ms) <= TRUSTED_MS
    }
}

fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

/// The reading that tells whether `clock` is in step with a majority: as many nodes are closer to it as must be.
fn of_the_majority(mut readings: Vec<Reading>, clock: &dyn Clock) -> Option<Reading> {
    readings.sort_by_key(|reading| reading.apart_ms(clock));
    readings.get(readings.len() / 2).copied()
}

impl StoreClock {
    pub(super) fn new(profiles: &Profiles) -> Self {
        Self {
            now: plain(profiles, Use::NodeRead, NOW),
            measured: Mutex::new(None),
            measuring: tokio::sync::Mutex::new(()),
            told_apart: AtomicBool::new(false),
        }
    }

    /// Asks the nodes of `session` for their time, at once; each has [`clock_timeout_ms`](super::CqlLimits).
    ///
    /// # Errors
    /// [`StoreErrorKind::Unavailable`](terse_core::ports::StoreErrorKind::Unavailable) when none answers: what was
    /// known is kept.
    pub(super) async fn measure(&self, session: &Session, clock: &dyn Clock) -> Result<(), StoreError> {
        let nodes: Vec<_> = session.get_cluster_state().get_nodes_info().to_vec();
        let in_reach = nodes.into_iter().filter(|node| node.is_connected()).take(NODES_ASKED);
        let mut failed = fault::unavailable("no node is connected that could tell the time");
        let mut readings = Vec::with_capacity(NODES_ASKED);
        for answer in join_all(in_reach.map(|node| self.ask(session, node, clock))).await {
            match answer {
                Ok(reading) => readings.push(reading),
                Err(error) => failed = error,
            }
        }
        let reading = of_the_majority(readings, clock).ok_or(failed)?;
        *self.measured.lock() = Some(reading);
        Ok(())
    }

    async fn ask(&self, session: &Session, node: Arc<Node>, clock: &dyn Clock) -> Result<Reading, StoreError> {
        let mut now = self.now.clone();
        now.set_load_balancing_policy(Some(SingleTargetLoadBalancingPolicy::new(NodeIdentifier::Node(node), None)));
        let sent_ms = clock.monotonic_ms();
        let answer = session.query_unpaged(now, ()).await;
        let answered_ms = clock.monotonic_ms();
        let answer = answer.map_err(|error| fault::read("asking for the time", error))?.into_rows_result();
        let answer = answer.map_err(|error| fault::corrupt("a node tells no time").caused_by(error))?;
        let row = rows::first::<(Option<i64>,)>(&answer)?;
        let node_ms = row.and_then(|(time,)| time).ok_or_else(|| rows::wrong("toUnixTimestamp(now())"))?;
        Ok(Reading::new(node_ms, sent_ms, answered_ms))
    }

    /// The last measurement, or a new one if that is too old.
    async fn trusted(&self, session: &Session, clock: &dyn Clock) -> Result<Reading, StoreError> {
        let known = || self.measured.lock().filter(|reading| reading.is_trusted(clock));
        if let Some(reading) = known() {
            return Ok(reading);
        }
        let _one_at_a_time = self.measuring.lock().await;
        if let Some(reading) = known() {
            return Ok(reading);
        }
        self.measure(session, clock).await?;
        known().ok_or_else(|| fault::unavailable("the store's time is not known"))
    }

    /// The store's time now.
    pub(super) fn now(&self, clock: &dyn Clock) -> Timestamp {
        self.measured.lock().map_or_else(|| clock.now(), |reading| reading.now(clock))
    }

    /// How far `clock` is ahead of the store's, in milliseconds, if that was ever measured.
    pub(super) fn offset_ms(&self, clock: &dyn Clock) -> Option<i64> {
        self.measured.lock().map(|reading| reading.offset_ms(clock))
    }

    /// Whether `clock` is in step with `reading`; the log is told when that changes.
    fn judge(&self, shard: &str, reading: Reading, clock: &dyn Clock) -> bool {
        let (offset_ms, unsure_ms) = (reading.offset_ms(clock), reading.unsure_ms);
        let apart = reading.apart_ms(clock) > MAX_APART_MS;
        if self.told_apart.swap(apart, Ordering::Relaxed) != apart {
            if apart {
                tracing::warn!(shard, offset_ms, unsure_ms, "this clock is not the store's; edits are refused");
            } else {
                tracing::info!(shard, offset_ms, unsure_ms, "this clock is in step with the store's again");
            }
        }
        !apart
    }
}

impl CqlStore {
    /// Measures how far this server's clock is from the store's. One bounded
    /// step, to be called every few seconds.
    ///
    /// # Errors
    /// [`StoreErrorKind::Unavailable`](terse_core::ports::StoreErrorKind::Unavailable) when the store is not
    /// connected, or no node answers. That clocks are apart is no error.
    pub async fn clock_once(&self) -> Result<(), StoreError> {
        let live = self.connected()?;
        live.clock.measure(&live.session, &*self.clock).await?;
        let reading = *live.clock.measured.lock();
        reading.map(|reading| live.clock.judge(&self.config.shard, reading, &*self.clock));
        Ok(())
    }

    /// How far this server's clock is ahead of the store's, in milliseconds;
    /// negative = behind, `None` = not connected yet.
    #[must_use]
    pub fn clock_offset_ms(&self) -> Option<i64> {
        self.connected().ok()?.clock.offset_ms(&*self.clock)
    }

    /// Whether this server may edit links.
    ///
    /// # Errors
    /// [`StoreErrorKind::Unavailable`](terse_core::ports::StoreErrorKind::Unavailable) when its clock is apart from
    /// the store's, or that can't be told.
    pub(super) async fn in_step(&self, live: &super::Live) -> Result<(), StoreError> {
        let reading = live.clock.trusted(&live.session, &*self.clock).await?;
        if live.clock.judge(&self.config.shard, reading, &*self.clock) {
            return Ok(());
        }
        let text = format!(
            "shard '{}': this server's clock is {} ms off the store's, give or take {}; it makes no edits until it is in step",
            self.config.shard,
            reading.offset_ms(&*self.clock),
            reading.unsure_ms
        );
        // The store is well and did answer: creates go on.
        Err(StoreError { retry_after_ms: RETRY_MS, ..fault::unavailable(text).although_answered() })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use terse_testkit::TestClock;

    use super::*;
    use crate::cql::config::CqlLimits;

    /// A reading of a node whose clock is `node_ahead_ms` ahead of `clock`'s.
    fn reading(clock: &TestClock, node_ahead_ms: i64, trip_ms: u64) -> Reading {
        let answered = clock.monotonic_ms();
        let sent = answered - trip_ms;
        // The node told the time in the middle of the trip.
        let told = clock.now().as_millis() + node_ahead_ms - (trip_ms / 2) as i64;
        Reading::new(told, sent, answered)
    }

    fn clock() -> TestClock {
        let clock = TestClock::default();
        clock.advance(Duration::from_secs(100));
        clock
    }

    #[test]
    fn a_reading_tells_how_far_the_clocks_are_apart_and_how_surely() {
        let clock = clock();
        for (node_ahead_ms, trip_ms, apart_ms) in
            [(0, 0, 0), (6_000, 10, 6_005), (-6_000, 10, 6_005), (4_000, 400, 4_200)]
        {
            let reading = reading(&clock, node_ahead_ms, trip_ms);
            assert_eq!(reading.offset_ms(&clock), -node_ahead_ms);
            assert_eq!(reading.apart_ms(&clock), apart_ms);
            assert_eq!(reading.now(&clock), clock.now().plus_millis(node_ahead_ms));
        }
    }

    #[test]
    fn a_step_of_the_own_clock_shows_without_a_new_measurement() {
        let clock = clock();
        let reading = reading(&clock, 0, 2);
        let store = reading.now(&clock);
        clock.set_wall(clock.now().plus_millis(-7_000));
        assert_eq!((reading.offset_ms(&clock), reading.now(&clock)), (-7_000, store));
        clock.set_wall(clock.now().plus_millis(7_000));
        clock.advance(Duration::from_secs(9));
        assert_eq!((reading.offset_ms(&clock), reading.now(&clock)), (0, store.plus_millis(9_000)));
    }

    #[test]
    fn a_measurement_is_relied_on_for_some_seconds() {
        let clock = clock();
        let reading = reading(&clock, 0, 2);
        clock.advance(Duration::from_millis(TRUSTED_MS));
        assert!(reading.is_trusted(&clock));
        clock.advance(Duration::from_millis(1));
        assert!(!reading.is_trusted(&clock));
    }

    #[test]
    fn the_majority_of_the_nodes_has_the_time() {
        let clock = clock();
        let offset = |ahead: &[i64]| {
            let readings = ahead.iter().map(|ahead| reading(&clock, *ahead, 2)).collect();
            of_the_majority(readings, &clock).map(|reading| -reading.offset_ms(&clock))
        };
        assert_eq!(offset(&[]), None);
        assert_eq!(offset(&[3]), Some(3));
        assert_eq!(offset(&[9_000, 1, -2]), Some(-2), "one wrong node does not stop edits");
        assert_eq!(offset(&[9_000, -8_000, 1]), Some(-8_000), "two do");
        assert_eq!(offset(&[1, 9_000]), Some(9_000), "of two that differ neither is a majority");
    }

    #[test]
    fn the_log_is_told_when_it_begins_and_when_it_ends() {
        let clock = clock();
        let store = StoreClock::new(&Profiles::new(&CqlLimits::default()));
        assert_eq!((store.offset_ms(&clock), store.now(&clock)), (None, clock.now()));
        for (ahead_ms, in_step) in [(4_900, true), (5_100, false), (-5_100, false), (-4_900, true)] {
            assert_eq!(store.judge("main", reading(&clock, ahead_ms, 2), &clock), in_step, "{ahead_ms}");
            assert_eq!(store.told_apart.load(Ordering::Relaxed), !in_step);
        }
        let unsure = reading(&clock, 4_000, 3_000);
        assert!(!store.judge("main", unsure, &clock), "it may be apart, for all that is known");
    }
}
