//! What the read model must be, said as plainly as possible: every click that is in the log counts once, wherever it
//! stands there, however often, and in whichever version of its block.
//!
//! A click is named by journal, block and index. The model keeps the set of those names, and a row for every code and
//! span; it knows no offsets, ranges, checkpoints or crashes. That they don't show is what is tested against it.

use std::collections::{BTreeMap, HashSet};

use terse_core::click::BlockId;
use terse_core::stats::{Dimension, NewestClick, Partition, Row, RowKey, Span};
use terse_core::{ShortCode, Timestamp};

/// A click, told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelClick {
    /// When.
    pub at: Timestamp,
    /// The link's code.
    pub code: ShortCode,
    /// Whether it was a program.
    pub bot: bool,
    /// What it was like, in the order of [`Dimension::ALL`].
    pub values: [String; 6],
    /// Who it was.
    pub visitor: Option<u64>,
}

/// A message of the log: some of a block's clicks, with their indices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelPart {
    /// The block.
    pub block: BlockId,
    /// The clicks.
    pub clicks: Vec<(u32, ModelClick)>,
}

/// The read model as it must be.
#[derive(Clone, Debug, Default)]
pub struct ClickModel {
    counted: HashSet<(Partition, BlockId, u32)>,
    rows: BTreeMap<RowKey, Row>,
}

impl ClickModel {
    /// Takes the next message of `partition`. `rules` = the version of the rules by which its clicks were told apart.
    pub fn deliver(&mut self, partition: Partition, part: &ModelPart, rules: u16) {
        for (index, click) in &part.clicks {
            if self.counted.insert((partition, part.block, *index)) {
                self.count(part.block, *index, click, rules);
            }
        }
    }

    fn count(&mut self, block: BlockId, index: u32, click: &ModelClick, rules: u16) {
        for span in [Span::All, Span::day_of(click.at), Span::hour_of(click.at)] {
            let row = self.rows.entry(RowKey { code: click.code.clone(), span }).or_default();
            row.told_by(rules);
            if click.bot {
                row.bots += 1;
            } else {
                row.clicks += 1;
                for (dimension, value) in Dimension::ALL.into_iter().zip(&click.values) {
                    if !value.is_empty() {
                        row.values_mut(dimension).add(value, 1);
                    }
                }
            }
            match (span, click.visitor) {
                (Span::All, _) => {
                    let values = click.values.clone().map(Into::into);
                    row.keep_newest(NewestClick::new(click.at, block, index, values, click.bot));
                }
                (Span::Day(_), Some(visitor)) if !click.bot => row.visitors.get_or_insert_default().add(visitor),
                _ => {}
            }
        }
    }

    /// All rows, in the order of their keys.
    #[must_use]
    pub fn rows(&self) -> &BTreeMap<RowKey, Row> {
        &self.rows
    }

    /// How many clicks there are.
    #[must_use]
    pub fn clicks(&self) -> u64 {
        self.counted.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use terse_core::click::JournalId;

    use super::*;

    const HOUR_MS: i64 = 3_600_000;
    const PARTITION: Partition = Partition::Stream(0);

    fn code() -> ShortCode {
        ShortCode::parse("abc").unwrap()
    }

    fn click(at_ms: i64, bot: bool) -> ModelClick {
        let values = ["example.org", "DE", "Firefox", "Linux", "desktop", ""].map(str::to_owned);
        ModelClick { at: Timestamp::from_millis(at_ms), code: code(), bot, values, visitor: Some(7) }
    }

    fn part(seq: u64, clicks: &[(u32, ModelClick)]) -> ModelPart {
        ModelPart { block: BlockId { journal: JournalId([1; 16]), seq }, clicks: clicks.to_vec() }
    }

    fn row(model: &ClickModel, span: Span) -> &Row {
        &model.rows()[&RowKey { code: code(), span }]
    }

    #[test]
    fn a_click_counts_once_however_often_it_comes() {
        let mut model = ClickModel::default();
        let short = part(0, &[(0, click(5, false))]);
        let long = part(0, &[(0, click(5, false)), (1, click(6, false))]);
        for part in [&short, &long, &short, &long] {
            model.deliver(PARTITION, part, 1);
        }
        assert_eq!(model.clicks(), 2);
        assert_eq!(row(&model, Span::All).clicks, 2);
        model.deliver(PARTITION, &part(1, &[(0, click(5, false))]), 1);
        assert_eq!(row(&model, Span::All).clicks, 3, "another block");
    }

    #[test]
    fn a_click_is_in_three_rows() {
        let mut model = ClickModel::default();
        model.deliver(PARTITION, &part(0, &[(0, click(25 * HOUR_MS, false)), (1, click(26 * HOUR_MS, false))]), 1);
        let spans: Vec<(Span, u64)> = model.rows().iter().map(|(key, row)| (key.span, row.clicks)).collect();
        assert_eq!(spans, [(Span::All, 2), (Span::Day(1), 2), (Span::Hour(25), 1), (Span::Hour(26), 1)]);
        assert_eq!(row(&model, Span::Day(1)).visitors.as_ref().unwrap().count(), 1);
        assert_eq!(row(&model, Span::Hour(25)).visitors, None);
        assert_eq!(row(&model, Span::All).visitors, None);
        assert_eq!(row(&model, Span::All).newest().len(), 2);
        assert_eq!(row(&model, Span::Day(1)).newest().len(), 0);
        assert_eq!(row(&model, Span::Hour(25)).values(Dimension::Country).largest_first(), [("DE", 1)]);
        assert_eq!(row(&model, Span::Hour(25)).values(Dimension::Language).largest_first(), []);
    }

    #[test]
    fn programs_are_counted_apart() {
        let mut model = ClickModel::default();
        model.deliver(PARTITION, &part(0, &[(0, click(5, true))]), 1);
        let all = row(&model, Span::All);
        assert_eq!((all.clicks, all.bots, all.values(Dimension::Browser).total()), (0, 1, 0));
        assert!(all.newest()[0].bot);
        assert_eq!(row(&model, Span::Day(0)).visitors, None);
    }
}
