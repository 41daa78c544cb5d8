//! Problem bodies (RFC 9457): one vocabulary of failures for every route.
//!
//! A handler returns a [`Problem`] as its error; the layer around all handlers
//! renders it, since only there the request id is known. `type` is
//! `urn:terse:problem:<code>`: stable, and no promise of a page behind it.

use std::borrow::Cow;
use std::fmt;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpResponse, ResponseError};
use serde::Serialize;
use terse_core::ports::{StoreError, StoreErrorKind};
use terse_core::shorten::{Fault, ServiceError};
use utoipa::ToSchema;

use crate::headers;
use crate::reference::is_fault;

/// The content type of every problem.
pub(crate) const CONTENT_TYPE: &str = "application/problem+json";

/// Most faults told in one answer; what is beyond is left out.
pub(crate) const MAX_FAULTS: usize = 100;

/// Every way a request can fail: its status, its stable word, its title.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    MalformedJson,
    BadCursor,
    MalformedHeader,
    Unauthorized,
    Forbidden,
    CrossSite,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    AliasTaken,
    Gone,
    VersionConflict,
    BodyTooLarge,
    UriTooLong,
    UnsupportedMediaType,
    Misdirected,
    Invalid,
    KeyReused,
    RateLimited,
    Blocked,
    Internal,
    StoreUnavailable,
    Overloaded,
    KeysUnavailable,
}

impl Kind {
    /// Every kind, in the order of their numbers, for the description of the API and the reference of errors.
    pub(crate) const ALL: [Self; Self::KeysUnavailable as usize + 1] = [
        Self::MalformedJson,
        Self::BadCursor,
        Self::MalformedHeader,
        Self::Unauthorized,
        Self::Forbidden,
        Self::CrossSite,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::AliasTaken,
        Self::Gone,
        Self::VersionConflict,
        Self::BodyTooLarge,
        Self::UriTooLong,
        Self::UnsupportedMediaType,
        Self::Misdirected,
        Self::Invalid,
        Self::KeyReused,
        Self::RateLimited,
        Self::Blocked,
        Self::Internal,
        Self::StoreUnavailable,
        Self::Overloaded,
        Self::KeysUnavailable,
    ];

    const fn parts(self) -> (u16, &'static str, &'static str) {
        match self {
            Self::MalformedJson => (400, "malformed_json", "The body is not JSON"),
            Self::BadCursor => (400, "bad_cursor", "The cursor is not one of this list"),
            Self::MalformedHeader => (400, "malformed_header", "A header can't be read"),
            Self::Unauthorized => (401, "unauthorized", "A valid API key is needed"),
            Self::Forbidden => (403, "forbidden", "The key's role does not allow this"),
            Self::CrossSite => (403, "cross_site", "The form only takes requests from its own page"),
            Self::NotFound => (404, "not_found", "There is nothing here"),
            Self::MethodNotAllowed => (405, "method_not_allowed", "The method is not allowed here"),
            Self::RequestTimeout => (408, "request_timeout", "The request took too long to arrive"),
            Self::AliasTaken => (409, "alias_taken", "The alias is taken"),
            Self::Gone => (410, "gone", "The link no longer works"),
            Self::VersionConflict => (412, "version_conflict", "The link has another version"),
            Self::BodyTooLarge => (413, "body_too_large", "The body is too large"),
            Self::UriTooLong => (414, "uri_too_long", "The address is too long"),
            Self::UnsupportedMediaType => (415, "unsupported_media_type", "The content type is not supported"),
            Self::Misdirected => (421, "misdirected_request", "The host is not served here"),
            Self::Invalid => (422, "validation_failed", "The request is invalid"),
            Self::KeyReused => (422, "idempotency_key_reused", "The idempotency key belongs to another request"),
            Self::RateLimited => (429, "rate_limited", "Too many requests"),
            Self::Blocked => (451, "blocked", "The link is blocked"),
            Self::Internal => (500, "internal", "Something is wrong with the server"),
            Self::StoreUnavailable => (503, "store_unavailable", "The store is out of reach"),
            Self::Overloaded => (503, "overloaded", "There is too much to do"),
            Self::KeysUnavailable => (503, "keys_unavailable", "API keys can't be checked now"),
        }
    }

    /// The status that it is answered with.
    pub(crate) fn status(self) -> StatusCode {
        StatusCode::from_u16(self.parts().0).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// What a store's failure of `kind` is.
    pub(crate) const fn of(kind: StoreErrorKind) -> Self {
        match kind {
            StoreErrorKind::Overloaded => Self::Overloaded,
            StoreErrorKind::Unavailable | StoreErrorKind::UnknownOutcome | StoreErrorKind::Corrupt => {
                Self::StoreUnavailable
            }
        }
    }

    /// The stable word for programs.
    pub(crate) const fn code(self) -> &'static str {
        self.parts().1
    }

    /// The sentence for people.
    pub(crate) const fn title(self) -> &'static str {
        self.parts().2
    }
}

/// One thing wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Fault)]
pub(crate) struct FieldFault {
    /// The field, header or parameter; `body` = the body as a whole.
    #[schema(example = "url")]
    pub(crate) field: Cow<'static, str>,
    /// A stable word for programs.
    #[schema(value_type = String, example = "required")]
    pub(crate) code: &'static str,
    /// What is wrong, for people.
    #[schema(example = "is required")]
    pub(crate) detail: String,
}

impl FieldFault {
    pub(crate) fn new(field: impl Into<Cow<'static, str>>, code: &'static str, detail: impl Into<String>) -> Self {
        debug_assert!(is_fault(code), "the reference has no fault '{code}'");
        Self { field: field.into(), code, detail: detail.into() }
    }
}

impl From<Fault> for FieldFault {
    fn from(fault: Fault) -> Self {
        Self::new(fault.field, fault.code, fault.detail)
    }
}

/// A failed request, before it is rendered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) kind: Kind,
    pub(crate) detail: Cow<'static, str>,
    pub(crate) errors: Vec<FieldFault>,
    retry_after_s: Option<u64>,
    allow: Option<&'static str>,
}

/// A problem as it goes out.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemBody<'a> {
    /// `urn:terse:problem:` and the code.
    #[serde(rename = "type")]
    #[schema(example = "urn:terse:problem:validation_failed")]
    type_: String,
    /// What kind of failure it is, for people; the same for each `code`.
    #[schema(example = "The request is invalid")]
    title: &'a str,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599, example = 422)]
    status: u16,
    /// What happened this time.
    #[schema(example = "1 fault was found")]
    detail: &'a str,
    /// A stable word for programs.
    #[schema(example = "validation_failed")]
    code: &'a str,
    /// The request's id, as in the log; null when a redirect had none.
    #[schema(required)]
    request_id: Option<&'a str>,
    /// Everything that is wrong with the request (at most 100 faults are told).
    #[serde(skip_serializing_if = "<[FieldFault]>::is_empty")]
    errors: &'a [FieldFault],
}

impl Problem {
    /// A problem of `kind`, told by `detail`.
    pub(crate) fn new(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, detail: detail.into(), errors: Vec::new(), retry_after_s: None, allow: None }
    }

    /// 422 with all `faults`.
    pub(crate) fn invalid(mut faults: Vec<FieldFault>) -> Self {
        let detail = match faults.len() {
            1 => Cow::Borrowed("1 fault was found"),
            n => Cow::Owned(format!("{n} faults were found")),
        };
        faults.truncate(MAX_FAULTS);
        Self { errors: faults, ..Self::new(Kind::Invalid, detail) }
    }

    /// 422 with one fault.
    pub(crate) fn invalid_field(
        field: impl Into<Cow<'static, str>>,
        code: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        Self::invalid(vec![FieldFault::new(field, code, detail)])
    }

    /// 404 for a path that leads nowhere.
    pub(crate) fn no_such_path() -> Self {
        Self::new(Kind::NotFound, "no resource has this path")
    }

    /// 405; `allow` names the methods that are.
    pub(crate) fn method_not_allowed(allow: &'static str) -> Self {
        Self { allow: Some(allow), ..Self::new(Kind::MethodNotAllowed, format!("allowed here: {allow}")) }
    }

    /// 503, or 429; worth trying again after `ms` milliseconds.
    pub(crate) fn unavailable(kind: Kind, detail: impl Into<Cow<'static, str>>, ms: u64) -> Self {
        Self { retry_after_s: Some(ms.div_ceil(1_000).max(1)), ..Self::new(kind, detail) }
    }

    /// A store's failure. What it says goes to the log alone.
    pub(crate) fn store(error: &StoreError) -> Self {
        let detail = match error.kind {
            StoreErrorKind::Unavailable => "the store could not be reached; nothing was changed",
            StoreErrorKind::Overloaded => "there is too much to do right now; nothing was changed",
            StoreErrorKind::UnknownOutcome => "the change may or may not have been made; read it back or repeat it",
            StoreErrorKind::Corrupt => "what is stored can't be understood",
        };
        Self::unavailable(Kind::of(error.kind), detail, error.retry_after_ms)
    }

    /// The body, with the id of the request that failed.
    pub(crate) fn body<'a>(&'a self, request_id: Option<&'a str>) -> ProblemBody<'a> {
        ProblemBody {
            type_: format!("urn:terse:problem:{}", self.kind.code()),
            title: self.kind.title(),
            status: self.kind.status().as_u16(),
            detail: &self.detail,
            code: self.kind.code(),
            request_id,
            errors: &self.errors,
        }
    }

    /// The answer in JSON.
    pub(crate) fn response(&self, request_id: Option<&str>) -> HttpResponse {
        let body = serde_json::to_vec(&self.body(request_id)).unwrap_or_default();
        self.response_with(CONTENT_TYPE, body)
    }

    /// The answer with the same status and headers, but another body.
    pub(crate) fn response_with(&self, content_type: &'static str, body: Vec<u8>) -> HttpResponse {
        let mut response = HttpResponse::build(self.kind.status());
        response.insert_header((header::CONTENT_TYPE, HeaderValue::from_static(content_type)));
        if let Some(seconds) = self.retry_after_s {
            response.insert_header((header::RETRY_AFTER, HeaderValue::from(seconds)));
        }
        if let Some(methods) = self.allow {
            response.insert_header((header::ALLOW, HeaderValue::from_static(methods)));
        }
        if self.kind == Kind::Unauthorized {
            response.insert_header((header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")));
        }
        let mut response = response.body(body);
        headers::protect(response.headers_mut(), false);
        response
    }
}

impl From<ServiceError> for Problem {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::Invalid(faults) => Self::invalid(faults.into_iter().map(FieldFault::from).collect()),
            ServiceError::AliasTaken => Self::new(Kind::AliasTaken, "the alias belongs to another link"),
            ServiceError::KeyReused => {
                Self::new(Kind::KeyReused, "the idempotency key was used with another body in the last 24 hours")
            }
            ServiceError::NotFound => Self::new(Kind::NotFound, "there is no such link"),
            ServiceError::VersionConflict { current } => {
                Self::new(Kind::VersionConflict, format!("the link has version {}", current.0))
            }
            ServiceError::Forbidden => Self::new(Kind::Forbidden, "the key's role does not allow this"),
            ServiceError::Store(error) => Self::from(error),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        if error.kind == StoreErrorKind::Overloaded {
            // Lines for all of them would be an overload of their own; metrics and `/health` tell.
            tracing::debug!(error = %error, "a request was shed");
        } else {
            let cause = error.source.as_ref().map(ToString::to_string);
            tracing::warn!(%error, cause, "a store request failed");
        }
        Self::store(&error)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.code(), self.detail)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.kind.status()
    }

    /// A stand-in: the layer around all handlers takes the problem out of it and renders that.
    fn error_response(&self) -> HttpResponse {
        HttpResponse::new(self.kind.status())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_word_of_its_own_and_an_error_status() {
        let mut codes: Vec<_> = Kind::ALL.iter().map(|kind| kind.code()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Kind::ALL.len());
        for kind in Kind::ALL {
            assert!(kind.status().is_client_error() || kind.status().is_server_error(), "{kind:?}");
            assert!(kind.code().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{kind:?}");
        }
    }

    #[test]
    fn the_headers_of_a_problem_belong_to_its_kind() {
        let header = |problem: &Problem, name| {
            problem.response(None).headers().get(name).map(|value| value.to_str().unwrap().to_owned())
        };
        let later = Problem::unavailable(Kind::StoreUnavailable, "x", 1_001);
        assert_eq!(header(&later, header::RETRY_AFTER), Some("2".into()), "seconds are rounded up");
        assert_eq!(
            header(&Problem::unavailable(Kind::StoreUnavailable, "x", 0), header::RETRY_AFTER),
            Some("1".into())
        );
        assert_eq!(header(&Problem::method_not_allowed("GET"), header::ALLOW), Some("GET".into()));
        assert_eq!(header(&Problem::new(Kind::Unauthorized, "x"), header::WWW_AUTHENTICATE), Some("Bearer".into()));
        let plain = Problem::no_such_path();
        for name in [header::RETRY_AFTER, header::ALLOW, header::WWW_AUTHENTICATE] {
            assert_eq!(header(&plain, name), None);
        }
    }

    #[test]
    fn a_store_tells_its_kind_but_not_its_words() {
        for kind in [
            StoreErrorKind::Unavailable,
            StoreErrorKind::Overloaded,
            StoreErrorKind::UnknownOutcome,
            StoreErrorKind::Corrupt,
        ] {
            let problem = Problem::from(StoreError::new(kind, "secret words"));
            let overloaded = kind == StoreErrorKind::Overloaded;
            assert_eq!(problem.kind, if overloaded { Kind::Overloaded } else { Kind::StoreUnavailable });
            assert!(!problem.detail.contains("secret"), "{problem}");
        }
    }

    #[test]
    fn the_body_is_that_of_rfc_9457_and_tells_the_faults() {
        let problem = Problem::invalid_field("url", "required", "is required");
        let body: serde_json::Value = serde_json::to_value(problem.body(Some("r1"))).unwrap();
        let expected = serde_json::json!({"type": "urn:terse:problem:validation_failed",
            "title": "The request is invalid", "status": 422,
            "detail": "1 fault was found", "code": "validation_failed", "request_id": "r1",
            "errors": [{"field": "url", "code": "required", "detail": "is required"}]});
        assert_eq!(body, expected);
        let bare = serde_json::to_value(Problem::no_such_path().body(None)).unwrap();
        assert_eq!((bare.get("errors"), &bare["request_id"]), (None, &serde_json::Value::Null));
    }
}
