//! How a server ends: told by a signal, it says so on `/readyz`, goes on
//! answering for a short while so that load balancers notice, waits for what is
//! in flight, and stops. A second signal ends the process at once.

use std::sync::Arc;
use std::time::Duration;

use terse_http::{Lifecycle, Phase, ServerHandle};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep, timeout};

use crate::config::ShutdownConfig;
use crate::exit::{Exit, StartError};

/// How often the number of requests in flight is looked at while draining.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long the stopped server may take to close its connections.
const STOP_WITHIN: Duration = Duration::from_millis(2_500);
/// What is left for tasks and stores even when the grace period is used up.
pub(crate) const LAST_STEPS: Duration = Duration::from_secs(2);

/// The signals that end a server.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Catches SIGTERM and SIGINT from now on. Must be called inside a runtime.
    ///
    /// # Errors
    /// [`StartError`] when the system refuses.
    pub fn catch() -> Result<Self, StartError> {
        let catch = |kind| {
            signal(kind).map_err(|error| StartError::new(Exit::Internal, format_args!("cannot catch signals: {error}")))
        };
        Ok(Self { terminate: catch(SignalKind::terminate())?, interrupt: catch(SignalKind::interrupt())? })
    }

    /// Resolves at the next signal, with its name and the exit code of a process that it ends.
    pub async fn next(&mut self) -> (&'static str, i32) {
        tokio::select! {
            _ = self.terminate.recv() => ("SIGTERM", 128 + 15),
            _ = self.interrupt.recv() => ("SIGINT", 128 + 2),
        }
    }
}

/// The time that is left for shutting down.
#[derive(Clone, Copy, Debug)]
pub struct Grace {
    deadline: Instant,
}

impl Grace {
    /// A grace period that begins now.
    #[must_use]
    pub fn begin(period: Duration) -> Self {
        Self { deadline: Instant::now() + period }
    }

    /// What is left of it, but at least `least`.
    #[must_use]
    pub fn left(self, least: Duration) -> Duration {
        self.deadline.saturating_duration_since(Instant::now()).max(least)
    }
}

/// Goes on answering for the drain delay and until nothing is in flight, at
/// most as long as the grace period. Returns how many requests are left then.
pub async fn drain(lifecycle: &Arc<Lifecycle>, config: ShutdownConfig, grace: Grace) -> usize {
    lifecycle.enter(Phase::Draining);
    sleep(config.drain_delay.min(config.grace_period)).await;
    while lifecycle.in_flight() > 0 && !grace.left(Duration::ZERO).is_zero() {
        sleep(LOOK_EVERY).await;
    }
    lifecycle.in_flight()
}

/// Stops the server: connections get a moment to end, then they are cut.
/// Returns whether it ended in time.
pub async fn stop(server: &ServerHandle, left_in_flight: usize) -> bool {
    timeout(STOP_WITHIN, server.stop(left_in_flight == 0)).await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(delay_ms: u64, grace_ms: u64) -> ShutdownConfig {
        ShutdownConfig { drain_delay: Duration::from_millis(delay_ms), grace_period: Duration::from_millis(grace_ms) }
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_server_drains_for_the_delay_alone() {
        let lifecycle = Lifecycle::starting();
        let began = Instant::now();
        let config = config(1_000, 20_000);
        assert_eq!(drain(&lifecycle, config, Grace::begin(config.grace_period)).await, 0);
        assert_eq!(began.elapsed(), Duration::from_secs(1));
        assert_eq!(lifecycle.phase(), Phase::Draining);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_in_flight_is_waited_for() {
        let lifecycle = Lifecycle::starting();
        let request = lifecycle.begin();
        let began = Instant::now();
        let config = config(1_000, 20_000);
        let ends = async {
            sleep(Duration::from_secs(7)).await;
            drop(request);
        };
        let (left, ()) = tokio::join!(drain(&lifecycle, config, Grace::begin(config.grace_period)), ends);
        assert_eq!(left, 0);
        assert!((7_000..7_100).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn the_grace_period_ends_the_waiting() {
        let lifecycle = Lifecycle::starting();
        let _request = lifecycle.begin();
        let began = Instant::now();
        for (config, took_ms) in [(config(1_000, 5_000), 5_000), (config(9_000, 2_000), 2_000)] {
            let start = began.elapsed();
            assert_eq!(drain(&lifecycle, config, Grace::begin(config.grace_period)).await, 1);
            let took = (began.elapsed() - start).as_millis();
            assert!((took_ms..took_ms + 50).contains(&took), "{took}");
        }
    }
}
