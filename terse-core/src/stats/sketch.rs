//! How many different visitors: a mergeable sketch.

use serde::{Deserialize, Serialize};

/// A set of visitors of which only the size can be told, and that not quite.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sketch {
    hashes: std::collections::BTreeSet<u64>,
}

impl Sketch {
    /// Adds the visitor of this hash, which is evenly spread over all numbers.
    pub fn add(&mut self, hash: u64) {
        self.hashes.insert(hash);
    }

    /// Adds all of `more`.
    pub fn merge(&mut self, more: &Self) {
        self.hashes.extend(&more.hashes);
    }

    /// About how many were added.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.hashes.len() as u64
    }
}
