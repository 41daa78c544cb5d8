//! What browsers and crawlers ask for on their own.

use actix_web::HttpResponse;
use actix_web::http::header;

use crate::html::ICON;

/// Links are nobody's content to index; the page itself may be.
const ROBOTS: &str = "User-agent: *\nAllow: /$\nDisallow: /\n";

/// Tells crawlers where not to go.
#[utoipa::path(get, path = "/robots.txt", operation_id = "robots", tag = "operation",
    responses((status = 200, description = "The rules", body = String, content_type = "text/plain")))]
pub(crate) async fn robots() -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain; charset=utf-8").body(ROBOTS)
}

/// `GET /favicon.ico`: an SVG, whatever its name says.
pub(crate) async fn favicon() -> HttpResponse {
    let mut response = HttpResponse::Ok();
    response.insert_header((header::CACHE_CONTROL, "public, max-age=86400"));
    response.content_type("image/svg+xml").body(ICON)
}
