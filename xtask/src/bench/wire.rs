//! Requests and answers as bytes: what a browser sends, what a server may answer.

use std::net::SocketAddr;

use anyhow::{Result, bail};

/// The longest head of an answer that is accepted.
const HEAD_BYTES: usize = 16 * 1024;
/// The most header lines of an answer that are accepted.
const HEAD_LINES: usize = 64;

/// What servers are called that don't look at it.
const HOST: &str = "localhost:8080";

/// A GET as a browser sends it when somebody follows a link: head, then the
/// code, then the tail. All servers get the same bytes.
pub struct Get {
    tail: Vec<u8>,
}

impl Default for Get {
    fn default() -> Self {
        Self::with(HOST, "keep-alive")
    }
}

impl Get {
    /// The same, by a client that wants the connection closed after the answer.
    #[must_use]
    pub fn closing() -> Self {
        Self::with(HOST, "close")
    }

    /// The same to a server that is called `host`; `closes` = the client wants the connection closed.
    #[must_use]
    pub fn to(host: &str, closes: bool) -> Self {
        Self::with(host, if closes { "close" } else { "keep-alive" })
    }

    fn with(host: &str, wish: &str) -> Self {
        let (host, connection) = (format!("Host: {host}"), format!("Connection: {wish}"));
        let lines = [
            " HTTP/1.1",
            &host,
            "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
            "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            "Accept-Language: en-GB,en;q=0.7,de;q=0.3",
            "Accept-Encoding: gzip, deflate, br, zstd",
            "Referer: https://news.example.org/front?page=2",
            &connection,
            "Upgrade-Insecure-Requests: 1",
            "Sec-Fetch-Dest: document",
            "Sec-Fetch-Mode: navigate",
            "Sec-Fetch-Site: cross-site",
            "",
            "",
        ];
        Self { tail: lines.join("\r\n").into_bytes() }
    }

    /// Appends the request for `/code` to `out`.
    pub fn write(&self, code: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(b"GET /");
        out.extend_from_slice(code);
        out.extend_from_slice(&self.tail);
    }

    /// How long a request for a code of seven letters is, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        b"GET /1234567".len() + self.tail.len()
    }
}

/// A POST of JSON to `path` of the server at `address`.
#[must_use]
pub fn post(address: SocketAddr, path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: terse-bench/1\r\nAccept: application/json\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    (head + body).into_bytes()
}

/// One whole answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// The status.
    pub status: u16,
    /// The `Location` header.
    pub location: Option<&'a [u8]>,
    /// The body, as it came: chunks are not put together.
    pub body: &'a [u8],
    /// Whether the connection stays open.
    pub keep_alive: bool,
    /// How many bytes all of it has.
    pub bytes: usize,
}

/// Reads the answer that `input` begins with; `None` = it isn't whole yet.
///
/// # Errors
/// When it is no answer of HTTP/1.1 that says where it ends, by `Content-Length` or chunks without trailers.
pub fn parse(input: &[u8]) -> Result<Option<Answer<'_>>> {
    let mut lines = [httparse::EMPTY_HEADER; HEAD_LINES];
    let mut head = httparse::Response::new(&mut lines);
    let head_bytes = match head.parse(input) {
        Ok(httparse::Status::Complete(bytes)) => bytes,
        Ok(httparse::Status::Partial) if input.len() > HEAD_BYTES => bail!("head of more than {HEAD_BYTES} bytes"),
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => bail!("not an answer: {error}"),
    };
    let (mut length, mut chunked) = (None, false);
    let mut location = None;
    let mut keep_alive = head.version == Some(1);
    for line in head.headers.iter() {
        if line.name.eq_ignore_ascii_case("content-length") {
            length = std::str::from_utf8(line.value).ok().and_then(|text| text.trim().parse::<usize>().ok());
        } else if line.name.eq_ignore_ascii_case("location") {
            location = Some(line.value);
        } else if line.name.eq_ignore_ascii_case("connection") {
            keep_alive &= !line.value.eq_ignore_ascii_case(b"close");
        } else if line.name.eq_ignore_ascii_case("transfer-encoding") {
            chunked = line.value.eq_ignore_ascii_case(b"chunked");
            if !chunked {
                bail!("answer with an unknown transfer encoding");
            }
        }
    }
    let status = head.code.unwrap_or(0);
    if chunked {
        length = match chunks(&input[head_bytes..])? {
            Some(bytes) => Some(bytes),
            None => return Ok(None),
        };
    }
    let Some(length) = length.or((status == 204 || status == 304).then_some(0)) else {
        bail!("answer without a content length");
    };
    let bytes = head_bytes.saturating_add(length);
    let body = input.get(head_bytes..bytes);
    Ok(body.map(|body| Answer { status, location, body, keep_alive, bytes }))
}

/// How many bytes the chunks have that `input` begins with; `None` = they aren't whole yet.
fn chunks(input: &[u8]) -> Result<Option<usize>> {
    let mut at = 0;
    while let Some(rest) = input.get(at..) {
        let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") else { return Ok(None) };
        let line = std::str::from_utf8(&rest[..end]).unwrap_or_default();
        let size = line.split(';').next().unwrap_or_default().trim();
        let Ok(size) = usize::from_str_radix(size, 16) else { bail!("a chunk without a size") };
        at = at.saturating_add(end).saturating_add(size).saturating_add(4);
        match input.get(at.saturating_sub(2)..at) {
            None => return Ok(None),
            Some(b"\r\n") if size == 0 => return Ok(Some(at)),
            Some(b"\r\n") => {}
            Some(_) => bail!("a chunk that doesn't end, or a trailer"),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOUND: &[u8] = b"HTTP/1.1 302 Found\r\nlocation: https://a.example/x\r\nContent-Length: 2\r\n\r\nhi";

    fn error(input: &str) -> String {
        parse(input.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn an_answer_is_read_with_status_location_and_body() {
        let answer = parse(FOUND).unwrap().unwrap();
        assert_eq!((answer.status, answer.body, answer.bytes), (302, &b"hi"[..], FOUND.len()));
        assert_eq!(answer.location, Some(&b"https://a.example/x"[..]));
        assert!(answer.keep_alive);
    }

    #[test]
    fn an_answer_is_read_only_when_it_is_whole() {
        for end in 0..FOUND.len() {
            assert_eq!(parse(&FOUND[..end]).unwrap(), None, "after {end} bytes");
        }
    }

    #[test]
    fn an_answer_in_chunks_is_whole_with_its_last_one() {
        let whole = b"HTTP/1.1 302 Found\r\nLocation: /x\r\nTransfer-Encoding: Chunked\r\n\r\n\
            3;a=b\r\nabc\r\n0A\r\n0123456789\r\n0\r\n\r\n";
        for end in 0..whole.len() {
            assert_eq!(parse(&whole[..end]).unwrap(), None, "after {end} bytes");
        }
        let more = [&whole[..], b"HTTP"].concat();
        let answer = parse(&more).unwrap().unwrap();
        assert_eq!((answer.status, answer.location, answer.bytes), (302, Some(&b"/x"[..]), whole.len()));
        assert!(answer.keep_alive);
    }

    #[test]
    fn bytes_of_the_next_answer_are_left_alone() {
        let two = [FOUND, FOUND].concat();
        assert_eq!(parse(&two).unwrap().unwrap().bytes, FOUND.len());
    }

    #[test]
    fn answers_that_cannot_be_delimited_are_refused() {
        assert!(error("HTTP/1.1 200 OK\r\n\r\n").contains("without a content length"));
        assert!(error("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n").contains("transfer encoding"));
        let chunked = |body: &str| error(&format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}"));
        assert!(chunked("x\r\n").contains("without a size") && chunked("2\r\nabcde\r\n").contains("doesn't end"));
        assert!(chunked("0\r\nX: y\r\n\r\n").contains("trailer"));
        assert!(error("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n").contains("without a content length"));
        assert!(error("nonsense\r\n\r\n").contains("not an answer"));
        assert!(error(&format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(HEAD_BYTES))).contains("more than"));
    }

    #[test]
    fn an_answer_that_closes_the_connection_says_so() {
        let closing = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
        assert!(!parse(closing).unwrap().unwrap().keep_alive);
        assert!(!parse(b"HTTP/1.0 204 No Content\r\n\r\n").unwrap().unwrap().keep_alive);
    }

    #[test]
    fn a_get_is_a_request_of_a_browser_for_the_code() {
        let get = Get::default();
        let mut bytes = Vec::new();
        get.write(b"abcdefg", &mut bytes);
        assert_eq!(bytes.len(), get.bytes());
        assert!((400..=550).contains(&bytes.len()), "{} bytes", bytes.len());
        let mut lines = [httparse::EMPTY_HEADER; 32];
        let mut request = httparse::Request::new(&mut lines);
        assert!(request.parse(&bytes).unwrap().is_complete());
        assert_eq!(request.path, Some("/abcdefg"));
        assert!(request.headers.iter().any(|line| line.name == "Sec-Fetch-Mode"));
    }

    #[test]
    fn a_get_that_closes_differs_in_that_alone() {
        let (mut kept, mut closing) = (Vec::new(), Vec::new());
        Get::default().write(b"abcdefg", &mut kept);
        Get::closing().write(b"abcdefg", &mut closing);
        let kept = String::from_utf8(kept).unwrap();
        assert_eq!(kept.replace("Connection: keep-alive", "Connection: close").as_bytes(), closing);
        let mut other = Vec::new();
        Get::to("a.example", true).write(b"abcdefg", &mut other);
        let renamed = String::from_utf8(closing).unwrap().replace("Host: localhost:8080", "Host: a.example");
        assert_eq!(renamed.into_bytes(), other);
    }

    #[test]
    fn a_post_tells_the_length_of_its_body() {
        let bytes = post("127.0.0.1:1".parse().unwrap(), "/x", "{\"ä\":1}");
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.contains("Host: 127.0.0.1:1\r\n") && text.contains("Content-Length: 8\r\n"), "{text}");
        assert!(text.ends_with("\r\n\r\n{\"ä\":1}"));
    }
}
