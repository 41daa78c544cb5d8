//! `GET /{code}+`: where a link leads, without following it.
//!
//! It is answered in front of the routes, as redirects are, and limited as they are: a preview would tell as well as a
//! redirect whether there is a link. It counts nothing: neither a click nor a redirect. Browsers get a page, programs
//! JSON. A link that leads nowhere answers as its redirect does.
//!
//! The target was checked when it was stored, so it is ASCII without spaces and can't turn the direction of what
//! stands beside it. It is escaped all the same, and only offered to be opened if it is `http` or `https`.

use actix_http::body::BoxBody;
use actix_http::{HttpMessage, Request, Response};
use actix_web::HttpResponse;
use actix_web::http::header::{self, HeaderValue};
use serde::Serialize;
use terse_core::ShortCode;
use terse_core::code::is_reserved;
use terse_core::ports::Lookup;
use terse_core::target::TargetUrl;
use utoipa::ToSchema;

use crate::html::{self, Escaped, Nonce};
use crate::redirect::{Redirects, prefers_html};
use crate::{State, front, headers};

/// What the path's only segment ends with; some programs encode it.
const MARKS: [&str; 3] = ["+", "%2B", "%2b"];

/// Where a link leads.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Preview)]
pub(crate) struct PreviewView<'a> {
    /// The link's code.
    code: &'a str,
    /// The link itself.
    #[schema(format = "uri")]
    short_url: String,
    /// Where it leads.
    #[schema(format = "uri")]
    url: &'a str,
}

/// The code whose preview the path's only segment asks for.
pub(crate) fn code(segment: &str) -> Option<ShortCode> {
    let code = MARKS.iter().find_map(|mark| segment.strip_suffix(mark))?;
    ShortCode::parse(code).ok().filter(|_| !is_reserved(code))
}

/// Answers with where the link of `code` leads by what was `found`.
pub(crate) fn answer(
    request: &Request,
    state: &State,
    redirects: &Redirects,
    code: &ShortCode,
    found: Lookup,
) -> Response<BoxBody> {
    let target = match redirects.target_of(found.link) {
        Ok(target) => target,
        Err(problem) => return redirects.refuse(request, &problem),
    };
    let short = format!("{}/{code}", state.settings.public_url);
    let mut response = if prefers_html(request.headers()) {
        let nonce = Nonce::new(&*state.entropy);
        let text = html::page(&nonce, "Where this link leads", &main(&short, target.as_str()), "");
        let mut response = HttpResponse::Ok().content_type(html::CONTENT_TYPE).body(text);
        html::confine(&mut response, &nonce);
        response
    } else {
        as_json(&PreviewView { code: code.as_str(), short_url: short, url: target.as_str() })
    };
    headers::protect(response.headers_mut(), false);
    front::echo_id(request, response)
}

fn as_json(view: &PreviewView<'_>) -> HttpResponse {
    // Three texts can always be written as JSON.
    let body = serde_json::to_vec(view).unwrap_or_default();
    let mut response = HttpResponse::Ok();
    response.insert_header((header::CONTENT_TYPE, HeaderValue::from_static("application/json")));
    response.body(body)
}

/// What the page shows.
fn main(short: &str, target: &str) -> String {
    let (before, host, behind) = around_host(target);
    let [short, before, host, behind] = [short, before, host, behind].map(Escaped);
    let open = match TargetUrl::is_web(target) {
        true => format!("<p><a href=\"{}\" rel=\"noreferrer nofollow\">Open it</a></p>", Escaped(target)),
        false => String::new(),
    };
    format!(
        "<main><h1>terse<span>.</span></h1><h2>Where this link leads</h2>\
         <p class=\"soft whole\" dir=\"ltr\">{short}</p>\
         <p class=\"note whole\" dir=\"ltr\">{before}<strong>{host}</strong>{behind}</p>{open}</main>"
    )
}

/// What of `target` stands before its host and port, those, and what stands behind.
fn around_host(target: &str) -> (&str, &str, &str) {
    let begin = target.find("://").map_or(0, |at| at + "://".len());
    let (before, rest) = target.split_at(begin);
    let (host, behind) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    (before, host, behind)
}

/// Tells where the link leads without following it. It counts nothing. Browsers, which ask for `text/html`, get a page.
#[utoipa::path(get, path = "/{code}+", operation_id = "preview", tag = "redirect",
    params(("code" = String, Path, description = "The link's code", pattern = "^[A-Za-z0-9_-]{1,64}$")),
    responses((status = 200, description = "Where it leads",
        content((PreviewView = "application/json"), (String = "text/html")))))]
#[allow(dead_code, reason = "it describes what is answered in front of all handlers")]
pub(crate) fn look() {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_preview_is_asked_for_by_a_plus_behind_a_code() {
        for segment in ["abc+", "abc%2B", "abc%2b"] {
            assert_eq!(code(segment), ShortCode::parse("abc").ok(), "{segment}");
        }
        for segment in ["abc", "+", "%2B", "a+b", "abc++", "a b+", "abc+x", "health+", "API+", "\u{fc}+"] {
            assert_eq!(code(segment), None, "{segment}");
        }
    }

    #[test]
    fn the_host_stands_out_of_the_target() {
        assert_eq!(around_host("https://a.example:1/x?y"), ("https://", "a.example:1", "/x?y"));
        assert_eq!(around_host("http://a.example?https://b.example/"), ("http://", "a.example", "?https://b.example/"));
        assert_eq!(around_host("https://a.example#x/y"), ("https://", "a.example", "#x/y"));
        assert_eq!(around_host("damaged"), ("", "damaged", ""));
    }

    #[test]
    fn what_is_no_web_address_is_shown_but_not_offered() {
        let shown = main("https://go/abc", "javascript:alert(1)//");
        assert!(shown.contains("javascript:alert(1)") && !shown.contains("href"), "{shown}");
        assert!(main("https://go/abc", "HTTPS://a.example/").contains("href=\"HTTPS://a.example/\""));
    }

    proptest! {
        #[test]
        fn no_target_gets_out_of_its_place(target in "[!-~]{0,60}") {
            let shown = main("https://go/abc", &target);
            let quiet = main("https://go/abc", "");
            let tags = |text: &str| text.matches('<').count();
            let own = if TargetUrl::is_web(&target) { 4 } else { 0 };
            prop_assert_eq!(tags(&shown), tags(&quiet) + own, "{}", shown);
        }
    }
}
