//! `cargo xtask up · down · test · lint · bench`: see `cargo xtask --help`.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use xtask::process::Supervisor;
use xtask::workspace::Workspace;
use xtask::{bench, book, claims, drill, lint, load, services, suite};

/// The project's own commands.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Bring up the services that terse works with, and tell where they are
    Up(services::UpOptions),
    /// Take down what `up` brought up
    Down(services::DownOptions),
    /// Bring up what the tests need, run them all, take everything down
    Test(suite::Options),
    /// Check format, clippy, docs, sizes, licences and architecture
    Lint(lint::Options),
    /// Measure against the numbers that terse promises
    Bench(bench::Options),
    /// Break one thing of the running cluster, and check what was promised for that case
    Drill(drill::Options),
    /// Work out the numbers of the book and check them
    #[command(subcommand)]
    Claims(claims::Options),
    /// Check the book and build it
    #[command(subcommand)]
    Book(book::Options),
    /// Put load on a server, check every answer, and write a report with charts
    Load(load::Options),
    /// Answer everything with one redirect until ended: what the kernel alone costs
    #[command(hide = true)]
    Floor {
        /// Where to listen
        listen: SocketAddr,
        /// Where to redirect to
        target: String,
        /// End each connection after its first answer
        #[arg(long)]
        close: bool,
    },
}

fn main() -> ExitCode {
    match run(&Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[allow(clippy::print_stderr, reason = "the reason why the command failed")]
            {
                eprintln!("xtask: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command) -> anyhow::Result<()> {
    if let Command::Floor { listen, target, close } = command {
        // A server under test: signals end it as they end any program.
        return bench::floor::serve(*listen, target, *close);
    }
    let supervisor = Supervisor::watch_signals()?;
    supervisor.finish(supervised(command, &supervisor))
}

fn supervised(command: &Command, supervisor: &Supervisor) -> anyhow::Result<()> {
    let workspace = Workspace::find()?;
    match command {
        Command::Up(options) => services::up(&workspace, supervisor, options),
        Command::Down(options) => services::down(&workspace, supervisor, options),
        Command::Test(options) => suite::run(&workspace, supervisor, options),
        Command::Lint(options) => lint::run(&workspace, supervisor, options),
        Command::Bench(options) => bench::run(&workspace, supervisor, options),
        Command::Drill(options) => drill::run(&workspace, supervisor, options),
        Command::Claims(options) => claims::run(&workspace, supervisor, options),
        Command::Book(options) => book::run(&workspace, supervisor, options),
        Command::Load(options) => load::run(&workspace, supervisor, options),
        Command::Floor { .. } => Ok(()),
    }
}
