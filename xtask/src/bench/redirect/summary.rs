//! What terse promises of redirects, beside what was measured.

use super::super::report::{Promise, Report, Series};
use super::super::stats::{Spread, number};
use super::{CACHED_OF, COUNTING, HIT_RATIO, LINKS, SHARED, Sizes, Who, codes};

/// CPU of a redirect from memory, times nginx's: at most, and what is aimed at.
const CPU_LIMIT: f64 = 1.0;
const CPU_AIM: f64 = 0.9;
/// The same in all roles, counting included.
const COUNTING_LIMIT: f64 = 1.6;
/// The same with a connection for each request.
const CHURN_LIMIT: f64 = 1.5;
const CHURN_AIM: f64 = 1.1;
/// Latencies at half of the peak, in milliseconds.
const P99_LIMIT_MS: f64 = 1.0;
const P999_LIMIT_MS: f64 = 5.0;
/// CPU of a redirect by way of Redis, times that from memory.
const SHARED_LIMIT: f64 = 6.0;
/// Memory with a million links in it, in megabytes.
const MEMORY_LIMIT_MB: f64 = 250.0;
/// How far a hit ratio may be below the ideal one, in points.
const POINTS_LIMIT: f64 = 2.0;

const TO_NGINX: &str = "cpu_ratio_to_nginx";

/// The report of these series. `empty_mb` is what the server took before there was anything in memory.
#[must_use]
pub fn report(series: Vec<Series>, sizes: Sizes, empty_mb: Option<f64>) -> Report {
    let promises = promises(&series, sizes);
    let notes = notes(&series, sizes, empty_mb);
    Report { name: "redirect", series, promises, notes }
}

fn spread(series: &[Series], name: &str, reading: &str) -> Option<Spread> {
    series.iter().find(|series| series.name == name)?.spread(reading)
}

fn promises(series: &[Series], sizes: Sizes) -> Vec<Promise> {
    let median = |name: &str, reading: &str| spread(series, name, reading).map(|spread| spread.median);
    let most = |name: &str, reading: &str| spread(series, name, reading).map(|spread| spread.max);
    let promise = |what, limit, measured| Promise { what, limit, at_least: false, measured };
    let half = Who::Terse.half();
    // Of fewer links it says nothing.
    let million = (sizes.many >= LINKS).then(|| codes(sizes.many, "uniform"));
    vec![
        promise("redirect from memory, CPU, times nginx, worst round", CPU_LIMIT, most(Who::Terse.kept(), TO_NGINX)),
        promise("a connection for each request, CPU, times nginx", CHURN_LIMIT, median(&Who::Terse.churn(), TO_NGINX)),
        promise("all roles, recording and counting, CPU, times nginx", COUNTING_LIMIT, median(COUNTING, TO_NGINX)),
        promise("p99 at half of the peak, milliseconds", P99_LIMIT_MS, median(&half, "p99_ms")),
        promise("p99.9 at half of the peak, milliseconds", P999_LIMIT_MS, median(&half, "p99.9_ms")),
        promise("redirect from the shared cache, CPU, times memory", SHARED_LIMIT, median(SHARED, "cpu_ratio_to_l1")),
        promise(
            "a million links in memory, megabytes resident",
            MEMORY_LIMIT_MB,
            million.and_then(|name| most(&name, "resident_mb")),
        ),
        promise(
            "hit ratio under Zipf, points below the ideal cache",
            POINTS_LIMIT,
            median(HIT_RATIO, "points_below_ideal"),
        ),
    ]
}

fn notes(series: &[Series], sizes: Sizes, empty_mb: Option<f64>) -> Vec<String> {
    let mut notes = Vec::new();
    let churn = Who::Terse.churn();
    for (what, name, aim) in
        [("from memory", Who::Terse.kept(), CPU_AIM), ("with a connection for each request", &*churn, CHURN_AIM)]
    {
        let told = |reading| spread(series, name, reading).map(|spread| spread.text());
        if let (Some(nginx), Some(floor)) = (told(TO_NGINX), told("cpu_ratio_to_floor")) {
            notes.push(format!(
                "CPU {what}: {nginx} times nginx, where {} is aimed at, and {floor} times the floor",
                number(aim)
            ));
        }
    }
    notes.push(
        "terse records the click of each redirect before its answer leaves, in roles 'redirect' and 'api', where nobody \
         counts them; the threads that prepare, sync and seal blocks are in its CPU. Each server was found to have \
         recorded exactly the redirects that were seen, and to have dropped none"
            .into(),
    );
    notes.push(format!(
        "'all roles' counts what it records, over {} codes by Zipf's law: its CPU per request is that of warm-up, \
         window, and the time after it until everything was counted; in the end the totals told of a sample of codes \
         were those that were seen",
        sizes.some
    ));
    if let Some(empty) = empty_mb {
        notes.push(format!("the server took {} MB before there was a link in its memory", number(empty)));
    }
    notes.push(format!(
        "'half of peak' is an open loop: a latency runs from when a request was due, at half of the rate that terse \
         reached over {} codes; the others get the same rate. 'machine alone' is a server that takes no time: whoever \
         is due while one of the two cores is away (other processes, the kernel, the host) waits for it",
        sizes.some
    ));
    notes.push(format!(
        "'hit ratio' follows {} links by Zipf's law (s = 1) through a cache for {} of them; the ideal cache always \
         holds the most popular, and lru is a simulation that forgets what was used least recently, on the same draws",
        sizes.many,
        sizes.many / CACHED_OF
    ));
    notes.push(
        "'one code' is uniform and Zipf over one code at once; 'L2 hit' is SQLite behind Redis and a cache of one \
         entry, with Redis on the generator's core; only what the tier of that name answered counts"
            .into(),
    );
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: Sizes = Sizes { many: LINKS, some: 50_000 };

    fn series(name: &str, reading: &'static str, values: &[f64]) -> Series {
        let mut series = Series::new(name);
        values.iter().for_each(|value| series.add(vec![(reading, *value)]));
        series
    }

    fn measured(all: Vec<Series>, sizes: Sizes) -> Vec<Option<f64>> {
        report(all, sizes, None).promises.iter().map(|promise| promise.measured).collect()
    }

    #[test]
    fn the_ratio_to_nginx_is_promised_of_the_worst_round_the_rest_of_the_middle_one() {
        let three = [0.9, 1.2, 1.1];
        let mut half = series(&Who::Terse.half(), "p99_ms", &three);
        half.add(vec![("p99.9_ms", 4.0)]);
        let all = vec![
            series("terse, 50000 codes, zipf", TO_NGINX, &[9.0]),
            series(Who::Terse.kept(), TO_NGINX, &three),
            series(&Who::Terse.churn(), TO_NGINX, &three),
            half,
            series(SHARED, "cpu_ratio_to_l1", &three),
            series(COUNTING, TO_NGINX, &[1.4, 1.7, 1.5]),
            series("terse, 1000000 codes, uniform", "resident_mb", &[200.0, 240.0, 230.0]),
            series(HIT_RATIO, "points_below_ideal", &three),
        ];
        let expected = [Some(1.2), Some(1.1), Some(1.5), Some(1.1), Some(4.0), Some(1.1), Some(240.0), Some(1.1)];
        assert_eq!(measured(all, SIZES), expected);
    }

    #[test]
    fn what_was_not_measured_is_not_promised_and_fewer_links_are_no_million() {
        assert!(measured(vec![], SIZES).iter().all(Option::is_none));
        let few = Sizes { many: 2_000, some: 100 };
        let all = vec![series("terse, 2000 codes, uniform", "resident_mb", &[20.0])];
        assert!(measured(all, few).iter().all(Option::is_none));
    }

    #[test]
    fn aims_and_the_distance_to_the_floor_are_told() {
        let mut one = Series::new(Who::Terse.kept());
        one.add(vec![(TO_NGINX, 0.95), ("cpu_ratio_to_floor", 1.25)]);
        let notes = report(vec![one], SIZES, Some(21.5)).notes;
        let aim = "CPU from memory: 0.950 (0.950–0.950) times nginx, where 0.900 is aimed at, and 1.250";
        assert!(notes.iter().any(|note| note.starts_with(aim)), "{notes:?}");
        assert!(notes.iter().any(|note| note.contains("took 21.50 MB before")), "{notes:?}");
        assert!(notes.iter().any(|note| note.contains("1000000 links") && note.contains("for 100000 of them")));
    }
}
