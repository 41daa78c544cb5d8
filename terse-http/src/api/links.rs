//! `/api/v1/links`: create a link, list one's own.

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use terse_core::Link;
use terse_core::cursor::Cursor;
use terse_core::shorten::Idempotency;

use super::query::Parameters;
use super::view::{LinkPage, LinkView};
use super::{body, json, json_body, preconditions};
use crate::json::Json;
use crate::problem::{Kind, Problem};
use crate::{State, auth};

/// The header that makes a create repeatable.
pub(crate) const IDEMPOTENCY_KEY: &str = "Idempotency-Key";

const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: usize = 200;

/// Creates a link.
///
/// With an `Idempotency-Key`, a retry with the same body (byte for byte: its SHA-256 is compared) gets the same
/// link for 24 hours; the same key with another body is refused.
#[utoipa::path(
    post, path = "/api/v1/links", operation_id = "create_link", tag = "links",
    params(("Idempotency-Key" = Option<String>, Header, nullable = false,
        description = "1 to 255 printable ASCII characters",
        min_length = 1, max_length = 255, pattern = "^[!-~]([ -~]{0,253}[!-~])?$")),
    request_body(content = body::CreateBody),
    responses((status = 201, description = "The link was created, durably", body = LinkView,
        headers(("Location" = String, description = "Path of the link in this API"),
            ("ETag" = String, description = "The link's version, in quotes"))))
)]
pub(crate) async fn create(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, Problem> {
    let caller = auth::writer(&request, &state)?;
    let bytes = json_body(&request, &state, state.settings.bounds.body_bytes).await?;
    let key = idempotency(&request, &bytes)?;
    let draft = body::draft(Json::parse(&bytes)?, "body", &state.policy)?;
    let link = state.shortener.create(&caller, &draft, key.as_ref()).await?;
    created(&link, &state)
}

/// Lists one's own links, newest first.
#[utoipa::path(
    get, path = "/api/v1/links", operation_id = "list_links", tag = "links",
    params(("limit" = Option<u16>, Query, nullable = false, description = "How many links at most; 50 unless told",
            minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, nullable = false, description = "`next_cursor` of the page before",
            pattern = "^(0|[1-9a-f][0-9a-f]{0,10})\\.[A-Za-z0-9_-]{1,64}$")),
    responses((status = 200, description = "A page of links", body = LinkPage))
)]
pub(crate) async fn list(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, Problem> {
    let caller = auth::caller(&request, &state)?;
    let page = Page::of(request.query_string())?;
    // One more than asked for tells whether there is a next page.
    let mut links = state.shortener.list(&caller, page.after.as_ref(), page.limit + 1).await?;
    let more = links.len() > page.limit;
    links.truncate(page.limit);
    let last = links.last().filter(|_| more);
    let next_cursor = last.map(|link| Cursor { created_at: link.created_at, code: link.code.clone() }.to_string());
    let items = links.iter().map(|link| LinkView::of(link, &state.settings.public_url)).collect();
    json(StatusCode::OK, &LinkPage { items, next_cursor })
}

fn created(link: &Link, state: &State) -> Result<HttpResponse, Problem> {
    let mut response = json(StatusCode::CREATED, &LinkView::of(link, &state.settings.public_url))?;
    let headers = response.headers_mut();
    if let Ok(location) = HeaderValue::try_from(format!("/api/v1/links/{}", link.code)) {
        headers.insert(header::LOCATION, location);
    }
    headers.insert(header::ETAG, preconditions::etag(link.version));
    Ok(response)
}

/// The idempotency key of `request`, if it has one, bound to the raw bytes of its body.
fn idempotency(request: &HttpRequest, body: &Bytes) -> Result<Option<Idempotency>, Problem> {
    let mut values = request.headers().get_all(IDEMPOTENCY_KEY);
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let fault = |code, detail| Err(Problem::invalid_field(IDEMPOTENCY_KEY, code, detail));
    if values.next().is_some() {
        return fault("duplicate_field", "is given more than once");
    }
    let bytes = value.as_bytes();
    if !(1..=255).contains(&bytes.len()) {
        return fault("out_of_bounds", "must have 1 to 255 characters");
    }
    match value.to_str() {
        Ok(key) if bytes.iter().all(|b| matches!(b, b' '..=b'~')) => {
            Ok(Some(Idempotency { key: key.to_owned(), body_hash: Sha256::digest(body).into() }))
        }
        _ => fault("bad_character", "may only hold printable ASCII"),
    }
}

/// Which part of the list is asked for.
#[derive(Debug, PartialEq, Eq)]
struct Page {
    limit: usize,
    after: Option<Cursor>,
}

impl Page {
    /// Reads `limit` and `cursor`.
    ///
    /// # Errors
    /// 422 with all faults of the parameters; 400 when the cursor alone is wrong.
    fn of(query_string: &str) -> Result<Self, Problem> {
        let mut read = Parameters::read(query_string, &["limit", "cursor"])?;
        let (limit, cursor) = (read.limit(DEFAULT_LIMIT, MAX_LIMIT), read.take("cursor"));
        read.finish()?;
        let after = cursor.map(|text| Cursor::parse(&text)).transpose();
        let after = after.map_err(|error| Problem::new(Kind::BadCursor, format!("cursor {error}")))?;
        Ok(Self { limit, after })
    }
}
