//! As much of RESP2 as drills need to look into Redis behind terse's back. It
//! shares nothing with the client that the server uses.
//!
//! Bounds: [`PATIENCE`] per read, values of [`VALUE_BYTES`], lists of [`LIST_ITEMS`].

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::Kept;

/// How long an answer may take.
pub const PATIENCE: Duration = Duration::from_secs(20);
const VALUE_BYTES: usize = 16 * 1024 * 1024;
const LIST_ITEMS: usize = 1_000_000;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A status, such as `OK`.
    Text(String),
    /// An error.
    Error(String),
    /// A number.
    Number(i64),
    /// A value, or none.
    Value(Option<Vec<u8>>),
    /// Several.
    List(Vec<Self>),
}

impl Reply {
    /// The value as text; panics with the answer when it is none.
    #[must_use]
    #[track_caller]
    pub fn into_text(self) -> String {
        match self {
            Self::Value(Some(bytes)) => String::from_utf8_lossy(&bytes).into_owned(),
            Self::Text(text) => text,
            other => panic!("no text but {other:?}"),
        }
    }
}

/// A connection.
#[derive(Debug)]
pub struct RedisConnection {
    stream: BufReader<TcpStream>,
}

impl RedisConnection {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends a command and reads its answer.
    ///
    /// # Errors
    /// When the connection breaks or the answer is not RESP2; an error of Redis itself is a [`Reply`].
    pub fn call<A: AsRef<[u8]>>(&mut self, command: &[A]) -> io::Result<Reply> {
        self.send(command)?;
        self.receive()
    }

    /// Sends a command; its answer is to be read with [`receive`](Self::receive).
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn send<A: AsRef<[u8]>>(&mut self, command: &[A]) -> io::Result<()> {
        let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
        for argument in command {
            let argument = argument.as_ref();
            bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
            bytes.extend_from_slice(argument);
            bytes.extend_from_slice(b"\r\n");
        }
        self.stream.get_mut().write_all(&bytes)
    }

    /// Reads the next answer.
    ///
    /// # Errors
    /// When the connection breaks, nothing comes in time, or it is not RESP2.
    pub fn receive(&mut self) -> io::Result<Reply> {
        let line = self.line()?;
        let (kind, rest) = line.split_at_checked(1).ok_or_else(|| broken("an empty answer"))?;
        let number = || rest.parse::<i64>().map_err(|_| broken("no number"));
        match kind {
            "+" => Ok(Reply::Text(rest.to_owned())),
            "-" => Ok(Reply::Error(rest.to_owned())),
            ":" => Ok(Reply::Number(number()?)),
            "$" => self.value(number()?),
            "*" => {
                let count = usize::try_from(number()?).unwrap_or_default();
                if count > LIST_ITEMS {
                    return Err(broken("the list is too long"));
                }
                (0..count).map(|_| self.receive()).collect::<io::Result<_>>().map(Reply::List)
            }
            _ => Err(broken("an unknown kind of answer")),
        }
    }

    pub(super) fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        let limit = u64::try_from(VALUE_BYTES).unwrap_or(u64::MAX);
        (&mut self.stream).take(limit).read_until(b'\n', &mut line)?;
        if !line.ends_with(b"\r\n") {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed before the answer's end"));
        }
        line.truncate(line.len() - 2);
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    fn value(&mut self, length: i64) -> io::Result<Reply> {
        let Ok(length) = usize::try_from(length) else { return Ok(Reply::Value(None)) };
        if length > VALUE_BYTES {
            return Err(broken("the value is too long"));
        }
        let mut value = vec![0; length + 2];
        self.stream.read_exact(&mut value)?;
        value.truncate(length);
        Ok(Reply::Value(Some(value)))
    }

    /// The keys that are like `pattern`.
    #[must_use]
    #[track_caller]
    pub fn keys(&mut self, pattern: &str) -> Vec<String> {
        let Reply::List(keys) = self.sure(&["KEYS", pattern]) else { panic!("KEYS gave no list") };
        keys.into_iter().map(Reply::into_text).collect()
    }

    /// The one value whose key is like `pattern`; panics when there are several.
    #[must_use]
    #[track_caller]
    pub fn kept(&mut self, pattern: &str) -> Option<Kept> {
        let mut keys = self.keys(pattern);
        assert!(keys.len() <= 1, "several keys are like {pattern}: {keys:?}");
        let key = keys.pop()?;
        match self.sure(&["DUMP", &key]) {
            Reply::Value(value) => Some(Kept { key, value: value? }),
            other => panic!("DUMP gave {other:?}"),
        }
    }

    /// Puts a value back, over whatever is there now, to live for a minute.
    #[track_caller]
    pub fn put_back(&mut self, kept: &Kept) {
        let command: [&[u8]; 5] = [b"RESTORE", kept.key.as_bytes(), b"60000", &kept.value, b"REPLACE"];
        assert_eq!(self.sure(&command), Reply::Text("OK".into()));
    }

    /// How often each command was called, by its name in lower case.
    #[must_use]
    #[track_caller]
    pub fn commands(&mut self) -> BTreeMap<String, u64> {
        let text = self.sure(&["INFO", "commandstats"]).into_text();
        let count = |line: &str| {
            let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
        };
        text.lines().filter_map(count).collect()
    }

    #[track_caller]
    fn sure<A: AsRef<[u8]>>(&mut self, command: &[A]) -> Reply {
        match self.call(command) {
            Ok(Reply::Error(error)) => panic!("redis refuses: {error}"),
            Ok(reply) => reply,
            Err(error) => panic!("no answer of redis: {error}"),
        }
    }
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// What is made of an answer with these bytes, and the command as it was sent.
    fn asked(answer: &'static [u8]) -> (io::Result<Reply>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut wire = RedisConnection::open(listener.local_addr().unwrap()).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        wire.send(&["GET", "k"]).unwrap();
        let mut seen = [0; 64];
        let read = peer.read(&mut seen).unwrap();
        peer.write_all(answer).unwrap();
        drop(peer);
        (wire.receive(), seen[..read].to_vec())
    }

    #[test]
    fn every_kind_of_answer_is_read() {
        let (reply, sent) = asked(b"*5\r\n+OK\r\n:-7\r\n$3\r\na\r\n\r\n$-1\r\n-ERR no\r\n");
        let expected = vec![
            Reply::Text("OK".into()),
            Reply::Number(-7),
            Reply::Value(Some(b"a\r\n".to_vec())),
            Reply::Value(None),
            Reply::Error("ERR no".into()),
        ];
        assert_eq!(reply.unwrap(), Reply::List(expected));
        assert_eq!(sent, b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n");
    }

    #[test]
    fn an_answer_that_is_cut_off_or_huge_is_an_error() {
        for answer in [&b"$9\r\nshort"[..], b"+no end", b"$99999999999\r\n", b"*99999999\r\n", b"?\r\n", b""] {
            assert!(asked(answer).0.is_err(), "{answer:?}");
        }
    }
}
