//! Rate limits under more than they let through: one that two servers share,
//! with Redis killed meanwhile; somebody who tries codes at random; more
//! addresses than a limit has room for.
//!
//! Who asks is told by the header of a trusted proxy, which this machine is, so
//! one machine is many clients.

mod enumeration;
mod flood;
mod shared;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ScopedJoinHandle;

use super::is_refused;
use crate::load::Answer;
use crate::{Connection, Request, Response, Setup};

pub(super) use enumeration::enumeration;
pub(super) use flood::flood;
pub(super) use shared::shared;

/// Connections of whoever tries codes, or asks from many addresses, a thread each.
const THREADS: usize = 16;

fn limited(setup: Setup, file: &str) -> Setup {
    setup.env("TERSE_LIMITS", "on").env("TERSE_TRUSTED_PROXIES", "127.0.0.0/8").file(file)
}

fn from_address(request: Request, address: &str) -> Request {
    request.header("X-Forwarded-For", address)
}

/// 429, which tells when to come back and which limit it is.
fn is_limited(answer: &Response) -> bool {
    let told = answer.header("retry-after").is_some() && answer.header("ratelimit-policy").is_some();
    assert!(answer.status != 429 || told, "{answer:?}");
    answer.status == 429
}

/// What an answer is to whoever asked, who wanted that.
fn told(good: bool, answer: &Response) -> Answer {
    match answer.status {
        _ if good => Answer::Answered,
        429 => Answer::Refused,
        _ if is_refused(answer) => Answer::Refused,
        _ => Answer::Failed,
    }
}

/// Tells all who look at it that it is over, also when whoever holds this fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// What a client found, or its failure.
pub(super) fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    crate::joined(thread.join())
}

/// The answer to a request.
pub(super) fn call(wire: &mut Connection, request: &Request) -> Response {
    wire.call(request).unwrap_or_else(|error| panic!("no answer to {request:?}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, headers: &[&str]) -> Response {
        let headers = headers.iter().map(|name| ((*name).to_owned(), "1".to_owned())).collect();
        Response { status, headers, body: vec![] }
    }

    #[test]
    fn a_429_tells_its_limit_and_when_to_come_back() {
        assert!(is_limited(&answer(429, &["Retry-After", "RateLimit-Policy"])));
        assert!(!is_limited(&answer(404, &[])));
        for headers in [&["Retry-After"][..], &["RateLimit-Policy"], &[]] {
            assert!(std::panic::catch_unwind(|| is_limited(&answer(429, headers))).is_err(), "{headers:?}");
        }
    }

    #[test]
    fn what_is_limited_or_refused_is_told_from_what_is_wrong() {
        assert_eq!(told(true, &answer(422, &[])), Answer::Answered);
        assert_eq!(told(false, &answer(429, &[])), Answer::Refused);
        assert_eq!(told(false, &answer(503, &["retry-after"])), Answer::Refused);
        assert_eq!(told(false, &answer(503, &[])), Answer::Failed);
        assert_eq!(told(false, &answer(200, &[])), Answer::Failed);
    }
}
