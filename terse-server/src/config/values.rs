//! How the texts of single keys are read. Every fault is a sentence part that
//! follows the name of whatever set the key.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::keys::{Key, Range, suggestion};

/// The longest duration that can be configured: ten years.
const MAX_DURATION: Duration = Duration::from_secs(10 * 365 * 86_400);

/// A network of trusted proxies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// Its first address.
    pub first: IpAddr,
    /// Leading bits that all its addresses share.
    pub prefix: u8,
}

/// The base of short URLs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl {
    /// Scheme, host and port, without a trailing slash.
    pub base: String,
    /// The host alone.
    pub host: String,
}

/// One word of a list; anything else is refused with the nearest one.
pub(super) fn one_of<T: Copy>(text: &str, words: &[(&'static str, T)]) -> Result<T, String> {
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
        return Ok(*value);
    }
    let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    let close = suggestion(text, names.iter().copied());
    Err(format!("must be one of {}, not '{}'{close}", names.join(", "), shown(text)))
}

/// A whole number within bounds.
pub(super) fn number<T: std::str::FromStr + PartialOrd + std::fmt::Display>(
    text: &str,
    least: T,
    most: T,
) -> Result<T, String> {
    let parsed = text.parse::<T>().ok().filter(|number| (&least..=&most).contains(&number));
    parsed.ok_or_else(|| format!("must be a whole number from {least} to {most}, not '{}'", shown(text)))
}

/// A whole number within the range of `key`.
pub(super) fn number_of<T: TryFrom<u64>>(key: &Key, text: &str) -> Result<T, String> {
    let (least, most) = if let Range::Number(least, most) = key.range { (least, most) } else { (0, u64::MAX) };
    T::try_from(number(text, least, most)?).map_err(|_| format!("is too large for this machine: '{}'", shown(text)))
}

/// A duration within the range of `key`.
pub(super) fn time_of(key: &Key, text: &str) -> Result<Duration, String> {
    let whole = (Duration::ZERO, MAX_DURATION);
    let (least, most) = if let Range::Time(least, most) = key.range { (least, most) } else { whole };
    duration_within(text, least, most)
}

/// A size within the range of `key`.
pub(super) fn size_of(key: &Key, text: &str) -> Result<u64, String> {
    let (least, most) = if let Range::Size(least, most) = key.range { (least, most) } else { (0, u64::MAX) };
    size(text, least, most)
}

/// A duration such as `500ms`, `20s`, `5m`, `12h` or `30d`.
///
/// # Errors
/// What is wrong with it.
pub fn duration(text: &str) -> Result<Duration, String> {
    let fault = || format!("must be a time such as 500ms, 20s, 5m, 12h or 30d, not '{}'", shown(text));
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| fault())?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(fault()),
    };
    let duration = number.checked_mul(unit_ms).map(Duration::from_millis).filter(|d| *d <= MAX_DURATION);
    duration.ok_or_else(|| format!("is longer than ten years: '{}'", shown(text)))
}

/// A duration within bounds.
pub(super) fn duration_within(text: &str, least: Duration, most: Duration) -> Result<Duration, String> {
    let parsed = duration(text)?;
    if (least..=most).contains(&parsed) {
        return Ok(parsed);
    }
    Err(format!("must be from {} to {}, not '{}'", duration_text(least), duration_text(most), shown(text)))
}

/// A duration as [`duration`] reads it, in the largest unit that leaves nothing over; below a millisecond it is cut.
pub(super) fn duration_text(duration: Duration) -> String {
    let ms = duration.as_millis();
    let units: [(&str, u128); 4] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
    match units.iter().find(|(_, unit_ms)| ms > 0 && ms.is_multiple_of(*unit_ms)) {
        Some((unit, unit_ms)) => format!("{}{unit}", ms / unit_ms),
        None => format!("{ms}ms"),
    }
}

/// A size such as `64MiB`.
pub(super) fn size(text: &str, least: u64, most: u64) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit_bytes = match unit {
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        _ => None,
    };
    let bytes = unit_bytes.and_then(|unit: u64| number.parse::<u64>().ok()?.checked_mul(unit));
    bytes.filter(|bytes| (least..=most).contains(bytes)).ok_or_else(|| {
        let (least, most) = (size_text(least), size_text(most));
        format!("must be a size such as 64MiB (KiB, MiB or GiB), from {least} to {most}, not '{}'", shown(text))
    })
}

/// A size in the largest unit that leaves nothing over.
pub(super) fn size_text(bytes: u64) -> String {
    let units: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.iter().find(|(_, unit)| bytes > 0 && bytes.is_multiple_of(*unit)) {
        Some((unit, unit_bytes)) => format!("{}{unit}", bytes / unit_bytes),
        None => format!("{bytes} bytes"),
    }
}

/// `IP:PORT`, or `localhost:PORT` for 127.0.0.1.
pub(super) fn socket_address(text: &str) -> Result<SocketAddr, String> {
    let literal = text.strip_prefix("localhost:").map_or_else(|| text.to_owned(), |port| format!("127.0.0.1:{port}"));
    literal.parse().map_err(|_| {
        format!("must be an address and a port such as 127.0.0.1:8080 or [::]:8080, not '{}'", shown(text))
    })
}

/// The base of short URLs: `http` or `https`, a host, perhaps a port, nothing else.
pub(super) fn public_url(text: &str) -> Result<PublicUrl, String> {
    let fault = |what: &str| Err(format!("{what}: '{}'", shown(&without_userinfo(text))));
    let after_scheme = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let Some(after_scheme) = after_scheme else { return fault("must begin with http:// or https://") };
    // A lenient parser would mend these; a mended base is not what was meant.
    if after_scheme.starts_with(['/', '\\']) || text.chars().any(|c| c.is_whitespace() || c.is_control() || c == '\\') {
        return fault("must be a plain URL with a host");
    }
    let Ok(url) = url::Url::parse(text) else { return fault("must be a URL with a host") };
    if !url.username().is_empty() || url.password().is_some() || after_scheme.contains('@') {
        return fault("must not hold a user or password");
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return fault("must end after host and port: no path, query or fragment");
    }
    let Some(host) = url.host_str() else { return fault("must have a host") };
    Ok(PublicUrl { base: url.as_str().trim_end_matches('/').to_owned(), host: host.to_owned() })
}

/// Networks separated by commas, or `none`.
pub(super) fn networks(text: &str) -> Result<Vec<Cidr>, String> {
    if text == "none" {
        return Ok(vec![]);
    }
    text.split(',').map(|part| network(part.trim())).collect()
}

fn network(text: &str) -> Result<Cidr, String> {
    let fault = || format!("must be networks such as 10.0.0.0/8,fd00::/8 or none, not '{}'", shown(text));
    let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
    let first: IpAddr = address.parse().map_err(|_| fault())?;
    let bits = if first.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        None => bits,
        Some(digits) => digits.parse().ok().filter(|prefix| *prefix <= bits).ok_or_else(fault)?,
    };
    let masked = masked(first, prefix);
    if masked != first {
        return Err(format!("'{}' has bits beyond its prefix; did you mean '{masked}/{prefix}'?", shown(text)));
    }
    Ok(Cidr { first, prefix })
}

fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    }
}

fn without_userinfo(text: &str) -> String {
    match (text.find("://"), text.rfind('@')) {
        (Some(scheme), Some(at)) if scheme + 3 <= at => format!("{}***{}", &text[..scheme + 3], &text[at..]),
        (None, Some(at)) => format!("***{}", &text[at..]),
        _ => text.to_owned(),
    }
}

/// A value as a message may show it: printable and short.
pub(crate) fn shown(text: &str) -> String {
    const MOST: usize = 80;
    let mut clean: String = text.chars().take(MOST).flat_map(char::escape_debug).collect();
    if text.chars().nth(MOST).is_some() {
        clean.push('…');
    }
    clean
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_need_a_number_and_a_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("30d"), Ok(Duration::from_secs(30 * 86_400)));
        for text in ["", "30", "s", "-1s", "1.5h", "1 h", "1w", "99999999999999999999s", "18446744073709551615d"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_public_url_is_scheme_host_and_port_alone() {
        let url = |base: &str, host: &str| Ok(PublicUrl { base: base.into(), host: host.into() });
        assert_eq!(public_url("https://trs.example/"), url("https://trs.example", "trs.example"));
        assert_eq!(public_url("http://localhost:8080"), url("http://localhost:8080", "localhost"));
        assert_eq!(public_url("https://[2001:db8::1]:444"), url("https://[2001:db8::1]:444", "[2001:db8::1]"));
        for text in [
            "",
            "trs.example",
            "ftp://trs.example",
            "https://",
            "https:///trs.example",
            "https:/trs.example",
            "https://trs.example/path",
            "https://trs.example/?q",
            "https://trs.example/#f",
            "https://user@trs.example",
            "https://trs.exa mple",
            "https://trs.example:99999",
        ] {
            assert!(public_url(text).is_err(), "{text}");
        }
        assert!(!public_url("https://me:s3cret@trs.example").unwrap_err().contains("s3cret"));
        assert!(!public_url("me:s3cret@trs.example").unwrap_err().contains("s3cret"));
    }

    #[test]
    fn networks_have_no_bits_beyond_their_prefix() {
        let v4 = Cidr { first: "10.0.0.0".parse().unwrap(), prefix: 8 };
        let v6 = Cidr { first: "::1".parse().unwrap(), prefix: 128 };
        assert_eq!(networks("10.0.0.0/8, ::1"), Ok(vec![v4, v6]));
        assert_eq!(networks("0.0.0.0/0").unwrap()[0].prefix, 0);
        assert_eq!(networks("none"), Ok(vec![]));
        assert!(networks("10.1.2.3/8").unwrap_err().contains("'10.0.0.0/8'"));
        for text in ["10.0.0.0/33", "::/129", "proxy", "10.0.0.0/8,", "10.0.0.0/-1", ""] {
            assert!(networks(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_address_has_a_port_and_localhost_is_known() {
        assert_eq!(socket_address("localhost:0").unwrap().to_string(), "127.0.0.1:0");
        assert_eq!(socket_address("[::]:80").unwrap().to_string(), "[::]:80");
        for text in ["", "127.0.0.1", ":8080", "8080", "example.org:80", "127.0.0.1:65536"] {
            assert!(socket_address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_sizes_and_words_keep_to_their_bounds() {
        assert_eq!(number("7", 1, 9), Ok(7));
        assert!(number("10", 1, 9).unwrap_err().contains("1 to 9"));
        assert!(number("-1", 0u32, 9).is_err());
        assert_eq!(size("2KiB", 1, 4096), Ok(2048));
        assert!(size("8KiB", 1, 4096).is_err());
        assert!(size("2048", 1, 4096).is_err());
        let fault = one_of("opne", &[("open", 1), ("keys", 2)]).unwrap_err();
        assert_eq!(fault, "must be one of open, keys, not 'opne'; did you mean 'open'?");
    }

    #[test]
    fn bounds_are_told_in_units_that_can_be_typed() {
        assert_eq!(
            size("1KiB", 16 << 20, 1 << 50).unwrap_err().split_once("from ").unwrap().1,
            "16MiB to 1048576GiB, not '1KiB'"
        );
        assert!(size("1KiB", 0, 7).unwrap_err().contains("from 0 bytes to 7 bytes"));
        let (least, most) = (Duration::from_millis(1_500), Duration::from_secs(3_600));
        assert_eq!(duration_within("2h", least, most).unwrap_err(), "must be from 1500ms to 1h, not '2h'");
        for text in ["1ms", "61s", "90m", "25h", "30d"] {
            assert_eq!(duration_text(duration(text).unwrap()), text);
        }
        assert_eq!(duration_text(Duration::ZERO), "0ms");
    }

    #[test]
    fn a_shown_value_is_short_and_printable() {
        assert_eq!(shown("a\nb\u{1b}"), "a\\nb\\u{1b}");
        assert!(shown(&"x".repeat(500)).chars().count() <= 81);
    }

    proptest! {
        #[test]
        fn no_text_makes_a_reader_panic_or_write_a_page(
            text in "\\PC{0,100}|.{0,300}|[0-9a-zA-Z:/.@-]{0,40}",
        ) {
            let faults = [
                duration(&text).err(),
                public_url(&text).err(),
                networks(&text).err(),
                socket_address(&text).err(),
                size(&text, 0, u64::MAX).err(),
                number(&text, 0, 9).err(),
                one_of(&text, &[("word", ())]).err(),
            ];
            for fault in faults.into_iter().flatten() {
                prop_assert!(!fault.contains(['\n', '\u{1b}']) && fault.chars().count() < 1_500, "{fault}");
            }
        }

        #[test]
        fn networks_come_back_masked(bits in any::<u32>(), prefix in 0u8..=32) {
            let first = masked(IpAddr::V4(bits.into()), prefix);
            prop_assert_eq!(networks(&format!("{first}/{prefix}")), Ok(vec![Cidr { first, prefix }]));
        }

        #[test]
        fn durations_come_back_in_every_unit(number in 0u64..86_400) {
            for (unit, ms) in [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)] {
                prop_assert_eq!(duration(&format!("{number}{unit}")), Ok(Duration::from_millis(number * ms)));
            }
        }
    }
}
