//! What a record may keep of who clicked.
//!
//! A visitor is told from others for a day: by SipHash-1-3 (Aumasson, Bernstein 2012) of the address and a digest of the
//! user agent under the day's key. Who makes two agents with one digest makes one visitor of two at one address. Keys are random and destroyed after two days, and with a key goes every way to link a hash to an
//! address. The address itself is kept as its network only, and the referrer as its origin only: the read model counts
//! hosts, so no path or query of another site, which may hold secrets, is ever written. Who says `DNT: 1` or `Sec-GPC:
//! 1` is, where that is obeyed, kept neither as visitor nor as network.

use std::fmt;
use std::hash::Hasher;
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};
use siphasher::sip::SipHasher13;
use terse_core::Timestamp;
use terse_core::click::Click;
use terse_core::stats::Span;

use crate::record::texts::digest;
use crate::record::{MAX_REFERRER_BYTES, MAX_USER_AGENT_BYTES, Record, cut, network_of};

/// The key of a day, in UTC.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct DayKey {
    /// The number of the day since 1970-01-01.
    pub day: u32,
    /// The key.
    pub key: [u8; 16],
}

/// Keys are secrets.
impl fmt::Debug for DayKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "DayKey {{ day: {} }}", self.day)
    }
}

type Keys = [Option<DayKey>; 2];

/// The keys under which visitors are hashed, shared by all who record: today's, and tomorrow's in good time.
#[derive(Clone, Default)]
pub struct VisitorKeys {
    keys: Arc<ArcSwap<Keys>>,
}

impl VisitorKeys {
    /// No keys yet: clicks are recorded without visitors.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on these are the keys, and no others.
    pub fn set(&self, keys: [Option<DayKey>; 2]) {
        self.keys.store(Arc::new(keys));
    }
}

/// What is kept of clicks, for one worker.
pub(super) struct Discretion {
    keys: Cache<Arc<ArcSwap<Keys>>, Arc<Keys>>,
    obey_signals: bool,
}

impl Discretion {
    pub(super) fn new(keys: &VisitorKeys, obey_signals: bool) -> Self {
        Self { keys: Cache::new(Arc::clone(&keys.keys)), obey_signals }
    }

    /// What is kept of `click`, its texts within their bounds.
    pub(super) fn record_of<'a>(&mut self, click: &Click<'a>) -> Record<'a> {
        let signals = click.signals;
        let obeyed = self.obey_signals && (signals.do_not_track || signals.global_privacy_control);
        let client = if obeyed { None } else { click.client };
        Record {
            at: click.at,
            code: click.code,
            version: click.version,
            network: client.map(network_of),
            visitor: client.and_then(|client| self.visitor(click.at, client, click.user_agent)),
            referrer: origin_of(cut(click.referrer, MAX_REFERRER_BYTES)),
            user_agent: click.user_agent,
            language: click.language,
            signals,
        }
        .bounded()
    }

    fn visitor(&mut self, at: Timestamp, client: IpAddr, user_agent: &[u8]) -> Option<u64> {
        let day = Span::day_of(at);
        let key = self.keys.load().iter().flatten().find(|key| Span::Day(key.day) == day)?;
        let mut hasher = SipHasher13::new_with_key(&key.key);
        match client.to_canonical() {
            IpAddr::V4(v4) => hasher.write(&v4.to_ipv6_mapped().octets()),
            IpAddr::V6(v6) => hasher.write(&v6.octets()),
        }
        hasher.write_u64(digest(cut(user_agent, MAX_USER_AGENT_BYTES)));
        Some(hasher.finish())
    }
}

/// Schemes of referrers that the read model tells apart; of others nothing is kept.
const SCHEMES: [&[u8]; 3] = [b"https://", b"http://", b"android-app://"];

/// Scheme and authority of `referrer`, without path, query and fragment. Of one that names a user nothing is kept: a
/// browser never sends that, and a part from its middle can't be left out without copying.
fn origin_of(referrer: &[u8]) -> &[u8] {
    let starts = |scheme: &&&[u8]| referrer.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    // Browsers write them small, and that is sooner seen.
    let written = SCHEMES.iter().find(|scheme| referrer.starts_with(scheme));
    let Some(scheme) = written.or_else(|| SCHEMES.iter().find(starts)) else { return b"" };
    let rest = &referrer[scheme.len()..];
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#' | b'\\')).unwrap_or(rest.len());
    if rest[..end].contains(&b'@') { b"" } else { &referrer[..scheme.len() + end] }
}

#[cfg(test)]
mod tests {
    use terse_core::Version;
    use terse_core::click::Signals;

    use super::*;

    const DAY: u32 = 20_455;
    const DAY_MS: i64 = 86_400_000;

    fn click<'a>(client: &str, user_agent: &'a [u8]) -> Click<'a> {
        Click {
            at: Timestamp::from_millis(i64::from(DAY) * DAY_MS + 5),
            code: "abc",
            version: Version::FIRST,
            client: Some(client.parse().unwrap()),
            referrer: b"https://news.example/secret?token=1",
            user_agent,
            language: b"de",
            signals: Signals::default(),
        }
    }

    fn keyed(obey_signals: bool) -> (VisitorKeys, Discretion) {
        let keys = VisitorKeys::new();
        keys.set([Some(DayKey { day: DAY, key: [1; 16] }), Some(DayKey { day: DAY + 1, key: [2; 16] })]);
        let discretion = Discretion::new(&keys, obey_signals);
        (keys, discretion)
    }

    #[test]
    fn a_visitor_is_known_by_address_and_agent_for_a_day() {
        let (_keys, mut discretion) = keyed(true);
        let mut visitor = |click: Click<'_>| discretion.record_of(&click).visitor.unwrap();
        let first = visitor(click("203.0.113.7", b"Firefox"));
        assert_eq!(first, visitor(click("203.0.113.7", b"Firefox")));
        assert_eq!(first, visitor(click("::ffff:203.0.113.7", b"Firefox")), "the same address");
        assert_ne!(first, visitor(click("203.0.113.8", b"Firefox")));
        assert_ne!(first, visitor(click("203.0.113.7", b"Chrome")));
        let later = click("203.0.113.7", b"Firefox");
        assert_ne!(first, visitor(Click { at: later.at.plus_millis(DAY_MS), ..later }));
    }

    #[test]
    fn without_a_key_of_the_day_there_is_no_visitor() {
        let (keys, mut discretion) = keyed(true);
        let click = click("203.0.113.7", b"Firefox");
        for at in [click.at.plus_millis(-DAY_MS), click.at.plus_millis(2 * DAY_MS)] {
            let record = discretion.record_of(&Click { at, ..click });
            assert_eq!((record.visitor, record.network), (None, Some("203.0.113.0".parse().unwrap())));
        }
        assert!(discretion.record_of(&click).visitor.is_some());
        keys.set([None, None]);
        assert_eq!(discretion.record_of(&click).visitor, None, "a destroyed key is used no more");
        assert_eq!(Discretion::new(&VisitorKeys::new(), true).record_of(&click).visitor, None);
    }

    #[test]
    fn who_does_not_want_to_be_watched_is_not() {
        let signals = [
            Signals { do_not_track: true, ..Signals::default() },
            Signals { global_privacy_control: true, ..Signals::default() },
        ];
        for signals in signals {
            let click = Click { signals, ..click("203.0.113.7", b"Firefox") };
            let record = keyed(true).1.record_of(&click);
            assert_eq!((record.network, record.visitor, record.signals), (None, None, signals));
            let ignored = keyed(false).1.record_of(&click);
            assert!(ignored.network.is_some() && ignored.visitor.is_some());
        }
    }

    #[test]
    fn of_a_referrer_only_the_origin_is_kept() {
        for (referrer, origin) in [
            ("", ""),
            ("https://news.example/secret?token=1", "https://news.example"),
            ("https://news.example?token=1", "https://news.example"),
            ("https://news.example:8443#token", "https://news.example:8443"),
            ("https://news.example\\token", "https://news.example"),
            ("android-app://com.example.app/", "android-app://com.example.app"),
            ("HTTP://News.example/secret", "HTTP://News.example"),
            ("https://user:password@news.example/", ""),
            ("https://news.example/@user", "https://news.example"),
            ("news.example/secret", ""),
            ("/secret", ""),
            ("?u=https://news.example/", ""),
            ("=HYPERLINK(1)", ""),
            ("token=eyJhbGciOiJIUzI1NiJ9", ""),
            ("mailto:someone@mail.example", ""),
            ("data:text;base64,c2VjcmV0", ""),
            ("ftp://files.example/", ""),
            ("https:/", ""),
            ("https://", "https://"),
        ] {
            assert_eq!(origin_of(referrer.as_bytes()), origin.as_bytes(), "{referrer}");
        }
        assert_eq!(origin_of(&[0xff; 10_240]), b"");
        assert_eq!(origin_of(b"https://\xff\xfe/x"), b"https://\xff\xfe");
    }

    #[test]
    fn hostile_texts_are_cut() {
        let hostile = [0xff; 10_240];
        let record = keyed(true).1.record_of(&Click {
            referrer: &hostile,
            language: &hostile,
            ..click("2001:db8:1:2::3", &hostile)
        });
        assert_eq!(record, record.bounded());
        assert_eq!(record.network, Some("2001:db8:1::".parse().unwrap()));
    }

    #[test]
    fn a_key_is_not_printed() {
        assert_eq!(format!("{:?}", DayKey { day: 3, key: [9; 16] }), "DayKey { day: 3 }");
    }
}
