//! `/api/v1/links/{code}/clicks`: the newest clicks of a link, anonymised.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use terse_core::report;
use terse_core::stats::{Dimension, NEWEST_CLICKS, NewestClick};
use utoipa::ToSchema;

use super::csv::{Csv, VARY_ACCEPT};
use super::query::Parameters;
use super::{json, link};
use crate::problem::Problem;
use crate::{State, accept, auth};

const DEFAULT_LIMIT: usize = 50;

/// A click, as far as anybody may know. What is null is not known.
#[derive(Serialize, ToSchema)]
#[schema(as = Click)]
struct ClickView<'a> {
    #[schema(format = DateTime, example = "2026-01-02T03:04:05.678Z")]
    at: String,
    /// The host of the referrer.
    #[schema(required, max_length = 100, example = "example.org")]
    referrer: Option<&'a str>,
    /// ISO 3166-1 alpha-2.
    #[schema(required, max_length = 100, example = "DE")]
    country: Option<&'a str>,
    #[schema(required, max_length = 100, example = "Firefox")]
    browser: Option<&'a str>,
    /// The operating system.
    #[schema(required, max_length = 100, example = "Linux")]
    system: Option<&'a str>,
    /// The kind of device.
    #[schema(required, max_length = 100, example = "desktop")]
    device: Option<&'a str>,
    /// The language asked for first.
    #[schema(required, max_length = 100, example = "de")]
    language: Option<&'a str>,
    /// Whether it was a program: a crawler, a link preview, a prefetch.
    #[schema(example = false)]
    bot: bool,
}

/// The newest clicks of a link.
#[derive(Serialize, ToSchema)]
#[schema(as = Clicks)]
pub(crate) struct ClicksView<'a> {
    /// Newest first.
    #[schema(max_items = 100)]
    items: Vec<ClickView<'a>>,
}

/// Lists the newest clicks of a link, newest first. With `Accept: text/csv` they come as a table.
#[utoipa::path(
    get, path = "/api/v1/links/{code}/clicks", operation_id = "list_clicks", tag = "clicks",
    params(("code" = String, Path, description = "The link's code", pattern = "^[A-Za-z0-9_-]{1,64}$"),
        ("limit" = Option<u16>, Query, nullable = false, description = "How many clicks at most; 50 unless told",
            minimum = 1, maximum = 100)),
    responses((status = 200, description = "The newest clicks that were counted",
        content((ClicksView = "application/json"), (String = "text/csv"))))
)]
pub(crate) async fn list(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, Problem> {
    let caller = auth::caller(&request, &state)?;
    let code = link::code(&request)?;
    let mut read = Parameters::read(request.query_string(), &["limit"])?;
    let limit = read.limit(DEFAULT_LIMIT, NEWEST_CLICKS);
    read.finish()?;
    state.shortener.read(&caller, &code).await?;
    let clicks = report::newest_clicks(&*state.stats, &code, limit).await?;
    let items: Vec<_> = clicks.iter().map(ClickView::of).collect();
    if accept::prefers_csv(request.headers()) {
        return Ok(table(&items).response(&code, "clicks"));
    }
    let mut response = json(StatusCode::OK, &ClicksView { items })?;
    response.headers_mut().insert(VARY_ACCEPT.0, VARY_ACCEPT.1);
    Ok(response)
}

impl<'a> ClickView<'a> {
    fn of(click: &'a NewestClick) -> Self {
        Self {
            at: click.at().to_string(),
            referrer: click.value(Dimension::Referrer),
            country: click.value(Dimension::Country),
            browser: click.value(Dimension::Browser),
            system: click.value(Dimension::System),
            device: click.value(Dimension::Device),
            language: click.value(Dimension::Language),
            bot: click.bot,
        }
    }
}

fn table(clicks: &[ClickView<'_>]) -> Csv {
    let mut table = Csv::new(["at", "referrer", "country", "browser", "system", "device", "language", "bot"]);
    for click in clicks {
        let bot = if click.bot { "true" } else { "false" };
        table.row([
            &click.at,
            click.referrer.unwrap_or_default(),
            click.country.unwrap_or_default(),
            click.browser.unwrap_or_default(),
            click.system.unwrap_or_default(),
            click.device.unwrap_or_default(),
            click.language.unwrap_or_default(),
            bot,
        ]);
    }
    table
}
