//! As much of the CQL native protocol (version 4) as drills need to look into
//! one node behind terse's back: text queries at a chosen consistency, rows as
//! bytes. It shares nothing with the driver that the server uses, and asks
//! exactly the node it is connected to.
//!
//! Bounds: [`CONNECT_LIMIT`] to connect, the patience given per read, frames of [`FRAME_BYTES`].

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long a connection attempt may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// Most bytes of an answer.
const FRAME_BYTES: usize = 16 * 1024 * 1024;
const HEADER_BYTES: usize = 9;
const VERSION: u8 = 4;

/// How many replicas have to agree.
#[allow(missing_docs)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Consistency {
    One = 1,
    Quorum = 4,
    All = 5,
    LocalQuorum = 6,
    LocalOne = 10,
}

/// A failed query.
#[derive(Debug)]
pub enum CqlError {
    /// The connection broke, or nothing came in time.
    Wire(io::Error),
    /// The node says so: its error code and text.
    Refused(i32, String),
}

impl fmt::Display for CqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wire(error) => error.fmt(f),
            Self::Refused(code, text) => write!(f, "{code:#06x} {text}"),
        }
    }
}

impl From<io::Error> for CqlError {
    fn from(error: io::Error) -> Self {
        Self::Wire(error)
    }
}

/// The values of a row in the order of the query; `None` is null.
pub type Row = Vec<Option<Vec<u8>>>;

/// A connection to one node.
#[derive(Debug)]
pub struct CqlConnection {
    stream: TcpStream,
}

impl CqlConnection {
    /// Connects to a node, which may take `patience` for each answer.
    ///
    /// # Errors
    /// When it doesn't answer as a node does.
    pub fn open(node: SocketAddr, patience: Duration) -> Result<Self, CqlError> {
        const STARTUP: u8 = 0x01;
        const READY: u8 = 0x02;
        let stream = TcpStream::connect_timeout(&node, CONNECT_LIMIT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        let mut connection = Self { stream };
        let mut body = 1_u16.to_be_bytes().to_vec();
        short_text(&mut body, "CQL_VERSION");
        short_text(&mut body, "3.0.0");
        match connection.call(STARTUP, &body)? {
            (READY, _) => Ok(connection),
            (opcode, _) => Err(broken(&format!("opcode {opcode} instead of ready")).into()),
        }
    }

    /// Runs a query at `consistency`; what returns no rows returns none.
    ///
    /// # Errors
    /// Those of the node and of the wire.
    pub fn query(&mut self, text: &str, consistency: Consistency) -> Result<Vec<Row>, CqlError> {
        const QUERY: u8 = 0x07;
        const RESULT: u8 = 0x08;
        const SKIP_METADATA: u8 = 0x02;
        let length = i32::try_from(text.len()).map_err(|_| broken("the query is too long"))?;
        let mut body = length.to_be_bytes().to_vec();
        body.extend_from_slice(text.as_bytes());
        body.extend_from_slice(&(consistency as u16).to_be_bytes());
        body.push(SKIP_METADATA);
        match self.call(QUERY, &body)? {
            (RESULT, body) => Ok(rows(&body)?),
            (opcode, _) => Err(broken(&format!("opcode {opcode} instead of a result")).into()),
        }
    }

    fn call(&mut self, opcode: u8, body: &[u8]) -> Result<(u8, Vec<u8>), CqlError> {
        const ERROR: u8 = 0x00;
        let length = u32::try_from(body.len()).map_err(|_| broken("the frame is too long"))?;
        let mut frame = vec![VERSION, 0, 0, 0, opcode];
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(body);
        self.stream.write_all(&frame)?;
        let mut header = [0; HEADER_BYTES];
        self.stream.read_exact(&mut header)?;
        let length = u32::from_be_bytes([header[5], header[6], header[7], header[8]]) as usize;
        if length > FRAME_BYTES {
            return Err(broken("the answer is too long").into());
        }
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer)?;
        if header[4] == ERROR {
            let mut cursor = Cursor(&answer);
            let code = cursor.int()?;
            return Err(CqlError::Refused(code, cursor.short_text()?));
        }
        Ok((header[4], answer))
    }
}

/// Reads the body of a result. Warnings and tracing, which would come first, are never asked for.
fn rows(body: &[u8]) -> io::Result<Vec<Row>> {
    const ROWS: i32 = 2;
    const HAS_MORE_PAGES: i32 = 2;
    const NO_METADATA: i32 = 4;
    let mut cursor = Cursor(body);
    if cursor.int()? != ROWS {
        return Ok(Vec::new());
    }
    let flags = cursor.int()?;
    if flags & NO_METADATA == 0 || flags & HAS_MORE_PAGES != 0 {
        return Err(broken("the result comes with metadata or in pages"));
    }
    let columns = cursor.int()?;
    let count = cursor.int()?;
    (0..count).map(|_| (0..columns).map(|_| cursor.value()).collect()).collect()
}

struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn take(&mut self, count: usize) -> io::Result<&[u8]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or_else(|| broken("the answer ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn int(&mut self) -> io::Result<i32> {
        let bytes = self.take(4)?.try_into().map_err(|_| broken("no number"))?;
        Ok(i32::from_be_bytes(bytes))
    }

    fn value(&mut self) -> io::Result<Option<Vec<u8>>> {
        let length = self.int()?;
        usize::try_from(length).ok().map(|length| self.take(length).map(<[u8]>::to_vec)).transpose()
    }

    fn short_text(&mut self) -> io::Result<String> {
        let length = self.take(2)?;
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        Ok(String::from_utf8_lossy(self.take(length)?).into_owned())
    }
}

fn short_text(body: &mut Vec<u8>, text: &str) {
    // Only the two short constants of the start come here.
    body.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    body.extend_from_slice(text.as_bytes());
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn frame(opcode: u8, body: &[u8]) -> Vec<u8> {
        let mut frame = vec![0x84, 0, 0, 0, opcode];
        frame.extend_from_slice(&u32::try_from(body.len()).unwrap().to_be_bytes());
        frame.extend_from_slice(body);
        frame
    }

    fn ints(numbers: &[i32]) -> Vec<u8> {
        numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
    }

    /// What a client makes of a node that answers a query with this frame; and the query as the node saw it.
    fn asked(answer: Vec<u8>) -> (Result<Vec<Row>, CqlError>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let node = std::thread::spawn(move || {
            let (mut peer, _) = listener.accept().unwrap();
            let mut seen = [0; 512];
            let start = peer.read(&mut seen).unwrap();
            assert_eq!(&seen[4..5], [0x01]);
            assert!(start > HEADER_BYTES);
            peer.write_all(&frame(0x02, &[])).unwrap();
            let read = peer.read(&mut seen).unwrap();
            peer.write_all(&answer).unwrap();
            seen[..read].to_vec()
        });
        let mut connection = CqlConnection::open(address, Duration::from_secs(5)).unwrap();
        let answered = connection.query("SELECT a", Consistency::LocalOne);
        (answered, node.join().unwrap())
    }

    #[test]
    fn rows_come_as_bytes_and_nulls() {
        let mut body = ints(&[2, 4, 2, 2]);
        for value in [Some("one"), None, Some(""), Some("two")] {
            body.extend(ints(&[value.map_or(-1, |text| i32::try_from(text.len()).unwrap())]));
            body.extend_from_slice(value.unwrap_or_default().as_bytes());
        }
        let (answered, query) = asked(frame(0x08, &body));
        let expected = vec![vec![Some(b"one".to_vec()), None], vec![Some(Vec::new()), Some(b"two".to_vec())]];
        assert_eq!(answered.unwrap(), expected);
        assert_eq!(query, [&[4, 0, 0, 0, 7, 0, 0, 0, 15, 0, 0, 0, 8][..], b"SELECT a", &[0, 10, 2]].concat());
    }

    #[test]
    fn a_result_without_rows_has_none() {
        assert!(asked(frame(0x08, &ints(&[1]))).0.unwrap().is_empty());
    }

    #[test]
    fn an_error_of_the_node_is_told_with_its_code() {
        let mut body = ints(&[0x1000]);
        body.extend_from_slice(&[0, 4]);
        body.extend_from_slice(b"nope");
        let refused = asked(frame(0x00, &body)).0.unwrap_err();
        assert_eq!(refused.to_string(), "0x1000 nope");
    }

    #[test]
    fn an_answer_that_is_cut_off_or_huge_is_an_error() {
        assert!(matches!(asked(frame(0x08, &ints(&[2, 4, 1, 1, 5]))).0, Err(CqlError::Wire(_))));
        let mut huge = frame(0x08, &[]);
        huge[5] = 0xff;
        assert!(matches!(asked(huge).0, Err(CqlError::Wire(_))));
    }
}
