//! A client's connection, watched by the reactor only once it has to wait.
//!
//! Most connections that carry one request have it in the kernel's buffer by
//! the time they are accepted. Reading, answering and closing are then three
//! calls; to watch the socket first costs two more, and a round through the
//! reactor. So the socket is tried bare. It is watched from the moment that it
//! has nothing to read, can't take what is written, or is kept for another
//! request; from then on it is an ordinary [`TcpStream`].

use std::io::{self, Read as _, Write as _};
use std::net;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::open::Activity;

/// Bytes of one read from a bare socket. A browser's request has fewer; of a
/// longer one the rest is read in the same way.
const BARE_READ_BYTES: usize = 4 * 1024;

/// The connection. Its socket is non-blocking.
pub(crate) struct Connection {
    stage: Stage,
    activity: Rc<Activity>,
}

enum Stage {
    Bare(net::TcpStream, Reads),
    Watched(TcpStream),
    /// The reactor refused the socket, and it is closed.
    Refused,
}

/// What has been read from a bare socket.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reads {
    /// Not all that is there.
    Some,
    /// All that was there. Whoever wants more is woken at once: if the
    /// connection then still is, it was kept, and is worth watching.
    All,
    /// As before, and somebody was woken for it.
    Asked,
}

impl Connection {
    /// The connection of `socket`, which was accepted as non-blocking.
    pub(crate) fn bare(socket: net::TcpStream, activity: Rc<Activity>) -> Self {
        Self { stage: Stage::Bare(socket, Reads::Some), activity }
    }

    /// What goes on on it.
    pub(crate) fn activity(&self) -> &Rc<Activity> {
        &self.activity
    }

    /// The stream, watched from now on.
    fn watched(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        if let Stage::Bare(..) = self.stage
            && let Stage::Bare(socket, _) = std::mem::replace(&mut self.stage, Stage::Refused)
        {
            self.stage = Stage::Watched(TcpStream::from_std(socket)?);
        }
        match &mut self.stage {
            Stage::Watched(stream) => Ok(Pin::new(stream)),
            Stage::Bare(..) | Stage::Refused => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Reads without waiting. `None` = it takes the reactor; pending = whoever asked is woken already.
    fn read_bare(&mut self, cx: &Context<'_>, buffer: &mut ReadBuf<'_>) -> Option<Poll<io::Result<()>>> {
        let Stage::Bare(socket, reads) = &mut self.stage else {
            return None;
        };
        match reads {
            Reads::Some => {}
            Reads::All => {
                *reads = Reads::Asked;
                cx.waker().wake_by_ref();
                return Some(Poll::Pending);
            }
            Reads::Asked => return None,
        }
        let wanted = buffer.remaining().min(BARE_READ_BYTES);
        let read = without_waiting(|| socket.read(buffer.initialize_unfilled_to(wanted)))?;
        Some(Poll::Ready(read.map(|bytes| {
            buffer.advance(bytes);
            if (1..wanted).contains(&bytes) {
                *reads = Reads::All;
            }
        })))
    }
}

/// Does `call` again while a signal interrupts it. `None` = it would have to wait.
fn without_waiting(mut call: impl FnMut() -> io::Result<usize>) -> Option<io::Result<usize>> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
            done => return Some(done),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let connection = self.get_mut();
        match connection.read_bare(cx, buffer) {
            Some(read) => read,
            None => connection.watched()?.poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let connection = self.get_mut();
        let written = match &mut connection.stage {
            Stage::Bare(socket, _) => without_waiting(|| socket.write(bytes)).map(Poll::Ready),
            Stage::Watched(_) | Stage::Refused => None,
        };
        let written = match written {
            Some(written) => written,
            None => connection.watched()?.poll_write(cx, bytes),
        };
        match written {
            Poll::Ready(_) => connection.activity.wrote(),
            Poll::Pending => connection.activity.blocked(),
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Ends the writing side. A bare socket has nothing left to read, so that
    /// closing it, which follows, tells the client the same.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stage {
            Stage::Watched(stream) => Pin::new(stream).poll_shutdown(cx),
            Stage::Bare(..) | Stage::Refused => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// A bare connection, and the client's end of it.
    fn pair() -> (Connection, net::TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        (Connection::bare(socket, Rc::default()), client)
    }

    fn is_watched(connection: &Connection) -> bool {
        matches!(connection.stage, Stage::Watched(_))
    }

    #[tokio::test]
    async fn what_is_there_is_read_and_answered_without_the_reactor() {
        let (mut connection, mut client) = pair();
        client.write_all(b"one request").unwrap();
        // On loopback it is there as soon as it is written.
        let mut buffer = [0; 100];
        assert_eq!(connection.read(&mut buffer).await.unwrap(), 11);
        connection.write_all(b"one answer").await.unwrap();
        connection.shutdown().await.unwrap();
        assert!(!is_watched(&connection));
        drop(connection);
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "one answer");
    }

    #[tokio::test]
    async fn a_client_that_is_late_is_waited_for_by_the_reactor() {
        let (mut connection, mut client) = pair();
        let mut buffer = [0; 100];
        let late = async {
            tokio::task::yield_now().await;
            client.write_all(b"late").unwrap();
        };
        let (read, ()) = futures_util::join!(connection.read(&mut buffer), late);
        assert_eq!(read.unwrap(), 4);
        assert!(is_watched(&connection));
    }

    #[tokio::test]
    async fn a_connection_that_is_kept_goes_to_the_reactor() {
        let (mut connection, mut client) = pair();
        let mut buffer = [0; 100];
        for text in ["first", "second", "third"] {
            client.write_all(text.as_bytes()).unwrap();
            let read = connection.read(&mut buffer).await.unwrap();
            assert_eq!(&buffer[..read], text.as_bytes());
        }
        assert!(is_watched(&connection));
        drop(client);
        assert_eq!(connection.read(&mut buffer).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_long_request_is_read_whole() {
        let (mut connection, mut client) = pair();
        let sent: Vec<u8> = (0..3 * BARE_READ_BYTES + 7).map(|position| (position % 251) as u8).collect();
        client.write_all(&sent).unwrap();
        let mut got = vec![0; sent.len()];
        connection.read_exact(&mut got).await.unwrap();
        assert_eq!(got, sent);
        assert!(!is_watched(&connection));
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_is_waited_for() {
        let (mut connection, mut client) = pair();
        let long = vec![b'x'; 16 * 1024 * 1024];
        let expected = long.len();
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            client.read_to_end(&mut all).unwrap();
            all.len()
        });
        connection.write_all(&long).await.unwrap();
        assert!(is_watched(&connection));
        connection.shutdown().await.unwrap();
        assert_eq!(reader.join().unwrap(), expected);
    }

    #[tokio::test]
    async fn the_end_of_the_client_is_told_at_once() {
        let (mut connection, client) = pair();
        drop(client);
        let mut buffer = [0; 100];
        assert_eq!(connection.read(&mut buffer).await.unwrap(), 0);
        assert_eq!(connection.read(&mut buffer).await.unwrap(), 0);
    }
}
