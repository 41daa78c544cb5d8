//! The lane: redirects that memory can answer, beneath the HTTP server.
//!
//! A web worker reads each connection itself. A plain GET or HEAD of a code
//! that memory knows is answered there and then: the click is noted, the answer
//! is put together from prebuilt pieces, and several answers leave in one write.
//! Nothing is allocated for that. Whatever else comes is handed on to
//! actix-http as it was read, over the same connection: a request whose length
//! its head tells by itself, after which the connection returns to the lane;
//! anything else, such as a chunked body, with the rest of the connection.
//!
//! Bounds: [`IN_BYTES`] are read at a time, of which a head must fit into one;
//! beyond [`OUT_BYTES`] of answers nothing is answered until they have left;
//! after [`TURNS`] reads the other connections get their turn.

mod head;
mod line;
mod serve;
mod text;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use terse_core::ShortCode;
use terse_core::code::is_reserved;

use self::head::{Extent, Plain, Read};
use self::text::{Date, Text};
use crate::clicks::Asked;
use crate::redirect::Redirects;
use crate::{Phase, State, request_id};

pub(crate) use self::line::Upper;
pub(crate) use self::serve::serve;

/// Most bytes of one read, and of a head that is understood here.
const IN_BYTES: usize = 16 * 1024;
/// Bytes of answers from which on they are sent before more are made.
const OUT_BYTES: usize = 64 * 1024;
/// Reads of one connection before the others get their turn.
const TURNS: usize = 16;

const NS_PER_MS: u64 = 1_000_000;

/// What answers the redirects of one web worker.
pub(crate) struct Lane {
    state: State,
    redirects: Rc<Redirects>,
    text: Text,
    date: Date,
    buffers: RefCell<Buffers>,
}

/// What a connection is read into and written from, while it has its turn.
struct Buffers {
    input: Box<[u8]>,
    output: Vec<u8>,
}

/// What became of what was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// So many bytes of it were a request, which is answered.
    Answered { length: usize, keep: bool },
    /// It is less than a head.
    Partial,
    /// A request for the HTTP server.
    Alone(Extent),
    /// All that comes is for the HTTP server.
    Strange,
}

impl Lane {
    pub(crate) fn new(state: State, redirects: Rc<Redirects>) -> Self {
        let (status, cache_control) = redirects.said();
        let text = Text::new(status, cache_control);
        let input = vec![0; IN_BYTES].into_boxed_slice();
        let buffers = RefCell::new(Buffers { input, output: Vec::with_capacity(OUT_BYTES) });
        Self { state, redirects, text, date: Date::new(), buffers }
    }

    /// Until a connection's first head must have arrived; `None` = for ever.
    fn head_timeout(&self) -> Option<Duration> {
        Some(self.state.settings.bounds.head_timeout).filter(|timeout| !timeout.is_zero())
    }

    /// Answers what `bytes` of `peer` begin with, if that is a redirect from memory.
    fn step(&self, bytes: &[u8], peer: Option<SocketAddr>, out: &mut Vec<u8>) -> Step {
        let mut room = head::room();
        match head::read(bytes, &mut room) {
            Read::Partial => Step::Partial,
            Read::Strange => Step::Strange,
            Read::Alone(extent) => Step::Alone(extent),
            Read::Plain(plain) => match self.answer(&plain, peer, out) {
                Some(keep) => Step::Answered { length: plain.length, keep },
                None => Step::Alone(Extent { head: plain.length, body: 0 }),
            },
        }
    }

    /// Answers `plain`; whether the connection is kept. `None` = that takes more than memory has.
    fn answer(&self, plain: &Plain<'_, '_>, peer: Option<SocketAddr>, out: &mut Vec<u8>) -> Option<bool> {
        let settings = &self.state.settings;
        if !settings.surfaces.redirect || self.state.limits.redirect.is_some() {
            return None;
        }
        let code = code(plain.target).filter(|_| plain.target.len() <= settings.bounds.uri_bytes)?;
        let started_ns = self.state.clock.monotonic_ns();
        let lookup = self.state.resolver.peek_at(code, started_ns / NS_PER_MS)?;
        let asked = Asked { head: plain.head, code, peer, headers: plain.headers };
        let location = self.redirects.location(&asked, started_ns, lookup)?;
        let draining = self.state.lifecycle.phase() == Phase::Draining;
        let keep = plain.keep && !draining && !settings.bounds.keep_alive.is_zero();
        let date = self.date.at(started_ns / NS_PER_MS, &*self.state.clock);
        let id = plain.id.filter(|id| request_id::is_usable(id));
        self.text.write((plain.version, keep), location.as_bytes(), id, &date, out);
        Some(keep)
    }

    /// Tells who has sent no head in time.
    fn too_late(&self, out: &mut Vec<u8>) {
        text::too_late(&self.date.at(self.state.clock.monotonic_ms(), &*self.state.clock), out);
    }
}

/// The only segment of the path in `target`, if it could be a code and nothing in `target` needs a closer look.
fn code(target: &str) -> Option<&str> {
    let (code, query) = target.strip_prefix('/').map(|rest| rest.split_once('?').unwrap_or((rest, "")))?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?%".contains(&byte);
    (ShortCode::is_valid(code) && !is_reserved(code) && query.bytes().all(plain)).then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_the_only_segment_whatever_plain_query_follows() {
        for target in ["/abc", "/abc?", "/abc?x=1&y=%20/a?b", "/abc?utm_source=a-b.c~d"] {
            assert_eq!(code(target), Some("abc"), "{target}");
        }
        for target in [
            "/", "//abc", "/abc/", "/a%62c", "/abc#x", "/abc?x#y", "/abc?\"", "/abc?a b", "/livez", "abc", "*",
            "/\u{fc}",
        ] {
            assert_eq!(code(target), None, "{target}");
        }
        assert_eq!(code("http://a/abc"), None);
    }
}
