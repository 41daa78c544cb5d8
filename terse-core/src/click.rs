//! A click: what a redirect notes of the request that it answered.
//!
//! [`Click`] is what the web worker sees, borrowed for the moment in which a
//! [`ClickRecorder`] writes it down. The client's address never gets further
//! than that: the record holds its network, and a visitor hash under a key that
//! lives two days.
//!
//! A click is named for ever by where it was written: journal, block, index.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{Timestamp, Version};

/// Names a journal: 128 random bits, made at each start of a process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JournalId(pub [u8; 16]);

impl JournalId {
    /// Reads what `Display` writes: 32 lower-case hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let canonical = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        canonical.then(|| u128::from_str_radix(text, 16).ok().map(|id| Self(id.to_be_bytes()))).flatten()
    }
}

impl fmt::Display for JournalId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for JournalId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// Names a block of clicks. It is also what traces a redirect to the row that counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BlockId {
    /// The journal that it belongs to.
    pub journal: JournalId,
    /// Which of the journal's blocks it is, from 0, in the order of their first records.
    pub seq: u64,
}

impl fmt::Display for BlockId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.journal, self.seq)
    }
}

/// What the client said about being watched, and about why it asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signals {
    /// `DNT: 1`.
    pub do_not_track: bool,
    /// `Sec-GPC: 1`.
    pub global_privacy_control: bool,
    /// `Sec-Purpose` or `Purpose` says prefetch, preview or prerender.
    pub prefetch: bool,
}

/// A redirect that is about to be answered, as its web worker sees it. Texts are as the client sent them, of any length.
#[derive(Clone, Copy, Debug)]
pub struct Click<'a> {
    /// When, by the server's clock.
    pub at: Timestamp,
    /// The link's code.
    pub code: &'a str,
    /// The version of the link whose target was told.
    pub version: Version,
    /// Who asked, as far as known.
    pub client: Option<IpAddr>,
    /// `Referer`; empty without one.
    pub referrer: &'a [u8],
    /// `User-Agent`; empty without one.
    pub user_agent: &'a [u8],
    /// `Accept-Language`; empty without one.
    pub language: &'a [u8],
    /// What else the client said.
    pub signals: Signals,
}

/// Why a click was not recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dropped {
    /// The journal has used up its disk budget.
    Budget,
    /// No prepared block was there in time.
    NoBlock,
    /// The disk failed.
    Fault,
}

impl Dropped {
    /// All reasons, in the order of the metric's label values.
    pub const ALL: [Self; 3] = [Self::Budget, Self::NoBlock, Self::Fault];

    /// The label value in the metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Budget => "budget",
            Self::NoBlock => "no_block",
            Self::Fault => "fault",
        }
    }
}

/// Writes down the clicks of one web worker. It is made on, and stays on, that worker's thread.
pub trait ClickRecorder {
    /// Writes `click` down, so that it survives the end of the process. Called
    /// before the answer leaves. It allocates nothing, calls nothing of the
    /// system, and waits for nothing.
    ///
    /// # Errors
    /// Why the click was dropped; it is counted already, and the redirect is unharmed.
    fn record(&mut self, click: &Click<'_>) -> Result<(), Dropped>;

    /// Seals the open block if it is old at `now_ms` (monotonic). The worker
    /// calls it every [`SEAL_CHECK_MS`], and drops the recorder when it ends,
    /// which seals whatever is open.
    fn seal_if_old(&mut self, now_ms: u64);
}

/// How often a web worker looks whether its block is old, in milliseconds.
pub const SEAL_CHECK_MS: u64 = 50;

/// Makes recorders.
pub trait ClickRecording: Send + Sync + 'static {
    /// A recorder for the calling thread.
    fn of_a_worker(&self) -> Box<dyn ClickRecorder>;
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_journal_has_one_name() {
        let id = JournalId([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff]);
        let name = "00010203040506070809aabbccddeeff";
        assert_eq!(id.to_string(), name);
        assert_eq!(format!("{id:?}"), name);
        assert_eq!(JournalId::parse(name), Some(id));
        assert_eq!(BlockId { journal: id, seq: 42 }.to_string(), format!("{name}/42"));
        for other in ["", "0", &name[1..], &format!("0{name}"), &name.to_uppercase(), &name.replace("00", "+0")] {
            assert_eq!(JournalId::parse(other), None, "{other}");
        }
    }

    #[test]
    fn blocks_are_ordered_by_journal_then_sequence() {
        let block = |journal: u8, seq| BlockId { journal: JournalId([journal; 16]), seq };
        assert!([block(1, 0), block(1, 1), block(1, 256), block(2, 0)].is_sorted());
    }

    #[test]
    fn reasons_of_drops_have_different_names() {
        let names: HashSet<_> = Dropped::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(names.len(), Dropped::ALL.len());
        assert!(names.iter().all(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
    }

    proptest! {
        #[test]
        fn a_journals_name_is_read_back(bytes: [u8; 16]) {
            prop_assert_eq!(JournalId::parse(&JournalId(bytes).to_string()), Some(JournalId(bytes)));
        }

        #[test]
        fn any_text_is_a_name_or_refused(text in ".{0,40}|[0-9a-g]{32}") {
            if let Some(id) = JournalId::parse(&text) {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
