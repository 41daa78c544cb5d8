//! What is told of links: the JSON of events, and what an intent turns out to have been.

use serde::{Deserialize, Serialize};
use terse_core::ports::events::{Intent, LinkEvent};
use terse_core::{Link, ShortCode, Timestamp, Version};

use super::file::Kind;

/// An event that waits to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) kind: Kind,
    pub(super) json: Vec<u8>,
}

impl Told {
    /// The event `id`. Of a deleted link only its code and version are told.
    pub(super) fn of(event: LinkEvent<'_>, id: &str) -> serde_json::Result<Self> {
        let link = event.link();
        let (kind, at) = match event {
            LinkEvent::Created(_) => (Kind::Created, link.created_at),
            LinkEvent::Changed(_) => (Kind::Changed, link.updated_at),
            LinkEvent::Deleted(_) => (Kind::Deleted, link.updated_at),
        };
        let json = serde_json::to_vec(&Event {
            kind: kind.event_type().unwrap_or_default(),
            id,
            at: at.to_string(),
            code: link.code.as_str(),
            version: link.version.0,
            link: (kind != Kind::Deleted).then(|| Facts::of(link)),
        })?;
        Ok(Self { kind, json })
    }
}

#[derive(Serialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    at: String,
    code: &'a str,
    version: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<Facts<'a>>,
}

/// A link as the API tells it.
#[derive(Serialize)]
struct Facts<'a> {
    url: &'a str,
    title: Option<&'a str>,
    tags: &'a [String],
    state: &'static str,
    created_at: String,
    updated_at: String,
    expires_at: Option<String>,
    valid_from: Option<String>,
}

impl<'a> Facts<'a> {
    fn of(link: &'a Link) -> Self {
        Self {
            url: link.target.as_str(),
            title: link.title.as_ref().map(|title| title.as_str()),
            tags: link.tags.as_slice(),
            state: link.state.as_str(),
            created_at: link.created_at.to_string(),
            updated_at: link.updated_at.to_string(),
            expires_at: link.expires_at.map(|at| at.to_string()),
            valid_from: link.valid_from.map(|at| at.to_string()),
        }
    }
}

/// An intent as it is noted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Noted {
    code: String,
    version: u64,
    /// Of a link that was about to be created: when, in milliseconds, by which it is known again, and the event.
    created: Option<(i64, Vec<u8>)>,
}

/// Why an intent can't be noted.
#[derive(Debug, thiserror::Error)]
#[error("an event can't be written: {0}")]
pub(super) struct Unwritable(String);

impl Noted {
    /// `intent`, whose event gets this `id`.
    pub(super) fn of(intent: Intent<'_>, id: &str) -> Result<Self, Unwritable> {
        match intent {
            Intent::Create(link) => {
                let told = Told::of(LinkEvent::Created(link), id).map_err(|error| Unwritable(error.to_string()))?;
                let created = Some((link.created_at.as_millis(), told.json));
                Ok(Self { code: link.code.as_str().to_owned(), version: link.version.0, created })
            }
            Intent::Change { code, version } => {
                Ok(Self { code: code.as_str().to_owned(), version: version.0, created: None })
            }
        }
    }

    pub(super) fn encode(&self) -> Result<Vec<u8>, Unwritable> {
        postcard::to_stdvec(self).map_err(|error| Unwritable(error.to_string()))
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        postcard::from_bytes(bytes).ok()
    }

    /// The code of its link; `None` = it is none.
    pub(super) fn code(&self) -> Option<ShortCode> {
        ShortCode::parse(&self.code).ok()
    }

    /// What is to be told, judging by the link as it stands now; `None` = it didn't happen, or somebody else's link is
    /// there. A change that was followed by others is told as what came of them all.
    pub(super) fn judge(&self, link: Option<&Link>, id: &str) -> serde_json::Result<Option<Told>> {
        let Some(link) = link else { return Ok(None) };
        match &self.created {
            Some((at, json)) if Timestamp::from_millis(*at) == link.created_at => {
                Ok(Some(Told { kind: Kind::Created, json: json.clone() }))
            }
            Some(_) => Ok(None),
            None if link.version >= Version(self.version) => Told::of(LinkEvent::of_change(link), id).map(Some),
            None => Ok(None),
        }
    }
}
