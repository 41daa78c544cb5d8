//! `cargo xtask claims`: every number of the book, from where it comes to what it must be.
//!
//! `docs/claims.toml` gives each number a name, a kind and a check; the pages of
//! the book say `{{claim NAME}}` and never the number itself.
//!
//! | kind | its value | the tier *fast* | the tier *lab* |
//! |---|---|---|---|
//! | estimated, simulated | what its command prints, at a place of the JSON | runs the command | the same |
//! | measured | a place in a file of `docs/measurements/` | reads the file | runs the command first, which writes the file |
//! | cited | stands in the file of claims, with its source | looks for the text in the source, if that is a file of ours | the same |
//!
//! Bounds: a command of the fast tier has [`FAST_LIMIT`], one of the lab [`LAB_LIMIT`].

pub mod file;
pub mod value;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use self::file::{Claim, Claims, Kind, Limit};
use crate::process::Supervisor;
use crate::suite::BUILD_ALL;
use crate::workspace::{Workspace, cargo, in_ci};

/// How long one command of the fast tier may take.
pub const FAST_LIMIT: Duration = Duration::from_secs(60);
/// Bytes of what a command prints that are read.
const MAX_OUTPUT: u64 = 16 << 20;
/// How long one command of the lab may take.
pub const LAB_LIMIT: Duration = Duration::from_secs(2 * 60 * 60);

/// Arguments of `cargo xtask claims`.
#[derive(clap::Subcommand)]
pub enum Options {
    /// Work out every claim and check it
    Verify {
        /// What is run: `fast` reads the files of measurements, `lab` measures again
        #[arg(long, value_enum, default_value = "fast")]
        tier: Tier,
        /// Only these claims
        #[arg(value_name = "ID")]
        only: Vec<String>,
    },
}

/// How much is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Tier {
    /// Estimates, simulations and what stands in files.
    Fast,
    /// Measurements, too: hours, on a machine that does nothing else.
    Lab,
}

/// Runs the subcommand.
///
/// # Errors
/// When a claim can't be worked out or is not true.
pub fn run(workspace: &Workspace, supervisor: &Supervisor, options: &Options) -> Result<()> {
    let Options::Verify { tier, only } = options;
    let claims = Claims::read(workspace)?;
    if let Some(unknown) = only.iter().find(|id| claims.get(id).is_none()) {
        bail!("there is no claim '{unknown}'");
    }
    let wanted: Vec<&Claim> = claims.all().filter(|claim| only.is_empty() || only.contains(&claim.id)).collect();
    if *tier == Tier::Lab {
        measure_again(workspace, supervisor, &wanted)?;
    }
    let values = Values::work_out(workspace, supervisor, &claims)?;
    let mut failed = 0;
    for claim in wanted {
        let value = values.of(&claim.id)?;
        let problems = problems(claim, &values)?;
        let verdict = if problems.is_empty() { "ok  " } else { "FAIL" };
        println!("{verdict} {:<28} {:>12}  {}", claim.id, claim.shown(value), claim.text);
        for problem in &problems {
            println!("     {problem}");
        }
        failed += usize::from(!problems.is_empty());
    }
    if failed > 0 {
        bail!("{failed} claims are not true");
    }
    Ok(())
}

/// Runs each command of the measured claims once.
fn measure_again(workspace: &Workspace, supervisor: &Supervisor, claims: &[&Claim]) -> Result<()> {
    let measured = claims.iter().filter(|claim| claim.kind == Kind::Measured);
    let commands: BTreeSet<&str> = measured.filter_map(|claim| claim.command.as_deref()).collect();
    for command in commands {
        println!("{command}");
        let words = words(command)?;
        let mut command = match words.split_first() {
            Some((first, rest)) if first == "cargo" => {
                let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
                cargo(&rest)
            }
            _ => bail!("'{command}' is no command of cargo"),
        };
        supervisor.run_ok(command.current_dir(&workspace.root), LAB_LIMIT)?;
    }
    Ok(())
}

/// The words of a command; `'…'` is one word.
fn words(command: &str) -> Result<Vec<String>> {
    let mut words = vec![];
    for (place, part) in command.split('\'').enumerate() {
        if place % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    if command.matches('\'').count() % 2 == 1 || words.is_empty() {
        bail!("'{command}' is no command");
    }
    Ok(words)
}

/// The value of each claim and the text of each output, worked out once.
#[derive(Debug, Default)]
pub struct Values {
    numbers: BTreeMap<String, f64>,
    texts: BTreeMap<String, String>,
}

impl Values {
    /// These values, for tests of what uses them.
    #[cfg(test)]
    pub(crate) fn known<const N: usize>(numbers: [(&str, f64); N], texts: BTreeMap<String, String>) -> Self {
        Self { numbers: numbers.into_iter().map(|(id, value)| (id.to_owned(), value)).collect(), texts }
    }

    /// Runs what has to be run, each command once, and reads what has to be read.
    ///
    /// # Errors
    /// When a command fails, or a value is not where the claim says.
    pub fn work_out(workspace: &Workspace, supervisor: &Supervisor, claims: &Claims) -> Result<Self> {
        // In CI everything is built already, with the features of everything.
        let what: &[&str] = if in_ci() { BUILD_ALL } else { &["--package", "terse-server", "--bin", "terse"] };
        let terse = workspace.build(supervisor, what, "terse")?;
        let place = workspace.target.join("claims");
        fs::create_dir_all(&place).with_context(|| place.display().to_string())?;
        let mut printed: BTreeMap<String, String> = BTreeMap::new();
        let mut print = |command: &str| -> Result<String> {
            if let Some(text) = printed.get(command) {
                return Ok(text.clone());
            }
            let words = words(command)?;
            let [first, rest @ ..] = &words[..] else { bail!("'{command}' is no command") };
            if first != "terse" {
                bail!("'{command}': only commands of terse are run in the fast tier");
            }
            let mut child = Command::new(&terse);
            child.args(rest).current_dir(&place).stdin(Stdio::null());
            let text = output_of(supervisor, &mut child).with_context(|| command.to_owned())?;
            printed.insert(command.to_owned(), text.clone());
            Ok(text)
        };
        let mut values = Self::default();
        for output in &claims.file.output {
            values.texts.insert(output.id.clone(), print(&output.command)?.trim_end().to_owned());
        }
        let mut files: BTreeMap<&str, Value> = BTreeMap::new();
        for claim in claims.all() {
            let number = match claim.kind {
                Kind::Cited => claim.value.with_context(|| format!("claim '{}' has no value", claim.id))?,
                Kind::Measured => {
                    let name = claim.file.as_deref().unwrap_or_default();
                    if !files.contains_key(name) {
                        files.insert(name, read_json(workspace, name)?);
                    }
                    claim.look_up(&files[name])?
                }
                Kind::Estimated | Kind::Simulated => {
                    let text = print(claim.command.as_deref().unwrap_or_default())?;
                    let json = serde_json::from_str(&text).with_context(|| format!("claim '{}'", claim.id))?;
                    claim.look_up(&json)?
                }
            };
            values.numbers.insert(claim.id.clone(), number * claim.scale);
        }
        cited_texts_stand_in_their_sources(workspace, claims)?;
        Ok(values)
    }

    /// The value of this claim.
    ///
    /// # Errors
    /// When there is no such claim.
    pub fn of(&self, id: &str) -> Result<f64> {
        self.numbers.get(id).copied().with_context(|| format!("there is no claim '{id}'"))
    }

    /// The text of this output.
    ///
    /// # Errors
    /// When there is no such output.
    pub fn text(&self, id: &str) -> Result<&str> {
        self.texts.get(id).map(String::as_str).with_context(|| format!("there is no output '{id}'"))
    }
}

/// What a command prints.
pub(crate) fn output_of(supervisor: &Supervisor, command: &mut Command) -> Result<String> {
    let mut group = supervisor.spawn(command.stdout(Stdio::piped()))?;
    let mut text = String::new();
    group.take_stdout().context("no output")?.take(MAX_OUTPUT).read_to_string(&mut text)?;
    let status = group.wait(FAST_LIMIT)?;
    if !status.success() {
        bail!("{status}");
    }
    Ok(text)
}

fn read_json(workspace: &Workspace, name: &str) -> Result<Value> {
    let path = workspace.root.join("docs/measurements").join(name);
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

fn cited_texts_stand_in_their_sources(workspace: &Workspace, claims: &Claims) -> Result<()> {
    for claim in claims.all().filter(|claim| claim.kind == Kind::Cited) {
        let (Some(source), Some(text)) = (&claim.source, &claim.contains) else { continue };
        let path = workspace.root.join(source);
        let found = fs::read_to_string(&path).with_context(|| format!("claim '{}': {source}", claim.id))?;
        if !found.contains(text) {
            bail!("claim '{}': '{text}' does not stand in {source}", claim.id);
        }
    }
    Ok(())
}

/// What is not true of this claim.
///
/// # Errors
/// When its check names a claim that is not there.
pub fn problems(claim: &Claim, values: &Values) -> Result<Vec<String>> {
    let value = values.of(&claim.id)?;
    let mut problems = vec![];
    for limit in claim.check.limits() {
        let (holds, told) = match limit {
            Limit::Equals(other, within) => {
                ((value - other).abs() <= within * other.abs(), format!("equal to {other} within {within}"))
            }
            Limit::AtLeast(least) => (value >= least, format!("at least {least}")),
            Limit::AtMost(most) => (value <= most, format!("at most {most}")),
            Limit::Below(id) => (value < values.of(id)?, format!("below '{id}', which is {}", values.of(id)?)),
            Limit::Above(id) => (value > values.of(id)?, format!("above '{id}', which is {}", values.of(id)?)),
            Limit::Ratio(ratio) => {
                let times = value / values.of(&ratio.of)?;
                let holds = (ratio.at_least..=ratio.at_most).contains(&times);
                (holds, format!("{} to {} times '{}', not {times}", ratio.at_least, ratio.at_most, ratio.of))
            }
        };
        if !holds {
            problems.push(format!("{value} is to be {told}"));
        }
    }
    Ok(problems)
}

#[cfg(test)]
mod tests;
