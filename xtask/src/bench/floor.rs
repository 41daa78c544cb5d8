//! The floor: what the kernel alone costs. A server that answers every request
//! with the same 302 without looking at it, with one epoll and no parsing.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

use anyhow::{Context as _, Result};
use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

/// How many events are taken from the kernel at once.
const EVENTS: usize = 256;
/// More than the requests of a connection that may be in flight have.
const BUFFER_BYTES: usize = 16 * 1024;
/// How the head of a request ends.
const HEAD_END: &[u8] = b"\r\n\r\n";
/// The listener among the events.
const LISTENER: u64 = u64::MAX;

/// Answers on `address` with redirects to `target` until the process is ended.
/// With `close` it ends each connection after its first answer.
///
/// # Errors
/// When the address can't be listened on.
pub fn serve(address: SocketAddr, target: &str, close: bool) -> Result<()> {
    let listener = TcpListener::bind(address).with_context(|| format!("listening on {address}"))?;
    serve_on(&listener, target, close)
}

fn serve_on(listener: &TcpListener, target: &str, close: bool) -> Result<()> {
    let connection = if close { "connection: close\r\n" } else { "" };
    let answer = format!(
        "HTTP/1.1 302 Found\r\nlocation: {target}\r\ncache-control: no-store\r\n{connection}content-length: 0\r\n\r\n"
    );
    listener.set_nonblocking(true)?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)?;
    let mut connections: Vec<Option<TcpStream>> = Vec::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut events: [epoll::Event; EVENTS] =
        [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }; EVENTS];
    loop {
        let ready = match epoll::wait(&epoll, &mut events[..], None) {
            Err(rustix::io::Errno::INTR) => continue,
            ready => ready?,
        };
        for event in &events[..ready] {
            let data = event.data.u64();
            if data == LISTENER {
                accept(listener, &epoll, &mut connections)?;
                continue;
            }
            let Some(slot) = connections.get_mut(data as usize) else { continue };
            let open = |done: Next| done == Next::Wait || (done == Next::Answered && !close);
            if slot.as_mut().is_some_and(|stream| !open(answer_once(stream, &mut buffer, answer.as_bytes()))) {
                *slot = None;
            }
        }
    }
}

fn accept(listener: &TcpListener, epoll: &rustix::fd::OwnedFd, connections: &mut Vec<Option<TcpStream>>) -> Result<()> {
    let stream = match accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
        Ok(stream) => TcpStream::from(stream),
        Err(Errno::WOULDBLOCK | Errno::INTR | Errno::CONNABORTED) => return Ok(()),
        Err(error) => return Err(error).context("accepting"),
    };
    stream.set_nodelay(true)?;
    let free = connections.iter().position(Option::is_none).unwrap_or(connections.len());
    epoll::add(epoll, &stream, epoll::EventData::new_u64(free as u64), epoll::EventFlags::IN)?;
    if free == connections.len() {
        connections.push(Some(stream));
    } else {
        connections[free] = Some(stream);
    }
    Ok(())
}

/// What a look at a connection led to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    /// More is to come.
    Wait,
    /// A request was answered.
    Answered,
    /// The connection has ended.
    Ended,
}

/// Answers what has come. The generator sends a request in one piece and waits for its answer.
fn answer_once(stream: &mut TcpStream, buffer: &mut [u8], answer: &[u8]) -> Next {
    match stream.read(buffer) {
        Ok(0) => Next::Ended,
        Ok(read) if buffer[..read].ends_with(HEAD_END) && stream.write_all(answer).is_ok() => Next::Answered,
        Ok(read) if buffer[..read].ends_with(HEAD_END) => Next::Ended,
        Ok(_) => Next::Wait,
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Next::Wait,
        Err(_) => Next::Ended,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::wire::{Get, parse};

    fn start(close: bool) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || serve_on(&listener, "https://a.example/", close));
        address
    }

    fn ask(stream: &mut TcpStream) -> Vec<u8> {
        let mut request = Vec::new();
        Get::default().write(b"abcdefg", &mut request);
        stream.write_all(&request).unwrap();
        let mut buffer = vec![0; 1_000];
        let read = stream.read(&mut buffer).unwrap();
        buffer.truncate(read);
        buffer
    }

    #[test]
    fn every_request_is_answered_with_the_same_redirect() {
        let mut stream = TcpStream::connect(start(false)).unwrap();
        for _ in 0..3 {
            let bytes = ask(&mut stream);
            let answer = parse(&bytes).unwrap().unwrap();
            assert_eq!((answer.status, answer.location), (302, Some(&b"https://a.example/"[..])));
            assert!(answer.keep_alive);
        }
    }

    #[test]
    fn a_floor_that_closes_says_so_and_does_it_after_one_answer() {
        let address = start(true);
        for _ in 0..3 {
            let mut stream = TcpStream::connect(address).unwrap();
            let bytes = ask(&mut stream);
            assert!(!parse(&bytes).unwrap().unwrap().keep_alive);
            assert_eq!(stream.read(&mut [0; 10]).unwrap(), 0);
        }
    }

    #[test]
    fn connections_come_and_go() {
        let address = start(false);
        for _ in 0..3 {
            let mut streams: Vec<TcpStream> = (0..4).map(|_| TcpStream::connect(address).unwrap()).collect();
            assert!(streams.iter_mut().all(|stream| !ask(stream).is_empty()));
        }
    }
}
