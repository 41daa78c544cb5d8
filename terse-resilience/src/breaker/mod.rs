//! A circuit breaker: stops calling what fails, so that callers are answered
//! at once and what fails is left alone to recover; asks again later, by a few
//! probes.
//!
//! ```text
//!            policy trips                 open time over, a call comes
//!  closed ───────────────▶ open ─────────────────────────────▶ half-open
//!    ▲                      ▲   a probe failed, was slow, hung     │ │
//!    │                      └──────────────────────────────────────┘ │
//!    └────────────────────────────────── enough probes succeeded ────┘
//! ```
//!
//! What the textbook's lacks and this has:
//!
//! - Half-open grants a bounded number of probes, however many callers race.
//! - A policy by rate: four failures in five calls trip it, successes between
//!   them or not.
//! - A call that hangs counts: by [`Permit::timeout`], when its permit is
//!   dropped after `call_limit_ms`, or, if it is a probe, as soon as another
//!   call finds it overdue.
//! - Every change of state begins a generation. A verdict on a call of an
//!   earlier generation changes nothing.
//!
//! Bounds: one word of state, one window of at most [`MAX_BUCKETS`] buckets;
//! nothing is kept per call. A closed breaker is passed by reading one atomic
//! and the clock; the state is written under a lock that is never held while a
//! call or an observer runs.

mod observe;
mod permit;
mod settings;
mod window;
mod word;

#[cfg(all(test, loom))]
mod model_check;
#[cfg(all(test, not(loom)))]
mod race_tests;
#[cfg(all(test, not(loom)))]
mod reference_tests;
#[cfg(all(test, not(loom)))]
mod tests;
#[cfg(all(test, not(loom)))]
mod textbook_tests;

use std::fmt;
use std::sync::Arc;

pub use observe::{Cause, Counts, Forced, RejectReason, Rejected, Snapshot, State, Transition, TransitionObserver};
pub use permit::Permit;
pub use settings::{BreakerSettings, MAX_BUCKETS, Policy, RatePolicy, SlowCalls};
pub use window::Tally;

use crate::random::SplitMix64;
use crate::sync::{AtomicU64, Mutex, Ordering, lock};
use crate::{MonotonicClock, SettingsError};
use observe::{Counters, count};
use window::Window;
use word::{Phase, Word};

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Success,
    Failure,
    Timeout,
    Ignored,
    Dropped,
}

/// What only transitions and the window need; behind the lock.
#[derive(Debug)]
struct Core {
    /// When the phase began; grows with each, so that older times do no harm.
    since_ms: u64,
    /// How often the open time has grown.
    growths: u32,
    random: SplitMix64,
    window: Option<Window>,
    transitions_to: [u64; 3],
}

/// A circuit breaker. Shared by reference; see the [module](self) for what it does.
pub struct Breaker {
    settings: BreakerSettings,
    clock: Arc<dyn MonotonicClock>,
    observer: Option<Arc<dyn TransitionObserver>>,
    /// A [`Word`]; written while `core` is locked, read without.
    word: AtomicU64,
    /// When the open phase is over. Written before the word that makes it matter, as is `probed_ms`.
    open_until_ms: AtomicU64,
    /// When the newest probe began.
    probed_ms: AtomicU64,
    core: Mutex<Core>,
    counters: Counters,
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker")
            .field("state", &self.state())
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl Breaker {
    /// A closed breaker, its open times spread by `seed`.
    ///
    /// # Errors
    /// When a setting is outside its limits.
    pub fn new(settings: BreakerSettings, clock: Arc<dyn MonotonicClock>, seed: u64) -> Result<Self, SettingsError> {
        settings.check()?;
        let window = settings.policy.rate().map(Window::new);
        let since_ms = clock.monotonic_ms();
        let random = SplitMix64::new(seed);
        Ok(Self {
            settings,
            clock,
            observer: None,
            word: AtomicU64::new(Word::FIRST.0),
            open_until_ms: AtomicU64::new(0),
            probed_ms: AtomicU64::new(0),
            core: Mutex::new(Core { since_ms, growths: 0, random, window, transitions_to: [0; 3] }),
            counters: Counters::default(),
        })
    }

    /// The same breaker, telling `observer` of its transitions.
    #[must_use]
    pub fn observed_by(mut self, observer: Arc<dyn TransitionObserver>) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Asks to make a call.
    ///
    /// # Errors
    /// [`Rejected`] when the call must not be made; nothing was counted against the service.
    pub fn try_acquire(&self) -> Result<Permit<'_>, Rejected> {
        let word = self.word();
        let now_ms = self.clock.monotonic_ms();
        match self.admit(word, now_ms) {
            Admission::Pass => Ok(self.grant(word, now_ms)),
            Admission::Reject(rejected) => Err(self.reject(rejected)),
            Admission::Probe | Admission::Overdue => self.try_probe(now_ms),
        }
    }

    /// Its state, without the lock.
    #[must_use]
    pub fn state(&self) -> State {
        self.word().phase().state()
    }

    /// Holds the breaker in a state, or lets it go: from forced open to
    /// half-open, for the service has yet to prove itself, from forced closed
    /// to closed. Calls under way no longer count.
    pub fn force(&self, forced: Option<Forced>) {
        let now_ms = self.clock.monotonic_ms();
        let transition = {
            let mut core = lock(&self.core);
            let word = self.word();
            let phase = match (forced, word.phase()) {
                (Some(Forced::Closed), _) => Phase::ForcedClosed,
                (Some(Forced::Open), _) => Phase::ForcedOpen,
                (None, Phase::ForcedOpen) => Phase::HalfOpen,
                (None, Phase::ForcedClosed) => Phase::Closed,
                (None, free) => free,
            };
            (phase != word.phase()).then(|| self.enter(&mut core, phase, Cause::Operator, now_ms))
        };
        self.tell(transition);
    }

    /// All that it shows. Takes the lock for some ten nanoseconds.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let now_ms = self.clock.monotonic_ms();
        let mut core = lock(&self.core);
        let word = self.word();
        let phase = word.phase();
        let half_open = phase == Phase::HalfOpen;
        let open_until_ms = if phase == Phase::Open { self.open_until_ms.load(Ordering::Relaxed) } else { 0 };
        Snapshot {
            state: phase.state(),
            forced: phase.forced(),
            generation: word.generation(),
            since_ms: core.since_ms,
            age_ms: now_ms.saturating_sub(core.since_ms),
            open_for_ms: open_until_ms.saturating_sub(now_ms).min(self.settings.max_open_ms),
            consecutive_failures: if phase == Phase::Closed { word.failures() } else { 0 },
            probes_in_flight: if half_open { word.probes() } else { 0 },
            probes_succeeded: if half_open { word.succeeded() } else { 0 },
            window: core.window.as_mut().map(|window| window.tally(now_ms)),
            transitions_to: core.transitions_to,
            counts: self.counters.read(),
        }
    }

    fn word(&self) -> Word {
        Word(self.word.load(Ordering::Acquire))
    }

    /// Release: whoever reads the word also sees the times that belong to it. Only while `core` is locked.
    fn set_word(&self, word: Word) {
        self.word.store(word.0, Ordering::Release);
    }

    /// What a call that comes at `now_ms` may do in the state `word`.
    fn admit(&self, word: Word, now_ms: u64) -> Admission {
        let reject = |reason, retry_after_ms| Admission::Reject(Rejected { reason, retry_after_ms });
        match word.phase() {
            Phase::Closed | Phase::ForcedClosed => Admission::Pass,
            Phase::ForcedOpen => reject(RejectReason::ForcedOpen, self.settings.max_open_ms),
            Phase::Open => match self.open_until_ms.load(Ordering::Relaxed).saturating_sub(now_ms) {
                0 => Admission::Probe,
                // To a thread with an older time the rest may seem longer than the whole.
                rest_ms => reject(RejectReason::Open, rest_ms.min(self.settings.max_open_ms)),
            },
            Phase::HalfOpen if word.probes() < self.settings.probes => Admission::Probe,
            Phase::HalfOpen => {
                let age_ms = now_ms.saturating_sub(self.probed_ms.load(Ordering::Relaxed));
                if age_ms >= self.settings.call_limit_ms {
                    Admission::Overdue
                } else {
                    reject(RejectReason::ProbesTaken, self.settings.open_ms)
                }
            }
        }
    }

    /// Looks again, under the lock, and takes a probe if there is one.
    fn try_probe(&self, now_ms: u64) -> Result<Permit<'_>, Rejected> {
        let mut core = lock(&self.core);
        let mut word = self.word();
        let mut transition = None;
        let answer = match self.admit(word, now_ms) {
            Admission::Pass => Ok(self.grant(word, now_ms)),
            Admission::Reject(rejected) => Err(rejected),
            Admission::Probe => {
                if word.phase() == Phase::Open {
                    transition = Some(self.enter(&mut core, Phase::HalfOpen, Cause::OpenTimeOver, now_ms));
                    word = self.word();
                }
                self.probed_ms.fetch_max(now_ms, Ordering::Relaxed);
                self.set_word(word.with_probe());
                Ok(self.grant(word, now_ms))
            }
            Admission::Overdue => {
                let opened = self.enter(&mut core, Phase::Open, Cause::ProbeOverdue, now_ms);
                transition = Some(opened);
                Err(Rejected { reason: RejectReason::Open, retry_after_ms: opened.open_ms.unwrap_or(1) })
            }
        };
        drop(core);
        self.tell(transition);
        answer.map_err(|rejected| self.reject(rejected))
    }

    fn grant(&self, word: Word, now_ms: u64) -> Permit<'_> {
        count(&self.counters.permitted);
        Permit::new(self, word.generation(), now_ms)
    }

    fn reject(&self, rejected: Rejected) -> Rejected {
        count(&self.counters.rejected);
        rejected
    }

    /// Takes the verdict on a call that began at `began_ms` in `generation`.
    fn settle(&self, generation: u64, began_ms: u64, verdict: Verdict) {
        // Without failures to forget, a success changes nothing and needs neither lock nor time.
        if verdict == Verdict::Success && self.is_unblemished(generation) {
            return count(&self.counters.successes);
        }
        let now_ms = self.clock.monotonic_ms();
        let age_ms = now_ms.saturating_sub(began_ms);
        let hung = verdict == Verdict::Dropped && age_ms >= self.settings.call_limit_ms;
        let outcome = match verdict {
            Verdict::Success => Some(Outcome { failed: false, slow: self.settings.is_slow(age_ms) }),
            Verdict::Ignored => None,
            Verdict::Dropped if !hung => None,
            Verdict::Failure | Verdict::Timeout | Verdict::Dropped => {
                Some(Outcome { failed: true, slow: self.settings.is_slow(age_ms) })
            }
        };
        count(match verdict {
            Verdict::Success => &self.counters.successes,
            Verdict::Failure => &self.counters.failures,
            Verdict::Ignored => &self.counters.ignored,
            Verdict::Dropped if !hung => &self.counters.abandoned,
            Verdict::Timeout | Verdict::Dropped => &self.counters.timeouts,
        });
        let word = self.word();
        let holds_probe = word.generation() == generation && word.phase() == Phase::HalfOpen;
        if outcome.is_none() && !holds_probe {
            return;
        }
        let transition = {
            let mut core = lock(&self.core);
            self.judge(&mut core, generation, outcome, now_ms)
        };
        self.tell(transition);
    }

    /// Whether a success of `generation` has nothing to change: no failures before it, no window, no probe.
    fn is_unblemished(&self, generation: u64) -> bool {
        let word = self.word();
        word.generation() == generation
            && match word.phase() {
                Phase::Closed => word.failures() == 0 && self.settings.policy.rate().is_none(),
                Phase::ForcedClosed => true,
                Phase::HalfOpen | Phase::Open | Phase::ForcedOpen => false,
            }
    }

    /// Lets a call of `generation` change the state; `None` = it only gives back what it held.
    fn judge(&self, core: &mut Core, generation: u64, outcome: Option<Outcome>, now_ms: u64) -> Option<Transition> {
        let word = self.word();
        if word.generation() != generation {
            if outcome.is_some() {
                count(&self.counters.late);
            }
            return None;
        }
        match (word.phase(), outcome) {
            (Phase::HalfOpen, None) => {
                self.set_word(word.without_probe());
                None
            }
            (Phase::HalfOpen, Some(outcome)) => self.judge_probe(core, word, outcome, now_ms),
            (Phase::Closed, Some(outcome)) => self.judge_closed(core, word, outcome, now_ms),
            (Phase::Closed, None) | (Phase::Open | Phase::ForcedClosed | Phase::ForcedOpen, _) => None,
        }
    }

    fn judge_probe(&self, core: &mut Core, word: Word, outcome: Outcome, now_ms: u64) -> Option<Transition> {
        if outcome.failed || outcome.slow {
            return Some(self.enter(core, Phase::Open, Cause::ProbeFailed, now_ms));
        }
        if word.succeeded() + 1 >= self.settings.probe_successes {
            return Some(self.enter(core, Phase::Closed, Cause::ProbesSucceeded, now_ms));
        }
        self.set_word(word.without_probe().with_success());
        None
    }

    fn judge_closed(&self, core: &mut Core, word: Word, outcome: Outcome, now_ms: u64) -> Option<Transition> {
        let policy = &self.settings.policy;
        let mut cause = None;
        if let (Some(rate), Some(window)) = (policy.rate(), &mut core.window) {
            window.record(now_ms, outcome.failed, outcome.slow);
            cause = rate.verdict(window.tally(now_ms));
        }
        if let Some(most) = policy.failures() {
            let failures = if outcome.failed { word.failures() + 1 } else { 0 };
            if failures >= most {
                cause = Some(Cause::ConsecutiveFailures);
            } else {
                self.set_word(word.with_failures(failures));
            }
        }
        cause.map(|cause| self.enter(core, Phase::Open, cause, now_ms))
    }

    /// Changes the phase: the only place that does.
    fn enter(&self, core: &mut Core, phase: Phase, cause: Cause, now_ms: u64) -> Transition {
        let word = self.word();
        // A thread that was held up brings an older time; phases still follow each other.
        let now_ms = now_ms.max(core.since_ms);
        let open_ms = (phase == Phase::Open).then(|| {
            let closed_ms = if word.phase() == Phase::Closed { now_ms - core.since_ms } else { 0 };
            self.draw_open_ms(core, closed_ms)
        });
        if let Some(open_ms) = open_ms {
            self.open_until_ms.store(now_ms.saturating_add(open_ms), Ordering::Relaxed);
        }
        if let (Phase::Closed, Some(window)) = (phase, &mut core.window) {
            window.clear();
        }
        let next = word.enter(phase);
        let (from, to) = (word.phase().state(), phase.state());
        core.since_ms = now_ms;
        core.transitions_to[to as usize] += u64::from(from != to);
        self.set_word(next);
        let generation = next.generation();
        Transition { from, to, forced: phase.forced(), cause, generation, at_ms: now_ms, open_ms }
    }

    /// How long to stay open, after `closed_ms` closed; makes the next time longer.
    fn draw_open_ms(&self, core: &mut Core, closed_ms: u64) -> u64 {
        let forgiven = u32::try_from(closed_ms / self.settings.calm_ms).unwrap_or(u32::MAX);
        core.growths = core.growths.saturating_sub(forgiven);
        let longest_ms = self.settings.open_time_ms(core.growths);
        if longest_ms < self.settings.max_open_ms {
            core.growths = core.growths.saturating_add(1);
        }
        let spread_ms = u128::from(longest_ms) * u128::from(self.settings.jitter_percent) / 100;
        core.random.between(longest_ms - spread_ms as u64, longest_ms)
    }

    fn tell(&self, transition: Option<Transition>) {
        if let (Some(transition), Some(observer)) = (transition, &self.observer) {
            observer.on_transition(&transition);
        }
    }
}

/// What a call may do.
enum Admission {
    Pass,
    /// Take a probe, after the change to half-open if need be.
    Probe,
    /// Nothing; the probes hang, which is a failure.
    Overdue,
    Reject(Rejected),
}

/// What a call said about the service.
#[derive(Clone, Copy, Debug)]
struct Outcome {
    failed: bool,
    slow: bool,
}

impl RatePolicy {
    /// Why the breaker has to trip at `tally`, if it has to.
    fn verdict(&self, tally: Tally) -> Option<Cause> {
        let reaches = |part: u32, percent: u8| u64::from(part) * 100 >= u64::from(tally.calls) * u64::from(percent);
        if tally.calls < self.min_calls {
            None
        } else if reaches(tally.failures, self.failure_percent) {
            Some(Cause::FailureRate)
        } else {
            self.slow.filter(|slow| reaches(tally.slow, slow.percent)).map(|_| Cause::SlowCallRate)
        }
    }
}
