//! Schemathesis reads the OpenAPI document and tries to catch the server
//! answering what is not written there. Generation is deterministic, so a finding comes back.

use std::path::{Path, PathBuf};
use std::process::Command;

use terse_it::{Setup, heavy_turn};

/// Examples per operation and phase.
const EXAMPLES: &str = "40";
/// Seconds after which a run stops generating.
const RUN_SECONDS: &str = "45";
/// What the two checks of data accept beside their defaults. Data that fits
/// the schema may still break a rule that no schema can say (the calendar, the
/// URL policy), meet a link that is gone, or guard an edit by another version;
/// data that doesn't fit it may be too long to be read; and a batch tells in each
/// item what is wrong with it.
const CONFIGURATION: &str = r#"
[checks]
positive_data_acceptance.expected-statuses = ["2xx", "3xx", 401, 403, 404, 409, 410, 412, 422, 429, 451]
negative_data_rejection.expected-statuses = [400, 401, 403, 404, 405, 409, 413, 414, 415, 422, 429]

[[operations]]
include-path = "/api/v1/links/batch"
checks.negative_data_rejection.expected-statuses = [200, 400, 401, 403, 413, 414, 415, 422, 429]

# The coverage phase of Schemathesis 4.32 fills an optional header that has a pattern with `0` and calls that valid.
[[operations]]
include-path = "/api/v1/links/{code}"
checks.positive_data_acceptance.expected-statuses = ["2xx", "3xx", 400, 401, 403, 404, 410, 412, 422, 429, 451]
"#;

/// `TERSE_SCHEMATHESIS`, else the virtual environment below `target`; without one the tests fail.
fn schemathesis() -> PathBuf {
    let in_target = || {
        let executable = std::env::current_exe().ok()?;
        let target = executable.parent()?.parent()?.parent()?;
        Some(target.join("schemathesis/bin/st"))
    };
    let chosen = std::env::var_os("TERSE_SCHEMATHESIS").map(PathBuf::from).or_else(in_target);
    match chosen {
        Some(path) if path.is_file() => path,
        other => panic!(
            "Schemathesis is not at {other:?}: set TERSE_SCHEMATHESIS to its `st`, or run \
             `python3 -m venv target/schemathesis && target/schemathesis/bin/pip install schemathesis`"
        ),
    }
}

/// Runs Schemathesis against the server at `address`; panics with its report when it finds anything.
fn assert_conforms(address: &str, further: &[&str]) {
    let place = tempfile::tempdir().unwrap();
    let mut command = Command::new(schemathesis());
    let configuration = place.path().join("schemathesis.toml");
    std::fs::write(&configuration, CONFIGURATION).unwrap();
    command
        .current_dir(place.path())
        .arg("--config-file")
        .arg(configuration)
        .arg("run")
        .arg(format!("http://{address}/api/openapi.json"));
    command.args(["--url", &format!("http://{address}")]).args(further);
    command.args(["--checks", "all", "--phases", "examples,coverage,fuzzing,stateful", "--mode", "all"]);
    command.args(["--max-examples", EXAMPLES, "--max-time", RUN_SECONDS, "--generation-deterministic"]);
    // A breaker that is held open makes all that comes after it 503, as it should.
    command.args(["--exclude-operation-id", "force_breaker"]);
    // Of what is generated as a breaker's name most can't stand in a path and is dropped by the tool itself.
    command.args(["--suppress-health-check", "filter_too_much"]);
    // One worker: with two, CPython 3.11 fails now and then to parse source in two threads at once.
    command.args(["--workers", "1", "--continue-on-failure", "--no-color"]);
    command.args(["--max-redirects", "0", "--request-timeout", "10", "--warnings", "off"]);
    let ran = command.output().unwrap_or_else(|e| panic!("{}: {e}", Path::new(command.get_program()).display()));
    let told = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{}\n{told}", ran.status);
    println!("{told}");
}

#[test]
fn schemathesis_finds_nothing_undocumented_in_open_mode() {
    let _turn = heavy_turn();
    let server = Setup::new().start();
    assert_conforms(&server.address().to_string(), &[]);
    assert_eq!(server.client().get("/livez").status, 200);
}

#[test]
fn schemathesis_finds_nothing_undocumented_with_a_key() {
    let _turn = heavy_turn();
    let setup = Setup::new().env("TERSE_AUTH", "keys");
    let (key, _) = setup.create_key("writer", &[]);
    let server = setup.start();
    assert_conforms(&server.address().to_string(), &["--header", &format!("Authorization: Bearer {key}")]);
    assert_eq!(server.client().with_key(&key).get("/api/v1/links").status, 200);
}
