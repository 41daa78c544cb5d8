//! Clients that each keep one connection and send the next request when the
//! answer to the last is there; and what that cost the server.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::time::{ClockId, clock_gettime};

/// Connections at a time.
pub(crate) const CONNECTIONS: usize = 64;
/// The longest answer that is accepted, in bytes.
const ANSWER_BYTES: usize = 1_024;
/// How long no answer at all may come; then the measurement has failed.
const PATIENCE: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// What every answer begins with, and has somewhere in its head.
const STATUS: &[u8] = b"HTTP/1.1 302";
const LOCATION: &[u8] = b"\r\nlocation: https://example.com/abcdefg\r\n";

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    /// Answers, all of them checked.
    pub(crate) answers: u64,
    /// CPU time of this process but for this thread, in µs an answer.
    pub(crate) cpu_us: f64,
    /// Answers a second.
    pub(crate) per_second: f64,
}

/// The request as a browser sends it.
pub(crate) fn request(code: &str) -> Vec<u8> {
    let lines = [
        &format!("GET /{code} HTTP/1.1"),
        "Host: localhost:8080",
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        "Accept-Language: en-GB,en;q=0.7,de;q=0.3",
        "Accept-Encoding: gzip, deflate, br, zstd",
        "Referer: https://news.example.org/front?page=2",
        "Connection: keep-alive",
        "Upgrade-Insecure-Requests: 1",
        "Sec-Fetch-Dest: document",
        "Sec-Fetch-Mode: navigate",
        "Sec-Fetch-Site: cross-site",
        "",
        "",
    ];
    lines.join("\r\n").into_bytes()
}

/// CPU time of all threads but this one.
fn others() -> Duration {
    let read = |clock| {
        let time = clock_gettime(clock);
        Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
    };
    read(ClockId::ProcessCPUTime).saturating_sub(read(ClockId::ThreadCPUTime))
}

struct Client {
    stream: TcpStream,
    answer: [u8; ANSWER_BYTES],
    length: usize,
}

impl Client {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the server accepts");
        stream.set_nodelay(true).expect("an option of the socket");
        Self { stream, answer: [0; ANSWER_BYTES], length: 0 }
    }

    /// Reads what is there. Whether the answer is whole now.
    ///
    /// # Panics
    /// When it is not the redirect that was asked for.
    fn receive(&mut self) -> bool {
        let read = self.stream.read(&mut self.answer[self.length..]).expect("an answer");
        assert_ne!(read, 0, "the connection is kept and the answer fits");
        self.length += read;
        let answer = &self.answer[..self.length];
        if !answer.ends_with(b"\r\n\r\n") {
            return false;
        }
        let found = answer.starts_with(STATUS) && answer.windows(LOCATION.len()).any(|part| part == LOCATION);
        assert!(found, "{}", String::from_utf8_lossy(answer));
        self.length = 0;
        true
    }
}

/// Asks the server at `address` for `code` on all connections, for `warm_up` and then for `span`, which is measured.
///
/// # Panics
/// When an answer is wrong or doesn't come.
pub(crate) fn measure(address: SocketAddr, code: &str, warm_up: Duration, span: Duration) -> Measured {
    let request = request(code);
    let mut clients: Vec<Client> = (0..CONNECTIONS).map(|_| Client::connect(address)).collect();
    for client in &mut clients {
        client.stream.write_all(&request).expect("a request is taken");
    }
    run(&mut clients, &request, warm_up);
    let (began, before) = (Instant::now(), others());
    let answers = run(&mut clients, &request, span);
    let (took, used) = (began.elapsed(), others().saturating_sub(before));
    let cpu_us = used.as_secs_f64() * 1e6 / answers as f64;
    Measured { answers, cpu_us, per_second: answers as f64 / took.as_secs_f64() }
}

/// Reads answers, and sends a request for each, until `span` is over. How many there were.
fn run(clients: &mut [Client], request: &[u8], span: Duration) -> u64 {
    let (began, mut answers) = (Instant::now(), 0);
    let mut ready = Vec::with_capacity(clients.len());
    while began.elapsed() < span {
        ready.clear();
        {
            let mut waiting: Vec<_> = clients.iter().map(|client| PollFd::new(&client.stream, PollFlags::IN)).collect();
            let some = poll(&mut waiting, Some(&PATIENCE)).expect("the connections are watched");
            assert_ne!(some, 0, "the server answers");
            ready.extend(waiting.iter().map(|client| !client.revents().is_empty()));
        }
        for (client, ready) in clients.iter_mut().zip(&ready) {
            if *ready && client.receive() {
                client.stream.write_all(request).expect("a request is taken");
                answers += 1;
            }
        }
    }
    answers
}
