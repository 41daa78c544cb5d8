//! As much of the CQL binary protocol (version 4) as health checks and the
//! warm-up need: queries without values and prepared statements, pipelined.
//!
//! Not the driver of `terse-store`: that one brings an async runtime and some
//! sixty crates, all of which would be compiled before any `xtask` command.
//!
//! Bounds: every read and write has the limit given at [`Connection::open`], an
//! answer may have `MAX_BODY` bytes.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// The largest answer that is read; those asked for here are far smaller.
const MAX_BODY: usize = 1 << 20;

const REQUEST: u8 = 0x04;
const STARTUP: u8 = 0x01;
const QUERY: u8 = 0x07;
const PREPARE: u8 = 0x09;
const EXECUTE: u8 = 0x0A;
const ERROR: u8 = 0x00;
const HEADER_BYTES: usize = 9;

/// How many replicas must answer.
#[derive(Clone, Copy, Debug)]
pub enum Consistency {
    /// Most of them.
    Quorum = 4,
    /// Every one.
    All = 5,
}

/// A connection to one node.
pub struct Connection {
    stream: TcpStream,
}

/// A statement that the node knows by this id.
pub struct Prepared(Vec<u8>);

/// How the answers to several requests were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Requests done.
    pub done: u32,
    /// Requests refused, as by a timeout on the node.
    pub refused: u32,
}

impl Connection {
    /// Connects to the node and introduces itself; each step may take `limit`.
    ///
    /// # Errors
    /// When nobody answers, or not as a CQL node does.
    pub fn open(address: SocketAddr, limit: Duration) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, limit).context("connecting")?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        stream.set_nodelay(true)?;
        let mut connection = Self { stream };
        let mut body = 1_u16.to_be_bytes().to_vec();
        put_string(&mut body, b"CQL_VERSION");
        put_string(&mut body, b"3.0.0");
        connection.ask(STARTUP, &body)?;
        Ok(connection)
    }

    /// Runs one statement and passes over what it returns.
    ///
    /// # Errors
    /// When the node refuses it or doesn't answer.
    pub fn query(&mut self, statement: &str, consistency: Consistency) -> Result<()> {
        let mut body = long_string(statement);
        put_parameters(&mut body, consistency, 0);
        self.ask(QUERY, &body).with_context(|| statement.to_owned()).map(drop)
    }

    /// Prepares a statement.
    ///
    /// # Errors
    /// When the node refuses it or doesn't answer.
    pub fn prepare(&mut self, statement: &str) -> Result<Prepared> {
        let answer = self.ask(PREPARE, &long_string(statement)).with_context(|| statement.to_owned())?;
        // The kind of the result (4 bytes), then the id with its length.
        let length = answer.get(4..6).map(|bytes| usize::from(u16::from_be_bytes([bytes[0], bytes[1]])));
        let id = length.and_then(|length| answer.get(6..6 + length)).context("no id of a prepared statement")?;
        Ok(Prepared(id.to_vec()))
    }

    /// Sends one request per element of `rows` at once, then reads all answers.
    ///
    /// # Errors
    /// When the node doesn't answer; what it refuses is counted.
    pub fn execute_all(&mut self, statement: &Prepared, rows: &[Vec<Vec<u8>>]) -> Result<Outcome> {
        let mut frames = Vec::new();
        for (stream, row) in rows.iter().enumerate() {
            let mut body = Vec::new();
            put_string(&mut body, &statement.0);
            put_parameters(&mut body, Consistency::Quorum, 1);
            body.extend(u16::try_from(row.len())?.to_be_bytes());
            for value in row {
                body.extend(i32::try_from(value.len())?.to_be_bytes());
                body.extend(value);
            }
            frames.extend(frame(EXECUTE, i16::try_from(stream)?, &body)?);
        }
        self.stream.write_all(&frames)?;
        let mut outcome = Outcome::default();
        for _ in rows {
            match self.receive()?.0 {
                ERROR => outcome.refused += 1,
                _ => outcome.done += 1,
            }
        }
        Ok(outcome)
    }

    fn ask(&mut self, opcode: u8, body: &[u8]) -> Result<Vec<u8>> {
        self.stream.write_all(&frame(opcode, 0, body)?)?;
        let (answered, answer) = self.receive()?;
        if answered == ERROR {
            bail!("{}", error_text(&answer));
        }
        Ok(answer)
    }

    fn receive(&mut self) -> Result<(u8, Vec<u8>)> {
        let mut header = [0; HEADER_BYTES];
        self.stream.read_exact(&mut header).context("no answer")?;
        let [version, .., opcode, a, b, c, d] = header;
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if version != REQUEST | 0x80 || length > MAX_BODY {
            bail!("not an answer of CQL version 4");
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).context("half an answer")?;
        Ok((opcode, body))
    }
}

fn frame(opcode: u8, stream: i16, body: &[u8]) -> Result<Vec<u8>> {
    let mut frame = vec![REQUEST, 0];
    frame.extend(stream.to_be_bytes());
    frame.push(opcode);
    frame.extend(u32::try_from(body.len())?.to_be_bytes());
    frame.extend(body);
    Ok(frame)
}

fn put_parameters(body: &mut Vec<u8>, consistency: Consistency, flags: u8) {
    body.extend((consistency as u16).to_be_bytes());
    body.push(flags);
}

/// Appends a string of at most 65,535 bytes; those here are constants and short ids.
fn put_string(body: &mut Vec<u8>, text: &[u8]) {
    body.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    body.extend(text);
}

fn long_string(text: &str) -> Vec<u8> {
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    length.to_be_bytes().into_iter().chain(text.bytes()).collect()
}

/// The text of an error answer: a code of 4 bytes, then a string.
fn error_text(body: &[u8]) -> String {
    String::from_utf8_lossy(body.get(6..).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread::{self, JoinHandle};

    const LIMIT: Duration = Duration::from_secs(5);

    fn answer(opcode: u8, body: &[u8]) -> Vec<u8> {
        let mut answer = frame(opcode, 0, body).unwrap();
        answer[0] = REQUEST | 0x80;
        answer
    }

    /// Opcode and body of each request.
    type Requests = Vec<(u8, Vec<u8>)>;

    /// A node that reads requests and gives these answers, one each; returns what it read.
    fn node(answers: Vec<Vec<u8>>) -> (SocketAddr, JoinHandle<Requests>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let node = thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            let mut read = Vec::new();
            for answer in answers {
                let mut header = [0; HEADER_BYTES];
                stream.read_exact(&mut header).unwrap();
                let mut body = vec![0; u32::from_be_bytes(header[5..].try_into().unwrap()) as usize];
                stream.read_exact(&mut body).unwrap();
                read.push((header[4], body));
                stream.write_all(&answer).unwrap();
            }
            read
        });
        (address, node)
    }

    #[test]
    fn a_query_introduces_itself_first_and_names_its_consistency() {
        let (address, node) = node(vec![answer(2, &[]), answer(8, &[0, 0, 0, 1])]);
        let mut connection = Connection::open(address, LIMIT).unwrap();
        connection.query("SELECT 1", Consistency::All).unwrap();
        let read = node.join().unwrap();
        assert_eq!(read[0], (STARTUP, b"\0\x01\0\x0bCQL_VERSION\0\x053.0.0".to_vec()));
        assert_eq!(read[1], (QUERY, b"\0\0\0\x08SELECT 1\0\x05\0".to_vec()));
    }

    #[test]
    fn a_refusal_is_told_with_its_statement() {
        let refusal = answer(ERROR, b"\0\0\x10\0\0\x04down");
        let (address, node) = node(vec![answer(2, &[]), refusal]);
        let mut connection = Connection::open(address, LIMIT).unwrap();
        let error = connection.query("SELECT 1", Consistency::Quorum).unwrap_err();
        assert_eq!(format!("{error:#}"), "SELECT 1: down");
        node.join().unwrap();
    }

    #[test]
    fn prepared_requests_are_counted_as_done_or_refused() {
        let prepared = answer(8, b"\0\0\0\x04\0\x02idmore");
        let answers = vec![answer(2, &[]), prepared, answer(8, &[]), answer(ERROR, &[0; 6])];
        let (address, node) = node(answers);
        let mut connection = Connection::open(address, LIMIT).unwrap();
        let statement = connection.prepare("UPDATE").unwrap();
        let rows = [vec![b"a".to_vec()], vec![b"bc".to_vec(), vec![]]];
        assert_eq!(connection.execute_all(&statement, &rows).unwrap(), Outcome { done: 1, refused: 1 });
        let read = node.join().unwrap();
        assert_eq!(read[2], (EXECUTE, b"\0\x02id\0\x04\x01\0\x01\0\0\0\x01a".to_vec()));
        assert_eq!(read[3], (EXECUTE, b"\0\x02id\0\x04\x01\0\x02\0\0\0\x02bc\0\0\0\0".to_vec()));
    }

    #[test]
    fn somebody_who_speaks_no_cql_is_not_taken_for_a_node() {
        let (address, node) = node(vec![b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()]);
        let error = Connection::open(address, LIMIT).err().unwrap();
        assert_eq!(error.to_string(), "not an answer of CQL version 4");
        node.join().unwrap();
    }
}
