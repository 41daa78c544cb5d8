//! The subcommands. Results go to stdout, notes and errors to stderr; an error
//! is one line and an exit code.

mod dead;
mod estimate;
mod keys;
mod quiz;
mod reference;
mod replay;
mod serve;
mod shards;
mod table;

use std::ffi::OsString;
use std::future::Future;
use std::io::Write as _;
use std::process::ExitCode;

use crate::blocking;
use crate::cli::{self, Action, Cli, Parsed};
use crate::config::Config;
use crate::config::raw::Inputs;
use crate::data_dir;
use crate::exit::{Exit, StartError};
use crate::identity;
use crate::stores::Stores;
use crate::system::OsEntropy;
use crate::world::World;
use table::table;

/// Runs the program with these arguments (the first is its name) and this environment.
#[must_use]
pub fn run(arguments: Vec<OsString>, environment: Vec<(OsString, OsString)>) -> ExitCode {
    // Before memory is taken for anything. Whether it can be had so is told by the server, which asks again.
    let _told_later = serve::use_small_pages();
    let program = arguments.first().map_or_else(|| "terse".into(), |name| name.to_string_lossy().into_owned());
    let outcome = match cli::parse(arguments) {
        Ok(Parsed::Print(text)) => say(text.trim_end()),
        Ok(Parsed::Nothing(help)) => {
            note(help.trim_end());
            return Exit::Config.into();
        }
        Ok(Parsed::Do(cli)) => act(*cli, environment, &program),
        Err(error) => Err(error),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            note(&format!("terse: {error}"));
            error.exit.into()
        }
    }
}

fn act(cli: Cli, environment: Vec<(OsString, OsString)>, program: &str) -> Result<(), StartError> {
    // Stores hold the key of the permutation; whoever reads it can tell codes in advance.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let load = || {
        let working_dir = std::env::current_dir().unwrap_or_default();
        Config::load(Inputs { flags: cli.keys.0, config_file: cli.config, environment, working_dir })
    };
    match cli.action {
        Action::Serve { role } => serve::serve(load()?, &role, program),
        Action::Migrate => migrate(&load()?),
        Action::CheckConfig => check_config(&load()?),
        Action::Keys(action) => keys::keys(&load()?, action),
        Action::Shards(action) => shards::shards(&load()?, &action),
        Action::Dead(action) => dead::dead(&load()?, &action),
        Action::Replay(order) => replay::replay(&load()?, &order),
        Action::Estimate(order) => estimate::estimate(&order),
        Action::Quiz(order) => quiz::quiz(&order),
        Action::Reference { page } => say(reference::page(page).trim_end()),
    }
}

fn check_config(config: &Config) -> Result<(), StartError> {
    blocking::check(config.blocklist.as_deref())?;
    say(config.describe().trim_end())?;
    for warning in &config.warnings {
        note(&format!("warning: {warning}"));
    }
    Ok(())
}

fn migrate(config: &Config) -> Result<(), StartError> {
    data_dir::create(&config.data_dir)?;
    let identity = in_runtime(async {
        let stores = Stores::open(config, &World::real())?;
        let settled = identity::settle(config, &stores, &OsEntropy).await;
        let waiting = stores.waiting();
        stores.close();
        match waiting.first() {
            Some(shard) if settled.is_ok() => {
                let text = format!("shard '{}' is out of reach: it was not migrated", config.store.shards[*shard].name);
                Err(StartError::new(Exit::Unavailable, text))
            }
            _ => settled,
        }
    })?;
    for shard in &config.store.shards {
        say(&format!("shard '{}' on {}: schema is this version's", shard.name, shard.backend))?;
    }
    say(&format!("deployment {} in {}", identity.deployment_text(), config.data_dir.display()))
}

/// Runs `work` on a runtime of one thread, and leaves nothing of it behind.
fn in_runtime<T>(work: impl Future<Output = Result<T, StartError>>) -> Result<T, StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| StartError::new(Exit::Internal, format_args!("no runtime could be started: {error}")))?;
    let outcome = runtime.block_on(work);
    // Waiting for a stuck thread would keep the process from ending.
    runtime.shutdown_background();
    outcome
}

/// Writes a line to stdout, at once.
fn say(text: &str) -> Result<(), StartError> {
    let mut out = std::io::stdout().lock();
    let written = writeln!(out, "{text}").and_then(|()| out.flush());
    // Whoever reads has enough, as head does.
    if written.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe) {
        return Ok(());
    }
    written.map_err(|error| StartError::new(Exit::Io, format_args!("cannot write to stdout: {error}")))
}

/// Writes a line to stderr. When that fails there is nobody left to tell.
fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
