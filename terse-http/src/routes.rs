//! All routes of terse but the redirect, which is answered in front of them.

use actix_web::web::{self, ServiceConfig};
use actix_web::{Handler, HttpResponse, Resource, Route, guard};

use crate::api::{batch, link, links};
use crate::problem::Problem;
use crate::{State, health, metrics};

/// Registers every route that this process serves.
pub(crate) fn register(config: &mut ServiceConfig, state: &State) {
    config
        .service(at("/livez", "GET, HEAD").route(get(health::livez)))
        .service(at("/readyz", "GET, HEAD").route(get(health::readyz)))
        .service(at("/health", "GET, HEAD").route(get(health::health)))
        .service(at("/metrics", "GET, HEAD").route(get(metrics::text)));
    if state.settings.surfaces.api {
        config
            .service(
                at("/api/v1/links", "GET, HEAD, POST").route(get(links::list)).route(web::post().to(links::create)),
            )
            .service(at("/api/v1/links/batch", "POST").route(web::post().to(batch::create)))
            .service(
                at("/api/v1/links/{code}", "GET, HEAD, PATCH, DELETE")
                    .route(get(link::read))
                    .route(web::patch().to(link::edit))
                    .route(web::delete().to(link::delete)),
            );
    }
    config.default_service(web::to(nothing_here));
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
