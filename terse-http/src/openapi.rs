//! The OpenAPI 3.1 description, made from the handlers and types themselves.
//! Failures are added here, once per status, so that they read the same everywhere.

use utoipa::OpenApi;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Content, Header, HeaderBuilder, ObjectBuilder, Ref, RefOr, Response, ResponseBuilder, Type};

use crate::api::body::CreateBody;
use crate::api::{batch, block, breakers, clicks, link, links, stats, usage};
use crate::problem::{self, FieldFault, Kind, ProblemBody};
use crate::{Access, State, health, metrics, preview, redirect, site};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "terse",
        description = "A URL shortener. Errors are `application/problem+json`; their `code` is stable. Every answer \
                       of the API has an `X-Request-Id`: the request's own if that had a usable one.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")
    ),
    paths(
        links::create, links::list, link::read, link::edit, link::delete, batch::create, stats::read, clicks::list,
        breakers::list, breakers::read, breakers::force, usage::read, block::list, block::change,
        redirect::follow, preview::look, health::livez, health::readyz, health::health, metrics::text, site::robots
    ),
    components(schemas(ProblemBody, FieldFault, CreateBody, stats::IntervalWord)),
    tags(
        (name = "links", description = "Create, list, read, edit and delete links"),
        (name = "clicks", description = "What is known of the clicks of a link"),
        (name = "breakers", description = "See and force the circuit breakers of this server; for admins"),
        (name = "usage", description = "See which keys create most links; for admins"),
        (name = "block", description = "Hosts that no link may lead to; for admins"),
        (name = "redirect", description = "What short links are for"),
        (name = "operation", description = "Probes and metrics; they need no key")
    )
)]
struct Base;

/// The name of the security scheme.
const BEARER: &str = "api_key";

/// Where redirects and previews are described.
const REDIRECT_PATH: &str = "/{code}";
const PREVIEW_PATH: &str = "/{code}+";

/// How each operation can fail. 414 can happen to all of them.
const FAILURES: [(&str, &[u16]); 16] = [
    ("create_link", &[400, 401, 403, 408, 409, 413, 415, 421, 422, 503]),
    ("create_links", &[400, 401, 403, 408, 413, 415, 421, 422, 503]),
    ("list_links", &[400, 401, 421, 422, 503]),
    ("read_link", &[400, 401, 404, 421, 503]),
    ("edit_link", &[400, 401, 403, 404, 408, 412, 413, 415, 421, 422, 503]),
    ("delete_link", &[400, 401, 403, 404, 412, 421, 503]),
    ("read_stats", &[401, 404, 421, 422, 503]),
    ("list_clicks", &[401, 404, 421, 422, 503]),
    ("list_breakers", &[401, 403, 421, 503]),
    ("read_breaker", &[401, 403, 404, 421, 503]),
    ("force_breaker", &[400, 401, 403, 404, 408, 413, 415, 421, 422, 503]),
    ("read_usage", &[401, 403, 421, 422, 503]),
    ("list_blocked", &[401, 403, 421, 503]),
    ("block", &[400, 401, 403, 408, 413, 415, 421, 422, 503]),
    ("redirect", &[404, 410, 451, 503]),
    ("preview", &[404, 410, 451, 503]),
];

/// The description of what `state` serves.
pub(crate) fn describe(state: &State) -> utoipa::openapi::OpenApi {
    let mut document = Base::openapi();
    document.info.version = state.settings.release.to_owned();
    let components = document.components.get_or_insert_default();
    components.security_schemes.insert(BEARER.to_owned(), scheme().into());
    for status in all_statuses() {
        components.responses.insert(response_name(status), RefOr::T(failure(status)));
    }
    for item in document.paths.paths.values_mut() {
        for operation in operations(item) {
            complete(operation, state);
        }
    }
    describe_redirect(&mut document, state);
    let paths = &mut document.paths.paths;
    describe_head(paths.get_mut(REDIRECT_PATH), "Tells where the link leads, as GET does; not counted as a click.");
    describe_head(paths.get_mut(PREVIEW_PATH), "Tells whether the link leads somewhere, as GET does.");
    document
}

/// A redirect has the status that the operator chose.
fn describe_redirect(document: &mut utoipa::openapi::OpenApi, state: &State) {
    if let Some(item) = document.paths.paths.get_mut(REDIRECT_PATH)
        && let Some(get) = &mut item.get
        && let Some(found) = get.responses.responses.remove("302")
    {
        let status = redirect::status(state.settings.redirect_status).0;
        get.responses.responses.insert(status.as_str().to_owned(), found);
    }
}

/// What is answered in front of the routes is answered to HEAD as to GET.
fn describe_head(item: Option<&mut PathItem>, summary: &str) {
    let Some(item) = item else { return };
    item.head = item.get.clone();
    if let Some(head) = &mut item.head {
        head.operation_id = head.operation_id.take().map(|id| format!("{id}_head"));
        head.summary = Some(summary.to_owned());
    }
}

fn scheme() -> SecurityScheme {
    let mut http = Http::new(HttpAuthScheme::Bearer);
    http.description = Some("A key made with `terse keys create`; not needed while access is open".to_owned());
    SecurityScheme::Http(http)
}

/// Adds the failures of `operation`, and the need of a key.
fn complete(operation: &mut Operation, state: &State) {
    let id = operation.operation_id.clone().unwrap_or_default();
    let Some((_, statuses)) = FAILURES.iter().find(|(name, _)| *name == id) else {
        return;
    };
    let limited = match id.as_str() {
        "redirect" | "preview" => state.limits.limits_redirects(),
        "create_link" => state.limits.create.is_some() || state.limits.quotas.is_some(),
        _ => state.limits.api.is_some(),
    };
    for status in statuses.iter().chain(&[414]).chain(limited.then_some(&429)) {
        let reference = Ref::from_response_name(response_name(*status));
        operation.responses.responses.insert(status.to_string(), RefOr::Ref(reference));
    }
    if matches!(state.access, Access::Keys(_)) && !["redirect", "preview"].contains(&id.as_str()) {
        operation.security = Some(vec![SecurityRequirement::new::<_, [&str; 0], &str>(BEARER, [])]);
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, post, put, patch, delete, .. } = item;
    [get, post, put, patch, delete].into_iter().flatten()
}

fn all_statuses() -> Vec<u16> {
    let mut statuses: Vec<u16> = Kind::ALL.iter().map(|kind| kind.status().as_u16()).filter(|s| *s != 405).collect();
    statuses.dedup();
    statuses
}

fn response_name(status: u16) -> String {
    format!("Problem{status}")
}

/// The failure with `status`: which codes it has, and its headers.
fn failure(status: u16) -> Response {
    let kinds: Vec<_> = Kind::ALL.iter().filter(|kind| kind.status().as_u16() == status).collect();
    let told: Vec<_> = kinds.iter().map(|kind| format!("`{}`: {}", kind.code(), kind.title())).collect();
    let content = Content::new(Some(Ref::from_schema_name("Problem")));
    let mut response = ResponseBuilder::new().description(told.join("; ")).content(problem::CONTENT_TYPE, content);
    if status == 429 || status == 503 {
        response = response.header("Retry-After", header(Type::Integer, "Seconds until trying again makes sense"));
    }
    if status == 401 {
        response = response.header("WWW-Authenticate", header(Type::String, "`Bearer`"));
    }
    response.build()
}

fn header(type_: Type, description: &str) -> Header {
    let schema = ObjectBuilder::new().schema_type(type_).build();
    HeaderBuilder::new().schema(Some(schema)).description(Some(description)).build()
}
