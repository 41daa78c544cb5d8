//! Summing up many clicks at once: what they were like is kept once for all that were alike, and each of their values
//! comes to a row once, however many of them had it.

use std::collections::HashMap;

use compact_str::CompactString;
use terse_core::stats::{Dimension, Tallied, TalliedValue};

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

    /// The rank of each number's text among all.
    fn ranks(&self) -> Vec<u32> {
        let mut numbers: Vec<u32> = (1..=self.all.len() as u32).collect();
        numbers.sort_unstable_by_key(|number| &self.all[*number as usize - 1]);
        let mut ranks = vec![0; self.all.len() + 1];
        numbers.into_iter().zip(0..).for_each(|(number, rank)| ranks[number as usize] = rank);
        ranks
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
    /// By dimension, the rank of each value's text among all.
    ranks: [Vec<u32>; 6],
    kinds: Counts,
    values: [Counts; 6],
    /// The ranks of a dimension's values, with the place of each in the order in which they came.
    sorted: Vec<(u32, u32)>,
    sums: Tallied<'t>,
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

    fn take(&mut self, number: u32) -> u64 {
        std::mem::take(&mut self.counts[number as usize])
    }
}

impl<'t> Tally<'t> {
    pub(super) fn of(told: &'t ToldTable) -> Self {
        Self {
            told,
            ranks: std::array::from_fn(|dimension| told.texts[dimension].ranks()),
            kinds: Counts::of(told.all.len()),
            values: std::array::from_fn(|dimension| Counts::of(told.texts[dimension].all.len() + 1)),
            sorted: Vec::new(),
            sums: Tallied::default(),
        }
    }

    /// Sums up the clicks of these numbers. Values are told in the order of their texts, and when they came first, as if
    /// each click had been added by itself.
    pub(super) fn sum_up(&mut self, numbers: impl Iterator<Item = u32>) -> &Tallied<'t> {
        let sums = &mut self.sums;
        (sums.clicks, sums.bots) = (0, 0);
        sums.rules.clear();
        numbers.for_each(|number| self.kinds.add(number, 1));
        for number in std::mem::take(&mut self.kinds.order) {
            let (told, times) = (self.told.told(number), self.kinds.take(number));
            if sums.rules.last() != Some(&told.rules) {
                sums.rules.push(told.rules);
            }
            if told.bot {
                sums.bots += times;
                continue;
            }
            sums.clicks += times;
            for (counts, value) in self.values.iter_mut().zip(told.values) {
                if value != 0 {
                    counts.add(value, times);
                }
            }
        }
        for dimension in 0..self.values.len() {
            self.sort_values(dimension);
        }
        &self.sums
    }

    fn sort_values(&mut self, dimension: usize) {
        let (counts, ranks) = (&mut self.values[dimension], &self.ranks[dimension]);
        let (texts, values) = (&self.told.texts[dimension].all, &mut self.sums.values[dimension]);
        self.sorted.clear();
        self.sorted.extend(counts.order.iter().zip(0..).map(|(number, came)| (ranks[*number as usize], came)));
        self.sorted.sort_unstable();
        values.clear();
        for (_, came) in &self.sorted {
            let number = counts.order[*came as usize];
            let times = counts.take(number);
            values.push(TalliedValue { text: &texts[number as usize - 1], times, came: *came });
        }
        counts.order.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use terse_core::click::Signals;
    use terse_core::stats::{Cell, Extra, MAX_VALUES, Packer};
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
            let (mut packer, mut together, mut apart) = (Packer::default(), None, None);
            let mut tally = Tally::of(&table);
            let mut count = |cell: &mut Option<Cell>, numbers: &[u32]| {
                let tallied = tally.sum_up(numbers.iter().copied());
                *cell = Some(packer.count(cell.as_ref(), tallied, Extra::Nothing).unwrap());
            };
            for number in &numbers {
                count(&mut apart, &[*number]);
            }
            for half in numbers.chunks(numbers.len() / 2 + 1) {
                count(&mut together, half);
            }
            prop_assert_eq!(together, apart);
        }
    }
}
