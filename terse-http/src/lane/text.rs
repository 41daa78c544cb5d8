//! The text of redirects, of which all but three pieces is made once.

use std::cell::{Cell, RefCell};
use std::io::Write as _;
use std::time::{Duration, SystemTime};

use actix_http::StatusCode;
use actix_http::header::{HeaderValue, HttpDate};
use terse_core::Clock;

use super::head::Version;

/// How long a date is told before the clock is read again, in milliseconds.
const DATE_MS: u64 = 500;
/// Bytes of a date, as in `Sun, 06 Nov 1994 08:49:37 GMT`.
const DATE_BYTES: usize = 29;

/// A crawler that asks all the same lists no redirect; see [`crate::headers`].
const ROBOTS: &[u8] = b"\r\nx-robots-tag: noindex";

/// What the redirects of one worker have in common.
pub(super) struct Text {
    /// Up to the target: for HTTP/1.1 and kept, closed; for HTTP/1.0 and kept, closed.
    begins: [Vec<u8>; 4],
    /// Behind the target.
    behind: Vec<u8>,
}

/// The date, as it is sent.
pub(super) struct Date {
    text: RefCell<[u8; DATE_BYTES]>,
    /// When it is to be looked at again, in monotonic milliseconds.
    until_ms: Cell<u64>,
}

impl Text {
    pub(super) fn new(status: StatusCode, cache_control: &HeaderValue) -> Self {
        let reason = status.canonical_reason().unwrap_or_default();
        let begin = |version, connection| {
            format!("{version} {} {reason}\r\ncontent-length: 0\r\n{connection}location: ", status.as_u16())
                .into_bytes()
        };
        let begins = [
            begin("HTTP/1.1", ""),
            begin("HTTP/1.1", "connection: close\r\n"),
            begin("HTTP/1.0", "connection: keep-alive\r\n"),
            begin("HTTP/1.0", ""),
        ];
        let behind = [b"\r\ncache-control: ", cache_control.as_bytes(), ROBOTS, b"\r\ndate: "].concat();
        Self { begins, behind }
    }

    /// Writes an answer behind what `out` holds. `id` = what is echoed.
    pub(super) fn write(
        &self,
        (version, keep): (Version, bool),
        location: &[u8],
        id: Option<&[u8]>,
        date: &[u8; DATE_BYTES],
        out: &mut Vec<u8>,
    ) {
        let begin = match (version, keep) {
            (Version::Http11, true) => 0,
            (Version::Http11, false) => 1,
            (Version::Http10, true) => 2,
            (Version::Http10, false) => 3,
        };
        out.extend_from_slice(&self.begins[begin]);
        out.extend_from_slice(location);
        out.extend_from_slice(&self.behind);
        out.extend_from_slice(date);
        if let Some(id) = id {
            out.extend_from_slice(b"\r\nx-request-id: ");
            out.extend_from_slice(id);
        }
        out.extend_from_slice(b"\r\n\r\n");
    }
}

/// Writes the answer to who doesn't send a head in time.
pub(super) fn too_late(date: &[u8; DATE_BYTES], out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\ndate: ");
    out.extend_from_slice(date);
    out.extend_from_slice(b"\r\n\r\n");
}

impl Date {
    pub(super) fn new() -> Self {
        Self { text: RefCell::new([b' '; DATE_BYTES]), until_ms: Cell::new(0) }
    }

    /// The date at `now_ms`, which `clock` has just said of its monotonic time.
    pub(super) fn at(&self, now_ms: u64, clock: &dyn Clock) -> [u8; DATE_BYTES] {
        if now_ms >= self.until_ms.get() {
            self.until_ms.set(now_ms + DATE_MS);
            let since_1970 = Duration::from_millis(clock.now().as_millis().unsigned_abs());
            let date = HttpDate::from(SystemTime::UNIX_EPOCH + since_1970);
            // It has always as many bytes as fit.
            let _ = write!(&mut self.text.borrow_mut()[..], "{date}");
        }
        *self.text.borrow()
    }
}

#[cfg(test)]
mod tests {
    use terse_testkit::TestClock;

    use super::*;

    #[test]
    fn a_date_is_told_for_half_a_second() {
        let (clock, date) = (TestClock::default(), Date::new());
        let first = date.at(0, &clock);
        assert!(first.ends_with(b" GMT"), "{}", first.escape_ascii());
        clock.advance(Duration::from_secs(1));
        assert_eq!(date.at(DATE_MS - 1, &clock), first);
        let later = date.at(DATE_MS, &clock);
        assert_ne!(later, first);
        assert_eq!(
            HttpDate::from(SystemTime::UNIX_EPOCH + Duration::from_millis(clock.now().as_millis() as u64))
                .to_string()
                .as_bytes(),
            later
        );
    }

    #[test]
    fn an_answer_is_put_together_from_its_pieces() {
        let text = Text::new(StatusCode::FOUND, &HeaderValue::from_static("no-store"));
        let mut out = b"before ".to_vec();
        text.write((Version::Http10, true), b"https://a/", Some(b"7"), &[b'D'; DATE_BYTES], &mut out);
        let date = "D".repeat(DATE_BYTES);
        let expected = format!(
            "before HTTP/1.0 302 Found\r\ncontent-length: 0\r\nconnection: keep-alive\r\nlocation: https://a/\r\n\
             cache-control: no-store\r\nx-robots-tag: noindex\r\ndate: {date}\r\nx-request-id: 7\r\n\r\n"
        );
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
