//! The headers of a request, whoever has parsed it.

use actix_http::header::HeaderMap;

/// Headers that can be gone through.
pub(crate) trait Headers {
    /// Each header's name, in any case, and its value. Those of one name come in the order in which they were sent.
    fn each(&self) -> impl Iterator<Item = (&str, &[u8])>;
}

impl Headers for HeaderMap {
    fn each(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.iter().map(|(name, value)| (name.as_str(), value.as_bytes()))
    }
}

impl Headers for [httparse::Header<'_>] {
    fn each(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.iter().map(|header| (header.name, header.value))
    }
}
