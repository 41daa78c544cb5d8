//! The file that knows the countries of networks, looked at again while the server counts.
//!
//! Such files come anew every week or month. A task looks every [`LOOK_EVERY`] whether the file is another one, loads and
//! checks it whole, and then clicks are told apart by it, from the next block on. A file that can't be read or has no
//! countries changes nothing: the data that are in use stay, and it is tried again when it changes. So does one that is
//! written to while it is read. At the start that means none: a server redirects and counts without it, and health tells
//! until there is one. Memory is bounded by twice
//! [`MAX_COUNTRY_FILE_BYTES`](terse_clicks::enrich::MAX_COUNTRY_FILE_BYTES), while both are there.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use parking_lot::Mutex;
use terse_clicks::enrich::{Countries, CurrentCountries};
use terse_core::ports::{DependencyHealth, StoreError, StoreErrorKind};

use crate::tasks::Tasks;

/// How often it is looked whether the file is another one.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long loading one may take.
const LOAD_WITHIN: Duration = Duration::from_secs(60);

/// A file of countries, and those that hold.
pub(super) struct CountryFile {
    path: PathBuf,
    current: Arc<CurrentCountries>,
    /// The file that was looked at last, be it in use or refused. Held while it is looked at.
    seen: Mutex<Option<Stamp>>,
    /// Whether there were any yet.
    loaded: AtomicBool,
}

/// By what it is seen that a file is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    bytes: u64,
    modified: SystemTime,
}

impl Stamp {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self { inode: metadata.ino(), bytes: metadata.len(), modified: metadata.modified()? })
    }
}

impl CountryFile {
    /// The file at `path`, loaded if it can be, which takes up to some seconds. Else there are no countries until the task
    /// finds a file that has some.
    pub(super) fn open(path: &Path) -> Arc<Self> {
        let (current, seen) = (Arc::default(), Mutex::default());
        let file = Self { path: path.to_owned(), current, seen, loaded: AtomicBool::new(false) };
        if let Err(error) = file.look_once() {
            tracing::error!(%error, path = %path.display(), "starting without countries: clicks are counted without them");
        }
        Arc::new(file)
    }

    /// The countries that hold.
    pub(super) fn current(&self) -> Arc<CurrentCountries> {
        Arc::clone(&self.current)
    }

    /// Starts the task that looks at the file.
    pub(super) fn run(self: &Arc<Self>, tasks: &mut Tasks) {
        let file = Arc::clone(self);
        tasks.every_within("countries", LOOK_EVERY, LOAD_WITHIN, move || {
            let (file, looking) = (Arc::clone(&file), Arc::clone(&file));
            async move {
                let looked = tokio::task::spawn_blocking(move || looking.look_once()).await;
                looked.unwrap_or_else(|error| Err(file.unusable("loading it has panicked").caused_by(error)))
            }
        });
    }

    /// Loads the file if it is another one than at the last look.
    fn look_once(&self) -> Result<(), StoreError> {
        // A look that takes longer than its time goes on beside the next.
        let Some(mut seen) = self.seen.try_lock() else { return Ok(()) };
        let stamp = Stamp::of(&self.path).map_err(|error| self.unusable(&error).caused_by(error))?;
        if Some(stamp) == *seen {
            return Ok(());
        }
        let loaded = Countries::load(&self.path);
        if Stamp::of(&self.path).ok() != Some(stamp) {
            return Err(self.unusable("it was changed while it was read"));
        }
        *seen = Some(stamp);
        let countries = loaded.map_err(|error| self.unusable(&error).caused_by(error))?;
        self.current.replace(Arc::new(countries));
        let (path, bytes) = (self.path.display(), stamp.bytes);
        if self.loaded.swap(true, Ordering::Relaxed) {
            tracing::info!(%path, bytes, "clicks are told apart by another file of countries");
        } else {
            tracing::info!(%path, bytes, "clicks are told apart by a file of countries");
        }
        Ok(())
    }

    fn unusable(&self, why: &(impl std::fmt::Display + ?Sized)) -> StoreError {
        let meanwhile = match self.loaded.load(Ordering::Relaxed) {
            true => "the one before it stays in use",
            false => "clicks have no countries",
        };
        let text = format!("the file of countries can't be used, {meanwhile}: {why}");
        StoreError::new(StoreErrorKind::Unavailable, text)
    }
}

#[async_trait]
impl DependencyHealth for CountryFile {
    fn name(&self) -> &'static str {
        "countries"
    }

    async fn check(&self) -> Result<(), String> {
        match self.loaded.load(Ordering::Relaxed) {
            true => Ok(()),
            false => Err("clicks are counted without countries: their file can't be used; the log says why".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use terse_clicks::enrich::Enrichment;

    use super::*;

    /// An mmdb file (format 2.0) that says of every address that it is in `country`: a tree of one node.
    fn all_in(country: &str) -> Vec<u8> {
        let text = |text: &str| [&[2 << 5 | text.len() as u8], text.as_bytes()].concat();
        let map = |entries: &[(&str, Vec<u8>)]| {
            let bytes: Vec<u8> = entries.iter().flat_map(|(key, value)| [text(key), value.clone()].concat()).collect();
            [vec![7 << 5 | entries.len() as u8], bytes].concat()
        };
        let metadata = map(&[
            ("binary_format_major_version", vec![5 << 5 | 1, 2]),
            ("binary_format_minor_version", vec![5 << 5 | 1, 0]),
            ("build_epoch", vec![1, 2, 1]),
            ("database_type", text("Test-Country")),
            ("description", map(&[])),
            ("ip_version", vec![5 << 5 | 1, 6]),
            ("languages", vec![0, 4]),
            ("node_count", vec![6 << 5 | 1, 1]),
            ("record_size", vec![5 << 5 | 1, 24]),
        ]);
        let entry = map(&[("country_code", text(country))]);
        [vec![0, 0, 17, 0, 0, 17], vec![0; 16], entry, b"\xab\xcd\xefMaxMind.com".to_vec(), metadata].concat()
    }

    /// What tells the data apart that hold.
    fn version(file: &CountryFile) -> u16 {
        Enrichment::new([], None).following(file.current()).version()
    }

    fn put(path: &Path, bytes: &[u8]) {
        let new = path.with_extension("new");
        fs::write(&new, bytes).unwrap();
        fs::rename(new, path).unwrap();
    }

    #[test]
    fn another_file_is_taken_and_a_broken_one_is_not() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("country.mmdb");
        put(&path, &all_in("DE"));
        let file = CountryFile::open(&path);
        let germany = version(&file);
        file.look_once().unwrap();
        put(&path, b"no such thing");
        let refused = file.look_once().unwrap_err();
        assert!(refused.message.contains("stays in use"), "{refused}");
        file.look_once().unwrap();
        assert_eq!(version(&file), germany, "it is not tried again before it changes");
        fs::remove_file(&path).unwrap();
        assert!(file.look_once().is_err());
        assert_eq!(version(&file), germany);
        put(&path, &all_in("FR"));
        file.look_once().unwrap();
        assert_ne!(version(&file), germany);
    }

    #[tokio::test]
    async fn a_start_does_without_the_file_and_takes_it_later() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("country.mmdb");
        for damaged in [None, Some(&[0; 4_096][..])] {
            damaged.iter().for_each(|bytes| put(&path, bytes));
            let file = CountryFile::open(&path);
            let none = version(&file);
            assert_eq!(none, Enrichment::new([], None).version());
            assert!(file.check().await.is_err_and(|told| told.contains("without countries")));
            let refused = file.unusable("on purpose");
            assert!(refused.message.contains("have no countries"), "{refused}");
            let mut following = Enrichment::new([], None).following(file.current());
            put(&path, &all_in("DE"));
            file.look_once().unwrap();
            following.look_for_countries();
            assert!(following.version() != none && file.check().await.is_ok());
            fs::remove_file(&path).unwrap();
        }
    }

    #[tokio::test]
    async fn a_task_looks_at_the_file() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("country.mmdb");
        put(&path, &all_in("DE"));
        let file = CountryFile::open(&path);
        let germany = version(&file);
        put(&path, &all_in("FR"));
        let mut tasks = Tasks::new();
        file.run(&mut tasks);
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while version(&file) == germany {
            assert!(std::time::Instant::now() < deadline, "in time");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(tasks.join(Duration::from_secs(5)).await.is_empty());
    }
}
