//! A limit of calls at once that follows how long they take.
//!
//! A store that is asked for more than it can do answers no faster, only later,
//! until callers give up and all that it does is for nobody. So as calls begin
//! to take longer, fewer are let in at once; the others are refused at once, and
//! those that are let in are in time.
//!
//! The rule is Gradient2 of Netflix's `concurrency-limits` (`Gradient2Limit`,
//! <https://github.com/Netflix/concurrency-limits>): calls are looked at in
//! windows; a window's mean time is compared with what is *usual*, a slow mean of
//! such means. Up to [`tolerance_percent`](ConcurrencySettings::tolerance_percent)
//! of the usual the limit grows by a little room to queue, beyond that it shrinks
//! in proportion, by half at most; a fifth of each step is taken. While less than
//! half of it is used, it stays. Four things are different here:
//!
//! - There, the usual follows whatever is measured, so that in an overload that
//!   lasts queueing itself becomes usual, and the limit grows to where callers
//!   give up. Here a window in which the limit was half used teaches only if no
//!   more calls ran than the least that the limit can be: fewer at once can't be
//!   had, so that is what a call takes. Where the limit is held down for long it is
//!   put to its least for a window, to see that: so a store that is slower for good
//!   gets its room back, and one that queues does not.
//! - While calls take less than [`patience_ms`](ConcurrencySettings::patience_ms) on average the limit never shrinks,
//!   however usual less is: a tenth of a millisecond that became half of one keeps nobody waiting.
//! - A call that was given up on halves the window's limit: it took longer than
//!   its time tells.
//! - The room to queue is the root of the limit, as in its older sibling.
//!
//! Bounds: the limit stays between [`min`](ConcurrencySettings::min) and
//! [`max`](ConcurrencySettings::max). Whoever finds it reached is refused; there
//! is no queue. Nothing is kept per call but what its [`Running`] holds.

use std::fmt;
use std::sync::Arc;

use crate::settings::require;
use crate::sync::{AtomicU64, Mutex, Ordering, lock};
use crate::{MonotonicClock, SettingsError};

/// Calls that a window has at least: fewer are chance.
const LEAST_CALLS: u32 = 10;
/// Windows over which the usual is a plain mean, and over which it is a slow one.
const WARM_UP: u32 = 10;
const MEMORY: u32 = 600;
/// How much a window counts in which as few ran as can be: such windows are few.
const LEAST_COUNTS: f64 = 0.1;
/// For how many windows the limit is held down before it is put to its least for one.
const PROBE_AFTER: u32 = 50;
/// How much of a step is taken.
const SMOOTHING: f64 = 0.2;
/// A window's limit is never less than this part of the one before.
const STEEPEST: f64 = 0.5;
/// Least room to queue.
const LEAST_ROOM: f64 = 4.0;
/// What the usual loses for each window whose calls take less than half of it.
const FORGET: f64 = 0.95;
/// The most that a limit can be: as many as nobody has.
const MOST: u32 = 1_000_000;
/// No call was refused yet.
const NEVER: u64 = u64::MAX;

/// How a [`ConcurrencyLimit`] shall be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConcurrencySettings {
    /// The limit at first.
    pub initial: u32,
    /// What it never falls below; at least 1.
    pub min: u32,
    /// What it never exceeds; at least `min`, at most 1,000,000.
    pub max: u32,
    /// How long a window is at least, in milliseconds; at least 1.
    pub window_ms: u64,
    /// How long calls may take before the limit shrinks, in percent of what is usual: 100 to 1,000.
    pub tolerance_percent: u32,
    /// How long they may take whatever is usual, in milliseconds, before it shrinks: far less than callers wait.
    /// With 0 only what is usual counts.
    pub patience_ms: u64,
}

/// What suits a store that answers in milliseconds: 64 callers at a time never
/// meet the limit, nor half of it. Its calls may take 700 ms: a tenth of that worries nobody.
impl Default for ConcurrencySettings {
    fn default() -> Self {
        Self { initial: 256, min: 128, max: 1_024, window_ms: 100, tolerance_percent: 150, patience_ms: 70 }
    }
}

impl ConcurrencySettings {
    /// Whether all are within their limits.
    ///
    /// # Errors
    /// The first that isn't.
    pub fn check(&self) -> Result<(), SettingsError> {
        require(self.min >= 1, "min", "be at least 1")?;
        require((self.min..=MOST).contains(&self.max), "max", "be at least min and at most 1,000,000")?;
        require((self.min..=self.max).contains(&self.initial), "initial", "be between min and max")?;
        require(self.window_ms >= 1, "window_ms", "be at least 1")?;
        require((100..=1_000).contains(&self.tolerance_percent), "tolerance_percent", "be 100 to 1,000")
    }
}

/// Bounds how many calls run at once, by how long they take.
pub struct ConcurrencyLimit {
    settings: ConcurrencySettings,
    clock: Arc<dyn MonotonicClock>,
    /// What `course` makes of it, rounded down.
    limit: AtomicU64,
    in_flight: AtomicU64,
    shed: AtomicU64,
    shed_at_ms: AtomicU64,
    course: Mutex<Course>,
}

/// What the limit goes by.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Course {
    limit: f64,
    /// How long a call takes as a rule, in nanoseconds; 0 while nobody knows.
    usual_ns: f64,
    /// Windows that it was learned from, up to [`WARM_UP`].
    learned: u32,
    /// Windows that held the limit down, since the last that didn't or was a probe.
    held_down: u32,
    /// What the limit goes back to after the probe that is under way.
    probing: Option<f64>,
    window: Window,
}

/// The calls that ended since the last step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Window {
    /// When the first of them ended.
    began_ns: u64,
    calls: u32,
    sum_ns: f64,
    /// The most that ran at once when one of them began, itself included.
    most: u64,
    given_up: bool,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Answered,
    Failed,
    GivenUp,
}

/// As many calls as may run do; nothing was attempted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitReached {
    /// How many that are.
    pub limit: u64,
}

impl fmt::Display for LimitReached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "all of {} calls at once are under way", self.limit)
    }
}

impl std::error::Error for LimitReached {}

/// What a limit has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConcurrencySnapshot {
    /// How many calls may run at once now.
    pub limit: u64,
    /// How many do.
    pub in_flight: u64,
    /// How many were refused since the start.
    pub shed: u64,
    /// For how long none was, in milliseconds; `None` = none ever was.
    pub calm_ms: Option<u64>,
}

impl ConcurrencyLimit {
    /// A limit that begins at `settings.initial`.
    ///
    /// # Errors
    /// The first setting outside its limits.
    pub fn new(settings: ConcurrencySettings, clock: Arc<dyn MonotonicClock>) -> Result<Self, SettingsError> {
        settings.check()?;
        let window = Window::default();
        let limit = f64::from(settings.initial);
        let course = Course { limit, usual_ns: 0.0, learned: 0, held_down: 0, probing: None, window };
        Ok(Self {
            settings,
            clock,
            limit: AtomicU64::new(u64::from(settings.initial)),
            in_flight: AtomicU64::new(0),
            shed: AtomicU64::new(0),
            shed_at_ms: AtomicU64::new(NEVER),
            course: Mutex::new(course),
        })
    }

    /// Lets a call in, if fewer run than may.
    ///
    /// # Errors
    /// [`LimitReached`] else.
    pub fn try_acquire(&self) -> Result<Running<'_>, LimitReached> {
        let limit = self.limit.load(Ordering::Relaxed);
        let others = self.in_flight.fetch_add(1, Ordering::Acquire);
        if others >= limit {
            self.in_flight.fetch_sub(1, Ordering::Release);
            self.note_shed();
            return Err(LimitReached { limit });
        }
        Ok(Running { of: self, began_ns: self.clock.monotonic_ns(), at_once: others + 1 })
    }

    /// Counts a call that was refused for this limit's sake, by whomever.
    pub fn note_shed(&self) {
        self.shed.fetch_add(1, Ordering::Relaxed);
        self.shed_at_ms.store(self.clock.monotonic_ms(), Ordering::Relaxed);
    }

    /// Whether so many percent of the calls that may run do.
    #[must_use]
    pub fn is_filled(&self, percent: u32) -> bool {
        let (limit, in_flight) = (self.limit.load(Ordering::Relaxed), self.in_flight.load(Ordering::Relaxed));
        in_flight.saturating_mul(100) >= limit.saturating_mul(u64::from(percent))
    }

    /// Counts until now; each exact, all together only when nothing moves.
    #[must_use]
    pub fn snapshot(&self) -> ConcurrencySnapshot {
        let shed_at_ms = self.shed_at_ms.load(Ordering::Relaxed);
        ConcurrencySnapshot {
            limit: self.limit.load(Ordering::Relaxed),
            in_flight: self.in_flight.load(Ordering::Relaxed),
            shed: self.shed.load(Ordering::Relaxed),
            calm_ms: (shed_at_ms != NEVER).then(|| self.clock.monotonic_ms().saturating_sub(shed_at_ms)),
        }
    }

    fn learn(&self, began_ns: u64, at_once: u64, end: End) {
        let now_ns = self.clock.monotonic_ns();
        let took_ns = now_ns.saturating_sub(began_ns);
        let mut course = lock(&self.course);
        if end == End::Failed && took_ns as f64 <= course.usual_ns {
            return;
        }
        course.window.add(now_ns, took_ns, at_once, end == End::GivenUp);
        if course.window.is_whole(now_ns, self.settings.window_ms) {
            let window = std::mem::take(&mut course.window);
            course.step(&window, &self.settings);
            self.limit.store(course.limit as u64, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for ConcurrencyLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConcurrencyLimit({:?})", self.snapshot())
    }
}

impl Window {
    fn add(&mut self, now_ns: u64, took_ns: u64, at_once: u64, given_up: bool) {
        if self.calls == 0 {
            self.began_ns = now_ns;
        }
        self.calls = self.calls.saturating_add(1);
        self.sum_ns += took_ns as f64;
        self.most = self.most.max(at_once);
        self.given_up |= given_up;
    }

    fn is_whole(&self, now_ns: u64, window_ms: u64) -> bool {
        let lasted_ns = now_ns.saturating_sub(self.began_ns);
        self.calls >= LEAST_CALLS && lasted_ns >= window_ms.saturating_mul(1_000_000)
    }

    /// How long its calls took; at least a nanosecond, as far as any clock tells.
    fn mean_ns(&self) -> f64 {
        (self.sum_ns / f64::from(self.calls)).max(1.0)
    }
}

impl Course {
    fn step(&mut self, window: &Window, settings: &ConcurrencySettings) {
        let (took_ns, least) = (window.mean_ns(), f64::from(settings.min));
        let busy = window.most as f64 * 2.0 >= self.limit;
        let fewest = window.most <= u64::from(settings.min);
        if self.learned == 0 || !busy {
            self.learn(took_ns, 2.0 / f64::from(MEMORY + 1));
        } else if fewest {
            self.learn(took_ns, LEAST_COUNTS);
        }
        if self.usual_ns > 2.0 * took_ns {
            self.usual_ns *= FORGET;
        }
        if let Some(limit) = self.probing {
            // Calls that began before it may still end.
            if fewest {
                (self.limit, self.probing) = (limit, None);
            }
        } else if busy {
            self.follow(window, settings);
            if self.held_down > PROBE_AFTER && self.limit > least {
                (self.probing, self.limit, self.held_down) = (Some(self.limit), least, 0);
            }
        }
    }

    /// A step of the published rule.
    fn follow(&mut self, window: &Window, settings: &ConcurrencySettings) {
        let tolerated_ns = self.usual_ns * f64::from(settings.tolerance_percent) / 100.0;
        let tolerated_ns = tolerated_ns.max(settings.patience_ms as f64 * 1e6);
        let gradient = if window.given_up { STEEPEST } else { (tolerated_ns / window.mean_ns()).clamp(STEEPEST, 1.0) };
        self.held_down = if gradient < 1.0 { self.held_down.saturating_add(1) } else { 0 };
        let wanted = self.limit * gradient + self.limit.sqrt().max(LEAST_ROOM);
        let next = self.limit * (1.0 - SMOOTHING) + wanted * SMOOTHING;
        self.limit = next.clamp(f64::from(settings.min), f64::from(settings.max));
    }

    /// Has the usual follow `took_ns`: first as a plain mean, then by `weight`.
    fn learn(&mut self, took_ns: f64, weight: f64) {
        self.learned = self.learned.saturating_add(1).min(WARM_UP + 1);
        let weight = if self.learned <= WARM_UP { 1.0 / f64::from(self.learned) } else { weight };
        self.usual_ns += (took_ns - self.usual_ns) * weight;
    }
}

/// A call that was let in; dropping it gives its place back and tells nothing.
#[derive(Debug)]
#[must_use = "the place is given back as soon as this is dropped"]
pub struct Running<'a> {
    of: &'a ConcurrencyLimit,
    began_ns: u64,
    at_once: u64,
}

impl Running<'_> {
    /// The call was answered: it took as long as a call takes now.
    pub fn answered(self) {
        self.of.learn(self.began_ns, self.at_once, End::Answered);
    }

    /// The call failed: if that took longer than usual it counts as long as it took. What fails sooner tells nothing.
    pub fn failed(self) {
        self.of.learn(self.began_ns, self.at_once, End::Failed);
    }

    /// The call was given up on: it would have taken longer than it did.
    pub fn given_up(self) {
        self.of.learn(self.began_ns, self.at_once, End::GivenUp);
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.of.in_flight.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
