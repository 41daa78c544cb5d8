//! Counting many clicks at once: what they were like is kept once for all that were alike.

use std::collections::HashMap;

use compact_str::CompactString;
use terse_core::stats::{Dimension, Row};

use crate::enrich::Facts;

/// For so many kinds of clicks room is kept.
const KEPT_NUMBERS: usize = 4_096;

/// What some clicks were like.
pub(super) struct Told {
    pub(super) bot: bool,
    /// In the order of [`Dimension::ALL`].
    pub(super) values: [CompactString; 6],
    /// The version of the rules that told so.
    rules: u16,
}

/// What clicks were like, numbered. It has no more entries than clicks were added since it was cleared.
#[derive(Default)]
pub(super) struct ToldTable {
    numbers: HashMap<Box<[u8]>, u32>,
    all: Vec<Told>,
    key: Vec<u8>,
    /// What keys and values take, about.
    bytes: usize,
}

impl ToldTable {
    /// The number of what these facts are.
    pub(super) fn number(&mut self, facts: &Facts<'_>, rules: u16) -> u32 {
        self.key.clear();
        self.key.extend([u8::from(facts.bot)]);
        self.key.extend(rules.to_le_bytes());
        for dimension in Dimension::ALL {
            let value = facts.value(dimension);
            // A length before each text keeps the texts apart; values are far shorter than 64 KiB.
            self.key.extend((value.len() as u16).to_le_bytes());
            self.key.extend(value.as_bytes());
        }
        if let Some(number) = self.numbers.get(&self.key[..]) {
            return *number;
        }
        let number = self.all.len() as u32;
        let values = Dimension::ALL.map(|dimension| CompactString::new(facts.value(dimension)));
        let texts: usize = values.iter().filter(|value| value.is_heap_allocated()).map(CompactString::capacity).sum();
        // Lists and tables grow by doubling.
        self.bytes += 2 * (size_of::<Told>() + size_of::<(Box<[u8]>, u32)>()) + self.key.len() + texts;
        self.all.push(Told { bot: facts.bot, values, rules });
        self.numbers.insert(self.key.as_slice().into(), number);
        number
    }

    /// About how many bytes it takes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Forgets all numbers.
    pub(super) fn clear(&mut self) {
        self.numbers.clear();
        self.all.clear();
        // So that what was hostile once is not kept room for.
        self.numbers.shrink_to(KEPT_NUMBERS);
        self.all.shrink_to(KEPT_NUMBERS);
        self.bytes = 0;
    }
}

/// Counts the clicks of one row, then of the next.
pub(super) struct Tally<'t> {
    told: &'t ToldTable,
    /// How many clicks of each kind.
    counts: Vec<u64>,
    /// The kinds that there are, in the order in which they came first.
    kinds: Vec<u32>,
}

impl<'t> Tally<'t> {
    pub(super) fn of(told: &'t ToldTable) -> Self {
        Self { told, counts: vec![0; told.all.len()], kinds: Vec::new() }
    }

    /// What the clicks of this number were like.
    pub(super) fn told(&self, number: u32) -> &'t Told {
        &self.told.all[number as usize]
    }

    /// Counts a click.
    pub(super) fn add(&mut self, number: u32) -> &'t Told {
        let count = &mut self.counts[number as usize];
        if *count == 0 {
            self.kinds.push(number);
        }
        *count += 1;
        self.told(number)
    }

    /// Adds what was counted to `row`, and begins anew. Values that come for the first time come in the order of their
    /// clicks, as if each click had been added by itself.
    pub(super) fn settle(&mut self, row: &mut Row) {
        for number in self.kinds.drain(..) {
            let times = std::mem::take(&mut self.counts[number as usize]);
            let told = &self.told.all[number as usize];
            row.told_by(told.rules);
            if told.bot {
                row.bots += times;
                continue;
            }
            row.clicks += times;
            for (dimension, value) in Dimension::ALL.into_iter().zip(&told.values) {
                if !value.is_empty() {
                    row.values_mut(dimension).add(value, times);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use terse_core::click::Signals;
    use terse_core::stats::MAX_VALUES;
    use terse_core::{Timestamp, Version};

    use super::*;
    use crate::enrich::Enrichment;
    use crate::record::Record;

    fn number(table: &mut ToldTable, enrichment: &mut Enrichment, referrer: &str) -> u32 {
        let record = Record {
            at: Timestamp::from_millis(0),
            code: "any",
            version: Version(1),
            network: None,
            visitor: None,
            referrer: referrer.as_bytes(),
            user_agent: b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
            language: b"",
            signals: Signals { prefetch: referrer.is_empty(), ..Signals::default() },
        };
        let rules = enrichment.version();
        table.number(&enrichment.facts(&record), rules)
    }

    #[test]
    fn clicks_that_were_alike_have_one_number() {
        let (mut table, mut enrichment) = (ToldTable::default(), Enrichment::new([], None));
        let mut number = |referrer| number(&mut table, &mut enrichment, referrer);
        assert_eq!([number("https://a.org/x"), number("https://b.org"), number("https://a.org/y")], [0, 1, 0]);
        assert_eq!(number(""), 2);
        table.clear();
        assert_eq!(table.all.len(), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(16) })]

        #[test]
        fn a_row_is_the_same_whether_clicks_are_counted_together_or_one_by_one(
            hosts in prop::collection::vec(0..MAX_VALUES as u32 + 40, 0..400),
        ) {
            let (mut table, mut enrichment) = (ToldTable::default(), Enrichment::new([], None));
            // Every seventh comes as a prefetch, which is a program's.
            let referrer = |host: &u32| if host.is_multiple_of(7) { String::new() } else { format!("https://h{host}.org") };
            let numbers: Vec<u32> =
                hosts.iter().map(|host| number(&mut table, &mut enrichment, &referrer(host))).collect();
            let (mut together, mut apart) = (Row::default(), Row::default());
            let mut tally = Tally::of(&table);
            for number in &numbers {
                tally.add(*number);
                tally.settle(&mut apart);
            }
            for half in numbers.chunks(numbers.len() / 2 + 1) {
                for number in half {
                    tally.add(*number);
                }
                tally.settle(&mut together);
            }
            prop_assert_eq!(together, apart);
        }
    }
}
