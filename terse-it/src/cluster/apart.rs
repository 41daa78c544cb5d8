//! A core for the nodes, and the others for everybody else, as if the nodes were machines of their own.
//!
//! Nodes that are asked for more than they can do take all the CPU there is, and a server that waits for its turn
//! behind them says nothing about itself.

use std::fs;

use rustix::io::Errno;
use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_setaffinity};

/// Nodes that have a core to themselves; dropped, everybody may run where this thread could before.
#[derive(Debug)]
#[must_use = "dropped, nobody is apart any more"]
pub struct Apart {
    nodes: Vec<u32>,
    others: Vec<u32>,
    before: CpuSet,
}

impl Apart {
    /// Puts the processes `nodes` on the last core that this thread may use, and `others` on the rest.
    pub(super) fn put(nodes: Vec<u32>, others: Vec<u32>) -> Self {
        let before = sched_getaffinity(None).unwrap_or_else(|error| panic!("where this may run: {error}"));
        let (last, rest) = divided(&before).unwrap_or_else(|| panic!("nodes and servers need a core each"));
        let apart = Self { nodes, others, before };
        apart.confine(&last, &rest).unwrap_or_else(|error| panic!("nodes on a core of their own: {error}"));
        apart
    }

    fn confine(&self, nodes: &CpuSet, others: &CpuSet) -> std::io::Result<()> {
        self.others.iter().try_for_each(|pid| confine(*pid, others))?;
        self.nodes.iter().try_for_each(|pid| confine(*pid, nodes))
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        let freed = self.confine(&self.before, &self.before);
        // A failure at hand is what has to be told; a process may have ended with it.
        assert!(freed.is_ok() || std::thread::panicking(), "some may still be on one core: {freed:?}");
    }
}

/// The last of `cores`, and all others; `None` if there are no others.
fn divided(cores: &CpuSet) -> Option<(CpuSet, CpuSet)> {
    let last = (0..CpuSet::MAX_CPU).rev().find(|core| cores.is_set(*core))?;
    let (mut theirs, mut others) = (CpuSet::new(), *cores);
    theirs.set(last);
    others.unset(last);
    (others.count() > 0).then_some((theirs, others))
}

/// Lets all threads of process `pid` run on `cores`. Twice, for those that were started meanwhile by one that was not
/// moved yet.
fn confine(pid: u32, cores: &CpuSet) -> std::io::Result<()> {
    for _ in 0..2 {
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let Some(id) = task?.file_name().to_string_lossy().parse().ok().and_then(Pid::from_raw) else { continue };
            match sched_setaffinity(Some(id), cores) {
                // The thread has ended.
                Ok(()) | Err(Errno::SRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn set(cores: &[usize]) -> CpuSet {
        let mut set = CpuSet::new();
        cores.iter().for_each(|core| set.set(*core));
        set
    }

    #[test]
    fn nodes_get_the_last_core_and_the_rest_is_for_others() {
        assert_eq!(divided(&set(&[0, 1])), Some((set(&[1]), set(&[0]))));
        assert_eq!(divided(&set(&[2, 5, 7])), Some((set(&[7]), set(&[2, 5]))));
        assert_eq!(divided(&set(&[3])), None);
    }

    #[test]
    fn nodes_are_apart_from_others_until_that_ends() -> std::io::Result<()> {
        let before = sched_getaffinity(None)?;
        let Some((last, rest)) = divided(&before) else { return Ok(()) };
        let mut processes = [Command::new("sleep").arg("60").spawn()?, Command::new("sleep").arg("60").spawn()?];
        let [node, other] = processes.each_ref().map(std::process::Child::id);
        let now = || [node, other].map(|pid| sched_getaffinity(Pid::from_raw(pid.cast_signed())));
        let apart = Apart::put(vec![node], vec![other]);
        assert_eq!(now(), [Ok(last), Ok(rest)]);
        drop(apart);
        assert_eq!(now(), [Ok(before), Ok(before)]);
        for process in &mut processes {
            process.kill()?;
            process.wait()?;
        }
        Ok(())
    }
}
