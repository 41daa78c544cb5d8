//! Valid links and their parts in one line each. A link's fields are public, so
//! a test changes what it is about: `Link { state: LinkState::Disabled, ..link("abc") }`.

use terse_core::ports::AttemptId;
use terse_core::{Link, LinkState, Owner, Resolution, ShortCode, Tags, TargetUrl, Timestamp, Version};

/// `text` as a code.
///
/// # Panics
/// When it is none.
#[must_use]
#[track_caller]
pub fn code(text: &str) -> ShortCode {
    match ShortCode::parse(text) {
        Ok(code) => code,
        Err(error) => panic!("{text:?} is no code: {error}"),
    }
}

/// `text` as a target, taken as it is.
///
/// # Panics
/// When no store could hold it.
#[must_use]
#[track_caller]
pub fn target(text: &str) -> TargetUrl {
    match TargetUrl::from_stored(text) {
        Some(target) => target,
        None => panic!("{text:?} is no target"),
    }
}

/// An active link of version 1 without end, title or tags, of the owner of
/// open access, created 2026-01-02T03:04:05Z, that leads to
/// `https://example.com/CODE`.
///
/// # Panics
/// When `text` is no code.
#[must_use]
#[track_caller]
pub fn link(text: &str) -> Link {
    let created_at = Timestamp::from_millis(1_767_323_045_000);
    Link {
        code: code(text),
        target: target(&format!("https://example.com/{text}")),
        title: None,
        tags: Tags::default(),
        state: LinkState::Active,
        owner: Owner::open(),
        created_at,
        updated_at: created_at,
        expires_at: None,
        valid_from: None,
        version: Version::FIRST,
    }
}

/// What a redirect needs of [`link`] once it has `version`.
///
/// # Panics
/// When `text` is no code.
#[must_use]
#[track_caller]
pub fn resolution(text: &str, version: u64) -> Resolution {
    Resolution { version: Version(version), ..link(text).resolution() }
}

/// An attempt id that differs for each `number`.
#[must_use]
pub fn attempt(number: u128) -> AttemptId {
    AttemptId(number.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use terse_core::Verdict;

    use super::*;

    #[test]
    fn a_built_link_redirects_to_a_target_that_names_its_code() {
        let link = link("Abc-9_");
        assert_eq!(link.resolution().verdict(link.created_at), Verdict::Found);
        assert_eq!(link.target.as_str(), "https://example.com/Abc-9_");
        assert_eq!(link.created_at.to_string(), "2026-01-02T03:04:05Z");
    }

    #[test]
    fn a_resolution_is_that_of_the_link_but_for_its_version() {
        assert_eq!(resolution("abc", 1), link("abc").resolution());
        assert_eq!(resolution("abc", 7).version, Version(7));
    }

    #[test]
    #[should_panic(expected = "is no code")]
    fn a_bad_code_fails_where_it_is_written() {
        let _ = code("a/b");
    }

    #[test]
    #[should_panic(expected = "is no target")]
    fn a_bad_target_fails_where_it_is_written() {
        let _ = target("https://example.com/a b");
    }

    #[test]
    fn attempts_differ_by_number() {
        assert_eq!(attempt(1), attempt(1));
        assert_ne!(attempt(1), attempt(2));
    }
}
