//! The headers of a request, whoever has parsed it, and those that protect answers.
//!
//! Which answer has which is told in the README. Redirects have `X-Robots-Tag` alone: without a body there is nothing to
//! confine, and a `Referrer-Policy` would only keep from the target which page the reader came from, which that page
//! decides; the short link itself is never told.

use actix_http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Tells crawlers what not to list.
pub(crate) const ROBOTS: HeaderName = HeaderName::from_static("x-robots-tag");
/// Not this answer.
pub(crate) const NOINDEX: HeaderValue = HeaderValue::from_static("noindex");

/// What an answer that is no page may load and be framed by: nothing, and nobody.
const NOTHING: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");

/// Headers that can be gone through.
pub(crate) trait Headers {
    /// Each header's name, in any case, and its value. Those of one name come in the order in which they were sent.
    fn each(&self) -> impl Iterator<Item = (&str, &[u8])>;
}

impl Headers for HeaderMap {
    fn each(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.iter().map(|(name, value)| (name.as_str(), value.as_bytes()))
    }
}

impl Headers for [httparse::Header<'_>] {
    fn each(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.iter().map(|header| (header.name, header.value))
    }
}

/// Protects an answer with a body; a policy that it has already stays. `listed` = crawlers may list it.
pub(crate) fn protect(headers: &mut HeaderMap, listed: bool) {
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if !headers.contains_key(header::CONTENT_SECURITY_POLICY) {
        headers.insert(header::CONTENT_SECURITY_POLICY, NOTHING);
    }
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    if !listed {
        headers.insert(ROBOTS, NOINDEX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_protected_and_keeps_its_own_policies() {
        let mut headers = HeaderMap::new();
        protect(&mut headers, false);
        let told =
            |headers: &HeaderMap, name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(told(&headers, ROBOTS).as_deref(), Some("noindex"));
        assert_eq!(told(&headers, header::CACHE_CONTROL).as_deref(), Some("no-store"));
        assert_eq!(told(&headers, header::REFERRER_POLICY).as_deref(), Some("no-referrer"));
        assert_eq!(told(&headers, header::X_CONTENT_TYPE_OPTIONS).as_deref(), Some("nosniff"));
        assert!(told(&headers, header::CONTENT_SECURITY_POLICY).unwrap().starts_with("default-src 'none'"));
        let mut own = HeaderMap::new();
        own.insert(header::CACHE_CONTROL, HeaderValue::from_static("private"));
        own.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'self'"));
        protect(&mut own, true);
        assert_eq!(told(&own, header::CACHE_CONTROL).as_deref(), Some("private"));
        assert_eq!(told(&own, header::CONTENT_SECURITY_POLICY).as_deref(), Some("default-src 'self'"));
        assert_eq!(told(&own, ROBOTS), None);
    }
}
