//! Where reading a partition begins, and what the messages are that come then.

use std::hash::Hasher;

use lapin::types::AMQPValue;
use siphasher::sip128::{Hasher128, SipHasher13};

use crate::part::HEAD_BYTES;

/// Where reading a partition begins when it is attached next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// At its beginning.
    First,
    /// At the offset of a checkpoint, whose message the projector knows.
    Checkpoint(u64),
    /// Behind the message that was delivered last, which has to be there still.
    Behind { offset: u64, print: u128 },
}

/// What a message is to its partition.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    Next,
    Known,
    Gap,
}

impl Begin {
    pub(super) fn argument(self) -> AMQPValue {
        match self {
            Self::First => AMQPValue::LongString("first".into()),
            Self::Checkpoint(offset) | Self::Behind { offset, .. } => offset_argument(offset),
        }
    }

    /// What a message is that comes while `anchoring`.
    pub(super) fn place(self, anchoring: bool, at: u64, bytes: &[u8]) -> Place {
        match self {
            Self::Behind { offset, .. } if at < offset => Place::Known,
            Self::Behind { offset, print } if at == offset => {
                if anchoring && print != print_of(bytes) {
                    Place::Gap
                } else {
                    Place::Known
                }
            }
            Self::Behind { .. } if anchoring => Place::Gap,
            _ => Place::Next,
        }
    }
}

/// Where a consumer is told to begin. No stream has more messages than that.
pub(in crate::rabbit) fn offset_argument(offset: u64) -> AMQPValue {
    AMQPValue::LongLongInt(i64::try_from(offset).unwrap_or(i64::MAX))
}

/// By what a message is known again: the head of a part names its block and its partition.
pub(super) fn print_of(bytes: &[u8]) -> u128 {
    let mut hasher = SipHasher13::new();
    hasher.write(&bytes[..bytes.len().min(HEAD_BYTES)]);
    hasher.write_usize(bytes.len());
    hasher.finish128().as_u128()
}
