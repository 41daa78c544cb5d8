//! Which hosts the API and the page answer to while access is open.
//!
//! A page on a foreign site can let its own name resolve to this machine (DNS
//! rebinding) and would then be of the same origin as terse. It can't choose
//! what the browser sends as `Host`, so in open mode only the public host, the
//! listen address and loopback names are answered; others get 421. Ports don't
//! matter: a name that may be trusted may be so on any port.

use std::net::IpAddr;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header;
use actix_web::http::uri::Authority;
use actix_web::middleware::Next;
use actix_web::{Error, HttpRequest, web};

use crate::problem::{Kind, Problem};
use crate::{Access, Settings, State};

/// The layer around the routes of the API and the page.
pub(crate) async fn guarded(
    state: web::Data<State>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    if matches!(state.access, Access::Open) && !is_ours(request.request(), &state.settings) {
        let problem = Problem::new(Kind::Misdirected, "the API answers to its public host and to loopback names only");
        return Ok(request.error_response(problem));
    }
    Ok(next.call(request).await?.map_into_boxed_body())
}

/// Whether every host that `request` names, in its target and in `Host`, is one of ours, and it names one.
fn is_ours(request: &HttpRequest, settings: &Settings) -> bool {
    let header = request.headers().get(header::HOST).map(|host| host.to_str().unwrap_or_default());
    let mut named = request.uri().authority().map(Authority::as_str).into_iter().chain(header).peekable();
    named.peek().is_some() && named.all(|host| admits(host, settings))
}

/// Whether `host`, with or without a port, is the public one, the listen address or a loopback name.
pub(crate) fn admits(host: &str, settings: &Settings) -> bool {
    let Some(name) = name(host) else {
        return false;
    };
    if let Ok(address) = name.parse::<IpAddr>() {
        let address = address.to_canonical();
        if address.is_loopback() || address == settings.listen.ip().to_canonical() {
            return true;
        }
    }
    name == "localhost" || public_name(settings).is_some_and(|public| public == name)
}

/// The origin of `public_url`: scheme, host and port, nothing behind.
pub(crate) fn public_origin(settings: &Settings) -> Option<&str> {
    let (scheme, rest) = settings.public_url.split_once("://")?;
    let host = rest.split(['/', '?', '#']).next()?;
    settings.public_url.get(..scheme.len() + "://".len() + host.len())
}

fn public_name(settings: &Settings) -> Option<String> {
    name(public_origin(settings)?.split_once("://")?.1)
}

/// The name in `host[:port]`, in lower case, without brackets and final dot.
fn name(host: &str) -> Option<String> {
    if host.contains('@') {
        return None;
    }
    let authority: Authority = host.parse().ok()?;
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    let name = name.strip_suffix('.').unwrap_or(name);
    (!name.is_empty()).then(|| name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Bounds, RedirectStatus, Surfaces};

    fn settings(public_url: &str) -> Settings {
        Settings {
            public_url: public_url.to_owned(),
            listen: "192.0.2.7:8080".parse().unwrap(),
            redirect_status: RedirectStatus::Found,
            redirect_max_age_s: 0,
            surfaces: Surfaces { redirect: true, api: true },
            trusted_proxies: crate::TrustedProxies::default(),
            bounds: Bounds { head_timeout: Duration::from_secs(1), ..Bounds::default() },
            docs_dir: None,
            release: "0",
        }
    }

    #[test]
    fn ones_own_names_are_admitted_on_any_port() {
        let settings = settings("https://Go.Example:8443/base");
        for host in
            ["go.example", "GO.EXAMPLE.", "go.example:1", "192.0.2.7", "localhost:80", "127.9.9.9", "[::1]:8080"]
        {
            assert!(admits(host, &settings), "{host}");
        }
        for host in [
            "",
            ":80",
            "go.example@evil",
            "x.go.example",
            "192.0.2.8",
            "localhost.x",
            "[::2]",
            "go.example/",
            "0.0.0.0",
        ] {
            assert!(!admits(host, &settings), "{host}");
        }
    }

    #[test]
    fn the_public_origin_is_what_stands_before_the_path() {
        for (url, origin) in [
            ("https://go.example", Some("https://go.example")),
            ("http://go.example:8080/base?x#y", Some("http://go.example:8080")),
            ("http://[2001:db8::1]:80/", Some("http://[2001:db8::1]:80")),
            ("go.example", None),
        ] {
            assert_eq!(public_origin(&settings(url)), origin, "{url}");
        }
    }
}
