//! A timeline in buckets.

use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{Answer, BUCKET, Kept, Note, POINTS, Span};
use crate::load::percentile;

/// What came of the requests of a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// How many got what they asked for.
    pub answered: usize,
    /// How many were told to come back later.
    pub refused: usize,
    /// How many got another answer, or none.
    pub failed: usize,
    /// Half of those answered were so within this.
    pub p50: Duration,
    /// 99 of 100 of those answered were so within this.
    pub p99: Duration,
    /// All of those answered were so within this.
    pub max: Duration,
}

impl Bucket {
    fn of<'a>(notes: impl Iterator<Item = &'a Note>) -> Self {
        let (mut bucket, mut took) = (Self::default(), Vec::new());
        for note in notes {
            match note.answer {
                Answer::Answered => {
                    bucket.answered += 1;
                    took.push(Duration::from_micros(note.took_us.into()));
                }
                Answer::Refused => bucket.refused += 1,
                Answer::Failed => bucket.failed += 1,
            }
        }
        took.sort_unstable();
        let max = took.last().copied().unwrap_or_default();
        Self { p50: percentile(&took, 50), p99: percentile(&took, 99), max, ..bucket }
    }

    fn json(&self) -> Value {
        json!({
            "answered": self.answered, "refused": self.refused, "failed": self.failed,
            "p50_ms": self.ms(self.p50), "p99_ms": self.ms(self.p99), "max_ms": self.ms(self.max),
        })
    }

    /// In milliseconds, with no digits that mean nothing; nothing where nothing was answered.
    fn ms(&self, time: Duration) -> Value {
        let ms = time.as_secs_f64() * 1e3;
        let digits = if ms < 10.0 { 100.0 } else { 10.0 };
        if self.answered == 0 { Value::Null } else { json!((ms * digits).round() / digits) }
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { answered, refused, failed, .. } = self;
        write!(f, "{answered} answered, {refused} refused, {failed} failed")?;
        if *answered > 0 {
            let ms = |time: Duration| time.as_secs_f64() * 1e3;
            write!(f, ", p99 {:.1} ms, longest {:.1} ms", ms(self.p99), ms(self.max))?;
        }
        Ok(())
    }
}

/// What was broken, from when until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marked {
    /// In words.
    pub what: String,
    /// From the beginning of the first load.
    pub from: Duration,
    /// From the beginning of the first load.
    pub to: Duration,
}

/// One kind of requests.
#[derive(Clone, Debug)]
struct Lane {
    name: &'static str,
    buckets: Vec<Bucket>,
    with_fault: Bucket,
    whole: Bucket,
}

/// A timeline in buckets.
#[derive(Clone, Debug)]
pub struct Picture {
    bucket: Duration,
    end: Duration,
    /// For how much of each bucket a load ran.
    loaded: Vec<Duration>,
    lanes: Vec<Lane>,
    faults: Vec<Marked>,
    left_out: u64,
}

impl Picture {
    pub(super) fn of(kept: &Kept, now_us: u64) -> Option<Self> {
        if kept.notes.is_empty() {
            return None;
        }
        let zero = kept.loads.first()?.from_us;
        let span = |span: &Span| (span.from_us.saturating_sub(zero), span.to_us.unwrap_or(now_us).saturating_sub(zero));
        let loads = joined(kept.loads.iter().map(span).collect());
        let end = loads.iter().map(|(_, to)| *to).max()?.max(1);
        let bucket = bucket_for(end);
        let count = usize::try_from(end.div_ceil(bucket)).unwrap_or(usize::MAX);
        let marked = |(what, at): &(String, Span)| {
            let (from, to) = span(at);
            let micros = |at: u64| Duration::from_micros(at.min(end));
            (from < end).then(|| Marked { what: what.clone(), from: micros(from), to: micros(to) })
        };
        let faults: Vec<Marked> = kept.faults.iter().filter_map(marked).collect();
        let broken = joined(kept.faults.iter().map(|(_, at)| span(at)).collect());
        let overlap = |number: usize| {
            let from = number as u64 * bucket;
            let within = |(first, last): &(u64, u64)| (*last).min(from + bucket).saturating_sub((*first).max(from));
            Duration::from_micros(loads.iter().map(within).sum())
        };
        Some(Self {
            bucket: Duration::from_micros(bucket),
            end: Duration::from_micros(end),
            loaded: (0..count).map(overlap).collect(),
            lanes: lanes(kept, zero, (bucket, count), &broken),
            faults,
            left_out: kept.left_out,
        })
    }

    /// How long a bucket is.
    #[must_use]
    pub fn bucket(&self) -> Duration {
        self.bucket
    }

    /// The buckets of one kind of requests; none where nobody asked for it.
    #[must_use]
    pub fn lane(&self, name: &str) -> &[Bucket] {
        self.lanes.iter().find(|lane| lane.name == name).map_or(&[], |lane| &lane.buckets)
    }

    /// For how much of each bucket a load ran.
    #[must_use]
    pub fn loaded(&self) -> &[Duration] {
        &self.loaded
    }

    /// What was broken while a load ran.
    #[must_use]
    pub fn faults(&self) -> &[Marked] {
        &self.faults
    }

    /// What each kind of requests met while something was broken, a line each; without a fault, all the time.
    #[must_use]
    pub fn observed(&self) -> Vec<String> {
        let when = if self.faults.is_empty() { "" } else { ", with the fault" };
        let line = |lane: &Lane| {
            let seen = if self.faults.is_empty() { &lane.whole } else { &lane.with_fault };
            format!("{}{when}: {seen}", lane.name)
        };
        self.lanes.iter().map(line).collect()
    }

    /// The kind of requests that most were answered of: the one whose latencies are drawn.
    fn main(&self) -> &'static str {
        self.lanes.iter().max_by_key(|lane| lane.whole.answered).map_or("", |lane| lane.name)
    }

    /// All of it, column by column. A column of nothing but zeros is left out.
    #[must_use]
    pub fn json(&self) -> Value {
        let seconds = |time: Duration| (time.as_secs_f64() * 1e3).round() / 1e3;
        let fault =
            |fault: &Marked| json!({ "what": fault.what, "from_s": seconds(fault.from), "to_s": seconds(fault.to) });
        let each = |value: fn(&Lane) -> Value| -> Value {
            Value::Object(self.lanes.iter().map(|lane| (lane.name.to_owned(), value(lane))).collect::<Map<_, _>>())
        };
        json!({
            "bucket_ms": millis(self.bucket),
            "seconds": seconds(self.end),
            "loaded_ms": self.loaded.iter().copied().map(millis).collect::<Vec<_>>(),
            "faults": self.faults.iter().map(fault).collect::<Vec<_>>(),
            "main": self.main(),
            "lanes": each(Lane::columns),
            "with_fault": each(|lane| lane.with_fault.json()),
            "whole": each(|lane| lane.whole.json()),
            "left_out": self.left_out,
        })
    }
}

/// A column of numbers: its name, and what of a bucket is in it.
type Column<T> = (&'static str, fn(&Bucket) -> T);

impl Lane {
    fn columns(&self) -> Value {
        const LATENCIES: [Column<Duration>; 3] =
            [("p50_ms", |bucket| bucket.p50), ("p99_ms", |bucket| bucket.p99), ("max_ms", |bucket| bucket.max)];
        const COUNTS: [Column<usize>; 3] = [
            ("answered", |bucket| bucket.answered),
            ("refused", |bucket| bucket.refused),
            ("failed", |bucket| bucket.failed),
        ];
        let mut columns = Map::new();
        for (name, count) in COUNTS {
            if self.buckets.iter().any(|bucket| count(bucket) > 0) {
                columns.insert(name.to_owned(), self.buckets.iter().map(|bucket| json!(count(bucket))).collect());
            }
        }
        for (name, time) in LATENCIES {
            columns.insert(name.to_owned(), self.buckets.iter().map(|bucket| bucket.ms(time(bucket))).collect());
        }
        Value::Object(columns)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// How long a bucket has to be, in microseconds, for so long a time.
fn bucket_for(end_us: u64) -> u64 {
    let mut bucket = u64::try_from(BUCKET.as_micros()).unwrap_or(u64::MAX);
    while end_us.div_ceil(bucket) > POINTS as u64 {
        bucket *= 2;
    }
    bucket
}

/// The spans, in order, with those that touch or overlap made one.
fn joined(mut spans: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    spans.sort_unstable();
    let mut joined: Vec<(u64, u64)> = Vec::with_capacity(spans.len());
    for (from, to) in spans {
        match joined.last_mut() {
            Some((_, end)) if from <= *end => *end = to.max(*end),
            _ => joined.push((from, to)),
        }
    }
    joined
}

fn lanes(kept: &Kept, zero: u64, (bucket, count): (u64, usize), broken: &[(u64, u64)]) -> Vec<Lane> {
    let lane = |(place, &name): (usize, &&'static str)| {
        let at = |note: &Note| note.asked_us.saturating_sub(zero);
        let own: Vec<&Note> = kept.notes.iter().filter(|note| usize::from(note.lane) == place).collect();
        let mut sorted: Vec<Vec<&Note>> = vec![Vec::new(); count];
        for note in &own {
            // What is asked for at the very end belongs to the last one.
            let number = usize::try_from(at(note) / bucket).unwrap_or(usize::MAX).min(count - 1);
            sorted[number].push(note);
        }
        let is_broken = |note: &&&Note| broken.iter().any(|(from, to)| (*from..*to).contains(&at(note)));
        Lane {
            name,
            buckets: sorted.into_iter().map(|notes| Bucket::of(notes.into_iter())).collect(),
            with_fault: Bucket::of(own.iter().filter(is_broken).copied()),
            whole: Bucket::of(own.iter().copied()),
        }
    };
    let mut lanes: Vec<Lane> = kept.lanes.iter().enumerate().map(lane).collect();
    // Which was asked for first is chance.
    lanes.sort_by_key(|lane| lane.name);
    lanes
}
