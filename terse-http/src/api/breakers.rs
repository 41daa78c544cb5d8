//! `/api/v1/admin/breakers`: what the breakers do, and an operator's word on it.
//!
//! What is shown and forced is this server's own; other nodes have breakers of
//! their own. A forced state lasts until it is let go or the process ends.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use percent_encoding::percent_decode_str;
use serde::Serialize;
use terse_core::access::Caller;
use terse_core::{KeyId, Timestamp};
use terse_resilience::{Breaker, Counts, Forced, State as Phase, Tally};
use utoipa::ToSchema;

use super::{json, json_body};
use crate::json::{Fields, Json, TextFault};
use crate::problem::{Kind, Problem};
use crate::{State, auth};

/// What a breaker does with calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BreakerState {
    /// Lets all calls through.
    Closed,
    /// Lets a few through, to see whether they succeed.
    HalfOpen,
    /// Lets none through.
    Open,
}

impl From<Phase> for BreakerState {
    fn from(state: Phase) -> Self {
        match state {
            Phase::Closed => Self::Closed,
            Phase::HalfOpen => Self::HalfOpen,
            Phase::Open => Self::Open,
        }
    }
}

/// A state that an operator holds a breaker in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ForcedState {
    /// No call passes.
    Open,
    /// Every call passes, whatever became of the ones before.
    Closed,
}

impl From<Forced> for ForcedState {
    fn from(forced: Forced) -> Self {
        match forced {
            Forced::Open => Self::Open,
            Forced::Closed => Self::Closed,
        }
    }
}

/// A circuit breaker at one moment.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Breaker)]
pub(crate) struct BreakerView<'a> {
    /// What it guards, such as `main/read`.
    name: &'a str,
    state: BreakerState,
    /// What an operator holds it in; null = it decides by itself.
    #[schema(required)]
    forced: Option<ForcedState>,
    /// Since when it is in this state.
    #[schema(format = DateTime, example = "2026-01-02T03:04:05.678Z")]
    since: String,
    /// The rest of its open time, in milliseconds; 0 = it isn't open, is held open, or the next call is a probe.
    open_for_ms: u64,
    /// Failures without a success between them, while closed.
    consecutive_failures: u32,
    probes: ProbesView,
    /// The calls of its sliding window; null = it has none.
    #[schema(required)]
    window: Option<WindowView>,
    counts: CountsView,
    transitions: TransitionsView,
}

/// The probes of a half-open breaker.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BreakerProbes)]
pub(crate) struct ProbesView {
    in_flight: u32,
    succeeded: u32,
}

/// The calls that ended within a breaker's sliding window.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BreakerWindow)]
pub(crate) struct WindowView {
    calls: u32,
    failures: u32,
    slow: u32,
}

/// What happened to calls since the start of the server.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BreakerCounts)]
pub(crate) struct CountsView {
    /// Let through, probes included.
    permitted: u64,
    /// Not let through.
    rejected: u64,
    /// Answered.
    successes: u64,
    /// Not answered, without timeouts.
    failures: u64,
    /// Not answered in time.
    timeouts: u64,
    /// Ended in a way that says nothing about what is guarded.
    ignored: u64,
    /// Given up by the caller.
    abandoned: u64,
    /// Of all these, those that ended when the state they began in was over.
    late: u64,
    /// Let through and not ended.
    in_flight: u64,
}

/// How often a breaker came into each state since the start of the server.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BreakerTransitions)]
pub(crate) struct TransitionsView {
    closed: u64,
    half_open: u64,
    open: u64,
}

/// All breakers of the server.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BreakerList)]
pub(crate) struct BreakersView<'a> {
    items: Vec<BreakerView<'a>>,
}

/// How a breaker shall be held.
#[derive(Debug, ToSchema)]
#[schema(as = Force)]
#[serde(deny_unknown_fields)]
pub(crate) struct ForceBody {
    /// The state to hold it in; null = let it go, to prove itself half-open if it was held open.
    #[schema(value_type = Option<ForcedState>, required, example = json!(null))]
    #[allow(dead_code, reason = "it describes the API; the field is read by name")]
    force: Option<Forced>,
}

impl<'a> BreakerView<'a> {
    /// `breaker` as it is `now`.
    fn of(name: &'a str, breaker: &Breaker, now: Timestamp) -> Self {
        let seen = breaker.snapshot();
        let [closed, half_open, open] = seen.transitions_to;
        let age_ms = i64::try_from(seen.age_ms).unwrap_or(i64::MAX);
        Self {
            name,
            state: seen.state.into(),
            forced: seen.forced.map(Into::into),
            since: now.plus_millis(-age_ms).to_string(),
            open_for_ms: seen.open_for_ms,
            consecutive_failures: seen.consecutive_failures,
            probes: ProbesView { in_flight: seen.probes_in_flight, succeeded: seen.probes_succeeded },
            window: seen.window.map(|Tally { calls, failures, slow }| WindowView { calls, failures, slow }),
            counts: seen.counts.into(),
            transitions: TransitionsView { closed, half_open, open },
        }
    }
}

impl From<Counts> for CountsView {
    fn from(counts: Counts) -> Self {
        let in_flight = counts.in_flight();
        let Counts { permitted, rejected, successes, failures, timeouts, ignored, abandoned, late } = counts;
        Self { permitted, rejected, successes, failures, timeouts, ignored, abandoned, late, in_flight }
    }
}

/// Lists the breakers of this server.
#[utoipa::path(
    get, path = "/api/v1/admin/breakers", operation_id = "list_breakers", tag = "breakers",
    responses((status = 200, description = "All of them, in a fixed order", body = BreakersView))
)]
pub(crate) async fn list(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, Problem> {
    auth::admin(&request, &state)?;
    let now = state.clock.now();
    let items = state.breakers.iter().map(|(name, breaker)| BreakerView::of(name, breaker, now)).collect();
    json(StatusCode::OK, &BreakersView { items })
}

/// Reads a breaker.
#[utoipa::path(
    get, path = "/api/v1/admin/breakers/{name}", operation_id = "read_breaker", tag = "breakers",
    params(("name" = String, Path, description = "The breaker's name; its slash may be written as `%2F`")),
    responses((status = 200, description = "The breaker", body = BreakerView))
)]
pub(crate) async fn read(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, Problem> {
    auth::admin(&request, &state)?;
    let name = name(&request)?;
    show(&name, find(&name, &state)?, &state)
}

/// Holds a breaker in a state, or lets it go.
#[utoipa::path(
    put, path = "/api/v1/admin/breakers/{name}", operation_id = "force_breaker", tag = "breakers",
    params(("name" = String, Path, description = "The breaker's name; its slash may be written as `%2F`")),
    request_body(content = ForceBody),
    responses((status = 200, description = "The breaker as it is now", body = BreakerView))
)]
pub(crate) async fn force(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, Problem> {
    let caller = auth::admin(&request, &state)?;
    let name = name(&request)?;
    let breaker = find(&name, &state)?;
    let bytes = json_body(&request, &state, state.settings.bounds.body_bytes).await?;
    let forced = forced(Json::parse(&bytes)?)?;
    tell(&caller, &name, forced);
    breaker.force(forced);
    show(&name, breaker, &state)
}

/// An operator's word is told with who gave it.
fn tell(caller: &Caller, breaker: &str, forced: Option<Forced>) {
    let key = caller.key.as_ref().map_or("-", KeyId::as_str);
    let force = match forced {
        Some(Forced::Open) => "open",
        Some(Forced::Closed) => "closed",
        None => "none",
    };
    tracing::warn!(breaker, force, key, "an operator forced a breaker or let it go");
}

fn show(name: &str, breaker: &Breaker, state: &State) -> Result<HttpResponse, Problem> {
    json(StatusCode::OK, &BreakerView::of(name, breaker, state.clock.now()))
}

/// The name in the path. The router leaves `%2F` as it is.
fn name(request: &HttpRequest) -> Result<String, Problem> {
    let encoded = request.match_info().get("name").unwrap_or_default();
    let decoded = percent_decode_str(encoded).decode_utf8().map_err(|_| no_such_breaker())?;
    Ok(decoded.into_owned())
}

fn find<'s>(name: &str, state: &'s State) -> Result<&'s Breaker, Problem> {
    state.breakers.get(name).map(AsRef::as_ref).ok_or_else(no_such_breaker)
}

fn no_such_breaker() -> Problem {
    Problem::new(Kind::NotFound, "there is no such breaker")
}

/// Reads `json` as what a breaker shall be held in.
///
/// # Errors
/// 422 with all faults.
fn forced(json: Json) -> Result<Option<Forced>, Problem> {
    let mut fields = Fields::of(json, &["force"], "body")?;
    let forced = match fields.text("force") {
        Some(Some(word)) => fields.check("force", word, |word| forced_by(&word)).map(Some),
        Some(None) => Some(None),
        None => {
            if !fields.has_fault("force") {
                fields.fault("force", "required", "is required");
            }
            None
        }
    };
    fields.finish(forced)
}

fn forced_by(word: &str) -> Result<Forced, TextFault> {
    match word {
        "open" => Ok(Forced::Open),
        "closed" => Ok(Forced::Closed),
        _ => Err(("bad_value", "must be open, closed or null".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<Forced>, Vec<String>> {
        forced(Json::parse(text.as_bytes()).unwrap())
            .map_err(|problem| problem.errors.iter().map(|fault| format!("{}: {}", fault.field, fault.code)).collect())
    }

    #[test]
    fn a_breaker_is_forced_or_let_go() {
        assert_eq!(read("{\"force\":\"open\"}"), Ok(Some(Forced::Open)));
        assert_eq!(read("{\"force\":\"closed\"}"), Ok(Some(Forced::Closed)));
        assert_eq!(read("{\"force\":null}"), Ok(None));
    }

    #[test]
    fn every_fault_of_the_body_is_named() {
        let faults = |list: &[&str]| Err(list.iter().map(|fault| (*fault).to_owned()).collect());
        assert_eq!(read("{}"), faults(&["force: required"]));
        assert_eq!(read("{\"force\":\"half_open\"}"), faults(&["force: bad_value"]));
        assert_eq!(read("{\"force\":\"Open\"}"), faults(&["force: bad_value"]));
        assert_eq!(read("{\"force\":true}"), faults(&["force: wrong_type"]));
        assert_eq!(read("{\"forced\":\"open\"}"), faults(&["forced: unknown_field", "force: required"]));
        assert_eq!(read("{\"force\":null,\"force\":null}"), faults(&["force: duplicate_field"]));
        assert_eq!(read("[]"), faults(&["body: wrong_type"]));
    }
}
