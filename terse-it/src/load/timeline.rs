//! What a load met while it ran, and when something was broken: each answer with its time, summed up in buckets for a
//! chart.
//!
//! An answer belongs to the time at which it was asked for, so a stall shows where it began and in full. Latencies are
//! of what was answered: a refusal is quick and would hide them. Zero is the beginning of the first load.
//!
//! Bounds: [`NOTES_KEPT`] answers and [`FAULTS_KEPT`] faults, what is beyond is counted and told; [`LANES`] kinds of
//! requests, more are a fault of the drill; [`POINTS`] buckets, which are as long as that takes.

mod picture;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Outcome;

pub use picture::{Bucket, Marked, Picture};

/// How many answers are kept, 16 bytes each: ten minutes of 3,000 a second.
const NOTES_KEPT: usize = 2_000_000;
/// How many faults are kept.
const FAULTS_KEPT: usize = 400;
/// How many kinds of requests there may be.
const LANES: usize = 8;
/// How long a bucket is where that makes no more than [`POINTS`] of them; else twice as long, and so on.
const BUCKET: Duration = Duration::from_millis(250);
/// How many buckets there are at most.
const POINTS: usize = 120;

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It got what it asked for.
    Answered,
    /// It was told to come back later: 503 or 429 with `Retry-After`.
    Refused,
    /// Any other answer, or none.
    Failed,
}

impl From<&Outcome> for Answer {
    fn from(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Good | Outcome::Made(_) => Self::Answered,
            Outcome::Refused(_) => Self::Refused,
            Outcome::Wrong(_) | Outcome::NoAnswer(_) => Self::Failed,
        }
    }
}

/// Times in microseconds from the start of the timeline.
#[derive(Clone, Copy, Debug)]
struct Note {
    asked_us: u64,
    took_us: u32,
    lane: u8,
    answer: Answer,
}

/// From when until when something lasted; it still does where there is no end.
#[derive(Clone, Copy, Debug)]
struct Span {
    from_us: u64,
    to_us: Option<u64>,
}

/// What is kept.
#[derive(Debug, Default)]
struct Kept {
    lanes: Vec<&'static str>,
    notes: Vec<Note>,
    loads: Vec<Span>,
    faults: Vec<(String, Span)>,
    /// Answers and faults for which there was no room.
    left_out: u64,
}

/// What a drill's loads meet. Clones are of the same timeline.
#[derive(Clone, Debug)]
pub struct Timeline {
    began: Instant,
    room: usize,
    kept: Arc<Mutex<Kept>>,
}

impl Timeline {
    /// An empty one, from now on.
    #[must_use]
    pub fn start() -> Self {
        Self { began: Instant::now(), room: NOTES_KEPT, kept: Arc::default() }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Whoever panics while he has it has kept nothing by halves.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn micros(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.began).as_micros()).unwrap_or(u64::MAX)
    }

    /// Notes a request of the kind `lane`: when it was asked (or was to be), how long the answer took, what it was.
    ///
    /// # Panics
    /// When there are more than `LANES` kinds.
    pub fn note(&self, lane: &'static str, asked: Instant, took: Duration, answer: Answer) {
        let asked_us = self.micros(asked);
        let took_us = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        let mut kept = self.kept();
        let known = kept.lanes.iter().position(|known| *known == lane);
        let place = known.unwrap_or_else(|| {
            kept.lanes.push(lane);
            kept.lanes.len() - 1
        });
        assert!(place < LANES, "more kinds of requests than {LANES}: {:?}", kept.lanes);
        if kept.notes.len() < self.room {
            kept.notes.push(Note { asked_us, took_us, lane: place as u8, answer });
        } else {
            kept.left_out += 1;
        }
    }

    /// A load begins; it ends when what is returned is dropped.
    pub fn load(&self) -> Lasting {
        let mut kept = self.kept();
        kept.loads.push(Span { from_us: self.micros(Instant::now()), to_us: None });
        self.lasting(What::Load(kept.loads.len() - 1))
    }

    /// Something is broken from now on; it is made good when what is returned is dropped.
    pub fn fault(&self, what: &str) -> Lasting {
        let mut kept = self.kept();
        if kept.faults.len() >= FAULTS_KEPT {
            kept.left_out += 1;
            return self.lasting(What::Nothing);
        }
        kept.faults.push((what.to_owned(), Span { from_us: self.micros(Instant::now()), to_us: None }));
        self.lasting(What::Fault(kept.faults.len() - 1))
    }

    fn lasting(&self, what: What) -> Lasting {
        Lasting { timeline: self.clone(), what }
    }

    /// What there is by now, in buckets; `None` when no load ran, or nothing was asked.
    #[must_use]
    pub fn picture(&self) -> Option<Picture> {
        let now_us = self.micros(Instant::now());
        Picture::of(&self.kept(), now_us)
    }
}

#[derive(Clone, Copy, Debug)]
enum What {
    Load(usize),
    Fault(usize),
    /// There was no room for it.
    Nothing,
}

/// Something that lasts until this is dropped.
#[derive(Debug)]
#[must_use = "it ends when this is dropped"]
pub struct Lasting {
    timeline: Timeline,
    what: What,
}

impl Lasting {
    /// It ends.
    pub fn end(self) {}
}

impl Drop for Lasting {
    fn drop(&mut self) {
        let now_us = self.timeline.micros(Instant::now());
        let mut kept = self.timeline.kept();
        match self.what {
            What::Load(number) => kept.loads[number].to_us = Some(now_us),
            What::Fault(number) => kept.faults[number].1.to_us = Some(now_us),
            What::Nothing => {}
        }
    }
}

#[cfg(test)]
mod tests;
