//! What a server counts, as `/metrics` tells it.

use crate::Client;

/// Redirects answered, by tier and outcome.
pub const REDIRECTS: &str = "terse_redirects_total";
/// Store requests, by shard and operation.
pub const STORE_REQUESTS: &str = "terse_store_request_seconds_count";
/// Calls that have a place in a bulkhead.
pub const BULKHEAD_IN_USE: &str = "terse_bulkhead_in_use";

/// Clicks counted by this process.
pub const CLICKS_APPLIED: &str = "terse_clicks_applied_total";
/// Clicks that could not be recorded, by reason.
pub const CLICKS_DROPPED: &str = "terse_clicks_dropped_total";
/// Sealed blocks of clicks that are not counted yet.
pub const CLICK_BLOCKS_PENDING: &str = "terse_click_blocks_pending";
/// Parts of blocks of clicks, by what became of them.
pub const BUS_PARTS: &str = "terse_bus_parts_total";

/// All samples of one scrape.
#[derive(Clone, Debug, Default)]
pub struct Scrape(Vec<Sample>);

#[derive(Clone, Debug)]
struct Sample {
    name: String,
    labels: String,
    value: f64,
}

impl Scrape {
    /// What the server tells now.
    #[must_use]
    #[track_caller]
    pub fn of(client: &Client) -> Self {
        Self::parse(&client.get("/metrics").expect(200).text())
    }

    fn parse(text: &str) -> Self {
        let sample = |line: &str| {
            let (series, value) = line.rsplit_once(' ')?;
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let labels = labels.trim_end_matches('}').to_owned();
            Some(Sample { name: name.to_owned(), labels, value: value.parse().ok()? })
        };
        Self(text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect())
    }

    /// The sum of all series of `name` with these labels; 0 for none.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let chosen = |sample: &&Sample| {
            let has = |(label, value): &(&str, &str)| {
                sample.labels.split(',').any(|pair| pair.split_once('=') == Some((*label, &format!("\"{value}\""))))
            };
            sample.name == name && labels.iter().all(has)
        };
        self.0.iter().filter(chosen).map(|sample| sample.value as u64).sum()
    }

    /// Store reads for redirects so far.
    #[must_use]
    pub fn resolves(&self) -> u64 {
        self.sum(STORE_REQUESTS, &[("operation", "resolve")])
    }

    /// Redirects of links that this tier answered so far.
    #[must_use]
    pub fn found(&self, tier: &str) -> u64 {
        self.sum(REDIRECTS, &[("tier", tier), ("outcome", "found")])
    }

    /// Redirects of links so far, whichever tier answered.
    #[must_use]
    pub fn found_by_any(&self) -> u64 {
        self.sum(REDIRECTS, &[("outcome", "found")])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# TYPE terse_redirects_total counter\n\
        terse_redirects_total{outcome=\"found\",tier=\"l1\"} 40\n\
        terse_redirects_total{outcome=\"found\",tier=\"l2\"} 2\n\
        terse_redirects_total{outcome=\"missing\",tier=\"l1\"} 500\n\
        terse_store_request_seconds_count{operation=\"resolve\",shard=\"a\"} 7\n\
        terse_store_request_seconds_count{operation=\"resolve\",shard=\"b\"} 8\n\
        terse_store_request_seconds_count{operation=\"insert\",shard=\"b\"} 100\n\
        terse_links_created_total 3\n";

    #[test]
    fn series_are_summed_by_their_labels() {
        let scrape = Scrape::parse(TEXT);
        assert_eq!(scrape.found("l1"), 40);
        assert_eq!(scrape.found_by_any(), 42);
        assert_eq!(scrape.resolves(), 15);
        assert_eq!(scrape.sum("terse_links_created_total", &[]), 3);
        assert_eq!(scrape.sum("terse_links_created", &[]), 0);
        assert_eq!(scrape.sum(REDIRECTS, &[("tier", "l")]), 0);
    }
}
