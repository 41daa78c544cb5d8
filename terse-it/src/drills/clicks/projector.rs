//! kill -9 of the process that counts, at random, beside one that redirects; then
//! one that is stopped while a successor takes over, and goes on beside it.
//!
//! Rows and checkpoint are one transaction here, so there is no moment between them at which to kill.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use super::{ANSWERED_LIMIT, Bound, Deployment, Roles, between, chance};
use crate::drills::Stage;
use crate::metrics::{CLICKS_APPLIED, Scrape};
use crate::{Dice, PausedServer, Server, Stop, await_some, await_true};

/// How long a successor may take: the lease of the one before is for ten seconds.
const TAKES_OVER: Duration = Duration::from_secs(20);
/// What a projector says that finds itself succeeded.
const SUCCEEDED: &str = "somebody else";

pub(in crate::drills) fn projector(stage: &mut Stage<'_>) {
    let mut dice = Dice::seeded(chance("clicks-projector"));
    let mut deployment = Deployment::start(stage, Roles::Apart);
    let load = deployment.load(stage);
    let (began, time) = (Instant::now(), stage.form.pick(Duration::from_secs(4), Duration::from_secs(60)));
    let mut kills = 0;
    while began.elapsed() < time {
        std::thread::sleep(between(&mut dice, 100, 1_500));
        deployment.stop_analytics(Stop::AtOnce);
        deployment.restart_analytics();
        kills += 1;
    }
    stage.report.count("kills", kills);
    for _ in 0..stage.form.pick(1, 5) {
        load.await_more(20, ANSWERED_LIMIT);
        zombie(stage, &mut deployment);
    }
    let ledger = load.stop();
    ledger.assert_all_answered();
    deployment.settle(stage, &ledger, Bound::Exact);
    deployment.replay(stage);
}

/// The one that counts is stopped, another one takes over, and the first goes on.
fn zombie(stage: &mut Stage<'_>, deployment: &mut Deployment) {
    deployment.await_counting();
    let successor = deployment.start_analytics();
    let zombie = deployment.analytics.replace(successor).unwrap_or_else(|| panic!("nobody counts"));
    let paused = pause_outside_a_write(deployment, &zombie);
    let began = Instant::now();
    deployment.await_counting();
    stage.report.time("until the successor counted", began.elapsed());
    drop(paused);
    await_true("the zombie to notice its successor", TAKES_OVER, || zombie.output().contains(SUCCEEDED));
    // It stands by, and is not missed.
    drop(zombie);
}

/// Stops `server` at a moment at which it does not hold the read model's lock: nobody could take over then.
#[track_caller]
fn pause_outside_a_write(deployment: &Deployment, server: &Server) -> PausedServer {
    let path = deployment.setup.data().join("stats.sqlite-shm");
    let inode = fs::metadata(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).ino();
    await_some("a moment between two writes", TAKES_OVER, || {
        let paused = server.pause();
        let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
        (!writes(&locks, server.pid(), inode)).then_some(paused)
    })
}

/// Whether a table of locks has one for writing in that file by that process.
fn writes(locks: &str, pid: u32, inode: u64) -> bool {
    locks.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let of_the_file = words.get(5).is_some_and(|file| file.rsplit(':').next() == Some(&inode.to_string()));
        words.get(3) == Some(&"WRITE") && words.get(4) == Some(&pid.to_string().as_str()) && of_the_file
    })
}

impl Deployment {
    /// Ends the process that counts.
    #[track_caller]
    pub(super) fn stop_analytics(&mut self, stop: Stop) {
        let analytics = self.analytics.as_mut().unwrap_or_else(|| panic!("nobody counts"));
        analytics.stop(stop);
    }

    /// Starts it again, where it was.
    #[track_caller]
    pub(super) fn restart_analytics(&mut self) {
        let analytics = self.analytics.as_mut().unwrap_or_else(|| panic!("nobody counts"));
        analytics.restart();
    }

    /// Waits until the process that is to count does.
    #[track_caller]
    fn await_counting(&self) {
        let analytics = self.analytics.as_ref().unwrap_or_else(|| panic!("nobody counts"));
        let client = analytics.client();
        let before = Scrape::of(&client).sum(CLICKS_APPLIED, &[]);
        await_true("the projector to count", TAKES_OVER, || {
            std::thread::sleep(super::LOOK);
            Scrape::of(&client).sum(CLICKS_APPLIED, &[]) > before
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_for_writing_is_told_from_the_others() {
        let locks = "1: POSIX  ADVISORY  READ 4711 fe:00:99 123 123\n2: POSIX  ADVISORY  WRITE 4711 fe:00:98 120 120\n\
                     3: FLOCK  ADVISORY  WRITE 12 fe:00:99 0 EOF\n";
        assert!(!writes(locks, 4_711, 99));
        assert!(writes(locks, 4_711, 98));
        assert!(writes(locks, 12, 99) && !writes(locks, 1, 99) && !writes("", 1, 1));
    }
}
