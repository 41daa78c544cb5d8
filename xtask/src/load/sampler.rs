//! What the server and the generator use and tell while the load runs: a look a second.
//!
//! Bounds: `LOOKS`; a look that fails (the server is ending, `/metrics` is elsewhere) leaves out what it didn't see.

use std::net::SocketAddr;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, anyhow};
use serde_json::{Map, Value, json};

use super::scrape::Scrape;
use crate::bench::server::ask;
use crate::bench::usage::{CpuTime, memory};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// Looks at most: those of a day. Later ones are left out.
const LOOKS: usize = 86_400;

/// Who is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Watched {
    /// The server's process, if it runs here.
    pub server: Option<u32>,
    /// Where it listens.
    pub address: SocketAddr,
    /// The generator's process.
    pub generator: u32,
}

/// One look.
struct Look {
    at: Instant,
    unix_ms: u64,
    server: Option<CpuTime>,
    generator: Option<CpuTime>,
    memory: Option<u64>,
    scrape: Option<Scrape>,
}

impl Look {
    fn at(watched: &Watched) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let text = ask(watched.address, "/metrics").ok().filter(|reply| reply.status == 200);
        Self {
            at: Instant::now(),
            unix_ms: u64::try_from(since.as_millis()).unwrap_or_default(),
            server: watched.server.and_then(|pid| CpuTime::of(pid).ok()),
            generator: CpuTime::of(watched.generator).ok(),
            memory: watched.server.and_then(|pid| memory(pid).ok()).map(|(now, _)| now),
            scrape: text.map(|reply| Scrape::parse(&String::from_utf8_lossy(&reply.body))),
        }
    }

    /// What happened since `earlier`, per second, and what is now.
    fn told_since(&self, earlier: &Self) -> Value {
        let seconds = (self.at - earlier.at).as_secs_f64();
        let busy = |now: &Option<CpuTime>, before: &Option<CpuTime>| {
            Some(now.as_ref()?.since(before.as_ref()?).as_secs_f64() / seconds * 100.0)
        };
        let mut told = json!({
            "unix_ms": self.unix_ms,
            "server_cpu_percent": busy(&self.server, &earlier.server),
            "generator_cpu_percent": busy(&self.generator, &earlier.generator),
            "server_memory_mb": self.memory.map(|bytes| bytes as f64 / 1e6),
        });
        if let (Some(now), Some(before)) = (&self.scrape, &earlier.scrape) {
            merge(&mut told, server_told(now, before, seconds));
        }
        told
    }
}

/// What `/metrics` tells of the time between two looks.
fn server_told(now: &Scrape, before: &Scrape, seconds: f64) -> Value {
    let earlier = before.by("terse_redirects_total", "tier");
    let per_second = |tier: &str, count: f64| ((count - earlier.get(tier).unwrap_or(&0.0)) / seconds).max(0.0);
    let tiers: Map<String, Value> = now
        .by("terse_redirects_total", "tier")
        .into_iter()
        .map(|(tier, count)| (tier.clone(), per_second(&tier, count).into()))
        .collect();
    let rate = |tier: &str| tiers.get(tier).and_then(Value::as_f64).unwrap_or(0.0);
    let asked: f64 = ["l1", "l2", "store", "stale"].into_iter().map(rate).sum();
    let hits = (asked > 0.0).then(|| (rate("l1") + rate("l2")) / asked * 100.0);
    let since = |name: &str| Some(((now.sum(name)? - before.sum(name).unwrap_or(0.0)) / seconds).max(0.0));
    json!({
        "hit_percent": hits,
        "tiers": tiers,
        "breakers": now.by("terse_breaker_state", "name"),
        "created_per_second": since("terse_links_created_total"),
        "limited_per_second": since("terse_rate_limited_total"),
        "clicks_per_second": since("terse_clicks_recorded_total"),
        "clicks_dropped_per_second": since("terse_clicks_dropped_total"),
        "lag_seconds": now.sum("terse_click_lag_seconds"),
        "blocks_pending": now.sum("terse_click_blocks_pending"),
    })
}

fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}

/// Looks until it is stopped.
pub struct Sampler {
    stop: mpsc::Sender<()>,
    thread: JoinHandle<Vec<Value>>,
}

impl Sampler {
    /// Begins to look.
    ///
    /// # Errors
    /// When there is no thread for it.
    pub fn start(watched: Watched) -> Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let look = move || {
            let (mut told, mut last) = (Vec::new(), Look::at(&watched));
            while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                let now = Look::at(&watched);
                if told.len() < LOOKS {
                    told.push(now.told_since(&last));
                }
                last = now;
            }
            told
        };
        let thread = thread::Builder::new().name("sampler".into()).spawn(look).context("a thread for looking")?;
        Ok(Self { stop, thread })
    }

    /// Stops, and returns what was seen.
    ///
    /// # Errors
    /// When looking failed.
    pub fn stop(self) -> Result<Vec<Value>> {
        // It fails only when the thread has ended, which the next line tells.
        let _ = self.stop.send(());
        self.thread.join().map_err(|_| anyhow!("looking at the server failed"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(before: &str, now: &str, seconds: f64) -> Value {
        server_told(&Scrape::parse(now), &Scrape::parse(before), seconds)
    }

    #[test]
    fn counts_become_rates_and_the_hit_ratio_is_that_of_the_time_between() {
        let before = "terse_redirects_total{tier=\"l1\",outcome=\"found\"} 100\n\
            terse_redirects_total{tier=\"store\",outcome=\"found\"} 100\nterse_links_created_total 5\n";
        let now = "terse_redirects_total{tier=\"l1\",outcome=\"found\"} 280\n\
            terse_redirects_total{tier=\"store\",outcome=\"found\"} 120\nterse_links_created_total 9\n\
            terse_breaker_state{name=\"main/read\"} 2\nterse_click_lag_seconds 0.5\n";
        let told = told(before, now, 2.0);
        assert_eq!((&told["tiers"]["l1"], &told["tiers"]["store"]), (&json!(90.0), &json!(10.0)));
        assert_eq!((&told["hit_percent"], &told["created_per_second"]), (&json!(90.0), &json!(2.0)));
        assert_eq!((&told["breakers"]["main/read"], &told["lag_seconds"]), (&json!(2.0), &json!(0.5)));
        assert!(told["blocks_pending"].is_null(), "what isn't told is not zero");
    }

    #[test]
    fn a_server_that_started_anew_has_no_negative_rates_and_no_redirects_no_ratio() {
        let told = told("terse_links_created_total 50\n", "terse_links_created_total 1\n", 1.0);
        assert_eq!(told["created_per_second"], 0.0);
        assert!(told["hit_percent"].is_null());
    }

    #[test]
    fn who_is_gone_is_left_out() {
        let nobody = Watched { server: None, address: "127.0.0.1:1".parse().unwrap(), generator: std::process::id() };
        let (first, second) = (Look::at(&nobody), Look::at(&nobody));
        let told = second.told_since(&first);
        assert!(told["server_cpu_percent"].is_null() && told["tiers"].is_null(), "{told}");
        assert!(told["unix_ms"].as_u64() > Some(1_700_000_000_000));
        let sampler = Sampler::start(nobody).unwrap();
        assert!(sampler.stop().unwrap().is_empty(), "stopped within the first second");
    }
}
