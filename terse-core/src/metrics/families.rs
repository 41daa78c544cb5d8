//! What collectors of ours are made of: those whose numbers are read at a scrape.

use prometheus::core::Desc;
use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};

use super::table::help;

/// What a collector announces of the metrics `name`.
///
/// # Errors
/// When a name is not valid.
pub(super) fn describe(name: &str, labels: &[&str]) -> prometheus::Result<Desc> {
    let labels = labels.iter().map(|label| (*label).to_owned()).collect();
    Desc::new(name.to_owned(), help(name).to_owned(), labels, std::collections::HashMap::new())
}

/// A label with its value.
pub(super) fn label(name: &str, value: &str) -> LabelPair {
    let mut label = LabelPair::default();
    label.set_name(name.to_owned());
    label.set_value(value.to_owned());
    label
}

/// All metrics of one name.
pub(super) fn family(name: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help(name).to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}
