//! What keys created this month, kept over restarts.
//!
//! The counts are in memory ([`Uses`]); a file of the data directory has them as
//! they were at most [`SAVE_EVERY`] ago, and as they are after draining. A server
//! that is killed forgets what was created since: a key gains that much of its
//! quota, which the limit of creates bounds. Where a quota is shared through
//! Redis the servers and Redis tell each other what they know, so it is not lost.
//!
//! ```text
//! terse-key-uses 1 CRC32-OF-THE-REST
//! DEPLOYMENT MONTH
//! KEY LINKS REFUSED
//! ```
//!
//! Bounds: [`MAX_KEYS`] lines; a longer file is none of ours. A file that can't
//! be read is told of and the month begins anew: links are no less safe for it.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use terse_core::ports::{StoreError, StoreErrorKind};
use terse_core::{Clock, KeyId};
use terse_http::Month;
use terse_resilience::limit::{Key, Use, Uses};
use tokio::task::spawn_blocking;

use crate::exit::{Exit, StartError};
use crate::kept_file::{KeptFile, Unfit};
use crate::key_directory::MAX_KEYS;
use crate::tasks::Tasks;

/// How often what changed is saved, besides the end.
pub const SAVE_EVERY: Duration = Duration::from_secs(5);
/// The file of the counts. Its longest line is a key's id and two numbers.
const FILE: KeptFile =
    KeptFile { name: "key-uses", format: "terse-key-uses", most_lines: MAX_KEYS, line_bytes: 10 + 2 * 21 + 1 };

/// What keys created this month, and the file that has it.
pub struct KeyUses {
    uses: Arc<Uses>,
    clock: Arc<dyn Clock>,
    data_dir: PathBuf,
    deployment: String,
    /// What the file has; two writers would share one draft.
    saved: Mutex<String>,
}

/// A month, and what keys created in it.
type Saved = (u32, Vec<(Key, Use)>);

impl KeyUses {
    /// What keys of `deployment` created, as the file in `data_dir` has it.
    ///
    /// # Errors
    /// [`StartError`] when a bound is outside its limits.
    pub fn open(data_dir: PathBuf, deployment: String, clock: Arc<dyn Clock>) -> Result<Arc<Self>, StartError> {
        let uses = Uses::new(MAX_KEYS).map_err(|error| StartError::new(Exit::Internal, error))?;
        let opened = Self { uses: Arc::new(uses), clock, data_dir, deployment, saved: Mutex::default() };
        match opened.read() {
            Ok(Some((month, keys))) => opened.uses.restore(month, keys),
            Ok(None) => {}
            Err(unfit) => tracing::warn!(file = FILE.name, %unfit, "what keys created this month is counted from zero"),
        }
        Ok(Arc::new(opened))
    }

    /// The counts.
    #[must_use]
    pub fn uses(&self) -> &Arc<Uses> {
        &self.uses
    }

    /// Starts the task that saves.
    pub fn run(self: &Arc<Self>, tasks: &mut Tasks) {
        let uses = Arc::clone(self);
        tasks.every("key uses", SAVE_EVERY, move || {
            let uses = Arc::clone(&uses);
            async move { uses.save_once().await }
        });
    }

    /// Saves what changed since the last time.
    ///
    /// # Errors
    /// When the file can't be written, or is still being written; the last one stands.
    pub async fn save_once(self: &Arc<Self>) -> Result<(), StoreError> {
        let this = Arc::clone(self);
        let written = spawn_blocking(move || this.write()).await;
        let failed = |text: String| StoreError::new(StoreErrorKind::Unavailable, text);
        match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(failed(format!("what keys created can't be saved: {error}"))),
            Err(error) => Err(failed(format!("saving what keys created failed: {error}"))),
        }
    }

    fn write(&self) -> std::io::Result<()> {
        // Behind a disk that hangs nobody queues up: each who waits would hold a thread.
        let mut saved = self.saved.try_lock().ok_or_else(|| std::io::Error::other("they are still being saved"))?;
        let (month, keys) = self.uses.saved(Month::of(self.clock.now()).number());
        let text = encode(&self.deployment, month, keys);
        if *saved != text {
            FILE.replace(&self.data_dir, &text)?;
            *saved = text;
        }
        Ok(())
    }

    fn read(&self) -> Result<Option<Saved>, Unfit> {
        FILE.read(&self.data_dir, &self.deployment, |month, lines| {
            Some((month.parse().ok()?, lines.map(key_use).collect::<Option<Vec<_>>>()?))
        })
    }
}

/// The file's text: keys in their order, so that equal counts are equal texts.
fn encode(deployment: &str, month: u32, mut keys: Vec<(Key, Use)>) -> String {
    keys.sort_unstable_by(|(one, _), (other, _)| one.as_bytes().cmp(other.as_bytes()));
    let mut lines = String::new();
    for (key, Use { units, refused }) in keys {
        // Writing to a text can't fail.
        let _ = writeln!(lines, "{} {units} {refused}", String::from_utf8_lossy(key.as_bytes()));
    }
    FILE.text(deployment, &month.to_string(), &lines)
}

fn key_use(line: &str) -> Option<(Key, Use)> {
    let mut words = line.split(' ');
    let key = KeyId::parse(words.next()?).ok()?;
    let seen = Use { units: words.next()?.parse().ok()?, refused: words.next()?.parse().ok()? };
    words.next().is_none().then_some((Key::of(&[key.as_str().as_bytes()])?, seen))
}

#[cfg(test)]
mod tests {
    use terse_testkit::TestClock;

    use super::*;

    const DEPLOYMENT: &str = "00112233445566778899aabbccddeeff";

    struct Bench {
        place: tempfile::TempDir,
        clock: Arc<TestClock>,
    }

    impl Bench {
        fn new() -> Self {
            Self { place: tempfile::tempdir().unwrap(), clock: Arc::new(TestClock::default()) }
        }

        fn open_as(&self, deployment: &str) -> Arc<KeyUses> {
            KeyUses::open(self.place.path().to_owned(), deployment.to_owned(), self.clock.clone()).unwrap()
        }

        fn open(&self) -> Arc<KeyUses> {
            self.open_as(DEPLOYMENT)
        }

        fn month(&self) -> u32 {
            Month::of(self.clock.now()).number()
        }

        async fn create(&self, uses: &KeyUses, key: &str, links: u32) -> u32 {
            let key = Key::of(&[key.as_bytes()]).unwrap();
            uses.uses().draw(self.month(), &key, Some(10), None, links).await.granted
        }

        fn file(&self) -> PathBuf {
            self.place.path().join(FILE.name)
        }
    }

    #[tokio::test]
    async fn a_restart_takes_back_what_was_created_this_month() {
        let bench = Bench::new();
        let first = bench.open();
        assert_eq!(bench.create(&first, "abcdefghij", 12).await, 10);
        assert_eq!(bench.create(&first, "0123456789", 4).await, 4);
        first.save_once().await.unwrap();
        let second = bench.open();
        let heaviest = second.uses().heaviest(bench.month(), 9);
        let seen: Vec<Use> = heaviest.into_iter().map(|(_, seen)| seen).collect();
        assert_eq!(seen, [Use { units: 10, refused: 2 }, Use { units: 4, refused: 0 }]);
        assert_eq!(bench.create(&second, "0123456789", 9).await, 6);
    }

    #[tokio::test]
    async fn what_was_created_last_month_is_history() {
        let bench = Bench::new();
        let first = bench.open();
        bench.create(&first, "abcdefghij", 10).await;
        first.save_once().await.unwrap();
        bench.clock.advance(Duration::from_secs(31 * 86_400));
        assert_eq!(bench.create(&bench.open(), "abcdefghij", 10).await, 10);
    }

    #[tokio::test]
    async fn only_what_changed_is_written() {
        let bench = Bench::new();
        let uses = bench.open();
        bench.create(&uses, "abcdefghij", 1).await;
        uses.save_once().await.unwrap();
        std::fs::remove_file(bench.file()).unwrap();
        uses.save_once().await.unwrap();
        assert!(!bench.file().exists());
        bench.create(&uses, "abcdefghij", 1).await;
        uses.save_once().await.unwrap();
        assert!(bench.file().exists());
    }

    #[tokio::test]
    async fn a_file_that_is_damaged_or_not_ours_begins_anew() {
        let bench = Bench::new();
        let uses = bench.open();
        bench.create(&uses, "abcdefghij", 7).await;
        uses.save_once().await.unwrap();
        let whole = std::fs::read_to_string(bench.file()).unwrap();
        assert_eq!(bench.open_as("ff").uses().heaviest(bench.month(), 1), []);
        for broken in ["".to_owned(), "x".repeat(100), whole.replace(" 7 ", " 8 "), whole[..whole.len() - 2].to_owned()]
        {
            std::fs::write(bench.file(), &broken).unwrap();
            assert_eq!(bench.open().uses().heaviest(bench.month(), 1), [], "{broken}");
        }
        std::fs::write(bench.file(), &whole).unwrap();
        assert_eq!(bench.open().uses().heaviest(bench.month(), 1).len(), 1);
        std::fs::remove_file(bench.file()).unwrap();
        std::fs::create_dir(bench.file()).unwrap();
        assert_eq!(bench.open().uses().heaviest(bench.month(), 1), []);
    }

    #[tokio::test]
    async fn a_directory_that_takes_no_file_is_told_and_tried_again() {
        let bench = Bench::new();
        let uses = bench.open();
        bench.create(&uses, "abcdefghij", 7).await;
        std::fs::create_dir(bench.file()).unwrap();
        assert!(uses.save_once().await.is_err());
        std::fs::remove_dir(bench.file()).unwrap();
        uses.save_once().await.unwrap();
        assert!(bench.file().is_file());
    }

    #[tokio::test]
    async fn nobody_waits_behind_a_save_that_hangs() {
        let bench = Bench::new();
        let uses = bench.open();
        bench.create(&uses, "abcdefghij", 7).await;
        {
            let _hangs = uses.saved.lock();
            assert!(uses.write().unwrap_err().to_string().contains("still being saved"));
        }
        uses.save_once().await.unwrap();
        assert!(bench.file().is_file());
    }

    #[test]
    fn every_line_is_read_as_it_was_written_or_not_at_all() {
        let key = |text: &str| Key::of(&[text.as_bytes()]).unwrap();
        let longest = Use { units: u64::MAX, refused: u64::MAX };
        let text = encode(DEPLOYMENT, 24_322, vec![(key("zzzzzzzzzz"), longest), (key("a123456789"), Use::default())]);
        let bench = Bench::new();
        std::fs::write(bench.file(), &text).unwrap();
        let (month, keys) = bench.open().read().unwrap().unwrap();
        assert_eq!(month, 24_322);
        assert_eq!(keys, [(key("a123456789"), Use::default()), (key("zzzzzzzzzz"), longest)]);
        assert!(text.lines().skip(2).all(|line| line.len() < FILE.line_bytes));
        for line in ["", "a123456789 1", "a123456789 1 2 3", "short 1 2", "a123456789 -1 2", "a123456789  1 2"] {
            assert_eq!(key_use(line), None, "{line}");
        }
    }
}
