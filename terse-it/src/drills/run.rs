//! A run of a drill: what was measured and observed, and whether what was expected held.
//!
//! A drill that fails panics. That is caught here, so that its report and its timeline are there all the same; its
//! guards have made its faults good by then.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Chart, Drill, Form, Stage};
use crate::cluster::Cluster;
use crate::load::{Picture, Report};

/// How many lines of what did not hold are told, and how many letters: the rest stands where it was printed.
const LINES: usize = 4;
const LETTERS: usize = 400;

/// What came of a drill.
#[derive(Debug)]
pub struct Run {
    hypothesis: &'static str,
    took: Duration,
    report: Report,
    picture: Option<Picture>,
    broken: Option<String>,
}

impl Drill {
    /// Runs it. Whether it held is in what is returned.
    #[must_use]
    pub fn run(&self, cluster: Option<&Cluster>, form: Form) -> Run {
        let mut stage = Stage::new(cluster, form);
        let began = Instant::now();
        // What the stage has is added to piece by piece, and each piece is whole.
        let ended = catch_unwind(AssertUnwindSafe(|| (self.run)(&mut stage)));
        let picture = (self.chart == Chart::Timeline).then(|| stage.timeline.picture()).flatten();
        let broken = match ended {
            Ok(()) => self.missing(picture.as_ref()),
            Err(panic) => Some(sentence(&*panic)),
        };
        Run { hypothesis: self.hypothesis, took: began.elapsed(), report: stage.report, picture, broken }
    }

    /// What a timeline lacks that is to be drawn: a drill that shows nothing has shown nothing.
    fn missing(&self, picture: Option<&Picture>) -> Option<String> {
        match (self.chart, picture) {
            (Chart::None(_), _) => None,
            (Chart::Timeline, None) => Some("no load left a timeline".to_owned()),
            (Chart::Timeline, Some(picture)) => {
                picture.faults().is_empty().then(|| "no fault is marked in the timeline".to_owned())
            }
        }
    }
}

impl Run {
    /// Whether what was expected held.
    #[must_use]
    pub fn held(&self) -> bool {
        self.broken.is_none()
    }

    /// `held` or `broken`.
    #[must_use]
    pub fn verdict(&self) -> &'static str {
        if self.held() { "held" } else { "broken" }
    }

    /// How long it took.
    #[must_use]
    pub fn took(&self) -> Duration {
        self.took
    }

    /// What did not hold.
    #[must_use]
    pub fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    /// Fails as the drill did, for a test.
    ///
    /// # Panics
    /// When it did not hold.
    #[track_caller]
    pub fn assert_held(&self) {
        assert!(self.held(), "{}", self.broken().unwrap_or_default());
    }

    /// All of it as one JSON object.
    #[must_use]
    pub fn json(&self) -> Value {
        let mut told = json!({
            "hypothesis": self.hypothesis,
            "verdict": self.verdict(),
            "took_seconds": (self.took.as_secs_f64() * 10.0).round() / 10.0,
            "measured": self.report.json(),
        });
        if let Some(broken) = &self.broken {
            told["broken"] = broken.as_str().into();
        }
        if let Some(picture) = &self.picture {
            told["observed"] = picture.observed().into();
            told["timeline"] = picture.json();
        }
        told
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.report)?;
        let observed = self.picture.as_ref().map(Picture::observed).unwrap_or_default();
        observed.iter().try_for_each(|line| writeln!(f, "  observed: {line}"))?;
        write!(f, "  verdict: {} after {:.1} s", self.verdict(), self.took.as_secs_f64())?;
        if let Some(broken) = &self.broken {
            write!(f, ": {broken}")?;
        }
        writeln!(f)
    }
}

/// What stands before the samples that a failure shows: they are where it was printed.
const SAMPLES: &str = ", such as";

/// What a panic says, on one line, without its samples.
fn sentence(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it ended without a word");
    let text = text.split_once(SAMPLES).map_or(text, |(before, _)| before);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let told = lines[..lines.len().min(LINES)].join("; ");
    let cut = told.char_indices().nth(LETTERS).map(|(at, _)| at);
    let more = cut.is_some() || lines.len() > LINES;
    format!("{}{}", &told[..cut.unwrap_or(told.len())], if more { " …" } else { "" })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Instant;

    use super::super::catalogue::{Needs, takes};
    use super::*;
    use crate::load::Answer;

    fn drill(chart: Chart, run: fn(&mut Stage<'_>)) -> Drill {
        Drill {
            name: "some",
            breaks: "b",
            hypothesis: "It holds",
            needs: Needs::NOTHING,
            takes: takes(1, 1),
            chart,
            run,
        }
    }

    /// Load and a fault, as all drills have them; then this.
    fn with_load(stage: &mut Stage<'_>) {
        let load = stage.timeline.load();
        let fault = stage.timeline.fault("node 2 killed");
        stage.timeline.note("redirect", Instant::now(), Duration::from_millis(3), Answer::Answered);
        stage.timeline.note("redirect", Instant::now(), Duration::from_millis(1), Answer::Failed);
        std::thread::sleep(Duration::from_millis(2));
        fault.end();
        load.end();
        stage.report.count("links", 7);
    }

    fn failing(stage: &mut Stage<'_>) {
        with_load(stage);
        let _fault = stage.timeline.fault("node 3 killed");
        assert_eq!(1, 2, "1 of 2 redirects failed");
    }

    #[test]
    fn a_drill_that_holds_says_so_with_what_was_observed() {
        let run = drill(Chart::Timeline, with_load).run(None, Form::Quick);
        run.assert_held();
        let told = run.json();
        assert_eq!((&told["verdict"], &told["hypothesis"]), (&json!("held"), &json!("It holds")));
        assert_eq!(told["measured"]["links"]["count"], 7);
        assert_eq!(told["timeline"]["faults"][0]["what"], "node 2 killed");
        assert_eq!(told["timeline"]["with_fault"]["redirect"]["failed"], 1);
        let text = run.to_string();
        assert!(text.contains("observed: redirect, with the fault: 1 answered, 0 refused, 1 failed"), "{text}");
        assert!(text.contains("verdict: held after ") && told["broken"].is_null(), "{text}");
    }

    #[test]
    fn a_drill_that_fails_is_broken_and_keeps_what_it_measured() {
        let run = drill(Chart::Timeline, failing).run(None, Form::Quick);
        assert!(!run.held() && std::panic::catch_unwind(AssertUnwindSafe(|| run.assert_held())).is_err());
        let told = run.json();
        assert_eq!(told["verdict"], "broken");
        let why = told["broken"].as_str().unwrap();
        assert!(why.contains("1 of 2 redirects failed") && why.contains("left: 1"), "{why}");
        assert_eq!(told["measured"]["links"]["count"], 7);
        assert_eq!(told["timeline"]["lanes"]["redirect"]["answered"], json!([1]));
        assert!(run.to_string().contains(": assertion `left == right` failed: 1 of 2 redirects failed"), "{run}");
    }

    #[test]
    fn a_failure_of_another_thread_is_told_in_its_own_words() {
        fn fails() {
            panic!("a wrong target");
        }
        let threaded = |_: &mut Stage<'_>| std::thread::scope(|scope| crate::joined(scope.spawn(fails).join()));
        let run = drill(Chart::None("it has no load at all"), threaded).run(None, Form::Full);
        assert_eq!(run.broken(), Some("a wrong target"));
    }

    #[test]
    fn a_drill_whose_chart_would_show_nothing_is_broken() {
        let no_load = drill(Chart::Timeline, |_| {}).run(None, Form::Quick);
        assert_eq!(no_load.broken(), Some("no load left a timeline"));
        let no_fault = drill(Chart::Timeline, |stage| {
            let _load = stage.timeline.load();
            stage.timeline.note("redirect", Instant::now(), Duration::ZERO, Answer::Answered);
        });
        assert_eq!(no_fault.run(None, Form::Quick).broken(), Some("no fault is marked in the timeline"));
        assert!(drill(Chart::None("it has no load at all"), |_| {}).run(None, Form::Quick).held());
    }

    #[test]
    fn what_is_told_of_a_failure_is_short() {
        let long = format!("{}\nb\n\n c\nd\ne", "ä".repeat(10));
        assert_eq!(sentence(&long), format!("{}; b; c; d …", "ä".repeat(10)));
        assert!(sentence(&"x".repeat(1_000)).len() < LETTERS + 10);
        assert_eq!(sentence(&7_u8), "it ended without a word");
        assert_eq!(sentence(&"plain"), "plain");
        assert_eq!(sentence(&"7 requests failed, such as [\n    Record {\n"), "7 requests failed");
    }
}
