//! Who answered redirects, by the server's own count.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};

use super::report::Reading;
use super::server::ask;

/// How many redirects were found, by who knew the link.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tiers {
    /// The cache in process.
    pub l1: f64,
    /// The cache that nodes share.
    pub l2: f64,
    /// The store, at a quorum if it has replicas.
    pub store: f64,
    /// A single replica, or an entry past its age.
    pub stale: f64,
}

impl Tiers {
    /// What the server at `address` has counted since its start.
    ///
    /// # Errors
    /// When it doesn't tell.
    pub fn read(address: SocketAddr) -> Result<Self> {
        let reply = ask(address, "/metrics")?;
        Self::parse(&String::from_utf8_lossy(&reply.body))
    }

    /// Reads the lines of `metrics` that count found redirects.
    ///
    /// # Errors
    /// When there is none, or one can't be understood.
    pub fn parse(metrics: &str) -> Result<Self> {
        let mut tiers = Self::default();
        let mut seen = false;
        let lines = metrics.lines().filter(|line| line.starts_with("terse_redirects_total{"));
        for line in lines.filter(|line| line.contains("outcome=\"found\"")) {
            let value = line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
            let value = value.with_context(|| format!("a metric without a value: {line}"))?;
            let tier = line.split("tier=\"").nth(1).and_then(|rest| rest.split('"').next());
            match tier {
                Some("l1") => tiers.l1 += value,
                Some("l2") => tiers.l2 += value,
                Some("store") => tiers.store += value,
                Some("stale") => tiers.stale += value,
                _ => {}
            }
            seen = true;
        }
        anyhow::ensure!(seen, "the metrics tell nothing of redirects");
        Ok(tiers)
    }

    /// What was counted since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self {
            l1: self.l1 - before.l1,
            l2: self.l2 - before.l2,
            store: self.store - before.store,
            stale: self.stale - before.stale,
        }
    }

    /// The share of each, in percent; 0 if there was nothing.
    #[must_use]
    pub fn percents(&self) -> [Reading; 3] {
        let all = (self.l1 + self.l2 + self.store + self.stale).max(1.0);
        [("l1_percent", self.l1), ("l2_percent", self.l2), ("store_percent", self.store)]
            .map(|(name, count)| (name, count * 100.0 / all))
    }

    /// The share that no cache answered, in percent.
    #[must_use]
    pub fn uncached_percent(&self) -> f64 {
        let uncached = self.store + self.stale;
        uncached * 100.0 / (self.l1 + self.l2 + uncached).max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(l1: u32, l2: u32, store: u32, stale: u32) -> String {
        format!(
            "# TYPE terse_redirects_total counter\n\
             terse_redirects_total{{outcome=\"found\",tier=\"l1\"}} {l1}\n\
             terse_redirects_total{{outcome=\"found\",tier=\"l2\"}} {l2}\n\
             terse_redirects_total{{outcome=\"found\",tier=\"store\"}} {store}\n\
             terse_redirects_total{{outcome=\"missing\",tier=\"store\"}} 7\n\
             terse_redirects_total{{outcome=\"found\",tier=\"stale\"}} {stale}\n"
        )
    }

    #[test]
    fn what_was_found_is_counted_by_tier_and_what_was_missing_is_not() {
        let before = Tiers::parse(&metrics(10, 5, 20, 0)).unwrap();
        let after = Tiers::parse(&metrics(11, 8, 25, 1)).unwrap();
        let between = after.since(&before);
        assert_eq!(between, Tiers { l1: 1.0, l2: 3.0, store: 5.0, stale: 1.0 });
        assert_eq!(between.percents(), [("l1_percent", 10.0), ("l2_percent", 30.0), ("store_percent", 50.0)]);
        assert!((between.uncached_percent() - 60.0).abs() < 1e-9);
    }

    #[test]
    fn nothing_between_two_readings_is_no_share_of_anything() {
        let tiers = Tiers::parse(&metrics(1, 2, 3, 4)).unwrap();
        assert!(tiers.since(&tiers).percents().iter().all(|(_, percent)| *percent == 0.0));
        assert_eq!(tiers.since(&tiers).uncached_percent(), 0.0);
    }

    #[test]
    fn metrics_without_redirects_are_an_error() {
        assert!(Tiers::parse("terse_links_created_total 0\n").is_err());
        assert!(Tiers::parse("terse_redirects_total{outcome=\"found\",tier=\"l1\"} many\n").is_err());
    }
}
