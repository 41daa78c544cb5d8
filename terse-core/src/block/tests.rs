use proptest::prelude::*;

use super::*;
use crate::UrlPolicy;
use crate::target::TargetError;

fn host(text: &str) -> String {
    BlockedHost::parse(text).unwrap_or_else(|NoHost| panic!("{text} is no host")).as_str().to_owned()
}

fn list(text: &str) -> BlockList {
    BlockList::parse(text).unwrap()
}

fn blocks(list: &BlockList, url: &str) -> bool {
    let target = UrlPolicy::new("terse.example", true).check(url).unwrap();
    list.blocks(&target)
}

#[test]
fn all_spellings_of_a_host_are_one() {
    for text in ["example.com", "EXAMPLE.com", "example.com.", "eXample.Com."] {
        assert_eq!(host(text), "example.com", "{text}");
    }
    for text in ["bücher.example", "BÜCHER.example", "xn--bcher-kva.example", "XN--BCHER-KVA.Example."] {
        assert_eq!(host(text), "xn--bcher-kva.example", "{text}");
    }
    for text in ["127.0.0.1", "0x7f.1", "2130706433", "[::ffff:127.0.0.1]", "::ffff:127.0.0.1"] {
        assert_eq!(host(text), "127.0.0.1", "{text}");
    }
    for text in ["2001:db8::1", "[2001:DB8:0::1]"] {
        assert_eq!(host(text), "2001:db8::1", "{text}");
    }
}

#[test]
fn what_is_no_host_is_refused() {
    for text in [
        "",
        "http://example.com",
        "example.com/",
        "example.com:80",
        "*.example.com",
        ".example.com",
        "a b",
        "a@b",
        "192.0.2.0/24",
        "a..b",
        "[::1",
        "-a.example",
        "xn--a.example",
        "256.1.1.1",
        &"a".repeat(64),
        &"a.".repeat(600),
    ] {
        assert_eq!(BlockedHost::parse(text), Err(NoHost), "{text}");
    }
}

#[test]
fn a_name_covers_all_beneath_it_and_nothing_beside_or_above() {
    let list = list("evil.example\nxn--bcher-kva.example\n");
    for url in [
        "https://evil.example/",
        "http://EVIL.example:8080",
        "https://evil.example.?q",
        "https://a.b.c.evil.example/x",
        "https://bücher.example/",
        "https://www.BÜCHER.example/",
    ] {
        assert!(blocks(&list, url), "{url}");
    }
    for url in [
        "https://example/",
        "https://notevil.example/",
        "https://evil.example.org/",
        "https://good.example/?evil.example",
        "https://bucher.example/",
        "https://1.2.3.4/",
    ] {
        assert!(!blocks(&list, url), "{url}");
    }
}

#[test]
fn a_unicode_line_covers_the_punycode_spelling() {
    assert!(blocks(&list("Bücher.example"), "https://xn--bcher-kva.example/"));
}

#[test]
fn an_address_covers_itself_in_every_spelling() {
    let list = list("192.0.2.7\n2001:db8::1\n");
    for url in [
        "http://192.0.2.7/",
        "http://0xc0.0.2.7:81",
        "http://3221225991/",
        "http://[::ffff:192.0.2.7]/",
        "http://[2001:db8:0:0::1]/",
    ] {
        assert!(blocks(&list, url), "{url}");
    }
    for url in ["http://192.0.2.8/", "http://[2001:db8::2]/", "http://192.0.2.7.example/"] {
        assert!(!blocks(&list, url), "{url}");
    }
}

#[test]
fn comments_empty_lines_and_line_ends_of_any_kind_mean_nothing() {
    let read = list("\u{feff}# head\r\n\r\n  a.example  # why\r\n#\n\tb.example\n\na.example");
    assert_eq!(read, ["a.example", "b.example"].map(|text| BlockedHost::parse(text).unwrap()).into_iter().collect());
    assert_eq!(read.len(), 2);
    assert!(list("").is_empty() && list("# nothing\n").is_empty());
}

#[test]
fn a_faulty_line_is_told_by_its_number_and_refuses_the_list() {
    let refused = BlockList::parse("a.example\n# x\nhttps://b.example/ # y\n").unwrap_err();
    assert!(refused.to_string().starts_with("line 3: 'https://b.example/' is neither a host name"), "{refused}");
    let hostile = format!("\u{1b}[2J\u{202e}{}", "x".repeat(5_000));
    let told = BlockList::parse(&hostile).unwrap_err().to_string();
    assert!(told.len() < 300 && !told.contains(['\u{1b}', '\u{202e}']), "{told}");
}

#[test]
fn a_list_is_bounded() {
    let text = |hosts: usize| (0..hosts).map(|n| format!("h{n}.example\n")).collect::<String>();
    assert_eq!(list(&text(BlockList::MAX_HOSTS)).len(), BlockList::MAX_HOSTS);
    let refused = BlockList::parse(&text(BlockList::MAX_HOSTS + 1)).unwrap_err();
    assert_eq!(refused, BlockListError::TooMany { line: BlockList::MAX_HOSTS + 1 });
    assert_eq!(refused.to_string(), "line 200001: more than 200000 hosts");
}

#[test]
fn a_policy_refuses_what_is_blocked_at_the_time() {
    let blocked = std::sync::Arc::new(BlockedHosts::default());
    let policy = UrlPolicy::new("terse.example", false).refusing(blocked.clone());
    let check = || policy.check("https://www.evil.example/x").map(drop);
    assert_eq!(check(), Ok(()));
    blocked.set_shared(list("evil.example"));
    assert_eq!(check(), Err(TargetError::Blocked));
    assert_eq!(TargetError::Blocked.code(), "blocked_host");
    blocked.set_file(list("www.evil.example\n"));
    blocked.set_shared(BlockList::default());
    assert_eq!((check(), blocked.len()), (Err(TargetError::Blocked), (1, 0)));
    blocked.set_file(BlockList::default());
    assert!(check().is_ok() && blocked.is_empty());
}

#[test]
fn only_an_active_link_is_taken_for_a_blocked_one() {
    use crate::{LinkState, Resolution, TargetUrl, Version};
    let blocked = BlockedHosts::default();
    blocked.set_file(list("evil.example"));
    let state = |url, state| {
        let target = TargetUrl::from_stored(url).unwrap();
        blocked.state_of(&Resolution { target, state, expires_at: None, valid_from: None, version: Version::FIRST })
    };
    assert_eq!(state("https://evil.example/", LinkState::Active), LinkState::Blocked);
    assert_eq!(state("https://good.example/", LinkState::Active), LinkState::Active);
    for kept in [LinkState::Disabled, LinkState::Deleted, LinkState::Blocked] {
        assert_eq!(state("https://evil.example/", kept), kept);
    }
    assert_eq!(state("damaged", LinkState::Active), LinkState::Active, "it has no host to be judged by");
}

proptest! {
    #[test]
    fn any_text_is_a_list_or_refused_by_a_line_that_it_has(text in "[ -~\u{e4}\u{202e}\\n\\r]{0,200}") {
        if let Err(error) = BlockList::parse(&text) {
            let BlockListError::Line { line, .. } = error else { panic!("{error}") };
            prop_assert!((1..=text.lines().count()).contains(&line));
        }
    }

    #[test]
    fn a_host_is_its_own_spelling(text in "[a-zA-Z0-9\u{fc}.-]{1,30}|[0-9]{1,3}(\\.[0-9]{1,3}){3}|[0-9a-f:]{2,20}") {
        if let Ok(host) = BlockedHost::parse(&text) {
            prop_assert_eq!(&BlockedHost::parse(host.as_str()).unwrap(), &host);
            let list: BlockList = [host.clone()].into_iter().collect();
            prop_assert_eq!(&BlockList::parse(host.as_str()).unwrap(), &list);
        }
    }
}
