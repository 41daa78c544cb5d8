//! `terse keys`: make, list and revoke API keys, beside a running server or without one.

use std::sync::Arc;

use terse_core::access::KeyRequest;
use terse_core::ports::{HomeStore, StoreError};
use terse_core::{ApiKey, Clock, KeyId, Owner, Role, Timestamp};

use super::{in_runtime, note, say};
use crate::cli::{KeyOrder, KeyRole, KeysAction};
use crate::config::shards::ShardBackend;
use crate::config::{AuthMode, Config, values};
use crate::data_dir;
use crate::exit::{Exit, StartError};
use crate::key_directory::MAX_KEYS;
use crate::stores::{Home, store_failure};
use crate::system::{OsEntropy, SystemClock};

/// Most characters of a key's name.
const MAX_NAME_CHARS: usize = 100;

/// Does what was asked for, on the first shard's store.
pub(super) fn keys(config: &Config, action: KeysAction) -> Result<(), StartError> {
    let now = SystemClock::new().now();
    match action {
        KeysAction::Create(order) => {
            let request = request(order, now)?;
            if is_on_disk(config) && !config.data_dir.is_dir() {
                data_dir::create(&config.data_dir)?;
                let made = config.data_dir.display();
                note(&format!("note: the data directory {made} is new; that of a server is named by --data-dir"));
            }
            with_home(config, |store| create(config, store, request, now))
        }
        KeysAction::List => {
            refuse_absent(config)?;
            let all = with_home(config, |store| async move { store.keys().await.map_err(Failure::Store) })?;
            say(&table(&all, now))
        }
        KeysAction::Revoke { id } => {
            let id = KeyId::parse(&id).map_err(StartError::config)?;
            refuse_absent(config)?;
            with_home(config, |store| revoke(store, id, now))
        }
    }
}

/// Whether keys are in a file of the data directory.
fn is_on_disk(config: &Config) -> bool {
    matches!(config.store.shards[0].backend, ShardBackend::Sqlite { .. })
}

fn refuse_absent(config: &Config) -> Result<(), StartError> {
    if is_on_disk(config) { data_dir::refuse_absent(&config.data_dir) } else { Ok(()) }
}

/// Why a command failed: the store, or itself.
enum Failure {
    Store(StoreError),
    Own(StartError),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Opens the store, does `work`, and closes it in any case.
fn with_home<T, W, R>(config: &Config, work: W) -> Result<T, StartError>
where
    W: FnOnce(Arc<dyn HomeStore>) -> R,
    R: Future<Output = Result<T, Failure>>,
{
    let outcome = in_runtime(async {
        let home = Home::open(config).await?;
        let outcome = work(Arc::clone(&home.store)).await;
        home.close();
        Ok(outcome)
    })?;
    outcome.map_err(|failure| match failure {
        Failure::Store(error) => store_failure(&config.store.shards[0].name, &error),
        Failure::Own(error) => error,
    })
}

fn request(order: KeyOrder, now: Timestamp) -> Result<KeyRequest, StartError> {
    let chars = order.name.chars().count();
    if chars == 0 || chars > MAX_NAME_CHARS || order.name.chars().any(char::is_control) {
        let text = format!("--name: must be 1 to {MAX_NAME_CHARS} characters, none of them a control character");
        return Err(StartError::config(text));
    }
    let owner = order.owner.map(|owner| Owner::parse(&owner)).transpose();
    Ok(KeyRequest {
        name: order.name,
        role: match order.role {
            KeyRole::Admin => Role::Admin,
            KeyRole::Writer => Role::Writer,
            KeyRole::Reader => Role::Reader,
        },
        owner: owner.map_err(|error| StartError::config(format_args!("--owner: {error}")))?,
        expires_at: order.expires.map(|text| expiry(&text, now)).transpose()?,
    })
}

/// A time in the future: RFC 3339, or a duration from now.
fn expiry(text: &str, now: Timestamp) -> Result<Timestamp, StartError> {
    let at = match Timestamp::parse(text) {
        Ok(at) => at,
        Err(_) => {
            let duration = values::duration(text).map_err(|_| {
                let text = values::shown(text);
                StartError::config(format_args!(
                    "--expires: must be a time such as 2030-01-31T12:00:00Z or a duration such as 30d, not '{text}'"
                ))
            })?;
            now.plus_millis(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
        }
    };
    if at <= now {
        return Err(StartError::config(format_args!("--expires: {at} is not in the future")));
    }
    Ok(at)
}

async fn create(
    config: &Config,
    store: Arc<dyn HomeStore>,
    request: KeyRequest,
    now: Timestamp,
) -> Result<(), Failure> {
    let keys = store.keys().await?;
    let usable = keys.iter().filter(|key| key.revoked_at.is_none()).count();
    if usable >= MAX_KEYS {
        let text = format!("there are {usable} keys already, as many as a server keeps; revoke some first");
        return Err(Failure::Own(StartError::new(Exit::Unavailable, text)));
    }
    let stranger = request.owner.clone().filter(|owner| keys.iter().all(|key| key.owner != *owner));
    let (key, secret) = ApiKey::issue(request, now, &OsEntropy);
    store.add_key(&key).await?;
    let expiry = key.expires_at.map_or("never expires".to_owned(), |at| format!("expires {at}"));
    let (id, owner, role) = (&key.id, key.owner.as_str(), key.role.as_str());
    note(&format!("key {id} ({role}, owner {owner}, {expiry}); it is shown this once and counts within a second"));
    if let Some(owner) = stranger {
        note(&format!("note: no other key has the owner '{}'", owner.as_str()));
    }
    if config.http.auth == AuthMode::Open {
        note("note: a server with the settings of this command asks for no key: access is open");
    }
    say(secret.reveal()).map_err(Failure::Own)
}

async fn revoke(store: Arc<dyn HomeStore>, id: KeyId, now: Timestamp) -> Result<(), Failure> {
    if !store.revoke_key(&id, now).await? {
        return Err(Failure::Own(StartError::config(format_args!("there is no key '{id}'"))));
    }
    note(&format!("key {id} is revoked; running servers refuse it within a second"));
    Ok(())
}

fn state(key: &ApiKey, now: Timestamp) -> &'static str {
    match key {
        ApiKey { revoked_at: Some(_), .. } => "revoked",
        ApiKey { expires_at: Some(at), .. } if *at <= now => "expired",
        _ => "active",
    }
}

/// The keys as a table.
fn table(keys: &[ApiKey], now: Timestamp) -> String {
    const HEAD: [&str; 7] = ["ID", "NAME", "OWNER", "ROLE", "CREATED", "EXPIRES", "STATE"];
    let rows = keys.iter().map(|key| {
        [
            key.id.to_string(),
            key.name.clone(),
            key.owner.as_str().to_owned(),
            key.role.as_str().to_owned(),
            key.created_at.to_string(),
            key.expires_at.map_or("never".to_owned(), |at| at.to_string()),
            state(key, now).to_owned(),
        ]
    });
    let rows: Vec<[String; 7]> = std::iter::once(HEAD.map(str::to_owned)).chain(rows).collect();
    super::table(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::parse("2026-01-02T00:00:00Z").unwrap()
    }

    fn order(name: &str, expires: Option<&str>, owner: Option<&str>) -> KeyOrder {
        KeyOrder {
            name: name.into(),
            role: KeyRole::Writer,
            expires: expires.map(str::to_owned),
            owner: owner.map(str::to_owned),
        }
    }

    #[test]
    fn an_expiry_is_a_time_or_a_duration_from_now() {
        let at = |text| expiry(text, now()).map(|at| at.to_string());
        assert_eq!(at("30d").unwrap(), "2026-02-01T00:00:00Z");
        assert_eq!(at("12h").unwrap(), "2026-01-02T12:00:00Z");
        assert_eq!(at("2026-01-02T02:00:00+01:00").unwrap(), "2026-01-02T01:00:00Z");
        for text in ["", "soon", "30", "2026-01-01T00:00:00Z", "0s", "2026-02-30T00:00:00Z"] {
            assert_eq!(at(text).unwrap_err().exit, Exit::Config, "{text}");
        }
    }

    #[test]
    fn a_key_needs_a_printable_name_and_a_sound_owner() {
        assert!(request(order("ci", None, Some("team-1")), now()).is_ok());
        for (name, owner) in [("", None), ("a\u{1b}[31m", None), ("ci", Some("")), ("ci", Some("a b"))] {
            assert_eq!(request(order(name, None, owner), now()).unwrap_err().exit, Exit::Config, "{name:?} {owner:?}");
        }
        assert!(request(order(&"x".repeat(101), None, None), now()).is_err());
    }

    #[test]
    fn the_table_shows_each_key_with_its_state_and_no_secret() {
        let issue =
            |name: &str, expires| ApiKey::issue(request(order(name, expires, None), now()).unwrap(), now(), &OsEntropy);
        let (mut revoked, _) = issue("old one", None);
        revoked.revoked_at = Some(now());
        let ((expired, _), (active, secret)) = (issue("short", Some("1h")), issue("long", Some("30d")));
        let text = table(&[revoked, expired, active.clone()], now().plus_millis(2 * 3_600_000));
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("ID") && lines[1].ends_with("never                 revoked"), "{text}");
        assert!(lines[2].ends_with("expired") && lines[3].ends_with("active"));
        assert!(lines[3].starts_with(active.id.as_str()) && !text.contains(secret.reveal()));
    }
}
