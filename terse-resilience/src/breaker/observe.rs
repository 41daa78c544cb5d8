//! What a breaker shows: its state, its counts, its transitions.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use super::window::Tally;
use super::word::Phase;

/// What a breaker does with calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Lets all calls through.
    Closed,
    /// Lets a few through, to see whether they succeed.
    HalfOpen,
    /// Lets none through. Stays so until a call comes after its time is over.
    Open,
}

impl State {
    /// The state in logs and answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half-open",
            Self::Open => "open",
        }
    }
}

/// A state that an operator holds a breaker in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Forced {
    /// All calls pass, whatever their verdicts.
    Closed,
    /// No call passes.
    Open,
}

impl Phase {
    pub(super) fn state(self) -> State {
        match self {
            Self::Closed | Self::ForcedClosed => State::Closed,
            Self::HalfOpen => State::HalfOpen,
            Self::Open | Self::ForcedOpen => State::Open,
        }
    }

    pub(super) fn forced(self) -> Option<Forced> {
        match self {
            Self::ForcedClosed => Some(Forced::Closed),
            Self::ForcedOpen => Some(Forced::Open),
            Self::Closed | Self::HalfOpen | Self::Open => None,
        }
    }
}

/// Why a call was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RejectReason {
    /// The breaker is open.
    Open,
    /// The breaker is half-open and its probes are all under way.
    ProbesTaken,
    /// An operator holds the breaker open.
    ForcedOpen,
}

/// The breaker let the call not through; nothing was attempted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Why.
    pub reason: RejectReason,
    /// When trying again makes sense, in milliseconds; never 0. The rest of the
    /// open time; while half-open, the first open time; while forced open, the longest.
    pub retry_after_ms: u64,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match self.reason {
            RejectReason::Open => "breaker is open",
            RejectReason::ProbesTaken => "breaker is half-open and its probes are under way",
            RejectReason::ForcedOpen => "breaker is held open",
        };
        write!(f, "{why}, try again in {} ms", self.retry_after_ms)
    }
}

impl std::error::Error for Rejected {}

/// Why a breaker changed its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Too many failures without a success between them.
    ConsecutiveFailures,
    /// Too large a share of calls failed.
    FailureRate,
    /// Too large a share of calls was slow.
    SlowCallRate,
    /// The open time is over and a call came.
    OpenTimeOver,
    /// A probe failed, or was slow.
    ProbeFailed,
    /// The probes are under way for longer than a call may take.
    ProbeOverdue,
    /// Enough probes succeeded.
    ProbesSucceeded,
    /// An operator forced it, or let it go.
    Operator,
}

impl Cause {
    /// The cause in logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ConsecutiveFailures => "consecutive failures",
            Self::FailureRate => "failure rate",
            Self::SlowCallRate => "slow-call rate",
            Self::OpenTimeOver => "open time over",
            Self::ProbeFailed => "probe failed",
            Self::ProbeOverdue => "probe overdue",
            Self::ProbesSucceeded => "probes succeeded",
            Self::Operator => "operator",
        }
    }
}

/// One change of a breaker's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The state before.
    pub from: State,
    /// The state now; equal to `from` when only the operator's hold changed.
    pub to: State,
    /// What the operator holds it in now.
    pub forced: Option<Forced>,
    /// Why.
    pub cause: Cause,
    /// Grows by one with each transition: racing observations are put in order by it.
    pub generation: u64,
    /// When, by the breaker's clock.
    pub at_ms: u64,
    /// How long it stays open, if it opened by itself, in milliseconds.
    pub open_ms: Option<u64>,
}

/// Is told of every transition.
pub trait TransitionObserver: Send + Sync + 'static {
    /// The breaker has changed its state. Called on the thread whose call
    /// brought the change about, without any lock of the breaker held; two
    /// changes may be told in either order (see [`Transition::generation`]).
    /// Must not block or panic.
    fn on_transition(&self, transition: &Transition);
}

impl<F: Fn(&Transition) + Send + Sync + 'static> TransitionObserver for F {
    fn on_transition(&self, transition: &Transition) {
        self(transition);
    }
}

/// What happened to calls since the start. Each count is exact; they agree
/// with one another only when nothing moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls let through, probes included.
    pub permitted: u64,
    /// Calls rejected.
    pub rejected: u64,
    /// Verdicts of success.
    pub successes: u64,
    /// Verdicts of failure, without timeouts.
    pub failures: u64,
    /// Verdicts of timeout, and calls dropped after their limit.
    pub timeouts: u64,
    /// Verdicts that the call told nothing about the service.
    pub ignored: u64,
    /// Calls dropped without a verdict before their limit.
    pub abandoned: u64,
    /// Of all these, the successes, failures and timeouts that came after the
    /// state they began in was over, and changed nothing.
    pub late: u64,
}

impl Counts {
    /// Calls that were let through and have not ended.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        let ended = self.successes + self.failures + self.timeouts + self.ignored + self.abandoned;
        self.permitted.saturating_sub(ended)
    }
}

/// A breaker at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its state.
    pub state: State,
    /// What an operator holds it in.
    pub forced: Option<Forced>,
    /// How many transitions there were.
    pub generation: u64,
    /// Since when it is in this state, by its clock.
    pub since_ms: u64,
    /// For how long it is in this state, in milliseconds.
    pub age_ms: u64,
    /// The rest of its open time, in milliseconds; 0 when it isn't open or the next call is a probe.
    pub open_for_ms: u64,
    /// Failures without a success between them, if closed and that is the policy.
    pub consecutive_failures: u32,
    /// Probes under way, if half-open.
    pub probes_in_flight: u32,
    /// Probes that succeeded, if half-open.
    pub probes_succeeded: u32,
    /// What the window holds, if there is one.
    pub window: Option<Tally>,
    /// Transitions to closed, half-open and open.
    pub transitions_to: [u64; 3],
    /// What happened to calls.
    pub counts: Counts,
}

/// The counters behind [`Counts`]: std's atomics even under the model checker,
/// for nothing is decided by them. On cache lines of their own, so that
/// counting doesn't slow the reading of the state.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Counters {
    pub(super) permitted: AtomicU64,
    pub(super) rejected: AtomicU64,
    pub(super) successes: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) timeouts: AtomicU64,
    pub(super) ignored: AtomicU64,
    pub(super) abandoned: AtomicU64,
    pub(super) late: AtomicU64,
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counters {
    pub(super) fn read(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            permitted: read(&self.permitted),
            rejected: read(&self.rejected),
            successes: read(&self.successes),
            failures: read(&self.failures),
            timeouts: read(&self.timeouts),
            ignored: read(&self.ignored),
            abandoned: read(&self.abandoned),
            late: read(&self.late),
        }
    }
}
