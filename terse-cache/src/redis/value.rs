//! A link as bytes in Redis.
//!
//! ```text
//! 0   version of the link     8 bytes, most significant first
//! 8   format                  1 byte: 1
//! 9   good until              8 bytes, ms since the epoch, by the writer's clock
//! 17  state                   1 byte: 0 active, 1 disabled, 2 blocked, 3 deleted
//! 18  what is there           1 byte: bit 0 `expires_at`, bit 1 `valid_from`
//! 19  these times             8 bytes each, in this order
//! …   target                  the rest
//! ```
//!
//! **The first nine bytes mean the same in every format**, so that a script in
//! Redis can tell which of two values is newer whoever wrote them: builds of two
//! releases share a Redis while one replaces the other.
//!
//! Versions are 1 to 2^63 − 1, as everywhere. Each link has exactly one form, and what has another is no value: nothing
//! that was not written here is served.
//!
//! Why a value says until when it is good, when Redis expires it as well: Redis
//! counts from when it *runs* the command. A paused Redis may run it an hour
//! after it was sent, and one whose clock steps back keeps it longer; neither
//! may bring back a link whose change has been forgotten meanwhile.

use terse_core::{LinkState, Resolution, TargetUrl, Timestamp, Version};

use crate::shared::EVERY_VERSION_IS_OLDER;

/// The format that this build writes.
pub(super) const FORMAT: u8 = 1;
/// Bytes before the times.
const FIXED_BYTES: usize = 19;
const HAS_EXPIRES_AT: u8 = 1;
const HAS_VALID_FROM: u8 = 2;
/// The longest value of this format. Of a longer one no more than its beginning is read.
pub(super) const MAX_BYTES: usize = FIXED_BYTES + 2 * 8 + TargetUrl::MAX_LEN;

/// The states in the order of their numbers.
const STATES: [LinkState; 4] = [LinkState::Active, LinkState::Disabled, LinkState::Blocked, LinkState::Deleted];

/// A link and until when it may be taken from Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) link: Resolution,
    /// By the writer's clock.
    pub(super) good_until: Timestamp,
}

/// Why bytes are no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// A later build wrote them. They are left alone.
    Later,
    /// Nobody who reads this format can use them.
    Broken,
}

/// What a value of `version` begins with.
pub(super) fn version_bytes(version: Version) -> [u8; 8] {
    version.0.to_be_bytes()
}

/// `link` as a value.
pub(super) fn encode(link: &Resolution, good_until: Timestamp) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(FIXED_BYTES + 2 * 8 + link.target.as_bytes().len());
    bytes.extend_from_slice(&version_bytes(link.version));
    bytes.push(FORMAT);
    bytes.extend_from_slice(&good_until.as_millis().to_be_bytes());
    bytes.push(state_number(link.state));
    let flag = |there: bool, flag: u8| if there { flag } else { 0 };
    bytes.push(flag(link.expires_at.is_some(), HAS_EXPIRES_AT) | flag(link.valid_from.is_some(), HAS_VALID_FROM));
    for time in [link.expires_at, link.valid_from].into_iter().flatten() {
        bytes.extend_from_slice(&time.as_millis().to_be_bytes());
    }
    bytes.extend_from_slice(link.target.as_bytes());
    bytes
}

/// What `bytes` hold. Never panics, whatever they are.
///
/// # Errors
/// [`Unreadable`].
pub(super) fn decode(bytes: &[u8]) -> Result<Value, Unreadable> {
    let (version, rest) = bytes.split_first_chunk().ok_or(Unreadable::Broken)?;
    let (format, rest) = rest.split_first().ok_or(Unreadable::Broken)?;
    match *format {
        FORMAT => decode_body(link_version(*version).ok_or(Unreadable::Broken)?, rest).ok_or(Unreadable::Broken),
        0 => Err(Unreadable::Broken),
        _ => Err(Unreadable::Later),
    }
}

/// The version that `bytes` are, if a link can have it. One above would undo every edit to come.
fn link_version(bytes: [u8; 8]) -> Option<Version> {
    let version = Version(u64::from_be_bytes(bytes));
    (Version::FIRST..=EVERY_VERSION_IS_OLDER).contains(&version).then_some(version)
}

fn decode_body(version: Version, mut rest: &[u8]) -> Option<Value> {
    let good_until = take_time(&mut rest)?;
    let (&[state, flags], mut rest) = rest.split_first_chunk()?;
    let state = *STATES.get(usize::from(state))?;
    if flags & !(HAS_EXPIRES_AT | HAS_VALID_FROM) != 0 {
        return None;
    }
    let expires_at = if flags & HAS_EXPIRES_AT == 0 { None } else { Some(take_time(&mut rest)?) };
    let valid_from = if flags & HAS_VALID_FROM == 0 { None } else { Some(take_time(&mut rest)?) };
    let target = std::str::from_utf8(rest).ok().filter(|text| !text.is_empty())?;
    let target = TargetUrl::from_stored(target)?;
    Some(Value { link: Resolution { target, state, expires_at, valid_from, version }, good_until })
}

fn take_time(rest: &mut &[u8]) -> Option<Timestamp> {
    let (bytes, after) = rest.split_first_chunk()?;
    *rest = after;
    let ms = i64::from_be_bytes(*bytes);
    // A time that would be clamped was not written here.
    Some(Timestamp::from_millis(ms)).filter(|time| time.as_millis() == ms)
}

/// Frozen, as the values of older builds hold it.
fn state_number(state: LinkState) -> u8 {
    match state {
        LinkState::Active => 0,
        LinkState::Disabled => 1,
        LinkState::Blocked => 2,
        LinkState::Deleted => 3,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use terse_testkit::links;

    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    fn full() -> (Resolution, Timestamp) {
        let times = (Some(at(0x0102_0304)), Some(at(0x0506)));
        let state = LinkState::Blocked;
        (Resolution { state, expires_at: times.0, valid_from: times.1, ..links::resolution("abc", 0x0a0b) }, at(0x77))
    }

    /// Frozen: builds of two releases share a Redis.
    #[test]
    fn a_value_has_the_documented_bytes() {
        let (link, until) = full();
        let mut expected = vec![0, 0, 0, 0, 0, 0, 0x0a, 0x0b, 1, 0, 0, 0, 0, 0, 0, 0, 0x77, 2, 3];
        expected.extend_from_slice(&[0, 0, 0, 0, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 5, 6]);
        expected.extend_from_slice(b"https://example.com/abc");
        assert_eq!(encode(&link, until), expected);
        assert_eq!(decode(&expected), Ok(Value { link, good_until: until }));
    }

    #[test]
    fn states_have_their_numbers() {
        for (number, state) in STATES.into_iter().enumerate() {
            assert_eq!(usize::from(state_number(state)), number);
        }
    }

    #[test]
    fn a_value_that_was_cut_is_broken() {
        let (link, until) = full();
        let bytes = encode(&link, until);
        let target_from = FIXED_BYTES + 16;
        for cut in 0..=target_from {
            assert_eq!(decode(&bytes[..cut]), Err(Unreadable::Broken), "{cut} bytes");
        }
    }

    #[test]
    fn a_later_format_is_told_from_a_broken_value() {
        let (link, until) = full();
        let mut bytes = encode(&link, until);
        for format in [2, 3, 255] {
            bytes[8] = format;
            assert_eq!(decode(&bytes), Err(Unreadable::Later));
            assert_eq!(decode(&bytes[..9]), Err(Unreadable::Later), "whatever follows");
        }
        bytes[8] = 0;
        assert_eq!(decode(&bytes), Err(Unreadable::Broken));
    }

    #[test]
    fn what_was_not_written_here_is_broken() {
        let (link, until) = full();
        let good = encode(&link, until);
        let broken = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = good.clone();
            change(&mut bytes);
            assert_eq!(decode(&bytes), Err(Unreadable::Broken), "{bytes:?}");
        };
        broken(&|bytes| bytes[..8].fill(0)); // no version is 0
        broken(&|bytes| bytes[0] = 0x80); // nor so high
        broken(&|bytes| bytes[..8].fill(0xff));
        broken(&|bytes| bytes[9] = 0x80); // a time before 1970
        broken(&|bytes| bytes[9] = 0x7f); // a time after 9999
        broken(&|bytes| bytes[19] = 0xff);
        broken(&|bytes| bytes[17] = 4); // no such state
        broken(&|bytes| bytes[18] = 4); // no such flag
        broken(&|bytes| bytes.push(b' ')); // no target has a space
        broken(&|bytes| bytes.push(0xff)); // nor what is no text
        broken(&|bytes| bytes.extend_from_slice("\u{e4}".as_bytes()));
        broken(&|bytes| bytes.extend_from_slice(&b"x".repeat(TargetUrl::MAX_LEN)));
    }

    #[test]
    fn the_longest_link_fits() {
        let target = links::target(&format!("https://example.com/{}", "x".repeat(TargetUrl::MAX_LEN - 20)));
        let link = Resolution { target, ..full().0 };
        let bytes = encode(&link, at(1));
        assert_eq!(bytes.len(), MAX_BYTES);
        assert_eq!(decode(&bytes).unwrap().link, link);
    }

    fn any_time() -> impl Strategy<Value = Timestamp> {
        prop_oneof![any::<i64>(), 0..4_000_000_000_000_i64].prop_map(at)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

        #[test]
        fn every_link_comes_back(
            version in 1..=EVERY_VERSION_IS_OLDER.0, state in 0_usize..4, text in "https://[!-~]{1,300}",
            expires_at in proptest::option::of(any_time()), valid_from in proptest::option::of(any_time()),
            good_until in any_time(),
        ) {
            let (target, state) = (links::target(&text), STATES[state]);
            let link = Resolution { target, state, expires_at, valid_from, version: Version(version) };
            let bytes = encode(&link, good_until);
            prop_assert!(bytes.len() <= MAX_BYTES);
            prop_assert_eq!(&bytes[..8], &version_bytes(link.version));
            prop_assert_eq!(decode(&bytes), Ok(Value { link, good_until }));
        }

        #[test]
        fn hostile_bytes_are_refused_or_are_the_one_form_of_what_they_hold(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..80), sound in any::<bool>(),
        ) {
            if sound && bytes.len() > FIXED_BYTES {
                // Far enough in to be worth trying: header, times and state as they should be.
                bytes[8] = FORMAT;
                bytes[9..12].fill(0);
                bytes[17] %= 5;
                bytes[18] %= 5;
            }
            if let Ok(value) = decode(&bytes) {
                prop_assert_eq!(encode(&value.link, value.good_until), bytes);
            }
        }

        #[test]
        fn a_flipped_bit_never_panics(at in 0_usize..58, bit in 0_u8..8) {
            let (link, until) = full();
            let mut bytes = encode(&link, until);
            bytes[at] ^= 1 << bit;
            if let Ok(value) = decode(&bytes) {
                prop_assert_eq!(encode(&value.link, value.good_until), bytes);
            }
        }
    }
}
