//! Drills that need the cluster run one after another, since each breaks it. Those without it run beside them in the
//! quick form, which asserts no latency; in the full form nothing else may run meanwhile.
//!
//! A lane is a process of its own. The lines of two lanes are told apart by what stands before them.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};

use super::catalogue::Entry;
use crate::process::Supervisor;

/// Drills that run one after another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lane {
    pub(super) name: &'static str,
    pub(super) drills: Vec<String>,
}

/// The lanes of these drills; there are two only in the quick form.
pub(super) fn of(entries: &[Entry], quick: bool) -> Vec<Lane> {
    let lane = |name, chosen: &dyn Fn(&Entry) -> bool| {
        let drills: Vec<String> =
            entries.iter().filter(|entry| chosen(entry)).map(|entry| entry.name.clone()).collect();
        Lane { name, drills }
    };
    let lanes = if quick {
        vec![lane("cluster", &|entry| entry.needs.cluster), lane("alone", &|entry| !entry.needs.cluster)]
    } else {
        vec![lane("measured", &|_| true)]
    };
    lanes.into_iter().filter(|lane| !lane.drills.is_empty()).collect()
}

/// Runs each lane to its end, also when another one fails. `command` is given a lane and where it writes.
///
/// # Errors
/// When a lane fails, or takes longer than `limit`.
pub(super) fn run(
    supervisor: &Supervisor,
    lanes: &[Lane],
    measured: &[PathBuf],
    limit: Duration,
    command: &(dyn Fn(&Lane, &Path) -> Command + Sync),
) -> Result<()> {
    if let ([lane], [measured]) = (lanes, measured) {
        return verdict(lane, supervisor.run(&mut command(lane, measured), limit)?);
    }
    std::thread::scope(|scope| {
        let start = |(lane, measured): (&Lane, &PathBuf)| {
            let (name, command) = (lane.name, command(lane, measured));
            scope.spawn(move || run_beside(supervisor, name, command, limit))
        };
        let threads: Vec<_> = lanes.iter().zip(measured).map(start).collect();
        let mut ended = Ok(());
        for (lane, thread) in lanes.iter().zip(threads) {
            let status = thread.join().map_err(|_| anyhow!("watching a lane panicked"))?;
            // The first failure is told; the others are in what was printed.
            ended = ended.and(status.and_then(|status| verdict(lane, status)));
        }
        ended
    })
}

fn verdict(lane: &Lane, status: ExitStatus) -> Result<()> {
    if !status.success() {
        bail!("drill {}: {status}", lane.drills.join(" "));
    }
    Ok(())
}

/// Runs a lane whose lines mix with another's.
fn run_beside(
    supervisor: &Supervisor,
    name: &'static str,
    mut command: Command,
    limit: Duration,
) -> Result<ExitStatus> {
    let mut group = supervisor.spawn(command.stdout(Stdio::piped()))?;
    let output = group.take_stdout().context("no output of a lane")?;
    // Its own thread, so that a lane that hangs can't outlast the limit.
    let reader = std::thread::spawn(move || -> std::io::Result<()> {
        for line in BufReader::new(output).lines() {
            println!("{name:<8}| {}", line?);
        }
        Ok(())
    });
    let status = group.wait(limit)?;
    reader.join().map_err(|_| anyhow!("reading what a lane prints panicked"))??;
    Ok(status)
}

#[cfg(test)]
mod tests {
    use super::super::catalogue::tests::entry;
    use super::*;

    fn names(lanes: &[Lane]) -> Vec<(&str, Vec<&str>)> {
        lanes.iter().map(|lane| (lane.name, lane.drills.iter().map(String::as_str).collect())).collect()
    }

    #[test]
    fn quick_drills_without_the_cluster_run_beside_those_with_it() {
        let entries = [entry("a", true, 1), entry("b", false, 1), entry("c", true, 1)];
        assert_eq!(names(&of(&entries, true)), [("cluster", vec!["a", "c"]), ("alone", vec!["b"])]);
        assert_eq!(names(&of(&entries, false)), [("measured", vec!["a", "b", "c"])], "what is measured is alone");
        assert_eq!(names(&of(&entries[1..2], true)), [("alone", vec!["b"])]);
    }

    /// Two lanes, of which the second one writes and then ends like this.
    fn run_two(second: &str) -> (Result<()>, Vec<String>) {
        let place = tempfile::tempdir().unwrap();
        let lanes = of(&[entry("a", true, 1), entry("b", false, 1)], true);
        let measured: Vec<PathBuf> = ["a", "b"].iter().map(|name| place.path().join(name)).collect();
        let command = |lane: &Lane, measured: &Path| {
            let end = if lane.name == "alone" { second } else { "sleep 0.2" };
            let mut command = Command::new("bash");
            command.arg("-c").arg(format!("echo {}; {end}; echo done > {}", lane.name, measured.display()));
            command
        };
        let ended = run(&Supervisor::unwatched(), &lanes, &measured, Duration::from_secs(20), &command);
        let read = measured.iter().map(|path| std::fs::read_to_string(path).unwrap_or_default());
        (ended, read.collect())
    }

    #[test]
    fn a_lane_that_fails_stops_no_other() {
        assert!(run_two("true").0.is_ok());
        let (ended, written) = run_two("exit 1");
        let error = ended.unwrap_err().to_string();
        assert!(error.starts_with("drill b: exit status: 1"), "{error}");
        assert_eq!(written, ["done\n", ""]);
    }
}
