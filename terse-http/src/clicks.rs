//! The click of a redirect: what its request tells, noted before the answer leaves.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_http::{HttpMessage, Method, Request};
use terse_core::click::{Click, ClickRecorder, ClickRecording, SEAL_CHECK_MS, Signals};
use terse_core::metrics::ClickCounts;
use terse_core::{Timestamp, Version};
use tokio::task::spawn_local;
use tokio::time::{MissedTickBehavior, interval};

use crate::State;
use crate::client::TrustedProxies;

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

    /// Notes that `request` is sent to the link of its only path segment, as it was in `version`. HEAD is not counted.
    pub(crate) fn note(&self, request: &Request, version: Version, at: Timestamp) {
        if *request.method() == Method::HEAD {
            return;
        }
        let code = request.path().strip_prefix('/').unwrap_or_default();
        let client = self.proxies.client(request.peer_addr(), request.headers());
        let mut click = Click {
            at,
            code,
            version,
            client,
            referrer: b"",
            user_agent: b"",
            language: b"",
            signals: Signals::default(),
        };
        // One walk costs less than a look-up for each of them, most of which find nothing.
        for (name, value) in request.headers() {
            let value = value.as_bytes();
            match name.as_str() {
                "referer" => click.referrer = first(click.referrer, value),
                "user-agent" => click.user_agent = first(click.user_agent, value),
                "accept-language" => click.language = first(click.language, value),
                "dnt" => click.signals.do_not_track |= value == b"1",
                "sec-gpc" => click.signals.global_privacy_control |= value == b"1",
                "sec-purpose" | "purpose" | "x-purpose" | "x-moz" => click.signals.prefetch |= is_ahead(value),
                _ => {}
            }
        }
        match self.recorder.borrow_mut().record(&click) {
            Ok(()) => self.counts.recorded(),
            Err(reason) => self.counts.dropped(reason),
        }
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
