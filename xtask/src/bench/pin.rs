//! A core for the server, another for the generator, so that neither takes time from the other.

use std::fs;

use anyhow::{Context as _, Result, bail};
use rustix::io::Errno;
use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_setaffinity};

/// Which core does what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cores {
    /// Where servers run.
    pub server: usize,
    /// Where the generator runs.
    pub generator: usize,
}

impl Cores {
    /// The first two cores that this process may use.
    ///
    /// # Errors
    /// When there is only one: a measurement would say nothing.
    pub fn choose() -> Result<Self> {
        let allowed = sched_getaffinity(None)?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        match (cores.next(), cores.next()) {
            (Some(server), Some(generator)) => Ok(Self { server, generator }),
            _ => bail!("server and generator need a core each"),
        }
    }
}

/// Runs `work` on `core` alone; what it starts stays there. Afterwards this thread is where it was.
///
/// # Errors
/// When the core can't be had, or that of `work`.
pub fn on_core<T>(core: usize, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let before = sched_getaffinity(None)?;
    sched_setaffinity(None, &one(core))?;
    let done = work();
    sched_setaffinity(None, &before)?;
    done
}

/// Does `work` while the processes `pids`, which run already, have `core`
/// alone. Afterwards they may run wherever this thread may.
///
/// # Errors
/// When a process can't be moved, or that of `work`.
pub fn while_confined<T>(pids: &[u32], core: usize, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let before = sched_getaffinity(None)?;
    let done = pids.iter().try_for_each(|pid| confine(*pid, &one(core))).and_then(|()| work());
    let freed = pids.iter().try_for_each(|pid| confine(*pid, &before));
    done.and_then(|done| freed.map(|()| done))
}

fn one(core: usize) -> CpuSet {
    let mut only = CpuSet::new();
    only.set(core);
    only
}

/// Lets all threads of process `pid` run on `cores`. Twice, for those that were
/// started meanwhile by one that was not moved yet.
fn confine(pid: u32, cores: &CpuSet) -> Result<()> {
    for _ in 0..2 {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("the threads of {pid}"))?;
        for task in tasks {
            let id = task?.file_name().to_string_lossy().parse()?;
            match sched_setaffinity(Pid::from_raw(id), cores) {
                // The thread has ended.
                Ok(()) | Err(Errno::SRCH) => {}
                Err(error) => return Err(error).with_context(|| format!("moving thread {id} of {pid}")),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn what_is_started_on_a_core_stays_there_and_the_thread_comes_back() {
        let Ok(cores) = Cores::choose() else { return };
        assert_ne!(cores.server, cores.generator);
        let before = sched_getaffinity(None).unwrap().count();
        let listed = on_core(cores.generator, || {
            let output = Command::new("grep").args(["Cpus_allowed_list", "/proc/self/status"]).output()?;
            Ok(String::from_utf8(output.stdout)?)
        })
        .unwrap();
        assert_eq!(listed.split_whitespace().last(), Some(cores.generator.to_string().as_str()));
        assert_eq!(sched_getaffinity(None).unwrap().count(), before);
    }

    #[test]
    fn a_running_process_stays_on_a_core_during_the_work_and_is_free_afterwards() {
        let Ok(cores) = Cores::choose() else { return };
        let mut process = Command::new("sleep").arg("60").spawn().unwrap();
        let allowed = || {
            let status = fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
            let line = status.lines().find(|line| line.starts_with("Cpus_allowed_list")).unwrap();
            line.split_whitespace().last().unwrap().to_owned()
        };
        let before = allowed();
        let during = while_confined(&[process.id()], cores.generator, || Ok(allowed()));
        let after = allowed();
        process.kill().unwrap();
        process.wait().unwrap();
        assert_eq!((during.unwrap(), after), (cores.generator.to_string(), before));
        let gone = while_confined(&[process.id()], cores.generator, || Ok(()));
        assert!(gone.is_err(), "a process that isn't there can't be moved");
    }

    #[test]
    fn an_error_of_the_work_is_passed_on() {
        let Ok(cores) = Cores::choose() else { return };
        assert_eq!(on_core::<()>(cores.server, || bail!("no")).unwrap_err().to_string(), "no");
    }
}
