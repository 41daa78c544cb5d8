//! The list that servers share, as a chain of settings. How and why is told by [`super`].

use std::collections::BTreeSet;
use std::sync::Arc;

use terse_core::ports::blocking::BlockChange;
use terse_core::ports::{HomeStore, StoreError, StoreErrorKind};
use terse_core::{BlockedHost, Clock};

use super::{KEPT, LOOK_EVERY_MS, MAX_SHARED, MAX_STEPS, MAX_TRIES};

/// How the names of lists begin; the number of the list follows.
const PREFIX: &str = "blocked-hosts/";
/// The number of the first list.
const FIRST: u64 = 1;
/// The first line of a list.
const FORMAT: &str = "1";
/// Most names that are looked at. Some more than are kept may stand while they are being forgotten.
const MAX_NAMES: usize = 1_024;
/// Most lists that are forgotten in one step.
const STEP_FORGOTTEN: usize = 256;

/// The hosts of a list.
pub(super) type Hosts = BTreeSet<BlockedHost>;

/// What is known of the chain.
pub(super) struct Chain {
    home: Arc<dyn HomeStore>,
    clock: Arc<dyn Clock>,
    /// The number of the newest list that was read; `None` = none was.
    number: Option<u64>,
    /// Its hosts, or what was remembered while the store has told nothing.
    hosts: Arc<Hosts>,
    /// Whether the store has told what `hosts` are, be it that there is no list.
    known: bool,
    /// When all names were looked at.
    looked_at_ms: Option<u64>,
}

impl Chain {
    /// A chain of which nothing is known but what was `remembered` of it.
    pub(super) fn new(home: Arc<dyn HomeStore>, clock: Arc<dyn Clock>, remembered: Arc<Hosts>) -> Self {
        Self { home, clock, number: None, hosts: remembered, known: false, looked_at_ms: None }
    }

    /// The newest list that is known.
    pub(super) fn hosts(&self) -> Arc<Hosts> {
        Arc::clone(&self.hosts)
    }

    /// Whether that is what the store has told.
    pub(super) fn is_known(&self) -> bool {
        self.known
    }

    /// Reads up to the newest list, or some lists nearer to it. Once that succeeds the list is known.
    pub(super) async fn read(&mut self) -> Result<(), StoreError> {
        let now_ms = self.clock.monotonic_ms();
        if self.looked_at_ms.is_none_or(|at| now_ms.saturating_sub(at) >= LOOK_EVERY_MS) {
            self.look().await?;
            self.looked_at_ms = Some(now_ms);
        }
        for _ in 0..MAX_STEPS {
            let Some(next) = self.next() else { break };
            match self.home.setting(&name_of(next)).await? {
                Some(value) => self.take(next, &value)?,
                None => break,
            }
        }
        Ok(())
    }

    /// Makes the list have `host`, or not.
    pub(super) async fn change(&mut self, host: &BlockedHost, blocked: bool) -> Result<BlockChange, StoreError> {
        for _ in 0..MAX_TRIES {
            self.read().await?;
            if self.has_slept().await? {
                self.look().await?;
                continue;
            }
            if self.hosts.contains(host) == blocked {
                return Ok(BlockChange::AsItWas);
            }
            if blocked && self.hosts.len() >= MAX_SHARED {
                return Ok(BlockChange::Full);
            }
            let mut hosts = Hosts::clone(&self.hosts);
            if blocked {
                hosts.insert(host.clone());
            } else {
                hosts.remove(host);
            }
            let next = self.next().ok_or_else(|| corrupt("the lists of blocked hosts have no further number"))?;
            let value = write(&hosts);
            let standing = self.home.settle(&name_of(next), &value).await?;
            self.take(next, &standing)?;
            if standing == value {
                return Ok(BlockChange::Changed);
            }
        }
        Err(StoreError::new(StoreErrorKind::Overloaded, "the blocked hosts were changed by others too often"))
    }

    /// The number of the list after the one that is known; `None` = there is none.
    fn next(&self) -> Option<u64> {
        self.number.map_or(Some(FIRST), |number| number.checked_add(1))
    }

    /// Whether the list that is known was forgotten since, or lists came that are not the next one. Then the next number
    /// may have been forgotten, too: a list settled there would stand beneath those of others, where nobody reads it.
    async fn has_slept(&self) -> Result<bool, StoreError> {
        match self.number {
            Some(number) => Ok(self.home.setting(&name_of(number)).await?.is_none()),
            None => Ok(!self.numbers().await?.is_empty()),
        }
    }

    /// The numbers of the lists that stand.
    async fn numbers(&self) -> Result<BTreeSet<u64>, StoreError> {
        let names = self.home.names(PREFIX, MAX_NAMES).await?;
        Ok(names.iter().filter_map(|name| number_in(name)).collect())
    }

    /// Goes to the newest list by the names of all, and forgets old ones.
    async fn look(&mut self) -> Result<(), StoreError> {
        let numbers = self.numbers().await?;
        let Some(newest) = numbers.last().copied() else {
            if !self.known {
                (self.known, self.hosts) = (true, Arc::default());
            }
            return Ok(());
        };
        if self.number.is_none_or(|known| newest > known) {
            let value = self.home.setting(&name_of(newest)).await?;
            self.take(newest, &value.ok_or_else(|| changing(newest))?)?;
        }
        let old = numbers.into_iter().filter(|number| newest - number >= KEPT);
        for number in old.take(STEP_FORGOTTEN) {
            self.home.forget(&name_of(number)).await?;
        }
        Ok(())
    }

    fn take(&mut self, number: u64, value: &[u8]) -> Result<(), StoreError> {
        let hosts = read(value)
            .ok_or_else(|| corrupt(format!("the list of blocked hosts number {number} can't be understood")))?;
        (self.number, self.known) = (Some(number), true);
        if *self.hosts != hosts {
            self.hosts = Arc::new(hosts);
        }
        Ok(())
    }
}

fn corrupt(text: impl Into<String>) -> StoreError {
    StoreError::new(StoreErrorKind::Corrupt, text.into())
}

/// The newest list was forgotten since its name was read.
fn changing(number: u64) -> StoreError {
    let text = format!("the list of blocked hosts number {number} was forgotten before it was read");
    StoreError::new(StoreErrorKind::Unavailable, text)
}

fn name_of(number: u64) -> String {
    format!("{PREFIX}{number}")
}

/// The number that a list's name tells; `None` = it is no list's name, which has no sign and no zeros in front.
fn number_in(name: &str) -> Option<u64> {
    let number = name.strip_prefix(PREFIX)?.parse().ok()?;
    (name_of(number) == name).then_some(number)
}

/// A list as it is stored: the format, then a host a line.
fn write(hosts: &Hosts) -> Vec<u8> {
    let lines = std::iter::once(FORMAT).chain(hosts.iter().map(BlockedHost::as_str));
    lines.collect::<Vec<_>>().join("\n").into_bytes()
}

/// The list that is stored as `value`; `None` = it is none of this format.
fn read(value: &[u8]) -> Option<Hosts> {
    let mut lines = std::str::from_utf8(value).ok()?.split('\n');
    let known = lines.next() == Some(FORMAT);
    known.then(|| lines.map(|line| BlockedHost::parse(line).ok()).collect()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_stored_and_read_back() {
        let hosts: Hosts = ["b.example", "a.example", "2001:db8::1"].map(|h| BlockedHost::parse(h).unwrap()).into();
        assert_eq!(write(&hosts), b"1\n2001:db8::1\na.example\nb.example");
        assert_eq!(read(&write(&hosts)), Some(hosts));
        assert_eq!(read(&write(&Hosts::new())), Some(Hosts::new()));
        for damaged in [&b""[..], b"2\na.example", b"1\n", b"1\na b", b"1\n\xff"] {
            assert_eq!(read(damaged), None, "{}", damaged.escape_ascii());
        }
    }

    #[test]
    fn a_name_tells_its_number() {
        assert_eq!(number_in(&name_of(17)), Some(17));
        for other in ["blocked-hosts/x", "blocked-hosts/+7", "blocked-hosts/07", "blocked-hosts/", "visitor-key/7"] {
            assert_eq!(number_in(other), None, "{other}");
        }
    }
}
