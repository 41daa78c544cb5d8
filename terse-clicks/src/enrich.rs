//! What a click's texts mean, told apart off the hot path.

use terse_core::stats::Dimension;

use crate::record::Record;

/// The version of the rules. It rises with every change that tells a click apart differently.
pub const RULES: u16 = 1;

/// What a click was like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts<'a> {
    /// Whether it was a program: a crawler, a link preview, a prefetch.
    pub bot: bool,
    values: [&'a str; 6],
}

impl Facts<'_> {
    /// The click's value of `dimension`; empty = not known.
    #[must_use]
    pub fn value(&self, dimension: Dimension) -> &str {
        self.values[dimension as usize]
    }
}

/// Tells clicks apart.
pub struct Enrichment;

impl Enrichment {
    /// What `record` was like. The same record always gives the same facts, under equal rules and country data.
    pub fn facts<'a>(&'a mut self, record: &Record<'a>) -> Facts<'a> {
        let _ = record;
        Facts { bot: false, values: [""; 6] }
    }
}
