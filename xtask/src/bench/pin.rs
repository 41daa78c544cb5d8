//! A core for the server, another for the generator, so that neither takes time from the other.

use anyhow::{Result, bail};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

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
    let mut only = CpuSet::new();
    only.set(core);
    sched_setaffinity(None, &only)?;
    let done = work();
    sched_setaffinity(None, &before)?;
    done
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
    fn an_error_of_the_work_is_passed_on() {
        let Ok(cores) = Cores::choose() else { return };
        assert_eq!(on_core::<()>(cores.server, || bail!("no")).unwrap_err().to_string(), "no");
    }
}
