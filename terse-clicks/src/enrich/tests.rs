//! Tests of the facts as a whole; each part has its own beside it.

use std::time::Instant;

use proptest::prelude::*;
use terse_core::click::Signals;
use terse_core::{Timestamp, Version};

use super::country::tests::mmdb;
use super::*;

const CHROME: &str =
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36";
const IPHONE: &str = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) \
                      Version/17.5 Mobile/15E148 Safari/604.1";

fn record<'a>(agent: &'a [u8], referrer: &'a [u8], language: &'a [u8]) -> Record<'a> {
    Record {
        at: Timestamp::from_millis(0),
        code: "abc",
        version: Version::FIRST,
        network: Some([192, 0, 2, 0].into()),
        visitor: None,
        referrer,
        user_agent: agent,
        language,
        signals: Signals::default(),
    }
}

fn countries() -> Arc<Countries> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("country.mmdb");
    std::fs::write(&path, mmdb(&[("192.0.2.0", 24, "DE"), ("2001:db8::", 48, "JP")], false)).unwrap();
    Arc::new(Countries::load(&path).unwrap())
}

fn enrichment() -> Enrichment {
    Enrichment::new(["terse.example"], Some(countries()))
}

fn told(facts: &Facts<'_>) -> String {
    let values = Dimension::ALL.map(|dimension| facts.value(dimension));
    format!("{} {:?}", values.join("|"), facts.program)
}

#[test]
fn a_click_is_told_in_all_its_dimensions() {
    let mut enrichment = enrichment();
    let facts = enrichment.facts(&record(CHROME.as_bytes(), b"https://www.Example.org/x?y", b"de-AT,en;q=0.5"));
    assert_eq!(told(&facts), "example.org|DE|Chrome|Windows|desktop|de None");
    assert!(!facts.bot);
    let facts = enrichment.facts(&record(IPHONE.as_bytes(), b"https://terse.example/", b""));
    assert_eq!(told(&facts), "|DE|Safari|iOS|mobile| None");
    let facts = enrichment.facts(&Record { network: None, ..record(b"Slackbot 1.0", b"", b"*") });
    assert_eq!(told(&facts), "||Slackbot||bot| Some(Preview)");
    assert!(facts.bot);
    let facts = enrichment.facts(&record(b"", b"", b""));
    assert_eq!(told(&facts), "|DE|||bot| Some(Unnamed)");
}

#[test]
fn a_prefetch_is_a_program_with_a_browser() {
    let signals = Signals { prefetch: true, ..Signals::default() };
    let mut enrichment = enrichment();
    let facts = enrichment.facts(&Record { signals, ..record(CHROME.as_bytes(), b"", b"de") });
    assert_eq!(told(&facts), "|DE|Chrome|Windows|desktop|de Some(Prefetch)");
    assert!(facts.bot);
    let facts = enrichment.facts(&record(CHROME.as_bytes(), b"", b"de"));
    assert!(!facts.bot, "the cache remembered a prefetch");
}

#[test]
fn countries_come_and_go_with_their_data() {
    let enrichment = Enrichment::new([], None);
    let click = record(CHROME.as_bytes(), b"", b"");
    let current = Arc::<CurrentCountries>::default();
    let mut enrichment = enrichment.following(Arc::clone(&current));
    assert_eq!(enrichment.version(), RULES << COUNTRY_BITS);
    assert_eq!(enrichment.facts(&click).value(Dimension::Country), "");
    current.replace(countries());
    assert_eq!(enrichment.version(), RULES << COUNTRY_BITS, "not in the middle of a block");
    enrichment.look_for_countries();
    assert_eq!(enrichment.version() >> COUNTRY_BITS, RULES);
    assert_ne!(enrichment.version(), RULES << COUNTRY_BITS);
    assert_eq!(enrichment.facts(&click).value(Dimension::Country), "DE");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.mmdb");
    std::fs::write(&path, mmdb(&[("192.0.2.0", 24, "FR")], true)).unwrap();
    let before = enrichment.version();
    current.replace(Arc::new(Countries::load(&path).unwrap()));
    let mut another = enrichment.another();
    for enrichment in [&mut enrichment, &mut another] {
        assert_eq!(enrichment.facts(&click).value(Dimension::Country), "DE");
        enrichment.look_for_countries();
        assert_eq!(enrichment.facts(&click).value(Dimension::Country), "FR", "the old data were remembered");
        assert_ne!(enrichment.version(), before);
    }
}

#[test]
fn hostile_texts_are_told_bounded() {
    let long = "A".repeat(10_000);
    let hostile: [&[u8]; 8] = [
        long.as_bytes(),
        b"\xff\xfe\x00\x80",
        b"<script>alert(1)</script>",
        b"https://<script>alert(1)</script>",
        b"=HYPERLINK(\"http://evil.example\",\"x\")",
        b"https://=cmd|' /C calc'!A0",
        "\u{202e}\u{0}\u{1F4A9}".as_bytes(),
        b"Mozilla/5.0 (Windows NT 10.0) Chrome/<b>\r\nX-Header: 1",
    ];
    let mut enrichment = enrichment();
    for agent in hostile {
        for referrer in hostile {
            for language in hostile {
                let facts = enrichment.facts(&record(agent, referrer, language));
                for dimension in Dimension::ALL {
                    let value = facts.value(dimension);
                    assert!(value.len() <= MAX_VALUE_BYTES && !value.contains(['<', '=', '\n', '\0', '"']), "{value}");
                }
            }
        }
    }
    assert!(enrichment.scratch.capacity() <= 4 * MAX_VALUE_BYTES);
}

#[test]
fn what_is_beyond_the_bounds_of_a_record_is_not_looked_at() {
    let mut enrichment = enrichment();
    let agent = format!("{CHROME}{}Googlebot/", " ".repeat(MAX_USER_AGENT_BYTES));
    let list = format!("{}de", " ,".repeat(MAX_LANGUAGE_BYTES));
    let facts = enrichment.facts(&record(agent.as_bytes(), b"", list.as_bytes()));
    assert_eq!(told(&facts), "|DE|Chrome|Windows|desktop| None");
}

/// Whoever changes what is told of any of these clicks changes the rules: replay would compare what can't be compared.
#[test]
fn these_facts_are_those_of_the_rules_in_force_else_raise_rules() {
    let agents = include_str!("agents.txt").lines().filter_map(|line| line.split_once('\t')).map(|(_, agent)| agent);
    let listed = include_str!("programs/patterns.txt").lines().filter_map(|line| line.rsplit_once('\t'));
    let others = ["", "-", "acmebot/1.0", "Acme", "okhttp/4.12", "Mozilla/5.0", "acme (+https://acme.example)"];
    let referrers =
        ["", "https://www.example.org:8080/x", "android-app://com.slack/", "ftp://x/", "https://münchen.example"];
    let languages = ["", "de-AT,de;q=0.9", "*,en;q=0.5", "q", "fr;q=0.1,it;q=0.2"];
    let mut enrichment = enrichment();
    let (mut sum, mut count) = (crc32fast::Hasher::new(), 0);
    for (number, agent) in agents.chain(listed.map(|(_, text)| text)).chain(others).enumerate() {
        let [referrer, language] = [referrers, languages].map(|texts| texts[number % 5].as_bytes());
        sum.update(told(&enrichment.facts(&record(agent.as_bytes(), referrer, language))).as_bytes());
        count += 1;
    }
    sum.update(agent::tables().as_bytes());
    sum.update(programs::signs().as_bytes());
    assert_eq!((RULES, count, sum.finalize()), (1, 1604, 0xb5fb_2143), "raise RULES, then freeze the new sum here");
}

#[test]
fn the_common_click_is_told_in_little_time() {
    const CLICKS: u32 = 20_000;
    let mut enrichment = enrichment();
    let click =
        record(CHROME.as_bytes(), b"https://www.example.org/a/path?with=a&query=too", b"de-AT,de;q=0.9,en;q=0.8");
    let start = Instant::now();
    let hosts: usize = (0..CLICKS).map(|_| enrichment.facts(&click).value(Dimension::Referrer).len()).sum();
    let each_ns = start.elapsed().as_nanos() / u128::from(CLICKS);
    assert_eq!(hosts, "example.org".len() * CLICKS as usize);
    // 300 ns are aimed at with optimisation; without it, on a busy machine, this finds what is wrong by its order.
    assert!(each_ns < 50_000, "{each_ns} ns a click");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn the_same_click_has_the_same_facts_whatever_came_before(
        clicks in prop::collection::vec(
            (prop::collection::vec(any::<u8>(), 0..40), ".{0,40}", "[a-z*,;=q0-9.-]{0,20}", any::<[u8; 4]>()), 1..40,
        ),
    ) {
        let told_of = |enrichment: &mut Enrichment, (agent, referrer, language, network): &(Vec<u8>, String, String, [u8; 4])| {
            let click = record(agent, referrer.as_bytes(), language.as_bytes());
            told(&enrichment.facts(&Record { network: Some((*network).into()), ..click }))
        };
        let mut one = enrichment();
        let forwards: Vec<_> = clicks.iter().map(|click| told_of(&mut one, click)).collect();
        let mut other = enrichment();
        let mut backwards: Vec<_> = clicks.iter().rev().map(|click| told_of(&mut other, click)).collect();
        backwards.reverse();
        prop_assert_eq!(&forwards, &backwards);
        let again: Vec<_> = clicks.iter().map(|click| told_of(&mut one, click)).collect();
        prop_assert_eq!(&forwards, &again);
    }
}
