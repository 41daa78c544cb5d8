//! The catalogue as text: for the command line, and as the page `docs/drills.md` of the book.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use super::{Chart, Drill, Form, QUICK_LIMIT, all};

const HEAD: &str = "# Drills\n\n\
    <!-- Written by `cargo xtask drill page` from `terse-it/src/drills/catalogue.rs`: change it there. -->\n\n\
    Each drill breaks one thing of real processes under steady load, or asks for too much at once, and checks what\n\
    was promised for that case. `cargo xtask drill NAME` runs one, `cargo xtask drill all` all of them; with `--quick` a\n\
    drill takes seconds, checks every answer and only reports latencies. A run prints hypothesis, observation and\n\
    verdict, `held` or `broken`, and leaves a chart with the fault marked under `target/drills/`. Those that need the\n\
    cluster use the one that `cargo xtask up cassandra` started, or else start one and end it.\n\n\
    What is measured is in [Measurements](measurements/README.md).\n";

/// The drills as `drill list` prints them.
#[must_use]
pub fn list(drills: &[&Drill]) -> String {
    let mut text = String::new();
    for drill in drills {
        let Drill { name, breaks, hypothesis, needs, .. } = drill;
        let _ = writeln!(text, "{name}\n  breaks      {breaks}\n  hypothesis  {hypothesis}");
        let _ = writeln!(text, "  needs       {needs}; {}", takes(drill));
        if let Chart::None(why) = drill.chart {
            let _ = writeln!(text, "  no chart    {why}");
        }
    }
    let [quick, full] = [Form::Quick, Form::Full].map(|form| lanes(drills, form));
    let _ = writeln!(
        text,
        "\n{} drills. Quick, about {}: {} with the cluster, {} beside them without; all at once within {}. In full, \
         one after the other, about {}",
        drills.len(),
        minutes(quick[0].max(quick[1])),
        minutes(quick[0]),
        minutes(quick[1]),
        minutes(QUICK_LIMIT),
        minutes(full[0] + full[1]),
    );
    text
}

/// How long those take that need the cluster, and those that don't.
fn lanes(drills: &[&Drill], form: Form) -> [Duration; 2] {
    [true, false].map(|cluster| {
        let lane = drills.iter().filter(|drill| drill.needs.cluster == cluster);
        lane.map(|drill| drill.takes.of(form)).sum()
    })
}

fn takes(drill: &Drill) -> String {
    let [quick, full] = [Form::Quick, Form::Full].map(|form| drill.takes.of(form).as_secs());
    format!("quick {quick} s, full {full} s")
}

fn minutes(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds < 120 { format!("{seconds} s") } else { format!("{} min", seconds.div_ceil(60)) }
}

/// The page of the book, with those charts of drills that are in `charts`.
#[must_use]
pub fn page(charts: &Path) -> String {
    let mut text = HEAD.to_owned();
    for drill in all() {
        let _ = write!(text, "\n{}", section(drill));
        if charts.join(format!("{}.svg", drill.name)).exists() {
            let alt = "what requests met over time, with the fault marked";
            let _ = writeln!(text, "\n![{}: {alt}](measurements/drills/{}.svg)", drill.name, drill.name);
        }
    }
    text
}

/// What the page says of one drill. Times are code, since the book allows no number with a unit elsewhere.
#[must_use]
pub fn section(drill: &Drill) -> String {
    let Drill { name, breaks, hypothesis, needs, .. } = drill;
    let [quick, full] = [Form::Quick, Form::Full].map(|form| drill.takes.of(form).as_secs());
    let chart = match drill.chart {
        Chart::Timeline => String::new(),
        Chart::None(why) => format!("- *No chart*: {why}.\n"),
    };
    format!(
        "## {name}\n\n- *Breaks*: {breaks}.\n- *Hypothesis*: {hypothesis}.\n- *Needs*: {needs}; takes `{quick} s` \
         quick, `{full} s` in full.\n{chart}"
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;

    use super::super::find;
    use super::*;

    fn docs() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("docs")
    }

    #[test]
    fn the_books_page_says_what_the_catalogue_says() {
        let kept = fs::read_to_string(docs().join("drills.md")).unwrap();
        let made = page(&docs().join("measurements/drills"));
        // Lines first: a difference is told by the first one that differs.
        for (kept, made) in kept.lines().zip(made.lines()) {
            assert_eq!(kept, made, "`cargo xtask drill page` writes docs/drills.md anew");
        }
        assert_eq!(kept, made, "`cargo xtask drill page` writes docs/drills.md anew");
    }

    #[test]
    fn every_drill_has_a_section_and_those_with_a_chart_show_it() {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("scan.svg"), "<svg/>").unwrap();
        let page = page(place.path());
        assert!(all().all(|drill| page.contains(&section(drill))));
        assert_eq!(page.matches("\n## ").count(), all().count());
        assert_eq!(page.matches("](measurements/drills/").count(), 1);
        assert!(page.contains("](measurements/drills/scan.svg)"));
    }

    #[test]
    fn the_list_tells_all_of_a_drill_and_how_long_it_takes() {
        let list = list(&[find("kill-node").unwrap(), find("alias-race").unwrap(), find("scan").unwrap()]);
        for told in
            ["kill-node\n  breaks      kill -9", "  hypothesis  ", "needs       the cluster; quick ", "  no chart "]
        {
            assert!(list.contains(told), "{told}: {list}");
        }
        assert_eq!(list.matches("  no chart ").count(), 1);
        assert!(list.contains("\n3 drills. Quick, about "), "{list}");
    }

    #[test]
    fn long_times_are_told_in_minutes() {
        let told = |seconds| minutes(Duration::from_secs(seconds));
        assert_eq!([told(119), told(120), told(121)], ["119 s", "2 min", "3 min"]);
    }
}
