//! What the reference of errors is made of: every problem and every fault of a field, when it comes, and what a client
//! does.

use crate::problem::Kind;

/// A way in which a request can fail, as the reference tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DescribedProblem {
    /// The HTTP status.
    pub status: u16,
    /// The stable word; `type` is `urn:terse:problem:` and this.
    pub code: &'static str,
    /// The sentence for people.
    pub title: &'static str,
    /// When it comes.
    pub when: &'static str,
    /// What a client does about it.
    pub remedy: &'static str,
}

/// All of them, by their statuses.
pub fn problems() -> impl Iterator<Item = DescribedProblem> {
    Kind::ALL.into_iter().map(|kind| {
        let (when, remedy) = told(kind);
        DescribedProblem { status: kind.status().as_u16(), code: kind.code(), title: kind.title(), when, remedy }
    })
}

/// When `kind` comes, and what a client does about it.
const fn told(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::MalformedJson => ("the body is no JSON, or ended early; `detail` tells the place", "mend the body"),
        Kind::BadCursor => ("`cursor` is none that this list gave", "begin the list again without one"),
        Kind::MalformedHeader => ("`If-Match` or `If-None-Match` is no list of tags", "send the `ETag` as it came"),
        Kind::Unauthorized => {
            ("no API key, or one that is unknown, expired or revoked", "send a valid key; never repeat it")
        }
        Kind::Forbidden => ("the role of the key does not reach so far", "use a key of the role that `detail` names"),
        Kind::CrossSite => ("the form at `/` was sent from another page", "use the API"),
        Kind::NotFound => (
            "nobody has the code, it does not begin to work before `valid_from`, the link is another owner's or was \
             deleted (API), or nothing has this path",
            "do not repeat it",
        ),
        Kind::MethodNotAllowed => ("the path takes other methods", "use one of those in `Allow`"),
        Kind::RequestTimeout => (
            "head or body took longer than `head_timeout` or `body_timeout`",
            "repeat it; a create with its `Idempotency-Key`",
        ),
        Kind::AliasTaken => {
            ("the alias belongs to a link, perhaps to a deleted one", "choose another; it is taken for ever")
        }
        Kind::Gone => ("the link has expired, or was disabled or deleted", "do not repeat it"),
        Kind::VersionConflict => {
            ("`If-Match` names another version than the link has", "read the link, change that, repeat")
        }
        Kind::BodyTooLarge => ("the body has more bytes or values than are taken", "send less; split a batch"),
        Kind::UriTooLong => ("path and query are too long", "send less"),
        Kind::UnsupportedMediaType => {
            ("the body is not `application/json` in UTF-8, or is compressed", "send it so, with its `Content-Type`")
        }
        Kind::Misdirected => (
            "access is open and `Host` is neither the public one, nor the address listened on, nor a loopback name",
            "use the public URL; the operator sets `TERSE_PUBLIC_URL`",
        ),
        Kind::Invalid => {
            ("fields, parameters or headers are wrong; `errors` has all of them", "mend what `errors` names")
        }
        Kind::KeyReused => ("the `Idempotency-Key` came with another body in the last 24 hours", "take a new key"),
        Kind::RateLimited => ("a rate limit or a quota is used up", "wait for `Retry-After`, then go on more slowly"),
        Kind::Blocked => ("an administrator has blocked the link, or the host that it leads to", "do not repeat it"),
        Kind::Internal => ("a fault of terse; the log has it under `request_id`", "report it; reads may be repeated"),
        Kind::StoreUnavailable => (
            "the store is out of reach, or did not say what became of a change; `detail` tells which",
            "repeat it after `Retry-After`, a create with its `Idempotency-Key`, an edit with its `If-Match`",
        ),
        Kind::Overloaded => (
            "more is asked than the store can do in time; nothing was changed",
            "repeat it after `Retry-After`, ever later",
        ),
        Kind::KeysUnavailable => {
            ("API keys could not be read from the store for too long", "repeat it after `Retry-After`")
        }
    }
}

/// Every `code` of a member of `errors`, and what it says of the field.
pub const FAULTS: &[(&str, &str)] = &[
    ("required", "is missing"),
    ("wrong_type", "is of another type of JSON than it must be"),
    ("unknown_field", "is not known here"),
    ("duplicate_field", "is given more than once"),
    ("malformed", "the query or the form can't be read"),
    ("out_of_bounds", "is too short, too long, too many, too large or too small; `detail` has the bound"),
    ("bad_value", "is none of the words that it may be"),
    ("bad_time", "is no time of RFC 3339"),
    ("empty", "is empty"),
    ("too_long", "is too long"),
    ("bad_character", "holds a character that it may not"),
    ("reserved", "an alias that is a word of terse's own"),
    ("unknown_state", "a state that an edit can't lead to"),
    ("in_the_past", "`expires_at` is over already"),
    ("not_before_expiry", "`valid_from` is not before `expires_at`"),
    ("out_of_order", "`from` is not before `to`"),
    ("not_allowed", "is not taken here"),
    ("too_many", "the list of blocked hosts is full"),
    ("unsupported_scheme", "a target that is neither `http` nor `https`"),
    ("malformed_url", "a target that is no absolute URL"),
    ("control_character", "a target with a control character"),
    ("white_space", "a target with white space"),
    ("backslash", "a target with a backslash"),
    ("userinfo", "a target with a user or password"),
    ("invalid_host", "a host that is neither a name nor an address"),
    ("invalid_port", "a port that is none"),
    ("own_host", "a target that leads back to this service"),
    ("not_public", "a target on an address that is not reachable from the internet (`allow_private_targets`)"),
    ("blocked_host", "a target on a host that is blocked here"),
];

/// Whether `code` is one of [`FAULTS`].
pub(crate) fn is_fault(code: &str) -> bool {
    FAULTS.iter().any(|(known, _)| *known == code)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_problem_is_told_once_in_the_order_of_the_statuses() {
        let problems: Vec<_> = problems().collect();
        let codes: BTreeSet<&str> = problems.iter().map(|problem| problem.code).collect();
        assert_eq!(codes.len(), problems.len());
        assert!(problems.is_sorted_by_key(|problem| problem.status));
        for DescribedProblem { code, when, remedy, .. } in problems {
            assert!(!when.is_empty() && !remedy.is_empty(), "{code}");
            assert!(!when.ends_with('.') && !remedy.ends_with('.'), "{code}");
        }
    }

    #[test]
    fn all_kinds_are_listed_in_the_order_of_their_numbers() {
        for (position, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, position, "{kind:?}");
        }
    }

    #[test]
    fn a_fault_is_told_once() {
        let codes: BTreeSet<&str> = FAULTS.iter().map(|(code, _)| *code).collect();
        assert_eq!(codes.len(), FAULTS.len());
        assert!(is_fault("required") && !is_fault("unheard_of"));
    }

    #[test]
    #[should_panic(expected = "the reference has no fault 'unheard_of'")]
    fn a_fault_without_a_row_fails_whatever_test_meets_it() {
        let _fault = crate::problem::FieldFault::new("url", "unheard_of", "is that");
    }
}
