//! Who is calling, and what they may do.

use actix_web::http::header;
use actix_web::{HttpMessage, HttpRequest};
use terse_core::Role;
use terse_core::Timestamp;
use terse_core::access::{Caller, Denied};

use crate::problem::{Kind, Problem};
use crate::{Access, State};

/// The caller of `request`.
///
/// # Errors
/// 401 without a valid key, 503 when keys can't be checked.
pub(crate) fn caller(request: &HttpRequest, state: &State) -> Result<Caller, Problem> {
    let Access::Keys(_) = &state.access else {
        return Ok(Caller::open());
    };
    if let Some(known) = request.extensions().get::<Caller>() {
        return Ok(known.clone());
    }
    let presented = bearer(request)
        .ok_or_else(|| Problem::new(Kind::Unauthorized, "send an API key as 'Authorization: Bearer trs_…'"))?;
    let caller = holder(presented, state, state.clock.now())?;
    remember(request, &caller);
    Ok(caller)
}

/// The caller of `request`, who must be allowed to create and change links.
///
/// # Errors
/// As [`caller`], and 403.
pub(crate) fn writer(request: &HttpRequest, state: &State) -> Result<Caller, Problem> {
    may_write(caller(request, state)?)
}

/// The caller of `request`, who must be an admin.
///
/// # Errors
/// As [`caller`], and 403.
pub(crate) fn admin(request: &HttpRequest, state: &State) -> Result<Caller, Problem> {
    let caller = caller(request, state)?;
    match caller.role {
        Role::Admin => Ok(caller),
        Role::Writer | Role::Reader => {
            let detail = format!("the key's role is {}, and this needs admin", caller.role.as_str());
            Err(Problem::new(Kind::Forbidden, detail))
        }
    }
}

/// Notes the caller, who is not asked for again, and the key's id for the access log.
pub(crate) fn remember(request: &HttpRequest, caller: &Caller) {
    if let Some(key) = caller.key.clone() {
        request.extensions_mut().insert(key);
    }
    request.extensions_mut().insert(caller.clone());
}

/// `caller`, if its role allows to create and change links.
///
/// # Errors
/// 403.
pub(crate) fn may_write(caller: Caller) -> Result<Caller, Problem> {
    if caller.role.may_write() {
        Ok(caller)
    } else {
        Err(Problem::new(Kind::Forbidden, "the key's role is reader, and this needs writer or admin"))
    }
}

/// The holder of the key `presented`; while access is open, everybody.
///
/// # Errors
/// As [`caller`].
pub(crate) fn holder(presented: &str, state: &State, now: Timestamp) -> Result<Caller, Problem> {
    let Access::Keys(keys) = &state.access else {
        return Ok(Caller::open());
    };
    keys.authenticate(presented, now).map_err(|denied| match denied {
        Denied::Unknown => Problem::new(Kind::Unauthorized, "the API key is not valid"),
        Denied::Unavailable => {
            Problem::unavailable(Kind::KeysUnavailable, "API keys could not be read for too long", 1_000)
        }
    })
}

/// The text after `Bearer `, if there is exactly one such header.
fn bearer(request: &HttpRequest) -> Option<&str> {
    let mut values = request.headers().get_all(header::AUTHORIZATION);
    let value = values.next()?.to_str().ok()?;
    let (scheme, key) = value.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && values.next().is_none()).then_some(key.trim())
}
