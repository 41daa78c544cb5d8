//! `loadtests SCENARIO`: one load test, see `loadtests --help`.

use std::io::Write as _;
use std::net::IpAddr;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use loadtests::attack::{self, Ran, Size, unix_ms};
use loadtests::progress::line;
use loadtests::scenario::{SCENARIOS, Scenario, USERS};
use loadtests::verdict::{Threshold, thresholds};
use reqwest::Url;
use serde_json::{Value, json};
use signal_hook::consts::SIGTERM;

/// Where a server listens unless it was told otherwise.
const DEFAULT_URL: &str = "http://127.0.0.1:8080";

/// Puts load on a terse server, checks every answer, and fails unless all thresholds hold.
#[derive(Parser)]
#[command(name = "loadtests", after_help = "A server that wants a key gets the one in TERSE_KEY.")]
struct Arguments {
    /// What to run; `list` lists the scenarios, with --json all that is set of them
    scenario: String,
    /// The server; by default TERSE_URL if that is on loopback, or else http://127.0.0.1:8080
    #[arg(long)]
    url: Option<String>,
    /// Requests per second; 0 = as fast as answers come
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=100_000))]
    rate: Option<u32>,
    /// How long, in seconds
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: Option<u32>,
    /// How many links are made before
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    links: Option<u32>,
    /// Requests under way at most
    #[arg(long, value_name = "N", default_value_t = USERS, value_parser = clap::value_parser!(u32).range(1..=4_096))]
    users: u32,
    /// The latency that 99 of 100 answers must not exceed
    #[arg(long, value_name = "MS")]
    p99_ms: Option<f64>,
    /// The server redirects everything to this target: make no links, expect nothing else
    #[arg(long, value_name = "TARGET")]
    constant: Option<String>,
    /// Tell each second and the result as JSON, a line each
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            #[allow(clippy::print_stderr, reason = "the reason why the run failed")]
            {
                eprintln!("loadtests: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

/// Whether all thresholds hold.
fn run(arguments: &Arguments) -> Result<bool> {
    if arguments.scenario == "list" {
        let line = |scenario: &Scenario| match arguments.json {
            true => format!("{}\n", scenario.json()),
            false => format!("{:<14}{}\n", scenario.name, scenario.what),
        };
        print(&SCENARIOS.iter().map(line).collect::<String>())?;
        return Ok(true);
    }
    let Some(scenario) = Scenario::named(&arguments.scenario) else {
        let names: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        bail!("no scenario {:?}; there are {}", arguments.scenario, names.join(", "));
    };
    end_on_sigterm()?;
    let json = arguments.json;
    let told = move |second: Value| print(&if json { format!("{second}\n") } else { format!("{}\n", line(&second)) });
    // Nobody may read any more: then the result can't be told either, and that fails.
    let tell = move |second| drop(told(second));
    let runtime = tokio::runtime::Runtime::new().context("a runtime")?;
    let size = arguments.size(scenario)?;
    let sizes = json!({ "rate": size.rate, "seconds": size.seconds, "links": size.links, "users": size.users });
    let ran = runtime.block_on(attack::run(scenario, size, tell))?;
    let thresholds = thresholds(scenario, arguments.p99_ms.unwrap_or(scenario.p99_ms), &ran.ledger);
    if json {
        let told = json!({ "scenario": scenario.name, "size": sizes, "began_unix_ms": ran.began_unix_ms });
        print(&result(told, &ran, &thresholds))?;
    } else {
        print(&text(&ran, &thresholds))?;
    }
    // A load that was stopped is not the one that was asked for, however well it was answered.
    Ok(!ran.stopped && thresholds.iter().all(Threshold::met))
}

impl Arguments {
    fn size(&self, scenario: &Scenario) -> Result<Size> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Ok(Size {
            url: server(self.url.as_deref(), variable("TERSE_URL").as_deref())?,
            key: variable("TERSE_KEY"),
            rate: self.rate.unwrap_or(scenario.rate),
            seconds: self.seconds.unwrap_or(scenario.seconds),
            links: self.links.unwrap_or(scenario.links),
            users: self.users,
            constant: self.constant.clone(),
            run: unix_ms(),
        })
    }
}

/// The server, without a slash at the end. One on another machine must be named with the command: a variable that a
/// shell has kept is no consent.
fn server(named: Option<&str>, kept: Option<&str>) -> Result<String> {
    let text = named.or(kept).unwrap_or(DEFAULT_URL);
    let url = Url::parse(text).ok().filter(|url| url.scheme() == "http" && url.query().is_none());
    let url = url.with_context(|| format!("{text:?} is no http:// address of a server"))?;
    if named.is_none() && !is_loopback(&url) {
        bail!("TERSE_URL is {text}, which is not this machine: to load it, name it with --url");
    }
    Ok(text.trim_end_matches('/').to_owned())
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    address.map_or(host == "localhost", |address| address.is_loopback() || address.is_unspecified())
}

/// Ends the run on SIGTERM as Ctrl-C ends it: what was answered until then is told.
fn end_on_sigterm() -> Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM]).context("watching signals")?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        if signals.forever().next().is_some() {
            goose::trigger_killswitch("SIGTERM");
        }
    })?;
    Ok(())
}

fn print(text: &str) -> Result<()> {
    let mut output = std::io::stdout().lock();
    output.write_all(text.as_bytes()).and_then(|()| output.flush()).context("writing the output")
}

/// What is `told` of the run, and what it came to.
fn result(mut told: Value, ran: &Ran, thresholds: &[Threshold]) -> String {
    if let (Value::Object(told), Value::Object(counted)) = (&mut told, ran.ledger.json()) {
        told.extend(counted);
    }
    told["stopped"] = ran.stopped.into();
    told["thresholds"] = thresholds.iter().map(Threshold::json).collect();
    format!("{}\n", json!({ "result": told }))
}

fn text(ran: &Ran, thresholds: &[Threshold]) -> String {
    let samples = ran.ledger.samples().iter().map(|sample| format!("not right: {sample}\n"));
    let lines = thresholds.iter().map(|threshold| format!("{threshold}\n"));
    samples.chain(lines).chain(ran.stopped.then(|| "stopped before its end\n".to_owned())).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use loadtests::ledger::Ledger;

    use super::*;

    #[test]
    fn a_server_is_named_with_or_without_a_slash_and_by_a_path() {
        assert_eq!(server(None, None).unwrap(), DEFAULT_URL);
        assert_eq!(server(None, Some("http://localhost:81/")).unwrap(), "http://localhost:81");
        assert_eq!(server(None, Some("http://[::1]:81/links//")).unwrap(), "http://[::1]:81/links");
        assert_eq!(server(Some("http://127.0.0.9"), Some("nonsense")).unwrap(), "http://127.0.0.9");
        assert_eq!(server(None, Some("http://0.0.0.0:81")).unwrap(), "http://0.0.0.0:81");
        for text in ["127.0.0.1:8080", "https://127.0.0.1", "http://", "http://127.0.0.1/?a=b"] {
            let error = server(None, Some(text)).unwrap_err().to_string();
            assert!(error.ends_with("is no http:// address of a server"), "{error}");
        }
    }

    #[test]
    fn another_machine_is_loaded_only_when_the_command_names_it() {
        for elsewhere in ["http://10.0.0.1:8080", "http://example.com", "http://localhost.example.com", "http://[::2]"]
        {
            let error = server(None, Some(elsewhere)).unwrap_err().to_string();
            assert!(error.contains("not this machine"), "{error}");
            assert_eq!(server(Some(elsewhere), None).unwrap(), elsewhere);
        }
    }

    #[test]
    fn a_run_that_was_stopped_says_so() {
        let ran = |stopped| Ran { ledger: Ledger::new().unwrap(), began_unix_ms: 0, stopped };
        assert_eq!((text(&ran(true), &[]).as_str(), text(&ran(false), &[]).as_str()), ("stopped before its end\n", ""));
        let told: Value = serde_json::from_str(&result(json!({}), &ran(true), &[])).unwrap();
        assert_eq!(told["result"]["stopped"], true);
    }
}
