//! What a click's texts mean, told apart off the hot path.
//!
//! Everything that a client sent is hostile: nothing here fails, and whatever is told has at most
//! [`MAX_VALUE_BYTES`] bytes. Telling is deterministic: the same record gives the
//! same facts under equal [`Enrichment::version`], whatever was told before it. Caches only save work, and in the
//! common case, an agent and a network that were seen lately, nothing is allocated.
//!
//! | file | tells |
//! |---|---|
//! | `agent.rs` | browser, system and device out of `User-Agent` |
//! | `programs.rs` | which agents are programs, by the patterns of `programs/` |
//! | `referrer.rs` | the host of `Referer` |
//! | `language.rs` | the first language of `Accept-Language` |
//! | `country.rs` | the country of a network, out of an mmdb file |
//! | `cache.rs` | what was told of an agent lately |

mod agent;
mod cache;
mod country;
mod language;
mod programs;
mod referrer;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;

use terse_core::stats::{Dimension, MAX_VALUE_BYTES};

use self::agent::{Agent, Agents};
use self::cache::AgentCache;
use self::country::CountryCache;
pub use self::country::{Countries, CountryError, CurrentCountries, MAX_COUNTRY_FILE_BYTES};
pub use self::programs::Program;
use crate::record::{MAX_LANGUAGE_BYTES, MAX_REFERRER_BYTES, MAX_USER_AGENT_BYTES, Record};

/// The version of the rules, below 64. It rises with every change that tells a click apart differently; see
/// [`Enrichment::version`].
pub const RULES: u16 = 1;

/// Bits of a version that tell country data apart.
const COUNTRY_BITS: u32 = 10;

/// What a click was like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts<'a> {
    /// Whether it was a program: a crawler, a link preview, a prefetch.
    pub bot: bool,
    /// What kind of program it was; `None` = it was a person.
    pub program: Option<Program>,
    values: [&'a str; 6],
}

impl Facts<'_> {
    /// The click's value of `dimension`; empty = not known. Of a program [`Dimension::Browser`] is its name.
    #[must_use]
    pub fn value(&self, dimension: Dimension) -> &str {
        self.values[dimension as usize]
    }
}

/// Tells clicks apart. One thread's own: it remembers what it told lately.
pub struct Enrichment {
    agents: Arc<Agents>,
    told: AgentCache,
    own_hosts: Vec<String>,
    countries: Option<Arc<Countries>>,
    /// Where other countries may come from, and how often they had been replaced when these were taken.
    current: Option<(Arc<CurrentCountries>, u64)>,
    networks: CountryCache,
    /// Where the facts of the last click are put together; it never grows beyond the bounds of its parts.
    scratch: String,
}

impl Enrichment {
    /// Tells clicks apart for a server whose own pages are on `own_hosts`: as a referrer they say nothing. Without
    /// `countries` the country is not known.
    #[must_use]
    pub fn new<'h>(own_hosts: impl IntoIterator<Item = &'h str>, countries: Option<Arc<Countries>>) -> Self {
        Self {
            agents: Arc::new(Agents::new()),
            told: AgentCache::new(),
            own_hosts: own_hosts.into_iter().map(referrer::comparable).collect(),
            countries,
            current: None,
            networks: CountryCache::new(),
            scratch: String::with_capacity(2 * MAX_VALUE_BYTES),
        }
    }

    /// Another one with the same rules and data, for another thread. It spares building the rules' automatons again.
    #[must_use]
    pub fn another(&self) -> Self {
        Self {
            agents: Arc::clone(&self.agents),
            told: AgentCache::new(),
            own_hosts: self.own_hosts.clone(),
            countries: self.countries.clone(),
            current: self.current.clone(),
            networks: CountryCache::new(),
            scratch: String::with_capacity(2 * MAX_VALUE_BYTES),
        }
    }

    /// Takes the countries of `current` from now on, and others when they are replaced and it is told to look.
    #[must_use]
    pub fn following(mut self, current: Arc<CurrentCountries>) -> Self {
        let (countries, replaced) = current.get();
        (self.countries, self.networks) = (countries, CountryCache::new());
        self.current = Some((current, replaced));
        self
    }

    /// Takes the countries that hold now, if they were replaced. It changes [`Enrichment::version`].
    pub fn look_for_countries(&mut self) {
        let Some((current, taken)) = &mut self.current else { return };
        if current.replaced() == *taken {
            return;
        }
        let (countries, replaced) = current.get();
        *taken = replaced;
        (self.countries, self.networks) = (countries, CountryCache::new());
    }

    /// What rows say about how their clicks were told apart: [`RULES`], and ten bits out of the country data, so that
    /// two rows with the same version can be compared in all they hold. Never 0.
    #[must_use]
    pub fn version(&self) -> u16 {
        let data = self.countries.as_ref().map_or(0, |countries| countries.fingerprint(COUNTRY_BITS));
        (RULES << COUNTRY_BITS) | data
    }

    /// What `record` was like. The same record always gives the same facts, under an equal [`Enrichment::version`].
    pub fn facts<'a>(&'a mut self, record: &Record<'a>) -> Facts<'a> {
        let agent = self.agent(first(record.user_agent, MAX_USER_AGENT_BYTES));
        self.scratch.clear();
        referrer::push_host(first(record.referrer, MAX_REFERRER_BYTES), &self.own_hosts, &mut self.scratch);
        let host = 0..self.scratch.len();
        language::push_first(first(record.language, MAX_LANGUAGE_BYTES), &mut self.scratch);
        let language = host.end..self.scratch.len();
        if let (Some(countries), Some(network)) = (&self.countries, record.network)
            && let Some(letters) = self.networks.country(network, countries)
        {
            self.scratch.extend(letters.map(char::from));
        }
        let country = language.end..self.scratch.len();
        let text = |range: Range<usize>| &self.scratch[range];
        let program = if record.signals.prefetch { Some(Program::Prefetch) } else { agent.program };
        let values = [text(host), text(country), agent.browser, agent.system, agent.device, text(language)];
        Facts { bot: program.is_some(), program, values }
    }

    fn agent(&mut self, text: &[u8]) -> Agent {
        let Self { agents, told, .. } = self;
        told.get_or_tell(text, || agents.tell(text))
    }
}

fn first(text: &[u8], most_bytes: usize) -> &[u8] {
    &text[..text.len().min(most_bytes)]
}
