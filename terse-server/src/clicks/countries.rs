//! The file that knows the countries of networks, looked at again while the server counts.
//!
//! Such files come anew every week or month. A task looks every [`LOOK_EVERY`] whether the file is another one, loads and
//! checks it whole, and then clicks are told apart by it, from the next block on. A file that can't be read or has no
//! countries changes nothing: the data that are in use stay, and it is tried again when it changes. So does one that is
//! written to while it is read. Memory is bounded by twice
//! [`MAX_COUNTRY_FILE_BYTES`](terse_clicks::enrich::MAX_COUNTRY_FILE_BYTES), while both are there.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use terse_clicks::enrich::{Countries, CountryError, CurrentCountries};
use terse_core::ports::{StoreError, StoreErrorKind};

use crate::exit::StartError;
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
    seen: Mutex<Stamp>,
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
    /// The file at `path`, loaded, which takes up to some seconds.
    ///
    /// # Errors
    /// [`StartError`] when it has no countries.
    pub(super) fn open(path: &Path) -> Result<Arc<Self>, StartError> {
        let failed = |error| StartError::config(format_args!("countries: {}: {error}", path.display()));
        let seen = Stamp::of(path).map_err(|error| failed(CountryError::from(error)))?;
        let countries = Countries::load(path).map_err(failed)?;
        let current = Arc::new(CurrentCountries::new(Arc::new(countries)));
        Ok(Arc::new(Self { path: path.to_owned(), current, seen: Mutex::new(seen) }))
    }

    /// The countries that hold.
    pub(super) fn current(&self) -> Arc<CurrentCountries> {
        Arc::clone(&self.current)
    }

    /// Starts the task that looks at the file.
    pub(super) fn run(self: &Arc<Self>, tasks: &mut Tasks) {
        let file = Arc::clone(self);
        tasks.every_within("countries", LOOK_EVERY, LOAD_WITHIN, move || {
            let file = Arc::clone(&file);
            async move {
                let looked = tokio::task::spawn_blocking(move || file.look_once()).await;
                looked.unwrap_or_else(|error| Err(unusable("loading it has panicked").caused_by(error)))
            }
        });
    }

    /// Loads the file if it is another one than at the last look.
    fn look_once(&self) -> Result<(), StoreError> {
        // A look that takes longer than its time goes on beside the next.
        let Some(mut seen) = self.seen.try_lock() else { return Ok(()) };
        let stamp = Stamp::of(&self.path).map_err(|error| unusable(&error).caused_by(error))?;
        if stamp == *seen {
            return Ok(());
        }
        let loaded = Countries::load(&self.path);
        if Stamp::of(&self.path).ok() != Some(stamp) {
            return Err(unusable("it was changed while it was read"));
        }
        *seen = stamp;
        let countries = loaded.map_err(|error| unusable(&error).caused_by(error))?;
        self.current.replace(Arc::new(countries));
        tracing::info!(path = %self.path.display(), bytes = stamp.bytes, "clicks are told apart by another file of countries");
        Ok(())
    }
}

fn unusable(why: &(impl std::fmt::Display + ?Sized)) -> StoreError {
    let text = format!("the file of countries can't be used, the one before it stays in use: {why}");
    StoreError::new(StoreErrorKind::Unavailable, text)
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
        let file = CountryFile::open(&path).unwrap();
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

    #[test]
    fn a_start_needs_the_file() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("country.mmdb");
        let refused = |path: &Path| CountryFile::open(path).err().map(|error| error.message).unwrap();
        assert!(refused(&path).starts_with("countries: "), "{}", refused(&path));
        put(&path, &[0; 4_096]);
        assert!(refused(&path).contains("no mmdb file"), "{}", refused(&path));
    }

    #[tokio::test]
    async fn a_task_looks_at_the_file() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("country.mmdb");
        put(&path, &all_in("DE"));
        let file = CountryFile::open(&path).unwrap();
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
