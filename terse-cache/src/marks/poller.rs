//! Reads the marks of one shard, and has the cache act on them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use futures_util::stream::{self, StreamExt};
use parking_lot::Mutex;
use terse_core::ports::{ChangeFeed, ChangeMark, MarkPlace, StoreError, StoreErrorKind};
use terse_core::{ShortCode, Timestamp, Version};
use tokio::time::{Duration, timeout};

use super::{MAX_GAP_MS, REMEMBERED_MS, WINDOW_MS};
use crate::ReadThrough;
use crate::shared::EVERY_VERSION_IS_OLDER;

/// How much time one read of what windows don't reach spans: so little that many
/// changes fit in, and no more than a feed may add at either end.
const SLICE_MS: i64 = 10_000;

/// Marks in one read of a slice: few enough for a read's time. What is more is read in the next, however much there is.
const PAGE_MARKS: usize = 4_096;

/// How far outside of what it was asked for a feed may tell marks.
const FEED_EXTRA_MS: i64 = 10_000;

/// How long the id of a mark is kept beyond the time that it was written at:
/// longer than windows, and the ten seconds that a feed may add, reach back.
const ID_LIFE_MS: i64 = 60_000;

/// Drops from the shared cache that run at once.
const DROPS_AT_ONCE: usize = 32;

/// How long a poll waits for drops from the shared cache, twice at most; those
/// left are tried by the next. Longer than one call to Redis may take.
const DROPS_WAIT: Duration = Duration::from_millis(150);

/// Ids, and drops that are due, which are remembered for each mark that one read may bring.
const IDS_PER_MARK: usize = 4;

/// Polls the marks of one shard for a cache.
pub struct MarkPoller {
    cache: Arc<ReadThrough>,
    shard: usize,
    feed: Arc<dyn ChangeFeed>,
    state: Mutex<State>,
}

/// A change that is to be dropped.
#[derive(Clone)]
struct Drop {
    code: ShortCode,
    /// The mark's version.
    version: Version,
}

#[derive(Default)]
struct State {
    /// Marks that were acted on, and when they were written.
    seen: HashMap<[u8; 16], Timestamp>,
    /// The same for those that no window reaches back to, of the slice in
    /// progress and the one before: what is read in slices is read again after a failure.
    caught_up: HashMap<[u8; 16], Timestamp>,
    /// What is to be dropped once more, and when; the earliest first.
    again: VecDeque<(u64, Drop)>,
    /// What the shared cache is still to drop.
    shared: VecDeque<Drop>,
    /// When the last successful poll began, by the monotonic and by the wall clock.
    last: Option<Clocks>,
    /// Where what windows don't reach has yet to be read, if it has, and when that was found.
    behind: Option<(Behind, Clocks)>,
}

/// A moment by the monotonic clock, in milliseconds, and by the wall clock.
type Clocks = (u64, Timestamp);

/// Where reading what windows don't reach goes on.
#[derive(Clone, Copy)]
struct Behind {
    /// Where the slice begins.
    from: Timestamp,
    /// Where the last page of it ended that was read.
    after: Option<MarkPlace>,
}

impl Behind {
    fn at(from: Timestamp) -> Self {
        Self { from, after: None }
    }
}

impl MarkPoller {
    /// A poller of the marks that `feed` tells for `shard`, one of those that `cache` was made with.
    #[must_use]
    pub fn new(cache: &Arc<ReadThrough>, shard: usize, feed: Arc<dyn ChangeFeed>) -> Self {
        Self { cache: Arc::clone(cache), shard, feed, state: Mutex::default() }
    }

    /// Reads what is new, and acts on it: one bounded step, to be called four
    /// times a second, never twice at once. It may be given up at any moment:
    /// the next call goes on from there. It waits for the feed, and for the
    /// shared cache three tenths of a second at most; what it read counts before that.
    ///
    /// # Errors
    /// [`StoreError`] when not all marks could be read; with
    /// [`StoreErrorKind::Overloaded`] there are too many. Then the shard is not fresh, or not for long.
    pub async fn poll_once(&self) -> Result<(), StoreError> {
        let (began_ms, now) = (self.cache.clock().monotonic_ms(), self.cache.clock().now());
        self.drop_due(began_ms);
        let (read, ()) = futures_util::future::join(self.read_and_count(began_ms, now), self.drop_shared()).await;
        // What the read has brought.
        self.drop_shared().await;
        read
    }

    /// Reads, and has that count at once: what is fresh doesn't wait for the shared cache.
    async fn read_and_count(&self, began_ms: u64, now: Timestamp) -> Result<(), StoreError> {
        let read = self.read(began_ms, now).await;
        if read.is_ok() {
            self.cache.shards().polled(self.shard, began_ms);
        }
        read
    }

    /// Reads and notes all that is not known yet.
    async fn read(&self, began_ms: u64, now: Timestamp) -> Result<(), StoreError> {
        let (clocks, window) = ((began_ms, now), now.plus_millis(-WINDOW_MS));
        let mut behind = self.state.lock().begin(clocks);
        while let Some(at) = behind.filter(|at| at.from < window) {
            let next = self.read_page(at, window, now).await?;
            self.state.lock().caught_up_to(next, clocks);
            behind = Some(next);
        }
        self.read_window(window, now).await?;
        let mut state = self.state.lock();
        state.behind = None;
        state.caught_up = HashMap::new();
        state.last = Some(clocks);
        Ok(())
    }

    /// Reads a page of the slice `at`, which ends before `window`; tells where to go on.
    async fn read_page(&self, at: Behind, window: Timestamp, now: Timestamp) -> Result<Behind, StoreError> {
        let until = at.from.plus_millis(SLICE_MS).min(window);
        let limit = self.cache.max_marks().min(PAGE_MARKS);
        let found = self.feed.marks(at.from, until, at.after, limit).await?;
        for mark in found.marks {
            // One that can't be remembered is acted on again if windows tell of it, and so held up there.
            self.act_on(mark, now);
        }
        Ok(found.next.map_or(Behind::at(until), |next| Behind { after: Some(next), ..at }))
    }

    async fn read_window(&self, window: Timestamp, now: Timestamp) -> Result<(), StoreError> {
        let limit = self.cache.max_marks();
        let found = self.feed.marks(window, now.plus_millis(WINDOW_MS), None, limit).await?;
        let mut room = true;
        for mark in found.marks {
            room &= self.act_on(mark, now);
        }
        if found.next.is_none() && room {
            return Ok(());
        }
        self.cache.shards().fell_behind(self.shard);
        self.cache.count_overflow();
        Err(StoreError::new(StoreErrorKind::Overloaded, "there are more changes than can be read at once"))
    }

    /// Acts on `mark`, unless that was done before. Returns whether there is room to remember that.
    fn act_on(&self, mark: ChangeMark, now: Timestamp) -> bool {
        let recent = is_recent(mark.at, now);
        let max = self.cache.max_marks().saturating_mul(IDS_PER_MARK);
        let mut state = self.state.lock();
        if state.seen.contains_key(&mark.id) || state.caught_up.contains_key(&mark.id) {
            return true;
        }
        self.cache.mark_seen(&mark.code, mark.version);
        let drop = Drop { version: mark.version, code: mark.code };
        state.shared.push_back(drop.clone());
        if state.shared.len() > max {
            state.shared.pop_front();
        }
        if !recent {
            // No window reaches back to it, and its edit happened or never will.
            // Without room to remember it, it is acted on again, which does no harm.
            if state.caught_up.len() < max {
                state.caught_up.insert(mark.id, mark.at);
            }
            return true;
        }
        state.again.push_back((self.cache.settles_at_ms(), drop));
        if state.again.len() > max
            && let Some((_, early)) = state.again.pop_front()
        {
            self.cache.drop_marked(&early.code, early.version);
        }
        let room = state.seen.len() < max;
        if room {
            state.seen.insert(mark.id, mark.at);
        }
        room
    }

    /// Drops once more what is due for it.
    fn drop_due(&self, now_ms: u64) {
        let mut state = self.state.lock();
        while let Some((_, drop)) = state.again.pop_front_if(|(due_ms, _)| *due_ms <= now_ms) {
            self.cache.drop_marked(&drop.code, drop.version);
            state.shared.push_back(drop);
        }
    }

    /// Has the shared cache drop what it is still to drop, for a bounded time.
    async fn drop_shared(&self) {
        let Some(shared) = self.cache.shared() else {
            self.state.lock().shared.clear();
            return;
        };
        let due = std::iter::from_fn(|| self.state.lock().shared.pop_front());
        let drops = stream::iter(due).for_each_concurrent(DROPS_AT_ONCE, |drop| async move {
            shared.drop_older(&drop.code, least_to_keep(drop.version)).await;
        });
        // What is cut off here is dropped again in time, or was the second time: nobody takes it anyway.
        let _ = timeout(DROPS_WAIT, drops).await;
    }
}

impl State {
    /// Forgets what no window tells again, whatever becomes of the read that begins now: else one that fails for want
    /// of room would leave none for the next. Tells where marks are to be read that windows don't reach.
    fn begin(&mut self, clocks: Clocks) -> Option<Behind> {
        let (_, now) = clocks;
        self.seen.retain(|_, at| is_recent(*at, now));
        let all = now.plus_millis(-(REMEMBERED_MS as i64));
        let behind = match (self.behind, self.last) {
            (Some((behind, found)), _) if agree(found, clocks) => Some(Behind { from: behind.from.max(all), ..behind }),
            (None, Some(last)) => after_gap(last, clocks, all).map(Behind::at),
            (Some(_), _) | (None, None) => Some(Behind::at(all)),
        };
        self.behind = behind.map(|behind| (behind, clocks));
        behind
    }

    /// Notes that all before `next` was read; what no later slice tells again is forgotten.
    fn caught_up_to(&mut self, next: Behind, clocks: Clocks) {
        self.behind = Some((next, clocks));
        if next.after.is_none() {
            let told_again = next.from.plus_millis(-FEED_EXTRA_MS);
            self.caught_up.retain(|_, at| *at >= told_again);
        }
    }
}

/// From where on marks are to be read that windows don't reach, when the `last`
/// successful poll began so long before this one. `None` = the windows overlap
/// enough. If one of the clocks was set, nobody knows what the last window covered: then it is `all`.
fn after_gap(last: Clocks, clocks: Clocks, all: Timestamp) -> Option<Timestamp> {
    let (gap_ms, wall_ms) = between(last, clocks);
    if gap_ms.max(wall_ms.unsigned_abs()) <= MAX_GAP_MS {
        return None;
    }
    let (_, last_wall) = last;
    Some(if agree(last, clocks) { last_wall.plus_millis(-WINDOW_MS).max(all) } else { all })
}

/// How long it is from `earlier` to `later` by each clock.
fn between(earlier: Clocks, later: Clocks) -> (u64, i64) {
    (later.0.saturating_sub(earlier.0), later.1.as_millis().saturating_sub(earlier.1.as_millis()))
}

/// Whether the two clocks agree on how long it is from `earlier` to `later`; else one of them was set.
fn agree(earlier: Clocks, later: Clocks) -> bool {
    let (gap_ms, wall_ms) = between(earlier, later);
    i64::try_from(gap_ms).is_ok_and(|gap_ms| gap_ms.abs_diff(wall_ms) <= MAX_GAP_MS)
}

/// Whether windows may still tell of a mark that was written `at`.
fn is_recent(at: Timestamp, now: Timestamp) -> bool {
    at > now.plus_millis(-ID_LIFE_MS)
}

/// What the shared cache may keep of a code with a mark of `version`. The first
/// version says that nobody knows which one the code has: nothing may be kept.
fn least_to_keep(version: Version) -> Version {
    if version <= Version::FIRST { EVERY_VERSION_IS_OLDER } else { version }
}

#[cfg(test)]
impl MarkPoller {
    /// How many ids are remembered, and drops that are to come.
    pub(crate) fn remembered(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.seen.len() + state.caught_up.len(), state.again.len())
    }
}
