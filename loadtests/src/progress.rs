//! A second of a load as the line that a person reads: in the generator itself, and in `cargo xtask load`, which takes
//! this very file and feeds it what k6 tells, too.

use serde_json::Value;

/// The line, without its end. What `second` lacks is told as zero.
#[must_use]
pub fn line(second: &Value) -> String {
    let number = |name: &str| second[name].as_f64().unwrap_or_default();
    format!(
        "{:>5} s  {:>7} answers  {:>5} refused  {:>5} wrong  {:>5} late  p50 {:>8.2} ms  p99 {:>8.2} ms",
        number("second"),
        number("requests"),
        number("refused"),
        number("wrong"),
        number("late"),
        number("p50_ms"),
        number("p99_ms")
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::line;

    #[test]
    fn a_second_is_one_line() {
        let second = json!({ "second": 3, "requests": 1_000, "wrong": 2, "p50_ms": 0.256, "p99_ms": 12.5 });
        let wanted = "    3 s     1000 answers      0 refused      2 wrong      0 late  \
                      p50     0.26 ms  p99    12.50 ms";
        assert_eq!(line(&second), wanted);
    }
}
