//! One connection, as the lane and the HTTP server above it share it.
//!
//! The server gets what the lane hands on, and asks for more. Behind a request
//! that the lane handed on by itself, of whose body the rest is still to come,
//! there is no more until the lane says so: when that request is answered and
//! all of the answer has left, the connection is back in the lane. When a body
//! was left unread, actix-http may end the connection or go on behind it, which
//! can't be told from here: the rest of the connection is the server's then, as
//! after anything else, and read straight from the socket.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::connection::Connection;
use crate::open::Activity;

/// The connection, and what was handed on of it.
pub(super) struct Line {
    pub(super) connection: Connection,
    handed: Vec<u8>,
    /// How much of that has been read.
    read: usize,
    /// Bytes of the body that are still to come.
    owed: u64,
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
        Self { connection, handed: Vec::new(), read: 0, owed: 0, through: false, flushed: false, before: 0 }
    }

    /// Hands on one request, of which `owed` bytes have not been read yet.
    pub(super) fn hand(&mut self, request: &[u8], owed: u64) {
        self.handed.clear();
        self.handed.extend_from_slice(request);
        (self.read, self.owed, self.flushed) = (0, owed, false);
        self.before = self.connection.activity().requests().0;
    }

    /// Hands on the rest of the connection, of which `bytes` have been read.
    pub(super) fn hand_all(&mut self, bytes: &[u8]) {
        self.hand(bytes, 0);
        self.through = true;
    }

    /// Whether the request that was handed on has been answered to the last byte, and nothing else was handed on.
    pub(super) fn is_back(&self) -> bool {
        self.is_answered() && !self.connection.activity().is_unread() && self.owed == 0
    }

    /// Whether the request that was handed on has been answered, and its body not read to the end.
    pub(super) fn is_left_unread(&self) -> bool {
        self.is_answered() && self.connection.activity().is_unread()
    }

    /// Whether all that was handed on is one request, of which the server has taken what there is, and its answer has
    /// left.
    fn is_answered(&self) -> bool {
        let answered = self.connection.activity().requests() == (self.before + 1, 0);
        answered && self.flushed && !self.through && self.read == self.handed.len()
    }

    /// Reads of the body what is owed at most.
    fn poll_owed(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let most = usize::try_from(self.owed).unwrap_or(usize::MAX).min(buffer.remaining());
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(most));
        ready!(Pin::new(&mut self.connection).poll_read(cx, &mut part))?;
        let bytes = part.filled().len();
        buffer.advance(bytes);
        self.owed -= bytes as u64;
        // The client has ended within its request.
        self.through |= bytes == 0;
        Poll::Ready(Ok(()))
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
        match line {
            _ if line.through => Pin::new(&mut line.connection).poll_read(cx, buffer),
            _ if line.owed > 0 => line.poll_owed(cx, buffer),
            _ => Poll::Pending,
        }
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
