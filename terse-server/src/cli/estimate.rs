//! The flags of `terse estimate`, one for each input, made from the estimates' own table; and those of `terse quiz`.

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches, ValueEnum};
use terse_estimate::{FIELDS, Field, PRESETS, Period};

/// What to estimate.
#[derive(Debug, Args)]
pub struct EstimateOrder {
    /// Begin with these inputs: terse's own, or those of a guide
    #[arg(long, value_name = "NAME", default_value = "ours", value_parser = presets())]
    pub preset: String,
    /// The period in which links are counted
    #[arg(long, value_enum, value_name = "PERIOD")]
    pub per: Option<PeriodName>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Print tables in Markdown
    #[arg(long, conflicts_with = "json")]
    pub markdown: bool,
    /// The inputs that were given as flags.
    #[command(flatten)]
    pub inputs: InputFlags,
}

/// What to ask.
#[derive(Debug, Args)]
pub struct QuizOrder {
    /// Ask about this step of the interview alone, 1 to 5
    #[arg(long, value_name = "STEP", value_parser = clap::value_parser!(u8).range(1..=5))]
    pub step: Option<u8>,
    /// Questions to ask, 1 to 1000
    #[arg(long, value_name = "N", default_value = "10", value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub questions: u16,
    /// Draw the same questions as another time; without it, others each time
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Print all questions with their answers in Markdown, and ask nothing
    #[arg(long, conflicts_with_all = ["step", "questions", "seed"])]
    pub markdown: bool,
}

fn presets() -> PossibleValuesParser {
    PossibleValuesParser::new(PRESETS.iter().map(|preset| preset.name))
}

/// A period on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PeriodName {
    /// 30 days, 12 of them a year
    Month,
    /// 365 of them a year
    Day,
}

impl From<PeriodName> for Period {
    fn from(name: PeriodName) -> Self {
        match name {
            PeriodName::Month => Self::Month,
            PeriodName::Day => Self::Day,
        }
    }
}

/// The inputs that were given as flags, by their names.
#[derive(Clone, Debug, Default)]
pub struct InputFlags(pub Vec<(&'static str, String)>);

impl Args for InputFlags {
    fn augment_args(command: Command) -> Command {
        let ours = PRESETS.first().map(|preset| preset.inputs);
        let own = |field: &Field| ours.map_or_else(String::new, |inputs| field.unit.show((field.get)(&inputs)));
        FIELDS.iter().fold(command, |command, field| {
            let [least, most] = [field.least, field.most].map(|bound| field.unit.show(bound));
            let help = format!("{}, {least} to {most} [ours: {}]", field.help, own(field));
            command.arg(Arg::new(field.flag).long(field.flag).value_name("NUMBER").help(help).help_heading("Inputs"))
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for InputFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |field: &'static Field| Some((field.flag, matches.get_one::<String>(field.flag)?.clone()));
        Ok(Self(FIELDS.iter().filter_map(given).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
