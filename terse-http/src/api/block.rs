//! `/api/v1/admin/block`: the hosts that admins block while servers run.
//!
//! The list is the deployment's: a change is durable when it is answered, counts on this server at once and on the
//! others within a second. Beside it each server may have a file of blocked hosts, which can't be changed here.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use terse_core::access::Caller;
use terse_core::ports::blocking::BlockChange;
use terse_core::{BlockedHost, KeyId};
use utoipa::ToSchema;

use super::{json, json_body};
use crate::json::{Fields, Json, TextFault};
use crate::problem::Problem;
use crate::{State, auth};

/// The hosts that are blocked.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BlockList)]
pub(crate) struct ListView {
    /// Those that admins block, in order: a name covers all beneath it, an address itself.
    #[schema(max_items = 1000, example = json!(["evil.example"]))]
    items: Vec<String>,
    /// How many further ones the file of this server has.
    of_file: usize,
}

/// A host, and whether links may lead to it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BlockedHost)]
pub(crate) struct HostView {
    /// The host in lower case and punycode.
    #[schema(example = "evil.example")]
    host: String,
    /// Whether it is among those that admins block.
    listed: bool,
    /// Whether links to it answer 451 on this server: for its own sake, for a domain above it, or by the file.
    blocked: bool,
}

/// Which host shall be blocked, or let go.
#[derive(Debug, ToSchema)]
#[schema(as = Block)]
#[serde(deny_unknown_fields)]
pub(crate) struct BlockBody {
    /// A name, which covers all beneath it, or an address; in any spelling.
    #[schema(value_type = String, required, min_length = 1, max_length = 1024, example = "evil.example")]
    #[allow(dead_code, reason = "it describes the API; the field is read by name")]
    host: Option<String>,
    #[schema(value_type = BlockAction, required = false)]
    #[allow(dead_code, reason = "it describes the API; the field is read by name")]
    action: Option<String>,
}

/// What shall become of a host; `block` if it isn't said.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[allow(dead_code, reason = "it describes the API; the words are read as they are")]
pub(crate) enum BlockAction {
    /// Links to it are refused, and those that there are answer 451.
    Block,
    /// No longer.
    Unblock,
}

/// Lists the hosts that admins block.
#[utoipa::path(
    get, path = "/api/v1/admin/block", operation_id = "list_blocked", tag = "block",
    responses((status = 200, description = "All of them, as this server knows them", body = ListView))
)]
pub(crate) async fn list(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, Problem> {
    auth::admin(&request, &state)?;
    let items = state.blocking.hosts().iter().map(BlockedHost::to_string).collect();
    json(StatusCode::OK, &ListView { items, of_file: state.blocking.of_file() })
}

/// Blocks a host on all servers, or lets it go.
#[utoipa::path(
    post, path = "/api/v1/admin/block", operation_id = "block", tag = "block",
    request_body(content = BlockBody),
    responses((status = 200, description = "The host as it is now", body = HostView))
)]
pub(crate) async fn change(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, Problem> {
    let caller = auth::admin(&request, &state)?;
    let bytes = json_body(&request, &state, state.settings.bounds.body_bytes).await?;
    let (host, block) = wanted(Json::parse(&bytes)?)?;
    let change = state.blocking.change(&host, block).await?;
    tell(&caller, &host, block, change);
    if change == BlockChange::Full {
        let detail = "the list has as many hosts as it may have; put more into the file of blocked hosts";
        return Err(Problem::invalid_field("host", "too_many", detail));
    }
    let (listed, blocked) = (block, state.blocking.covers(&host));
    json(StatusCode::OK, &HostView { host: host.to_string(), listed, blocked })
}

/// An admin's word is told with who gave it.
fn tell(caller: &Caller, host: &BlockedHost, block: bool, change: BlockChange) {
    let key = caller.key.as_ref().map_or("-", KeyId::as_str);
    let action = if block { "block" } else { "unblock" };
    tracing::warn!(%host, action, outcome = ?change, key, "an admin blocked a host or let it go");
}

/// Reads `json` as the host that shall be blocked, or let go (`false`).
///
/// # Errors
/// 422 with all faults.
fn wanted(json: Json) -> Result<(BlockedHost, bool), Problem> {
    let mut fields = Fields::of(json, &["host", "action"], "body")?;
    let host = match fields.text("host") {
        Some(Some(text)) => fields.check("host", text, |text| host(&text)),
        found => {
            if !fields.has_fault("host") {
                let code = if found.is_some() { "wrong_type" } else { "required" };
                fields.fault("host", code, "is required");
            }
            None
        }
    };
    let block = match fields.text("action") {
        Some(Some(word)) => fields.check("action", word, |word| action(&word)),
        Some(None) => {
            fields.fault("action", "wrong_type", "must be a string, not null");
            None
        }
        None => Some(true),
    };
    fields.finish(host.zip(block))
}

fn host(text: &str) -> Result<BlockedHost, TextFault> {
    BlockedHost::parse(text).map_err(|error| ("invalid_host", error.to_string()))
}

fn action(word: &str) -> Result<bool, TextFault> {
    match word {
        "block" => Ok(true),
        "unblock" => Ok(false),
        _ => Err(("bad_value", "must be block or unblock".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(String, bool), Vec<String>> {
        wanted(Json::parse(text.as_bytes()).unwrap())
            .map(|(host, block)| (host.to_string(), block))
            .map_err(|problem| problem.errors.iter().map(|fault| format!("{}: {}", fault.field, fault.code)).collect())
    }

    #[test]
    fn a_host_is_blocked_unless_it_is_to_be_let_go() {
        let evil = |block| Ok(("evil.example".to_owned(), block));
        assert_eq!(read("{\"host\":\"Evil.Example.\"}"), evil(true));
        assert_eq!(read("{\"host\":\"evil.example\",\"action\":\"block\"}"), evil(true));
        assert_eq!(read("{\"action\":\"unblock\",\"host\":\"evil.example\"}"), evil(false));
        assert_eq!(read("{\"host\":\"b\u{fc}cher.example\"}"), Ok(("xn--bcher-kva.example".to_owned(), true)));
    }

    #[test]
    fn every_fault_of_the_body_is_named() {
        let faults = |list: &[&str]| Err(list.iter().map(|fault| (*fault).to_owned()).collect());
        assert_eq!(read("{}"), faults(&["host: required"]));
        assert_eq!(read("{\"host\":null}"), faults(&["host: wrong_type"]));
        assert_eq!(read("{\"host\":7}"), faults(&["host: wrong_type"]));
        assert_eq!(read("{\"host\":\"https://evil.example/\"}"), faults(&["host: invalid_host"]));
        assert_eq!(read("{\"host\":\"a.b\",\"action\":\"drop\"}"), faults(&["action: bad_value"]));
        assert_eq!(read("{\"host\":\"a.b\",\"action\":null}"), faults(&["action: wrong_type"]));
        assert_eq!(read("{\"host\":\"\",\"action\":1,\"x\":0}").unwrap_err().len(), 3);
        assert_eq!(read("[]"), faults(&["body: wrong_type"]));
    }
}
