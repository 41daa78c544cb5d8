//! A read model in memory, which tests fill by hand and break.

use std::collections::BTreeMap;

use async_trait::async_trait;
use parking_lot::Mutex;
use terse_core::click::{BlockId, JournalId};
use terse_core::ports::clicks::ClickStats;
use terse_core::ports::{StoreError, StoreErrorKind};
use terse_core::stats::{Dimension, NewestClick, Row, RowKey, Span};
use terse_core::{ShortCode, Timestamp};

/// What was counted.
#[derive(Default)]
pub(crate) struct Counts(Mutex<Held>);

#[derive(Default)]
struct Held {
    rows: BTreeMap<RowKey, Row>,
    as_of: Option<Timestamp>,
    clicks: u32,
    fault: Option<StoreErrorKind>,
    asked: usize,
}

/// A click before it is counted: what it was like, in the order of [`Dimension::ALL`].
#[derive(Clone, Copy)]
pub(crate) struct Seen<'a> {
    pub(crate) at: &'a str,
    pub(crate) visitor: u64,
    pub(crate) bot: bool,
    pub(crate) values: [&'a str; 6],
}

impl Counts {
    /// Counts a click of `code`, as the projector does.
    pub(crate) fn count(&self, code: &str, seen: Seen<'_>) {
        let code = ShortCode::parse(code).unwrap();
        let at = Timestamp::parse(seen.at).unwrap();
        let mut held = self.0.lock();
        held.clicks += 1;
        let index = held.clicks;
        for span in [Span::All, Span::day_of(at), Span::hour_of(at)] {
            let row = held.rows.entry(RowKey { code: code.clone(), span }).or_default();
            if span == Span::All {
                let block = BlockId { journal: JournalId([1; 16]), seq: 0 };
                row.keep_newest(NewestClick::new(at, block, index, seen.values.map(Into::into), seen.bot));
            }
            if seen.bot {
                row.bots += 1;
                continue;
            }
            row.clicks += 1;
            for dimension in Dimension::ALL {
                row.values_mut(dimension).add(seen.values[dimension as usize], 1);
            }
            if matches!(span, Span::Day(_)) {
                row.visitors.get_or_insert_default().add(seen.visitor << 32);
            }
        }
        held.as_of = held.as_of.max(Some(at));
    }

    /// Lets every question fail with `kind`.
    pub(crate) fn fail(&self, kind: StoreErrorKind) {
        self.0.lock().fault = Some(kind);
    }

    /// How often it was asked.
    pub(crate) fn asked(&self) -> usize {
        self.0.lock().asked
    }

    fn ask<T>(&self, answer: impl FnOnce(&Held) -> T) -> Result<T, StoreError> {
        let mut held = self.0.lock();
        held.asked += 1;
        match held.fault {
            Some(kind) => Err(StoreError::new(kind, "the read model fails on demand")),
            None => Ok(answer(&held)),
        }
    }
}

#[async_trait]
impl ClickStats for Counts {
    async fn overall(&self, code: &ShortCode) -> Result<Option<Row>, StoreError> {
        self.ask(|held| held.rows.get(&RowKey { code: code.clone(), span: Span::All }).cloned())
    }

    async fn spans(&self, code: &ShortCode, first: Span, last: Span) -> Result<Vec<(Span, Row)>, StoreError> {
        let key = |span| RowKey { code: code.clone(), span };
        self.ask(|held| held.rows.range(key(first)..=key(last)).map(|(key, row)| (key.span, row.clone())).collect())
    }

    async fn as_of(&self, _code: &ShortCode) -> Result<Option<Timestamp>, StoreError> {
        self.ask(|held| held.as_of)
    }
}
