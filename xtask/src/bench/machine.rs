//! Where and with what something was measured, so that it can be measured again.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::pin::Cores;

/// Processor, cores, memory, kernel, and which cores did what.
#[must_use]
pub fn machine(cores: Cores) -> Value {
    let mut machine = unpinned();
    machine["server_core"] = cores.server.into();
    machine["generator_core"] = cores.generator.into();
    machine
}

/// Processor, cores, memory, kernel, where nothing was tied to a core.
#[must_use]
pub fn unpinned() -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    json!({
        "cpu": field(&read("/proc/cpuinfo"), "model name"),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "memory": field(&read("/proc/meminfo"), "MemTotal"),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "load_average": load_average(&read("/proc/loadavg"), 1),
    })
}

/// What others take from this machine just now, as a warning; `None` = next to nothing.
#[must_use]
pub fn busy_with_other_things() -> Option<String> {
    let load = load_average(&fs::read_to_string("/proc/loadavg").unwrap_or_default(), 0);
    (load > IDLE_LOAD).then(|| format!("load average {load}: others use this machine, the numbers will be theirs too"))
}

/// Up to this load average over a minute the machine counts as idle.
const IDLE_LOAD: f64 = 0.7;

/// The load average over one, five or fifteen minutes. Server and generator
/// make up at most 2 of it; with more, others took time from what was measured.
fn load_average(line: &str, which: usize) -> f64 {
    line.split(' ').nth(which).and_then(|load| load.parse().ok()).unwrap_or(f64::NAN)
}

/// What measurements write, as git is told to leave it out: the one before changes nothing of what this one measures.
const WRITTEN: [&str; 3] = [":!docs/measurements", ":!docs/drills.md", ":!docs/peers.md"];

/// The versions of all that took part.
#[must_use]
pub fn versions(root: &Path) -> Value {
    let commit = said(Command::new("git").args(["rev-parse", "HEAD"]).current_dir(root));
    let status = ["status", "--porcelain", "--untracked-files=no", "--", "."];
    let changed = said(Command::new("git").args(status).args(WRITTEN).current_dir(root));
    json!({
        "terse": env!("CARGO_PKG_VERSION"),
        "commit": commit,
        "uncommitted_changes": !changed.is_empty(),
        "rustc": said(Command::new("rustc").arg("-V")),
        "nginx": said(Command::new("nginx").arg("-v")),
    })
}

/// The current time, RFC 3339 in UTC.
#[must_use]
pub fn date() -> String {
    said(Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"]))
}

/// The command line of this run, as one would type it.
#[must_use]
pub fn command_line(arguments: impl Iterator<Item = String>) -> String {
    let quoted = arguments.skip(1).map(|word| if word.contains(' ') { format!("'{word}'") } else { word });
    std::iter::once("cargo xtask".to_owned()).chain(quoted).collect::<Vec<_>>().join(" ")
}

/// What a command prints, on either stream; nothing if it can't be run.
fn said(command: &mut Command) -> String {
    let Ok(output) = command.output() else { return String::new() };
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    String::from_utf8_lossy(&text).trim().to_owned()
}

fn field(text: &str, name: &str) -> String {
    let values = text.lines().filter_map(|line| line.split_once(':'));
    values.filter(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned()).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_described() {
        let described = machine(Cores { server: 0, generator: 1 });
        assert!(described["cores"].as_u64().unwrap() > 0);
        assert!(!described["kernel"].as_str().unwrap().is_empty());
        assert_eq!(described["generator_core"], 1);
    }

    #[test]
    fn the_load_of_five_minutes_is_the_second_of_three() {
        assert!((load_average("6.11 5.75 5.90 7/206 123", 1) - 5.75).abs() < 1e-9);
        assert!(load_average("", 1).is_nan());
    }

    #[test]
    fn versions_name_the_compiler() {
        assert!(versions(Path::new("."))["rustc"].as_str().unwrap().starts_with("rustc 1."));
        assert_eq!(said(&mut Command::new("no-such-program-here")), "");
    }

    #[test]
    fn the_date_is_rfc_3339() {
        let date = date();
        assert!(date.len() == 20 && date.ends_with('Z') && date.as_bytes()[10] == b'T', "{date}");
    }

    #[test]
    fn the_command_line_can_be_typed_again() {
        let words = ["/t/xtask", "bench", "redirect", "--only", "terse, one code"].map(str::to_owned);
        assert_eq!(command_line(words.into_iter()), "cargo xtask bench redirect --only 'terse, one code'");
    }

    #[test]
    fn fields_are_found_by_their_whole_name() {
        assert_eq!(field("a b: 1\na: 2\n", "a"), "2");
        assert_eq!(field("a: 2", "c"), "");
    }
}
