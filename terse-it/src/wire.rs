//! HTTP/1.1 over a plain socket, as little of it as tests need and with nothing
//! mended on the way: what a test writes is what the server gets.
//!
//! Bounds: a head of [`HEAD_BYTES`], a body of [`BODY_BYTES`], [`ANSWER_LIMIT`] per read.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// How long to wait for the next byte of an answer.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// Most bytes of an answer's head.
const HEAD_BYTES: usize = 64 * 1024;
/// Most bytes of an answer's body (a batch of 1,000 links is below 1 MB, the documentation page below 4 MB).
const BODY_BYTES: usize = 32 * 1024 * 1024;

/// A request, to be written as it stands.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method.
    pub method: String,
    /// The request target: path and query.
    pub path: String,
    /// Headers in their order; `Host` and `Content-Length` are added when missing.
    pub headers: Vec<(String, String)>,
    /// The body; `None` sends no `Content-Length`.
    pub body: Option<Vec<u8>>,
}

impl Request {
    /// A request without headers and body.
    #[must_use]
    pub fn new(method: &str, path: &str) -> Self {
        Self { method: method.to_owned(), path: path.to_owned(), headers: Vec::new(), body: None }
    }

    /// The same with a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same with a body.
    #[must_use]
    pub fn body(mut self, media_type: &str, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self.header("Content-Type", media_type)
    }

    /// The same with a JSON body.
    #[must_use]
    pub fn json(self, value: &Value) -> Self {
        self.body("application/json", value.to_string())
    }

    fn has(&self, name: &str) -> bool {
        self.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name))
    }

    /// The bytes on the wire.
    #[must_use]
    pub fn bytes(&self, host: &str) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.path);
        if !self.has("host") {
            head.push_str(&format!("Host: {host}\r\n"));
        }
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(body) = &self.body
            && !self.has("content-length")
        {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(self.body.as_deref().unwrap_or_default());
        bytes
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Headers in their order.
    pub headers: Vec<(String, String)>,
    /// The body, its transfer coding undone.
    pub body: Vec<u8>,
}

impl Response {
    /// The first header of that name, in any case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; panics with the answer when it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("no JSON ({e}) in {self:?}"))
    }

    /// `self`, when it has that status; else panics with the whole answer.
    #[must_use]
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{:?}\n{}", self.headers, self.text());
        self
    }

    fn closes(&self) -> bool {
        self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// A connection that is kept open between requests.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    host: String,
    unread: Vec<u8>,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, ANSWER_LIMIT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.set_write_timeout(Some(ANSWER_LIMIT))?;
        Ok(Self { stream, host: address.to_string(), unread: Vec::new() })
    }

    /// Waits no longer than `limit` for each further byte.
    ///
    /// # Errors
    /// When the socket refuses it.
    pub fn patience(&self, limit: Duration) -> io::Result<()> {
        self.stream.set_read_timeout(Some(limit))
    }

    /// The same connection once more, to read answers while this one still writes.
    ///
    /// # Errors
    /// When the socket can't be shared.
    pub fn split(&self) -> io::Result<Self> {
        Ok(Self { stream: self.stream.try_clone()?, host: self.host.clone(), unread: Vec::new() })
    }

    /// Writes bytes as they are.
    ///
    /// # Errors
    /// When the other side has closed.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a request and reads its answer.
    ///
    /// # Errors
    /// When the connection breaks or the answer is no HTTP.
    pub fn call(&mut self, request: &Request) -> io::Result<Response> {
        let bytes = request.bytes(&self.host);
        self.write(&bytes)?;
        self.receive(request.method == "HEAD")
    }

    /// Reads the next answer; `bodiless` for answers to HEAD.
    ///
    /// # Errors
    /// When the connection breaks or the answer is no HTTP.
    pub fn receive(&mut self, bodiless: bool) -> io::Result<Response> {
        loop {
            let end = self.fill_head()?;
            let head = String::from_utf8_lossy(&self.unread[..end]).into_owned();
            self.unread.drain(..end + 4);
            let mut response = parse_head(&head)?;
            if (100..200).contains(&response.status) {
                continue;
            }
            if !bodiless && !matches!(response.status, 204 | 304) {
                response.body = self.read_body(&response)?;
            }
            return Ok(response);
        }
    }

    /// Reads all until the other side closes: `true`, or until `limit` bytes came or the patience ends: `false`.
    pub fn drain(&mut self, limit: usize) -> bool {
        self.unread.clear();
        let mut read = 0;
        let mut chunk = [0; 8_192];
        while read < limit {
            match self.stream.read(&mut chunk) {
                Ok(0) => return true,
                Ok(n) => read += n,
                Err(e) => return !matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
            }
        }
        false
    }

    fn read_more(&mut self) -> io::Result<()> {
        let mut chunk = [0; 16 * 1024];
        let n = self.stream.read(&mut chunk)?;
        if n == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed before the answer's end"));
        }
        self.unread.extend_from_slice(&chunk[..n]);
        Ok(())
    }

    fn fill_head(&mut self) -> io::Result<usize> {
        loop {
            if let Some(end) = find(&self.unread, b"\r\n\r\n") {
                return Ok(end);
            }
            if self.unread.len() > HEAD_BYTES {
                return Err(broken("the answer's head does not end"));
            }
            self.read_more()?;
        }
    }

    fn take(&mut self, count: usize) -> io::Result<Vec<u8>> {
        if count > BODY_BYTES {
            return Err(broken("the answer's body is too long"));
        }
        while self.unread.len() < count {
            self.read_more()?;
        }
        Ok(self.unread.drain(..count).collect())
    }

    fn take_line(&mut self) -> io::Result<String> {
        while find(&self.unread, b"\r\n").is_none() {
            self.read_more()?;
        }
        let end = find(&self.unread, b"\r\n").unwrap_or_default();
        let line = self.take(end + 2)?;
        Ok(String::from_utf8_lossy(&line[..end]).into_owned())
    }

    fn read_body(&mut self, response: &Response) -> io::Result<Vec<u8>> {
        if response.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            return self.read_chunks();
        }
        if let Some(length) = response.header("content-length") {
            return self.take(length.parse().map_err(|_| broken("content-length is no number"))?);
        }
        if !response.closes() {
            return Err(broken("the answer tells no length"));
        }
        while self.unread.len() <= BODY_BYTES && self.read_more().is_ok() {}
        Ok(std::mem::take(&mut self.unread))
    }

    fn read_chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.take_line()?;
            let size = usize::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16)
                .map_err(|_| broken("a chunk's size is no number"))?;
            if size == 0 {
                while !self.take_line()?.is_empty() {}
                return Ok(body);
            }
            if body.len() + size > BODY_BYTES {
                return Err(broken("the answer's body is too long"));
            }
            body.extend(self.take(size)?);
            self.take_line()?;
        }
    }
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes.windows(pattern.len()).position(|window| window == pattern)
}

fn parse_head(head: &str) -> io::Result<Response> {
    let mut lines = head.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let status = first
        .strip_prefix("HTTP/1.1 ")
        .or_else(|| first.strip_prefix("HTTP/1.0 "))
        .and_then(|rest| rest.get(..3))
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| broken(&format!("no status line: {first:?}")))?;
    let headers = lines
        .map(|line| line.split_once(':').map(|(name, value)| (name.to_owned(), value.trim().to_owned())))
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| broken("a header without a colon"))?;
    Ok(Response { status, headers, body: Vec::new() })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// What a client makes of an answer that arrives in pieces of 7 bytes.
    fn received(answer: &'static str) -> io::Result<Vec<Response>> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let mut connection = Connection::open(listener.local_addr()?)?;
        let (mut peer, _) = listener.accept()?;
        let writer =
            std::thread::spawn(move || answer.as_bytes().chunks(7).try_for_each(|piece| peer.write_all(piece)));
        let answers = answer.matches("HTTP/1.1 2").count();
        let responses = (0..answers).map(|_| connection.receive(false)).collect();
        writer.join().unwrap()?;
        responses
    }

    #[test]
    fn answers_of_every_framing_are_read_one_after_another() {
        let all = received(concat!(
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello",
            "HTTP/1.1 201 Created\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n",
            "HTTP/1.1 204 No Content\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end",
        ));
        let all = all.unwrap();
        let seen: Vec<_> = all.iter().map(|r| (r.status, r.text())).collect();
        assert_eq!(seen[0], (200, "hello".to_owned()));
        assert_eq!(all[0].header("x-a"), Some("b"));
        assert_eq!(seen[1], (201, "abcde".to_owned()));
        assert_eq!(seen[2], (204, String::new()));
        assert_eq!(seen[3], (200, "until the end".to_owned()));
    }

    #[test]
    fn an_answer_that_breaks_off_is_an_error() {
        for answer in ["HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", "HTTP/1.1 200 OK\r\nContent-"] {
            assert_eq!(received(answer).unwrap_err().kind(), io::ErrorKind::UnexpectedEof, "{answer:?}");
        }
        assert_eq!(received("HTTP/1.1 2x0 OK\r\n\r\n").unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_request_is_written_as_it_was_made() {
        let request = Request::new("POST", "/a%2fb?").header("X-A", "1").body("text/plain", "hi");
        let expected = "POST /a%2fb? HTTP/1.1\r\nHost: h:1\r\nX-A: 1\r\nContent-Type: text/plain\r\n\
                        Content-Length: 2\r\n\r\nhi";
        assert_eq!(String::from_utf8(request.bytes("h:1")).unwrap(), expected);
        let own = Request::new("GET", "/").header("host", "other").bytes("h:1");
        assert_eq!(String::from_utf8(own).unwrap(), "GET / HTTP/1.1\r\nhost: other\r\n\r\n");
    }
}
