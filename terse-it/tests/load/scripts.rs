//! The scripts as stock k6 understands them, with nothing set: they plan what the goose scenarios plan, and fail by the
//! same limits.

use std::process::Command;
use std::thread;

use serde_json::Value;
use terse_it::Setup;

use super::{TOOLS, generator};

/// Rates of k6 are whole numbers a minute.
const PLANS_APART: f64 = 0.01;
/// How long the script `smoke` may take at most, in seconds.
const SMOKE_LIMIT: f64 = 60.0;

/// Seconds of a duration as Go writes it, `1m9.5s`.
fn seconds(text: &str) -> f64 {
    let (mut sum, mut number) = (0.0, String::new());
    for part in text.replace("ms", "x").chars() {
        let unit = match part {
            'h' => 3_600.0,
            'm' => 60.0,
            's' => 1.0,
            'x' => 1e-3,
            digit => {
                number.push(digit);
                continue;
            }
        };
        sum += number.parse::<f64>().unwrap_or_else(|e| panic!("{text}: {e}")) * unit;
        number.clear();
    }
    assert!(number.is_empty(), "{text}");
    sum
}

/// Lines that a command prints.
fn lines(command: &mut Command) -> String {
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TERSE_")) {
        command.env_remove(name);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", super::said(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Where the script of that scenario is.
pub(crate) fn script(name: &str) -> String {
    format!("{}/../loadtests/k6/{name}.js", env!("CARGO_MANIFEST_DIR"))
}

/// What k6 makes of a script.
fn inspected(name: &str) -> Value {
    let text = lines(Command::new(generator("k6")).args(["inspect", "--execution-requirements", &script(name)]));
    serde_json::from_str(&text).unwrap()
}

/// Requests that k6 plans, and in how many seconds.
fn planned(executor: &Value) -> (f64, f64) {
    assert_eq!(executor["timeUnit"], "1m0s");
    if executor["executor"] == "constant-arrival-rate" {
        let time = seconds(executor["duration"].as_str().unwrap());
        return (executor["rate"].as_f64().unwrap() / 60.0 * time, time);
    }
    assert_eq!(executor["executor"], "ramping-arrival-rate");
    let mut rate = executor["startRate"].as_f64().unwrap();
    let (mut requests, mut whole) = (0.0, 0.0);
    for stage in executor["stages"].as_array().unwrap() {
        let (time, target) = (seconds(stage["duration"].as_str().unwrap()), stage["target"].as_f64().unwrap());
        requests += f64::midpoint(rate, target) / 60.0 * time;
        whole += time;
        rate = target;
    }
    (requests, whole)
}

/// Each limit as k6 writes it.
fn limits(scenario: &Value) -> Vec<(&'static str, String)> {
    let number = |name: &str| scenario[name].as_f64().unwrap();
    let late = (number("requests") * number("late_per_mille") / 1e3).floor();
    let mut limits = vec![
        ("http_reqs{load:yes}", "count>=1".to_owned()),
        ("wrong_answers", "count==0".to_owned()),
        ("http_req_failed{load:yes}", format!("rate<={}", number("refused_per_mille") / 1e3)),
        ("dropped_iterations", format!("count<={late}")),
        ("http_req_duration{load:yes}", format!("p(99)<={}", number("p99_ms"))),
    ];
    if scenario["expects_429"] == true {
        limits.extend([("limited", "count>=1".to_owned()), ("made", "count>=1".to_owned())]);
    }
    limits
}

#[test]
fn stock_k6_plans_and_limits_each_script_as_goose_does() {
    let listed = lines(Command::new(generator("goose")).args(["list", "--json"]));
    let scenarios: Vec<Value> = listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(scenarios.len(), 8);
    for scenario in &scenarios {
        let name = scenario["name"].as_str().unwrap();
        let told = inspected(name);
        let executor = &told["scenarios"][name];
        let (requests, time) = planned(executor);
        let wanted = scenario["requests"].as_f64().unwrap();
        assert!((requests - wanted).abs() <= wanted * PLANS_APART, "{name}: {requests} with k6, {wanted} with goose");
        assert!((time - scenario["seconds"].as_f64().unwrap()).abs() < 0.1, "{name}: {time} s");
        assert_eq!((&executor["maxVUs"], &told["maxRedirects"]), (&scenario["users"], &Value::from(0)), "{name}");
        let wanted = limits(scenario);
        assert_eq!(told["thresholds"].as_object().unwrap().len(), wanted.len(), "{name}: {}", told["thresholds"]);
        for (metric, limit) in wanted {
            assert_eq!(told["thresholds"][metric], serde_json::json!([limit]), "{name}: {metric}");
        }
    }
    assert!(seconds(inspected("smoke")["totalDuration"].as_str().unwrap()) <= SMOKE_LIMIT);
}

#[test]
fn the_smoke_test_of_each_tool_needs_nothing_but_a_url_and_a_key() {
    // A server each, with its limits on: both would be one caller to one.
    let servers = TOOLS.map(|tool| {
        let setup = Setup::new().env("TERSE_LIMITS", "on").env("TERSE_AUTH", "keys");
        let (key, _) = setup.create_key("writer", &[]);
        let server = setup.start();
        assert_eq!(server.client().get("/api/v1/links").status, 401, "it wants a key");
        (tool, server, key)
    });
    let threads = servers.each_ref().map(|(tool, server, key)| {
        let mut command = Command::new(generator(tool));
        if *tool == "k6" {
            command.args(["run", "--quiet", &script("smoke")])
        } else {
            command.arg("smoke")
        };
        // As people copy addresses: with a slash at the end.
        command.env("TERSE_URL", format!("http://{}/", server.address())).env("TERSE_KEY", key);
        thread::spawn(move || command.output().unwrap())
    });
    for thread in threads {
        let output = thread.join().unwrap();
        assert!(output.status.success(), "{}", super::said(&output));
    }
}

#[test]
fn durations_of_go_are_read() {
    for (text, wanted) in [("20s", 20.0), ("1m0s", 60.0), ("9.9s", 9.9), ("1h0m1s", 3_601.0), ("150ms", 0.15)] {
        assert!((seconds(text) - wanted).abs() < 1e-9, "{text}");
    }
}
