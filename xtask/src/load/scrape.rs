//! What a server counts, as its `/metrics` tells it.

use std::collections::BTreeMap;

/// All samples of one look.
#[derive(Clone, Debug, Default)]
pub struct Scrape {
    samples: Vec<Sample>,
}

#[derive(Clone, Debug)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Scrape {
    /// Reads the Prometheus text form; lines that aren't samples are left out.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self { samples: text.lines().filter(|line| !line.starts_with('#')).filter_map(parse_line).collect() }
    }

    /// The sum of all series of `name`; `None` = there is none.
    #[must_use]
    pub fn sum(&self, name: &str) -> Option<f64> {
        self.of(name).map(|sample| sample.value).reduce(|sum, value| sum + value)
    }

    /// The sums of the series of `name` that have `label`, by its value.
    #[must_use]
    pub fn by(&self, name: &str, label: &str) -> BTreeMap<String, f64> {
        let mut sums = BTreeMap::new();
        for (value, sample) in self.of(name).filter_map(|sample| Some((sample.labels.get(label)?, sample))) {
            *sums.entry(value.clone()).or_insert(0.0) += sample.value;
        }
        sums
    }

    fn of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| sample.name == name)
    }
}

fn parse_line(line: &str) -> Option<Sample> {
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    let mut read = BTreeMap::new();
    let mut rest = labels.trim_end_matches('}');
    while let Some((label, after)) = rest.split_once("=\"") {
        let end = closing_quote(after)?;
        read.insert(label.trim_start_matches(',').to_owned(), after[..end].replace("\\\"", "\"").replace("\\\\", "\\"));
        rest = &after[end + 1..];
    }
    Some(Sample { name: name.to_owned(), labels: read, value: value.parse().ok()? })
}

/// Where the value of a label ends: at the first quotation mark without a backslash before it.
fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(at, letter)| {
        let closes = letter == '"' && !escaped;
        escaped = letter == '\\' && !escaped;
        closes.then_some(at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP x y\n# TYPE x counter\n\
        terse_redirects_total{outcome=\"found\",tier=\"l1\"} 40\n\
        terse_redirects_total{outcome=\"missing\",tier=\"l1\"} 2\n\
        terse_redirects_total{outcome=\"found\",tier=\"store\"} 7\n\
        terse_breaker_state{name=\"main/read\"} 2\n\
        terse_click_lag_seconds 0.25\nnonsense\n";

    #[test]
    fn series_are_summed_in_all_and_by_label() {
        let scrape = Scrape::parse(TEXT);
        assert_eq!(scrape.sum("terse_redirects_total"), Some(49.0));
        let tiers = scrape.by("terse_redirects_total", "tier");
        assert_eq!((tiers["l1"], tiers["store"]), (42.0, 7.0));
        assert_eq!(scrape.by("terse_breaker_state", "name")["main/read"], 2.0);
        assert_eq!(scrape.sum("terse_click_lag_seconds"), Some(0.25));
    }

    #[test]
    fn what_is_not_told_is_not_zero() {
        let scrape = Scrape::parse(TEXT);
        assert_eq!(scrape.sum("terse_redirects"), None);
        assert!(scrape.by("terse_redirects_total", "shard").is_empty());
        assert_eq!(Scrape::parse("").sum("x"), None);
    }

    #[test]
    fn labels_may_hold_anything() {
        let scrape = Scrape::parse("x{a=\"b,c=}\",d=\"e\\\"f\"} 1\n");
        assert_eq!(scrape.by("x", "a")["b,c=}"], 1.0);
        assert_eq!(scrape.by("x", "d")["e\"f"], 1.0);
    }
}
