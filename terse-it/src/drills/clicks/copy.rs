//! A journal's directory comes back from a copy that is older than what it
//! became: the copy is recovered and counted, then the original beside it, then
//! the copy once more. Only the records that are new each time may count.
//!
//! Nothing leaves the journal while the copy is taken and the original goes on (nobody counts, or there is no broker),
//! so that what the two share is counted from the copy and the rest from the original.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::way::Way;
use super::{ANSWERED_LIMIT, Bound, DRAIN_LIMIT, Deployment, LOOK, Roles, entries};
use crate::drills::Stage;
use crate::load::clicks::ClickLedger;
use crate::{Stop, await_some, await_true};

/// How long until a journal of a process is there.
const JOURNAL_LIMIT: Duration = Duration::from_secs(10);

pub(in crate::drills) fn copy(stage: &mut Stage<'_>, way: Way) {
    let mut deployment = Deployment::start(stage, way, Roles::Apart);
    let aside = Aside::of(&deployment);
    let clicks = stage.form.pick(400, 4_000);
    let load = deployment.load(stage);
    load.await_more(clicks, ANSWERED_LIMIT);
    let fault = stage.timeline.fault("nobody takes clicks from the journal, which is copied");
    deployment.stop_draining(Stop::AtOnce);
    load.await_more(clicks, ANSWERED_LIMIT);
    let paused = deployment.front.pause();
    aside.copy_out();
    let answered_by_then = load.answered();
    drop(paused);
    load.await_more(clicks, ANSWERED_LIMIT);
    deployment.front.stop(Stop::AtOnce);
    let mut ledger = load.stop();

    fault.end();

    // The copy takes the place of the original.
    aside.swap("original", "copy");
    deployment.front.restart();
    deployment.drain_again();
    deployment.await_counted(answered_by_then);
    deployment.await_drained();
    let of_the_copy: u64 = deployment.counted().values().sum();
    stage.report.count("clicks counted from the copy", usize::try_from(of_the_copy).unwrap_or(usize::MAX));
    assert!(of_the_copy >= answered_by_then, "the copy had {answered_by_then} clicks, {of_the_copy} were counted");
    assert!(of_the_copy < ledger.sum().received, "the original had no more than its copy: nothing was tried");

    // The original comes back, and in the full form the copy once more.
    let again: &[_] = stage.form.pick(&[("copy", "original")], &[("copy", "original"), ("original", "copy")]);
    for (away, back) in again {
        deployment.leave_journals();
        aside.swap(away, back);
        deployment.return_to_journals();
        ledger.add(more(stage, &deployment));
        deployment.settle(stage, &ledger, Bound::Between);
        if *back == "original" {
            let grown = aside.grown_since("copy");
            stage.report.count("blocks that had gone on since the copy", grown);
            assert!(grown > 0, "the copy had no block that went on: nothing was tried");
            deployment.replay(stage);
        }
    }
}

fn more(stage: &Stage<'_>, deployment: &Deployment) -> ClickLedger {
    let load = deployment.load(stage);
    load.await_more(100, ANSWERED_LIMIT);
    load.stop()
}

impl Deployment {
    /// Ends whoever works on the journals.
    #[track_caller]
    fn leave_journals(&mut self) {
        if self.way == Way::Local {
            self.stop_analytics(Stop::Politely);
        }
        self.front.stop(Stop::Politely);
    }

    /// Starts whoever works on them.
    #[track_caller]
    fn return_to_journals(&mut self) {
        self.front.restart();
        if self.way == Way::Local {
            self.restart_analytics();
        }
    }

    /// Waits until so many clicks are counted.
    #[track_caller]
    fn await_counted(&self, clicks: u64) {
        await_true("the clicks of the copy to be counted", DRAIN_LIMIT, || {
            std::thread::sleep(LOOK);
            self.counted().values().sum::<u64>() >= clicks
        });
    }
}

/// Where versions of a journal's directory are kept.
struct Aside {
    journal: PathBuf,
    place: PathBuf,
}

impl Aside {
    /// Of the journal that the front writes to, the only one there is.
    #[track_caller]
    fn of(deployment: &Deployment) -> Self {
        let journals = deployment.setup.data().join("journal");
        let journal = await_some("a journal", JOURNAL_LIMIT, || entries(&journals).into_iter().next());
        Self { journal, place: deployment.setup.place().to_path_buf() }
    }

    /// Copies what is there now.
    #[track_caller]
    fn copy_out(&self) {
        copy_tree(&self.journal, &self.place.join("copy")).unwrap_or_else(|error| panic!("no copy: {error}"));
    }

    /// Moves what is there to `away`, and a copy of `back` to its place.
    #[track_caller]
    fn swap(&self, away: &str, back: &str) {
        let away = self.place.join(away);
        let swapped = remove_if_there(&away)
            .and_then(|()| if self.journal.exists() { fs::rename(&self.journal, &away) } else { Ok(()) })
            .and_then(|()| copy_tree(&self.place.join(back), &self.journal));
        swapped.unwrap_or_else(|error| panic!("{back} can't be put in its place: {error}"));
    }

    /// Blocks, recovered in both, that are longer now than they were in `copy`.
    fn grown_since(&self, copy: &str) -> usize {
        let longer = |block: &&PathBuf| {
            let before = block.file_name().and_then(|name| block_bytes(&self.place.join(copy).join(name)));
            before.is_some_and(|before| block_bytes(block) > Some(before))
        };
        entries(&self.journal).iter().filter(longer).count()
    }
}

/// How long a block is that was recovered; nothing for other files.
fn block_bytes(path: &Path) -> Option<u64> {
    let is_block = path.extension().is_some_and(|extension| extension == "block");
    is_block.then(|| fs::metadata(path).ok().map(|file| file.len())).flatten()
}

fn remove_if_there(directory: &Path) -> std::io::Result<()> {
    if directory.exists() { fs::remove_dir_all(directory) } else { Ok(()) }
}

/// Copies a directory of files and directories.
fn copy_tree(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_takes_the_place_of_the_original_and_the_original_comes_back() {
        let place = tempfile::tempdir().unwrap();
        let aside = Aside { journal: place.path().join("journal"), place: place.path().to_path_buf() };
        let write = |name: &str, text: &str| fs::write(aside.journal.join(name), text).unwrap();
        let read = |name: &str| fs::read_to_string(aside.journal.join(name)).ok();
        fs::create_dir_all(aside.journal.join("quarantine")).unwrap();
        write("0.block", "abc");
        aside.copy_out();
        write("0.block", "abcdef");
        write("1.block", "new");
        write("passed", "longer");

        aside.swap("original", "copy");
        assert_eq!((read("0.block").as_deref(), read("1.block")), (Some("abc"), None));
        assert!(aside.journal.join("quarantine").is_dir());
        write("passed", "");
        aside.swap("copy", "original");
        assert_eq!((read("0.block").as_deref(), read("1.block").as_deref()), (Some("abcdef"), Some("new")));
        assert_eq!(aside.grown_since("copy"), 1, "only a block that both have");
        aside.swap("original", "copy");
        assert_eq!(aside.grown_since("copy"), 0);
    }
}
