//! Background work that the server owns: each task has a name, one bounded
//! step that it repeats, and an end at shutdown. A task that panics is not
//! silently gone: [`Tasks::failed`] tells, and the server stops.
//!
//! Bound: a step that takes longer than [`STEP_TIMEOUT`] counts as failed and is tried again at the next tick.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use terse_core::ports::{StoreError, StoreErrorKind};
use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{MissedTickBehavior, interval, timeout};

/// How long one step may take.
pub const STEP_TIMEOUT: Duration = Duration::from_secs(5);

/// The tasks of one server.
pub struct Tasks {
    set: JoinSet<()>,
    names: HashMap<Id, &'static str>,
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
    pub fn every<F, R>(&mut self, name: &'static str, every: Duration, mut step: F)
    where
        F: FnMut() -> R + Send + 'static,
        R: Future<Output = Result<(), StoreError>> + Send + 'static,
    {
        let mut stop = self.stop.subscribe();
        let task = async move {
            let mut tick = interval(every);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut failing = false;
            loop {
                tokio::select! {
                    biased;
                    _ = stop.wait_for(|stop| *stop) => return,
                    _ = tick.tick() => {}
                }
                // Not cut short at the end: a step is bounded, and half of one helps nobody.
                let outcome = timeout(STEP_TIMEOUT, step()).await.unwrap_or_else(|_| {
                    Err(StoreError::new(StoreErrorKind::Unavailable, "took longer than its time limit"))
                });
                failing = report(name, failing, outcome);
            }
        };
        let id = self.set.spawn(task).id();
        self.names.insert(id, name);
    }

    /// Resolves when a task has ended without being told to, with its name; never otherwise.
    pub async fn failed(&mut self) -> &'static str {
        match self.set.join_next_with_id().await {
            Some(ended) => self.name_of(ended),
            None => std::future::pending().await,
        }
    }

    /// Tells all tasks to end and waits for them, at most `within`. Those that
    /// are late are cut off; their names are returned.
    pub async fn join(mut self, within: Duration) -> Vec<&'static str> {
        self.stop.send_replace(true);
        let all = async {
            while let Some(ended) = self.set.join_next_with_id().await {
                let name = self.name_of(ended);
                tracing::debug!(task = name, "task ended");
            }
        };
        if timeout(within, all).await.is_ok() {
            return vec![];
        }
        self.set.abort_all();
        self.names.values().copied().collect()
    }

    fn name_of(&mut self, ended: Result<(Id, ()), JoinError>) -> &'static str {
        let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
        self.names.remove(&id).unwrap_or("unnamed")
    }
}

/// Logs a change between working and failing; returns whether it fails now.
fn report(task: &'static str, was_failing: bool, outcome: Result<(), StoreError>) -> bool {
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
