//! The arithmetic: what follows from the inputs, each result with its formula.

use crate::inputs::Inputs;
use crate::number::Unit;
use crate::zipf::head_share;

/// A cache by the rule of thumb of several guides holds this part of a day's requests.
const RULE_OF_THUMB: f64 = 0.2;
/// Seconds of a day.
const DAY: f64 = 86_400.0;
/// Seconds of a month of 30 days.
const MONTH: f64 = 30.0 * DAY;

/// A result.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// What it belongs to, such as `rates`.
    pub group: &'static str,
    /// Its name in JSON, in claims and in the quiz.
    pub name: &'static str,
    /// What it is.
    pub label: &'static str,
    /// How it follows from inputs and other results.
    pub formula: &'static str,
    /// Its unit.
    pub unit: Unit,
    /// Its value.
    pub value: f64,
}

impl Outcome {
    /// The value with its unit, to three digits.
    #[must_use]
    pub fn shown(&self) -> String {
        self.unit.show(self.value)
    }
}

/// All results, in the order in which they are shown.
#[derive(Clone, Debug, PartialEq)]
pub struct Results(Vec<Outcome>);

impl Results {
    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[Outcome] {
        &self.0
    }

    /// The result of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Outcome> {
        self.0.iter().find(|outcome| outcome.name == name)
    }
}

/// Adds results of one group.
struct Group<'a> {
    name: &'static str,
    into: &'a mut Vec<Outcome>,
}

impl Group<'_> {
    fn add(&mut self, name: &'static str, unit: Unit, value: f64, label: &'static str, formula: &'static str) -> f64 {
        self.into.push(Outcome { group: self.name, name, label, formula, unit, value });
        value
    }
}

/// What later groups need of earlier ones.
#[derive(Clone, Copy)]
struct Rates {
    links: f64,
    links_peak: f64,
    redirects: f64,
    redirects_peak: f64,
    links_a_month: f64,
}

impl Inputs {
    /// All results.
    #[must_use]
    pub fn results(&self) -> Results {
        let mut into = vec![];
        let mut group = |name, add: &mut dyn FnMut(&mut Group<'_>)| add(&mut Group { name, into: &mut into });
        let mut rates = None;
        group("rates", &mut |group| rates = Some(self.rates(group)));
        if let Some(rates) = rates {
            let mut links_total = 0.0;
            group("storage", &mut |group| links_total = self.storage(group, rates));
            group("clicks", &mut |group| self.clicks(group, rates));
            group("bandwidth", &mut |group| self.bandwidth(group, rates));
            group("cache", &mut |group| self.cache(group, rates));
            group("codes", &mut |group| self.codes(group, rates, links_total));
            group("machines", &mut |group| self.machines(group, rates));
        }
        Results(into)
    }

    fn rates(&self, group: &mut Group<'_>) -> Rates {
        use Unit::PerSecond;
        let a_second = self.links * self.times / self.per.seconds();
        let links = group.add("links_per_second", PerSecond, a_second, "links made", "links × times ÷ period");
        let links_peak = group.add("links_peak", PerSecond, links * self.peak, "at the peak", "links made × peak");
        let redirects = group.add("redirects_per_second", PerSecond, links * self.ratio, "redirects", "× ratio");
        let peak = redirects * self.peak;
        let redirects_peak = group.add("redirects_peak", PerSecond, peak, "at the peak", "redirects × peak");
        Rates { links, links_peak, redirects, redirects_peak, links_a_month: links * MONTH }
    }

    fn storage(&self, group: &mut Group<'_>, rates: Rates) -> f64 {
        use Unit::{Bytes, Count};
        let periods = self.per.in_a_year() * self.years;
        let total = self.links * self.times * periods;
        group.add("links_total", Count, total, "links in all", "links × times × periods in the years");
        let once = total * self.row_bytes;
        group.add("link_bytes", Bytes, once, "their rows, once", "links in all × bytes of a row");
        let replicated = once * self.replicas;
        group.add("link_bytes_replicated", Bytes, replicated, "with all replicas", "rows × replicas");
        let month = rates.links_a_month * self.row_bytes;
        group.add("link_bytes_per_month", Bytes, month, "rows of a month, once", "links of 30 days × bytes of a row");
        total
    }

    fn clicks(&self, group: &mut Group<'_>, rates: Rates) {
        use Unit::{Bytes, Count, Times};
        let clicks = rates.redirects * MONTH;
        group.add("clicks_per_month", Count, clicks, "clicks of a month", "redirects × 30 days");
        let bytes = clicks * self.click_bytes;
        group.add("click_bytes_per_month", Bytes, bytes, "their log", "clicks × bytes of a click");
        let times = bytes / (rates.links_a_month * self.row_bytes);
        group.add("clicks_to_links", Times, times, "log of clicks, times rows of links", "of one month, each once");
    }

    fn bandwidth(&self, group: &mut Group<'_>, rates: Rates) {
        use Unit::BytesPerSecond;
        let bytes_in = rates.links * self.create_bytes;
        group.add("bytes_in", BytesPerSecond, bytes_in, "in, for creates", "links made × bytes of a create");
        let out = rates.redirects * self.redirect_bytes;
        group.add("bytes_out", BytesPerSecond, out, "out, for redirects", "redirects × bytes of an answer");
        let peak = out * self.peak;
        group.add("bytes_out_peak", BytesPerSecond, peak, "at the peak", "out × peak");
    }

    fn cache(&self, group: &mut Group<'_>, rates: Rates) {
        use Unit::{Bytes, Count, PerSecond, Share};
        let live = rates.links_a_month * self.live_months;
        group.add("live_links", Count, live, "links that are still asked for", "links of the live months");
        let kept = live * self.cache_share;
        group.add("cached_links", Count, kept, "links in the cache", "live links × share");
        let bytes = kept * self.entry_bytes;
        group.add("cache_bytes", Bytes, bytes, "memory for them", "links in the cache × bytes of an entry");
        let hits = head_share(kept, live, self.zipf);
        group.add("hit_share", Share, hits, "hits, at most", "H(cached) ÷ H(live), Zipf");
        let reads = rates.redirects_peak * (1.0 - hits);
        group.add("store_reads_peak", PerSecond, reads, "store reads at the peak", "redirects at the peak × misses");
        let thumb = RULE_OF_THUMB * rates.redirects * DAY * self.row_bytes;
        group.add("cache_bytes_by_requests", Bytes, thumb, "by the rule of thumb", "20 % of a day's redirects × row");
    }

    fn codes(&self, group: &mut Group<'_>, rates: Rates, links_total: f64) {
        use Unit::{Count, Share, Years};
        let space = self.alphabet.powf(self.code_length);
        group.add("code_space", Count, space, "codes of that length", "alphabet ^ length");
        group.add("code_fill", Share, links_total / space, "used in the end", "links in all ÷ codes");
        let years = space / (rates.links * self.per.seconds() * self.per.in_a_year());
        group.add("code_years", Years, years, "until all are used", "codes ÷ links of a year");
        let half = (2.0 * std::f64::consts::LN_2 * space).sqrt();
        group.add("birthday_half", Count, half, "random codes until two are equal, 50 %", "√(2 ln 2 × codes)");
        let pairs = links_total * links_total / (2.0 * space);
        group.add("collisions", Count, pairs, "equal pairs if codes were random", "links² ÷ (2 × codes)");
    }

    fn machines(&self, group: &mut Group<'_>, rates: Rates) {
        use Unit::{Count, Share};
        let cores = rates.redirects_peak / (self.core_redirects * self.load);
        group.add("redirect_cores", Count, cores, "cores for redirects", "peak ÷ (one core's rate × load)");
        let creates = rates.links_peak / (self.server_creates * self.load);
        group.add("create_share", Share, creates, "of one server's creates", "peak ÷ (its rate × load)");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::inputs::FIELDS;
    use crate::presets::PRESETS;

    fn of(preset: &str, name: &str) -> f64 {
        let preset = PRESETS.iter().find(|known| known.name == preset).unwrap();
        preset.inputs.results().get(name).unwrap().value
    }

    /// Within a part in a thousand.
    #[track_caller]
    fn about(found: f64, known: f64) {
        assert!((found / known - 1.0).abs() < 0.001, "{found} is not {known}");
    }

    #[test]
    fn a_hundred_million_links_a_month_are_39_a_second() {
        about(of("ours", "links_per_second"), 38.580);
        about(of("ours", "redirects_per_second"), 3_858.0);
        about(of("ours", "redirects_peak"), 11_574.0);
        about(of("ours", "links_total"), 12e9);
    }

    #[test]
    fn the_primer_has_ten_million_pastes_a_month() {
        about(of("primer", "links_per_second"), 3.858);
        about(of("primer", "redirects_per_second"), 38.58);
        about(of("primer", "links_total"), 360e6);
        about(of("primer", "link_bytes_per_month"), 12.7e9);
        about(of("primer", "link_bytes"), 457.2e9);
    }

    #[test]
    fn a_cache_by_requests_is_six_times_one_by_links() {
        about(of("karan", "link_bytes"), 6e12);
        about(of("karan", "cache_bytes_by_requests"), 33.33e9);
        about(of("karan", "cached_links"), 12e6);
        about(of("karan", "cache_bytes"), 6e9);
        about(of("karan", "hit_share"), 0.7857);
        about(of("karan", "bytes_in"), 19_290.0);
        about(of("karan", "bytes_out"), 1.929e6);
    }

    #[test]
    fn ten_years_of_a_hundred_million_a_day_are_36_terabytes() {
        about(of("xu", "links_per_second"), 1_157.4);
        about(of("xu", "redirects_per_second"), 11_574.0);
        about(of("xu", "links_total"), 365e9);
        about(of("xu", "link_bytes"), 36.5e12);
    }

    #[test]
    fn five_hundred_million_a_month_are_15_terabytes_in_five_years() {
        about(of("grokking", "links_per_second"), 192.9);
        about(of("grokking", "redirects_per_second"), 19_290.0);
        about(of("grokking", "link_bytes"), 15e12);
        about(of("grokking", "cache_bytes_by_requests"), 166.67e9);
    }

    #[test]
    fn a_billion_links_are_half_a_terabyte() {
        about(of("hello", "links_per_second"), 1.157);
        about(of("hello", "redirects_per_second"), 1_157.4);
        about(of("hello", "links_total"), 1e9);
        about(of("hello", "link_bytes"), 500e9);
        // Six characters, as its notes have it.
        about(of("hello", "collisions"), 8.803e6);
    }

    #[test]
    fn seven_characters_of_base62_last() {
        about(of("ours", "code_space"), 3.521_614_606_208e12);
        about(of("ours", "code_fill"), 0.003_407_5);
        about(of("ours", "birthday_half"), 2.209_5e6);
        let mut thousand = PRESETS[0].inputs;
        thousand.set("times", 1_000.0).unwrap();
        about(thousand.results().get("code_years").unwrap().value, 2.934_7);
    }

    #[test]
    fn ten_times_the_links_are_ten_times_everything_but_the_code_space() {
        let once = PRESETS[0].inputs;
        let mut tenfold = once;
        tenfold.set("times", 10.0).unwrap();
        for name in ["links_total", "link_bytes_replicated", "click_bytes_per_month", "redirect_cores", "bytes_out"] {
            let value = |inputs: &Inputs| inputs.results().get(name).unwrap().value;
            about(value(&tenfold), 10.0 * value(&once));
        }
        assert_eq!(tenfold.results().get("code_space"), once.results().get("code_space"));
    }

    #[test]
    fn each_result_has_a_name_of_its_own() {
        let results = PRESETS[0].inputs.results();
        let names: BTreeSet<&str> = results.all().iter().map(|outcome| outcome.name).collect();
        assert_eq!(names.len(), results.all().len());
        assert!(results.get("no such").is_none());
    }

    proptest! {
        #[test]
        fn every_result_is_finite_within_the_bounds(places in proptest::collection::vec(0.0..=1.0_f64, FIELDS.len())) {
            let mut inputs = PRESETS[0].inputs;
            for (field, place) in FIELDS.iter().zip(places) {
                inputs.set(field.flag, (field.least + (field.most - field.least) * place).min(field.most)).unwrap();
            }
            for outcome in inputs.results().all() {
                prop_assert!(outcome.value.is_finite() && outcome.value >= 0.0, "{outcome:?}");
            }
        }
    }
}
