//! What `/health` tells of clicks: how far behind counting is, what waits for it, what stands still, and whether clicks
//! were dropped. What waits in the journals here is told by every process that records or counts, whoever is to count it.
//!
//! A report costs nothing: it tells what the gauges' task saw last, half a second ago.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use terse_clicks::journal::Counts;
use terse_core::Clock;
use terse_core::ports::{DependencyHealth, Observation};

use super::projection::Supervised;
use super::recording::Recording;
use super::waiting::Watch;

/// Above this lag counting is behind, in milliseconds.
const BEHIND_MS: u64 = 60_000;
/// For so long dropped clicks are told, in milliseconds.
const DROPPED_MS: u64 = 60_000;
/// Most looks at the journal that are remembered. There are two a second; with more, the window is shorter.
const MAX_LOOKS: usize = 256;

/// What a report says while projectors die.
const STOPPED: &str = "counting has stopped: the projector dies and is started again; the log says why";

/// What it says while threads of the journal die.
const DYING: &str = "a thread of the click journal died less than a minute ago; the log says why";

/// What a journal counted, as it was seen.
#[derive(Debug, Default)]
pub(super) struct Recorded(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    pending: u64,
    /// When, on the monotonic clock, how many clicks had been dropped since the start; the first is from before the
    /// window.
    dropped: VecDeque<(u64, u64)>,
}

impl Recorded {
    /// Notes what was seen at `now_ms`.
    pub(super) fn note(&self, counts: &Counts, now_ms: u64) {
        let mut seen = self.0.lock();
        seen.pending = counts.pending;
        seen.dropped.push_back((now_ms, counts.dropped.iter().sum()));
        let is_over = |seen: &Seen| {
            let next = seen.dropped.get(1);
            next.is_some_and(|(at_ms, _)| now_ms.saturating_sub(*at_ms) >= DROPPED_MS)
        };
        while is_over(&seen) || seen.dropped.len() > MAX_LOOKS {
            seen.dropped.pop_front();
        }
    }

    /// Sealed blocks that are not counted.
    fn pending(&self) -> u64 {
        self.0.lock().pending
    }

    /// Clicks dropped in the last minute that was looked at.
    fn dropped(&self) -> u64 {
        let seen = self.0.lock();
        match (seen.dropped.front(), seen.dropped.back()) {
            (Some((_, before)), Some((_, now))) => now.saturating_sub(*before),
            _ => 0,
        }
    }
}

/// Whether recording and counting go on.
pub(super) struct ClickHealth {
    /// `None` = this process doesn't record.
    pub(super) recording: Option<(Recording, Arc<Recorded>)>,
    /// `None` = this process doesn't count.
    pub(super) counting: Option<Arc<Supervised>>,
    /// What waits in the journals here.
    pub(super) watch: Option<Watch>,
    pub(super) clock: Arc<dyn Clock>,
}

#[async_trait]
impl DependencyHealth for ClickHealth {
    fn name(&self) -> &'static str {
        "clicks"
    }

    /// Whether there is a journal, and a projector that lives. What else can be wrong is what it measures.
    async fn check(&self) -> Result<(), String> {
        if let Some((recording, _)) = &self.recording {
            let journal = recording.journal.must();
            let journal = journal.map_err(|error| format!("clicks are dropped: {}", error.message))?;
            if !journal.is_alive() {
                return Err(DYING.to_owned());
            }
        }
        match &self.counting {
            Some(counting) if counting.has_stopped(self.clock.monotonic_ms()) => Err(STOPPED.to_owned()),
            _ => Ok(()),
        }
    }

    fn observe(&self) -> Vec<Observation> {
        let of = |name, value, unit, trouble| Observation { name, value, unit, trouble, detail: None };
        let now = self.clock.now();
        let report = self.counting.as_ref().map(|counting| counting.report());
        let counting = report.map_or((0, 0), |report| (report.lag_ms(now), report.stopped));
        let waiting = self.watch.as_ref().map_or((0, 0), |watch| (watch.lag_ms(now), watch.gaps()));
        let (lag_ms, stopped) = (counting.0.max(waiting.0), counting.1 + waiting.1);
        let detail = self.watch.as_ref().and_then(Watch::gaps_in_words);
        let stands = of("stopped", stopped, "partitions", (stopped > 0).then_some("stopped"));
        let mut observed =
            vec![of("lag", lag_ms, "ms", (lag_ms > BEHIND_MS).then_some("behind")), Observation { detail, ..stands }];
        if let Some((_, recorded)) = &self.recording {
            let dropped = recorded.dropped();
            observed.push(of("pending", recorded.pending(), "blocks", None));
            observed.push(of("dropped", dropped, "clicks", (dropped > 0).then_some("dropping")));
        }
        observed
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use terse_clicks::journal::JournalConfig;
    use terse_testkit::{SeededEntropy, TestClock};

    use super::*;

    fn counts(dropped: u64, pending: u64) -> Counts {
        Counts { recorded: 9, dropped: [dropped, 0, 0], pending }
    }

    #[test]
    fn dropped_clicks_are_told_for_a_minute() {
        let recorded = Recorded::default();
        assert_eq!(recorded.dropped(), 0);
        for (now_ms, total, told) in [
            (0, 0, 0),
            (500, 3, 3),
            (30_000, 3, 3),
            (59_900, 5, 5),
            (60_400, 5, 5),
            (60_600, 5, 2),
            (119_000, 5, 2),
            (120_000, 5, 0),
            (120_500, 6, 1),
        ] {
            recorded.note(&counts(total, 4), now_ms);
            assert_eq!(recorded.dropped(), told, "after {now_ms} ms");
        }
        assert_eq!(recorded.pending(), 4);
    }

    #[test]
    fn no_more_looks_are_remembered_than_the_bound() {
        let recorded = Recorded::default();
        for now_ms in 0..10_000 {
            recorded.note(&counts(now_ms, 0), now_ms);
        }
        assert!(recorded.0.lock().dropped.len() <= MAX_LOOKS);
    }

    #[tokio::test]
    async fn a_process_tells_what_it_does() {
        let clock: Arc<dyn Clock> = Arc::new(TestClock::default());
        let recorded = Arc::new(Recorded::default());
        recorded.note(&counts(0, 3), 0);
        recorded.note(&counts(2, 3), 1);
        let place = tempfile::tempdir().unwrap();
        let config = JournalConfig::new(place.path().join("journal"));
        let recording = Recording::new(config, Arc::clone(&clock), Arc::new(SeededEntropy::new(1)));
        let watch = Watch::new(&place.path().join("journal"));
        let health = |recording, counting| ClickHealth {
            recording,
            counting,
            watch: Some(watch.clone()),
            clock: Arc::clone(&clock),
        };
        let told = |health: &ClickHealth| {
            health.observe().iter().map(|of| (of.name, of.value, of.unit, of.trouble)).collect::<Vec<_>>()
        };
        let records = health(Some((recording.clone(), recorded)), None);
        let nothing_waits = [("lag", 0, "ms", None), ("stopped", 0, "partitions", None)];
        let recorded = [("pending", 3, "blocks", None), ("dropped", 2, "clicks", Some("dropping"))];
        assert_eq!(told(&records), [nothing_waits, recorded].concat());
        let told_by_check = records.check().await.unwrap_err();
        assert_eq!(told_by_check, "clicks are dropped: the click journal could not be opened yet");
        recording.journal.open_once(Duration::from_secs(30)).await.unwrap();
        assert_eq!(records.check().await, Ok(()));
        let counts = health(None, Some(Arc::default()));
        assert_eq!(told(&counts), nothing_waits);
        assert_eq!(counts.check().await, Ok(()));
        let dying = Arc::new(Supervised::default());
        dying.died("on purpose", 0);
        assert_eq!(health(None, Some(dying)).check().await.unwrap_err(), STOPPED);
    }
}
