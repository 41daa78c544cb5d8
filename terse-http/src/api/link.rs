//! `/api/v1/links/{code}`: read, edit, delete one link.

use actix_web::http::StatusCode;
use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use terse_core::{Link, ShortCode};

use super::view::LinkView;
use super::{body, json, json_body, preconditions};
use crate::json::Json;
use crate::problem::{Kind, Problem};
use crate::{State, auth};

/// Reads a link.
#[utoipa::path(
    get, path = "/api/v1/links/{code}", operation_id = "read_link", tag = "links",
    params(("code" = String, Path, description = "The link's code", pattern = "^[A-Za-z0-9_-]{1,64}$"),
        ("If-None-Match" = Option<String>, Header, nullable = false, description = "Versions that are known already",
            pattern = "^(\\*|(W/)?\"[!#-~]*\"(, ?(W/)?\"[!#-~]*\")*)$")),
    responses((status = 200, description = "The link", body = LinkView,
            headers(("ETag" = String, description = "The link's version, in quotes"))),
        (status = 304, description = "The link still has the version named in `If-None-Match`",
            headers(("ETag" = String, description = "The link's version, in quotes"))))
)]
pub(crate) async fn read(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, Problem> {
    let caller = auth::caller(&request, &state)?;
    let link = state.shortener.read(&caller, &code(&request)?).await?;
    if preconditions::none_match(&request, link.version)? {
        let mut response = HttpResponse::new(StatusCode::NOT_MODIFIED);
        response.headers_mut().insert(header::ETAG, preconditions::etag(link.version));
        return Ok(response);
    }
    tagged(&link, &state)
}

/// Edits a link: what is absent stays, null clears. An edit that changes nothing makes no new version.
#[utoipa::path(
    patch, path = "/api/v1/links/{code}", operation_id = "edit_link", tag = "links",
    params(("code" = String, Path, description = "The link's code", pattern = "^[A-Za-z0-9_-]{1,64}$"),
        ("If-Match" = Option<String>, Header, nullable = false,
            description = "`*` or quoted versions, of which the link must have one",
            pattern = "^(\\*|\"[!#-~]*\"(, ?\"[!#-~]*\")*)$")),
    request_body(content = body::EditBody),
    responses((status = 200, description = "The link as it is now", body = LinkView,
        headers(("ETag" = String, description = "The link's version, in quotes"))))
)]
pub(crate) async fn edit(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, Problem> {
    let caller = auth::writer(&request, &state)?;
    let code = code(&request)?;
    let expected = preconditions::if_match(&request)?;
    let bytes = json_body(&request, &state, state.settings.bounds.body_bytes).await?;
    let patch = body::patch(Json::parse(&bytes)?, &state.policy)?;
    let link = state.shortener.edit(&caller, &code, expected.as_deref(), &patch).await?;
    tagged(&link, &state)
}

/// Deletes a link for ever; its code is never given to another one.
#[utoipa::path(
    delete, path = "/api/v1/links/{code}", operation_id = "delete_link", tag = "links",
    params(("code" = String, Path, description = "The link's code", pattern = "^[A-Za-z0-9_-]{1,64}$"),
        ("If-Match" = Option<String>, Header, nullable = false,
            description = "`*` or quoted versions, of which the link must have one",
            pattern = "^(\\*|\"[!#-~]*\"(, ?\"[!#-~]*\")*)$")),
    responses((status = 204, description = "The link is deleted: its redirect answers 410 from now on"))
)]
pub(crate) async fn delete(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, Problem> {
    let caller = auth::writer(&request, &state)?;
    let code = code(&request)?;
    let expected = preconditions::if_match(&request)?;
    state.shortener.delete(&caller, &code, expected.as_deref()).await?;
    Ok(HttpResponse::new(StatusCode::NO_CONTENT))
}

/// The alias that a path of its own stands in front of.
const BATCH: &str = "batch";

/// The code in the path. What can't be one is answered like a missing link.
pub(crate) fn code(request: &HttpRequest) -> Result<ShortCode, Problem> {
    let text = request.match_info().get("code").unwrap_or(BATCH);
    ShortCode::parse(text).map_err(|_| Problem::new(Kind::NotFound, "there is no such link"))
}

fn tagged(link: &Link, state: &State) -> Result<HttpResponse, Problem> {
    let mut response = json(StatusCode::OK, &LinkView::of(link, &state.settings.public_url))?;
    response.headers_mut().insert(header::ETAG, preconditions::etag(link.version));
    Ok(response)
}
