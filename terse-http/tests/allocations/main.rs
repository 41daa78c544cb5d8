//! A redirect that memory answers allocates nothing on a kept connection; one
//! that is answered in front of the router nothing beyond what actix's parser
//! allocates for any request.
//!
//! Counted is every allocation and reallocation of the process, on whatever
//! thread, but those of the client: socket, parser, look-up, headers, counters,
//! logging, timers. The same is counted of a bare actix service that answers a
//! constant; the difference is the front's, and it is zero. What actix allocates is
//! the request's path, each header name that the `http` crate doesn't know, and
//! every tenth request or so its read buffer. What the first requests of a
//! connection set up (buffers, actix's pool of heads) comes before counting.

#![allow(missing_docs, clippy::unwrap_used, dead_code)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::Ordering;

use actix_http::body::BoxBody;
use actix_http::header::{self, HeaderValue};
use actix_http::{HttpService, KeepAlive, Protocol, Request, Response, StatusCode};
use actix_service::{Service, ServiceFactory, fn_service};
use terse_core::Link;
use terse_http::Network;
use terse_testkit::CountingAllocator;
use terse_testkit::links::link;
use tokio::runtime::{Builder, LocalOptions};

#[path = "../http/server.rs"]
mod server;

use server::{Choices, Server};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::new();

const LOCATION: &[u8] = b"location: https://example.com/abc\r\n";

/// Requests of one window.
const WINDOW: u64 = 200;
/// Windows; background work such as actix's clock, twice a second, may fall into some.
const WINDOWS: usize = 20;

/// A browser's headers, as far as the `http` crate knows their names.
const HEADERS: &str = "Host: go.example.org\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-US,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\nReferer: https://news.example.com/front/page\r\n\
    Upgrade-Insecure-Requests: 1\r\nConnection: keep-alive\r\n";
/// Those that it doesn't know: actix keeps each such name in an allocation of its own.
const UNKNOWN: &str = "Sec-Fetch-Dest: document\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Site: cross-site\r\n";

/// Proxies in a row, the last of which is the client's peer.
const PROXIES: &str = "X-Forwarded-For: 203.0.113.7, 10.1.1.1, [fd00::1]:4711\r\n";
const FORWARDED: &str = "Forwarded: for=203.0.113.7;host=\"a,b\", for=10.1.1.1, for=\"[fd00::1]:4711\"\r\n";

/// The fewest allocations of a window of requests with `more` headers, on one connection.
fn fewest(address: SocketAddr, method: &str, more: &str) -> u64 {
    fewest_on(&mut TcpStream::connect(address).unwrap(), method, more)
}

fn fewest_on(stream: &mut TcpStream, method: &str, more: &str) -> u64 {
    let request = format!("{method} /abc HTTP/1.1\r\n{HEADERS}{more}\r\n");
    (0..5 * WINDOW).for_each(|_| redirect(stream, request.as_bytes()));
    let windows = (0..WINDOWS).map(|_| {
        let before = ALLOCATOR.allocations();
        (0..WINDOW).for_each(|_| redirect(stream, request.as_bytes()));
        ALLOCATOR.allocations() - before
    });
    windows.min().unwrap()
}

/// Sends one request and reads its answer, which has no body.
fn redirect(stream: &mut TcpStream, request: &[u8]) {
    stream.write_all(request).unwrap();
    let (mut answer, mut length) = ([0; 1024], 0);
    while !answer[..length].ends_with(b"\r\n\r\n") {
        let read = stream.read(&mut answer[length..]).unwrap();
        assert_ne!(read, 0, "the connection is kept");
        length += read;
    }
    assert!(answer.starts_with(b"HTTP/1.1 302"));
    assert!(answer[..length].windows(LOCATION.len()).any(|part| part == LOCATION));
}

/// A bare actix service that redirects everything, for as long as the process lives.
fn bare() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(|| {
        let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
        runtime.block_on(serve_bare(listener));
    });
    address
}

async fn serve_bare(listener: TcpListener) {
    let service = fn_service(|_: Request| {
        let mut response = Response::with_body(StatusCode::FOUND, BoxBody::new(()));
        let location = HeaderValue::from_static("https://example.com/abc");
        response.headers_mut().insert(header::LOCATION, location);
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        std::future::ready(Ok::<_, actix_web::Error>(response))
    });
    let service = HttpService::build().keep_alive(KeepAlive::Os).finish(service);
    let handler = service.new_service(()).await.unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    loop {
        let (stream, peer) = listener.accept().await.unwrap();
        tokio::task::spawn_local(handler.call((stream, Protocol::Http1, Some(peer))));
    }
}

fn server(lane: bool) -> Server {
    let network = |address: &str, prefix| Network { address: address.parse().unwrap(), prefix };
    let trusted_proxies = [network("127.0.0.0", 8), network("10.0.0.0", 8), network("fd00::", 8)].into_iter().collect();
    let server = Server::with(Choices { lane, trusted_proxies, ..Choices::default() });
    server.recorded.quiet.store(true, Ordering::Relaxed);
    server.reader.known.lock().insert("abc".into(), link("abc").resolution());
    server
}

/// One test, since all threads of the process are counted.
#[test]
fn a_redirect_from_memory_allocates_nothing_of_its_own() {
    CountingAllocator::leave_out_this_thread();
    let (in_lane, server, bare) = (server(true), server(false), bare());
    for (method, more) in [("GET", ""), ("HEAD", ""), ("GET", UNKNOWN), ("GET", "X-Request-Id: 0123456789abcdef\r\n")] {
        assert_eq!(fewest(in_lane.address, method, more), 0, "{method} {more:?}, in {WINDOW} requests");
    }
    let both = format!("{PROXIES}{FORWARDED}");
    for more in [PROXIES, FORWARDED, &both] {
        assert_eq!(fewest(in_lane.address, "GET", more), 0, "{more:?}, in {WINDOW} requests");
    }
    // A connection comes back to the lane after what the lane can't answer.
    in_lane.put(&Link { target: link("abc").target, ..link("far") });
    let mut stream = TcpStream::connect(in_lane.address).unwrap();
    redirect(&mut stream, format!("GET /far HTTP/1.1\r\n{HEADERS}\r\n").as_bytes());
    assert_eq!(fewest_on(&mut stream, "GET", ""), 0, "after a look into the store");
    for (method, more) in
        [("GET", ""), ("HEAD", ""), ("GET", UNKNOWN), ("GET", "X-Request-Id: 0123456789abcdef\r\n"), ("GET", PROXIES)]
    {
        let (ours, actix) = (fewest(server.address, method, more), fewest(bare, method, more));
        assert_eq!(ours, actix, "{method} {more:?}, in {WINDOW} requests");
        let names = more.lines().count() as u64;
        assert!((WINDOW..2 * WINDOW).contains(&(actix - names * WINDOW)), "{actix} allocations of actix are explained");
    }
    // The counter does count: what memory doesn't know takes a future of its own.
    let kept = fewest(server.address, "GET", "");
    server.reader.known.lock().clear();
    server.put(&link("abc"));
    assert!(fewest(server.address, "GET", "") >= kept + WINDOW);
}
