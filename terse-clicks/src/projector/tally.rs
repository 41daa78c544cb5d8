//! Counting many clicks at once: what they were like is kept once for all that were alike, and each of their values is
//! added to a row once, however many of them had it.

use std::collections::HashMap;

use compact_str::CompactString;
use terse_core::stats::{Dimension, Row};

use crate::enrich::Facts;

/// For so many kinds of clicks room is kept.
const KEPT_NUMBERS: usize = 4_096;

/// What some clicks were like.
pub(super) struct Told {
    pub(super) bot: bool,
    /// The numbers of its values, in the order of [`Dimension::ALL`]; 0 = not known.
    values: [u32; 6],
    /// The version of the rules that told so.
    rules: u16,
}

/// What clicks were like, numbered. It has no more entries than clicks were added since it was cleared.
#[derive(Default)]
pub(super) struct ToldTable {
    numbers: HashMap<Box<[u8]>, u32>,
    all: Vec<Told>,
    texts: [Texts; 6],
    key: Vec<u8>,
    /// What keys and values take, about.
    bytes: usize,
}

/// The values of a dimension, numbered from 1.
#[derive(Default)]
struct Texts {
    numbers: HashMap<CompactString, u32>,
    all: Vec<CompactString>,
}

impl Texts {
    fn number(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        self.all.push(text.into());
        let number = self.all.len() as u32;
        self.numbers.insert(text.into(), number);
        number
    }

    fn clear(&mut self) {
        self.numbers.clear();
        self.all.clear();
        self.numbers.shrink_to(KEPT_NUMBERS);
        self.all.shrink_to(KEPT_NUMBERS);
    }
}

impl ToldTable {
    /// The number of what these facts are.
    pub(super) fn number(&mut self, facts: &Facts<'_>, rules: u16) -> u32 {
        self.key.clear();
        self.key.push(u8::from(facts.bot));
        self.key.extend_from_slice(&rules.to_le_bytes());
        for dimension in Dimension::ALL {
            let value = facts.value(dimension);
            // A length before each text keeps the texts apart; values are far shorter than 64 KiB.
            self.key.extend_from_slice(&(value.len() as u16).to_le_bytes());
            self.key.extend_from_slice(value.as_bytes());
        }
        if let Some(number) = self.numbers.get(&self.key[..]) {
            return *number;
        }
        let number = self.all.len() as u32;
        let values = Dimension::ALL.map(|dimension| self.texts[dimension as usize].number(facts.value(dimension)));
        // Lists and tables grow by doubling. Texts are as long as the key in all, and kept twice if they are new.
        let entries = size_of::<Told>() + size_of::<(Box<[u8]>, u32)>() + 12 * size_of::<CompactString>();
        self.bytes += 2 * entries + 3 * self.key.len();
        self.all.push(Told { bot: facts.bot, values, rules });
        self.numbers.insert(self.key.as_slice().into(), number);
        number
    }

    /// What the clicks of this number were like.
    pub(super) fn told(&self, number: u32) -> &Told {
        &self.all[number as usize]
    }

    /// The values of clicks of this number, in the order of [`Dimension::ALL`]; empty = not known.
    pub(super) fn values(&self, number: u32) -> [&str; 6] {
        let told = self.told(number);
        std::array::from_fn(|dimension| match told.values[dimension] {
            0 => "",
            number => self.texts[dimension].all[number as usize - 1].as_str(),
        })
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
        self.texts.iter_mut().for_each(Texts::clear);
        self.bytes = 0;
    }
}

/// Counts some clicks, to add them to the rows that they belong to.
pub(super) struct Tally<'t> {
    told: &'t ToldTable,
    kinds: Counts,
    clicks: u64,
    bots: u64,
    /// The versions of the rules, in the order in which they came.
    rules: Vec<u16>,
    values: [Counts; 6],
    is_summed_up: bool,
}

/// How often each number came.
struct Counts {
    counts: Vec<u64>,
    /// The numbers that came, in the order in which they came first.
    order: Vec<u32>,
}

impl Counts {
    fn of(numbers: usize) -> Self {
        Self { counts: vec![0; numbers], order: Vec::new() }
    }

    fn add(&mut self, number: u32, times: u64) {
        let count = &mut self.counts[number as usize];
        if *count == 0 {
            self.order.push(number);
        }
        *count += times;
    }

    fn each(&self) -> impl Iterator<Item = (u32, u64)> {
        self.order.iter().map(|number| (*number, self.counts[*number as usize]))
    }

    fn clear(&mut self) {
        for number in self.order.drain(..) {
            self.counts[number as usize] = 0;
        }
    }
}

impl<'t> Tally<'t> {
    pub(super) fn of(told: &'t ToldTable) -> Self {
        Self {
            told,
            kinds: Counts::of(told.all.len()),
            clicks: 0,
            bots: 0,
            rules: Vec::new(),
            values: std::array::from_fn(|dimension| Counts::of(told.texts[dimension].all.len() + 1)),
            is_summed_up: false,
        }
    }

    /// Counts a click.
    pub(super) fn add(&mut self, number: u32) {
        self.kinds.add(number, 1);
        self.is_summed_up = false;
    }

    /// Whether nothing was counted.
    pub(super) fn is_empty(&self) -> bool {
        self.kinds.order.is_empty()
    }

    /// Begins anew.
    pub(super) fn clear(&mut self) {
        self.kinds.clear();
        self.forget_sums();
    }

    fn forget_sums(&mut self) {
        (self.clicks, self.bots) = (0, 0);
        self.rules.clear();
        self.values.iter_mut().for_each(Counts::clear);
        self.is_summed_up = false;
    }

    fn sum_up(&mut self) {
        self.forget_sums();
        for (number, times) in self.kinds.each() {
            let told = self.told.told(number);
            if self.rules.last() != Some(&told.rules) {
                self.rules.push(told.rules);
            }
            if told.bot {
                self.bots += times;
                continue;
            }
            self.clicks += times;
            for (counts, value) in self.values.iter_mut().zip(told.values) {
                if value != 0 {
                    counts.add(value, times);
                }
            }
        }
        self.is_summed_up = true;
    }

    /// Adds what was counted to `row`. Values that come for the first time come in the order of their clicks, as if each
    /// click had been added by itself.
    pub(super) fn add_to(&mut self, row: &mut Row) {
        if !self.is_summed_up {
            self.sum_up();
        }
        let Some((first, more)) = self.rules.split_first() else { return };
        row.told_by(*first);
        row.clicks += self.clicks;
        row.bots += self.bots;
        for (dimension, counts) in Dimension::ALL.into_iter().zip(&self.values) {
            let texts = &self.told.texts[dimension as usize].all;
            let values = row.values_mut(dimension);
            for (number, times) in counts.each() {
                values.add(&texts[number as usize - 1], times);
            }
        }
        more.iter().for_each(|rules| row.told_by(*rules));
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
                tally.clear();
                tally.add(*number);
                tally.add_to(&mut apart);
            }
            for half in numbers.chunks(numbers.len() / 2 + 1) {
                tally.clear();
                half.iter().for_each(|number| tally.add(*number));
                tally.add_to(&mut together);
            }
            prop_assert_eq!(together, apart);
        }
    }
}
