//! One connection, as the lane and the HTTP server above it share it.
//!
//! The server gets what the lane hands on, and asks for more. After a head that
//! the lane handed on by itself there is no more until the lane says so: when
//! that request is answered and all of the answer has left, the connection is
//! back in the lane. After anything else the rest of the connection is the
//! server's, and read straight from the socket.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::connection::Connection;
use crate::open::Activity;

/// The connection, and what was handed on of it.
pub(super) struct Line {
    pub(super) connection: Connection,
    handed: Vec<u8>,
    /// How much of that has been read.
    read: usize,
    /// What comes next is the server's, too.
    through: bool,
    /// All that the server has written has left.
    flushed: bool,
    /// Requests that had come before the one that was handed on.
    before: u64,
}

/// The connection as the HTTP server sees it.
pub(crate) struct Upper {
    line: Rc<RefCell<Line>>,
    activity: Rc<Activity>,
}

impl Line {
    pub(super) fn new(connection: Connection) -> Self {
        Self { connection, handed: Vec::new(), read: 0, through: false, flushed: false, before: 0 }
    }

    /// Hands on the head of one request.
    pub(super) fn hand(&mut self, head: &[u8]) {
        self.handed.clear();
        self.handed.extend_from_slice(head);
        (self.read, self.flushed) = (0, false);
        self.before = self.connection.activity().requests().0;
    }

    /// Hands on the rest of the connection, of which `bytes` have been read.
    pub(super) fn hand_all(&mut self, bytes: &[u8]) {
        self.hand(bytes);
        self.through = true;
    }

    /// Whether the request that was handed on has been answered to the last byte, and nothing else was handed on.
    pub(super) fn is_back(&self) -> bool {
        let answered = self.connection.activity().requests() == (self.before + 1, 0);
        answered && self.flushed && !self.through && self.read == self.handed.len()
    }
}

impl Upper {
    pub(super) fn new(line: &Rc<RefCell<Line>>) -> Self {
        let activity = Rc::clone(line.borrow().connection.activity());
        Self { line: Rc::clone(line), activity }
    }

    /// All of `connection`, without a lane.
    pub(crate) fn whole(connection: Connection) -> Self {
        let mut line = Line::new(connection);
        line.through = true;
        Self::new(&Rc::new(RefCell::new(line)))
    }

    /// What goes on on it.
    pub(crate) fn activity(&self) -> &Rc<Activity> {
        &self.activity
    }
}

impl AsyncRead for Upper {
    /// Pending with nobody to wake while the lane has the connection: who is woken then looks for [`Line::is_back`].
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut line = self.line.borrow_mut();
        let line = &mut *line;
        let rest = line.handed.get(line.read..).unwrap_or_default();
        if !rest.is_empty() {
            let bytes = rest.len().min(buffer.remaining());
            buffer.put_slice(&rest[..bytes]);
            line.read += bytes;
            return Poll::Ready(Ok(()));
        }
        if line.through { Pin::new(&mut line.connection).poll_read(cx, buffer) } else { Poll::Pending }
    }
}

impl AsyncWrite for Upper {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut line = self.line.borrow_mut();
        line.flushed = false;
        Pin::new(&mut line.connection).poll_write(cx, bytes)
    }

    /// The server flushes when it has nothing more to write, and then only.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut line = self.line.borrow_mut();
        line.flushed = true;
        Pin::new(&mut line.connection).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.line.borrow_mut().connection).poll_shutdown(cx)
    }
}
