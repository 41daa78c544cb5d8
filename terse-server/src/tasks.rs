//! Background work that the server owns: each task has a name, one bounded
//! step that it repeats, and an end at shutdown. A task that panics is not
//! silently gone: [`Tasks::failed`] tells, and the server stops.
//!
//! Bound: a step that takes longer than [`STEP_TIMEOUT`], or the limit given for it, counts as failed and is tried again at the next tick.

use std::borrow::Cow;
use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use terse_core::ports::{StoreError, StoreErrorKind};
use tokio::signal::unix::Signal;
use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};

/// How long one step may take.
pub const STEP_TIMEOUT: Duration = Duration::from_secs(5);

/// What a task is called.
pub type Name = Cow<'static, str>;

/// The tasks of one server.
pub struct Tasks {
    set: JoinSet<()>,
    names: HashMap<Id, Name>,
    stop: watch::Sender<bool>,
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new()
    }
}

impl Tasks {
    /// No tasks.
    #[must_use]
    pub fn new() -> Self {
        Self { set: JoinSet::new(), names: HashMap::new(), stop: watch::Sender::new(false) }
    }

    /// Runs `step` now and then each `every` until the end. A failure is logged when it begins and when it ends.
    /// Must be called inside a runtime.
    pub fn every<F, R>(&mut self, name: impl Into<Name>, every: Duration, step: F)
    where
        F: FnMut() -> R + Send + 'static,
        R: Future<Output = Result<(), StoreError>> + Send + 'static,
    {
        self.every_within(name, every, STEP_TIMEOUT, step);
    }

    /// The same for a step that may take up to `limit`. The server's end waits for it only as long as for any other.
    pub fn every_within<F, R>(&mut self, name: impl Into<Name>, every: Duration, limit: Duration, step: F)
    where
        F: FnMut() -> R + Send + 'static,
        R: Future<Output = Result<(), StoreError>> + Send + 'static,
    {
        let mut tick = interval(every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.repeat(name.into(), Occasion::Tick(tick), limit, step);
    }

    /// Runs `step`, which may take up to `limit`, each time that `signal` comes, until the end. Signals that come
    /// during a step are one.
    pub fn at_each<F, R>(&mut self, name: impl Into<Name>, signal: Signal, limit: Duration, step: F)
    where
        F: FnMut() -> R + Send + 'static,
        R: Future<Output = Result<(), StoreError>> + Send + 'static,
    {
        self.repeat(name.into(), Occasion::Signal(signal), limit, step);
    }

    /// Runs `step` at each occasion until the end.
    fn repeat<F, R>(&mut self, name: Name, mut occasion: Occasion, limit: Duration, mut step: F)
    where
        F: FnMut() -> R + Send + 'static,
        R: Future<Output = Result<(), StoreError>> + Send + 'static,
    {
        let mut stop = self.stop.subscribe();
        let told = name.clone();
        let task = async move {
            let mut failing = false;
            loop {
                tokio::select! {
                    biased;
                    _ = stop.wait_for(|stop| *stop) => return,
                    () = occasion.comes() => {}
                }
                // Not cut short at the end: a step is bounded, and half of one helps nobody.
                failing = report(&told, failing, within(limit, step()).await);
            }
        };
        let id = self.set.spawn(task).id();
        self.names.insert(id, name);
    }

    /// Resolves when a task has ended without being told to, with its name; never otherwise.
    pub async fn failed(&mut self) -> Name {
        match self.set.join_next_with_id().await {
            Some(ended) => self.name_of(ended),
            None => std::future::pending().await,
        }
    }

    /// Tells all tasks to end and waits for them, at most `within`. Those that
    /// are late are cut off; their names are returned.
    pub async fn join(mut self, within: Duration) -> Vec<Name> {
        self.stop.send_replace(true);
        let all = async {
            while let Some(ended) = self.set.join_next_with_id().await {
                let name = self.name_of(ended);
                tracing::debug!(task = %name, "task ended");
            }
        };
        if timeout(within, all).await.is_ok() {
            return vec![];
        }
        self.set.abort_all();
        self.names.into_values().collect()
    }

    fn name_of(&mut self, ended: Result<(Id, ()), JoinError>) -> Name {
        let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
        self.names.remove(&id).unwrap_or(Cow::Borrowed("unnamed"))
    }
}

/// When a step is due.
enum Occasion {
    /// Now, and then each period.
    Tick(Interval),
    /// Each time that the signal comes.
    Signal(Signal),
}

impl Occasion {
    /// Waits for the next one. Nothing is lost if that is given up.
    async fn comes(&mut self) {
        match self {
            Self::Tick(tick) => {
                tick.tick().await;
            }
            Self::Signal(signal) => {
                if signal.recv().await.is_none() {
                    // No further one can come.
                    std::future::pending::<()>().await;
                }
            }
        }
    }
}

/// The outcome of a step, if it comes within `limit`.
async fn within(limit: Duration, step: impl Future<Output = Result<(), StoreError>>) -> Result<(), StoreError> {
    let late = || StoreError::new(StoreErrorKind::Unavailable, "took longer than its time limit");
    timeout(limit, step).await.unwrap_or_else(|_| Err(late()))
}

/// Logs a change between working and failing; returns whether it fails now.
fn report(task: &str, was_failing: bool, outcome: Result<(), StoreError>) -> bool {
    let Err(error) = outcome else {
        if was_failing {
            tracing::info!(task, "works again");
        }
        return false;
    };
    if was_failing {
        tracing::debug!(task, %error, "still fails");
    } else {
        let cause = error.source.as_ref().map(ToString::to_string);
        tracing::warn!(task, %error, cause, "fails; it is tried again");
    }
    true
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn counting(tasks: &mut Tasks, name: &'static str) -> Arc<AtomicUsize> {
        let steps = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&steps);
        tasks.every(name, SECOND, move || {
            counted.fetch_add(1, Ordering::SeqCst);
            async { Ok(()) }
        });
        steps
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_is_done_at_once_and_then_each_period_until_the_end() {
        let mut tasks = Tasks::new();
        let steps = counting(&mut tasks, "counting");
        tokio::time::sleep(SECOND * 5 / 2).await;
        assert_eq!(steps.load(Ordering::SeqCst), 3);
        assert_eq!(tasks.join(SECOND).await, Vec::<Name>::new());
        tokio::time::sleep(SECOND * 10).await;
        assert_eq!(steps.load(Ordering::SeqCst), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failing_step_is_tried_again() {
        let mut tasks = Tasks::new();
        let steps = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&steps);
        tasks.every("failing", SECOND, move || {
            let odd = counted.fetch_add(1, Ordering::SeqCst) % 2 == 1;
            async move { if odd { Ok(()) } else { Err(StoreError::new(StoreErrorKind::Unavailable, "away")) } }
        });
        tokio::time::sleep(SECOND * 7 / 2).await;
        assert_eq!(steps.load(Ordering::SeqCst), 4);
        assert!(timeout(SECOND, tasks.failed()).await.is_err(), "a failing step is no dead task");
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_that_hangs_is_given_up_and_tried_again() {
        let mut tasks = Tasks::new();
        let steps = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&steps);
        tasks.every("hanging", SECOND, move || {
            counted.fetch_add(1, Ordering::SeqCst);
            std::future::pending()
        });
        tokio::time::sleep(STEP_TIMEOUT * 2 + SECOND * 3).await;
        assert!(steps.load(Ordering::SeqCst) >= 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_is_told_by_name() {
        let mut tasks = Tasks::new();
        counting(&mut tasks, "sound");
        assert!(timeout(SECOND, tasks.failed()).await.is_err());
        tasks.every("doomed", SECOND, || async { panic!("on purpose") });
        assert_eq!(tasks.failed().await, "doomed");
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_is_late_at_the_end_is_cut_off_and_told() {
        let mut tasks = Tasks::new();
        counting(&mut tasks, "sound");
        tasks.every("late", SECOND, std::future::pending);
        tokio::task::yield_now().await;
        assert_eq!(tasks.join(SECOND * 2).await, ["late"]);
    }

    #[tokio::test]
    async fn a_step_is_done_at_each_signal_until_the_end() {
        use tokio::signal::unix::{SignalKind, signal};
        let mut tasks = Tasks::new();
        let (sender, mut steps) = tokio::sync::mpsc::channel(8);
        tasks.at_each("told", signal(SignalKind::window_change()).unwrap(), SECOND, move || {
            let sender = sender.clone();
            async move { sender.send(()).await.map_err(|_| StoreError::new(StoreErrorKind::Unavailable, "gone")) }
        });
        for _ in 0..3 {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::WINCH).unwrap();
            timeout(SECOND * 30, steps.recv()).await.unwrap().unwrap();
        }
        assert_eq!(tasks.join(SECOND * 30).await, Vec::<Name>::new());
    }

    #[test]
    fn only_a_change_between_working_and_failing_is_news() {
        let failure = || Err(StoreError::new(StoreErrorKind::Unavailable, "away"));
        assert!(report("t", false, failure()));
        assert!(report("t", true, failure()));
        assert!(!report("t", true, Ok(())));
        assert!(!report("t", false, Ok(())));
    }
}
