//! The host that a click came from.
//!
//! Of `Referer` the host alone is kept: in lower case, without port, user, a dot at its end, or `www.`, since people
//! mean one site by both names. A host of other letters is kept as it was sent, be it punycode or not. Apps that send
//! `android-app://NAME` are told by that name. The own host says nothing, and what is no host is not known.

use terse_core::stats::MAX_VALUE_BYTES;

const SCHEMES: [&[u8]; 3] = [b"https://", b"http://", b"android-app://"];

/// Appends the host of `referrer` to `out`, if it has one that is none of `own` (see [`comparable`]).
pub(super) fn push_host(referrer: &[u8], own: &[String], out: &mut String) {
    let Some(host) = host(referrer) else { return };
    let from = out.len();
    out.push_str(host);
    out[from..].make_ascii_lowercase();
    if own.iter().any(|own| *own == out[from..]) {
        out.truncate(from);
    }
}

/// How `host`, with or without a port, is compared with referrers.
pub(super) fn comparable(host: &str) -> String {
    shortened(host).unwrap_or_default().to_ascii_lowercase()
}

fn host(referrer: &[u8]) -> Option<&str> {
    let rest = SCHEMES.iter().find_map(|scheme| {
        let (start, rest) = referrer.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    })?;
    let end = rest.iter().position(|b| matches!(b, b'/' | b'?' | b'#' | b'\\')).unwrap_or(rest.len());
    let authority = std::str::from_utf8(&rest[..end]).ok()?;
    shortened(authority.rsplit_once('@').map_or(authority, |(_, host)| host))
}

/// `host` without port, dot at its end and `www.`; `None` if it is none, or longer than a value may be.
fn shortened(host: &str) -> Option<&str> {
    if let Some(inside) = host.strip_prefix('[') {
        let (address, port) = inside.split_once(']')?;
        let is_address = address.parse::<std::net::Ipv6Addr>().is_ok() && (port.is_empty() || port.starts_with(':'));
        return is_address.then(|| &host[..address.len() + 2]);
    }
    let host = host.split_once(':').map_or(host, |(name, _)| name);
    let host = host.strip_suffix('.').unwrap_or(host);
    let host = match host.split_at_checked(4) {
        Some((www, rest)) if www.eq_ignore_ascii_case("www.") && rest.contains('.') => rest,
        _ => host,
    };
    let is_name = host.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '.' | '_'));
    (is_name && host.starts_with(char::is_alphanumeric) && host.len() <= MAX_VALUE_BYTES).then_some(host)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn host_of(referrer: impl AsRef<[u8]>) -> String {
        let own = [comparable("localhost:8080")];
        let mut out = String::from("before");
        push_host(referrer.as_ref(), &own, &mut out);
        out.split_off("before".len())
    }

    #[test]
    fn the_host_alone_is_kept() {
        for (referrer, host) in [
            ("https://example.org", "example.org"),
            ("https://example.org/", "example.org"),
            ("HTTP://Example.ORG:8080/path?query#fragment", "example.org"),
            ("https://www.example.org/", "example.org"),
            ("https://WWW.example.org./", "example.org"),
            ("https://www.com/", "www.com"),
            ("https://www2.example.org?x", "www2.example.org"),
            ("https://user:secret@example.org/", "example.org"),
            ("https://one@two@example.org", "example.org"),
            ("https://example.org\\evil.example/", "example.org"),
            ("android-app://com.google.android.gm/", "com.google.android.gm"),
            ("http://192.0.2.7:81/", "192.0.2.7"),
            ("http://[2001:DB8::1]:81/x", "[2001:db8::1]"),
            ("https://xn--mnchen-3ya.example/", "xn--mnchen-3ya.example"),
            ("https://münchen.example/", "münchen.example"),
            ("https://_dmarc.example/", ""),
        ] {
            assert_eq!(host_of(referrer), host, "{referrer}");
        }
    }

    #[test]
    fn what_is_no_host_is_not_known() {
        for referrer in [
            "",
            "-",
            "example.org",
            "//example.org/",
            "ftp://example.org/",
            "about:blank",
            "data:text/html,x",
            "javascript:alert(1)",
            "https://",
            "https:///path",
            "https://?",
            "https://:80/",
            "https://@/",
            "https://./",
            "https://<script>alert(1)</script>/",
            "https://=cmd|' /C calc'!A0/",
            "https://-x.example/",
            "https://a b/",
            "https://a\tb/",
            "https://a\0b/",
            "https://a%20b/",
            "https://[::1/",
            "https://[x]/",
            "https://[::1]x/",
            "https://\u{202e}gro.elpmaxe/",
            "https://+1.example/",
            "https://@example\u{7f}/",
        ] {
            assert_eq!(host_of(referrer), "", "{referrer}");
        }
        assert_eq!(host_of(b"https://\xff\xfe.example/"), "");
        assert_eq!(host_of(b"https://example.org/\xff\xfe"), "example.org", "only the host must be text");
    }

    #[test]
    fn the_own_host_says_nothing() {
        assert_eq!(comparable("www.Terse.example:8443"), "terse.example");
        let own = [comparable("Terse.example:8443"), comparable("[::1]:80"), comparable("<no host>")];
        for (referrer, host) in [
            ("https://terse.example/", ""),
            ("http://www.TERSE.example:99/abc", ""),
            ("http://[::1]/", ""),
            ("https://not.terse.example/", "not.terse.example"),
        ] {
            let mut out = String::new();
            push_host(referrer.as_bytes(), &own, &mut out);
            assert_eq!(out, host, "{referrer}");
        }
    }

    #[test]
    fn a_host_that_is_too_long_for_a_value_is_not_known() {
        let host = format!("{}.example", "x".repeat(MAX_VALUE_BYTES - 8));
        assert_eq!(host_of(format!("https://{host}/")), host);
        assert_eq!(host_of(format!("https://x{host}/")), "");
        assert_eq!(host_of("https://".to_owned() + &"a".repeat(10_000)), "");
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_bounded_host_without_markup(bytes in prop::collection::vec(any::<u8>(), 0..200), http: bool) {
            let referrer = if http { [b"http://", &bytes[..]].concat() } else { bytes };
            let host = host_of(referrer);
            prop_assert!(host.len() <= MAX_VALUE_BYTES);
            prop_assert!(!host.contains(['<', '>', '"', '\'', '&', '=', '+', ',', ' ', '\n', '\0']));
            prop_assert!(!host.starts_with(['-', '@']));
        }

        #[test]
        fn names_come_through(name in "[a-z0-9]([a-z0-9.-]{0,40}[a-z0-9])?") {
            prop_assume!(!name.starts_with("www."));
            prop_assert_eq!(host_of(format!("https://{name}/x")), name);
        }
    }
}
