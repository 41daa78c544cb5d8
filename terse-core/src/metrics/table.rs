//! What each metric is: its kind, its labels, its unit, and what it means. `/metrics` has its help texts from here, and
//! so has the reference of metrics; a metric without a row here can't be registered.

use prometheus::{HistogramOpts, Opts};

use super::{
    BLOCKED_HOSTS, BLOCKED_HOSTS_KNOWN, BREAKER_STATE, BREAKER_TRANSITIONS, BUCKETS, BULKHEAD_IN_USE,
    BULKHEAD_REJECTED, BUS_CONNECTED, BUS_COUNTED_UNTIL, BUS_DEAD_LETTERS, BUS_OFFSET, BUS_PARTITIONS_HELD, BUS_PARTS,
    BUS_PARTS_WAITING, BUS_RELAY_HELD, CACHE_BYPASSED, CACHE_BYPASSES, CACHE_BYTES, CACHE_LINKS, CACHE_MARKED_CODES,
    CACHE_OVERFLOWS, CACHE_REQUESTS, CLICK_BLOCKS_ASIDE, CLICK_BLOCKS_DISCARDED, CLICK_BLOCKS_PENDING,
    CLICK_BYTES_ASIDE, CLICK_LAG_SECONDS, CLICKS_APPLIED, CLICKS_DROPPED, CLICKS_RECORDED, CLICKS_STOPPED,
    CONCURRENCY_IN_FLIGHT, CONCURRENCY_LIMIT, CONNECTIONS_REFUSED, LIMITS_ALONE, LINK_EVENT_BYTES, LINK_EVENTS,
    LINKS_CREATED, MARKS_FRESH, RATE_LIMITED, REDIRECT_SECONDS, REDIRECTS, SHED, STORE_CLOCK_OFFSET,
    STORE_REQUEST_SECONDS,
};

/// What kind of number a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, from zero at each start.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by size, in buckets.
    Histogram,
}

impl Kind {
    /// The word of the text format.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Which servers show a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShownBy {
    /// All of them.
    All,
    /// Those whose links are in a keyspace.
    Cql,
    /// Those with a shared cache.
    Redis,
    /// Those with a message broker.
    Broker,
}

impl ShownBy {
    /// What such a server has, in words; empty for all.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::All => "",
            Self::Cql => "with links in a keyspace",
            Self::Redis => "with a shared cache",
            Self::Broker => "with a message broker",
        }
    }
}

/// A label of a metric.
#[derive(Clone, Copy, Debug)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// Its values, if there are no others.
    pub values: &'static [&'static str],
    /// What it tells, if values are not all there is to say.
    pub about: &'static str,
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Described {
    /// Its name.
    pub name: &'static str,
    /// What kind of number it is.
    pub kind: Kind,
    /// Its labels.
    pub labels: &'static [Label],
    /// What it counts, in the plural.
    pub unit: &'static str,
    /// What it tells.
    pub help: &'static str,
    /// Which servers show it.
    pub shown_by: ShownBy,
}

impl Described {
    const fn new(
        kind: Kind,
        name: &'static str,
        labels: &'static [Label],
        unit: &'static str,
        help: &'static str,
    ) -> Self {
        Self { name, kind, labels, unit, help, shown_by: ShownBy::All }
    }

    const fn only(self, shown_by: ShownBy) -> Self {
        Self { shown_by, ..self }
    }
}

const fn counter(name: &'static str, labels: &'static [Label], unit: &'static str, help: &'static str) -> Described {
    Described::new(Kind::Counter, name, labels, unit, help)
}

const fn gauge(name: &'static str, labels: &'static [Label], unit: &'static str, help: &'static str) -> Described {
    Described::new(Kind::Gauge, name, labels, unit, help)
}

const fn histogram(name: &'static str, labels: &'static [Label], help: &'static str) -> Described {
    Described::new(Kind::Histogram, name, labels, "seconds", help)
}

const fn label(name: &'static str, values: &'static [&'static str], about: &'static str) -> Label {
    Label { name, values, about }
}

const TIER: Label =
    label("tier", &["l1", "l2", "store", "stale", "none"], "who knew the link; `none`: nobody was asked");
const REDIRECT_OUTCOME: Label = label(
    "outcome",
    &["found", "missing", "gone", "blocked", "unavailable"],
    "302 (or as configured), 404, 410, 451, 503",
);
const SHARD: Label = label("shard", &[], "the shard's name; `main` unless the file says otherwise");
const OPERATION: Label =
    label("operation", &[], "`resolve` for redirects, `insert`, `update`, `get`, `list`, `marks`, …");
const BREAKER: Label = label("name", &[], "`SHARD/read`, `SHARD/write`, `stats`, `cache`");
const BULKHEAD: Label = label("name", &[], "`SHARD/read`, `SHARD/catalog`, `SHARD/marks`, `SHARD/write`, `stats`");
const GATE: Label = label("name", &[], "`SHARD/read` for redirects, `SHARD/write` for creates and edits");
const TO: Label = label("to", &["closed", "half_open", "open"], "the state that it came to");
const CACHE_OPERATION: Label = label("operation", &["get", "put", "drop", "draw"], "`draw` is of a rate limit");
const CACHE_RESULT: Label = label(
    "result",
    &[
        "hit",
        "miss",
        "expired",
        "unreadable",
        "later",
        "kept",
        "newer",
        "dropped",
        "nothing",
        "granted",
        "refused",
        "timeout",
        "fault",
        "open",
        "full",
        "unconnected",
    ],
    "the last five are faults; `open`: not asked, for its breaker is",
);
pub(super) const LIMIT: Label =
    label("limit", &["create", "api", "redirect", "not_found", "quota"], "0 of those that are off");
const SHED_KIND: Label = label("kind", &["stats", "create", "redirect"], "the first goes first");
const REASON: Label = label(
    "reason",
    &["budget", "no_block", "fault"],
    "journal_bytes or the disk is used up; no prepared block was there in time; the disk failed",
);
const STOPPED_AT: Label =
    label("at", &["gap", "projector", "relay"], "blocks are gone; it can't be counted; it can't be published");
const EVENT_OUTCOME: Label = label("outcome", &["told", "dropped"], "");
const SIDE: Label = label("side", &["relay", "reader"], "the relay publishes clicks, the reader counts them");
const PART_OUTCOME: Label = label("outcome", &["published", "confirmed", "returned", "refused"], "");
const PARTITION: Label = label("partition", &[], "the stream's number, from 0");

const REDIRECTING: &[Described] = &[
    counter(REDIRECTS, &[TIER, REDIRECT_OUTCOME], "redirects", "redirects answered"),
    histogram(REDIRECT_SECONDS, &[], "time from a redirect's request to its answer, all outcomes together"),
    counter(LINKS_CREATED, &[], "links", "links created by this server"),
    counter(
        CONNECTIONS_REFUSED,
        &[],
        "connections",
        "connections closed unanswered because their address has as many as it may",
    ),
];

const STORES: &[Described] = &[
    histogram(STORE_REQUEST_SECONDS, &[SHARD, OPERATION], "time of a store request, from its admission to its answer"),
    gauge(BREAKER_STATE, &[BREAKER], "0, 1, 2", "what a breaker does: 0 closed, 1 half-open, 2 open"),
    counter(BREAKER_TRANSITIONS, &[BREAKER, TO], "changes", "changes of a breaker's state"),
    gauge(BULKHEAD_IN_USE, &[BULKHEAD], "calls", "calls that have a place in a bulkhead now"),
    counter(BULKHEAD_REJECTED, &[BULKHEAD], "calls", "calls that found a bulkhead full"),
    gauge(
        STORE_CLOCK_OFFSET,
        &[SHARD],
        "seconds",
        "how far this server's clock is ahead of a store's, as last measured; negative: behind",
    )
    .only(ShownBy::Cql),
];

const CACHES: &[Described] = &[
    gauge(CACHE_LINKS, &[], "links", "links in memory, fresh or not"),
    gauge(CACHE_BYTES, &[], "bytes", "memory that cached links take, by estimate"),
    gauge(CACHE_MARKED_CODES, &[], "codes", "codes changed lately whose least version is remembered"),
    counter(CACHE_OVERFLOWS, &[], "polls", "polls of change marks that found more than can be worked off one by one"),
    gauge(MARKS_FRESH, &[SHARD], "0, 1", "whether what is remembered of a shard is in step with its change marks")
        .only(ShownBy::Cql),
    counter(CACHE_REQUESTS, &[CACHE_OPERATION, CACHE_RESULT], "calls", "calls to the shared cache, by how they ended")
        .only(ShownBy::Redis),
    gauge(CACHE_BYPASSED, &[], "0, 1", "whether nothing is taken from the shared cache now"),
    counter(CACHE_BYPASSES, &[], "times", "how often the shared cache began to be bypassed"),
    gauge(BLOCKED_HOSTS, &[], "hosts", "hosts that no link may lead to, of the file and of admins"),
    gauge(
        BLOCKED_HOSTS_KNOWN,
        &[],
        "0, 1",
        "whether the hosts that admins block were read from the store since the start",
    ),
];

const LIMITS: &[Described] = &[
    counter(RATE_LIMITED, &[LIMIT], "requests", "requests, and items of batches, that a rate limit refused"),
    counter(
        LIMITS_ALONE,
        &[LIMIT],
        "decisions",
        "decisions about a shared rate limit that this process made alone, for the shared cache was of no use",
    ),
    counter(SHED, &[SHED_KIND], "calls", "calls refused because more are under way than a store can do in time"),
    gauge(CONCURRENCY_LIMIT, &[GATE], "calls", "calls that may be under way at once; it follows how long they take"),
    gauge(CONCURRENCY_IN_FLIGHT, &[GATE], "calls", "calls under way, of those that terse_concurrency_limit bounds"),
];

const CLICKS: &[Described] = &[
    counter(CLICKS_RECORDED, &[], "clicks", "clicks written down"),
    counter(
        CLICKS_DROPPED,
        &[REASON],
        "clicks",
        "clicks that could not be written down; their redirects were answered",
    ),
    counter(CLICKS_APPLIED, &[], "clicks", "clicks that this server added to the read model"),
    gauge(
        CLICK_BLOCKS_PENDING,
        &[],
        "blocks",
        "sealed blocks of up to 512 KiB on this server's disk that wait for being relayed or counted",
    ),
    gauge(
        CLICK_LAG_SECONDS,
        &[],
        "seconds",
        "how long the oldest click waits to be counted (with a message broker: to be published), or the latest did",
    ),
    gauge(
        CLICKS_STOPPED,
        &[STOPPED_AT],
        "journals, streams",
        "journals and streams whose clicks this server can't count or publish until somebody looks",
    ),
    gauge(CLICK_BLOCKS_ASIDE, &[], "blocks", "blocks put aside because nobody can decode them"),
    gauge(CLICK_BYTES_ASIDE, &[], "bytes", "disk that blocks put aside take"),
    counter(
        CLICK_BLOCKS_DISCARDED,
        &[],
        "blocks",
        "blocks put aside and discarded, because they took more than they may",
    ),
];

const BROKER: &[Described] = &[
    gauge(BUS_CONNECTED, &[SIDE], "0, 1", "whether the message broker is connected").only(ShownBy::Broker),
    gauge(
        BUS_RELAY_HELD,
        &[],
        "0, 1",
        "whether clicks stay on disk because counting is too far behind, or nobody can tell how far it is",
    )
    .only(ShownBy::Broker),
    counter(BUS_PARTS, &[PART_OUTCOME], "parts", "parts of blocks of clicks, by what became of them")
        .only(ShownBy::Broker),
    gauge(BUS_PARTS_WAITING, &[], "parts", "parts that are published or about to be, and not confirmed")
        .only(ShownBy::Broker),
    gauge(BUS_PARTITIONS_HELD, &[], "partitions", "partitions that this server counts").only(ShownBy::Broker),
    counter(BUS_DEAD_LETTERS, &[], "messages", "messages that this server put aside because nobody can decode them")
        .only(ShownBy::Broker),
    gauge(BUS_OFFSET, &[PARTITION], "messages", "offset up to which a partition is counted, by whichever server")
        .only(ShownBy::Broker),
    gauge(
        BUS_COUNTED_UNTIL,
        &[PARTITION],
        "seconds since 1970",
        "time up to which a partition is counted, by whichever server",
    )
    .only(ShownBy::Broker),
    counter(LINK_EVENTS, &[EVENT_OUTCOME], "events", "link events, by what became of them").only(ShownBy::Broker),
    gauge(LINK_EVENT_BYTES, &[], "bytes", "link events on this server's disk that wait to be published"),
];

/// All metrics, by what they are about.
pub static GROUPS: [(&str, &[Described]); 6] = [
    ("Redirects and links", REDIRECTING),
    ("Stores and their guards", STORES),
    ("Caches", CACHES),
    ("Limits and overload", LIMITS),
    ("Clicks", CLICKS),
    ("The message broker", BROKER),
];

/// Upper bounds of the buckets of all histograms, in seconds.
pub const BUCKET_BOUNDS: &[f64] = &BUCKETS;

/// All metrics.
pub fn all() -> impl Iterator<Item = &'static Described> {
    GROUPS.iter().flat_map(|(_, group)| group.iter())
}

/// What `name` tells. A metric that has no row gets no text, without which none can be registered.
pub(super) fn help(name: &str) -> &'static str {
    all().find(|metric| metric.name == name).map_or("", |metric| metric.help)
}

/// What a counter or gauge is made of.
pub(super) fn opts(name: &str) -> Opts {
    Opts::new(name, help(name))
}

/// What a histogram is made of.
pub(super) fn histogram_opts(name: &str) -> HistogramOpts {
    HistogramOpts::new(name, help(name)).buckets(BUCKETS.to_vec())
}

#[cfg(test)]
mod tests;
