//! `loadtests SCENARIO`: one load test, see `loadtests --help`.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use loadtests::attack::{self, Size, unix_ms};
use loadtests::ledger::Ledger;
use loadtests::scenario::{SCENARIOS, Scenario, USERS};
use loadtests::verdict::{Threshold, thresholds};
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
    /// The server; by default TERSE_URL, or else http://127.0.0.1:8080
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
    let told = move |second: Value| print(&if json { format!("{second}\n") } else { line(&second) });
    // Nobody may read any more: then the result can't be told either, and that fails.
    let tell = move |second| drop(told(second));
    let runtime = tokio::runtime::Runtime::new().context("a runtime")?;
    let size = arguments.size(scenario);
    let sizes = json!({ "rate": size.rate, "seconds": size.seconds, "links": size.links, "users": size.users });
    let (ledger, began) = runtime.block_on(attack::run(scenario, size, tell))?;
    let thresholds = thresholds(scenario, arguments.p99_ms.unwrap_or(scenario.p99_ms), &ledger);
    if json {
        let told = json!({ "scenario": scenario.name, "size": sizes, "began_unix_ms": began });
        print(&result(told, &ledger, &thresholds))?;
    } else {
        print(&text(&ledger, &thresholds))?;
    }
    Ok(thresholds.iter().all(Threshold::met))
}

impl Arguments {
    fn size(&self, scenario: &Scenario) -> Size {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let url = self.url.clone().or_else(|| variable("TERSE_URL"));
        Size {
            url: url.unwrap_or_else(|| DEFAULT_URL.to_owned()).trim_end_matches('/').to_owned(),
            key: variable("TERSE_KEY"),
            rate: self.rate.unwrap_or(scenario.rate),
            seconds: self.seconds.unwrap_or(scenario.seconds),
            links: self.links.unwrap_or(scenario.links),
            users: self.users,
            constant: self.constant.clone(),
            run: unix_ms(),
        }
    }
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

fn line(second: &Value) -> String {
    let number = |name: &str| second[name].as_f64().unwrap_or_default();
    format!(
        "{:>5} s  {:>7} answers  {:>5} refused  {:>5} wrong  {:>5} late  p50 {:>8.2} ms  p99 {:>8.2} ms\n",
        number("second"),
        number("requests"),
        number("refused"),
        number("wrong"),
        number("late"),
        number("p50_ms"),
        number("p99_ms")
    )
}

/// What is `told` of the run, and what it came to.
fn result(mut told: Value, ledger: &Ledger, thresholds: &[Threshold]) -> String {
    if let (Value::Object(told), Value::Object(counted)) = (&mut told, ledger.json()) {
        told.extend(counted);
    }
    told["thresholds"] = thresholds.iter().map(Threshold::json).collect();
    format!("{}\n", json!({ "result": told }))
}

fn text(ledger: &Ledger, thresholds: &[Threshold]) -> String {
    let samples = ledger.samples().iter().map(|sample| format!("not right: {sample}\n"));
    let lines = thresholds.iter().map(|threshold| format!("{threshold}\n"));
    samples.chain(lines).collect()
}
