//! The bodies of creates and edits: from JSON to the domain, with every fault on the way.

use terse_core::shorten::{Draft, Patch};
use terse_core::{Alias, CodeError, LinkState, Tags, TargetUrl, Timestamp, Title, UrlPolicy};
use utoipa::ToSchema;

use crate::json::{Fields, Json, TextFault};
use crate::problem::Problem;

/// What a link shall be.
#[derive(Debug, Default, ToSchema)]
#[schema(as = Create)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateBody {
    /// Where it shall lead: http or https, a host that is reachable from anywhere, no userinfo.
    #[schema(value_type = String, required, format = "uri", min_length = 1, max_length = 8192,
        example = "https://example.com/a/long/path?x=1")]
    url: Option<Option<String>>,
    /// The code that it shall have, instead of a generated one.
    #[schema(value_type = Option<String>, pattern = "^[A-Za-z0-9_-]{1,64}$", example = json!(null))]
    alias: Option<Option<String>>,
    #[schema(value_type = Option<String>, min_length = 1, max_length = 200, example = "The long path")]
    title: Option<Option<String>>,
    /// A tag given twice is kept once.
    #[schema(value_type = Option<Vec<Tag>>, max_items = 20, example = json!(["docs"]))]
    tags: Option<Option<Vec<String>>>,
    /// From when on it shall answer 410; RFC 3339, in the future.
    #[schema(value_type = Option<String>, format = DateTime, example = "2031-01-01T00:00:00Z")]
    expires_at: Option<Option<String>>,
    /// Until when it shall answer 404; RFC 3339.
    #[schema(value_type = Option<String>, format = DateTime, example = json!(null))]
    valid_from: Option<Option<String>>,
}

/// What shall change. A field that is absent stays; null clears it.
#[derive(Debug, Default, ToSchema)]
#[schema(as = Edit)]
#[serde(deny_unknown_fields)]
pub(crate) struct EditBody {
    #[schema(value_type = String, required = false, format = "uri", min_length = 1, max_length = 8192,
        example = "https://example.com/elsewhere")]
    url: Option<Option<String>>,
    #[schema(value_type = Option<String>, min_length = 1, max_length = 200, example = "Elsewhere")]
    title: Option<Option<String>>,
    #[schema(value_type = Option<Vec<Tag>>, max_items = 20)]
    tags: Option<Option<Vec<String>>>,
    #[schema(value_type = super::view::State, required = false)]
    state: Option<Option<String>>,
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Option<String>>,
    #[schema(value_type = Option<String>, format = DateTime)]
    valid_from: Option<Option<String>>,
}

/// A word to find links by: 1 to 50 characters, none of them a control character.
#[derive(ToSchema)]
#[schema(value_type = String, min_length = 1, max_length = 50, example = "docs")]
#[allow(dead_code, reason = "it describes the API; the domain's tags are plain texts")]
pub(crate) struct Tag(String);

/// Reads `json` as what a link shall be; `whole` names it in faults.
///
/// # Errors
/// 422 with all faults.
pub(crate) fn draft(json: Json, whole: &'static str, policy: &UrlPolicy) -> Result<Draft, Problem> {
    const KNOWN: [&str; 6] = ["url", "alias", "title", "tags", "expires_at", "valid_from"];
    let mut fields = Fields::of(json, &KNOWN, whole)?;
    let body = CreateBody {
        url: fields.text("url"),
        alias: fields.text("alias"),
        title: fields.text("title"),
        tags: fields.texts("tags"),
        expires_at: fields.text("expires_at"),
        valid_from: fields.text("valid_from"),
    };
    body.check(fields, policy)
}

/// Reads `json` as an edit.
///
/// # Errors
/// 422 with all faults.
pub(crate) fn patch(json: Json, policy: &UrlPolicy) -> Result<Patch, Problem> {
    const KNOWN: [&str; 6] = ["url", "title", "tags", "state", "expires_at", "valid_from"];
    let mut fields = Fields::of(json, &KNOWN, "body")?;
    let body = EditBody {
        url: fields.text("url"),
        title: fields.text("title"),
        tags: fields.texts("tags"),
        state: fields.text("state"),
        expires_at: fields.text("expires_at"),
        valid_from: fields.text("valid_from"),
    };
    body.check(fields, policy)
}

impl CreateBody {
    fn check(self, mut fields: Fields, policy: &UrlPolicy) -> Result<Draft, Problem> {
        let url = match self.url {
            Some(Some(url)) => fields.check("url", url, |url| target(&url, policy)),
            Some(None) => null_fault(&mut fields, "url"),
            None => {
                if !fields.has_fault("url") {
                    fields.fault("url", "required", "is required");
                }
                None
            }
        };
        let alias = self.alias.flatten().and_then(|text| fields.check("alias", text, |text| alias(&text)));
        let title = self.title.flatten().and_then(|text| fields.check("title", text, |text| title(&text)));
        let tags = self.tags.flatten().and_then(|texts| fields.check("tags", texts, |texts| tags(&texts)));
        let expires_at =
            self.expires_at.flatten().and_then(|text| fields.check("expires_at", text, |text| time(&text)));
        let valid_from =
            self.valid_from.flatten().and_then(|text| fields.check("valid_from", text, |text| time(&text)));
        let draft =
            url.map(|target| Draft { target, alias, title, tags: tags.unwrap_or_default(), expires_at, valid_from });
        fields.finish(draft)
    }
}

impl EditBody {
    fn check(self, mut fields: Fields, policy: &UrlPolicy) -> Result<Patch, Problem> {
        let patch = Patch {
            target: match self.url {
                Some(Some(url)) => fields.check("url", url, |url| target(&url, policy)),
                Some(None) => null_fault(&mut fields, "url"),
                None => None,
            },
            title: self.title.and_then(|text| cleared(&mut fields, "title", text, |text| title(&text))),
            tags: self.tags.and_then(|texts| match texts {
                Some(texts) => fields.check("tags", texts, |texts| tags(&texts)),
                None => Some(Tags::default()),
            }),
            state: match self.state {
                Some(Some(word)) => fields.check("state", word, |word| state(&word)),
                Some(None) => null_fault(&mut fields, "state"),
                None => None,
            },
            expires_at: self.expires_at.and_then(|text| cleared(&mut fields, "expires_at", text, |text| time(&text))),
            valid_from: self.valid_from.and_then(|text| cleared(&mut fields, "valid_from", text, |text| time(&text))),
        };
        fields.finish(Some(patch))
    }
}

/// Null clears, a text is checked.
fn cleared<T>(
    fields: &mut Fields,
    name: &'static str,
    text: Option<String>,
    parse: impl FnOnce(String) -> Result<T, TextFault>,
) -> Option<Option<T>> {
    match text {
        Some(text) => fields.check(name, text, parse).map(Some),
        None => Some(None),
    }
}

fn null_fault<T>(fields: &mut Fields, name: &'static str) -> Option<T> {
    fields.fault(name, "wrong_type", "must be a string, not null");
    None
}

pub(crate) fn target(text: &str, policy: &UrlPolicy) -> Result<TargetUrl, TextFault> {
    policy.check(text).map_err(|error| (error.code(), error.to_string()))
}

pub(crate) fn alias(text: &str) -> Result<Alias, TextFault> {
    Alias::parse(text).map_err(|error| {
        let code = match error {
            CodeError::Empty => "empty",
            CodeError::TooLong => "too_long",
            CodeError::BadCharacter => "bad_character",
            CodeError::Reserved => "reserved",
        };
        (code, error.to_string())
    })
}

fn title(text: &str) -> Result<Title, TextFault> {
    Title::parse(text).map_err(|error| ("out_of_bounds", error.to_string()))
}

fn tags(texts: &[String]) -> Result<Tags, TextFault> {
    Tags::parse(texts).map_err(|error| ("out_of_bounds", error.to_string()))
}

fn time(text: &str) -> Result<Timestamp, TextFault> {
    Timestamp::parse(text).map_err(|error| ("bad_time", error.to_string()))
}

fn state(word: &str) -> Result<LinkState, TextFault> {
    match LinkState::parse(word) {
        Some(state) if state != LinkState::Deleted => Ok(state),
        _ => Err(("bad_value", "must be active, disabled or blocked".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::problem::Kind;

    fn policy() -> UrlPolicy {
        UrlPolicy::new("go.example.org", false)
    }

    fn read(text: &str) -> Result<Draft, Problem> {
        draft(Json::parse(text.as_bytes())?, "body", &policy())
    }

    #[test]
    fn a_draft_has_what_was_sent() {
        let text = r#"{"url":"https://example.com/","alias":"a-1","title":"t","tags":["x"],
            "valid_from":"2026-01-01T00:00:00Z"}"#;
        let draft = read(text).unwrap();
        assert_eq!(draft.target.as_str(), "https://example.com/");
        assert_eq!(draft.alias.unwrap().as_code().as_str(), "a-1");
        assert_eq!(draft.title.unwrap().as_str(), "t");
        assert_eq!(draft.tags.as_slice(), ["x"]);
        assert_eq!(draft.valid_from, Timestamp::parse("2026-01-01T00:00:00Z").ok());
        assert_eq!(draft.expires_at, None);
    }

    #[test]
    fn null_is_absent_in_a_draft_but_clears_in_an_edit() {
        let text = r#"{"title":null,"tags":null,"expires_at":null,"valid_from":null}"#;
        let with_url = text.replacen('{', "{\"url\":\"https://example.com/\",\"alias\":null,", 1);
        let draft = read(&with_url).unwrap();
        assert!(draft.alias.is_none() && draft.title.is_none() && draft.tags.as_slice().is_empty());
        let patch = patch(Json::parse(text.as_bytes()).unwrap(), &policy()).unwrap();
        assert_eq!((patch.title, patch.expires_at, patch.valid_from), (Some(None), Some(None), Some(None)));
        assert_eq!(patch.tags, Some(Tags::default()));
    }

    #[test]
    fn an_empty_edit_keeps_everything() {
        let patch = patch(Json::Object(Vec::new()), &policy()).unwrap();
        assert!(patch.target.is_none() && patch.title.is_none() && patch.tags.is_none() && patch.state.is_none());
        assert!(patch.expires_at.is_none() && patch.valid_from.is_none());
    }

    #[test]
    fn a_faulty_url_is_not_also_missing() {
        for text in ["{\"url\":1}", "{\"url\":null}", "{\"url\":\"x:\"}", "{}"] {
            assert_eq!(read(text).unwrap_err().errors.len(), 1, "{text}");
        }
    }

    proptest! {
        /// Whatever arrives under the known names ends as a draft or as faults of these names.
        #[test]
        fn any_values_give_a_draft_or_named_faults(
            values in proptest::collection::vec(
                (prop::sample::select(vec!["url", "alias", "title", "tags", "expires_at", "valid_from", "other"]),
                 prop_oneof![
                     Just("null".to_owned()), Just("1".to_owned()), Just("[1]".to_owned()), Just("[\"a\"]".to_owned()),
                     Just("\"https://example.com/\"".to_owned()), Just("{}".to_owned()), Just("false".to_owned()),
                     any::<String>().prop_map(|text| serde_json::Value::from(text).to_string())]),
                0..8)
        ) {
            let members: Vec<_> = values.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
            match read(&format!("{{{}}}", members.join(","))) {
                Ok(draft) => prop_assert!(draft.target.as_str().starts_with("http")),
                Err(problem) => {
                    prop_assert_eq!(problem.kind, Kind::Invalid);
                    prop_assert!(!problem.errors.is_empty());
                    for fault in &problem.errors {
                        let named = fault.field == "url" || values.iter().any(|(name, _)| *name == fault.field);
                        prop_assert!(named, "{:?}", fault);
                    }
                }
            }
        }
    }
}
