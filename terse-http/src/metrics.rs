//! `GET /metrics`, for Prometheus.

use actix_web::{HttpResponse, web};

use crate::State;
use crate::problem::{Kind, Problem};

/// The text format that every scraper reads.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4";

/// All metrics in the Prometheus text format.
#[utoipa::path(get, path = "/metrics", operation_id = "metrics", tag = "operation",
    responses((status = 200, description = "Metrics", body = String, content_type = "text/plain")))]
pub(crate) async fn text(state: web::Data<State>) -> Result<HttpResponse, Problem> {
    let text = state.metrics.encode().map_err(|error| {
        tracing::error!(%error, "metrics can't be encoded");
        Problem::new(Kind::Internal, "metrics can't be encoded")
    })?;
    Ok(HttpResponse::Ok().insert_header(("Content-Type", CONTENT_TYPE)).body(text))
}
