//! Tells of a breaker's transitions: a line in the log, a count, the state.
//!
//! An outage is a line when it begins and one when it is over. Probes that fail in between are lines for `debug` alone:
//! there are two every few seconds for as long as it lasts.

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::{IntCounter, IntGauge};
use terse_core::metrics::Metrics;
use terse_resilience::{
    Breaker, BreakerSettings, Cause, Forced, MonotonicClock, SettingsError, State, Transition, TransitionObserver,
};

/// A breaker that logs its transitions and shows them as the metrics of `name`.
/// `seed` spreads its open times.
///
/// # Errors
/// When a setting is outside its limits.
pub fn watched_breaker(
    name: &str,
    settings: BreakerSettings,
    clock: Arc<dyn MonotonicClock>,
    seed: u64,
    metrics: &Metrics,
) -> Result<Arc<Breaker>, SettingsError> {
    let breaker = Breaker::new(settings, clock, seed)?;
    Ok(Arc::new(breaker.observed_by(Arc::new(Watch::new(name, metrics)))))
}

struct Watch {
    name: String,
    state: IntGauge,
    /// In the order of [`State`].
    transitions: [IntCounter; 3],
    /// The newest transition that was told: racing threads may tell an older one after it.
    newest: Mutex<u64>,
}

impl Watch {
    fn new(name: &str, metrics: &Metrics) -> Self {
        let transitions = [State::Closed, State::HalfOpen, State::Open]
            .map(|to| metrics.breaker_transitions(name, &to.as_str().replace('-', "_")));
        Self { name: name.to_owned(), state: metrics.breaker_state(name), transitions, newest: Mutex::new(0) }
    }
}

impl TransitionObserver for Watch {
    fn on_transition(&self, transition: &Transition) {
        let Transition { from, to, forced, cause, generation, open_ms, .. } = *transition;
        if from != to {
            self.transitions[to as usize].inc();
        }
        {
            let mut newest = self.newest.lock();
            if *newest < generation {
                *newest = generation;
                self.state.set(to as i64);
            }
        }
        let (breaker, from, cause) = (self.name.as_str(), from.as_str(), cause.as_str());
        let forced = forced.map(|forced| match forced {
            Forced::Closed => "closed",
            Forced::Open => "open",
        });
        match to {
            _ if is_probing(transition.cause) => {
                tracing::debug!(breaker, from, to = to.as_str(), cause, forced, open_ms, "breaker probes");
            }
            State::Open => tracing::warn!(breaker, from, to = to.as_str(), cause, forced, open_ms, "breaker opened"),
            _ => tracing::info!(breaker, from, to = to.as_str(), cause, forced, "breaker changed"),
        }
    }
}

/// Whether the breaker has found out nothing but that what is behind it is still away.
fn is_probing(cause: Cause) -> bool {
    matches!(cause, Cause::OpenTimeOver | Cause::ProbeFailed | Cause::ProbeOverdue)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn line(metrics: &Metrics, name: &str) -> String {
        let text = metrics.encode().unwrap();
        text.lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_else(|| panic!("{name} is not in\n{text}"))
            .to_owned()
    }

    #[test]
    fn the_metrics_follow_the_breaker() {
        let metrics = Metrics::new();
        let settings = BreakerSettings::default();
        let breaker = watched_breaker("main/read", settings, Arc::new(|| 0_u64), 1, &metrics).unwrap();
        assert_eq!(line(&metrics, "terse_breaker_state"), "terse_breaker_state{name=\"main/read\"} 0");
        (0..5).for_each(|_| breaker.try_acquire().unwrap().failure());
        assert_eq!(metrics.breaker_state("main/read").get(), 2);
        breaker.force(Some(Forced::Open));
        assert_eq!(metrics.breaker_transitions("main/read", "open").get(), 1, "held, but not opened once more");
        breaker.force(None);
        assert_eq!(metrics.breaker_state("main/read").get(), 1);
        (0..settings.probe_successes).for_each(|_| breaker.try_acquire().unwrap().success());
        assert_eq!(metrics.breaker_state("main/read").get(), 0);
        for to in ["closed", "half_open", "open"] {
            assert_eq!(metrics.breaker_transitions("main/read", to).get(), 1, "{to}");
        }
    }

    #[test]
    fn a_transition_that_is_told_late_does_not_turn_the_state_back() {
        let metrics = Metrics::new();
        let watch = Watch::new("main/read", &metrics);
        let told = |from, to, generation| {
            let cause = Cause::OpenTimeOver;
            watch.on_transition(&Transition { from, to, forced: None, cause, generation, at_ms: 0, open_ms: None });
        };
        told(State::Open, State::HalfOpen, 2);
        told(State::Closed, State::Open, 1);
        assert_eq!(metrics.breaker_state("main/read").get(), 1);
        assert_eq!(metrics.breaker_transitions("main/read", "open").get(), 1, "it happened all the same");
    }

    #[test]
    fn an_outage_is_told_when_it_begins_and_when_it_is_over() {
        struct Seen(Arc<Mutex<Vec<Cause>>>);
        impl TransitionObserver for Seen {
            fn on_transition(&self, transition: &Transition) {
                self.0.lock().push(transition.cause);
            }
        }
        let seen: Arc<Mutex<Vec<Cause>>> = Arc::default();
        let now = Arc::new(AtomicU64::new(0));
        let (clock, settings) = (Arc::clone(&now), BreakerSettings::default());
        let breaker = Breaker::new(settings, Arc::new(move || clock.load(Ordering::Relaxed)), 1).unwrap();
        let breaker = breaker.observed_by(Arc::new(Seen(Arc::clone(&seen))));
        (0..5).for_each(|_| breaker.try_acquire().unwrap().failure());
        for _ in 0..10 {
            now.fetch_add(60_000, Ordering::Relaxed);
            breaker.try_acquire().unwrap().failure();
        }
        now.fetch_add(60_000, Ordering::Relaxed);
        (0..settings.probe_successes).for_each(|_| breaker.try_acquire().unwrap().success());
        let seen = seen.lock();
        let told: Vec<Cause> = seen.iter().copied().filter(|cause| !is_probing(*cause)).collect();
        assert_eq!(told, [Cause::ConsecutiveFailures, Cause::ProbesSucceeded], "of {seen:?}");
        assert_eq!(seen.len(), 23);
    }

    #[test]
    fn every_transition_is_shown_before_the_first_one() {
        let metrics = Metrics::new();
        watched_breaker("a", BreakerSettings::default(), Arc::new(|| 0_u64), 1, &metrics).unwrap();
        let text = metrics.encode().unwrap();
        for to in ["closed", "half_open", "open"] {
            assert!(text.contains(&format!("terse_breaker_transitions_total{{name=\"a\",to=\"{to}\"}} 0\n")), "{text}");
        }
    }

    #[test]
    fn unsound_settings_are_refused() {
        let unsound = BreakerSettings { probes: 0, ..BreakerSettings::default() };
        let refused = watched_breaker("a", unsound, Arc::new(|| 0_u64), 1, &Metrics::new()).unwrap_err();
        assert_eq!(refused.setting, "probes");
    }
}
