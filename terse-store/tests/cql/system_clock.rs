//! The system's clock, read as the server reads it: rows must look as old to a
//! store as they are to its cluster, and reading it must cost what it does there.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use terse_core::{Clock, Timestamp};

/// The system's clocks.
pub(crate) struct SystemClock;

fn since_boot(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(since_epoch().as_millis() as i64)
    }

    fn monotonic_ms(&self) -> u64 {
        since_boot(ClockId::Boottime).as_millis() as u64
    }

    fn monotonic_ns(&self) -> u64 {
        since_boot(ClockId::Boottime).as_nanos() as u64
    }
}

pub(crate) fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
