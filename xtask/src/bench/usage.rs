//! What a process uses: CPU time and memory, as `/proc` tells it.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::process::family;

/// CPU time used up to now, by thread.
#[derive(Clone, Debug, Default)]
pub struct CpuTime {
    /// Nanoseconds by (process, thread), from `schedstat`.
    threads: BTreeMap<(u32, u32), u64>,
    /// Clock ticks of whole processes, ended threads included, from `stat`.
    ticks: BTreeMap<u32, u64>,
}

/// Linux reports `stat` in hundredths of a second, whatever the kernel's own clock.
const TICK: Duration = Duration::from_millis(10);

impl CpuTime {
    /// The CPU time of `pid` and all its descendants.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn of(pid: u32) -> Result<Self> {
        let mut time = Self::default();
        for process in family(pid) {
            time.add(process).with_context(|| format!("reading the CPU time of process {process}"))?;
        }
        Ok(time)
    }

    fn add(&mut self, process: u32) -> Result<()> {
        let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
        self.ticks.insert(process, parse_ticks(&stat).context("unknown form of stat")?);
        for entry in fs::read_dir(format!("/proc/{process}/task"))? {
            let entry = entry?;
            let Some(thread) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // A thread may end between the listing and the look; `ticks` has its time.
            let Ok(line) = fs::read_to_string(entry.path().join("schedstat")) else { continue };
            self.threads.insert((process, thread), parse_schedstat(&line).context("unknown form of schedstat")?);
        }
        Ok(())
    }

    /// What was used since `earlier`. Exact to the nanosecond if no thread has
    /// ended since, else to the tick.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Duration {
        if earlier.threads.keys().all(|thread| self.threads.contains_key(thread)) {
            let before = |thread| earlier.threads.get(thread).copied().unwrap_or(0);
            return Duration::from_nanos(self.threads.iter().map(|(key, now)| now.saturating_sub(before(key))).sum());
        }
        let before = |process| earlier.ticks.get(process).copied().unwrap_or(0);
        let ticks: u64 = self.ticks.iter().map(|(key, now)| now.saturating_sub(before(key))).sum();
        TICK * u32::try_from(ticks).unwrap_or(u32::MAX)
    }
}

/// CPU time that the calling thread has used.
///
/// # Errors
/// When the kernel doesn't tell.
pub fn this_thread() -> Result<Duration> {
    let line = fs::read_to_string("/proc/thread-self/schedstat")?;
    parse_schedstat(&line).map(Duration::from_nanos).context("unknown form of schedstat")
}

/// Nanoseconds on the CPU: the first number of `schedstat`.
fn parse_schedstat(line: &str) -> Option<u64> {
    line.split(' ').next()?.parse().ok()
}

/// User and system time of `stat`, fields 14 and 15; the second field is a name in parentheses.
fn parse_ticks(line: &str) -> Option<u64> {
    let (_, rest) = line.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Resident memory of `pid` and all its descendants now, in bytes; what they share counts for each.
///
/// # Errors
/// When one of them is gone.
pub fn resident(pid: u32) -> Result<u64> {
    family(pid).into_iter().map(|process| Ok(memory(process)?.0)).sum()
}

/// Resident memory of `pid`, in bytes: now, and at most so far.
///
/// # Errors
/// When the process is gone.
pub fn memory(pid: u32) -> Result<(u64, u64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid}"))?;
    let now = parse_memory(&status, "VmRSS:").context("no VmRSS")?;
    let most = parse_memory(&status, "VmHWM:").context("no VmHWM")?;
    Ok((now, most))
}

fn parse_memory(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Instant;

    use super::*;

    fn time(threads: &[(u32, u64)], ticks: u64) -> CpuTime {
        CpuTime {
            threads: threads.iter().map(|(thread, time)| ((1, *thread), *time)).collect(),
            ticks: BTreeMap::from([(1, ticks)]),
        }
    }

    #[test]
    fn time_is_the_sum_over_threads_new_ones_included() {
        let earlier = time(&[(1, 100), (2, 50)], 0);
        let later = time(&[(1, 150), (2, 60), (3, 5)], 0);
        assert_eq!(later.since(&earlier), Duration::from_nanos(65));
    }

    #[test]
    fn when_a_thread_has_ended_the_process_time_counts() {
        let earlier = time(&[(1, 100), (2, 50)], 7);
        let later = time(&[(1, 150)], 12);
        assert_eq!(later.since(&earlier), Duration::from_millis(50));
    }

    #[test]
    fn lines_of_proc_are_read() {
        assert_eq!(parse_schedstat("1234 5 6\n"), Some(1234));
        let stat = "42 (a b) S 1 42 42 0 -1 4194560 100 0 0 0 11 31 5 6 20 0 1 0";
        assert_eq!(parse_ticks(stat), Some(42));
        assert_eq!(parse_memory("VmHWM:\t  20 kB\nVmRSS:\t   12 kB\n", "VmRSS:"), Some(12 * 1024));
        assert_eq!(parse_memory("VmRSS: many", "VmRSS:"), None);
    }

    #[test]
    fn work_of_a_process_is_measured() {
        // A process of its own: this one has children of other tests, which may end between two looks.
        let mut busy = Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        let (pid, start) = (busy.id(), Instant::now());
        while CpuTime::of(pid).unwrap().ticks[&pid] < 3 {
            assert!(start.elapsed() < Duration::from_secs(20), "no CPU time was counted");
        }
        let (now, most) = memory(pid).unwrap();
        assert!(now > 100_000 && most >= now);
        assert!(resident(pid).unwrap() >= now / 2, "at least its own");
        busy.kill().unwrap();
        busy.wait().unwrap();
        assert!(CpuTime::of(pid).is_err() && memory(pid).is_err(), "a process that is gone");
    }

    #[test]
    fn work_of_this_very_thread_is_measured() {
        let start = Instant::now();
        // The kernel counts a thread's time when it next looks at it.
        while this_thread().unwrap() == Duration::ZERO {
            assert!(start.elapsed() < Duration::from_secs(20), "no CPU time was counted");
        }
    }
}
