//! `ETag`, `If-Match` and `If-None-Match` (RFC 9110, section 13). A link's tag
//! is its version in quotes, always strong.

use actix_web::HttpRequest;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use terse_core::Version;

use crate::problem::{Kind, Problem};

/// The `ETag` of `version`.
pub(crate) fn etag(version: Version) -> HeaderValue {
    HeaderValue::try_from(format!("\"{}\"", version.0)).unwrap_or_else(|_| HeaderValue::from_static("\"0\""))
}

/// What a header demands of the version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Tags {
    /// `*`: any.
    Any,
    /// Each tag and whether it is weak.
    Listed(Vec<(String, bool)>),
}

/// The versions of which the link must have one for an edit; `None` = any.
///
/// # Errors
/// 400 when `If-Match` can't be read.
pub(crate) fn if_match(request: &HttpRequest) -> Result<Option<Vec<Version>>, Problem> {
    Ok(match tags(request, &header::IF_MATCH)? {
        None | Some(Tags::Any) => None,
        // Weak tags, and texts that were never a version, match nothing.
        Some(Tags::Listed(tags)) => {
            Some(tags.iter().filter(|(_, weak)| !weak).filter_map(|(tag, _)| version(tag)).collect())
        }
    })
}

/// Whether `If-None-Match` names `current`, so that there is nothing new to send.
///
/// # Errors
/// 400 when the header can't be read.
pub(crate) fn none_match(request: &HttpRequest, current: Version) -> Result<bool, Problem> {
    Ok(match tags(request, &header::IF_NONE_MATCH)? {
        None => false,
        Some(Tags::Any) => true,
        Some(Tags::Listed(tags)) => tags.iter().any(|(tag, _)| version(tag) == Some(current)),
    })
}

/// A version as [`etag`] writes it: no sign, no leading zero.
fn version(tag: &str) -> Option<Version> {
    let number: u64 = tag.parse().ok()?;
    (number.to_string() == tag).then_some(Version(number))
}

fn tags(request: &HttpRequest, name: &HeaderName) -> Result<Option<Tags>, Problem> {
    let mut listed = Vec::new();
    let mut any = false;
    let mut seen = false;
    for value in request.headers().get_all(name) {
        seen = true;
        match value.to_str().ok().and_then(parse) {
            Some(Tags::Any) => any = true,
            Some(Tags::Listed(tags)) => listed.extend(tags),
            None => {
                let detail = format!("{name} must be * or a list of quoted tags");
                return Err(Problem::new(Kind::MalformedHeader, detail));
            }
        }
    }
    Ok(match (seen, any) {
        (false, _) => None,
        (true, true) => Some(Tags::Any),
        (true, false) => Some(Tags::Listed(listed)),
    })
}

/// Reads `*` or `"a", W/"b"`. Empty list elements are allowed (RFC 9110, section 5.6.1), an empty list is not.
pub(crate) fn parse(text: &str) -> Option<Tags> {
    let mut rest = text.trim_matches([' ', '\t']);
    if rest == "*" {
        return Some(Tags::Any);
    }
    let mut tags = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            return (!tags.is_empty()).then_some(Tags::Listed(tags));
        }
        let weak = rest.starts_with("W/");
        let quoted = rest.strip_prefix("W/").unwrap_or(rest).strip_prefix('"')?;
        let (tag, after) = quoted.split_once('"')?;
        if !tag.bytes().all(|b| b.is_ascii_graphic()) {
            return None;
        }
        tags.push((tag.to_owned(), weak));
        rest = after.trim_start_matches([' ', '\t']);
        if !rest.is_empty() && !rest.starts_with(',') {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn listed(text: &str) -> Option<Vec<(String, bool)>> {
        match parse(text)? {
            Tags::Listed(tags) => Some(tags),
            Tags::Any => panic!("{text} is no list"),
        }
    }

    #[test]
    fn lists_of_tags_are_read() {
        assert_eq!(parse(" * "), Some(Tags::Any));
        let strong = |tag: &str| (tag.to_owned(), false);
        assert_eq!(listed("\"1\""), Some(vec![strong("1")]));
        assert_eq!(listed("\"1\" ,W/\"2\",, \"\""), Some(vec![strong("1"), ("2".into(), true), strong("")]));
        assert_eq!(listed("\"a,b\""), Some(vec![strong("a,b")]));
    }

    #[test]
    fn what_is_no_list_of_tags_is_refused() {
        for text in
            ["", ",", "1", "\"1", "1\"", "\"1\"\"2\"", "\"1\" \"2\"", "w/\"1\"", "W/ \"1\"", "*, \"1\"", "\"a b\""]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn only_a_version_as_it_is_written_is_one() {
        assert_eq!(version("7"), Some(Version(7)));
        for text in ["", "07", "+7", "-7", "7.0", "7 ", "99999999999999999999999"] {
            assert_eq!(version(text), None, "{text}");
        }
        assert_eq!(etag(Version(7)).to_str().unwrap(), "\"7\"");
    }

    proptest! {
        #[test]
        fn any_text_is_a_list_or_refused(text in ".{0,40}") {
            if let Some(Tags::Listed(tags)) = parse(&text) {
                prop_assert!(!tags.is_empty());
            }
        }

        #[test]
        fn written_lists_are_read_back(tags in proptest::collection::vec(("[!#-~]{0,6}", any::<bool>()), 1..6)) {
            let texts: Vec<_> =
                tags.iter().map(|(tag, weak)| format!("{}\"{tag}\"", if *weak { "W/" } else { "" })).collect();
            prop_assert_eq!(parse(&texts.join(", ")), Some(Tags::Listed(tags)));
        }
    }
}
