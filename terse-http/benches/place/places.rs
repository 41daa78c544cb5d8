//! The same redirect in each place it could have.
//!
//! All but terse's own share one transport: a thread with a runtime of its
//! own that accepts and serves with `actix-http`, under the settings of terse's
//! worker. So they differ in nothing but what a request passes on its way.

use std::future::{Ready, ready};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;

use actix_http::body::{BoxBody, MessageBody};
use actix_http::{HttpService, KeepAlive, Method, Protocol, Request, Response, StatusCode};
use actix_service::{IntoServiceFactory, Service, ServiceFactory, fn_factory, fn_service, map_config};
use actix_web::dev::{AppConfig, ServiceResponse};
use actix_web::http::header::{self, HeaderValue};
use actix_web::{App, HttpRequest, HttpResponse, guard, web};
use futures_util::future::{Either, LocalBoxFuture};
use terse_core::Clock;
use terse_core::metrics::{Outcome, RedirectCounts};
use terse_core::ports::LinkReader;
use terse_http::State;
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::spawn_local;

/// Where the redirect is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A service without an `App`: nothing but redirects.
    Alone,
    /// A service around the `App`'s own, which asks memory first.
    Around,
    /// A handler of the `App`, on its only route.
    Handler,
    /// A handler of the `App`, after the other one-segment paths that terse has.
    Behind,
    /// terse without its lane: around the `App`, with its bounds and its counts of requests and connections.
    Terse,
    /// terse as it is built: beneath the HTTP server, with the same bounds and counts.
    Lane,
}

pub(crate) const PLACES: [Place; 6] =
    [Place::Alone, Place::Around, Place::Handler, Place::Behind, Place::Terse, Place::Lane];

/// One-segment paths that have to be tried before `/{code}`, since it would match them too.
const ONE_SEGMENT: [&str; 7] = ["/", "/livez", "/readyz", "/health", "/metrics", "/robots.txt", "/favicon.ico"];

impl Place {
    /// Its name in the report.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Alone => "service, no App",
            Self::Around => "service around App",
            Self::Handler => "handler, one route",
            Self::Behind => "handler behind terse's routes",
            Self::Terse => "terse's front",
            Self::Lane => "terse's lane",
        }
    }

    /// Starts a server on a thread, which stays on the core of the caller; it runs as long as the process.
    ///
    /// # Errors
    /// When nothing can be listened on.
    pub(crate) fn serve(self, listener: TcpListener, state: State) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        if matches!(self, Self::Terse | Self::Lane) {
            let serve = if self == Self::Lane { terse_http::serve } else { terse_http::serve_without_lane };
            std::thread::Builder::new().spawn(move || {
                let runtime = Builder::new_current_thread().build().expect("a runtime");
                runtime.block_on(serve(vec![listener], state).expect("a server")).expect("terse serves");
            })?;
            return Ok(());
        }
        std::thread::Builder::new().spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
            runtime.expect("a runtime").block_on(self.answer(listener, &state)).expect("connections are accepted");
        })?;
        Ok(())
    }

    async fn answer(self, listener: TcpListener, state: &State) -> io::Result<()> {
        let answers = Rc::new(Answers::new(state));
        match self {
            Self::Alone => {
                let factory = fn_service(move |request: Request| {
                    ready(Ok::<_, actix_web::Error>(answers.answer(request.method(), request.path())))
                });
                accept(listener, state, factory).await
            }
            Self::Around => {
                let app = map_config(routes(&ONE_SEGMENT).into_factory(), |()| AppConfig::default());
                let app = Rc::new(app);
                let factory = fn_factory(move || {
                    let (app, answers) = (Rc::clone(&app), Rc::clone(&answers));
                    async move { Ok::<_, ()>(Around { routes: app.new_service(()).await?, answers }) }
                });
                accept(listener, state, factory).await
            }
            Self::Handler | Self::Behind => {
                let before: &[&str] = if self == Self::Behind { &ONE_SEGMENT } else { &[] };
                let app = routes(before).route("/{code}", follow(answers));
                accept(listener, state, map_config(app.into_factory(), |()| AppConfig::default())).await
            }
            Self::Terse | Self::Lane => unreachable!("terse accepts by itself"),
        }
    }
}

/// What the front of terse does of a redirect that memory answers.
struct Answers {
    resolver: Arc<dyn LinkReader>,
    clock: Arc<dyn Clock>,
    counts: RedirectCounts,
}

impl Answers {
    fn new(state: &State) -> Self {
        let (resolver, clock) = (Arc::clone(&state.resolver), Arc::clone(&state.clock));
        Self { resolver, clock, counts: state.metrics.redirect_counts() }
    }

    /// The target of the link at `path`, counted.
    fn location(&self, path: &str) -> Option<HeaderValue> {
        let started_ns = self.clock.monotonic_ns();
        let lookup = self.resolver.peek_at(path.strip_prefix('/')?, started_ns / 1_000_000)?;
        let location = HeaderValue::from_maybe_shared(lookup.link?.target.into_bytes()).ok()?;
        let took_ns = self.clock.monotonic_ns().saturating_sub(started_ns);
        self.counts.count(lookup.tier, Outcome::Found, std::time::Duration::from_nanos(took_ns));
        Some(location)
    }

    fn answer(&self, method: &Method, path: &str) -> Response<BoxBody> {
        let location = matches!(*method, Method::GET | Method::HEAD).then(|| self.location(path)).flatten();
        let Some(location) = location else {
            return Response::with_body(StatusCode::NOT_FOUND, BoxBody::new(()));
        };
        let mut response = Response::with_body(StatusCode::FOUND, BoxBody::new(()));
        response.headers_mut().insert(header::LOCATION, location);
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

/// The route of redirects. Its handler takes nothing but the request: `web::Path` would allocate.
fn follow(answers: Rc<Answers>) -> actix_web::Route {
    web::route().guard(guard::Any(guard::Get()).or(guard::Head())).to(move |request: HttpRequest| {
        let Some(location) = answers.location(request.path()) else {
            return ready(HttpResponse::NotFound().finish());
        };
        let mut response = HttpResponse::Found();
        response.insert_header((header::LOCATION, location));
        response.insert_header((header::CACHE_CONTROL, HeaderValue::from_static("no-store")));
        ready(response.finish())
    })
}

/// An `App` that has something else at each of `paths`.
fn routes(
    paths: &[&str],
) -> App<
    impl ServiceFactory<
        actix_web::dev::ServiceRequest,
        Config = (),
        Response = ServiceResponse,
        Error = actix_web::Error,
        InitError = (),
    > + 'static,
> {
    paths.iter().fold(App::new(), |app, path| app.route(path, web::get().to(HttpResponse::NoContent)))
}

/// A service that answers redirects, and leaves the rest to `routes`.
struct Around<S> {
    routes: S,
    answers: Rc<Answers>,
}

impl<S> Service<Request> for Around<S>
where
    S: Service<Request, Response = ServiceResponse<BoxBody>, Error = actix_web::Error>,
    S::Future: 'static,
{
    type Response = Response<BoxBody>;
    type Error = actix_web::Error;
    type Future = Either<
        Ready<Result<Response<BoxBody>, actix_web::Error>>,
        LocalBoxFuture<'static, Result<Response<BoxBody>, actix_web::Error>>,
    >;

    actix_service::forward_ready!(routes);

    fn call(&self, request: Request) -> Self::Future {
        let segment = request.path().strip_prefix('/').unwrap_or_default();
        if segment.is_empty() || segment.contains('/') || terse_core::code::is_reserved(segment) {
            let routed = self.routes.call(request);
            return Either::Right(Box::pin(async move { Ok(routed.await?.into()) }));
        }
        Either::Left(ready(Ok(self.answers.answer(request.method(), request.path()))))
    }
}

/// Serves what `factory` makes on each connection of `listener`.
async fn accept<F, B>(
    listener: TcpListener,
    state: &State,
    factory: impl IntoServiceFactory<F, Request>,
) -> io::Result<()>
where
    F: ServiceFactory<Request, Config = (), Error = actix_web::Error, InitError = ()> + 'static,
    F::Response: Into<Response<B>> + 'static,
    F::Service: 'static,
    F::Future: 'static,
    <F::Service as Service<Request>>::Future: 'static,
    B: MessageBody + 'static,
{
    let address: SocketAddr = listener.local_addr()?;
    let service = HttpService::build()
        .keep_alive(KeepAlive::Os)
        .client_request_timeout(state.settings.bounds.head_timeout)
        .local_addr(address)
        .finish(factory);
    let handler = service.new_service(()).await.map_err(|()| io::Error::other("the services can't be made"))?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (stream, peer) = listener.accept().await?;
        stream.set_nodelay(true)?;
        spawn_local(handler.call((stream, Protocol::Http1, Some(peer))));
    }
}
