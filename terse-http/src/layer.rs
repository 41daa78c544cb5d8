//! What every routed request gets: a request id, a rendered problem when it
//! failed, the headers that all answers carry, and one line in the access log.

use std::net::IpAddr;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::HeaderValue;
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage, web};
use terse_core::KeyId;

use crate::limits::Told;
use crate::problem::Problem;
use crate::{State, headers, request_id};

/// The routes that crawlers may list, or whose answers are none to be listed.
const LISTED: [&str; 3] = ["/", "/robots.txt", "/favicon.ico"];

/// The id of the current request. It rests in the request's extensions.
#[derive(Clone)]
pub(crate) struct RequestId(pub(crate) HeaderValue);

impl RequestId {
    pub(crate) fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }
}

/// The layer itself.
pub(crate) async fn around(
    state: web::Data<State>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let started_ns = state.clock.monotonic_ns();
    let id = request_id::sent(request.headers()).cloned();
    let id = id.or_else(|| HeaderValue::try_from(request_id::made(&*state.entropy)).ok());
    let id = RequestId(id.unwrap_or_else(|| HeaderValue::from_static("-")));
    request.extensions_mut().insert(id.clone());

    let mut response = next.call(request).await?.map_into_boxed_body();
    let problem = response.response().error().and_then(|error| error.as_error::<Problem>());
    if let Some(rendered) = problem.map(|problem| problem.response(Some(id.as_str()))) {
        response = response.into_response(rendered);
    }
    let took_ns = state.clock.monotonic_ns().saturating_sub(started_ns);
    log(&response, &state, id.as_str(), took_ns);
    let told = Told::take(response.request());
    let listed = response.request().match_pattern().is_some_and(|route| LISTED.contains(&route.as_str()));
    let headers = response.headers_mut();
    if let Some(told) = told {
        told.write(headers);
    }
    headers.insert(request_id::HEADER, id.0);
    headers::protect(headers, listed);
    Ok(response)
}

/// One line per request of the API and its page; probes and metrics are for debugging only.
fn log(response: &ServiceResponse<BoxBody>, state: &State, id: &str, took_ns: u64) {
    let request = response.request();
    let route = request.match_pattern();
    let route = route.as_deref().unwrap_or("none");
    let (method, status) = (request.method().as_str(), response.status().as_u16());
    let ms = took_ns / 1_000_000;
    let client = state.settings.trusted_proxies.client(request.peer_addr(), request.headers());
    let client = client.map(truncated).unwrap_or_default();
    let extensions = request.extensions();
    let key = extensions.get::<KeyId>().map_or("-", KeyId::as_str);
    if route == "/" || route.starts_with("/api") || route == "none" {
        tracing::info!(target: "terse::access", method, route, status, ms, request_id = id, key, client);
    } else {
        tracing::debug!(target: "terse::access", method, route, status, ms, request_id = id, client);
    }
}

/// The network that `address` is in: /24 or /48. Nothing finer is ever logged.
pub(crate) fn truncated(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            format!("{a}.{b}.{c}.0/24")
        }
        IpAddr::V6(v6) => {
            let [a, b, c, ..] = v6.segments();
            format!("{}/48", std::net::Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_cut_to_their_network() {
        let cut = |text: &str| truncated(text.parse().unwrap());
        assert_eq!(cut("203.0.113.77"), "203.0.113.0/24");
        assert_eq!(cut("2001:db8:1:2:3:4:5:6"), "2001:db8:1::/48");
        assert_eq!(cut("::ffff:203.0.113.77"), "203.0.113.0/24");
        assert_eq!(cut("::1"), "::/48");
    }
}
