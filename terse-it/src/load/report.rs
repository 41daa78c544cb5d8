//! What a drill found, as lines for people and JSON for charts.

use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::Window;

/// The value below which `percent` of 100 of the sorted `latencies` lie; 0 for none (nearest rank).
#[must_use]
pub fn percentile(latencies: &[Duration], percent: usize) -> Duration {
    let rank = (latencies.len() * percent).div_ceil(100);
    latencies.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// Windows and numbers, each under a name, in the order they were added.
#[derive(Clone, Debug, Default)]
pub struct Report {
    entries: Vec<(String, String, Value)>,
}

impl Report {
    /// Adds a window.
    pub fn window(&mut self, name: &str, window: &Window) {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let value = json!({
            "requests": window.requests, "good": window.good, "refused": window.refused,
            "availability_percent": window.availability(),
            "p50_ms": ms(window.p50), "p99_ms": ms(window.p99), "max_ms": ms(window.max),
        });
        self.entries.push((name.to_owned(), window.to_string(), value));
    }

    /// Adds a time.
    pub fn time(&mut self, name: &str, time: Duration) {
        let ms = time.as_secs_f64() * 1e3;
        self.entries.push((name.to_owned(), format!("{ms:.1} ms"), json!({ "ms": ms })));
    }

    /// Adds a count.
    pub fn count(&mut self, name: &str, count: usize) {
        self.entries.push((name.to_owned(), count.to_string(), json!({ "count": count })));
    }

    /// All of it as one JSON object.
    #[must_use]
    pub fn json(&self) -> Value {
        let entries = self.entries.iter().map(|(name, _, value)| (name.clone(), value.clone()));
        Value::Object(entries.collect::<Map<_, _>>())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.entries.iter().map(|(name, _, _)| name.chars().count()).max().unwrap_or_default();
        self.entries.iter().try_for_each(|(name, text, _)| writeln!(f, "  {name:<width$}  {text}"))
    }
}
