//! What was told of an agent lately: the same few thousand agents make nearly all clicks.
//!
//! Agents are compared byte by byte, so a hash that two share costs time and nothing else. A set that is full gives up
//! its last entry; entries that are found again move forward, so a flood of agents that come once leaves those that
//! come often.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use super::agent::Agent;

/// Sets of [`WAYS`] agents that are remembered: 4,096 agents in all, with the longest ones 2.5 MiB.
const SETS: usize = 1 << 10;
const WAYS: usize = 4;

pub(super) struct AgentCache {
    sets: Vec<[Option<Entry>; WAYS]>,
}

struct Entry {
    hash: u64,
    text: Box<[u8]>,
    agent: Agent,
}

impl AgentCache {
    pub(super) fn new() -> Self {
        Self { sets: std::iter::repeat_with(Default::default).take(SETS).collect() }
    }

    /// What was told of `text`, else what `tell` says.
    pub(super) fn get_or_tell(&mut self, text: &[u8], tell: impl FnOnce() -> Agent) -> Agent {
        let hash = hash_of(text);
        let set = &mut self.sets[hash as usize % SETS];
        let is_it = |entry: &Option<Entry>| entry.as_ref().is_some_and(|e| e.hash == hash && *e.text == *text);
        if let Some(place) = set.iter().position(is_it) {
            let forward = place.saturating_sub(1);
            set.swap(place, forward);
            if let Some(entry) = &set[forward] {
                return entry.agent;
            }
        }
        let agent = tell();
        let place = set.iter().position(Option::is_none).unwrap_or(WAYS - 1);
        set[place] = Some(Entry { hash, text: text.into(), agent });
        agent
    }
}

fn hash_of(text: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(text);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(browser: &'static str) -> Agent {
        Agent { browser, ..Agent::default() }
    }

    fn told(cache: &AgentCache) -> usize {
        cache.sets.iter().flatten().flatten().count()
    }

    #[test]
    fn an_agent_is_told_once() {
        let mut cache = AgentCache::new();
        assert_eq!(cache.get_or_tell(b"a", || agent("A")), agent("A"));
        for _ in 0..3 {
            assert_eq!(cache.get_or_tell(b"a", || panic!("it was told")), agent("A"));
        }
        assert_eq!(cache.get_or_tell(b"", || agent("none")), agent("none"));
        assert_eq!(told(&cache), 2);
    }

    #[test]
    fn a_flood_of_agents_leaves_those_that_come_often() {
        let mut cache = AgentCache::new();
        cache.get_or_tell(b"often", || agent("often"));
        for number in 0..20_000_u32 {
            cache.get_or_tell(&number.to_le_bytes(), || agent("once"));
            assert_eq!(cache.get_or_tell(b"often", || panic!("it was told")), agent("often"));
        }
        assert_eq!(told(&cache), SETS * WAYS);
    }

    #[test]
    fn an_agent_that_shares_its_hash_is_told_apart() {
        let mut cache = AgentCache::new();
        cache.get_or_tell(b"mine", || agent("mine"));
        let set = hash_of(b"mine") as usize % SETS;
        let entry = cache.sets[set][0].as_mut().unwrap();
        entry.text = b"theirs".as_slice().into();
        assert_eq!(cache.get_or_tell(b"mine", || agent("again")), agent("again"));
    }
}
