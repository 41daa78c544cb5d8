//! `/api/v1/links/{code}/stats`: totals and a series of a link's clicks.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use terse_core::report::{self, Interval, Point, Question, Report};
use terse_core::stats::Dimension;
use terse_core::{ShortCode, Timestamp};
use utoipa::ToSchema;

use super::csv::{Csv, VARY_ACCEPT};
use super::query::Parameters;
use super::{json, link};
use crate::problem::Problem;
use crate::{State, accept, auth};

/// What is known of a link's clicks.
#[derive(Serialize, ToSchema)]
#[schema(as = Stats)]
pub(crate) struct StatsView<'a> {
    /// The link's code.
    #[schema(pattern = "^[A-Za-z0-9_-]{1,64}$", example = "q3bT9xK")]
    code: &'a str,
    /// All clicks of the range: `clicks` and `bots`.
    #[schema(example = 4)]
    total: u64,
    /// Clicks of people.
    #[schema(example = 3)]
    clicks: u64,
    /// Clicks of programs: crawlers, link previews, prefetches.
    #[schema(example = 1)]
    bots: u64,
    /// The sum of the visitors of the range's days, about; null when the range isn't made of whole days.
    #[schema(required, example = 2)]
    visitors: Option<u64>,
    /// A point for each interval of the range, oldest first.
    #[schema(max_items = 3662)]
    series: Vec<PointView>,
    /// Hosts of referrers.
    #[schema(max_items = 101)]
    referrers: Vec<ShareView<'a>>,
    /// Countries, ISO 3166-1 alpha-2.
    #[schema(max_items = 101)]
    countries: Vec<ShareView<'a>>,
    #[schema(max_items = 101)]
    browsers: Vec<ShareView<'a>>,
    /// Operating systems.
    #[schema(max_items = 101)]
    systems: Vec<ShareView<'a>>,
    /// Kinds of device.
    #[schema(max_items = 101)]
    devices: Vec<ShareView<'a>>,
    /// The languages asked for first.
    #[schema(max_items = 101)]
    languages: Vec<ShareView<'a>>,
    /// Everything up to this time is counted; null when nothing was counted yet.
    #[schema(required, format = DateTime, example = "2026-01-02T03:04:05.678Z")]
    as_of: Option<String>,
}

/// The clicks of one interval.
#[derive(Serialize, ToSchema)]
#[schema(as = StatsPoint)]
struct PointView {
    /// When the interval begins.
    #[schema(format = DateTime, example = "2026-01-02T00:00:00Z")]
    at: String,
    /// Clicks of people.
    #[schema(example = 3)]
    clicks: u64,
    /// Clicks of programs.
    #[schema(example = 1)]
    bots: u64,
    /// How many different people, about (exact for a few hundred); null in an hourly series.
    #[schema(required, example = 2)]
    visitors: Option<u64>,
}

/// A value and how many clicks of people had it.
#[derive(Serialize, ToSchema)]
#[schema(as = StatsShare)]
struct ShareView<'a> {
    /// Null, always last: the clicks whose value is not known, or is not among the hundred counted by name.
    #[schema(required, max_length = 100, example = "example.org")]
    value: Option<&'a str>,
    #[schema(minimum = 1, example = 3)]
    clicks: u64,
}

/// How long each point of a series is.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = Interval)]
#[allow(dead_code, reason = "it describes the API; the words themselves are the domain's")]
pub(crate) enum IntervalWord {
    Hour,
    Day,
}

/// Tells what is known of a link's clicks.
///
/// The range is made of whole hours or days in UTC: `from` is rounded down to the `interval`, `to` up. Without both it is
/// all time; of a link older than 3,660 days (31 days with `interval=hour`) the series then has the newest ones only.
/// A longer range is refused. Each list is of people's clicks, largest first, and adds up to `clicks`. With `Accept:
/// text/csv` the series comes as a table.
#[utoipa::path(
    get, path = "/api/v1/links/{code}/stats", operation_id = "read_stats", tag = "clicks",
    params(("code" = String, Path, description = "The link's code", pattern = "^[A-Za-z0-9_-]{1,64}$"),
        ("from" = Option<String>, Query, nullable = false, format = DateTime,
            description = "Where the range begins; when the link was created unless told"),
        ("to" = Option<String>, Query, nullable = false, format = DateTime,
            description = "Where the range ends, that moment not included; now unless told"),
        ("interval" = Option<IntervalWord>, Query, nullable = false,
            description = "How long each point of the series is; a day unless told")),
    responses((status = 200, description = "What was counted until `as_of`",
        content((StatsView = "application/json"), (String = "text/csv"))))
)]
pub(crate) async fn read(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, Problem> {
    let caller = auth::caller(&request, &state)?;
    let code = link::code(&request)?;
    let question = question(request.query_string(), state.clock.now())?;
    let link = state.shortener.read(&caller, &code).await?;
    let report = report::report(&*state.stats, &link, &question, &*state.clock).await?;
    if accept::prefers_csv(request.headers()) {
        return Ok(table(&report).response(&code, "stats"));
    }
    let mut response = json(StatusCode::OK, &StatsView::of(&code, &report))?;
    response.headers_mut().insert(VARY_ACCEPT.0, VARY_ACCEPT.1);
    Ok(response)
}

/// Reads `from`, `to` and `interval`.
///
/// # Errors
/// 422 with all faults.
fn question(query_string: &str, now: Timestamp) -> Result<Question, Problem> {
    let mut read = Parameters::read(query_string, &["from", "to", "interval"])?;
    let (from, to, interval) = (time(&mut read, "from"), time(&mut read, "to"), interval(&mut read));
    let question = match (from, to, interval) {
        (Ok(from), Ok(to), Ok(interval)) => Some(Question { from, to, interval }),
        _ => None,
    };
    for fault in question.iter().flat_map(|question| question.faults(now)) {
        read.fault(fault.field, fault.code, fault.detail);
    }
    read.finish()?;
    question.ok_or_else(|| Problem::invalid_field("query", "malformed", "can't be read"))
}

/// A parameter is wrong, and that is noted already.
struct Noted;

fn time(read: &mut Parameters, name: &'static str) -> Result<Option<Timestamp>, Noted> {
    let Some(text) = read.take(name) else { return Ok(None) };
    Timestamp::parse(&text).map(Some).map_err(|error| {
        // A plus sign that is not encoded arrives as a space.
        let hint = if text.contains(' ') { "; in a query, + is written %2B" } else { "" };
        read.fault(name, "bad_time", format!("is {error}{hint}"));
        Noted
    })
}

fn interval(read: &mut Parameters) -> Result<Interval, Noted> {
    let Some(word) = read.take("interval") else { return Ok(Interval::Day) };
    Interval::parse(&word).ok_or_else(|| {
        read.fault("interval", "bad_value", "must be hour or day");
        Noted
    })
}

fn table(report: &Report) -> Csv {
    let mut table = Csv::new(["at", "clicks", "bots", "visitors"]);
    for point in &report.series {
        let visitors = point.visitors.map(|visitors| visitors.to_string()).unwrap_or_default();
        table.row([&point.at.to_string(), &point.clicks.to_string(), &point.bots.to_string(), &visitors]);
    }
    table
}

impl<'a> StatsView<'a> {
    fn of(code: &'a ShortCode, report: &'a Report) -> Self {
        let shares = |dimension| {
            let shares = report.shares(dimension).into_iter();
            shares.map(|share| ShareView { value: share.value, clicks: share.clicks }).collect()
        };
        Self {
            code: code.as_str(),
            total: report.total(),
            clicks: report.clicks,
            bots: report.bots,
            visitors: report.visitors,
            series: report.series.iter().map(PointView::of).collect(),
            referrers: shares(Dimension::Referrer),
            countries: shares(Dimension::Country),
            browsers: shares(Dimension::Browser),
            systems: shares(Dimension::System),
            devices: shares(Dimension::Device),
            languages: shares(Dimension::Language),
            as_of: report.as_of.map(|at| at.to_string()),
        }
    }
}

impl PointView {
    fn of(point: &Point) -> Self {
        Self { at: point.at.to_string(), clicks: point.clicks, bots: point.bots, visitors: point.visitors }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(query: &str) -> Vec<String> {
        let now = Timestamp::parse("2026-01-02T03:04:05Z").unwrap();
        let errors = question(query, now).err().map(|problem| problem.errors).unwrap_or_default();
        errors.iter().map(|fault| format!("{}: {}", fault.field, fault.code)).collect()
    }

    #[test]
    fn a_question_is_read_from_the_query() {
        let now = Timestamp::from_millis(1_767_323_045_000);
        let plain = Question { from: None, to: None, interval: Interval::Day };
        assert_eq!(question("", now).unwrap(), plain);
        let read = question("interval=hour&from=2026-01-01T00:00:00%2B01:00&to=2026-01-02T00:00:00Z", now).unwrap();
        assert_eq!(read.from, Some(Timestamp::parse("2025-12-31T23:00:00Z").unwrap()));
        assert_eq!(read.to, Some(Timestamp::parse("2026-01-02T00:00:00Z").unwrap()));
        assert_eq!(read.interval, Interval::Hour);
    }

    #[test]
    fn every_fault_of_the_query_is_named() {
        assert_eq!(
            faults("to=soon&from=&interval=week&page=2&to=2026-01-01T00:00:00Z&from=yesterday"),
            [
                "page: unknown_field",
                "to: duplicate_field",
                "from: duplicate_field",
                "from: bad_time",
                "interval: bad_value",
            ]
        );
        let long = "from=2020-01-01T00:00:00Z&to=2020-06-01T00:00:00Z&interval=hour&x=";
        assert_eq!(faults(long), ["x: unknown_field", "from: out_of_bounds"]);
        assert_eq!(faults("from=2026-01-01T00:00:00Z&to=2025-01-01T00:00:00Z"), ["from: out_of_order"]);
        assert_eq!(faults("%ff=1"), ["query: malformed"]);
    }

    #[test]
    fn a_plus_sign_that_was_not_encoded_is_told_of() {
        let now = Timestamp::from_millis(0);
        let problem = question("from=2026-01-01T00:00:00+01:00", now).unwrap_err();
        assert!(problem.errors[0].detail.ends_with("+ is written %2B"), "{problem:?}");
    }
}
