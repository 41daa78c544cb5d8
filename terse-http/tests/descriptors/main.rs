//! A server without a free file descriptor waits for one. This is a program of
//! its own, because the limit is one of the whole process.

#![allow(missing_docs, clippy::unwrap_used, dead_code)]

use std::collections::HashSet;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

#[path = "../http/server.rs"]
mod server;

use server::Server;

/// The lowest number that no descriptor of this process has.
fn first_free() -> u64 {
    let used = std::fs::read_dir("/proc/self/fd").unwrap();
    let used: HashSet<u64> = used.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect();
    // The folder itself was open while it was read, and is closed again.
    (0..)
        .find(|number| !used.contains(number) || std::fs::read_link(format!("/proc/self/fd/{number}")).is_err())
        .unwrap()
}

/// How many descriptors this process has, with that of the folder.
fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// The processor time of this process, in hundredths of a second.
fn processor_time() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn without_a_descriptor_the_server_pauses_and_goes_on_when_there_is_one() {
    let server = Server::start();
    // Whoever answers has all the descriptors that a worker needs.
    assert_eq!(server.get("/livez").status, 200);
    let open = descriptors();
    assert_eq!(server.get("/livez").status, 200);
    // The server's end of that connection is closed soon after the client's.
    let began = Instant::now();
    while descriptors() > open {
        assert!(began.elapsed() < Duration::from_secs(10), "a descriptor is left over");
        std::thread::yield_now();
    }
    let before = getrlimit(Resource::Nofile);
    let spent = processor_time();
    // The client's end takes the last one.
    setrlimit(Resource::Nofile, Rlimit { current: Some(first_free() + 1), maximum: before.maximum }).unwrap();
    let mut stream = server.connect();
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    assert!(stream.read(&mut [0; 1]).is_err(), "nobody can take the connection");
    setrlimit(Resource::Nofile, before).unwrap();
    assert!(processor_time() - spent < 30, "it waits, and doesn't try all the time");
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert!(server::read_to_end(&mut stream).starts_with(b"HTTP/1.1 200"));
}
