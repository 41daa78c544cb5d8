//! The description of the API, and Swagger UI to read it with, all from this binary.

use std::sync::Arc;

use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use utoipa_swagger_ui::Config;

use crate::problem::{Kind, Problem};

/// Swagger UI draws its icons from data URLs and styles some elements inline.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The description, rendered once per server.
#[derive(Clone)]
pub(crate) struct Description(pub(crate) Bytes);

/// `GET /api/openapi.json`.
pub(crate) async fn description(description: web::Data<Description>) -> HttpResponse {
    HttpResponse::Ok().content_type("application/json").body(description.0.clone())
}

/// `GET /api/docs`: the trailing slash is what makes relative paths work.
pub(crate) async fn with_slash() -> HttpResponse {
    HttpResponse::PermanentRedirect().insert_header((header::LOCATION, "/api/docs/")).finish()
}

/// `GET /api/docs/{file}`.
pub(crate) async fn file(request: HttpRequest) -> Result<HttpResponse, Problem> {
    let config = Arc::new(Config::new(["/api/openapi.json"]));
    let found = utoipa_swagger_ui::serve(request.match_info().query("file"), config).map_err(|error| {
        tracing::error!(%error, "a file of Swagger UI can't be made");
        Problem::new(Kind::Internal, "the file can't be made")
    })?;
    let file = found.ok_or_else(Problem::no_such_path)?;
    let body = match file.bytes {
        std::borrow::Cow::Borrowed(bytes) => Bytes::from_static(bytes),
        std::borrow::Cow::Owned(bytes) => Bytes::from(bytes),
    };
    let mut response = HttpResponse::Ok();
    response.insert_header((header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)));
    // The files change with the release only; asking each time is cheap on purpose.
    response.insert_header((header::CACHE_CONTROL, HeaderValue::from_static("private, max-age=300")));
    Ok(response.content_type(file.content_type).body(body))
}
