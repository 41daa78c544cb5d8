//! The shared list as a data directory last knew it, by which a server that starts goes until the first shard answers.
//!
//! ```text
//! terse-blocked-hosts 1 CRC32-OF-THE-REST
//! DEPLOYMENT
//! HOST
//! ```
//!
//! It is written by the task that reads the shared list, after that has changed, and read once, at the start. It only
//! ever stands in: the first list that the store tells takes its place, a shorter one too.
//!
//! Bounds: [`MAX_SHARED`] hosts; a longer file is none of ours. One that can't be used is told of and counts as none.
//! One write at a time: behind a disk that hangs nobody queues up.

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use terse_core::BlockedHost;
use terse_core::ports::StoreError;
use tokio::task::spawn_blocking;

use super::chain::Hosts;
use super::{MAX_SHARED, failed};
use crate::kept_file::{KeptFile, Unfit};

/// The list's file. Its longest line is a name of DNS, a dot and the line's end.
pub(super) const FILE: KeptFile =
    KeptFile { name: "blocked-hosts", format: "terse-blocked-hosts", most_lines: MAX_SHARED, line_bytes: 253 + 2 };

/// The file that remembers the shared list.
pub(super) struct Remembered {
    data_dir: PathBuf,
    deployment: String,
    /// What the file has, as far as this process knows; taken by who writes it.
    kept: Mutex<Option<Arc<Hosts>>>,
}

impl Remembered {
    /// That of `deployment`, its id as a text without line ends, in `data_dir`. Nothing is read or written yet.
    pub(super) fn new(data_dir: PathBuf, deployment: String) -> Arc<Self> {
        Arc::new(Self { data_dir, deployment, kept: Mutex::default() })
    }

    /// The hosts that were kept; none if there is no file, or none that can be used, which the log tells.
    pub(super) fn recall(&self) -> Arc<Hosts> {
        match self.read() {
            Ok(Some(hosts)) => {
                let hosts = Arc::new(hosts);
                *self.kept.lock() = Some(Arc::clone(&hosts));
                hosts
            }
            Ok(None) => Arc::default(),
            Err(unfit) => {
                tracing::warn!(file = FILE.name, %unfit, "what admins blocked in the last run is not remembered");
                Arc::default()
            }
        }
    }

    /// Keeps `hosts`, unless the file has them already.
    ///
    /// # Errors
    /// [`StoreError`] when the file can't be written, or is still being written; the one before is still there.
    pub(super) async fn keep(self: &Arc<Self>, hosts: Arc<Hosts>) -> Result<(), StoreError> {
        if self.kept.try_lock().is_some_and(|kept| kept.as_ref() == Some(&hosts)) {
            return Ok(());
        }
        let this = Arc::clone(self);
        let written = spawn_blocking(move || this.write(hosts)).await;
        let written = written.map_err(|error| failed("writing the blocked hosts has panicked").caused_by(error))?;
        written.map_err(|error| failed("the blocked hosts can't be kept for the next start").caused_by(error))
    }

    fn write(&self, hosts: Arc<Hosts>) -> std::io::Result<()> {
        let mut kept = self.kept.try_lock().ok_or_else(|| std::io::Error::other("they are still being written"))?;
        if hosts.len() > MAX_SHARED {
            return Err(std::io::Error::other(format!("there are more than {MAX_SHARED}")));
        }
        let lines: String = hosts.iter().flat_map(|host| [host.as_str(), "\n"]).collect();
        FILE.replace(&self.data_dir, &FILE.text(&self.deployment, "", &lines))?;
        *kept = Some(hosts);
        Ok(())
    }

    fn read(&self) -> Result<Option<Hosts>, Unfit> {
        FILE.read(&self.data_dir, &self.deployment, |about, lines| {
            let hosts = lines.map(BlockedHost::parse).collect::<Result<Hosts, _>>();
            hosts.ok().filter(|_| about.is_empty())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const DEPLOYMENT: &str = "00112233445566778899aabbccddeeff";

    fn hosts(names: &[&str]) -> Arc<Hosts> {
        Arc::new(names.iter().map(|name| BlockedHost::parse(name).unwrap()).collect())
    }

    fn at(place: &Path, deployment: &str) -> Arc<Remembered> {
        Remembered::new(place.to_owned(), deployment.to_owned())
    }

    /// What a server recalls of a file with this text.
    fn recalled(text: &str) -> Result<Option<Hosts>, Unfit> {
        let place = tempfile::tempdir().unwrap();
        FILE.replace(place.path(), text).unwrap();
        at(place.path(), DEPLOYMENT).read()
    }

    #[tokio::test]
    async fn what_is_kept_is_recalled_by_the_same_deployment_alone() {
        let place = tempfile::tempdir().unwrap();
        let longest = [&"x".repeat(61), &"y".repeat(63), &"z".repeat(63), &"w".repeat(63)[..]].join(".");
        for list in [hosts(&["b.example", "A.example", "2001:db8::1", &longest]), hosts(&[])] {
            at(place.path(), DEPLOYMENT).keep(Arc::clone(&list)).await.unwrap();
            assert_eq!(at(place.path(), DEPLOYMENT).recall(), list);
            let other = "f".repeat(32);
            assert!(matches!(at(place.path(), &other).read(), Err(Unfit::OtherDeployment)));
            assert_eq!(at(place.path(), &other).recall(), hosts(&[]));
        }
    }

    #[tokio::test]
    async fn what_the_file_has_already_is_not_written_again() {
        let place = tempfile::tempdir().unwrap();
        let kept = at(place.path(), DEPLOYMENT);
        kept.keep(hosts(&["a.example"])).await.unwrap();
        std::fs::remove_file(place.path().join(FILE.name)).unwrap();
        kept.keep(hosts(&["a.example"])).await.unwrap();
        assert!(matches!(kept.read(), Ok(None)));
        kept.keep(hosts(&["b.example"])).await.unwrap();
        let next = at(place.path(), DEPLOYMENT);
        assert_eq!(next.recall(), hosts(&["b.example"]));
        std::fs::remove_file(place.path().join(FILE.name)).unwrap();
        next.keep(hosts(&["b.example"])).await.unwrap();
        assert!(matches!(next.read(), Ok(None)), "what was recalled is there already");
    }

    #[tokio::test]
    async fn a_disk_that_fails_is_told_and_asked_again() {
        let place = tempfile::tempdir().unwrap();
        let gone = place.path().join("gone");
        let kept = at(&gone, DEPLOYMENT);
        let error = kept.keep(hosts(&["a.example"])).await.unwrap_err();
        assert!(error.message.contains("can't be kept") && error.source.is_some(), "{error}");
        std::fs::create_dir(&gone).unwrap();
        let writing = kept.kept.lock();
        assert!(kept.write(hosts(&["a.example"])).is_err(), "nobody waits behind a write");
        drop(writing);
        kept.keep(hosts(&["a.example"])).await.unwrap();
        assert_eq!(at(&gone, DEPLOYMENT).recall(), hosts(&["a.example"]));
    }

    #[test]
    fn what_is_no_host_or_too_long_a_list_is_refused() {
        let of = |about: &str, lines: &str| FILE.text(DEPLOYMENT, about, lines);
        assert_eq!(recalled(&of("", "a.example\n")).unwrap().as_ref(), Some(&*hosts(&["a.example"])));
        for text in [of("7", "a.example\n"), of("", "a.example\n\n"), of("", "https://a.example/\n")] {
            assert!(matches!(recalled(&text), Err(Unfit::Damaged)), "{text}");
        }
        let many: Hosts = (0..=MAX_SHARED).map(|n| BlockedHost::parse(&format!("h{n}.example")).unwrap()).collect();
        let lines: String = many.iter().flat_map(|host| [host.as_str(), "\n"]).collect();
        assert!(matches!(recalled(&of("", &lines)), Err(Unfit::TooLong)));
        let place = tempfile::tempdir().unwrap();
        assert!(at(place.path(), DEPLOYMENT).write(Arc::new(many)).is_err());
    }
}
