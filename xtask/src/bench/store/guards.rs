//! What breaker and bulkhead cost around a call that costs nothing, in
//! nanoseconds: the benchmark `guards` of `terse-resilience`, read.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::super::Bench;
use super::super::report::Series;
use super::program::output_of;

/// The series that the promise about the breaker is judged by.
pub const CLOSED_BREAKER: &str = "guard: breaker, consecutive: acquire + success, closed, 1 thread";

/// How often each guard is called in a round of a quick run, where nothing is optimised.
const QUICK_CALLS: &str = "20000";
/// How long the benchmark may take.
const LIMIT: Duration = Duration::from_secs(120);

/// Measures the guards.
///
/// # Errors
/// When the benchmark can't be built, fails, or says nothing.
pub fn measure(bench: &Bench<'_>) -> Result<Vec<Series>> {
    let mut command = Command::new(bench.build("terse-resilience", "guards")?);
    if bench.run.quick {
        command.arg(QUICK_CALLS);
    }
    let lines = output_of(bench, &mut command, LIMIT)?;
    let series: Vec<Series> = lines.iter().map(|line| read("guard", line)).collect::<Result<_>>()?;
    if !series.iter().any(|series| series.name == CLOSED_BREAKER) {
        bail!("the guards' benchmark has no line for '{CLOSED_BREAKER}'");
    }
    println!("guards: {} measurements", series.len());
    Ok(series.into_iter().filter(|series| bench.run.wants(&series.name)).collect())
}

/// Reads `NAME  N threads  X ns` as a series of `what`.
///
/// # Errors
/// When the line is another one.
pub fn read(what: &str, line: &str) -> Result<Series> {
    let parts = || {
        let (rest, nanoseconds) = line.strip_suffix(" ns")?.rsplit_once(' ')?;
        let (name, threads) = rest.trim_end().strip_suffix(" threads")?.rsplit_once(' ')?;
        let threads: u32 = threads.parse().ok()?;
        Some((name.trim_end(), threads, nanoseconds.parse::<f64>().ok()?))
    };
    let (name, threads, nanoseconds) = parts().with_context(|| format!("not a line of a {what}: {line}"))?;
    let mut series = Series::new(&format!("{what}: {name}, {threads} thread{}", if threads == 1 { "" } else { "s" }));
    series.add(vec![("ns", nanoseconds)]);
    Ok(series)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_guard_its_threads_and_its_nanoseconds() {
        let line =
            format!("{:<58}{:>2} threads {:>8.1} ns", "breaker, consecutive: acquire + success, closed", 1, 31.25);
        let series = read("guard", &line).unwrap();
        assert_eq!(series.name, CLOSED_BREAKER);
        assert_eq!(series.values("ns"), [31.2]);
        let two =
            read("guard", &format!("{:<58}{:>2} threads {:>8.1} ns", "bulkhead: acquire + release", 2, 123_456.0))
                .unwrap();
        assert_eq!(
            (two.name.as_str(), two.values("ns")),
            ("guard: bulkhead: acquire + release, 2 threads", vec![123_456.0])
        );
    }

    #[test]
    fn any_other_line_is_refused() {
        for line in ["", "running 3 tests", "breaker 1 threads fast ns", "breaker one threads 1 ns"] {
            assert!(read("guard", line).is_err(), "{line}");
        }
    }
}
