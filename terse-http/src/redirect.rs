//! Redirects: from what a look-up said to the answer that leaves.
//!
//! 302, 307 and every error are never cached. 301 and 308 may be cached by
//! the browser alone, for a time that the operator chose.

use std::rc::Rc;
use std::sync::Arc;

use actix_http::body::BoxBody;
use actix_http::{HttpMessage, Request, Response, StatusCode};
use actix_web::http::header::{self, HeaderMap, HeaderValue};
use terse_core::link::Verdict;
use terse_core::metrics::{Outcome, RedirectCounts};
use terse_core::ports::{Lookup, StoreError, Tier};
use terse_core::target::TargetUrl;
use terse_core::{Clock, Entropy, Resolution, Timestamp};

use crate::accept::thousandths;
use crate::clicks::{Asked, Clicks};
use crate::headers::{self, Headers};
use crate::html::{self, Escaped, Nonce};
use crate::problem::{self, Kind, Problem};
use crate::{RedirectStatus, State, front, request_id};

/// The methods that `/{code}` knows.
pub(crate) const METHODS: &str = "GET, HEAD";

/// Makes the answers of `/{code}` and counts them, for one web worker.
pub(crate) struct Redirects {
    status: StatusCode,
    cache_control: HeaderValue,
    counts: RedirectCounts,
    clicks: Option<Rc<Clicks>>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

/// The status code of `chosen`, and whether browsers may keep the answer.
pub(crate) fn status(chosen: RedirectStatus) -> (StatusCode, bool) {
    match chosen {
        RedirectStatus::MovedPermanently => (StatusCode::MOVED_PERMANENTLY, true),
        RedirectStatus::Found => (StatusCode::FOUND, false),
        RedirectStatus::TemporaryRedirect => (StatusCode::TEMPORARY_REDIRECT, false),
        RedirectStatus::PermanentRedirect => (StatusCode::PERMANENT_REDIRECT, true),
    }
}

impl Redirects {
    pub(crate) fn new(state: &State) -> Self {
        let (status, cacheable) = status(state.settings.redirect_status);
        let max_age = format!("private, max-age={}", state.settings.redirect_max_age_s);
        let cache_control = match HeaderValue::try_from(max_age) {
            Ok(value) if cacheable => value,
            _ => HeaderValue::from_static("no-store"),
        };
        let clicks = state.recording.as_deref().map(|recording| Clicks::of_this_worker(recording, state));
        Self {
            status,
            cache_control,
            counts: state.metrics.redirect_counts(),
            clicks,
            clock: Arc::clone(&state.clock),
            entropy: Arc::clone(&state.entropy),
        }
    }

    /// Answers with what `lookup` found, judged at this moment.
    pub(crate) fn answer(&self, request: &Request, started_ns: u64, lookup: Lookup) -> Response<BoxBody> {
        let (verdict, now) = lookup.link.as_ref().map_or((Verdict::Missing, None), |link| self.verdict(link));
        match (verdict, lookup.link) {
            (Verdict::Found, Some(link)) => match self.found(request, link.target) {
                Some(response) => {
                    if let (Some(clicks), Some(now)) = (&self.clicks, now) {
                        clicks.note(&Asked::from(request), link.version, now);
                    }
                    self.count(lookup.tier, Outcome::Found, started_ns);
                    response
                }
                None => self.unsendable(request, started_ns),
            },
            (verdict, _) => {
                let outcome = match verdict {
                    Verdict::Gone => Outcome::Gone,
                    Verdict::Blocked => Outcome::Blocked,
                    Verdict::Missing | Verdict::Found => Outcome::Missing,
                };
                self.count(lookup.tier, outcome, started_ns);
                self.refuse(request, &leads_nowhere(verdict))
            }
        }
    }

    /// Where `link` leads at this moment.
    ///
    /// # Errors
    /// What says why it leads nowhere.
    pub(crate) fn target_of(&self, link: Option<Resolution>) -> Result<TargetUrl, Problem> {
        let Some(link) = link else { return Err(leads_nowhere(Verdict::Missing)) };
        match self.verdict(&link).0 {
            Verdict::Found => Ok(link.target),
            verdict => Err(leads_nowhere(verdict)),
        }
    }

    /// Where who `asked` is sent to by what `lookup` found, noted and counted. `None` = nowhere; then nothing has
    /// been counted, and [`answer`](Self::answer) says why.
    pub(crate) fn location<H: Headers + ?Sized>(
        &self,
        asked: &Asked<'_, H>,
        started_ns: u64,
        lookup: Lookup,
    ) -> Option<HeaderValue> {
        let link = lookup.link?;
        let (Verdict::Found, now) = self.verdict(&link) else { return None };
        let location = HeaderValue::from_maybe_shared(link.target.into_bytes()).ok()?;
        if let (Some(clicks), Some(now)) = (&self.clicks, now) {
            clicks.note(asked, link.version, now);
        }
        self.count(lookup.tier, Outcome::Found, started_ns);
        Some(location)
    }

    /// The status of redirects and what is said of keeping them.
    pub(crate) fn said(&self) -> (StatusCode, &HeaderValue) {
        (self.status, &self.cache_control)
    }

    /// What `link` answers at this moment, and the moment. Most links have no times: where no click is noted either,
    /// no clock is read.
    fn verdict(&self, link: &Resolution) -> (Verdict, Option<Timestamp>) {
        let now = (self.clicks.is_some() || link.has_times()).then(|| self.clock.now());
        (link.verdict(now.unwrap_or(Timestamp::from_millis(0))), now)
    }

    /// Answers 404 for what can't be a code; no tier was asked.
    pub(crate) fn never_a_code(&self, request: &Request, started_ns: u64) -> Response<BoxBody> {
        self.count(Tier::None, Outcome::Missing, started_ns);
        self.refuse(request, &no_such_link())
    }

    /// Answers 503 because no layer could say anything.
    pub(crate) fn unavailable(&self, request: &Request, started_ns: u64, error: &StoreError) -> Response<BoxBody> {
        tracing::debug!(kind = ?error.kind, error = %error, "a redirect could not be resolved");
        self.count(Tier::None, Outcome::Unavailable, started_ns);
        self.refuse(request, &out_of_reach(error))
    }

    /// A target that is no header value can only come from a damaged store.
    fn unsendable(&self, request: &Request, started_ns: u64) -> Response<BoxBody> {
        tracing::error!("a stored target does not fit into a header");
        self.count(Tier::None, Outcome::Unavailable, started_ns);
        self.refuse(request, &Problem::unavailable(Kind::StoreUnavailable, "the link's target is damaged", 1_000))
    }

    fn found(&self, request: &Request, target: TargetUrl) -> Option<Response<BoxBody>> {
        let location = HeaderValue::from_maybe_shared(target.into_bytes()).ok()?;
        let mut response = Response::with_body(self.status, BoxBody::new(()));
        let told = response.headers_mut();
        told.insert(header::LOCATION, location);
        told.insert(header::CACHE_CONTROL, self.cache_control.clone());
        told.insert(headers::ROBOTS, headers::NOINDEX);
        if let Some(id) = request_id::sent(request.headers()) {
            told.insert(request_id::HEADER, id.clone());
        }
        Some(response)
    }

    /// A failed redirect: a page for people, JSON for programs.
    pub(crate) fn refuse(&self, request: &Request, problem: &Problem) -> Response<BoxBody> {
        if !prefers_html(request.headers()) {
            return front::refuse(request, problem);
        }
        let nonce = Nonce::new(&*self.entropy);
        let (title, detail) = (Escaped(problem.kind.title()), Escaped(&problem.detail));
        let main = format!(
            "<main><h1>terse<span>.</span></h1><h2>{title}</h2><p class=\"soft\">{detail} ({status})</p></main>",
            status = problem.kind.status().as_u16(),
        );
        let text = html::page(&nonce, problem.kind.title(), &main, "");
        let mut response = problem.response_with(html::CONTENT_TYPE, text.into_bytes());
        html::confine(&mut response, &nonce);
        front::echo_id(request, response)
    }

    fn count(&self, tier: Tier, outcome: Outcome, started_ns: u64) {
        let took = self.clock.monotonic_ns().saturating_sub(started_ns);
        self.counts.count(tier, outcome, std::time::Duration::from_nanos(took));
        tracing::debug!(target: "terse::redirect", tier = tier.as_str(), outcome = outcome.as_str(), took_ns = took);
    }
}

/// Sends the browser to the link's target. The query string is ignored. The status is the operator's choice.
#[utoipa::path(get, path = "/{code}", operation_id = "redirect", tag = "redirect",
    params(("code" = String, Path, description = "The link's code", pattern = "^[A-Za-z0-9_-]{1,64}$")),
    responses((status = 302, description = "The link's target; 301, 302, 307 or 308, as the operator chose",
        headers(("Location" = String, description = "The link's target"),
            ("Cache-Control" = String, description = "`no-store`; with 301 and 308 `private, max-age=N`")))))]
#[allow(dead_code, reason = "it describes what is answered in front of all handlers")]
pub(crate) fn follow() {}

fn no_such_link() -> Problem {
    Problem::new(Kind::NotFound, "no link has this code")
}

/// Why a link of this verdict leads nowhere.
fn leads_nowhere(verdict: Verdict) -> Problem {
    match verdict {
        Verdict::Gone => Problem::new(Kind::Gone, "the link has expired, or was disabled or deleted"),
        Verdict::Blocked => Problem::new(Kind::Blocked, "an administrator has blocked the link, or where it leads"),
        Verdict::Missing | Verdict::Found => no_such_link(),
    }
}

/// 503, because no layer could say anything.
pub(crate) fn out_of_reach(error: &StoreError) -> Problem {
    Problem::unavailable(Kind::of(error.kind), "the link can't be looked up right now", error.retry_after_ms)
}

/// Whether the client is a browser: it asks for HTML, and not rather for JSON.
pub(crate) fn prefers_html(headers: &HeaderMap) -> bool {
    let (mut html, mut json) = (0, 0);
    for value in headers.get_all(header::ACCEPT) {
        for range in value.to_str().unwrap_or_default().split(',') {
            let mut parts = range.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            let weight = parts.find_map(|part| part.strip_prefix("q=")).map_or(1_000, thousandths);
            if name.eq_ignore_ascii_case("text/html") {
                html = html.max(weight);
            } else if name.eq_ignore_ascii_case("application/json") || name.eq_ignore_ascii_case(problem::CONTENT_TYPE)
            {
                json = json.max(weight);
            }
        }
    }
    html > 0 && html >= json
}

#[cfg(test)]
mod tests {
    use super::*;

    fn browser(accept: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for value in accept {
            headers.append(header::ACCEPT, HeaderValue::from_str(value).unwrap());
        }
        prefers_html(&headers)
    }

    #[test]
    fn a_browser_is_told_by_what_it_accepts() {
        for accept in ["text/html", "TEXT/HTML;q=0.1", "text/html, application/json", "*/*, text/html;level=1;q=0.4"] {
            assert!(browser(&[accept]), "{accept}");
        }
        assert!(browser(&["application/json;q=0.5", "text/html"]));
        for accept in [
            "",
            "*/*",
            "application/json",
            "text/html;q=0",
            "text/html;q=0.8, application/problem+json",
            "text/html;q=x",
        ] {
            assert!(!browser(&[accept]), "{accept}");
        }
        assert!(!browser(&[]));
    }
}
