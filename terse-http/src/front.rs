//! The service in front of all routes. It counts requests in flight, bounds
//! the URI, and answers redirects before any routing happens.
//!
//! A redirect that [`LinkReader::peek`](terse_core::ports::LinkReader::peek)
//! can answer is a ready future: nothing is boxed and no task is woken for it.
//!
//! A request body that nobody read is held until the answer is out. The
//! connection is then closed after it, where otherwise actix would go on to
//! read a chunked body to its end, however long that is.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use actix_http::body::{BodySize, BoxBody, MessageBody};
use actix_http::{ConnectionType, HttpMessage, Payload, Request, Response};
use actix_service::{Service, ServiceFactory};
use actix_web::HttpResponse;
use actix_web::dev::{AppConfig, ServiceResponse};
use actix_web::http::Method;
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use terse_core::ShortCode;
use terse_core::code::is_reserved;

use crate::body::Incoming;
use crate::lifecycle::Requests;
use crate::look::Looks;
use crate::open::{Active, Activity};
use crate::problem::{Kind, Problem};
use crate::redirect::{METHODS, Redirects};
use crate::{InFlight, Phase, State, preview, request_id};

const NS_PER_MS: u64 = 1_000_000;

/// Makes a [`Front`] around the routes that `routes` makes, one per worker.
pub(crate) struct FrontFactory<F> {
    routes: F,
    state: State,
    redirects: Rc<Redirects>,
}

/// The service itself.
pub(crate) struct Front<S> {
    routes: S,
    state: State,
    redirects: Rc<Redirects>,
    looks: Rc<Looks>,
    requests: Rc<Requests>,
}

/// A request in flight, and underway on its connection.
type Underway = (InFlight, Option<Active>);

/// What a request is, by its line alone.
enum Step {
    /// Answered already.
    Answered(Response<BoxBody>),
    /// A redirect that memory can't answer.
    Look(ShortCode),
    /// A redirect that may be refused.
    Limited,
    /// Where a link leads is to be told.
    Preview(ShortCode),
    /// Anything else.
    Route,
}

impl<F> FrontFactory<F> {
    pub(crate) fn new(routes: F, state: State, redirects: Rc<Redirects>) -> Self {
        Self { routes, state, redirects }
    }
}

impl<F> ServiceFactory<Request> for FrontFactory<F>
where
    F: ServiceFactory<Request, Config = AppConfig, Response = ServiceResponse<BoxBody>, Error = actix_web::Error>,
    F::Future: 'static,
    F::Service: 'static,
    <F::Service as Service<Request>>::Future: 'static,
{
    type Response = Response<Counted>;
    type Error = actix_web::Error;
    type Config = AppConfig;
    type Service = Front<F::Service>;
    type InitError = F::InitError;
    type Future = LocalBoxFuture<'static, Result<Self::Service, Self::InitError>>;

    fn new_service(&self, config: AppConfig) -> Self::Future {
        let routes = self.routes.new_service(config);
        let (state, redirects) = (self.state.clone(), Rc::clone(&self.redirects));
        Box::pin(async move {
            let requests = state.lifecycle.requests();
            let looks = Rc::new(Looks::new(state.clone(), Rc::clone(&redirects)));
            Ok(Front { routes: routes.await?, state, redirects, looks, requests })
        })
    }
}

impl<S> Service<Request> for Front<S>
where
    S: Service<Request, Response = ServiceResponse<BoxBody>, Error = actix_web::Error>,
    S::Future: 'static,
{
    type Response = Response<Counted>;
    type Error = actix_web::Error;
    type Future = Answer;

    actix_service::forward_ready!(routes);

    fn call(&self, mut request: Request) -> Answer {
        let in_flight = (self.requests.begin(), request.conn_data().map(Activity::begin));
        let started_ns = self.state.clock.monotonic_ns();
        match self.step(&request, started_ns) {
            Step::Answered(answer) => Answer::Now(Some(leave(answer, in_flight, request.take_payload()))),
            Step::Look(code) => {
                let looks = Rc::clone(&self.looks);
                Answer::Later(Box::pin(async move {
                    let answer = looks.look(&request, &code, started_ns).await;
                    Ok(leave(answer, in_flight, request.take_payload()))
                }))
            }
            Step::Limited => {
                let looks = Rc::clone(&self.looks);
                Answer::Later(Box::pin(async move {
                    let answer = looks.limited(&request, started_ns).await;
                    Ok(leave(answer, in_flight, request.take_payload()))
                }))
            }
            Step::Preview(code) => {
                let looks = Rc::clone(&self.looks);
                Answer::Later(Box::pin(async move {
                    let answer = looks.preview(&request, &code).await;
                    Ok(leave(answer, in_flight, request.take_payload()))
                }))
            }
            Step::Route => {
                let incoming = Incoming(request.take_payload());
                request.extensions_mut().insert(incoming);
                let routed = self.routes.call(request);
                Answer::Later(Box::pin(async move {
                    let routed = routed.await.inspect_err(|_| leave_unread(&in_flight))?;
                    let unread = routed.request().extensions_mut().remove::<Incoming>();
                    Ok(leave(routed.into(), in_flight, unread.map_or(Payload::None, |incoming| incoming.0)))
                }))
            }
        }
    }
}

impl<S> Front<S> {
    fn step(&self, request: &Request, started_ns: u64) -> Step {
        let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
        if target > self.state.settings.bounds.uri_bytes {
            let detail = format!("path and query have {target} bytes");
            return Step::Answered(refuse(request, &Problem::new(Kind::UriTooLong, detail)));
        }
        let Some(code) = self.only_segment(request) else {
            return Step::Route;
        };
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Step::Answered(refuse(request, &Problem::method_not_allowed(METHODS)));
        }
        if let Some(code) = preview::code(code) {
            return Step::Preview(code);
        }
        if self.state.limits.redirect.is_some() {
            return Step::Limited;
        }
        if ShortCode::is_valid(code)
            && let Some(lookup) = self.state.resolver.peek_at(code, started_ns / NS_PER_MS)
        {
            return Step::Answered(self.redirects.answer(request, started_ns, lookup));
        }
        match ShortCode::parse(code) {
            Ok(code) => Step::Look(code),
            Err(_) => Step::Answered(self.redirects.never_a_code(request, started_ns)),
        }
    }

    /// The path's only segment, if redirects are served here and it is neither empty nor a reserved word.
    fn only_segment<'r>(&self, request: &'r Request) -> Option<&'r str> {
        let segment = request.path().strip_prefix('/')?;
        let one = !segment.is_empty() && !segment.contains('/');
        (self.state.settings.surfaces.redirect && one && !is_reserved(segment)).then_some(segment)
    }
}

/// A problem told before routing.
pub(crate) fn refuse(request: &Request, problem: &Problem) -> Response<BoxBody> {
    let id = request_id::sent(request.headers()).and_then(|id| id.to_str().ok());
    echo_id(request, problem.response(id))
}

/// `response` with the request's own id, if it had one.
pub(crate) fn echo_id(request: &Request, response: HttpResponse) -> Response<BoxBody> {
    let mut response: Response<BoxBody> = response.into();
    if let Some(id) = request_id::sent(request.headers()) {
        response.headers_mut().insert(request_id::HEADER, id.clone());
    }
    response
}

/// Sends `response` on its way: in flight until its body is produced, and the
/// connection's last one while the server drains.
fn leave(mut response: Response<BoxBody>, in_flight: Underway, unread: Payload) -> Response<Counted> {
    if in_flight.0.phase() == Phase::Draining {
        response.head_mut().set_connection_type(ConnectionType::Close);
    }
    if !matches!(unread, Payload::None) {
        leave_unread(&in_flight);
    }
    response.map_body(|_, body| Counted { body, _in_flight: in_flight, _unread: unread })
}

/// Notes that the body of a request may not be read to its end.
fn leave_unread(in_flight: &Underway) {
    if let Some(active) = &in_flight.1 {
        active.unread();
    }
}

/// What the service answers with: at once, or after waiting for something.
pub(crate) enum Answer {
    Now(Option<Response<Counted>>),
    Later(LocalBoxFuture<'static, Result<Response<Counted>, actix_web::Error>>),
}

impl Future for Answer {
    type Output = Result<Response<Counted>, actix_web::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Now(answer) => answer.take().map_or(Poll::Pending, |answer| Poll::Ready(Ok(answer))),
            Self::Later(future) => future.as_mut().poll(cx),
        }
    }
}

/// A response body that keeps its request in flight until it is gone.
pub(crate) struct Counted {
    body: BoxBody,
    _in_flight: Underway,
    _unread: Payload,
}

impl MessageBody for Counted {
    type Error = Box<dyn std::error::Error>;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_next(cx)
    }
}
