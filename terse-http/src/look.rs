//! Redirects that memory can't answer, or that are limited.

use std::rc::Rc;

use actix_http::body::BoxBody;
use actix_http::{HttpMessage, Request, Response};
use terse_core::ShortCode;
use terse_resilience::limit::Draw;

use crate::State;
use crate::limits::{Limit, Who};
use crate::redirect::Redirects;

/// Looks links up for one web worker.
pub(crate) struct Looks {
    state: State,
    redirects: Rc<Redirects>,
}

impl Looks {
    pub(crate) fn new(state: State, redirects: Rc<Redirects>) -> Self {
        Self { state, redirects }
    }

    /// Answers for the only segment of the path, if who asks has not used up what redirects are limited to.
    pub(crate) async fn limited(&self, request: &Request, started_ns: u64) -> Response<BoxBody> {
        if let Some(limit) = &self.state.limits.redirect {
            let drawn = limit.draw(&self.who(request), 1).await;
            if drawn.granted == 0 {
                return self.refuse(request, limit, &drawn);
            }
        }
        let code = request.path().strip_prefix('/').unwrap_or_default();
        if let Some(found) = self.state.resolver.peek(code) {
            return self.redirects.answer(request, started_ns, found);
        }
        match ShortCode::parse(code) {
            Ok(code) => self.look(request, &code, started_ns).await,
            Err(_) => self.redirects.never_a_code(request, started_ns),
        }
    }

    /// Answers for `code`, which memory can't.
    pub(crate) async fn look(&self, request: &Request, code: &ShortCode, started_ns: u64) -> Response<BoxBody> {
        let Some(limit) = &self.state.limits.not_found else {
            return self.resolve(request, code, started_ns).await.0;
        };
        let who = self.who(request);
        if let Some(seen) = limit.used_up(&who) {
            return match self.state.resolver.resolve_near(code).await {
                Some(found) => self.redirects.answer(request, started_ns, found),
                None => self.refuse(request, limit, &seen),
            };
        }
        let (mut answer, exists) = self.resolve(request, code, started_ns).await;
        if exists == Some(false) {
            let drawn = limit.draw(&who, 1).await;
            limit.write(&drawn, answer.headers_mut());
        }
        answer
    }

    /// The answer for `code`, and whether there is such a link, if that could be found out.
    async fn resolve(&self, request: &Request, code: &ShortCode, started_ns: u64) -> (Response<BoxBody>, Option<bool>) {
        match self.state.resolver.resolve(code).await {
            Ok(found) => {
                let exists = found.link.is_some();
                (self.redirects.answer(request, started_ns, found), Some(exists))
            }
            Err(error) => (self.redirects.unavailable(request, started_ns, &error), None),
        }
    }

    fn who(&self, request: &Request) -> Who {
        let proxies = &self.state.settings.trusted_proxies;
        Who { key: None, address: proxies.client(request.peer_addr(), request.headers()) }
    }

    fn refuse(&self, request: &Request, limit: &Limit, drawn: &Draw) -> Response<BoxBody> {
        let mut answer = self.redirects.refuse(request, &limit.refusal(drawn));
        limit.write(drawn, answer.headers_mut());
        answer
    }
}
