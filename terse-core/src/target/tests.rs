//! Tables of URLs: what goes out unchanged, what is rewritten, what is refused and why.

use proptest::prelude::*;

use super::TargetError::{
    Backslash, ControlCharacter, Host, Malformed, NotPublic, OwnHost, Port, Scheme, TooLong, Userinfo, WhiteSpace,
};
use super::*;

fn policy() -> UrlPolicy {
    UrlPolicy::new("terse.example", false)
}

fn intranet() -> UrlPolicy {
    UrlPolicy::new("terse.example", true)
}

fn check(text: &str) -> Result<String, TargetError> {
    policy().check(text).map(|target| target.as_str().to_owned())
}

#[track_caller]
fn refused(policy: &UrlPolicy, error: TargetError, texts: &[&str]) {
    for text in texts {
        assert_eq!(policy.check(text), Err(error), "{text:?}");
    }
}

#[track_caller]
fn hosts_refused(policy: &UrlPolicy, error: TargetError, hosts: &[&str]) {
    for host in hosts {
        for url in [format!("http://{host}/"), format!("HTTPS://{host}:8443?q"), format!("http://{host}")] {
            assert_eq!(policy.check(&url), Err(error), "{url:?}");
        }
    }
}

#[track_caller]
fn hosts_accepted(policy: &UrlPolicy, hosts: &[&str]) {
    for host in hosts {
        let url = format!("http://{host}/");
        assert_eq!(policy.check(&url).as_ref().map(TargetUrl::as_str), Ok(url.as_str()), "{url:?}");
    }
}

#[test]
fn ascii_urls_go_out_byte_for_byte() {
    let long = format!("https://example.com/{}", "a".repeat(TargetUrl::MAX_LEN - 20));
    let long_label = format!("http://{}.com/", "a".repeat(63));
    let long_host = format!("http://{}a.com/", "a23456789.".repeat(24));
    for text in [
        "http://example.com",
        "http://example.com/",
        "https://example.com/",
        "HTTP://example.com/",
        "HtTpS://EXAMPLE.com/Path",
        "http://example.com.",
        "http://example.com./x",
        "http://example.com?",
        "http://example.com?a=b",
        "http://example.com#",
        "http://example.com/#",
        "http://example.com#fragment",
        "http://example.com/?",
        "http://example.com/?#",
        "http://example.com/a%2fb%2Fc",
        "http://example.com/%",
        "http://example.com/%zz%4",
        "http://example.com/a//b///c",
        "http://example.com/./a/../b",
        "http://example.com/a;b=c,d",
        "http://example.com/a?b=http://other.example/?c=d#e",
        "http://example.com/http://localhost/",
        "http://example.com/a@b",
        "http://example.com/?user@host",
        "http://example.com/a:b",
        "http://example.com/aGVsbG8gd29ybGQ+/=?t=PDw/Pz8+Pg==&u=-_",
        "http://example.com/'\"<>`{}|^[]",
        "http://example.com/~user/!$&'()*+,;=",
        "http://example.com:80/",
        "https://example.com:443/",
        "http://example.com:443/",
        "https://example.com:80/",
        "http://example.com:1/",
        "http://example.com:65535/",
        "http://example.com:8080",
        "http://example.com:8080?x",
        "http://example.com:8080#x",
        "http://a_b.example.com/",
        "http://_dmarc.example.com/",
        "http://a--b.example.com/",
        "http://xn--bcher-kva.example/",
        "http://XN--BCHER-KVA.example/",
        "http://intranet/",
        "http://1.example/",
        "http://1.2.3.4.example/",
        "http://notlocalhost/",
        "http://localhost.example.com/",
        "http://8.8.8.8/",
        "http://[2001:4860:4860::8888]/",
        "http://[2001:4860:4860::8888]:8080/x",
        "http://[2001:4860:4860:0:0:0:0:8888]/",
        "http://notterse.example/",
        "http://www.terse.example/",
        "http://terse.example.org/",
        &long,
        &long_label,
        &long_host,
    ] {
        assert_eq!(check(text).as_deref(), Ok(text));
    }
}

#[test]
fn non_ascii_hosts_become_punycode_and_the_rest_is_percent_encoded() {
    for (text, expected) in [
        ("http://bücher.example/", "http://xn--bcher-kva.example/"),
        ("http://BÜCHER.Example/", "http://xn--bcher-kva.example/"),
        ("HTTPS://bu\u{308}cher.example:8443/x", "HTTPS://xn--bcher-kva.example:8443/x"),
        ("http://faß.example/", "http://xn--fa-hia.example/"),
        ("http://例え.テスト/", "http://xn--r8jz45g.xn--zckzah/"),
        ("http://例え。テスト/", "http://xn--r8jz45g.xn--zckzah/"),
        ("http://ex\u{ad}ample.com/", "http://example.com/"),
        ("http://ｅｘａｍｐｌｅ．ｃｏｍ/", "http://example.com/"),
        ("http://８.８.８.８/", "http://8.8.8.8/"),
        ("http://a\u{2044}b.example/", "http://xn--ab-c6t.example/"),
        ("http://example.com/ü", "http://example.com/%C3%BC"),
        ("http://example.com/a?q=日本", "http://example.com/a?q=%E6%97%A5%E6%9C%AC"),
        ("http://example.com#é", "http://example.com#%C3%A9"),
        ("http://example.com/%c3%bc/ü/%2f", "http://example.com/%c3%bc/%C3%BC/%2f"),
        ("http://example.com/\u{202e}gpj", "http://example.com/%E2%80%AEgpj"),
        ("http://example.com/\u{feff}", "http://example.com/%EF%BB%BF"),
        ("http://example.com/😀", "http://example.com/%F0%9F%98%80"),
    ] {
        assert_eq!(check(text).as_deref(), Ok(expected), "{text:?}");
    }
}

#[test]
fn other_schemes_are_refused() {
    let texts = [
        "ftp://example.com/",
        "javascript:alert(1)",
        "JavaScript://example.com/%0aalert(1)",
        "data:text/html,x",
        "file:///etc/passwd",
        "mailto:a@example.com",
        "ws://example.com/",
        "httpx://example.com/",
        "https+x://example.com/",
        "blob:https://example.com/x",
        "view-source:http://example.com/",
        "tel:123",
        "example.com:80/",
    ];
    refused(&policy(), Scheme, &texts);
}

#[test]
fn what_a_lenient_parser_would_mend_is_refused() {
    let texts = [
        "",
        "x",
        ":",
        "://",
        "://example.com/",
        "//example.com/",
        "/path",
        "?q",
        "#f",
        "example.com",
        "www.example.com/path",
        "http",
        "http:",
        "http:/",
        "http://",
        "http:///",
        "http:x",
        "http:example.com",
        "http:/example.com/",
        "http:///example.com/",
        "http:////example.com/",
        "https:example.com",
        "https:/example.com",
        "https:///example.com",
        "http://?q",
        "http://#f",
        "http:/:/example.com",
        "1http://example.com/",
        "+http://example.com/",
        "ht_tp://example.com/",
        "hｔtp://example.com/",
        "\u{feff}http://example.com/",
        "[http://example.com]",
    ];
    refused(&policy(), Malformed, &texts);
    refused(
        &policy(),
        Backslash,
        &["http:\\\\example.com\\", "http://example.com\\a", "http:/\\example.com/", "\\\\x"],
    );
    refused(&policy(), Backslash, &["http://example.com/a\\b", "http://example.com/?a\\", "http://a\\@example.com/"]);
}

#[test]
fn white_space_is_refused_wherever_it_stands() {
    let texts = [
        " http://example.com/",
        "http://example.com/ ",
        "http ://example.com/",
        "http: //example.com/",
        "http://exam ple.com/",
        "http://example.com/a b",
        "http://example.com/?a b",
        "http://example.com/#a b",
        "http://example.com/\u{a0}",
        "http://example.com/\u{3000}",
        "\u{2003}http://example.com/",
        "http://example.com/\u{2028}",
        " ",
    ];
    refused(&policy(), WhiteSpace, &texts);
}

#[test]
fn control_characters_are_refused_wherever_they_stand() {
    for c in ('\0'..=' ').chain('\u{7f}'..='\u{9f}').filter(|c| *c != ' ') {
        for url in [
            format!("{c}http://example.com/"),
            format!("ht{c}tp://example.com/"),
            format!("http:{c}//example.com/"),
            format!("http://exam{c}ple.com/"),
            format!("http://example.com/a{c}b"),
            format!("http://example.com/?x#{c}"),
        ] {
            assert_eq!(check(&url), Err(ControlCharacter), "{url:?}");
        }
    }
}

#[test]
fn user_names_and_passwords_are_refused() {
    let texts = [
        "http://user@example.com/",
        "http://user:password@example.com/",
        "http://@example.com/",
        "http://:@example.com/",
        "http://example.com@localhost/",
        "http://a@b@example.com",
        "http://example.com:80@other.example?x",
        "http://[::1]@example.com/",
    ];
    refused(&policy(), Userinfo, &texts);
}

#[test]
fn hosts_that_are_no_names_are_refused() {
    let long_label = format!("{}.com", "a".repeat(64));
    let long_host = format!("{}ab.com", "a23456789.".repeat(25));
    let hosts = [
        ".",
        "..",
        ".example.com",
        "example..com",
        "example.com..",
        "-example.com",
        "example-.com",
        "a.-b.com",
        "a.b-",
        "-",
        "exam%70le.com",
        "%6c%6f%63alhost",
        "example.com%00",
        "example.com%2f",
        "exam,ple.com",
        "exam!ple.com",
        "example.com;",
        "ex*mple.com",
        "exa'mple.com",
        "exam\"ple.com",
        "exam<ple.com",
        "exam{ple}.com",
        "exam|ple.com",
        "exam^ple.com",
        "exam`ple.com",
        "exam~ple.com",
        "exam$ple.com",
        "exam&ple.com",
        "exam(ple).com",
        "exam+ple.com",
        "exam=ple.com",
        "xn--a.example",
        "xn--.example",
        "xn--localhost-.example",
        "\u{ad}",
        "\u{200b}",
        "。",
        "ex。。com",
        "-bücher.example",
        "bücher-.example",
        "xn---bcher-4ya.example",
        "a／b.example",
        "a？b.example",
        "a＃b.example",
        "a＠b.example",
        "a：80",
        "a＼b.example",
        "a％b.example",
        "℀.example",
        long_label.as_str(),
        long_host.as_str(),
    ];
    hosts_refused(&policy(), Host, &hosts);
    hosts_refused(&intranet(), Host, &hosts);
}

#[test]
fn numbers_that_are_no_addresses_are_refused() {
    let hosts = [
        "256.1.1.1",
        "1.2.3.256",
        "1.2.3.4.5",
        "1.2.3.99999",
        "4294967296",
        "0x100000000",
        "0400000000000",
        "99999999999999999999",
        "1.2.3.08",
        "example.1",
        "example.0x1",
        "[",
        "[]",
        "[::1",
        "[:::]",
        "[::1]x",
        "[1:2:3:4:5:6:7:8:9]",
        "[::12345]",
        "[g::]",
        "[::ffff:1.2.3]",
        "[::ffff:1.2.3.256]",
        "[8.8.8.8]",
        "[example.com]",
        "[fe80::1%25eth0]",
        "[fe80::1%eth0]",
        "[2001:4860:4860::8888%251]",
        "[v1.x]",
        "x[::1]",
    ];
    for host in hosts {
        let url = format!("http://{host}/");
        assert_eq!(check(&url), Err(Host), "{url:?}");
        assert_eq!(intranet().check(&url), Err(Host), "{url:?}");
    }
    refused(&policy(), Host, &["http://::1/", "http://[2001/", "http://[2001:4860::1/", "http://[::1]8080/"]);
}

#[test]
fn ports_are_numbers_up_to_65535() {
    let texts = [
        "http://example.com:/",
        "http://example.com:",
        "http://example.com:0/",
        "http://example.com:080/",
        "http://example.com:65536/",
        "http://example.com:99999999999999999999/",
        "http://example.com:-1/",
        "http://example.com:+80/",
        "http://example.com:8o/",
        "http://example.com:80:80/",
        "http://example.com:８０/",
        "http://example.com:0x50/",
        "http://example.com:%38/",
        "http://[2001:4860:4860::8888]:/",
        "http://[2001:4860:4860::8888]:x/",
        "http://2001:4860:4860::8888/",
    ];
    refused(&policy(), Port, &texts);
    refused(&policy(), Host, &["http://:80/", "http://:/", "http://:"]);
}

#[test]
fn every_notation_of_a_private_address_is_refused() {
    let hosts = [
        "127.0.0.1",
        "127.0.0.1.",
        "127.1",
        "127.0.1",
        "2130706433",
        "0x7f000001",
        "0X7F000001",
        "0x7f.1",
        "0x7f.0.0.0x1",
        "017700000001",
        "0177.0.0.1",
        "0177.0.0.01",
        "0x7f.0.1",
        "127.000.000.001",
        "000177.1",
        "0",
        "0.0.0.0",
        "0x0",
        "0x",
        "１２７.０.０.１",
        "①②⑦.⓪.⓪.①",
        "127。0。0。1",
        "１２７．１",
        "２１３０７０６４３３",
        "０ｘ７ｆ．１",
        "𝟏𝟐𝟕.𝟎.𝟎.𝟏",
        "10.1",
        "0xa000001",
        "192.168.257",
        "0xc0a80001",
        "169.254.169.254",
        "2852039166",
        "0xa9fea9fe",
        "0251.0376.0251.0376",
        "[::1]",
        "[0:0:0:0:0:0:0:1]",
        "[0000:0000:0000:0000:0000:0000:0000:0001]",
        "[::]",
        "[::127.0.0.1]",
        "[::ffff:127.0.0.1]",
        "[::FFFF:7f00:1]",
        "[0:0:0:0:0:ffff:7f00:1]",
        "[::ffff:8.8.8.8]",
        "[::ffff:0:127.0.0.1]",
        "[::8.8.8.8]",
        "[64:ff9b::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b::a9fe:a9fe]",
        "[64:ff9b:1::8.8.8.8]",
        "[2002:7f00:1::]",
        "[2002:7f00:1::1]",
        "[2002:a00:1:2:3:4:5:6]",
        "[2002:c0a8:101::1]",
        "[fe80::1]",
        "[fd00::1]",
        "[fec0::1]",
        "[ff02::1]",
        "[2001:0:4136:e378:8000:63bf:3fff:fdd2]",
    ];
    hosts_refused(&policy(), NotPublic, &hosts);
    for host in hosts {
        assert!(intranet().check(&format!("http://{host}/")).is_ok(), "{host} is allowed on intranets");
    }
}

#[test]
fn localhost_is_refused_in_every_spelling() {
    let hosts = [
        "localhost",
        "LOCALHOST",
        "LocalHost",
        "localhost.",
        "a.localhost",
        "A.b.LOCALHOST",
        "a.localhost.",
        "ｌｏｃａｌｈｏｓｔ",
        "ｌocalhost",
        "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ",
        "loc\u{ad}alhost",
        "local\u{200b}host",
        "localhost。",
        "a．localhost",
        "𝐥𝐨𝐜𝐚𝐥𝐡𝐨𝐬𝐭",
        "LOCALHOſT",
    ];
    hosts_refused(&policy(), NotPublic, &hosts);
    for host in hosts {
        assert!(intranet().check(&format!("http://{host}/")).is_ok(), "{host} is allowed on intranets");
    }
    for other in ["localhosts", "localhost.example", "mylocalhost", "local", "localhost-a"] {
        assert!(check(&format!("http://{other}/")).is_ok(), "{other}");
    }
}

#[test]
fn blocks_of_ipv4_are_refused_from_their_first_to_their_last_address() {
    // First and last of the block, then the neighbours outside (if those are global).
    let blocks = [
        ("0.0.0.0", "0.255.255.255", &["1.0.0.0"][..]),
        ("10.0.0.0", "10.255.255.255", &["9.255.255.255", "11.0.0.0"]),
        ("100.64.0.0", "100.127.255.255", &["100.63.255.255", "100.128.0.0"]),
        ("127.0.0.0", "127.255.255.255", &["126.255.255.255", "128.0.0.0"]),
        ("169.254.0.0", "169.254.255.255", &["169.253.255.255", "169.255.0.0"]),
        ("172.16.0.0", "172.31.255.255", &["172.15.255.255", "172.32.0.0"]),
        ("192.0.0.0", "192.0.0.255", &["191.255.255.255", "192.0.1.0", "192.0.0.9", "192.0.0.10"]),
        ("192.0.0.8", "192.0.0.11", &[]),
        ("192.0.0.170", "192.0.0.171", &[]),
        ("192.0.2.0", "192.0.2.255", &["192.0.1.255", "192.0.3.0"]),
        ("192.88.99.0", "192.88.99.255", &["192.88.98.255", "192.88.100.0"]),
        ("192.168.0.0", "192.168.255.255", &["192.167.255.255", "192.169.0.0"]),
        ("198.18.0.0", "198.19.255.255", &["198.17.255.255", "198.20.0.0"]),
        ("198.51.100.0", "198.51.100.255", &["198.51.99.255", "198.51.101.0"]),
        ("203.0.113.0", "203.0.113.255", &["203.0.112.255", "203.0.114.0"]),
        ("224.0.0.0", "239.255.255.255", &["223.255.255.255"]),
        ("240.0.0.0", "255.255.255.255", &["192.31.196.1", "192.52.193.1", "192.175.48.1"]),
    ];
    for (first, last, outside) in blocks {
        hosts_refused(&policy(), NotPublic, &[first, last]);
        hosts_accepted(&policy(), outside);
        // The same inside the addresses of a NAT64 and of 6to4.
        for (address, public) in [(first, false), (last, false)].into_iter().chain(outside.iter().map(|a| (*a, true))) {
            let octets = address.parse::<std::net::Ipv4Addr>().unwrap().octets();
            let [a, b, c, d] = octets;
            for inside in [format!("[64:ff9b::{address}]"), format!("[2002:{a:x}{b:02x}:{c:x}{d:02x}::1]")] {
                assert_eq!(check(&format!("http://{inside}/")).is_ok(), public, "{inside}");
            }
        }
    }
}

#[test]
fn blocks_of_ipv6_are_refused_from_their_first_to_their_last_address() {
    let blocks = [
        ("::", "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", &["2000::"][..]),
        ("64:ff9b::", "64:ff9b:0:ffff:ffff:ffff:ffff:ffff", &["64:ff9b::808:808"]),
        ("64:ff9b:1::", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff", &[]),
        ("100::", "100::ffff:ffff:ffff:ffff", &[]),
        ("100:0:0:1::", "100:0:0:1:ffff:ffff:ffff:ffff", &[]),
        ("2001::", "2001:0:ffff:ffff:ffff:ffff:ffff:ffff", &["2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]),
        ("2001:1::", "2001:1:ffff:ffff:ffff:ffff:ffff:ffff", &["2001:1::1", "2001:1::2", "2001:1::3"]),
        ("2001:1::4", "2001:1::5", &[]),
        ("2001:2::", "2001:2:0:ffff:ffff:ffff:ffff:ffff", &["2001:3::", "2001:3:ffff:ffff:ffff:ffff:ffff:ffff"]),
        ("2001:4::", "2001:4:111:ffff:ffff:ffff:ffff:ffff", &["2001:4:112::", "2001:4:112:ffff:ffff:ffff:ffff:ffff"]),
        ("2001:4:113::", "2001:f:ffff:ffff:ffff:ffff:ffff:ffff", &[]),
        (
            "2001:10::",
            "2001:1f:ffff:ffff:ffff:ffff:ffff:ffff",
            &["2001:20::", "2001:2f:ffff::", "2001:30::", "2001:3f::1"],
        ),
        ("2001:40::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", &["2001:200::"]),
        ("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", &["2001:db7:ffff::", "2001:db9::"]),
        ("3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", &["3ffe:ffff::", "3fff:1000::", "3fff:ffff::"]),
        ("4000::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", &["2003::", "2620:4f:8000::1", "2a00::1"]),
        ("5f00::", "5f00:ffff:ffff:ffff:ffff:ffff:ffff:ffff", &[]),
        ("fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", &[]),
        ("fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", &[]),
        ("ff00::", "ff0e::1", &[]),
    ];
    for (first, last, outside) in blocks {
        hosts_refused(&policy(), NotPublic, &[&format!("[{first}]"), &format!("[{last}]")]);
        for address in outside {
            hosts_accepted(&policy(), &[&format!("[{address}]")]);
        }
    }
}

#[test]
fn global_addresses_are_accepted_in_every_notation() {
    hosts_accepted(
        &policy(),
        &["8.8.8.8", "8.8.8.8.", "134744072", "0x08080808", "010.010.010.010", "8.526344", "0x8.0x8.2056"],
    );
    hosts_accepted(&policy(), &["[2606:4700::1111]", "[2002:808:808::1]", "[64:ff9b::8.8.8.8]", "[2A00:1450::]"]);
}

#[test]
fn the_own_host_is_refused_in_every_spelling() {
    let cases: [(&str, &[&str]); 8] = [
        (
            "terse.example",
            &[
                "terse.example",
                "TERSE.example",
                "terse.example.",
                "ｔｅｒｓｅ.example",
                "terse。example",
                "ter\u{ad}se.example",
            ],
        ),
        ("Terse.Example.", &["terse.example", "terse.example."]),
        ("bücher.example", &["bücher.example", "BÜCHER.example", "xn--bcher-kva.example", "XN--bcher-KVA.example."]),
        ("xn--bcher-kva.example", &["bücher.example", "bu\u{308}cher.example"]),
        (
            "93.184.216.34",
            &[
                "93.184.216.34",
                "93.184.216.34.",
                "1572395042",
                "0x5db8d822",
                "0135.0270.0330.0042",
                "93.12113954",
                "９３.１８４.２１６.３４",
                "[::ffff:93.184.216.34]",
                "[::93.184.216.34]",
                "[::ffff:0:93.184.216.34]",
                "[64:ff9b::5db8:d822]",
            ],
        ),
        ("[2001:4860::1]", &["[2001:4860::1]", "[2001:4860:0:0:0:0:0:1]", "[2001:4860:0::0.0.0.1]"]),
        ("2001:4860::1", &["[2001:4860::1]"]),
        ("localhost", &["localhost", "LOCALHOST.", "ｌｏｃａｌｈｏｓｔ"]),
    ];
    for (own, spellings) in cases {
        for allow_private in [false, true] {
            hosts_refused(&UrlPolicy::new(own, allow_private), OwnHost, spellings);
        }
    }
    hosts_refused(&UrlPolicy::new("127.0.0.1", true), OwnHost, &["127.0.0.1", "127.1", "[::ffff:127.0.0.1]"]);
    hosts_refused(&UrlPolicy::new("[::1]", true), OwnHost, &["[::1]", "[0:0:0:0:0:0:0:1]"]);
}

#[test]
fn the_own_host_does_not_stand_for_its_neighbours() {
    hosts_accepted(&UrlPolicy::new("localhost", true), &["127.0.0.1", "[::1]", "a.localhost", "localhost.example"]);
    hosts_accepted(&UrlPolicy::new("[::1]", true), &["0.0.0.1", "localhost", "[::2]"]);
    hosts_accepted(&UrlPolicy::new("terse.example", false), &["example", "a.terse.example", "terse.example.org"]);
}

#[test]
fn an_own_host_that_is_none_refuses_nothing_and_breaks_nothing() {
    for own in ["", " ", "[", "[::1", "a b", "http://x/", "256.256.256.256", "xn--a", "%", "\0"] {
        hosts_accepted(&UrlPolicy::new(own, false), &["example.com"]);
    }
}

#[test]
fn length_counts_before_and_after_encoding() {
    let at = |bytes: usize| format!("http://example.com/{}", "a".repeat(bytes - 19));
    assert!(check(&at(8_192)).is_ok());
    assert_eq!(check(&at(8_193)), Err(TooLong));
    // Two bytes each, six once encoded.
    let umlauts = |count: usize| format!("http://example.com/{}", "ü".repeat(count));
    assert_eq!(check(&umlauts(1_362)).unwrap().len(), 8_191);
    assert_eq!(check(&umlauts(1_363)), Err(TooLong));
    assert_eq!(check(&" ".repeat(9_000)), Err(TooLong));
}

#[test]
fn every_reason_has_its_own_word_and_sentence() {
    let all =
        [TooLong, ControlCharacter, WhiteSpace, Backslash, Scheme, Malformed, Userinfo, Host, Port, OwnHost, NotPublic];
    let words = "too_long control_character white_space backslash unsupported_scheme malformed_url userinfo \
                 invalid_host invalid_port own_host not_public";
    assert_eq!(all.map(TargetError::code).join(" "), words);
    for error in all {
        let sentence = error.to_string();
        assert!(sentence.starts_with(|c: char| c.is_lowercase()) && !sentence.ends_with('.'), "{sentence}");
    }
}

#[test]
fn a_stored_target_is_taken_back_or_known_as_corrupt() {
    let target = policy().check("https://example.com/%2f").unwrap();
    assert_eq!(TargetUrl::from_stored(target.as_str()), Some(target.clone()));
    assert_eq!(target.as_bytes(), "https://example.com/%2f".as_bytes());
    assert_eq!(format!("{target:?}"), "TargetUrl(https://example.com/%2f)");
    assert_eq!(TargetUrl::from_stored("http://example.com/ü"), None);
    assert_eq!(TargetUrl::from_stored("http://example.com/\r\nSet-Cookie: x"), None);
    assert_eq!(TargetUrl::from_stored(&"a".repeat(8_193)), None);
}

/// Text that looks like a URL, with what breaks parsers strewn in.
fn url_like() -> impl Strategy<Value = String> {
    let scheme = prop_oneof![4 => Just("http"), 4 => Just("https"), 1 => Just("HtTp"), 1 => Just("ftp"), 1 => Just("")];
    let slashes =
        prop_oneof![8 => Just("://"), 1 => Just(":/"), 1 => Just(":///"), 1 => Just(":\\\\"), 1 => Just("//")];
    let host = prop_oneof![
        4 => "[a-z0-9]{1,8}(\\.[a-z0-9-]{1,8}){0,3}\\.?",
        1 => "[0-9]{1,3}(\\.[0-9]{1,3}){3}",
        1 => "(0x)?[0-9a-f]{1,10}",
        1 => "\\[[0-9a-f:.]{0,20}\\]",
        1 => "[a-zäöüß０-９。\u{ad}%_@-]{0,10}",
        1 => "\\PC{0,6}",
    ];
    let port = prop_oneof![4 => Just(String::new()), 1 => ":[0-9]{0,6}"];
    let rest = prop_oneof![2 => "[ -~]{0,20}", 2 => "[/?#][!-~]{0,20}", 1 => "/\\PC{0,10}", 1 => any::<String>()];
    (scheme, slashes, host, port, rest).prop_map(|(s, l, h, p, r)| format!("{s}{l}{h}{p}{r}"))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1_000) })]

    #[test]
    fn any_text_is_accepted_or_refused_without_panic(text: String, own: String) {
        let _ = UrlPolicy::new(&own, false).check(&text);
        let _ = policy().check(&format!("http://{text}"));
        let _ = policy().check(&format!("http://example.com/{text}"));
    }

    #[test]
    fn what_is_accepted_is_fit_for_a_header_and_accepted_again_as_it_is(text in url_like()) {
        for policy in [policy(), intranet()] {
            if let Ok(target) = policy.check(&text) {
                prop_assert!(target.as_bytes().len() <= TargetUrl::MAX_LEN);
                prop_assert!(target.as_str().bytes().all(|b| b.is_ascii_graphic()));
                prop_assert_eq!(&policy.check(target.as_str()), &Ok(target.clone()));
                prop_assert_eq!(TargetUrl::from_stored(target.as_str()), Some(target.clone()));
                if text.is_ascii() {
                    prop_assert_eq!(target.as_str(), &text);
                }
            }
        }
    }

    #[test]
    fn what_is_accepted_never_leads_to_a_private_address(text in url_like()) {
        if let Ok(target) = policy().check(&text) {
            // Read by a parser of its own kind, judged by the standard library's own notions.
            match Url::parse(target.as_str()).unwrap().host().unwrap() {
                url::Host::Ipv4(a) => {
                    prop_assert!(!(a.is_loopback() || a.is_private() || a.is_link_local() || a.is_multicast()));
                    prop_assert!(!(a.is_unspecified() || a.is_broadcast() || a.is_documentation()));
                }
                url::Host::Ipv6(a) => {
                    prop_assert!(!(a.is_loopback() || a.is_multicast() || a.is_unspecified()));
                    prop_assert!(!(a.is_unique_local() || a.is_unicast_link_local()));
                }
                url::Host::Domain(name) => prop_assert!(!is_localhost(name)),
            }
        }
    }

    #[test]
    fn an_address_is_judged_alike_in_every_notation(bits: u32) {
        let address = std::net::Ipv4Addr::from_bits(bits);
        let [a, b, c, d] = address.octets();
        let verdict = check(&format!("http://{address}/")).is_ok();
        let low = u32::from(c) << 8 | u32::from(d);
        for host in [
            format!("{bits}"),
            format!("0x{bits:x}"),
            format!("0{bits:o}"),
            format!("{a}.{}", bits & 0xff_ffff),
            format!("{a}.{b}.{low}"),
            format!("0x{a:x}.0{b:o}.{c}.0x{d:x}"),
            format!("[64:ff9b::{address}]"),
            format!("[2002:{:x}:{low:x}::1]", bits >> 16),
        ] {
            prop_assert_eq!(check(&format!("http://{}/", host)).is_ok(), verdict, "{} is {}", host, address);
        }
    }
}
