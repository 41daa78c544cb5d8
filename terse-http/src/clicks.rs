//! The click of a redirect: what its request tells, noted before the answer leaves.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_http::header::HeaderMap;
use actix_http::{HttpMessage, Method, Request};
use terse_core::click::{Click, ClickRecorder, ClickRecording, SEAL_CHECK_MS, Signals};
use terse_core::metrics::ClickCounts;
use terse_core::{Timestamp, Version};
use tokio::task::spawn_local;
use tokio::time::{MissedTickBehavior, interval};

use crate::State;
use crate::client::TrustedProxies;
use crate::headers::Headers;

/// A request for a link, as far as its click tells of it.
pub(crate) struct Asked<'r, H: ?Sized> {
    /// Only the head of the answer is wanted. That is nobody who follows the link.
    pub(crate) head: bool,
    pub(crate) code: &'r str,
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) headers: &'r H,
}

impl<'r> From<&'r Request> for Asked<'r, HeaderMap> {
    /// Of `request`, whose path has one segment.
    fn from(request: &'r Request) -> Self {
        Self {
            head: *request.method() == Method::HEAD,
            code: request.path().strip_prefix('/').unwrap_or_default(),
            peer: request.peer_addr(),
            headers: request.headers(),
        }
    }
}

/// Notes the clicks of one web worker.
pub(crate) struct Clicks {
    recorder: RefCell<Box<dyn ClickRecorder>>,
    counts: ClickCounts,
    proxies: TrustedProxies,
}

impl Clicks {
    /// What notes the clicks of the calling thread, which is a web worker's, and keeps sealing what is old until the
    /// last handle is gone. Then what is open is sealed.
    pub(crate) fn of_this_worker(recording: &dyn ClickRecording, state: &State) -> Rc<Self> {
        let recorder = RefCell::new(recording.of_a_worker());
        let (counts, proxies) = (state.metrics.click_counts(), state.settings.trusted_proxies.clone());
        let clicks = Rc::new(Self { recorder, counts, proxies });
        let clock = Arc::clone(&state.clock);
        let weak = Rc::downgrade(&clicks);
        spawn_local(async move {
            let mut tick = interval(Duration::from_millis(SEAL_CHECK_MS));
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                let Some(clicks) = weak.upgrade() else { return };
                clicks.recorder.borrow_mut().seal_if_old(clock.monotonic_ms());
            }
        });
        clicks
    }

    /// Notes that who `asked` is sent to the link, as it was in `version`. HEAD is not counted.
    pub(crate) fn note<H: Headers + ?Sized>(&self, asked: &Asked<'_, H>, version: Version, at: Timestamp) {
        if asked.head {
            return;
        }
        let mut click = Click {
            at,
            code: asked.code,
            version,
            client: self.proxies.client(asked.peer, asked.headers),
            referrer: b"",
            user_agent: b"",
            language: b"",
            signals: Signals::default(),
        };
        // One walk costs less than a look-up for each of them, most of which find nothing.
        for (name, value) in asked.headers.each() {
            tell(&mut click, name, value);
        }
        match self.recorder.borrow_mut().record(&click) {
            Ok(()) => self.counts.recorded(),
            Err(reason) => self.counts.dropped(reason),
        }
    }
}

/// Adds to `click` what the header `name` says, in whatever case it is written.
fn tell<'a>(click: &mut Click<'a>, name: &str, value: &'a [u8]) {
    let is = |other: &str| name.eq_ignore_ascii_case(other);
    // Most headers differ in length from all of these.
    match name.len() {
        3 if is("dnt") => click.signals.do_not_track |= value == b"1",
        5 if is("x-moz") => click.signals.prefetch |= is_ahead(value),
        7 if is("referer") => click.referrer = first(click.referrer, value),
        7 if is("sec-gpc") => click.signals.global_privacy_control |= value == b"1",
        7 if is("purpose") => click.signals.prefetch |= is_ahead(value),
        9 if is("x-purpose") => click.signals.prefetch |= is_ahead(value),
        10 if is("user-agent") => click.user_agent = first(click.user_agent, value),
        11 if is("sec-purpose") => click.signals.prefetch |= is_ahead(value),
        15 if is("accept-language") => click.language = first(click.language, value),
        _ => {}
    }
}

/// Of a header that was sent more than once, the first counts.
fn first<'a>(before: &'a [u8], value: &'a [u8]) -> &'a [u8] {
    if before.is_empty() { value } else { before }
}

/// Whether a purpose is one of those for which nobody looks at the page yet.
fn is_ahead(purpose: &[u8]) -> bool {
    let word = purpose.split(|byte| matches!(byte, b';' | b',' | b' ')).next().unwrap_or_default();
    [&b"prefetch"[..], b"preview", b"prerender"].iter().any(|ahead| word.eq_ignore_ascii_case(ahead))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purpose_is_read_by_its_first_word() {
        for ahead in ["prefetch", "Prefetch;prerender", "prefetch;anonymous-client-ip", "preview", "PRERENDER, x"] {
            assert!(is_ahead(ahead.as_bytes()), "{ahead}");
        }
        for other in ["", "prefetcher", "document", " prefetch"] {
            assert!(!is_ahead(other.as_bytes()), "{other}");
        }
    }
}
