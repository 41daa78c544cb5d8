//! Escaping for HTML, and the frame that all pages of terse share.

use std::fmt;

use actix_web::HttpResponse;
use actix_web::http::header::{self, HeaderValue};
use terse_core::Entropy;
use terse_core::time::random_bytes;

use crate::request_id::hex;

/// The content type of every page.
pub(crate) const CONTENT_TYPE: &str = "text/html; charset=utf-8";

/// The style of every page. It follows the system's choice of light or dark.
const STYLE: &str = include_str!("style.css");

/// The mark of terse, as an SVG.
pub(crate) const ICON: &str = "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'>\
    <rect width='32' height='32' rx='8' fill='#4f46e5'/>\
    <path d='M9 10h14M16 10v13M19.5 23h4' stroke='#fff' stroke-width='3.5' stroke-linecap='round'/></svg>";

/// A text that is written with everything escaped that HTML gives a meaning,
/// in content and in quoted attributes alike.
pub(crate) struct Escaped<'a>(pub(crate) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some(at) = rest.find(['&', '<', '>', '"', '\'', '`']) {
            f.write_str(&rest[..at])?;
            f.write_str(match rest.as_bytes()[at] {
                b'&' => "&amp;",
                b'<' => "&lt;",
                b'>' => "&gt;",
                b'"' => "&quot;",
                b'\'' => "&#39;",
                _ => "&#96;",
            })?;
            rest = &rest[at + 1..];
        }
        f.write_str(rest)
    }
}

/// A number used once, by which a page's own style and script are told from injected ones.
pub(crate) struct Nonce(String);

impl Nonce {
    pub(crate) fn new(entropy: &dyn Entropy) -> Self {
        Self(hex(random_bytes::<16>(entropy)))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// A whole page: `main` is HTML already, `title` is a text.
pub(crate) fn page(nonce: &Nonce, title: &str, main: &str, script: &str) -> String {
    let nonce = nonce.as_str();
    let script = match script {
        "" => String::new(),
        script => format!("<script nonce=\"{nonce}\">{script}</script>"),
    };
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\"><meta name=\"referrer\" content=\"no-referrer\">\
         <title>{title}</title><link rel=\"icon\" href=\"/favicon.ico\" type=\"image/svg+xml\">\
         <style nonce=\"{nonce}\">{STYLE}</style></head>\n<body>{main}{script}</body></html>\n",
        title = Escaped(title),
    )
}

/// Sets the policy that confines a page to its own style, script and form. All else that protects it comes with every answer.
pub(crate) fn confine(response: &mut HttpResponse, nonce: &Nonce) {
    let nonce = nonce.as_str();
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; img-src 'self'; \
         form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    );
    if let Ok(policy) = HeaderValue::try_from(policy) {
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use terse_testkit::SeededEntropy;

    use super::*;

    #[test]
    fn what_html_gives_a_meaning_is_escaped() {
        assert_eq!(
            Escaped("<a href=\"x\" b='y'>&`é").to_string(),
            "&lt;a href=&quot;x&quot; b=&#39;y&#39;&gt;&amp;&#96;é"
        );
        assert_eq!(Escaped("").to_string(), "");
        assert_eq!(Escaped("&amp;").to_string(), "&amp;amp;");
    }

    #[test]
    fn a_page_is_confined_to_its_own_nonce() {
        let entropy = SeededEntropy::new(7);
        let (first, second) = (Nonce::new(&entropy), Nonce::new(&entropy));
        assert_ne!(first.as_str(), second.as_str());
        let text = page(&first, "<t>", "<main></main>", "");
        assert!(text.contains("<title>&lt;t&gt;</title>") && text.contains(first.as_str()));
        assert!(!text.contains("<script"), "no script, no element for it");
        let mut response = HttpResponse::Ok().finish();
        confine(&mut response, &first);
        let policy = response.headers().get(header::CONTENT_SECURITY_POLICY).unwrap().to_str().unwrap();
        assert!(policy.contains(first.as_str()) && !policy.contains("unsafe"), "{policy}");
    }

    proptest! {
        #[test]
        fn escaped_text_holds_no_markup_and_can_be_read_back(text in any::<String>()) {
            let escaped = Escaped(&text).to_string();
            prop_assert!(!escaped.contains(['<', '>', '"', '\'', '`']));
            let back = escaped.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"");
            prop_assert_eq!(back.replace("&#39;", "'").replace("&#96;", "`").replace("&amp;", "&"), text);
        }
    }
}
