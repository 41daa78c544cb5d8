//! One row in play, and the clicks that are counted in it.

use terse_core::Timestamp;
use terse_core::stats::{Extra, NEWEST_CLICKS, NewestClicks, Packer, Position, RowError, SeenClick, Span, Tallied};

use super::super::tally::ToldTable;
use super::{CELL_BYTES, Fresh, Slot, Source};

impl Slot {
    pub(super) fn empty(span: Span, used: u64) -> Self {
        Self { span, cell: None, included: None, touched: None, dirty: false, used }
    }

    /// What it takes besides [`ROW_BYTES`](super::ROW_BYTES).
    pub(super) fn weight(&self) -> usize {
        self.cell.as_ref().map_or(0, |cell| cell.bytes().len() + CELL_BYTES)
    }

    /// Counts those of `clicks` that belong to the row and that it doesn't include, which were tallied.
    pub(super) fn count(
        &mut self,
        clicks: &Clicks<'_>,
        included: Option<Position>,
        tallied: &Tallied<'_>,
        packer: &mut Packer,
    ) -> Result<(), RowError> {
        let before = self.cell.as_ref();
        let cell = match self.span {
            Span::Hour(_) => packer.count(before, tallied, Extra::Nothing),
            Span::Day(_) => {
                let people = clicks.of(self.span, included).filter(|click| !clicks.told.told(click.told).bot);
                packer.count(before, tallied, Extra::Visitors(&mut people.filter_map(|click| click.visitor)))
            }
            Span::All => {
                packer.count(before, tallied, Extra::Newest(&mut |newest| clicks.keep_newest(included, newest)))
            }
        };
        self.cell = Some(cell?);
        self.touched = clicks.of(self.span, included).last().and_then(|click| clicks.position(click));
        Ok(())
    }
}

/// The clicks of a code that are not in its rows yet, and what is known of them.
pub(super) struct Clicks<'c> {
    pub(super) all: &'c [Fresh],
    pub(super) sources: &'c [Source],
    pub(super) told: &'c ToldTable,
    pub(super) latest: Timestamp,
}

impl<'c> Clicks<'c> {
    /// Those that belong to the row of `span` and that it doesn't include.
    pub(super) fn of(&self, span: Span, included: Option<Position>) -> impl DoubleEndedIterator<Item = &'c Fresh> {
        let sources = self.sources;
        self.all.iter().filter(move |click| {
            let position = sources[click.source as usize].position;
            holds(span, click.hour) && (position.is_none() || position > included)
        })
    }

    pub(super) fn position(&self, click: &Fresh) -> Option<Position> {
        self.sources[click.source as usize].position
    }

    fn keep_newest(&self, included: Option<Position>, kept: &mut NewestClicks) {
        kept.drop_after(self.latest);
        let block = |click: &Fresh| self.sources[click.source as usize].block;
        let order = |click: &Fresh| (click.at, block(click), click.index);
        let is_new = |click: &&Fresh| click.at <= self.latest && kept.would_keep(click.at, block(click), click.index);
        let mut newest: Vec<&Fresh> = self.of(Span::All, included).filter(is_new).collect();
        newest.sort_unstable_by_key(|click| std::cmp::Reverse(order(click)));
        newest.dedup_by_key(|click| order(click));
        newest.truncate(NEWEST_CLICKS);
        let seen = |click: &Fresh| SeenClick {
            at: click.at,
            block: block(click),
            index: click.index,
            values: self.told.values(click.told),
            bot: self.told.told(click.told).bot,
        };
        kept.keep(newest.into_iter().map(seen).collect());
    }
}

/// Whether `span` holds all of this hour.
pub(super) fn holds(span: Span, hour: u32) -> bool {
    match span {
        Span::All => true,
        Span::Day(day) => hour / 24 == day,
        Span::Hour(own) => hour == own,
    }
}
