//! Links as they go out.

use serde::Serialize;
use terse_core::Link;
use utoipa::ToSchema;

/// A link.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Link)]
pub(crate) struct LinkView<'a> {
    /// Its code; belongs to this link for ever.
    #[schema(pattern = "^[A-Za-z0-9_-]{1,64}$", example = "q3bT9xK")]
    code: &'a str,
    /// What to give to people.
    #[schema(format = "uri", example = "http://localhost:8080/q3bT9xK")]
    short_url: String,
    /// Where it leads.
    #[schema(format = "uri", max_length = 8192, example = "https://example.com/a/long/path?x=1")]
    url: &'a str,
    #[schema(required, max_length = 200, example = "The long path")]
    title: Option<&'a str>,
    #[schema(max_items = 20, example = json!(["docs"]))]
    tags: &'a [String],
    /// Whether it redirects, apart from its validity in time.
    #[schema(value_type = State)]
    state: &'static str,
    #[schema(format = DateTime, example = "2026-01-02T03:04:05.678Z")]
    created_at: String,
    #[schema(format = DateTime, example = "2026-01-02T03:04:05.678Z")]
    updated_at: String,
    /// From when on it answers 410.
    #[schema(required, format = DateTime, example = json!(null))]
    expires_at: Option<String>,
    /// Until when it answers 404.
    #[schema(required, format = DateTime, example = json!(null))]
    valid_from: Option<String>,
    /// How often it was written; its `ETag`.
    #[schema(minimum = 1, example = 1)]
    version: u64,
}

/// The states of a link.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[allow(dead_code, reason = "it describes the API; the words themselves are the domain's")]
pub(crate) enum State {
    /// Redirects.
    Active,
    /// Switched off by its owner: 410.
    Disabled,
    /// Refused by an administrator: 451. Only an admin may set or lift it.
    Blocked,
}

impl<'a> LinkView<'a> {
    /// `link`, reachable under `public_url`.
    pub(crate) fn of(link: &'a Link, public_url: &str) -> Self {
        Self {
            code: link.code.as_str(),
            short_url: format!("{public_url}/{}", link.code),
            url: link.target.as_str(),
            title: link.title.as_ref().map(terse_core::Title::as_str),
            tags: link.tags.as_slice(),
            state: link.state.as_str(),
            created_at: link.created_at.to_string(),
            updated_at: link.updated_at.to_string(),
            expires_at: link.expires_at.map(|at| at.to_string()),
            valid_from: link.valid_from.map(|at| at.to_string()),
            version: link.version.0,
        }
    }
}

/// A page of links.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LinkPage<'a> {
    /// Newest first.
    #[schema(max_items = 200)]
    pub(crate) items: Vec<LinkView<'a>>,
    /// Where the next page begins; null = this is the last one.
    #[schema(required, example = json!(null))]
    pub(crate) next_cursor: Option<String>,
}
