//! Reads request bodies, never more than a bound and never longer than a deadline.

use actix_web::dev::Payload;
use actix_web::http::header::{self, HeaderMap};
use actix_web::{HttpMessage, HttpRequest};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;

use crate::State;
use crate::problem::{Kind, Problem};

/// The body of a request that nobody has read yet. It rests in the request's extensions.
pub(crate) struct Incoming(pub(crate) Payload);

/// The whole body of `request`, at most `limit` bytes.
///
/// # Errors
/// 413 as soon as it is known to be larger, 408 when it hasn't arrived in
/// time, 400 when the connection broke or the framing is wrong. The rest of
/// the body is left unread, which closes the connection after the answer.
pub(crate) async fn read(request: &HttpRequest, state: &State, limit: usize) -> Result<Bytes, Problem> {
    read_while(request, state, limit, |_| true).await
}

/// The same, as long as there `is_room` for the bytes that come.
///
/// # Errors
/// As [`read`], and 503 as soon as there is none.
pub(crate) async fn read_while(
    request: &HttpRequest,
    state: &State,
    limit: usize,
    is_room: impl FnMut(usize) -> bool,
) -> Result<Bytes, Problem> {
    if announced_length(request.headers()).is_some_and(|length| length > limit as u64) {
        return Err(too_large(limit));
    }
    let Some(Incoming(mut payload)) = request.extensions_mut().remove::<Incoming>() else {
        return Ok(Bytes::new());
    };
    let timeout = state.settings.bounds.body_timeout;
    let outcome = match tokio::time::timeout(timeout, collect(&mut payload, limit, is_room)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Problem::new(
            Kind::RequestTimeout,
            format!("the body did not arrive within {} ms", timeout.as_millis()),
        )),
    };
    if outcome.is_err() {
        request.extensions_mut().insert(Incoming(payload));
    }
    outcome
}

async fn collect(
    payload: &mut Payload,
    limit: usize,
    mut is_room: impl FnMut(usize) -> bool,
) -> Result<Bytes, Problem> {
    let mut body = BytesMut::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|_| Problem::new(Kind::MalformedJson, "the body ended before it was complete"))?;
        if chunk.len() > limit - body.len() {
            return Err(too_large(limit));
        }
        if !is_room(chunk.len()) {
            return Err(Problem::unavailable(Kind::Overloaded, "too many large bodies are being read", 1_000));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

fn announced_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

fn too_large(limit: usize) -> Problem {
    Problem::new(Kind::BodyTooLarge, format!("at most {limit} bytes are taken here"))
}
