//! The handlers of `/api/v1`, a file per resource, and what they share.

pub(crate) mod batch;
pub(crate) mod block;
pub(crate) mod body;
pub(crate) mod breakers;
pub(crate) mod clicks;
mod csv;
pub(crate) mod link;
pub(crate) mod links;
pub(crate) mod places;
pub(crate) mod preconditions;
pub(crate) mod query;
pub(crate) mod stats;
pub(crate) mod usage;
pub(crate) mod view;

use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, http::StatusCode};
use bytes::Bytes;
use serde::Serialize;

use crate::State;
use crate::problem::{Kind, Problem};

/// The JSON body of `request`, at most `limit` bytes, as it was sent.
///
/// # Errors
/// 415 unless its content type is JSON, else as [`crate::body::read`].
async fn json_body(request: &HttpRequest, state: &State, limit: usize) -> Result<Bytes, Problem> {
    require_json(request)?;
    crate::body::read(request, state, limit).await
}

/// `application/json` or anything with the suffix `+json`; a charset must be UTF-8; no content coding.
fn require_json(request: &HttpRequest) -> Result<(), Problem> {
    let refused = |detail: &'static str| Err(Problem::new(Kind::UnsupportedMediaType, detail));
    if request.headers().get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return refused("the body must not be compressed");
    }
    let Some(value) = request.headers().get(header::CONTENT_TYPE) else {
        return refused("a content type is needed: application/json");
    };
    let Some(Ok(mime)) = value.to_str().ok().map(str::parse::<mime::Mime>) else {
        return refused("the content type can't be read");
    };
    let json = mime.type_() == mime::APPLICATION && (mime.subtype() == mime::JSON || mime.suffix() == Some(mime::JSON));
    let utf8 = mime.get_param(mime::CHARSET).is_none_or(|charset| charset == mime::UTF_8);
    if json && utf8 { Ok(()) } else { refused("the body must be application/json in UTF-8") }
}

/// `body` in JSON.
fn json(status: StatusCode, body: &impl Serialize) -> Result<HttpResponse, Problem> {
    let text = serde_json::to_vec(body).map_err(|error| {
        tracing::error!(%error, "an answer can't be written as JSON");
        Problem::new(Kind::Internal, "the answer can't be written as JSON")
    })?;
    let mut response = HttpResponse::build(status);
    response.insert_header((header::CONTENT_TYPE, HeaderValue::from_static("application/json")));
    Ok(response.body(text))
}
