//! The rows that clicks make.

use std::collections::BTreeSet;

use terse_core::click::{BlockId, JournalId};
use terse_core::ports::clicks::{Batch, PackedRow};
use terse_core::stats::{Cell, Dimension, NEWEST_CLICKS, NewestClick, Position, Row, RowKey, Sketch, Span};
use terse_core::{ShortCode, Timestamp};

use super::scattered;

/// The day on which all is measured: 2026-12-31.
pub(crate) const LAST_DAY: u32 = 20_818;

/// How many names each dimension has, in the order of [`Dimension::ALL`].
const NAMES: [u64; 6] = [60, 50, 12, 10, 4, 30];

/// Pseudo-random numbers: SplitMix64.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, the smaller the likelier: density 1/x, as popularity goes.
    fn popular(&mut self, end: u64) -> u64 {
        let even = self.next() as f64 / u64::MAX as f64;
        ((end as f64 + 1.0).powf(even) - 1.0) as u64 % end
    }
}

/// Counts one click in `row`.
fn count(row: &mut Row, span: Span, numbers: &mut Numbers) {
    row.clicks += 1;
    let picked = NAMES.map(|names| numbers.popular(names));
    for (dimension, name) in Dimension::ALL.into_iter().zip(picked) {
        row.values_mut(dimension).add(&name_of(dimension, name), 1);
    }
    match span {
        Span::Day(_) => row.visitors.get_or_insert_default().add(numbers.next()),
        Span::All => {
            let block = BlockId { journal: JournalId([7; 16]), seq: row.clicks };
            let at = Timestamp::from_millis(i64::from(LAST_DAY) * 86_400_000 + row.clicks as i64);
            let values = std::array::from_fn(|place| name_of(Dimension::ALL[place], picked[place]).into());
            row.keep_newest(NewestClick::new(at, block, 3, values, false));
        }
        Span::Hour(_) => {}
    }
}

fn name_of(dimension: Dimension, number: u64) -> String {
    match dimension {
        Dimension::Referrer => format!("site{number}.example.com"),
        Dimension::Country | Dimension::Language => format!("{:02x}", number),
        _ => format!("Product {number}"),
    }
}

/// Codes that are clicked, and the rows of each.
pub(crate) struct Clicks {
    codes: Vec<ShortCode>,
    /// All time, the last day, its last hour.
    rows: Vec<[Row; 3]>,
    numbers: Numbers,
}

const fn spans_of(day: u32) -> [Span; 3] {
    [Span::All, Span::Day(day), Span::Hour(day * 24 + 23)]
}

impl Clicks {
    /// `count` codes with some clicks each, the first with the most.
    pub(crate) fn new(count: usize) -> Self {
        let codes = (0..count as u64).map(scattered).collect();
        let mut clicks = Self { codes, rows: vec![Default::default(); count], numbers: Numbers(1) };
        for place in 0..count {
            // As one would find them some seconds after midnight.
            for _ in 0..(count / (place + 1)).clamp(2, 300) {
                clicks.click(place);
            }
        }
        clicks
    }

    fn click(&mut self, place: usize) {
        for (row, span) in self.rows[place].iter_mut().zip(spans_of(LAST_DAY)) {
            count(row, span, &mut self.numbers);
        }
    }

    /// Counts one click more of each code.
    pub(crate) fn click_all(&mut self) {
        for place in 0..self.codes.len() {
            self.click(place);
        }
    }

    /// The rows of all codes as of `day`.
    pub(crate) fn all_rows(&self, day: u32) -> Batch {
        self.batch(0..self.codes.len(), day)
    }

    fn batch(&self, places: impl Iterator<Item = usize>, day: u32) -> Batch {
        let rows = places.flat_map(|place| {
            let rows = self.rows[place].iter().zip(spans_of(day));
            rows.map(move |(row, span)| {
                let key = RowKey { code: self.codes[place].clone(), span };
                (key, PackedRow { at: Position::default(), cell: Cell::of(row) })
            })
        });
        Batch { rows: rows.collect(), ..Batch::default() }
    }

    /// Counts `clicks` more; the rows that they changed.
    pub(crate) fn flush(&mut self, clicks: usize) -> Batch {
        let mut clicked = BTreeSet::new();
        for _ in 0..clicks {
            let place = self.numbers.popular(self.codes.len() as u64) as usize;
            self.click(place);
            clicked.insert(place);
        }
        self.batch(clicked.into_iter(), LAST_DAY)
    }
}

/// Some links of ten million clicks in a year, all alike.
pub(crate) struct Popular {
    codes: Vec<ShortCode>,
    rows: [Row; 3],
}

impl Popular {
    const LINKS: u64 = 8;

    pub(crate) fn new() -> Self {
        let mut numbers = Numbers(2);
        let rows = spans_of(LAST_DAY).map(|span| {
            let mut row = Row::default();
            // Enough to fill all that has a bound; the counts are raised to what the clicks of a year make.
            for _ in 0..20_000 {
                count(&mut row, span, &mut numbers);
            }
            row.clicks = match span {
                Span::All => 10_000_000,
                Span::Day(_) => 27_397,
                Span::Hour(_) => 1_141,
            };
            row
        });
        debug_assert_eq!(rows[0].newest().len(), NEWEST_CLICKS);
        debug_assert!(rows[1].visitors.as_ref().map_or(0, Sketch::count) > 10_000);
        Self { codes: (0..Self::LINKS).map(|number| scattered(1 << 40 | number)).collect(), rows }
    }

    pub(crate) fn code(&self, turn: u64) -> &ShortCode {
        &self.codes[(turn % Self::LINKS) as usize]
    }

    fn stored(&self, kind: usize, code: &ShortCode, span: Span) -> (RowKey, PackedRow) {
        let key = RowKey { code: code.clone(), span };
        (key, PackedRow { at: Position::default(), cell: Cell::of(&self.rows[kind]) })
    }

    /// The rows of `day` and its hours.
    pub(crate) fn day(&self, day: u32) -> Batch {
        let mut rows = Vec::new();
        for code in &self.codes {
            rows.push(self.stored(1, code, Span::Day(day)));
            rows.extend((0..24).map(|hour| self.stored(2, code, Span::Hour(day * 24 + hour))));
        }
        Batch { rows, ..Batch::default() }
    }

    /// The rows of all time.
    pub(crate) fn all(&self) -> Batch {
        let rows = self.codes.iter().map(|code| self.stored(0, code, Span::All));
        Batch { rows: rows.collect(), ..Batch::default() }
    }
}
