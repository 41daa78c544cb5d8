//! Liveness, readiness, and the health of what terse depends on.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use futures_util::future::{join, join_all};
use serde::Serialize;
use terse_core::ports::{DependencyHealth, StoreError, StoreErrorKind};
use utoipa::ToSchema;

use crate::{Phase, State};

/// How long a dependency may take to answer; after that it counts as down.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// What stands before the name of a shard.
const STORE: &str = "store:";

/// The content type of `/health`.
pub(crate) const CONTENT_TYPE: &str = "application/health+json";

/// How well something works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// Everything works.
    Ok,
    /// terse works, but something that it can do without does not.
    Degraded,
    /// It does not work.
    Down,
}

/// One thing that terse depends on.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = HealthCheck)]
pub(crate) struct Check {
    /// What it is; behind a dependency come the values that it measures of itself.
    #[schema(example = "store:main")]
    name: String,
    status: Status,
    /// Why it is not ok.
    #[schema(value_type = Option<String>, example = json!(null), required)]
    reason: Option<&'static str>,
    /// How much was measured, if this is about a value.
    #[serde(rename = "observedValue", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = 120)]
    observed_value: Option<u64>,
    /// Of what.
    #[serde(rename = "observedUnit", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, nullable = false, example = "ms")]
    observed_unit: Option<&'static str>,
    /// What an operator is to know, if there is more than a reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "see terse dead list")]
    output: Option<String>,
}

/// The answer of `/health`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Health)]
pub(crate) struct Report {
    status: Status,
    /// The release of terse.
    #[schema(value_type = String)]
    release: &'static str,
    /// How long the server has been running, in seconds.
    uptime_s: u64,
    /// One entry per dependency, and one per value that it measures of itself.
    checks: Vec<Check>,
}

/// When the server was made, on the monotonic clock.
#[derive(Clone, Copy)]
pub(crate) struct StartedMs(pub(crate) u64);

/// Whether the process answers at all.
#[utoipa::path(get, path = "/livez", operation_id = "livez", tag = "operation",
    responses((status = 200, description = "Alive", body = String, content_type = "text/plain")))]
pub(crate) async fn livez() -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain; charset=utf-8").body("alive\n")
}

/// Whether requests should be sent here.
#[utoipa::path(get, path = "/readyz", operation_id = "readyz", tag = "operation",
    responses((status = 200, description = "Ready", body = String, content_type = "text/plain"),
        (status = 503, description = "Starting or draining", body = String, content_type = "text/plain",
            headers(("Retry-After" = u64, description = "Seconds")))))]
pub(crate) async fn readyz(state: web::Data<State>) -> HttpResponse {
    let (status, word) = match state.lifecycle.phase() {
        Phase::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
        Phase::Ready => (StatusCode::OK, "ready\n"),
        Phase::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
    };
    let mut response = HttpResponse::build(status);
    if status != StatusCode::OK {
        response.insert_header(("Retry-After", "1"));
    }
    response.content_type("text/plain; charset=utf-8").body(word)
}

/// What terse depends on, and whether that works. One of several shards down is `degraded`, and so is a shard that takes
/// no writes (`reason` is `writes`): its links redirect.
#[utoipa::path(get, path = "/health", operation_id = "health", tag = "operation",
    responses((status = 200, description = "Everything works, or what is down can be done without",
            body = Report, content_type = "application/health+json"),
        (status = 503, description = "The store is down", body = Report, content_type = "application/health+json",
            headers(("Retry-After" = u64, description = "Seconds")))))]
pub(crate) async fn health(state: web::Data<State>, started: web::Data<StartedMs>) -> HttpResponse {
    let stores = async {
        let store = &state.store_health;
        // One that hangs says nothing of the other.
        let reads = tokio::time::timeout(CHECK_TIMEOUT, store.check());
        let writes = tokio::time::timeout(CHECK_TIMEOUT, store.check_writes(false));
        match join(reads, writes).await {
            (Ok(shards), writes) => of_shards(shards, writes.ok().as_deref()),
            (Err(_), _) => (Status::Down, vec![down("store".to_owned(), "timeout")]),
        }
    };
    let dependencies = join_all(state.dependencies.iter().map(|dependency| ask(&**dependency)));
    let (stores, dependencies) = join(stores, dependencies).await;
    let (mut status, mut checks) = stores;
    let dependencies: Vec<Check> = dependencies.into_iter().flatten().collect();
    if status == Status::Ok && dependencies.iter().any(|check| check.status != Status::Ok) {
        status = Status::Degraded;
    }
    checks.extend(dependencies);
    let report = Report {
        status,
        release: state.settings.release,
        uptime_s: state.clock.monotonic_ms().saturating_sub(started.0) / 1_000,
        checks,
    };
    let code = if status == Status::Down { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    let mut response = HttpResponse::build(code);
    if status == Status::Down {
        response.insert_header(("Retry-After", "1"));
    }
    response.insert_header(("Content-Type", CONTENT_TYPE)).body(serde_json::to_vec(&report).unwrap_or_default())
}

/// All shards down = down; some = degraded, since the others' links work. One that takes no writes is degraded: its links
/// redirect. `unwritable` = those; `None` = nobody could tell in time.
fn of_shards(
    shards: Vec<(String, Result<(), StoreError>)>,
    unwritable: Option<&[(String, StoreError)]>,
) -> (Status, Vec<Check>) {
    let mut checks: Vec<Check> = shards.into_iter().map(check).collect();
    for shard in checks.iter_mut().filter(|shard| shard.status == Status::Ok) {
        let is_its = |(name, _): &(String, StoreError)| shard.name.strip_prefix(STORE) == Some(name);
        let writes = unwritable.map(|all| all.iter().any(is_its));
        if writes != Some(false) {
            (shard.status, shard.reason) =
                (Status::Degraded, Some(if writes.is_some() { "writes" } else { "timeout" }));
        }
    }
    let status = match checks.iter().filter(|shard| shard.status == Status::Down).count() {
        0 if checks.iter().all(|shard| shard.status == Status::Ok) => Status::Ok,
        down if down == checks.len() => Status::Down,
        _ => Status::Degraded,
    };
    (status, checks)
}

/// What `dependency` says of itself. A value that is too large makes it degraded.
async fn ask(dependency: &dyn DependencyHealth) -> Vec<Check> {
    let name = dependency.name().to_owned();
    let observations = dependency.observe();
    let own = match tokio::time::timeout(CHECK_TIMEOUT, dependency.check()).await {
        Ok(Ok(())) => judged(name, observations.iter().find_map(|value| value.trouble)),
        Ok(Err(reason)) => {
            tracing::debug!(dependency = name, reason, "does not work");
            down(name, "unavailable")
        }
        Err(_) => down(name, "timeout"),
    };
    let values = observations.iter().map(|value| {
        let judged = judged(format!("{}:{}", dependency.name(), value.name), value.trouble);
        Check {
            observed_value: Some(value.value),
            observed_unit: Some(value.unit),
            output: value.detail.clone(),
            ..judged
        }
    });
    std::iter::once(own).chain(values).collect()
}

/// Ok, unless there is trouble.
fn judged(name: String, trouble: Option<&'static str>) -> Check {
    entry(name, if trouble.is_none() { Status::Ok } else { Status::Degraded }, trouble)
}

fn entry(name: String, status: Status, reason: Option<&'static str>) -> Check {
    Check { name, status, reason, observed_value: None, observed_unit: None, output: None }
}

fn down(name: String, reason: &'static str) -> Check {
    entry(name, Status::Down, Some(reason))
}

fn check((shard, answer): (String, Result<(), StoreError>)) -> Check {
    let reason = answer.err().map(|error| match error.kind {
        StoreErrorKind::Unavailable | StoreErrorKind::UnknownOutcome => "unavailable",
        StoreErrorKind::Overloaded => "overloaded",
        StoreErrorKind::Corrupt => "corrupt",
    });
    let status = if reason.is_none() { Status::Ok } else { Status::Down };
    entry(format!("{STORE}{shard}"), status, reason)
}
