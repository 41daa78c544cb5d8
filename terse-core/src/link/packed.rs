//! A [`Resolution`] as caches in memory keep it: in one block, of which every
//! answer takes a share without copying or allocating.
//!
//! ```text
//! target       as it goes out
//! expires_at   6 bytes, if there is one: ms since the epoch
//! valid_from   6 bytes, if there is one
//! version      0 to 8 bytes: how far above the first
//! tag          bits 0-1 state, 2 `expires_at`, 3 `valid_from`, 4-7 bytes of the version
//! ```
//!
//! Numbers have their least significant byte first. All but the target comes
//! after it, so that the target is the same bytes cut short; for a link that was
//! never edited and has no times that is a single byte.
//!
//! The block holds its own count of shares, and has one of [few sizes](BLOCKS), which
//! are those that mimalloc hands out: nothing is lost to its rounding, and another
//! allocator's can't be worse than the next of these sizes. Above the largest,
//! content and count are two blocks.

use std::fmt;

use bytes::Bytes;

use super::{LinkState, Resolution, Version};
use crate::{TargetUrl, Timestamp};

/// Bytes of a block before its content: the count of shares.
const COUNT_BYTES: usize = 8;
/// Bytes of a block that holds the count and where the content is.
const REMOTE_BYTES: usize = 32;
const TIME_BYTES: usize = 6;
/// Two times, a version, the tag.
const MOST_AFTER_TARGET: usize = 2 * TIME_BYTES + 8 + 1;

const STATES: [LinkState; 4] = [LinkState::Active, LinkState::Disabled, LinkState::Blocked, LinkState::Deleted];
const STATE_BITS: u8 = 0b11;
const HAS_EXPIRES_AT: u8 = 1 << 2;
const HAS_VALID_FROM: u8 = 1 << 3;
const VERSION_SHIFT: u32 = 4;

/// A [`Resolution`] in one block of memory. Cloning it counts a share and copies 32 bytes.
#[derive(Clone)]
pub struct PackedResolution(Bytes);

impl PackedResolution {
    /// Packs `link`, which allocates.
    #[must_use]
    pub fn of(link: &Resolution) -> Self {
        let (mut after, mut length) = ([0; MOST_AFTER_TARGET], 0);
        let mut append = |number: u64, bytes: usize| {
            after[length..length + bytes].copy_from_slice(&number.to_le_bytes()[..bytes]);
            length += bytes;
        };
        let mut tag = link.state as u8;
        for (time, flag) in [(link.expires_at, HAS_EXPIRES_AT), (link.valid_from, HAS_VALID_FROM)] {
            if let Some(time) = time {
                append(time.as_millis().cast_unsigned(), TIME_BYTES);
                tag |= flag;
            }
        }
        // The version zero, which no link has, comes back by wrapping around.
        let edits = link.version.0.wrapping_sub(Version::FIRST.0);
        let bytes = (u64::BITS - edits.leading_zeros()).div_ceil(8);
        append(edits, bytes as usize);
        append(u64::from(tag | (bytes as u8) << VERSION_SHIFT), 1);
        Self(block(link.target.as_bytes(), &after[..length]))
    }

    /// What was packed; its target is a share of this. Allocates nothing.
    #[must_use]
    pub fn into_resolution(self) -> Resolution {
        let (tag, mut rest) = self.split_tag();
        let state = STATES[usize::from(tag & STATE_BITS)];
        let version = take_version(tag, &mut rest);
        let mut take_time = |flag| (tag & flag != 0).then(|| take_time(&mut rest));
        let (valid_from, expires_at) = (take_time(HAS_VALID_FROM), take_time(HAS_EXPIRES_AT));
        let target_bytes = rest.len();
        let mut bytes = self.0;
        bytes.truncate(target_bytes);
        Resolution { target: TargetUrl::from_share(bytes), state, expires_at, valid_from, version }
    }

    /// How often the link was written.
    #[must_use]
    pub fn version(&self) -> Version {
        let (tag, mut rest) = self.split_tag();
        take_version(tag, &mut rest)
    }

    /// What this takes of the heap, in bytes, shares or not.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        let whole = COUNT_BYTES + self.0.len();
        BLOCKS.into_iter().find(|block| whole <= *block).unwrap_or(REMOTE_BYTES + self.0.len())
    }

    fn split_tag(&self) -> (u8, &[u8]) {
        match &*self.0 {
            [rest @ .., tag] => (*tag, rest),
            // It was packed with a tag.
            [] => (0, &[]),
        }
    }
}

impl fmt::Debug for PackedResolution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.clone().into_resolution().fmt(f)
    }
}

/// Takes the last `bytes` of `rest` as a number.
fn take(rest: &mut &[u8], bytes: usize) -> u64 {
    let (before, number) = rest.split_at(rest.len() - bytes);
    *rest = before;
    number.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn take_version(tag: u8, rest: &mut &[u8]) -> Version {
    Version(Version::FIRST.0.wrapping_add(take(rest, usize::from(tag >> VERSION_SHIFT))))
}

fn take_time(rest: &mut &[u8]) -> Timestamp {
    Timestamp::from_millis(take(rest, TIME_BYTES).cast_signed())
}

/// Defines [`BLOCKS`], and [`block`] that chooses the least that fits.
macro_rules! blocks {
    ($count:literal: $($size:literal)*) => {
        /// What blocks there are, in bytes with the count.
        const BLOCKS: [usize; $count] = [$($size),*];

        /// A block of `target` and what comes `after` it.
        fn block(target: &[u8], after: &[u8]) -> Bytes {
            let whole = COUNT_BYTES + target.len() + after.len();
            $(if whole <= $size {
                return in_one::<{ $size - COUNT_BYTES }>(target, after);
            })*
            Bytes::from_owner([target, after].concat().into_boxed_slice())
        }
    };
}

blocks!(19: 32 48 64 80 96 112 128 160 192 224 256 320 384 448 512 640 768 896 1024);

/// Count and content in one allocation.
fn in_one<const ROOM: usize>(target: &[u8], after: &[u8]) -> Bytes {
    let (mut room, length) = ([0; ROOM], target.len() + after.len());
    room[..target.len()].copy_from_slice(target);
    room[target.len()..length].copy_from_slice(after);
    let mut bytes = Bytes::from_owner(room);
    bytes.truncate(length);
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    fn link(length: usize) -> Resolution {
        let target = TargetUrl::from_stored(&"x".repeat(length)).unwrap();
        Resolution { target, state: LinkState::Active, expires_at: None, valid_from: None, version: Version::FIRST }
    }

    #[test]
    fn a_link_of_any_length_comes_back() {
        for length in (0..1_100).chain([TargetUrl::MAX_LEN]) {
            let packed = PackedResolution::of(&link(length));
            assert_eq!(packed.version(), Version::FIRST);
            assert_eq!(packed.into_resolution(), link(length));
        }
    }

    #[test]
    fn states_keep_their_numbers() {
        for (number, state) in STATES.into_iter().enumerate() {
            assert_eq!(state as usize, number);
        }
    }

    #[test]
    fn a_link_without_edits_and_times_takes_one_byte_beside_its_target() {
        assert_eq!(PackedResolution::of(&link(85)).0.len(), 86);
        let edited = Resolution { version: Version(257), ..link(85) };
        assert_eq!(PackedResolution::of(&edited).0.len(), 88);
        let timed = Resolution { expires_at: Some(at(1)), ..link(85) };
        assert_eq!(PackedResolution::of(&timed).0.len(), 92);
    }

    #[test]
    fn the_last_time_fits() {
        let last = at(i64::MAX);
        let timed = Resolution { expires_at: Some(last), valid_from: Some(at(0)), ..link(5) };
        assert_eq!(PackedResolution::of(&timed).into_resolution(), timed);
        assert!(last.as_millis() < 1 << (8 * TIME_BYTES));
    }

    #[test]
    fn a_block_is_the_least_that_fits() {
        let heap = |length| PackedResolution::of(&link(length)).heap_bytes();
        assert_eq!([heap(39), heap(40), heap(87), heap(88)], [48, 64, 96, 112]);
        assert_eq!([heap(1_015), heap(1_016)], [1_024, 32 + 1_017]);
        assert!(BLOCKS.is_sorted());
    }

    #[test]
    fn shares_are_of_one_block() {
        let packed = PackedResolution::of(&link(85));
        let (one, other) = (packed.clone().into_resolution(), packed.into_resolution());
        assert_eq!(one.target.as_bytes().as_ptr(), other.target.as_bytes().as_ptr());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

        #[test]
        fn every_link_comes_back(
            version in any::<u64>(), bits in 0_u32..64, state in 0_usize..4, text in "https://[!-~]{1,300}",
            expires_at in proptest::option::of(any::<i64>()), valid_from in proptest::option::of(any::<i64>()),
        ) {
            let link = Resolution {
                target: TargetUrl::from_stored(&text).unwrap(),
                state: STATES[state],
                expires_at: expires_at.map(at),
                valid_from: valid_from.map(at),
                version: Version(version >> bits),
            };
            let packed = PackedResolution::of(&link);
            prop_assert_eq!(packed.version(), link.version);
            prop_assert_eq!(packed.into_resolution(), link);
        }
    }
}
