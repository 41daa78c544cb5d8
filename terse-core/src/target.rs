//! Where links may lead.
//!
//! Targets are read strictly and sent out byte for byte: whatever a lenient
//! parser would mend (missing slashes, backslashes, white space, empty labels)
//! is refused, because two programs mend it in two ways and only one of them is
//! checked here. What the strict reading found, host and port, must also be
//! what the WHATWG parser of the `url` crate finds. Only non-ASCII is rewritten:
//! hosts to punycode, path, query and fragment to percent-escapes of UTF-8.
//!
//! A look-up of the host name is not part of this: a name that resolves to a
//! private address can't be told from others here, and may change any time.

mod address;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use idna::AsciiDenyList;
use idna::uts46::{DnsLength, Hyphens, Uts46};
use percent_encoding::{CONTROLS, utf8_percent_encode};
use url::{Host, Url};

use crate::BlockedHosts;

/// Most bytes of a host name, a trailing dot not counted (RFC 1035).
const MAX_HOST: usize = 253;
/// Most bytes of a label of a host name (RFC 1035).
const MAX_LABEL: usize = 63;

/// An accepted target: at most 8,192 bytes of ASCII, `http` or `https`, fit for a `Location` header as it is.
///
/// Cloning copies a pointer.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TargetUrl(bytes::Bytes);

/// What a deployment allows as targets.
#[derive(Clone, Debug)]
pub struct UrlPolicy {
    own_host: Host,
    allow_private: bool,
    blocked: Arc<BlockedHosts>,
}

/// Why a URL is refused. `code` goes to clients as it is; `Display` says it in a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// More than [`TargetUrl::MAX_LEN`] bytes, as sent or once encoded.
    #[error("is longer than 8192 bytes")]
    TooLong,
    /// A C0 or C1 control character or DEL.
    #[error("holds a control character; percent-encode it")]
    ControlCharacter,
    /// A space, or another character that Unicode calls white space.
    #[error("holds white space; percent-encode it")]
    WhiteSpace,
    /// A backslash, which some programs take for a slash.
    #[error("holds a backslash; percent-encode it as %5C")]
    Backslash,
    /// A scheme other than `http` and `https`.
    #[error("must begin with http:// or https://")]
    Scheme,
    /// Not a scheme, `://`, and a host after that.
    #[error("is not an absolute URL such as https://example.com/path")]
    Malformed,
    /// A user name or password.
    #[error("must not hold a user name or password ('@' before the path)")]
    Userinfo,
    /// A host that is no name and no address.
    #[error("has a host that is neither a valid name nor an address")]
    Host,
    /// A port that is not 1 to 65,535.
    #[error("has a port that is not a number from 1 to 65535")]
    Port,
    /// The host that serves the short links.
    #[error("leads back to this service, which would be a loop")]
    OwnHost,
    /// An address, or `localhost`, that can't be reached from everywhere.
    #[error("leads to an address that is not reachable from the internet")]
    NotPublic,
    /// A host that is blocked, or one beneath such a domain.
    #[error("leads to a host that is blocked here")]
    Blocked,
}

impl TargetError {
    /// A stable word for programs.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::ControlCharacter => "control_character",
            Self::WhiteSpace => "white_space",
            Self::Backslash => "backslash",
            Self::Scheme => "unsupported_scheme",
            Self::Malformed => "malformed_url",
            Self::Userinfo => "userinfo",
            Self::Host => "invalid_host",
            Self::Port => "invalid_port",
            Self::OwnHost => "own_host",
            Self::NotPublic => "not_public",
            Self::Blocked => "blocked_host",
        }
    }
}

impl UrlPolicy {
    /// A policy that refuses `own_host` (a host name or address as in the
    /// public URL, in any spelling) and, unless `allow_private`, every address
    /// that is not globally reachable.
    #[must_use]
    pub fn new(own_host: &str, allow_private: bool) -> Self {
        let parsed = own_host.parse().map(Host::Ipv6).or_else(|_| Host::parse(own_host));
        // What is no host can't be the host of a target either, so any value that never matches does.
        let own_host = parsed.unwrap_or_else(|_| Host::Domain(own_host.to_owned()));
        Self { own_host: comparable(own_host), allow_private, blocked: Arc::default() }
    }

    /// The same policy that refuses what is in `blocked` as well, whatever that is at the time.
    #[must_use]
    pub fn refusing(self, blocked: Arc<BlockedHosts>) -> Self {
        Self { blocked, ..self }
    }

    /// Checks what a client sent as a target.
    ///
    /// # Errors
    /// [`TargetError`], the first reason that applies.
    pub fn check(&self, text: &str) -> Result<TargetUrl, TargetError> {
        if text.len() > TargetUrl::MAX_LEN {
            return Err(TargetError::TooLong);
        }
        check_characters(text)?;
        let parts = Parts::split(text)?;
        let sent_host = ascii_host(parts.host)?;
        let host = Host::parse(&sent_host).map_err(|_| TargetError::Host)?;
        let port = parts.port.map(parse_port).transpose()?;

        let whole = parts.join(&sent_host);
        if whole.len() > TargetUrl::MAX_LEN {
            return Err(TargetError::TooLong);
        }
        cross_check(&whole, &host, port)?;
        self.check_host(host)?;
        Ok(TargetUrl(whole.into()))
    }

    fn check_host(&self, host: Host) -> Result<(), TargetError> {
        let public = match &host {
            Host::Domain(name) => !is_localhost(name),
            Host::Ipv4(address) => address::is_global_v4(*address),
            Host::Ipv6(address) => address::is_global_v6(*address),
        };
        let host = comparable(host);
        if host == self.own_host {
            return Err(TargetError::OwnHost);
        }
        if !public && !self.allow_private {
            return Err(TargetError::NotPublic);
        }
        if self.blocked.holds(&host) { Err(TargetError::Blocked) } else { Ok(()) }
    }
}

/// A URL as it was sent, cut at its delimiters.
struct Parts<'a> {
    /// The scheme and `://`.
    scheme: &'a str,
    host: &'a str,
    /// What follows the colon after the host.
    port: Option<&'a str>,
    /// Path, query and fragment.
    rest: &'a str,
}

impl<'a> Parts<'a> {
    fn split(text: &'a str) -> Result<Self, TargetError> {
        let (scheme, _) = text.split_once(':').ok_or(TargetError::Malformed)?;
        if !is_scheme(scheme) {
            return Err(TargetError::Malformed);
        }
        if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
            return Err(TargetError::Scheme);
        }
        let (scheme, rest) = text.split_at(scheme.len() + ":".len());
        let rest = rest.strip_prefix("//").ok_or(TargetError::Malformed)?;
        let (authority, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if authority.is_empty() {
            return Err(TargetError::Malformed);
        }
        if authority.contains('@') {
            return Err(TargetError::Userinfo);
        }
        let (host, port) = split_port(authority)?;
        Ok(Self { scheme, host, port, rest })
    }

    /// The URL again, with `host` for its own and without any non-ASCII.
    fn join(&self, host: &str) -> String {
        let (colon, port) = self.port.map_or(("", ""), |port| (":", port));
        // Control characters are refused before, so only non-ASCII is escaped.
        let rest = utf8_percent_encode(self.rest, CONTROLS);
        format!("{}//{host}{colon}{port}{rest}", self.scheme)
    }
}

fn check_characters(text: &str) -> Result<(), TargetError> {
    for c in text.chars() {
        // U+0085 and the ASCII line breaks are both; a space is no control character.
        if c.is_control() {
            return Err(TargetError::ControlCharacter);
        }
        if c.is_whitespace() {
            return Err(TargetError::WhiteSpace);
        }
        if c == '\\' {
            return Err(TargetError::Backslash);
        }
    }
    Ok(())
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
}

fn split_port(authority: &str) -> Result<(&str, Option<&str>), TargetError> {
    let host_end = match authority.starts_with('[') {
        true => authority.find(']').ok_or(TargetError::Host)? + 1,
        false => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, rest) = authority.split_at(host_end);
    match rest.strip_prefix(':') {
        Some(port) => Ok((host, Some(port))),
        None if rest.is_empty() => Ok((host, None)),
        None => Err(TargetError::Host),
    }
}

fn parse_port(text: &str) -> Result<u16, TargetError> {
    // No sign, no leading zero: what `u16` reads beyond that, parsers read in two ways.
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    if plain { text.parse().map_err(|_| TargetError::Port) } else { Err(TargetError::Port) }
}

/// The host as it goes out: as sent if it is ASCII, else its IDNA form. It is
/// not percent-decoded, as lenient parsers do: a `%` is refused.
fn ascii_host(sent: &str) -> Result<Cow<'_, str>, TargetError> {
    if sent.starts_with('[') {
        // Left to `Host::parse`, which knows no zone ids.
        return Ok(sent.into());
    }
    let mapped = Uts46::new().to_ascii(
        sent.as_bytes(),
        AsciiDenyList::URL,
        // Before and after the mapping: `-bücher` begins with a hyphen, its punycode doesn't.
        Hyphens::CheckFirstLast,
        DnsLength::Ignore,
    );
    let mapped = mapped.map_err(|_| TargetError::Host)?;
    let host = if sent.is_ascii() { Cow::Borrowed(sent) } else { mapped };
    let labels = host.strip_suffix('.').unwrap_or(&host);
    if labels.len() <= MAX_HOST && labels.split('.').all(is_label) { Ok(host) } else { Err(TargetError::Host) }
}

fn is_label(label: &str) -> bool {
    (1..=MAX_LABEL).contains(&label.len())
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

/// Whether the `url` crate reads the same host and port from `whole`.
fn cross_check(whole: &str, host: &Host, port: Option<u16>) -> Result<(), TargetError> {
    let url = Url::parse(whole).map_err(|_| TargetError::Malformed)?;
    let same_host = url.host().map(|h| h.to_owned()).as_ref() == Some(host);
    let default = if url.scheme() == "https" { 443 } else { 80 };
    let same_port = url.port_or_known_default() == Some(port.unwrap_or(default));
    let no_user = url.username().is_empty() && url.password().is_none();
    if same_host && same_port && no_user { Ok(()) } else { Err(TargetError::Malformed) }
}

/// Whether `name`, in lower case, is `localhost` or below it.
fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name == "localhost" || name.ends_with(".localhost")
}

/// `host` in the one spelling in which hosts are compared: no trailing dot,
/// and an IPv4 address that is written as an IPv6 one as itself.
fn comparable(host: Host) -> Host {
    match host {
        Host::Domain(name) => Host::Domain(name.strip_suffix('.').map_or_else(|| name.clone(), str::to_owned)),
        Host::Ipv6(address) => address::embedded_v4(address).map_or(Host::Ipv6(address), Host::Ipv4),
        Host::Ipv4(address) => Host::Ipv4(address),
    }
}

/// The host that `text` names, in any spelling that a target may have and an IPv6 address also without brackets, in
/// the one in which hosts are compared.
pub(crate) fn host_named(text: &str) -> Option<Host> {
    if let Ok(address) = text.parse() {
        return Some(comparable(Host::Ipv6(address)));
    }
    let host = Host::parse(&ascii_host(text).ok()?).ok()?;
    Some(comparable(host))
}

impl TargetUrl {
    /// Most bytes of a target, as it is stored and sent.
    pub const MAX_LEN: usize = 8_192;

    /// Whether `text` is an address of the web by its scheme, as every target is that was checked.
    #[must_use]
    pub fn is_web(text: &str) -> bool {
        let begins = |scheme: &str| text.get(..scheme.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(scheme));
        begins("http://") || begins("https://")
    }

    /// The host that it leads to, in the spelling in which hosts are compared. `None` = no target that was checked.
    pub(crate) fn host(&self) -> Option<Host> {
        let parts = Parts::split(self.as_str()).ok()?;
        Some(comparable(Host::parse(parts.host).ok()?))
    }

    /// Takes a target out of a store, where only checked ones are put. `None`
    /// when it can't have been one: then what is stored is corrupt. The policy
    /// is not applied again: it may have changed since.
    #[must_use]
    pub fn from_stored(text: &str) -> Option<Self> {
        let sound = text.len() <= Self::MAX_LEN && text.bytes().all(|b| b.is_ascii_graphic());
        sound.then(|| Self(bytes::Bytes::copy_from_slice(text.as_bytes())))
    }

    /// The target as text, as it goes out.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Both constructors take text, so this never falls back.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// A target out of bytes that are a share of a target's own.
    pub(crate) fn from_share(bytes: bytes::Bytes) -> Self {
        Self(bytes)
    }

    /// The same bytes for a `Location` header: no share more, none less.
    #[must_use]
    pub fn into_bytes(self) -> bytes::Bytes {
        self.0
    }

    /// The same bytes, shared.
    #[must_use]
    pub fn as_bytes(&self) -> &bytes::Bytes {
        &self.0
    }
}

impl fmt::Debug for TargetUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TargetUrl({})", self.as_str())
    }
}
