//! The head of a request, as far as it must be understood to answer it beneath the HTTP server, or to hand on
//! no byte more than it.
//!
//! `httparse` reads it, which is what actix-http reads heads with, under the same configuration. Whatever could
//! mean two things, or a body, is none of ours.

use std::mem::MaybeUninit;

use httparse::{Header, Status};

/// Most headers of a head that is answered or handed on by itself. Of one with more, actix-http gets the rest of the
/// connection; it has a bound of its own.
const MAX_HEADERS: usize = 48;

/// Where the headers of one head are put.
pub(super) type Room<'b> = [MaybeUninit<Header<'b>>; MAX_HEADERS];

/// Room for headers.
pub(super) const fn room<'b>() -> Room<'b> {
    [const { MaybeUninit::uninit() }; MAX_HEADERS]
}

/// What stands at the beginning of what was read.
pub(super) enum Read<'h, 'b> {
    /// Less than a head.
    Partial,
    /// A request that is not plain, but ends where its head says.
    Alone(Extent),
    /// A GET or HEAD that says nothing unusual of its connection.
    Plain(Plain<'h, 'b>),
    /// What doesn't tell its end, takes the connection over, or is no head.
    Strange,
}

/// How long a request is, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) head: usize,
    pub(super) body: u64,
}

/// A plain request.
pub(super) struct Plain<'h, 'b> {
    /// Bytes of the head.
    pub(super) length: usize,
    /// Whether it is HEAD.
    pub(super) head: bool,
    pub(super) version: Version,
    /// Whether the client wants the connection kept.
    pub(super) keep: bool,
    pub(super) target: &'b str,
    /// What the client sent first as the request's id.
    pub(super) id: Option<&'b [u8]>,
    pub(super) headers: &'h [Header<'b>],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    Http10,
    Http11,
}

/// What headers say of the connection and of a body.
#[derive(Default)]
struct Framing<'b> {
    hosts: usize,
    /// Whether the connection is to be kept, if that is said once and clearly.
    keep: Option<bool>,
    /// Something is said that takes more care.
    odd: bool,
    /// Something may follow of which the head doesn't tell the length.
    endless: bool,
    /// Bytes of the body, if that is said once and clearly.
    body: Option<u64>,
    id: Option<&'b [u8]>,
}

/// Reads the head that `bytes` begin with.
pub(super) fn read<'h, 'b>(bytes: &'b [u8], room: &'h mut Room<'b>) -> Read<'h, 'b> {
    let mut request = httparse::Request::new(&mut []);
    let length = match request.parse_with_uninit_headers(bytes, room) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return Read::Partial,
        Err(_) => return Read::Strange,
    };
    let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
        return Read::Strange;
    };
    let headers: &[Header<'_>] = request.headers;
    let framing = Framing::of(headers);
    if framing.endless || method == "CONNECT" {
        return Read::Strange;
    }
    let version = if version == 0 { Version::Http10 } else { Version::Http11 };
    let hosts = if version == Version::Http11 { 1..=1 } else { 0..=1 };
    let head = method == "HEAD";
    let plain = !framing.odd && framing.body.is_none() && hosts.contains(&framing.hosts);
    if !(plain && (head || method == "GET")) {
        return Read::Alone(Extent { head: length, body: framing.body.unwrap_or(0) });
    }
    let keep = framing.keep.unwrap_or(version == Version::Http11);
    Read::Plain(Plain { length, head, version, keep, target, id: framing.id, headers })
}

impl<'b> Framing<'b> {
    fn of(headers: &[Header<'b>]) -> Self {
        let mut framing = Self::default();
        for header in headers {
            framing.add(header);
        }
        framing
    }

    fn add(&mut self, header: &Header<'b>) {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        // Most headers differ in length from all of these.
        match header.name.len() {
            4 if is("host") => self.hosts += 1,
            6 if is("expect") => self.endless = true,
            7 if is("upgrade") => self.endless = true,
            10 if is("connection") => self.connection(header.value),
            12 if is("x-request-id") => self.id = self.id.or(Some(header.value)),
            14 if is("content-length") => self.body(header.value),
            17 if is("transfer-encoding") => self.endless = true,
            _ => {}
        }
    }

    fn body(&mut self, value: &[u8]) {
        let digits = value.iter().all(u8::is_ascii_digit);
        let bytes = std::str::from_utf8(value).ok().filter(|_| digits).and_then(|text| text.parse().ok());
        self.endless |= self.body.is_some() || bytes.is_none();
        self.body = bytes;
    }

    fn connection(&mut self, value: &[u8]) {
        let keep = if value.eq_ignore_ascii_case(b"keep-alive") {
            Some(true)
        } else if value.eq_ignore_ascii_case(b"close") {
            Some(false)
        } else {
            None
        };
        self.odd |= self.keep.is_some() || keep.is_none();
        self.keep = keep;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `head` is, in a word.
    fn word(head: &str) -> String {
        match read(head.as_bytes(), &mut room()) {
            Read::Partial => "partial".to_owned(),
            Read::Alone(extent) => {
                assert_eq!(extent.head, head.len());
                format!("alone {}", extent.body)
            }
            Read::Plain(plain) => {
                assert_eq!(plain.length, head.len());
                format!("{:?} {}{}", plain.version, plain.target, if plain.keep { " kept" } else { "" })
            }
            Read::Strange => "strange".to_owned(),
        }
    }

    fn with(header: &str) -> String {
        word(&format!("GET /abc HTTP/1.1\r\nHost: a\r\n{header}\r\n\r\n"))
    }

    #[test]
    fn plain_requests_are_told_with_what_they_want_of_the_connection() {
        assert_eq!(with("Accept: */*"), "Http11 /abc kept");
        assert_eq!(with("CONNECTION: Keep-Alive"), "Http11 /abc kept");
        assert_eq!(with("connection: Close"), "Http11 /abc");
        assert_eq!(word("HEAD /a?b HTTP/1.1\r\nhost: a\r\n\r\n"), "Http11 /a?b kept");
        assert_eq!(word("GET /abc HTTP/1.0\r\n\r\n"), "Http10 /abc");
        assert_eq!(word("GET /abc HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"), "Http10 /abc kept");
        assert_eq!(word("\r\nGET /abc HTTP/1.0\nA: b\n\n"), "Http10 /abc", "as lenient as what would read it else");
    }

    #[test]
    fn a_head_that_takes_more_care_is_handed_on_by_itself() {
        for header in ["Host: b", "Connection: close, x", "Connection: close\r\nConnection: close", "Content-Length: 0"]
        {
            assert_eq!(with(header), "alone 0", "{header}");
        }
        for (header, word) in [("Content-Length: 17", "alone 17"), ("content-length: 007", "alone 7")] {
            assert_eq!(with(header), word, "{header}");
        }
        assert_eq!(word("GET /abc HTTP/1.1\r\n\r\n"), "alone 0", "a host is missing");
        assert_eq!(word("DELETE /abc HTTP/1.1\r\nHost: a\r\n\r\n"), "alone 0");
        assert_eq!(word("get /abc HTTP/1.1\r\nHost: a\r\n\r\n"), "alone 0");
    }

    #[test]
    fn what_does_not_tell_its_end_takes_the_connection_with_it() {
        for header in [
            "Content-Length: +0",
            "Content-Length: -1",
            "Content-Length:",
            "Content-Length: 99999999999999999999",
            "Content-Length: 0, 0",
            "Content-Length: 0\r\nContent-Length: 5",
            "Transfer-Encoding: identity",
            "Expect: 100-continue",
            "Upgrade: h2c",
        ] {
            assert_eq!(with(header), "strange", "{header}");
        }
        assert_eq!(word("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n"), "strange");
        assert_eq!(word("GARBAGE\r\n\r\n"), "strange");
        assert_eq!(with(" folded: x"), "strange");
        assert_eq!(with(&"A: b\r\n".repeat(MAX_HEADERS)), "strange");
    }

    #[test]
    fn a_head_is_partial_until_its_last_byte() {
        let head = "GET /abc HTTP/1.1\r\nHost: a\r\n\r\n";
        for length in 0..head.len() {
            assert_eq!(word(&head[..length]), "partial", "{length}");
        }
    }
}
