//! What a right answer is.

use serde_json::Value;

/// What is read of an answer.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The `Location` header.
    pub location: Option<String>,
    /// The `Retry-After` header.
    pub retry_after: Option<String>,
    /// The body.
    pub body: Vec<u8>,
}

/// What an answer must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// A redirect to this target.
    Redirect(String),
    /// That there is no such link.
    Missing,
    /// A new link to this target.
    Created(String),
    /// The same, or a refusal with 429.
    CreatedOrLimited(String),
}

/// What an answer was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it must be.
    Good,
    /// 429, as one may expect here.
    Limited,
    /// 429 or 503 with `Retry-After`, where another answer was expected.
    Refused(u16),
    /// None came.
    NoAnswer(String),
    /// Wrong.
    Wrong(String),
}

/// How many letters of what a server sent are told.
const TOLD_LETTERS: usize = 120;

impl Expected {
    /// Judges `answer` to the request of `path`.
    #[must_use]
    pub fn judge(&self, path: &str, answer: &Answer) -> Outcome {
        let right = match (self, answer.status) {
            (Self::Redirect(target), 301 | 302 | 307 | 308) => answer.location.as_ref() == Some(target),
            (Self::Missing, 404) => true,
            (Self::Created(target) | Self::CreatedOrLimited(target), 201) => is_link(answer, target),
            (_, 429 | 503) if answer.waits() => {
                let limited = answer.status == 429 && matches!(self, Self::CreatedOrLimited(_));
                return if limited { Outcome::Limited } else { Outcome::Refused(answer.status) };
            }
            _ => false,
        };
        if right { Outcome::Good } else { Outcome::Wrong(self.complaint(path, answer)) }
    }

    fn complaint(&self, path: &str, answer: &Answer) -> String {
        let expected = match self {
            Self::Redirect(target) => format!("a redirect to {target}"),
            Self::Missing => "404".to_owned(),
            Self::Created(target) => format!("201 and a link to {target}"),
            Self::CreatedOrLimited(target) => format!("201 and a link to {target}, or 429 with a time to wait"),
        };
        let location = answer.location.as_deref().map(|to| format!(" to {to}")).unwrap_or_default();
        let body: String = String::from_utf8_lossy(&answer.body).chars().take(TOLD_LETTERS).collect();
        let body = if body.is_empty() { String::new() } else { format!(", it says {body:?}") };
        format!("{path}: {}{location}, expected {expected}{body}", answer.status)
    }
}

impl Answer {
    /// Whether it says after how many seconds one may ask again.
    fn waits(&self) -> bool {
        self.retry_after.as_deref().is_some_and(|wait| wait.parse::<u32>().is_ok())
    }
}

/// Whether the body is a link to `target`, and `Location` its own address.
fn is_link(answer: &Answer, target: &str) -> bool {
    let Ok(link) = serde_json::from_slice::<Value>(&answer.body) else { return false };
    let code = link["code"].as_str().unwrap_or_default();
    let location = answer.location.as_deref().unwrap_or_default();
    !code.is_empty() && link["url"] == target && location.ends_with(&format!("/{code}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: &str = "https://example.com/a";

    fn answer(status: u16, location: Option<&str>, body: &str) -> Answer {
        Answer { status, location: location.map(str::to_owned), retry_after: None, body: body.into() }
    }

    fn complaint(expected: &Expected, answer: &Answer) -> String {
        match expected.judge("/abc", answer) {
            Outcome::Wrong(text) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_redirect_has_to_lead_to_the_target() {
        let expected = Expected::Redirect(TARGET.into());
        for status in [301, 302, 307, 308] {
            assert_eq!(expected.judge("/abc", &answer(status, Some(TARGET), "")), Outcome::Good);
        }
        let elsewhere = complaint(&expected, &answer(302, Some("https://evil.example/"), ""));
        assert_eq!(elsewhere, "/abc: 302 to https://evil.example/, expected a redirect to https://example.com/a");
        assert!(complaint(&expected, &answer(302, None, "")).contains("302, expected"));
        assert!(complaint(&expected, &answer(200, None, "hello")).ends_with(", it says \"hello\""));
        assert!(complaint(&expected, &answer(500, Some(TARGET), "")).contains("500"));
        assert!(complaint(&expected, &answer(404, None, "")).contains("404"));
    }

    #[test]
    fn an_unknown_code_gets_404_and_nothing_else() {
        assert_eq!(Expected::Missing.judge("/abc", &answer(404, None, "")), Outcome::Good);
        for status in [200, 302, 410, 500] {
            assert!(complaint(&Expected::Missing, &answer(status, Some(TARGET), "")).contains("expected 404"));
        }
    }

    #[test]
    fn a_create_gets_a_link_with_that_target_and_its_address() {
        let expected = Expected::Created(TARGET.into());
        let link = r#"{"code": "abc", "url": "https://example.com/a"}"#;
        assert_eq!(expected.judge("/l", &answer(201, Some("/api/v1/links/abc"), link)), Outcome::Good);
        for (status, location, body) in [
            (201, None, link),
            (201, Some("/api/v1/links/abd"), link),
            (200, Some("/api/v1/links/abc"), link),
            (201, Some("/api/v1/links/abc"), r#"{"code": "abc", "url": "https://example.com/b"}"#),
            (201, Some("/"), r#"{"url": "https://example.com/a"}"#),
            (201, Some("/api/v1/links/abc"), "no JSON"),
        ] {
            assert!(complaint(&expected, &answer(status, location, body)).contains("a link to"), "{body}");
        }
    }

    #[test]
    fn a_refusal_says_when_to_ask_again() {
        let refusal =
            |status, wait: Option<&str>| Answer { status, retry_after: wait.map(str::to_owned), ..Answer::default() };
        let (created, limited) = (Expected::Created(TARGET.into()), Expected::CreatedOrLimited(TARGET.into()));
        assert_eq!(created.judge("/", &refusal(503, Some("1"))), Outcome::Refused(503));
        assert_eq!(created.judge("/", &refusal(429, Some("1"))), Outcome::Refused(429));
        assert_eq!(limited.judge("/", &refusal(429, Some("1"))), Outcome::Limited);
        assert_eq!(limited.judge("/", &refusal(503, Some("1"))), Outcome::Refused(503));
        for expected in [created, limited] {
            assert!(complaint(&expected, &refusal(429, None)).contains("429"));
            assert!(complaint(&expected, &refusal(503, Some("soon"))).contains("503"));
        }
    }

    #[test]
    fn of_a_long_body_the_beginning_is_told() {
        let text = complaint(&Expected::Missing, &answer(200, None, &"é".repeat(10_000)));
        assert!(text.chars().count() < 200, "{text}");
    }
}
