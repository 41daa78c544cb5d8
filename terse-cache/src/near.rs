//! Answers without the store, for those who may not have it asked.

use terse_core::ShortCode;
use terse_core::ports::{LinkReader, Lookup, Tier};

use crate::ReadThrough;

impl ReadThrough {
    /// What memory has of `code` while that is fresh, else the shared cache, if
    /// it may be trusted, else memory again, as stale. It is no flight, for who
    /// joins one is promised the store's answer; so nothing is stored.
    pub(crate) async fn near(&self, code: &ShortCode) -> Option<Lookup> {
        if let Some(found) = self.peek(code.as_str()) {
            return Some(found);
        }
        let shared = self.ask_near(code).await;
        shared.or_else(|| self.memory.stale(code.as_str(), self.clock.monotonic_ms()))
    }

    async fn ask_near(&self, code: &ShortCode) -> Option<Lookup> {
        let shared = self.shared()?;
        if !self.asks_shared(code) {
            return None;
        }
        let link = shared.get(code).await?;
        // Whatever changed since it was asked is known by now, or it is not trusted at all.
        self.trusts(code, link.version).then_some(Lookup { link: Some(link), tier: Tier::L2 })
    }
}
