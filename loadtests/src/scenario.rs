//! The scenarios: what is asked, how often, for how long, and how well it must be answered.
//!
//! `k6/NAME.js` has each of them for k6, with the same sizes.

use serde_json::{Value, json};

use crate::plan::{Plan, Stage};

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The redirect of a link.
    Redirect,
    /// The redirect of a code that nobody has.
    Unknown,
    /// A new link.
    Create,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Redirect, Self::Unknown, Self::Create];

    /// What it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Redirect => "redirect",
            Self::Unknown => "unknown",
            Self::Create => "create",
        }
    }
}

/// A part of a scenario's time: how many hundredths, and the rate at its ends in times of the scenario's.
type Part = (f64, f64, f64);

const EVEN: &[Part] = &[(100.0, 1.0, 1.0)];

/// A scenario.
#[derive(Debug)]
pub struct Scenario {
    /// Its name, that of the k6 script too.
    pub name: &'static str,
    /// What it is about.
    pub what: &'static str,
    /// Requests per second.
    pub rate: u32,
    /// How long it takes.
    pub seconds: u32,
    /// How many links are made before it begins.
    pub links: u32,
    /// How its rate changes.
    parts: &'static [Part],
    /// Of so many requests …
    period: u64,
    /// … so many, the last ones, create links …
    creates: u64,
    /// … and so many, those before, ask for codes that nobody has.
    unknown: u64,
    /// Of so many requests one asks for the first link; 0 = none does but by Zipf's law.
    hot_every: u64,
    /// Whether 429 is what it is about: some creates must get it, and some a link.
    pub expects_429: bool,
    /// How many requests in a thousand may be refused (429, 503) or go without an answer.
    pub refused_per_mille: f64,
    /// How many requests in a thousand may leave late: with more, it was not the load that was asked for.
    pub late_per_mille: f64,
    /// The latency that 99 of 100 answers must not exceed, in milliseconds.
    pub p99_ms: f64,
}

const BASE: Scenario = Scenario {
    name: "",
    what: "",
    rate: 0,
    seconds: 60,
    links: 1_000,
    parts: EVEN,
    period: 1,
    creates: 0,
    unknown: 0,
    hot_every: 0,
    expects_429: false,
    refused_per_mille: 1.0,
    late_per_mille: 10.0,
    p99_ms: 50.0,
};

/// Requests under way at most, where nothing else is asked for.
pub const USERS: u32 = 64;

/// All scenarios.
pub const SCENARIOS: &[Scenario] = &[
    // Few enough for a server with its limits on.
    Scenario {
        name: "smoke",
        what: "a little of everything: does it work?",
        rate: 10,
        seconds: 10,
        links: 5,
        period: 10,
        creates: 1,
        unknown: 1,
        refused_per_mille: 0.0,
        late_per_mille: 1_000.0,
        p99_ms: 500.0,
        ..BASE
    },
    Scenario {
        name: "steady",
        what: "a usual day: 100 redirects to a create, by Zipf's law",
        rate: 1_000,
        links: 10_000,
        period: 101,
        creates: 1,
        ..BASE
    },
    Scenario {
        name: "hot-link",
        what: "everybody asks for one link",
        rate: 2_000,
        seconds: 30,
        links: 1,
        hot_every: 1,
        ..BASE
    },
    Scenario {
        name: "cold-scan",
        what: "somebody guesses codes, nine of ten requests, beside visitors",
        rate: 500,
        seconds: 30,
        period: 10,
        unknown: 9,
        ..BASE
    },
    Scenario {
        name: "create-burst",
        what: "creates, ten times as many for a third of the time",
        rate: 500,
        seconds: 30,
        links: 0,
        parts: &[(33.0, 0.1, 0.1), (34.0, 1.0, 1.0), (33.0, 0.1, 0.1)],
        creates: 1,
        p99_ms: 250.0,
        ..BASE
    },
    Scenario {
        name: "campaign",
        what: "one link of a campaign: the rate grows tenfold and falls again",
        rate: 200,
        parts: &[(25.0, 1.0, 1.0), (25.0, 1.0, 10.0), (25.0, 10.0, 10.0), (25.0, 10.0, 1.0)],
        hot_every: 2,
        ..BASE
    },
    Scenario {
        name: "soak",
        what: "a usual day for long: does anything grow?",
        rate: 500,
        seconds: 1_800,
        links: 10_000,
        period: 101,
        creates: 1,
        ..BASE
    },
    Scenario {
        name: "limit",
        what: "more creates than one caller may make: most get 429",
        rate: 20,
        seconds: 20,
        links: 0,
        creates: 1,
        expects_429: true,
        refused_per_mille: 0.0,
        late_per_mille: 1_000.0,
        p99_ms: 500.0,
        ..BASE
    },
];

impl Scenario {
    /// The scenario of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        SCENARIOS.iter().find(|scenario| scenario.name == name)
    }

    /// Its sizes, what is planned with them, and its limits.
    #[must_use]
    pub fn json(&self) -> Value {
        let plan = self.plan(self.rate, self.seconds);
        let stage = |stage: &Stage| json!({ "seconds": stage.seconds, "from": stage.from, "to": stage.to });
        json!({
            "name": self.name, "what": self.what, "rate": self.rate, "seconds": self.seconds, "links": self.links,
            "users": USERS, "requests": plan.total(), "stages": plan.stages().iter().map(stage).collect::<Vec<_>>(),
            "expects_429": self.expects_429, "refused_per_mille": self.refused_per_mille,
            "late_per_mille": self.late_per_mille, "p99_ms": self.p99_ms,
        })
    }

    /// When its requests are due at `rate` a second for `seconds`.
    #[must_use]
    pub fn plan(&self, rate: u32, seconds: u32) -> Plan {
        let (rate, seconds) = (f64::from(rate), f64::from(seconds));
        let stage =
            |&(share, from, to): &Part| Stage { seconds: seconds * share / 100.0, from: rate * from, to: rate * to };
        Plan::new(self.parts.iter().map(stage).collect())
    }

    /// What request `number` is.
    #[must_use]
    pub fn kind(&self, number: u64) -> Kind {
        let left = self.period - number % self.period;
        match left {
            _ if left <= self.creates => Kind::Create,
            _ if left <= self.creates + self.unknown => Kind::Unknown,
            _ => Kind::Redirect,
        }
    }

    /// Whether there are redirects among its requests.
    #[must_use]
    pub fn asks_for_links(&self) -> bool {
        self.period > self.creates + self.unknown
    }

    /// Whether request `number`, a redirect, is for the first link whatever Zipf's law says.
    #[must_use]
    pub fn is_hot(&self, number: u64) -> bool {
        self.hot_every > 0 && number.is_multiple_of(self.hot_every)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> &'static Scenario {
        Scenario::named(name).unwrap()
    }

    fn count(name: &str, requests: u64, kind: Kind) -> usize {
        (0..requests).filter(|number| named(name).kind(*number) == kind).count()
    }

    #[test]
    fn every_name_is_there_once() {
        let names: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        let wanted = ["smoke", "steady", "hot-link", "cold-scan", "create-burst", "campaign", "soak", "limit"];
        assert_eq!(names, wanted);
        assert!(Scenario::named("none").is_none());
    }

    #[test]
    fn the_steady_load_has_a_hundred_reads_to_a_write() {
        assert_eq!(count("steady", 10_100, Kind::Create), 100);
        assert_eq!(count("steady", 10_100, Kind::Redirect), 10_000);
    }

    #[test]
    fn the_smoke_test_has_every_kind_and_fits_the_limits_of_a_server() {
        for kind in Kind::ALL {
            assert!(count("smoke", 100, kind) >= 10, "{kind:?}");
        }
        let smoke = named("smoke");
        assert!(smoke.seconds <= 60);
        let creates = count("smoke", smoke.plan(smoke.rate, smoke.seconds).total(), Kind::Create) as u32 + smoke.links;
        assert!(creates <= 20, "an address may make 20 links at once");
    }

    #[test]
    fn a_scenario_tells_its_sizes_and_what_is_planned() {
        let told = named("campaign").json();
        assert_eq!((&told["rate"], &told["seconds"], &told["requests"]), (&json!(200), &json!(60), &json!(66_000)));
        assert_eq!(told["stages"][1], json!({ "seconds": 15.0, "from": 200.0, "to": 2_000.0 }));
        assert_eq!((&told["users"], &told["p99_ms"], &told["expects_429"]), (&json!(64), &json!(50.0), &json!(false)));
    }

    #[test]
    fn the_campaign_grows_tenfold_and_falls() {
        let plan = named("campaign").plan(100, 40);
        let ends: Vec<(f64, f64)> = plan.stages().iter().map(|stage| (stage.from, stage.to)).collect();
        assert_eq!(ends, [(100.0, 100.0), (100.0, 1_000.0), (1_000.0, 1_000.0), (1_000.0, 100.0)]);
        assert_eq!(plan.total(), 1_000 + 5_500 + 10_000 + 5_500);
        let hot = (0..100).filter(|number| named("campaign").is_hot(*number)).count();
        assert_eq!(hot, 50);
    }

    #[test]
    fn a_scan_asks_for_codes_that_nobody_has_and_a_burst_creates() {
        assert_eq!(count("cold-scan", 1_000, Kind::Unknown), 900);
        assert_eq!(count("create-burst", 1_000, Kind::Create), 1_000);
        assert_eq!(count("limit", 1_000, Kind::Create), 1_000);
        assert!(named("limit").expects_429 && !named("create-burst").expects_429);
        assert!((0..10).all(|number| named("hot-link").is_hot(number)) && !named("steady").is_hot(0));
    }

    #[test]
    fn every_scenario_can_be_planned_and_every_redirect_has_a_link() {
        for scenario in SCENARIOS {
            let plan = scenario.plan(scenario.rate, scenario.seconds);
            assert!(plan.total() > 0 && scenario.p99_ms > 0.0, "{}", scenario.name);
            let redirects = (0..scenario.period).any(|number| scenario.kind(number) == Kind::Redirect);
            assert_eq!((redirects, redirects), (scenario.links > 0, scenario.asks_for_links()), "{}", scenario.name);
        }
    }

    /// A value as a script has it: an array with all its brackets, anything else up to the end of the line.
    fn value(script: &str, name: &str) -> Option<String> {
        let (_, rest) = script.split_once(&format!("    {name}: "))?;
        let mut depth = 0;
        let end = rest.find(|letter| {
            depth += i32::from(letter == '[') - i32::from(letter == ']');
            letter == ',' && depth == 0
        })?;
        Some(rest[..end].split_whitespace().collect::<String>().replace(",]", "]"))
    }

    #[test]
    fn the_k6_scripts_have_the_same_scenarios_with_the_same_sizes() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/k6");
        let read = |name: &str| std::fs::read_to_string(format!("{folder}/{name}.js")).unwrap();
        let library = read("lib/terse");
        for scenario in SCENARIOS {
            let script = read(scenario.name);
            let said = |name| value(&script, name).or_else(|| value(&library, name));
            let parts: Vec<String> =
                scenario.parts.iter().map(|(share, from, to)| format!("[{share},{from},{to}]")).collect();
            for (name, ours) in [
                ("name", format!("'{}'", scenario.name)),
                ("rate", scenario.rate.to_string()),
                ("seconds", scenario.seconds.to_string()),
                ("links", scenario.links.to_string()),
                ("period", scenario.period.to_string()),
                ("creates", scenario.creates.to_string()),
                ("unknown", scenario.unknown.to_string()),
                ("hotEvery", scenario.hot_every.to_string()),
                ("expects429", scenario.expects_429.to_string()),
                ("refusedPerMille", scenario.refused_per_mille.to_string()),
                ("latePerMille", scenario.late_per_mille.to_string()),
                ("p99Ms", scenario.p99_ms.to_string()),
                ("parts", format!("[{}]", parts.join(","))),
            ] {
                assert_eq!(said(name), Some(ours), "{name} of {}", scenario.name);
            }
        }
        let scripts = std::fs::read_dir(folder).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_file());
        assert_eq!(scripts.count(), SCENARIOS.len());
    }
}
