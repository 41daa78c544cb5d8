//! `/api/v1/admin/usage`: which keys have created most links this month.
//!
//! Links are counted as this server knows them: those of all servers where a
//! quota is shared, else its own. Refusals are its own.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::json;
use super::query::Parameters;
use crate::limits::{KeyUse, Month};
use crate::problem::Problem;
use crate::{State, auth};

const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: usize = 200;

/// What a key has created this month.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = KeyUsage)]
struct KeyUsageView {
    /// The key's public part, as `terse keys list` shows it.
    key: String,
    /// Links that it was let create, whether they could be made or not.
    links: u64,
    /// How many it may create in a month; null = as many as it likes.
    #[schema(required)]
    quota: Option<u64>,
    /// Links that its quota refused, on this server.
    refused: u64,
}

/// The keys that have created most links this month.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Usage)]
pub(crate) struct UsageView {
    /// The month, UTC.
    #[schema(example = "2026-11")]
    month: String,
    /// When the next one begins, and quotas with it.
    #[schema(format = DateTime, example = "2026-12-01T00:00:00.000Z")]
    until: String,
    /// The heaviest first.
    items: Vec<KeyUsageView>,
}

impl From<KeyUse> for KeyUsageView {
    fn from(KeyUse { key, seen, limit }: KeyUse) -> Self {
        Self { key, links: seen.units, quota: limit, refused: seen.refused }
    }
}

/// Tells which keys have created most links this month. While limits are off or access is open nothing is counted.
#[utoipa::path(
    get, path = "/api/v1/admin/usage", operation_id = "read_usage", tag = "usage",
    params(("limit" = Option<u16>, Query, nullable = false, description = "How many keys at most; 50 unless told",
        minimum = 1, maximum = 200)),
    responses((status = 200, description = "The heaviest keys", body = UsageView))
)]
pub(crate) async fn read(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, Problem> {
    auth::admin(&request, &state)?;
    let mut parameters = Parameters::read(request.query_string(), &["limit"])?;
    let limit = parameters.limit(DEFAULT_LIMIT, MAX_LIMIT);
    parameters.finish()?;
    let now = state.clock.now();
    let heaviest = state.limits.quotas.iter().flat_map(|quotas| quotas.heaviest(now, limit));
    let month = Month::of(now);
    let items = heaviest.map(KeyUsageView::from).collect();
    json(StatusCode::OK, &UsageView { month: month.to_string(), until: month.ends().to_string(), items })
}
