//! A recording that keeps what it is told, as text.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use terse_core::click::{Click, ClickRecorder, ClickRecording, Dropped};

/// What was recorded, by all workers.
#[derive(Default)]
pub(crate) struct Recorded {
    clicks: Arc<Mutex<Vec<String>>>,
    /// Why clicks are dropped, while they are.
    pub(crate) full: Arc<Mutex<Option<Dropped>>>,
    /// Whether clicks are taken and forgotten, which allocates nothing.
    pub(crate) quiet: Arc<AtomicBool>,
    looks: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
}

struct Recorder {
    clicks: Arc<Mutex<Vec<String>>>,
    full: Arc<Mutex<Option<Dropped>>>,
    quiet: Arc<AtomicBool>,
    looks: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
}

impl Recorded {
    /// What was recorded until now, and not taken before.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.clicks.lock())
    }

    /// How often workers looked whether something is to be sealed.
    pub(crate) fn looks(&self) -> usize {
        self.looks.load(Ordering::SeqCst)
    }

    /// Recorders that were not dropped.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

impl ClickRecording for Recorded {
    fn of_a_worker(&self) -> Box<dyn ClickRecorder> {
        self.open.fetch_add(1, Ordering::SeqCst);
        Box::new(Recorder {
            clicks: Arc::clone(&self.clicks),
            full: Arc::clone(&self.full),
            quiet: Arc::clone(&self.quiet),
            looks: Arc::clone(&self.looks),
            open: Arc::clone(&self.open),
        })
    }
}

impl ClickRecorder for Recorder {
    fn record(&mut self, click: &Click<'_>) -> Result<(), Dropped> {
        if let Some(reason) = *self.full.lock() {
            return Err(reason);
        }
        if self.quiet.load(Ordering::Relaxed) {
            return Ok(());
        }
        let [referrer, user_agent, language] =
            [click.referrer, click.user_agent, click.language].map(|text| text.escape_ascii().to_string());
        let client = click.client.map_or_else(|| "nobody".to_owned(), |client| client.to_string());
        let signals = [
            (click.signals.do_not_track, "dnt"),
            (click.signals.global_privacy_control, "gpc"),
            (click.signals.prefetch, "ahead"),
        ];
        let signals: Vec<&str> = signals.iter().filter(|(said, _)| *said).map(|(_, word)| *word).collect();
        self.clicks.lock().push(format!(
            "{} v{} {client} [{referrer}] [{user_agent}] [{language}] {}",
            click.code,
            click.version.0,
            signals.join("+")
        ));
        Ok(())
    }

    fn seal_if_old(&mut self, _: u64) {
        self.looks.fetch_add(1, Ordering::SeqCst);
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }
}
