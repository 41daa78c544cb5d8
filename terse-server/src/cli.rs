//! The command line. Every configuration key is a flag of every subcommand,
//! made from the same table as everything else about it, and listed by the help
//! of `serve`; a usage error is one line and exit code 64.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Arg, ArgMatches, Args, Command, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

mod estimate;

pub use estimate::{EstimateOrder, InputFlags, PeriodName, QuizOrder};

use crate::config::keys::{FILE_SUFFIX, KEYS, Key};
use crate::exit::{Exit, StartError};

/// A URL shortener that keeps its promises.
#[derive(Debug, Parser)]
#[command(name = "terse", version, after_help = SETTINGS_HELP, max_term_width = 120)]
#[command(arg_required_else_help = true, subcommand_required = true, infer_long_args = false)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
    /// Configuration file; without it, terse.toml in the working directory is read if it is there
    #[arg(long, value_name = "FILE", global = true, help_heading = HEADING)]
    pub config: Option<PathBuf>,
    /// The configuration keys that were given as flags.
    #[command(flatten)]
    pub keys: KeyFlags,
}

const HEADING: &str = "Configuration";

/// Where the rest of the help is.
const SETTINGS_HELP: &str = "All settings, where they come from, and the exit codes: terse serve --help";
/// The same, where nothing else says that settings are flags.
const FLAGS_HELP: &str = "Every setting is a flag here, too, such as --data-dir ./data: terse serve --help lists them";
/// What the short help says of the long one.
const MORE: &str = " (see more with '--help')";

/// A subcommand.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Serve redirects and the API
    #[command(after_long_help = after_help())]
    Serve {
        /// What this process serves; may be repeated
        #[arg(long, value_enum, value_name = "ROLE", default_value = "all")]
        role: Vec<RoleName>,
    },
    /// Create the data directory and bring the stores to this version's schema
    Migrate,
    /// Print the effective configuration, each key with its source, and warn of what is odd
    CheckConfig,
    /// Make, list and revoke API keys
    #[command(subcommand)]
    Keys(KeysAction),
    /// Show where codes belong, how evenly they fall on shards, and what became of leased ids
    #[command(subcommand, arg_required_else_help = true)]
    Shards(ShardsAction),
    /// List, requeue and discard clicks that could not be counted; servers may run meanwhile
    #[command(subcommand)]
    Dead(DeadAction),
    /// Build a read model anew from what the click log retains; servers may run meanwhile
    #[command(after_help = REPLAY_HELP)]
    Replay(ReplayOrder),
    /// Work out a capacity estimate: rates, bytes, cache, codes, machines
    #[command(after_help = ESTIMATE_HELP)]
    Estimate(EstimateOrder),
    /// Practise the design interview: questions, answers, a score
    Quiz(QuizOrder),
    /// Print a page of the reference in Markdown: `cargo xtask book reference` writes them
    #[command(hide = true)]
    Reference {
        /// Which
        #[arg(value_enum)]
        page: ReferencePage,
    },
}

/// A page of the reference that this program has the facts of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReferencePage {
    /// Every key
    Configuration,
    /// Every metric
    Metrics,
    /// Every problem
    Errors,
}

/// How numbers are written.
const ESTIMATE_HELP: &str = "\
Numbers may end in k, M, G, T, P or %: --links 100M --cache-share 1%. Results are to three digits; --json has them in
full. A preset of a guide is followed by what the guide says itself, beside what its inputs come to.";

/// What a process may serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RoleName {
    /// Everything
    All,
    /// `/{code}`
    Redirect,
    /// `/api` and `/`
    Api,
    /// Clicks: counts what was recorded
    Analytics,
}

/// What to do with API keys.
#[derive(Debug, Subcommand)]
pub enum KeysAction {
    /// Make a key and print it, once
    Create(KeyOrder),
    /// List all keys, without their secrets
    List,
    /// Revoke a key for ever; running servers refuse it within a second
    Revoke {
        /// The id, as `keys list` shows it
        id: String,
    },
}

/// What a new key shall be.
#[derive(Debug, Args)]
pub struct KeyOrder {
    /// What the key is for, 1 to 100 characters
    #[arg(long)]
    pub name: String,
    /// What it may do
    #[arg(long, value_enum)]
    pub role: KeyRole,
    /// When it ends: a time such as 2030-01-31T12:00:00Z, or a duration such as 30d or 12h
    #[arg(long, value_name = "T")]
    pub expires: Option<String>,
    /// Whose links it works on; without it, the key is an owner of its own
    #[arg(long, value_name = "ID")]
    pub owner: Option<String>,
}

/// A key's role on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KeyRole {
    /// Every link, blocking, administration
    Admin,
    /// Create, read and change own links
    Writer,
    /// Read own links
    Reader,
}

/// What to show of the shards.
#[derive(Debug, Subcommand)]
pub enum ShardsAction {
    /// Slot, shard and store of codes, whether they have links or not
    Show {
        /// Generated codes or aliases; those that begin with '-' come last, after a --
        #[arg(value_name = "CODE", required = true)]
        codes: Vec<String>,
    },
    /// How codes fall on shards: plain counter, permuted counter (what links get) and hash
    Skew(SkewOrder),
    /// Audit leased ids: who leased them, which have links, gaps, and ids leased twice
    #[command(after_help = LEASES_HELP)]
    Leases(LeasesOrder),
}

/// How the audit's columns are to be read.
const LEASES_HELP: &str = "\
STATE is 'full' (each id has a link), 'gap' (ids that will never have one), or 'open?' (one of the two newest blocks
shown of its holder, who may still use it). Ids that no record covers and ids leased twice get a line each; ids
leased twice end the command with exit code 70.";

/// How a comparison ends.
const REPLAY_HELP: &str = "\
With --verify the log is replayed as far as the deployment's read model has counted it. A difference of any row ends the
command with exit code 1. When the log no longer begins where it did nothing can be compared: exit code 69. The log is
what the bus has: journals of the data directory, or the streams of a message broker.";

/// Where to build a read model.
#[derive(Debug, Args)]
pub struct ReplayOrder {
    /// A SQLite file that is not there yet, or with a message broker an empty keyspace (cql://...)
    #[arg(long, value_name = "FRESH")]
    pub into: String,
    /// Compare it row by row with the deployment's
    #[arg(long)]
    pub verify: bool,
}

/// What to count codes on.
#[derive(Debug, Args)]
pub struct SkewOrder {
    /// Shards with equally many slots, 1 to 4096
    #[arg(long, value_name = "N", default_value = "16", value_parser = clap::value_parser!(u16).range(1..=4_096))]
    pub shards: u16,
    /// Codes to make by each scheme, 1 to 100000000
    #[arg(long, value_name = "N", default_value = "1000000")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub codes: u64,
    /// Use the deployment's key, as its links do, not the fixed one that gives everybody the same numbers
    #[arg(long)]
    pub store_key: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Which leases to audit.
#[derive(Debug, Args)]
pub struct LeasesOrder {
    /// Begin with the first block at or after this id
    #[arg(long, value_name = "ID", default_value = "0")]
    pub from: u64,
    /// Blocks to audit, 1 to 10000
    #[arg(long, value_name = "N", default_value = "100", value_parser = limit)]
    pub limit: usize,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Blocks of one audit: bounded, since each id of them is looked up.
fn limit(text: &str) -> Result<usize, String> {
    const MAX: usize = 10_000;
    text.parse().ok().filter(|number| (1..=MAX).contains(number)).ok_or_else(|| format!("must be 1 to {MAX}"))
}

/// What to do with dead letters.
#[derive(Debug, Subcommand)]
pub enum DeadAction {
    /// List what could not be counted: blocks, messages of the broker, and gaps that stop a journal
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Have them counted after all, each once, by the servers that count
    Requeue(DeadOrder),
    /// Give them up for ever: their clicks are not counted, and readers don't wait for them
    #[command(after_help = DISCARD_HELP)]
    Discard {
        /// Which
        #[command(flatten)]
        order: DeadOrder,
        /// Don't ask
        #[arg(long)]
        yes: bool,
    },
}

/// What a gap is.
const DISCARD_HELP: &str = "\
Without --yes it asks, if there is a terminal to ask. To discard a gap is to accept that its blocks are lost; the
journal's readers go on behind it within half a minute.";

/// Which dead letters.
#[derive(Debug, Args)]
pub struct DeadOrder {
    /// Ids, as `dead list` shows them
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
    pub ids: Vec<String>,
    /// All of them
    #[arg(long)]
    pub all: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// The configuration keys that were given as flags. Without `Debug` of its values, which may be secrets.
#[derive(Clone, Default)]
pub struct KeyFlags(pub Vec<(&'static Key, String)>);

impl std::fmt::Debug for KeyFlags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(key, _)| key.flag)).finish()
    }
}

impl Args for KeyFlags {
    fn augment_args(command: Command) -> Command {
        KEYS.iter().fold(command, |command, key| {
            command.arg(
                Arg::new(key.name)
                    .long(key.flag)
                    .value_name(key.value)
                    .help(format!("{} [default: {}] [env: {}]", key.help_with_range(), key.default_text, key.variable))
                    .help_heading(HEADING)
                    .global(true)
                    .hide_short_help(true)
                    .hide_default_value(true),
            )
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for KeyFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |key: &'static Key| matches.get_one::<String>(key.name).map(|text| (key, text.clone()));
        Ok(Self(KEYS.iter().filter_map(|key| given(key)).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// What reading the command line comes to.
#[derive(Debug)]
pub enum Parsed {
    /// Something to do.
    Do(Box<Cli>),
    /// A text that was asked for: print it, then all is well.
    Print(String),
    /// Nothing was asked for: print the help, as a usage error.
    Nothing(String),
}

/// Reads the command line.
///
/// # Errors
/// [`StartError`] when it makes no sense.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Parsed, StartError> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    match Cli::try_parse_from(&arguments) {
        Ok(cli) => Ok(Parsed::Do(Box::new(cli))),
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp => Ok(Parsed::Print(help(&arguments, error.to_string()))),
            ErrorKind::DisplayVersion => Ok(Parsed::Print(error.to_string())),
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Ok(Parsed::Nothing(error.to_string())),
            _ => Err(StartError::config(one_line(&error.to_string(), &arguments))),
        },
    }
}

/// The help that was asked for, of which `full` has all settings: but for that of `serve` they would bury the rest.
fn help(arguments: &[OsString], full: String) -> String {
    let usage = usage_of(&full);
    let practice = ["terse estimate", "terse quiz"].contains(&usage.as_str());
    match usage.as_str() {
        "terse" => return Cli::command().render_help().to_string().replace(MORE, ""),
        "terse serve" => return full,
        _ => {}
    }
    let mut brief = Cli::command().mut_arg("config", |arg| arg.hide(practice));
    for key in KEYS {
        brief = brief.mut_arg(key.name, |arg| arg.hide(true).hide_short_help(false));
    }
    match brief.try_get_matches_from(arguments) {
        Err(help) if practice => help.to_string(),
        Err(help) => format!("{}\n\n{FLAGS_HELP}", help.to_string().trim_end()),
        Ok(_) => full,
    }
}

/// The error of several lines that clap writes of `arguments`, in one.
fn one_line(rendered: &str, arguments: &[OsString]) -> String {
    let told = rendered.lines().take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"));
    let lines: Vec<&str> = told.map(str::trim).filter(|line| !line.is_empty()).collect();
    let text = lines.join("; ").replacen("error: ", "", 1).replace(":;", ":");
    let text = match text.split_once("; [possible values: ") {
        Some((before, values)) => format!("{before}: it may be {}", values.replacen(']', "", 1)),
        None => text,
    };
    let tip =
        ["tip: a similar argument exists: ", "tip: a similar subcommand exists: ", "tip: a similar value exists: "];
    let text = tip.iter().fold(text, |text, tip| match text.split_once(tip) {
        Some((before, suggestion)) => format!("{before}did you mean {suggestion}?"),
        None => text,
    });
    format!("{text} (see {} --help)", command_of(arguments))
}

/// The command that `arguments` name, as far as they name one, such as `terse keys create`.
fn command_of(arguments: &[OsString]) -> String {
    let mut command = Cli::command();
    let mut names = vec![command.get_name().to_owned()];
    for word in arguments.iter().skip(1) {
        if let Some(named) = command.find_subcommand(word).cloned() {
            names.push(named.get_name().to_owned());
            command = named;
        }
    }
    names.join(" ")
}

/// The command whose usage a rendered help shows, such as `terse keys create`.
fn usage_of(rendered: &str) -> String {
    let usage = rendered.lines().find_map(|line| line.strip_prefix("Usage: ")).unwrap_or_default();
    let names = usage.split(' ').take_while(|word| word.starts_with(|first: char| first.is_ascii_lowercase()));
    let names: Vec<&str> = names.collect();
    if names.is_empty() { "terse".to_owned() } else { names.join(" ") }
}

/// Where configuration comes from, and the exit codes.
fn after_help() -> String {
    let mut text = format!(
        "Configuration: a flag overrides its environment variable, which overrides terse.toml (there the key is\n\
         written with '_', such as public_url = \"https://trs.example\"), which overrides the default.\n\
         A variable with {FILE_SUFFIX} after its name reads the value from a file. Several shards stand in\n\
         terse.toml:\n\n  \
         [[shard]]\n  name = \"a\"\n  slots = \"0-2047\"\n  store = \"sqlite\"\n\n\
         Every key, with its default:\n"
    );
    for key in KEYS {
        let _ = writeln!(text, "  {:<30} {}", key.variable, key.default_text);
    }
    text.push_str("\nExit codes: 0 all went well");
    for (exit, meaning) in Exit::ALL {
        let _ = write!(text, ", {} {meaning}", exit as u8);
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(line: &str) -> Result<Parsed, StartError> {
        parse(line.split(' ').map(OsString::from))
    }

    fn action(line: &str) -> Cli {
        match parsed(line).unwrap() {
            Parsed::Do(cli) => *cli,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn key_flags_are_known_before_and_after_the_subcommand() {
        for line in
            ["terse --listen 1.2.3.4:5 serve", "terse serve --listen 1.2.3.4:5", "terse serve --listen=1.2.3.4:5"]
        {
            let flags = action(line).keys.0;
            assert_eq!(flags.len(), 1);
            assert_eq!((flags[0].0.name, flags[0].1.as_str()), ("listen", "1.2.3.4:5"));
        }
        assert_eq!(action("terse keys list --config x.toml").config, Some("x.toml".into()));
    }

    #[test]
    fn roles_may_be_repeated_and_default_to_all() {
        let roles = |line| match action(line).action {
            Action::Serve { role } => role,
            other => panic!("{other:?}"),
        };
        assert_eq!(roles("terse serve"), [RoleName::All]);
        assert_eq!(roles("terse serve --role api --role redirect"), [RoleName::Api, RoleName::Redirect]);
    }

    #[test]
    fn a_usage_error_is_one_line_with_a_suggestion() {
        for (line, told) in [
            ("terse serve --lisen x", "did you mean '--listen'?"),
            ("terse serv", "did you mean 'serve'?"),
            ("terse serve --role redirct", "did you mean 'redirect'?"),
            ("terse serve --role web", ": it may be all, redirect, api, analytics (see terse serve --help)"),
            ("terse keys create --role a]b", "'a]b' for '--role <ROLE>': it may be admin, writer, reader (see"),
            ("terse replay --into", "(see terse replay --help)"),
            ("terse keys create --role admin", "--name"),
            ("terse keys create --role admin", "(see terse keys create --help)"),
            ("terse replay", "(see terse replay --help)"),
            ("terse frobnicate", "(see terse --help)"),
            ("terse serve --listen", "--listen"),
            ("terse frobnicate", "frobnicate"),
        ] {
            let error = parsed(line).unwrap_err();
            assert_eq!(error.exit, Exit::Config);
            assert!(error.message.contains(told) && !error.message.contains('\n'), "{line}: {error}");
        }
    }

    #[test]
    fn the_long_help_names_every_key_and_every_exit_code() {
        let Parsed::Print(help) = parsed("terse serve --help").unwrap() else { panic!("no help") };
        for key in KEYS {
            assert!(help.contains(key.variable) && help.contains(key.flag), "{}", key.name);
        }
        for (exit, meaning) in Exit::ALL {
            assert!(help.contains(&format!("{} {meaning}", exit as u8)));
        }
    }

    #[test]
    fn the_first_help_names_the_commands_and_where_the_settings_are() {
        let help = |line| match parsed(line).unwrap() {
            Parsed::Print(help) => help,
            other => panic!("{line}: {other:?}"),
        };
        let first = help("terse --help");
        assert_eq!(first, help("terse -h"));
        assert!(first.lines().count() < 30 && first.contains("terse serve --help"), "{first}");
        for command in Cli::command().get_subcommands() {
            assert_eq!(first.contains(&format!("\n  {} ", command.get_name())), !command.is_hide_set(), "{first}");
        }
        assert!(!KEYS.iter().any(|key| first.contains(&format!("--{}", key.flag))), "{first}");
    }

    #[test]
    fn the_help_of_a_command_is_about_that_command() {
        let help = |line: &str| match parsed(line).unwrap() {
            Parsed::Print(help) => help,
            other => panic!("{line}: {other:?}"),
        };
        let with_settings = ["--listen <", "--store-readers <"];
        for line in ["terse keys create --help", "terse help dead list", "terse migrate -h", "terse replay --help"] {
            let text = help(line);
            assert!(!with_settings.iter().any(|flag| text.contains(flag)), "{line}: {text}");
            assert!(text.contains("--config <") && text.ends_with(FLAGS_HELP), "{line}: {text}");
        }
        assert!(help("terse keys create --help").contains("--expires <T>"));
        for line in ["terse quiz --help", "terse estimate -h"] {
            let text = help(line);
            assert!(!text.contains("--config") && !text.contains(FLAGS_HELP), "{line}: {text}");
        }
        assert!(with_settings.iter().all(|flag| help("terse serve --help").contains(flag)));
        assert_eq!(
            action("terse keys list --data-dir x").keys.0.len(),
            1,
            "a flag that is not listed is one all the same"
        );
    }

    #[test]
    fn flags_are_printed_without_their_values() {
        assert!(!format!("{:?}", action("terse serve --cache redis://:s3cret@h")).contains("s3cret"));
    }

    proptest! {
        #[test]
        fn any_command_line_is_understood_or_refused_in_one_line(
            words in proptest::collection::vec(
                "[a-z-]{0,12}|--[a-z-]{1,14}(=.{0,8})?|serve|keys|create|show|\\PC{0,10}",
                0..5,
            ),
        ) {
            let line = std::iter::once("terse".to_owned()).chain(words).map(OsString::from);
            if let Err(error) = parse(line) {
                prop_assert!(error.exit == Exit::Config && !error.message.contains('\n'), "{error}");
                prop_assert!(!error.message.is_empty());
            }
        }
    }
}
