//! The breaker's state in one word, so that a closed breaker is passed by
//! reading one atomic.
//!
//! | bits | while closed | while half-open |
//! |---|---|---|
//! | 0..12 | consecutive failures (24 bits) | probes in flight |
//! | 12..24 | | probes that succeeded |
//! | 24..27 | phase | phase |
//! | 27..64 | generation | generation |
//!
//! The generation grows with each change of phase: 37 bits last 4 years at one
//! change a millisecond. The word is written under the breaker's lock only.

/// The most probes at once and the most successes that a half-open phase can ask for.
pub(super) const MAX_PROBES: u32 = (1 << 12) - 1;
/// The most consecutive failures that can be counted.
pub(super) const MAX_FAILURES: u32 = (1 << 24) - 1;

const PROBE_BITS: u32 = 12;
const PHASE_SHIFT: u32 = 24;
const GENERATION_SHIFT: u32 = 27;
const ONE_SUCCEEDED: u64 = 1 << PROBE_BITS;

/// What the breaker does with calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Closed,
    HalfOpen,
    Open,
    ForcedClosed,
    ForcedOpen,
}

/// Phase, generation and counts, packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word(pub(super) u64);

impl Word {
    /// Closed, first generation, nothing counted.
    pub(super) const FIRST: Self = Self(0);

    /// `phase` with the next generation and nothing counted.
    pub(super) fn enter(self, phase: Phase) -> Self {
        let code = match phase {
            Phase::Closed => 0,
            Phase::HalfOpen => 1,
            Phase::Open => 2,
            Phase::ForcedClosed => 3,
            Phase::ForcedOpen => 4,
        };
        // The topmost generation bit falls out of the shift: generations wrap.
        Self((self.generation().wrapping_add(1) << GENERATION_SHIFT) | (code << PHASE_SHIFT))
    }

    pub(super) fn phase(self) -> Phase {
        match (self.0 >> PHASE_SHIFT) & 0b111 {
            0 => Phase::Closed,
            1 => Phase::HalfOpen,
            2 => Phase::Open,
            3 => Phase::ForcedClosed,
            _ => Phase::ForcedOpen,
        }
    }

    pub(super) fn generation(self) -> u64 {
        self.0 >> GENERATION_SHIFT
    }

    /// Consecutive failures of a closed breaker.
    pub(super) fn failures(self) -> u32 {
        (self.0 & u64::from(MAX_FAILURES)) as u32
    }

    /// Probes in flight of a half-open breaker.
    pub(super) fn probes(self) -> u32 {
        (self.0 & u64::from(MAX_PROBES)) as u32
    }

    /// Probes of a half-open breaker that succeeded.
    pub(super) fn succeeded(self) -> u32 {
        ((self.0 >> PROBE_BITS) & u64::from(MAX_PROBES)) as u32
    }

    /// So many consecutive failures; the caller trips before [`MAX_FAILURES`].
    pub(super) fn with_failures(self, failures: u32) -> Self {
        debug_assert!(self.phase() == Phase::Closed && failures < MAX_FAILURES);
        Self((self.0 & !u64::from(MAX_FAILURES)) | u64::from(failures))
    }

    /// One probe in flight more; the caller keeps the limit.
    pub(super) fn with_probe(self) -> Self {
        debug_assert!(self.phase() == Phase::HalfOpen && self.probes() < MAX_PROBES);
        Self(self.0 + 1)
    }

    /// One probe in flight less.
    pub(super) fn without_probe(self) -> Self {
        debug_assert!(self.phase() == Phase::HalfOpen && self.probes() > 0);
        Self(self.0 - 1)
    }

    /// One success more; the caller closes before [`MAX_PROBES`].
    pub(super) fn with_success(self) -> Self {
        debug_assert!(self.phase() == Phase::HalfOpen && self.succeeded() < MAX_PROBES);
        Self(self.0 + ONE_SUCCEEDED)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const PHASES: [Phase; 5] = [Phase::Closed, Phase::HalfOpen, Phase::Open, Phase::ForcedClosed, Phase::ForcedOpen];

    #[test]
    fn every_phase_survives_packing_and_begins_with_nothing_counted() {
        let mut word = Word::FIRST;
        assert_eq!((word.phase(), word.generation(), word.failures()), (Phase::Closed, 0, 0));
        for (step, phase) in PHASES.into_iter().cycle().take(1_000).enumerate() {
            word = word.enter(phase);
            assert_eq!((word.phase(), word.generation()), (phase, step as u64 + 1));
            assert_eq!((word.failures(), word.probes(), word.succeeded()), (0, 0, 0));
        }
    }

    #[test]
    fn failures_count_to_their_limit_without_touching_their_neighbours() {
        let closed = Word::FIRST.enter(Phase::Open).enter(Phase::Closed);
        for failures in [1, 2, MAX_FAILURES - 1, 5] {
            let word = closed.with_failures(failures);
            assert_eq!((word.failures(), word.phase(), word.generation()), (failures, Phase::Closed, 2));
            assert_eq!(word.with_failures(0), closed);
            assert_eq!(word.with_failures(7), closed.with_failures(7));
        }
    }

    #[test]
    fn probes_and_successes_count_apart() {
        let mut word = Word::FIRST.enter(Phase::HalfOpen);
        for _ in 0..MAX_PROBES {
            word = word.with_probe();
        }
        assert_eq!((word.probes(), word.succeeded()), (MAX_PROBES, 0));
        for _ in 0..MAX_PROBES {
            word = word.with_success();
        }
        assert_eq!((word.probes(), word.succeeded()), (MAX_PROBES, MAX_PROBES));
        word = word.without_probe();
        assert_eq!((word.probes(), word.succeeded()), (MAX_PROBES - 1, MAX_PROBES));
        assert_eq!((word.phase(), word.generation()), (Phase::HalfOpen, 1));
    }

    #[test]
    fn the_last_generation_is_followed_by_the_first() {
        let last = Word(u64::MAX << GENERATION_SHIFT);
        assert_eq!(last.generation(), (1 << 37) - 1);
        let next = last.enter(Phase::Open);
        assert_eq!((next.generation(), next.phase()), (0, Phase::Open));
    }
}
