//! Thousands of requests at the very same time: connections that are open
//! before, a server that is stopped while the requests are written to all of
//! them, and goes on when they are all there.
//!
//! Bounds: [`THREADS`] here, whatever the number of connections, and one request on each.

use std::time::Duration;

use crate::{Client, Connection, Request, Response, Server, joined};

/// Threads that write and read.
const THREADS: usize = 16;
/// Files that a drill has open beside its connections, at most.
const OTHER_FILES: u64 = 1_000;
/// How long any of the answers may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Open connections.
pub(super) struct Rush {
    parts: Vec<Vec<Connection>>,
}

impl Rush {
    /// Opens `count` connections.
    pub(super) fn open(client: &Client, count: usize) -> Self {
        let needed = count as u64 + OTHER_FILES;
        let limit = rlimit::increase_nofile_limit(needed);
        assert!(
            limit.as_ref().is_ok_and(|limit| *limit >= needed),
            "{count} connections need a limit of {needed} open files (ulimit -n), it is {limit:?}"
        );
        let sizes = (0..THREADS).map(|number| (count + number) / THREADS);
        let open = |size: usize| {
            let connect = |_| {
                let connection = client.connect();
                connection.patience(PATIENCE).unwrap_or_else(|error| panic!("no patience: {error}"));
                connection
            };
            (0..size).map(connect).collect()
        };
        Self { parts: in_threads(sizes.collect(), open) }
    }

    /// Sends `request` on all connections while `server` is stopped, lets it go on, and returns all answers.
    pub(super) fn at_once(&mut self, server: &Server, request: &Request) -> Vec<Response> {
        let bytes = request.bytes("127.0.0.1");
        let stopped = server.pause();
        in_threads(self.parts.iter_mut().collect(), |part: &mut Vec<Connection>| {
            part.iter_mut().for_each(|wire| wire.write(&bytes).unwrap_or_else(|error| panic!("not sent: {error}")));
        });
        drop(stopped);
        let receive = |part: &mut Vec<Connection>| -> Vec<Response> {
            let answer =
                |wire: &mut Connection| wire.receive(false).unwrap_or_else(|error| panic!("no answer: {error}"));
            part.iter_mut().map(answer).collect()
        };
        in_threads(self.parts.iter_mut().collect(), receive).into_iter().flatten().collect()
    }
}

/// Does this with each item in a thread of its own.
pub(super) fn in_threads<I: Send, O: Send>(items: Vec<I>, work: impl Fn(I) -> O + Sync) -> Vec<O> {
    let work = &work;
    std::thread::scope(|scope| {
        let threads: Vec<_> = items.into_iter().map(|item| scope.spawn(move || work(item))).collect();
        threads.into_iter().map(|thread| joined(thread.join())).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "open files")]
    fn more_connections_than_files_are_refused_with_the_limit_that_is_needed() {
        // More than any system allows, so nobody is asked for a connection.
        let _ = Rush::open(&Client::new(([127, 0, 0, 1], 1).into()), usize::MAX / 2);
    }

    #[test]
    fn work_is_done_with_each_item_in_its_order() {
        assert_eq!(
            in_threads((0..40).collect(), |number: u32| number * number),
            (0..40).map(|n| n * n).collect::<Vec<_>>()
        );
    }
}
