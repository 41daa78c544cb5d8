//! Redirects that memory can't answer, or that are limited, and previews.

use std::rc::Rc;

use actix_http::body::BoxBody;
use actix_http::{HttpMessage, Request, Response};
use terse_core::ShortCode;
use terse_core::ports::{Lookup, StoreError};
use terse_resilience::limit::Draw;

use crate::limits::{Limit, Who};
use crate::redirect::{self, Redirects};
use crate::{State, preview};

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
        let answer = async {
            let code = request.path().strip_prefix('/').unwrap_or_default();
            if let Some(found) = self.state.resolver.peek(code) {
                return self.redirects.answer(request, started_ns, found);
            }
            match ShortCode::parse(code) {
                Ok(code) => self.look(request, &code, started_ns).await,
                Err(_) => self.redirects.never_a_code(request, started_ns),
            }
        };
        self.drawing(request, answer).await
    }

    /// Answers for `code`, which memory can't.
    pub(crate) async fn look(&self, request: &Request, code: &ShortCode, started_ns: u64) -> Response<BoxBody> {
        self.find(request, code, &|found| match found {
            Ok(found) => self.redirects.answer(request, started_ns, found),
            Err(error) => self.redirects.unavailable(request, started_ns, &error),
        })
        .await
    }

    /// Answers with where the link of `code` leads. Previews are limited as redirects are.
    pub(crate) async fn preview(&self, request: &Request, code: &ShortCode) -> Response<BoxBody> {
        let answer = |found: Result<Lookup, StoreError>| match found {
            Ok(found) => preview::answer(request, &self.state, &self.redirects, code, found),
            Err(error) => self.redirects.refuse(request, &redirect::out_of_reach(&error)),
        };
        let preview = async {
            match self.state.resolver.peek(code.as_str()) {
                Some(found) => answer(Ok(found)),
                None => self.find(request, code, &answer).await,
            }
        };
        self.drawing(request, preview).await
    }

    /// The `answer`, telling what is left of what redirects are limited to; or the refusal, if that is used up.
    async fn drawing(&self, request: &Request, answer: impl Future<Output = Response<BoxBody>>) -> Response<BoxBody> {
        let Some(limit) = &self.state.limits.redirect else { return answer.await };
        let drawn = limit.draw(&self.who(request), 1).await;
        if drawn.granted == 0 {
            return self.refuse(request, limit, &drawn);
        }
        let mut answer = answer.await;
        limit.write(&drawn, answer.headers_mut());
        answer
    }

    /// The `answer` to what is found of `code`, or the refusal to look for it.
    async fn find(
        &self,
        request: &Request,
        code: &ShortCode,
        answer: &impl Fn(Result<Lookup, StoreError>) -> Response<BoxBody>,
    ) -> Response<BoxBody> {
        let Some(limit) = &self.state.limits.not_found else {
            return answer(self.state.resolver.resolve(code).await);
        };
        let who = self.who(request);
        if let Some(seen) = limit.used_up(&who) {
            return match self.state.resolver.resolve_near(code).await {
                Some(found) => answer(Ok(found)),
                None => self.refuse(request, limit, &seen),
            };
        }
        let found = self.state.resolver.resolve(code).await;
        let missing = found.as_ref().is_ok_and(|found| found.link.is_none());
        let mut answer = answer(found);
        if missing {
            let drawn = limit.draw(&who, 1).await;
            limit.write(&drawn, answer.headers_mut());
        }
        answer
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
