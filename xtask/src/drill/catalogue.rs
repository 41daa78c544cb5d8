//! The catalogue of drills, as their program tells it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::TOLD_LIMIT;
use crate::bench::store::program::lines_of;
use crate::process::Supervisor;

/// What this needs to know of a drill.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) needs: Needs,
    quick_s: u64,
    full_s: u64,
}

/// What a drill needs that is not its own.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Needs {
    pub(super) cluster: bool,
}

impl Entry {
    fn takes(&self, quick: bool) -> Duration {
        Duration::from_secs(if quick { self.quick_s } else { self.full_s })
    }
}

/// The drills that are meant by `names`.
///
/// # Errors
/// When there is no drill of such a name: the program has said so.
pub(super) fn read(supervisor: &Supervisor, program: &Path, names: &[String]) -> Result<Vec<Entry>> {
    // `all` is what the list has without a name.
    let named = names.iter().filter(|_| !names.iter().any(|name| name == "all"));
    let lines = lines_of(supervisor, Command::new(program).arg("list").args(named).arg("--json"), TOLD_LIMIT)?;
    serde_json::from_str(&lines.join("\n")).context("reading the list of drills")
}

/// What is about to be run, and how long that takes.
pub(super) fn told(entries: &[Entry], quick: bool, lanes: usize) -> String {
    let sum = |cluster: Option<bool>| -> Duration {
        let of_lane = entries.iter().filter(|entry| cluster.is_none_or(|cluster| entry.needs.cluster == cluster));
        of_lane.map(|entry| entry.takes(quick)).sum()
    };
    let form = if quick { "in the quick form" } else { "in full" };
    let drills = if entries.len() == 1 { "1 drill".to_owned() } else { format!("{} drills", entries.len()) };
    let time = if lanes == 1 { sum(None) } else { sum(Some(true)).max(sum(Some(false))) };
    let beside = if lanes == 1 { "" } else { ", those with the cluster beside those without" };
    format!("{drills} {form}, about {}{beside}", minutes(time))
}

fn minutes(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds < 120 { format!("{seconds} s") } else { format!("{} min", seconds.div_ceil(60)) }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::drill) fn entry(name: &str, cluster: bool, quick_s: u64) -> Entry {
        Entry { name: name.to_owned(), needs: Needs { cluster }, quick_s, full_s: 10 * quick_s }
    }

    #[test]
    fn what_takes_long_is_told_before_it_begins() {
        let entries = [entry("a", true, 100), entry("b", false, 90), entry("c", false, 50)];
        assert_eq!(told(&entries, true, 1), "3 drills in the quick form, about 4 min");
        let beside = "3 drills in the quick form, about 3 min, those with the cluster beside those without";
        assert_eq!(told(&entries, true, 2), beside);
        assert_eq!(told(&entries[..1], false, 1), "1 drill in full, about 17 min");
        assert_eq!(told(&entries[2..], true, 1), "1 drill in the quick form, about 50 s");
    }

    #[test]
    fn the_list_is_read_as_the_program_prints_it() {
        let text = r#"[{"name":"scan","breaks":"b","hypothesis":"h","chart":true,"quick_s":11,"full_s":44,
            "needs":{"cluster":false,"redis":false,"broker":false}}]"#;
        let entries: Vec<Entry> = serde_json::from_str(text).unwrap();
        assert_eq!((entries[0].name.as_str(), entries[0].needs.cluster), ("scan", false));
        assert_eq!((entries[0].takes(true).as_secs(), entries[0].takes(false).as_secs()), (11, 44));
    }
}
