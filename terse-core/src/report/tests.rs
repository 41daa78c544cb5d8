//! Ranges, series and totals over a read model in memory.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use proptest::prelude::*;

use super::*;
use crate::click::{BlockId, JournalId};
use crate::fakes::block_on;
use crate::ports::StoreErrorKind;
use crate::stats::NEWEST_CLICKS;
use crate::{LinkState, Owner, Tags, TargetUrl, Version};

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

fn time(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

fn link(created_at: &str) -> Link {
    let created_at = time(created_at);
    Link {
        code: ShortCode::parse("abc").unwrap(),
        target: TargetUrl::from_stored("https://example.com/").unwrap(),
        title: None,
        tags: Tags::default(),
        state: LinkState::Active,
        owner: Owner::open(),
        created_at,
        updated_at: created_at,
        expires_at: None,
        valid_from: None,
        version: Version::FIRST,
    }
}

fn asked(from: Option<&str>, to: Option<&str>, interval: Interval) -> Question {
    Question { from: from.map(time), to: to.map(time), interval }
}

/// Rows of one code, and what was asked of them.
#[derive(Default)]
struct Rows {
    rows: BTreeMap<Span, Row>,
    calls: Mutex<Vec<Call>>,
    fails_at: Option<usize>,
    /// How long each call takes, and how long all took.
    call_ms: u64,
    spent_ms: Arc<AtomicU64>,
}

/// The time of day stands still, and calls take as long as they do.
struct Watch {
    now: Timestamp,
    spent_ms: Arc<AtomicU64>,
}

impl Clock for Watch {
    fn now(&self) -> Timestamp {
        self.now
    }

    fn monotonic_ms(&self) -> u64 {
        self.spent_ms.load(Ordering::SeqCst)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Call {
    AsOf,
    Overall,
    Spans(Span, Span),
}

impl Rows {
    /// Counts a click of the visitor at that time, as the projector does.
    fn click(&mut self, at: &str, visitor: u64, referrer: &str) {
        let at = time(at);
        for span in [Span::All, Span::day_of(at), Span::hour_of(at)] {
            let row = self.rows.entry(span).or_default();
            row.clicks += 1;
            row.values_mut(Dimension::Referrer).add(referrer, 1);
            if matches!(span, Span::Day(_)) {
                row.visitors.get_or_insert_default().add(visitor << 32);
            }
        }
    }

    fn bot(&mut self, at: &str) {
        let at = time(at);
        for span in [Span::All, Span::day_of(at), Span::hour_of(at)] {
            self.rows.entry(span).or_default().bots += 1;
        }
    }

    fn call<T>(&self, call: Call, answer: impl FnOnce() -> T) -> Result<T, StoreError> {
        self.spent_ms.fetch_add(self.call_ms, Ordering::SeqCst);
        let mut calls = self.calls.lock().unwrap();
        calls.push(call);
        match self.fails_at {
            Some(number) if calls.len() == number => Err(StoreError::new(StoreErrorKind::Unavailable, "away")),
            _ => Ok(answer()),
        }
    }

    /// The ranges of rows that were asked for, and forgets all calls.
    fn ranges(&self) -> Vec<(Span, Span)> {
        let calls = std::mem::take(&mut *self.calls.lock().unwrap());
        calls.into_iter().filter_map(|call| if let Call::Spans(a, b) = call { Some((a, b)) } else { None }).collect()
    }

    fn report(&self, link: &Link, question: &Question, now: &str) -> Result<Report, ServiceError> {
        let watch = Watch { now: time(now), spent_ms: Arc::clone(&self.spent_ms) };
        block_on(report(self, link, question, &watch))
    }
}

#[async_trait]
impl ClickStats for Rows {
    async fn overall(&self, _code: &ShortCode) -> Result<Option<Row>, StoreError> {
        self.call(Call::Overall, || self.rows.get(&Span::All).cloned())
    }

    async fn spans(&self, _code: &ShortCode, first: Span, last: Span) -> Result<Vec<(Span, Row)>, StoreError> {
        let rows = || self.rows.range(first..=last).map(|(span, row)| (*span, row.clone())).collect();
        self.call(Call::Spans(first, last), rows)
    }

    async fn as_of(&self, _code: &ShortCode) -> Result<Option<Timestamp>, StoreError> {
        self.call(Call::AsOf, || Some(time("2026-03-04T00:00:00Z")))
    }
}

/// What `question` covers at `now`, of a link from 2026-01-01 12:00: when its first interval begins and its last one ends.
fn covered(question: Question, now: &str) -> Result<(String, String), (&'static str, &'static str)> {
    let found =
        question.intervals(time("2026-01-01T12:00:00Z"), time(now)).map_err(|fault| (fault.field, fault.code))?;
    let start = |number| found.interval.span(number).start().to_string();
    Ok((start(found.numbers.start), start(found.numbers.end)))
}

fn from_to(from: &str, to: &str) -> Result<(String, String), (&'static str, &'static str)> {
    Ok((from.to_owned(), to.to_owned()))
}

const NOW: &str = "2026-01-03T10:20:30Z";

#[test]
fn a_range_is_rounded_to_whole_intervals() {
    let (from, to) = (Some("2026-01-02T03:04:05Z"), Some("2026-01-03T04:05:06Z"));
    assert_eq!(covered(asked(from, to, Interval::Day), NOW), from_to("2026-01-02T00:00:00Z", "2026-01-04T00:00:00Z"));
    assert_eq!(covered(asked(from, to, Interval::Hour), NOW), from_to("2026-01-02T03:00:00Z", "2026-01-03T05:00:00Z"));
    let (from, to) = (Some("2026-01-02T00:00:00Z"), Some("2026-01-03T00:00:00Z"));
    for interval in [Interval::Day, Interval::Hour] {
        assert_eq!(covered(asked(from, to, interval), NOW), from_to("2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"));
    }
    let within = asked(Some("2026-01-02T03:10:00Z"), Some("2026-01-02T03:20:00Z"), Interval::Hour);
    assert_eq!(covered(within, NOW), from_to("2026-01-02T03:00:00Z", "2026-01-02T04:00:00Z"));
}

#[test]
fn without_begin_and_end_a_range_is_all_time_and_includes_this_very_interval() {
    let all = asked(None, None, Interval::Day);
    assert_eq!(covered(all, NOW), from_to("2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z"));
    assert_eq!(covered(all, "2026-01-03T00:00:00Z"), from_to("2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z"));
    let hours = asked(None, None, Interval::Hour);
    assert_eq!(covered(hours, NOW), from_to("2026-01-01T12:00:00Z", "2026-01-03T11:00:00Z"));
    // A link made by a server whose clock is ahead.
    assert_eq!(covered(hours, "2026-01-01T11:59:59Z"), from_to("2026-01-01T11:00:00Z", "2026-01-01T12:00:00Z"));
}

#[test]
fn half_a_range_is_completed() {
    let from = asked(Some("2026-01-02T03:04:05Z"), None, Interval::Hour);
    assert_eq!(covered(from, NOW), from_to("2026-01-02T03:00:00Z", "2026-01-03T11:00:00Z"));
    let to = asked(None, Some("2026-01-02T03:04:05Z"), Interval::Day);
    assert_eq!(covered(to, NOW), from_to("2026-01-01T00:00:00Z", "2026-01-03T00:00:00Z"));
    let before_it_was = asked(None, Some("2020-01-01T00:00:00Z"), Interval::Day);
    assert_eq!(covered(before_it_was, NOW), from_to("2019-12-31T00:00:00Z", "2020-01-01T00:00:00Z"));
}

#[test]
fn a_backward_range_is_refused() {
    let at = |from, to| covered(asked(from, to, Interval::Day), NOW);
    let refused = Err(("from", "out_of_order"));
    assert_eq!(at(Some("2026-01-03T00:00:00Z"), Some("2026-01-02T00:00:00Z")), refused);
    assert_eq!(at(Some("2026-01-02T10:00:00Z"), Some("2026-01-02T10:00:00Z")), refused, "nothing is no range");
    assert_eq!(at(Some("2026-01-02T10:00:01Z"), Some("2026-01-02T10:00:00Z")), refused);
    assert_eq!(at(Some("2026-01-04T00:00:00Z"), None), refused);
    assert_eq!(at(None, Some("1970-01-01T00:00:00Z")), Err(("to", "out_of_order")));
    // A client whose clock is a little ahead.
    assert!(at(Some("2026-01-03T10:20:31Z"), None).is_ok());
}

#[test]
fn a_range_has_a_longest_length() {
    let begin = time("2026-03-01T00:00:00Z");
    let ends_after =
        |ms, interval| Question { from: Some(begin), to: Some(begin.plus_millis(ms)), interval }.faults(time(NOW));
    for (interval, length_ms, most) in [(Interval::Hour, HOUR_MS, MAX_HOURS), (Interval::Day, DAY_MS, MAX_DAYS)] {
        assert_eq!(ends_after(length_ms * i64::from(most), interval), []);
        let faults = ends_after(length_ms * i64::from(most) + 1, interval);
        assert_eq!(
            faults.iter().map(|fault| (fault.field, fault.code)).collect::<Vec<_>>(),
            [("from", "out_of_bounds")]
        );
    }
    // A local October has an hour more than 31 days.
    let october = asked(Some("2026-10-01T00:00:00+02:00"), Some("2026-11-01T00:00:00+01:00"), Interval::Hour);
    assert_eq!(october.faults(time(NOW)), []);
    // Whoever asks for the last 31 days, some time ago, gets them.
    let now = time("2026-05-01T10:00:00.5Z");
    let month = Question { from: Some(time("2026-03-31T09:59:59.9Z")), to: None, interval: Interval::Hour };
    assert_eq!(month.faults(now), []);
}

#[test]
fn faults_of_a_range_that_needs_the_link_are_told_once_it_is_known() {
    let question = asked(None, Some("2026-03-01T00:00:00Z"), Interval::Hour);
    assert_eq!(question.faults(time(NOW)), []);
    let refused = Rows::default().report(&link("2026-01-01T12:00:00Z"), &question, NOW).unwrap_err();
    let ServiceError::Invalid(faults) = refused else { panic!("{refused}") };
    assert_eq!((faults[0].field, faults[0].code), ("from", "out_of_bounds"));
}

fn some_clicks() -> Rows {
    let mut rows = Rows::default();
    rows.click("2026-01-01T12:30:00Z", 1, "a.example");
    rows.click("2026-01-01T12:40:00Z", 1, "a.example");
    rows.click("2026-01-02T23:59:59Z", 1, "");
    rows.click("2026-01-02T23:00:00Z", 2, "b.example");
    rows.bot("2026-01-02T01:00:00Z");
    rows.click("2026-01-03T00:00:00Z", 3, "a.example");
    rows
}

fn points(report: &Report) -> Vec<(String, u64, u64, Option<u64>)> {
    report.series.iter().map(|point| (point.at.to_string(), point.clicks, point.bots, point.visitors)).collect()
}

#[test]
fn all_time_is_told_by_day_with_the_days_on_which_nothing_happened() {
    let mut rows = some_clicks();
    rows.bot("2026-01-05T00:00:00Z");
    let all = asked(None, None, Interval::Day);
    let report = rows.report(&link("2026-01-01T12:00:00Z"), &all, "2026-01-05T10:00:00Z").unwrap();
    assert_eq!((report.clicks, report.bots, report.total(), report.visitors), (5, 2, 7, Some(4)));
    assert_eq!(report.as_of, Some(time("2026-03-04T00:00:00Z")));
    let day = |day, clicks, bots, visitors| (format!("2026-01-{day:02}T00:00:00Z"), clicks, bots, Some(visitors));
    assert_eq!(points(&report), [day(1, 2, 0, 1), day(2, 2, 1, 2), day(3, 1, 0, 1), day(4, 0, 0, 0), day(5, 0, 1, 0)]);
}

#[test]
fn an_hourly_series_has_no_visitors_but_all_time_has() {
    let rows = some_clicks();
    let all = asked(None, None, Interval::Hour);
    let report = rows.report(&link("2026-01-01T12:00:00Z"), &all, NOW).unwrap();
    assert_eq!((report.clicks, report.bots, report.visitors), (5, 1, Some(4)));
    assert_eq!(report.series.len(), 24 + 12 + 11);
    assert_eq!(points(&report)[0], ("2026-01-01T12:00:00Z".into(), 2, 0, None));
    assert!(report.series.iter().all(|point| point.visitors.is_none()));
    assert_eq!(report.series.iter().map(|point| point.clicks + point.bots).sum::<u64>(), 6);
}

#[test]
fn the_totals_of_a_range_are_those_of_its_intervals() {
    let rows = some_clicks();
    let link = link("2026-01-01T12:00:00Z");
    let evening = asked(Some("2026-01-02T23:00:00Z"), Some("2026-01-03T01:00:00Z"), Interval::Hour);
    let report = rows.report(&link, &evening, NOW).unwrap();
    assert_eq!((report.clicks, report.bots, report.visitors), (3, 0, None), "a part of a day has no visitors");
    assert_eq!(points(&report).iter().map(|point| point.1).collect::<Vec<_>>(), [2, 1]);
    let day = asked(Some("2026-01-02T00:00:00Z"), Some("2026-01-03T00:00:00Z"), Interval::Hour);
    let report = rows.report(&link, &day, NOW).unwrap();
    assert_eq!((report.clicks, report.bots, report.visitors), (2, 1, Some(2)), "a whole day has");
    assert!(!rows.calls.lock().unwrap().contains(&Call::Overall));
    let report = rows.report(&link, &Question { interval: Interval::Day, ..day }, NOW).unwrap();
    assert_eq!((report.clicks, report.bots, report.visitors, report.series.len()), (2, 1, Some(2), 1));
}

#[test]
fn an_old_link_has_totals_of_all_time_and_the_newest_part_of_its_series() {
    let mut rows = some_clicks();
    let link = link("2010-01-01T00:00:00Z");
    rows.click("2010-01-01T00:00:00Z", 9, "old.example");
    let report = rows.report(&link, &asked(None, None, Interval::Day), NOW).unwrap();
    assert_eq!((report.clicks, report.series.len()), (6, MAX_DAYS as usize));
    assert_eq!(report.visitors, None, "not all of its days can be read");
    assert_eq!(report.series.last().unwrap().at, time("2026-01-03T00:00:00Z"));
    let report = rows.report(&link, &asked(None, None, Interval::Hour), NOW).unwrap();
    assert_eq!((report.clicks, report.series.len(), report.visitors), (6, MAX_HOURS as usize, None));
}

#[test]
fn a_link_that_nobody_clicked_has_zeros() {
    let rows = Rows::default();
    let report = rows.report(&link("2026-01-03T00:00:00Z"), &asked(None, None, Interval::Day), NOW).unwrap();
    assert_eq!((report.total(), report.visitors), (0, Some(0)));
    assert_eq!(points(&report), [("2026-01-03T00:00:00Z".into(), 0, 0, Some(0))]);
    assert!(Dimension::ALL.iter().all(|dimension| report.shares(*dimension).is_empty()));
}

#[test]
fn shares_are_largest_first_and_add_up_to_the_clicks() {
    let rows = some_clicks();
    let link = link("2026-01-01T12:00:00Z");
    let report = rows.report(&link, &asked(None, None, Interval::Day), NOW).unwrap();
    let share = |value, clicks| Share { value, clicks };
    let expected = [share(Some("a.example"), 3), share(Some("b.example"), 1), share(None, 1)];
    assert_eq!(report.shares(Dimension::Referrer), expected);
    assert_eq!(report.shares(Dimension::Browser), [share(None, 5)], "of what is not known there is one share");
    let range = asked(Some("2026-01-01T00:00:00Z"), Some("2026-01-03T00:00:00Z"), Interval::Day);
    let report = rows.report(&link, &range, NOW).unwrap();
    assert_eq!(
        report.shares(Dimension::Referrer),
        [share(Some("a.example"), 2), share(Some("b.example"), 1), share(None, 1)]
    );
}

#[test]
fn values_beyond_the_bound_are_told_together() {
    let mut rows = Rows::default();
    for number in 0..150 {
        rows.click("2026-01-03T00:00:00Z", 1, &format!("{number}.example"));
    }
    let report = rows.report(&link("2026-01-03T00:00:00Z"), &asked(None, None, Interval::Day), NOW).unwrap();
    let shares = report.shares(Dimension::Referrer);
    assert_eq!((shares.len(), shares[100]), (101, Share { value: None, clicks: 50 }));
}

#[test]
fn what_a_report_is_as_of_is_read_before_its_rows() {
    let rows = some_clicks();
    rows.report(&link("2026-01-01T12:00:00Z"), &asked(None, None, Interval::Day), NOW).unwrap();
    assert_eq!(rows.calls.lock().unwrap()[..2], [Call::AsOf, Call::Overall]);
}

#[test]
fn a_report_fails_whole_whatever_part_of_it_can_not_be_read() {
    let link = link("2025-12-20T12:00:00Z");
    let question = asked(None, None, Interval::Hour);
    let rows = some_clicks();
    rows.report(&link, &question, NOW).unwrap();
    let calls = rows.calls.lock().unwrap().len();
    assert!(calls > 4);
    for number in 1..=calls {
        let rows = Rows { fails_at: Some(number), ..some_clicks() };
        let error = rows.report(&link, &question, NOW).unwrap_err();
        assert!(matches!(error, ServiceError::Store(_)), "call {number}: {error}");
    }
}

#[test]
fn only_the_newest_clicks_that_were_asked_for_are_told() {
    let mut rows = Rows::default();
    let code = ShortCode::parse("abc").unwrap();
    assert_eq!(block_on(newest_clicks(&rows, &code, 5)).unwrap(), []);
    let block = BlockId { journal: JournalId([7; 16]), seq: 0 };
    for index in 0..200 {
        let click = NewestClick::new(Timestamp::from_millis(index.into()), block, index, Default::default(), false);
        rows.rows.entry(Span::All).or_default().keep_newest(click);
    }
    let told = |limit| block_on(newest_clicks(&rows, &code, limit)).unwrap();
    assert_eq!(told(3).iter().map(|click| click.index).collect::<Vec<_>>(), [199, 198, 197]);
    assert_eq!(told(1_000).len(), NEWEST_CLICKS);
}

#[test]
fn intervals_have_words() {
    assert_eq!((Interval::parse("hour"), Interval::parse("day")), (Some(Interval::Hour), Some(Interval::Day)));
    for word in ["", "Day", "days", "week", " hour"] {
        assert_eq!(Interval::parse(word), None, "{word}");
    }
}

/// The year 2100.
const LATE_MS: i64 = 4_102_444_800_000;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn any_range_is_refused_or_has_bounded_consecutive_points_around_it(
        from in proptest::option::of(0..LATE_MS), days in proptest::option::of(-3..5_000_i64), ms in 0..DAY_MS,
        created in 0..LATE_MS, now in 0..LATE_MS, hourly: bool,
    ) {
        let (interval, length_ms) = if hourly { (Interval::Hour, HOUR_MS) } else { (Interval::Day, DAY_MS) };
        let from = from.map(Timestamp::from_millis);
        let to = days.map(|days| from.unwrap_or(Timestamp::from_millis(created)).plus_millis(days * DAY_MS / 7 + ms));
        let (created, now) = (Timestamp::from_millis(created), Timestamp::from_millis(now));
        let question = Question { from, to, interval };
        let Ok(found) = question.intervals(created, now) else { return Ok(()) };
        prop_assert_eq!(question.faults(now), []);
        let points = found.points();
        prop_assert!((1..=interval.most() as usize).contains(&points.len()));
        prop_assert!(points.windows(2).all(|two| two[1].at.as_millis() - two[0].at.as_millis() == length_ms));
        let (begin, end) = (points[0].at, points[points.len() - 1].at.plus_millis(length_ms));
        prop_assert!(from.is_none_or(|from| begin <= from && begin.plus_millis(length_ms) > from));
        prop_assert!(to.is_none_or(|to| end >= to && end.plus_millis(-length_ms) < to));
        prop_assert!(to.is_some() || end > now && end.plus_millis(-length_ms) <= now);
        prop_assert!(!found.cut || from.is_none() && to.is_none());
    }

    #[test]
    fn every_row_of_a_range_is_read_once_and_few_at_a_time(first in 0..30_000_u32, count in 1..2_000_u32) {
        let rows = Rows::default();
        let numbers = first..first + count;
        let asked = Intervals { interval: Interval::Day, numbers: numbers.clone(), all_time: false, cut: false };
        let watch = Watch { now: time(NOW), spent_ms: Arc::default() };
        let patient = Patient { stats: &rows, clock: &watch, until_ms: 0 };
        block_on(each_row(&patient, &ShortCode::parse("abc").unwrap(), &asked, |_, _| ())).unwrap();
        let mut read = Vec::new();
        for (from, to) in rows.ranges() {
            let (Span::Day(from), Span::Day(to)) = (from, to) else { panic!("{from:?} {to:?}") };
            prop_assert!(to - from < SPANS_AT_ONCE);
            read.extend(from..=to);
        }
        prop_assert_eq!(read, numbers.collect::<Vec<_>>());
    }
}

#[test]
fn a_report_that_takes_too_long_is_given_up() {
    let (range, link) = (asked(Some("2020-01-01T00:00:00Z"), None, Interval::Day), link("2020-01-01T00:00:00Z"));
    let mut rows = Rows { call_ms: 10, ..Rows::default() };
    rows.report(&link, &range, NOW).unwrap();
    let calls = rows.ranges().len() as u64;
    assert!(calls > 10, "{calls} calls are enough to take long");
    // It may take as long as its steps do.
    rows.call_ms = 1_000;
    let error = rows.report(&link, &range, NOW).unwrap_err();
    assert!(matches!(&error, ServiceError::Store(error) if error.kind == StoreErrorKind::Unavailable), "{error:?}");
    assert_eq!(rows.calls.lock().unwrap().len(), 4, "the first three took all the time, and the next began in it");
}
