//! All routes of terse but the redirect, which is answered in front of them.

use actix_web::middleware::from_fn;
use actix_web::web::{self, ServiceConfig};
use actix_web::{Handler, HttpResponse, Resource, Route, guard};

use crate::api::{batch, block, breakers, clicks, link, links, stats, usage};
use crate::problem::Problem;
use crate::{State, book, docs, health, host, limits, metrics, page, site};

/// Registers every route that this process serves.
pub(crate) fn register(config: &mut ServiceConfig, state: &State) {
    operation(config);
    if state.settings.surfaces.api {
        api(config);
        docs_and_page(config);
        if state.settings.docs_dir.is_some() {
            the_book(config);
        }
    }
    config.default_service(web::to(nothing_here));
}

fn operation(config: &mut ServiceConfig) {
    config
        .service(at("/livez", "GET, HEAD").route(get(health::livez)))
        .service(at("/readyz", "GET, HEAD").route(get(health::readyz)))
        .service(at("/health", "GET, HEAD").route(get(health::health)))
        .service(at("/metrics", "GET, HEAD").route(get(metrics::text)))
        .service(at("/robots.txt", "GET, HEAD").route(get(site::robots)))
        .service(at("/favicon.ico", "GET, HEAD").route(get(site::favicon)));
}

fn api(config: &mut ServiceConfig) {
    let links = at("/api/v1/links", "GET, HEAD, POST").route(get(links::list)).route(web::post().to(links::create));
    // An alias may be `batch`; its link is reached by the other methods.
    let batch = web::resource("/api/v1/links/batch")
        .route(web::post().to(batch::create))
        .default_service(web::to(batch::alias));
    let link = at("/api/v1/links/{code}", "GET, HEAD, PATCH, DELETE")
        .route(get(link::read))
        .route(web::patch().to(link::edit))
        .route(web::delete().to(link::delete));
    let stats = at("/api/v1/links/{code}/stats", "GET, HEAD").route(get(stats::read));
    let clicks = at("/api/v1/links/{code}/clicks", "GET, HEAD").route(get(clicks::list));
    let breakers = at("/api/v1/admin/breakers", "GET, HEAD").route(get(breakers::list));
    // The name of a breaker has a slash, encoded or not.
    let breaker = at("/api/v1/admin/breakers/{name:.*}", "GET, HEAD, PUT")
        .route(get(breakers::read))
        .route(web::put().to(breakers::force));
    let usage = at("/api/v1/admin/usage", "GET, HEAD").route(get(usage::read));
    let block =
        at("/api/v1/admin/block", "GET, HEAD, POST").route(get(block::list)).route(web::post().to(block::change));
    config.service(links.wrap(from_fn(limits::creating)).wrap(from_fn(host::guarded)));
    for resource in [batch, link, stats, clicks, breakers, breaker, usage, block] {
        config.service(resource.wrap(from_fn(limits::asking)).wrap(from_fn(host::guarded)));
    }
}

fn docs_and_page(config: &mut ServiceConfig) {
    let description = at("/api/openapi.json", "GET, HEAD").route(get(docs::description));
    let with_slash = at("/api/docs", "GET, HEAD").route(get(docs::with_slash));
    let files = at("/api/docs/{file:.*}", "GET, HEAD").route(get(docs::file));
    let page = at("/", "GET, HEAD, POST").route(get(page::show)).route(web::post().to(page::shorten));
    for resource in [description, with_slash, files, page] {
        config.service(resource.wrap(from_fn(host::guarded)));
    }
}

fn the_book(config: &mut ServiceConfig) {
    let with_slash = at("/docs", "GET, HEAD").route(get(book::with_slash));
    let files = at("/docs/{file:.*}", "GET, HEAD").route(get(book::file));
    for resource in [with_slash, files] {
        config.service(resource.wrap(from_fn(host::guarded)));
    }
}

/// The resource at `path`; other methods than those in `allow` are answered 405.
fn at(path: &'static str, allow: &'static str) -> Resource {
    web::resource(path).default_service(web::to(move || async move { refused(allow) }))
}

/// A route for GET, and so for HEAD, whose body actix leaves out.
fn get<F, Args>(handler: F) -> Route
where
    F: Handler<Args>,
    Args: actix_web::FromRequest + 'static,
    F::Output: actix_web::Responder + 'static,
{
    web::route().guard(guard::Any(guard::Get()).or(guard::Head())).to(handler)
}

fn refused(allow: &'static str) -> Result<HttpResponse, Problem> {
    Err(Problem::method_not_allowed(allow))
}

async fn nothing_here() -> Result<HttpResponse, Problem> {
    Err(Problem::no_such_path())
}
