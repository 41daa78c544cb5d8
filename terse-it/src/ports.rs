//! Ports that whoever comes back finds free.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use crate::await_some;

/// Ports that no system gives to whoever connects, so that who is started again finds its own free, and nobody who
/// asks for it meanwhile reaches himself.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// How long one is looked for.
const FOUND_LIMIT: Duration = Duration::from_secs(30);

/// A port on the loopback address that is free now and that no other call of this process was given lately.
#[track_caller]
pub(crate) fn steady_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let width = PORTS.end - PORTS.start;
    // Processes that run at once begin at different places.
    let first = (std::process::id().wrapping_mul(97) % u32::from(width)) as u16;
    await_some("a free port", FOUND_LIMIT, || {
        let port = PORTS.start + (first + NEXT.fetch_add(1, Ordering::SeqCst) % width) % width;
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok().map(|_| port)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn steady_ports_are_none_that_a_connection_may_come_from() {
        let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
        let first: u16 = range.split_whitespace().next().unwrap().parse().unwrap();
        assert!(PORTS.end <= first, "{range}");
    }

    #[test]
    fn no_port_is_given_twice_in_a_row_or_while_it_is_taken() {
        let port = steady_port();
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        let next = steady_port();
        assert!(next != port && PORTS.contains(&next));
        drop(taken);
    }
}
