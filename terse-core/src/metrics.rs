//! Every metric of terse, and its name. The names are a contract: dashboards,
//! alerts, drills and load tests read them. What each tells stands in [`table`].

mod bus;
mod cache;
mod clicks;
mod dead;
mod events;
mod families;
mod limits;
mod overload;
mod redirects;
pub mod table;
mod workers;

use std::sync::Arc;

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder,
};

use self::cache::CacheGauges;
use self::clicks::ClickSums;
use self::dead::DeadGauges;
use self::events::EventGauges;
use self::overload::OverloadGauges;
use self::redirects::RedirectSums;
use self::table::{histogram_opts, opts};

pub use self::bus::{BusGauges, PartsCounted};
pub use self::cache::CacheReading;
pub use self::clicks::ClickCounts;
pub use self::dead::StoppedAt;
pub use self::limits::LimitCounts;
pub use self::overload::{RefusedConnections, Shed};
pub use self::redirects::RedirectCounts;

/// Redirects answered, by tier and outcome.
pub const REDIRECTS: &str = "terse_redirects_total";
/// Seconds from request to answer of redirects.
pub const REDIRECT_SECONDS: &str = "terse_redirect_seconds";
/// Links created.
pub const LINKS_CREATED: &str = "terse_links_created_total";
/// Seconds of a store request, by shard and operation.
pub const STORE_REQUEST_SECONDS: &str = "terse_store_request_seconds";
/// How far this server's clock is ahead of a store's, in seconds, by shard; negative = behind.
pub const STORE_CLOCK_OFFSET: &str = "terse_store_clock_offset_seconds";
/// What a breaker does: 0 closed, 1 half-open, 2 open.
pub const BREAKER_STATE: &str = "terse_breaker_state";
/// A breaker's changes of state, by the state that they led to.
pub const BREAKER_TRANSITIONS: &str = "terse_breaker_transitions_total";
/// Calls that have a place in a bulkhead now.
pub const BULKHEAD_IN_USE: &str = "terse_bulkhead_in_use";
/// Calls to the shared cache, by operation and how they ended.
pub const CACHE_REQUESTS: &str = "terse_cache_requests_total";
/// Links in memory, fresh or not.
pub const CACHE_LINKS: &str = "terse_cache_links";
/// Bytes that links in memory take, by estimate.
pub const CACHE_BYTES: &str = "terse_cache_bytes";
/// Codes that changed lately whose least version is remembered.
pub const CACHE_MARKED_CODES: &str = "terse_cache_marked_codes";
/// Whether nothing is taken from the shared cache now: 0 or 1.
pub const CACHE_BYPASSED: &str = "terse_cache_bypassed";
/// Reads of change marks that there were too many of.
pub const CACHE_OVERFLOWS: &str = "terse_cache_overflows_total";
/// How often the shared cache began to be bypassed.
pub const CACHE_BYPASSES: &str = "terse_cache_bypasses_total";
/// Hosts that no link may lead to.
pub const BLOCKED_HOSTS: &str = "terse_blocked_hosts";
/// Whether the hosts that admins block were read from the store since the start: 0 or 1.
pub const BLOCKED_HOSTS_KNOWN: &str = "terse_blocked_hosts_known";
/// Whether what is remembered of a shard is in step with its change marks, 0 or 1, by shard that other servers change.
pub const MARKS_FRESH: &str = "terse_marks_fresh";
/// Requests and items that a rate limit refused, by limit.
pub const RATE_LIMITED: &str = "terse_rate_limited_total";
/// Decisions about a shared rate limit that a process made alone, because the shared cache was of no use, by limit.
pub const LIMITS_ALONE: &str = "terse_limits_alone_total";
/// Calls that were refused because there are too many, by kind.
pub const SHED: &str = "terse_shed_total";
/// How many calls may run at once, by the guard that they pass.
pub const CONCURRENCY_LIMIT: &str = "terse_concurrency_limit";
/// How many of these do.
pub const CONCURRENCY_IN_FLIGHT: &str = "terse_concurrency_in_flight";
/// Connections that were refused because their address has too many.
pub const CONNECTIONS_REFUSED: &str = "terse_connections_refused_total";
/// Calls that found a bulkhead full.
pub const BULKHEAD_REJECTED: &str = "terse_bulkhead_rejected_total";
/// Clicks written down.
pub const CLICKS_RECORDED: &str = "terse_clicks_recorded_total";
/// Clicks that could not be written down, by reason.
pub const CLICKS_DROPPED: &str = "terse_clicks_dropped_total";
/// Clicks that this server added to the read model.
pub const CLICKS_APPLIED: &str = "terse_clicks_applied_total";
/// Sealed blocks of clicks on this server's disk that wait for being relayed or counted.
pub const CLICK_BLOCKS_PENDING: &str = "terse_click_blocks_pending";
/// Seconds from a block's seal until this server had counted it, the latest one's.
pub const CLICK_LAG_SECONDS: &str = "terse_click_lag_seconds";
/// Blocks of clicks on this server's disk that were put aside, because nobody can decode them.
pub const CLICK_BLOCKS_ASIDE: &str = "terse_click_blocks_aside";
/// Bytes that they take.
pub const CLICK_BYTES_ASIDE: &str = "terse_click_bytes_aside";
/// Blocks that were put aside and are discarded, because they took more than they may.
pub const CLICK_BLOCKS_DISCARDED: &str = "terse_click_blocks_discarded_total";
/// Journals and streams of which this server can't count or publish clicks until somebody looks, by where they stand:
/// `gap` (blocks are gone), `projector`, `relay`.
pub const CLICKS_STOPPED: &str = "terse_clicks_stopped";
/// Link events, by what became of them: `told` or `dropped`.
pub const LINK_EVENTS: &str = "terse_link_events_total";
/// Bytes of link events that wait to be published.
pub const LINK_EVENT_BYTES: &str = "terse_link_event_bytes";
/// Whether the message broker is connected, 0 or 1, by side: the `relay` publishes clicks, the `reader` counts them.
pub const BUS_CONNECTED: &str = "terse_bus_connected";
/// Whether clicks stay on disk because counting is too far behind, or nobody can tell: 0 or 1.
pub const BUS_RELAY_HELD: &str = "terse_bus_relay_held";
/// Parts of blocks of clicks, by what became of them.
pub const BUS_PARTS: &str = "terse_bus_parts_total";
/// Parts of blocks that are published or about to be, and not confirmed.
pub const BUS_PARTS_WAITING: &str = "terse_bus_parts_waiting";
/// Partitions that this server counts.
pub const BUS_PARTITIONS_HELD: &str = "terse_bus_partitions_held";
/// Messages that this server put aside because nobody can decode them.
pub const BUS_DEAD_LETTERS: &str = "terse_bus_dead_letters_total";
/// The offset up to which a partition is counted, by whichever server.
pub const BUS_OFFSET: &str = "terse_bus_offset";
/// The time up to which a partition is counted, by whichever server, in seconds since 1970.
pub const BUS_COUNTED_UNTIL: &str = "terse_bus_counted_until_seconds";

/// How a redirect ended, as the metrics tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// 302 or the configured status.
    Found,
    /// 404.
    Missing,
    /// 410.
    Gone,
    /// 451.
    Blocked,
    /// 503.
    Unavailable,
}

impl Outcome {
    /// All outcomes, in the order of the metrics' label values.
    pub const ALL: [Self; 5] = [Self::Found, Self::Missing, Self::Gone, Self::Blocked, Self::Unavailable];

    /// The label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::Missing => "missing",
            Self::Gone => "gone",
            Self::Blocked => "blocked",
            Self::Unavailable => "unavailable",
        }
    }
}

/// The metrics of one server. There is no global registry, so that several
/// servers in one process (as in tests) don't share theirs.
pub struct Metrics {
    registry: Registry,
    redirects: RedirectSums,
    links_created: IntCounter,
    store_seconds: HistogramVec,
    store_clock_offset: GaugeVec,
    breaker_state: IntGaugeVec,
    breaker_transitions: IntCounterVec,
    bulkhead_in_use: IntGaugeVec,
    bulkhead_rejected: IntCounterVec,
    cache_requests: IntCounterVec,
    rate_limited: IntCounterVec,
    limits_alone: IntCounterVec,
    blocked_hosts_known: IntGauge,
    clicks: ClickSums,
    clicks_applied: IntCounter,
    click_blocks_pending: IntGauge,
    click_lag_seconds: Gauge,
    dead: DeadGauges,
    events: EventGauges,
    bus: BusGauges,
    overload: OverloadGauges,
}

/// Bounds of latency buckets, in seconds: 50 µs to 10 s.
const BUCKETS: [f64; 16] =
    [0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

impl Metrics {
    /// All metrics, at zero.
    ///
    /// # Panics
    /// Never: the names are constants that a test registers.
    #[must_use]
    #[allow(clippy::missing_panics_doc)]
    pub fn new() -> Self {
        let registry = Registry::new();
        let metrics = Self {
            redirects: registered(&registry, RedirectSums::new()),
            links_created: registered(&registry, IntCounter::with_opts(opts(LINKS_CREATED))),
            store_seconds: registered(
                &registry,
                HistogramVec::new(histogram_opts(STORE_REQUEST_SECONDS), &["shard", "operation"]),
            ),
            store_clock_offset: registered(&registry, GaugeVec::new(opts(STORE_CLOCK_OFFSET), &["shard"])),
            breaker_state: registered(&registry, IntGaugeVec::new(opts(BREAKER_STATE), &["name"])),
            breaker_transitions: registered(&registry, IntCounterVec::new(opts(BREAKER_TRANSITIONS), &["name", "to"])),
            bulkhead_in_use: registered(&registry, IntGaugeVec::new(opts(BULKHEAD_IN_USE), &["name"])),
            bulkhead_rejected: registered(&registry, IntCounterVec::new(opts(BULKHEAD_REJECTED), &["name"])),
            cache_requests: registered(&registry, IntCounterVec::new(opts(CACHE_REQUESTS), &["operation", "result"])),
            rate_limited: registered(&registry, IntCounterVec::new(opts(RATE_LIMITED), &["limit"])),
            limits_alone: registered(&registry, IntCounterVec::new(opts(LIMITS_ALONE), &["limit"])),
            blocked_hosts_known: registered(&registry, IntGauge::with_opts(opts(BLOCKED_HOSTS_KNOWN))),
            clicks: registered(&registry, ClickSums::new()),
            clicks_applied: registered(&registry, IntCounter::with_opts(opts(CLICKS_APPLIED))),
            click_blocks_pending: registered(&registry, IntGauge::with_opts(opts(CLICK_BLOCKS_PENDING))),
            click_lag_seconds: registered(&registry, Gauge::with_opts(opts(CLICK_LAG_SECONDS))),
            dead: DeadGauges::new(&registry),
            events: EventGauges::new(&registry),
            bus: BusGauges::new(&registry),
            overload: OverloadGauges::new(&registry),
            registry,
        };
        // A limit that is off refuses nothing, and says so.
        table::LIMIT.values.iter().for_each(|limit| drop(metrics.limit_counts(limit)));
        metrics
    }

    /// The counts of redirects that one web worker writes. Make one on the worker's thread and keep it.
    #[must_use]
    pub fn redirect_counts(&self) -> RedirectCounts {
        self.redirects.of_a_worker()
    }

    /// The counts of clicks that one web worker writes. Make one on the worker's thread and keep it.
    #[must_use]
    pub fn click_counts(&self) -> ClickCounts {
        self.clicks.of_a_worker()
    }

    /// Tells whether the hosts that admins block were read from the store.
    pub fn blocked_hosts_known(&self, known: bool) {
        self.blocked_hosts_known.set(known.into());
    }

    /// The clicks added to the read model. Look it up once and keep it.
    #[must_use]
    pub fn clicks_applied(&self) -> IntCounter {
        self.clicks_applied.clone()
    }

    /// The sealed blocks that wait for being relayed or counted. Look it up once and keep it.
    #[must_use]
    pub fn click_blocks_pending(&self) -> IntGauge {
        self.click_blocks_pending.clone()
    }

    /// The seconds from a block's seal until it was counted. Look it up once and keep it.
    #[must_use]
    pub fn click_lag_seconds(&self) -> Gauge {
        self.click_lag_seconds.clone()
    }

    /// What is told of the message broker.
    #[must_use]
    pub fn bus(&self) -> &BusGauges {
        &self.bus
    }

    /// Counts a created link.
    pub fn link_created(&self) {
        self.links_created.inc();
    }

    /// The latency histogram of one operation on one shard. Look it up once and keep it.
    #[must_use]
    pub fn store_requests(&self, shard: &str, operation: &str) -> Histogram {
        self.store_seconds.with_label_values(&[shard, operation])
    }

    /// Tells how far this server's clock is ahead of that of the store of `shard`, in seconds.
    pub fn store_clock_offset(&self, shard: &str, seconds: f64) {
        self.store_clock_offset.with_label_values(&[shard]).set(seconds);
    }

    /// The state of the breaker `name`: 0 closed, 1 half-open, 2 open. Look it up once and keep it.
    #[must_use]
    pub fn breaker_state(&self, name: &str) -> IntGauge {
        self.breaker_state.with_label_values(&[name])
    }

    /// The changes of the breaker `name` to the state `to` (`closed`, `half_open`, `open`). Look it up once and keep it.
    #[must_use]
    pub fn breaker_transitions(&self, name: &str, to: &str) -> IntCounter {
        self.breaker_transitions.with_label_values(&[name, to])
    }

    /// The calls that are in the bulkhead `name`. Look it up once and keep it.
    #[must_use]
    pub fn bulkhead_in_use(&self, name: &str) -> IntGauge {
        self.bulkhead_in_use.with_label_values(&[name])
    }

    /// The calls that found the bulkhead `name` full. Look it up once and keep it.
    #[must_use]
    pub fn bulkhead_rejected(&self, name: &str) -> IntCounter {
        self.bulkhead_rejected.with_label_values(&[name])
    }

    /// The calls of `operation` to the shared cache that ended as `result`. Look it up once and keep it.
    #[must_use]
    pub fn cache_requests(&self, operation: &str, result: &str) -> IntCounter {
        self.cache_requests.with_label_values(&[operation, result])
    }

    /// The counts of the rate limit `limit`. Make them once and keep them.
    #[must_use]
    pub fn limit_counts(&self, limit: &str) -> LimitCounts {
        let (refused, alone) = (&self.rate_limited, &self.limits_alone);
        LimitCounts { refused: refused.with_label_values(&[limit]), alone: alone.with_label_values(&[limit]) }
    }

    /// Shows what the cache holds: `read` is called at each scrape, so it must be cheap and never wait. `None` = it is
    /// gone, and shows nothing any more.
    ///
    /// # Errors
    /// When a cache is shown already.
    pub fn show_cache(
        &self,
        read: Arc<dyn Fn() -> Option<CacheReading> + Send + Sync>,
    ) -> Result<(), prometheus::Error> {
        self.registry.register(Box::new(CacheGauges::new(read)?))
    }

    /// All metrics in the Prometheus text format, version 0.0.4.
    ///
    /// # Errors
    /// When a metric can't be encoded.
    pub fn encode(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[allow(clippy::expect_used)]
fn registered<C: prometheus::core::Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<C>) -> C {
    let collector = made.expect("metric names are valid");
    registry.register(Box::new(collector.clone())).expect("metric names are distinct");
    collector
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ports::Tier;

    /// Frozen: dashboards, drills and load tests read these names.
    #[test]
    fn names_are_the_documented_ones() {
        let metrics = Metrics::new();
        metrics.store_requests("main", "resolve").observe(0.001);
        metrics.store_clock_offset("main", -0.25);
        metrics.breaker_state("main/read").set(2);
        metrics.breaker_transitions("main/read", "open").inc();
        metrics.bulkhead_in_use("main/read").inc();
        metrics.bulkhead_rejected("main/read").inc_by(3);
        metrics.cache_requests("get", "hit").inc();
        metrics.limit_counts("create").refused(3);
        metrics.limit_counts("create").decided_alone();
        metrics.blocked_hosts_known(true);
        metrics.clicks_applied().inc_by(7);
        metrics.click_blocks_pending().set(4);
        metrics.click_lag_seconds().set(0.25);
        let text = metrics.encode().unwrap();
        for line in [
            "# TYPE terse_redirects_total counter",
            "# TYPE terse_redirect_seconds histogram",
            "# TYPE terse_links_created_total counter",
            "# TYPE terse_store_request_seconds histogram",
            "terse_store_request_seconds_count{operation=\"resolve\",shard=\"main\"} 1",
            "# TYPE terse_store_clock_offset_seconds gauge",
            "terse_store_clock_offset_seconds{shard=\"main\"} -0.25",
            "# TYPE terse_breaker_state gauge",
            "terse_breaker_state{name=\"main/read\"} 2",
            "# TYPE terse_breaker_transitions_total counter",
            "terse_breaker_transitions_total{name=\"main/read\",to=\"open\"} 1",
            "# TYPE terse_bulkhead_in_use gauge",
            "terse_bulkhead_in_use{name=\"main/read\"} 1",
            "# TYPE terse_bulkhead_rejected_total counter",
            "terse_bulkhead_rejected_total{name=\"main/read\"} 3",
            "# TYPE terse_cache_requests_total counter",
            "terse_cache_requests_total{operation=\"get\",result=\"hit\"} 1",
            "terse_rate_limited_total{limit=\"create\"} 3",
            "terse_limits_alone_total{limit=\"create\"} 1",
            "terse_blocked_hosts_known 1",
            "# TYPE terse_clicks_applied_total counter",
            "terse_clicks_applied_total 7",
            "# TYPE terse_click_blocks_pending gauge",
            "terse_click_blocks_pending 4",
            "# TYPE terse_click_lag_seconds gauge",
            "terse_click_lag_seconds 0.25",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn labels_stand_in_the_order_of_their_enum() {
        for (position, tier) in Tier::ALL.into_iter().enumerate() {
            assert_eq!(tier as usize, position);
        }
        for (position, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, position);
        }
        assert_eq!(Tier::ALL.map(Tier::as_str), ["l1", "l2", "store", "stale", "none"]);
        assert_eq!(Outcome::ALL.map(Outcome::as_str), ["found", "missing", "gone", "blocked", "unavailable"]);
    }

    #[test]
    fn every_redirect_counts_under_its_own_tier_and_outcome() {
        let metrics = Metrics::new();
        let counts = metrics.redirect_counts();
        let mut expected = 0;
        for tier in Tier::ALL {
            for outcome in Outcome::ALL {
                expected += 1;
                (0..expected).for_each(|_| counts.count(tier, outcome, Duration::from_micros(5)));
            }
        }
        let text = metrics.encode().unwrap();
        let mut count = 0;
        for tier in Tier::ALL {
            for outcome in Outcome::ALL {
                count += 1;
                let (tier, outcome) = (tier.as_str(), outcome.as_str());
                let line = format!("terse_redirects_total{{outcome=\"{outcome}\",tier=\"{tier}\"}} {count}\n");
                assert!(text.contains(&line), "{line} is not in\n{text}");
            }
        }
        assert!(text.contains(&format!("terse_redirect_seconds_count {}\n", 25 * 26 / 2)));
    }

    #[test]
    fn all_label_values_are_there_before_the_first_redirect() {
        let text = Metrics::default().encode().unwrap();
        assert_eq!(text.lines().filter(|line| line.starts_with("terse_redirects_total{")).count(), 25);
        assert!(text.contains("terse_links_created_total 0\n"));
    }

    #[test]
    fn limits_are_there_with_zero_before_anything_is_refused_or_if_they_are_off() {
        let text = Metrics::new().encode().unwrap();
        for name in [RATE_LIMITED, LIMITS_ALONE] {
            for limit in ["create", "api", "redirect", "not_found", "quota"] {
                assert!(text.contains(&format!("{name}{{limit=\"{limit}\"}} 0\n")), "{name} of {limit}: {text}");
            }
        }
    }

    #[test]
    fn servers_in_one_process_count_apart() {
        let (one, other) = (Metrics::new(), Metrics::new());
        one.link_created();
        one.link_created();
        assert!(one.encode().unwrap().contains("terse_links_created_total 2\n"));
        assert!(other.encode().unwrap().contains("terse_links_created_total 0\n"));
    }
}
