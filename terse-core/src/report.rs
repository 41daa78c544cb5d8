//! What a link's owner is told of its clicks: totals and a series over a range
//! of time, and the newest clicks.
//!
//! A range is made of whole intervals in UTC: its begin is rounded down and its
//! end up. A series has a point for each interval, also where nothing happened,
//! and so at most [`MAX_HOURS`] or [`MAX_DAYS`] of them; a longer range is
//! refused. All time is never refused: of a link that is older than the longest
//! series, the series has the newest part, and the totals are still of all time.
//!
//! Rows are read in steps of `SPANS_AT_ONCE`, of which `STEPS_AT_ONCE` are
//! under way, so that a report takes little memory however long its range is,
//! and other requests get their turn. A
//! report that takes longer than [`MAX_REPORT_MS`] is given up: who asked gets
//! an answer, and a slow read model is not asked for more.

#[cfg(test)]
mod tests;

use std::ops::Range;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use crate::ports::clicks::ClickStats;
use crate::ports::{StoreError, StoreErrorKind};
use crate::shorten::{Fault, ServiceError};
use crate::stats::{Dimension, NewestClick, Row, Span, Values};
use crate::{Clock, Link, ShortCode, Timestamp};

/// Most points of an hourly series: 31 days, and two for rounding, or for the hour that a change of clocks adds to a
/// month. A longer range is refused.
pub const MAX_HOURS: u32 = 31 * 24 + 2;
/// Most points of a daily series: 3,660 days, and two for rounding. A longer range is refused.
pub const MAX_DAYS: u32 = 3_660 + 2;

/// After so many milliseconds a report asks the read model for no more, and fails. The step that goes on is bounded by
/// whoever guards the read model.
pub const MAX_REPORT_MS: u64 = 3_000;

/// Most rows that are asked of the read model in one step. A row of many visitors has some 4 KiB, the largest there can
/// be about 150.
const SPANS_AT_ONCE: u32 = 64;
/// So many steps are under way at a time: on a cluster each waits for a quorum, longer than its rows take here.
const STEPS_AT_ONCE: usize = 3;

/// How long each point of a series is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interval {
    /// An hour.
    Hour,
    /// A day in UTC.
    Day,
}

/// What is asked about a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// Since when; `None` = since the link was created.
    pub from: Option<Timestamp>,
    /// Until when, that moment not included; `None` = now.
    pub to: Option<Timestamp>,
    /// How long each point of the series is.
    pub interval: Interval,
}

/// The clicks of one interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// When the interval begins.
    pub at: Timestamp,
    /// Clicks of people.
    pub clicks: u64,
    /// Clicks of programs.
    pub bots: u64,
    /// How many different people, about; only of days.
    pub visitors: Option<u64>,
}

/// A value and how many clicks of people had it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share<'a> {
    /// `None` = all clicks whose value is not known, or not counted by name.
    pub value: Option<&'a str>,
    /// How many.
    pub clicks: u64,
}

/// What is told about a link.
#[derive(Clone, Debug)]
pub struct Report {
    /// Clicks of people in the range.
    pub clicks: u64,
    /// Clicks of programs in the range.
    pub bots: u64,
    /// The sum of the visitors of the range's days; `None` when it isn't made of whole days, or has too many.
    pub visitors: Option<u64>,
    /// A point for each interval of the range.
    pub series: Vec<Point>,
    values: [Values; Dimension::ALL.len()],
    /// Of what time this is true; `None` = no click of anybody was counted yet.
    pub as_of: Option<Timestamp>,
}

/// Consecutive intervals: their numbers since the epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Intervals {
    interval: Interval,
    numbers: Range<u32>,
    /// Whether they are all that the link has lived through, as far as a series can show.
    all_time: bool,
    /// Whether earlier ones were left out.
    cut: bool,
}

impl Interval {
    /// Reads `hour` or `day`.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "hour" => Some(Self::Hour),
            "day" => Some(Self::Day),
            _ => None,
        }
    }

    const fn most(self) -> u32 {
        match self {
            Self::Hour => MAX_HOURS,
            Self::Day => MAX_DAYS,
        }
    }

    const fn span(self, number: u32) -> Span {
        match self {
            Self::Hour => Span::Hour(number),
            Self::Day => Span::Day(number),
        }
    }

    /// The number of the interval that `at` lies in.
    fn number_of(self, at: Timestamp) -> u32 {
        match self {
            Self::Hour => self.number(Span::hour_of(at)),
            Self::Day => self.number(Span::day_of(at)),
        }
        .unwrap_or_default()
    }

    /// The number of `span`, if it is one of these intervals.
    const fn number(self, span: Span) -> Option<u32> {
        match (self, span) {
            (Self::Hour, Span::Hour(number)) | (Self::Day, Span::Day(number)) => Some(number),
            _ => None,
        }
    }
}

impl Question {
    /// What is wrong with the range, as far as that can be told without the link.
    #[must_use]
    pub fn faults(&self, now: Timestamp) -> Vec<Fault> {
        // Without a begin the link's creation decides; it may be anything up to the end.
        let begin = self.from.or(self.to).unwrap_or(now);
        self.intervals(begin, now).err().into_iter().collect()
    }

    /// The intervals that are asked for, of a link created at `created_at`.
    fn intervals(&self, created_at: Timestamp, now: Timestamp) -> Result<Intervals, Fault> {
        let interval = self.interval;
        // Without an end the interval that has just begun belongs to the range; with one it is as the caller says.
        let (to, end) = match self.to {
            Some(to) if to == interval.span(interval.number_of(to)).start() => (to, interval.number_of(to)),
            to => (to.unwrap_or(now), interval.number_of(to.unwrap_or(now)) + 1),
        };
        let from = self.from.unwrap_or_else(|| created_at.min(to.plus_millis(-1)));
        let mut first = interval.number_of(from);
        if first >= end || self.to.is_some_and(|to| from >= to) {
            return Err(self.order_fault());
        }
        let all_time = self.from.is_none() && self.to.is_none();
        let cut = end - first > interval.most();
        if cut && !all_time {
            return Err(too_long(interval));
        }
        if cut {
            first = end - interval.most();
        }
        Ok(Intervals { interval, numbers: first..end, all_time, cut })
    }

    fn order_fault(&self) -> Fault {
        let field = if self.from.is_some() { "from" } else { "to" };
        let detail = match field {
            "from" if self.to.is_none() => "must not be in the future unless to is given and later",
            "from" => "must be earlier than to",
            _ => "must be later than 1970-01-01T00:00:00Z",
        };
        Fault { field, code: "out_of_order", detail: detail.to_owned() }
    }
}

fn too_long(interval: Interval) -> Fault {
    let detail = match interval {
        Interval::Hour => "an hourly series has at most 31 days: ask for a later from or for interval=day",
        Interval::Day => "a daily series has at most 3,660 days: ask for a later from",
    };
    Fault { field: "from", code: "out_of_bounds", detail: detail.to_owned() }
}

impl Intervals {
    fn points(&self) -> Vec<Point> {
        let visitors = (self.interval == Interval::Day).then_some(0);
        let point = |number| Point { at: self.interval.span(number).start(), clicks: 0, bots: 0, visitors };
        self.numbers.clone().map(point).collect()
    }

    /// These hours as days, if they are whole ones.
    fn as_days(&self) -> Option<Self> {
        let Range { start, end } = self.numbers;
        let whole = start % 24 == 0 && end % 24 == 0;
        whole.then(|| Self { interval: Interval::Day, numbers: start / 24..end / 24, ..self.clone() })
    }
}

impl Report {
    /// How the clicks of people spread over the values of `dimension`: largest first, and last, as `None`, those
    /// whose value is not known or not counted by name. Together they are [`Report::clicks`].
    #[must_use]
    pub fn shares(&self, dimension: Dimension) -> Vec<Share<'_>> {
        let values = self.values[dimension as usize].largest_first();
        let named = values.into_iter().filter(|(value, clicks)| !value.is_empty() && *clicks > 0);
        let mut shares: Vec<_> = named.map(|(value, clicks)| Share { value: Some(value), clicks }).collect();
        let told = shares.iter().fold(0, |sum: u64, share| sum.saturating_add(share.clicks));
        if let Some(rest) = self.clicks.checked_sub(told).filter(|rest| *rest > 0) {
            shares.push(Share { value: None, clicks: rest });
        }
        shares
    }

    /// All clicks of the range.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.clicks.saturating_add(self.bots)
    }

    fn add(&mut self, row: &Row) {
        self.clicks = self.clicks.saturating_add(row.clicks);
        self.bots = self.bots.saturating_add(row.bots);
        for dimension in Dimension::ALL {
            self.values[dimension as usize].merge(row.values(dimension));
        }
    }
}

/// A read model that is asked until some time.
struct Patient<'a> {
    stats: &'a dyn ClickStats,
    clock: &'a dyn Clock,
    until_ms: u64,
}

impl Patient<'_> {
    /// The read model, if there is time left.
    fn ask(&self) -> Result<&dyn ClickStats, StoreError> {
        if self.clock.monotonic_ms() > self.until_ms {
            let text = format!("a report took longer than {MAX_REPORT_MS} ms");
            return Err(StoreError::new(StoreErrorKind::Unavailable, text));
        }
        Ok(self.stats)
    }
}

/// Tells what `question` asks about `link` now.
///
/// # Errors
/// [`ServiceError::Invalid`] when the range is backwards or too long, [`ServiceError::Store`], also when it takes longer
/// than [`MAX_REPORT_MS`].
pub async fn report(
    stats: &dyn ClickStats,
    link: &Link,
    question: &Question,
    clock: &dyn Clock,
) -> Result<Report, ServiceError> {
    let stats = &Patient { stats, clock, until_ms: clock.monotonic_ms().saturating_add(MAX_REPORT_MS) };
    let now = clock.now();
    let asked = question.intervals(link.created_at, now).map_err(|fault| ServiceError::Invalid(vec![fault]))?;
    // Before the rows: they may include more than that, never less.
    let as_of = stats.ask()?.as_of(&link.code).await?;
    let (series, values) = (asked.points(), Default::default());
    let mut report = Report { clicks: 0, bots: 0, visitors: None, series, values, as_of };
    if asked.all_time
        && let Some(row) = stats.ask()?.overall(&link.code).await?
    {
        report.add(&row);
    }
    each_row(stats, &link.code, &asked, |place, row| {
        if let Some(point) = report.series.get_mut(place) {
            (point.clicks, point.bots) = (row.clicks, row.bots);
            point.visitors = point.visitors.map(|_| visitors(row));
        }
        if !asked.all_time {
            report.add(row);
        }
    })
    .await?;
    report.visitors = match asked.interval {
        Interval::Day => (!asked.cut).then(|| report.series.iter().filter_map(|point| point.visitors).sum()),
        Interval::Hour => visitors_of_days(stats, link, question, &asked, now).await?,
    };
    Ok(report)
}

/// Up to `limit` of the newest clicks of `code`, newest first; there are never more than
/// [`NEWEST_CLICKS`](crate::stats::NEWEST_CLICKS).
///
/// # Errors
/// [`StoreError`] when the read model could not answer.
pub async fn newest_clicks(
    stats: &dyn ClickStats,
    code: &ShortCode,
    limit: usize,
) -> Result<Vec<NewestClick>, StoreError> {
    let row = stats.overall(code).await?;
    let mut newest = row.map(|row| row.newest()).unwrap_or_default();
    newest.truncate(limit);
    Ok(newest)
}

/// The visitors of a range in hours, if it is all time or made of whole days.
async fn visitors_of_days(
    stats: &Patient<'_>,
    link: &Link,
    question: &Question,
    hours: &Intervals,
    now: Timestamp,
) -> Result<Option<u64>, StoreError> {
    let days = if hours.all_time {
        let all = Question { interval: Interval::Day, ..*question }.intervals(link.created_at, now);
        all.ok().filter(|days| !days.cut)
    } else {
        hours.as_days()
    };
    let Some(days) = days else { return Ok(None) };
    let mut sum = 0;
    each_row(stats, &link.code, &days, |_, row| sum += visitors(row)).await?;
    Ok(Some(sum))
}

fn visitors(row: &Row) -> u64 {
    row.visitors.as_ref().map_or(0, crate::stats::Sketch::count)
}

/// Shows `act` every row of `asked` that there is, with its place in the range.
async fn each_row(
    stats: &Patient<'_>,
    code: &ShortCode,
    asked: &Intervals,
    mut act: impl FnMut(usize, &Row),
) -> Result<(), StoreError> {
    let Intervals { interval, numbers, .. } = asked;
    let steps = numbers.clone().step_by(SPANS_AT_ONCE as usize).map(|first| async move {
        let last = first.saturating_add(SPANS_AT_ONCE).min(numbers.end) - 1;
        let rows = stats.ask()?.spans(code, interval.span(first), interval.span(last)).await?;
        Ok((first..=last, rows))
    });
    let mut found = stream::iter(steps).buffered(STEPS_AT_ONCE);
    while let Some((asked, rows)) = found.try_next().await? {
        for (span, row) in rows {
            if let Some(number) = interval.number(span).filter(|number| asked.contains(number)) {
                act((number - numbers.start) as usize, &row);
            }
        }
    }
    Ok(())
}
