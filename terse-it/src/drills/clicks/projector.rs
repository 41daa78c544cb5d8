//! kill -9 of the process that counts, at random, beside one that redirects; then
//! one that is stopped while a successor takes over, and goes on beside it.
//!
//! In a SQLite file rows and checkpoint are one transaction: there is no moment between them at which to kill. On the
//! cluster there is one, and it is found from outside: the process is stopped at random until rows stand there that go
//! beyond every checkpoint, and is killed then.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use super::way::Way;
use super::{ANSWERED_LIMIT, Bound, Deployment, Roles, between, chance};
use crate::cluster::{Consistency, Row};
use crate::drills::Stage;
use crate::metrics::{CLICKS_APPLIED, Scrape};
use crate::{Dice, PausedServer, Server, Stop, await_some, await_true};

/// How long a successor may take: the lease of the one before is for ten seconds.
const TAKES_OVER: Duration = Duration::from_secs(20);
/// How long a moment between rows and checkpoint is looked for.
const BETWEEN_LIMIT: Duration = Duration::from_secs(60);
/// How long what a stopped process had sent may take to be written.
const SETTLED: Duration = Duration::from_millis(100);
/// What a projector says that finds itself succeeded.
const SUCCEEDED: &str = "somebody else";

pub(in crate::drills) fn projector(stage: &mut Stage<'_>, way: Way) {
    let mut dice = Dice::seeded(chance("clicks-projector"));
    let mut deployment = Deployment::start(stage, way, Roles::Apart);
    let load = deployment.load(stage);
    let (began, time) = (Instant::now(), stage.form.pick(Duration::from_secs(4), Duration::from_secs(8)));
    let mut kills = 0;
    while began.elapsed() < time {
        std::thread::sleep(between(&mut dice, 100, 1_500));
        let _fault = stage.timeline.fault("counting process killed");
        deployment.stop_analytics(Stop::AtOnce);
        deployment.restart_analytics();
        kills += 1;
    }
    stage.report.count("kills", kills);
    if way == Way::Cluster {
        let between = stage.form.pick(1, 3);
        (0..between).for_each(|_| kill_between_rows_and_checkpoint(stage, &mut deployment, &mut dice));
        stage.report.count("kills between rows and checkpoint", between);
    }
    for _ in 0..stage.form.pick(1, 2) {
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
    let paused = match deployment.way {
        Way::Local | Way::Broker => pause_outside_a_write(deployment, &zombie),
        Way::Cluster => zombie.pause(),
    };
    let fault = stage.timeline.fault("counting process stopped, another one takes over");
    let began = Instant::now();
    deployment.await_counting();
    stage.report.time("until the successor counted", began.elapsed());
    drop(paused);
    fault.end();
    await_true("the zombie to notice its successor", TAKES_OVER, || zombie.output().contains(SUCCEEDED));
    // It stands by, and is not missed.
    drop(zombie);
}

/// Kills the one that counts when it has written rows and not yet the checkpoint that goes with them.
#[track_caller]
fn kill_between_rows_and_checkpoint(stage: &Stage<'_>, deployment: &mut Deployment, dice: &mut Dice) {
    deployment.await_counting();
    let analytics = deployment.analytics.as_ref().unwrap_or_else(|| panic!("nobody counts"));
    let keyspace = deployment.backing.keyspace.as_ref().unwrap_or_else(|| panic!("there is no keyspace"));
    let paused = await_some("rows that no checkpoint includes yet", BETWEEN_LIMIT, || {
        std::thread::sleep(between(dice, 20, 300));
        let paused = analytics.pause();
        // What was under way arrives.
        std::thread::sleep(SETTLED);
        let rows = newest(stage, &format!("SELECT WRITETIME(cell) FROM {}.click_rows", keyspace.name()));
        let checkpoints = newest(stage, &format!("SELECT WRITETIME(cell) FROM {}.click_checkpoints", keyspace.name()));
        (rows > checkpoints).then_some(paused)
    });
    let _fault = stage.timeline.fault("counting process killed between rows and checkpoint");
    analytics.signal(Stop::AtOnce);
    drop(paused);
    deployment.stop_analytics(Stop::AtOnce);
    deployment.restart_analytics();
}

/// The latest position in the log that one of these cells includes: it is the cell's write time.
#[track_caller]
fn newest(stage: &Stage<'_>, query: &str) -> Option<i64> {
    let rows = stage.cluster().ask(0, query, Consistency::Quorum);
    let rows = rows.unwrap_or_else(|error| panic!("{query}: {error}"));
    let time =
        |row: &Row| row.first().cloned().flatten().and_then(|time| Some(i64::from_be_bytes(time.try_into().ok()?)));
    rows.iter().filter_map(time).max()
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
    pub(super) fn await_counting(&self) {
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
